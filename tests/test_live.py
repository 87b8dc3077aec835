"""A running server as an administrator meets it: signals, crashes, two servers, commands beside it, and memory."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import re
import shutil
import signal
import socket
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import LiveRepository, curl, make_repository
from tests.conftest import ORG, LiveServer, packhouse, start_server
from tests.storage.makers import make_metadata, make_record, make_wheel, make_wheel_file

MIB = 1024 * 1024

# Bytes of the upload that must not show in the server's memory. As large as is accepted with PACKHOUSE_TEST_BIG=1.
BIG = 1023 * MIB if {os.environ.get(f"PACKHOUSE_TEST_{word}") for word in ("BIG", "WHOLE")} & {"1"} else 300 * MIB
MOST_MEMORY = 32 * MIB  # bytes that it may add to the server's peak


@pytest.fixture
def starting(tmp_path: Path) -> Iterator:
    """Start servers that are stopped at the end: ``starting()``, and again on the same storage."""
    with contextlib.ExitStack() as stack:

        def start(*flags: str, **variables: str) -> LiveServer:
            server = start_server(tmp_path / "data", *flags, env=variables)
            stack.callback(server.stop)
            return server

        yield start


def wait_for(condition, what: str, seconds: float = 20):
    """Wait until *condition* returns something true, and return it."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.01)
    return found


class Upload:
    """An upload over a connection of its own, sent in pieces."""

    def __init__(self, repository: LiveRepository, filename: str, content: bytes) -> None:
        self.repository = repository
        start = f'--b\r\nContent-Disposition: form-data; name="package[package_file]"; filename="{filename}"\r\n'
        body = f"{start}Content-Type: application/octet-stream\r\n\r\n".encode() + content + b"\r\n--b--\r\n"
        credential = base64.b64encode(f"{repository.write_token}:".encode()).decode()
        path = repository.publish_url.removeprefix(repository.server.url)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Basic {credential}\r\n"
            f"Content-Type: multipart/form-data; boundary=b\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        host, _, port = repository.server.url.removeprefix("http://").partition(":")
        self.socket = socket.create_connection((host, int(port)), timeout=20)
        self.left = head.encode() + body

    def send(self, part: float) -> None:
        """Send *part* of what is left, and wait until the server has begun to write the file."""
        length = int(len(self.left) * part)
        self.socket.sendall(self.left[:length])
        self.left = self.left[length:]
        folder = temporary_folder(self.repository)
        wait_for(lambda: any(path.stat().st_size for path in folder.glob(".*")), "the server writes the file")

    def finish(self) -> bytes:
        """Send the rest and return the whole answer."""
        with self.socket as connection:
            connection.sendall(self.left)
            return b"".join(iter(lambda: connection.recv(65536), b""))


def temporary_folder(repository: LiveRepository) -> Path:
    """The folder of what is being written."""
    return repository.server.storage / repository.org / repository.slug / ".tmp"


def refuses_connections(server: LiveServer) -> bool:
    host, _, port = server.url.removeprefix("http://").partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=5).close()
    except ConnectionError:
        return True
    return False


# --- stopping ---

SIGNALS = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_lets_an_upload_come_to_its_end(starting, number):
    server = starting()
    repository = make_repository(server, "main")
    filename, content = make_wheel(files={"big.bin": os.urandom(2 * MIB)})
    upload = Upload(repository, filename, content)
    upload.send(part=0.5)

    server.process.send_signal(number)
    wait_for(lambda: refuses_connections(server), "no new connection is accepted")
    answer = upload.finish()

    assert answer.startswith(b"HTTP/1.1 201 ")
    assert server.process.wait(20) == 0
    assert make_readable(starting(), repository).listed("toolbox") == [filename]


