"""Packhouse over HTTP: every route. In order.

who is asking  identify, open_repository, the rule of every view
forms          UploadForm, taken apart while it arrives
simple index   GET  /<org>/<repo>/pypi/simple/...          pip, uv
files          GET  /<org>/<repo>/pypi/files/...           pip, uv
package API         /api/v1/repos/<org>/<repo>/...         curl, scripts
pages          GET  /<org>/<repo>/packages/...             people
health         GET  /healthz
errors         STATUS, answer_error
the app        create_app(settings, registry), make_gate(app)

A view reads as four steps: who may, what was asked, one call into ``storage``, one answer. "Who may" is its
:func:`needs`; a view without one stops the start.
"""

from __future__ import annotations

import io
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote

from flask import (
    Blueprint,
    Flask,
    Response,
    current_app,
    g,
    jsonify,
    redirect,
    render_template,
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from flask_httpauth import HTTPBasicAuth, HTTPTokenAuth
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import MovingWindowRateLimiter
from packaging.utils import NormalizedName
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    TooManyRequests,
    Unauthorized,
)
from werkzeug.http import parse_range_header
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.multipart import Data, Field, MultipartDecoder, NeedData
from werkzeug.sansio.multipart import File as FilePart
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.wsgi import wrap_file

from server import BODY_KEY, BodyReceiver, Refusal
from settings import Settings
from storage.distributions import name_from_content
from storage.errors import (
    Conflict,
    Denied,
    FileNotFound,
    FileTooLarge,
    Invalid,
    InvalidDistribution,
    InvalidName,
    NotFound,
    RepositoryNotFound,
    StorageDamaged,
    StorageError,
    StorageFull,
    Unavailable,
    UserNotFound,
)
from storage.files import as_storage_error
from storage.names import WINDOWS_DEVICES, normalize_project
from storage.registry import Registry
from storage.repository import Repository, RepositorySettings, project_of
from storage.rights import Caller, ScopeMissing
from storage.sidecars import Sidecar
from storage.tokens import Scope
from storage.uploads import Incoming

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("packhouse")

View = TypeVar("View", bound=Callable[..., ResponseReturnValue])

pypi = Blueprint("pypi", __name__, url_prefix="/<org>/<repo>/pypi")
api = Blueprint("api", __name__, url_prefix="/api/v1/repos/<org>/<repo>")
pages = Blueprint("pages", __name__)


def registry() -> Registry:
    """The registry that the running app serves."""
    served: Registry = current_app.config["REGISTRY"]
    return served


def settings() -> Settings:
    """The settings of the running app."""
    given: Settings = current_app.config["SETTINGS"]
    return given


# --- who is asking ---

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


RULES: dict[object, Rule] = {}  # by view function


def needs(scope: Scope | None, *, upload: tuple[str, ...] = ()) -> Callable[[View], View]:
    """Declare who may use a view; *upload* names the form parts in which it takes a file."""

    def declare(view: View) -> View:
        RULES[view] = Rule(scope, upload)
        return view

    return declare


def rule_of_request() -> Rule | None:
    """The rule of the view that was asked for; None if there is no such view."""
    view = current_app.view_functions.get(request.endpoint or "")
    return RULES.get(view) if view is not None else None


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
    scheme, _, _ = request.headers.get("Authorization", "").partition(" ")
    if "Authorization" not in request.headers:
        return None
    auth = {"basic": basic_auth, "bearer": bearer_auth}.get(scheme.lower())
    credential = auth.get_auth() if auth is not None else None
    caller: Caller | None = auth.authenticate(credential, None) if auth is not None and credential else None
    if caller is None:
        raise Unauthorized(BAD_CREDENTIAL)
    if caller.token is not None:
        registry().tokens.note_use(caller.token, request.remote_addr or "", request.headers.get("User-Agent", ""))
    return caller


FAILURES = RateLimitItemPerMinute(10)  # contract.md section 3
# What a password that belongs to nobody is compared with, so that the answer takes as long.
_NOBODYS_HASH = generate_password_hash("")


def caller_of_password(username: str, password: str) -> Caller | None:
    """Return the person with that password; None if there is none.

    :raises TooManyRequests: after ten failures in a minute from this address or for this user.
    """
    failures: MovingWindowRateLimiter = current_app.config["FAILURES"]
    keys = (f"address:{request.remote_addr}", f"user:{username[:100]}")
    if not all(failures.test(FAILURES, key) for key in keys):
        raise TooManyRequests("too many failed sign-ins; wait a minute", retry_after=60)
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
    for key in keys:
        failures.hit(FAILURES, key)
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
        repository = registry().repository(org, repo)
        return repository, repository.settings.private
    except RepositoryNotFound:
        return None, True
    except StorageDamaged as error:
        log.error("%s", error)
        return None, True


