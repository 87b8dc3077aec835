"""Two servers on one storage, clients who want the same at the same moment, and locks that somebody keeps.

With PACKHOUSE_TEST_WHOLE=1 there are ten times as many rounds.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial

import pytest

from tests.clients import LiveRepository, make_repository
from tests.conftest import LiveServer, packhouse, program_environment, start_server
from tests.storage.makers import make_sdist, make_wheel

ROUNDS = 30 if os.environ.get("PACKHOUSE_TEST_WHOLE") == "1" else 3
LOCK_TIMEOUT = 5  # seconds that these servers wait for somebody else's change


@pytest.fixture(scope="module")
def servers(tmp_path_factory) -> Iterator[tuple[LiveServer, LiveServer]]:
    storage = tmp_path_factory.mktemp("races") / "data"
    settings = {"PACKHOUSE_LOCK_TIMEOUT": str(LOCK_TIMEOUT)}
    one = start_server(storage, env=settings)
    try:
        two = start_server(storage, env=settings)
        try:
            yield one, two
        finally:
            two.stop()
    finally:
        one.stop()


@pytest.fixture
def sides(servers, request) -> tuple[Side, Side]:
    """The same new repository as each of the servers has it."""
    slug = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:60].strip("-")
    repository = make_repository(servers[0], slug)
    return Side(servers[0], repository), Side(servers[1], repository)


class Side:
    """A repository by way of one of the servers."""

    def __init__(self, server: LiveServer, repository: LiveRepository) -> None:
        self.host = server.url.removeprefix("http://")
        self.storage = server.storage
        self.org, self.repo = repository.org, repository.slug
        self.api = f"/api/v1/repos/{repository.org}/{repository.slug}"
        self.pypi = f"/{repository.org}/{repository.slug}/pypi"
        # Rights of all kinds, in one token.
        scopes = [f"--scope={scope}" for scope in ("read_packages", "write_packages", "delete_packages")]
        made = packhouse(server.storage, "token", "create", f"{self.org}/{self.repo}", *scopes)
        credential = base64.b64encode(f"{made.stdout.strip()}:".encode()).decode()
        self.headers = {"Authorization": f"Basic {credential}"}

    def ask(self, method: str, address: str, body: bytes | None = None, **headers: str):
        """Return the answer's status, headers and body."""
        connection = http.client.HTTPConnection(self.host, timeout=30)
        try:
            connection.request(method, address, body, {**self.headers, **headers})
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()
        finally:
            connection.close()

    def upload(self, filename: str, content: bytes):
        start = (
            f'--b\r\nContent-Disposition: form-data; name="package[package_file]"; filename="{filename}"\r\n\r\n'
        )
        body = start.encode() + content + b"\r\n--b--\r\n"
        kind = "multipart/form-data; boundary=b"
        return self.ask("POST", f"{self.api}/packages.json", body, **{"Content-Type": kind})

    def files(self, project: str) -> list[dict]:
        """What the index lists."""
        accept = "application/vnd.pypi.simple.v1+json"
        status, _, body = self.ask("GET", f"{self.pypi}/simple/{project}/", Accept=accept)
        assert status in (200, 404)
        return json.loads(body)["files"] if status == 200 else []

    def get(self, project: str, filename: str):
        return self.ask("GET", f"{self.pypi}/files/{project}/{filename}")


def at_once(*actions: Callable[[], object]) -> list:
    """Do all of it at the same moment, and return what came of each."""
    barrier = threading.Barrier(len(actions))

    def act(action: Callable[[], object]) -> object:
        barrier.wait()
        return action()

    with ThreadPoolExecutor(len(actions)) as threads:
        return list(threads.map(act, actions))


