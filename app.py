"""Packhouse over HTTP: every route. In order.

who is asking  identify, open_repository, the rule of every view
forms          UploadForm, taken apart while it arrives
simple index   GET  /<org>/<repo>/pypi/simple/...          pip, uv
files          GET  /<org>/<repo>/pypi/files/...           pip, uv
uploads        POST /<org>/<repo>/pypi/legacy/             twine, uv
package API         /api/v1/...                            curl, scripts
pages          GET  /<org>/<repo>/packages/...             people
health         GET  /healthz
errors         STATUS, answer_error
the app        create_app(settings, registry), make_gate(app)

A view reads as four steps: who may, what was asked, one call into ``storage``, one answer. "Who may" is its
:func:`needs`; a view without one stops the start.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar
from urllib.parse import quote
from urllib.parse import urlencode as url_encode

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
from werkzeug.datastructures import MIMEAccept
from werkzeug.exceptions import (
    BadRequest,
    Gone,
    HTTPException,
    NotAcceptable,
    RequestEntityTooLarge,
    TooManyRequests,
    Unauthorized,
)
from werkzeug.http import parse_accept_header, parse_range_header
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.sansio.multipart import Data, Field, MultipartDecoder, NeedData
from werkzeug.sansio.multipart import File as FilePart
from werkzeug.security import check_password_hash, generate_password_hash
from werkzeug.wsgi import wrap_file

from server import BODY_KEY, BodyReceiver, Refusal
from settings import Settings
from storage.catalog import CatalogEntry
from storage.distributions import name_from_content
from storage.downloads import downloads_of
from storage.errors import (
    AlreadyExists,
    Conflict,
    Denied,
    FileAlreadyExists,
    FileNotFound,
    FileTooLarge,
    Invalid,
    InvalidDistribution,
    InvalidFilename,
    InvalidName,
    InvalidValue,
    NotFound,
    ReleaseNotFound,
    RepositoryNotFound,
    StorageDamaged,
    StorageError,
    StorageFull,
    Unavailable,
    UserNotFound,
    shorten,
)
from storage.files import as_storage_error
from storage.names import WINDOWS_DEVICES, normalize_project, parse_version, slugify
from storage.publishing import Claims
from storage.registry import Registry
from storage.repository import Repository, RepositorySettings, project_of
from storage.rights import Caller, ScopeMissing
from storage.sidecars import File, Sidecar, format_time
from storage.simple import ProjectDetail
from storage.statuses import parse_status
from storage.tokens import Scope
from storage.uploads import Incoming

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("packhouse")

View = TypeVar("View", bound=Callable[..., ResponseReturnValue])

pypi = Blueprint("pypi", __name__, url_prefix="/<org>/<repo>/pypi")
api = Blueprint("api", __name__, url_prefix="/api/v1/repos/<org>/<repo>")
registries = Blueprint("registries", __name__, url_prefix="/api/v1")
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
@registries.url_value_preprocessor
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

    def text(self, field: str) -> str | None:
        """The text of a field; None if it is absent or empty, which is the same to clients (specs.md 3.1).

        :raises BadRequest: if it was sent twice with different texts.
        """
        texts = {text for text in self.fields.get(field, ()) if text}
        if len(texts) > 1:
            raise BadRequest(f"the field {field!r} stands in the form more than once")
        return texts.pop() if texts else None

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
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "application/vnd.pypi.simple.v1+html"
# What can be had, in the order in which ties are broken: no preference gets what old clients and browsers read.
OFFERS = ("text/html", HTML_TYPE, JSON_TYPE)


@pypi.get("/simple/", strict_slashes=False)
@needs(Scope.READ_PACKAGES)
def project_list(repository: Repository) -> ResponseReturnValue:
    """The projects of a repository (PEP 503, PEP 691)."""
    if not request.path.endswith("/"):
        return redirect_to(url_for(".project_list"))
    content_type = requested_type()
    projects = repository.projects()
    if content_type == JSON_TYPE:
        listed = [{"name": project} for project in projects]
        return index_page(repository, content_type, {"meta": {"api-version": API_VERSION}, "projects": listed})
    return index_page(repository, content_type, render_template("simple/root.html", projects=projects))


@pypi.get("/simple/<name>/", strict_slashes=False)
@needs(Scope.READ_PACKAGES)
def project_page(repository: Repository, name: str) -> ResponseReturnValue:
    """One project's files (PEP 503, PEP 691)."""
    project = requested_project(name)
    if name != project or not request.path.endswith("/"):
        return redirect_to(url_for(".project_page", name=project))
    content_type = requested_type()
    detail = repository.project(project)
    if content_type == JSON_TYPE:
        return index_page(repository, content_type, project_json(detail))
    return index_page(repository, content_type, project_html(detail, up="../../"))


