"""The projects of a repository in a few words each: what its list of packages shows, quick with 20,000 of them.

What is kept of a project is valid for the signature of its folder; a look costs one ``stat`` for each project.
Between two looks nothing is asked but whether a project or an event has been added: every change that Packhouse
makes is an event. What people change in the tree by hand is seen within :data:`LOOK_AGAIN` seconds.

What has changed is read by :mod:`storage.gathering`; its file ``.summaries.json`` spares a new process the
reading of every project, and may be deleted.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from operator import attrgetter
from typing import Any, NamedTuple

from packaging.utils import NormalizedName

from storage.downloads import DownloadTotals
from storage.files import Signature, read_json
from storage.gathering import Gathered, GatheringOfProjects
from storage.layout import RepositoryTree
from storage.sidecars import File, format_time
from storage.simple import read_files
from storage.statuses import read_status

LOOK_AGAIN = 30.0  # seconds
MAX_SUMMARY = 300  # characters kept of a summary
PATIENCE = 0.5  # seconds that a page may take to read what has changed; then it shows what is known
SOON = 1.0  # seconds until the next look, while not everything is known


class ProjectSummary(NamedTuple):
    """One project on the list; texts are as the metadata of its latest release has them."""

    project: NormalizedName
    name: str
    latest: str  # the version that pip would choose; else the newest pre-release; else the newest that is yanked
    summary: str
    releases: int
    files: int
    size: int  # bytes, of all files
    pushed: str  # when the last file came, as format_time() writes it: text order is time order
    status: str  # PEP 792
    yanked: bool  # the latest is, and so is everything else


class Overview:
    """The projects of a repository at one moment; never changed once made."""

    def __init__(self, summaries: Iterable[ProjectSummary], missing: int = 0) -> None:
        """Hold *summaries*; *missing* more projects have not been read yet."""
        self.projects: tuple[ProjectSummary, ...] = tuple(summaries)
        self.missing = missing
        self._sorted: dict[str, list[ProjectSummary]] = {}
        self._haystacks: list[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no project at all."""
        return not self.projects and not self.missing

    def sorted_by(self, order: str, descending: bool = False) -> list[ProjectSummary]:
        """Return the projects by *order*, one of :data:`ORDERS`; those that are equal in it by name."""
        if order not in self._sorted:
            by_name = sorted(self.projects, key=attrgetter("project"))
            self._sorted[order] = by_name if order == "name" else sorted(by_name, key=ORDERS[order])
        found = self._sorted[order]
        return found[::-1] if descending else found

    def search(self, text: str) -> list[ProjectSummary]:
        """Return the projects in which each word of *text* is found, the best first.

        Best is the project called so, then those that begin so, those with it in the name, then all others.
        """
        words = [(word, re.sub(r"[-_.]+", "-", word)) for word in text.casefold().split()]
        if not words:
            return self.sorted_by("name")
        if self._haystacks is None:
            self._haystacks = [f"{s.project} {s.name} {s.summary}".casefold() for s in self.projects]
        found = [
            summary
            for summary, haystack in zip(self.projects, self._haystacks, strict=True)
            if all(word in haystack or spelled in summary.project for word, spelled in words)
        ]
        first = words[0][1]
        return sorted(found, key=lambda s: (_distance(s.project, first), s.project))


# What the list can be sorted by; "downloads" is the caller's, who knows them.
ORDERS: dict[str, Callable[[ProjectSummary], Any]] = {
    "name": attrgetter("project"),
    "pushed": attrgetter("pushed"),
    "files": attrgetter("files"),
    "size": attrgetter("size"),
}


def _distance(project: str, word: str) -> int:
    if project == word:
        return 0
    if project.startswith(word):
        return 1
    return 2 if word in project else 3


class _Projects(GatheringOfProjects["ProjectSummary | None"]):
    """The summary of each project, None if it has no file that can be shown; valid for the stamp of its folder."""

    def read(self, project: NormalizedName) -> ProjectSummary | None:
        """Read the summary."""
        return read_summary(self.tree, project)

    def from_json(self, _project: NormalizedName, written: Any) -> ProjectSummary | None:  # noqa: ANN401 - as json has it
        """Read it back."""
        return None if written is None else ProjectSummary._make(written)


