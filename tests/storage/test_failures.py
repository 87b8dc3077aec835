"""Failed sign-ins, counted for every process on the storage."""

from __future__ import annotations

import time

import pytest

from storage.failures import KEPT_FILES, MOST, WINDOW, SignInFailures


@pytest.fixture
def failures(tmp_path):
    return SignInFailures(tmp_path / ".failures")


def test_nobody_waits_without_failures(failures):
    assert failures.wait("user:alice", "address:192.0.2.1") == 0


def test_the_tenth_failure_makes_the_next_one_wait(failures):
    for _ in range(MOST - 1):
        failures.note("user:alice")
    assert failures.wait("user:alice") == 0

    failures.note("user:alice")

    assert 0 < failures.wait("user:alice") <= WINDOW


def test_any_of_the_keys_is_enough(failures):
    for number in range(MOST):
        failures.note("address:192.0.2.1", f"user:{number}")

    assert failures.wait("user:alice", "address:192.0.2.1") > 0
    assert failures.wait("user:alice", "address:192.0.2.2") == 0


def test_another_process_knows_them_too(failures, tmp_path):
    for _ in range(MOST):
        failures.note("user:alice")

    assert SignInFailures(tmp_path / ".failures").wait("user:alice") > 0


def test_after_a_minute_they_are_forgotten(failures, monkeypatch):
    for _ in range(MOST):
        failures.note("user:alice")

    later = time.time() + WINDOW + 1
    monkeypatch.setattr(time, "time", lambda: later)

    assert failures.wait("user:alice") == 0


@pytest.mark.parametrize("jump", [-3600, 3600])
def test_a_clock_that_jumps_locks_nobody_out_for_long(failures, monkeypatch, jump):
    for _ in range(MOST):
        failures.note("user:alice")

    then = time.time() + jump
    monkeypatch.setattr(time, "time", lambda: then)

    assert failures.wait("user:alice") == 0


@pytest.mark.parametrize("name", ["", "../x", "a/b", "\udcff", "x" * 5000])
def test_a_hostile_name_is_counted_like_any_other(failures, tmp_path, name):
    for _ in range(MOST):
        failures.note(name)

    assert failures.wait(name) > 0
    assert [path.parent for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / ".failures"]


def test_nonsense_in_its_file_counts_for_nothing(failures, tmp_path):
    failures.note("user:alice")
    [file] = (tmp_path / ".failures").iterdir()
    file.write_bytes(b"\x00\xffnonsense\nnan\ninf\n-1e400\n" * 20)

    assert failures.wait("user:alice") == 0


def test_the_folder_does_not_grow_for_ever(failures, tmp_path, monkeypatch):
    monkeypatch.setattr("storage.failures.KEPT_FILES", 5)
    for number in range(6):
        failures.note(f"user:{number}")
    later = time.time() + WINDOW + 1
    monkeypatch.setattr(time, "time", lambda: later)

    failures.note("user:new")

    assert len(list((tmp_path / ".failures").iterdir())) <= 6
    assert KEPT_FILES > 1000
