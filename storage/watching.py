"""Whether an answer made from the tree is still true: a cheap look on every use.

Every change by Packhouse, in whatever process, changes the signature of a file that is looked at on every use: of
the repository's or a token's file, or of the list of what happened in the repository, which gets a line for each
change of its projects before anybody is told that it is done. That list is the same for all pages, so those that
are asked for at the same time need one look. What somebody does to folders and files behind our back is seen by the
look at these that follows each line, and a second of use.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol

from storage.files import Signature


class Files(Protocol):
    """The files that an answer was made from."""

    def holds(self) -> bool:
        """Whether they are as they were; a look every now and then.

        :raises OSError: if they cannot be looked at.
        """


LOOK_INTERVAL = 1.0  # seconds


class Watch:
    """What an answer was made from, as it was just before."""

    __slots__ = ("_events", "_files", "_folder", "_happened", "_look_again", "_near", "_settled")

    def __init__(self, near: Iterable[Path], folder: Path | None = None, events: Path | None = None) -> None:
        """Remember the signatures of the paths in *near*, for every use, and of *folder*, for when *events* grows.

        *events* is a file that grows after each change in *folder* by Packhouse; it may be missing.

        :raises OSError: if one of the others cannot be looked at.
        """
        self._near = [(str(path), _look(str(path))) for path in near]
        self._folder = None if folder is None else (str(folder), _look(str(folder)))
        self._events = str(events)
        seen = [signature for _, signature in (*self._near, *([self._folder] if self._folder else []))]
        self._settled = all(Signature(*signature).is_settled() for signature in seen)
        self._happened: _Seen | None = None  # what was seen of it before the folder was looked at last
        self._look_again = 0.0  # when to look at the folder even so, by the monotonic clock
        self._files: Files | None = None

    def add(self, files: Files) -> None:
        """Look at *files*, too, whenever the folder is looked at."""
        self._files = files

    @property
    def is_settled(self) -> bool:
        """Whether the answer may be kept: no later change can have the time stamps of now."""
        return self._settled

    def holds(self, looks: dict[Any, Any]) -> bool:
        """Whether all of it is as it was.

        *looks* remembers what was seen, so that several who ask at the same time look but once. It is to be thrown
        away before a change has to be noticed.
        """
        try:
            for path, signature in self._near:
                seen = looks.get(path)
                if seen is None:
                    seen = looks[path] = _look(path)
                if seen != signature:
                    return False
            if self._folder is None:
                return True
            happened = looks.get(self._events)
            if happened is None:
                happened = looks[self._events] = _look_if_there(self._events)
            now = time.monotonic()
            if happened == self._happened and now < self._look_again:
                return True
            path, signature = self._folder
            if _look(path) != signature or not (self._files is None or self._files.holds()):
                return False
        except OSError:
            return False
        self._happened = happened or None  # where there is no list, the folder is looked at on every use
        self._look_again = now + LOOK_INTERVAL
        return True


_Seen = tuple[int, ...]


def _look_if_there(path: str) -> _Seen:
    try:
        return _look(path)
    except FileNotFoundError:
        return ()


def _look(path: str) -> _Seen:
    """Return what Signature.of() says, in a third of the time: this is asked for each hot answer."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
