"""Who is asking, and what they may do: the rule of every view, and the table of contract.md section 3."""

from __future__ import annotations

import hmac
import logging
import math
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from flask import (
    current_app,
    g,
    request,
    session,
)
from flask.typing import ResponseReturnValue
from flask_httpauth import HTTPBasicAuth, HTTPTokenAuth
from werkzeug.exceptions import (
    TooManyRequests,
    Unauthorized,
)
from werkzeug.security import check_password_hash

from settings import Settings
from storage.errors import (
    FileTooLarge,
    RepositoryNotFound,
    StorageDamaged,
    UserNotFound,
)
from storage.registry import Registry
from storage.repository import Repository
from storage.rights import Caller, ScopeMissing
from storage.tokens import Scope, Token, TokenStore
from storage.users import User
from storage.watching import Watch
from web.logs import CALLER_KEY

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log = logging.getLogger("packhouse")

View = TypeVar("View", bound=Callable[..., ResponseReturnValue])


def registry() -> Registry:
    """The registry that the running app serves."""
    served: Registry = current_app.config["REGISTRY"]
    return served


def settings() -> Settings:
    """The settings of the running app."""
    given: Settings = current_app.config["SETTINGS"]
    return given


REALM = "packhouse"
CHALLENGE = f'Basic realm="{REALM}", charset="UTF-8"'
NO_CREDENTIAL = "a credential is needed: send a token as the user name or the password, or as a bearer token"
BAD_CREDENTIAL = "this credential is not valid: it is misspelled, revoked or expired"

basic_auth = HTTPBasicAuth(realm=REALM)
bearer_auth = HTTPTokenAuth("Bearer", realm=REALM)


@dataclass(frozen=True, slots=True)
class Rule:
    """What a view demands before it runs."""

    scope: Scope | None  # on the repository in the address; None: nothing is demanded
    upload_fields: tuple[str, ...] = ()  # names of the part that holds a file, for views that take uploads
    page: bool = False  # for people: a session counts, forms are protected, errors are pages
    signed_in: bool = False  # somebody, whatever their rights


RULES: dict[object, Rule] = {}  # by view function


def needs(scope: Scope | None, *, upload: tuple[str, ...] = ()) -> Callable[[View], View]:
    """Declare who may use a view; *upload* names the form parts in which it takes a file."""

    def declare(view: View) -> View:
        RULES[view] = Rule(scope, upload)
        return view

    return declare


def page_needs(
    scope: Scope | None = None, *, signed_in: bool = False, upload: tuple[str, ...] = ()
) -> Callable[[View], View]:
    """Declare the same for a page: whoever is signed in may be asking."""

    def declare(view: View) -> View:
        RULES[view] = Rule(scope, upload, page=True, signed_in=signed_in)
        return view

    return declare


def rule_of_request() -> Rule | None:
    """The rule of the view that was asked for; None if there is no such view."""
    return RULES.get(current_app.view_functions.get(request.endpoint or ""))


@basic_auth.verify_password  # type: ignore[untyped-decorator]
def caller_of_basic(username: str, password: str) -> Caller | None:
    """Accept a token as the user name, a token as the password of anybody, or a person's password."""
    caller = registry().caller_of_token(password or username)
    if caller is None and username and password and not password.startswith("pkh_"):
        caller = caller_of_password(username, password)
    return caller


@bearer_auth.verify_token  # type: ignore[untyped-decorator]
def caller_of_bearer(token: str) -> Caller | None:
    """Accept a token."""
    return registry().caller_of_token(token)


def identify() -> Caller | None:
    """Return who sends this request; None if no credential came.

    :raises Unauthorized: if one came that is not good.
    """
    sent: str | None = request.environ.get("HTTP_AUTHORIZATION")
    if sent is None:
        return None
    scheme, _, _ = sent.partition(" ")
    auth = {"basic": basic_auth, "bearer": bearer_auth}.get(scheme.lower())
    credential = auth.get_auth() if auth is not None else None
    caller: Caller | None = auth.authenticate(credential, None) if auth is not None and credential else None
    if caller is None:
        raise Unauthorized(BAD_CREDENTIAL)
    if caller.token is not None:
        note_use(registry().tokens, caller.token, request.environ)
    return caller


