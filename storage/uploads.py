"""A file on its way in: from the socket to a dotted temporary file in the target's file system, hashed on the way.

A small file is kept in memory until somebody asks for it. A large one goes piece by piece to threads that hash and
write it (:mod:`storage.lanes`), so that taking it in costs the time of the slowest digest and no more.
"""

from __future__ import annotations

import hashlib
import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol

from storage.errors import FileTooLarge
from storage.files import open_regular, sync_data, sync_file, temporary_name, write_all
from storage.lanes import Stream, in_background
from storage.limits import KIB, MIB
from storage.sidecars import Digests

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

    from typing_extensions import Buffer  # collections.abc.Buffer comes with Python 3.12

CHUNK = 256 * KIB  # bytes
SMALL = 128 * KIB  # bytes that are kept in memory
SYNC_STEP = 32 * MIB  # bytes; so many at a time are brought to disk while others still come in


class _Hash(Protocol):
    def update(self, data: Buffer, /) -> None: ...
    def hexdigest(self) -> str: ...


class Incoming:
    """A temporary file that takes an upload; :meth:`close` removes it unless it was given a lasting name."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Expect at most *limit* bytes; the file will be in *folder*."""
        self.path = folder / temporary_name()
        self.limit = limit
        self.filename = ""  # as the client calls it
        self.size = 0  # bytes so far
        self._small = bytearray()  # what is kept in memory
        self._file: BinaryIO | None = None
        self._reader: BinaryIO | None = None
        self._stream: Stream | None = None
        self._unsynced = 0  # bytes that nobody has begun to bring to disk
        self._syncing: Future[None] | None = None
        self._digests: Digests | None = None
        self._hashes: dict[str, _Hash] = {
            "md5": hashlib.md5(usedforsecurity=False),
            "sha1": hashlib.sha1(usedforsecurity=False),
            "sha256": hashlib.sha256(),
            "sha512": hashlib.sha512(),
            "blake2b_256": hashlib.blake2b(digest_size=32),
        }

    def write(self, chunk: bytes | memoryview) -> None:
        """Take the next *chunk*, whose bytes nobody may change later; waits for nothing.

        :raises FileTooLarge: if the file grows over its limit.
        :raises OSError: if the disk did not take what came before.
        """
        if not chunk:
            return
        self.size += len(chunk)
        if self.size > self.limit:
            raise FileTooLarge(self.filename, self.limit)
        if self._stream is None and self.size <= SMALL:
            self._small += chunk
            return
        if self._stream is None:
            self._open()
            self._stream = Stream([self._take, *(digest.update for digest in self._hashes.values())])
            self._stream.put(bytes(self._small))
            self._small.clear()
        elif self._stream.error is not None:
            raise self._stream.error
        self._stream.put(chunk)

    def is_full(self, resume: Callable[[], None]) -> bool:
        """Whether to write no more for now; if so, some thread calls *resume* when there is room."""
        return self._stream is not None and self._stream.is_full(resume)

    def make_room(self) -> None:
        """Wait until there is room for more."""
        if self._stream is not None:
            self._stream.make_room()

    def finish(self) -> None:
        """Wait until all that came is hashed, and written unless it is small.

        :raises OSError: if the disk did not take it.
        """
        if self._digests is not None:
            return
        if self._stream is not None:
            self._stream.finish()
        else:
            for digest in self._hashes.values():
                digest.update(self._small)
        self._digests = Digests(**{name: digest.hexdigest() for name, digest in self._hashes.items()})

    @property
    def digests(self) -> Digests:
        """The digests of all that came; nothing more may come."""
        self.finish()
        assert self._digests is not None  # noqa: S101 - finish() has seen to it
        return self._digests

    @property
    def content(self) -> BinaryIO:
        """The bytes that came, to be read from anywhere; nothing more may come."""
        self.finish()
        if self._stream is None:
            return io.BytesIO(self._small)
        if self._reader is None:
            self._reader = open_regular(self.path)
        return self._reader

    @property
    def file(self) -> BinaryIO:
        """The temporary file, with all that came in it; nothing more may come.

        :raises OSError: if the disk does not take it.
        """
        self.finish()
        if self._file is not None:
            return self._file
        file = self._open()
        write_all(file, self._small)
        return file

    def sync(self) -> None:
        """Wait until the bytes are on disk."""
        file = self.file
        if self._syncing is not None:
            self._syncing.result()  # an error that was told there is not told again
        sync_file(file)

    def close(self) -> None:
        """Remove the temporary name; may be called again, and does not wait for what is going on."""
        if self._stream is not None:
            self._stream.abandon(self._remove)
        elif self._file is not None:
            self._remove()

    def _open(self) -> BinaryIO:
        self._file = self.path.open("x+b", buffering=0)
        return self._file

    def _take(self, piece: bytes | memoryview) -> None:
        """Write the next piece of a large file."""
        assert self._file is not None  # noqa: S101 - it was opened before the first piece came
        write_all(self._file, piece)
        self._unsynced += len(piece)
        if self._unsynced >= SYNC_STEP and (self._syncing is None or self._syncing.done()):
            if self._syncing is not None:
                self._syncing.result()
            self._unsynced = 0
            self._syncing = in_background(self._sync_data)

    def _sync_data(self) -> None:
        assert self._file is not None  # noqa: S101
        sync_data(self._file)

    def _remove(self) -> None:
        if self._file is None:
            return
        if self._syncing is not None and not self._syncing.done():
            self._syncing.add_done_callback(lambda _: self._remove())
            return
        file, self._file = self._file, None
        with suppress(OSError):  # what stays is swept later
            file.close()
            if self._reader is not None:
                self._reader.close()
        with suppress(OSError):
            self.path.unlink(missing_ok=True)


def copy_into(incoming: Incoming, source: BinaryIO) -> None:
    """Write all of *source* into *incoming*.

    :raises FileTooLarge: as :meth:`Incoming.write`.
    :raises OSError: if the disk does not take it.
    """
    while chunk := source.read(CHUNK):
        incoming.write(chunk)
        incoming.make_room()
    incoming.finish()
