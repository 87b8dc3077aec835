"""The sidecar of a file: what its bytes cannot tell, and what reading them anew would cost too much.

A sidecar is written before its artifact appears, so whoever sees the artifact can rely on it (contract.md
section 6). One that does not parse hides its file. The models follow PEP 691 and PEP 700 for the index, PEP 592
for yanking.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, Literal

from packaging.utils import NormalizedName
from packaging.version import Version

from storage.archives import Member
from storage.errors import InvalidFilename
from storage.metadata import CoreMetadata
from storage.names import PackageType, normalize_project, parse_filename

if TYPE_CHECKING:
    from storage.distributions import Distribution

FORMAT_VERSION = 1
SERVER_VERSION = "0.1.0"

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII)
_SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Digests:
    """The digests of an artifact, all lower-case hex."""

    md5: str
    sha1: str
    sha256: str
    sha512: str
    blake2b_256: str


@dataclass(frozen=True, slots=True)
class Actor:
    """Who did something: a token, a user, or somebody at the command line."""

    kind: Literal["token", "user", "command line"]
    id: str = ""  # of the token or user
    description: str = ""  # of the token

    def __str__(self) -> str:
        if self.kind == "token":
            return f"token {self.id} ({self.description})" if self.description else f"token {self.id}"
        return f"user {self.id}" if self.kind == "user" else "the command line"

    def to_json(self) -> dict[str, str]:
        """Return the fields that are set."""
        return {key: value for key in ("kind", "id", "description") if (value := getattr(self, key))}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Actor:
        """Read what :meth:`to_json` wrote.

        :raises ValueError: if it was not written so.
        """
        kind = document.get("kind")
        if kind not in ("token", "user", "command line"):
            raise ValueError("unknown kind of uploader")
        return cls(kind, _text(document, "id", ""), _text(document, "description", ""))


@dataclass(frozen=True)
class File:
    """A distribution file as the simple index shows it (PEP 691, PEP 700)."""

    filename: str
    project: NormalizedName
    version: str  # normalized
    packagetype: PackageType
    size: int  # bytes
    sha256: str
    upload_time: datetime  # aware, UTC
    requires_python: str | None
    core_metadata_sha256: str | None  # None: not served
    yanked_reason: str | None  # None: not yanked; "": yanked, no reason given

    @property
    def yanked(self) -> bool | str:
        """False, True or the reason, as PEP 691 writes it."""
        return self.yanked_reason or self.yanked_reason is not None

    @cached_property
    def sort_key(self) -> tuple[Version, str]:
        """By version (PEP 440), then by file name: the same files always come in the same order."""
        return Version(self.version), self.filename


@dataclass(frozen=True, slots=True)
class Sidecar:
    """All that is known of one file beyond its bytes."""

    file: File
    id: str  # UUIDv7
    name: str  # of the project, as spelled in the metadata
    digests: Digests
    uploader: Actor
    metadata: CoreMetadata
    members: tuple[Member, ...]
    core_metadata_size: int | None  # bytes; None: not served
    python_version: str  # "py3", "cp311.cp312" or "source"
    tags: tuple[str, ...] = ()
    build: str | None = None
    wheel: dict[str, object] = field(default_factory=dict)  # facts of the WHEEL file
    entry_points: dict[str, dict[str, str]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    server_version: str = SERVER_VERSION

    @classmethod
    def describe(cls, distribution: Distribution, digests: Digests, size: int, uploader: Actor) -> Sidecar:
        """Return the sidecar of a *distribution* that arrives now, of *size* bytes."""
        upload_time = now()
        core_metadata = distribution.metadata_bytes if distribution.metadata_served else None
        file = File(
            filename=distribution.filename,
            project=distribution.project,
            version=distribution.version,
            packagetype=distribution.packagetype,
            size=size,
            sha256=digests.sha256,
            upload_time=upload_time,
            requires_python=distribution.metadata.requires_python,
            core_metadata_sha256=None if core_metadata is None else hashlib.sha256(core_metadata).hexdigest(),
            yanked_reason=None,
        )
        return cls(
            file=file,
            id=new_id(upload_time),
            name=distribution.name,
            digests=digests,
            uploader=uploader,
            metadata=distribution.metadata,
            members=distribution.members,
            core_metadata_size=None if core_metadata is None else len(core_metadata),
            python_version=distribution.python_version,
            tags=distribution.tags,
            build=distribution.build,
            wheel=distribution.wheel,
            entry_points=distribution.entry_points,
            warnings=distribution.warnings,
        )

    def with_yanked(self, reason: str | None) -> Sidecar:
        """Return the sidecar with another yank state; None: not yanked."""
        if reason == self.file.yanked_reason:
            return self
        return replace(self, file=replace(self.file, yanked_reason=reason))

    def to_json(self) -> dict[str, Any]:
        """Return the document that stands in the sidecar file, the index's fields first."""
        file, digests = self.file, self.digests
        return {
            "format": FORMAT_VERSION,
            "id": self.id,
            "project": file.project,
            "name": self.name,
            "version": file.version,
            "filename": file.filename,
            "packagetype": file.packagetype,
            "size": file.size,
            "md5": digests.md5,
            "sha1": digests.sha1,
            "sha256": digests.sha256,
            "sha512": digests.sha512,
            "blake2b_256": digests.blake2b_256,
            "upload_time": format_time(file.upload_time),
            "uploader": self.uploader.to_json(),
            "requires_python": file.requires_python,
            "core_metadata_sha256": file.core_metadata_sha256,
            "core_metadata_size": self.core_metadata_size,
            "yanked_reason": file.yanked_reason,
            "python_version": self.python_version,
            "build": self.build,
            "tags": list(self.tags),
            "wheel": self.wheel,
            "entry_points": self.entry_points,
            "warnings": list(self.warnings),
            "server_version": self.server_version,
            "metadata": self.metadata.to_json(),
            "members": [[member.name, member.size] for member in self.members],
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any], filename: str) -> Sidecar:
        """Read the sidecar document of *filename*.

        :raises ValueError: if it is not one, or another file's.
        """
        return cls(
            file=file_from_json(document, filename),
            id=_id(document),
            name=_text(document, "name"),
            digests=Digests(**{key: _text(document, key) for key in Digests.__slots__}),
            uploader=Actor.from_json(_mapping(document, "uploader")),
            metadata=CoreMetadata.from_json(dict(_mapping(document, "metadata"))),
            members=tuple(_members(document)),
            core_metadata_size=_optional_size(document, "core_metadata_size"),
            python_version=_text(document, "python_version", ""),
            tags=tuple(_texts(document, "tags")),
            build=_optional_text(document, "build"),
            wheel=dict(_mapping(document, "wheel")),
            entry_points={
                group: {str(key): str(value) for key, value in points.items()}
                for group, points in _mapping(document, "entry_points").items()
                if isinstance(points, dict)
            },
            warnings=tuple(_texts(document, "warnings")),
            server_version=_text(document, "server_version", ""),
        )


