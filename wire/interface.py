"""What the server asks of an application beyond WSGI, and what it offers to it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from wire.heads import start_of_head
from wire.sizes import KIB

REQUEST_ID_KEY = "packhouse.request_id"  # environ key of a word that tells requests apart in the logs
HEAD_KEY = "packhouse.head"  # environ key of the bytes of the request's head, where its answer may be kept
BODY_KEY = "packhouse.body"  # environ key of the BodyReceiver that took the whole body


@dataclass(frozen=True, slots=True)
class Refusal:
    """An answer given before the body is read; the connection closes after it."""

    status: str  # "401 UNAUTHORIZED"
    headers: list[tuple[str, str]]
    body: bytes


class BodyReceiver(Protocol):
    """Takes a request's body as it arrives. Its methods run in the event loop, so they must not wait for long.

    What came with the head is written where the gate was asked, in a task thread; never two threads at once.

    One that others work for may be a :class:`PausingReceiver`.
    """

    def write(self, data: bytes | memoryview, /) -> bool:
        """Take the next bytes; they are only valid during the call.

        False means that enough was seen: the application runs now, the rest of the body is dropped, and the
        connection closes after the answer.
        """

    def close(self) -> None:
        """Release everything. Called once in the end, whether the request was served, failed or was given up."""


@runtime_checkable
class PausingReceiver(BodyReceiver, Protocol):
    """A receiver that may want to be spared for a while."""

    def is_full(self, resume: Callable[[], None], /) -> bool:
        """Whether to write no more for now; if so, *resume* is called, by any thread, when there is room again."""


Note = Callable[[float, float], None]  # called with when an answer was begun and when it was given, by time.time()


class AccessLog(Protocol):
    """Is told of each answer."""

    def __call__(self, environ: dict[str, Any], status: str, size: int, seconds: float, /) -> None:
        """Note an answer: its status line, the bytes of its body, and the seconds that it took.

        The *environ* of a request that could not be parsed has only what is known of it.
        """

    def prepared(self, environ: dict[str, Any], status: str, size: int, /) -> Note:
        """Return what is called each time that a known answer is given, in the event loop.

        Of *environ* only the ``REMOTE_ADDR`` may be another one by then.
        """


class NoLog:
    """An access log that nobody reads."""

    def __call__(self, environ: dict[str, Any], status: str, size: int, seconds: float, /) -> None:
        """Note nothing."""

    def prepared(self, environ: dict[str, Any], status: str, size: int, /) -> Note:
        """Return what notes nothing."""
        return lambda begun, ended: None


# What was found when something was looked at: whoever looks keeps it here, under a key of its own, for the others
# that are answered in the same turn of the event loop.
Looks = dict[Any, Any]


class HotAnswer:
    """A complete answer that may be given without asking the application."""

    __slots__ = ("body", "environ", "note", "size", "start", "status")

    def __init__(self, status: str, headers: list[tuple[str, str]], body: bytes, environ: dict[str, Any]) -> None:
        """Take what the application said; *environ* is what the access log gets."""
        self.status = status
        self.start = start_of_head(status, headers)
        self.body = body if environ.get("REQUEST_METHOD") != "HEAD" else b""
        self.size = len(self.body)
        self.environ = environ
        self.note: Note | None = None  # see AccessLog.prepared; made when it is first given


class HotAnswers(Protocol):
    """Knows answers to requests that are given once more, down to the last byte of their heads."""

    def __call__(self, head: bytes, address: str, looks: Looks, /) -> HotAnswer | None:
        """Return the answer for a request's *head*, as it came from *address*; None: ask the application.

        Called in the event loop with whatever has come from a client that has no other request under way; only the
        bytes of an environ's HEAD_KEY may find an answer. *looks* has what was seen since all of *head* had come.
        """


class Gate(Protocol):
    """Decides, in a task thread, on every request that has a body, as soon as its headers are in."""

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
