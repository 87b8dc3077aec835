"""``multipart/form-data`` (RFC 7578) read while it arrives: heads of parts, and their content in large pieces.

As lenient as werkzeug's decoder, which it takes the place of: lines may end in CR LF, LF or CR. Content is passed
on as it came, without a copy, so that a large file costs little more than looking for its end.
"""

from __future__ import annotations

import re
from typing import Protocol

from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.http import parse_options_header

MAX_HEAD = 64 * 1024  # bytes between two parts: boundary and headers
MAX_PADDING = 1024  # bytes of white space behind a boundary
SHARE_FROM = 4096  # bytes; from this size on, content is handed on without a copy

_BLANK_LINE = re.compile(rb"\r\n\r\n|\r\r|\n\n")
_FOLD = re.compile(rb"(?:\r\n|\n|\r)[ \t]")
# What browsers and upload clients write, in which nothing is quoted or encoded.
_PLAIN = re.compile(r'form-data; name="([^"\\%]*)"(?:; filename="([^"\\%]*)")?')


class Parts(Protocol):
    """Takes the parts of a form."""

    def begin(self, name: str | None, filename: str | None) -> None:
        """Take the head of a part; *filename* is None if it is no file."""

    def take(self, piece: bytes | memoryview, *, last: bool) -> None:
        """Take a piece of its content, of bytes that nobody changes."""


class MultipartReader:
    """Reads a form from pieces of any size."""

    def __init__(self, boundary: bytes, parts: Parts, max_parts: int) -> None:
        """Hand what stands between the lines of *boundary* to *parts*."""
        self.complete = False  # the last boundary has been seen
        self._parts = parts
        self._max_parts = max_parts
        self._count = 0
        self._marker = b"--" + boundary
        self._first = re.compile(rb"(?:\r\n|\n|\r)?%b(--|[^\S\n\r]*(?:\r\n|\n|\r))" % re.escape(self._marker))
        # What stands behind the marker of a boundary; and what may become that when more has come.
        self._behind = re.compile(rb"--|[^\S\n\r]{0,%d}(?:\r\n|\n|\r)" % MAX_PADDING)
        self._unsure = re.compile(rb"-?\Z|[^\S\n\r]{0,%d}\r?\Z" % MAX_PADDING)
        self._read = self._read_preamble
        self._buffer = b""  # what has come
        self._at = 0  # what stands before is dealt with
        self._searched = 0  # bytes behind that in which there is no end of a preamble or head
        self._fresh = False  # content begins at _at, behind a line break

    def feed(self, data: bytes) -> None:
        """Take the next bytes.

        :raises ValueError: if the form is malformed.
        :raises RequestEntityTooLarge: if it has too many parts.
        """
        rest = self._buffer
        if rest and self._read == self._read_content and self._is_content(rest, data):
            self._parts.take(rest, last=False)
            self._fresh = False
            rest = b""
        self._buffer = rest + data if rest else data
        while self._read():
            pass
        self._buffer = self._buffer[self._at :]
        self._at = 0

    def _is_content(self, rest: bytes, data: bytes) -> bool:
        """Whether no boundary begins in the *rest* of the last piece: then it need not be joined with the next."""
        around = len(self._marker) + 1
        return len(rest) <= around < len(data) and self._marker not in rest + data[:around]

    # Each of these deals with what is in the buffer; False if more has to come.

    def _read_preamble(self) -> bool:
        match = self._first.search(self._buffer, max(0, self._searched - len(self._marker) - 8))
        if match is None:
            return self._await_more()
        self._pass_boundary(match[1], match.end())
        return True

    def _read_head(self) -> bool:
        match = _BLANK_LINE.search(self._buffer, self._at + max(0, self._searched - 3))
        if match is None:
            return self._await_more()
        self._count += 1
        if self._count > self._max_parts:
            raise RequestEntityTooLarge("the form has too many parts")
        self._parts.begin(*_read_disposition(self._buffer[self._at : match.start()]))
        self._at, self._searched = match.end(), 0
        self._read, self._fresh = self._read_content, True
        return True

    def _read_content(self) -> bool:
        buffer, search = self._buffer, self._at
        while (found := buffer.find(self._marker, search)) >= 0:
            end = self._end_before(found)
            if end is not None:
                behind = found + len(self._marker)
                match = self._behind.match(buffer, behind)
                # A CR at the very end may be half a line break.
                if match is not None and (match.end() < len(buffer) or match[0][-1:] != b"\r"):
                    self._take(end, last=True)
                    self._pass_boundary(match[0], match.end())
                    return True
                if self._unsure.match(buffer, behind):
                    self._take(end, last=False)
                    return False
            search = found + 1
        self._take(self._begin_of_line_end(), last=False)
        return False

    def _read_epilogue(self) -> bool:
        return self._await_more()

    def _end_before(self, marker: int) -> int | None:
        """Return where the content ends if *marker* is the place of a boundary; None if no line begins there."""
        if marker == self._at and self._fresh:
            return marker
        before = self._buffer[max(self._at, marker - 2) : marker]
        if before == b"\r\n":
            return marker - 2
        return marker - 1 if before.endswith((b"\n", b"\r")) else None

    def _begin_of_line_end(self) -> int:
        """Return the place from which on a boundary may begin, of which the rest is still to come."""
        start = max(self._at, len(self._buffer) - len(self._marker) - 1)
        tail = self._buffer[start:]
        places = [place for place in (tail.find(b"\r"), tail.find(b"\n")) if place >= 0]
        if self._fresh and start == self._at and self._marker.startswith(tail[: len(self._marker)]):
            places.append(0)
        return start + min(places, default=len(tail))

    def _take(self, end: int, *, last: bool) -> None:
        """Hand the content up to *end* on."""
        if last or end > self._at:
            piece = memoryview(self._buffer)[self._at : end]
            self._parts.take(piece if len(piece) >= SHARE_FROM else bytes(piece), last=last)
            self._fresh = False
        self._at = end

    def _pass_boundary(self, behind: bytes, end: int) -> None:
        self._at, self._searched = end, 0
        self.complete = behind == b"--"
        self._read = self._read_epilogue if self.complete else self._read_head

    def _await_more(self) -> bool:
        self._searched = len(self._buffer) - self._at
        if self._searched > MAX_HEAD:
            raise ValueError("a part has no end of its headers, or something follows the form")
        return False


def _read_disposition(head: bytes) -> tuple[str | None, str | None]:
    """Return the name and the file name that the headers of a part say.

    :raises ValueError: if they do not say, or are not UTF-8.
    """
    disposition = None
    for line in (_FOLD.sub(b" ", head) if _FOLD.search(head) else head).splitlines():
        name, _, value = line.decode().partition(":")
        if disposition is None and name.strip(" \t").lower() == "content-disposition":
            disposition = value.strip(" \t")
    if disposition is None:
        raise ValueError("a part has no Content-Disposition")
    if plain := _PLAIN.fullmatch(disposition):
        return plain[1], plain[2]
    _, options = parse_options_header(disposition)
    return options.get("name"), options.get("filename")
