"""Download counts: by file and day, of many processes, over restarts, and never in the way of a download."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from storage import downloads
from storage.downloads import DownloadCounter, downloads_of, drop_downloads
from storage.layout import RepositoryTree
from storage.locks import lock
from storage.repository import Repository
from tests.conftest import HERE, wait_until

WHEEL = "toolbox-1.0-py3-none-any.whl"
SDIST = "toolbox-1.0.tar.gz"
TODAY = datetime.now(UTC).date()


@pytest.fixture
def tree(repository: Repository) -> RepositoryTree:
    return repository.tree


@pytest.fixture
def counter(monkeypatch) -> DownloadCounter:
    """A counter whose thread never wakes: the test says when it writes."""
    monkeypatch.setattr(DownloadCounter, "_run", lambda self: None)
    return DownloadCounter()


def counts(tree: RepositoryTree, filename: str = WHEEL, project: str = "toolbox") -> int:
    return sum(downloads_of(tree, project, filename).values())


def test_nothing_was_downloaded_at_first(tree):
    assert downloads_of(tree, "toolbox", WHEEL) == {}


def test_downloads_are_counted_by_project_and_file(tree, counter):
    for project, filename, number in (("toolbox", WHEEL, 3), ("toolbox", SDIST, 1), ("other", WHEEL, 2)):
        for _ in range(number):
            counter.count(tree, project, filename)

    counter.flush()

    assert (counts(tree), counts(tree, SDIST), counts(tree, project="other")) == (3, 1, 2)
    assert counts(tree, SDIST, "other") == 0


def test_downloads_are_counted_by_day_in_utc(tree, counter, monkeypatch):
    class Clock(datetime):
        moments = iter(["2026-11-24T23:59:59+00:00", "2026-11-25T00:00:00+00:00", "2026-11-25T12:00:00+00:00"])

        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(next(cls.moments)).astimezone(tz)

    monkeypatch.setattr(downloads, "datetime", Clock)
    for _ in range(3):
        counter.count(tree, "toolbox", WHEEL)

    counter.flush()

    assert downloads_of(tree, "toolbox", WHEEL) == {date(2026, 11, 24): 1, date(2026, 11, 25): 2}


def test_counts_go_on_after_a_restart(tree, counter):
    counter.count(tree, "toolbox", WHEEL)
    counter.flush()
    later = DownloadCounter()
    later.count(tree, "toolbox", WHEEL)
    later.flush()

    assert downloads_of(tree, "toolbox", WHEEL) == {TODAY: 2}


def test_what_is_counted_is_written_within_a_second_without_being_asked(tree):
    counter = DownloadCounter()
    for expected in (1, 2, 3):
        began = time.monotonic()
        counter.count(tree, "toolbox", WHEEL)
        wait_until(lambda expected=expected: counts(tree) == expected)
        assert time.monotonic() - began < 5  # a second on a machine with nothing else to do
    assert downloads.FLUSH_INTERVAL < 1


def test_many_threads_lose_no_count(tree, counter):
    def count() -> None:
        for _ in range(200):
            counter.count(tree, "toolbox", WHEEL)
            if threading.current_thread().name == "flusher":
                counter.flush()

    threads = [threading.Thread(target=count, name=name) for name in ("flusher", "a", "b", "c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    counter.flush()

    assert counts(tree) == 800


# --- never in the way ---


def test_counting_waits_for_no_disk_and_no_lock(tree):
    counter = DownloadCounter()
    with lock(tree.lock_file(".downloads-toolbox"), "the test"):
        began = time.monotonic()
        for _ in range(1000):
            counter.count(tree, "toolbox", WHEEL)
        assert time.monotonic() - began < 1
        assert counts(tree) == 0

    wait_until(lambda: counts(tree) == 1000)


def test_what_cannot_be_written_is_tried_again_though_nobody_downloads_anything(tree, monkeypatch):
    failures = iter([OSError(28, "full"), OSError(5, "failing")])
    real = downloads.put_file

    def put_file(*arguments, **options):
        if (error := next(failures, None)) is not None:
            raise error
        real(*arguments, **options)

    monkeypatch.setattr(downloads, "FLUSH_INTERVAL", 0.01)
    monkeypatch.setattr(downloads, "put_file", put_file)

    DownloadCounter().count(tree, "toolbox", WHEEL)

    wait_until(lambda: counts(tree) == 1)


def test_a_mistake_of_ours_does_not_end_the_counting(tree, monkeypatch, caplog):
    failures = iter([ZeroDivisionError("a mistake")])
    real = downloads.put_file

    def put_file(*arguments, **options):
        if (error := next(failures, None)) is not None:
            raise error
        real(*arguments, **options)

    monkeypatch.setattr(downloads, "FLUSH_INTERVAL", 0.01)
    monkeypatch.setattr(downloads, "put_file", put_file)
    counter = DownloadCounter()
    counter.count(tree, "toolbox", WHEEL)
    wait_until(lambda: "a mistake" in caplog.text)

    counter.count(tree, "toolbox", WHEEL)

    wait_until(lambda: counts(tree) >= 1)


def test_the_counts_of_a_repository_that_is_gone_are_dropped(tree, counter, registry, repository):
    counter.count(tree, "toolbox", WHEEL)
    registry.delete_repository(repository.org, repository.slug)

    counter.flush()
    counter.flush()

    assert not tree.root.exists()
    assert not counter._notes


def test_folders_that_a_copy_left_out_come_back(tree, counter):
    for folder in (tree.locks, tree.downloads, tree.temporary):
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
    counter.count(tree, "toolbox", WHEEL)

    counter.flush()

    assert counts(tree) == 1


def test_a_flush_waits_for_the_one_that_is_writing(tree, counter, monkeypatch):
    """Or else the last flush of the process would find nothing, and the writing thread be killed."""
    real, writing, go_on = downloads.put_file, threading.Event(), threading.Event()

    def put_file(*arguments, **options):
        writing.set()
        go_on.wait(10)
        real(*arguments, **options)

    monkeypatch.setattr(downloads, "put_file", put_file)
    counter.count(tree, "toolbox", WHEEL)
    first = threading.Thread(target=counter.flush)
    first.start()
    writing.wait(10)
    threading.Timer(0.2, go_on.set).start()

    counter.flush()

    assert counts(tree) == 1
    first.join()


# --- damage ---


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"x": 1}',
        b'{"x": {"yesterday": 1}}',
        b'{"x": {"2026-11-24": "1"}}',
        b'{"x": {"2026-11-24": true}}',
        b'{"x": {"2026-11-24": null}}',
        b"[" * 100_000,
        b"\xff\xfe",
    ],
)
def test_damaged_counts_start_anew_and_disturb_nobody(tree, counter, content):
    tree.download_counts("toolbox").write_bytes(content)
    assert downloads_of(tree, "toolbox", WHEEL) == {}

    counter.count(tree, "toolbox", WHEEL)
    counter.flush()

    assert counts(tree) == 1


def test_a_folder_in_the_place_of_the_counts_disturbs_nobody(tree, counter):
    tree.download_counts("toolbox").mkdir()
    counter.count(tree, "toolbox", WHEEL)
    counter.count(tree, "other", WHEEL)

    counter.flush()

    assert downloads_of(tree, "toolbox", WHEEL) == {}
    assert counts(tree, project="other") == 1


def test_the_counts_are_a_file_that_people_can_read(tree, counter):
    counter.count(tree, "toolbox", WHEEL)
    counter.flush()

    assert json.loads(tree.download_counts("toolbox").read_text()) == {WHEEL: {TODAY.isoformat(): 1}}
    assert list(tree.temporary.iterdir()) == []


# --- forgetting ---


def test_the_counts_of_one_file_are_forgotten(tree, counter):
    for filename in (WHEEL, SDIST):
        counter.count(tree, "toolbox", filename)
    counter.flush()

    drop_downloads(tree, "toolbox", WHEEL)
    drop_downloads(tree, "other", WHEEL)

    assert (counts(tree), counts(tree, SDIST)) == (0, 1)


def test_counts_that_cannot_be_forgotten_now_are_no_failure(tree, counter, monkeypatch, caplog):
    counter.count(tree, "toolbox", WHEEL)
    counter.flush()

    def fail(*arguments, **options):
        raise OSError(28, "full")

    monkeypatch.setattr(downloads, "put_file", fail)

    drop_downloads(tree, "toolbox", WHEEL)

    assert "full" in caplog.text


# --- several processes ---

SCRIPT = """
import sys, time
from pathlib import Path
from storage.downloads import DownloadCounter
from storage.layout import RepositoryTree
counter, tree = DownloadCounter(), RepositoryTree(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    counter.count(tree, "toolbox", "toolbox-1.0-py3-none-any.whl")
    time.sleep(float(sys.argv[3]))
print("counted", flush=True)
time.sleep(float(sys.argv[4]))
"""


def start(tree: RepositoryTree, number: int, pause: float, stay: float) -> subprocess.Popen[str]:
    arguments = [sys.executable, "-c", SCRIPT, str(tree.root), str(number), str(pause), str(stay)]
    environment = {**os.environ, "PYTHONPATH": str(HERE)}
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True, env=environment, cwd=Path(tree.root))


def test_the_counts_of_several_processes_add_up_to_the_last_one(tree):
    processes = [start(tree, 50, 0.01, 0) for _ in range(3)]

    for process in processes:
        process.communicate(timeout=60)
        assert process.returncode == 0

    assert counts(tree) == 150


def test_kill_9_loses_nothing_that_is_older_than_a_second(tree):
    process = start(tree, 20, 0, 60)
    assert process.stdout.readline() == "counted\n"
    wait_until(lambda: counts(tree) == 20)

    process.send_signal(signal.SIGKILL)
    process.communicate(timeout=60)

    assert counts(tree) == 20
    successor = DownloadCounter()
    successor.count(tree, "toolbox", WHEEL)
    successor.flush()
    assert counts(tree) == 21
