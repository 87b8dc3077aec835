"""Load on a server: pages by wrk, uploads and both together by closed loops of connections."""

from __future__ import annotations

import itertools
import json
import os
import random
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench import process
from tests.bench.connection import USER_AGENT, Connection, basic, multipart, post, request_head
from tests.bench.corpus import Corpus, folder_of

if TYPE_CHECKING:
    from tests.bench.targets import Target

# wrk would put the headers into another order each time it runs, and no answer would be known from the time before.
# One wrk thread asks for random pages; a second one would take the core that the server needs.
WRK_SCRIPT = r"""
local paths = {}
for line in io.lines(os.getenv("BENCH_PATHS")) do paths[#paths + 1] = line end
local heads = os.getenv("BENCH_HEADERS")
function request() return "GET " .. paths[math.random(#paths)] .. " HTTP/1.1\r\n" .. heads .. "\r\n" end
function done(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('JSON{"requests":%d,"microseconds":%d,"p50":%d,"p99":%d,"failed":%d}\n',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99),
    errors.status + errors.connect + errors.read + errors.write + errors.timeout))
end
"""


def load_pages(
    target: Target, paths: Sequence[str], connections: int, seconds: int, headers: Mapping[str, str] | None = None
) -> dict[str, float]:
    """Ask for random *paths*: requests per second, CPU us per request of the server, latencies in ms.

    :raises RuntimeError: if the server failed to answer one of them.
    """
    wanted = {
        "Host": "127.0.0.1",
        "Accept": "text/html",
        "User-Agent": USER_AGENT,
        **target.credential(),
        **(headers or {}),
    }
    heads = "".join(f"{name}: {value}\r\n" for name, value in wanted.items())
    with tempfile.TemporaryDirectory() as folder:
        script, listed = Path(folder) / "random.lua", Path(folder) / "paths"
        script.write_text(WRK_SCRIPT)
        listed.write_text("\n".join(paths) + "\n")
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", str(script)]
        before = process.processor_seconds(target.pid)
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{target.port}"],
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            env={**os.environ, "BENCH_PATHS": str(listed), "BENCH_HEADERS": heads},
            check=True,
        )
    taken = process.processor_seconds(target.pid) - before
    said = json.loads(done.stdout.partition("JSON")[2])
    if said["failed"]:
        raise RuntimeError(f"{target.name} failed to answer {said['failed']} of {said['requests']} requests")
    return {
        "pages_per_second": said["requests"] / said["microseconds"] * 1e6,
        "cpu_us": taken / said["requests"] * 1e6,
        "p50_ms": said["p50"] / 1000,
        "p99_ms": said["p99"] / 1000,
    }


@dataclass
class Latencies:
    """How long requests took, in ms."""

    taken: list[float] = field(default_factory=list)
    seconds: float = 0.0  # of all together, while they were measured

    @property
    def rate(self) -> float:
        """Requests per second."""
        return len(self.taken) / self.seconds

    def percentile(self, percent: int) -> float:
        """The latency in ms that so many of a hundred requests did not exceed."""
        return sorted(self.taken)[len(self.taken) * percent // 100]


def send(connection: Connection, request: bytes) -> float:
    """Send a request and return the ms until its whole answer was there.

    :raises RuntimeError: if it was refused.
    """
    begun = time.perf_counter()
    answer = connection.request(request)
    taken = (time.perf_counter() - begun) * 1000
    if answer.status >= 300:
        raise RuntimeError(f"refused with {answer.status}: {request[:60]!r}: {answer.body[:200]!r}")
    return taken


def together(clients: int, work: Callable[[int], None]) -> float:
    """Let so many threads do *work*, each with its number; return the seconds until all are done.

    :raises Exception: what one of them raised.
    """
    failures: list[Exception] = []

    def run(number: int) -> None:
        try:
            work(number)
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return time.perf_counter() - begun


_serial = itertools.count(int(time.time()))


def new_uploads(target: Target, count: int) -> list[bytes]:
    """Return so many requests, each of which uploads a file that was never uploaded: projects of ten versions."""
    batch = next(_serial)
    return [target.upload(f"up-{batch}-{i // 10}", f"1.0.{i % 10}") for i in range(count)]


def load_uploads(target: Target, requests: Iterable[bytes], clients: int, seconds: float) -> Latencies:
    """Let clients upload, each one file after the other, for so many seconds or until *requests* end."""
    shared, deadline, latencies = _Shared(requests), time.monotonic() + seconds, Latencies()

    def work(number: int) -> None:
        connection = target.connect()
        while time.monotonic() < deadline and (request := shared.take()) is not None:
            latencies.taken.append(send(connection, request))

    latencies.seconds = together(clients, work)
    return latencies


def load_mixed(
    target: Target, pages: Sequence[str], uploads: Iterable[bytes], clients: int, seconds: float
) -> tuple[Latencies, Latencies]:
    """Let clients ask for random pages nine times of ten, and upload the tenth time."""
    heads = [request_head("GET", page, {"Accept": "text/html", **target.credential()}) for page in pages]
    shared, deadline = _Shared(uploads), time.monotonic() + seconds
    read, uploaded = Latencies(), Latencies()

    def work(number: int) -> None:
        connection, chance = target.connect(), random.Random(number)
        while time.monotonic() < deadline:
            if chance.random() < 0.1 and (request := shared.take()) is not None:
                uploaded.taken.append(send(connection, request))
            else:
                read.taken.append(send(connection, chance.choice(heads)))

    read.seconds = uploaded.seconds = together(clients, work)
    return read, uploaded


def upload_corpus(target: Target, corpus: Corpus, clients: int) -> None:
    """Upload all files of *corpus*."""
    load_uploads(target, _corpus_uploads(target, corpus), clients, seconds=1800)


def _corpus_uploads(target: Target, corpus: Corpus) -> Iterator[bytes]:
    for file in sorted(folder_of(corpus).glob("*/*")):
        version = file.name.split("-")[1]
        body = multipart(file.parent.name, version, target.file_field, file.name, file.read_bytes())
        yield post(target.upload_address(), basic(target.user, target.password), body)


class _Shared:
    """An iterator that several threads may ask."""

    def __init__(self, requests: Iterable[bytes]) -> None:
        self._requests = iter(requests)
        self._lock = threading.Lock()

    def take(self) -> bytes | None:
        """Return the next request; None: there are no more."""
        with self._lock:
            return next(self._requests, None)
