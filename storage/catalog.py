"""All files of a repository at once: for lists by time and for search, where the index by project does not help.

Each process keeps a few words for each file, by :mod:`storage.gathering`; ``.catalog.json`` spares a new process
the reading of every project, and may be deleted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

from packaging.utils import NormalizedName

from storage.errors import ProjectNotFound, StillReading
from storage.gathering import Gathered, GatheringOfProjects
from storage.layout import RepositoryTree
from storage.sidecars import format_time, parse_time
from storage.simple import project_detail

# Seconds that a list may take to read what has changed. Then whoever asks for it has to come again: it is a
# program, which would take a short list for a complete one.
PATIENCE = 1.0


@dataclass(frozen=True, slots=True)
class CatalogEntry:
    """What a list needs of one file; the rest is in its sidecar."""

    upload_time: datetime  # aware UTC
    project: NormalizedName
    version: str
    filename: str


Entries = tuple[CatalogEntry, ...]  # of one project, the newest first
_by_time = attrgetter("upload_time", "filename")


class _Projects(GatheringOfProjects[Entries]):
    """The entries of each project, valid for the stamp of its folder."""

    def read(self, project: NormalizedName) -> Entries:
        """Read the files of a project that are listed."""
        return read_entries(self.tree, project)

    def to_json(self, value: Entries) -> list[list[str]]:
        """Return time, version and name of each file."""
        return [[format_time(entry.upload_time), entry.version, entry.filename] for entry in value]

    def from_json(self, project: NormalizedName, written: Any) -> Entries:  # noqa: ANN401 - as json has it
        """Read the same."""
        return tuple(
            CatalogEntry(parse_time(when), project, version, filename) for when, version, filename in written
        )


class Catalog:
    """The files of one repository, as far as this process has seen them; safe for use by many threads."""

    def __init__(self, tree: RepositoryTree) -> None:
        """Speak for the repository at *tree*; nothing is read yet."""
        self._tree = tree
        self._projects = _Projects(tree, tree.catalog_file)
        self._lock = threading.Lock()
        self._newest_first: list[CatalogEntry] = []
        self._sorted = -1  # version of what was gathered that it was made from

    def newest_first(self) -> Sequence[CatalogEntry]:
        """Return every file that is listed, the newest first; not to be changed.

        :raises StillReading: if very many projects have to be read first.
        """
        gathered = self._look()
        with self._lock:
            if gathered.version > self._sorted:
                entries = [entry for held in gathered.values.values() for entry in held]
                self._newest_first = sorted(entries, key=_by_time, reverse=True)
                self._sorted = gathered.version
            return self._newest_first

    def version_counts(self) -> dict[NormalizedName, int]:
        """Return how many versions each project has, by name.

        :raises StillReading: if very many projects have to be read first.
        """
        values = self._look().values
        counts = {name: len({entry.version for entry in values[name]}) for name in sorted(values)}
        return {NormalizedName(name): count for name, count in counts.items() if count}

    def _look(self) -> Gathered[Entries]:
        gathered = self._projects.look(PATIENCE)
        if gathered.missing:
            raise StillReading(f"{self._tree.root.parent.name}/{self._tree.root.name}", gathered.missing)
        return gathered


def read_entries(tree: RepositoryTree, project: NormalizedName) -> Entries:
    """Return the files of *project* that are listed, the newest first."""
    try:
        files = project_detail(tree, project).files
    except ProjectNotFound:
        return ()
    entries = (CatalogEntry(f.upload_time, project, f.version, f.filename) for f in files)
    return tuple(sorted(entries, key=_by_time, reverse=True))
