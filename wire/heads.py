"""The head of an answer: status line, headers, and the date at its end."""

from __future__ import annotations

from functools import lru_cache

from waitress.utilities import build_http_date

IDENT = "Packhouse"  # the Server header; no versions


def start_of_head(status: str, headers: list[tuple[str, str]], version: str = "1.1") -> bytes:
    """Status line and headers up to the Date, which comes last because it is never the same.

    :raises ValueError: if a header would break out of its line.
    """
    lines = [
        f"HTTP/{version} {status}",
        *(f"{name}: {value}" for name, value in headers),
        f"Server: {IDENT}",
        "Date: ",
    ]
    head = "\r\n".join(lines).encode("latin-1")
    if head.count(b"\r") != len(lines) - 1 or head.count(b"\n") != len(lines) - 1:
        raise ValueError("a header of the answer has a line break")
    return head


@lru_cache(maxsize=4)
def _end_of_head_at(second: int) -> bytes:
    date: str = build_http_date(second)
    return date.encode() + b"\r\n\r\n"


def end_of_head(now: float) -> bytes:
    """The value of the Date header and the end of the head."""
    return _end_of_head_at(int(now))
