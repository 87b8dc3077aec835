"""The listening socket and its connections."""

from __future__ import annotations

import errno
import logging
import socket
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from waitress import wasyncore
from waitress.adjustments import Adjustments
from waitress.server import TcpWSGIServer

from wire.connections import Channel
from wire.heads import IDENT
from wire.interface import AccessLog, Gate, HotAnswers, ServerOptions
from wire.sizes import HIGH_WATERMARK
from wire.threads import Threads

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication

logger = logging.getLogger("packhouse.server")


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


class Listener(TcpWSGIServer):  # type: ignore[misc]  # waitress has no types
    """The listening socket and its connections."""

    logger = logger
    channel_class = Channel

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
        self.noted = access_log.prepared
        self.hot = hot
        self.options = options
        self.map: dict[int, Any] = {}
        self.stopping = False
        self.news: deque[Channel] = deque()  # channels for which the event loop has something to do
        self.muted = False  # nobody waits for new connections
        self._is_told = False  # of the news, and has not looked yet
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
        info = (sock.family, sock.type, sock.proto, sock.getsockname())
        super().__init__(app, self.map, True, sock, Threads(options.threads), adjustments, info, bind_socket=False)

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

    def tell(self, channel: Channel) -> None:
        """Have the event loop ask *channel* what it waits for; from any thread."""
        self.news.append(channel)
        if not self._is_told:
            self._is_told = True
            self.pull_trigger()

    def take_news(self) -> Iterator[Channel]:
        """Yield the channels of which was told; whoever comes too late for that pulls the trigger again."""
        self.muted = False  # nobody waits for new connections
        self._is_told = False
        while self.news:
            yield self.news.popleft()

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
