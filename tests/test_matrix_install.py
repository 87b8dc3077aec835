"""Every client that installs or resolves, as its users run it, against one live server.

No client knows of an index but those of this server, so nothing here needs the internet.
"""

from __future__ import annotations

import ensurepip
import hashlib
import itertools
import os
import re
import stat
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import pytest

from storage.names import normalize_project
from storage.registry import Registry
from storage.sidecars import Actor
from tests.client_programs import (
    PDM,
    Ended,
    clean_environment,
    installed,
    make_environment,
    run_program,
    site_packages,
)
from tests.clients import LiveRepository, make_repository
from tests.conftest import LiveServer, start_server
from tests.storage.makers import make_sdist, make_wheel

OLDEST_PIP = "pip==19.2.3"  # the oldest that runs on Python 3.11
PIP_OF_PYTHON = f"pip=={ensurepip.version()}"  # what this machine's Python brings along
NEWEST_PIP = "pip"

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[LiveServer]:
    """The one server of this matrix."""
    server = start_server(tmp_path_factory.mktemp("matrix") / "data")
    yield server
    server.stop()


@pytest.fixture
def private(server: LiveServer) -> LiveRepository:
    return make_repository(server, f"private{next(_numbers)}")


@pytest.fixture
def public(server: LiveServer) -> LiveRepository:
    return make_repository(server, f"public{next(_numbers)}", public=True)


@pytest.fixture
def other(server: LiveServer) -> LiveRepository:
    """A second, public repository, where others would have the public registry."""
    return make_repository(server, f"other{next(_numbers)}", public=True)


def requests_for(repository: LiveRepository) -> list[str]:
    """Return what clients asked of a repository's index so far: "GET /files/toolbox/toolbox-1.0.tar.gz 200"."""
    mark = f"mark{next(_numbers)}"  # asked for last, and so logged last
    with suppress(urllib.error.HTTPError):
        urllib.request.urlopen(f"{repository.index_url()}/{mark}/", timeout=30)
    deadline = time.monotonic() + 10
    while f"/{mark}/" not in (log := repository.server.log.read_text()):
        assert time.monotonic() < deadline, log
        time.sleep(0.02)
    found = re.findall(rf" ([A-Z]+) /{repository.org}/{repository.slug}/pypi(/\S*) (\d\d\d) ", log)
    return [" ".join(parts) for parts in found if mark not in parts[1]]


# --- the clients ---

PYPROJECT = """\
[project]
name = "application"
version = "1"
requires-python = ">=3.11"
dependencies = ["{requirement}"]
"""


class Installer:
    """A client, in a home of its own, and its ways to hold a credential."""

    command = ""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.folder = home / "application"
        self.folder.mkdir(parents=True, exist_ok=True)

    def install(
        self,
        repository: LiveRepository,
        requirement: str,
        how: str = "address",
        token: str | None = None,
        command: str = "",
    ) -> Ended:
        """Install, or run *command*, with a *token* held as *how* says; None: the repository's for reading."""
        self.command = command or self.command
        token = repository.read_token if token is None else token
        if how == "netrc":
            self.write(".netrc", f"machine 127.0.0.1 login __token__ password {token}\n")
        return self._install(repository, requirement, how, token)

    def _install(self, repository: LiveRepository, requirement: str, how: str, token: str) -> Ended:
        raise NotImplementedError

    def run(self, command: list[str] | str, **variables: str) -> Ended:
        return run_program(command, self.folder, self.environment(**variables))

    def environment(self, **variables: str) -> dict[str, str]:
        raise NotImplementedError

    def write(self, place: str, text: str) -> Path:
        path = self.home / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)
        return path

    @property
    def installed(self) -> dict[str, str]:
        return installed(self.folder / ".venv")


