"""All files of a repository at once: for lists by time and for search, where the index by project does not help.

Each process keeps a few words for each project, valid for the signature of the project's folder. A look costs one
``stat`` for each project, and reading only those that have changed.
"""

from __future__ import annotations

import heapq
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter

from packaging.utils import NormalizedName

from storage.errors import ProjectNotFound
from storage.files import Signature
from storage.layout import RepositoryTree
from storage.names import is_normalized_project
from storage.simple import ProjectDetail, project_detail


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """What a list needs of one file; the rest is in its sidecar."""

    upload_time: datetime  # aware UTC
    project: NormalizedName
    version: str
    filename: str


@dataclass(frozen=True, slots=True)
class _Remembered:
    signature: Signature
    entries: tuple[CatalogEntry, ...]  # newest first


class Catalog:
    """The files of one repository, as far as this process has seen them; safe for use by many threads."""

    def __init__(self, tree: RepositoryTree) -> None:
        """Speak for the repository at *tree*; nothing is read yet."""
        self._tree = tree
        self._remembered: dict[str, _Remembered] = {}
        self._lock = threading.Lock()

    def newest_first(self) -> list[CatalogEntry]:
        """Return every file that is listed, the newest first."""
        by_project = (remembered.entries for remembered in self._look().values())
        return list(heapq.merge(*by_project, key=attrgetter("upload_time", "filename"), reverse=True))

    def version_counts(self) -> dict[NormalizedName, int]:
        """Return how many versions each project has, by name."""
        counts = {
            NormalizedName(name): len({entry.version for entry in remembered.entries})
            for name, remembered in self._look().items()
        }
        return {name: counts[name] for name in sorted(counts) if counts[name]}

    def _look(self) -> dict[str, _Remembered]:
        """Bring what is remembered up to date and return it."""
        found: dict[str, _Remembered] = {}
        settled: dict[str, _Remembered] = {}
        with self._lock:
            for name, signature in self._signatures():
                # Before reading: a change in the same tick of the clock as the last one gives the same signature,
                # so what was read in that tick must not be remembered for when the tick is over.
                is_settled = signature.is_settled()
                known = self._remembered.get(name)
                if known is None or known.signature != signature:
                    known = _Remembered(signature, tuple(self._read(NormalizedName(name))))
                found[name] = known
                if is_settled:
                    settled[name] = known
            self._remembered = settled
        return found

    def _signatures(self) -> Iterable[tuple[str, Signature]]:
        try:
            with os.scandir(self._tree.packages) as scanned:
                entries = [e for e in scanned if e.is_dir(follow_symlinks=False) and is_normalized_project(e.name)]
        except FileNotFoundError:
            return
        for entry in entries:
            with suppress(FileNotFoundError):  # its last file was deleted meanwhile
                yield entry.name, Signature.of(entry.stat(follow_symlinks=False))

    def _read(self, project: NormalizedName) -> list[CatalogEntry]:
        try:
            detail: ProjectDetail = project_detail(self._tree, project)
        except ProjectNotFound:
            return []
        entries = (CatalogEntry(f.upload_time, project, f.version, f.filename) for f in detail.files)
        return sorted(entries, key=attrgetter("upload_time", "filename"), reverse=True)
