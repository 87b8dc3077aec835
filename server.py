"""Waitress made fit for a package registry: strict framing, refusing before the body, bodies that stream.

Knows WSGI and waitress, nothing of Flask or the storage. First the interface (:class:`Gate`, :class:`Server`), then
a request's way through :class:`_Request`, :class:`_Channel` and :class:`_Task`. A request comes in, up to its last
byte, in the event loop; only the application runs in a task thread.
"""

from __future__ import annotations

import errno
import fcntl
import logging
import math
import re
import secrets
import select
import socket
import struct
import termios
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from typing import TYPE_CHECKING, Any, Protocol

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected, HTTPChannel
from waitress.parser import HTTPRequestParser, ParsingError, split_uri
from waitress.server import TcpWSGIServer
from waitress.task import ThreadedTaskDispatcher, WSGITask
from waitress.utilities import build_http_date

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

KIB = 1024
MIB = 1024 * KIB

IDENT = "Packhouse"  # the Server header; no versions
REQUEST_ID_KEY = "packhouse.request_id"  # environ key of a word that tells requests apart in the logs
HEAD_KEY = "packhouse.head"  # environ key of the bytes of the request's head, where its answer may be kept
BODY_KEY = "packhouse.body"  # environ key of the BodyReceiver that took the whole body

RECV_BODY = 256 * KIB  # bytes per recv; waitress's 8 KiB is what limits uploads, by four times
RECV_HEAD = 16 * KIB  # bytes per recv outside of a body; bounds what a pipelining client leaves with us
SEND_TURN = 1 * MIB  # bytes sent to one client per turn of the event loop, so that a fast reader starves nobody
SEND_PIECE = 64 * KIB  # bytes read from a file per send; with waitress's send buffer size most is read many times
SHARE_FROM = 64 * KIB  # bytes; answers from this size are sent from where they are instead of being copied
HIGH_WATERMARK = 4 * MIB  # bytes waiting to be sent, above which the application has to wait for the client

MAX_REQUEST_LINE = 16 * KIB  # bytes
MAX_CHUNK_LINE = 1 * KIB  # bytes of one line in a chunked body: size and extensions, or a trailer
MAX_TRAILER_LINES = 64

MIN_RATE = 1 * KIB  # bytes per second a body or an answer has to move at, averaged over the idle timeout
MIN_RATE_HOLDING_THREAD = 64 * KIB  # the same while a task thread waits for the client to read
LINGER_TIME = 30.0  # seconds, as nginx's lingering_time
LINGER_IDLE = 5.0  # seconds without a byte, as nginx's lingering_timeout
LINGER_SIZE = 256 * MIB  # bytes

logger = logging.getLogger("packhouse.server")


# --- the interface ---


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer given before the body is read; the connection closes after it."""

    status: str  # "401 UNAUTHORIZED"
    headers: list[tuple[str, str]]
    body: bytes


class BodyReceiver(Protocol):
    """Takes a request's body as it arrives. Its methods run in the event loop, so they must not wait for long."""

    def write(self, data: bytes | memoryview, /) -> bool:
        """Take the next bytes; they are only valid during the call.

        False means that enough was seen: the application runs now, the rest of the body is dropped, and the
        connection closes after the answer.
        """

    def close(self) -> None:
        """Release everything. Called once in the end, whether the request was served, failed or was given up."""


# Called after each answer with the environ, the status line, the bytes of its body, and the seconds that it took.
# The environ of a request that could not be parsed has only what is known of it.
AccessLog = Callable[[dict[str, Any], str, int, float], None]


class HotAnswer:
    """A complete answer that may be given without asking the application."""

    __slots__ = ("body", "environ", "size", "start", "status")

    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes, environ: dict[str, Any]) -> None:
        """Take what the application said; *environ* is what the access log gets."""
        self.status = status
        self.start = _head(status, headers)
        self.body = body if environ.get("REQUEST_METHOD") != "HEAD" else b""
        self.size = len(self.body)
        self.environ = environ


class HotAnswers(Protocol):
    """Knows answers to requests that are given once more, down to the last byte of their heads."""

    def __call__(self, head: bytes, address: str, /) -> HotAnswer | None:
        """Return the answer for a request's *head*, as it came from *address*; None: ask the application.

        Called in the event loop, for a GET or HEAD of HTTP/1.1 without a body that keeps the connection open.
        """


