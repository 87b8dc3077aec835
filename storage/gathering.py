"""What is gathered from all projects of a repository, and kept by name: for lists, where one project does not help.

What is kept of a project is valid for the stamp of its folder (or of another path), so a look costs one ``stat``
for each, and only what has changed is read. Reading is the work of a thread, which writes what it has read into a
derived file: a look waits for it as long as it likes, and says how much it has not seen. So even with 20,000
projects and nothing derived yet nobody waits for minutes, and a few projects are there at once.

There is one thread for each repository and kind while there is something to read, and it keeps out of the way of
requests: unless somebody waits for it, it sleeps for as long as it works. It ends with the process.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import stat
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from packaging.utils import NormalizedName

from storage.files import Signature, put_file, read_json
from storage.layout import RepositoryTree
from storage.names import is_normalized_project

log = logging.getLogger("packhouse.storage")

FORMAT = 1
# Written once so many were read that the file does not know, or one in a hundred: reading fewer anew is quicker
# than writing it.
UNWRITTEN = 100
WRITE_INTERVAL = 30.0  # seconds between two writes while very many are read: what a restart then loses
# So few are waited for longer, be the disk ever so slow: who has just published something looks for it.
FEW, PATIENCE_WITH_FEW = 50, 8.0  # projects, seconds
MIN_PAUSE = 0.001  # seconds after each that is read while nobody waits

T = TypeVar("T")
# As a Signature, without the device, whose number may be another after a restart: inode, size, mtime, ctime.
Stamp = tuple[int, ...]


class _Kept(NamedTuple, Generic[T]):
    stamp: Stamp | None  # None: too young to be trusted, to be read again
    value: T


@dataclass(frozen=True, slots=True)
class Gathered(Generic[T]):
    """What a look has found."""

    values: dict[str, T]  # by project; of those that changed since they were read the old one
    missing: int  # projects that are there, but not read yet, or not since they changed
    version: int  # another one whenever a value is


class Gathering(ABC, Generic[T]):
    """A value for each project, as far as this process has read them; safe for use by many threads.

    Which these are, how one is read, and how it stands in the derived file is said by a subclass.
    """

    def __init__(self, derived_file: Path, temporary: Path) -> None:
        """Keep what is read in *derived_file*, too, drafted in the folder *temporary*. Nothing is read yet."""
        self._file = derived_file
        self._temporary = temporary
        self._state = threading.Condition()  # guards all below; notified when the thread ends
        self._kept: dict[str, _Kept[T]] = {}
        self._version = 0
        self._pending: dict[str, None] = {}  # names to be read, the most urgent last
        self._reading: str | None = None
        self._failed: set[str] = set()
        self._thread: threading.Thread | None = None
        self._waiting = 0  # looks
        self._is_behind = False  # the last look did not see everything
        self._is_loaded = False
        self._unwritten = 0

    # --- what a subclass says ---

    @abstractmethod
    def scan(self) -> Iterable[tuple[str, os.stat_result]]:
        """Yield what may be projects, each with what ``lstat`` says of its :meth:`path`."""

    @abstractmethod
    def path(self, project: NormalizedName) -> Path:
        """Return the path for whose stamp what is read of *project* is valid."""

    @abstractmethod
    def read(self, project: NormalizedName) -> T:
        """Read one project."""

    def to_json(self, value: T) -> Any:  # noqa: ANN401 - as json has it
        """Return what stands in the derived file for *value*."""
        return value

    @abstractmethod
    def from_json(self, project: NormalizedName, written: Any) -> T:  # noqa: ANN401 - as json has it
        """Read what :meth:`to_json` wrote of *project*.

        :raises ValueError, TypeError, KeyError, AttributeError: if it was not written so.
        """

    # --- looking ---

    def look(self, patience: float) -> Gathered[T]:
        """Return what is there now; what has changed is read for at most *patience* seconds, few for longer.

        While very many are read, only the first look waits for them: the others would wait in vain.
        """
        with self._state:
            self._load()
            wanted = self._find_changed()
            if wanted:
                self._read_soon()
                if len(wanted) <= FEW:
                    self._wait(max(patience, PATIENCE_WITH_FEW))
                elif not self._is_behind:
                    self._wait(patience)
            unread = [name for name in wanted if name in self._pending or name == self._reading]
            self._is_behind = bool(unread)
            values = {name: kept.value for name, kept in self._kept.items()}
            return Gathered(values, len(unread) + len(self._failed), self._version)

    def _find_changed(self) -> set[str]:
        """Forget what is gone, and put into ``_pending`` what is not read, the latest change last; return these."""
        known = self._kept
        self._failed.clear()
        found: dict[str, _Kept[T]] = {}
        changed: list[tuple[int, str]] = []
        for name, status in self.scan():
            kept = known.get(name)
            if kept is not None:
                found[name] = kept
            elif not is_normalized_project(name):
                continue
            if kept is None or kept.stamp != _stamp(status):
                changed.append((status.st_mtime_ns, name))
        if len(found) != len(known):
            self._version += 1
        self._kept = found
        self._pending = {name: None for _, name in sorted(changed)}  # what was pending is still changed, or gone
        return {name for _, name in changed}

    def _wait(self, patience: float) -> None:
        deadline = time.monotonic() + patience
        self._waiting += 1
        try:
            while self._thread is not None and (left := deadline - time.monotonic()) > 0:
                self._state.wait(left)
        finally:
            self._waiting -= 1

    # --- reading, in a thread ---

    def _read_soon(self) -> None:
        if self._thread is None or not self._thread.is_alive():  # in a process that was forked it is not
            self._thread = threading.Thread(target=self._run, name=f"reading for {self._file.name}", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        """Read all that is pending; after a failure, the next look starts another thread."""
        try:
            last_written = time.monotonic()
            while (name := self._next()) is not None:
                started = time.monotonic()
                self._read_one(name)
                if started - last_written > WRITE_INTERVAL:
                    self._write()
                    last_written = time.monotonic()
                if not self._waiting:
                    time.sleep(max(MIN_PAUSE, time.monotonic() - started))
        except Exception:
            log.exception("reading for %s stopped; the next look goes on with it", self._file)
        finally:
            self._end()

    def _next(self) -> str | None:
        """Return the next name to be read; None, and no longer the thread that reads, if there is none."""
        while True:
            with self._state:
                if self._pending:
                    self._reading, _ = self._pending.popitem()
                    return self._reading
                self._reading = None
                if self._unwritten < max(UNWRITTEN, len(self._kept) // 100):
                    self._end()
                    return None
            self._write()

    def _end(self) -> None:
        with self._state:
            if self._thread is threading.current_thread():
                self._thread = self._reading = None
                self._state.notify_all()

    def _read_one(self, name: str) -> None:
        project = NormalizedName(name)
        path = self.path(project)
        try:
            # Before reading: a change in the same tick of the clock as the last one gives the same signature, so
            # what was read in that tick must not be remembered for when the tick is over.
            status = path.lstat()
            is_settled = Signature.of(status).is_settled()
            kept = _Kept(_stamp(status) if is_settled else None, self.read(project))
        except (FileNotFoundError, NotADirectoryError):  # its last file was deleted meanwhile
            with self._state:
                self._version += self._kept.pop(name, None) is not None
            return
        except Exception:  # one that cannot be read hides itself alone
            log.exception("%s could not be read", path)
            with self._state:
                self._failed.add(name)
            return
        with self._state:
            known = self._kept.get(name)
            if known is None or known.value != kept.value:
                self._version += 1
            self._kept[name] = kept
            self._unwritten += 1

    # --- the derived file ---

    def _load(self) -> None:
        if self._is_loaded:
            return
        self._is_loaded = True
        try:
            with many_new_objects():
                document = read_json(self._file)
                if document.get("format") == FORMAT:
                    self._kept = {
                        name: _Kept(tuple(stamp), self.from_json(NormalizedName(name), written))
                        for name, (stamp, written) in document["projects"].items()
                    }
        except FileNotFoundError:
            return
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            log.warning("%s is damaged (%s) and will be written anew", self._file, error)
        except OSError as error:
            log.warning("%s could not be read (%s) and will be written anew", self._file, error)

    def _write(self) -> None:
        with self._state:
            self._unwritten = 0
            kept = list(self._kept.items())
        # Line by line, so that other threads get their turn.
        lines = (
            f"{json.dumps(name)}: {json.dumps([one.stamp, self.to_json(one.value)], separators=(',', ':'))}"
            for name, one in kept
            if one.stamp is not None
        )
        content = f'{{\n"format": {FORMAT},\n"projects": {{\n' + ",\n".join(lines) + "\n}\n}\n"
        try:
            put_file(self._file, content.encode(), temporary=self._temporary)
        except OSError as error:
            log.warning("%s could not be written: %s", self._file, error)


class GatheringOfProjects(Gathering[T]):
    """A value for each project that is valid for the stamp of the project's folder."""

    def __init__(self, tree: RepositoryTree, derived_file: Path) -> None:
        """Speak for the repository at *tree*; nothing is read yet."""
        super().__init__(derived_file, tree.temporary)
        self.tree = tree

    def scan(self) -> Iterable[tuple[str, os.stat_result]]:
        """Yield the folders."""
        return ((name, status) for name, status in scan_folder(self.tree.packages) if stat.S_ISDIR(status.st_mode))

    def path(self, project: NormalizedName) -> Path:
        """Return the folder."""
        return self.tree.project(project)


def _stamp(status: os.stat_result) -> Stamp:
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


@contextmanager
def many_new_objects() -> Iterator[None]:
    """Spare the garbage collector looking at them again and again: it would take half of the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def scan_folder(folder: Path, suffix: str = "") -> Iterator[tuple[str, os.stat_result]]:
    """Yield what stands in *folder* under names that end with *suffix*, without it, and what ``lstat`` says.

    Names that start with a dot are passed over, and so is what disappears meanwhile; nothing if there is no folder.
    """
    try:
        with os.scandir(folder) as scanned:
            entries = [e for e in scanned if e.name.endswith(suffix) and not e.name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        try:  # not suppress(), which is slow where there are many
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            continue
        yield entry.name.removesuffix(suffix), status
