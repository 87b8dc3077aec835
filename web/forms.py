"""``multipart/form-data`` bodies with a file, taken apart while they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flask import (
    request,
)
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
)
from werkzeug.sansio.multipart import Data, Field, MultipartDecoder, NeedData
from werkzeug.sansio.multipart import File as FilePart

from server import BODY_KEY
from settings import Settings
from storage.errors import (
    Invalid,
    StorageError,
)
from storage.repository import Repository
from storage.uploads import Incoming
from web.access import Rule, rule_of_request, settings

MAX_BOUNDARY = 200  # bytes; RFC 2046 allows 70
MAX_PART_HEAD = 64 * 1024  # bytes between two parts: boundary and headers
CHUNK = 256 * 1024  # bytes


class UploadForm:
    """A ``multipart/form-data`` body, taken apart while it arrives; its file goes straight into the storage.

    What is wrong with it is remembered and raised by :meth:`finish`, since :meth:`write` runs in the server's event
    loop, where nobody could answer.
    """

    def __init__(
        self, boundary: bytes, file_fields: tuple[str, ...], repository: Repository, limits: Settings
    ) -> None:
        """Expect a file for *repository* in a part called as one of *file_fields*."""
        self.fields: dict[str, list[str]] = {}
        self.not_utf8: set[str] = set()  # fields whose text is not what was sent
        self.incoming: Incoming | None = None
        self._decoder = MultipartDecoder(boundary, max_parts=limits.max_form_parts)
        self._file_fields = file_fields
        self._repository = repository
        self._room = limits.max_form_size  # bytes of text that may still come
        self._part: Field | FilePart | None = None
        self._text = bytearray()
        self._complete = False
        self._error: Exception | None = None

    def write(self, data: bytes | memoryview) -> bool:
        """Take the next bytes; False when nothing more is of use."""
        if self._error is None:
            try:
                self._decode(bytes(data))
            except (HTTPException, StorageError, OSError) as error:
                self._error = error
            except ValueError as error:  # from the decoder
                self._error = BadRequest(f"the form is malformed: {error}")
        return self._error is None

    def finish(self) -> None:
        """Look back after the last byte.

        :raises BadRequest: if the form was malformed or incomplete.
        :raises RequestEntityTooLarge, FileTooLarge, OSError: if it was too large, or could not be stored.
        """
        if self._error is not None:
            raise self._error
        if not self._complete:
            raise BadRequest("the form ends in the middle; send it again")

    def text(self, field: str) -> str | None:
        """The text of a field; None if it is absent or empty, which is the same to clients (specs.md 3.1).

        :raises BadRequest: if it was sent twice with different texts.
        """
        texts = {text for text in self.fields.get(field, ()) if text}
        if len(texts) > 1:
            raise BadRequest(f"the field {field!r} stands in the form more than once")
        return texts.pop() if texts else None

    def close(self) -> None:
        """Drop what was stored for the form; may be called again."""
        if self.incoming is not None:
            self.incoming.close()

    def _decode(self, data: bytes) -> None:
        self._decoder.receive_data(data)
        while not isinstance(event := self._decoder.next_event(), NeedData):
            if isinstance(event, (Field, FilePart)):
                self._begin(event)
            elif isinstance(event, Data):
                self._take(event)
        self._complete = self._decoder.state.name == "EPILOGUE"
        if self._decoder.state.name not in ("DATA", "DATA_START") and len(self._decoder.buffer) > MAX_PART_HEAD:
            raise BadRequest(
                "the form is malformed: a part has no end of its headers, or something follows the form"
            )

    def _begin(self, part: Field | FilePart) -> None:
        if not isinstance(part.name, str):
            raise BadRequest("the form is malformed: a part has no name")
        self._part = part
        self._text.clear()
        if isinstance(part, FilePart) and part.name in self._file_fields:
            if self.incoming is not None:
                raise BadRequest("the form has two files; send one file in each request")
            self.incoming = self._repository.receive()
            self.incoming.filename = part.filename

    def _take(self, event: Data) -> None:
        part = self._part
        if isinstance(part, FilePart) and part.name in self._file_fields and self.incoming is not None:
            self.incoming.write(event.data)
            return
        self._room -= len(event.data)
        if self._room < 0:
            raise RequestEntityTooLarge("the text of the form is too large")
        self._text += event.data
        if not event.more_data and part is not None:
            text = self._text.decode("utf-8", "replace")
            if "\N{REPLACEMENT CHARACTER}" in text and text.encode() != self._text:
                self.not_utf8.add(part.name)
            self.fields.setdefault(part.name, []).append(text)


def boundary_of_request() -> bytes | None:
    """The boundary of a ``multipart/form-data`` body; None if this request has another."""
    mimetype, options = request.mimetype, request.mimetype_params
    boundary = options.get("boundary", "").encode("latin-1", "replace")
    if mimetype != "multipart/form-data" or not 0 < len(boundary) <= MAX_BOUNDARY:
        return None
    return boundary


def open_form(repository: Repository, rule: Rule) -> UploadForm | None:
    """The receiver for the body of this request; None if it is no form with a file."""
    boundary = boundary_of_request()
    if boundary is None:
        return None
    return UploadForm(boundary, rule.upload_fields, repository, settings())


@contextmanager
def received_form(repository: Repository) -> Iterator[UploadForm]:
    """Yield the form of this request, whole; the server has received it, or else it is read here and now.

    :raises BadRequest: if it is malformed, or no form.
    """
    rule = rule_of_request()
    form = request.environ.get(BODY_KEY) or (open_form(repository, rule) if rule is not None else None)
    if not isinstance(form, UploadForm):
        raise NoFile
    try:
        if BODY_KEY not in request.environ:
            while (chunk := request.stream.read(CHUNK)) and form.write(chunk):
                pass
        form.finish()
        yield form
    finally:
        form.close()


class NoFile(Invalid):
    """The request holds no file part."""

    def __str__(self) -> str:
        return "the request holds no file: send it as the part that the address expects, in multipart/form-data"