class Gate(Protocol):
    """Decides, in the event loop, on every request that has a body, as soon as its headers are in."""

    def __call__(self, environ: dict[str, Any], /) -> Refusal | BodyReceiver | int:
        """Refuse the request, name who takes its body, or keep the body in memory, at most so many bytes of it.

        *environ* is the complete WSGI environ, the same dict the application will get, but without ``wsgi.input``.
        With a :class:`BodyReceiver` the application finds it in ``environ[BODY_KEY]`` and ``wsgi.input`` empty.
        """


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Where to listen, and what clients may cost us."""

    host: str
    port: int  # 0: any free one
    threads: int = 16  # 16 avoid a collapse at 64 connections
    idle_timeout: float = 60.0  # seconds for a next request, a whole head, or bodies and readers to move on
    max_connections: int = 1000  # more wait unaccepted
    stop_timeout: float = 10.0  # seconds that requests in flight get to finish
    max_header_size: int = 64 * KIB  # bytes of request line and headers


def listening_socket(host: str, port: int) -> socket.socket:
    """Listen on *host* and *port*.

    :raises OSError: with a sentence naming both, if that is not possible.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, address = found[0]
        return socket.create_server(address[:2], family=family, backlog=1024)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {reason}") from error


class Server:
    """One process's HTTP server; it listens once it is made and serves while :meth:`run` runs."""

    def __init__(
        self,
        app: WSGIApplication,
        gate: Gate,
        options: ServerOptions,
        listener: socket.socket | None = None,
        access_log: AccessLog = lambda environ, status, size, seconds: None,
        hot: HotAnswers = lambda head, address: None,
    ) -> None:
        """Serve *app* on *listener*, or on a new socket as the options say; note each answer in *access_log*.

        :raises OSError: if it cannot listen there.
        """
        sock = listener or listening_socket(options.host, options.port)
        self._stop_timeout = options.stop_timeout
        self._interval = min(1.0, options.idle_timeout / 4)  # seconds between looks at the clients' time
        self._listener = _Listener(app, gate, options, sock, access_log, hot)
        self._poller = _Poller(self._listener)
        self._stopping = False

    @property
    def address(self) -> tuple[str, int]:
        """Host and port as bound."""
        return self._listener.effective_host, int(self._listener.effective_port)

    def run(self) -> None:
        """Serve until :meth:`stop`; when this returns, every connection is closed."""
        try:
            while not self._stopping:
                self._turn(self._interval)
            self._listener.stop_accepting()
            deadline = time.monotonic() + self._stop_timeout
            while self._listener.close_idle() and (left := deadline - time.monotonic()) > 0:
                self._turn(min(left, self._interval))
        finally:
            self._listener.shut_down()
            self._poller.close()

    def stop(self) -> None:
        """End :meth:`run`, from a signal handler or any thread.

        Idle connections close at once; requests being received, served or sent have the stop timeout to finish.
        """
        self._stopping = True
        self._listener.pull_trigger()  # writes a byte into a pipe: fit for a signal handler

    def _turn(self, timeout: float) -> None:
        self._poller.turn(timeout)
        self._listener.close_expired(time.monotonic(), self._interval)


class _Poller:
    """wasyncore's loop over epoll: it asks a connection what it waits for when something happened to it.

    wasyncore asks every connection in every turn, which costs more than a hot answer from eight connections on.
    What task threads change, they announce by the trigger; then everybody is asked, and once per interval anyhow.
    """

    def __init__(self, listener: _Listener) -> None:
        self._listener = listener
        self._map = listener.map
        self._epoll = select.epoll()
        self._asked: dict[int, tuple[Any, int]] = {}  # by descriptor: whose it was, and the events it waits for

    def turn(self, timeout: float) -> None:
        """Wait for something to happen, at most *timeout* seconds, and let it be dealt with."""
        self._ask_all()
        deadline = time.monotonic() + timeout
        while events := self._epoll.poll(max(0.0, deadline - time.monotonic())):
            everybody = False
            for descriptor, flags in events:
                owner = self._map.get(descriptor)
                if owner is None:
                    continue
                wasyncore.readwrite(owner, flags)
                if type(owner) is not _Channel:  # the listener, with a new connection, or the trigger
                    everybody = True
                elif self._map.get(descriptor) is owner:
                    self._ask(descriptor, owner)
            if everybody or time.monotonic() >= deadline:
                return

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    def _ask_all(self) -> None:
        for descriptor in [gone for gone in self._asked if gone not in self._map]:
            del self._asked[descriptor]
        for descriptor, owner in list(self._map.items()):
            self._ask(descriptor, owner)

    def _ask(self, descriptor: int, owner: Any) -> None:  # noqa: ANN401 - waitress has no types
        wanted = select.EPOLLIN | select.EPOLLPRI if owner.readable() else 0
        if owner.writable() and not owner.accepting:
            wanted |= select.EPOLLOUT
        known, before = self._asked.get(descriptor, (None, 0))
        if known is not owner:
            before = 0  # the descriptor was closed, which took it out of epoll, and belongs to somebody else now
        if wanted != before:
            if not before:
                self._epoll.register(descriptor, wanted)
            elif wanted:
                self._epoll.modify(descriptor, wanted)
            else:  # not even told when the client hangs up, as with poll
                self._epoll.unregister(descriptor)
        self._asked[descriptor] = owner, wanted