@pypi.get("/legacy/+simple/<name>/", strict_slashes=False)
@needs(Scope.READ_PACKAGES)
def project_page_for_hatch(repository: Repository, name: str) -> ResponseReturnValue:
    """The same page where hatch looks for what it need not upload (specs.md 3.4)."""
    detail = repository.project(requested_project(name))
    return index_page(repository, "text/html", project_html(detail, up="../../../"))


def project_html(detail: ProjectDetail, up: str) -> str:
    """Return a project's page; *up* is the way from it to the folder that holds ``files/``."""
    return render_template("simple/project.html", project=detail, url=partial(file_url, up), time=format_time)


def project_json(detail: ProjectDetail) -> dict[str, Any]:
    """Return a project's page as PEP 691, 700, 714 and 792 have it."""
    status = {"status": str(detail.status.status)}
    if detail.status.reason:
        status["reason"] = detail.status.reason
    return {
        "meta": {"api-version": API_VERSION},
        "name": detail.name,
        "project-status": status,
        "versions": detail.versions,
        "files": [file_json(file) for file in detail.files],
    }


def file_json(file: File) -> dict[str, Any]:
    """Return one file as PEP 691, 700 and 714 have it."""
    core_metadata = {"sha256": file.core_metadata_sha256} if file.core_metadata_sha256 else False
    return {
        "filename": file.filename,
        "url": file_url("../../", file.project, file.filename),
        "hashes": {"sha256": file.sha256},
        **({"requires-python": file.requires_python} if file.requires_python else {}),
        "core-metadata": core_metadata,
        "dist-info-metadata": core_metadata,  # the spelling before PEP 714
        "yanked": file.yanked,
        "size": file.size,
        "upload-time": format_time(file.upload_time),
    }


def file_url(up: str, project: str, filename: str) -> str:
    """The URL of a file, relative to an index page, so that it has the page's very origin (specs.md 2.9)."""
    return f"{up}files/{project}/{quote(filename)}"


def requested_type() -> str:
    """Choose among OFFERS what the client likes best; ``?format=`` beats ``Accept`` (specs.md 1.4).

    :raises NotAcceptable: if it likes none.
    """
    asked = request.args.get("format") or request.headers.get("Accept", "")
    if "/" not in asked:
        return OFFERS[0]  # absent, or nothing that could be parsed
    # "latest" is whatever version we have; the answer says which.
    accepted = parse_accept_header(asked.replace("simple.latest+", "simple.v1+"), MIMEAccept)
    best = max(OFFERS, key=accepted.quality)  # the first of the best
    if accepted.quality(best) <= 0:
        vary_index_page()
        raise NotAcceptable(f"this page can be had as {', '.join(OFFERS)}")
    return best


MIN_COMPRESSED = 500  # bytes; shorter pages fit a packet as they are


def requested_encoding(size: int) -> str:
    """Choose the content coding of a page of *size* bytes: "zstd", "gzip" or "" for none."""
    accepted = request.accept_encodings
    if size < MIN_COMPRESSED or not accepted:
        return ""
    best = max(("zstd", "gzip"), key=accepted.quality)
    explicit_identity = accepted.quality("identity") if "identity" in accepted.values() else 0
    return best if accepted.quality(best) > explicit_identity else ""


def index_page(repository: Repository, content_type: str, content: str | dict[str, Any]) -> Response:
    """Answer with a page of the simple index, or "not modified"; its ETag is strong (contract.md section 5)."""
    body = (content if isinstance(content, str) else json.dumps(content, separators=(",", ":"))).encode()
    encoding = requested_encoding(len(body))
    variant = f"{content_type} {encoding}".encode()
    etag = hashlib.sha256(variant + b"\0" + body).hexdigest()[:40]
    charset = "; charset=utf-8" if content_type == "text/html" else ""
    response = Response(compress(body, encoding), content_type=content_type + charset)
    if encoding:
        response.headers["Content-Encoding"] = encoding
    response.set_etag(etag)
    private = repository.settings.private
    response.headers["Cache-Control"] = "private, no-cache" if private else "no-cache"
    vary_index_page()
    response.make_conditional(request.environ)
    return response


