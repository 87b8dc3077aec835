"""``packhouse serve --processes N``: one listening socket, workers that are replaced, one end for all."""

from __future__ import annotations

import os
import signal
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from tests.conftest import LiveServer, start_server, wait_until

INDEX = "/my-organization/my-python-packages/pypi/simple/"


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def status_of(server: LiveServer, path: str = "/healthz") -> int:
    try:
        with urllib.request.urlopen(server.url + path, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code


def is_running(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.fixture
def server(tmp_path):
    server = start_server(tmp_path / "data", "--processes", "2")
    wait_until(lambda: len(children(server.process.pid)) == 2)
    yield server
    server.stop()


def test_a_worker_that_dies_is_replaced_and_the_others_serve_meanwhile(server):
    first, second = children(server.process.pid)

    os.kill(first, signal.SIGKILL)

    assert status_of(server) == 200
    wait_until(lambda: len(children(server.process.pid)) == 2 and first not in children(server.process.pid))
    assert second in children(server.process.pid)
    assert status_of(server) == 200


def test_sigterm_to_the_parent_ends_all(server):
    workers = children(server.process.pid)

    code = server.stop()

    assert code == 0
    assert not any(is_running(worker) for worker in workers)


def test_workers_do_not_outlive_a_parent_that_was_killed(server):
    workers = children(server.process.pid)

    server.process.kill()
    server.process.wait()

    wait_until(lambda: not any(is_running(worker) for worker in workers))


@pytest.mark.parametrize("processes", ["1", "2"])
def test_sighup_reads_the_configuration_again(tmp_path, processes):
    config = tmp_path / "config.toml"
    config.write_text('log_level = "info"\n')
    server = start_server(tmp_path / "data", "--processes", processes, "--config", str(config))
    try:
        assert status_of(server, INDEX) == 401
        config.write_text("max_request_header_size = 300\n")

        server.process.send_signal(signal.SIGHUP)

        request = urllib.request.Request(server.url + INDEX, headers={"X-Long": "x" * 300})

        def is_too_long() -> bool:
            try:
                urllib.request.urlopen(request, timeout=10)
            except urllib.error.HTTPError as error:
                return error.code == 431
            except OSError:  # the old server is closing
                return False
            return False

        wait_until(is_too_long)
        assert server.process.poll() is None
    finally:
        assert server.stop() == 0


def test_a_configuration_that_cannot_be_leaves_the_old_one_in_force(tmp_path):
    config = tmp_path / "config.toml"
    config.write_text('log_level = "info"\n')
    server = start_server(tmp_path / "data", "--config", str(config))
    try:
        config.write_text("nonsense = 1\n")

        server.process.send_signal(signal.SIGHUP)

        wait_until(lambda: "nonsense" in server.log.read_text())
        wait_until(lambda: status_of(server) == 200)
    finally:
        assert server.stop() == 0