class Pip(Installer):
    """One pip in an environment of its own, as its users have it."""

    requirement = NEWEST_PIP

    def environment(self, **variables: str) -> dict[str, str]:
        return clean_environment(self.home, **variables)

    def pip(self, *arguments: str, **variables: str) -> Ended:
        if not (self.folder / ".venv").exists():
            make_environment(self.folder / ".venv", self.requirement)
        return self.run([str(self.folder / ".venv" / "bin" / "python"), "-m", "pip", *arguments], **variables)

    def _install(self, repository: LiveRepository, requirement: str, how: str, token: str) -> Ended:
        index = repository.index_url(token if how != "netrc" else "")
        if how == "environment":
            return self.pip("install", requirement, PIP_INDEX_URL=index)
        if how == "settings":
            conf = self.write("pip.conf", f"[global]\nindex-url = {index}\n")
            return self.pip("install", requirement, PIP_CONFIG_FILE=str(conf))
        return self.pip("install", "--index-url", index, requirement)


class OldestPip(Pip):
    requirement = OLDEST_PIP


class PipOfPython(Pip):
    requirement = PIP_OF_PYTHON


class Uv(Installer):
    """The newest uv, with its cache in its home."""

    def environment(self, **variables: str) -> dict[str, str]:
        return clean_environment(self.home, "uv", **variables)

    def uv(self, *arguments: str, **variables: str) -> Ended:
        if not (self.folder / ".venv").exists():
            make_environment(self.folder / ".venv")
        return self.run(["uv", *arguments], **variables)

    def _install(self, repository: LiveRepository, requirement: str, how: str, token: str) -> Ended:
        index = repository.index_url(token if how == "address" else "")
        if how == "environment":
            login = {"UV_INDEX_ACME_USERNAME": "__token__", "UV_INDEX_ACME_PASSWORD": token}
            return self.uv("pip", "install", requirement, UV_DEFAULT_INDEX=f"acme={index}", **login)
        if how == "settings":
            settings = f'[[index]]\nname = "acme"\nurl = "{repository.index_url(token)}"\ndefault = true\n'
            self.write(".config/uv/uv.toml", settings)
            return self.uv("pip", "install", requirement)
        return self.uv("pip", "install", "--default-index", index, requirement)


class Poetry(Installer):
    """The newest poetry; it locks, and installs what it locked."""

    command = "poetry lock -n && poetry sync -n"

    def environment(self, **variables: str) -> dict[str, str]:
        return clean_environment(self.home, "poetry", POETRY_VIRTUALENVS_IN_PROJECT="1", **variables)

    def _install(self, repository: LiveRepository, requirement: str, how: str, token: str) -> Ended:
        index = repository.index_url(token if how == "address" else "")
        source = f'[[tool.poetry.source]]\nname = "acme"\nurl = "{index}/"\npriority = "primary"\n'
        text = PYPROJECT.format(requirement=requirement)
        (self.folder / "pyproject.toml").write_text(f"{text}\n[tool.poetry]\npackage-mode = false\n\n{source}")
        variables = {}
        if how == "environment":
            variables = {"POETRY_HTTP_BASIC_ACME_USERNAME": "__token__", "POETRY_HTTP_BASIC_ACME_PASSWORD": token}
        if how == "settings":
            self.write(
                ".config/pypoetry/auth.toml", f'[http-basic.acme]\nusername = "__token__"\npassword = "{token}"\n'
            )
        return self.run(self.command, **variables)


class Pdm(Installer):
    """The newest pdm; it locks, and installs what it locked."""

    command = "pdm lock && pdm sync"

    def environment(self, **variables: str) -> dict[str, str]:
        return clean_environment(self.home, PDM, PDM_CHECK_UPDATE="0", **variables)

    def _install(self, repository: LiveRepository, requirement: str, how: str, token: str) -> Ended:
        index, variables = repository.index_url(token if how == "address" else ""), {}
        if how == "environment":
            index, variables = repository.index_url("${ACME_TOKEN}"), {"ACME_TOKEN": token}
        if how == "settings":
            login = f'[pypi]\nurl = "{index}"\nusername = "__token__"\npassword = "{token}"\n'
            self.write(".config/pdm/config.toml", login)
        source = "" if how == "settings" else f'[[tool.pdm.source]]\nname = "pypi"\nurl = "{index}"\n'
        text = PYPROJECT.format(requirement=requirement)
        (self.folder / "pyproject.toml").write_text(f"{text}\n[tool.pdm]\ndistribution = false\n\n{source}")
        if not (self.folder / ".venv").exists():
            make_environment(self.folder / ".venv")
        return self.run(self.command, **variables)


