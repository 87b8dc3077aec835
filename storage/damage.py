"""Damage is said once in the life of the process, so that one bad file does not fill the log."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

log = logging.getLogger("packhouse.storage")


@lru_cache(maxsize=10_000)
def report_damage(path: Path, reason: str) -> None:
    """Log that *path* is damaged, unless that was said already."""
    log.warning("%s %s; run 'packhouse check'", path, reason)
