"""The page of a repository: publishing, the list of its packages, and what happened in it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from urllib.parse import urlencode

from flask import Blueprint, flash, g, jsonify, redirect, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import BadRequest

import snippets
from storage.downloads import total_downloads
from storage.errors import Conflict, Invalid
from storage.events import Event, newest_events
from storage.publishing import Added
from storage.repository import Repository
from storage.sidecars import parse_time
from storage.statuses import ProjectClosed
from storage.summaries import ORDERS, Overview, ProjectSummary
from storage.tokens import Scope
from web.access import base_url, page_needs, registry, settings
from web.fields import Fields
from web.forms import NoFile, UploadForm, received_form
from web.frame import PAGE_SIZE, page_of_list, person, render_in_repository

repository_pages = Blueprint("repository_pages", __name__, url_prefix="/<org>/<repo>")

PLACEHOLDER = "YOUR_TOKEN"  # where a token belongs in a command, as long as none was made
MAX_SEARCH = 200  # characters


# --- the page ---


@repository_pages.get("/")
@page_needs(Scope.READ_PACKAGES)
def show(repository: Repository) -> ResponseReturnValue:
    """The repository: how to publish, and its packages."""
    return repository_page(repository)


def repository_page(repository: Repository, token: str = "", **values: object) -> str:
    """Render the repository; *token* has just been made and stands in the commands."""
    overview = registry().summaries(repository).overview()
    return render_in_repository(
        "repository.html",
        repository,
        "packages",
        packages=package_list(repository, overview),
        commands=publishing_commands(repository, token or PLACEHOLDER),
        install=install_command(repository),
        index=snippets.index_url(base_url(), repository.org, repository.slug),
        secret=token,
        max_file_size=settings().max_file_size,
        **values,
    )


def publishing_commands(repository: Repository, token: str) -> dict[str, str]:
    """Return how each client publishes here, by its name."""
    place = (base_url(), repository.org, repository.slug, token)
    return {
        "curl": snippets.curl_command(*place),
        "twine": snippets.twine_command(*place),
        "uv": snippets.uv_publish_command(*place),
        "poetry": snippets.poetry_commands(*place),
    }


def install_command(repository: Repository) -> str:
    """Return how pip installs from here; with the place of a token where one is needed."""
    token = PLACEHOLDER if repository.settings.private else ""
    return snippets.pip_command(base_url(), repository.org, repository.slug, token)


# --- packages ---

SORTS = (*ORDERS, "downloads")
DESCENDING = ("pushed", "files", "size", "downloads")  # what people want to see from the other end first


@dataclass(frozen=True, slots=True)
class PackageRow:
    """One project on the list."""

    summary: ProjectSummary
    pushed: datetime
    downloads: int


@dataclass(frozen=True, slots=True)
class PackageList:
    """One page of the list of packages."""

    rows: list[PackageRow]
    total: int  # of the repository
    unread: int  # of these, projects that have not been read yet, and therefore may not be on the list
    uncounted: int  # projects whose downloads have not been counted yet, where the list is by downloads
    found: int  # by the search
    search: str
    sort: str  # one of SORTS, or "" for the best first
    descending: bool
    page: int
    last_page: int

    def url(self, page: int) -> str:
        """The address of another page of the same list."""
        return self._url(self.sort, self.descending, page)

    def sort_url(self, sort: str) -> str:
        """The address of the list by *sort*; the other way round if it is sorted by it already."""
        return self._url(sort, not self.descending if sort == self.sort else sort in DESCENDING, 1)

    def aria_sort(self, sort: str) -> str:
        """What ``aria-sort`` says of a column."""
        return ("descending" if self.descending else "ascending") if sort == self.sort else "none"

    def _url(self, sort: str, descending: bool, page: int) -> str:
        query = {"q": self.search, "sort": f"-{sort}" if descending else sort, "page": page if page > 1 else ""}
        text = urlencode({key: value for key, value in query.items() if value})
        return f"{url_for('repository_pages.show')}{'?' if text else ''}{text}#packages"


def package_list(repository: Repository, overview: Overview) -> PackageList:
    """Return the page of the list that the query asks for."""
    search = request.args.get("q", "").strip()[:MAX_SEARCH]
    asked = request.args.get("sort", "")
    sort, descending = asked.removeprefix("-"), asked.startswith("-")
    if sort not in SORTS:
        sort, descending = ("", False) if search else ("pushed", True)
    found, uncounted = sorted_projects(repository, overview, sort, descending)
    if search:
        matching = overview.search(search)
        names = {summary.project for summary in matching}
        found = [summary for summary in found if summary.project in names] if sort else matching
    page, last = page_of_list(request.args.get("page", ""), len(found))
    rows = [row_of(repository, summary) for summary in found[(page - 1) * PAGE_SIZE : page * PAGE_SIZE]]
    total = len(overview.projects) + overview.missing
    return PackageList(rows, total, overview.missing, uncounted, len(found), search, sort, descending, page, last)


def sorted_projects(
    repository: Repository, overview: Overview, sort: str, descending: bool
) -> tuple[list[ProjectSummary], int]:
    """Return all projects in the order that is asked for, and how many were put into it without a look."""
    if sort == "downloads":
        return registry().summaries(repository).by_downloads(overview, descending)
    return overview.sorted_by(sort or "name", descending), 0


def row_of(repository: Repository, summary: ProjectSummary) -> PackageRow:
    """Return what the list shows of a project."""
    downloads = total_downloads(repository.tree.download_counts(summary.project))
    return PackageRow(summary, parse_time(summary.pushed), downloads)


# --- publishing ---

UPLOAD_FIELD = "file"


@repository_pages.post("/packages")
@page_needs(Scope.WRITE_PACKAGES, upload=(UPLOAD_FIELD,))
def upload(repository: Repository) -> ResponseReturnValue:
    """Publish the file in the form; the page's script sends several, one after the other, and asks for JSON."""
    try:
        added = add_uploaded(repository)
    except (Invalid, Conflict, ProjectClosed) as error:
        if wants_json():
            raise
        sentence = "Choose a file first." if isinstance(error, NoFile) else str(error)
        return repository_page(repository, upload_error=sentence), HTTPStatus.UNPROCESSABLE_ENTITY
    filename = added.sidecar.file.filename
    outcome = "is published" if added.created else "was here already, with the very same bytes"
    sentence = f"{filename} {outcome}."
    if wants_json():
        return jsonify(filename=filename, message=sentence)
    flash(sentence)
    return redirect(url_for(".show"), HTTPStatus.SEE_OTHER)


