"""The sending half of a connection: what is large is not copied, and a slow reader waited for."""

from __future__ import annotations

import logging
import socket
from collections import deque
from typing import Any

from waitress import wasyncore
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import ClientDisconnected, HTTPChannel

from wire.sizes import HIGH_WATERMARK, SEND_TURN, SHARE_FROM
from wire.sources import File, Pieces, Shared, Source
from wire.threads import waiting

logger = logging.getLogger("packhouse.server")


class Sender(HTTPChannel):  # type: ignore[misc]  # waitress has no types
    """A channel with an outlet of our own; of waitress's there is only the lock.

    Both the event loop and a task thread send: who has the lock. What the event loop has to go on with it is told.
    """

    logger = logger

    socket: socket.socket
    requests: list[Any]  # the one being answered, or none
    outbufs: deque[Source]
    total_outbufs_len: int  # bytes in them
    will_close: bool  # as soon as the event loop sees it
    moved = 0  # bytes received and sent
    muted = False  # the event loop does not listen to the client at the moment

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as waitress
        super().__init__(*args, **options)
        self.outbufs = deque()
        self.server.news.append(self)

    def write_soon(self, data: Any) -> int:  # noqa: ANN401 - bytes or waitress's file wrapper
        """Send *data*, or what the socket takes of it, and queue the rest; waits while too much is queued.

        :raises ClientDisconnected: if nobody is there to read it.
        """
        if isinstance(data, ReadOnlyFileBasedBuffer) and self.requests[0].command == "HEAD":
            data.close()  # WSGITask passes files on without asking whether there may be a body
            return 0
        if self.total_outbufs_len > HIGH_WATERMARK:
            self._await_reader()
        with self.outbuf_lock:
            if not self.connected:
                raise ClientDisconnected
            if isinstance(data, ReadOnlyFileBasedBuffer):
                size = int(data.remain)
                self.outbufs.append(File(data.file, size))
                self.total_outbufs_len += size
                self.flush()
            else:
                size = len(data)
                self.put(data)
        if self.total_outbufs_len or self.will_close:
            self.server.tell(self)
        return size

    def put(self, data: bytes) -> None:
        """Send *data* and queue what the socket does not take; the lock is held, or no task thread is at work."""
        last = self.outbufs[-1] if self.outbufs else None
        self.total_outbufs_len += len(data)
        if last is None or not (isinstance(last, Pieces) and len(data) < SHARE_FROM and last.append(data)):
            self.outbufs.append(Pieces(data) if len(data) < SHARE_FROM else Shared(data))
        self.flush()

    def flush(self) -> None:
        """Send what the socket takes, within a turn's budget; the lock is held, or no task thread is at work."""
        budget = SEND_TURN
        try:
            while self.outbufs and budget > 0:
                source = self.outbufs[0]
                wanted = min(source.left, budget)
                sent = source.send(self.socket, wanted) if wanted else 0
                self.total_outbufs_len -= sent
                self.moved += sent
                budget -= sent
                if source.left:
                    if sent < wanted:
                        return
                else:
                    self.outbufs.popleft().close()
        except OSError:
            self.will_close = True  # by the event loop: only there may a connection be closed
        except Exception:
            logger.exception("failed to send")
            self.will_close = True

    def flush_if_possible(self) -> None:
        """Send, in the event loop, unless a task thread is just sending."""
        if self.outbuf_lock.acquire(False):
            try:
                self.flush()
                self.outbuf_lock.notify_all()
            finally:
                self.outbuf_lock.release()

    def _await_reader(self) -> None:
        """Wait, in a task thread, until the client has read so much that there may be more."""
        with waiting(), self.outbuf_lock:
            while self.connected and self.total_outbufs_len > HIGH_WATERMARK:
                self.server.tell(self)
                self.outbuf_lock.wait()

    def handle_close(self) -> None:
        """Close now, and whatever was to be sent."""
        with self.outbuf_lock:
            self.connected = False
            self.total_outbufs_len = 0
            while self.outbufs:
                try:
                    self.outbufs.popleft().close()
                except OSError:
                    logger.exception("failed to close a file that was being sent")
            self.outbuf_lock.notify_all()
        wasyncore.dispatcher.close(self)