def note_use(tokens: TokenStore, token: Token, environ: WSGIEnvironment) -> None:
    """Remember when, from where and with what a token was used."""
    tokens.note_use(token, environ.get("REMOTE_ADDR", ""), environ.get("HTTP_USER_AGENT", ""))


# --- sessions, which count on pages alone ---


def sign_in(user: User) -> None:
    """Begin a new session for *user* in this browser."""
    session.clear()  # whatever an attacker may have planted in it
    session["user"], session["key"] = user.name, _session_key(user)
    session.permanent = True


def sign_out() -> None:
    """End the session of this browser."""
    session.clear()


def caller_of_session() -> Caller | None:
    """Return who is signed in in this browser; a changed password or a deleted user ends every session."""
    try:
        user = registry().users.get(session.get("user", ""))
    except (UserNotFound, StorageDamaged):
        return None
    return Caller(None, user) if hmac.compare_digest(session.get("key", ""), _session_key(user)) else None


def _session_key(user: User) -> str:
    """What of a user a session depends on: a new password makes another one."""
    return hmac.digest(registry().secret_key.encode(), user.password_hash.encode(), "sha256").hex()


# --- passwords ---

# What a password that belongs to nobody is compared with, so that the answer takes as long.
# The hash of a long random text that nobody has kept; making one here would take longer than all else at the start.
_NOBODYS_HASH = (
    "scrypt:32768:8:1$m8qUUIyr2mnN5gf3$c33b8af968192ac9da70eb815292b5c57ddc3951908fe6bb15860c9efaad5d2d"
    "71f1450f8b3ba83a858b4c8c1c45e226a14342b3b397de0409ab579978a07678"
)


def caller_of_password(username: str, password: str) -> Caller | None:
    """Return the person with that password; None if there is none.

    :raises TooManyRequests: after ten failures in a minute from this address or for this user.
    """
    failures = registry().failures
    keys = (f"address:{request.remote_addr}", f"user:{username[:100]}")
    if (seconds := failures.wait(*keys)) > 0:
        raise TooManyRequests("too many failed sign-ins; wait a minute", retry_after=math.ceil(seconds))
    try:
        user = registry().users.get(username)
    except UserNotFound:
        user = None
    try:
        good = check_password_hash(user.password_hash if user else _NOBODYS_HASH, password)
    except ValueError as error:
        log.error("the password hash of user %s is damaged: %s", username, error)
        good = False
    if user is not None and good:
        return Caller(None, user)
    failures.note(*keys)
    return None


def open_repository(org: str, repo: str, scope: Scope) -> Repository:
    """Return the repository if the caller may do *scope* there: the table of contract.md section 3.

    :raises Unauthorized: if a credential is needed and none came.
    :raises RepositoryNotFound: if it is not there, or it is private and not the caller's to read: alike.
    :raises ScopeMissing: if the caller may read there, but not do this.
    """
    caller: Caller | None = g.caller
    held = caller.scopes(org, repo) if caller is not None else frozenset()
    repository, private = find_repository(org, repo)
    if private and caller is None:
        raise Unauthorized(NO_CREDENTIAL)
    if repository is None:
        raise RepositoryNotFound(org, repo)
    if scope in held or (scope is Scope.READ_PACKAGES and not private):
        return repository
    if caller is None:
        raise Unauthorized(NO_CREDENTIAL)
    if private and Scope.READ_PACKAGES not in held:
        raise RepositoryNotFound(org, repo)
    raise ScopeMissing(scope, f"{org}/{repo}")


def find_repository(org: str, repo: str) -> tuple[Repository | None, bool]:
    """Return the repository, if it is there and whole, and whether to treat it as private."""
    try:
        repository, settings_now = registry().repository_with_settings(org, repo)
        return repository, settings_now.private
    except RepositoryNotFound:
        return None, True
    except StorageDamaged as error:
        log.error("%s", error)
        return None, True


PROBE_KEY = "packhouse.probe"  # environ key: only say whether the request may come in
ADMISSION_KEY = "packhouse.admission"  # environ key: the Admission of a request whose body was still to come


