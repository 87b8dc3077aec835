"""What the pages of a project and of a file show, taken from its sidecar: snippets, links, people, downloads."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from email.utils import getaddresses
from urllib.parse import urlsplit

from flask import request
from packaging.tags import Tag

import snippets
from storage.archives import Member
from storage.browsing import Folder, folder_tree, matching_members
from storage.explaining import describe_platform, describe_python, ordered_tags, unique
from storage.metadata import CoreMetadata
from storage.repository import Repository
from storage.sidecars import Sidecar
from web.access import base_url
from web.packagecloud import licenses

# --- snippets ---

TOKEN_PLACE = "YOUR_TOKEN"  # noqa: S105  # what a snippet says where a token belongs


def token_or_place(repository: Repository, token: str = "") -> str:
    """What stands in snippets where the token belongs; nothing where none is needed."""
    return (token or TOKEN_PLACE) if repository.settings.private else ""


@dataclass(frozen=True, slots=True)
class Box:
    """One snippet to copy."""

    key: str  # its id on the page
    title: str  # what it is called for people who cannot see it
    text: str


@dataclass(frozen=True, slots=True)
class BoxGroup:
    """Snippets under one heading."""

    title: str
    explanation: str
    boxes: tuple[Box, ...]


def snippet_boxes(repository: Repository, sidecar: Sidecar, token: str) -> tuple[BoxGroup, ...]:
    """Return what people paste to install the file's release, by tool."""
    place, name, version = token_or_place(repository, token), sidecar.file.project, sidecar.file.version
    where = (base_url(), repository.org, repository.slug, place)
    return (
        BoxGroup(
            "Registry Configuration",
            "For pip: in ~/.config/pip/pip.conf (Windows: %APPDATA%\\pip\\pip.ini), or in the requirements.txt "
            "of a virtual environment.",
            (
                Box("pip-conf", "pip.conf", snippets.pip_conf(*where)),
                Box("requirements-txt", "requirements.txt", snippets.requirements_txt(*where)),
            ),
        ),
        BoxGroup(
            "Package Installation",
            "With pip, once it knows the repository:",
            (Box("pip-install", "pip install", snippets.pip_install(name, version)),),
        ),
        BoxGroup(
            "uv",
            "uv asks this repository first, and the public index only for what is not here.",
            (Box("uv", "uv pip install", snippets.uv_install(*where, name, version)),),
        ),
        BoxGroup(
            "poetry",
            "The source is explicit: only what names it comes from it.",
            (Box("poetry", "poetry source and add", snippets.poetry_source(*where, name, version)),),
        ),
        BoxGroup(
            "pdm",
            f"In pyproject.toml; then: pdm add {name}=={version}",
            (Box("pdm", "pyproject.toml for pdm", snippets.pdm_source(*where, name)),),
        ),
    )


# --- what is in it ---

MAX_SHOWN_MEMBERS = 5_000


@dataclass(frozen=True, slots=True)
class ContentsView:
    """What the tab Contents shows."""

    wanted: str  # the filter
    matches: tuple[Member, ...]  # with a filter: the members that match
    root: Folder | None  # without one: the tree
    hidden: int  # how many more there are


def contents_of(sidecar: Sidecar) -> ContentsView:
    """Return the archive's tree, or what the filter in the address leaves of it."""
    wanted = request.args.get("q", "").strip()[:200]
    members = matching_members(sidecar.members, wanted) if wanted else sidecar.members
    shown, hidden = members[:MAX_SHOWN_MEMBERS], max(0, len(members) - MAX_SHOWN_MEMBERS)
    return ContentsView(wanted, tuple(shown) if wanted else (), None if wanted else folder_tree(shown), hidden)


def tag_words(sidecar: Sidecar) -> dict[str, list[str]]:
    """Say which Pythons and platforms a wheel is for."""
    tags = ordered_tags(Tag(*tag.split("-")) for tag in sidecar.tags)
    return {
        "pythons": unique(describe_python(tag.interpreter, tag.abi) for tag in tags),
        "platforms": unique(describe_platform(tag.platform) for tag in tags),
    }


MAX_LICENSE = 300  # characters; a whole licence is among the contents


def licenses_of(sidecar: Sidecar) -> list[str]:
    """Return what the metadata say of licences, in short."""
    text = sidecar.metadata.license or ""
    first = text.strip().split("\n", 1)[0][:MAX_LICENSE]
    return licenses(sidecar) or ([first if first == text.strip() else f"{first} ..."] if first else [])


LINKED_SCHEMES = ("http", "https", "mailto")
MAX_LINKS = 50