@contextmanager
def readers(sides: tuple[Side, Side], projects: list[str]) -> Iterator[list[str]]:
    """Read all that is listed, on both servers, all the while; yield what was read that is not whole."""
    broken: list[str] = []
    read: list[str] = []
    stop = threading.Event()

    def read_on(side: Side) -> None:
        while not stop.is_set():
            for project in projects:
                for file in side.files(project):
                    status, headers, body = side.get(project, file["filename"])
                    # Deleted between the two requests, a file is gone; what is served is whole.
                    if status == 404:
                        continue
                    read.append(file["filename"])
                    digest = hashlib.sha256(body).hexdigest()
                    tag = headers["ETag"].strip('"')
                    if status != 200 or not digest == file["hashes"]["sha256"] == tag or len(body) != file["size"]:
                        broken.append(f"{file['filename']}: {status}, {len(body)} of {file['size']} bytes")

    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(read_on, side) for side in sides]
        try:
            yield broken
        finally:
            stop.set()
            for future in futures:
                future.result(60)
    assert read, "nothing was there to be read"


def check(sides: tuple[Side, Side]) -> str:
    done = packhouse(sides[0].storage, "check", f"{sides[0].org}/{sides[0].repo}")
    return "" if done.returncode == 0 else done.stdout + done.stderr


# --- races ---


def test_of_eight_contents_under_one_name_exactly_one_is_accepted(sides):
    projects = [f"toolbox{number}" for number in range(ROUNDS)]
    with readers(sides, projects) as broken:
        for project in projects:
            contents = [make_wheel(project, summary=f"Number {number}") for number in range(8)]
            filename = contents[0][0]

            answers = at_once(
                *(
                    partial(sides[number % 2].upload, filename, content)
                    for number, (_, content) in enumerate(contents)
                )
            )

            statuses = [status for status, _, _ in answers]
            assert sorted(statuses) == [201] + [422] * 7
            winner = hashlib.sha256(contents[statuses.index(201)][1]).hexdigest()
            for side in sides:
                assert [file["hashes"]["sha256"] for file in side.files(project)] == [winner]
                assert hashlib.sha256(side.get(project, filename)[2]).hexdigest() == winner

    assert broken == []
    assert check(sides) == ""


def test_of_eight_times_the_same_content_one_makes_it_and_all_are_told_it_is_there(sides):
    filename, content = make_wheel()

    answers = at_once(*(partial(sides[number % 2].upload, filename, content) for number in range(8)))

    assert sorted(status for status, _, _ in answers) == [200] * 7 + [201]
    assert check(sides) == ""


def test_an_upload_against_a_deletion_ends_in_a_whole_file_or_in_none(sides):
    (filename, content), (_, other), neighbour = make_wheel(), make_wheel(summary="Other"), make_sdist()
    sides[0].upload(*neighbour)
    with readers(sides, ["toolbox"]) as broken:
        for number in range(2 * ROUNDS):
            one, two = sides if number % 2 else sides[::-1]
            assert one.upload(filename, content)[0] in (200, 201)

            deleted, uploaded, refused = at_once(
                partial(one.ask, "DELETE", f"{one.api}/python/1/{filename}"),
                partial(two.upload, filename, content),
                partial(two.upload, filename, other),
            )

            assert (deleted[0], refused[0]) == (200, 422)
            assert uploaded[0] in (200, 201)
            for side in sides:
                there = filename in [file["filename"] for file in side.files("toolbox")]
                # Made anew is after the deletion; "there already" was before it.
                assert there == (uploaded[0] == 201)
                assert side.get("toolbox", filename)[0] == (200 if there else 404)

    assert broken == []
    assert check(sides) == ""


def test_an_upload_against_the_deletion_of_the_only_file_ends_in_a_listed_project_or_in_none(sides):
    (filename, content), (sdist, sdist_content) = make_wheel(), make_sdist()
    for number in range(2 * ROUNDS):
        one, two = sides if number % 2 else sides[::-1]
        assert one.upload(filename, content)[0] in (200, 201)

        deleted, uploaded = at_once(
            partial(one.ask, "DELETE", f"{one.api}/python/1/{filename}"),
            partial(two.upload, sdist, sdist_content),
        )

        assert (deleted[0], uploaded[0]) == (200, 201)
        for side in sides:
            assert [file["filename"] for file in side.files("toolbox")] == [sdist]
        assert two.ask("DELETE", f"{two.api}/python/1/{sdist}")[0] == 200
        for side in sides:
            assert side.files("toolbox") == []

    assert check(sides) == ""


