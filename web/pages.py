"""The pages for people above the repositories: signing in, one's account, organizations and their members.

A page is a view with :func:`web.access.page_needs`; its forms carry a CSRF token, its errors are pages, too.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from urllib.parse import urlsplit

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Unauthorized
from werkzeug.security import generate_password_hash

from storage.errors import (
    AlreadyExists,
    InvalidName,
    OrganizationNotFound,
    RepositoryNotFound,
    StorageDamaged,
    TokenNotFound,
    UserNotFound,
)
from storage.events import newest_events
from storage.names import check_user_name
from storage.registry import Organization
from storage.repository import Repository, RepositorySettings
from storage.rights import ScopeMissing
from storage.tokens import Scope
from storage.users import Role, User
from web.access import (
    NO_CREDENTIAL,
    caller_of_password,
    page_needs,
    registry,
    sign_in,
    sign_out,
)
from web.fields import Fields
from web.frame import held_scopes, open_organization, organization_name, person

pages = Blueprint("pages", __name__)
pages.add_app_template_global(organization_name)


# --- signing in ---


@pages.get("/login")
@page_needs()
def login() -> ResponseReturnValue:
    """The form to sign in with."""
    return render_template("login.html", next=local_path(request.args.get("next", "")))


@pages.post("/login")
@page_needs()
def log_in() -> ResponseReturnValue:
    """Sign in, and go where the visitor wanted to go."""
    username, password = request.form.get("username", "").strip().lower(), request.form.get("password", "")
    caller = caller_of_password(username, password)
    if caller is None or caller.user is None:
        page = render_template(
            "login.html",
            next=local_path(request.form.get("next", "")),
            username=username,
            error="There is no user with that name and password.",
        )
        return page, Unauthorized.code
    sign_in(caller.user)
    return redirect(local_path(request.form.get("next", "")), HTTPStatus.SEE_OTHER)


@pages.get("/logout")
@page_needs()
def logout() -> ResponseReturnValue:
    """Ask whether to sign out: a link must not do it, or any page elsewhere could."""
    return render_template("logout.html")


@pages.post("/logout")
@page_needs()
def log_out() -> ResponseReturnValue:
    """Sign out."""
    sign_out()
    flash("You are signed out.")
    return redirect(url_for(".login"), HTTPStatus.SEE_OTHER)


def local_path(target: str) -> str:
    """Return *target* if it is a path on this very server, else the start page; never another site."""
    try:
        parts = urlsplit(target)
    except ValueError:
        return "/"
    is_local = target.startswith("/") and not target.startswith("//") and not parts.scheme and not parts.netloc
    return target if is_local and "\\" not in target and target.isprintable() else "/"


# --- one's account ---

MIN_PASSWORD, MAX_PASSWORD = 8, 1024  # characters
MAX_TOKEN_DESCRIPTION = 200  # characters
SCOPE_WORDS = {
    Scope.READ_PACKAGES: "install packages",
    Scope.WRITE_PACKAGES: "publish and yank packages",
    Scope.DELETE_PACKAGES: "delete packages",
    Scope.READ_REGISTRIES: "see repositories",
    Scope.WRITE_REGISTRIES: "make and change repositories",
    Scope.DELETE_REGISTRIES: "delete repositories",
}
LIFETIMES = {"7": "7 days", "30": "30 days", "90": "90 days", "365": "1 year", "": "without end"}  # by days


@pages.get("/account")
@page_needs(signed_in=True)
def account() -> ResponseReturnValue:
    """One's own tokens and password."""
    return account_page(Fields({}))


def account_page(fields: Fields, **values: object) -> str:
    """Render the account; *fields* is what was typed into the form that is shown again."""
    user = person()
    tokens = [token for token in registry().tokens.list() if token.user == user.name]
    return render_template(
        "account.html",
        user=user,
        tokens=[(token, registry().tokens.last_use(token.id)) for token in reversed(tokens)],
        places=token_places(user),
        scopes=SCOPE_WORDS,
        lifetimes=LIFETIMES,
        typed=fields.typed,
        chosen_scopes=chosen_scopes(fields) if fields.typed else [Scope.READ_PACKAGES],
        errors=fields.errors,
        **values,
    )


