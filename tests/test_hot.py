"""Hot pages: the same answers by another road, and none that is no longer true."""

from __future__ import annotations

import os
import re
import socket
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest

import storage.watching
from storage.events import read_events
from storage.files import COARSE_CLOCK
from storage.registry import Registry
from storage.repository import RepositorySettings
from storage.statuses import ProjectStatus, Status
from storage.tokens import Scope
from storage.watching import Watch
from tests.conftest import TESTER, LiveServer, add_to, start_server, wait_until
from tests.storage.makers import make_wheel
from web.hot import is_free_of_secrets

JSON = "application/vnd.pypi.simple.v1+json"
SETTLED = 2.2  # seconds after a change until what was made from it may be kept


class Site:
    """A live server with a public and a private repository whose pages may be kept."""

    def __init__(self, server: LiveServer) -> None:
        self.server = server
        self.registry = Registry(server.storage)
        self.registry.create_organization("acme")
        for name, private in (("open", False), ("closed", True)):
            self.registry.create_repository("acme", name, RepositorySettings(name=name, private=private))
            for project in ("toolbox", "anvil"):
                add_to(self.repository(name), *make_wheel(project, "1.0", requires_python=">=3.8"))
        self.token = self.make_token()
        self.asked = Counter[str]()  # requests by User-Agent

    def repository(self, name: str):
        return self.registry.repository("acme", name)

    def make_token(self, **more) -> str:
        return self.registry.tokens.create("acme", "closed", frozenset({Scope.READ_PACKAGES}), TESTER, **more)[1]

    def ask(self, *heads: str) -> list[tuple[bytes, bytes]]:
        """Send requests on one connection, each after the answer before it; return heads and bodies."""
        host, _, port = self.server.url.removeprefix("http://").partition(":")
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            return [self._exchange(connection, head) for head in heads]

    def _exchange(self, connection: socket.socket, head: str) -> tuple[bytes, bytes]:
        self.asked[re.search(r"\r\nUser-Agent: (.*)\r\n", head)[1]] += 1
        connection.sendall(head.encode("latin-1"))
        received = b""
        while b"\r\n\r\n" not in received:
            received += connection.recv(65536)
        answer, _, body = received.partition(b"\r\n\r\n")
        lines = [line for line in answer.split(b"\r\n") if not line.startswith(b"Date: ")]
        length = next((int(x[16:]) for x in lines if x.lower().startswith(b"content-length: ")), 0)
        if not head.startswith("HEAD") and not answer.startswith(b"HTTP/1.1 304"):
            while len(body) < length:
                body += connection.recv(65536)
        return b"\r\n".join(lines), body

    def is_hot(self, mark: str) -> bool:
        """Whether a request with *mark* in its User-Agent was answered without the app.

        Not the last line counts: the task thread notes its answer when the client may have asked again.
        """
        return any(line.split()[-2] == "-" for line in self.logged(mark))  # such an answer has no request id

    def logged(self, mark: str) -> list[str]:
        """Return what the log says of the requests with *mark* in their User-Agent, once all are there."""
        lines: list[str] = []

        def all_are_there() -> bool:
            lines[:] = [line for line in self.server.log.read_text().splitlines() if f'"{mark}"' in line]
            return len(lines) == self.asked[mark]

        wait_until(all_are_there)
        return lines


