"""Download counts: kept for each file and day, without a write in the way of a download.

A count is noted in memory and written by a thread within a second: ``kill -9`` loses at most a second's worth.
On disk: ``downloads/{project}.json``, an object of file names, each an object of days and numbers. Many processes
may write: each adds what it has noted, under a lock. ``.downloads.json`` is derived from them, for lists of
projects by their downloads, and may be deleted.
"""

from __future__ import annotations

import atexit
import logging
import os
import stat
import threading
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from packaging.utils import NormalizedName

from storage.damage import report_damage
from storage.errors import StorageBusy
from storage.files import encode_json, is_directory, is_regular, put_file, read_json
from storage.gathering import Gathering, scan_folder
from storage.layout import RepositoryTree
from storage.locks import lock

log = logging.getLogger("packhouse.storage")

FLUSH_INTERVAL = 0.5  # seconds

Note = tuple[RepositoryTree, NormalizedName, str, str]  # where, project, file name, day


def downloads_of(tree: RepositoryTree, project: NormalizedName, filename: str) -> dict[date, int]:
    """Return how often a file was downloaded, for each day with downloads (UTC)."""
    return {
        date.fromisoformat(day): count
        for day, count in _read(tree.download_counts(project)).get(filename, {}).items()
    }


def total_downloads(path: Path) -> int:
    """Return how often the files of a project were downloaded in all, by its file of counts."""
    return sum(number for days in _read(path).values() for number in days.values())


class DownloadTotals(Gathering[int]):
    """How often each project was downloaded, if it was at all; valid for the stamp of its file of counts."""

    def __init__(self, tree: RepositoryTree) -> None:
        """Speak for the repository at *tree*; nothing is read yet."""
        super().__init__(tree.totals_file, tree.temporary)
        self._tree = tree

    def scan(self) -> Iterable[tuple[str, os.stat_result]]:
        """Yield the files of counts."""
        found = scan_folder(self._tree.downloads, ".json")
        return ((name, status) for name, status in found if stat.S_ISREG(status.st_mode))

    def path(self, project: NormalizedName) -> Path:
        """Return the file of counts."""
        return self._tree.download_counts(project)

    def read(self, project: NormalizedName) -> int:
        """Add the counts up."""
        return total_downloads(self.path(project))

    def from_json(self, _project: NormalizedName, written: Any) -> int:  # noqa: ANN401 - as json has it
        """Read the number."""
        if type(written) is not int:
            raise ValueError("not a number of downloads")
        return written


def drop_downloads(tree: RepositoryTree, project: NormalizedName, filename: str) -> None:
    """Forget the counts of a file, which has moved to another repository; it has, even if that fails."""
    try:
        with _locked(tree, project):
            counts = _read(tree.download_counts(project))
            if counts.pop(filename, None) is not None:
                put_file(tree.download_counts(project), encode_json(counts), temporary=tree.temporary)
    except (OSError, StorageBusy) as error:
        log.warning("the download counts of %s could not be dropped: %s", filename, error)


class DownloadCounter:
    """Takes notes of downloads and writes them down from a thread of its own."""

    def __init__(self) -> None:
        """Start with no notes; the thread starts with the first one, in the process that takes it."""
        self._notes: Counter[Note] = Counter()
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._wake = threading.Event()
        self._process = 0  # id of the process whose thread is running

    def count(self, tree: RepositoryTree, project: NormalizedName, filename: str) -> None:
        """Note that a whole file is being sent; never waits for the disk."""
        with self._lock:
            self._notes[(tree, project, filename, datetime.now(UTC).date().isoformat())] += 1
            if self._process != os.getpid():
                self._process = os.getpid()
                threading.Thread(target=self._run, name="download counts", daemon=True).start()
                atexit.register(self.flush)
        self._wake.set()

    def flush(self) -> None:
        """Write down all notes; what cannot be written now is kept for the next time.

        Returns when what other threads are writing is written, too: the end of the process would kill them.
        """
        with self._writing:
            self._flush()

    def _flush(self) -> None:
        with self._lock:
            notes, self._notes = self._notes, Counter()
        by_project: dict[tuple[RepositoryTree, NormalizedName], Counter[tuple[str, str]]] = {}
        for (tree, project, filename, day), number in notes.items():
            by_project.setdefault((tree, project), Counter())[filename, day] += number
        for (tree, project), numbers in by_project.items():
            try:
                _add(tree, project, numbers)
            except (OSError, StorageBusy) as error:
                log.warning("download counts of %s could not be written yet: %s", project, error)
                with self._lock:
                    if is_directory(tree.root):  # or else the repository is gone, and its counts with it
                        self._notes.update({(tree, project, *key): number for key, number in numbers.items()})

    def _run(self) -> None:
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self.flush()
            except Exception:  # or else nothing would be counted until the next start
                log.exception("download counts could not be written")
            if self._notes:
                self._wake.set()
            threading.Event().wait(FLUSH_INTERVAL)


def _add(tree: RepositoryTree, project: NormalizedName, numbers: Counter[tuple[str, str]]) -> None:
    if not is_regular(tree.repository_file):
        return  # deleted or renamed since: a lock file must not make its folder anew
    with _locked(tree, project):
        counts = _read(tree.download_counts(project))
        for (filename, day), number in numbers.items():
            days = counts.setdefault(filename, {})
            days[day] = days.get(day, 0) + number
        put_file(tree.download_counts(project), encode_json(counts), temporary=tree.temporary)


@contextmanager
def _locked(tree: RepositoryTree, project: NormalizedName) -> Iterator[None]:
    """Hold the lock of a project's counts; the folders may have been left out of a backup."""
    if is_regular(tree.repository_file):
        for folder in (tree.locks, tree.downloads, tree.temporary):
            folder.mkdir(exist_ok=True)
    with lock(tree.lock_file(f".downloads-{project}"), f"the counts of {project!r}"):
        yield


def _read(path: Path) -> dict[str, dict[str, int]]:
    try:
        return _checked(read_json(path))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except ValueError as error:
        report_damage(path, f"does not parse ({error}); its counts start anew")
        return {}


def _checked(document: dict[str, Any]) -> dict[str, dict[str, int]]:
    for days in document.values():
        for day, number in days.items() if isinstance(days, dict) else [("", None)]:
            date.fromisoformat(day)
            if type(number) is not int:
                raise ValueError("not a number of downloads")
    return document
