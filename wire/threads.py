"""The task threads, in which the application runs: one at a time, as long as each takes but a moment.

Python lets one thread at a time compute anyhow; several that want to only take its lock from each other, which
doubles what a page costs. So there is one permit to run. Who takes longer than PATIENCE goes on without it and
holds nobody up; who waits for the disk or a lock lends it meanwhile: see :func:`waiting`.

Urgent tasks, which decide whether a request may come in, go before all others, and there is a thread more than
others may have: however many of these hang, it is free.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections import deque
from contextlib import AbstractContextManager
from typing import Protocol

PATIENCE = 0.010  # seconds; nearly every page takes a fifth of it

logger = logging.getLogger("packhouse.server")


class Task(Protocol):
    """Something to be done in a task thread."""

    def service(self) -> None:
        """Do it."""

    def cancel(self) -> None:
        """Give it up, before it was begun."""


class _Worker:
    """One of the threads."""

    def __init__(self, threads: Threads) -> None:
        self.threads = threads
        self.task: Task | None = None
        self.wake = threading.Lock()  # released to wake it up
        self.wake.acquire()
        self.is_ordinary = False  # its task is not urgent (any more)
        self.waits = 0  # how many times it is inside of waiting()
        self.has_lent = False


class Threads:
    """Does tasks in at most so many threads, and one more; a thread is started when there is work for it.

    What is added waits in a queue that nobody watches while a task runs: whoever adds tasks has to :meth:`look`.
    """

    def __init__(self, number: int, patience: float = PATIENCE) -> None:
        """Do at most *number* tasks at once that are not urgent; the next may begin after *patience* seconds."""
        self._number = number
        self._patience = patience
        self._lock = threading.Lock()  # held for everything below
        self._queue: deque[Task] = deque()
        self._urgent: deque[Task] = deque()
        self._occupied = 0  # threads with a task that is not urgent
        self._idle: list[_Worker] = []  # the last to stop is the first to go on: its memory is in the caches
        self._returning: deque[_Worker] = deque()  # want the permit back; if there are any, somebody has it
        self._running: _Worker | None = None  # has the permit
        self._since = 0.0  # when it got it, by the monotonic clock
        self._alive = 0
        self._stopping = False
        self._ended = threading.Condition(self._lock)

    def add_task(self, task: Task) -> None:
        """Have *task* done, after those that were added before."""
        self._add(task, self._queue)

    def add_urgent(self, task: Task) -> None:
        """Have *task* done before those that are not urgent; if it may take long, it has to :meth:`settle_in`."""
        self._add(task, self._urgent)

    def settle_in(self) -> bool:
        """Whether the urgent task of this thread may take its time from here on; False: add what is left of it."""
        worker = _here.worker
        if worker is None:
            return True
        with self._lock:
            if not worker.is_ordinary and self._occupied < self._number:
                worker.is_ordinary = True
                self._occupied += 1
            return worker.is_ordinary

    def look(self) -> float:
        """Let the next task begin if the one that runs takes long; return after how many seconds to look again."""
        if not (self._queue or self._urgent):
            return math.inf
        with self._lock:
            return self._overtake()

    def shutdown(self, timeout: float) -> None:
        """Begin no more tasks, wait *timeout* seconds for those that run, and cancel the others."""
        with self._lock:
            self._stopping = True
            for worker in self._idle:
                worker.wake.release()
            self._idle.clear()
            if not self._ended.wait_for(lambda: not self._alive, timeout):
                logger.warning("%d thread(s) still running", self._alive)
            tasks = [*self._urgent, *self._queue]
            self._urgent.clear()
            self._queue.clear()
        for task in tasks:
            task.cancel()

    def _add(self, task: Task, queue: deque[Task]) -> None:
        with self._lock:
            queue.append(task)
            if self._running is None:
                self._pass_on()

    # with the lock held

    def _has_next(self) -> bool:
        """Whether there is a task that may begin."""
        return bool(self._urgent) or (bool(self._queue) and self._occupied < self._number)

    def _overtake(self) -> float:
        """Take the permit from who has had it for too long; return for how many seconds the owner may have it."""
        if self._running is None:
            return math.inf  # every thread is busy: the first to end goes on with the queue
        left = self._since + self._patience - time.monotonic()
        if left <= 0:
            self._pass_on()
            left = self._patience
        return left

    def _pass_on(self) -> None:
        """Give the permit to a thread that wants it back, else to one for the next task, else to nobody."""
        self._running = None
        if self._returning:
            self._hold(worker := self._returning.popleft())
        elif self._has_next() and (spare := self._spare()):
            worker = spare
            self._begin(worker)
        else:
            return
        worker.wake.release()

    def _begin(self, worker: _Worker) -> None:
        self._hold(worker)
        worker.is_ordinary = not self._urgent
        self._occupied += worker.is_ordinary
        worker.task = (self._urgent or self._queue).popleft()

    def _hold(self, worker: _Worker) -> None:
        self._running = worker
        self._since = time.monotonic()

    def _spare(self) -> _Worker | None:
        if self._idle:
            return self._idle.pop()
        if self._alive > self._number or self._stopping:
            return None
        worker = _Worker(self)
        try:
            threading.Thread(target=self._work, args=(worker,), name=f"task {self._alive}", daemon=True).start()
        except RuntimeError as error:
            logger.error("cannot start a thread: %s", error)
            return None
        self._alive += 1
        return worker

    # in the threads

    def _work(self, worker: _Worker) -> None:
        _here.worker = worker
        worker.wake.acquire()
        while worker.task is not None:
            try:
                worker.task.service()
            except BaseException:
                logger.exception("a task failed")
            worker.task = None
            if not self._go_on(worker):
                worker.wake.acquire()
        with self._lock:
            self._alive -= 1
            self._ended.notify_all()

    def _go_on(self, worker: _Worker) -> bool:
        """Give *worker*, whose task is done, the next one; False if it has to wait for one to be woken."""
        with self._lock:
            self._occupied -= worker.is_ordinary
            worker.is_ordinary = False
            if self._stopping:
                if self._running is worker:
                    self._pass_on()
                return True
            if self._running in (worker, None):
                if self._has_next() and not self._returning:
                    self._begin(worker)
                    return True
                self._pass_on()
            self._idle.append(worker)
            return False

    def lend(self, worker: _Worker) -> bool:
        """Let somebody else run while *worker* waits; False if it has no permit."""
        with self._lock:
            if self._running is not worker:
                return False
            self._pass_on()
            return True

    def take_back(self, worker: _Worker) -> None:
        """Wait until *worker* has the permit again; never longer than others may keep it."""
        with self._lock:
            if self._running is None:
                self._hold(worker)
                return
            self._returning.append(worker)
        while not worker.wake.acquire(timeout=self._patience):
            with self._lock:
                self._overtake()


class _Here(threading.local):
    worker: _Worker | None = None


_here = _Here()


class _Waiting:
    """The context of :func:`waiting`; what it has to remember is kept with the thread."""

    def __enter__(self) -> None:
        worker = _here.worker
        if worker is not None:
            worker.waits += 1
            if worker.waits == 1:
                worker.has_lent = worker.threads.lend(worker)

    def __exit__(self, *_: object) -> None:
        worker = _here.worker
        if worker is not None:
            worker.waits -= 1
            if worker.waits == 0 and worker.has_lent:
                worker.has_lent = False
                worker.threads.take_back(worker)


_WAITING = _Waiting()


def waiting() -> AbstractContextManager[None]:
    """Return a context in which this thread waits for something, and others may run; no matter in which thread."""
    return _WAITING
