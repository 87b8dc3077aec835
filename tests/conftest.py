"""The nouns and verbs of the tests: a registry, a repository, an app, a client, publishing, a live server."""

from __future__ import annotations

import base64
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
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


# --- a live server ---


@dataclass
class LiveServer:
    """A ``packhouse serve`` in a process of its own."""

    url: str
    output: str  # what it printed at its start
    storage: Path
    process: subprocess.Popen[str]

    @property
    def publishing_token(self) -> str:
        return re.search(r'-u "(pkh_\w+):"', self.output)[1]

    @property
    def read_token(self) -> str:
        return re.search(r"__token__:(pkh_\w+)@", self.output)[1]

    @property
    def password(self) -> str:
        return re.search(r"[Pp]assword:? +(\S+)", self.output)[1]

    def stop(self, sig: int = signal.SIGTERM, timeout: float = 20) -> int:
        if self.process.poll() is None:
            self.process.send_signal(sig)
        code = self.process.wait(timeout)
        self.process.stdout.close()
        return code


def start_server(storage: Path, *flags: str, env: dict[str, str] | None = None) -> LiveServer:
    """Start ``packhouse serve`` on a free port and wait until it says where it listens."""
    command = [
        sys.executable,
        "-c",
        "import cli; cli.main()",
        "serve",
        "--port",
        "0",
        "--storage",
        str(storage),
        *flags,
    ]
    here = Path(__file__).parent.parent
    environ = {**os.environ, "PYTHONPATH": str(here), "PYTHONUNBUFFERED": "1", **(env or {})}
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environ, cwd=storage.parent
    )
    printed: list[str] = []
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        line = process.stdout.readline()
        printed.append(line)
        if match := re.search(r"listening on (http://\S+?)/?\s*$", line, re.IGNORECASE):
            return LiveServer(match[1], "".join(printed), storage, process)
        if not line and process.poll() is not None:
            break
    process.kill()
    raise RuntimeError("the server did not start: " + "".join(printed))


@pytest.fixture(scope="session")
def live_server(tmp_path_factory) -> Iterator[LiveServer]:
    """One freshly started server for many tests, with what the first start makes."""
    server = start_server(tmp_path_factory.mktemp("live") / "data")
    yield server
    server.stop()
