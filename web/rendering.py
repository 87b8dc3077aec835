"""Turns one description into HTML: a program of its own, which :mod:`web.readme` starts for each and may kill.

Called with ``markdown-gfm``, ``markdown-commonmark`` or ``rst``; reads the text from standard input, writes safe
HTML to standard output. Any exit status but 0 means that the text has to be shown as it is.
"""

from __future__ import annotations

import re
import resource
import sys

import nh3
from pygments.token import STANDARD_TYPES
from readme_renderer import markdown, rst
from readme_renderer.clean import ALLOWED_ATTRIBUTES, ALLOWED_TAGS

MAX_SECONDS = 5  # of processor time; contract.md section 8
MAX_MEMORY = 512 * 1024 * 1024  # bytes of address space
MAX_HTML = 4_000_000  # characters

# Landmarks are the page's own, and a tick box that cannot be ticked is better a sign.
TAGS = ALLOWED_TAGS - {"aside", "input", "nav"}
ATTRIBUTES = {tag: names for tag, names in ALLOWED_ATTRIBUTES.items() if tag == "*" or tag in TAGS}
CLASSES = frozenset(filter(None, STANDARD_TYPES.values())) | {
    "highlight"
}  # of coloured code; no other of our style
PREFIX = "user-content-"  # so that no id of a description is one of the page's


def main() -> int:
    """Render standard input; the exit status says whether it went well."""
    limit()
    html = render(sys.stdin.buffer.read().decode("utf-8"), sys.argv[1])
    if html is None or len(html) > MAX_HTML:
        return 1
    sys.stdout.buffer.write(html.encode("utf-8"))
    return 0


def limit() -> None:
    """Bound what this process may use, should nobody be left to kill it."""
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_SECONDS, MAX_SECONDS))
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, MAX_MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # a pipe is no file


def render(text: str, markup: str) -> str | None:
    """Return *text* as safe HTML; None if it cannot be read as such."""
    if markup == "rst":
        html = rst.render(text)
    else:
        html = markdown.render(text, variant="CommonMark" if markup == "markdown-commonmark" else "GFM")
    return None if html is None else sanitize(adapt(html))


# --- before the last cleaning, so nothing here can do harm ---


def adapt(html: str) -> str:
    """Fit a rendered text into a page with headings and forms of its own."""
    html = re.sub(r"<(/?)h([1-6])\b", lambda m: f"<{m[1]}h{min(int(m[2]) + 2, 6)}", html)
    html = re.sub(r"<input\b([^>]*)>", lambda m: "\u2611" if "checked" in m[1] else "\u2610", html)
    html = re.sub(r'<a\b[^>]*\bhref="#[^"]*"[^>]*>\s*</a>', "", html)  # the headings' links to themselves
    return re.sub(r"<img(?![^>]*\salt=)", '<img alt=""', html)


def sanitize(html: str) -> str:
    """Return *html* with nothing in it that could act, imitate our page or load from anywhere but by https."""
    return nh3.clean(
        html,
        tags=TAGS,
        attributes=ATTRIBUTES,
        attribute_filter=filter_attribute,
        link_rel="nofollow noopener",
        url_schemes={"http", "https", "mailto"},
        set_tag_attribute_values={
            "img": {"loading": "lazy", "referrerpolicy": "no-referrer"},
            "pre": {"tabindex": "0"},  # the keyboard can scroll what is too wide
        },
    )


def filter_attribute(tag: str, name: str, value: str) -> str | None:
    """Return the value that an attribute may have; None drops it."""
    if name == "id":
        return _prefixed(value)
    if name == "lang" and tag == "pre":  # that of a program, where browsers expect one of people
        return None
    if name == "class":
        return " ".join(word for word in value.split() if word in CLASSES) or None
    if name == "href":
        if value.startswith("#"):
            return f"#{_prefixed(value[1:])}"
        return value if value.strip().lower().startswith(("http://", "https://", "mailto:")) else None
    if name == "src":
        return value if value.strip().lower().startswith("https://") else None
    return value


def _prefixed(value: str) -> str:
    return value if value.startswith(PREFIX) else PREFIX + value


if __name__ == "__main__":
    sys.exit(main())