def compress(body: bytes, encoding: str) -> bytes:
    """Return *body* in a content coding; the same bytes each time."""
    if encoding == "gzip":
        return gzip.compress(body, mtime=0)
    return zstd.compress(body) if encoding == "zstd" else body


def vary_index_page() -> None:
    """Tell caches what the answer to this request depends on; errors included."""
    g.vary = ("Accept", "Accept-Encoding", *(("Authorization",) if g.repository.settings.private else ()))


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
        text = "text/plain; charset=utf-8"
        return send(repository, io.BytesIO(content), len(content), etag, text, file.upload_time)
    return send_artifact(repository, project, filename)


def send_artifact(repository: Repository, project: NormalizedName, filename: str) -> Response:
    """Answer with an artifact, and count it if that is the whole of it."""
    file, artifact = repository.open_file(project, filename)
    response = send(repository, artifact, file.size, file.sha256, "application/octet-stream", file.upload_time)
    if request.method == "GET" and response.status_code == HTTPStatus.OK:
        registry().downloads.count(repository.tree, project, filename)
    return response


def send(
    repository: Repository, content: BinaryIO, size: int, etag: str, content_type: str, last_modified: datetime
) -> Response:
    """Answer with a file that never changes under its name: whole, one range of it, or "not modified"."""
    response = Response(wrap_file(request.environ, content), content_type=content_type, direct_passthrough=True)
    try:
        response.content_length = size
        response.set_etag(etag)
        response.last_modified = last_modified
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


# --- uploads ---

LEGACY_FILE_FIELD = "content"
DIGEST_LENGTHS = {"md5_digest": 32, "sha256_digest": 64, "blake2_256_digest": 64}  # hexadecimal digits


@pypi.post("/legacy/", strict_slashes=False)
@pypi.post("/", strict_slashes=False)
@needs(Scope.WRITE_PACKAGES, upload=(LEGACY_FILE_FIELD,))
def upload(repository: Repository) -> ResponseReturnValue:
    """Publish with twine, uv, poetry, pdm, hatch or flit (specs.md 3)."""
    with received_form(repository) as form:
        check_protocol(form)
        if form.incoming is None or not form.incoming.filename:
            raise NoFile
        added = repository.add_file(
            form.incoming,
            form.incoming.filename,
            g.caller.actor,
            claims=claims_of(form),
            attestations=attestations_of(form),
        )
    verb = "stored" if added.created else "was there already, with the very same bytes"
    return Response(f"{added.sidecar.file.filename} {verb}\n", content_type="text/plain; charset=utf-8")


def check_protocol(form: UploadForm) -> None:
    """Look whether the form asks for what this address does.

    :raises Gone: if it asks for another of the old actions.
    :raises BadRequest: if it does not say, or speaks another protocol.
    """
    action = form.text(":action")
    if action is None:
        raise BadRequest("the form has no field ':action'; send ':action' = 'file_upload'")
    if action != "file_upload":
        raise Gone(f"the action {shorten(action)} is gone; a release is made by uploading its files (file_upload)")
    if form.text("protocol_version") not in (None, "1"):
        raise BadRequest("unknown protocol_version; send 1")


def claims_of(form: UploadForm) -> Claims:
    """Return what the form says of its file; everything else is taken from the archive.

    :raises BadRequest: if a digest is malformed, or there is none, or the file type is unknown.
    """
    digests = {field: form.text(field) for field in DIGEST_LENGTHS}
    if not any(digests.values()):
        raise BadRequest("the form has no digest; send sha256_digest")
    for field, digest in digests.items():
        if digest is not None and not re.fullmatch(rf"[0-9a-fA-F]{{{DIGEST_LENGTHS[field]}}}", digest, re.ASCII):
            raise BadRequest(f"{field} is not a digest of {DIGEST_LENGTHS[field]} hexadecimal digits")
    packagetype = form.text("filetype")
    if packagetype not in (None, "sdist", "bdist_wheel"):
        raise BadRequest(f"unknown filetype {shorten(packagetype)}; only sdist and bdist_wheel are taken")
    return Claims(
        name=form.text("name"),
        version=form.text("version"),
        packagetype=packagetype,
        md5=digests["md5_digest"],
        sha256=digests["sha256_digest"],
        blake2b_256=digests["blake2_256_digest"],
    )


