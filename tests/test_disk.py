"""A disk that is full, read-only or broken: reads go on, nothing is torn, and afterwards all is well again."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import io
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app import create_app
from settings import Settings
from storage.registry import Registry
from storage.repository import RepositorySettings
from storage.tokens import Scope
from tests.clients import make_repository
from tests.conftest import HERE, ORG, REPO, TESTER, LiveServer, add_to, basic, packhouse, start_server
from tests.people import visitor
from tests.storage.faults import Fault, between
from tests.storage.makers import make_sdist, make_wheel
from tests.test_races import FORM, Side

WHEEL, CONTENT = make_wheel()
SDIST = make_sdist()
DIGEST = hashlib.sha256(SDIST[1]).hexdigest()
MIB = 1024 * 1024


# --- disks ---


class Mounted:
    """A small file system of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables: dict[str, str] = {}
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "packhouse-test", folder], check=True)

    def fill(self) -> None:
        with (self.folder / ".filler").open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError as error:
                assert error.errno == errno.ENOSPC  # noqa: PT017 - that is the aim

    def free(self) -> None:
        (self.folder / ".filler").unlink()

    def make_read_only(self) -> None:
        self._remount("ro")

    def make_writable(self) -> None:
        self._remount("rw")

    def _remount(self, mode: str) -> None:
        deadline = time.monotonic() + 10
        while subprocess.run(["mount", "-o", f"remount,{mode}", self.folder], capture_output=True).returncode:
            assert time.monotonic() < deadline, "the disk stays busy"
            time.sleep(0.05)  # a file is just open for writing

    def close(self) -> None:
        subprocess.run(["umount", self.folder], check=True)


SHIM = """
from pathlib import Path
from tests.storage.faults import Fault, between

FLAG = Path({flag!r})

def fail(name, args, kwargs):
    if FLAG.exists():
        number = int(FLAG.read_text())
        if name in Fault.GROWING or number == {read_only}:
            raise OSError(number, "by the shim")

shim = between(fail)
shim.__enter__()
"""