# --- refusals of our own ---


class _Refused(Exception):
    """Carries the refusal up to where the request is ended."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


def _plain(status: str, sentence: str) -> Refusal:
    body = f"{sentence}\n".encode()
    return Refusal(status, [("Content-Type", "text/plain; charset=utf-8")], body)


def _bad(sentence: str) -> _Refused:
    return _Refused(_plain("400 Bad Request", sentence))


_TOO_LARGE = _plain("413 Content Too Large", "The request's body is larger than what is accepted here.")
_FAILED = _plain("500 Internal Server Error", "The server failed on this request. Its log says why.")


# --- bodies ---


class _FixedBody:
    """A body of as many bytes as Content-Length says."""

    def __init__(self, length: int, write: Callable[[bytes | memoryview], bool]) -> None:
        self._left = length
        self._write = write
        self.cut_short = False  # the receiver has seen enough

    @property
    def complete(self) -> bool:
        return not self._left

    def received(self, data: bytes) -> int:
        """Take what belongs to the body; return how many bytes that was."""
        part = data[: self._left]
        self._left -= len(part)
        self.cut_short = not self._write(part) and self._left > 0
        return len(part)


_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"  # RFC 9110, section 5.6.2
_QUOTED = rb'"(?:[\t !#-\[\]-~\x80-\xff]|\\[\t -~\x80-\xff])*"'
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,15})(?:;%b(?:=(?:%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED))
_FIELD_LINE = re.compile(rb"(%b):([\t -~\x80-\xff]*)" % _TOKEN)


class _ChunkedBody:
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

        :raises _Refused: if the coding is broken.
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
            raise _bad("A line of the chunked body is too long or does not end in CR LF.")
        if self._line.endswith(b"\n"):
            line, self._line = self._line[:-2], b""
            self._take(line)
        return min(end, len(data))

    def _take_size(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise _bad("A chunk of the body has no proper size.")
        self._left = int(match[1], 16)
        self._take = self._take_end if self._left else self._take_trailer

    def _take_end(self, line: bytes) -> None:
        if line:
            raise _bad("A chunk of the body is longer than its size.")
        self._take = self._take_size

    def _take_trailer(self, line: bytes) -> None:
        self._trailers += 1
        if line and (self._trailers > MAX_TRAILER_LINES or not _FIELD_LINE.fullmatch(line)):
            raise _bad("The chunked body's trailer is malformed or too long.")
        self.complete = not line


class _MemoryBody:
    """A BodyReceiver for bodies that the application reads from wsgi.input."""

    def __init__(self, limit: int) -> None:
        self.file = BytesIO()
        self._limit = limit

    def write(self, data: bytes | memoryview) -> bool:
        if self.file.tell() + len(data) > self._limit:
            raise _Refused(_TOO_LARGE)
        self.file.write(data)
        return True

    def close(self) -> None:
        self.file.close()


# --- requests ---

# What may never be in a head: control characters, LF without CR, CR without LF (unless that is still to come).
_FORBIDDEN = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]|(?<!\r)\n|\r(?!\n|\Z)")
_EMPTY_LINES = re.compile(rb"(?:\r\n)*")  # RFC 9112, section 2.2: tolerated before a request
_REQUEST_LINE = re.compile(rb"(%b) (/[^ \t]*|https?://[^ \t]+|\*) HTTP/([0-9]\.[0-9])" % _TOKEN)
_HOST = re.compile(r"(?:[A-Za-z0-9._~!$&'()*+,;=%-]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")
_LENGTH = re.compile(r"[0-9]{1,18}")
_SINGLE = frozenset({"HOST", "CONTENT_LENGTH", "TRANSFER_ENCODING", "CONTENT_TYPE", "AUTHORIZATION"})


class _Request(HTTPRequestParser):  # type: ignore[misc]  # waitress has no types
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
    header_plus: bytes = b""  # the head so far
    cut_short = False  # answered without the rest of the body
    _receiver: BodyReceiver | None = None

    def __init__(self, channel: _Channel) -> None:
        super().__init__(channel.adj)
        self._channel = channel
        self._body: _FixedBody | _ChunkedBody | None = None

    def received(self, data: bytes) -> int:
        """Take what belongs to this request; return how many bytes that was."""
        try:
            return self._receive_head(data) if self._body is None else self._receive_body(data, self._body)
        except _Refused as refused:
            self.error = refused.refusal
        except Exception:
            logger.exception("failed to take in %s %r", self.command, self.path)
            self.error = _FAILED
        self.completed = True
        self.keep_alive = False
        return len(data)  # nothing behind an error is ever looked at

    def get_body_stream(self) -> BytesIO:
        """Return the body as far as it is kept in memory."""
        return self._receiver.file if isinstance(self._receiver, _MemoryBody) else BytesIO()

    def close(self) -> None:
        """Give up the body; the first call counts."""
        receiver, self._receiver = self._receiver, None
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
            self._open_body()
        return end - earlier

    def _check_head(self, head: bytes, checked: int) -> None:
        if _FORBIDDEN.search(head, max(checked - 1, 0)):  # the last byte may have been a CR without its LF
            raise _bad("The request's head has control characters or lines that do not end in CR LF.")
        line_end = head.find(b"\r\n")
        if (line_end if line_end >= 0 else len(head)) > MAX_REQUEST_LINE:
            raise _Refused(_plain("414 URI Too Long", f"The request line is longer than {MAX_REQUEST_LINE} bytes."))
        limit = self._channel.server.options.max_header_size
        if len(head) > limit:
            sentence = f"The request's headers are larger than {limit} bytes."
            raise _Refused(_plain("431 Request Header Fields Too Large", sentence))

    def _parse_head(self, head: bytes) -> None:
        request_line, *field_lines = head.split(b"\r\n")
        self._parse_fields(field_lines)
        self._parse_request_line(request_line)
        if not _HOST.fullmatch(self.headers.get("HOST", "")):
            raise _bad("The Host header is not a host.")
        tokens = {token.strip() for token in self.headers.get("CONNECTION", "").lower().split(",")}
        self.keep_alive = "close" not in tokens if self.version == "1.1" else "keep-alive" in tokens

    def _parse_fields(self, lines: list[bytes]) -> None:
        for line in lines:
            match = _FIELD_LINE.fullmatch(line)  # neither folded lines nor white space before the colon match
            if match is None:
                raise _bad("A header is malformed.")
            name, value = match[1].decode(), match[2].strip(b" \t").decode("latin-1")
            if "_" in name:  # as waitress and nginx: X_Y must not pass for X-Y
                continue
            key = name.upper().replace("-", "_")
            if key in self.headers:
                if key in _SINGLE:
                    raise _bad(f"There is more than one {name} header.")
                value = f"{self.headers[key]}, {value}"
            self.headers[key] = value

    def _parse_request_line(self, line: bytes) -> None:
        match = _REQUEST_LINE.fullmatch(line)
        if match is None or match[1] != match[1].upper():
            raise _bad("The request line is malformed.")
        method, target, version = match.groups()
        if version not in (b"1.0", b"1.1"):
            raise _Refused(_plain("505 HTTP Version Not Supported", "This server speaks HTTP/1.1 and HTTP/1.0."))
        self.command, self.version = method.decode(), version.decode()
        if self.version == "1.1" and "HOST" not in self.headers:
            raise _bad("A request of HTTP/1.1 needs a Host header.")
        self.request_uri = target.decode("latin-1")
        self.url_scheme = self.adj.url_scheme
        try:
            _, host, self.path, self.query, self.fragment = split_uri(target)
        except (ParsingError, ValueError) as error:
            raise _bad("The request's address is malformed.") from error
        if host:  # RFC 9112, section 3.2.2: an absolute address takes the place of the Host header
            self.headers["HOST"] = host

    # body

    def _open_body(self) -> None:
        length = self._framing()
        if length == 0:
            self.completed = True
            return
        environ = self.environ = _Task(self._channel, self).get_environment()
        del environ["wsgi.input"]
        verdict = self._channel.server.gate(environ)
        if isinstance(verdict, Refusal):
            raise _Refused(verdict)
        if isinstance(verdict, int):
            if length is not None and length > verdict:
                raise _Refused(_TOO_LARGE)
            verdict = _MemoryBody(verdict)
        self._receiver = verdict
        self._body = _ChunkedBody(verdict.write) if length is None else _FixedBody(length, verdict.write)
        self.awaits_continue = self.version == "1.1" and self.headers.get("EXPECT", "").lower() == "100-continue"

    def _framing(self) -> int | None:
        """Return the body's length, or None if it is chunked (RFC 9112, section 6.3, with no doubt left)."""
        coding = self.headers.pop("TRANSFER_ENCODING", None)
        length = self.headers.get("CONTENT_LENGTH")
        if coding is not None:
            if length is not None or self.version != "1.1":
                raise _bad("Transfer-Encoding goes neither with Content-Length nor with HTTP/1.0.")
            if coding.lower() != "chunked":
                raise _Refused(_plain("501 Not Implemented", "The only Transfer-Encoding known here is chunked."))
            return None
        if length is not None and not _LENGTH.fullmatch(length):
            raise _bad("The Content-Length header is not a number.")
        return int(length or 0)

    def _receive_body(self, data: bytes, body: _FixedBody | _ChunkedBody) -> int:
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
        if isinstance(self._receiver, _MemoryBody):
            environ["CONTENT_LENGTH"] = str(stream.tell())
            stream.seek(0)
        elif self._receiver is not None:
            environ[BODY_KEY] = self._receiver