PIPS = {"oldest pip": OldestPip, "pip of this Python": PipOfPython, "newest pip": Pip}
INSTALLERS: dict[str, type[Installer]] = {**PIPS, "uv": Uv, "poetry": Poetry, "pdm": Pdm}


@pytest.fixture(params=INSTALLERS.values(), ids=INSTALLERS)
def installer(request: pytest.FixtureRequest, tmp_path: Path) -> Installer:
    return request.param(tmp_path / "home")


@pytest.fixture(params=PIPS.values(), ids=PIPS)
def pip(request: pytest.FixtureRequest, tmp_path: Path) -> Pip:
    return request.param(tmp_path / "home")


@pytest.fixture
def newest_pip(tmp_path: Path) -> Pip:
    return Pip(tmp_path / "home")


@pytest.fixture
def uv(tmp_path: Path) -> Uv:
    return Uv(tmp_path / "home")


# --- all of them ---


@pytest.mark.parametrize("how", ["address", "netrc", "environment", "settings"])
def test_a_private_repository_is_read_with_a_token_wherever_it_stands(installer, private, tmp_path, how):
    private.publish(*make_wheel("toolbox", requires=["hammer>=1"]), cwd=tmp_path)
    private.publish(*make_wheel("hammer", "1.5"), cwd=tmp_path)

    ended = installer.install(private, "toolbox", how)

    assert ended.status == 0, ended
    assert installer.installed == {"toolbox": "1.0", "hammer": "1.5"}


def test_a_public_repository_is_read_without_a_token(installer, public, tmp_path):
    public.publish(*make_wheel("toolbox"), cwd=tmp_path)

    ended = installer.install(public, "toolbox", token="")

    assert ended.status == 0, ended
    assert installer.installed == {"toolbox": "1.0"}


# What their users see, by client, of a token that is wrong, and of a project that is not there.
REFUSED = {
    OldestPip: "No matching distribution found for toolbox",  # it says nothing of the token
    PipOfPython: "No matching distribution found for toolbox",
    Pip: "401 Error, Credentials not correct for",
    Uv: "could not be queried due to a lack of valid authentication credentials (401 Unauthorized)",
    Poetry: "Authorization error accessing",
    Pdm: "Unable to find candidates for toolbox",
}
MISSING = {
    OldestPip: "No matching distribution found for toolbox",
    PipOfPython: "No matching distribution found for toolbox",
    Pip: "No matching distribution found for toolbox",
    Uv: "toolbox was not found in the package registry",
    Poetry: "toolbox (*) which doesn't match any versions",
    Pdm: "Unable to find candidates for toolbox",
}


def test_a_wrong_token_installs_nothing(installer, private, tmp_path):
    private.publish(*make_wheel("toolbox"), cwd=tmp_path)

    ended = installer.install(private, "toolbox", token="pkh_000000000000_wrong")

    assert ended.status != 0
    assert ended.says(REFUSED[type(installer)]), ended
    assert installer.installed == {}


@pytest.mark.parametrize("make", [Pip, Uv])
def test_a_wrong_token_is_told_where_none_is_needed(make, public, tmp_path):
    installer = make(tmp_path / "home")
    public.publish(*make_wheel("toolbox"), cwd=tmp_path)

    ended = installer.install(public, "toolbox", token="pkh_000000000000_wrong")

    assert ended.status != 0
    assert ended.says(REFUSED[make]), ended


def test_what_others_have_in_private_looks_as_if_it_were_not_there(installer, private, other, tmp_path):
    private.publish(*make_wheel("toolbox"), cwd=tmp_path)

    ended = installer.install(private, "toolbox", token=other.read_token)

    assert ended.status != 0
    assert ended.says(MISSING[type(installer)]), ended
    assert not ended.says("401"), ended


def yank(repository: LiveRepository, filename: str, reason: str) -> None:
    stored = Registry(repository.server.storage).repository(repository.org, repository.slug)
    project = normalize_project(filename.partition("-")[0])
    stored.yank_file(project, filename, reason, Actor("command line"))


def test_a_yanked_release_is_passed_over(installer, private, tmp_path):
    for version in ("1.0", "1.1"):
        private.publish(*make_wheel("toolbox", version), cwd=tmp_path)
    yank(private, "toolbox-1.1-py3-none-any.whl", "drops nails")

    ended = installer.install(private, "toolbox")

    assert ended.status == 0, ended
    assert installer.installed == {"toolbox": "1.0"}


