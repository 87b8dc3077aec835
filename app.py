"""Packhouse over HTTP: every route. In order.

simple index   GET  /<org>/<repo>/pypi/simple/...          pip, uv
files          GET  /<org>/<repo>/pypi/files/...           pip, uv
uploads        POST /<org>/<repo>/pypi/legacy/             twine, uv
package API         /api/v1/...                            curl, scripts
health         GET  /healthz, /metrics
the app        create_app(settings, registry), make_gate(app)

The pages for people are in ``web/pages.py`` and its neighbours; what is no route is in ``web/``, too.

A view reads as four steps: who may, what was asked, one call into ``storage``, one answer. "Who may" is its
:func:`needs`; a view without one stops the start.
"""

from __future__ import annotations

import io
import json
import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, date, datetime, timedelta
from functools import partial
from http import HTTPStatus
from itertools import islice
from pathlib import Path
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
    request,
    url_for,
)
from flask.typing import ResponseReturnValue
from packaging.utils import NormalizedName
from packaging.version import Version
from werkzeug.exceptions import (
    BadRequest,
    Gone,
    HTTPException,
    NotAcceptable,
    Unauthorized,
)
from werkzeug.http import http_date, parse_range_header
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import Rule as WerkzeugRule
from werkzeug.wsgi import wrap_file

from server import HEAD_KEY, BodyReceiver, Refusal
from settings import Settings
from storage.catalog import CatalogEntry
from storage.downloads import downloads_of
from storage.errors import (
    AlreadyExists,
    FileNotFound,
    InvalidDistribution,
    InvalidName,
    InvalidValue,
    NotFound,
    ReleaseNotFound,
    RepositoryNotFound,
    StorageDamaged,
    StorageError,
    shorten,
)
from storage.names import WINDOWS_DEVICES, normalize_project, parse_version, slugify
from storage.publishing import Claims
from storage.registry import Registry
from storage.repository import Repository, RepositorySettings, project_of
from storage.rights import Caller, ScopeMissing
from storage.sidecars import Sidecar
from storage.statuses import parse_status
from storage.tokens import Scope
from storage.uploads import Incoming
from storage.watching import Watch
from web.access import (
    FORM_METHODS,
    NO_CREDENTIAL,
    PROBE_KEY,
    RULES,
    Rule,
    admit,
    base_url,
    csrf_token,
    identify,
    name_repository,
    needs,
    note_admission,
    note_use,
    open_repository,
    paths_of_right,
    registry,
    rule_of_request,
    settings,
)
from web.application import PROTECTION, App, SessionInterface
from web.errors import answer_error
from web.forms import NoFile, UploadForm, open_form, received_form
from web.frame import current_viewer
from web.hot import KEEP_KEY, PEER_KEY, HotPages, Provenance, keep_answers
from web.index_pages import (
    JSON_TYPE,
    MIN_COMPRESSED,
    OFFERS,
    IndexPage,
    choose_coding,
    choose_type,
    project_html,
    project_json,
    project_list_html,
    project_list_json,
)
from web.logs import CALLER_KEY
from web.metrics import Answers
from web.package_pages import package_pages
from web.packagecloud import fragment, package_details, repository_json
from web.pages import pages
from web.repository_pages import repository_pages
from web.routing import Route
from web.settings_pages import settings_pages
from web.words import add_filters

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger("packhouse")


pypi = Blueprint("pypi", __name__, url_prefix="/<org>/<repo>/pypi")
api = Blueprint("api", __name__, url_prefix="/api/v1/repos/<org>/<repo>")
registries = Blueprint("registries", __name__, url_prefix="/api/v1")
downloads = Blueprint("downloads", __name__)
health = Blueprint("health", __name__)


# --- simple index ---


# Addresses with and without a slash are routes of their own: werkzeug's strict_slashes=False takes doubled slashes,
# too, and answers 404 instead of 405. url_for() takes the last of the two.
@pypi.get("/simple")
@pypi.get("/simple/")
@needs(Scope.READ_PACKAGES)
def project_list(repository: Repository) -> ResponseReturnValue:
    """The projects of a repository (PEP 503, PEP 691)."""
    if not request.path.endswith("/"):
        return redirect_to(url_for(".project_list"))
    keep_answer(repository, repository.tree.packages)
    content_type = requested_type()
    projects = repository.projects()
    as_json = content_type == JSON_TYPE
    page = project_list_json(projects) if as_json else project_list_html(projects, content_type)
    return index_page(repository, page)


