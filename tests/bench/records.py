"""What was measured: a JSON line for each figure of each round, and the medians over the rounds."""

from __future__ import annotations

import json
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path


class Records:
    """The figures of one run, which are written down as they come."""

    def __init__(self, path: Path | None) -> None:
        """Begin with none; *path* gets the JSON lines, None: nobody does."""
        self._path = path
        self._figures: dict[tuple[str, str, str], list[float]] = defaultdict(list)
        self.loads: list[float] = []  # what else the machine did: load averages of one minute

    def note(self, measure: str, target: str, **figures: float) -> None:
        """Write down what *measure* gave for *target* in one round."""
        self._remember(measure, target, figures)
        self.loads.append(os.getloadavg()[0])
        rounded = {name: round(figure, 4) for name, figure in figures.items()}
        line = {"time": round(time.time(), 1), "measure": measure, "target": target, **rounded}
        if self._path is not None:
            with self._path.open("a") as file:
                file.write(json.dumps(line) + "\n")

    def median(self, measure: str, target: str, figure: str) -> float | None:
        """Return the median over the rounds; None if it was not measured."""
        found = self._figures.get((measure, target, figure))
        return statistics.median(found) if found else None

    @classmethod
    def read(cls, path: Path) -> Records:
        """Return the figures of an earlier run."""
        records = cls(None)
        for line in path.read_text().splitlines():
            record = json.loads(line)
            record.pop("time")
            records._remember(record.pop("measure"), record.pop("target"), record)
        return records

    def _remember(self, measure: str, target: str, figures: dict[str, float]) -> None:
        for name, figure in figures.items():
            self._figures[measure, target, name].append(figure)