def token_places(user: User) -> dict[str, list[str]]:
    """Return what a token of *user* may be for: the repositories of each organization, by its slug."""
    places = {}
    for org in sorted(user.roles):
        places[org] = [f"{org}/{repository.slug}" for repository in registry().repositories(org)]
    return places


@pages.post("/account/tokens")
@page_needs(signed_in=True)
def create_token() -> ResponseReturnValue:
    """Make a token of one's own; it is shown on the page that answers, and never again."""
    user, fields = person(), Fields(request.form)
    description = fields.line("description", MAX_TOKEN_DESCRIPTION, required=True)
    places = token_places(user)
    place = fields.choice("place", {*places, *(repository for listed in places.values() for repository in listed)})
    days = fields.choice("days", LIFETIMES)
    org, _, repo = place.partition("/")
    scopes = frozenset(chosen_scopes(fields))
    missing = scopes - user.scopes(org)
    if not scopes:
        fields.errors["scope"] = "Choose at least one."
    elif missing and "place" not in fields.errors:
        words = ", ".join(SCOPE_WORDS[scope] for scope in SCOPE_WORDS if scope in missing)
        fields.errors["scope"] = f"Your role in {org} does not allow you to {words}."
    if not fields.is_good:
        return account_page(fields, open_form=True), HTTPStatus.UNPROCESSABLE_ENTITY
    token, text = registry().tokens.create(
        org,
        repo or None,
        scopes,
        user.actor,
        description=description,
        user=user.name,
        lifetime=timedelta(days=int(days)) if days else None,
    )
    return account_page(Fields({}), made=token, secret=text)


def chosen_scopes(fields: Fields) -> list[Scope]:
    """Return the scopes whose boxes are checked."""
    return [scope for scope in SCOPE_WORDS if fields.is_checked(f"scope-{scope}")]


@pages.post("/account/tokens/<token_id>/revoke")
@page_needs(signed_in=True)
def revoke_token(token_id: str) -> ResponseReturnValue:
    """Make one of one's own tokens worthless."""
    token = registry().tokens.get(token_id)
    if token.user != person().name:
        raise TokenNotFound(token_id)
    registry().tokens.revoke(token_id)
    flash("The token is revoked.")
    return redirect(url_for(".account"), HTTPStatus.SEE_OTHER)


@pages.post("/account/password")
@page_needs(signed_in=True)
def change_password() -> ResponseReturnValue:
    """Change one's password; every other session ends."""
    user, fields = person(), Fields(request.form)
    new = request.form.get("new", "")
    if not MIN_PASSWORD <= len(new) <= MAX_PASSWORD:
        fields.errors["new"] = f"Use {MIN_PASSWORD} to {MAX_PASSWORD:,} characters."
    elif new != request.form.get("again", ""):
        fields.errors["again"] = "This is not the same."
    if caller_of_password(user.name, request.form.get("current", "")) is None:
        fields.errors["current"] = "This is not your password."
    if not fields.is_good:
        return account_page(Fields({}), password_errors=fields.errors), HTTPStatus.UNPROCESSABLE_ENTITY
    registry().users.change_password(user.name, generate_password_hash(new))
    sign_in(registry().users.get(user.name))
    flash("Your password is changed; you are signed out everywhere else.")
    return redirect(url_for(".account"), HTTPStatus.SEE_OTHER)


# --- organizations ---


@pages.get("/")
@page_needs(signed_in=True)
def start() -> ResponseReturnValue:
    """The organizations that the visitor may see; with exactly one, straight to it."""
    organizations = visible_organizations()
    if len(organizations) == 1:
        return redirect(url_for(".repository_list", org=organizations[0].slug), HTTPStatus.SEE_OTHER)
    return organization_page(organizations)


@pages.get("/organizations")
@page_needs(signed_in=True)
def organization_list() -> ResponseReturnValue:
    """The organizations that the visitor may see."""
    return organization_page(visible_organizations())


