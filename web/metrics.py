"""What this process has answered since it started, as Prometheus reads it; numbers only, no names.

Counting costs a fraction of a microsecond. Each process counts for itself and says which one it is, so that several
behind one address do not look like one that counts backwards.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment
    from prometheus_client import Metric

    from server import Note
    from web.logs import AccessLog

KNOWN_METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"}
)  # clients may invent others without end


def _kind(environ: WSGIEnvironment, status: str) -> tuple[str, str]:
    method = environ.get("REQUEST_METHOD", "")
    return method if method in KNOWN_METHODS else "other", status[:3]


class Answers:
    """Counts answers; the server calls it after each of them, in whatever thread."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._lock = threading.Lock()
        self._number: Counter[tuple[str, str]] = Counter()  # by method and status code
        self._size = 0  # bytes of bodies
        self._seconds = 0.0
        self._hot: dict[
            tuple[str, str], list[float]
        ] = {}  # number, size and seconds of what the event loop answers
        self._started = time.time()

    def __call__(self, environ: WSGIEnvironment, status: str, size: int, seconds: float) -> None:
        """Count one answer."""
        with self._lock:
            self._number[_kind(environ, status)] += 1
            self._size += size
            self._seconds += seconds

    def counts_of(self, environ: WSGIEnvironment, status: str) -> list[float]:
        """Return the counts of such answers: number, bytes, seconds; only to be changed in the event loop.

        Since there it is one thread that counts, it needs no lock.
        """
        return self._hot.setdefault(_kind(environ, status), [0, 0, 0.0])

    def text(self) -> bytes:
        """Return the counts in Prometheus's text format."""
        from prometheus_client import CollectorRegistry, generate_latest  # not at start: it is seldom asked for

        registry = CollectorRegistry()
        registry.register(self)
        text: bytes = generate_latest(registry)
        return text

    def collect(self) -> Iterator[Metric]:
        """Yield what prometheus-client writes."""
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        process = str(os.getpid())
        with self._lock:
            numbers, size, seconds = Counter(self._number), self._size, self._seconds
        for kind, (hot_number, hot_size, hot_seconds) in list(self._hot.items()):
            numbers[kind] += int(hot_number)
            size += int(hot_size)
            seconds += hot_seconds
        requests = CounterMetricFamily(
            "packhouse_requests", "Answers given.", labels=["process", "method", "status"]
        )
        for (method, status), number in sorted(numbers.items()):
            requests.add_metric([process, method, status], number)
        yield requests
        sizes = CounterMetricFamily("packhouse_sent_bytes", "Bytes of bodies in these answers.", labels=["process"])
        sizes.add_metric([process], size)
        yield sizes
        times = CounterMetricFamily("packhouse_busy_seconds", "Seconds spent on these answers.", labels=["process"])
        times.add_metric([process], seconds)
        yield times
        started = GaugeMetricFamily(
            "packhouse_start_time_seconds", "When this process started.", labels=["process"]
        )
        started.add_metric([process], self._started)
        yield started


class Noted:
    """An access log for the server that counts each answer and, if there is a log, writes a line for it."""

    def __init__(self, answers: Answers, log: AccessLog | None) -> None:
        """Tell both of them."""
        self._answers = answers
        self._log = log

    def __call__(self, environ: WSGIEnvironment, status: str, size: int, seconds: float) -> None:
        """Note one answer."""
        self._answers(environ, status, size, seconds)
        if self._log is not None:
            self._log(environ, status, size, seconds)

    def prepared(self, environ: WSGIEnvironment, status: str, size: int) -> Note:
        """Return what notes the same answer once more, in the event loop."""
        counts = self._answers.counts_of(environ, status)
        write = self._log.prepared(environ, status, size) if self._log is not None else None

        def note(begun: float, ended: float) -> None:
            counts[0] += 1
            counts[1] += size
            counts[2] += ended - begun
            if write is not None:
                write(begun, ended)

        return note
