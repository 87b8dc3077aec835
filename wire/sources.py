"""What an answer's bytes are sent from: never copied where they are large, never more in memory than needed.

A source has ``left``, the bytes that are still to be sent; ``send(sock, most)``, which sends at most so many of
them without waiting and returns how many it were (0: the client has to read first); and ``close()``.
"""

from __future__ import annotations

import os
import socket
import threading
from io import BufferedReader
from typing import BinaryIO

from wire.sizes import LEAST_PIECE, SEND_PIECE

JOIN_UP_TO = 64 * 1024  # bytes; little pieces are put together up to this size


class Pieces:
    """Little pieces, copied together."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = bytearray(data)

    @property
    def left(self) -> int:
        """Bytes still to be sent."""
        return len(self._data)

    def append(self, data: bytes) -> bool:
        """Take another piece; False if there are enough."""
        if len(self._data) >= JOIN_UP_TO:
            return False
        self._data += data
        return True

    def send(self, sock: socket.socket, most: int) -> int:
        """Send at most *most* bytes; return how many."""
        with memoryview(self._data) as view, view[:most] as part:
            sent = _send(sock, part)
        del self._data[:sent]
        return sent

    def close(self) -> None:
        """Let go of the bytes."""
        self._data = bytearray()


class Shared:
    """Bytes that are sent from where they are."""

    def __init__(self, data: bytes | memoryview) -> None:
        self._data = memoryview(data)

    @property
    def left(self) -> int:
        """Bytes still to be sent."""
        return len(self._data)

    def send(self, sock: socket.socket, most: int) -> int:
        """Send at most *most* bytes; return how many."""
        sent = _send(sock, self._data[:most])
        self._data = self._data[sent:]
        return sent

    def close(self) -> None:
        """Let go of the bytes."""
        self._data = memoryview(b"")


class File:
    """A file from where it stands, read piece by piece as the client takes it.

    The kernel could send it by itself, but to a fast client ``sendfile`` brought two thirds of what this does.
    """

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Send *size* bytes of *file*, and close it in the end."""
        self._file = file
        self.left = size  # bytes still to be sent
        self._position = file.tell()
        self._piece = SEND_PIECE

    def send(self, sock: socket.socket, most: int) -> int:
        """Send at most *most* bytes; return how many.

        :raises OSError: also if the file has become shorter.
        """
        most, total = min(most, self.left), 0
        while total < most:
            piece = self._read(min(most - total, self._piece))
            sent = _send(sock, piece)
            self._position += sent
            self.left -= sent
            total += sent
            if sent < len(piece):  # read less for it next time: the rest of this was read for nothing
                self._piece = max(sent, LEAST_PIECE)
                break
            self._piece = min(2 * self._piece, SEND_PIECE)
        return total

    def close(self) -> None:
        """Close the file."""
        self.left = 0
        self._file.close()

    def _read(self, size: int) -> bytes | memoryview:
        if isinstance(self._file, BufferedReader):
            buffer = _here.buffer
            data: bytes | memoryview = buffer[: os.preadv(self._file.fileno(), [buffer[:size]], self._position)]
        else:
            self._file.seek(self._position)
            data = self._file.read(size)
        if not data:
            raise OSError("the file has become shorter while it was sent")
        return data


class _Here(threading.local):
    """What each thread reads into: the sources need it for no longer than a call."""

    def __init__(self) -> None:
        self.buffer = memoryview(bytearray(SEND_PIECE))


_here = _Here()


Source = Pieces | Shared | File


def _send(sock: socket.socket, data: bytes | memoryview) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
