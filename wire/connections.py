"""One connection: what comes in, what is answered, and for how long the client may keep us waiting."""

from __future__ import annotations

import fcntl
import logging
import math
import socket
import struct
import termios
import time

from waitress.channel import ClientDisconnected

from wire import sizes
from wire.answers import Task
from wire.heads import end_of_head
from wire.interface import Looks
from wire.requests import Request
from wire.sending import Sender
from wire.sizes import (
    HIGH_WATERMARK,
    LINGER_SIZE,
    LINGER_TIME,
    MIN_RATE,
    MIN_RATE_HOLDING_THREAD,
    RECV_BODY,
    RECV_HEAD,
    SHARE_FROM,
)

logger = logging.getLogger("packhouse.server")


class Channel(Sender):
    """One connection: one request at a time, bounded waiting, and a close that lets the client read the answer."""

    request: Request | None = None  # the one coming in
    requests: list[Request]  # the one being answered, or none
    _unparsed = b""  # what came behind the request that is being answered
    _unread = False  # the client may still be sending what nobody wants
    _linger_until: float | None = None  # set while lingering
    _linger_left = LINGER_SIZE
    _begun = 0  # requests
    _window: tuple[object, float, int] = (None, 0.0, 0)  # what we wait for, since when, and bytes moved before

    # receiving, in the event loop

    @property
    def at_rest(self) -> bool:
        """Whether what comes next is the beginning of a request; asked twice for each hot answer, hence in one."""
        return not (
            self.request is not None
            or self._linger_until
            or self._unparsed
            or self.requests
            or self.total_outbufs_len
            or self.will_close
            or self.close_when_flushed
        )

    def readable(self) -> bool:
        """Whether to look for more bytes: not before what we have is answered, or the body has room for them."""
        return not self._unparsed and self._ready() and not self._is_full()

    def _is_full(self) -> bool:
        return self.request is not None and self.request.is_full(self._resume)

    def _resume(self) -> None:
        self.server.tell(self)

    def _ready(self) -> bool:
        """Whether the next request may begin."""
        return not (self.requests or self.total_outbufs_len or self.will_close or self.close_when_flushed)

    def receive(self) -> bytes:
        """Return what has come; without a byte the connection is closed, or there was nothing after all."""
        in_body = self._linger_until or (self.request is not None and self.request.headers_finished)
        try:
            data = self.socket.recv(RECV_BODY if in_body else RECV_HEAD)
        except BlockingIOError:
            return b""
        except OSError:
            data = b""
        if not data:
            self.handle_close()
        self.moved += len(data)
        return data

    def begin(self, data: bytes, looks: Looks, now: float) -> bool:
        """Take in what has come to a connection at rest; True if it is answered, and the connection at rest again.

        *looks* are of *now*, by ``time.time()``: none was taken before all of *data* had come.
        """
        if self._answer_hot(data, looks, now):
            return not (self.total_outbufs_len or self.will_close)
        self._parse(data)
        return False

    def received(self, data: bytes) -> None:
        """Take bytes in, up to the end of one request; the rest waits until that is answered.

        So what a gate decides is never older than the answer before it, and nothing behind an error is parsed.
        """
        if self._linger_until:
            self._discard(data)
            return
        if self.will_close or self.close_when_flushed:
            return
        data, self._unparsed = self._unparsed + data, b""
        if self.request is not None or not self._answer_hot(data, {}, time.time()):
            self._parse(data)

    def _parse(self, data: bytes) -> None:
        while data and self.connected:
            if self.request is None:
                self.request = Request(self)
            request = self.request
            data = data[request.received(data) :]
            if request.completed or request.is_unjudged:
                self._unparsed = data
                self._begin(request)
                break

    def _answer_hot(self, data: bytes, looks: Looks, now: float) -> bool:
        """Answer without asking the application, where *data* is just one request whose answer is known."""
        if not data.endswith(b"\r\n\r\n"):  # a body, perhaps, which is too long to be looked for
            return False
        try:
            answer = self.server.hot(data, self.addr[0], looks)
        except Exception:
            logger.exception("failed to look for a known answer")
            return False
        if answer is None:
            return False
        self._begun += 1
        if answer.size < SHARE_FROM:
            data = b"".join((answer.start, end_of_head(now), answer.body))
            try:
                sent = self.socket.send(data)  # which it takes, nearly always
            except OSError:  # the other way finds out
                sent = 0
            self.moved += sent
            if sent < len(data):
                self.put(data[sent:])
        else:
            self.put(answer.start + end_of_head(now))
            self.put(answer.body)
        note = answer.note
        if note is None:
            note = answer.note = self.server.noted(answer.environ, answer.status, answer.size)
        note(now, time.time())
        return True

    def _begin(self, request: Request) -> None:
        """Have the *request* answered, or judged."""
        self.request = None
        self._begun += 1
        self._unread = request.error is not None or request.cut_short
        self.requests.append(request)
        if request.error is not None:
            self.service()  # at once, even if every thread is busy
        elif request.is_unjudged:
            self.server.task_dispatcher.add_urgent(self)
        else:
            self.server.add_task(self)

    # answering, in a task thread

    def service(self) -> None:
        """Answer the request that has come in; the event loop is only told if it has something to do then."""
        request = self.requests[0]
        if request.is_unjudged:
            if not self._let_in(request):
                return
            if request.error is None and not self.server.task_dispatcher.settle_in():
                self.server.add_task(self)
                return
        task = Task(self, request)
        try:
            if self.connected:
                task.service()
        except ClientDisconnected:
            logger.info("the client disconnected while %r was answered", request.path)
            task.close_on_finish = True
        except Exception:
            logger.exception("failed to answer %s %r", request.command, request.path)
            task.close_on_finish = True
        request.close()
        self.close_when_flushed = task.close_on_finish
        self._give_back()

    def _let_in(self, request: Request) -> bool:
        """Let the gate judge, and take in what has come of the body; False if the event loop has to get more."""
        if not self.connected:
            return True
        request.judge()
        data, self._unparsed = self._unparsed, b""
        if data and not request.completed:
            data = data[request.received(data) :]
        if request.error is None:
            self._unparsed = data
        if request.awaits_continue and not request.completed:
            request.awaits_continue = False
            try:
                self.write_soon(b"HTTP/1.1 100 Continue\r\n\r\n")
            except ClientDisconnected:
                return True
        self._unread = request.error is not None or request.cut_short
        if request.completed:
            return True
        self.request = request
        self._give_back()  # from here on the event loop has the request, and may have completed it already
        if not self.connected and self.request is request:  # it closed the connection before
            request.close()
        return False

    def _give_back(self) -> None:
        """Let the event loop go on with this connection; from here on the next request may begin."""
        self.requests = []
        if self.connected and (self.muted or not self.readable() or self.server.stopping):
            self.server.tell(self)

    # sending, in the event loop

    def writable(self) -> bool:
        """Whether there is something to send, or room to answer what waits in _unparsed."""
        if self.total_outbufs_len or self.will_close or self.close_when_flushed:
            return True
        return self._unparsed != b"" and not self.requests

    def handle_write(self) -> None:
        """Send; then close, lingering, or go on with the next request."""
        if self.total_outbufs_len and not self.will_close:
            self.flush_if_possible()
        if self.will_close:
            self.handle_close()
        elif self.close_when_flushed and not self.total_outbufs_len:
            if self._unread or self._unparsed:
                self._linger()
            else:
                self.handle_close()
        elif self._unparsed and self._ready():
            self.received(b"")

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
        moved = self.moved - self._unacknowledged() if waiting_for == "reader" else self.moved
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
