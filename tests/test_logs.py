"""The access log: one line for each request, and never a secret."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import LiveServer
from web.logs import FLUSH_INTERVAL, LINES_AT_ONCE, AccessLog, without_secrets
from web.metrics import Answers, Noted

TOKEN = "pkh_0123456789ab_" + "c0ffee" * 6 + "0000"


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        (f"/acme/main/?q={TOKEN}", "/acme/main/?q=pkh_0123456789ab_..."),
        (f"/{TOKEN}/", "/pkh_0123456789ab_.../"),
        ("/x?pkh%5F0123456789ab%5Fc0ffee", "/x?pkh%5F0123456789ab_..."),
        ("/login?password=hunter2&next=/", "/login?password=...&next=/"),
        ("/acme/main/pypi/simple/", "/acme/main/pypi/simple/"),
    ],
    ids=["in a query", "in a path", "encoded", "a password field", "nothing secret"],
)
def test_a_token_in_an_address_is_cut_down_to_its_id(text, cleaned):
    assert without_secrets(text) == cleaned


ENVIRON = {
    "REQUEST_METHOD": "GET",
    "REQUEST_URI": "/acme/main/pypi/simple/",
    "REMOTE_ADDR": "192.0.2.1",
    "HTTP_USER_AGENT": "pip/99",
    "packhouse.caller": "token:0123456789ab",
    "packhouse.request_id": "abc",
}


def test_a_line_says_who_asked_for_what_and_how_it_went():
    line = AccessLog("text").line(ENVIRON, "200 OK", 123, 0.0015)

    assert line.partition(" ")[2] == (
        '192.0.2.1 token:0123456789ab GET /acme/main/pypi/simple/ 200 123B 1.5ms abc "pip/99"\n'
    )


def test_in_json_every_fact_has_a_key_of_its_own():
    facts = json.loads(AccessLog("json").line(ENVIRON, "200 OK", 123, 0.0015))

    assert facts.pop("time").endswith("Z")
    assert facts == {
        "logger": "packhouse.access",
        "request_id": "abc",
        "address": "192.0.2.1",
        "caller": "token:0123456789ab",
        "method": "GET",
        "path": "/acme/main/pypi/simple/",
        "status": 200,
        "size": 123,
        "milliseconds": 1.5,
        "client": "pip/99",
    }


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_the_line_of_an_answer_that_is_given_again_says_the_same_but_for_time_and_address(tmp_path, log_format):
    environ = dict(ENVIRON)
    with (tmp_path / "access.log").open("wb") as file:
        log = AccessLog(log_format, file.fileno())
        note = log.prepared(environ, "200 OK", 123)
        for address in ("192.0.2.1", "192.0.2.2"):
            environ["REMOTE_ADDR"] = address
            note(1.0, 1.0015)
            log(environ, "200 OK", 123, 0.0015)
        log.flush()

    written = (tmp_path / "access.log").read_text()
    lines = re.sub(r"\d{4}-\d\d-\d\dT[\d:.]+Z", "", written).splitlines()
    assert [lines[0], lines[2]] == [lines[1], lines[3]]
    assert "192.0.2.1" in lines[0]
    assert "192.0.2.2" in lines[2]


def test_an_answer_that_is_given_again_is_counted_as_any_other():
    answers = Answers()
    again = Noted(answers, None).prepared(ENVIRON, "200 OK", 100)

    answers(ENVIRON, "200 OK", 100, 0.5)
    again(7.0, 7.25)
    again(8.0, 8.25)

    text = answers.text().decode()
    assert 'method="GET"' in text
    assert re.search(r'requests_total{method="GET",process="\d+",status="200"} 3\.0', text)
    assert re.search(r'sent_bytes_total{process="\d+"} 300\.0', text)
    assert re.search(r'busy_seconds_total{process="\d+"} 1\.0', text)


@pytest.mark.parametrize("hostile", ["a\nb", "a\r\nb", "\x1b[2J", "\u2028", "\udcff", "\x85"])
def test_what_a_client_sends_stays_within_its_line(hostile):
    environ = {**ENVIRON, "REQUEST_URI": f"/{hostile}", "HTTP_USER_AGENT": hostile}

    for line in (AccessLog("text").line(environ, "200 OK", 1, 0), AccessLog("json").line(environ, "200 OK", 1, 0)):
        assert len(line.splitlines()) == 1
        assert line[:-1].isprintable()


def test_lines_are_written_in_their_order(tmp_path):
    with (tmp_path / "access.log").open("wb") as file:
        log = AccessLog("text", file.fileno())
        for number in range(1000):
            log({**ENVIRON, "REQUEST_URI": f"/{number}"}, "200 OK", 1, 0)
        log.flush()

    lines = (tmp_path / "access.log").read_text().splitlines()
    assert [line.split(" ")[4] for line in lines] == [f"/{number}" for number in range(1000)]


def log_of(server: LiveServer) -> str:
    """Return what the server has written since its welcome, which does show secrets."""
    time.sleep(2 * FLUSH_INTERVAL)
    return server.log.read_text()[len(server.output) :]


@pytest.fixture
def descriptor(tmp_path):
    """A descriptor of the file ``log``."""
    opened = os.open(tmp_path / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    yield opened
    os.close(opened)


def test_many_lines_are_written_by_whoever_brings_the_last_of_them(tmp_path, descriptor):
    log = AccessLog("text", descriptor)
    note = log.prepared(ENVIRON, "200 OK", 1)

    for _ in range(LINES_AT_ONCE - 1):
        note(1.0, 1.001)
    log(ENVIRON, "200 OK", 2, 0.001)

    sizes = [line.split()[6] for line in (tmp_path / "log").read_text().splitlines()]
    assert sizes == ["1B"] * (LINES_AT_ONCE - 1) + ["2B"]


def test_nobody_waits_for_a_log_that_is_not_read(tmp_path):
    reader, writer = os.pipe()
    log = AccessLog("text", writer)

    for size in range(5_000):  # more than a pipe holds
        log(ENVIRON, "200 OK", size, 0.001)

    written = b""
    while written.count(b"\n") < 5_000:
        written += os.read(reader, 100_000)
    assert [int(line.split()[6][:-1]) for line in written.decode().splitlines()] == list(range(5_000))
    os.close(writer)
    os.close(reader)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_log_that_takes_nothing_says_so_when_it_takes_something_again(tmp_path, descriptor, log_format):
    good = os.dup(descriptor)
    with Path("/dev/full").open("wb") as full:
        os.dup2(full.fileno(), descriptor)
    log = AccessLog(log_format, descriptor)

    for _ in range(3):
        log(ENVIRON, "200 OK", 1, 0.001)
        log.flush()
    os.dup2(good, descriptor)
    os.close(good)
    log(ENVIRON, "200 OK", 1, 0.001)
    log.flush()

    whole, lost = (tmp_path / "log").read_text().splitlines()
    assert "simple" in whole
    assert "3 lines of this log before this one could not be written" in lost
    assert log_format == "text" or json.loads(lost)["logger"] == "packhouse.access"


def test_a_real_server_logs_each_request_once_and_no_token(live_server: LiveServer):
    token = live_server.publishing_token
    index = f"{live_server.url}/my-organization/my-python-packages/pypi/simple/log-test-7/"
    subprocess.run(["curl", "-s", "-u", f"{token}:", f"{index}?token={token}"], check=True, capture_output=True)

    lines = [line for line in log_of(live_server).splitlines() if "log-test-7" in line]

    assert len(lines) == 1
    assert f"token:{token.split('_')[1]}" in lines[0]
    assert " 404 " in lines[0]
    assert token.split("_")[2] not in log_of(live_server)


def test_what_could_not_even_be_parsed_is_logged(live_server: LiveServer):
    host, _, port = live_server.url.removeprefix("http://").partition(":")
    before = log_of(live_server).count(" 400 ")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost : x\r\n\r\n")
        while connection.recv(4096):
            pass

    assert log_of(live_server).count(" 400 ") == before + 1