YANKED = {
    **dict.fromkeys(PIPS.values(), "Reason for being yanked: drops nails"),
    Uv: 'is yanked (reason: "drops nails")',
    Poetry: "Reason for being yanked: drops nails",
    Pdm: "Install toolbox 1.1 successful",  # it says nothing of yanks
}


def test_a_yanked_release_is_installed_where_it_is_pinned_with_a_word_of_why(installer, private, tmp_path):
    for version in ("1.0", "1.1"):
        private.publish(*make_wheel("toolbox", version), cwd=tmp_path)
    yank(private, "toolbox-1.1-py3-none-any.whl", "drops nails")

    ended = installer.install(private, "toolbox==1.1")

    assert ended.status == 0, ended
    assert ended.says(YANKED[type(installer)]), ended
    assert installer.installed == {"toolbox": "1.1"}


def test_a_release_for_other_pythons_is_passed_over(installer, private, tmp_path):
    private.publish(*make_wheel("toolbox", "1.0", requires_python=">=3.8"), cwd=tmp_path)
    private.publish(*make_wheel("toolbox", "2.0", requires_python=">=99"), cwd=tmp_path)

    ended = installer.install(private, "toolbox")

    assert ended.status == 0, ended
    assert installer.installed == {"toolbox": "1.0"}


def test_a_release_published_after_the_client_looked_is_seen_at_once(installer, private, tmp_path):
    for version in ("1.0", "1.1"):
        private.publish(*make_wheel("toolbox", version), cwd=tmp_path)

        ended = installer.install(private, f"toolbox>={version}", "netrc")

        assert ended.status == 0, ended
        assert installer.installed == {"toolbox": version}


BACKEND = """\
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "toolbox-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("toolbox.py", "built = True")
        wheel.writestr("toolbox-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: toolbox\\nVersion: 1.0\\n")
        about = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr("toolbox-1.0.dist-info/WHEEL", about)
        wheel.writestr("toolbox-1.0.dist-info/RECORD", "")
    return name
"""
BUILD_SYSTEM = '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.mark.parametrize("make", [PipOfPython, Pip, Uv, Poetry, Pdm])  # pip 19 knows no backend within the sdist
def test_an_sdist_is_built_and_installed(make, private, tmp_path):
    installer = make(tmp_path / "home")
    files = {"pyproject.toml": BUILD_SYSTEM.encode(), "backend.py": BACKEND.encode()}
    private.publish(*make_sdist("toolbox", files=files), cwd=tmp_path)

    ended = installer.install(private, "toolbox")

    assert ended.status == 0, ended
    assert (site_packages(installer.folder / ".venv") / "toolbox.py").read_text() == "built = True"


# --- caches ---


@pytest.mark.parametrize("visibility", ["private", "public"])
@pytest.mark.parametrize("make", [Pip, Uv])
def test_a_warm_cache_asks_whether_anything_changed_and_learns_of_what_did(make, visibility, request, tmp_path):
    installer = make(tmp_path / "home")
    repository = request.getfixturevalue(visibility)
    index = repository.index_url(repository.read_token)
    look = {  # pip keeps what comes without TLS only from hosts that it is told to trust
        Pip: f"python -m pip download --trusted-host 127.0.0.1 -d {{into}} --index-url {index} toolbox",
        Uv: f"uv pip install --default-index {index} --target {{into}} toolbox",
    }[make]
    make_environment(installer.folder / ".venv", "pip")
    path = f"{installer.folder / '.venv' / 'bin'}{os.pathsep}{installer.environment()['PATH']}"
    repository.publish(*make_wheel("toolbox", "1.0"), cwd=tmp_path)

    runs = [installer.run(look.format(into=f"into{number}"), PATH=path) for number in range(2)]
    asked = requests_for(repository)
    repository.publish(*make_wheel("toolbox", "1.1"), cwd=tmp_path)
    runs.append(installer.run(look.format(into="into2"), PATH=path))

    assert [run.status for run in runs] == [0, 0, 0], runs
    assert [entry for entry in asked if "/simple/" in entry] == [
        "GET /simple/toolbox/ 200",
        "GET /simple/toolbox/ 304",
    ]
    assert list((installer.folder / "into1").glob("toolbox-1.0*"))
    assert list((installer.folder / "into2").glob("toolbox-1.1*"))


