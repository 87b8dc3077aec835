"""Files on their way in, small ones and large ones: hashed, written, synced and removed alike."""

from __future__ import annotations

import hashlib
import io
import os
import random
import threading
from contextlib import closing

import pytest

from storage import uploads
from storage.errors import FileTooLarge
from storage.files import set_syncing
from storage.limits import MIB
from storage.uploads import SMALL, Incoming, copy_into
from tests.conftest import wait_until
from tests.storage.faults import path_of

SIZES = {"nothing": 0, "small": 1000, "the largest small": SMALL, "large": SMALL + 1, "larger": 3 * MIB}


@pytest.mark.parametrize("size", SIZES.values(), ids=SIZES.keys())
def test_what_comes_in_is_written_and_hashed_whatever_its_size(tmp_path, size):
    content = random.Random(7).randbytes(size)
    with closing(Incoming(tmp_path, 4 * MIB)) as incoming:
        copy_into(incoming, io.BytesIO(content))

        assert incoming.size == size
        assert incoming.content.read() == content
        incoming.sync()
        assert incoming.path.read_bytes() == content
        for name in ("md5", "sha1", "sha256", "sha512"):
            assert getattr(incoming.digests, name) == hashlib.new(name, content).hexdigest()
        assert incoming.digests.blake2b_256 == hashlib.blake2b(content, digest_size=32).hexdigest()

    assert list(tmp_path.iterdir()) == []


def test_a_small_file_is_only_written_when_it_is_asked_for(tmp_path):
    with closing(Incoming(tmp_path, MIB)) as incoming:
        incoming.write(b"nonsense")

        assert incoming.digests.md5
        assert incoming.content.read() == b"nonsense"
        assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [1000, 2 * MIB])
def test_a_file_over_the_limit_is_refused_as_soon_as_that_is_known(tmp_path, limit):
    with closing(Incoming(tmp_path, limit)) as incoming:
        for _ in range(limit // MIB):
            incoming.write(bytes(MIB))
        with pytest.raises(FileTooLarge):
            incoming.write(bytes(MIB))

        assert incoming.size <= limit + MIB
    wait_until(lambda: not list(tmp_path.iterdir()))


def test_a_disk_that_fails_in_the_middle_is_told(tmp_path, monkeypatch):
    def fail(file, piece):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(uploads, "write_all", fail)
    with closing(Incoming(tmp_path, 64 * MIB)) as incoming:
        incoming.write(bytes(MIB))

        with pytest.raises(OSError, match="No space"):
            incoming.finish()
        with pytest.raises(OSError, match="No space"):
            incoming.write(bytes(MIB))
    wait_until(lambda: not list(tmp_path.iterdir()))


def test_an_upload_that_is_given_up_leaves_nothing_and_nobody_waits_for_it(tmp_path, monkeypatch):
    begun, may_go, real = threading.Event(), threading.Event(), uploads.write_all

    def hang(file, piece):
        begun.set()
        may_go.wait(10)
        real(file, piece)

    monkeypatch.setattr(uploads, "write_all", hang)
    incoming = Incoming(tmp_path, 64 * MIB)
    incoming.write(bytes(MIB))
    assert begun.wait(10)
    incoming.close()

    assert incoming.path.exists()
    may_go.set()
    wait_until(lambda: not list(tmp_path.iterdir()))
    incoming.close()


def test_a_large_file_goes_to_the_disk_while_it_comes_in(tmp_path, monkeypatch):
    calls = []
    monkeypatch.setattr(uploads, "SYNC_STEP", MIB)
    monkeypatch.setattr(os, "fdatasync", lambda descriptor: calls.append(path_of(descriptor)))
    set_syncing(True)
    try:
        with closing(Incoming(tmp_path, 64 * MIB)) as incoming:
            copy_into(incoming, io.BytesIO(bytes(4 * MIB)))
            incoming.sync()

            assert incoming.path in calls
    finally:
        set_syncing(False)


def test_an_error_of_the_disk_that_was_told_while_the_file_came_in_is_not_forgotten(tmp_path, monkeypatch):
    def fail(descriptor):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(uploads, "SYNC_STEP", MIB)
    monkeypatch.setattr(os, "fdatasync", fail)
    set_syncing(True)
    try:
        with closing(Incoming(tmp_path, 64 * MIB)) as incoming:
            copy_into(incoming, io.BytesIO(bytes(MIB + SMALL)))
            with pytest.raises(OSError, match="Input/output"):
                incoming.sync()
    finally:
        set_syncing(False)
    wait_until(lambda: not list(tmp_path.iterdir()))