def attestations_of(form: UploadForm) -> bytes | None:
    """Return the attestations of PEP 740 in the form, verbatim; None if there are none.

    :raises BadRequest: if they are no JSON array of objects.
    """
    text = form.text("attestations")
    if text is None:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadRequest("the field 'attestations' is not JSON") from error
    if not isinstance(document, list) or not all(isinstance(item, dict) for item in document):
        raise BadRequest("the field 'attestations' is not a JSON array of attestation objects (PEP 740)")
    return text.encode()


# --- package API ---

V1_FILE_FIELD = "package[package_file]"
PYTHON_DISTRIBUTION = 166  # packagecloud's number of "Python" (specs.md 5.4)


@api.post("/packages.json")
@api.post("/packages")
@needs(Scope.WRITE_PACKAGES, upload=(V1_FILE_FIELD,))
def publish(repository: Repository) -> ResponseReturnValue:
    """Publish with curl (contract.md section 4)."""
    with received_form(repository) as form:
        if form.incoming is None or not form.incoming.filename:
            raise NoFile
        if form.text("package[distro_version_id]") not in (None, str(PYTHON_DISTRIBUTION)):
            raise InvalidValue(
                "distro_version_id", f"must be that of Python, {PYTHON_DISTRIBUTION}, or be left out"
            )
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
        "total_downloads_count": sum(downloads_of(repository.tree, file.project, file.filename).values()),
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


PAGE_SIZE, MAX_PAGE_SIZE = 30, 100  # items; specs.md 5.1


@api.get("/packages.json")
@api.get("/packages")
@needs(Scope.READ_PACKAGES)
def package_list(repository: Repository) -> ResponseReturnValue:
    """Every file of the repository, newest first."""
    return page_of(registry().catalog(repository).newest_first(), partial(fragment_of_entry, repository))


@api.get("/search.json")
@api.get("/search")
@needs(Scope.READ_PACKAGES)
def search(repository: Repository) -> ResponseReturnValue:
    """Every file whose name holds the word ``q``, newest first."""
    word = request.args.get("q", "").lower()
    is_python = request.args.get("filter", "") in ("", "all", "python", "py", "pypi")
    is_ours = request.args.get("dist", "") in ("", "python", "python/1", "any")
    entries = registry().catalog(repository).newest_first() if is_python and is_ours else []
    spelled = re.sub(r"[-_.]+", "-", word)
    found = [e for e in entries if word in e.filename.lower() or spelled in e.project]
    return page_of(found, partial(fragment_of_entry, repository))


@api.get("/packages/python.json")
@api.get("/packages/python")
@needs(Scope.READ_PACKAGES)
def project_counts(repository: Repository) -> ResponseReturnValue:
    """The projects and how many versions each has."""
    word = request.args.get("filter", "").lower()
    counts = registry().catalog(repository).version_counts()
    root = f"/api/v1/repos/{repository.org}/{repository.slug}"
    html = f"/{repository.org}/{repository.slug}"
    return page_of(
        [project for project in counts if word in project],
        lambda project: {
            "name": project,
            "versions_count": counts[project],
            "versions_url": f"{root}/package/python/{project}/versions.json",
            "repository_url": root,
            "repository_html_url": html,
        },
    )


@api.get("/package/python/<name>/versions.json")
@api.get("/package/python/<name>/versions")
@needs(Scope.READ_PACKAGES)
def project_versions(repository: Repository, name: str) -> ResponseReturnValue:
    """Every file of a project, newest version first."""
    detail = repository.project(requested_project(name))
    files = sorted(detail.files, key=lambda file: file.sort_key, reverse=True)
    return page_of(files, lambda file: fragment(repository, repository.sidecar(file.project, file.filename)))


@api.get("/package/python/<name>/<version>.json")
@api.get("/package/python/<name>/<version>")
@needs(Scope.READ_PACKAGES)
def show_package(repository: Repository, name: str, version: str) -> ResponseReturnValue:
    """One file: that which ``?filename=`` names, or else the release's wheel before its sdist (specs.md 5.6)."""
    return jsonify(package_details(repository, requested_file(repository, name, version)))


