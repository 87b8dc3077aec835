"""Several processes on one listening socket: the parent starts them again when they die, and ends them all."""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable
from types import FrameType

log = logging.getLogger("packhouse.workers")

OBEYED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
RESTART_PAUSE = 1.0  # seconds between two starts of a worker that dies at once


class Workers:
    """The worker processes of one server."""

    def __init__(
        self,
        number: int,
        work: Callable[[], None],
        stop_timeout: float,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        """Have *number* processes that each call *work*, which ends upon SIGTERM within *stop_timeout* seconds.

        *work* is called with the signals in OBEYED blocked; it unblocks them when it can obey. *on_stop* is called
        in the parent when the end begins.
        """
        self._number = number
        self._work = work
        self._stop_timeout = stop_timeout
        self._on_stop = on_stop
        self._started: dict[int, float] = {}  # process id -> when, by the monotonic clock
        self._stopping = False

    def run(self) -> None:
        """Run them until SIGTERM or SIGINT; SIGHUP is passed on. When this returns, they are all gone."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._stop)
        signal.signal(signal.SIGHUP, self._pass_on)
        for _ in range(self._number):
            self._start()
        while self._started and not self._stopping:
            self._replace_the_dead()
        self._await_all()

    def _start(self) -> None:
        # The worker lets signals in when it has handlers of its own; the parent's must not run in it.
        signal.pthread_sigmask(signal.SIG_BLOCK, OBEYED)
        process = os.fork()
        if process == 0:
            self._work_and_exit()
        self._started[process] = time.monotonic()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)

    def _work_and_exit(self) -> None:
        """Be a worker; nothing of the parent's is run on the way out."""
        status = 1
        try:
            self._work()
            status = 0
        except Exception:
            log.exception("a worker failed")
        finally:
            logging.shutdown()
            os._exit(status)

    def _replace_the_dead(self) -> None:
        try:
            process, status = os.waitpid(-1, 0)  # a signal's handler runs meanwhile, and waiting goes on (PEP 475)
        except ChildProcessError:
            return
        lived = time.monotonic() - self._started.pop(process, 0.0)
        if self._stopping:
            return
        log.error(
            "worker %d ended with status %d; another takes its place", process, os.waitstatus_to_exitcode(status)
        )
        if lived < RESTART_PAUSE:
            time.sleep(RESTART_PAUSE)
        if not self._stopping:
            self._start()

    def _stop(self, _signal: int, _frame: FrameType | None) -> None:
        self._stopping = True
        self._on_stop()
        self._tell(signal.SIGTERM)

    def _pass_on(self, number: int, _frame: FrameType | None) -> None:
        self._tell(number)

    def _tell(self, number: int) -> None:
        for process in list(self._started):
            try:
                os.kill(process, number)
            except ProcessLookupError:
                continue

    def _await_all(self) -> None:
        """Wait for the workers to end; those that do not end in time are killed."""
        self._tell(signal.SIGTERM)  # also to one that was started while the signal came
        deadline = time.monotonic() + self._stop_timeout + 2
        while self._started:
            process, _ = os.waitpid(-1, os.WNOHANG)
            if process:
                self._started.pop(process, None)
            elif time.monotonic() > deadline:
                self._tell(signal.SIGKILL)
                deadline += 5
            else:
                time.sleep(0.02)
