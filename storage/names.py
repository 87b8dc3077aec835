"""Slugs, project names, versions and file names: check and normalize. Pure: nothing here touches the disk.

Every name that comes from outside passes through one of these functions exactly once, and only what they
return ever becomes part of a path (contract.md section 2).
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from packaging.tags import Tag
from packaging.utils import (
    BuildTag,
    InvalidSdistFilename,
    InvalidWheelFilename,
    NormalizedName,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)
from packaging.version import InvalidVersion, Version

from storage.errors import InvalidFilename, InvalidName, shorten

PackageType = Literal["bdist_wheel", "sdist"]

# --- slugs ---

MAX_SLUG_LENGTH = 64  # characters
_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*", re.ASCII)
_SLUG_RULE = f"use lower-case letters, digits and single hyphens between them, at most {MAX_SLUG_LENGTH} characters"

# Every first segment of an address in contract.md section 2, and those it names besides.
RESERVED_ORGANIZATIONS = frozenset(
    {"login", "logout", "account", "api", "v2", "healthz", "metrics", "static", "admin", "organizations"}
)
RESERVED_REPOSITORIES = frozenset({"new", "settings", "members", "tokens", "audit"})
# What Packhouse itself writes beside the organizations, at the top of the storage.
RESERVED_AT_TOP = frozenset({"users", "tokens"})
_NO_ORGANIZATIONS = RESERVED_ORGANIZATIONS | RESERVED_AT_TOP


def slugify(name: str) -> str:
    """Return the slug for a *name* that a person typed: "My Python packages" -> "my-python-packages".

    :raises InvalidName: if nothing of it can stand in a slug, or too much of it.
    """
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    slug = re.sub(r"[^a-z0-9]+", "-", ascii_name.lower()).strip("-")
    if not slug or len(slug) > MAX_SLUG_LENGTH:
        raise InvalidName("name", name, f"it needs 1 to {MAX_SLUG_LENGTH} letters or digits")
    return slug


def is_slug(text: str) -> bool:
    """Whether *text* has the form of a slug (contract.md section 2)."""
    return len(text) <= MAX_SLUG_LENGTH and _SLUG.fullmatch(text) is not None


def check_organization_slug(slug: str) -> str:
    """Return *slug* if an organization may be called so.

    :raises InvalidName: if it is malformed or reserved.
    """
    if not is_slug(slug):
        raise InvalidName("organization name", slug, _SLUG_RULE)
    if slug in _NO_ORGANIZATIONS:
        raise InvalidName("organization name", slug, "the word is reserved; choose another")
    return slug


def check_repository_slug(slug: str) -> str:
    """Return *slug* if a repository may be called so.

    :raises InvalidName: if it is malformed or reserved.
    """
    if not is_slug(slug):
        raise InvalidName("repository name", slug, _SLUG_RULE)
    if slug in RESERVED_REPOSITORIES:
        raise InvalidName("repository name", slug, "the word is reserved; choose another")
    return slug


_USER = re.compile(r"[a-z0-9]+([._-][a-z0-9]+)*", re.ASCII)


def check_user_name(user: str) -> str:
    """Return *user* if a person may sign in under it.

    :raises InvalidName: if it is malformed.
    """
    if len(user) > MAX_SLUG_LENGTH or not _USER.fullmatch(user):
        raise InvalidName(
            "user name",
            user,
            "use lower-case letters and digits, with single dots, hyphens or underscores between them",
        )
    return user


# --- projects and versions ---

MAX_PROJECT_LENGTH = 200  # characters; leaves room for a version and tags in 240 bytes of file name
MAX_VERSION_LENGTH = 128  # characters; Python refuses to read integers of more than 4,300 digits
_PROJECT = re.compile(r"[a-z0-9]|[a-z0-9][a-z0-9._-]*[a-z0-9]", re.ASCII | re.IGNORECASE)

# Names that a Windows machine cannot have as a file or folder, so that a copy of the tree could not live there.
WINDOWS_DEVICES = frozenset(
    {"con", "prn", "aux", "nul", "conin$", "conout$"} | {f"{port}{n}" for port in ("com", "lpt") for n in range(10)}
)


def normalize_project(name: str) -> NormalizedName:
    """Return the normalized form of a project *name* (PEP 503): "Flask_Login" -> "flask-login".

    :raises InvalidName: if no project can be called so (packaging.python.org, "Names and normalization").
    """
    if len(name) > MAX_PROJECT_LENGTH or not _PROJECT.fullmatch(name):
        raise InvalidName(
            "project name",
            name,
            f"it needs 1 to {MAX_PROJECT_LENGTH} ASCII letters, digits, '.', '-' or '_', "
            "starting and ending with a letter or digit",
        )
    project = canonicalize_name(name)
    if project in WINDOWS_DEVICES:
        raise InvalidName("project name", name, "it is the name of a device on Windows; choose another")
    return project


def is_normalized_project(text: str) -> bool:
    """Whether *text* is a project name in its normalized form, as a folder of the tree is called."""
    try:
        return normalize_project(text) == text
    except InvalidName:
        return False


def parse_version(text: str) -> Version:
    """Return *text* as a version (PEP 440).

    :raises InvalidName: if it is not one, or longer than :data:`MAX_VERSION_LENGTH`.
    """
    rule = f"a version is written as PEP 440 says, for example '1.2.3', in at most {MAX_VERSION_LENGTH} characters"
    if len(text) > MAX_VERSION_LENGTH or not text.isascii():
        raise InvalidName("version", text, rule)
    try:
        return Version(text)
    except InvalidVersion as error:
        raise InvalidName("version", text, rule) from error


# --- file names ---

MAX_FILENAME_BYTES = 240  # contract.md section 8; leaves room for ".metadata" within the usual 255


@dataclass(frozen=True, slots=True)
class DistributionFilename:
    """What the name of a wheel or sdist says."""

    filename: str
    spelled_name: str  # the name part as written
    project: NormalizedName
    version: Version
    packagetype: PackageType
    build: BuildTag = ()
    tags: frozenset[Tag] = frozenset()  # of a wheel, compressed sets expanded


KEPT_FILENAMES = 1_000  # about 2 kB each


@lru_cache(maxsize=KEPT_FILENAMES)  # a request asks several times about the same name
def parse_filename(filename: str) -> DistributionFilename:
    """Read the name of a wheel (``.whl``) or sdist (``.tar.gz``, legacy ``.zip``).

    Legacy spellings (hyphens and capitals in the name part) are fine; only what ``packaging.utils`` parses is.

    :raises InvalidFilename: with the rule that *filename* breaks.
    """
    if not filename:
        raise InvalidFilename(filename, "it is empty")
    if not filename.isascii() or not filename.isprintable() or " " in filename:
        raise InvalidFilename(filename, "only printable ASCII characters without spaces may stand in it")
    if "/" in filename or "\\" in filename:
        raise InvalidFilename(filename, "slashes and back-slashes cannot stand in it")
    if filename.startswith("."):
        raise InvalidFilename(filename, "it cannot start with a dot")
    if len(filename) > MAX_FILENAME_BYTES:
        raise InvalidFilename(filename, f"it is longer than {MAX_FILENAME_BYTES} bytes")
    if filename.endswith(".whl"):
        parsed = _parse_wheel(filename)
    elif filename.endswith((".tar.gz", ".zip")):
        parsed = _parse_sdist(filename)
    else:
        raise InvalidFilename(filename, "it is neither a wheel (.whl) nor an sdist (.tar.gz)")
    if filename.split(".", 1)[0].lower() in WINDOWS_DEVICES:
        raise InvalidFilename(filename, "it is the name of a device on Windows")
    return parsed


def is_filename(text: str) -> bool:
    """Whether *text* is an acceptable name of a wheel or sdist."""
    try:
        parse_filename(text)
    except InvalidFilename:
        return False
    return True


def _parse_wheel(filename: str) -> DistributionFilename:
    parts = filename.removesuffix(".whl").split("-")
    if len(parts) not in (5, 6):
        raise InvalidFilename(filename, "a wheel is called NAME-VERSION(-BUILD)?-PYTHON-ABI-PLATFORM.whl")
    _check_parts(filename, parts[0], parts[1])
    if not all(re.fullmatch(r"[\w.]+", part, re.ASCII) for part in parts[2:]):
        raise InvalidFilename(filename, "build and tags consist of letters, digits, '_' and '.'")
    try:
        _, version, build, tags = parse_wheel_filename(filename)
    except (InvalidWheelFilename, ValueError) as error:
        raise InvalidFilename(filename, f"it does not parse as a wheel's: {shorten(str(error))}") from error
    return DistributionFilename(
        filename, parts[0], normalize_project(parts[0]), version, "bdist_wheel", build, tags
    )


def _parse_sdist(filename: str) -> DistributionFilename:
    stem = filename.removesuffix(".tar.gz") if filename.endswith(".tar.gz") else filename.removesuffix(".zip")
    name, hyphen, version_text = stem.rpartition("-")
    if not hyphen:
        raise InvalidFilename(filename, "an sdist is called NAME-VERSION.tar.gz")
    _check_parts(filename, name, version_text)
    try:
        _, version = parse_sdist_filename(filename)
    except (InvalidSdistFilename, ValueError) as error:
        raise InvalidFilename(filename, f"it does not parse as an sdist's: {shorten(str(error))}") from error
    return DistributionFilename(filename, name, normalize_project(name), version, "sdist")


def _check_parts(filename: str, name: str, version: str) -> None:
    try:
        normalize_project(name)
        parse_version(version)
    except InvalidName as error:
        raise InvalidFilename(filename, str(error)) from error