@dataclass(frozen=True, slots=True)
class Admission:
    """What was found of a request when its head was in: who is asking, and that they may."""

    caller: Caller | None
    repository: Repository | None
    watch: Watch

    def holds(self) -> bool:
        """Whether the same would be found now: no right was taken away while the body came in."""
        token = self.caller.token if self.caller is not None else None
        return (token is None or not token.is_expired) and self.watch.holds({})


def paths_of_right(repository: Repository | None, caller: Caller | None) -> list[Path]:
    """Return the files that say what *caller* may do in *repository*: a right that is taken away changes one."""
    paths = [repository.tree.repository_file] if repository is not None else []
    return paths + (registry().paths_of_caller(caller) if caller is not None else [])


def note_admission(environ: WSGIEnvironment) -> None:
    """Remember in *environ* what :func:`admit` has just found; a password is hashed once for each request."""
    caller: Caller | None = g.caller
    repository: Repository | None = g.get("repository")
    with suppress(OSError):  # something is gone since: it is looked for again when the body is in
        watch = Watch(paths_of_right(repository, caller))
        if watch.is_settled:
            environ[ADMISSION_KEY] = Admission(caller, repository, watch)


def admit(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Before any view: who is asking, may they, and is the body of a bearable size.

    ``<org>/<repo>`` of the address becomes the view's ``repository``.
    """
    rule = g.rule = RULES.get(current_app.view_functions.get(endpoint or ""))
    if rule is None or values is None:
        return
    environ = request.environ
    earlier: Admission | None = environ.get(ADMISSION_KEY)
    if earlier is not None and not earlier.holds():
        earlier = None
    caller = g.caller = earlier.caller if earlier is not None else find_caller(rule)
    if caller is not None:
        environ[CALLER_KEY] = str(caller.actor).partition(" (")[0].replace(" ", ":")
    elif rule.signed_in:
        raise Unauthorized(NO_CREDENTIAL)
    if rule.scope is not None and "repo" in values:
        org, repo = values.pop("org"), values.pop("repo")
        repository = earlier.repository if earlier is not None else open_repository(org, repo, rule.scope)
        g.repository = values["repository"] = repository
    if environ.get("CONTENT_LENGTH"):
        limit = settings().max_form_size + (settings().max_file_size if rule.upload_fields else 0)
        if (request.content_length or 0) > limit:
            raise FileTooLarge("the upload", settings().max_file_size)
    if rule.page and not rule.upload_fields and PROBE_KEY not in environ:
        protect_form()


def find_caller(rule: Rule) -> Caller | None:
    """Return who sends this request, as far as *rule* wants to know; None if nobody says.

    :raises Unauthorized: if a credential came that is not good.
    """
    caller = identify() if rule.scope is not None or rule.page else None
    return caller_of_session() if caller is None and rule.page else caller


FORM_METHODS = ("POST", "PUT", "PATCH", "DELETE")


def csrf_token() -> str:
    """Return the token that a form carries."""
    from flask_wtf.csrf import generate_csrf  # here and below: only pages for people need it

    token: str = generate_csrf()
    return token


def protect_form() -> None:
    """Look whether a form comes from one of our own pages.

    Views that take uploads look themselves, when the form has been received.

    :raises BadRequest: if it does not, or the page is too old.
    """
    if request.method in FORM_METHODS:
        from flask_wtf.csrf import CSRFProtect

        CSRFProtect().protect()


def name_repository(endpoint: str, values: dict[str, Any]) -> None:
    """Put the organization and the repository of this request into links."""
    repository = g.get("repository")
    if repository is not None and current_app.url_map.is_endpoint_expecting(endpoint, "repo"):
        values.setdefault("org", repository.org)
        values.setdefault("repo", repository.slug)


LOOPBACK = re.compile(r"(localhost|127\.\d{1,3}\.\d{1,3}\.\d{1,3}|\[::1\])(:\d{1,5})?", re.ASCII)


def base_url() -> str:
    """The URL that links and snippets start with (contract.md section 5); no slash at its end."""
    if settings().public_url:
        return settings().public_url
    host = request.host
    if LOOPBACK.fullmatch(host) or host in settings().hosts or host.rpartition(":")[0] in settings().hosts:
        return f"{request.scheme}://{host}"
    return f"http://{settings().host}:{settings().port}"
