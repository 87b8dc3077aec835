"""Hot pages: answers of the simple index that are given again without asking the app.

An answer is kept under the very bytes of the request's head, so whatever may matter to an answer -- address,
coding, condition, credential -- is part of its key; where there may be a credential in them, only a digest of them
is kept. Before it is given again, what it was made from is looked at: the repository's file, the token's file, what
has happened in the repository. So both roads give the same answers, and a right that is taken away is gone on the
next request.
"""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING, Any

from server import HEAD_KEY, HotAnswer, Looks
from storage.watching import Watch
from web.logs import CALLER_KEY

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

KEEP_KEY = "packhouse.keep"  # environ key: the Provenance of an answer that may be kept
PEER_KEY = "packhouse.peer"  # environ key: the address at the other end of the connection, proxy or not
NOTE_INTERVAL = 10.0  # seconds; the use of a token is known to the minute
ENTRY_OVERHEAD = 4_500  # bytes, about: what an entry takes besides its body; measured with five files on a page


@dataclass(frozen=True, slots=True)
class Provenance:
    """What an answer was made from, and for whom."""

    watch: Watch
    expires_at: datetime | None = None  # of the token, aware UTC
    on_use: Callable[[WSGIEnvironment], None] | None = None  # notes the use of the token


@dataclass(slots=True)
class _Kept:
    answer: HotAnswer
    watch: Watch
    expires: float | None  # seconds since the epoch
    environ: dict[str, Any]  # what the log and the note of a token's use need
    on_use: Callable[[WSGIEnvironment], None] | None
    key: bytes
    cost: int  # bytes
    note_again: float = 0.0  # time.monotonic() from which on the token's use is noted again


# A request without a query, and without headers that nobody knows: there is no place for a credential in it.
_NO_SECRETS = re.compile(
    rb"[A-Z]+ /[^ ?@]* HTTP/1\.1\r\n(?:(?:Host|Accept(?:-Encoding|-Language)?|User-Agent|Connection|Cache-Control"
    rb"|Pragma|If-None-Match|If-Modified-Since): [^\r\n]*\r\n)*\r\n",
    re.IGNORECASE,
)
LONGEST_KEY = 1_000  # bytes


def is_free_of_secrets(head: bytes) -> bool:
    """Whether the *head* of a request may be remembered as it is, which spares its digest."""
    return len(head) <= LONGEST_KEY and _NO_SECRETS.fullmatch(head) is not None


class HotPages:
    """The answers that are kept, the least recently used ones dropped when they take more than *size* bytes."""

    def __init__(self, size: int, trusted_proxies: Iterable[str] = ()) -> None:
        """Start with none; from *trusted_proxies*, the head says from where the request came."""
        self._size = size  # bytes
        self._trusted = frozenset(trusted_proxies)
        self._taken = 0  # bytes
        self._kept: OrderedDict[bytes, _Kept] = OrderedDict()
        self._lock = threading.Lock()  # answers are added by task threads

    def find(self, head: bytes, address: str, looks: Looks) -> HotAnswer | None:
        """Return the answer to the request with this *head* if it is still true; called in the event loop."""
        by_proxy = address in self._trusted
        kept = None if by_proxy else self._kept.get(head)
        if kept is None:
            kept = self._kept.get(self._digest(head, address))
            if kept is None:
                return None
        if not kept.watch.holds(looks) or (kept.expires is not None and time.time() >= kept.expires):
            self._drop(kept.key)
            return None
        try:  # noqa: SIM105 - suppress() costs as much as the look
            self._kept.move_to_end(kept.key)
        except KeyError:  # dropped by a task thread in between
            pass
        if not by_proxy:
            kept.environ["REMOTE_ADDR"] = address
        if kept.on_use is not None and (now := time.monotonic()) >= kept.note_again:
            kept.note_again = now + NOTE_INTERVAL
            kept.on_use(kept.environ)
        return kept.answer

    def keep(self, environ: WSGIEnvironment, status: str, headers: list[tuple[str, str]], body: bytes) -> None:
        """Keep an answer that the app has just given, if it may be kept and was not changed meanwhile."""
        provenance: Provenance = environ[KEEP_KEY]
        head = environ[HEAD_KEY]
        address = str(environ.get(PEER_KEY) or environ.get("REMOTE_ADDR", ""))
        key = head if address not in self._trusted and is_free_of_secrets(head) else self._digest(head, address)
        cost = len(body) + len(key) + ENTRY_OVERHEAD
        if not provenance.watch.is_settled or cost > self._size // 4 or not provenance.watch.holds({}):
            return
        known = {key: environ[key] for key in _KNOWN if key in environ}
        expires = provenance.expires_at.timestamp() if provenance.expires_at else None
        answer = HotAnswer(status, headers, body, known)
        kept = _Kept(answer, provenance.watch, expires, known, provenance.on_use, key, cost)
        self._drop(key)
        with self._lock:
            self._kept[key] = kept
            self._taken += cost
            while self._taken > self._size:
                _, dropped = self._kept.popitem(last=False)
                self._taken -= dropped.cost

    def _digest(self, head: bytes, address: str) -> bytes:
        if address in self._trusted:
            return blake2b(head, digest_size=20, key=address.encode()).digest()
        return blake2b(head, digest_size=20).digest()

    def _drop(self, key: bytes) -> None:
        with self._lock:
            dropped = self._kept.pop(key, None)
            if dropped is not None:
                self._taken -= dropped.cost


# What an access log says of a request; nothing secret is among it.
_KNOWN = ("REQUEST_METHOD", "REQUEST_URI", "REMOTE_ADDR", "HTTP_USER_AGENT", CALLER_KEY)


def keep_answers(application: WSGIApplication, pages: HotPages) -> WSGIApplication:
    """Let *pages* keep those answers of *application* that say what they were made from."""

    def serve(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started: list[Any] = []

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401 - as WSGI
            started[:] = [status, headers]
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        chunks = application(environ, start)
        if KEEP_KEY not in environ or HEAD_KEY not in environ:
            return chunks
        try:
            body = b"".join(chunks)
        finally:
            getattr(chunks, "close", lambda: None)()
        pages.keep(environ, started[0], list(started[1]), body)
        return [body]

    return serve
