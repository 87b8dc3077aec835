"""Waitress made fit for a package registry: strict framing, refusing before the body, bodies that stream.

The interface is :class:`Gate`, :class:`BodyReceiver`, :class:`HotAnswers` and :class:`Server`; :mod:`wire` has a
request's way. It comes in, up to its last byte, in the event loop; gate and application run in task threads.
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
    Looks,
    NoLog,
    Note,
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
    "Looks",
    "NoLog",
    "Note",
    "PausingReceiver",
    "Refusal",
    "Server",
    "ServerOptions",
    "listening_socket",
]


_IN: int = select.EPOLLIN


class Server:
    """One process's HTTP server; it listens once it is made and serves while :meth:`run` runs."""

    def __init__(
        self,
        app: WSGIApplication,
        gate: Gate,
        options: ServerOptions,
        listener: socket.socket | None = None,
        access_log: AccessLog = NoLog(),  # noqa: B008 - it has no state
        hot: HotAnswers = lambda head, address, looks: None,
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
            self._poller.forget(self._listener)
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
    """The event loop, over epoll, in place of wasyncore's.

    That asks every connection in every turn what it waits for, and each asks the kernel for something else
    several times per request; both cost more than a hot answer. Here a connection is asked when something
    happened to it, or when it is among the listener's news, and the kernel goes on listening to a client that has
    to wait for an answer: only if something does come meanwhile is it told not to.
    """

    def __init__(self, listener: Listener) -> None:
        self._listener = listener
        self._map = listener.map
        self._epoll = select.epoll()
        self._asked: dict[int, tuple[Any, int]] = {}  # by descriptor: whose it was, and the events it waits for
        self._ask_again = (
            0.0  # when to ask everybody, by the monotonic clock; a safety net, and for what time changes
        )

    def turn(self, timeout: float) -> None:
        """Wait for something to happen, at most *timeout* seconds, and let it be dealt with."""
        now = time.monotonic()
        if now >= self._ask_again:
            self._ask_again = now + min(timeout, 1.0)
            self._ask_all()
        timeout = min(timeout, self._ask_again - now, self._listener.task_dispatcher.look())
        events = self._epoll.poll(max(timeout, 0.0))
        others = self._answer_beginnings(events)
        for descriptor, flags in others:
            owner = self._map.get(descriptor)
            if type(owner) is Channel:
                try:
                    self._deal_with(owner, flags)
                except Exception:
                    owner.handle_error()
            elif owner is not None:  # the listener, with a new connection, or the trigger
                wasyncore.readwrite(owner, flags)
        if self._listener.news:
            for channel in self._listener.take_news():
                if channel.connected:
                    self._ask(channel)
        if self._listener.accepting and (others or self._listener.muted):  # there may be more room, or less
            self._ask(self._listener, strictly=True)

    def forget(self, owner: Any) -> None:  # noqa: ANN401 - waitress has no types
        """Wait for nothing that happens to *owner* any more; to be called before its descriptor is closed.

        Closing does not take it out of epoll if it has been duplicated, as a listening socket may have been.
        """
        _, events = self._asked.pop(owner._fileno, (None, 0))
        if events:
            self._epoll.unregister(owner._fileno)

    def close(self) -> None:
        """Close the epoll descriptor."""
        self._epoll.close()

    def _answer_beginnings(self, events: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """Take in what begins a request, the fast road; return the other events.

        First everything is received, then it is answered. So what hot answers are made from has to be looked at
        only once for all of them, and still each look is newer than the last byte of each request: a right that
        was taken away before a client had sent its request whole is refused.
        """
        received, others, find = [], [], self._map.get
        for event in events:
            descriptor, flags = event
            channel = find(descriptor)
            if flags == _IN and type(channel) is Channel and channel.at_rest:
                try:
                    if data := channel.receive():
                        received.append((channel, data))
                except Exception:
                    channel.handle_error()
            else:
                others.append(event)
        looks: Looks = {}
        now = time.time()
        for channel, data in received:
            try:
                if channel.begin(data, looks, now):
                    continue
            except Exception:
                channel.handle_error()
            if channel.connected:
                self._ask(channel)
        return others

    def _deal_with(self, channel: Channel, flags: int) -> None:
        is_early = not channel.readable() and flags != select.EPOLLOUT  # the client sends before it is its turn
        if not is_early and flags & select.EPOLLIN:
            if data := channel.receive():
                channel.received(data)
        elif channel.writable():
            if flags & select.EPOLLOUT:
                channel.handle_write()
        else:
            flags = 0  # whoever hangs up while the application works is not heard
        if flags & (select.EPOLLHUP | select.EPOLLERR) and channel.connected:
            channel.handle_close()
        if channel.connected:
            self._ask(channel, strictly=is_early)

    def _ask_all(self) -> None:
        for descriptor in [gone for gone in self._asked if gone not in self._map]:
            del self._asked[descriptor]
        for owner in list(self._map.values()):
            self._ask(owner, strictly=type(owner) is not Channel)

    def _ask(self, owner: Any, *, strictly: bool = False) -> None:  # noqa: ANN401 - waitress has no types
        """Have epoll wait for what *owner* waits for; unless *strictly*, it may go on listening for too much."""
        descriptor = owner._fileno
        known, before = self._asked.get(descriptor, (None, 0))
        if known is not owner:
            before = 0  # the descriptor was closed, which took it out of epoll, and belongs to somebody else now
        wanted = self._events(owner)
        if not strictly:
            wanted |= before & select.EPOLLIN
        owner.muted = not wanted & select.EPOLLIN
        if owner.muted:  # a task thread that was done before this was set has told nobody
            wanted = self._events(owner)
            owner.muted = not wanted & select.EPOLLIN
        if wanted != before:
            if not before:
                self._epoll.register(descriptor, wanted)
            elif wanted:
                self._epoll.modify(descriptor, wanted)
            else:
                self._epoll.unregister(descriptor)
        self._asked[descriptor] = owner, wanted

    @staticmethod
    def _events(owner: Any) -> int:  # noqa: ANN401 - waitress has no types
        wanted = select.EPOLLIN if owner.readable() else 0
        if not owner.accepting and owner.writable():
            wanted |= select.EPOLLOUT
        return wanted
