"""What the ``.dist-info`` of a wheel holds besides METADATA: WHEEL, RECORD and entry_points.txt.

packaging.python.org, "Binary distribution format", "Recording installed projects" and "Entry points specification".
"""

from __future__ import annotations

import base64
import codecs
import csv
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product

from storage.archives import MAX_PATH_LENGTH, Findings, Refused
from storage.errors import shorten
from storage.lanes import Piece, Stream
from storage.limits import KIB, MIB, Limits
from storage.metadata import read_headers
from storage.zipframes import ZipEntry
from storage.zips import ZipArchive

# --- WHEEL ---

MAX_WHEEL_FILE = 64 * KIB  # bytes
MAX_TAGS = 1000  # of one wheel; real ones have less than a hundred
_WHEEL_VERSION = re.compile(r"1\.[0-9]{1,3}")
_TAG = re.compile(r"[\w.]+-[\w.]+-[\w.]+", re.ASCII)


@dataclass(frozen=True, slots=True)
class WheelFile:
    """The contents of WHEEL."""

    wheel_version: str
    generator: str | None
    root_is_purelib: bool | None
    build: str | None
    tags: tuple[str, ...]  # in their order, compressed sets written out

    def to_json(self) -> dict[str, object]:
        """Return what pages and the sidecar show."""
        values = {
            "wheel_version": self.wheel_version,
            "generator": self.generator,
            "root_is_purelib": self.root_is_purelib,
        }
        return {key: value for key, value in values.items() if value is not None}


