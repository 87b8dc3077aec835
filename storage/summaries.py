"""The projects of a repository in a few words each: what its list of packages shows, quick with 20,000 of them.

What is kept of a project is valid for the signature of its folder; a look costs one ``stat`` for each project.
Between two looks nothing is asked but whether a project or an event has been added: every change that Packhouse
makes is an event. What people change in the tree by hand is seen within :data:`LOOK_AGAIN` seconds.

A derived file, ``.summaries.json``, spares a new process the reading of every project; it may be deleted.
"""

from __future__ import annotations

import gc
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

from packaging.utils import NormalizedName

from storage.downloads import total_downloads
from storage.files import Signature, encode_json, put_file, read_json
from storage.layout import RepositoryTree
from storage.names import is_normalized_project
from storage.sidecars import File, format_time
from storage.simple import read_files
from storage.statuses import read_status

log = logging.getLogger("packhouse.storage")

FORMAT = 1
LOOK_AGAIN = 30.0  # seconds
MAX_SUMMARY = 300  # characters kept of a summary
# Written once so many projects were read that the file does not know, or one in a hundred: reading fewer anew is
# quicker than writing it.
UNWRITTEN = 100

Stamp = tuple[int, int, int, int]  # inode, size, mtime, ctime


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


class Downloads(NamedTuple):
    """The downloads of a project, valid for the stamp of their file."""

    stamp: Stamp
    total: int


class _Kept(NamedTuple):
    stamp: Stamp | None  # None: too young to be trusted, to be read again
    summary: ProjectSummary | None  # None: the project has no file that can be shown


