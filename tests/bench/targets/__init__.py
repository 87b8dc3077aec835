"""The servers that are measured: how each is installed, filled, started and asked."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.bench import process
from tests.bench.connection import Connection, basic, multipart, post
from tests.bench.corpus import SCRATCH, Corpus, folder_of, small_wheel

ENVIRONMENTS = Path(os.environ.get("BENCH_VENVS", "/tmp/bench-venvs"))  # one for each server, and one for clients
RUN = SCRATCH / "run"
_serial = itertools.count()
START_TIMEOUT = 90  # seconds


class Target:
    """A server; each kind says what is particular to it."""

    name = "?"
    venv: str | None = None  # its folder below ENVIRONMENTS; None: it needs none
    packages: tuple[str, ...] = ()  # what is installed there
    file_field, user, password = "content", "bench", "bench"  # of uploads

    port: int
    pid: int
    data: Path  # what is served
    started: float  # time.perf_counter() at the start

    # what a kind of server says

    def command(self, data: Path) -> Sequence[str | Path]:
        """The command that serves *data* on ``self.port``."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """Its environment variables."""
        return dict(os.environ)

    def load(self, corpus: Corpus) -> Path:
        """Return a data folder that holds the corpus; it is made once and kept."""
        return folder_of(corpus)

    def copy(self, data: Path) -> Path:
        """Return a copy of *data* that uploads may change; links will do, for files are added or replaced."""
        copy = RUN / f"{self.name}-{os.getpid()}-{next(_serial)}"
        subprocess.run(["cp", "-al", data, copy], check=True)
        return copy

    def index(self) -> str:
        """The address of the simple index."""
        return "/simple/"

    def upload_address(self) -> str:
        """The address for twine's uploads."""
        return "/"

    def credential(self) -> dict[str, str]:
        """The header that pages are asked for with."""
        return {}

    # the same for all

    def page(self, project: str) -> str:
        """The address of a project's page."""
        return f"{self.index()}{project}/"

    def upload(self, project: str, version: str) -> bytes:
        """Return a whole request that uploads a new small wheel."""
        filename, content = small_wheel(project, version)
        body = multipart(project, version, self.file_field, filename, content)
        return post(self.upload_address(), basic(self.user, self.password), body)

    def connect(self) -> Connection:
        """Return a new connection to the server."""
        return Connection(self.port)

    def program(self, name: str) -> Path:
        """Return a program of the server's virtual environment; it is made and filled if it is not there."""
        return environment(str(self.venv), self.packages) / "bin" / name

    def start(self, corpus: Corpus, *, writable: bool = False) -> None:
        """Start serving the corpus; returns as soon as connections are taken."""
        RUN.mkdir(parents=True, exist_ok=True)
        data = self.load(corpus)
        self._copy = self.copy(data) if writable and data.is_dir() else None
        self.data = self._copy or data
        self.port = free_port()
        command = self.command(self.data)
        log = RUN / f"{self.name}.log"
        with log.open("wb") as output:
            self.started = time.perf_counter()
            self._process = subprocess.Popen(
                command, stdout=output, stderr=subprocess.STDOUT, env=self.environment(), cwd=RUN
            )
        self.pid = self._process.pid
        if not wait_for(self._process, self.port):
            self.stop()
            raise RuntimeError(f"{self.name} did not start: {log.read_text()[-2000:]}")

    def stop(self) -> None:
        """Stop the server and all its processes; the copy of its data goes when the benchmark ends.

        ext4 does not use the place of a file again for minutes after it was removed, and looks at each such place
        whenever a file is made: the next server that takes uploads would pay for our tidying.
        """
        members = process.family(self.pid)
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            for member in members:
                os.kill(member, signal.SIGKILL)
            self._process.wait(10)
        if self._copy is not None:
            atexit.register(shutil.rmtree, self._copy, ignore_errors=True)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until *server* takes connections; False: it ended, or takes too long."""
    deadline = time.monotonic() + START_TIMEOUT
    while server.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.001)
        else:
            return True
    return False


def environment(name: str, packages: Sequence[str]) -> Path:
    """Return a virtual environment with *packages*; it is made if it is not there."""
    folder = ENVIRONMENTS / name
    done = folder / ".done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        subprocess.run([folder / "bin" / "pip", "install", "--quiet", "--upgrade", *packages], check=True)
        done.touch()
    return folder


@contextmanager
def serving(targets: Sequence[Target], corpus: Corpus, *, writable: bool = False) -> Iterator[Sequence[Target]]:
    """Start the targets together, and stop them whatever happens."""
    with ExitStack() as stack:
        for target in targets:
            target.start(corpus, writable=writable)
            stack.callback(target.stop)
        yield targets