# --- pip alone ---


def test_pip_downloads(pip, private, tmp_path):
    filename, content = make_wheel("toolbox")
    private.publish(filename, content, cwd=tmp_path)

    ended = pip.pip("download", "--index-url", private.index_url(private.read_token), "-d", "into", "toolbox")

    assert ended.status == 0, ended
    assert (pip.folder / "into" / filename).read_bytes() == content


def test_pip_lists_the_versions_newest_first(newest_pip, private, tmp_path):
    for version in ("1.0", "1.10", "1.9"):
        private.publish(*make_sdist("toolbox", version), cwd=tmp_path)

    ended = newest_pip.pip("index", "versions", "toolbox", PIP_INDEX_URL=private.index_url(private.read_token))

    assert ended.status == 0, ended
    assert ended.says("Available versions: 1.10, 1.9, 1.0"), ended


def publish_before_and_after(repository: LiveRepository, tmp_path: Path) -> str:
    """Publish 1.0 and 1.1, and return a time between the two."""
    repository.publish(*make_wheel("toolbox", "1.0"), cwd=tmp_path)
    time.sleep(0.01)
    between = datetime.now(UTC).isoformat()
    time.sleep(0.01)
    repository.publish(*make_wheel("toolbox", "1.1"), cwd=tmp_path)
    return between


def test_pip_takes_only_what_was_uploaded_before_a_time(newest_pip, private, tmp_path):
    between = publish_before_and_after(private, tmp_path)

    index = private.index_url(private.read_token)
    ended = newest_pip.pip("install", "--index-url", index, "--uploaded-prior-to", between, "toolbox")

    assert ended.status == 0, ended
    assert newest_pip.installed == {"toolbox": "1.0"}


def test_pip_mixes_two_indexes_and_takes_the_highest_version_of_all(pip, private, other, tmp_path):
    private.publish(*make_wheel("toolbox", "1.0"), cwd=tmp_path)
    other.publish(*make_wheel("toolbox", "9.0"), cwd=tmp_path)

    indexes = ["--index-url", other.index_url(), "--extra-index-url", private.index_url(private.read_token)]
    ended = pip.pip("install", *indexes, "toolbox")

    assert ended.status == 0, ended
    assert pip.installed == {"toolbox": "9.0"}  # which is why docs/clients.md warns of it


@pytest.mark.parametrize("quote", ["", '"'])
def test_an_address_in_pip_conf_must_stand_without_quotes(newest_pip, private, other, tmp_path, quote):
    private.publish(*make_wheel("toolbox"), cwd=tmp_path)
    address = f"{quote}{private.index_url(private.read_token)}{quote}"
    conf = newest_pip.write("pip.conf", f"[global]\nindex-url = {other.index_url()}\nextra-index-url = {address}\n")

    ended = newest_pip.pip("install", "toolbox", PIP_CONFIG_FILE=str(conf))

    assert (ended.status == 0) is not bool(quote), ended
    assert (private.read_token in ended.seen) is bool(quote)  # it takes the quoted one for no address, and shows it


# --- uv alone ---


def test_uv_resolves_as_of_a_time(uv, private, tmp_path):
    between = publish_before_and_after(private, tmp_path)
    (uv.folder / "requirements.in").write_text("toolbox\n")

    index = private.index_url(private.read_token)
    ended = uv.uv("pip", "compile", "--default-index", index, "--exclude-newer", between, "requirements.in")

    assert ended.status == 0, ended
    assert "toolbox==1.0" in ended.output.splitlines()


