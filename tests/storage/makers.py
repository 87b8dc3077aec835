"""Wheels and sdists for tests: valid unless a test asks for something else, and the same bytes every time."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import re
import tarfile
import zipfile
from collections.abc import Iterable, Mapping

from packaging.tags import parse_tag
from packaging.version import Version

EPOCH = (2020, 2, 2, 0, 0, 0)  # when every member of a wheel was last changed
EPOCH_SECONDS = 1_580_601_600  # the same for the members of an sdist


def escape_name(name: str) -> str:
    """Return *name* as new file names carry it: "Flask-Login" -> "flask_login"."""
    return re.sub(r"[-_.]+", "_", name).lower()


def normalize_version(version: str) -> str:
    """Return *version* as new file names carry it: "1.0-RC1" -> "1.0rc1"."""
    return str(Version(version))


def make_metadata(
    name: str = "toolbox",
    version: str = "1.0",
    *,
    metadata_version: str = "2.1",
    requires: Iterable[str] = (),
    requires_python: str | None = None,
    summary: str | None = None,
    extra_headers: Iterable[tuple[str, str]] = (),
    description: str = "",
) -> bytes:
    """Return a METADATA or PKG-INFO; *extra_headers* stand as they are between the other headers and the body."""
    headers = [("Metadata-Version", metadata_version), ("Name", name), ("Version", version)]
    if summary is not None:
        headers.append(("Summary", summary))
    if requires_python is not None:
        headers.append(("Requires-Python", requires_python))
    headers += [("Requires-Dist", requirement) for requirement in requires]
    headers += list(extra_headers)
    text = "".join(f"{key}: {value}\n" for key, value in headers)
    return (f"{text}\n{description}" if description else text).encode()


def make_wheel_file(tags: str = "py3-none-any", build: str | None = None) -> bytes:
    """Return the WHEEL of a wheel with these *tags* (compressed sets are written out)."""
    lines = [
        "Wheel-Version: 1.0",
        "Generator: makers 1.0",
        f"Root-Is-Purelib: {str(tags.endswith('-any')).lower()}",
    ]
    lines += [f"Tag: {tag}" for tag in sorted(map(str, parse_tag(tags)))]
    if build is not None:
        lines.append(f"Build: {build}")
    return ("\n".join(lines) + "\n").encode()


def make_record(members: Mapping[str, bytes], record_path: str) -> bytes:
    """Return the RECORD that lists *members* and itself."""
    lines = []
    for path, content in members.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        lines.append(f'"{path}"' if "," in path else path)
        lines[-1] += f",sha256={digest},{len(content)}"
    return ("\n".join([*lines, f"{record_path},,"]) + "\n").encode()


def make_zip(
    members: Mapping[str, bytes] | Iterable[tuple[str, bytes]], *, compression: int = zipfile.ZIP_DEFLATED
) -> bytes:
    """Return a ZIP archive; a name that ends in "/" is a directory."""
    pairs = members.items() if isinstance(members, Mapping) else members
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for path, content in pairs:
            info = zipfile.ZipInfo(path, EPOCH)
            info.compress_type = zipfile.ZIP_STORED if path.endswith("/") else compression
            info.external_attr = (0o40755 << 16) | 0x10 if path.endswith("/") else 0o100644 << 16
            archive.writestr(info, content)
    return buffer.getvalue()


def make_tar(members: Mapping[str, bytes], *, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return an uncompressed TAR archive; a name that ends in "/" is a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tar_format) as archive:
        for path, content in members.items():
            info = tarfile.TarInfo(path.rstrip("/"))
            info.mtime = EPOCH_SECONDS
            info.type = tarfile.DIRTYPE if path.endswith("/") else tarfile.REGTYPE
            info.mode = 0o755 if path.endswith("/") else 0o644
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def make_tar_gz(members: Mapping[str, bytes], *, tar_format: int = tarfile.PAX_FORMAT) -> bytes:
    """Return a gzipped TAR archive."""
    return gzip.compress(make_tar(members, tar_format=tar_format), mtime=EPOCH_SECONDS)


def make_wheel(
    name: str = "toolbox",
    version: str = "1.0",
    *,
    tags: str = "py3-none-any",
    build: str | None = None,
    requires: Iterable[str] = (),
    requires_python: str | None = None,
    metadata_version: str = "2.1",
    summary: str | None = None,
    extra_headers: Iterable[tuple[str, str]] = (),
    description: str = "",
    files: Mapping[str, bytes] | None = None,
    entry_points: str | None = None,
    metadata: bytes | None = None,
    wheel: bytes | None = None,
    record: bytes | None = None,
    dist_info: str | None = None,
    filename: str | None = None,
    compression: int = zipfile.ZIP_DEFLATED,
) -> tuple[str, bytes]:
    """Return the file name and the bytes of a wheel.

    *files* are what it installs (one small module if None). *metadata*, *wheel* and *record* replace what would be
    written into those members, *dist_info* and *filename* the names made from *name* and *version*.
    """
    escaped, normalized = escape_name(name), normalize_version(version)
    dist_info = dist_info or f"{escaped}-{normalized}.dist-info"
    parts = [escaped, normalized, *([build] if build else []), tags]
    members = dict(files if files is not None else {f"{escaped}/__init__.py": b"__all__ = []\n"})
    members[f"{dist_info}/METADATA"] = metadata or make_metadata(
        name,
        version,
        metadata_version=metadata_version,
        requires=requires,
        requires_python=requires_python,
        summary=summary,
        extra_headers=extra_headers,
        description=description,
    )
    members[f"{dist_info}/WHEEL"] = make_wheel_file(tags, build) if wheel is None else wheel
    if entry_points is not None:
        members[f"{dist_info}/entry_points.txt"] = entry_points.encode()
    record_path = f"{dist_info}/RECORD"
    members[record_path] = make_record(members, record_path) if record is None else record
    return filename or f"{'-'.join(parts)}.whl", make_zip(members, compression=compression)


def make_sdist(
    name: str = "toolbox",
    version: str = "1.0",
    *,
    requires: Iterable[str] = (),
    requires_python: str | None = None,
    metadata_version: str = "2.2",
    summary: str | None = None,
    extra_headers: Iterable[tuple[str, str]] = (),
    description: str = "",
    files: Mapping[str, bytes] | None = None,
    metadata: bytes | None = None,
    top: str | None = None,
    filename: str | None = None,
    suffix: str = ".tar.gz",
    tar_format: int = tarfile.PAX_FORMAT,
) -> tuple[str, bytes]:
    """Return the file name and the bytes of an sdist; with *suffix* ".zip" a legacy one.

    *files* are its members below the top folder. *metadata* replaces the PKG-INFO, *top* and *filename* the names
    made from *name* and *version*.
    """
    stem = f"{escape_name(name)}-{normalize_version(version)}"
    top = stem if top is None else top
    members = {f"{top}/": b""}
    members[f"{top}/PKG-INFO"] = metadata or make_metadata(
        name,
        version,
        metadata_version=metadata_version,
        requires=requires,
        requires_python=requires_python,
        summary=summary,
        extra_headers=extra_headers,
        description=description,
    )
    for path, content in (files or {"pyproject.toml": b"[build-system]\nrequires = []\n"}).items():
        members[f"{top}/{path}"] = content
    content = make_zip(members) if suffix == ".zip" else make_tar_gz(members, tar_format=tar_format)
    return filename or f"{stem}{suffix}", content
