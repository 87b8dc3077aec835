"""What the pages for people share: who is looking, the organization in the address, the frame of a repository."""

from __future__ import annotations

from flask import g, render_template
from werkzeug.exceptions import Forbidden, Unauthorized

from storage.errors import NotFound, OrganizationNotFound, StorageDamaged
from storage.registry import Organization
from storage.repository import Repository
from storage.rights import ScopeMissing
from storage.tokens import Scope
from storage.users import User
from web.access import NO_CREDENTIAL, caller_of_session, registry

PAGE_SIZE = 50  # rows of a list


def current_viewer() -> User | None:
    """Who is looking at this page; a function, so that only pages that ask for it depend on the session.

    The page that says that the storage cannot be read asks, too: then nobody is.
    """
    try:
        caller = g.caller if "caller" in g else caller_of_session()
    except OSError:
        return None
    return caller.user if caller is not None else None


def person() -> User:
    """Return who is signed in, for what only people may do, such as making tokens: no token makes another.

    :raises Forbidden: if a token asks.
    """
    if g.caller is None:
        raise Unauthorized(NO_CREDENTIAL)
    if g.caller.token is not None or g.caller.user is None:
        raise Forbidden("only a person who signs in with a password may do that, not a token")
    user: User = g.caller.user
    return user


def held_scopes(org: str, repo: str | None) -> frozenset[Scope]:
    """What whoever is asking may do in a repository, or in the organization itself for None."""
    scopes: frozenset[Scope] = g.caller.scopes(org, repo) if g.caller is not None else frozenset()
    return scopes


def open_organization(org: str, scope: Scope) -> Organization:
    """Return the organization if whoever is asking may do *scope* there.

    :raises Unauthorized: if nobody is signed in, whether it is there or not.
    :raises OrganizationNotFound: if it is not there, or not the visitor's to see: alike.
    :raises ScopeMissing: if the visitor may see it, but not do this.
    """
    if g.caller is None:
        raise Unauthorized(NO_CREDENTIAL)
    held = held_scopes(org, None)
    if not held:
        raise OrganizationNotFound(org)
    organization = registry().organization(org)
    if scope not in held:
        raise ScopeMissing(scope, org)
    return organization


def organization_name(org: str) -> str:
    """Return what an organization is called, or its slug where that cannot be read."""
    try:
        return registry().organization(org).name
    except (NotFound, StorageDamaged):
        return org


def render_in_repository(template: str, repository: Repository, tab: str, **values: object) -> str:
    """Render a page of a repository, in its frame: breadcrumbs, name, and the tabs that the visitor may use."""
    return render_template(
        template,
        repository=repository,
        held=repository.settings,
        rights=held_scopes(repository.org, repository.slug),
        tab=tab,
        **values,
    )


def page_of_list(text: str, total: int) -> tuple[int, int]:
    """Return which page is asked for by *text*, and which is the last, of a list of *total* rows."""
    last = max(1, -(-total // PAGE_SIZE))
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 1
    return min(max(number, 1), last), last