def make_readable(server: LiveServer, repository: LiveRepository) -> LiveRepository:
    """Return *repository* as another server on the same storage serves it."""
    return LiveRepository(server, repository.org, repository.slug, repository.read_token, repository.write_token)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_lets_a_download_come_to_its_end(starting, tmp_path, number):
    server = starting()
    repository = make_repository(server, "main", public=True)
    filename, content = make_wheel(files={"big.bin": os.urandom(32 * MIB)})
    repository.publish(filename, content, cwd=tmp_path)
    host, _, port = server.url.removeprefix("http://").partition(":")
    path = f"/{ORG}/main/pypi/files/toolbox/{filename}"

    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        received = connection.recv(1024)
        server.process.send_signal(number)
        wait_for(lambda: refuses_connections(server), "no new connection is accepted")
        received += b"".join(iter(lambda: connection.recv(MIB), b""))

    assert received.partition(b"\r\n\r\n")[2] == content
    assert server.process.wait(20) == 0


@pytest.mark.parametrize("number", SIGNALS)
def test_a_stop_waits_only_so_long_for_a_client_that_does_nothing(starting, number):
    server = starting(PACKHOUSE_STOP_TIMEOUT="1")
    repository = make_repository(server, "main")
    upload = Upload(repository, *make_wheel(files={"big.bin": os.urandom(2 * MIB)}))
    upload.send(part=0.5)

    server.process.send_signal(number)

    with upload.socket:
        assert server.process.wait(20) == 0
    assert not list(temporary_folder(repository).glob(".*.tmp"))


# --- starting ---


def test_only_the_first_start_prints_secrets(starting):
    first = starting()
    first.stop()

    second = starting()

    assert first.output.count("pkh_") == 3  # publishing once, reading twice
    assert second.output.count("\n") == 1
    assert "pkh_" not in second.output
    assert first.password not in second.output


def test_secrets_are_not_in_the_log(starting, tmp_path):
    server = starting()
    repository = make_repository(server, "main")
    repository.publish(*make_wheel(), cwd=tmp_path)
    repository.listed("toolbox")
    curl(repository.index_url("pkh_no_no"), cwd=tmp_path)
    server.stop()

    log = server.log.read_text().removeprefix(server.output)

    assert "pkh_" not in log


def test_a_taken_port_is_named_and_leaves_nothing_behind(starting, tmp_path):
    port = starting().url.rpartition(":")[2]

    done = packhouse(tmp_path / "other", "serve", "--port", port)

    assert done.returncode == 1
    assert done.stderr.startswith("Error: ")
    assert port in done.stderr
    assert not (tmp_path / "other").exists()


# --- a crash ---


def test_a_server_killed_during_an_upload_starts_again_and_takes_the_same_upload(starting, tmp_path):
    server = starting()
    repository = make_repository(server, "main")
    repository.publish(*make_wheel("neighbour"), cwd=tmp_path)
    filename, content = make_wheel(files={"big.bin": os.urandom(2 * MIB)})
    upload = Upload(repository, filename, content)
    upload.send(part=0.9)

    server.stop(signal.SIGKILL)
    upload.socket.close()
    repository = make_readable(starting(), repository)
    before = repository.listed(), repository.listed("toolbox")
    answer = repository.try_to_publish(filename, content, cwd=tmp_path)

    assert before == (["neighbour"], [])
    assert answer.status == 201
    assert (repository.listed(), repository.listed("toolbox")) == (["neighbour", "toolbox"], [filename])
    assert packhouse(server.storage, "check").returncode == 0


@pytest.mark.parametrize("delay", [0.0, 0.005, 0.01, 0.02, 0.04])
def test_a_server_killed_at_any_moment_has_a_file_whole_or_not_at_all(starting, tmp_path, delay):
    server = starting()
    repository = make_repository(server, "main")
    filename, content = make_wheel(files={"big.bin": os.urandom(MIB)})
    upload = Upload(repository, filename, content)
    upload.send(part=0.9)

    upload.socket.sendall(upload.left)
    time.sleep(delay)
    server.stop(signal.SIGKILL)
    upload.socket.close()
    repository = make_readable(starting(), repository)

    listed = repository.listed("toolbox")
    assert listed in ([], [filename])
    assert repository.listed() == (["toolbox"] if listed else [])
    assert repository.try_to_publish(filename, content, cwd=tmp_path).status == (200 if listed else 201)
    assert packhouse(server.storage, "check").returncode == 0


