"""What hypothesis draws: names as people spell them, versions, file names, and hostile text."""

from __future__ import annotations

import string

from hypothesis import strategies as st

_LETTERS = string.ascii_letters + string.digits


def _joined(parts: list[str], separators: list[str]) -> str:
    return "".join(part + separator for part, separator in zip(parts, [*separators, ""], strict=False))


@st.composite
def project_names(draw) -> str:
    """A project name in any spelling that the packaging world allows."""
    parts = draw(st.lists(st.text(_LETTERS, min_size=1, max_size=8), min_size=1, max_size=4))
    separators = draw(
        st.lists(st.text("-_.", min_size=1, max_size=3), min_size=len(parts) - 1, max_size=len(parts) - 1)
    )
    return _joined(parts, separators)


@st.composite
def versions(draw) -> str:
    """A version (PEP 440) in its normalized form."""
    numbers = st.integers(0, 2030)
    text = ".".join(map(str, draw(st.lists(numbers, min_size=1, max_size=4))))
    if draw(st.booleans()):
        text = f"{draw(st.integers(1, 3))}!{text}"
    text += draw(st.sampled_from(["", "a1", "b2", "rc3"]))
    text += draw(st.sampled_from(["", ".post1"])) + draw(st.sampled_from(["", ".dev7"]))
    return text + draw(st.sampled_from(["", "+local", "+ubuntu.1"]))


def hostile_texts() -> st.SearchStrategy[str]:
    """Text that could do harm in a path, a header, a page or a comparison."""
    pieces = st.sampled_from(
        ["..", "/", "\\", "\0", "\n", ".json", ".whl", "-1.0.tar.gz", ".tmp", "\u202e", "%2e", "con"]
    )
    return st.lists(pieces | st.text(max_size=4), max_size=6).map("".join)