class Shimmed:
    """A folder whose server is told by a shim that the disk is full or read-only, where nothing can be mounted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._shim = Path(tempfile.mkdtemp())
        self._flag = self._shim / "flag"
        (self._shim / "sitecustomize.py").write_text(SHIM.format(flag=str(self._flag), read_only=errno.EROFS))
        self.variables = {"PYTHONPATH": f"{self._shim}:{HERE}"}

    def fill(self) -> None:
        self._flag.write_text(str(errno.ENOSPC))

    def make_read_only(self) -> None:
        self._flag.write_text(str(errno.EROFS))

    def free(self) -> None:
        self._flag.unlink()

    make_writable = free

    def close(self) -> None:
        shutil.rmtree(self._shim)


def may_mount() -> bool:
    """Whether this process may mount file systems here."""
    folder = tempfile.mkdtemp()
    try:
        done = subprocess.run(["mount", "-t", "tmpfs", "packhouse-test", folder], capture_output=True, check=False)
        if done.returncode == 0:
            subprocess.run(["umount", folder], check=True)
        return done.returncode == 0
    except FileNotFoundError:
        return False
    finally:
        Path(folder).rmdir()


@pytest.fixture(params=[Mounted, Shimmed] if may_mount() else [Shimmed])
def disk(request, tmp_path) -> Iterator[Mounted | Shimmed]:
    folder = tmp_path / "data"
    folder.mkdir()
    disk = request.param(folder)
    try:
        yield disk
    finally:
        disk.close()


@pytest.fixture
def server(disk) -> Iterator[LiveServer]:
    server = start_server(disk.folder, env=disk.variables)
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def side(server) -> Side:
    """A repository with one wheel."""
    side = Side(server, make_repository(server, "main"))
    assert side.upload(WHEEL, CONTENT)[0] == 201
    return side


# --- what still works ---


def check_reads(side: Side) -> None:
    """Everything can be read, from the disk and not from what is kept ready."""
    cold = f"?{time.monotonic_ns()}"
    answers = {
        address: side.ask("GET", address + cold)
        for address in (
            f"{side.pypi}/simple/",
            f"{side.pypi}/simple/toolbox/",
            f"{side.pypi}/files/toolbox/{WHEEL}",
            f"{side.pypi}/files/toolbox/{WHEEL}.metadata",
            f"{side.api}/packages.json",
            f"/{side.org}/{side.repo}/",
            f"/{side.org}/{side.repo}/packages/toolbox/{WHEEL}",
            "/healthz",
        )
    }
    assert {address: status for address, (status, _, _) in answers.items() if status != 200} == {}
    assert answers[f"{side.pypi}/files/toolbox/{WHEEL}"][2] == CONTENT
    assert [file["filename"] for file in side.files("toolbox")] == [WHEEL]


def changes(side: Side) -> dict[str, Callable[[], tuple]]:
    """All kinds of changes that a client asks for."""
    legacy = (
        b'--b\r\nContent-Disposition: form-data; name=":action"\r\n\r\nfile_upload\r\n'
        b'--b\r\nContent-Disposition: form-data; name="sha256_digest"\r\n\r\n%s\r\n'
        b'--b\r\nContent-Disposition: form-data; name="content"; filename="%s"\r\n\r\n%s\r\n--b--\r\n'
    )
    sdist, content = SDIST
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    return {
        "upload": lambda: side.upload(*make_wheel(version="2.0", files={"big.bin": os.urandom(MIB)})),
        "upload of another project": lambda: side.upload(*make_wheel("other")),
        "legacy upload": lambda: side.ask(
            "POST", f"{side.pypi}/legacy/", legacy % (DIGEST.encode(), sdist.encode(), content), **kind
        ),
        "yank": lambda: side.ask("PUT", f"{side.api}/python/1/{WHEEL}/yank"),
        "deletion": lambda: side.ask("DELETE", f"{side.api}/python/1/{WHEEL}"),
        "status": lambda: side.ask("PUT", f"{side.api}/package/python/toolbox/status", b"status=archived", **FORM),
    }


def check_nothing_is_torn(side: Side) -> None:
    done = packhouse(side.storage, "check")
    assert done.returncode == 0, done.stdout
    assert not list((side.storage / side.org / side.repo / ".tmp").glob("*"))


# --- full ---


def test_on_a_full_disk_changes_are_507_and_reads_go_on_and_free_space_is_enough_to_go_on(disk, server, side):
    disk.fill()

    refused = {what: change() for what, change in changes(side).items()}
    check_reads(side)
    refused |= {f"{what} once more": change() for what, change in changes(side).items()}

    assert {what: status for what, (status, _, _) in refused.items()} == dict.fromkeys(refused, 507)
    assert all(int(headers["Retry-After"]) > 0 for _, headers, _ in refused.values())
    disk.free()
    check_nothing_is_torn(side)
    check_reads(side)
    done = {what: change()[0] for what, change in changes(side).items()}
    assert {what: status for what, status in done.items() if status not in (200, 201)} == {}
    assert server.process.poll() is None


def test_a_body_that_fills_the_disk_is_507_and_leaves_nothing(disk, server, side):
    """The space ends in the middle of the body, while the event loop writes it."""
    if isinstance(disk, Shimmed):
        disk.fill()

    status, headers, _ = side.upload(*make_wheel(version="2.0", files={"big.bin": os.urandom(8 * MIB)}))

    assert status == 507
    assert int(headers["Retry-After"]) > 0
    check_reads(side)
    if isinstance(disk, Shimmed):
        disk.free()
    check_nothing_is_torn(side)
    assert side.upload(*make_wheel(version="2.0"))[0] == 201


# --- read-only ---


def test_on_a_read_only_disk_changes_are_503_and_reads_go_on_and_so_do_changes_when_it_is_writable(
    disk, server, side
):
    disk.make_read_only()

    refused = {what: change() for what, change in changes(side).items()}
    check_reads(side)

    assert {what: status for what, (status, _, _) in refused.items()} == dict.fromkeys(refused, 503)
    assert all(int(headers["Retry-After"]) > 0 for _, headers, _ in refused.values())
    disk.make_writable()
    check_nothing_is_torn(side)
    done = {what: change()[0] for what, change in changes(side).items()}
    assert {what: status for what, status in done.items() if status not in (200, 201)} == {}
    assert server.process.poll() is None


# --- every other error, through the app ---

NUMBERS = [("ENOSPC", 507), ("EDQUOT", 507)] + [
    (name, 503) for name in ("EROFS", "EIO", "EACCES", "EMFILE", "ENFILE", "EPERM")
]


@pytest.mark.parametrize(("name", "status"), NUMBERS)
def test_each_change_answers_each_error_of_the_system_and_goes_well_afterwards(
    app, client, registry, repository, tokens, name, status
):
    number = getattr(errno, name)
    registry.create_repository(ORG, "next", RepositorySettings(name="Next"))
    everywhere = registry.tokens.create(ORG, None, frozenset(Scope), TESTER)[1]
    admin = basic(everywhere)
    browser = visitor(app, registry, "ada", None)
    registry.users.change_role("ada", ORG, "admin")
    add_to(repository, WHEEL, CONTENT)
    api = f"/api/v1/repos/{ORG}/{REPO}"

    def upload(address: str, field: str, **more: str):
        data = {**more, field: (io.BytesIO(SDIST[1]), SDIST[0])}
        return client.post(address, data=data, headers=admin, buffered=True)

    def page(address: str, **form: str):
        return browser.post(f"/{ORG}/{REPO}{address}", form)

    acts = {
        "v1 upload": lambda: upload(f"{api}/packages.json", "package[package_file]"),
        "legacy upload": lambda: upload(
            f"/{ORG}/{REPO}/pypi/legacy/", "content", **{":action": "file_upload", "sha256_digest": DIGEST}
        ),
        "yank": lambda: client.put(f"{api}/python/1/{WHEEL}/yank", headers=admin, buffered=True),
        "status": lambda: client.put(
            f"{api}/package/python/toolbox/status", data={"status": "deprecated"}, headers=admin, buffered=True
        ),
        "repository": lambda: client.post(
            "/api/v1/repos.json", data={"name": "made", "organization": ORG}, headers=admin, buffered=True
        ),
        "settings": lambda: page("/settings", name="Main", description="changed"),
        "registry token": lambda: page("/settings/tokens", description="made"),
        "promotion": lambda: client.post(
            f"{api}/python/1/{WHEEL}/promote.json",
            data={"destination": f"{ORG}/next"},
            headers=admin,
            buffered=True,
        ),
    }
    for what, act in acts.items():
        with between(Fault(1, number, lasting=True)):
            failed = act()
            read = client.get(f"/{ORG}/{REPO}/pypi/files/toolbox/{WHEEL}", headers=admin, buffered=True)

        assert (what, failed.status_code) == (what, status)
        assert int(failed.headers["Retry-After"]) > 0
        assert (read.status_code, read.data) == (200, CONTENT)
        assert act().status_code in (200, 201, 303), what


def test_a_file_system_without_locks_is_503(tmp_path, monkeypatch):
    """ENOLCK, as an NFS without a lock daemon has it."""

    def refuse(*_args: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    registry = Registry(tmp_path / "data", lock_timeout=0.2)
    registry.create_organization(ORG)
    repository = registry.create_repository(ORG, REPO, RepositorySettings(name="Main"))
    token = registry.tokens.create(ORG, None, frozenset(Scope), TESTER)[1]
    client = visitor_client(registry, tmp_path)
    add_to(repository, WHEEL, CONTENT)
    monkeypatch.setattr(fcntl, "flock", refuse)

    failed = client.put(f"/api/v1/repos/{ORG}/{REPO}/python/1/{WHEEL}/yank", headers=basic(token), buffered=True)
    read = client.get(f"/{ORG}/{REPO}/pypi/files/toolbox/{WHEEL}", headers=basic(token), buffered=True)

    assert (failed.status_code, read.status_code) == (503, 200)
    assert int(failed.headers["Retry-After"]) > 0


def visitor_client(registry: Registry, folder: Path):
    return create_app(Settings(storage=folder / "data"), registry).test_client()


def next_descriptor(pid: int) -> int:
    """Return the number that the next file of a process gets, when its connections have settled."""
    seen: list[set[int]] = []
    while len(seen) < 10 or any(look != seen[-1] for look in seen[-10:]):
        assert len(seen) < 500, "the server's descriptors never settle"
        seen.append({int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()})
        time.sleep(0.05)
    return next(number for number in range(len(seen[-1]) + 1) if number not in seen[-1])


def test_a_server_out_of_file_descriptors_is_503_and_recovers(tmp_path):
    server = start_server(tmp_path / "data")
    try:
        side = Side(server, make_repository(server, "main"))
        assert side.upload(WHEEL, CONTENT)[0] == 201
        pid = server.process.pid
        before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        # Room for the connection, and for nothing that its request would open.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (next_descriptor(pid) + 1, before[1]))
        status, headers, _ = side.upload(*make_wheel(version="2.0"))
        # Not even for the connection.
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (next_descriptor(pid), before[1]))
        connection = http.client.HTTPConnection(side.host, timeout=30)
        connection.request("GET", "/healthz")
        time.sleep(0.5)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)
        late = connection.getresponse().status
        connection.close()
        done = [side.upload(*make_wheel(version="2.0")), side.get("toolbox", WHEEL)]
    finally:
        server.stop()

    assert (status, late) == (503, 200)
    assert int(headers["Retry-After"]) > 0
    assert [status for status, _, _ in done] == [201, 200]
    assert done[1][2] == CONTENT