def test_what_was_answered_with_success_survives_a_kill(starting, tmp_path):
    server = starting()
    repository = make_repository(server, "main")
    names = [f"toolbox{number}" for number in range(10)]
    for name in names:
        repository.publish(*make_wheel(name), cwd=tmp_path)

    server.stop(signal.SIGKILL)

    assert make_readable(starting(), repository).listed() == names


# --- two servers on one storage ---


def test_two_servers_on_one_storage_show_each_others_uploads_at_once(starting, tmp_path):
    one = make_repository(starting(), "main")
    two = make_readable(starting(), one)
    files = []

    for number in range(10):  # faster than the file system's clock ticks
        for publishing, reading in ((one, two), (two, one)):
            filename, content = make_wheel(version=f"1.{len(files)}")
            publishing.publish(filename, content, cwd=tmp_path)
            files.append(filename)
            assert sorted(reading.listed("toolbox")) == sorted(files), number
            assert sorted(publishing.listed("toolbox")) == sorted(files), number


def test_a_new_project_shows_at_once_in_the_root_page_of_the_other_server(starting, tmp_path):
    one = make_repository(starting(), "main")
    two = make_readable(starting(), one)
    names = []

    for number in range(10):
        publishing, reading = (one, two) if number % 2 else (two, one)
        names.append(f"toolbox{number}")
        publishing.publish(*make_wheel(names[-1]), cwd=tmp_path)

        assert reading.listed() == names


def test_a_name_is_taken_for_both_servers(starting, tmp_path):
    one = make_repository(starting(), "main")
    two = make_readable(starting(), one)
    one.publish(*make_wheel(summary="One"), cwd=tmp_path)

    answers = [two.try_to_publish(*make_wheel(summary=summary), cwd=tmp_path) for summary in ("One", "Two")]

    assert [answer.status for answer in answers] == [200, 422]


# --- commands beside a running server ---


def test_a_token_works_as_soon_as_it_is_made_and_not_once_it_is_revoked(live_server, tmp_path):
    repository = make_repository(live_server, "robots")
    scopes = ["--scope", "read_packages", "--scope", "write_packages"]
    (tmp_path / "toolbox-1.0-py3-none-any.whl").write_bytes(make_wheel()[1])
    upload = ["-F", "package[package_file]=@toolbox-1.0-py3-none-any.whl", repository.publish_url]

    made = packhouse(live_server.storage, "token", "create", f"{ORG}/robots", *scopes)
    token = made.stdout.strip()
    first = curl("-u", f"{token}:", *upload, cwd=tmp_path)
    revoked = packhouse(live_server.storage, "token", "revoke", token.split("_")[1])
    second = curl("-u", f"{token}:", *upload, cwd=tmp_path)

    assert re.fullmatch(r"pkh_\w+_\w+\n", made.stdout)
    assert (made.returncode, revoked.returncode) == (0, 0)
    assert (first.status, second.status) == (201, 401)


def test_imported_files_show_at_once(live_server, tmp_path):
    repository = make_repository(live_server, "imports")
    folder = tmp_path / "dist" / "deeper"
    folder.mkdir(parents=True)
    for name in ("one", "two"):
        filename, content = make_wheel(name)
        (folder / filename).write_bytes(content)

    done = packhouse(live_server.storage, "import", f"{ORG}/imports", str(tmp_path / "dist"))

    assert (done.returncode, done.stdout) == (0, "2 stored, 0 already there, 0 refused.\n")
    assert repository.listed() == ["one", "two"]
    assert repository.listed("one") == ["one-1.0-py3-none-any.whl"]


