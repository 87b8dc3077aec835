"""A bare Flask app on waitress, as its documentation starts it: what the stack costs without a registry."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from tests.bench.corpus import Corpus
from tests.bench.targets import RUN, Target

APP = """
import os, sys
from flask import Flask, request
from waitress import serve

app = Flask("hello")
BODY = b"x" * 1024  # about a project's page


@app.get("/simple/<project>/")
def page(project):
    return BODY, {"Content-Type": "text/html"}


@app.post("/")
def upload():
    request.files["content"].save("hello.upload")
    os.unlink("hello.upload")
    return "stored"


serve(app, host="127.0.0.1", port=int(sys.argv[1]), max_request_body_size=1 << 31)
"""


class Hello(Target):
    """The same page for every project; an upload is saved and thrown away."""

    name = "hello"

    def load(self, corpus: Corpus) -> Path:
        """Write the app down."""
        RUN.mkdir(parents=True, exist_ok=True)
        app = RUN / "hello_app.py"
        app.write_text(APP)
        return app

    def command(self, data: Path) -> Sequence[str | Path]:
        """With our own Python, which has both, and the default settings of waitress."""
        return [sys.executable, data, str(self.port)]
