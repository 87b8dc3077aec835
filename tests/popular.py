"""Real wheels and sdists from the registry that this machine's pip is set up for, kept in a small cache."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

import pytest
from filelock import FileLock

NOT_REACHED = "THE REGISTRY WAS NOT REACHED"

# Made by setuptools, flit, hatchling and poetry-core, and by tools of ten years ago.
WITH_DEPENDENCIES = ["requests==2.34.2"]  # one of these dependencies is binary
WHEELS = [
    "attrs==25.3.0",
    "click==8.1.7",
    "docutils==0.12",
    "flask==3.1.1",
    "flit_core==3.9.0",
    "hatchling==1.27.0",
    "markupsafe==3.0.2",
    "poetry_core==1.9.0",
    "pytz==2014.9",
    "requests==2.0.0",
    "setuptools==80.9.0",
    "six==1.10.0",
    "wheel==0.24.0",
    "wheel==0.45.1",
]
SDISTS = [
    "azure-common==1.1.28",  # a .zip
    "docutils==0.16",
    "flask==0.12",  # Flask-0.12.tar.gz
    "flit_core==3.9.0",
    "poetry_core==1.9.0",
    "python-dateutil==2.8.2",  # python-dateutil-2.8.2.tar.gz
    "six==1.10.0",
]


def unreachable(what: str, said: str) -> NoReturn:
    """Skip a test that needs *what* from the registry, so that nobody overlooks it."""
    reason = said.strip().splitlines()[-1] if said.strip() else "pip said nothing"
    pytest.skip(f"{NOT_REACHED} by pip, so this was not tested with {what}: {reason}")


def download_popular(cache: Path) -> Path:
    """Return a folder with all of the files above, which are downloaded if *cache* does not have them."""
    wanted = hashlib.sha256("\n".join([sys.version[:4], *WITH_DEPENDENCIES, *WHEELS, *SDISTS]).encode())
    folder = cache / wanted.hexdigest()[:16]
    with FileLock(cache / "lock"):  # processes of one test run share the cache
        if not folder.is_dir():
            shutil.rmtree(cache / "incomplete", ignore_errors=True)
            _download(cache / "incomplete")
            (cache / "incomplete").rename(folder)
    return folder


def _download(folder: Path) -> None:
    _pip_download(folder, *WITH_DEPENDENCIES, "--only-binary", ":all:")
    for requirement in WHEELS:  # one by one, since two versions of a project do not go together
        _pip_download(folder, requirement, "--no-deps", "--only-binary", ":all:")
    names = ",".join(requirement.partition("==")[0] for requirement in SDISTS)
    _pip_download(folder, *SDISTS, "--no-deps", "--no-binary", names)


def _pip_download(folder: Path, *arguments: str) -> None:
    done = _pip("download", "--quiet", "--dest", str(folder), *arguments)
    if done.returncode:
        probe = _pip("download", "--quiet", "--no-deps", "--no-cache-dir", "--dest", str(folder), "six")
        if probe.returncode:
            unreachable("popular packages", probe.stderr)
        raise RuntimeError(f"pip download {arguments} failed: {done.stderr}")


def _pip(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the machine's pip with the machine's configuration."""
    command = [sys.executable, "-m", "pip", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
