"""One stream for several consumers: in order, bounded, and ended by the first error."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from storage import lanes
from storage.lanes import LEAST_SHARE, Stream
from storage.limits import KIB
from tests.conftest import wait_until

PIECES = [bytes([number]) * 10 * KIB for number in range(100)]


def test_every_consumer_gets_every_piece_in_order():
    taken = [bytearray() for _ in range(5)]
    stream = Stream([each.extend for each in taken])

    for piece in PIECES:
        stream.put(piece)
    stream.finish()

    assert all(each == b"".join(PIECES) for each in taken)


def test_a_stream_is_full_until_its_slowest_consumer_has_taken_half_of_what_waits(monkeypatch):
    monkeypatch.setattr(lanes, "ALL_STREAMS", LEAST_SHARE)
    may_go, resumed = threading.Event(), threading.Event()
    quick = bytearray()
    stream = Stream([quick.extend, lambda piece: may_go.wait(10)])

    for piece in PIECES:
        stream.put(piece)

    wait_until(lambda: len(quick) == 1000 * KIB)
    assert stream.is_full(resumed.set)
    assert not resumed.is_set()
    may_go.set()
    assert resumed.wait(10)
    assert not stream.is_full(resumed.set)
    stream.make_room()
    stream.finish()


def test_the_first_error_ends_the_stream():
    taken = []

    def fail(piece):
        raise OSError("the disk is full")

    stream = Stream([fail, taken.append])
    stream.put(PIECES[0])

    wait_until(lambda: stream.error is not None)
    stream.put(PIECES[1])
    with pytest.raises(OSError, match="the disk is full"):
        stream.finish()

    assert PIECES[1] not in taken
    assert not stream.is_full(lambda: None)


@pytest.mark.skipif(sys.platform != "linux", reason="threads have no priority of their own")
def test_whoever_answers_requests_goes_before_those_who_hash():
    priorities = []
    stream = Stream([lambda piece: priorities.append(os.getpriority(os.PRIO_PROCESS, threading.get_native_id()))])
    stream.put(PIECES[0])
    stream.finish()

    ours = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    assert priorities[0] == max(ours, lanes.NICENESS)


def test_an_abandoned_stream_ends_without_anybody_waiting():
    may_go, ended = threading.Event(), threading.Event()
    taken = []

    def take(piece):
        may_go.wait(10)
        taken.append(piece)

    stream = Stream([take])
    for piece in PIECES:
        stream.put(piece)
    stream.abandon(ended.set)

    assert not ended.is_set()
    may_go.set()
    assert ended.wait(10)
    assert len(taken) <= 1
    assert stream not in lanes._streams
