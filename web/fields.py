"""The text fields of small forms: what was typed, what it means, and what is wrong with each."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Collection, Mapping

from storage.errors import InvalidName
from storage.names import check_organization_slug, check_repository_slug, slugify

MAX_NAME = 100  # characters
MAX_DESCRIPTION = 500  # characters
MAX_EMOJI = 16  # code points: families and flags are made of many
_COLOR = re.compile(r"#[0-9a-f]{6}", re.ASCII)
DEFAULT_COLOR = "#dfe5ee"


class Fields:
    """What was typed into a form; each method looks at one field and notes in ``errors`` what is wrong with it."""

    def __init__(self, typed: Mapping[str, str]) -> None:
        """Look at what was *typed*."""
        self.typed = typed
        self.errors: dict[str, str] = {}

    @property
    def is_good(self) -> bool:
        """Whether nothing was wrong so far."""
        return not self.errors

    def text(self, field: str) -> str:
        """Return what was typed, without white space around it."""
        return self.typed.get(field, "").strip()

    def is_checked(self, field: str) -> bool:
        """Whether a box is checked: browsers send nothing for one that is not."""
        return bool(self.typed.get(field))

    def line(self, field: str, most: int = MAX_DESCRIPTION, *, required: bool = False) -> str:
        """Return one line of at most *most* characters."""
        text = self.text(field)
        if required and not text:
            self.errors[field] = "Please fill this in."
        elif len(text) > most:
            self.errors[field] = f"Use at most {most} characters."
        elif not text.isprintable():
            self.errors[field] = "Use one line, without control characters."
        return text

    def choice(self, field: str, choices: Collection[str]) -> str:
        """Return one of *choices*."""
        text = self.text(field)
        if text not in choices:
            self.errors[field] = "Choose one of the list."
        return text

    def number(self, field: str, most: int) -> int:
        """Return a whole number from 0 to *most*; nothing counts as 0."""
        text = self.text(field) or "0"
        if not re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) or int(text) > most:
            self.errors[field] = f"Use a whole number from 0 to {most:,}."
            return 0
        return int(text)

    def repository_name(self, field: str, kept: str = "") -> tuple[str, str]:
        """Return the name of a repository, spaces become hyphens, and its slug; the name *kept* is not touched."""
        return self._named(field, check_repository_slug, kept)

    def organization_name(self, field: str) -> tuple[str, str]:
        """Return the name of an organization and its slug."""
        text = self.text(field)
        return self._named(field, check_organization_slug, text)

    def _named(self, field: str, check: Callable[[str], str], kept: str) -> tuple[str, str]:
        typed = self.line(field, MAX_NAME, required=True)
        name = typed if typed == kept else re.sub(r"\s+", "-", typed)
        if field in self.errors:
            return typed, ""
        try:
            slug = check(slugify(name))
        except InvalidName as error:
            self.errors[field] = f"{error.rule[0].upper()}{error.rule[1:]}."
            return typed, ""
        return name, slug

    def emoji(self, field: str) -> str:
        """Return a few characters to draw, or none."""
        text = self.text(field)
        if len(text) > MAX_EMOJI or not all(_is_drawn(character) for character in text):
            self.errors[field] = f"Use one emoji, or at most {MAX_EMOJI} letters."
        return text

    def color(self, field: str) -> str:
        """Return a colour such as ``#ffe0f1``; "" for the default."""
        text = self.text(field).lower()
        if text and not _COLOR.fullmatch(text):
            self.errors[field] = "Write a colour as # and six hexadecimal digits, such as #ffe0f1."
        return "" if text == DEFAULT_COLOR else text


def _is_drawn(character: str) -> bool:
    """Whether *character* is visible, or joins what is: nothing that could turn or hide other text."""
    return (character.isprintable() and not character.isspace()) or _joins(character)


def _joins(character: str) -> bool:
    # A zero-width joiner, variation selectors and the tags that flags are spelled with.
    return character == "\u200d" or unicodedata.category(character) == "Mn" or 0xE0020 <= ord(character) <= 0xE007F
