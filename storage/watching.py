"""Whether an answer made from the tree is still true: a cheap look on every use, a thorough one every second.

Every change by Packhouse, in whatever process, changes the signature of a folder or file that is looked at on every
use. What somebody does to a file in place, behind our back, is seen by the thorough look.
"""

from __future__ import annotations

import hashlib
import os
import struct
import time
from collections.abc import Iterable
from pathlib import Path

from storage.files import Signature

THOROUGH_LOOK_INTERVAL = 1.0  # seconds
# A look at so many files takes long enough to be had less often: it may take a fiftieth of the time.
THOROUGH_LOOK_SHARE = 50


class Watch:
    """What an answer was made from, as it was just before."""

    __slots__ = ("_files", "_folder", "_look_again", "_names", "_near", "_settled")

    def __init__(self, near: Iterable[Path], folder: Path | None = None) -> None:
        """Remember the signatures of the paths in *near*, and of every file in *folder*.

        :raises OSError: if one of them cannot be looked at.
        """
        self._near = [(str(path), Signature.of(path.lstat())) for path in near]
        self._settled = all(signature.is_settled() for _, signature in self._near)
        self._folder = str(folder) if folder is not None else None
        self._names: tuple[str, ...] = ()
        self._files = b""
        self._look_again = 0.0
        if folder is not None and self._settled:
            self._names = tuple(sorted(os.listdir(folder)))  # noqa: PTH208 - names are all that is wanted
            self._files = self._look()

    @property
    def is_settled(self) -> bool:
        """Whether the answer may be kept: no later change can have the time stamps of now."""
        return self._settled

    def holds(self) -> bool:
        """Whether all of it is as it was."""
        try:
            for path, (device, inode, size, mtime_ns, ctime_ns) in self._near:
                status = os.lstat(path)
                if (
                    status.st_mtime_ns != mtime_ns
                    or status.st_ino != inode
                    or status.st_ctime_ns != ctime_ns
                    or status.st_size != size
                    or status.st_dev != device
                ):
                    return False
            return self._folder is None or time.monotonic() < self._look_again or self._look() == self._files
        except OSError:
            return False

    def _look(self) -> bytes:
        """Return a digest of the signatures of all files in the folder."""
        begun = time.monotonic()
        digest = hashlib.blake2b(digest_size=16)
        for name in self._names:
            status = os.lstat(f"{self._folder}/{name}")
            facts = (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_mode)
            digest.update(struct.pack("<5q", *facts))
        now = time.monotonic()
        self._look_again = now + max(THOROUGH_LOOK_INTERVAL, THOROUGH_LOOK_SHARE * (now - begun))
        return digest.digest()