def links_of(metadata: CoreMetadata) -> list[tuple[str, str, bool]]:
    """Return label, address and whether it may be a link, for all addresses that the metadata give."""
    given = [
        ("Homepage", metadata.home_page or ""),
        *metadata.project_urls,
        ("Download", metadata.download_url or ""),
    ]
    seen: dict[str, str] = {}
    for label, url in given:
        if url:
            seen.setdefault(url, label or url)
    return [(label, url, is_linkable(url)) for url, label in list(seen.items())[:MAX_LINKS]]


def is_linkable(url: str) -> bool:
    """Whether *url* is one that pages link."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in LINKED_SCHEMES and bool(parts.netloc or parts.scheme == "mailto") and url.isprintable()


def people_of(metadata: CoreMetadata) -> list[tuple[str, list[tuple[str, str]]]]:
    """Return authors and maintainers: name and e-mail address of each, one of them may be empty."""
    pairs = (
        ("Author", metadata.author, metadata.author_email),
        ("Maintainer", metadata.maintainer, metadata.maintainer_email),
    )
    people = [(title, _people(names or "", emails or "")) for title, names, emails in pairs]
    return [(title, held) for title, held in people if held]


MAX_PEOPLE = 20


def _people(names: str, emails: str) -> list[tuple[str, str]]:
    addressed = [(name, address) for name, address in getaddresses([emails[:4000]]) if name or address]
    if len(addressed) == 1 and not addressed[0][0]:
        return [(names, addressed[0][1])]
    return [*([(names, "")] if names else []), *addressed[:MAX_PEOPLE]]


# --- downloads ---

CHART_DAYS = 90
CHART_WIDTH, CHART_HEIGHT = 270, 56


@dataclass(frozen=True, slots=True)
class Chart:
    """Downloads a day of the last 90 days, ready to be drawn."""

    total: int
    most: int
    bars: tuple[tuple[date, int, float, float], ...]  # day, number, left, height
    width: int = CHART_WIDTH
    height: int = CHART_HEIGHT
    bar: float = CHART_WIDTH / CHART_DAYS

    @property
    def first_day(self) -> date:
        """The day at the left end."""
        return self.bars[0][0]

    @property
    def last_day(self) -> date:
        """The day at the right end."""
        return self.bars[-1][0]

    @property
    def busiest(self) -> date:
        """The day with most downloads."""
        return max(self.bars, key=lambda bar: bar[1])[0]


def chart_of(days: dict[date, int]) -> Chart:
    """Return the chart of a file's downloads up to today (UTC)."""
    today = datetime.now(UTC).date()
    span = [today - timedelta(days=ago) for ago in reversed(range(CHART_DAYS))]
    numbers = [days.get(day, 0) for day in span]
    most = max(numbers)
    step = CHART_WIDTH / CHART_DAYS
    bars = (
        (day, number, round(index * step, 2), round(max(2.0, number / most * CHART_HEIGHT), 2) if number else 0.0)
        for index, (day, number) in enumerate(zip(span, numbers, strict=True))
    )
    return Chart(sum(numbers), most, tuple(bars))


# --- attestations ---

MAX_ATTESTATIONS = 20


@dataclass(frozen=True, slots=True)
class Attestation:
    """What an attestation of PEP 740 claims; nobody has checked its signature."""

    predicate_type: str
    subjects: tuple[tuple[str, str], ...]  # name and sha256
    matches: bool  # whether one of the subjects is this very file
    text: str  # the statement, indented, or what there is instead


def attestations_of(repository: Repository, sidecar: Sidecar) -> tuple[Attestation, ...]:
    """Return what the attestations of a file claim."""
    data = repository.attestations(sidecar.file.project, sidecar.file.filename)
    if data is None:
        return ()
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return ()
    listed = document if isinstance(document, list) else [document]
    return tuple(_read_attestation(item, sidecar) for item in listed[:MAX_ATTESTATIONS])


MAX_STATEMENT = 20_000  # characters


def _read_attestation(item: object, sidecar: Sidecar) -> Attestation:
    subjects: tuple[tuple[str, str], ...] = ()
    predicate_type, shown = "unknown", item
    try:
        envelope = item["envelope"]  # type: ignore[index]  # whatever it is, the errors below tell
        statement = json.loads(base64.b64decode(envelope["statement"]))
        subjects = tuple((_text(s["name"]), _text(s["digest"]["sha256"])) for s in statement["subject"])
        predicate_type, shown = _text(statement["predicateType"]), statement
    except (KeyError, TypeError, ValueError, RecursionError):
        pass  # no statement of PEP 740, shown as it is
    try:
        text = json.dumps(shown, indent=2)
    except RecursionError:
        text = "too deeply nested to be shown"
    return Attestation(
        predicate_type,
        subjects[:MAX_ATTESTATIONS],
        (sidecar.file.filename, sidecar.file.sha256) in subjects,
        text[:MAX_STATEMENT],
    )


def _text(value: object) -> str:
    """Return *value* as text that can be sent: JSON may hold half a character."""
    return str(value).encode("utf-8", "replace").decode()
