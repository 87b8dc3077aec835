"""The settings of a repository: what it is called, who sees it, its tokens, its trash, and its end."""

from __future__ import annotations

from http import HTTPStatus

from flask import Blueprint, flash, g, redirect, request, url_for
from flask.typing import ResponseReturnValue

from storage.errors import (
    AlreadyExists,
    FileAlreadyExists,
    InvalidName,
    InvalidValue,
    ProjectNotFound,
    TokenNotFound,
)
from storage.names import normalize_project
from storage.repository import Repository
from storage.statuses import MAX_REASON, Status, parse_status
from storage.tokens import Scope, Token
from storage.trash import TrashEntry
from web.access import page_needs, registry
from web.fields import MAX_NAME, Fields
from web.frame import PAGE_SIZE, page_of_list, person, render_in_repository
from web.pages import MAX_TOKEN_DESCRIPTION, SCOPE_WORDS

settings_pages = Blueprint("settings_pages", __name__, url_prefix="/<org>/<repo>/settings")

MAX_TRASH_DAYS = 36_500


# --- general ---


@settings_pages.get("")
@page_needs(Scope.WRITE_REGISTRIES)
def general(repository: Repository) -> ResponseReturnValue:
    """All settings but the tokens and the trash."""
    return general_page(repository)


def general_page(repository: Repository, fields: Fields | None = None, **values: object) -> str:
    """Render the settings; *fields* is what was typed into the form that is shown again."""
    held = repository.settings
    stored = {"name": held.name, "description": held.description, "emoji": held.emoji, "color": held.color}
    return render_in_repository(
        "settings.html",
        repository,
        "settings",
        page="general",
        typed=fields.typed if fields is not None else stored,
        errors=fields.errors if fields is not None else {},
        **values,
    )


@settings_pages.post("")
@page_needs(Scope.WRITE_REGISTRIES)
def change_general(repository: Repository) -> ResponseReturnValue:
    """Change name, description, emoji and colour; another address only after a warning."""
    fields, held = Fields(request.form), repository.settings
    name, slug = fields.text("name"), repository.slug
    if name != held.name:
        name, slug = fields.repository_name("name")
    change: dict[str, object] = {
        "name": name,
        "description": fields.line("description"),
        "emoji": fields.emoji("emoji"),
        "color": fields.color("color"),
    }
    if fields.is_good and slug != repository.slug:
        if not fields.is_checked("rename"):
            return general_page(repository, fields, new_slug=slug), HTTPStatus.UNPROCESSABLE_ENTITY
        try:
            renamed = registry().rename_repository(repository.org, repository.slug, slug)
        except AlreadyExists:
            fields.errors["name"] = f"There is a repository {repository.org}/{slug} already."
        else:
            renamed.record("repository renamed", g.caller.actor, old=repository.slug, new=slug)
            repository = renamed
    if not fields.is_good:
        return general_page(repository, fields), HTTPStatus.UNPROCESSABLE_ENTITY
    return change_settings(repository, change)


def change_settings(repository: Repository, change: dict[str, object]) -> ResponseReturnValue:
    """Change settings, note which, and go back to their page."""
    before = repository.settings
    changed = sorted(key for key, value in change.items() if getattr(before, key) != value)
    if changed:
        repository.change_settings(change)
        repository.record("settings changed", g.caller.actor, settings=", ".join(changed))
    flash("The settings are saved." if changed else "Nothing was changed.")
    address = url_for(".general", org=repository.org, repo=repository.slug)
    return redirect(address, HTTPStatus.SEE_OTHER)


@settings_pages.post("/visibility")
@page_needs(Scope.WRITE_REGISTRIES)
def change_visibility(repository: Repository) -> ResponseReturnValue:
    """Make the repository private, or public once that is confirmed."""
    fields = Fields(request.form)
    private = fields.choice("private", {"0", "1"}) == "1"
    if fields.is_good and not private and not fields.is_checked("sure"):
        fields.errors["sure"] = "Check this box first."
    if not fields.is_good:
        return general_page(repository, visibility_error=fields.errors), HTTPStatus.UNPROCESSABLE_ENTITY
    return change_settings(repository, {"private": private})


@settings_pages.post("/files")
@page_needs(Scope.WRITE_REGISTRIES)
def change_files(repository: Repository) -> ResponseReturnValue:
    """Change what is accepted, and how long the trash is kept."""
    fields = Fields(request.form)
    change: dict[str, object] = {
        "reuse_filenames": fields.is_checked("reuse_filenames"),
        "strict_record": fields.is_checked("strict_record"),
        "trash_days": fields.number("trash_days", MAX_TRASH_DAYS),
    }
    if not fields.is_good:
        page = general_page(repository, files_error=fields.errors, files_typed=fields.typed)
        return page, HTTPStatus.UNPROCESSABLE_ENTITY
    return change_settings(repository, change)