def organization_page(organizations: list[Organization]) -> str:
    """Render the list of *organizations*."""
    user = g.caller.user
    listed = [(organization, user.roles.get(organization.slug) if user else None) for organization in organizations]
    return render_template("organizations.html", organizations=listed, may_create=is_admin_somewhere(user))


def visible_organizations() -> list[Organization]:
    """Return the organizations in which the visitor may do anything."""
    return [organization for organization in registry().organizations() if held_scopes(organization.slug, None)]


def is_admin_somewhere(user: User | None) -> bool:
    """Whether *user* may make organizations: there is nobody above the admins of organizations but the host's."""
    return user is not None and Role.ADMIN in user.roles.values()


def admin_somewhere() -> User:
    """Return who is signed in.

    :raises ScopeMissing: if that is no admin of any organization.
    """
    user = person()
    if not is_admin_somewhere(user):
        raise ScopeMissing(Scope.WRITE_REGISTRIES, "any organization")
    return user


@pages.get("/organizations/new")
@page_needs(signed_in=True)
def new_organization() -> ResponseReturnValue:
    """The form for a new organization."""
    admin_somewhere()
    return render_template("new_organization.html", typed={}, errors={})


@pages.post("/organizations/new")
@page_needs(signed_in=True)
def create_organization() -> ResponseReturnValue:
    """Make an organization, with whoever is asking as its admin."""
    user, fields = admin_somewhere(), Fields(request.form)
    name, slug = fields.organization_name("name")
    if fields.is_good:
        try:
            registry().create_organization(slug, name)
            registry().users.change_role(user.name, slug, Role.ADMIN)
            flash(f"The organization {name} is made.")
            return redirect(url_for(".repository_list", org=slug), HTTPStatus.SEE_OTHER)
        except AlreadyExists:
            fields.errors["name"] = f"There is an organization {slug} already."
    page = render_template("new_organization.html", typed=fields.typed, errors=fields.errors)
    return page, HTTPStatus.UNPROCESSABLE_ENTITY


# --- repositories of an organization ---


@dataclass(frozen=True, slots=True)
class RepositoryGlance:
    """One repository on the list."""

    repository: Repository
    settings: RepositorySettings
    projects: int
    pushed: datetime | None  # when the last file came; None: never, or too many other things have happened since


@pages.get("/<org>/")
@page_needs()
def repository_list(org: str) -> ResponseReturnValue:
    """The repositories of an organization; who is no member sees the public ones, if there are any."""
    rights = held_scopes(org, None)
    glances = [glance for glance in glances_of(org) if rights or not glance.settings.private]
    if not rights and not glances:
        raise OrganizationNotFound(org) if g.caller is not None else Unauthorized(NO_CREDENTIAL)
    return render_template(
        "repositories.html", organization=registry().organization(org), glances=glances, rights=rights
    )


def glances_of(org: str) -> list[RepositoryGlance]:
    """Return the repositories of an organization that are whole, by name."""
    glances = []
    for repository in registry().repositories(org):
        try:
            settings = repository.settings
        except (StorageDamaged, RepositoryNotFound):  # 'packhouse check' says how
            continue
        published = newest_events(repository.tree.events_file, lambda event: event.kind == "published", number=1)
        pushed = published.events[0].time if published.events else None
        glances.append(RepositoryGlance(repository, settings, repository.count_projects(), pushed))
    return sorted(glances, key=lambda glance: (glance.settings.name.casefold(), glance.repository.slug))


@pages.get("/<org>/new")
@page_needs(signed_in=True)
def new_repository(org: str) -> ResponseReturnValue:
    """The form for a new repository."""
    organization = open_organization(org, Scope.WRITE_REGISTRIES)
    return render_template("new_repository.html", organization=organization, typed={"private": "1"}, errors={})