def requested_file(repository: Repository, name: str, version: str) -> Sidecar:
    """Return the file that an address of the package API means.

    :raises NotFound: if there is none.
    """
    project, wanted = requested_project(name), requested_version(version)
    filename = request.args.get("filename")
    files = [file for file in repository.project(project).files if file.version == wanted]
    named = [file for file in files if filename in (None, file.filename)]
    if not named:
        raise FileNotFound(filename) if filename and files else ReleaseNotFound(project, version)
    first = min(named, key=lambda file: (file.packagetype, file.filename))  # "bdist_wheel" before "sdist"
    return repository.sidecar(project, first.filename)


def requested_version(text: str) -> str:
    """Return a version that a client asks for, normalized.

    :raises NotFound: if it is no version.
    """
    try:
        return str(parse_version(text))
    except InvalidName as error:
        raise NotFound(str(error)) from error


# "pypi" stands in packagecloud's older documents (specs.md 5.3).
@api.delete("/python/1/<filename>")
@api.delete("/pypi/1/<filename>")
@needs(Scope.DELETE_PACKAGES)
def delete_package(repository: Repository, filename: str) -> ResponseReturnValue:
    """Move a file to the trash."""
    repository.delete_file(project_of(filename), filename, g.caller.actor)
    return jsonify({})


@api.put("/python/1/<filename>/yank")
@needs(Scope.WRITE_PACKAGES)
def yank_package(repository: Repository, filename: str) -> ResponseReturnValue:
    """Yank a file (PEP 592); ``reason`` may say why."""
    reason = requested_fields().get("reason", "")
    return jsonify(yank_json(repository.yank_file(project_of(filename), filename, reason, g.caller.actor)))


@api.delete("/python/1/<filename>/yank")
@needs(Scope.WRITE_PACKAGES)
def unyank_package(repository: Repository, filename: str) -> ResponseReturnValue:
    """Take the yank back."""
    return jsonify(yank_json(repository.unyank_file(project_of(filename), filename, g.caller.actor)))


@api.put("/package/python/<name>/<version>/yank")
@needs(Scope.WRITE_PACKAGES)
def yank_release(repository: Repository, name: str, version: str) -> ResponseReturnValue:
    """Yank every file of a release."""
    return change_release_yank(repository, name, version, requested_fields().get("reason", ""))


@api.delete("/package/python/<name>/<version>/yank")
@needs(Scope.WRITE_PACKAGES)
def unyank_release(repository: Repository, name: str, version: str) -> ResponseReturnValue:
    """Take the yank of every file of a release back."""
    return change_release_yank(repository, name, version, None)


def change_release_yank(repository: Repository, name: str, version: str, reason: str | None) -> Response:
    """Yank a release, or with None take it back, and answer with its files."""
    project, wanted = requested_project(name), requested_version(version)
    changed = repository.yank_release(project, wanted, reason, g.caller.actor)
    return jsonify([yank_json(sidecar) for sidecar in changed])


def yank_json(sidecar: Sidecar) -> dict[str, Any]:
    """Return a file's yank state as PEP 691 has it."""
    return {"filename": sidecar.file.filename, "yanked": sidecar.file.yanked}


@api.put("/package/python/<name>/status")
@needs(Scope.WRITE_PACKAGES)
def change_status(repository: Repository, name: str) -> ResponseReturnValue:
    """Give a project a ``status`` of PEP 792, with a ``reason``."""
    fields = requested_fields()
    status = parse_status(fields.get("status", ""), fields.get("reason", ""))
    project = requested_project(name)
    repository.change_status(project, status, g.caller.actor)
    return jsonify({"name": project, "status": status.status, "reason": status.reason})


@api.post("/python/1/<filename>/promote.json")
@api.post("/python/1/<filename>/promote")
@needs(Scope.WRITE_PACKAGES)
def promote_package(repository: Repository, filename: str) -> ResponseReturnValue:
    """Move a file to the repository ``destination``, where the caller must be allowed to write, too."""
    project = project_of(filename)
    org, slash, repo = requested_fields().get("destination", "").partition("/")
    if not slash:
        raise InvalidValue("destination", "must name a repository as ORGANIZATION/REPOSITORY")
    if Scope.DELETE_PACKAGES not in g.caller.scopes(repository.org, repository.slug):
        raise ScopeMissing(Scope.DELETE_PACKAGES, f"{repository.org}/{repository.slug}")
    destination = open_repository(org, repo, Scope.WRITE_PACKAGES)
    moved = registry().promote_file(repository, destination, project, filename, g.caller.actor)
    return jsonify(package_details(destination, moved))


