"""One connection: what comes in, what goes out, and for how long the client may keep us waiting."""

from __future__ import annotations

import fcntl
import logging
import math
import socket
import struct
import termios
import time
from io import BytesIO
from typing import Any

from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel

from wire import sizes
from wire.answers import Task
from wire.heads import end_of_head
from wire.requests import Request
from wire.sizes import (
    HIGH_WATERMARK,
    LINGER_SIZE,
    LINGER_TIME,
    MIN_RATE,
    MIN_RATE_HOLDING_THREAD,
    RECV_BODY,
    RECV_HEAD,
    SEND_PIECE,
    SEND_TURN,
    SHARE_FROM,
)
from wire.threads import waiting

logger = logging.getLogger("packhouse.server")


class Channel(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """One connection: one request at a time, bounded waiting, and a close that lets the client read the answer."""

    logger = logger
    task_class = error_task_class = Task

    request: Request | None = None  # the one coming in
    requests: list[Request]  # the one being answered, or none
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
        """Whether to look for more bytes: not before what we have is answered, or the body has room for them."""
        return not self._unparsed and self._ready() and not self._is_full()

    def _is_full(self) -> bool:
        return self.request is not None and self.request.is_full(self.server.pull_trigger)

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
                self.request = Request(self)
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
        head = answer.start + end_of_head(now)
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

    def _begin(self, request: Request) -> None:
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
        if self.total_outbufs_len > HIGH_WATERMARK:
            with waiting():  # here rather than in waitress, which has its lock by then
                self._flush_outbufs_below_high_watermark()
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
            return "close", sizes.LINGER_IDLE, 1
        if self.total_outbufs_len:
            holds_thread = self.requests and self.total_outbufs_len > HIGH_WATERMARK
            return "reader", idle, idle * (MIN_RATE_HOLDING_THREAD if holds_thread else MIN_RATE)
        if self.requests or self._is_full():
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
