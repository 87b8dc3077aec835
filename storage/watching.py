"""Whether an answer made from the tree is still true: a cheap look on every use.

Every change by Packhouse, in whatever process, changes the signature of a folder or file that is looked at on every
use. What somebody does to a file in place, behind our back, is seen by the thorough look of ``listings.py``.
"""

from __future__ import annotations

import os
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


class Watch:
    """What an answer was made from, as it was just before."""

    __slots__ = ("_files", "_near", "_settled")

    def __init__(self, near: Iterable[Path]) -> None:
        """Remember the signatures of the paths in *near*.

        :raises OSError: if one of them cannot be looked at.
        """
        signatures = {str(path): Signature.of(path.lstat()) for path in near}
        self._settled = all(signature.is_settled() for signature in signatures.values())
        self._near = [(path, tuple(signature)) for path, signature in signatures.items()]
        self._files: Files | None = None

    def add(self, files: Files) -> None:
        """Look at *files*, too."""
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
        found: bool | None = looks.get(self)
        if found is not None:
            return found
        found = False
        try:
            for path, signature in self._near:
                seen = looks.get(path)
                if seen is None:
                    seen = looks[path] = _look(path)
                if seen != signature:
                    break
            else:
                found = self._files is None or self._files.holds()
        except OSError:
            found = False
        looks[self] = found
        return found


def _look(path: str) -> tuple[int, int, int, int, int]:
    """Return what Signature.of() says, in a third of the time: this is asked for each hot answer."""
    status = os.lstat(path)
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
