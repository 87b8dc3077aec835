"""Forms taken apart while they arrive, however they are cut: as werkzeug's decoder reads them."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from werkzeug.exceptions import RequestEntityTooLarge
from werkzeug.sansio.multipart import Data, Field, File, MultipartDecoder, NeedData

from web.multipart import MAX_HEAD, MultipartReader

BOUNDARY = b"edge"


class Collected:
    """The parts of a form: name, file name, content."""

    def __init__(self) -> None:
        self.parts: list[tuple[str | None, str | None, bytes]] = []
        self.begun: list[tuple[str | None, str | None]] = []
        self._content = b""

    def begin(self, name, filename):
        self.begun.append((name, filename))
        self._content = b""

    def take(self, piece, *, last):
        self._content += piece
        if last:
            self.parts.append((*self.begun[-1], self._content))


def read(pieces, boundary=BOUNDARY, max_parts=100) -> tuple[list, bool]:
    """The parts of a form that comes in *pieces*, and whether it is complete."""
    collected = Collected()
    reader = MultipartReader(boundary, collected, max_parts)
    for piece in pieces:
        reader.feed(piece)
    return collected.parts, reader.complete


def read_by_werkzeug(form: bytes) -> tuple[list, bool]:
    """The same by werkzeug's decoder, which gets the form in one piece."""
    collected, decoder = Collected(), MultipartDecoder(BOUNDARY)
    decoder.receive_data(form)
    while not isinstance(event := decoder.next_event(), NeedData):
        if isinstance(event, Field | File):
            collected.begin(event.name, event.filename if isinstance(event, File) else None)
        elif isinstance(event, Data):
            collected.take(event.data, last=not event.more_data)
    return collected.parts, decoder.state.name == "EPILOGUE"


def cut(form: bytes, size: int) -> list[bytes]:
    return [form[at : at + size] for at in range(0, len(form), size)]


def part(head: bytes, content: bytes) -> bytes:
    return b"--edge\r\n" + head + b"\r\n\r\n" + content + b"\r\n"


FIELD = b'Content-Disposition: form-data; name="field"'
FILE = b'Content-Disposition: form-data; name="file"; filename="toolbox-1.0.tar.gz"'
END = b"--edge--\r\n"

FORMS = {
    "nothing": END,
    "a field": part(FIELD, b"text") + END,
    "empty contents": part(FIELD, b"") + part(FILE, b"") + END,
    "content that is left out": b"--edge\r\n" + FIELD + b"\r\n\r\n" + END,
    "a preamble and an epilogue": b"read on\r\n" + part(FIELD, b"x") + END + b"enough\r\n--edge\r\n",
    "content like a boundary": part(FILE, b"x--edge\r\n --edge\r\n\r\n--edg\r\n--edge?\r\n--edge-\r\n\r--edg")
    + END,
    "lines that end in LF": (part(FIELD, b"a\nb") + part(FILE, b"c") + END).replace(b"\r\n", b"\n"),
    "lines that end in CR": (part(FIELD, b"a") + part(FILE, b"c") + END).replace(b"\r\n", b"\r"),
    "breaks at the end": part(FILE, b"x\r\n\r\n") + part(FILE, b"\n") + part(FILE, b"\r") + END,
    "padding": (part(FIELD, b"a") + END).replace(b"--edge\r\n", b"--edge \t \r\n"),
    "other headers": part(b"X: y\r\n" + FILE + b"\r\nContent-Type: a/b\r\n" + FIELD, b"x") + END,
    "a folded header": part(b'Content-Disposition: form-data;\r\n name="field";\r\n\tfilename="f"', b"x") + END,
    "unusual spelling": part(b"content-disposition:form-data; NAME=field; filename*=UTF-8''%C3%A9", b"x") + END,
    "quoted names": part(b'Content-Disposition: form-data; name="a\\"b%22c"; filename="\\\\d"', b"x") + END,
    "names that are not ASCII": part('Content-Disposition: form-data; name="größe"'.encode(), b"x") + END,
    "no name": part(b"Content-Disposition: form-data", b"x") + END,
    "no end": part(FIELD, b"text") + part(FILE, b"half of it"),
    "random bytes": part(FILE, random.Random(7).randbytes(20_000)) + END,
}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 5000, 10**6])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_a_form_is_read_alike_however_it_is_cut(form, size):
    assert read(cut(form, size)) == read_by_werkzeug(form)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from([b"\r", b"\n", b"\r\n", b"--edge", b"--", b"-", b"edge", b" ", b"x", b"\0" * 40])),
    st.integers(1, 30),
)
def test_whatever_is_in_a_file_comes_out_of_it(content, size):
    form = part(FILE, b"".join(content)) + END
    try:
        expected = read_by_werkzeug(form)
    except ValueError:  # the content has a boundary in it, and what comes after it is no head
        with pytest.raises(ValueError, match="Content-Disposition"):
            read(cut(form, size))
        return

    assert read(cut(form, size)) == expected


def test_the_parts_of_a_large_file_are_not_copied():
    pieces = []

    class Parts(Collected):
        def take(self, piece, *, last):
            pieces.append(piece)

    reader = MultipartReader(BOUNDARY, Parts(), 10)
    reader.feed(part(FILE, b"x")[:-2])
    chunks = [bytes([number]) * 100_000 for number in range(1, 4)]
    for chunk in chunks:
        reader.feed(chunk)
    reader.feed(b"\r\n" + END)

    assert b"".join(pieces) == b"x" + b"".join(chunks)
    assert [piece.obj for piece in pieces if isinstance(piece, memoryview)] == chunks


MALFORMED = {
    "no disposition": part(b"Content-Type: text/plain", b"x") + END,
    "not UTF-8": part(b'Content-Disposition: form-data; name="\xff"', b"x") + END,
    "a head without end": b"--edge\r\n" + b"X: y\r\n" * MAX_HEAD,
    "a preamble without end": b"x" * (MAX_HEAD + 1),
    "much behind the end": part(FIELD, b"x") + END + b"x" * MAX_HEAD,
}


@pytest.mark.parametrize("size", [1000, 10**6])
@pytest.mark.parametrize("form", MALFORMED.values(), ids=MALFORMED.keys())
def test_what_is_malformed_is_refused(form, size):
    with pytest.raises(ValueError, match=r"part|form|utf-8"):
        read(cut(form, size))


def test_only_so_many_parts_are_taken():
    form = part(FIELD, b"x") * 3 + END

    assert len(read([form], max_parts=3)[0]) == 3
    with pytest.raises(RequestEntityTooLarge):
        read([form], max_parts=2)