@settings_pages.post("/delete")
@page_needs(Scope.DELETE_REGISTRIES)
def delete(repository: Repository) -> ResponseReturnValue:
    """Delete the repository for good, after its name was typed."""
    typed = request.form.get("confirm", "").strip()
    if typed not in (repository.settings.name, repository.slug):
        page = general_page(repository, delete_error=f"Type {repository.settings.name} to delete the repository.")
        return page, HTTPStatus.UNPROCESSABLE_ENTITY
    registry().delete_repository(repository.org, repository.slug)
    flash(f"The repository {repository.slug} is deleted.")
    return redirect(url_for("pages.repository_list", org=repository.org), HTTPStatus.SEE_OTHER)


# --- tokens ---


def is_registry_token(token: Token, repository: Repository) -> bool:
    """Whether *token* is for installing from this repository, and nobody's own (contract.md section 3)."""
    here = token.org == repository.org and token.repo == repository.slug
    return here and token.user is None and token.scopes == {Scope.READ_PACKAGES}


@settings_pages.get("/tokens")
@page_needs(Scope.WRITE_REGISTRIES)
def tokens(repository: Repository) -> ResponseReturnValue:
    """The registry tokens, hidden while the repository is public, and all others that open it."""
    return token_page(repository, Fields({}))


def token_page(repository: Repository, fields: Fields, **values: object) -> str:
    """Render the tokens; *fields* is what was typed to make one."""
    reaching = [t for t in registry().tokens.list(repository.org) if t.repo in (None, repository.slug)]
    rows = [(token, registry().tokens.last_use(token.id)) for token in reversed(reaching)]
    return render_in_repository(
        "settings_tokens.html",
        repository,
        "settings",
        page="tokens",
        registry_tokens=[row for row in rows if is_registry_token(row[0], repository)],
        other_tokens=[row for row in rows if not is_registry_token(row[0], repository)],
        scopes=SCOPE_WORDS,
        typed=fields.typed,
        errors=fields.errors,
        **values,
    )


@settings_pages.post("/tokens")
@page_needs(Scope.WRITE_REGISTRIES)
def create_token(repository: Repository) -> ResponseReturnValue:
    """Make a registry token; it is shown on the page that answers, and never again."""
    user, fields = person(), Fields(request.form)
    description = fields.line("description", MAX_TOKEN_DESCRIPTION, required=True)
    if repository.settings.private is False:
        fields.errors["description"] = "A public repository needs no tokens for installing."
    if not fields.is_good:
        return token_page(repository, fields), HTTPStatus.UNPROCESSABLE_ENTITY
    token, text = registry().tokens.create(
        repository.org,
        repository.slug,
        frozenset({Scope.READ_PACKAGES}),
        user.actor,
        description=description,
    )
    repository.record("token created", g.caller.actor, description=description)
    return token_page(repository, Fields({}), made=token, secret=text)


@settings_pages.get("/tokens/<token_id>")
@page_needs(Scope.WRITE_REGISTRIES)
def edit_token(repository: Repository, token_id: str) -> ResponseReturnValue:
    """The form for another description."""
    token = registry_token(repository, token_id)
    return token_form(repository, token, Fields({"description": token.description}))


def token_form(repository: Repository, token: Token, fields: Fields) -> str:
    """Render the form with what was typed."""
    return render_in_repository(
        "settings_token.html",
        repository,
        "settings",
        page="tokens",
        token=token,
        typed=fields.typed,
        errors=fields.errors,
    )


@settings_pages.post("/tokens/<token_id>")
@page_needs(Scope.WRITE_REGISTRIES)
def describe_token(repository: Repository, token_id: str) -> ResponseReturnValue:
    """Give a registry token another description."""
    token, fields = registry_token(repository, token_id), Fields(request.form)
    description = fields.line("description", MAX_TOKEN_DESCRIPTION, required=True)
    if not fields.is_good:
        return token_form(repository, token, fields), HTTPStatus.UNPROCESSABLE_ENTITY
    registry().tokens.describe(token_id, description)
    flash("The description is saved.")
    return redirect(url_for(".tokens"), HTTPStatus.SEE_OTHER)


def registry_token(repository: Repository, token_id: str) -> Token:
    """Return a registry token of this repository.

    :raises TokenNotFound: if it is none.
    """
    token = registry().tokens.get(token_id)
    if not is_registry_token(token, repository) or not repository.settings.private:
        raise TokenNotFound(token_id)
    return token


@settings_pages.post("/tokens/<token_id>/delete")
@page_needs(Scope.WRITE_REGISTRIES)
def delete_token(repository: Repository, token_id: str) -> ResponseReturnValue:
    """Make a token worthless that opens this repository, whosever it is."""
    person()
    token = registry().tokens.get(token_id)
    if token.org != repository.org or token.repo not in (None, repository.slug):
        raise TokenNotFound(token_id)
    registry().tokens.revoke(token_id)
    repository.record("token revoked", g.caller.actor, description=token.description, token=token_id)
    flash("The token is deleted.")
    return redirect(url_for(".tokens"), HTTPStatus.SEE_OTHER)