class Summaries:
    """The summaries of one repository, as far as this process has seen them; safe for use by many threads."""

    def __init__(self, tree: RepositoryTree) -> None:
        """Speak for the repository at *tree*; nothing is read yet."""
        self._tree = tree
        self._projects = _Projects(tree, tree.summaries_file)
        self._totals = DownloadTotals(tree)
        self._lock = threading.Lock()
        self._overview = Overview(())
        self._version = -1  # of what was gathered that overview was made from
        self._mark: object = None  # what overview is valid for
        self._looked = float("-inf")  # time of the last look
        self._counts: Gathered[int] = Gathered({}, 0, 0)  # downloads by project
        self._counted = float("-inf")  # when they were looked at

    def overview(self) -> Overview:
        """Return the projects as they are now, as far as they have been read."""
        with self._lock:
            mark = self._current_mark()  # before the look: what changes during it brings the next one
            lasting = SOON if self._overview.missing else LOOK_AGAIN
            if mark != self._mark or time.monotonic() - self._looked > lasting:
                self._look()
                self._mark, self._looked = mark, time.monotonic()
            return self._overview

    def by_downloads(self, overview: Overview, descending: bool) -> tuple[list[ProjectSummary], int]:
        """Return the projects by their downloads, at most :data:`LOOK_AGAIN` seconds old, and by name.

        And of how many projects the downloads have not been counted yet, which therefore count as none.
        """
        with self._lock:
            lasting = SOON if self._counts.missing else LOOK_AGAIN
            if time.monotonic() - self._counted > lasting:
                self._counts, self._counted = self._totals.look(PATIENCE), time.monotonic()
            counts = self._counts
        by_name = overview.sorted_by("name")
        found = sorted(by_name, key=lambda summary: counts.values.get(summary.project, 0))
        return found[::-1] if descending else found, counts.missing

    def _current_mark(self) -> object:
        marks: list[Signature | None] = []
        for path in (self._tree.packages, self._tree.events_file):
            try:
                marks.append(Signature.of(path.stat(follow_symlinks=False)))
            except OSError:
                marks.append(None)
        return marks

    def _look(self) -> None:
        found = self._projects.look(PATIENCE)
        if found.version != self._version or found.missing != self._overview.missing:
            summaries = (summary for summary in found.values.values() if summary is not None)
            self._overview, self._version = Overview(summaries, found.missing), found.version


# --- one project ---


def read_summary(tree: RepositoryTree, project: NormalizedName) -> ProjectSummary | None:
    """Return *project* in a few words; None if it has no file that is whole. Quarantined ones are told of, too."""
    files = list(read_files(tree, project))
    if not files:
        return None
    latest = latest_file(files)
    name, summary = _texts_of(tree, latest)
    return ProjectSummary(
        project=project,
        name=name,
        latest=latest.version,
        summary=summary,
        releases=len({file.version for file in files}),
        files=len(files),
        size=sum(file.size for file in files),
        pushed=format_time(max(file.upload_time for file in files)),
        status=str(read_status(tree, project).status),
        yanked=latest.yanked_reason is not None,
    )


def latest_file(files: Iterable[File]) -> File:
    """Return a file of the latest release: the newest, but finals before pre-releases, yanked ones last of all."""
    return max(
        files,
        key=lambda file: (
            file.yanked_reason is None,
            not file.sort_key[0].is_prerelease,
            file.sort_key[0],
            file.packagetype == "bdist_wheel",
            file.filename,
        ),
    )


def _texts_of(tree: RepositoryTree, file: File) -> tuple[str, str]:
    """Return how the project spells its name, and its summary."""
    try:
        document = read_json(tree.sidecar(file.project, file.filename))
    except (FileNotFoundError, ValueError):
        return file.project, ""
    metadata = document.get("metadata")
    summary = metadata.get("summary") if isinstance(metadata, dict) else None
    name = document.get("name")
    line = " ".join(summary.split()) if isinstance(summary, str) else ""
    return (
        name if isinstance(name, str) else file.project,
        line if len(line) <= MAX_SUMMARY else line[: MAX_SUMMARY - 1] + "…",
    )
