"""One stream of bytes for several consumers, each in a lane of its own: five digests and a disk on all processors.

The threads are few and shared by all streams. A stream that comes in faster than its slowest lane takes it is full
after a while; whoever feeds it stops then, so that memory stays bounded however large the stream is.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from storage.limits import KIB, MIB

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

THREADS = min(8, (os.cpu_count() or 1) + 1)  # one may have to wait for the disk
NICENESS = 10  # of these threads: whoever asks for a page meanwhile should not have to wait for a processor
TURN = 1 * MIB  # bytes; after so many a lane lets others have its thread
ALL_STREAMS = 8 * MIB  # bytes that wait in all streams together, as far as each has its share
LEAST_SHARE = 512 * KIB  # bytes that may wait in one stream, however many there are

Piece = bytes | memoryview  # of bytes that nobody changes
Consumer = Callable[[Piece], object]


class Stream:
    """Hands every piece to every consumer, in order, and without waiting for any of them."""

    def __init__(self, consumers: Sequence[Consumer]) -> None:
        """Feed *consumers*, none of which is ever called by two threads at once."""
        self.guard = threading.Condition()
        self.error: BaseException | None = None  # the first that a consumer raised; nothing is consumed any more
        self._lanes = [_Lane(self, consume) for consume in consumers]
        self._resume: Callable[[], None] | None = None
        self._then: Callable[[], None] | None = None
        _streams.add(self)

    def put(self, piece: Piece) -> None:
        """Take the next *piece*, full or not."""
        with self.guard:
            idle = [lane for lane in self._lanes if lane.put(piece)]
        for lane in idle:
            in_background(lane.run)

    def is_full(self, resume: Callable[[], None]) -> bool:
        """Whether to stop feeding; if so, *resume* is called by some thread when there is room again."""
        with self.guard:
            full = self._waiting() > _share()
            self._resume = resume if full else None
        return full

    def make_room(self) -> None:
        """Wait until the stream is not full."""
        with self.guard:
            self.guard.wait_for(lambda: self._waiting() <= _share())

    def finish(self) -> None:
        """Wait until everything is consumed.

        :raises BaseException: what a consumer raised.
        """
        with self.guard:
            self.guard.wait_for(lambda: not self._is_running())
        _streams.discard(self)
        if self.error is not None:
            raise self.error

    def abandon(self, then: Callable[[], None] = lambda: None) -> None:
        """Consume nothing more; *then* is called, by some thread, as soon as nobody is at it."""
        with self.guard:
            self._then = then
            for lane in self._lanes:
                lane.drop()
            self.look()
        _streams.discard(self)

    def fail(self, error: BaseException) -> None:
        """Stop at the first *error*."""
        with self.guard:
            self.error = self.error or error
            for lane in self._lanes:
                lane.drop()

    def look(self) -> None:
        """Tell those who wait how things stand; the guard is held."""
        self.guard.notify_all()
        if self._resume is not None and self._waiting() <= _share() // 2:
            resume, self._resume = self._resume, None
            resume()
        if self._then is not None and not self._is_running():
            then, self._then = self._then, None
            then()

    def _is_running(self) -> bool:
        return any(lane.is_running for lane in self._lanes)

    def _waiting(self) -> int:
        """How many bytes are kept for the slowest lane."""
        return max(lane.size for lane in self._lanes)


class _Lane:
    """The pieces that one consumer has not taken yet. The stream's guard is held for every call but :meth:`run`."""

    def __init__(self, stream: Stream, consume: Consumer) -> None:
        self.size = 0  # bytes that wait
        self.is_running = False  # a thread is at it, or will be
        self._stream = stream
        self._consume = consume
        self._pieces: deque[Piece] = deque()

    def put(self, piece: Piece) -> bool:
        """Queue *piece*; True if a thread is needed."""
        if self._stream.error is not None:
            return False
        self._pieces.append(piece)
        self.size += len(piece)
        was_idle = not self.is_running
        self.is_running = True
        return was_idle

    def drop(self) -> None:
        """Forget what waits."""
        self._pieces.clear()
        self.size = 0

    def run(self) -> None:
        """Consume until nothing waits, or for one turn."""
        guard, taken, consumed = self._stream.guard, 0, 0
        while taken < TURN:
            with guard:
                self.size = max(0, self.size - consumed)  # unless it has been dropped meanwhile
                self.is_running = bool(self._pieces)
                self._stream.look()
                if not self.is_running:
                    return
                piece = self._pieces.popleft()
            try:
                self._consume(piece)
            except BaseException as error:
                self._stream.fail(error)
            consumed = len(piece)
            taken += consumed
        with guard:
            self.size = max(0, self.size - consumed)
        in_background(self.run)


# --- what all streams share ---

_streams: set[Stream] = set()
_threads: ThreadPoolExecutor | None = None
_guard = threading.Lock()


def _share() -> int:
    return max(LEAST_SHARE, ALL_STREAMS // (len(_streams) or 1))


def _give_way() -> None:
    """Let all other threads go first."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        with suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


def in_background(work: Callable[[], None]) -> Future[None]:
    """Let one of the threads do *work*."""
    global _threads
    with _guard:
        if _threads is None:
            from concurrent.futures import ThreadPoolExecutor  # not needed for a start

            _threads = ThreadPoolExecutor(THREADS, "stream", _give_way)
        return _threads.submit(work)


def _begin_anew() -> None:
    """Forget the threads of the process that this one was forked from: they are not here."""
    global _threads, _guard
    _threads, _guard = None, threading.Lock()
    _streams.clear()


os.register_at_fork(after_in_child=_begin_anew)