class Overview:
    """The projects of a repository at one moment; never changed once made."""

    def __init__(self, summaries: Iterable[ProjectSummary]) -> None:
        """Hold *summaries*."""
        self.projects: tuple[ProjectSummary, ...] = tuple(summaries)
        self._sorted: dict[str, list[ProjectSummary]] = {}
        self._haystacks: list[str] | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is no project at all."""
        return not self.projects

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


class Summaries:
    """The summaries of one repository, as far as this process has seen them; safe for use by many threads."""

    def __init__(self, tree: RepositoryTree) -> None:
        """Speak for the repository at *tree*; nothing is read yet."""
        self._tree = tree
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._downloads: dict[str, Downloads] = {}
        self._is_loaded = False
        self._unwritten = 0
        self._overview = Overview(())
        self._mark: object = None  # what overview is valid for
        self._looked = float("-inf")  # time of the last look
        self._totals: dict[str, int] = {}  # downloads by project
        self._counted = float("-inf")  # when they were looked at

    def overview(self) -> Overview:
        """Return the projects as they are now."""
        with self._lock:
            mark = self._current_mark()  # before the look: what changes during it brings the next one
            if mark != self._mark or time.monotonic() - self._looked > LOOK_AGAIN:
                self._look()
                self._mark, self._looked = mark, time.monotonic()
            return self._overview

    def by_downloads(self, overview: Overview, descending: bool) -> list[ProjectSummary]:
        """Return the projects by their downloads, at most :data:`LOOK_AGAIN` seconds old, and by name."""
        with self._lock:
            if time.monotonic() - self._counted > LOOK_AGAIN:
                self._totals, self._counted = self._total_downloads(), time.monotonic()
            totals = self._totals
        by_name = overview.sorted_by("name")
        found = sorted(by_name, key=lambda summary: totals.get(summary.project, 0))
        return found[::-1] if descending else found

    # --- looking ---

    def _current_mark(self) -> object:
        marks: list[Stamp | None] = []
        for path in (self._tree.packages, self._tree.events_file):
            try:
                marks.append(_stamp(path.stat(follow_symlinks=False)))
            except OSError:
                marks.append(None)
        return marks

    def _look(self) -> None:
        self._load()
        found: dict[str, _Kept] = {}
        read = 0
        changed = False
        for name, status in self._folders():
            known = self._kept.get(name)
            stamp = _stamp(status)
            if known is None or known.stamp != stamp:
                if known is None and not is_normalized_project(name):
                    continue
                is_settled = Signature.of(status).is_settled()
                kept = _Kept(stamp if is_settled else None, read_summary(self._tree, NormalizedName(name)))
                read += 1
                changed = changed or known is None or known.summary != kept.summary
                known = kept
            found[name] = known
        if changed or len(found) != len(self._kept) or found.keys() != self._kept.keys() or self._mark is None:
            self._overview = Overview(kept.summary for kept in found.values() if kept.summary is not None)
        self._kept = found
        self._unwritten += read
        if self._unwritten >= max(UNWRITTEN, len(found) // 100):
            self._write()

    def _folders(self) -> Iterable[tuple[str, os.stat_result]]:
        try:
            with os.scandir(self._tree.packages) as scanned:
                entries = [e for e in scanned if e.is_dir(follow_symlinks=False) and not e.name.startswith(".")]
        except (FileNotFoundError, NotADirectoryError):
            return
        for entry in entries:
            try:  # not suppress(), which is slow where there are many
                status = entry.stat(follow_symlinks=False)
            except FileNotFoundError:  # its last file was deleted meanwhile
                continue
            yield entry.name, status

    def _total_downloads(self) -> dict[str, int]:
        """Return the downloads of every project that has any, looking at each count's file anew."""
        self._load()
        found: dict[str, Downloads] = {}
        for name, path, status in _count_files(self._tree):
            known, stamp = self._downloads.get(name), _stamp(status)
            if known is None or known.stamp != stamp or not Signature.of(status).is_settled():
                if not is_normalized_project(name):
                    continue
                known = Downloads(stamp, total_downloads(path))
                self._unwritten += 1
            found[name] = known
        self._downloads = found
        if self._unwritten >= max(UNWRITTEN, len(found) // 100):
            self._write()
        return {name: downloads.total for name, downloads in found.items()}

    # --- the derived file ---

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            with _many_new_objects():
                self._read_derived_file()
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is damaged (%s) and will be written anew", self._tree.summaries_file, error)
            self._kept, self._downloads = {}, {}

    def _read_derived_file(self) -> None:
        document = read_json(self._tree.summaries_file)
        if document.get("format") != FORMAT:
            return
        self._kept = {name: _kept_from_json(row) for name, row in document["projects"].items()}
        self._downloads = {
            name: Downloads(_stamp_from_json(stamp), int(total))
            for name, (stamp, total) in document["downloads"].items()
        }

    def _write(self) -> None:
        self._unwritten = 0
        document = {
            "format": FORMAT,
            "projects": {name: kept for name, kept in self._kept.items() if kept.stamp is not None},
            "downloads": self._downloads,
        }
        try:
            put_file(self._tree.summaries_file, encode_json(document), temporary=self._tree.temporary)
        except OSError as error:
            log.warning("%s could not be written: %s", self._tree.summaries_file, error)


@contextmanager
def _many_new_objects() -> Iterator[None]:
    """Spare the garbage collector looking at them again and again: it would take half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _count_files(tree: RepositoryTree) -> Iterable[tuple[str, Path, os.stat_result]]:
    try:
        with os.scandir(tree.downloads) as scanned:
            entries = [e for e in scanned if e.name.endswith(".json") and not e.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        with suppress(FileNotFoundError):
            yield entry.name.removesuffix(".json"), Path(entry.path), entry.stat(follow_symlinks=False)


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _stamp_from_json(stamp: Sequence[int]) -> Stamp:
    inode, size, mtime, ctime = stamp
    return (inode, size, mtime, ctime)


def _kept_from_json(row: Sequence[Any]) -> _Kept:
    stamp, summary = row
    return _Kept(_stamp_from_json(stamp), None if summary is None else ProjectSummary._make(summary))


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