def test_a_yank_against_uploads_of_the_project_loses_neither(sides):
    filename, content = make_wheel()
    sides[0].upload(filename, content)
    with readers(sides, ["toolbox"]) as broken:
        for number in range(2 * ROUNDS):
            one, two = sides if number % 2 else sides[::-1]
            method = "DELETE" if number % 2 else "PUT"
            more = [make_wheel(version=f"2.{number}.{part}") for part in range(2)]

            yanked, *uploaded = at_once(
                partial(one.ask, method, f"{one.api}/python/1/{filename}/yank"),
                partial(one.upload, *more[0]),
                partial(two.upload, *more[1]),
                partial(two.upload, filename, content),
            )

            assert yanked[0] == 200
            assert [status for status, _, _ in uploaded] == [201, 201, 200]
            for side in sides:
                listed = {file["filename"]: file["yanked"] for file in side.files("toolbox")}
                assert listed[filename] == (method == "PUT")
                assert {name for name, _ in more} <= set(listed)

    assert broken == []
    assert check(sides) == ""


def test_a_yank_against_a_deletion_ends_in_a_file_of_the_trash_that_can_be_restored(sides):
    filename, content = make_wheel()
    for number in range(ROUNDS):
        one, two = sides if number % 2 else sides[::-1]
        assert one.upload(filename, content)[0] in (200, 201)

        yanked, deleted = at_once(
            partial(one.ask, "PUT", f"{one.api}/python/1/{filename}/yank"),
            partial(two.ask, "DELETE", f"{two.api}/python/1/{filename}"),
        )

        assert yanked[0] in (200, 404)
        assert deleted[0] == 200
        for side in sides:
            assert side.files("toolbox") == []
    assert check(sides) == ""


# --- locks ---

HOLDER = """
import sys, time
from pathlib import Path
from storage.registry import Registry
with Registry(Path(sys.argv[1])).repository(sys.argv[2], sys.argv[3]).locked(sys.argv[4]):
    print("held", flush=True)
    time.sleep(120)
"""


@contextmanager
def held_lock(side: Side, project: str) -> Iterator[subprocess.Popen]:
    """Another process holds the lock of *project* and does nothing."""
    command = [sys.executable, "-c", HOLDER, str(side.storage), side.org, side.repo, project]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=program_environment()) as holder:
        try:
            assert holder.stdout.readline() == b"held\n"
            yield holder
        finally:
            holder.kill()


def seconds_of(action: Callable[[], object]) -> tuple[float, object]:
    begin = time.monotonic()
    result = action()
    return time.monotonic() - begin, result


def test_a_hung_holder_of_a_projects_lock_keeps_nobody_else_waiting(sides):
    filename, content = make_wheel()
    sides[0].upload(filename, content)
    # More uploads than the servers have threads, so that waiting for the lock could occupy them all.
    with held_lock(sides[0], "toolbox"), ThreadPoolExecutor(40) as threads:
        uploads = [partial(sides[n % 2].upload, *make_wheel(version=f"2.{n}")) for n in range(40)]
        waiting = [threads.submit(seconds_of, upload) for upload in uploads]
        time.sleep(0.2)
        for number, side in enumerate(sides):
            reads = [
                f"{side.pypi}/simple/",
                f"{side.pypi}/simple/toolbox/?cold={time.time()}",
                f"{side.pypi}/files/toolbox/{filename}",
                f"{side.api}/packages.json",
                "/healthz",
            ]
            for address in reads:
                taken, (status, _, _) = seconds_of(partial(side.ask, "GET", address))
                assert (status, taken < LOCK_TIMEOUT - 2) == (200, True), (address, taken)
            taken, (status, _, _) = seconds_of(partial(side.upload, *make_wheel(f"other{number}")))
            assert (status, taken < LOCK_TIMEOUT - 2) == (201, True), taken
        answers = [future.result(60) for future in waiting]
    assert {status for _, (status, _, _) in answers} == {503}
    assert all(int(headers["Retry-After"]) > 0 for _, (_, headers, _) in answers)
    assert max(taken for taken, _ in answers) < 10
    assert max(taken for taken, _ in answers) >= LOCK_TIMEOUT  # there is some patience

    assert sides[0].upload(*make_wheel(version="3.0"))[0] == 201
    assert check(sides) == ""


