"""What happened in a repository, by whom and when: one JSON object a line, append-only."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from storage.files import append_line, open_regular
from storage.sidecars import Actor, format_time, now


def record_event(path: Path, event: str, actor: Actor, **facts: object) -> None:
    """Append what *actor* did to the events file *path*; on disk when this returns.

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