def read_wheel_file(data: bytes, findings: Findings) -> WheelFile | None:
    """Read a WHEEL; None if it cannot be read at all, with the reason in *findings*."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        findings.refuse("WHEEL is not UTF-8.")
        return None
    headers = read_headers(text, "WHEEL", MAX_TAGS, findings)
    if headers is None:
        return None
    values: dict[str, list[str]] = {}
    for name, value in headers.pairs:
        values.setdefault(name, []).append(value.strip())
    for name in ("wheel-version", "root-is-purelib"):
        if len(values.get(name, [])) > 1:
            findings.refuse(f"WHEEL has {name} several times; it may stand once.")
    version = values.get("wheel-version", [""])[0]
    if not _WHEEL_VERSION.fullmatch(version):
        findings.refuse(f"WHEEL has the Wheel-Version {shorten(version)}; 1.0 is what installers read.")
    return WheelFile(
        version,
        values.get("generator", [None])[0],
        _read_purelib(values.get("root-is-purelib", []), findings),
        values.get("build", [None])[0] or None,
        _expand_tags(values.get("tag", []), findings),
    )


def _read_purelib(values: list[str], findings: Findings) -> bool | None:
    if not values:
        findings.warn("WHEEL does not say Root-Is-Purelib; installers take it as false.")
        return None
    if values[0].lower() not in ("true", "false"):
        findings.refuse(f"WHEEL has Root-Is-Purelib {shorten(values[0])}; it is true or false.")
    return values[0].lower() == "true"


def _expand_tags(lines: list[str], findings: Findings) -> tuple[str, ...]:
    tags: dict[str, None] = {}  # a set that keeps the order
    for line in lines:
        parts = [part.split(".") for part in line.split("-")]
        if not _TAG.fullmatch(line) or len(parts[0]) * len(parts[1]) * len(parts[2]) + len(tags) > MAX_TAGS:
            findings.warn(f"WHEEL has the tag {shorten(line)}, which is not one.")
            continue
        tags.update(dict.fromkeys("-".join(tag).lower() for tag in product(*parts)))
    return tuple(tags)


def compress_tags(tags: tuple[str, ...]) -> str | None:
    """Return *tags* as one compressed set, "py2.py3-none-any", or None if they are not all combinations of one."""
    columns = [sorted(set(column)) for column in zip(*(tag.split("-") for tag in tags), strict=True)]
    if not columns or {"-".join(tag) for tag in product(*columns)} != set(tags):
        return None
    return "-".join(".".join(column) for column in columns)


# --- entry_points.txt ---

MAX_ENTRY_POINTS = 1 * MIB  # bytes
_SCRIPT_GROUPS = ("console_scripts", "gui_scripts")
_SCRIPT = re.compile(r"[\w.-]+")  # what the specification recommends and PyPI demands


def read_entry_points(data: bytes, findings: Findings) -> dict[str, dict[str, str]]:
    """Return the entry points by group and name. Reasons for a refusal go into *findings*."""
    groups: dict[str, dict[str, str]] = {}
    try:
        lines = data.decode("utf-8").splitlines()
    except UnicodeDecodeError:
        findings.refuse("entry_points.txt is not UTF-8.")
        return groups
    group: dict[str, str] | None = None
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line[0] in "#;":
            continue
        if line[0] == "[" and line[-1] == "]":
            group = groups.setdefault(line[1:-1].strip(), {})
            continue
        name, equals, value = line.partition("=")
        if group is None or not equals or not name.strip():
            findings.refuse(f"Line {number} of entry_points.txt is neither '[group]' nor 'name = module:object'.")
            return groups
        group[name.strip()] = value.strip()
    for name in (name for key in _SCRIPT_GROUPS for name in groups.get(key, {})):
        if not _SCRIPT.fullmatch(name) or name in (".", ".."):
            findings.refuse(
                f"entry_points.txt has a script {shorten(name)}; use letters, digits, '.', '-' and '_'."
            )
    return groups


# --- RECORD ---

MAX_RECORD = 32 * MIB  # bytes
_MAX_LINE = 2 * MAX_PATH_LENGTH  # characters; a path with all its quotes doubled
_STRONG = frozenset({"sha256", "sha384", "sha512", "sha3_256", "sha3_384", "sha3_512", "blake2b", "blake2s"})

Rows = dict[str, str]  # path -> hash and size as written, with a comma between them


def read_record(pieces: Iterable[bytes], limits: Limits, report: Callable[[str], None]) -> Rows:
    """Read a RECORD from its bytes; what is wrong with single rows goes to *report*.

    :raises Refused: if it is no CSV in UTF-8 or too long.
    """
    rows: Rows = {}
    try:
        for row in csv.reader(_split_lines(pieces)):
            if not row:
                continue
            if len(row) != 3:
                report(f"RECORD has a row of {len(row)} columns; write path, hash and size.")
                continue
            path = row[0].replace("\\", "/")
            value = f"{row[1]},{row[2]}"
            if rows.setdefault(path, value) != value:
                report(f"RECORD lists {shorten(path)} twice, differently.")
            if len(rows) > limits.max_archive_members:
                raise Refused("RECORD has more rows than an archive may have members.")
    except csv.Error as error:
        raise Refused(f"RECORD is not valid CSV: {error}.") from error
    except UnicodeDecodeError as error:
        raise Refused("RECORD is not UTF-8.") from error
    return rows


def _split_lines(pieces: Iterable[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    rest = ""
    for piece in pieces:
        *lines, rest = (rest + decoder.decode(piece)).split("\n")
        for line in lines:
            yield f"{line}\n"
        if len(rest) > _MAX_LINE:
            raise Refused("RECORD has a line longer than any path.")
    yield rest + decoder.decode(b"", final=True)


@dataclass(slots=True)
class _Comparison:
    """Members by how they disagree with RECORD."""

    unlisted: list[str] = field(default_factory=list)
    unhashed: list[str] = field(default_factory=list)
    different: list[str] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def sentences(self) -> Iterator[str]:
        faults = {
            "RECORD does not list {} of the archive; build the wheel again": self.unlisted,
            "RECORD has no hash of SHA-256 or better for {}": self.unhashed,
            "RECORD has another hash or size than {} of the archive; build the wheel again": self.different,
            "RECORD lists {} that the archive does not have": self.absent,
        }
        for fault, paths in faults.items():
            if paths:
                more = f" and {len(paths) - 1:,} more files" if len(paths) > 1 else ""
                yield fault.format(f"{shorten(paths[0])}{more}") + "."


def verify_members(
    archive: ZipArchive, dist_info: str, rows: Rows | None, report: Callable[[str], None], findings: Findings
) -> None:
    """Unpack every member, comparing it with its headers and with its row of RECORD (*rows*, None if unreadable).

    *rows* are used up. Disagreements with RECORD go to *report*, damaged members to *findings*.
    """
    record = f"{dist_info}/RECORD"
    exempt = {record, f"{record}.jws", f"{record}.p7s"}
    comparison = _Comparison()
    if rows is not None and record not in rows:
        findings.warn("RECORD does not list itself.")
    for entry in archive.entries:
        row = rows.pop(entry.name, None) if rows is not None else None
        try:
            _verify(archive, entry, row, entry.name in exempt or entry.is_folder or rows is None, comparison)
        except Refused as error:
            findings.refuse(str(error))
    if rows is not None:
        comparison.absent = [path for path in rows if path not in exempt and path[-1:] != "/"]
    for sentence in comparison.sentences():
        report(sentence)


def _verify(archive: ZipArchive, entry: ZipEntry, row: str | None, exempt: bool, comparison: _Comparison) -> None:
    written, _, size = (row or "").rpartition(",")
    algorithm, _, digest = written.partition("=")
    algorithm = algorithm.lower()
    hasher = hashlib.new(algorithm) if algorithm in _STRONG else None
    if hasher is not None and entry.size >= LARGE:
        _hash_beside(archive.pieces(entry), hasher.update)
    else:
        for piece in archive.pieces(entry):
            if hasher is not None:
                hasher.update(piece)
    if row is None:
        if not exempt:
            comparison.unlisted.append(entry.name)
    elif hasher is None:
        if not exempt or algorithm:
            comparison.unhashed.append(entry.name)
    elif _encode(hasher.digest()) != digest.rstrip("=") or size not in ("", str(entry.size)):
        comparison.different.append(entry.name)


LARGE = 4 * MIB  # bytes


def _hash_beside(pieces: Iterable[bytes], update: Callable[[Piece], object]) -> None:
    """Let another processor hash what this one reads, unpacks and compares with its checksum."""
    stream = Stream([update])
    try:
        for piece in pieces:
            stream.put(piece)
            stream.make_room()
        stream.finish()
    finally:
        stream.abandon()


def _encode(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
