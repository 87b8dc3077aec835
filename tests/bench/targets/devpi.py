"""devpi-server: one index ``root/bench``, no mirror, uploads with a session token as its own client uses it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from tests.bench.connection import basic, request_head
from tests.bench.corpus import SCRATCH, Corpus
from tests.bench.load import upload_corpus
from tests.bench.targets import Target


class Devpi(Target):
    """Keeps its files beside a SQLite database, so it can only be filled by uploading."""

    name, venv, packages = "devpi", "devpi", ("devpi-server",)
    user = "root"

    def load(self, corpus: Corpus) -> Path:
        """Upload the corpus once."""
        data = SCRATCH / "devpi" / corpus.name
        done = data.with_name(f".{corpus.name}.done")
        if not done.exists():
            shutil.rmtree(data, ignore_errors=True)
            data.mkdir(parents=True)
            init = [self.program("devpi-init"), "--serverdir", data, "--no-root-pypi", "--root-passwd", "bench"]
            subprocess.run(init, check=True, capture_output=True)
            loader = _Loader(data)
            loader.start(corpus)
            try:
                loader.make_index()
                upload_corpus(loader, corpus, clients=4)
            finally:
                loader.stop()
            done.touch()
        return data

    def copy(self, data: Path) -> Path:
        """The database and the secrets are changed in place: real copies of these."""
        copy = super().copy(data)
        for file in data.glob(".*"):
            if file.is_file():
                (copy / file.name).unlink()
                shutil.copy2(file, copy / file.name)
        return copy

    def command(self, data: Path) -> Sequence[str | Path]:
        """Standalone and offline."""
        where = ["--serverdir", data, "--host", "127.0.0.1", "--port", str(self.port)]
        limits = ["--max-request-body-size", "2147483648"]
        return [self.program("devpi-server"), *where, "--offline-mode", "--role", "standalone", *limits]

    def start(self, corpus: Corpus, *, writable: bool = False) -> None:
        """Log in, too: with the plain password each request would cost a password hash."""
        self.password = "bench"
        super().start(corpus, writable=writable)
        if writable:
            self._log_in()

    def _log_in(self) -> None:
        answer = self._send_json("POST", "/+login", {"user": "root", "password": "bench"})
        self.password = answer["result"]["password"]

    def _send_json(self, method: str, path: str, what: dict[str, object]) -> dict[str, dict[str, str]]:
        body = json.dumps(what)
        authorization = basic(self.user, self.password)
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            "Authorization": authorization,
            "X-Devpi-Auth": authorization.removeprefix("Basic "),
        }
        answer = self.connect().request(request_head(method, path, headers) + body.encode())
        if answer.status != 200:
            raise RuntimeError(f"devpi answered {answer.status} to {method} {path}: {answer.body[:300]!r}")
        parsed: dict[str, dict[str, str]] = json.loads(answer.body)
        return parsed

    def index(self) -> str:
        """The simple index of the stage."""
        return "/root/bench/+simple/"

    def upload_address(self) -> str:
        """The stage itself."""
        return "/root/bench/"


class _Loader(Devpi):
    """Serves the folder that is being filled."""

    name = "devpi-loader"

    def __init__(self, data: Path) -> None:
        self._data = data

    def load(self, corpus: Corpus) -> Path:
        return self._data

    def make_index(self) -> None:
        self._send_json("PUT", "/root/bench", {"type": "stage", "bases": [], "volatile": False})
        self._log_in()
