"""The nouns and verbs of the tests: a registry, a repository, an app, a client, publishing, a live server."""

from __future__ import annotations

import base64
import io
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from wsgiref.validate import validator

import pytest

from app import create_app
from settings import Settings
from storage.files import set_syncing
from storage.registry import Registry
from storage.repository import Repository, RepositorySettings
from storage.sidecars import Actor
from storage.tokens import Scope
from storage.uploads import copy_into
from tests.clients import Environment, Pip
from tests.popular import unreachable

ORG, REPO = "acme", "main"
TESTER = Actor("command line", description="test")


@pytest.fixture(scope="session", autouse=True)
def _no_fsync() -> Iterator[None]:
    """Tests of durability turn syncing on; all others need not wait for the disk."""
    set_syncing(False)
    yield
    set_syncing(True)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    """A registry with the organization ``acme``."""
    registry = Registry(tmp_path / "data")
    registry.create_organization(ORG)
    return registry


@pytest.fixture
def repository(registry: Registry) -> Repository:
    """The private repository ``acme/main``."""
    return registry.create_repository(ORG, REPO, RepositorySettings(name="Main"))


@pytest.fixture
def add(repository: Repository):
    """Publish a made file through the storage: ``add(*make_wheel())``."""
    return lambda filename, content, to=repository: add_to(to, filename, content)


def add_to(repository: Repository, filename: str, content: bytes, actor: Actor = TESTER):
    incoming = repository.receive()
    try:
        copy_into(incoming, io.BytesIO(content))
        return repository.add_file(incoming, filename, actor)
    finally:
        incoming.close()


@dataclass
class Tokens:
    """Tokens for ``acme/main``, as text."""

    read: str
    write: str
    admin: str


@pytest.fixture
def tokens(registry: Registry, repository: Repository) -> Tokens:
    def make(*scopes: Scope) -> str:
        return registry.tokens.create(ORG, REPO, frozenset(scopes), TESTER, description="test")[1]

    return Tokens(
        read=make(Scope.READ_PACKAGES),
        write=make(Scope.READ_PACKAGES, Scope.WRITE_PACKAGES),
        admin=make(*Scope),
    )


def basic(username: str, password: str = "") -> dict[str, str]:
    """Return the header that ``curl -u username:password`` sends."""
    return {"Authorization": "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()}


@pytest.fixture
def app(registry: Registry, tmp_path: Path):
    return create_app(Settings(storage=tmp_path / "data"), registry)


@pytest.fixture
def client(app):
    """An in-process client; every answer is checked against the WSGI contract (pass ``buffered=True``)."""
    app.wsgi_app = validator(app.wsgi_app)
    return app.test_client()


@pytest.fixture
def publish(client, tokens: Tokens):
    """Publish a made file as curl does: ``publish(*make_wheel())``."""

    def publish(filename: str, content: bytes, credential: str | None = None, **more):
        headers = basic(credential or tokens.write)
        form = {"package[package_file]": (io.BytesIO(content), filename), **more}
        url = f"/api/v1/repos/{ORG}/{REPO}/packages.json"
        return client.post(url, data=form, headers=headers, buffered=True)

    return publish


def wait_until(holds: Callable[[], object], seconds: float = 20) -> None:
    """Wait until *holds* returns something true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.002)


# --- a live server ---

SERVES = re.compile(r"^Packhouse \S+ serves .*? at (http://[^\s,]+)", re.MULTILINE)
START_TIMEOUT = 30  # seconds
HERE = Path(__file__).parent.parent


def program(*arguments: str) -> list[str]:
    """Return the command that runs ``packhouse`` from this checkout, installed or not."""
    return [sys.executable, "-c", "import cli; cli.main()", *arguments]


def program_environment(**variables: str) -> dict[str, str]:
    """Return an environment for the program in which nothing of the tests' own settings is left."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("PACKHOUSE_")}
    return {**inherited, "PYTHONPATH": str(HERE), "PYTHONUNBUFFERED": "1", **variables}


def packhouse(storage: Path, *arguments: str, **options) -> subprocess.CompletedProcess[str]:
    """Run a command such as ``packhouse(storage, "token", "list")`` to its end; the caller looks at how it went."""
    command = program(*arguments, "--storage", str(storage))
    return subprocess.run(
        command, capture_output=True, text=True, env=program_environment(), timeout=120, check=False, **options
    )


@dataclass
class LiveServer:
    """A ``packhouse serve`` in a process of its own."""

    url: str
    output: str  # what it printed at its start
    storage: Path
    log: Path  # all that it printed, its log included
    process: subprocess.Popen[bytes]

    @property
    def publishing_token(self) -> str:
        return re.search(r'-u "(pkh_\w+):"', self.output)[1]

    @property
    def read_token(self) -> str:
        return re.search(r"__token__:(pkh_\w+)@", self.output)[1]

    @property
    def password(self) -> str:
        return re.search(r"^ +password +(\S+)$", self.output, re.MULTILINE)[1]

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 20) -> int:
        """Send *sig* and return the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(sig)
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def start_server(storage: Path, *flags: str, env: dict[str, str] | None = None) -> LiveServer:
    """Start ``packhouse serve`` on a free port and wait until it says where it listens."""
    command = program("serve", "--port", "0", "--storage", str(storage), *flags)
    log = storage.with_name(f"{storage.name}-{secrets.token_hex(4)}.log")
    with log.open("wb") as output:  # a file, since a pipe that nobody empties would stop the server
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=program_environment(**(env or {})),
            cwd=storage.parent,
        )
    deadline = time.monotonic() + START_TIMEOUT
    while process.poll() is None and time.monotonic() < deadline:
        printed = log.read_text()
        if match := SERVES.search(printed):
            return LiveServer(match[1], printed, storage, log, process)
        time.sleep(0.02)
    process.kill()
    process.wait()
    raise RuntimeError(f"the server did not start: {log.read_text()}")


@pytest.fixture(scope="session")
def live_server(tmp_path_factory) -> Iterator[LiveServer]:
    """One freshly started server for many tests, with what the first start makes."""
    server = start_server(tmp_path_factory.mktemp("live") / "data")
    yield server
    server.stop()


# --- clients of it ---


@pytest.fixture(scope="session")
def pip_of_this_python(tmp_path_factory) -> Pip:
    """The pip that a new virtual environment of this Python has."""
    folder = tmp_path_factory.mktemp("pip") / "environment"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
    return Pip(folder / "bin", "the pip of this Python")


@pytest.fixture(scope="session")
def newest_pip(pip_of_this_python: Pip, tmp_path_factory) -> Pip:
    """The newest pip of the registry that this machine's pip is set up for."""
    environment = Environment.make(tmp_path_factory.mktemp("newest-pip") / "environment")
    # In the tests' own environment, not in the clients': this is the machine's pip, with its configuration.
    command = [pip_of_this_python.programs / "python", "-m", "pip", "--python", environment.python]
    done = subprocess.run([*command, "install", "--quiet", "pip"], capture_output=True, text=True, check=False)
    if done.returncode:
        unreachable("the newest pip", done.stderr)
    return Pip(environment.folder / "bin", "the newest pip")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say aloud what was skipped, and why."""
    skipped = terminalreporter.stats.get("skipped", [])
    if skipped:
        terminalreporter.section("SKIPPED", red=True, bold=True)
        for report in skipped:
            reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            terminalreporter.write_line(f"{report.nodeid}: {reason}", red=True)
