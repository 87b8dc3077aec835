"""The description of a package as HTML, with the limits of contract.md section 8.

Renderers take any time for a text that is made for it, and Python cannot stop a thread. So each text is rendered
by a process of its own (:mod:`web.rendering`), which is killed when its time is over. What came of it is kept by
the hash of the text, so that one text costs this once. At most :data:`MAX_CHILDREN` run at a time: whoever comes
when they are busy gets plain text, so that slow texts never take all threads of the server.
"""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import threading
from collections import OrderedDict
from dataclasses import dataclass
from email.message import Message
from pathlib import Path

from markupsafe import Markup

log = logging.getLogger("packhouse")

MAX_SIZE = 512_000  # bytes of a text that is rendered
MAX_SECONDS = 5.0
MAX_CHILDREN = 2
MAX_WAIT = 1.0  # seconds for a place among them
MAX_KEPT = 16_000_000  # characters of HTML

_PROGRAM = Path(__file__).with_name("rendering.py")


@dataclass(frozen=True, slots=True)
class Description:
    """A description to be shown."""

    html: Markup | None = None  # safe; None: show the text
    text: str = ""
    note: str = ""  # why it is shown as text, if that is not what it is


class Renderer:
    """Renders descriptions and remembers them; safe for use by many threads."""

    def __init__(self, seconds: float = MAX_SECONDS, children: int = MAX_CHILDREN) -> None:
        """Give each text *seconds*, and run at most so many *children*."""
        self._seconds = seconds
        self._places = threading.BoundedSemaphore(children)
        self._lock = threading.Lock()
        self._kept: OrderedDict[bytes, str | None] = OrderedDict()  # None: could not be rendered
        self._kept_size = 0  # characters

    def render(self, text: str, content_type: str | None) -> Description:
        """Return *text*, which is of *content_type* (core metadata's Description-Content-Type), for a page."""
        markup = markup_of(content_type)
        if not text.strip() or not markup:
            return Description(text=text)
        data = text.encode("utf-8", "replace")
        if len(data) > MAX_SIZE:
            note = f"It is longer than {MAX_SIZE // 1000} kB, so it is shown as plain text."
            return Description(text=data[:MAX_SIZE].decode("utf-8", "ignore"), note=note)
        key = hashlib.sha256(markup.encode() + b"\0" + data).digest()
        with self._lock:
            known = key in self._kept
            html = self._kept.get(key)
            if known:
                self._kept.move_to_end(key)
        if not known:
            if not self._places.acquire(timeout=MAX_WAIT):
                return Description(text=text, note="It is shown as plain text because the server is busy.")
            try:
                html = self._run(data, markup)
            finally:
                self._places.release()
            self._keep(key, html)
        if html is None:
            # Who gave no type never said that it is reStructuredText.
            note = "It cannot be rendered, so it is shown as plain text." if content_type else ""
            return Description(text=text, note=note)
        return Description(html=Markup(html), text=text)  # noqa: S704  # web.rendering has made it safe

    def _run(self, data: bytes, markup: str) -> str | None:
        """Render in a process of its own, and kill it when its time is over."""
        command = [sys.executable, "-I", str(_PROGRAM), markup]
        try:
            done = subprocess.run(  # noqa: S603  # the text is not among the arguments
                command, input=data, capture_output=True, timeout=self._seconds, env={}, check=False
            )
        except subprocess.TimeoutExpired:
            log.warning("a description took longer than %g s to render; it is shown as plain text", self._seconds)
            return None
        if done.returncode == 0:
            return done.stdout.decode("utf-8")
        if done.stderr:
            log.info("a description could not be rendered: %s", done.stderr[-400:].decode("utf-8", "replace"))
        return None

    def _keep(self, key: bytes, html: str | None) -> None:
        with self._lock:
            if key in self._kept:
                return
            self._kept[key] = html
            self._kept_size += _cost(html)
            while self._kept_size > MAX_KEPT:
                self._kept_size -= _cost(self._kept.popitem(last=False)[1])


def _cost(html: str | None) -> int:
    return 1000 + len(html or "")


def markup_of(content_type: str | None) -> str:
    """Return what :mod:`web.rendering` calls the markup of a Description-Content-Type; "" for plain text.

    Without a type, reStructuredText is tried (core metadata, "Description-Content-Type").
    """
    if not content_type:
        return "rst"
    message = Message()
    message["Content-Type"] = content_type
    if message.get_content_type() == "text/markdown":
        commonmark = str(message.get_param("variant", "GFM")).lower() == "commonmark"
        return "markdown-commonmark" if commonmark else "markdown-gfm"
    return "rst" if message.get_content_type() == "text/x-rst" else ""
