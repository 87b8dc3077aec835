"""What a server and its children cost: processor time and memory, from ``/proc``."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # per second
_GONE = (FileNotFoundError, ProcessLookupError)


def family(pid: int) -> list[int]:
    """Return the process and all that descend from it."""
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        for children in Path(f"/proc/{found[-1]}/task").glob("*/children"):
            with suppress(*_GONE):
                todo += map(int, children.read_text().split())
    return found


def processor_seconds(pid: int) -> float:
    """Return the processor time that the family has taken, user and system."""
    ticks = 0
    for member in family(pid):
        with suppress(*_GONE):
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


def memory(pid: int, *, peak: bool = False) -> float:
    """Return the resident memory of the family in MB, now or at its highest since :func:`forget_peak`."""
    key, kibibytes = "VmHWM:" if peak else "VmRSS:", 0
    for member in family(pid):
        with suppress(*_GONE):
            lines = Path(f"/proc/{member}/status").read_text().splitlines()
            kibibytes += sum(int(line.split()[1]) for line in lines if line.startswith(key))
    return kibibytes * 1024 / 1e6


def forget_peak(pid: int) -> None:
    """Let the highest memory count from now on."""
    for member in family(pid):
        with suppress(OSError):
            Path(f"/proc/{member}/clear_refs").write_text("5")
