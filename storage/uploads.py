"""A file on its way in: from the socket to a dotted temporary file in the target's file system, hashed on the way.

The bytes are written and read over once; nothing larger than one chunk is in memory.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from storage.errors import FileTooLarge
from storage.files import link_file, sync_file, temporary_name, write_all
from storage.sidecars import Digests

if TYPE_CHECKING:
    from typing_extensions import Buffer  # collections.abc.Buffer comes with Python 3.12

CHUNK = 256 * 1024  # bytes


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def hexdigest(self) -> str: ...


class Incoming:
    """A temporary file that takes an upload; :meth:`close` removes it unless it was given a lasting name."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Open a new temporary file in *folder* for at most *limit* bytes."""
        self.path = folder / temporary_name()
        self.limit = limit
        self.filename = ""  # as the client calls it
        self.size = 0  # bytes so far
        self._file: BinaryIO = self.path.open("x+b", buffering=0)
        self._hashes: dict[str, _Hash] = {
            "md5": hashlib.md5(usedforsecurity=False),
            "sha1": hashlib.sha1(usedforsecurity=False),
            "sha256": hashlib.sha256(),
            "sha512": hashlib.sha512(),
            "blake2b_256": hashlib.blake2b(digest_size=32),
        }

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Take the next *chunk*.

        :raises FileTooLarge: if the file grows over its limit.
        :raises OSError: if the disk does not take it.
        """
        self.size += len(chunk)
        if self.size > self.limit:
            raise FileTooLarge(self.filename, self.limit)
        for digest in self._hashes.values():
            digest.update(chunk)
        write_all(self._file, chunk)

    @property
    def digests(self) -> Digests:
        """The digests of all that came so far."""
        return Digests(**{name: digest.hexdigest() for name, digest in self._hashes.items()})

    @property
    def file(self) -> BinaryIO:
        """The bytes that came so far, to be read from anywhere."""
        return self._file

    def sync(self) -> None:
        """Wait until the bytes are on disk."""
        sync_file(self._file)

    def link_to(self, target: Path) -> None:
        """Give the bytes the lasting name *target*.

        :raises FileExistsError: if there is anything of that name.
        """
        link_file(self.path, target)

    def close(self) -> None:
        """Remove the temporary name; may be called again."""
        with suppress(OSError):  # what stays is swept later
            self._file.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def copy_into(incoming: Incoming, source: BinaryIO) -> None:
    """Write all of *source* into *incoming*.

    :raises FileTooLarge: as :meth:`Incoming.write`.
    """
    while chunk := source.read(CHUNK):
        incoming.write(chunk)
