"""The programs of the client matrix, each in an environment of its own, which is made once and kept in a cache.

They come from the registry that this machine is set up for, at their newest or at the version that a test names;
nothing but this needs a network. What a test then runs knows nothing of the machine: see :func:`clean_environment`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import time
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock

CACHE = Path(os.environ.get("PACKHOUSE_TEST_CACHE") or Path.home() / ".cache" / "packhouse-tests")
WEEK = f"{datetime.now(UTC):%Gw%V}"  # so long is the newest version the newest
SETUP_TIMEOUT = 300  # seconds
TIMEOUT = 120  # seconds that one command of a client may take
PDM = "pdm hishel<2"  # 2.29.4 does not start beside hishel 2

UNREACHABLE = re.compile(
    r"Failed to fetch|error sending request|Connection broken|NewConnectionError|ConnectTimeout|Name or service"
    r"|Temporary failure in name resolution|Network is unreachable|from versions: none",
)


@cache
def programs(requirement: str) -> Path:
    """Return the folder with the programs of *requirement*, such as ``twine``, ``pip==23.2.1`` or ``pdm hishel<2``.

    Skips the test that asks, loudly, if the registry cannot be reached.
    """
    name = re.sub(r"\W+", "-", requirement)
    folder = CACHE / f"{name}-py{sysconfig.get_python_version()}-{WEEK}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f"{name}.lock"):  # workers of pytest-xdist share the cache
        done = folder / "complete"
        if not done.exists():
            sweep(name)
            if requirement == "uv":
                set_up(sys.executable, "-m", "venv", "--clear", str(folder))
                set_up(str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet", "uv")
            else:
                uv = str(programs("uv") / "uv")
                set_up(uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(folder))
                python = str(folder / "bin" / "python")
                set_up(
                    uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", python, *requirement.split()
                )
            done.touch()
    return folder / "bin"


def sweep(name: str) -> None:
    """Remove what earlier weeks left under *name*; not the last one, which may still be in use."""
    for old in CACHE.glob(f"{name}-py*"):
        if time.time() - old.stat().st_mtime > 14 * 24 * 3600:
            shutil.rmtree(old, ignore_errors=True)


def set_up(*command: str) -> None:
    """Run a step of the set-up, with the machine's own settings."""
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=SETUP_TIMEOUT, check=False
    )
    said = done.stdout + done.stderr
    if done.returncode and UNREACHABLE.search(said):
        pytest.skip(f"THE REGISTRY OF THE CLIENT PROGRAMS WAS NOT REACHED, so nothing was tested: {said[-500:]}")
    assert done.returncode == 0, f"{' '.join(command)}: {said}"


def clean_environment(home: Path, *requirements: str, **variables: str) -> dict[str, str]:
    """Return an environment with the programs of *requirements*, what lies in *home*, *variables*, and no more."""
    system = [folder for folder in os.environ["PATH"].split(os.pathsep) if folder in ("/usr/bin", "/bin")]
    search = [*(str(programs(requirement)) for requirement in requirements), *system]
    return {
        "PATH": os.pathsep.join(search),
        "HOME": str(home),
        "HTTPS_PROXY": "http://127.0.0.1:9",  # where nobody listens: whoever asks the internet fails
        "LANG": "C.UTF-8",
        "NO_COLOR": "1",
        "COLUMNS": "1000",  # some programs break their lines to the terminal's width
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_NO_INPUT": "1",
        **variables,
    }


class Ended:
    """How a program ended, and all that its user saw."""

    def __init__(self, done: subprocess.CompletedProcess[str]) -> None:
        self.status = done.returncode
        self.output = done.stdout
        self.seen = done.stdout + done.stderr

    def __repr__(self) -> str:
        return f"<exit status {self.status}>\n{self.seen}"

    def says(self, *words: str) -> bool:
        """Whether the user saw all of these *words*, whatever the lines were broken into."""
        seen = re.sub(r"\s+", " ", self.seen)
        return all(word in seen for word in words)


def run_program(command: list[str] | str, cwd: Path, environment: dict[str, str]) -> Ended:
    """Run *command*, a string by a shell, to its end."""
    done = subprocess.run(
        ["/bin/sh", "-ec", command] if isinstance(command, str) else command,
        cwd=cwd,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
    return Ended(done)


def make_environment(folder: Path, requirement: str | None = None) -> Path:
    """Make a virtual environment, with the pip that *requirement* names in it, and return its Python."""
    if requirement is None:
        arguments = ["uv", "venv", "--quiet", "--no-config", "--offline", "--python", sys.executable, str(folder)]
        ended = run_program(arguments, folder.parent, clean_environment(folder.parent, "uv"))
        assert ended.status == 0, ended
    else:
        make_environment(folder)
        original = programs(requirement).parent
        for origin in site_packages(original).glob("pip*"):
            shutil.copytree(origin, site_packages(folder) / origin.name)
        script = folder / "bin" / "pip"
        script.write_text((original / "bin" / "pip").read_text().replace(str(original), str(folder)))
        script.chmod(0o755)
    return folder / "bin" / "python"


def site_packages(environment: Path) -> Path:
    """Return where the packages of a virtual environment lie."""
    return environment / "lib" / f"python{sysconfig.get_python_version()}" / "site-packages"


def installed(environment: Path) -> dict[str, str]:
    """Return the versions of all that is installed in a virtual environment, by name."""
    found = (path.name.removesuffix(".dist-info") for path in site_packages(environment).glob("*.dist-info"))
    return {name: version for name, _, version in (stem.partition("-") for stem in found) if name != "pip"}
