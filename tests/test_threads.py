"""The task threads: one runs at a time, as long as each takes but a moment, and nobody holds the others up."""

from __future__ import annotations

import contextlib
import threading
import time

import pytest

from tests.conftest import wait_until
from wire.threads import Threads, waiting


class Job:
    """A task that does what it is told."""

    def __init__(self, work=lambda: None):
        self.work = work
        self.thread = None
        self.done = threading.Event()
        self.cancelled = False

    def service(self):
        self.thread = threading.current_thread()
        try:
            self.work()
        finally:
            self.done.set()

    def cancel(self):
        self.cancelled = True


@pytest.fixture
def threads():
    """Start threads: threads(number, patience) gives them; they are stopped in the end."""
    with contextlib.ExitStack() as running:

        def start(number=16, patience=60.0):
            made = Threads(number, patience)
            running.callback(made.shutdown, 2)
            return made

        yield start


def do(threads, *works):
    jobs = [Job(work) for work in works]
    for job in jobs:
        threads.add_task(job)
    return jobs


def test_one_task_runs_at_a_time_and_they_keep_their_order(threads):
    order, running = [], []

    def work(number):
        running.append(number)
        time.sleep(0.002)
        order.append((number, len(running)))
        running.remove(number)

    jobs = do(threads(), *(lambda number=number: work(number) for number in range(20)))

    wait_until(lambda: all(job.done.is_set() for job in jobs))
    assert order == [(number, 1) for number in range(20)]
    assert len({job.thread for job in jobs}) == 1


def test_a_task_that_takes_long_does_not_hold_up_the_others(threads):
    release = threading.Event()
    made = threads(patience=0.01)

    slow, quick = do(made, lambda: release.wait(5), lambda: None)

    wait_until(lambda: made.look() and quick.done.is_set())
    assert not slow.done.is_set()
    release.set()
    wait_until(slow.done.is_set)


def test_no_more_threads_than_allowed_work_however_long_they_take(threads):
    release = threading.Event()
    made = threads(number=2, patience=0.005)

    jobs = do(made, *[lambda: release.wait(5)] * 2, lambda: None)

    time.sleep(0.05)
    made.look()
    time.sleep(0.05)
    made.look()
    assert jobs[1].thread is not None
    assert jobs[2].thread is None
    release.set()
    wait_until(jobs[2].done.is_set)


def test_who_waits_lends_its_place_and_has_it_again_before_the_next_task_begins(threads):
    begun, release, steps = threading.Event(), threading.Event(), []

    def wait():
        with waiting():
            begun.wait(5)
        steps.append("waited")

    def work():
        begun.set()
        release.wait(5)
        steps.append("worked")

    jobs = do(threads(), wait, work, lambda: steps.append("came last"))
    begun.wait(5)
    time.sleep(0.05)
    assert steps == []
    release.set()

    wait_until(lambda: all(job.done.is_set() for job in jobs))
    assert steps == ["worked", "waited", "came last"]


def test_who_has_waited_goes_on_even_if_the_others_never_end(threads):
    begun, release = threading.Event(), threading.Event()

    def wait():
        with waiting():
            begun.wait(5)

    def hang():
        begun.set()
        release.wait(5)

    waiter, _ = do(threads(patience=0.01), wait, hang)

    wait_until(waiter.done.is_set)
    release.set()


def test_one_may_wait_within_waiting_and_everybody_else_may_wait_too(threads):
    def wait():
        with waiting(), waiting():
            time.sleep(0.001)

    jobs = do(threads(), *[wait] * 50)

    with waiting():
        wait_until(lambda: all(job.done.is_set() for job in jobs))


def test_many_that_wait_and_work_all_come_to_their_end(threads):
    made, lock = threads(number=4, patience=0.001), threading.Lock()

    def work():
        for _ in range(5):
            with waiting():
                lock.acquire()
            with waiting():
                time.sleep(0.0005)
            lock.release()

    jobs = do(made, *[work] * 100)

    wait_until(lambda: made.look() and all(job.done.is_set() for job in jobs), 10)


def test_a_task_that_fails_is_logged_and_its_thread_lives(threads, caplog):
    def fail():
        raise ValueError("no idea")

    failed, next_one = do(threads(), fail, lambda: None)

    wait_until(next_one.done.is_set)
    assert "no idea" in caplog.text
    assert failed.thread is next_one.thread


def test_urgent_tasks_go_first(threads):
    release, order = threading.Event(), []
    made = threads()

    jobs = do(made, lambda: release.wait(5), lambda: order.append("ordinary"))
    jobs += [Job(lambda: order.append("urgent"))]
    made.add_urgent(jobs[-1])
    release.set()

    wait_until(lambda: all(job.done.is_set() for job in jobs))
    assert order == ["urgent", "ordinary"]


def test_an_urgent_task_does_not_wait_for_threads_that_hang(threads):
    release = threading.Event()
    made = threads(number=2, patience=0.005)
    hanging = do(made, *[lambda: release.wait(5)] * 3)

    for _ in range(3):
        urgent = Job()
        made.add_urgent(urgent)
        wait_until(lambda: made.look() and urgent.done.is_set(), 2)  # noqa: B023 - done before the next

    assert hanging[2].thread is None
    release.set()
    wait_until(hanging[2].done.is_set)


def test_an_urgent_task_may_take_its_time_where_an_ordinary_one_might_begin(threads):
    release, said = threading.Event(), []
    made = threads(number=2, patience=0.005)

    def settle():
        said.append(made.settle_in())
        if said[-1]:
            release.wait(5)

    jobs = [Job(settle) for _ in range(3)]
    for job in jobs:
        made.add_urgent(job)
        wait_until(lambda: made.look() and len(said) == jobs.index(job) + 1, 2)  # noqa: B023 - done before the next

    assert said == [True, True, False]
    release.set()
    wait_until(lambda: all(job.done.is_set() for job in jobs))
    [after] = do(made, lambda: said.append(made.settle_in()))
    wait_until(after.done.is_set)
    assert said[-1] is True  # it is an ordinary one anyway


def test_urgent_and_ordinary_tasks_all_come_to_their_end(threads):
    made = threads(number=3, patience=0.001)
    jobs = [Job(lambda: time.sleep(0.0005)) for _ in range(200)]

    def decide(job: Job) -> None:
        if made.settle_in():
            job.service()
        else:
            made.add_task(job)

    for job in jobs:
        made.add_urgent(Job(lambda job=job: decide(job)))

    wait_until(lambda: made.look() and all(job.done.is_set() for job in jobs))


def test_stopping_cancels_what_was_not_begun_and_waits_for_the_rest(caplog):
    made, begun, release = Threads(1), threading.Event(), threading.Event()

    def work():
        begun.set()
        release.wait(5)

    running, waiting_job = do(made, work, lambda: None)
    begun.wait(5)
    made.add_urgent(urgent := Job())
    made.shutdown(0.05)

    assert "1 thread(s) still running" in caplog.text
    assert (running.cancelled, waiting_job.cancelled, urgent.cancelled) == (False, True, True)
    release.set()
    made.shutdown(5)
    assert running.done.is_set()
    assert waiting_job.thread is None
