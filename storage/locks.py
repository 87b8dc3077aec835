"""Locks that hold against every thread and process: the only module that names filelock.

The threads of this process queue for a lock, each in its turn; only the first of them asks the file, and for a
while they hand it on.
"""

from __future__ import annotations

import os
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from storage.errors import StorageBusy
from storage.files import while_waiting

if TYPE_CHECKING:
    from filelock import FileLock

LOCK_TIMEOUT = 8.0  # seconds; the answer is to be there within ten
LOCK_POLL_INTERVAL = 0.005  # seconds
LOCK_STEP = 0.25  # seconds
STUCK_AFTER = 1.0  # seconds; no change holds its lock for so long on a disk that works
HAND_ON = 0.1  # seconds for which the threads of a process may keep a lock among themselves; others want it, too
KEPT_LOCKS = 256  # lock objects that nobody uses now; making one costs a quarter of taking it


class _Queue:
    """The threads of this process that want one lock: each has its turn, and none has to poll for another."""

    def __init__(self, file_lock: FileLock) -> None:
        self.file_lock = file_lock  # against other processes
        self.users = 0  # threads that want the lock or have it
        self.waiting = 0  # threads that do not have it yet
        self.moved = time.monotonic()  # when one of them had it last, or began to wait
        self._since = 0.0  # when the file was locked
        self._is_taken = False
        self._turns: deque[threading.Lock] = deque()  # of those that wait; each is released when it is their turn

    def acquire(self, patience: Callable[[], float]) -> None:
        """Take the lock; *patience* returns for how many seconds to wait until it is asked again, or raises."""
        self._take_turn(patience)
        try:
            if not self.file_lock.is_locked:  # who had it before may have handed it on
                self._acquire(patience)
                self._since = time.monotonic()
        except BaseException:
            self._end_turn()
            raise
        self.moved = time.monotonic()

    def _acquire(self, patience: Callable[[], float]) -> None:
        from filelock import Timeout  # here and below: a start takes no lock, and importing it takes a while

        seconds = 0.0
        while True:
            try:
                with while_waiting() if seconds else nullcontext():
                    self.file_lock.acquire(timeout=seconds)
                return
            except Timeout:
                seconds = patience()

    def release(self) -> None:
        """Let it go; whoever waits longest is next, and need not ask the file."""
        with _guard:
            if self._turns and time.monotonic() - self._since < HAND_ON:
                self._turns.popleft().release()
                return
        try:
            self.file_lock.release()
        finally:
            self._end_turn()

    def _take_turn(self, patience: Callable[[], float]) -> None:
        with _guard:
            if not self._is_taken:
                self._is_taken = True
                return
            turn = threading.Lock()
            turn.acquire()
            self._turns.append(turn)
        try:
            with while_waiting():
                while not turn.acquire(timeout=patience()):
                    pass
        except BaseException:
            with _guard:
                is_waiting = turn in self._turns
                if is_waiting:
                    self._turns.remove(turn)
            if not is_waiting:  # it has just become this thread's turn
                self.release()
            raise

    def _end_turn(self) -> None:
        with _guard:
            if self._turns:
                self._turns.popleft().release()
            else:
                self._is_taken = False


_queues: dict[Path, _Queue] = {}  # of locks that are held or wanted by this process
_kept_locks: OrderedDict[Path, FileLock] = OrderedDict()  # the one used last at the end
_guard = threading.Lock()
_patient_threads = 8


def set_patient_threads(number: int) -> None:
    """Let *number* threads of this process wait for locks that nobody lets go; others have better things to do."""
    global _patient_threads
    _patient_threads = number


def _begin_anew() -> None:
    """Forget what the threads of the process that this one was forked from are about: they are not here."""
    global _guard
    _guard = threading.Lock()
    _queues.clear()
    _kept_locks.clear()


os.register_at_fork(after_in_child=_begin_anew)


def _new_lock(path: Path) -> FileLock:
    from filelock import FileLock

    return FileLock(path, poll_interval=LOCK_POLL_INTERVAL, thread_local=False)  # as queues hand it on


def lock(path: Path, what: str, timeout: float = LOCK_TIMEOUT) -> AbstractContextManager[None]:
    """Hold the lock file *path* against every thread and process; the kernel frees it if the holder dies.

    :raises StorageBusy: if somebody else holds it for *timeout* seconds; *what* says what for. Sooner, if many
        threads of this process wait already and none of them gets the lock: a hung holder must not occupy them all.
    """
    return _Hold(path, what, timeout)


class _Hold:
    """What :func:`lock` returns. A class, since every upload comes by here: a generator takes twice as long."""

    __slots__ = ("_begin", "_is_patient", "_path", "_queue", "_timeout", "_what")

    def __init__(self, path: Path, what: str, timeout: float) -> None:
        self._path = path
        self._what = what
        self._timeout = timeout

    def __enter__(self) -> None:
        """Stand in the queue for the lock until it is this thread's."""
        path = self._path
        self._begin = time.monotonic()
        with _guard:
            # Whether this thread can be spared for long.
            self._is_patient = sum(queue.waiting for queue in _queues.values()) < _patient_threads
            queue = _queues.get(path)
            if queue is None:
                queue = _queues[path] = _Queue(_kept_locks.pop(path) if path in _kept_locks else _new_lock(path))
            queue.users += 1
            queue.waiting += 1
        self._queue = queue
        try:
            queue.acquire(self._patience)
        except BaseException:
            with _guard:
                queue.waiting -= 1
                self._leave()
            raise
        with _guard:
            queue.waiting -= 1

    def __exit__(self, *exception: object) -> None:
        try:
            self._queue.release()
        finally:
            with _guard:
                self._leave()

    def _patience(self) -> float:
        """For how many seconds to wait until this is asked again."""
        now = time.monotonic()
        waited = now - self._begin
        if waited >= self._timeout or not (self._is_patient or now - self._queue.moved < STUCK_AFTER):
            raise StorageBusy(self._what, waited)
        return min(LOCK_STEP, self._timeout - waited)

    def _leave(self) -> None:
        """Leave the queue, and take it away with the last; the guard is held."""
        queue, path = self._queue, self._path
        queue.users -= 1
        if not queue.users:
            del _queues[path]
            _kept_locks[path] = queue.file_lock
            if len(_kept_locks) > KEPT_LOCKS:
                _kept_locks.popitem(last=False)
