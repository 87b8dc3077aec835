"""``multipart/form-data`` bodies with a file, taken apart while they arrive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from flask import (
    request,
)
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
)

from server import BODY_KEY
from settings import Settings
from storage.errors import (
    Invalid,
    StorageError,
)
from storage.repository import Repository
from storage.uploads import Incoming
from web.access import Rule, rule_of_request, settings
from web.multipart import MultipartReader

MAX_BOUNDARY = 200  # bytes; RFC 2046 allows 70
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
        self._reader = MultipartReader(boundary, self, limits.max_form_parts)
        self._file_fields = file_fields
        self._repository = repository
        self._room = limits.max_form_size  # bytes of text that may still come
        self._name = ""  # of the part that comes in
        self._is_file = False  # it is the file, and goes into the storage
        self._text = bytearray()
        self._error: Exception | None = None

    def write(self, data: bytes | memoryview) -> bool:
        """Take the next bytes; False when nothing more is of use."""
        if self._error is None:
            try:
                self._reader.feed(bytes(data))
            except (HTTPException, StorageError, OSError) as error:
                self._error = error
            except ValueError as error:
                self._error = BadRequest(f"the form is malformed: {error}")
        return self._error is None

    def is_full(self, resume: Callable[[], None]) -> bool:
        """Whether to write no more for now; if so, some thread calls *resume* when there is room."""
        return self.incoming is not None and self._error is None and self.incoming.is_full(resume)

    def make_room(self) -> None:
        """Wait until there is room for more."""
        if self.incoming is not None:
            self.incoming.make_room()

    def finish(self) -> None:
        """Look back after the last byte.

        :raises BadRequest: if the form was malformed or incomplete.
        :raises RequestEntityTooLarge, FileTooLarge, OSError: if it was too large, or could not be stored.
        """
        if self._error is not None:
            raise self._error
        if not self._reader.complete:
            raise BadRequest("the form ends in the middle; send it again")
        if self.incoming is not None:
            self.incoming.finish()

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

    def begin(self, name: str | None, filename: str | None) -> None:
        """Take the head of a part."""
        if name is None:
            raise BadRequest("the form is malformed: a part has no name")
        self._name = name
        self._text.clear()
        self._is_file = filename is not None and name in self._file_fields
        if self._is_file:
            if self.incoming is not None:
                raise BadRequest("the form has two files; send one file in each request")
            self.incoming = self._repository.receive()
            self.incoming.filename = filename or ""

    def take(self, piece: bytes | memoryview, *, last: bool) -> None:
        """Take a piece of a part."""
        if self._is_file and self.incoming is not None:
            self.incoming.write(piece)
            return
        self._room -= len(piece)
        if self._room < 0:
            raise RequestEntityTooLarge("the text of the form is too large")
        self._text += piece
        if last:
            text = self._text.decode("utf-8", "replace")
            if "\N{REPLACEMENT CHARACTER}" in text and text.encode() != self._text:
                self.not_utf8.add(self._name)
            self.fields.setdefault(self._name, []).append(text)


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
                form.make_room()
        form.finish()
        yield form
    finally:
        form.close()


class NoFile(Invalid):
    """The request holds no file part."""

    def __str__(self) -> str:
        return "the request holds no file: send it as the part that the address expects, in multipart/form-data"
