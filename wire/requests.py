"""One request while it comes in: strict framing, and the gate's verdict between its head and its body."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, TypeVar

from waitress.parser import HTTPRequestParser, ParsingError, split_uri

from wire.answers import Task
from wire.bodies import FIELD_LINE, TOKEN, ChunkedBody, FixedBody, MemoryBody
from wire.interface import BODY_KEY, BodyReceiver, PausingReceiver, Refusal
from wire.refusals import FAILED, TOO_LARGE, Refused, bad, plain
from wire.sizes import MAX_REQUEST_LINE

logger = logging.getLogger("packhouse.server")
T = TypeVar("T")

# What may never be in a head: control characters, LF without CR, CR without LF (unless that is still to come).
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_EMPTY_LINES = re.compile(rb"(?:\r\n)*")  # RFC 9112, section 2.2: tolerated before a request
_REQUEST_LINE = re.compile(rb"(%b) (/[^ \t]*|https?://[^ \t]+|\*) HTTP/([0-9]\.[0-9])" % TOKEN)
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")
_SINGLE = frozenset({"HOST", "CONTENT_LENGTH", "TRANSFER_ENCODING", "CONTENT_TYPE", "AUTHORIZATION"})


class Request(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
    """One request while it comes in; waitress's attributes, our framing.

    Nothing of waitress's parser is used: it runs what is smuggled behind Content-Length with Transfer-Encoding, and
    its regular expressions take quadratic time on long lines of spaces.
    """

    version = "1.1"
    command = path = ""  # until they are known
    keep_alive = False
    awaits_continue = False
    environ: dict[str, Any] | None = None
    error: Refusal | None = None
    is_unjudged = False  # its head is in, and the gate has to say who takes its body
    header_plus: bytes = b""  # the head so far
    cut_short = False  # answered without the rest of the body
    _receiver: BodyReceiver | None = None
    _pausing: PausingReceiver | None = None  # the same, if it is one

    def __init__(self, channel: Any) -> None:  # noqa: ANN401 - a Channel, which is above
        super().__init__(channel.adj)
        self._channel = channel
        self._length: int | None = 0  # bytes of the body; None: it is chunked
        self._body: FixedBody | ChunkedBody | None = None

    def received(self, data: bytes) -> int:
        """Take what belongs to this request; return how many bytes that was.

        Between its head and its body it has to be judged.
        """
        taken = self._attempt(lambda: self._receive_head(data) if self._body is None else self._receive_body(data))
        return len(data) if taken is None else taken  # nothing behind an error is ever looked at

    def judge(self) -> None:
        """Ask the gate who takes the body."""
        self.is_unjudged = False
        self._attempt(self._open_body)

    def _attempt(self, step: Callable[[], T]) -> T | None:
        """Do *step*; whatever it raises becomes the answer."""
        try:
            return step()
        except Refused as refused:
            self.error = refused.refusal
        except Exception:
            logger.exception("failed to take in %s %r", self.command, self.path)
            self.error = FAILED
        self.completed = True
        self.keep_alive = False
        return None

    def get_body_stream(self) -> BytesIO:
        """Return the body as far as it is kept in memory."""
        return self._receiver.file if isinstance(self._receiver, MemoryBody) else BytesIO()

    def is_full(self, resume: Callable[[], None]) -> bool:
        """Whether the body takes no more for now; if so, *resume* is called when it does."""
        return self._pausing is not None and self._pausing.is_full(resume)

    def close(self) -> None:
        """Give up the body; the first call counts."""
        receiver, self._receiver = self._receiver, None
        self._pausing = None
        try:
            if receiver is not None:
                receiver.close()
        except Exception:
            logger.exception("failed to close the body of %s %r", self.command, self.path)

    # head

    def _receive_head(self, data: bytes) -> int:
        head = self.header_plus + data
        start = _EMPTY_LINES.match(head).end()  # type: ignore[union-attr]  # it always matches
        earlier = len(self.header_plus) - start
        head = head[start:]
        end = head.find(b"\r\n\r\n") + 4
        if end < 4:
            end = len(head)
        else:
            self.headers_finished = True
        self._check_head(head[:end], earlier)
        self.header_plus = head[:end]
        if self.headers_finished:
            self._parse_head(head[: end - 4])
            self._length = self._framing()
            self.completed = self._length == 0
            self.is_unjudged = not self.completed
        return end - earlier

    def _check_head(self, head: bytes, checked: int) -> None:
        if _FORBIDDEN.search(head, max(checked - 1, 0)):  # the last byte may have been a CR without its LF
            raise bad("The request's head has control characters or lines that do not end in CR LF.")
        line_end = head.find(b"\r\n")
        if (line_end if line_end >= 0 else len(head)) > MAX_REQUEST_LINE:
            raise Refused(plain("414 URI Too Long", f"The request line is longer than {MAX_REQUEST_LINE} bytes."))
        limit = self._channel.server.options.max_header_size
        if len(head) > limit:
            sentence = f"The request's headers are larger than {limit} bytes."
            raise Refused(plain("431 Request Header Fields Too Large", sentence))

    def _parse_head(self, head: bytes) -> None:
        request_line, *field_lines = head.split(b"\r\n")
        self._parse_fields(field_lines)
        self._parse_request_line(request_line)
        if not _HOST.fullmatch(self.headers.get("HOST", "")):
            raise bad("The Host header is not a host.")
        tokens = {token.strip() for token in self.headers.get("CONNECTION", "").lower().split(",")}
        self.keep_alive = "close" not in tokens if self.version == "1.1" else "keep-alive" in tokens

    def _parse_fields(self, lines: list[bytes]) -> None:
        for line in lines:
            match = FIELD_LINE.fullmatch(line)  # neither folded lines nor white space before the colon match
            if match is None:
                raise bad("A header is malformed.")
            name, value = match[1].decode(), match[2].strip(b" \t").decode("latin-1")
            if "_" in name:  # as waitress and nginx: X_Y must not pass for X-Y
                continue
            key = name.upper().replace("-", "_")
            if key in self.headers:
                if key in _SINGLE:
                    raise bad(f"There is more than one {name} header.")
                value = f"{self.headers[key]}, {value}"
            self.headers[key] = value

    def _parse_request_line(self, line: bytes) -> None:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None or match[1] != match[1].upper():
            raise bad("The request line is malformed.")
        method, target, version = match.groups()
        if version not in (b"1.0", b"1.1"):
            raise Refused(plain("505 HTTP Version Not Supported", "This server speaks HTTP/1.1 and HTTP/1.0."))
        self.command, self.version = method.decode(), version.decode()
        if self.version == "1.1" and "HOST" not in self.headers:
            raise bad("A request of HTTP/1.1 needs a Host header.")
        self.request_uri = target.decode("latin-1")
        self.url_scheme = self.adj.url_scheme
        try:
            _, host, self.path, self.query, self.fragment = split_uri(target)
        except (ParsingError, ValueError) as error:
            raise bad("The request's address is malformed.") from error
        if host:  # RFC 9112, section 3.2.2: an absolute address takes the place of the Host header
            self.headers["HOST"] = host

    # body

    def _open_body(self) -> None:
        length = self._length
        environ = self.environ = Task(self._channel, self).get_environment()
        del environ["wsgi.input"]
        verdict = self._channel.server.gate(environ)
        if isinstance(verdict, Refusal):
            raise Refused(verdict)
        if isinstance(verdict, int):
            if length is not None and length > verdict:
                raise Refused(TOO_LARGE)
            verdict = MemoryBody(verdict)
        self._receiver = verdict
        self._pausing = verdict if isinstance(verdict, PausingReceiver) else None
        self._body = ChunkedBody(verdict.write) if length is None else FixedBody(length, verdict.write)
        self.awaits_continue = self.version == "1.1" and self.headers.get("EXPECT", "").lower() == "100-continue"

    def _framing(self) -> int | None:
        """Return the body's length, or None if it is chunked (RFC 9112, section 6.3, with no doubt left)."""
        coding = self.headers.pop("TRANSFER_ENCODING", None)
        length = self.headers.get("CONTENT_LENGTH")
        if coding is not None:
            if length is not None or self.version != "1.1":
                raise bad("Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0.")
            if coding.lower() != "chunked":
                raise Refused(plain("501 Not Implemented", "The only Transfer-Encoding known here is chunked."))
            return None
        if length is not None and not _LENGTH.fullmatch(length):
            raise bad("The Content-Length header is not a number.")
        return int(length or 0)

    def _receive_body(self, data: bytes) -> int:
        body = self._body
        assert body is not None  # noqa: S101 - received() has looked
        consumed = body.received(data)
        if body.cut_short:
            self.cut_short = True
            self.keep_alive = False
        if body.complete or body.cut_short:
            self.completed = True
        return consumed

    def hand_over(self, environ: dict[str, Any]) -> None:
        """Put the body into *environ*, where the application finds it."""
        environ["wsgi.input"] = stream = self.get_body_stream()
        if isinstance(self._receiver, MemoryBody):
            environ["CONTENT_LENGTH"] = str(stream.tell())
            stream.seek(0)
        elif self._receiver is not None:
            environ[BODY_KEY] = self._receiver
