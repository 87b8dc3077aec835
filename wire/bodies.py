"""Bodies of requests, taken apart while they come in."""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO

from wire.refusals import TOO_LARGE, Refused, bad
from wire.sizes import MAX_CHUNK_LINE, MAX_TRAILER_LINES


class FixedBody:
    """A body of as many bytes as Content-Length says."""

    def __init__(self, length: int, write: Callable[[bytes | memoryview], bool]) -> None:
        self._left = length
        self._write = write
        self.cut_short = False  # the receiver has seen enough

    @property
    def complete(self) -> bool:
        """Whether all of it is in."""
        return not self._left

    def received(self, data: bytes) -> int:
        """Take what belongs to the body; return how many bytes that was."""
        part = data[: self._left]
        self._left -= len(part)
        self.cut_short = not self._write(part) and self._left > 0
        return len(part)


TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110, section 5.6.2
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|%b))?)*" % (TOKEN, TOKEN, _QUOTED))
FIELD_LINE = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % TOKEN)


class ChunkedBody:
    """A chunked body (RFC 9112, section 7.1) read to the letter; extensions and trailers are checked and dropped.

    waitress's own receiver takes blank lines and bare LF for sizes and keeps lines and trailers of any length.
    """

    def __init__(self, write: Callable[[bytes | memoryview], bool]) -> None:
        self._write = write
        self._left = 0  # bytes of the current chunk
        self._line = b""  # the beginning of a line
        self._take = self._take_size
        self._trailers = 0
        self.complete = False
        self.cut_short = False

    def received(self, data: bytes) -> int:
        """Take what belongs to the body; return how many bytes that was.

        :raises Refused: if the coding is broken.
        """
        position, parts = 0, []
        while position < len(data) and not self.complete:
            if self._left:
                part = memoryview(data)[position : position + self._left]
                parts.append(part)
                self._left -= len(part)
                position += len(part)
            else:
                position = self._read_line(data, position)
        # One write for all: a client may make every byte a chunk.
        if parts and not self._write(parts[0] if len(parts) == 1 else b"".join(parts)):
            self.cut_short = not self.complete
        return position

    def _read_line(self, data: bytes, position: int) -> int:
        end = data.find(b"\n", position, position + MAX_CHUNK_LINE) + 1 or position + MAX_CHUNK_LINE
        self._line += data[position:end]
        if len(self._line) > MAX_CHUNK_LINE or re.search(rb"(?<!\r)\n", self._line):
            raise bad("A line of the chunked body is too long or does not end in CR LF.")
        if self._line.endswith(b"\n"):
            line, self._line = self._line[:-2], b""
            self._take(line)
        return min(end, len(data))

    def _take_size(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise bad("A chunk of the body has no proper size.")
        self._left = int(match[1], 16)
        self._take = self._take_end if self._left else self._take_trailer

    def _take_end(self, line: bytes) -> None:
        if line:
            raise bad("A chunk of the body is longer than its size.")
        self._take = self._take_size

    def _take_trailer(self, line: bytes) -> None:
        self._trailers += 1
        if line and (self._trailers > MAX_TRAILER_LINES or not FIELD_LINE.fullmatch(line)):
            raise bad("The chunked body's trailer is malformed or too long.")
        self.complete = not line


class MemoryBody:
    """A BodyReceiver for bodies that the application reads from wsgi.input."""

    def __init__(self, limit: int) -> None:
        self.file = BytesIO()
        self._limit = limit

    def write(self, data: bytes | memoryview) -> bool:
        """Keep *data*.

        :raises Refused: if it is too much.
        """
        if self.file.tell() + len(data) > self._limit:
            raise Refused(TOO_LARGE)
        self.file.write(data)
        return True

    def close(self) -> None:
        """Release the memory."""
        self.file.close()
