"""Numbers, sizes and dates in words, for templates."""

from __future__ import annotations

from datetime import UTC, datetime

from flask import Flask

from storage.sidecars import format_time


def exact_time(when: datetime) -> str:
    """Return the exact time: ``2026-11-24 09:30:00 UTC``."""
    return f"{when.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def readable_date(when: datetime) -> str:
    """Return the day: ``24 Nov 2026``."""
    return f"{when.day} {when:%b %Y}"


def time_ago(when: datetime) -> str:
    """Say how long ago *when* was: ``3 days ago``."""
    seconds = max(0, int((datetime.now(UTC) - when).total_seconds()))
    units = (("year", 31_536_000), ("month", 2_592_000), ("day", 86_400), ("hour", 3600), ("minute", 60))
    for unit, length in units:
        if seconds >= length:
            return plural(seconds // length, unit) + " ago"
    return "just now"


def plural(number: int, noun: str, nouns: str = "") -> str:
    """Return ``1 file``, ``2 files``; *nouns* is the plural where it is not made with an s."""
    return f"{number:,} {noun if number == 1 else nouns or noun + 's'}"


def file_size(size: int) -> str:
    """Return a size in bytes with a unit: ``1.4 MB`` (decimal, as PyPI shows it)."""
    if size < 1000:
        return plural(size, "byte")
    amount = float(size)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.5 or unit == "GB":
            break
    return f"{amount:.1f} {unit}" if amount < 9.95 else f"{amount:,.0f} {unit}"


def add_filters(app: Flask) -> None:
    """Make these functions known to the templates of *app*."""
    for word in (exact_time, readable_date, time_ago, plural, file_size):
        app.add_template_filter(word)
    app.add_template_filter(format_time, "iso_time")
