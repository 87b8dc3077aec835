"""What is measured: a function for each kind of work, which writes its figures into the records.

All targets of a measure are started together and measured in turn, round by round (A B C A B C), so that a noisy
minute hits all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.bench.records import Records


@dataclass(frozen=True, slots=True)
class Plan:
    """How much to measure."""

    records: Records
    rounds: int
    seconds: int  # of each load
    quick: bool = False  # only Packhouse and the hello world, and few files