def head(path: str, method: str = "GET", agent: str = "test", **headers: str) -> str:
    fields = {"Host": "127.0.0.1", "User-Agent": agent, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return f"{method} {path} HTTP/1.1\r\n" + "".join(f"{k}: {v}\r\n" for k, v in fields.items()) + "\r\n"


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Iterator[Site]:
    server = start_server(tmp_path_factory.mktemp("hot") / "data")
    site = Site(server)
    time.sleep(SETTLED)
    yield site
    server.stop()


def every_request(site: Site) -> Iterator[str]:
    """Yield requests with all that matters to an answer of the index."""
    good = {"Authorization": f"Bearer {site.token}"}
    pages = [("open", {}), ("open", {"Authorization": "Bearer x"}), ("closed", {}), ("closed", good)]
    for repository, credential in pages:
        for page in ("", "toolbox/", "Toolbox/", "nothing/"):
            path = f"/acme/{repository}/pypi/simple/{page}"
            for accept in ({}, {"Accept": JSON}, {"Accept": "image/png"}):
                for coding in ({}, {"Accept_Encoding": "gzip"}, {"Accept_Encoding": "gzip, zstd"}):
                    yield head(path, **credential, **accept, **coding)
            yield head(path, "HEAD", **credential)
            yield head(path, "POST", **credential)
            yield head(f"{path}?format={JSON.replace('+', '%2B')}", **credential)
            yield head(path, **credential, If_None_Match="*")
            yield head(path, **credential, If_None_Match='"other"')


def test_both_roads_give_the_same_answers(site: Site):
    requests = list(every_request(site))

    first = site.ask(*requests)
    second = site.ask(*requests)

    assert len(requests) > 150
    assert [answer[0].split(b"\r\n")[0] for answer in second] == [a[0].split(b"\r\n")[0] for a in first]
    assert second == first


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("conditional", [False, True], ids=["whole", "not modified"])
def test_the_second_road_is_taken(site: Site, method, conditional):
    agent = f"road-{method}-{conditional}"
    more = {"If_None_Match": "*"} if conditional else {}
    request = head("/acme/open/pypi/simple/toolbox/", method, agent, **more)

    site.ask(request)
    assert not site.is_hot(agent)
    site.ask(request)
    assert site.is_hot(agent)


def test_pipelined_requests_are_answered_in_their_order(site: Site):
    host, _, port = site.server.url.removeprefix("http://").partition(":")
    paths = [f"/acme/open/pypi/simple/{name}/" for name in ("toolbox", "anvil", "nothing", "toolbox")]
    site.ask(*(head(path) for path in paths))

    with socket.create_connection((host, int(port)), timeout=20) as connection:
        last = head(paths[-1], Connection="close")
        connection.sendall("".join([*(head(path) for path in paths[:-1]), last]).encode())
        received = b""
        while chunk := connection.recv(65536):
            received += chunk

    order = [received.find(word) for word in (b"Links for toolbox", b"Links for anvil", b"'nothing'")]
    assert order == sorted(order)
    assert received.count(b"Links for toolbox</h1>") == 2


def warm(site: Site, *requests: str) -> list[tuple[bytes, bytes]]:
    """Ask until the answers are kept, and return them."""
    site.ask(*requests)
    return site.ask(*requests)


def changed(site: Site, request: str, change) -> tuple[bytes, bytes]:
    """Return the answer to *request*, which was kept, right after *change*."""
    time.sleep(SETTLED)
    [(status, _)] = warm(site, request)
    assert status.startswith(b"HTTP/1.1 200")

    change()

    [answer] = site.ask(request)
    return answer


OPEN = "/acme/open/pypi/simple/toolbox/"
CLOSED = "/acme/closed/pypi/simple/toolbox/"


def test_a_new_file_is_on_the_very_next_page(site: Site):
    _, body = changed(site, head(OPEN), lambda: add_to(site.repository("open"), *make_wheel("toolbox", "2.0")))

    assert b"toolbox-2.0-py3-none-any.whl" in body


METADATA = "/acme/open/pypi/files/anvil/anvil-1.0-py3-none-any.whl.metadata"


def test_core_metadata_is_given_again_by_the_second_road_until_its_project_changes(site: Site):
    requests = [head(METADATA, agent="metadata"), head(METADATA, "HEAD"), head(METADATA, Range="bytes=0-9")]
    time.sleep(SETTLED)
    first = site.ask(*requests)
    assert site.ask(*requests) == first
    assert site.ask(requests[0]) == first[:1]
    assert site.is_hot("metadata")
    assert first[0][1].startswith(b"Metadata-Version: ")
    assert first[2][1] == first[0][1][:10]

    repository = site.repository("open")
    quarantined = ProjectStatus(Status.QUARANTINED, "looks bad")
    status, _ = changed(site, requests[0], lambda: repository.change_status("anvil", quarantined, TESTER))
    repository.change_status("anvil", ProjectStatus(), TESTER)

    assert status.startswith(b"HTTP/1.1 404")


@pytest.mark.parametrize("name", ["..", "%2e%2e", "other-1.0.tar.gz", "anvil-1.0.tar.gz", ""])
def test_core_metadata_that_is_not_there_is_404_on_both_roads(site: Site, name):
    request = head(f"/acme/open/pypi/files/anvil/{name}.metadata")

    answers = [site.ask(request)[0][0] for _ in range(2)]

    assert all(answer.startswith(b"HTTP/1.1 404") for answer in answers)


def test_a_new_project_is_in_the_very_next_list(site: Site):
    request = head("/acme/open/pypi/simple/")

    _, body = changed(site, request, lambda: add_to(site.repository("open"), *make_wheel("hammer", "1.0")))

    assert b'href="hammer/"' in body


def test_a_yank_and_a_status_are_on_the_very_next_page(site: Site):
    repository = site.repository("open")
    filename = "toolbox-1.0-py3-none-any.whl"

    _, body = changed(site, head(OPEN), lambda: repository.yank_file("toolbox", filename, "broken", TESTER))
    assert b'data-yanked="broken"' in body
    quarantined = ProjectStatus(Status.QUARANTINED, "looks bad")
    _, body = changed(site, head(OPEN), lambda: repository.change_status("toolbox", quarantined, TESTER))
    assert filename.encode() not in body
    repository.change_status("toolbox", ProjectStatus(), TESTER)
    repository.unyank_file("toolbox", filename, TESTER)


def test_a_revoked_token_is_refused_on_the_next_request(site: Site):
    token = site.make_token()

    status, _ = changed(
        site,
        head(CLOSED, Authorization=f"Bearer {token}"),
        lambda: site.registry.tokens.revoke(token.split("_")[1]),
    )

    assert status.startswith(b"HTTP/1.1 401")


def test_a_repository_made_private_is_closed_on_the_next_request(site: Site):
    repository = site.repository("open")

    status, _ = changed(site, head(OPEN), lambda: repository.change_settings({"private": True}))
    repository.change_settings({"private": False})

    assert status.startswith(b"HTTP/1.1 401")


def test_a_token_that_expires_is_refused_from_that_moment(site: Site):
    token = site.make_token(lifetime=timedelta(seconds=4))
    request = head(CLOSED, Authorization=f"Bearer {token}")
    time.sleep(SETTLED)
    [(status, _)] = warm(site, request)
    assert status.startswith(b"HTTP/1.1 200")

    time.sleep(4)

    [(status, _)] = site.ask(request)
    assert status.startswith(b"HTTP/1.1 401")


def test_a_file_damaged_behind_our_back_hides_within_two_seconds(site: Site):
    repository = site.repository("open")
    artifact = repository.tree.artifact("anvil", "anvil-1.0-py3-none-any.whl")
    content = artifact.read_bytes()
    request = head("/acme/open/pypi/simple/anvil/")
    warm(site, request)

    artifact.write_bytes(content[:-1])
    time.sleep(2)

    [(_, body)] = site.ask(request)
    artifact.write_bytes(content)
    assert b"anvil-1.0" not in body


def test_the_last_use_of_a_token_is_noted_on_both_roads_and_logged(site: Site):
    token = site.make_token()
    request = head(CLOSED, agent="noted", Authorization=f"Bearer {token}")
    time.sleep(SETTLED)

    warm(site, request)

    assert site.is_hot("noted")
    assert site.registry.tokens.last_use(token.split("_")[1]).client == "noted"
    assert all(f"token:{token.split('_')[1]}" in line for line in site.logged("noted"))


def test_curl_sees_no_difference(site: Site):
    command = ["curl", "-s", "-i", "--compressed", f"{site.server.url}{OPEN}"]

    outputs = [subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(3)]

    without_date = [[line for line in out.splitlines() if not line.startswith("Date:")] for out in outputs]
    assert without_date[0] == without_date[1] == without_date[2]


def test_a_request_with_a_body_is_not_answered_before_its_body_is_in(site: Site):
    request = head("/acme/open/pypi/simple/anvil/", agent="with a body", Content_Length="5")
    host, _, port = site.server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        for _ in range(3):
            connection.sendall(request.encode())
            connection.settimeout(0.3)
            with pytest.raises(TimeoutError):
                connection.recv(1)
            connection.settimeout(20)
            connection.sendall(b"hello")
            assert connection.recv(65536).startswith(b"HTTP/1.1 200 ")


@dataclass
class Watched:
    """What an answer may be made from."""

    near: Path
    folder: Path
    events: Path

    def watch(self) -> Watch:
        return Watch([self.near], self.folder, self.events)


@pytest.fixture
def watched(tmp_path) -> Watched:
    made = Watched(tmp_path / "near", tmp_path / "folder", tmp_path / "events")
    made.near.write_text("1")
    made.folder.mkdir()
    made.events.write_text("{}\n")
    return made


def test_those_who_ask_at_the_same_time_look_once_and_who_comes_later_looks_anew(watched):
    watch, same_file = watched.watch(), watched.watch()
    looks = {}
    assert watch.holds(looks)

    watched.near.write_text("22")

    assert watch.holds(looks)
    assert same_file.holds(looks)
    assert not watch.holds({})
    assert not same_file.holds({})


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_every_range_of_a_file_arrives_as_it_was_asked_for(site: Site, method):
    name = "anvil-1.0-py3-none-any.whl"
    content = site.repository("open").tree.artifact("anvil", name).read_bytes()
    ranges = {"0-0": content[:1], "5-": content[5:], "-7": content[-7:], "10-20": content[10:21], "0-": content}
    requests = [head(f"/acme/open/pypi/files/anvil/{name}", method, Range=f"bytes={part}") for part in ranges]

    answers = site.ask(*requests)

    assert all(status.startswith(b"HTTP/1.1 206 ") for status, _ in answers)
    assert [body for _, body in answers] == ([b""] * 5 if method == "HEAD" else list(ranges.values()))
    lengths = [f"Content-Length: {len(part)}".encode() for part in ranges.values()]
    assert all(length in status.split(b"\r\n") for length, (status, _) in zip(lengths, answers, strict=True))


@pytest.mark.parametrize("young", ["near", "folder"])
def test_what_has_just_changed_is_not_kept(watched, young):
    time.sleep(COARSE_CLOCK + 0.1)  # their ctime, which nobody can set
    assert watched.watch().is_settled

    os.utime(getattr(watched, young))

    assert not watched.watch().is_settled


def test_a_change_of_the_folder_is_seen_when_something_has_happened(watched, monkeypatch):
    clock = time.monotonic()
    monkeypatch.setattr(storage.watching.time, "monotonic", lambda: clock)
    watch = watched.watch()
    assert watch.holds({})

    (watched.folder / "behind our back").touch()
    assert watch.holds({})
    with watched.events.open("a") as events:
        events.write("{}\n")

    assert not watch.holds({})


def test_a_change_of_the_folder_behind_our_back_is_seen_a_second_later(watched, monkeypatch):
    clock = [time.monotonic()]
    monkeypatch.setattr(storage.watching.time, "monotonic", lambda: clock[0])
    watch = watched.watch()
    assert watch.holds({})

    (watched.folder / "behind our back").touch()
    clock[0] += 1.01

    assert not watch.holds({})


def test_without_a_list_of_what_happened_the_folder_is_looked_at_on_every_use(watched):
    watched.events.unlink()
    watch = watched.watch()
    assert watch.holds({})
    assert watch.holds({})

    (watched.folder / "new").touch()

    assert not watch.holds({})


def test_a_change_that_could_not_be_recorded_is_on_the_very_next_page(site: Site):
    repository = site.repository("open")
    events, aside = repository.tree.events_file, repository.tree.events_file.with_name("aside")

    def publish_without_a_trace():
        events.rename(aside)
        events.mkdir()
        add_to(repository, *make_wheel("toolbox", "7.0"))

    try:
        _, body = changed(site, head(OPEN), publish_without_a_trace)
    finally:
        events.rmdir()
        aside.rename(events)

    assert b"toolbox-7.0-py3-none-any.whl" in body


def test_a_file_that_is_sent_again_because_it_was_damaged_is_on_the_very_next_page(site: Site):
    repository, (name, content) = site.repository("open"), make_wheel("toolbox", "8.0")
    add_to(repository, name, content)
    repository.tree.artifact("toolbox", name).write_bytes(content[:-1])

    _, body = changed(site, head(OPEN), lambda: add_to(repository, name, content))

    assert name.encode() in body
    assert list(read_events(repository.tree.events_file))[-1]["event"] == "mended"


SECRETS = ["Authorization: Basic eA==", "Cookie: packhouse=x", "X-Api-Key: x", "Proxy-Authorization: x"]


@pytest.mark.parametrize("line", [*SECRETS, *(line.upper() for line in SECRETS)])
def test_a_head_that_may_hold_a_secret_is_not_remembered_as_it_is(line):
    public = b"GET /acme/open/pypi/simple/x/ HTTP/1.1\r\nHost: x\r\nUser-Agent: pip/26\r\n%b\r\n"

    assert is_free_of_secrets(public % b"")
    assert is_free_of_secrets(public % b'accept-encoding: gzip\r\nIf-None-Match: "x"\r\n')
    assert not is_free_of_secrets(public % f"{line}\r\n".encode())


@pytest.mark.parametrize("target", [b"/x/?token=pkh_1", b"http://me:pkh_1@x/y/", b"//me:pkh_1@x/y/"])
def test_an_address_that_may_hold_a_secret_is_not_remembered_as_it_is(target):
    assert not is_free_of_secrets(b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % target)