@pypi.url_value_preprocessor
@api.url_value_preprocessor
@pages.url_value_preprocessor
def admit(endpoint: str | None, values: dict[str, Any] | None) -> None:
    """Before any view: who is asking, may they, and is the body of a bearable size.

    ``<org>/<repo>`` of the address becomes the view's ``repository``.
    """
    rule = rule_of_request()
    if rule is None or values is None:
        return
    g.caller = identify() if rule.scope is not None else None
    if rule.scope is not None:
        repository = open_repository(values.pop("org"), values.pop("repo"), rule.scope)
        g.repository = values["repository"] = repository
    limit = settings().max_form_size + (settings().max_file_size if rule.upload_fields else 0)
    if (request.content_length or 0) > limit:
        raise FileTooLarge("the upload", settings().max_file_size)


@pypi.url_defaults
@api.url_defaults
@pages.url_defaults
def name_repository(endpoint: str, values: dict[str, Any]) -> None:
    """Put the organization and the repository of this request into links."""
    repository = g.get("repository")
    if repository is not None:
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


# --- forms ---

MAX_BOUNDARY = 200  # bytes; RFC 2046 allows 70
MAX_PART_HEAD = 64 * 1024  # bytes between two parts: boundary and headers
CHUNK = 256 * 1024  # bytes


class UploadForm:
    """A ``multipart/form-data`` body, taken apart while it arrives; its file goes straight into the storage.

    What is wrong with it is remembered and raised by :meth:`finish`, since :meth:`write` runs in the server's event
    loop, where nobody could answer.
    """

    def __init__(
        self, boundary: bytes, file_fields: tuple[str, ...], repository: Repository, limits: Settings
    ) -> None:
        """Expect a file for *repository* in a part called as one of *file_fields*."""
        self.fields: dict[str, list[str]] = {}
        self.incoming: Incoming | None = None
        self._decoder = MultipartDecoder(boundary, max_parts=limits.max_form_parts)
        self._file_fields = file_fields
        self._repository = repository
        self._room = limits.max_form_size  # bytes of text that may still come
        self._part: Field | FilePart | None = None
        self._text = bytearray()
        self._complete = False
        self._error: Exception | None = None

    def write(self, data: bytes | memoryview) -> bool:
        """Take the next bytes; False when nothing more is of use."""
        if self._error is None:
            try:
                self._decode(bytes(data))
            except (HTTPException, StorageError, OSError) as error:
                self._error = error
            except ValueError as error:  # from the decoder
                self._error = BadRequest(f"the form is malformed: {error}")
        return self._error is None

    def finish(self) -> None:
        """Look back after the last byte.

        :raises BadRequest: if the form was malformed or incomplete.
        :raises RequestEntityTooLarge, FileTooLarge, OSError: if it was too large, or could not be stored.
        """
        if self._error is not None:
            raise self._error
        if not self._complete:
            raise BadRequest("the form ends in the middle; send it again")

    def close(self) -> None:
        """Drop what was stored for the form; may be called again."""
        if self.incoming is not None:
            self.incoming.close()

    def _decode(self, data: bytes) -> None:
        self._decoder.receive_data(data)
        while not isinstance(event := self._decoder.next_event(), NeedData):
            if isinstance(event, (Field, FilePart)):
                self._begin(event)
            elif isinstance(event, Data):
                self._take(event)
        self._complete = self._decoder.state.name == "EPILOGUE"
        if self._decoder.state.name not in ("DATA", "DATA_START") and len(self._decoder.buffer) > MAX_PART_HEAD:
            raise BadRequest(
                "the form is malformed: a part has no end of its headers, or something follows the form"
            )

    def _begin(self, part: Field | FilePart) -> None:
        if not isinstance(part.name, str):
            raise BadRequest("the form is malformed: a part has no name")
        self._part = part
        self._text.clear()
        if isinstance(part, FilePart) and part.name in self._file_fields:
            if self.incoming is not None:
                raise BadRequest("the form has two files; send one file in each request")
            self.incoming = self._repository.receive()
            self.incoming.filename = part.filename

    def _take(self, event: Data) -> None:
        part = self._part
        if isinstance(part, FilePart) and part.name in self._file_fields and self.incoming is not None:
            self.incoming.write(event.data)
            return
        self._room -= len(event.data)
        if self._room < 0:
            raise RequestEntityTooLarge("the text of the form is too large")
        self._text += event.data
        if not event.more_data and part is not None:
            self.fields.setdefault(part.name, []).append(self._text.decode("utf-8", "replace"))


