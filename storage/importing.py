"""Publish many files from this machine: the road of every upload, with a report at the end.

Neither the number of files nor their size matters to the memory it takes; only what is refused is kept in mind.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from storage.errors import Conflict, Invalid, StorageBusy
from storage.files import as_storage_error
from storage.repository import Repository
from storage.sidecars import Actor
from storage.uploads import copy_into

SUFFIXES = (".whl", ".tar.gz", ".zip")
THREADS = 16  # each waits for the disk most of the time; measured with disks that take 4 ms to sync
_IN_FLIGHT = 4 * THREADS  # files that are read ahead of the one that is counted next


class Source(NamedTuple):
    """Something met on the way through what is to be imported."""

    path: str
    kind: Literal["file", "other", "unreadable"]
    reason: str = ""  # of "unreadable"


class _Outcome(NamedTuple):
    """What became of one file."""

    created: bool = False  # False: it was there already, or is refused
    refusal: str = ""  # the reason


@dataclass(slots=True)
class Report:
    """What an import did."""

    stored: int = 0
    present: int = 0
    skipped: int = 0  # other files
    refused: list[tuple[str, str]] = field(default_factory=list)  # path and reason

    def note(self, path: str, outcome: Future[_Outcome]) -> None:
        """Count a file."""
        created, refusal = outcome.result()
        self.stored += created
        self.present += not created and not refusal
        if refusal:
            self.refused.append((path, refusal))

    def note_other(self, source: Source) -> None:
        """Count what is no file to import."""
        if source.kind == "other":
            self.skipped += 1
        else:
            self.refused.append((source.path, source.reason))


def walk(sources: Iterable[str]) -> Iterator[Source]:
    """Yield the files to import, one at a time: there may be more than fit into memory."""
    for source in sources:
        if Path(source).is_dir():
            yield from _walk_folder(source)
        elif Path(source).is_file():
            yield Source(source, "file")
        else:
            reason = "it is neither a file nor a folder" if os.path.lexists(source) else "there is no such file"
            yield Source(source, "unreadable", reason)


def _walk_folder(folder: str) -> Iterator[Source]:
    """Yield what is in a folder and below it, without following links to folders: they may lead in circles."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not entry.is_dir(follow_symlinks=False):
                    yield Source(entry.path, "file" if _is_wanted(entry) else "other")
                elif not entry.name.startswith("."):
                    yield from _walk_folder(entry.path)
    except OSError as error:
        yield Source(folder, "unreadable", error.strerror or str(error))


def _is_wanted(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.name.endswith(SUFFIXES) and not entry.name.startswith(".") and entry.is_file()
    except OSError:  # a link in a circle
        return False


def import_all(repository: Repository, sources: Iterable[str], actor: Actor, report: Report) -> Iterator[None]:
    """Import everything, noting in *report* what became of it; yield after each file."""
    pending: deque[tuple[str, Future[_Outcome]]] = deque()
    pool = ThreadPoolExecutor(THREADS)
    try:
        for source in walk(sources):
            if source.kind != "file":
                report.note_other(source)
                continue
            pending.append((source.path, pool.submit(_import_file, repository, Path(source.path), actor)))
            if len(pending) == _IN_FLIGHT:
                report.note(*pending.popleft())
                yield
        while pending:
            report.note(*pending.popleft())
            yield
    finally:
        pool.shutdown(cancel_futures=True)


def _import_file(repository: Repository, path: Path, actor: Actor) -> _Outcome:
    """Take the road of every upload.

    :raises Unavailable: if the storage is full or does not work, which is no fault of this file.
    """
    try:
        source = path.open("rb")
    except OSError as error:
        return _Outcome(refusal=f"it cannot be read: {error.strerror or error}")
    try:
        with source, closing(repository.receive()) as incoming:
            incoming.filename = path.name
            copy_into(incoming, source)
            return _Outcome(created=repository.add_file(incoming, path.name, actor).created)
    except (Invalid, Conflict, StorageBusy) as error:
        return _Outcome(refusal=str(error))
    except OSError as error:
        raise as_storage_error(error) from error
