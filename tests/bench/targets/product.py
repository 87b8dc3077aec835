"""Packhouse itself, as ``packhouse serve`` runs it: authentication, rights, counting and access log on."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.connection import basic
from tests.bench.corpus import SCRATCH, Corpus, folder_of
from tests.bench.targets import Target
from tests.conftest import program, program_environment

ORG = "bench"


class Packhouse(Target):
    """A public repository ``bench/main``, and a token that may read and write it."""

    repo, visibility = "main", "--public"

    def __init__(self, name: str = "packhouse", *flags: str, **variables: str) -> None:
        """Serve with *flags* and with the settings that *variables* say."""
        self.name = name
        self._flags, self._variables = flags, variables

    def load(self, corpus: Corpus) -> Path:
        """Import the corpus, once: with fsync off, since nobody's packages depend on it."""
        data = SCRATCH / "packhouse" / self.repo / corpus.name
        token = data.with_name(f"{corpus.name}.token")
        if not token.exists():
            shutil.rmtree(data, ignore_errors=True)
            data.parent.mkdir(parents=True, exist_ok=True)
            repository = f"{ORG}/{self.repo}"
            self._run(data, "org", "create", ORG)
            self._run(data, "repo", "create", repository, self.visibility)
            self._run(data, "import", repository, str(folder_of(corpus)))
            token.write_text(self._make_token(data, "read_packages,write_packages"))
        self.user, self.password = "__token__", token.read_text().strip()
        return data

    def make_token(self, scopes: str) -> str:
        """Return a new token of what is being served."""
        return self._make_token(self.data, scopes).strip()

    def _make_token(self, data: Path, scopes: str) -> str:
        return self._run(data, "token", "create", f"{ORG}/{self.repo}", "--scope", scopes)

    def _run(self, data: Path, *arguments: str) -> str:
        environment = program_environment(PACKHOUSE_UNSAFE_NO_FSYNC="true", PACKHOUSE_STORAGE=str(data))
        done = subprocess.run(program(*arguments), env=environment, check=True, capture_output=True, text=True)
        return done.stdout

    def copy(self, data: Path) -> Path:
        """What happened and what was counted is appended: real copies of these."""
        copy = super().copy(data)
        for file in [*data.glob("*/*/events.jsonl"), *data.glob("*/*/downloads/*")]:
            duplicate = copy / file.relative_to(data)
            duplicate.unlink()
            shutil.copy2(file, duplicate)
        return copy

    def command(self, data: Path) -> Sequence[str]:
        """The command of the README."""
        return program("serve", "--port", str(self.port), "--storage", str(data), *self._flags)

    def environment(self) -> dict[str, str]:
        """Nothing but what is measured, and compiled modules that are kept as those of an installation are."""
        environment = program_environment(**self._variables)
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        return environment

    def index(self) -> str:
        """The simple index of the repository."""
        return f"/{ORG}/{self.repo}/pypi/simple/"

    def upload_address(self) -> str:
        """Where twine uploads to."""
        return f"/{ORG}/{self.repo}/pypi/legacy/"


class PrivatePackhouse(Packhouse):
    """A private repository: each page is asked for with a token."""

    repo, visibility = "private", "--private"

    def credential(self) -> dict[str, str]:
        """The token, as pip sends it."""
        return {"Authorization": basic(self.user, self.password)}
