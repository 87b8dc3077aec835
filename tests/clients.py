"""Real curl and real pip, as their users have them, against the live server of ``conftest.py``."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snippets import curl_command, index_url
from storage.errors import AlreadyExists
from storage.registry import Registry
from storage.repository import RepositorySettings
from storage.sidecars import Actor
from storage.tokens import Scope

if TYPE_CHECKING:
    from tests.conftest import LiveServer

TIMEOUT = 120  # seconds that one command of a client may take

# What the machine tells pip and curl that the tests must not depend on: its indexes, proxies and credentials.
_FORGOTTEN_PREFIXES = ("PIP_", "XDG_", "PACKHOUSE_", "PYTHON")
_FORGOTTEN_SUFFIXES = ("_PROXY",)
_FORGOTTEN = frozenset({"NETRC", "CURL_HOME", "VIRTUAL_ENV"})
_KEPT = frozenset({"PYTHONDONTWRITEBYTECODE"})  # what runs from this checkout leaves nothing in it, if so wished


def _is_forgotten(name: str) -> bool:
    return name.startswith(_FORGOTTEN_PREFIXES) or name.endswith(_FORGOTTEN_SUFFIXES) or name in _FORGOTTEN


def client_environment(home: Path, **variables: str) -> dict[str, str]:
    """Return an environment in which pip and curl know what is in *home* and in *variables*, and nothing else."""
    kept = {name: value for name, value in os.environ.items() if name in _KEPT or not _is_forgotten(name.upper())}
    return {**kept, "HOME": str(home), "XDG_CONFIG_DIRS": str(home / "none"), **variables}


def run(command: list[str] | str, cwd: Path, env: dict[str, str] | None = None):
    """Run *command*, a string by a shell, to its end; the caller looks at how it went."""
    arguments = ["/bin/sh", "-c", command] if isinstance(command, str) else command
    env = client_environment(cwd) if env is None else env
    return subprocess.run(
        arguments,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )


# --- curl ---


@dataclass(frozen=True)
class Answer:
    """What curl got."""

    status: int
    body: str
    sent: int  # bytes of the request's body that curl sent before it had the answer
    verbose: str  # what curl says with -v

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def curl(*arguments: str, cwd: Path) -> Answer:
    """Run curl with *arguments*, and look at its answer."""
    report = "\n%{http_code} %{size_upload}"
    done = run(["curl", "-sS", "-v", "-w", report, *arguments], cwd)
    body, _, numbers = done.stdout.rpartition("\n")
    status, sent = numbers.split()
    return Answer(int(status), body, int(sent), done.stderr)


# --- a repository ---


@dataclass(frozen=True)
class LiveRepository:
    """A repository of a live server, and how clients reach it."""

    server: LiveServer
    org: str
    slug: str
    read_token: str
    write_token: str

    @property
    def publish_url(self) -> str:
        return f"{self.server.url}/api/v1/repos/{self.org}/{self.slug}/packages.json"

    def index_url(self, token: str = "") -> str:
        return index_url(self.server.url, self.org, self.slug, token)

    def publish(self, filename: str, content: bytes, cwd: Path) -> Answer:
        """Publish a made file from the folder *cwd*, which must go well."""
        answer = self.try_to_publish(filename, content, cwd)
        assert answer.status in (200, 201), answer.body
        return answer

    def try_to_publish(self, filename: str, content: bytes, cwd: Path) -> Answer:
        """Publish a made file from the folder *cwd*."""
        path = cwd / filename
        path.write_bytes(content)
        return self.try_to_publish_file(path)

    def try_to_publish_file(self, path: Path) -> Answer:
        """Publish a file with the printed command."""
        command = curl_command(self.server.url, self.org, self.slug, self.write_token, file=path.name)
        _, *arguments = shlex.split(command.replace("\\\n", " "))
        return curl(*arguments, cwd=path.parent)

    def listed(self, project: str = "") -> list[str]:
        """Return the names that the index lists: files of *project*, or all projects."""
        headers = ["-u", f"{self.read_token}:", "-H", "Accept: text/html"]
        page = f"{self.index_url()}/{project}/" if project else f"{self.index_url()}/"
        answer = curl(*headers, page, cwd=self.server.storage.parent)
        return re.findall(r">([^<]+)</a>", answer.body) if answer.status == 200 else []


def make_repository(server: LiveServer, slug: str, *, org: str = "acme", public: bool = False) -> LiveRepository:
    """Make a repository beside the running *server*."""
    registry = Registry(server.storage)
    with suppress(AlreadyExists):
        registry.create_organization(org)
    registry.create_repository(org, slug, RepositorySettings(name=slug, private=not public))
    actor = Actor("command line", description="test")
    read, write = (
        registry.tokens.create(org, slug, frozenset(scopes), actor, description="test")[1]
        for scopes in ([Scope.READ_PACKAGES], [Scope.READ_PACKAGES, Scope.WRITE_PACKAGES])
    )
    return LiveRepository(server, org, slug, read, write)


# --- pip ---


@dataclass(frozen=True)
class Environment:
    """A fresh virtual environment, without pip."""

    folder: Path

    @property
    def python(self) -> Path:
        return self.folder / "bin" / "python"

    @classmethod
    def make(cls, folder: Path) -> Environment:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True, timeout=TIMEOUT)
        return cls(folder)

    def run(self, code: str) -> str:
        """Return what *code* prints there."""
        done = run([str(self.python), "-c", code], self.folder)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def version_of(self, project: str) -> str | None:
        """Return the version of *project* that is installed; None if none is."""
        code = f"from importlib import metadata as m; print([d.version for d in m.distributions(name={project!r})])"
        versions = self.run(code)
        return versions.strip("[']") or None


@dataclass(frozen=True)
class Pip:
    """One pip, by the folder of its program."""

    programs: Path
    name: str
    isolated: dict[str, str] = field(
        default_factory=lambda: {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INPUT": "1",
            "PIP_NO_CACHE_DIR": "1",
            "PIP_RETRIES": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }
    )

    def environment_variables(self, home: Path, into: Environment, **variables: str) -> dict[str, str]:
        """Return the variables with which a bare ``pip`` is this one and installs into *into*."""
        search = f"{self.programs}{os.pathsep}{os.environ['PATH']}"
        return client_environment(
            home, **{**self.isolated, "PATH": search, "PIP_PYTHON": str(into.python), **variables}
        )

    def __call__(self, *arguments: str, into: Environment, **variables: str):
        """Run it with *arguments*; it knows of no index that they do not name."""
        home = into.folder.parent
        return run(["pip", *arguments], home, self.environment_variables(home, into, **variables))