def boundary_of(content_type: str) -> bytes | None:
    """The boundary of a ``multipart/form-data`` body; None if *content_type* is something else."""
    mimetype, options = request.mimetype, request.mimetype_params
    boundary = options.get("boundary", "").encode("latin-1", "replace")
    if mimetype != "multipart/form-data" or not 0 < len(boundary) <= MAX_BOUNDARY:
        return None
    return boundary


def open_form(repository: Repository, rule: Rule) -> UploadForm | None:
    """The receiver for the body of this request; None if it is no form with a file."""
    boundary = boundary_of(request.headers.get("Content-Type", ""))
    if boundary is None:
        return None
    return UploadForm(boundary, rule.upload_fields, repository, settings())


@contextmanager
def received_form(repository: Repository) -> Iterator[UploadForm]:
    """Yield the form of this request, whole; the server has received it, or else it is read here and now.

    :raises BadRequest: if it is malformed, or no form.
    """
    rule = rule_of_request()
    form = request.environ.get(BODY_KEY) or (open_form(repository, rule) if rule is not None else None)
    if not isinstance(form, UploadForm):
        raise NoFile
    try:
        if BODY_KEY not in request.environ:
            while (chunk := request.stream.read(CHUNK)) and form.write(chunk):
                pass
        form.finish()
        yield form
    finally:
        form.close()


class NoFile(Invalid):
    """The request holds no file part."""

    def __str__(self) -> str:
        return "the request holds no file: send it as the part that the address expects, in multipart/form-data"


# --- simple index ---

API_VERSION = "1.4"  # PEP 792; PEP 833 froze the HTML form there


@pypi.get("/simple/", strict_slashes=False)
@needs(Scope.READ_PACKAGES)
def project_list(repository: Repository) -> ResponseReturnValue:
    """The projects of a repository (PEP 503)."""
    if not request.path.endswith("/"):
        return redirect_to(url_for(".project_list"))
    return index_page(repository, render_template("simple/root.html", projects=repository.projects()))


@pypi.get("/simple/<name>/", strict_slashes=False)
@needs(Scope.READ_PACKAGES)
def project_page(repository: Repository, name: str) -> ResponseReturnValue:
    """One project's files (PEP 503)."""
    project = requested_project(name)
    if name != project or not request.path.endswith("/"):
        return redirect_to(url_for(".project_page", name=project))
    detail = repository.project(project)
    return index_page(repository, render_template("simple/project.html", project=detail, url=file_url))


def index_page(repository: Repository, html: str) -> Response:
    """Return a page of the simple index."""
    response = Response(html, content_type="text/html; charset=utf-8")
    private = repository.settings.private
    response.headers["Cache-Control"] = "private, no-cache" if private else "no-cache"
    response.headers["Vary"] = "Accept, Accept-Encoding" + (", Authorization" if private else "")
    return response


def requested_project(name: str) -> NormalizedName:
    """Return the project that a client asks for as *name*, in whatever spelling.

    :raises NotFound: if no project can be called so.
    """
    try:
        return normalize_project(name)
    except InvalidName as error:
        raise NotFound(str(error)) from error


def redirect_to(location: str) -> ResponseReturnValue:
    """Redirect within this origin, keeping the query (specs.md 1.2)."""
    query = request.query_string.decode("latin-1")
    return redirect(f"{location}?{query}" if query else location, HTTPStatus.MOVED_PERMANENTLY)


def file_url(project: str, filename: str) -> str:
    """The URL of a file, relative to its project's page, so that it has the page's very origin (specs.md 2.9)."""
    return f"../../files/{project}/{quote(filename)}"


# --- files ---

CORE_METADATA_SUFFIX = ".metadata"
FOREVER = int(timedelta(days=365).total_seconds())