def test_a_repository_is_there_as_soon_as_it_is_made_and_gone_once_it_is_deleted(live_server, tmp_path):
    org = packhouse(live_server.storage, "org", "create", "team")
    repo = packhouse(live_server.storage, "repo", "create", "team/tools", "--public")
    url = f"{live_server.url}/team/tools/pypi/simple/"
    made = curl(url, cwd=tmp_path).status
    private = packhouse(live_server.storage, "repo", "update", "team/tools", "--private")
    hidden = curl(url, cwd=tmp_path).status
    deleted = packhouse(live_server.storage, "repo", "delete", "team/tools", "--yes")
    gone = curl("-u", f"admin:{live_server.password}", url, cwd=tmp_path).status

    assert [done.returncode for done in (org, repo, private, deleted)] == [0, 0, 0, 0]
    assert (made, hidden, gone) == (200, 401, 404)


def test_a_users_new_password_counts_at_once(live_server, tmp_path):
    make_repository(live_server, "people")
    url = f"{live_server.url}/{ORG}/people/pypi/simple/"
    role = ["--role", f"{ORG}=reader", "--password-stdin"]

    packhouse(live_server.storage, "user", "create", "ada", *role, input="first password\n")
    first = curl("-u", "ada:first password", url, cwd=tmp_path).status
    packhouse(live_server.storage, "user", "passwd", "ada", "--password-stdin", input="second password\n")
    second = [curl("-u", f"ada:{word} password", url, cwd=tmp_path).status for word in ("first", "second")]
    packhouse(live_server.storage, "user", "delete", "ada")
    third = curl("-u", "ada:second password", url, cwd=tmp_path).status

    assert (first, second, third) == (200, [401, 200], 401)


# --- memory ---


def write_big_wheel(folder: Path, size: int) -> Path:
    """Write a stored wheel with *size* bytes in one member that cannot be compressed."""
    piece, digest = os.urandom(MIB), hashlib.sha256()
    path = folder / "big-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        with wheel.open("big/data.bin", "w", force_zip64=True) as member:
            for _ in range(size // MIB):
                member.write(piece)
                digest.update(piece)
        small = {"big-1.0.dist-info/METADATA": make_metadata("big"), "big-1.0.dist-info/WHEEL": make_wheel_file()}
        written = base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()
        line = f"big/data.bin,sha256={written},{size}\n".encode()
        small["big-1.0.dist-info/RECORD"] = line + make_record(small, "big-1.0.dist-info/RECORD")
        for name, content in small.items():
            wheel.writestr(name, content)
    return path


@pytest.fixture
def big_wheel(tmp_path: Path) -> Iterator[Path]:
    """A big wheel; it and what was stored of it do not stay on the disk."""
    yield write_big_wheel(tmp_path, BIG)
    shutil.rmtree(tmp_path)


def memory(server: LiveServer, key: str) -> int:
    """Return a figure of the server's memory, in bytes: VmRSS is what it has, VmHWM the peak of that."""
    status = Path(f"/proc/{server.process.pid}/status").read_text()
    return int(re.search(rf"^{key}:\s+(\d+) kB$", status, re.MULTILINE)[1]) * 1024


def forget_peak(server: LiveServer) -> None:
    Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # proc(5): resets VmHWM


def test_an_upload_is_never_whole_in_memory(big_wheel, starting, tmp_path):
    server = starting()
    repository = make_repository(server, "main")
    repository.publish(*make_wheel(), cwd=tmp_path)  # whatever the first upload costs
    forget_peak(server)
    before = memory(server, "VmHWM")

    answer = repository.try_to_publish_file(big_wheel)

    assert answer.status == 201
    assert memory(server, "VmHWM") - before < MOST_MEMORY


def test_a_download_is_never_whole_in_memory(big_wheel, starting, tmp_path):
    server = starting()
    repository = make_repository(server, "main", public=True)
    assert packhouse(server.storage, "import", f"{ORG}/main", str(big_wheel)).returncode == 0
    url = f"{server.url}/{ORG}/main/pypi/files/big/{big_wheel.name}"
    curl("-r", "0-9", url, cwd=tmp_path)
    forget_peak(server)
    before = memory(server, "VmHWM")

    answer = curl("-o", os.devnull, "-D", "-", url, cwd=tmp_path)

    assert f"Content-Length: {big_wheel.stat().st_size}" in answer.body
    assert repository.listed() == ["big"]
    assert memory(server, "VmHWM") - before < MOST_MEMORY
