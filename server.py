"""Waitress made fit for a package registry: strict framing, refusing before the body, bodies that stream.

The interface is :class:`Gate`, :class:`BodyReceiver`, :class:`HotAnswers` and :class:`Server`; :mod:`wire` has a
request's way. It comes in, up to its last byte, in the event loop; only the application runs in a task thread.
"""

from __future__ import annotations

import select
import socket
import time
from typing import TYPE_CHECKING, Any

from waitress import wasyncore

from wire.connections import Channel
from wire.heads import IDENT
from wire.interface import (
    BODY_KEY,
    HEAD_KEY,
    REQUEST_ID_KEY,
    AccessLog,
    BodyReceiver,
    Gate,
    HotAnswer,
    HotAnswers,
    PausingReceiver,
    Refusal,
    ServerOptions,
)
from wire.listening import Listener, listening_socket
from wire.sizes import KIB, MIB

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

__all__ = [
    "BODY_KEY",
    "HEAD_KEY",
    "IDENT",
    "KIB",
    "MIB",
    "REQUEST_ID_KEY",
    "AccessLog",
    "BodyReceiver",
    "Gate",
    "HotAnswer",
    "HotAnswers",
    "PausingReceiver",
    "Refusal",
    "Server",
    "ServerOptions",
    "listening_socket",
]


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
        self._listener = Listener(app, gate, options, sock, access_log, hot)
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

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._map = listener.map
        self._epoll = select.epoll()
        self._asked: dict[int, tuple[Any, int]] = {}  # by descriptor: whose it was, and the events it waits for

    def turn(self, timeout: float) -> None:
        """Wait for something to happen, at most *timeout* seconds, and let it be dealt with."""
        self._ask_all()
        deadline = time.monotonic() + timeout
        threads = self._listener.task_dispatcher
        while events := self._epoll.poll(max(0.0, min(deadline - time.monotonic(), threads.look()))):
            everybody = False
            for descriptor, flags in events:
                owner = self._map.get(descriptor)
                if owner is None:
                    continue
                wasyncore.readwrite(owner, flags)
                if type(owner) is not Channel:  # the listener, with a new connection, or the trigger
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