def add_uploaded(repository: Repository) -> Added:
    """Publish what this request brings.

    :raises Invalid, Conflict, ProjectClosed: if it cannot be accepted.
    """
    with received_form(repository) as form:
        check_csrf(form)
        if form.incoming is None or not form.incoming.filename:
            raise NoFile
        return repository.add_file(form.incoming, form.incoming.filename, g.caller.actor)


def check_csrf(form: UploadForm) -> None:
    """Look whether a form with a file comes from one of our own pages.

    :raises BadRequest: if it does not, or the page is too old.
    """
    import flask_wtf.csrf  # see web.access

    try:
        flask_wtf.csrf.validate_csrf(form.text("csrf_token") or request.headers.get("X-CSRFToken"))
    except flask_wtf.csrf.ValidationError as error:
        raise BadRequest("the page was too old, or the form came from elsewhere; load the page again") from error


def wants_json() -> bool:
    """Whether the page's script asks, and not a browser that shows a page."""
    return request.accept_mimetypes.best == "application/json"


@repository_pages.post("/credentials")
@page_needs(Scope.WRITE_PACKAGES)
def create_credential(repository: Repository) -> ResponseReturnValue:
    """Make a token for publishing here and show it, once, in each of the commands."""
    user = person()
    _, text = registry().tokens.create(
        repository.org,
        repository.slug,
        frozenset({Scope.READ_PACKAGES, Scope.WRITE_PACKAGES}),
        user.actor,
        description=f"publish to {repository.slug}",
        user=user.name,
    )
    repository.record("token created", g.caller.actor, description=f"publish to {repository.slug}")
    return repository_page(repository, text)


# --- activity ---

# What an event is called in a sentence: WHO ... WHAT.
EVENT_WORDS = {
    "published": "published",
    "yanked": "yanked",
    "unyanked": "took back the yank of",
    "deleted": "deleted",
    "restored": "restored",
    "purged": "purged",
    "mended": "mended",
    "promoted": "promoted",
    "status changed": "changed the status of",
    "repository created": "created the repository",
    "repository renamed": "renamed the repository",
    "settings changed": "changed the settings",
    "token created": "created a token",
    "token revoked": "revoked a token",
}


@repository_pages.get("/activity")
@page_needs(Scope.READ_REGISTRIES)
def activity(repository: Repository) -> ResponseReturnValue:
    """What happened here, the newest first, for members alone: it names people."""
    fields = Fields(request.args)
    kind, search = fields.text("kind"), fields.text("q")[:MAX_SEARCH]
    before = fields.text("before")
    words = search.casefold().split()
    page = newest_events(
        repository.tree.events_file,
        lambda event: kind in ("", event.kind) and all(word in words_of(event) for word in words),
        before=int(before) if before.isascii() and before.isdigit() and len(before) < 19 else None,
        number=PAGE_SIZE,
    )
    query = {key: value for key, value in (("kind", kind), ("q", search)) if value}
    return render_in_repository(
        "activity.html",
        repository,
        "activity",
        events=page.events,
        older=f"{url_for('.activity')}?{urlencode({**query, 'before': page.older})}" if page.older else "",
        newest=f"{url_for('.activity')}?{urlencode(query)}" if before else "",
        kinds=EVENT_WORDS,
        kind=kind,
        search=search,
    )


def words_of(event: Event) -> str:
    """Return the text in which an event is searched."""
    facts = [value for value in event.facts.values() if isinstance(value, str)]
    return " ".join([event.kind, str(event.by), *facts]).casefold()
