"""pypiron, a registry in Rust: files and ready-made index pages on disk; all that asks the network is off.

It answers an upload before its page shows the file, and syncs the file alone.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from pathlib import Path

from tests.bench.corpus import SCRATCH, Corpus
from tests.bench.load import upload_corpus
from tests.bench.targets import RUN, Target


class Pypiron(Target):
    """Filled by uploading; reads are public, as by default."""

    name, venv, packages = "pypiron", "pypiron", ("pypiron",)

    def load(self, corpus: Corpus) -> Path:
        """Upload the corpus once, and wait until every page is made."""
        data = SCRATCH / "pypiron" / corpus.name
        done = data.with_name(f".{corpus.name}.done")
        if not done.exists():
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir(parents=True)
            loader = _Loader(data)
            loader.start(corpus)
            try:
                upload_corpus(loader, corpus, clients=1)
                deadline = time.monotonic() + 60
                while list((data / "_dirty").iterdir()) and time.monotonic() < deadline:
                    time.sleep(0.5)
            finally:
                loader.stop()
            done.touch()
        return data

    def environment(self) -> dict[str, str]:
        """Who may upload."""
        return {
            **super().environment(),
            "PYPIRON_UPLOADER_USER": self.user,
            "PYPIRON_UPLOADER_PASS": self.password,
        }

    def command(self, data: Path) -> Sequence[str | Path]:
        """The spool lies on the data's file system: uploads are linked from it."""
        spool = RUN / "pypiron-spool"
        spool.mkdir(parents=True, exist_ok=True)
        where = ["--data-dir", data, "--spool-dir", spool, "--bind-addr", f"127.0.0.1:{self.port}"]
        offline = ["--advisory-feed", "", "--malware-block", "false", "--malware-probe-secs", "0"]
        return [self.program("pypiron"), "serve", *where, *offline]

    def upload_address(self) -> str:
        """As PyPI's."""
        return "/legacy/"


class _Loader(Pypiron):
    """Serves the folder that is being filled."""

    name = "pypiron-loader"

    def __init__(self, data: Path) -> None:
        self._data = data

    def load(self, corpus: Corpus) -> Path:
        return self._data