@pypi.get("/files/<name>/<filename>")
@needs(Scope.READ_PACKAGES)
def download_file(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """An artifact, byte for byte as uploaded, or its core metadata (PEP 658)."""
    project = requested_project(name)
    if filename.endswith(CORE_METADATA_SUFFIX):
        file, content = repository.core_metadata(project, filename.removesuffix(CORE_METADATA_SUFFIX))
        etag = file.core_metadata_sha256 or ""
        return send(repository, io.BytesIO(content), len(content), etag, "text/plain; charset=utf-8")
    file, artifact = repository.open_file(project, filename)
    return send(repository, artifact, file.size, file.sha256, "application/octet-stream")


def send(repository: Repository, content: BinaryIO, size: int, etag: str, content_type: str) -> Response:
    """Answer with a file that never changes under its name: whole, one range of it, or "not modified"."""
    response = Response(wrap_file(request.environ, content), content_type=content_type, direct_passthrough=True)
    try:
        response.content_length = size
        response.set_etag(etag)
        response.headers["Cache-Control"] = cache_control(repository.settings)
        response.make_conditional(with_single_range(request.environ), accept_ranges=True, complete_length=size)
    except Exception:
        response.close()  # and with it the file
        raise
    return response


def with_single_range(environ: WSGIEnvironment) -> WSGIEnvironment:
    """Return *environ* without a Range that is malformed or asks for several ranges.

    RFC 9110 14.2: such a header may be ignored; werkzeug would answer it with 416.
    """
    ranges = parse_range_header(environ.get("HTTP_RANGE"))
    if ranges is not None and ranges.units == "bytes" and len(ranges.ranges) == 1:
        return environ
    return {key: value for key, value in environ.items() if key != "HTTP_RANGE"}


def cache_control(held: RepositorySettings) -> str:
    """Say how long a file may be kept: for ever, unless its name may get other bytes (contract.md section 5)."""
    kind = "private" if held.private else "public"
    if held.reuse_filenames:
        return "private, no-cache" if held.private else "no-cache"
    return f"{kind}, max-age={FOREVER}, immutable"


# --- package API ---

V1_FILE_FIELD = "package[package_file]"


@api.post("/packages.json")
@api.post("/packages")
@needs(Scope.WRITE_PACKAGES, upload=(V1_FILE_FIELD,))
def publish(repository: Repository) -> ResponseReturnValue:
    """Publish with curl (contract.md section 4)."""
    with received_form(repository) as form:
        if form.incoming is None or not form.incoming.filename:
            raise NoFile
        added = repository.add_file(form.incoming, name_of_upload(form.incoming), g.caller.actor)
    status = HTTPStatus.CREATED if added.created else HTTPStatus.OK
    return jsonify(package_details(repository, added.sidecar)), status


_MEANINGLESS = re.compile(r"[A-Za-z0-9_-]{1,64}(\.tmp)?", re.ASCII)


def name_of_upload(incoming: Incoming) -> str:
    """Return the name to publish a file under: the part's, or the one that its metadata gives it.

    packagecloud's Java client calls every part by a random word (specs.md 5.4).
    """
    if _MEANINGLESS.fullmatch(incoming.filename) and incoming.filename.lower() not in WINDOWS_DEVICES:
        return name_from_content(incoming.file, limits=settings().limits)
    return incoming.filename


def package_details(repository: Repository, sidecar: Sidecar) -> dict[str, Any]:
    """Return packagecloud's PackageDetails of a file (specs.md 5.5)."""
    file, metadata, digests = sidecar.file, sidecar.metadata, sidecar.digests
    return {
        "name": file.project,
        "distro_version": "python",
        "architecture": None,
        "repository": repository.slug,
        "size": str(file.size),
        "summary": metadata.summary,
        "filename": file.filename,
        "description": metadata.description,
        "licenses": licenses(sidecar),
        "version": file.version,
        "type": "python",
        "dependencies": dependencies(sidecar),
        "md5sum": digests.md5,
        "sha1sum": digests.sha1,
        "sha256sum": digests.sha256,
        "sha512sum": digests.sha512,
        "private": repository.settings.private,
        "uploader_name": uploader_name(sidecar),
        "created_at": sidecar.file.upload_time.strftime("%Y-%m-%dT%H:%M:%S.") + f"{millisecond(sidecar):03d}Z",
        "release": None,
        "epoch": None,
        "scope": None,
        "indexed": True,
        "total_downloads_count": 0,
        **package_addresses(repository, sidecar),
    }


def package_addresses(repository: Repository, sidecar: Sidecar) -> dict[str, str]:
    """Return where to read more of a file, and what can be done with it: paths, but one full URL (specs.md 5.1)."""
    file = sidecar.file
    quoted = quote(file.filename)
    root = f"/api/v1/repos/{repository.org}/{repository.slug}"
    version = f"{root}/package/python/{file.project}/{quote(file.version)}"
    html = f"/{repository.org}/{repository.slug}/packages/python/{quoted}"
    return {
        "repository_url": root,
        "repository_html_url": f"/{repository.org}/{repository.slug}",
        "package_url": f"{version}.json?filename={quoted}",
        "self_url": f"{version}.json?filename={quoted}",
        "versions_url": f"{root}/package/python/{file.project}/versions.json",
        "promote_url": f"{root}/python/1/{quoted}/promote.json",
        "destroy_url": f"{root}/python/1/{quoted}",
        "package_html_url": html,
        "download_url": f"{base_url()}{html}/download",
        "downloads_count_url": f"{version}/stats/downloads/count.json?filename={quoted}",
        "downloads_detail_url": f"{version}/stats/downloads/detail.json?filename={quoted}",
        "downloads_series_url": f"{version}/stats/downloads/series/daily.json?filename={quoted}",
    }


def millisecond(sidecar: Sidecar) -> int:
    """The thousandths of a second in the upload time."""
    return sidecar.file.upload_time.microsecond // 1000


def uploader_name(sidecar: Sidecar) -> str:
    """Who published a file, in a word or two."""
    return sidecar.uploader.description or sidecar.uploader.id or str(sidecar.uploader)


SHORT_LICENSE = 100  # characters; a longer License field is a whole licence


def licenses(sidecar: Sidecar) -> list[str]:
    """The licences that a file's metadata names (specs.md 8.7)."""
    metadata = sidecar.metadata
    if metadata.license_expression:
        return [metadata.license_expression]
    classified = [c.rpartition(" :: ")[2] for c in metadata.classifiers if c.startswith("License :: ")]
    if classified:
        return classified
    text = metadata.license or ""
    return [text] if text and "\n" not in text and len(text) <= SHORT_LICENSE else []


def dependencies(sidecar: Sidecar) -> list[dict[str, Any]] | None:
    """What a file depends on, by packagecloud's contexts; None if on nothing."""
    metadata = sidecar.metadata
    by_context: dict[str, Iterable[str]] = {
        "requires": metadata.requires,
        "requires-dist": metadata.requires_dist,
        "requires-external": metadata.requires_external,
        "requires-extra": metadata.provides_extra,
        "requires-python": [metadata.requires_python] if metadata.requires_python else [],
    }
    return [{"context": key, "dependencies": list(held)} for key, held in by_context.items() if held] or None


# --- pages ---


@pages.get("/<org>/<repo>/packages/<name>/<filename>/download")
@needs(Scope.READ_PACKAGES)
def download_from_page(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """The file, for people and packagecloud's scripts; these say ``python`` where the project's name is."""
    project = project_of(filename)
    if name not in ("python", project):
        raise FileNotFound(filename)
    file, artifact = repository.open_file(project, filename)
    response = send(repository, artifact, file.size, file.sha256, "application/octet-stream")
    response.headers.set("Content-Disposition", "attachment", filename=filename)
    return response


# --- health ---


@pages.get("/healthz")
@needs(None)
def healthz() -> ResponseReturnValue:
    """Whether the storage can be read."""
    registry().organizations()
    return Response("ok\n", content_type="text/plain; charset=utf-8")


# --- errors ---

# What each kind of storage error answers, the first that fits; roads differ only in form (contract.md section 4).
STATUS: list[tuple[type[Exception], HTTPStatus]] = [
    (NotFound, HTTPStatus.NOT_FOUND),
    (FileTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (Conflict, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Invalid, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Denied, HTTPStatus.FORBIDDEN),
    (StorageFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (StorageDamaged, HTTPStatus.SERVICE_UNAVAILABLE),
]
RETRY_AFTER = "10"  # seconds


def answer_error(error: Exception) -> Response:
    """Answer *error* in the client's form: JSON for the API, a line of text for everybody else."""
    if isinstance(error, OSError):
        log.error("%s %s: %s", request.method, request.path, error)
        error = as_storage_error(error)
    status = status_of(error)
    is_api = request.path.startswith("/api/")
    response = (
        jsonify(v1_error(error, status)) if is_api else Response(f"{sentence_of(error)}\n", mimetype="text/plain")
    )
    response.status_code = status
    if isinstance(error, HTTPException):
        keep = ("allow", "retry-after", "content-range")
        response.headers.extend((name, value) for name, value in error.get_headers() if name.lower() in keep)
    if status == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = CHALLENGE
    if status in (HTTPStatus.INSUFFICIENT_STORAGE, HTTPStatus.SERVICE_UNAVAILABLE):
        response.headers["Retry-After"] = RETRY_AFTER
    response.headers["Cache-Control"] = "no-store"  # a cached 404 would hide a project published since
    return response


def status_of(error: Exception) -> int:
    """The status code that *error* is answered with."""
    if isinstance(error, HTTPException):
        return error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    return next(status for kind, status in STATUS if isinstance(error, kind))


def sentence_of(error: Exception) -> str:
    """What happened and what to do, in one sentence."""
    if isinstance(error, RepositoryNotFound):
        return "not found"  # the same whether it is there or not
    return (error.description or error.name) if isinstance(error, HTTPException) else str(error) or "not found"


TAKEN = "has already been taken"  # scripts look for these very words (specs.md 5.1)


def v1_error(error: Exception, status: int) -> dict[str, Any]:
    """The body that packagecloud's clients expect (specs.md 5.1)."""
    if isinstance(error, Conflict):
        return {"filename": [TAKEN], "message": sentence_of(error)}
    if isinstance(error, NoFile):
        return {"package_file": ["can't be blank"]}
    if isinstance(error, InvalidDistribution):
        return {"package_file": list(error.reasons)}
    if isinstance(error, Invalid) and status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return {"package_file": [str(error)]}
    if status == HTTPStatus.UNAUTHORIZED:
        return {"error": "Unauthenticated", "message": sentence_of(error)}
    return {"error": HTTPStatus(status).phrase, "message": sentence_of(error)}


# --- the app ---

ADMISSION = "packhouse.admission"  # environ key: only say whether the request may come in


def create_app(settings: Settings, registry: Registry) -> Flask:
    """Build the app that serves *registry*.

    :raises RuntimeError: if a view says nothing of who may use it.
    """
    app = Flask(__name__)
    app.config.update(
        REGISTRY=registry,
        SETTINGS=settings,
        SECRET_KEY=registry.secret_key,
        FAILURES=MovingWindowRateLimiter(MemoryStorage()),
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False  # a POST must never be redirected (specs.md 3.6)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    for blueprint in (pypi, api, pages):
        app.register_blueprint(blueprint)
    app.before_request(stop_at_admission)
    app.after_request(protect)
    for kind in (HTTPException, StorageError, OSError):
        app.register_error_handler(kind, answer_error)
    app.wsgi_app = trust_proxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign, assignment]
    ruleless = [name for name, view in app.view_functions.items() if name != "static" and view not in RULES]
    if ruleless:
        raise RuntimeError(f"these views say nothing of who may use them: {', '.join(ruleless)}")
    return app


def protect(response: Response) -> Response:
    """Add the headers that every answer has."""
    response.headers["X-Content-Type-Options"] = "nosniff"
    return response


def trust_proxies(application: WSGIApplication, proxies: tuple[str, ...]) -> WSGIApplication:
    """Let ``X-Forwarded-*`` count where a request comes from one of *proxies*, and nowhere else."""
    forwarded = ProxyFix(application, x_for=1, x_proto=1, x_host=1)

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        trusted = environ.get("REMOTE_ADDR") in proxies
        return forwarded(environ, start_response) if trusted else application(environ, start_response)

    return serve


def stop_at_admission() -> ResponseReturnValue | None:
    """End a request of :func:`make_gate` where the view would begin."""
    if ADMISSION not in request.environ:
        return None
    request.environ[ADMISSION].append(g.get("repository"))
    return Response(status=HTTPStatus.NO_CONTENT)


def make_gate(app: Flask) -> Callable[[WSGIEnvironment], Refusal | BodyReceiver | int]:
    """Return what the server asks, as soon as the headers are in, about a request with a body.

    The request takes the app's own way as far as the view, so that a body is refused before it is read for the
    very reasons, and in the very words, with which the view would have been refused.
    """

    def gate(environ: WSGIEnvironment) -> Refusal | BodyReceiver | int:
        admitted: list[Repository | None] = []
        probe = {**environ, "wsgi.input": io.BytesIO(), ADMISSION: admitted}
        with app.request_context(probe):
            response = app.full_dispatch_request()
            if not admitted:
                return Refusal(response.status, list(response.headers.items()), response.get_data())
            rule = rule_of_request()
            form = open_form(admitted[0], rule) if rule is not None and rule.upload_fields and admitted[0] else None
            return form if form is not None else settings_of(app).max_form_size

    return gate


def settings_of(app: Flask) -> Settings:
    """The settings that *app* was made with."""
    given: Settings = app.config["SETTINGS"]
    return given
