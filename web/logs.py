"""The access log: one line for each request, with who asked and never with what they showed to prove it.

It does not go through ``logging``, which would cost more than many an answer: lines are put together at once, and
written many at a time by whoever brings the last of them, or by a thread a fraction of a second later.
"""

from __future__ import annotations

import json
import os
import re
import select
import stat
import threading
import time
from collections import deque
from functools import lru_cache
from typing import TYPE_CHECKING

from server import REQUEST_ID_KEY, Note

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

CALLER_KEY = "packhouse.caller"  # environ key: who was found to be asking, in a word

FLUSH_INTERVAL = 0.2  # seconds; what kill -9 may take from the log
LINES_AT_ONCE = 64  # so many are written by whoever brings the last one, if nobody has to wait for that
LINE = 128  # bytes that a line takes, about; with fewer of them in it, a piece is nearly sure to have room for all
FILE_PIECE = 64 * 1024  # bytes that are then written to a file in one go; to a pipe, what it takes at once
LINES_PER_WRITE = 500  # putting more together would keep everybody else from running for long
MAX_WAITING = 50_000  # lines; more have to wait until some are written

_TOKEN = re.compile(r"(pkh(?:_|%5f)[0-9a-f]{12})(?:_|%5f)[0-9a-f]+", re.IGNORECASE)
# A password in a query is nobody's custom here, but what is pasted into an address ends up there.
_SECRET_FIELD = re.compile(r"((?:^|[?&;])(?:token|password|secret|csrf_token)=)[^&;\s]*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return *text* with every token cut down to its id, and the values of secret fields left out."""
    return _SECRET_FIELD.sub(r"\1...", _TOKEN.sub(r"\1_...", text))


class AccessLog:
    """Writes a line for each answer to a file descriptor; what the server calls after each of them."""

    def __init__(self, log_format: str, descriptor: int = 2) -> None:
        """Write "text" or "json" to *descriptor*; the thread that does it starts with the first line."""
        self._parts = _json_parts if log_format == "json" else _text_parts
        self._lost_line = _lost_json if log_format == "json" else _lost_text
        self._descriptor = descriptor
        self._waiting: deque[str] = deque()  # its methods are atomic: any thread may add a line at any time
        self._process = 0  # id of the process whose thread is running
        self._lock = threading.Lock()  # held while lines are written
        self._room = _room(descriptor)
        self._lost = 0  # lines that could not be written, and nobody was told

    def __call__(self, environ: WSGIEnvironment, status: str, size: int, seconds: float) -> None:
        """Note an answer: its status line, bytes of body, and the seconds that it took."""
        self._waiting.append(self.line(environ, status, size, seconds))
        self._start_writing()
        if len(self._waiting) >= LINES_AT_ONCE:
            self._write_at_once()

    def line(self, environ: WSGIEnvironment, status: str, size: int, seconds: float) -> str:
        """Return the line: time, address, caller, what was asked, how it went, with what client."""
        return _line(self._parts(environ, status, size), seconds, time.time())

    def prepared(self, environ: WSGIEnvironment, status: str, size: int) -> Note:
        """Return what notes the same answer again; of *environ* the address may be another one each time."""
        make_parts, waiting = self._parts, self._waiting
        address = environ["REMOTE_ADDR"]
        parts = make_parts(environ, status, size)
        self._start_writing()

        def note(begun: float, ended: float) -> None:
            nonlocal address, parts
            if environ["REMOTE_ADDR"] != address:
                address = environ["REMOTE_ADDR"]
                parts = make_parts(environ, status, size)
            waiting.append(_line(parts, ended - begun, ended))
            if len(waiting) >= LINES_AT_ONCE:
                self._write_at_once()

        return note

    def _start_writing(self) -> None:
        if self._process != os.getpid():
            self._process = os.getpid()
            threading.Thread(target=self._run, name="access log", daemon=True).start()

    def _write_at_once(self) -> None:
        """Write what waits, as far as that makes nobody wait.

        A thread that has much to write takes Python's lock from the event loop again and again, which triples the
        time of one answer in a hundred.
        """
        waiting = self._waiting
        if len(waiting) > MAX_WAITING:
            self.flush()
        elif self._room and self._lock.acquire(blocking=False):  # else the thread is just writing
            try:
                while waiting and self._is_ready():
                    lines = [waiting.popleft() for _ in range(min(len(waiting), self._room // LINE))]
                    if sum(map(len, lines)) > self._room or not all(map(str.isascii, lines)):
                        waiting.extendleft(reversed(lines))  # for the thread
                        return
                    self._write(lines)
            finally:
                self._lock.release()

    def _is_ready(self) -> bool:
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return poll.poll(0) == [(self._descriptor, select.POLLOUT)]

    def flush(self) -> None:
        """Write what waits; returns when it is written."""
        with self._lock:
            left = len(self._waiting)
            while left:
                lines = [self._waiting.popleft() for _ in range(min(left, LINES_PER_WRITE))]
                left -= len(lines)
                self._write(lines)

    def _write(self, lines: list[str]) -> None:
        """Write *lines*; a log that takes none does not stop the serving, and says so when it takes some again."""
        if self._lost:
            lines = [*lines, self._lost_line(self._lost)]
        data = "".join(lines).encode("utf-8", "backslashreplace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self._lost += len(lines) - bool(self._lost)
        else:
            self._lost = 0

    def _run(self) -> None:
        while True:
            time.sleep(FLUSH_INTERVAL)
            if self._waiting:
                self.flush()


def _room(descriptor: int) -> int:
    """Return how many bytes can be written to *descriptor* without waiting when it is ready; 0 if none are sure."""
    try:
        mode = os.fstat(descriptor).st_mode
    except OSError:
        return 0
    if stat.S_ISREG(mode):
        return FILE_PIECE
    return select.PIPE_BUF if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else 0


@lru_cache(maxsize=2)
def _second(second: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))


@lru_cache(maxsize=2)
def _millisecond(millisecond: int) -> str:
    return f"{_second(millisecond // 1000)}.{millisecond % 1000:03d}Z"


@lru_cache(maxsize=1_000)
def _tenths(number: int) -> str:
    return f"{number // 10}.{number % 10}"


@lru_cache(maxsize=20_000)
def _clean(text: str) -> str:
    """Return what a client sent, without secrets, and without what could end a line or move a cursor."""
    return without_secrets(text).encode("ascii", "backslashreplace").decode() if text.isprintable() else ascii(text)


# A line in three parts: what stands before the time, between the time and the milliseconds, and behind them.
_Parts = tuple[str, str, str]


def _line(parts: _Parts, seconds: float, ended: float) -> str:
    start, before, after = parts
    return f"{start}{_millisecond(int(ended * 1000))}{before}{_tenths(int(seconds * 10_000 + 0.5))}{after}"


def _text_parts(environ: WSGIEnvironment, status: str, size: int) -> _Parts:
    get = environ.get
    before = (
        f" {get('REMOTE_ADDR', '-')} {get(CALLER_KEY, '-')} {get('REQUEST_METHOD', '-')} "
        f"{_clean(get('REQUEST_URI') or get('PATH_INFO', '-'))} {status[:3]} {size}B "
    )
    return "", before, f'ms {get(REQUEST_ID_KEY, "-")} "{_clean(get("HTTP_USER_AGENT", ""))}"\n'


def _json_parts(environ: WSGIEnvironment, status: str, size: int) -> _Parts:
    get = environ.get
    facts = {
        "logger": "packhouse.access",
        "request_id": get(REQUEST_ID_KEY, ""),
        "address": get("REMOTE_ADDR", ""),
        "caller": get(CALLER_KEY, "-"),
        "method": get("REQUEST_METHOD", "-"),
        "path": _clean(get("REQUEST_URI") or get("PATH_INFO", "")),
        "status": int(status[:3]),
        "size": size,  # bytes
    }
    client = json.dumps(_clean(get("HTTP_USER_AGENT", "")))
    return '{"time": "', f'", {json.dumps(facts)[1:-1]}, "milliseconds": ', f', "client": {client}}}\n'


_LOST = "lines of this log before this one could not be written"


def _lost_text(number: int) -> str:
    return f"{_millisecond(int(time.time() * 1000))} {number} {_LOST}\n"


def _lost_json(number: int) -> str:
    facts = {"time": _millisecond(int(time.time() * 1000)), "logger": "packhouse.access"}
    return json.dumps({**facts, "message": f"{number} {_LOST}"}) + "\n"
