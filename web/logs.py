"""The access log: one line for each request, with who asked and never with what they showed to prove it."""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING

from server import REQUEST_ID_KEY

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

CALLER_KEY = "packhouse.caller"  # environ key: who was found to be asking, in a word

access_log = logging.getLogger("packhouse.access")

_TOKEN = re.compile(r"(pkh(?:_|%5f)[0-9a-f]{12})(?:_|%5f)[0-9a-f]+", re.IGNORECASE)
# A password in a query is nobody's custom here, but what is pasted into an address ends up there.
_SECRET_FIELD = re.compile(r"((?:^|[?&;])(?:token|password|secret|csrf_token)=)[^&;\s]*", re.IGNORECASE)


def without_secrets(text: str) -> str:
    """Return *text* with every token cut down to its id, and the values of secret fields left out."""
    return _SECRET_FIELD.sub(r"\1...", _TOKEN.sub(r"\1_...", text))


def log_answer(environ: WSGIEnvironment, status: str, size: int, seconds: float) -> None:
    """Write the line for one answer: its status line, bytes of body, and the seconds that it took."""
    if not access_log.isEnabledFor(logging.INFO):
        return
    facts = facts_of(environ, status, size, seconds)
    line = (
        f"{facts['address']} {facts['caller']} {facts['method']} {facts['path']} {facts['status']} "
        f"{facts['size']}B {facts['milliseconds']}ms {facts['request_id']} {facts['client']!r}"
    )
    access_log.info("%s", line, extra={"fields": facts})


def facts_of(environ: WSGIEnvironment, status: str, size: int, seconds: float) -> dict[str, str | int | float]:
    """Return what a line says, by name."""
    path = environ.get("REQUEST_URI") or environ.get("PATH_INFO", "")
    code = status.partition(" ")[0]
    return {
        "request_id": environ.get(REQUEST_ID_KEY, ""),
        "address": environ.get("REMOTE_ADDR", ""),
        "caller": environ.get(CALLER_KEY, "-"),
        "method": environ.get("REQUEST_METHOD", "-"),
        "path": without_secrets(path),
        "status": int(code) if code.isdigit() else 0,
        "size": size,
        "milliseconds": round(seconds * 1000, 1),
        "client": without_secrets(environ.get("HTTP_USER_AGENT", "")),
    }
