"""pip and uv install 100 packages, their caches off."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from pathlib import Path

from tests.bench.corpus import SMALL
from tests.bench.measures import Plan
from tests.bench.targets import Target, environment, serving
from tests.bench.targets.nginx import Nginx
from tests.bench.targets.product import Packhouse


def measure_installing(plan: Plan) -> None:
    """Row 12: Packhouse beside nginx, by the clock of the clients."""
    programs = environment("client", ("pip", "uv")) / "bin"
    targets: list[Target] = [Packhouse(), Nginx()]
    with serving(targets, SMALL):
        for _ in range(plan.rounds):
            for client in ("uv", "pip"):
                for target in targets:
                    seconds = _install(programs / client, target)
                    plan.records.note("installing", f"{client}-{target.name}", seconds=seconds)


def _install(program: Path, target: Target) -> float:
    settings = {name: value for name, value in os.environ.items() if not name.startswith(("PIP_", "UV_"))}
    settings |= {"PIP_CONFIG_FILE": os.devnull, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_CACHE_DIR": "1"}
    settings |= {"UV_NO_CONFIG": "1", "UV_NO_CACHE": "1", "UV_PYTHON_DOWNLOADS": "never"}
    command = [program, "pip", "install"] if program.name == "uv" else [program, "install"]
    index = f"http://127.0.0.1:{target.port}{target.index()}"
    with tempfile.TemporaryDirectory() as folder:
        options = ["--quiet", "--index-url", index, "--target", folder]
        begun = time.perf_counter()
        subprocess.run([*command, *options, *SMALL.project_names()], env=settings, check=True, timeout=300)
        return time.perf_counter() - begun