# --- answers ---


class _Task(WSGITask):  # type: ignore[misc]  # waitress has no types
    """Answers one request, by the application or with the request's error."""

    logger = logger
    close_on_finish: bool = False
    wrote_header: bool = False

    def execute(self) -> None:
        """Run the application or tell the error; whatever is raised before the headers are out is a 500."""
        try:
            if self.request.error is not None:
                self._answer(self.request.error)
            else:
                self.request.hand_over(self.get_environment())
                super().execute()
        except ClientDisconnected:
            raise
        except Exception:
            if self.wrote_header:
                raise  # the channel logs it and closes, so that the client sees a torn answer
            logger.exception("failed to answer %s %r", self.request.command, self.request.path)
            self._answer(_FAILED)
        finally:
            self._log()

    def _log(self) -> None:
        size = self.content_bytes_written or self.content_length or 0  # files are sent without counting
        seconds = time.time() - self.start_time
        self.channel.server.access_log(self._known(), self.status, size if self.has_body else 0, seconds)

    def _known(self) -> dict[str, Any]:
        """The environ, or as much of it as could be parsed."""
        request = self.request
        if request.environ is not None:
            return dict(request.environ)
        known = {"REQUEST_METHOD": request.command, "PATH_INFO": request.path, "REMOTE_ADDR": self.channel.addr[0]}
        return {key: value for key, value in known.items() if value}

    def _answer(self, refusal: Refusal) -> None:
        self.complete = True
        self.status, self.response_headers = refusal.status, list(refusal.headers)
        self.content_length = len(refusal.body)
        self.close_on_finish = True
        self.chunked_response = False
        self.write(refusal.body)

    def write(self, data: bytes) -> None:
        """Queue *data*, behind the headers if it is the first; small answers go out as one packet, not as two."""
        if not self.complete:
            raise RuntimeError("the application has to call start_response before it gives a body")
        head = b"" if self.wrote_header else self.build_response_header()
        if self.content_length is not None:
            data = data[: self.content_length - self.content_bytes_written]
        self.content_bytes_written += len(data)
        if not self.has_body:
            data = b""
        elif data and self.chunked_response:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        if head and len(data) >= SHARE_FROM:
            self.channel.write_soon(head)
            head = b""
        self.channel.write_soon(head + data)
        self.wrote_header = True

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environ; for a request with a body the one the gate saw."""
        if self.request.environ is None:
            self.request.environ = super().get_environment()
            self.request.environ[REQUEST_ID_KEY] = secrets.token_hex(8)
            if self.request.keep_alive and self.version == "1.1":
                self.request.environ[HEAD_KEY] = self.request.header_plus
        environ: dict[str, Any] = self.request.environ
        return environ

    @property
    def has_body(self) -> bool:
        """Whether anything may follow the headers."""
        return not self._lengthless and self.request.command != "HEAD"

    @property
    def _lengthless(self) -> bool:
        return self.status.startswith(("1", "204", "304"))

    def set_close_on_finish(self) -> None:
        """Close the connection after this answer; the header is added when the headers are built."""
        self.close_on_finish = True

    def build_response_header(self) -> bytes:
        """Status line and headers; the connection stays open wherever the client can tell the answer's end.

        waitress 3.0.2 closes it after every answer without a body and after every chunked one.

        :raises ValueError: if a header would break out of its line.
        """
        headers = list(self.response_headers)
        given = {name.lower() for name, _ in headers}
        if self._lengthless:
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        elif "content-length" not in given and self.content_length is not None:
            headers.append(("Content-Length", str(self.content_length)))
        elif "content-length" not in given and self.has_body:
            if self.version == "1.1":
                headers.append(("Transfer-Encoding", "chunked"))
                self.chunked_response = True
            else:
                self.close_on_finish = True
        if self.close_on_finish or not self.request.keep_alive or self.channel.server.stopping:
            self.close_on_finish = True
            headers.append(("Connection", "close"))
        elif self.version == "1.0":
            headers.append(("Connection", "keep-alive"))
        headers = [(name, value) for name, value in headers if name.lower() != "date"]
        return _head(self.status, headers, self.version) + _end_of_head(self.start_time)


def _head(status: str, headers: list[tuple[str, str]], version: str = "1.1") -> bytes:
    """Status line and headers up to the Date, which comes last because it is never the same.

    :raises ValueError: if a header would break out of its line.
    """
    lines = [
        f"HTTP/{version} {status}",
        *(f"{name}: {value}" for name, value in headers),
        f"Server: {IDENT}",
        "Date: ",
    ]
    head = "\r\n".join(lines).encode("latin-1")
    if head.count(b"\r") != len(lines) - 1 or head.count(b"\n") != len(lines) - 1:
        raise ValueError("a header of the answer has a line break")
    return head


@lru_cache(maxsize=4)
def _end_of_head_at(second: int) -> bytes:
    date: str = build_http_date(second)
    return date.encode() + b"\r\n\r\n"


def _end_of_head(now: float) -> bytes:
    """The value of the Date header and the end of the head."""
    return _end_of_head_at(int(now))


# --- connections ---


class _Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """One connection: one request at a time, bounded waiting, and a close that lets the client read the answer."""

    logger = logger
    task_class = error_task_class = _Task

    request: _Request | None = None  # the one coming in
    requests: list[_Request]  # the one being answered, or none
    _unparsed = b""  # what came behind the request that is being answered
    _unread = False  # the client may still be sending what nobody wants
    _linger_until: float | None = None  # set while lingering
    _linger_left = LINGER_SIZE
    _budget = SEND_TURN  # bytes that may still be sent in this turn
    _moved = 0  # bytes received and sent
    _begun = 0  # requests
    _window: tuple[object, float, int] = (None, 0.0, 0)  # what we wait for, since when, and bytes moved before

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as waitress
        super().__init__(*args, **options)
        self.sendbuf_len = SEND_PIECE

    # receiving, in the event loop

    def readable(self) -> bool:
        """Whether to look for more bytes: not before what we have is answered."""
        return not self._unparsed and self._ready()

    def _ready(self) -> bool:
        """Whether the next request may begin; asked twice per connection and turn, hence without super()."""
        return not (self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed)

    def recv(self, buffer_size: int) -> bytes:
        """Large pieces for what is large."""
        in_body = self._linger_until or (self.request is not None and self.request.headers_finished)
        data: bytes = super().recv(RECV_BODY if in_body else RECV_HEAD)
        self._moved += len(data)
        return data

    def received(self, data: bytes) -> bool:
        """Take bytes in, up to the end of one request; the rest waits until that is answered.

        So what a gate decides is never older than the answer before it, and nothing behind an error is parsed.
        """
        if self._linger_until:
            self._discard(data)
            return True
        if self.will_close or self.close_when_flushed:
            return False
        data = self._unparsed + data
        self._unparsed = b""
        if self.request is None and self._answer_hot(data):
            return True
        while data and self.connected:
            if self.request is None:
                self.request = _Request(self)
            request = self.request
            data = data[request.received(data) :]
            if request.awaits_continue and not request.completed:
                request.awaits_continue = False
                self.write_soon(b"HTTP/1.1 100 Continue\r\n\r\n")  # not waitress's: a client may be gone by now
            if request.completed and self.connected:
                self._unparsed = data
                self._begin(request)
                break
        return True

    def _answer_hot(self, data: bytes) -> bool:
        """Answer without asking the application, where *data* is just one request whose answer is known."""
        if not data.startswith((b"GET ", b"HEAD ")) or data.find(b"\r\n\r\n") != len(data) - 4:
            return False
        try:
            answer = self.server.hot(data, self.addr[0])
        except Exception:
            logger.exception("failed to look for a known answer")
            return False
        if answer is None:
            return False
        now = time.time()
        self._begun += 1
        head = answer.start + _end_of_head(now)
        if answer.size >= SHARE_FROM:
            self.write_soon(head)
            self.write_soon(answer.body)
        else:
            self._send_now(head + answer.body)
        self.server.access_log(answer.environ, answer.status, answer.size, time.time() - now)
        return True

    def _send_now(self, data: bytes) -> None:
        """Send what the socket takes at once, and queue the rest; there is nothing queued before it."""
        self._budget = SEND_TURN
        sent = self.send(data)
        if sent < len(data) and self.connected:
            self.write_soon(data[sent:])

    def _begin(self, request: _Request) -> None:
        self.request = None
        self._begun += 1
        self._unread = request.error is not None or request.cut_short
        self.requests.append(request)
        if request.error is not None:
            self.service()  # at once, even if every thread is busy
        else:
            self.server.add_task(self)

    # sending

    def writable(self) -> bool:
        """Whether there is something to send, or room to answer what waits in _unparsed."""
        if self.total_outbufs_len or self.will_close or self.close_when_flushed:
            return True
        return self._unparsed != b"" and not self.requests

    def handle_write(self) -> None:
        """Send; then close, lingering, or go on with the next request."""
        self._budget = SEND_TURN
        if self.close_when_flushed and not self.will_close and (self._unread or self._unparsed):
            self._flush_exception(self._flush_some)
            if self.connected and not self.total_outbufs_len:
                self._linger()
        else:
            super().handle_write()
        if self._unparsed and self._ready():
            self.received(b"")

    def write_soon(self, data: Any) -> int:  # noqa: ANN401 - bytes or waitress's file wrapper
        """Queue *data*; what is large is sent from where it is: not copied, and never put into a temporary file."""
        self._budget = SEND_TURN
        if isinstance(data, ReadOnlyFileBasedBuffer) and self.requests[0].command == "HEAD":
            data.close()  # WSGITask passes files on without asking whether there may be a body
            return 0
        if isinstance(data, bytes) and len(data) >= SHARE_FROM:
            data = ReadOnlyFileBasedBuffer(BytesIO(data))  # BytesIO shares the bytes until somebody writes
            data.prepare()
        return int(super().write_soon(data))

    def send(self, data: bytes, do_close: bool = True) -> int:
        """Send within the turn's budget; 0 means later, as waitress expects."""
        if self._budget <= 0:
            return 0
        sent = int(super().send(data, do_close))
        self._budget -= sent
        self._moved += sent
        return sent

    # closing

    def _linger(self) -> None:
        """Say that no more comes, and read on for a while.

        Closing with bytes unread makes TCP send a reset, which takes the answer from a client that is still sending
        (RFC 9112, section 9.6).
        """
        self.close_when_flushed = False
        self._linger_until = time.monotonic() + LINGER_TIME
        self._unparsed = b""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            self.handle_close()

    def _discard(self, data: bytes) -> None:
        self._linger_left -= len(data)
        if self._linger_left < 0:
            self.handle_close()

    def handle_close(self) -> None:
        """Close now; a request that was coming in is given up."""
        super().handle_close()
        request, self.request = self.request, None
        if request is not None:
            request.close()

    def cancel(self) -> None:
        """Give up requests that no thread has begun."""
        requests = list(self.requests)
        super().cancel()
        for request in requests:
            request.close()

    # waiting

    @property
    def idle(self) -> bool:
        """Whether nothing is being received, served or sent."""
        in_flight = self.requests or self._unparsed or self.total_outbufs_len or self._linger_until
        return self.request is None and not in_flight

    def expired(self, now: float) -> bool:
        """Whether the client has kept us waiting for too long.

        A head has to be complete in the idle timeout; a body or an answer has to move at the minimum rate, measured
        over the idle timeout. While the application works, nobody is to blame.
        """
        waiting_for, timeout, quota = self._patience()
        key, since, moved_before = self._window
        moved = self._moved - self._unacknowledged() if waiting_for == "reader" else self._moved
        if key != (waiting_for, self._begun) or moved - moved_before >= quota:
            since = now
            self._window = ((waiting_for, self._begun), now, moved)
        return now - since > timeout or (self._linger_until is not None and now > self._linger_until)

    def _patience(self) -> tuple[str, float, float]:
        """What we wait for, for how many seconds, and after how many bytes these begin anew."""
        idle = self.server.options.idle_timeout
        if self._linger_until:
            return "close", LINGER_IDLE, 1
        if self.total_outbufs_len:
            holds_thread = self.requests and self.total_outbufs_len > HIGH_WATERMARK
            return "reader", idle, idle * (MIN_RATE_HOLDING_THREAD if holds_thread else MIN_RATE)
        if self.requests:
            return "application", math.inf, math.inf
        if self.request is None or not self.request.headers_finished:
            return "request" if self.request is None else "head", idle, math.inf
        return "body", idle, idle * MIN_RATE

    def _unacknowledged(self) -> int:
        """Bytes that are sent but only lie in the kernel, which takes megabytes in one go from time to time."""
        try:
            return int(struct.unpack("i", fcntl.ioctl(self.socket, termios.TIOCOUTQ, b"\0" * 4))[0])
        except OSError:
            return 0