def test_what_uv_locked_with_hashes_is_installed_by_uv_and_every_pip(private, tmp_path):
    filename, content = make_wheel("toolbox", requires=["hammer"])
    private.publish(filename, content, cwd=tmp_path)
    private.publish(*make_wheel("hammer"), cwd=tmp_path)
    uv, pips = Uv(tmp_path / "uv"), [make(tmp_path / name) for name, make in PIPS.items()]
    (uv.folder / "requirements.in").write_text("toolbox\n")
    locked, index = tmp_path / "requirements.txt", private.index_url(private.read_token)
    where = ["--default-index", index]

    ended = uv.uv("pip", "compile", *where, "--generate-hashes", "requirements.in", "-o", str(locked))
    installs = [uv.uv("pip", "install", *where, "--require-hashes", "-r", str(locked))]
    for pip in pips:
        installs.append(pip.pip("install", "--index-url", index, "--require-hashes", "-r", str(locked)))

    assert ended.status == 0, ended
    assert f"--hash=sha256:{hashlib.sha256(content).hexdigest()}" in locked.read_text()
    assert [install.status for install in installs] == [0, 0, 0, 0], installs
    assert all(one.installed == {"toolbox": "1.0", "hammer": "1.0"} for one in (uv, *pips))


def test_uv_goes_on_to_the_next_index_for_what_is_not_in_the_first(uv, private, other, tmp_path):
    private.publish(*make_wheel("toolbox", "1.0", requires=["hammer"]), cwd=tmp_path)
    other.publish(*make_wheel("toolbox", "9.0"), cwd=tmp_path)
    other.publish(*make_wheel("hammer", "3.0"), cwd=tmp_path)

    indexes = ["--index", private.index_url(private.read_token), "--default-index", other.index_url()]
    ended = uv.uv("pip", "install", *indexes, "toolbox")

    assert ended.status == 0, ended
    assert uv.installed == {"toolbox": "1.0", "hammer": "3.0"}  # the higher version of the other index is not seen
    assert "GET /simple/hammer/ 404" in requests_for(private)


def test_uv_does_not_go_on_where_the_first_index_refuses_its_token(uv, private, other, tmp_path):
    other.publish(*make_wheel("toolbox", "9.0"), cwd=tmp_path)

    indexes = ["--index", private.index_url("pkh_000000000000_wrong"), "--default-index", other.index_url()]
    ended = uv.uv("pip", "install", *indexes, "toolbox")

    assert ended.status != 0
    assert ended.says("401 Unauthorized"), ended
    assert uv.installed == {}


# --- resolving without downloading ---


def lock_with_uv(home: Path, repository: LiveRepository) -> tuple[Ended, str]:
    uv = Uv(home)
    (uv.folder / "requirements.in").write_text("toolbox\n")
    index = repository.index_url(repository.read_token)
    ended = uv.uv("pip", "compile", "--default-index", index, "--generate-hashes", "requirements.in")
    return ended, ended.output


def lock_with_poetry(home: Path, repository: LiveRepository) -> tuple[Ended, str]:
    poetry = Poetry(home)
    ended = poetry.install(repository, "toolbox", "environment", command="poetry lock -n")
    return ended, (poetry.folder / "poetry.lock").read_text()


def lock_with_pdm(home: Path, repository: LiveRepository) -> tuple[Ended, str]:
    pdm = Pdm(home)
    ended = pdm.install(repository, "toolbox", "environment", command="pdm lock")
    return ended, (pdm.folder / "pdm.lock").read_text()


def test_poetry_keeps_a_token_that_stands_in_the_address(private, tmp_path):
    poetry = Poetry(tmp_path / "home")
    private.publish(*make_wheel("toolbox"), cwd=tmp_path)

    ended = poetry.install(private, "toolbox", "address", command="poetry lock -n")

    assert ended.status == 0, ended
    assert private.read_token in (poetry.folder / "poetry.lock").read_text()  # so docs/clients.md keeps it out


@pytest.mark.parametrize("lock", [lock_with_uv, lock_with_poetry, lock_with_pdm])
def test_a_lock_is_made_from_metadata_alone_and_holds_the_digests_but_no_token(lock, private, tmp_path):
    filename, content = make_wheel("toolbox", requires=["hammer"])
    private.publish(filename, content, cwd=tmp_path)
    private.publish(*make_wheel("hammer"), cwd=tmp_path)

    ended, locked = lock(tmp_path / "home", private)

    assert ended.status == 0, ended
    asked = requests_for(private)
    assert f"GET /files/toolbox/{filename}.metadata 200" in asked
    assert not [entry for entry in asked if ".whl " in entry]
    assert hashlib.sha256(content).hexdigest() in locked
    assert "hammer" in locked
    assert private.read_token not in locked