def file_from_json(document: Mapping[str, Any], filename: str) -> File:
    """Read what the index needs from the sidecar document of *filename*.

    Project and version come from the name itself, so a sidecar cannot move its file elsewhere.

    :raises ValueError: if the document is not a sidecar, or another file's.
    """
    try:
        parsed = parse_filename(filename)
    except InvalidFilename as error:
        raise ValueError(str(error)) from error
    size = _optional_size(document, "size")
    sha256 = _text(document, "sha256")
    if _text(document, "filename") != filename:
        raise ValueError("it names another file")
    if size is None:
        raise ValueError("its size is missing")
    core_metadata_sha256 = _optional_text(document, "core_metadata_sha256")
    if not all(_SHA256.fullmatch(digest) for digest in (sha256, core_metadata_sha256) if digest is not None):
        raise ValueError("its sha256 is not 64 hexadecimal digits")
    return File(
        filename=filename,
        project=parsed.project,
        version=str(parsed.version),
        packagetype=parsed.packagetype,
        size=size,
        sha256=sha256,
        upload_time=parse_time(_text(document, "upload_time")),
        requires_python=_optional_text(document, "requires_python"),
        core_metadata_sha256=core_metadata_sha256,
        yanked_reason=_optional_text(document, "yanked_reason"),
    )


def file_to_row(file: File) -> list[str | int | None]:
    """Return *file* as a row of a derived file."""
    return [
        file.filename,
        file.version,
        file.packagetype,
        file.size,
        file.sha256,
        format_time(file.upload_time),
        file.requires_python,
        file.core_metadata_sha256,
        file.yanked_reason,
    ]


