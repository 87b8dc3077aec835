"""What happened in a repository, by whom and when: one JSON object a line, append-only."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO

from storage.files import append_line, open_regular
from storage.sidecars import Actor, format_time, now, parse_time


def record_event(path: Path, event: str, actor: Actor, **facts: object) -> None:
    """Append what *actor* did to the events file *path*; everybody sees it at once, and it is soon on disk.

    *event* is a word such as "published" or "yanked"; *facts* are JSON values.
    """
    document = {"time": format_time(now()), "event": event, "by": actor.to_json(), **facts}
    append_line(path, json.dumps(document).encode())


def read_events(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the events in *path*, oldest first; lines that a crash left torn are passed over."""
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return
    with file:
        for line in file:
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if isinstance(document, dict):
                yield document


# --- from the end ---

BLOCK = 64 * 1024  # bytes read at a time
MAX_LOOKED_AT = 4 * 1024 * 1024  # bytes; so much is looked through for one page of events


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    time: datetime  # aware UTC
    kind: str  # such as "published"
    by: Actor
    facts: dict[str, Any]  # whatever else was noted

    def fact(self, key: str) -> str:
        """Return a fact as text; "" if it was not noted, or is no text."""
        value = self.facts.get(key)
        return value if isinstance(value, str) else ""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Some events, the newest first."""

    events: list[Event]
    older: int | None  # where the next page begins; None: there is nothing older


def newest_events(
    path: Path, wanted: Callable[[Event], bool] = lambda event: True, *, before: int | None = None, number: int = 50
) -> EventPage:
    """Return the newest *number* events that are *wanted*; those that stand before the byte *before*, if given.

    Reads the file from its end, and never more than :data:`MAX_LOOKED_AT` of it, so that a page costs the same
    however long the file is: a page may hold fewer events than there are, and yet name where the next begins.
    """
    found: list[Event] = []
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return EventPage([], None)
    with file:
        end = file.seek(0, os.SEEK_END)
        end = end if before is None else min(max(before, 0), end)
        for start, line in _lines_backwards(file, end):
            event = _event_in(line)
            if event is not None and wanted(event):
                found.append(event)
            if len(found) >= number or end - start >= MAX_LOOKED_AT:
                return EventPage(found, start or None)
    return EventPage(found, None)


def _lines_backwards(file: BinaryIO, end: int) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of *file* before the byte *end*, the last first, each with the byte where it begins."""
    position, chunk = end, b""
    while position > 0:
        step = min(BLOCK, position)
        position -= step
        file.seek(position)
        chunk = file.read(step) + chunk
        stop = len(chunk)
        while (cut := chunk.rfind(b"\n", 0, stop)) >= 0:
            if cut + 1 < stop:
                yield position + cut + 1, chunk[cut + 1 : stop]
            stop = cut
        chunk = chunk[:stop]
        if len(chunk) > MAX_LOOKED_AT:  # no event is so long
            yield position, b""
            chunk = b""
    if chunk:
        yield 0, chunk


def _event_in(line: bytes) -> Event | None:
    """Return the event in *line*; None if it is none: torn by a crash, or written by somebody else."""
    try:
        document = json.loads(line)
        when, kind, by = document.pop("time"), document.pop("event"), document.pop("by")
        return Event(parse_time(when), str(kind), Actor.from_json(by), document)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