@pypi.get("/simple/<name>")
@pypi.get("/simple/<name>/")
@needs(Scope.READ_PACKAGES)
def project_page(repository: Repository, name: str) -> ResponseReturnValue:
    """One project's files (PEP 503, PEP 691)."""
    project = requested_project(name)
    if name != project or not request.path.endswith("/"):
        return redirect_to(url_for(".project_page", name=project))
    watch = keep_answer(repository, repository.tree.project(project))
    content_type = requested_type()
    listing = repository.listing(project)
    if watch is not None:
        watch.add(listing.watch)
    detail = listing.detail
    as_json = content_type == JSON_TYPE
    return index_page(repository, project_json(detail) if as_json else project_html(detail, "../../", content_type))


@pypi.get("/legacy/+simple/<name>")
@pypi.get("/legacy/+simple/<name>/")
@needs(Scope.READ_PACKAGES)
def project_page_for_hatch(repository: Repository, name: str) -> ResponseReturnValue:
    """The same page where hatch looks for what it need not upload (specs.md 3.4)."""
    project = requested_project(name)
    if name != project or not request.path.endswith("/"):
        return redirect_to(url_for(".project_page_for_hatch", name=project))
    detail = repository.project(project)
    return index_page(repository, project_html(detail, "../../../", OFFERS[0]))


def requested_type() -> str:
    """Choose among OFFERS what the client likes best; ``?format=`` beats ``Accept`` (specs.md 1.4).

    :raises NotAcceptable: if it likes none.
    """
    environ = request.environ
    # A plus that somebody typed reads as a space.
    asked = request.args.get("format", "").replace(" ", "+") if environ.get("QUERY_STRING") else ""
    if not asked:
        asked = environ.get("HTTP_ACCEPT", "")
        if "/" not in asked:
            return OFFERS[0]  # absent, or nothing that could be parsed
    chosen = choose_type(asked)
    if chosen is None:
        vary_index_page(g.repository.settings.private)
        raise NotAcceptable(f"this page can be had as {', '.join(OFFERS)}")
    return chosen


def keep_answer(repository: Repository, folder: Path) -> Watch | None:
    """Let the server give the answer to this request again while nothing that it is made from has changed.

    It is made from *folder*, and from what is added to the watch that is returned; None if it is not kept. Called
    before any of it is read.
    """
    if HEAD_KEY not in request.environ or not settings().page_cache_size:
        return None
    token = g.caller.token if g.caller is not None else None
    if g.caller is not None and token is None:
        return None  # of a password: ten wrong ones refuse the right one, too
    try:
        watch = Watch(paths_of_right(repository, g.caller), folder, repository.tree.events_file)
    except OSError:
        return None  # it is gone, or cannot be looked at: the answer will say so
    on_use = None if token is None else partial(note_use, registry().tokens, token)
    expires_at = token.expires_at if token is not None else None
    request.environ[KEEP_KEY] = Provenance(watch, expires_at, on_use)
    return watch


def index_page(repository: Repository, page: IndexPage) -> Response:
    """Answer with a page of the simple index, or "not modified"; its ETag is strong (contract.md section 5)."""
    environ = request.environ
    coding = choose_coding(environ.get("HTTP_ACCEPT_ENCODING", "")) if page.size >= MIN_COMPRESSED else ""
    etag = page.etag(coding)
    private = repository.settings.private
    charset = "; charset=utf-8" if page.content_type == OFFERS[0] else ""
    headers = [
        ("Content-Type", page.content_type + charset),
        ("ETag", f'"{etag}"'),
        ("Cache-Control", "private, no-cache" if private else "no-cache"),
    ]
    if coding:
        headers.append(("Content-Encoding", coding))
    vary_index_page(private)
    if not is_conditional(environ):
        return Response(page.encode(coding), headers=headers)
    is_known = request.if_none_match.contains_weak(etag)
    response = Response(b"" if is_known else page.encode(coding), headers=headers)
    response.make_conditional(environ)
    return response


