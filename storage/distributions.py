"""Reading one wheel or sdist: what it is, what it says about itself, and every reason to refuse it.

Nothing is extracted, nothing large is held in memory, and whatever the bytes are, the answer is a
:class:`Distribution`, :class:`~storage.errors.InvalidFilename` or :class:`~storage.errors.InvalidDistribution`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import BinaryIO

from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from storage.archives import Contents, Findings, Member, Refused, Wanted, looks_like_zip, measure
from storage.errors import InvalidDistribution, InvalidFilename, InvalidName, shorten
from storage.limits import Limits
from storage.metadata import CoreMetadata, read_metadata
from storage.names import (
    DistributionFilename,
    PackageType,
    normalize_project,
    parse_filename,
    parse_version,
)
from storage.tars import read_tar_gz
from storage.wheels import (
    MAX_ENTRY_POINTS,
    MAX_RECORD,
    MAX_TAGS,
    MAX_WHEEL_FILE,
    WheelFile,
    compress_tags,
    read_entry_points,
    read_record,
    read_wheel_file,
    verify_members,
)
from storage.zips import ZipArchive, open_zip


@dataclass(frozen=True, slots=True)
class Distribution:
    """A wheel or sdist that can be accepted."""

    filename: str
    name: str  # as spelled in the metadata
    project: NormalizedName
    version: str  # normalized
    packagetype: PackageType
    python_version: str  # "py3", "cp311.cp312"; "source" for an sdist
    tags: tuple[str, ...]  # compressed sets written out, sorted
    build: str | None  # build tag
    metadata: CoreMetadata
    metadata_bytes: bytes  # byte for byte as in the archive
    metadata_served: bool  # whether installers may rely on it without the file (PEP 658, PEP 643)
    members: tuple[Member, ...]
    entry_points: dict[str, dict[str, str]]  # group -> name -> object
    wheel: dict[str, object]  # generator, root_is_purelib, wheel_version; empty for an sdist
    warnings: tuple[str, ...]


def read_distribution(
    file: BinaryIO,
    filename: str,
    *,
    limits: Limits,
    strict_record: bool = True,
    claimed_name: str | None = None,
    claimed_version: str | None = None,
) -> Distribution:
    """Read and check a wheel or sdist.

    With *strict_record* false, a RECORD that disagrees with the archive only brings a warning. *claimed_name* and
    *claimed_version* are what a form says; they must agree.

    :raises InvalidFilename: if *filename* is not that of a wheel or sdist.
    :raises InvalidDistribution: if the content cannot be accepted, with every reason that was found.
    """
    parsed = parse_filename(filename)
    findings = Findings()
    _check_claims(parsed, claimed_name, claimed_version, findings)
    parts = _inspect(file, filename, parsed, limits, strict_record, findings)
    if findings.reasons or parts.metadata is None:
        raise InvalidDistribution(filename, tuple(findings.reasons))
    return _assemble(parsed, parts, parts.metadata, findings)


def find_reasons(
    file: BinaryIO,
    filename: str,
    *,
    limits: Limits,
    strict_record: bool = True,
    claimed_name: str | None = None,
    claimed_version: str | None = None,
) -> tuple[str, ...]:
    """Return every reason for which :func:`read_distribution` would refuse a file; empty if it would not."""
    findings = Findings()
    parsed = None
    try:
        parsed = parse_filename(filename)
    except InvalidFilename as error:
        findings.refuse(f"{error}.")
    else:
        _check_claims(parsed, claimed_name, claimed_version, findings)
    if parsed or filename.endswith((".whl", ".tar.gz", ".zip")):
        _inspect(file, filename, parsed, limits, strict_record, findings)
    return tuple(findings.reasons)


def name_from_content(file: BinaryIO, *, limits: Limits) -> str:
    """Return the file name that a wheel or sdist should have, by its own metadata.

    :raises InvalidDistribution: if it does not tell.
    """
    findings, parts = Findings(), _Parts()
    suffix = ""
    with findings.collecting():
        suffix = _read_nameless(file, parts, limits, findings)
    identity = _identify(parts.metadata)
    if identity is None or findings.reasons:
        raise InvalidDistribution("", tuple(findings.reasons))
    stem = f"{identity[0].replace('-', '_')}-{identity[1]}"
    return f"{stem}{_name_tags(parts) if suffix == '.whl' else ''}{suffix}"


def _read_nameless(file: BinaryIO, parts: _Parts, limits: Limits, findings: Findings) -> str:
    """Read what is needed to name a file, and return the suffix that it should have."""
    file.seek(0)
    if file.read(2) != b"PK":
        _read_sdist(file, ".tar.gz", parts, limits, findings)
        return ".tar.gz"
    archive = open_zip(file, limits, findings)
    if not _dist_infos(archive.tops()):
        _read_sdist(file, ".zip", parts, limits, findings)
        return ".zip"
    parts.folder = _find_dist_info(archive)
    _read_dist_info(archive, parts, limits, findings)
    return ".whl"


def _name_tags(parts: _Parts) -> str:
    wheel = parts.wheel
    tags = compress_tags(wheel.tags) if wheel else None
    if wheel is None or tags is None:
        raise InvalidDistribution("", ("WHEEL does not have the tags that the file name of a wheel needs.",))
    return f"-{wheel.build}-{tags}" if wheel.build else f"-{tags}"


# --- one road for all ---


@dataclass(slots=True)
class _Parts:
    """What has been read of a file so far."""

    folder: str = ""  # of the metadata: the .dist-info or the sdist's top folder
    metadata: CoreMetadata | None = None
    metadata_bytes: bytes = b""
    members: tuple[Member, ...] = ()
    entry_points: dict[str, dict[str, str]] = field(default_factory=dict)
    wheel: WheelFile | None = None


def _inspect(
    file: BinaryIO,
    filename: str,
    parsed: DistributionFilename | None,
    limits: Limits,
    strict_record: bool,
    findings: Findings,
) -> _Parts:
    """Read a file as far as it can be read, with all that is wrong in *findings*."""
    parts = _Parts()
    with findings.collecting():
        if measure(file) > limits.max_file_size:
            raise Refused(f"The file is larger than the limit of {limits.max_file_size:,} bytes.")
        if filename.endswith(".whl"):
            _read_wheel(file, parts, limits, strict_record, findings)
        else:
            _read_sdist(file, filename, parts, limits, findings)
    _check_identity(parsed, parts, findings)
    if parsed and parts.metadata:
        _check_names(parsed, parts, parts.metadata, findings)
    return parts


def _assemble(
    parsed: DistributionFilename, parts: _Parts, metadata: CoreMetadata, findings: Findings
) -> Distribution:
    is_wheel = parsed.packagetype == "bdist_wheel"
    return Distribution(
        filename=parsed.filename,
        name=metadata.name,
        project=parsed.project,
        version=str(parsed.version),
        packagetype=parsed.packagetype,
        python_version=parsed.filename.split("-")[-3] if is_wheel else "source",
        tags=tuple(sorted(map(str, parsed.tags))),
        build="".join(map(str, parsed.build)) or None,
        metadata=metadata,
        metadata_bytes=parts.metadata_bytes,
        metadata_served=is_wheel or _is_reliable(metadata),
        members=parts.members,
        entry_points=parts.entry_points,
        wheel=parts.wheel.to_json() if parts.wheel else {},
        warnings=tuple(findings.warnings),
    )


_NEEDED_BY_INSTALLERS = frozenset({"name", "version", "requires-dist", "requires-python", "provides-extra"})


def _is_reliable(metadata: CoreMetadata) -> bool:
    """Whether the wheels built from an sdist will say the same to installers as its PKG-INFO (PEP 643)."""
    return metadata.metadata_level >= (2, 2) and _NEEDED_BY_INSTALLERS.isdisjoint(metadata.dynamic)


# --- wheels ---


def _read_wheel(file: BinaryIO, parts: _Parts, limits: Limits, strict_record: bool, findings: Findings) -> None:
    archive = open_zip(file, limits, findings)
    parts.members = archive.members()
    report = findings.refuse if strict_record else findings.warn
    rows = None
    with findings.collecting():
        parts.folder = _find_dist_info(archive)
        _read_dist_info(archive, parts, limits, findings)
        record = archive.find(f"{parts.folder}/RECORD")
        if record is None:
            raise Refused(f"The wheel has no {shorten(parts.folder)}/RECORD; build it again.")
        if record.size > MAX_RECORD:
            raise Refused(f"RECORD is larger than the limit of {MAX_RECORD:,} bytes.")
        rows = read_record(archive.pieces(record), limits, report)
    verify_members(archive, parts.folder, rows, report, findings)


# Installed beside the wheel's own folder, such a one would pass for another distribution.
_SMUGGLED = re.compile(r"[^/]+\.data/(?:purelib|platlib)/[^/]+\.dist-info/", re.IGNORECASE)


def _dist_infos(tops: frozenset[str]) -> list[str]:
    return sorted(top for top in tops if top.lower().endswith(".dist-info"))


def _find_dist_info(archive: ZipArchive) -> str:
    folders = _dist_infos(archive.tops())
    if not folders:
        raise Refused("The wheel has no .dist-info folder; build it with a build backend.")
    folders += [entry.name for entry in archive.entries if _SMUGGLED.match(entry.name)]
    if len(folders) > 1:
        raise Refused(
            f"The wheel has {len(folders)} .dist-info folders, {shorten(folders[1])} is one; it may have one."
        )
    return folders[0]


def _read_dist_info(archive: ZipArchive, parts: _Parts, limits: Limits, findings: Findings) -> None:
    """Read METADATA, WHEEL and entry_points.txt."""
    with findings.collecting():
        parts.metadata_bytes = _read_required(archive, f"{parts.folder}/METADATA", limits.max_metadata_size)
        parts.metadata = read_metadata(parts.metadata_bytes, "METADATA", limits, findings)
    with findings.collecting():
        data = _read_required(archive, f"{parts.folder}/WHEEL", MAX_WHEEL_FILE)
        parts.wheel = read_wheel_file(data, findings)
    if entry := archive.find(f"{parts.folder}/entry_points.txt"):
        with findings.collecting():
            parts.entry_points = read_entry_points(archive.read(entry, MAX_ENTRY_POINTS), findings)


def _read_required(archive: ZipArchive, path: str, limit: int) -> bytes:
    entry = archive.find(path)
    if entry is None:
        raise Refused(f"The wheel has no {shorten(path)}; build it with a build backend.")
    return archive.read(entry, limit)


# --- sdists ---


def _read_sdist(file: BinaryIO, filename: str, parts: _Parts, limits: Limits, findings: Findings) -> None:
    first: list[str] = []  # only one: each of many top folders could hold another

    def wanted(path: str) -> int:
        if not first and path.count("/") == 1 and path.endswith("/PKG-INFO"):
            first.append(path)
        return limits.max_metadata_size if path in first else 0

    contents = _walk_sdist(file, filename, limits, findings, wanted)
    parts.members = contents.members
    files = [member.name for member in contents.members if "/" not in member.name]
    if len(contents.tops) != 1 or files:
        example = f", and {shorten(files[0])} beside it" if files else ""
        raise Refused(
            f"The sdist has {len(contents.tops)} top folders{example}; it needs one, called NAME-VERSION."
        )
    parts.folder = next(iter(contents.tops))
    pkg_info = contents.kept.get(f"{parts.folder}/PKG-INFO")
    if pkg_info is None:
        raise Refused(f"The sdist has no file {shorten(parts.folder)}/PKG-INFO; build it with a build backend.")
    parts.metadata_bytes = pkg_info
    parts.metadata = read_metadata(pkg_info, "PKG-INFO", limits, findings)


def _walk_sdist(file: BinaryIO, filename: str, limits: Limits, findings: Findings, wanted: Wanted) -> Contents:
    if filename.endswith(".zip"):
        return open_zip(file, limits, findings).walk(wanted)
    if looks_like_zip(file):
        raise Refused("The file is a ZIP archive behind its gzip data; pip would unpack that instead.")
    return read_tar_gz(file, limits, findings, wanted)


# --- identity ---


def _check_identity(parsed: DistributionFilename | None, parts: _Parts, findings: Findings) -> None:
    """Compare name and version in the metadata, the file name and the folder of the metadata."""
    identity = _identify(parts.metadata)
    if parsed and identity:
        project, version = identity
        if project != parsed.project:
            findings.refuse(f"The file name says project '{parsed.project}', the metadata say '{project}'.")
        if version != parsed.version:
            findings.refuse(f"The file name says version '{parsed.version}', the metadata say '{version}'.")
    if parsed:
        identity = (parsed.project, parsed.version)
    if identity and parts.folder and not _names(parts.folder.removesuffix(".dist-info"), *identity):
        findings.refuse(
            f"The folder {shorten(parts.folder)} is not called after name and version, "
            f"'{identity[0]}' and '{identity[1]}'."
        )


def _identify(metadata: CoreMetadata | None) -> tuple[NormalizedName, Version] | None:
    try:
        return (normalize_project(metadata.name), parse_version(metadata.version)) if metadata else None
    except InvalidName:
        return None


def _names(text: str, project: NormalizedName, version: Version) -> bool:
    """Whether *text* is some spelling of NAME-VERSION; either part may have hyphens in old archives."""
    hyphens = [index for index, character in enumerate(text) if character == "-"]
    return len(text) <= _MAX_FOLDER and any(
        canonicalize_name(text[:index]) == project and _is_version(text[index + 1 :], version) for index in hyphens
    )


_MAX_FOLDER = 400  # characters; more than the longest name and version


def _is_version(text: str, version: Version) -> bool:
    try:
        # Old tools wrote "_" for "-", as file names still do.
        return parse_version(text.replace("_", "-")) == version
    except InvalidName:
        return False


def _check_claims(parsed: DistributionFilename, name: str | None, version: str | None, findings: Findings) -> None:
    try:
        if name is not None and normalize_project(name) != parsed.project:
            findings.refuse(f"The form says project {shorten(name)}, the file name says '{parsed.project}'.")
        if version is not None and parse_version(version) != parsed.version:
            findings.refuse(f"The form says version {shorten(version)}, the file name says '{parsed.version}'.")
    except InvalidName as error:
        findings.refuse(f"The form is wrong: {error}.")


# --- what else goes by the file name ---


def _check_names(parsed: DistributionFilename, parts: _Parts, metadata: CoreMetadata, findings: Findings) -> None:
    if parsed.packagetype == "sdist":
        _check_sdist_name(parsed, metadata, findings)
    elif len(parsed.tags) > MAX_TAGS:
        findings.refuse(f"The file name stands for {len(parsed.tags):,} tags; {MAX_TAGS:,} are the limit.")
    elif parts.wheel and set(parts.wheel.tags) != set(map(str, parsed.tags)):
        findings.warn("WHEEL has other tags than the file name; the file name counts.")
    _check_license_files(parts, metadata, findings)


def _check_sdist_name(parsed: DistributionFilename, metadata: CoreMetadata, findings: Findings) -> None:
    """Demand what PEP 625 says of everything that is as new as metadata 2.4; older tools did not know it."""
    stem = f"{parsed.project.replace('-', '_')}-{parsed.version}"
    suffix = ".zip" if parsed.filename.endswith(".zip") else ".tar.gz"
    if metadata.metadata_level >= (2, 4) and parsed.filename != stem + suffix:
        findings.refuse(f"The sdist {shorten(parsed.filename)} should be called '{stem}{suffix}' (PEP 625).")


def _check_license_files(parts: _Parts, metadata: CoreMetadata, findings: Findings) -> None:
    if not metadata.license_files:
        return
    names = {member.name for member in parts.members}
    folders = ("", "licenses/", "license_files/") if parts.wheel else ("",)
    for path in metadata.license_files:
        if not any(f"{parts.folder}/{folder}{path}" in names for folder in folders):
            findings.warn(f"The License-File {shorten(path)} is not in the archive.")
