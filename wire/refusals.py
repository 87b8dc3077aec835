"""Refusals of our own: what the server answers to requests that the application never sees."""

from __future__ import annotations

from wire.interface import Refusal


class Refused(Exception):
    """Carries the refusal up to where the request is ended."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


def plain(status: str, sentence: str) -> Refusal:
    """Return a refusal in plain text."""
    body = f"{sentence}\n".encode()
    return Refusal(status, [("Content-Type", "text/plain; charset=utf-8")], body)


def bad(sentence: str) -> Refused:
    """Return, to be raised, what ends a request that is not HTTP."""
    return Refused(plain("400 Bad Request", sentence))


TOO_LARGE = plain("413 Content Too Large", "The request's body is larger than what is accepted here.")
FAILED = plain("500 Internal Server Error", "The server failed on this request. Its log says why.")