def test_changes_of_a_project_whose_lock_is_held_are_503_with_a_time_to_come_back(sides):
    filename, content = make_wheel()
    sides[0].upload(filename, content)
    api = sides[0].api
    with held_lock(sides[0], "toolbox"):
        answers = at_once(
            lambda: sides[0].upload(*make_wheel(version="2.0")),
            lambda: sides[1].ask("PUT", f"{api}/python/1/{filename}/yank"),
            lambda: sides[0].ask("DELETE", f"{api}/python/1/{filename}"),
            lambda: sides[1].ask("PUT", f"{api}/package/python/toolbox/status", b"status=archived", **FORM),
        )
    assert [status for status, _, _ in answers] == [503] * 4
    assert all(int(headers["Retry-After"]) > 0 for _, headers, _ in answers)
    assert [(file["filename"], file["yanked"]) for file in sides[0].files("toolbox")] == [(filename, False)]


FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def test_by_default_a_locked_project_is_answered_503_within_ten_seconds(tmp_path):
    server = start_server(tmp_path / "data")
    try:
        side = Side(server, make_repository(server, "patience"))
        with held_lock(side, "toolbox"):
            taken, (status, headers, _) = seconds_of(lambda: side.upload(*make_wheel()))
    finally:
        server.stop()

    assert status == 503
    assert int(headers["Retry-After"]) > 0
    assert taken < 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_dead_holder_of_a_lock_is_no_obstacle(sides, number):
    with held_lock(sides[0], "toolbox") as holder, ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(sides[0].upload, *make_wheel(version="1.0"))
        time.sleep(0.2)
        holder.send_signal(number)
        holder.wait(10)
        begin = time.monotonic()
        after = sides[1].upload(*make_wheel(version="2.0"))
        assert (after[0], waiting.result(30)[0]) == (201, 201)
        assert time.monotonic() - begin < 5

    assert check(sides) == ""


def test_a_server_that_is_stopped_amid_changes_holds_up_only_its_own_project(servers, sides, tmp_path):
    """It is stopped, not killed, at any moment; whatever lock it holds then, readers of the other do not wait."""
    third = start_server(servers[0].storage, env={"PACKHOUSE_LOCK_TIMEOUT": str(LOCK_TIMEOUT)})
    try:
        stopping = Side(third, make_like(sides[0], third))
        filename, content = make_wheel("other")
        sides[0].upload(filename, content)
        with ThreadPoolExecutor(1) as threads:
            busy = threads.submit(
                lambda: [stopping.upload(*make_wheel(version=f"1.{number}"))[0] for number in range(20)]
            )
            time.sleep(0.15)
            os.kill(third.process.pid, signal.SIGSTOP)
            try:
                reads = [seconds_of(lambda side=side: side.get("other", filename)) for side in sides]
                write = seconds_of(lambda: sides[1].upload(*make_wheel("other", version="2.0")))
                same = seconds_of(lambda: sides[1].upload(*make_wheel(version="9.0")))
            finally:
                os.kill(third.process.pid, signal.SIGCONT)
            assert set(busy.result(60)) <= {201}
    finally:
        third.stop()

    assert [answer[0] for _, answer in reads] == [200, 200]
    assert write[1][0] == 201
    assert same[1][0] in (201, 503)
    assert max(taken for taken, _ in (*reads, write, same)) < 10
    assert check(sides) == ""


def make_like(side: Side, server: LiveServer) -> LiveRepository:
    """The repository of *side* at another server."""
    return LiveRepository(server, side.org, side.repo, "", "")