CONDITIONS = frozenset(
    {f"HTTP_IF_{name}" for name in ("MATCH", "NONE_MATCH", "MODIFIED_SINCE", "UNMODIFIED_SINCE", "RANGE")}
)


def is_conditional(environ: WSGIEnvironment) -> bool:
    """Whether a request asks for something else if it is as the client believes, or for a part alone."""
    return "HTTP_RANGE" in environ or not CONDITIONS.isdisjoint(environ)


def vary_index_page(private: bool) -> None:
    """Tell caches what the answer to this request depends on; errors included."""
    g.vary = "Accept, Accept-Encoding, Authorization" if private else "Accept, Accept-Encoding"


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
OCTETS = "application/octet-stream"
PARTIAL = ("Range", "If-None-Match", "If-Modified-Since")  # with these, less than the whole file may be sent


@pypi.get("/files/<name>/<filename>")
@needs(Scope.READ_PACKAGES)
def download_file(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """An artifact, byte for byte as uploaded, or its core metadata (PEP 658)."""
    project = requested_project(name)
    if filename.endswith(CORE_METADATA_SUFFIX):
        return send_core_metadata(repository, project, filename.removesuffix(CORE_METADATA_SUFFIX))
    return send_artifact(repository, project, filename)


def send_core_metadata(repository: Repository, project: NormalizedName, filename: str) -> Response:
    """Answer with the core metadata of a file; kept ready like a page, for every resolver asks for it."""
    watch = (
        keep_answer(repository, repository.tree.project(project)) if "HTTP_RANGE" not in request.environ else None
    )
    if watch is not None:
        watch.add(repository.watch_file(project, filename))
    file, content = repository.core_metadata(project, filename)
    etag, text = file.core_metadata_sha256 or "", "text/plain; charset=utf-8"
    return send(repository, io.BytesIO(content), len(content), etag, text, file.upload_time)


def send_artifact(repository: Repository, project: NormalizedName, filename: str) -> Response:
    """Answer with an artifact, and count it if that is the whole of it."""
    file, artifact = repository.open_file(project, filename)
    if PEER_KEY in request.environ and settings().x_accel_redirect:
        artifact.close()
        response = leave_to_proxy(repository, repository.tree.artifact(project, filename))
        is_whole = not any(header in request.headers for header in PARTIAL)
    else:
        response = send(repository, artifact, file.size, file.sha256, OCTETS, file.upload_time)
        is_whole = response.status_code == HTTPStatus.OK
    if request.method == "GET" and is_whole:
        registry().downloads.count(repository.tree, project, filename)
    return response


def leave_to_proxy(repository: Repository, artifact: Path) -> Response:
    """Tell a trusted nginx where it finds a file; it sends the file, or what was asked of it, in our place."""
    response = Response(content_type=OCTETS)
    path = artifact.relative_to(settings().storage).as_posix()
    response.headers["X-Accel-Redirect"] = f"{settings().x_accel_redirect}/{quote(path)}"
    response.headers["Cache-Control"] = cache_control(repository.settings)
    return response


def send(
    repository: Repository, content: BinaryIO, size: int, etag: str, content_type: str, last_modified: datetime
) -> Response:
    """Answer with a file that never changes under its name: whole, one range of it, or "not modified"."""
    environ = request.environ
    try:
        headers = [
            ("Content-Type", content_type),
            ("Content-Length", str(size)),
            ("ETag", f'"{etag}"'),
            ("Last-Modified", http_date(last_modified)),
            ("Cache-Control", cache_control(repository.settings)),
            ("Accept-Ranges", "bytes"),
        ]
        response = Response(wrap_file(environ, content), headers=headers, direct_passthrough=True)
        if is_conditional(environ):
            response.make_conditional(with_single_range(environ), accept_ranges=True, complete_length=size)
        if response.status_code == HTTPStatus.PARTIAL_CONTENT and "wsgi.file_wrapper" in environ:
            # PEP 3333: such a file is sent from where it stands, and as much of it as Content-Length says.
            content.seek(response.content_range.start or 0)
            response.response = wrap_file(environ, content)
    except BaseException:
        content.close()
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


@downloads.get("/<org>/<repo>/packages/<name>/<filename>/download")
@needs(Scope.READ_PACKAGES)
def download_from_page(repository: Repository, name: str, filename: str) -> ResponseReturnValue:
    """The file, for people and packagecloud's scripts; these say ``python`` where the project's name is."""
    project = project_of(filename)
    if name not in ("python", project):
        raise FileNotFound(filename)
    response = send_artifact(repository, project, filename)
    response.headers.set("Content-Disposition", "attachment", filename=filename)
    return response


# --- uploads ---

LEGACY_FILE_FIELD = "content"
DIGEST_LENGTHS = {"md5_digest": 32, "sha256_digest": 64, "blake2_256_digest": 64}  # hexadecimal digits


@pypi.post("/legacy")
@pypi.post("/legacy/")
@pypi.post("")
@pypi.post("/")
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
    if "attestations" in form.not_utf8:
        raise BadRequest("the field 'attestations' is not UTF-8")
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


@api.post("/packages/check.json")
@api.post("/packages/check")
@needs(Scope.WRITE_PACKAGES, upload=(V1_FILE_FIELD,))
def check_package(repository: Repository) -> ResponseReturnValue:
    """Say what publishing would say, with every reason against it, and store nothing."""
    with received_form(repository) as form:
        if form.incoming is None or not form.incoming.filename:
            raise NoFile
        filename = form.incoming.filename
        try:
            filename = name_of_upload(form.incoming)
            reasons = repository.find_reasons(form.incoming, filename, g.caller.actor)
        except InvalidDistribution as error:
            reasons = error.reasons
        digests = form.incoming.digests
    facts = {"filename": filename, "sha256": digests.sha256}
    return jsonify({"ok": not reasons, **facts, **({"reasons": list(reasons)} if reasons else {})})


_MEANINGLESS = re.compile(r"[A-Za-z0-9_-]{1,64}(\.tmp)?", re.ASCII)


def name_of_upload(incoming: Incoming) -> str:
    """Return the name to publish a file under: the part's, or the one that its metadata gives it.

    packagecloud's Java client calls every part by a random word (specs.md 5.4).
    """
    if _MEANINGLESS.fullmatch(incoming.filename) and incoming.filename.lower() not in WINDOWS_DEVICES:
        from storage.distributions import name_from_content  # it brings all that reads archives

        return name_from_content(incoming.content, limits=settings().limits)
    return incoming.filename


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
    files = [file for file in repository.project(project).files if file.sort_key[0] == wanted]
    named = [file for file in files if filename in (None, file.filename)]
    if not named:
        raise FileNotFound(filename) if filename and files else ReleaseNotFound(project, version)
    first = min(named, key=lambda file: (file.packagetype, file.filename))  # "bdist_wheel" before "sdist"
    return repository.sidecar(project, first.filename)


def requested_version(text: str) -> Version:
    """Return a version that a client asks for; 1.0 and v1.0.0 are the same.

    :raises NotFound: if it is no version.
    """
    try:
        return parse_version(text)
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
    reason = requested_fields("reason").get("reason", "")
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
    return change_release_yank(repository, name, version, requested_fields("reason").get("reason", ""))


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
    fields = requested_fields("status", "reason")
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
    org, slash, repo = requested_fields("destination").get("destination", "").partition("/")
    if not slash:
        raise InvalidValue("destination", "must name a repository as ORGANIZATION/REPOSITORY")
    if Scope.DELETE_PACKAGES not in g.caller.scopes(repository.org, repository.slug):
        raise ScopeMissing(Scope.DELETE_PACKAGES, f"{repository.org}/{repository.slug}")
    destination = open_repository(org, repo, Scope.WRITE_PACKAGES)
    moved = registry().promote_file(repository, destination, project, filename, g.caller.actor)
    return jsonify(package_details(destination, moved))


@api.get("/package/python/<name>/<version>/stats/downloads/count.json")
@api.get("/package/python/<name>/<version>/stats/downloads/count")
@needs(Scope.READ_PACKAGES)
def count_downloads(repository: Repository, name: str, version: str) -> ResponseReturnValue:
    """How often a file was downloaded in the days that were asked for."""
    return jsonify({"value": sum(requested_downloads(repository, name, version).values())})


@api.get("/package/python/<name>/<version>/stats/downloads/series/<interval>.json")
@api.get("/package/python/<name>/<version>/stats/downloads/series/<interval>")
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
@api.get("/package/python/<name>/<version>/stats/downloads/detail")
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
@api.get("/gpg_keys")
@needs(Scope.READ_PACKAGES)
def gpg_keys(repository: Repository) -> ResponseReturnValue:
    """No keys: Python packages are not signed this way."""
    return jsonify({"gpg_keys": []})


@api.post("/gpg_keys.json")
@api.post("/gpg_keys")
@api.post("/packages/contents.json")
@api.post("/packages/contents")
@needs(Scope.WRITE_PACKAGES)
def refuse_other_kinds(repository: Repository) -> ResponseReturnValue:
    """Keys and source packages of Debian have no place here."""
    raise InvalidValue("base", "is of no use for Python packages, which are all that a repository here can hold")


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
    described = []
    for repository in held:
        with suppress(RepositoryNotFound, StorageDamaged):  # it hides itself alone
            described.append(repository_json(repository))
    return jsonify(described)


@registries.post("/repos.json")
@registries.post("/repos")
@needs(None)
def create_repository() -> ResponseReturnValue:
    """Make a repository, in the organization of the caller (specs.md 5.3)."""
    caller = g.caller = identify()
    if caller is None:
        raise Unauthorized(NO_CREDENTIAL)
    fields = requested_fields("name", "description", "private", "organization", wrapper="repository")
    org = requested_organization(caller, fields.get("organization"))
    name = fields.get("name", "")
    try:
        slug = slugify(name)
        private = fields.get("private", "1").lower() not in ("0", "false", "")
        made = RepositorySettings(name=name, description=fields.get("description", ""), private=private)
        repository = registry().create_repository(org, slug, made)
        repository.record("repository created", caller.actor, name=made.name, private=made.private)
    except (InvalidName, AlreadyExists) as error:
        return jsonify({"repository": [f"Validation failed: {error}"]}), HTTPStatus.UNPROCESSABLE_ENTITY
    return jsonify({"url": f"{base_url()}/{repository.org}/{repository.slug}"}), HTTPStatus.CREATED


def requested_organization(caller: Caller, named: str | None) -> str:
    """Return the organization in which *caller* wants and may make repositories.

    :raises ScopeMissing: if there is none.
    :raises InvalidValue: if there are several, and none is named.
    """
    theirs = [caller.token.org] if caller.token is not None else list(caller.user.roles if caller.user else ())
    able = [org for org in ([named] if named else theirs) if Scope.WRITE_REGISTRIES in caller.scopes(org, None)]
    if not able:
        raise ScopeMissing(Scope.WRITE_REGISTRIES, named or "any organization")
    if len(able) > 1:
        raise InvalidValue("organization", f"must be said, one of {', '.join(sorted(able))}")
    return able[0]


@registries.get("/repos/<org>/<repo>.json")
@registries.get("/repos/<org>/<repo>")
@needs(Scope.READ_PACKAGES)
def show_repository(repository: Repository) -> ResponseReturnValue:
    """One repository."""
    return jsonify(repository_json(repository))


def requested_fields(*names: str, wrapper: str = "") -> dict[str, str]:
    """Return those of the fields *names* that a small request has, as a form or as JSON, within *wrapper* or not.

    :raises BadRequest: if the body is JSON and no object.
    :raises InvalidValue: if a field is neither a text nor a number, nor true or false; null counts as absent.
    """
    fields = json_fields(wrapper) if request.is_json else form_fields()
    found: dict[str, str] = {}
    for name in names:
        value = fields.get(f"{wrapper}[{name}]", fields.get(name))
        if isinstance(value, (dict, list)):
            raise InvalidValue(name, "must be a text")
        if value is not None:
            found[name] = value if isinstance(value, str) else json.dumps(value)
    return found


def form_fields() -> Mapping[str, Any]:
    """Return the fields of the form in the body; none if there is no body.

    :raises BadRequest: if the body is something else, such as the JSON that ``curl -d`` calls a form.
    """
    form = request.form
    if request.content_length and (not form or next(iter(form)).lstrip().startswith(("{", "["))):
        raise BadRequest("the body is no form; for JSON, send the header 'Content-Type: application/json'")
    return form


def json_fields(wrapper: str) -> dict[str, Any]:
    """Return the JSON object in the body, or the one in it under the key *wrapper*.

    :raises BadRequest: if there is none.
    """
    try:
        document = request.get_json()
    except RecursionError as error:
        raise BadRequest("the body is nested too deeply") from error
    fields = document.get(wrapper, document) if wrapper and isinstance(document, dict) else document
    if not isinstance(fields, dict):
        raise BadRequest("the body is not a JSON object")
    return fields


T = TypeVar("T")


def page_of(items: Sequence[T], describe: Callable[[T], Any]) -> Response:
    """Answer with one page of *items*, each as *describe* has it, and packagecloud's headers (specs.md 5.1).

    In the place of what is damaged or disappears meanwhile the page has what comes next: a short page would be
    taken for the last one (specs.md 5.6), while something that is listed twice does no harm.
    """
    number, size = requested_number("page", 1, 10**9), requested_number("per_page", PAGE_SIZE, MAX_PAGE_SIZE)
    described: list[Any] = []
    for item in islice(items, (number - 1) * size, None):
        if len(described) == size:
            break
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


# --- health ---


@health.get("/healthz")
@needs(None)
def healthz() -> ResponseReturnValue:
    """Whether the storage can be read."""
    registry().organizations()
    return Response("ok\n", content_type="text/plain; charset=utf-8")


@health.get("/metrics")
@needs(None)
def metrics() -> ResponseReturnValue:
    """What this process has answered, for Prometheus."""
    answers: Answers = current_app.extensions["packhouse.answers"]
    return Response(answers.text(), content_type="text/plain; version=0.0.4; charset=utf-8")


# --- the app ---


def create_app(settings: Settings, registry: Registry) -> Flask:
    """Build the app that serves *registry*.

    :raises RuntimeError: if a view says nothing of who may use it.
    """
    app = App(__name__)
    app.url_rule_class = Route
    app.config.update(
        REGISTRY=registry,
        SETTINGS=settings,
        SECRET_KEY=registry.secret_key,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_NAME="packhouse",
        PERMANENT_SESSION_LIFETIME=timedelta(days=14),
        # admit() asks, for pages alone, and what Flask-WTF would do at the start happens with the first of them.
        WTF_CSRF_METHODS=FORM_METHODS,
        WTF_CSRF_FIELD_NAME="csrf_token",
        WTF_CSRF_HEADERS=("X-CSRFToken",),
        WTF_CSRF_TIME_LIMIT=None,  # as long as the session
        WTF_CSRF_SSL_STRICT=False,  # the Referer is not sent: see protect()
    )
    app.json.sort_keys = False  # type: ignore[attr-defined]
    app.url_map.merge_slashes = False  # a POST must never be redirected (specs.md 3.6)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.session_interface = SessionInterface()
    pages_for_people = (pages, repository_pages, settings_pages, package_pages)
    for blueprint in (pypi, api, registries, downloads, health, *pages_for_people):
        app.register_blueprint(blueprint)
    app.url_value_preprocessor(admit)
    app.url_defaults(name_repository)
    app.before_request(stop_at_admission)
    app.after_request(protect)
    app.add_template_global(current_viewer)
    app.add_template_global(csrf_token)
    add_filters(app)
    for kind in (HTTPException, StorageError, OSError):
        app.register_error_handler(kind, answer_error)
    hot = HotPages(settings.page_cache_size, settings.trusted_proxies)
    app.extensions["packhouse.hot"] = hot
    app.extensions["packhouse.answers"] = Answers()
    app.wsgi_app = keep_answers(app.wsgi_app, hot)  # type: ignore[method-assign, assignment]
    app.wsgi_app = trust_proxies(app.wsgi_app, settings.trusted_proxies)  # type: ignore[method-assign, assignment]
    ruleless = [name for name, view in app.view_functions.items() if name != "static" and view not in RULES]
    if ruleless:
        raise RuntimeError(f"these views say nothing of who may use them: {', '.join(ruleless)}")
    unguarded = [str(route) for route in app.url_map.iter_rules() if is_unguarded(app, route)]
    if unguarded:
        raise RuntimeError(f"these addresses name no repository for their scope: {', '.join(unguarded)}")
    return app


def is_unguarded(app: Flask, route: WerkzeugRule) -> bool:
    """Whether the rule of a view demands a scope, and the address does not say on which repository."""
    rule = RULES.get(app.view_functions[route.endpoint])
    return rule is not None and rule.scope is not None and not {"org", "repo"} <= route.arguments


def protect(response: Response) -> Response:
    """Keep redirects within this origin, and answers where they are not for everybody."""
    headers = response.headers
    if "Location" in headers:
        headers["Location"] = within_origin(headers["Location"])
    rule: Rule | None = g.get("rule")
    if rule is not None and rule.page:
        headers["Cache-Control"] = "private, no-store"
    if vary := g.get("vary"):
        headers.add("Vary", vary)
    return response


def within_origin(location: str) -> str:
    """Return a redirect's target without the host.

    Where a slash is missing at an address's end, werkzeug redirects to whatever the ``Host`` header says.
    """
    if not location.startswith(request.host_url):
        return location
    return "/" + location.removeprefix(request.host_url).lstrip("/\\")


def trust_proxies(application: WSGIApplication, proxies: tuple[str, ...]) -> WSGIApplication:
    """Let ``X-Forwarded-*`` count where a request comes from one of *proxies*, and nowhere else."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        believe_proxy(environ, proxies)
        return application(environ, start_response)

    return serve


_FORWARDED = ProxyFix(lambda environ, start_response: (), x_for=1, x_proto=1, x_host=1)


def believe_proxy(environ: WSGIEnvironment, proxies: tuple[str, ...]) -> None:
    """Put into *environ* what a proxy says of its client, once, if the request comes from one of *proxies*."""
    if PEER_KEY not in environ and environ.get("REMOTE_ADDR") in proxies:
        environ[PEER_KEY] = environ["REMOTE_ADDR"]
        _FORWARDED(environ, lambda status, headers, exc_info=None: lambda data: None)  # it only changes environ


def stop_at_admission() -> ResponseReturnValue | None:
    """End a request of :func:`make_gate` where the view would begin."""
    if PROBE_KEY not in request.environ:
        return None
    request.environ[PROBE_KEY].append(g.get("repository"))
    return "", HTTPStatus.NO_CONTENT


def make_gate(app: Flask) -> Callable[[WSGIEnvironment], Refusal | BodyReceiver | int]:
    """Return what the server asks, as soon as the headers are in, about a request with a body.

    The request takes the app's own way as far as the view, so that a body is refused before it is read for the
    very reasons, and in the very words, with which the view would have been refused.
    """
    proxies = app.config["SETTINGS"].trusted_proxies

    def gate(environ: WSGIEnvironment) -> Refusal | BodyReceiver | int:
        admitted: list[Repository | None] = []
        believe_proxy(environ, proxies)
        probe = {**environ, "wsgi.input": io.BytesIO(), PROBE_KEY: admitted}
        with app.request_context(probe):
            # As full_dispatch_request(), but without an answer where nobody would see it.
            try:
                answer = app.preprocess_request()
                if answer is None:
                    answer = app.dispatch_request()
            except Exception as error:
                answer = app.handle_user_exception(error)
            environ[CALLER_KEY] = probe.get(CALLER_KEY, "-")
            if not admitted:
                response = app.finalize_request(answer)
                return Refusal(response.status, [*response.headers.items(), *PROTECTION], response.get_data())
            if "caller" in g:
                note_admission(environ)
            rule = rule_of_request()
            form = open_form(admitted[0], rule) if rule is not None and rule.upload_fields and admitted[0] else None
            return form if form is not None else settings().max_form_size

    return gate