@api.get("/package/python/<name>/<version>/stats/downloads/count.json")
@needs(Scope.READ_PACKAGES)
def count_downloads(repository: Repository, name: str, version: str) -> ResponseReturnValue:
    """How often a file was downloaded in the days that were asked for."""
    return jsonify({"value": sum(requested_downloads(repository, name, version).values())})


@api.get("/package/python/<name>/<version>/stats/downloads/series/<interval>.json")
@needs(Scope.READ_PACKAGES)
def series_of_downloads(repository: Repository, name: str, version: str, interval: str) -> ResponseReturnValue:
    """The same by day or by week, each under its first day."""
    if interval not in ("daily", "weekly"):
        raise NotFound(f"there is no series {shorten(interval)}; ask for daily or weekly")
    series: Counter[str] = Counter()
    for day, number in sorted(requested_downloads(repository, name, version).items()):
        first = day - timedelta(days=day.weekday()) if interval == "weekly" else day
        series[f"{first:%Y%m%d}Z"] += number
    return jsonify({"value": series})


@api.get("/package/python/<name>/<version>/stats/downloads/detail.json")
@needs(Scope.WRITE_PACKAGES)
def detail_of_downloads(repository: Repository, name: str, version: str) -> ResponseReturnValue:
    """Each single download: Packhouse keeps numbers, and no addresses of people, so there are none."""
    requested_file(repository, name, version)
    return page_of([], lambda item: item)


def requested_downloads(repository: Repository, name: str, version: str) -> dict[date, int]:
    """Return the downloads of a file by day, from ``start_date`` to ``end_date``; by default of seven days."""
    file = requested_file(repository, name, version).file
    today = datetime.now(UTC).date()
    start = requested_day("start_date", today - timedelta(days=6))
    end = requested_day("end_date", today)
    days = downloads_of(repository.tree, file.project, file.filename)
    return {day: number for day, number in days.items() if start <= day <= end}


