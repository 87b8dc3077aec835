"""Stand between the storage and the operating system: count, fail, die at or record every call that changes a file.

What is caught: opening for writing (``os.open``, ``io.open``, which ``Path.open`` and ``os.fdopen`` end in), every
write of a file opened so, and the functions of ``os`` that change names or wait for the disk.
"""

from __future__ import annotations

import errno
import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

NAMING = ("link", "rename", "replace", "unlink", "remove", "mkdir", "rmdir", "truncate", "ftruncate", "fsync")
WRITING_FLAGS = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC

Before = Callable[[str, tuple, dict], None]  # called before each call, with its name and arguments
After = Callable[[str, tuple, object], None]  # called after it, with its result


def nothing(*_args: object) -> None:
    """Do nothing."""


@contextmanager
def between(before: Before = nothing, after: After = nothing) -> Iterator[None]:
    """Call *before* and *after* around every call that changes files; the disk itself is not waited for."""
    real = {name: getattr(os, name) for name in (*NAMING, "open")}
    real_io_open = io.open

    def around(name, function):
        def call(*args, **kwargs):
            before(name, args, kwargs)
            result = function(*args, **kwargs)
            after(name, (*args, kwargs), result)
            return result

        return call

    def os_open(path, flags, mode=0o777, *, dir_fd=None):
        if not flags & WRITING_FLAGS:
            return real["open"](path, flags, mode, dir_fd=dir_fd)
        before("open", (path, flags), {})
        descriptor = real["open"](path, flags, mode, dir_fd=dir_fd)
        after("open", (path, flags), descriptor)
        return descriptor

    class Watched(io.FileIO):
        def write(self, data):
            try:
                before("write", (self.fileno(), bytes(data)), {})
            except Torn:
                super().write(bytes(data)[: len(data) // 2])
                raise
            count = super().write(data)
            after("write", (self.fileno(), bytes(data)), count)
            return count

    def io_open(file, mode="r", buffering=-1, *args, **kwargs):
        if "b" not in mode or not set(mode) & set("wxa+"):
            return real_io_open(file, mode, buffering, *args, **kwargs)
        if isinstance(file, int):
            raw = Watched(file, mode.replace("b", ""))
        else:
            before("open", (file, 0), {})
            raw = Watched(file, mode.replace("b", ""))
            after("open", (file, 0), raw.fileno())
        return raw if buffering == 0 else io.BufferedWriter(raw)

    try:
        for name in NAMING:
            setattr(os, name, around(name, nothing if name == "fsync" else real[name]))
        os.open, io.open = os_open, io_open
        yield
    finally:
        for name, function in real.items():
            setattr(os, name, function)
        io.open = real_io_open


class Torn(OSError):
    """The call fails; if it is a write, half of it has happened."""


class Fault:
    """Fails at the *n*-th call with *number*: at that one alone, or at all that need space from then on."""

    GROWING = ("open", "write", "link", "rename", "replace", "mkdir", "fsync")

    def __init__(self, n: int, number: int, *, lasting: bool = False) -> None:
        self.n, self.number, self.lasting = n, number, lasting
        self.count = 0

    @property
    def was_met(self) -> bool:
        return self.count >= self.n

    def __call__(self, name: str, _args: tuple, _kwargs: dict) -> None:
        self.count += 1
        if self.count == self.n or (self.lasting and self.count > self.n and name in self.GROWING):
            raise Torn(self.number, os.strerror(self.number))


DIED = 77


def dies_at(n: int, action: Callable[[], object]) -> bool:
    """Do *action* in a process of its own that dies at the *n*-th call; return whether there was such a call."""
    child = os.fork()
    if child == 0:
        count = 0

        def die(name: str, args: tuple, _kwargs: dict) -> None:
            nonlocal count
            count += 1
            if count == n:
                if name == "write":
                    os.write(args[0], args[1][: len(args[1]) // 2])
                os._exit(DIED)

        try:
            with between(die):
                action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, DIED), f"the action failed in its process: {code}"
    return code == DIED


FULL, BROKEN = errno.ENOSPC, errno.EIO


def path_of(descriptor: int) -> Path:
    """The path that *descriptor* was opened under (or the one it has been moved to since)."""
    return Path(f"/proc/self/fd/{descriptor}").readlink()