# --- trash ---


@settings_pages.get("/trash")
@page_needs(Scope.DELETE_PACKAGES)
def trash(repository: Repository) -> ResponseReturnValue:
    """The deleted files, the last first."""
    repository.purge_expired()
    return trash_page(repository)


def trash_page(repository: Repository, error: str = "") -> str:
    """Render one page of the trash: what can be restored, or what is purged."""
    purged = request.args.get("show") == "purged"
    entries = sorted(repository.trash(), key=lambda entry: entry.deleted_at, reverse=True)
    shown = [entry for entry in entries if entry.purged is purged]
    page, last = page_of_list(request.args.get("page", ""), len(shown))
    return render_in_repository(
        "settings_trash.html",
        repository,
        "settings",
        page="trash",
        entries=shown[(page - 1) * PAGE_SIZE : page * PAGE_SIZE],
        restorable=sum(not entry.purged for entry in entries),
        purged=sum(entry.purged for entry in entries),
        shows_purged=purged,
        number=page,
        last=last,
        trash_url=lambda number: url_for(".trash", show="purged" if purged else None, page=number),
        error=error,
    )


@settings_pages.post("/trash/<project>/<entry_id>/restore")
@page_needs(Scope.DELETE_PACKAGES)
def restore(repository: Repository, project: str, entry_id: str) -> ResponseReturnValue:
    """Bring a deleted file back."""
    entry = deleted_file(repository, project, entry_id)
    try:
        restored = repository.restore_file(entry.sidecar.file.project, entry.id, g.caller.actor)
    except FileAlreadyExists as error:
        return trash_page(repository, str(error)), HTTPStatus.UNPROCESSABLE_ENTITY
    flash(f"{restored.file.filename} is back.")
    return redirect(url_for(".trash"), HTTPStatus.SEE_OTHER)


@settings_pages.get("/trash/<project>/<entry_id>/purge")
@page_needs(Scope.DELETE_PACKAGES)
def ask_to_purge(repository: Repository, project: str, entry_id: str) -> ResponseReturnValue:
    """Ask before a deleted file is gone for good."""
    entry = deleted_file(repository, project, entry_id)
    return render_in_repository("settings_purge.html", repository, "settings", page="trash", entry=entry)


@settings_pages.post("/trash/<project>/<entry_id>/purge")
@page_needs(Scope.DELETE_PACKAGES)
def purge(repository: Repository, project: str, entry_id: str) -> ResponseReturnValue:
    """Remove the bytes of a deleted file for good."""
    entry = deleted_file(repository, project, entry_id)
    repository.purge_file(entry.sidecar.file.project, entry.id, g.caller.actor)
    flash(f"{entry.sidecar.file.filename} is gone for good; its name stays taken.")
    return redirect(url_for(".trash"), HTTPStatus.SEE_OTHER)


def deleted_file(repository: Repository, project: str, entry_id: str) -> TrashEntry:
    """Return what the trash has of a project under that id.

    :raises FileNotFound: if it has not, or it is purged.
    :raises ProjectNotFound: if no project is called so.
    """
    try:
        return repository.deleted_file(normalize_project(project), entry_id)
    except InvalidName as error:
        raise ProjectNotFound(project) from error


# --- status of projects ---


@settings_pages.get("/status")
@page_needs(Scope.WRITE_REGISTRIES)
def statuses(repository: Repository) -> ResponseReturnValue:
    """The projects that are not active, and the form to change that of any."""
    return status_page(repository, Fields({}))


def status_page(repository: Repository, fields: Fields) -> str:
    """Render the statuses; *fields* is what was typed."""
    overview = registry().summaries(repository).overview()
    special = [summary for summary in overview.sorted_by("name") if summary.status != Status.ACTIVE]
    rows = [(summary, repository.status(summary.project)) for summary in special]
    return render_in_repository(
        "settings_status.html",
        repository,
        "settings",
        page="status",
        rows=rows,
        unread=overview.missing,
        statuses=list(Status),
        max_reason=MAX_REASON,
        typed=fields.typed,
        errors=fields.errors,
    )


@settings_pages.post("/status")
@page_needs(Scope.WRITE_REGISTRIES)
def change_status(repository: Repository) -> ResponseReturnValue:
    """Give a project another status (PEP 792)."""
    fields = Fields(request.form)
    name = fields.line("project", MAX_NAME * 2, required=True)
    wanted = fields.choice("status", list(Status))
    reason = fields.line("reason", MAX_REASON)
    if fields.is_good:
        try:
            repository.change_status(normalize_project(name), parse_status(wanted, reason), g.caller.actor)
            flash(f"{name} is now {wanted}.")
            return redirect(url_for(".statuses"), HTTPStatus.SEE_OTHER)
        except (InvalidName, ProjectNotFound):
            fields.errors["project"] = "There is no project of that name here."
        except InvalidValue as error:
            fields.errors[error.field] = str(error)
    return status_page(repository, fields), HTTPStatus.UNPROCESSABLE_ENTITY