def requested_day(field: str, default: date) -> date:
    """Return the day in the query, as ``20260221Z``.

    :raises InvalidValue: if it is none.
    """
    text = request.args.get(field)
    try:
        return default if text is None else datetime.strptime(text.rstrip("Z"), "%Y%m%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise InvalidValue(field, "must be a day such as 20260221Z") from error


# packagecloud's calls for other kinds of packages, answered as one that has none.
@api.get("/gpg_keys.json")
@needs(Scope.READ_PACKAGES)
def gpg_keys(repository: Repository) -> ResponseReturnValue:
    """No keys: Python packages are not signed this way."""
    return jsonify({"gpg_keys": []})


@registries.get("/distributions.json")
@registries.get("/distributions")
@needs(None)
def distributions() -> ResponseReturnValue:
    """The kinds of packages that can be published (specs.md 5.5)."""
    version = {"id": PYTHON_DISTRIBUTION, "display_name": "Python", "index_name": "1", "version_number": None}
    return jsonify({"py": [{"display_name": "Python", "index_name": "python", "versions": [version]}]})


@registries.get("/repos.json")
@registries.get("/repos")
@needs(None)
def repository_list() -> ResponseReturnValue:
    """Every repository that the caller may read."""
    caller = g.caller = identify()
    if caller is None:
        raise Unauthorized(NO_CREDENTIAL)
    held = [
        repository
        for organization in registry().organizations()
        for repository in registry().repositories(organization.slug)
        if Scope.READ_PACKAGES in caller.scopes(repository.org, repository.slug)
    ]
    return jsonify([repository_json(repository) for repository in held])


@registries.post("/repos.json")
@registries.post("/repos")
@needs(None)
def create_repository() -> ResponseReturnValue:
    """Make a repository, in the organization of the caller (specs.md 5.3)."""
    caller = g.caller = identify()
    if caller is None:
        raise Unauthorized(NO_CREDENTIAL)
    fields = requested_fields("repository")
    org = requested_organization(caller, fields.get("organization"))
    name = fields.get("name", "")
    try:
        slug = slugify(name)
        private = fields.get("private", "1").lower() not in ("0", "false", "")
        made = RepositorySettings(name=name, description=fields.get("description", ""), private=private)
        repository = registry().create_repository(org, slug, made)
    except (InvalidName, AlreadyExists) as error:
        return jsonify({"repository": [f"Validation failed: {error}"]}), HTTPStatus.UNPROCESSABLE_ENTITY
    return jsonify({"url": f"{base_url()}/{repository.org}/{repository.slug}"}), HTTPStatus.CREATED


def requested_organization(caller: Caller, named: str | None) -> str:
    """Return the organization in which *caller* wants and may make repositories.

    :raises ScopeMissing: if there is none.
    """
    theirs = [caller.token.org] if caller.token is not None else list(caller.user.roles if caller.user else ())
    for org in [named] if named else theirs:
        if Scope.WRITE_REGISTRIES in caller.scopes(org, None):
            return org
    raise ScopeMissing(Scope.WRITE_REGISTRIES, named or "any organization")


@api.get(".json")
@api.get("", strict_slashes=False)
@needs(Scope.READ_PACKAGES)
def show_repository(repository: Repository) -> ResponseReturnValue:
    """One repository."""
    return jsonify(repository_json(repository))


def repository_json(repository: Repository) -> dict[str, Any]:
    """Return packagecloud's Repository (specs.md 5.5)."""
    held = repository.settings
    entries = registry().catalog(repository).newest_first()
    count = len(entries)
    return {
        "name": repository.slug,
        "created_at": held.created_at,
        "url": f"{base_url()}/{repository.org}/{repository.slug}",
        "last_push_human": time_ago(entries[0].upload_time) if entries else "never",
        "package_count_human": f"{count} package{'' if count == 1 else 's'}",
        "private": held.private,
        "fqname": f"{repository.org}/{repository.slug}",
    }


def time_ago(when: datetime) -> str:
    """Say how long ago *when* was: "3 days ago"."""
    seconds = max(0, int((datetime.now(UTC) - when).total_seconds()))
    for unit, length in (
        ("year", 31_536_000),
        ("month", 2_592_000),
        ("day", 86_400),
        ("hour", 3600),
        ("minute", 60),
    ):
        if seconds >= length:
            number = seconds // length
            return f"{number} {unit}{'' if number == 1 else 's'} ago"
    return "just now"


def requested_fields(wrapper: str = "") -> dict[str, str]:
    """Return the fields of a small request, which come as a form or as JSON, within *wrapper* or not.

    :raises BadRequest: if the body is JSON and no object.
    """
    if request.mimetype == "application/json":
        document = request.get_json()
        inner = document.get(wrapper, document) if isinstance(document, dict) else None
        if not isinstance(inner, dict):
            raise BadRequest("the body is not a JSON object")
        return {str(key): value if isinstance(value, str) else json.dumps(value) for key, value in inner.items()}
    prefix = f"{wrapper}["
    return {
        key.removeprefix(prefix).removesuffix("]") if wrapper else key: text for key, text in request.form.items()
    }


T = TypeVar("T")


def page_of(items: Sequence[T], describe: Callable[[T], Any]) -> Response:
    """Answer with one page of *items*, each as *describe* has it, and packagecloud's headers (specs.md 5.1).

    What disappears while the page is made, is left out.
    """
    number, size = requested_number("page", 1, 10**9), requested_number("per_page", PAGE_SIZE, MAX_PAGE_SIZE)
    described = []
    for item in items[(number - 1) * size : number * size]:
        with suppress(FileNotFound):
            described.append(describe(item))
    last = max(1, -(-len(items) // size))
    response = jsonify(described)
    places = {"prev": number - 1, "next": number + 1, "last": last}
    links = {rel: place for rel, place in places.items() if 1 <= place <= last}
    response.headers["Link"] = ", ".join(f'<{page_url(place, size)}>; rel="{rel}"' for rel, place in links.items())
    response.headers["Total"] = str(len(items))
    response.headers["Per-Page"] = str(size)
    response.headers["Max-Per-Page"] = str(MAX_PAGE_SIZE)
    return response


def page_url(number: int, size: int) -> str:
    """Return the full URL of another page of the list that was asked for."""
    query = {**request.args.to_dict(), "page": number, "per_page": size}
    return f"{base_url()}{quote(request.path)}?{url_encode(query)}"


def requested_number(field: str, default: int, most: int) -> int:
    """Return a number in the query, at least 1 and at most *most*; what is no number counts as absent."""
    text = request.args.get(field, "")
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else default
    return min(max(number, 1), most)


def fragment_of_entry(repository: Repository, entry: CatalogEntry) -> dict[str, Any]:
    """Return packagecloud's PackageFragment of a file in the catalog."""
    return fragment(repository, repository.sidecar(entry.project, entry.filename))


# What a PackageDetails has, and a PackageFragment has not.
NO_FRAGMENT = {
    *("repository", "size", "summary", "description", "licenses", "dependencies", "total_downloads_count"),
    *("md5sum", "sha1sum", "sha512sum", "repository_url", "self_url", "versions_url"),
}


def fragment(repository: Repository, sidecar: Sidecar) -> dict[str, Any]:
    """Return packagecloud's PackageFragment of a file (specs.md 5.5)."""
    details = package_details(repository, sidecar)
    return {key: value for key, value in details.items() if key not in NO_FRAGMENT}


# --- pages ---


@pages.get("/<org>/<repo>/packages/<name>/<filename>/download")
@needs(Scope.READ_PACKAGES)
def download_from_page(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """The file, for people and packagecloud's scripts; these say ``python`` where the project's name is."""
    project = project_of(filename)
    if name not in ("python", project):
        raise FileNotFound(filename)
    response = send_artifact(repository, project, filename)
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
    """Answer *error* in the client's form: JSON for the API, a reason phrase for uploaders, else a line of text."""
    if isinstance(error, OSError):
        log.error("%s %s: %s", request.method, request.path, error)
        error = as_storage_error(error)
    status = status_of(error)
    if request.path.startswith("/api/"):
        response = jsonify(v1_error(error, status))
        response.status_code = status
    elif request.blueprint == "pypi" and request.method == "POST":
        response = legacy_error(error, status)
    else:
        response = Response(f"{sentence_of(error)}\n", status, content_type="text/plain; charset=utf-8")
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


MAX_REASON_PHRASE = 200  # characters; contract.md section 4


def legacy_error(error: Exception, status: int) -> Response:
    """Answer an uploader: the sentence stands in the reason phrase, all that some of them show (specs.md 3.3).

    uv reads the field ``code`` of a body that is exactly ``application/json``.
    """
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    message = legacy_sentence(error)
    phrase = re.sub(r"[^\x20-\x7e\xa0-\xff]", "?", message)
    code = f"{status} {phrase if len(phrase) <= MAX_REASON_PHRASE else phrase[: MAX_REASON_PHRASE - 3] + '...'}"
    if "application/json" in request.headers.get("Accept", ""):
        response = jsonify(code=f"{status} {message}", message=message, title=HTTPStatus(status).phrase)
    else:
        response = Response(f"{message}\n", content_type="text/plain; charset=utf-8")
    response.status = code
    return response


def legacy_sentence(error: Exception) -> str:
    """Say what was wrong in the words that uploaders know from PyPI (contract.md section 4)."""
    if isinstance(error, FileAlreadyExists):
        when = f"{error.upload_time:%Y-%m-%d %H:%M:%S} UTC"
        return (
            f"File already exists ({error.filename!r}, with sha256 hash '{error.stored_sha256[:12]}', "
            f"{'deleted since, ' if error.deleted else ''}uploaded {when} by {error.uploader[:40]}; "
            f"yours has '{error.sha256[:12]}'). Use a different version."
        )
    if isinstance(error, (InvalidDistribution, InvalidFilename)):
        return f"Invalid distribution file. {error}"
    return sentence_of(error)


TAKEN = "has already been taken"  # scripts look for these very words (specs.md 5.1)


def v1_error(error: Exception, status: int) -> dict[str, Any]:
    """The body that packagecloud's clients expect (specs.md 5.1)."""
    if isinstance(error, Conflict):
        return {"filename": [TAKEN], "message": sentence_of(error)}
    if isinstance(error, NoFile):
        return {"package_file": ["can't be blank"]}
    if isinstance(error, InvalidDistribution):
        return {"package_file": list(error.reasons)}
    if isinstance(error, InvalidValue):
        return {error.field: [error.rule]}
    if isinstance(error, FileNotFound):
        return {"error": "Not Found", "filename": ["not found"], "message": str(error)}
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
    for blueprint in (pypi, api, registries, pages):
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
    response.vary.update(g.get("vary", ()))
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