class _Dispatcher(ThreadedTaskDispatcher):  # type: ignore[misc]  # waitress has no types
    """The task threads."""

    logger = logger

    def add_task(self, task: _Channel) -> None:
        """As waitress does, but without a warning in the log for each request that waits for a thread."""
        with self.lock:
            self.queue.append(task)
            self.queue_cv.notify()


class _Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """The listening socket and its connections."""

    logger = logger
    channel_class = _Channel

    def __init__(
        self,
        app: WSGIApplication,
        gate: Gate,
        options: ServerOptions,
        sock: socket.socket,
        access_log: AccessLog,
        hot: HotAnswers,
    ) -> None:
        self.gate = gate
        self.access_log = access_log
        self.hot = hot
        self.options = options
        self.map: dict[int, Any] = {}
        self.stopping = False
        self._trigger_lock = threading.RLock()  # a signal handler may come in between
        self._accept_again = 0.0
        self._look_again = 0.0
        adjustments = Adjustments(
            sockets=[sock],
            threads=options.threads,
            ident=IDENT,
            server_name=options.host,
            outbuf_high_watermark=HIGH_WATERMARK,
            outbuf_overflow=2 * HIGH_WATERMARK,  # never reached: no temporary files
            clear_untrusted_proxy_headers=False,  # the application decides whom to believe
            log_socket_errors=False,
        )
        dispatcher = _Dispatcher()
        dispatcher.set_thread_count(options.threads)
        info = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(app, self.map, True, sock, dispatcher, adjustments, info, bind_socket=False)

    def readable(self) -> bool:
        """Whether to accept another connection."""
        room = len(self.active_channels) < self.options.max_connections
        return self.accepting and room and time.monotonic() >= self._accept_again

    def accept(self) -> Any:  # noqa: ANN401 - as waitress
        """Accept; without descriptors left, try again in a second rather than at once and for ever."""
        try:
            return super().accept()
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE):
                raise
            logger.error("cannot accept connections: %s", error.strerror)
            self._accept_again = time.monotonic() + 1
            return None

    def pull_trigger(self) -> None:
        """Wake the event loop, if it is still there: its pipe's descriptor may be another file by now."""
        with self._trigger_lock:
            if not self.trigger._closed:
                super().pull_trigger()

    def stop_accepting(self) -> None:
        """Close the listening socket; connections stay."""
        self.stopping = True
        wasyncore.dispatcher.close(self)

    def close_idle(self) -> bool:
        """Close the connections on which nothing is going on; True if others are left."""
        for channel in list(self.active_channels.values()):
            if channel.idle:
                channel.handle_close()
        return bool(self.active_channels)

    def close_expired(self, now: float, interval: float) -> None:
        """Close the connections that keep us waiting; looks once per *interval* seconds."""
        if now < self._look_again:
            return
        self._look_again = now + interval
        for channel in list(self.active_channels.values()):
            if channel.expired(now):
                channel.handle_close()

    def shut_down(self) -> None:
        """Close everything, whatever is going on."""
        self.stop_accepting()
        for channel in list(self.active_channels.values()):
            channel.handle_close()
        self.task_dispatcher.shutdown(timeout=1)
        with self._trigger_lock:
            self.trigger.close()
