"""Locks: against other processes, and among the threads of one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

import storage
from storage import locks
from storage.errors import StorageBusy
from storage.locks import lock
from tests.conftest import wait_until

HOLDER = """
import sys, time
from pathlib import Path
from storage.locks import lock
with lock(Path(sys.argv[1]), "it"):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def hold():
    """Hold a lock in another process: ``hold(path)`` returns that process."""
    holders = []

    def hold(path: Path) -> subprocess.Popen[str]:
        environ = {**os.environ, "PYTHONPATH": str(Path(storage.__file__).parent.parent)}
        command = [sys.executable, "-c", HOLDER, str(path)]
        holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ)
        holders.append(holder)
        assert holder.stdout.readline() == "held\n"
        return holder

    yield hold
    for holder in holders:
        holder.kill()
        holder.wait()
        holder.stdout.close()


def test_a_lock_that_another_process_holds_is_waited_for_and_then_given_up(tmp_path, hold):
    hold(tmp_path / "lock")

    with pytest.raises(StorageBusy) as caught, lock(tmp_path / "lock", "the project 'x'", timeout=0.2):
        pass

    assert str(caught.value) == "the project 'x' is being changed by somebody else; gave up after 0.2 s, try again"


def test_a_killed_holder_frees_its_lock(tmp_path, hold):
    holder = hold(tmp_path / "lock")
    holder.send_signal(signal.SIGKILL)
    holder.wait()

    with lock(tmp_path / "lock", "it", timeout=0.2):
        held = True

    assert held


def test_a_lock_is_held_against_the_same_process_too(tmp_path):
    with (
        lock(tmp_path / "lock", "it", timeout=0.2),
        pytest.raises(StorageBusy),
        lock(tmp_path / "lock", "it", timeout=0.05),
    ):
        pass

    with lock(tmp_path / "lock", "it", timeout=0.2):
        held_again = True
    assert held_again


# --- queues ---


def test_threads_that_cannot_be_spared_do_not_wait_for_a_lock_that_nobody_lets_go(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    monkeypatch.setattr(locks, "_patient_threads", 1)

    def wait() -> float:
        begin = time.monotonic()
        with pytest.raises(StorageBusy), lock(path, "it", 3.0):
            pass
        return time.monotonic() - begin

    holder = FileLock(path, thread_local=False)
    with holder, ThreadPoolExecutor(4) as threads:
        patient = threads.submit(wait)
        time.sleep(0.1)
        spared = [threads.submit(wait).result() for _ in range(3)]

    assert patient.result() >= 3.0
    assert max(spared) < 2.0


def test_threads_wait_however_many_they_are_while_one_after_the_other_gets_the_lock(tmp_path, monkeypatch):
    path, got = tmp_path / "lock", []
    monkeypatch.setattr(locks, "_patient_threads", 0)

    def change(number: int) -> None:
        with lock(path, "it", 20.0):
            time.sleep(0.15)
            got.append(number)

    with ThreadPoolExecutor(12) as threads:
        list(threads.map(change, range(12)))

    assert sorted(got) == list(range(12))
    assert locks._queues == {}


def test_threads_of_one_process_get_a_lock_in_the_order_in_which_they_came(tmp_path):
    path, got = tmp_path / "lock", []

    def change(number: int) -> None:
        with lock(path, "it", 20.0):
            got.append(number)

    threads = [threading.Thread(target=change, args=[number]) for number in range(10)]
    with lock(path, "it"):
        for number, thread in enumerate(threads, 1):
            thread.start()
            wait_until(lambda number=number: locks._queues[path].waiting == number)
    for thread in threads:
        thread.join()

    assert got == list(range(10))


def locked_in_turn(path: Path, monkeypatch, hand_on: float) -> int:
    """Let three threads that wait for a lock have it one after the other; return how often its file was locked."""
    monkeypatch.setattr(locks, "HAND_ON", hand_on)
    asked, acquire = [], FileLock.acquire

    def counted(self, *args, **kwargs):
        proxy = acquire(self, *args, **kwargs)
        asked.append(self)
        return proxy

    monkeypatch.setattr(FileLock, "acquire", counted)

    def change(_: int) -> None:
        with lock(path, "it"):
            assert FileLock(path, thread_local=False).is_locked is False  # another object, as another process has
            with pytest.raises(Timeout):
                FileLock(path, thread_local=False).acquire(timeout=0)

    with ThreadPoolExecutor() as threads:
        with lock(path, "it"):
            changes = [threads.submit(change, number) for number in range(3)]
            wait_until(lambda: locks._queues[path].waiting == 3)
        for done in changes:
            done.result(20)
    assert not locks._queues
    FileLock(path, thread_local=False).acquire(timeout=0).lock.release()  # it is free again
    return len(asked) - 1


def test_threads_that_wait_for_a_lock_hand_it_on_without_asking_the_file_again(tmp_path, monkeypatch):
    assert locked_in_turn(tmp_path / "lock", monkeypatch, 60.0) == 1


def test_threads_keep_a_lock_among_themselves_for_a_while_and_then_let_others_have_it(tmp_path, monkeypatch):
    assert locked_in_turn(tmp_path / "lock", monkeypatch, 0.0) == 4


def test_a_lock_that_is_handed_to_a_thread_which_has_just_given_up_is_let_go(tmp_path, monkeypatch):
    path = tmp_path / "lock"
    patience, given_up, handed_on = locks._Hold._patience, threading.Event(), threading.Event()

    def give_up_late(self) -> float:
        try:
            return patience(self)
        except StorageBusy:
            given_up.set()
            assert handed_on.wait(20)
            raise

    monkeypatch.setattr(locks._Hold, "_patience", give_up_late)
    monkeypatch.setattr(locks, "HAND_ON", 60.0)

    def change() -> None:
        with lock(path, "it", timeout=0.1):
            pass

    with ThreadPoolExecutor() as threads:
        with lock(path, "it"):
            waiting = threads.submit(change)
            assert given_up.wait(20)
        handed_on.set()
        with pytest.raises(StorageBusy):
            waiting.result(20)

    FileLock(path, thread_local=False).acquire(timeout=0).lock.release()


def test_a_thread_that_gives_up_does_not_keep_the_next_ones_from_their_turn(tmp_path):
    path = tmp_path / "lock"

    def change(timeout: float) -> str:
        try:
            with lock(path, "it", timeout):
                return "had it"
        except StorageBusy:
            return "gave up"

    with ThreadPoolExecutor(3) as threads:
        with lock(path, "it"):
            asked = [threads.submit(change, timeout) for timeout in (0.1, 20.0, 0.1)]
            time.sleep(0.5)
        answers = [answer.result() for answer in asked]

    assert answers == ["gave up", "had it", "gave up"]
    assert locks._queues == {}


def test_only_so_many_lock_objects_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(locks, "KEPT_LOCKS", 3)
    monkeypatch.setattr(locks, "_kept_locks", OrderedDict())

    for number in [*range(5), 4, 2, 4]:
        with lock(tmp_path / f"{number}.lock", "it"):
            pass

    assert [path.stem for path in locks._kept_locks] == ["3", "2", "4"]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_process_that_is_forked_while_a_lock_is_held_waits_for_it_as_any_other(tmp_path):
    path = tmp_path / "lock"

    with lock(path, "it"):
        child = os.fork()
        if child == 0:
            with suppress(StorageBusy), lock(path, "it", 0.1):
                os._exit(1)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

    assert code == 0
