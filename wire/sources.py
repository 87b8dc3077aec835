"""What an answer's bytes are sent from: never copied where they are large, never read where the kernel can.

A source has ``left``, the bytes that are still to be sent; ``send(sock, most)``, which sends at most so many of
them without waiting and returns how many it were (0: the client has to read first); and ``close()``.
"""

from __future__ import annotations

import os
import socket
from io import BufferedReader
from typing import BinaryIO

from wire.sizes import SEND_PIECE

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
    """A file from where it stands, which the kernel sends by itself if it can."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        """Send *size* bytes of *file*, and close it in the end."""
        self._file = file
        self.left = size  # bytes still to be sent
        self._position = file.tell()
        self._is_left_to_kernel = isinstance(file, BufferedReader) and hasattr(os, "sendfile")

    def send(self, sock: socket.socket, most: int) -> int:
        """Send at most *most* bytes; return how many.

        :raises OSError: also if the file has become shorter.
        """
        most = min(most, self.left)
        sent = self._sendfile(sock, most) if self._is_left_to_kernel else self._read_and_send(sock, most)
        self._position += sent
        self.left -= sent
        return sent

    def close(self) -> None:
        """Close the file."""
        self.left = 0
        self._file.close()

    def _sendfile(self, sock: socket.socket, most: int) -> int:
        try:
            sent = os.sendfile(sock.fileno(), self._file.fileno(), self._position, most)
        except BlockingIOError:
            return 0
        except ConnectionError:
            raise
        except OSError:  # not from this file system, or not into this socket
            self._is_left_to_kernel = False
            return self._read_and_send(sock, most)
        if not sent:
            raise OSError("the file has become shorter while it was sent")
        return sent

    def _read_and_send(self, sock: socket.socket, most: int) -> int:
        self._file.seek(self._position)
        data = self._file.read(min(most, SEND_PIECE))
        if not data:
            raise OSError("the file has become shorter while it was sent")
        return _send(sock, data)


Source = Pieces | Shared | File


def _send(sock: socket.socket, data: bytes | memoryview) -> int:
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