@pages.post("/<org>/new")
@page_needs(signed_in=True)
def create_repository(org: str) -> ResponseReturnValue:
    """Make a repository and go there."""
    organization, fields = open_organization(org, Scope.WRITE_REGISTRIES), Fields(request.form)
    name, slug = fields.repository_name("name")
    settings = RepositorySettings(
        name=name,
        description=fields.line("description"),
        emoji=fields.emoji("emoji"),
        color=fields.color("color"),
        private=fields.is_checked("private"),
    )
    fields.choice("type", {"python"})
    if fields.is_good:
        try:
            repository = registry().create_repository(org, slug, settings)
            repository.record("repository created", g.caller.actor, name=name, private=settings.private)
            return redirect(url_for("repository_pages.show", org=org, repo=slug), HTTPStatus.SEE_OTHER)
        except AlreadyExists:
            fields.errors["name"] = f"There is a repository {org}/{slug} already."
    page = render_template(
        "new_repository.html", organization=organization, typed=fields.typed, errors=fields.errors
    )
    return page, HTTPStatus.UNPROCESSABLE_ENTITY


# --- members of an organization ---


@pages.get("/<org>/members")
@page_needs(signed_in=True)
def member_list(org: str) -> ResponseReturnValue:
    """The people of an organization and their roles."""
    return member_page(open_organization(org, Scope.WRITE_REGISTRIES), Fields({}))


def member_page(organization: Organization, fields: Fields, **values: object) -> str:
    """Render the members; *fields* is what was typed to add one."""
    members = [user for user in registry().users.list() if organization.slug in user.roles]
    return render_template(
        "members.html",
        organization=organization,
        members=members,
        roles=list(Role),
        typed=fields.typed,
        errors=fields.errors,
        rights=held_scopes(organization.slug, None),
        **values,
    )


@pages.post("/<org>/members")
@page_needs(signed_in=True)
def add_member(org: str) -> ResponseReturnValue:
    """Give somebody a role; who is not known yet becomes a user, with a password that is shown once."""
    organization, fields = open_organization(org, Scope.WRITE_REGISTRIES), Fields(request.form)
    person()
    name, role = fields.line("username", required=True).lower(), fields.choice("role", list(Role))
    try:
        check_user_name(name)
    except InvalidName as error:
        fields.errors.setdefault("username", f"{error.rule[0].upper()}{error.rule[1:]}.")
    if fields.is_good and any(user.name == name and org in user.roles for user in registry().users.list()):
        fields.errors["username"] = f"{name} is a member already; change the role in the list."
    if not fields.is_good:
        return member_page(organization, fields), HTTPStatus.UNPROCESSABLE_ENTITY
    try:
        registry().users.change_role(name, org, Role(role))
    except UserNotFound:
        password = secrets.token_urlsafe(12)
        registry().users.create(name, generate_password_hash(password), {org: Role(role)})
        return member_page(organization, Fields({}), made=name, secret=password)
    flash(f"{name} is now a member, as {role}.")
    return redirect(url_for(".member_list", org=org), HTTPStatus.SEE_OTHER)


@pages.post("/<org>/members/<name>")
@page_needs(signed_in=True)
def change_member(org: str, name: str) -> ResponseReturnValue:
    """Give a member another role, or none any more."""
    organization, fields = open_organization(org, Scope.WRITE_REGISTRIES), Fields(request.form)
    person()
    wanted = "" if fields.is_checked("remove") else fields.choice("role", list(Role))
    admins = [user.name for user in registry().users.list() if user.roles.get(org) is Role.ADMIN]
    if org not in registry().users.get(name).roles:
        raise UserNotFound(name)
    if admins == [name] and wanted != Role.ADMIN:
        fields.errors["role"] = f"{name} is the only admin; make somebody else admin first."
    if not fields.is_good:
        page = member_page(organization, Fields({}), wrong_member=name, wrong=fields.errors["role"])
        return page, HTTPStatus.UNPROCESSABLE_ENTITY
    registry().users.change_role(name, org, Role(wanted) if wanted else None)
    flash(f"{name} is now {wanted}." if wanted else f"{name} is no longer a member.")
    return redirect(url_for(".member_list", org=org), HTTPStatus.SEE_OTHER)
