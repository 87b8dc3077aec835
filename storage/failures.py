"""Failed sign-ins of the last minute, counted for every process on the storage (contract.md section 3).

Each address and each user name that fails has a small file of times in a dotted folder. It is only written when a
password was wrong and only read when a password is checked, so it costs nothing elsewhere, and a restart or a
second process gives nobody new tries.
"""

from __future__ import annotations

import hashlib
import os
import time
from contextlib import suppress
from pathlib import Path

from storage.files import append_line, directory_entries, make_directory, open_regular

MOST = 10  # failures in WINDOW
WINDOW = 60.0  # seconds
KEPT_FILES = 10_000  # more, and those that say nothing any more are removed
_LINE = 20  # bytes, about: one time


class SignInFailures:
    """The failures in one storage."""

    def __init__(self, folder: Path) -> None:
        """Keep them in *folder*, which is made with the first of them."""
        self._folder = folder

    def wait(self, *keys: str) -> float:
        """Return for how many seconds no password is looked at for any of *keys*; 0.0 if it is."""
        return max(self._wait(key) for key in keys)

    def note(self, *keys: str) -> None:
        """Count a failure for each of *keys*, such as an address and a user name.

        :raises OSError: if it cannot be written down.
        """
        make_directory(self._folder)
        for key in keys:
            append_line(self._file(key), f"{time.time():.3f}".encode(), sync=False)
        self._forget()

    def _wait(self, key: str) -> float:
        now = time.time()
        recent = [when for when in self._times(key) if abs(now - when) < WINDOW]  # abs: the clock may jump back
        return WINDOW - (now - min(recent[-MOST:])) if len(recent) >= MOST else 0.0

    def _times(self, key: str) -> list[float]:
        try:
            with open_regular(self._file(key)) as file:
                file.seek(max(0, os.fstat(file.fileno()).st_size - MOST * _LINE))
                lines = file.read().split()
        except FileNotFoundError:
            return []
        times = []
        for line in lines:
            with suppress(ValueError):  # the first one may be cut
                times.append(float(line))
        return times

    def _file(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()[:32]

    def _forget(self) -> None:
        """Remove the files of whoever has not failed for long, when there are many."""
        entries = directory_entries(self._folder)
        if len(entries) <= KEPT_FILES:
            return
        for entry in entries:
            with suppress(FileNotFoundError):
                if time.time() - entry.stat(follow_symlinks=False).st_mtime > WINDOW:
                    (self._folder / entry.name).unlink()
