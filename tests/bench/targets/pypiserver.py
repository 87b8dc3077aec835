"""pypiserver on waitress, with its cached backend, over one flat folder as its own uploads lay it out."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from tests.bench.corpus import SCRATCH, Corpus, folder_of
from tests.bench.targets import Target


class Pypiserver(Target):
    """Walks its folder for every page."""

    name, venv, packages = "pypiserver", "pypiserver", ("pypiserver[passlib,cache]", "waitress")

    def load(self, corpus: Corpus) -> Path:
        """Link every file into one folder."""
        data = SCRATCH / "pypiserver" / corpus.name
        data.mkdir(parents=True, exist_ok=True)
        for file in folder_of(corpus).glob("*/*"):
            with suppress(FileExistsError):
                (data / file.name).hardlink_to(file)
        return data

    def command(self, data: Path) -> Sequence[str | Path]:
        """Without passwords; ``auto`` takes waitress where it is installed."""
        where = ["-p", str(self.port), "-i", "127.0.0.1", "--server", "auto", "--backend", "cached-dir"]
        rights = ["-a", ".", "-P", ".", "--disable-fallback", "--hash-algo", "sha256"]
        return [self.program("pypi-server"), "run", *where, *rights, data]