def file_from_row(row: Sequence[Any], project: NormalizedName) -> File:
    """Read what :func:`file_to_row` wrote, of a file of *project*.

    What a name says is compared with the name, so that it need not be parsed again in most cases.

    :raises ValueError, TypeError, AttributeError: if it was not written so.
    """
    filename, version, packagetype, size, sha256, upload_time, requires_python, core_metadata_sha256, yanked = row
    if not filename.isascii() or not _is_named(filename, version, packagetype, project):
        raise ValueError(f"{filename!r} is no such file of the project")
    if type(size) is not int or size < 0:
        raise ValueError("a size is not a number of bytes")
    if not _SHA256.fullmatch(sha256) or not (
        core_metadata_sha256 is None or _SHA256.fullmatch(core_metadata_sha256)
    ):
        raise ValueError("a sha256 is not 64 hexadecimal digits")
    for text in (requires_python, yanked):
        if text is not None:
            str.encode(text)  # as _text() does
    file = object.__new__(File)  # of a frozen class, __init__() takes four times as long; there are thousands
    file.__dict__.update(
        filename=filename,
        project=project,
        version=version,
        packagetype=packagetype,
        size=size,
        sha256=sha256,
        upload_time=parse_time(upload_time),
        requires_python=requires_python,
        core_metadata_sha256=core_metadata_sha256,
        yanked_reason=yanked,
    )
    return file


def _is_named(filename: str, version: str, packagetype: str, project: NormalizedName) -> bool:
    """Whether the name of a file says so."""
    if packagetype == "bdist_wheel":
        name, _, rest = filename.partition("-")
        fits = filename.endswith(".whl") and rest.startswith(f"{version}-")
    else:
        name, _, rest = filename.removesuffix(".tar.gz").rpartition("-")
        fits = packagetype == "sdist" and rest == version
    if fits and _normalize(name) == project:
        return True
    parsed = parse_filename(filename)
    return (parsed.project, str(parsed.version), parsed.packagetype) == (project, version, packagetype)


@lru_cache(maxsize=100)
def _normalize(name: str) -> NormalizedName:
    return normalize_project(name)


# --- pieces ---


def new_id(now: datetime) -> str:
    """Return a new UUIDv7 (RFC 9562 section 5.7) of the time *now*; ``uuid.uuid7`` comes with Python 3.14."""
    milliseconds = int(now.timestamp() * 1000)
    value = (milliseconds & (2**48 - 1)) << 80 | 0x7 << 76 | secrets.randbits(12) << 64 | 0b10 << 62
    return str(uuid.UUID(int=value | secrets.randbits(62)))


def format_time(when: datetime) -> str:
    """Return *when* as PEP 700 writes it: ``2026-11-24T09:30:00.123456Z``."""
    if when.tzinfo is not UTC:
        when = when.astimezone(UTC)
    text = when.isoformat() if when.microsecond else when.isoformat(timespec="microseconds")
    return f"{text[:-6]}Z"  # strftime() takes four times as long


def parse_time(text: str) -> datetime:
    """Read what :func:`format_time` wrote.

    :raises ValueError: if it is not such a time.
    """
    when = datetime.fromisoformat(text)
    if when.tzinfo is None:
        raise ValueError("a time without a time zone")
    try:
        return when.astimezone(UTC)
    except OverflowError as error:
        raise ValueError("a time before year 1 or after year 9999") from error


def now() -> datetime:
    """Return the time, aware, UTC."""
    return datetime.fromtimestamp(time.time(), UTC)


_REQUIRED = object()


def _text(document: Mapping[str, Any], key: str, default: object = _REQUIRED) -> str:
    value = document.get(key, default)
    if not isinstance(value, str):
        raise ValueError(f"its {key} is missing or not a text")
    value.encode()  # half a surrogate pair is a ValueError here, and not on the page of all files
    return value


def _id(document: Mapping[str, Any]) -> str:
    text = _text(document, "id")
    if not _ID.fullmatch(text):  # it becomes part of a path in the trash
        raise ValueError("its id is not a UUID")
    return text


def _optional_text(document: Mapping[str, Any], key: str) -> str | None:
    return None if document.get(key) is None else _text(document, key)


def _optional_size(document: Mapping[str, Any], key: str) -> int | None:
    value = document.get(key)
    if value is not None and (type(value) is not int or value < 0):
        raise ValueError(f"its {key} is not a number of bytes")
    return value


def _texts(document: Mapping[str, Any], key: str) -> list[str]:
    value = document.get(key, [])
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ValueError(f"its {key} is not a list of texts")
    return value


def _mapping(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key, {})
    if not isinstance(value, dict):
        raise ValueError(f"its {key} is not an object")
    return value


def _members(document: Mapping[str, Any]) -> list[Member]:
    members = document.get("members", [])
    try:
        return [Member(str(name), int(size)) for name, size in members]
    except (TypeError, ValueError) as error:
        raise ValueError("its members are not a list of names and sizes") from error
