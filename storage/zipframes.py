"""The framing of a ZIP archive: its headers and end records, every byte accounted for (specs.md 4.5).

``zipfile`` trusts the central directory and looks at nothing else; other readers trust the local headers. Here both
must say the same, and the file must hold nothing besides.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import BinaryIO

from storage.archives import MAX_PATHS_SIZE, Refused, describe
from storage.errors import shorten
from storage.limits import Limits

# PKWARE APPNOTE 6.3.10, sections 4.3.7 to 4.3.16
_LOCAL = struct.Struct("<4s5H3L2H")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_END = struct.Struct("<4s4H2LH")
_MAX16, _MAX32 = 0xFFFF, 0xFFFFFFFF  # "look into the ZIP64 record"

STORED, DEFLATED = 0, 8
_ENCRYPTED = 0x0001 | 0x0040 | 0x2000  # plain, strong, masked headers (4.4.4)
_DESCRIPTOR = 0x0008
_PATCHED = 0x0020
UTF8 = 0x0800  # the path is UTF-8, and not CP437
_COMPARED_FLAGS = _ENCRYPTED | _DESCRIPTOR | _PATCHED | UTF8
_ZIP64, _UNICODE_PATH = 0x0001, 0x7075  # extra fields


@dataclass(slots=True)
class ZipEntry:
    """One member as the central directory describes it."""

    name: str
    size: int  # bytes, unpacked
    packed: int  # bytes in the archive
    crc: int
    method: int
    flags: int
    offset: int  # of the local header, then of the data
    mode: int  # as stat.st_mode, or 0

    @property
    def is_folder(self) -> bool:
        """Whether the member is a folder."""
        return self.name.endswith("/")


@dataclass(frozen=True, slots=True)
class _Directory:
    """Where the end records say that the central directory lies."""

    offset: int
    size: int
    count: int
    end: int  # offset of the first end record


def read_entries(file: BinaryIO, size: int, limits: Limits) -> list[ZipEntry]:
    """Return the members of a ZIP archive of *size* bytes, in the order of their data, folders included.

    :raises Refused: if the framing is not what every reader understands in the same way, or a limit is passed.
    """
    file.seek(0)
    if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise Refused("The file is not a ZIP archive, or has data before its first member.")
    directory = _read_end(file, size)
    entries = _read_directory(file, directory, limits)
    _walk_local_headers(file, entries, directory.offset)
    return entries


# --- the end records ---


def _read_end(file: BinaryIO, size: int) -> _Directory:
    start = max(0, size - _END.size - _MAX16)
    file.seek(start)
    tail = file.read(size - start)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < _END.size:
        raise Refused("The ZIP archive has no end record; it is cut off, or has data after its end.")
    _, disk, first_disk, count_here, count, length, offset, comment = _END.unpack_from(tail, at)
    if at + _END.size + comment != len(tail):
        raise Refused("The ZIP archive has data after its end; a file ends with its end record.")
    directory = _Directory(offset, length, count, start + at)
    if tail[max(0, at - _LOCATOR.size) : at].startswith(b"PK\x06\x07"):
        directory = _read_end64(file, directory)
    if disk not in (0, _MAX16) or first_disk not in (0, _MAX16) or count_here != count:
        raise Refused("The ZIP archive is split over several files; send it in one piece.")
    if directory.offset + directory.size != directory.end:
        raise Refused("The ZIP archive's end record does not say truly where its directory lies.")
    return directory


def _read_end64(file: BinaryIO, plain: _Directory) -> _Directory:
    """Read the ZIP64 end record, which may only say more than the *plain* one, not something else."""
    at = plain.end - _LOCATOR.size
    file.seek(at)
    _, disk, where, disks = _LOCATOR.unpack(_read_exactly(file, _LOCATOR.size))
    if disk != 0 or disks > 1 or where + _END64.size != at:
        raise Refused("The ZIP archive's ZIP64 locator does not point at a record just before it.")
    file.seek(where)
    fields = _END64.unpack(_read_exactly(file, _END64.size))
    signature, length, _, _, disk, first_disk, count_here, count, size, offset = fields
    if signature != b"PK\x06\x06" or length != _END64.size - 12:
        raise Refused("The ZIP archive's ZIP64 end record is malformed.")
    if disk != 0 or first_disk != 0 or count_here != count:
        raise Refused("The ZIP archive is split over several files; send it in one piece.")
    pairs = ((plain.offset, offset, _MAX32), (plain.size, size, _MAX32), (plain.count, count, _MAX16))
    if any(small not in (maximum, large) for small, large, maximum in pairs):
        raise Refused("The ZIP archive's two end records contradict each other.")
    return _Directory(offset, size, count, where)


def _read_exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise Refused("The ZIP archive is cut off in the middle of a header.")
    return data


# --- the central directory ---


def _read_directory(file: BinaryIO, directory: _Directory, limits: Limits) -> list[ZipEntry]:
    if directory.count > limits.max_archive_members:
        raise Refused(f"The archive has more than the limit of {limits.max_archive_members:,} members.")
    file.seek(directory.offset)
    entries: list[ZipEntry] = []
    at, paths_size = directory.offset, 0
    for _ in range(directory.count):
        entry, length, path_size = _read_central_header(file)
        at, paths_size = at + length, paths_size + path_size
        if at > directory.end:
            raise Refused("The ZIP archive's directory is longer than its end record says.")
        if paths_size > MAX_PATHS_SIZE:
            raise Refused(f"The archive's member paths together are longer than {MAX_PATHS_SIZE:,} bytes.")
        entries.append(entry)
    if at != directory.end:
        raise Refused(
            "The ZIP archive has data between its directory and its end, or members that are not counted."
        )
    if len({entry.name for entry in entries}) != len(entries):
        raise Refused("The ZIP archive lists a member twice; every path may stand in it once.")
    return sorted(entries, key=lambda entry: entry.offset)


def _read_central_header(file: BinaryIO) -> tuple[ZipEntry, int, int]:
    """Return an entry, the length of its header and that of its path."""
    fields = _CENTRAL.unpack(_read_exactly(file, _CENTRAL.size))
    signature, _, _, flags, method, _, _, crc, packed, size = fields[:10]
    path_size, extra_size, comment_size, disk, _, attributes, offset = fields[10:]
    if signature != b"PK\x01\x02":
        raise Refused("The ZIP archive's directory has an unknown record in it.")
    name = _decode_path(_read_exactly(file, path_size))
    extras = _read_extras(_read_exactly(file, extra_size), name) if extra_size else {}
    size, packed, offset = _resolve_zip64(extras, (size, packed, offset), name)
    if comment_size:
        raise Refused(f"{describe(name)} carries a comment; the ZIP archive must be written without them.")
    if disk not in (0, _MAX16):
        raise Refused("The ZIP archive is split over several files; send it in one piece.")
    entry = ZipEntry(name, size, packed, crc, method, flags, offset, attributes >> 16)
    _check_packing(entry)
    return entry, _CENTRAL.size + path_size + extra_size, path_size


def _check_packing(entry: ZipEntry) -> None:
    if entry.flags & (_ENCRYPTED | _PATCHED):
        raise Refused(f"{describe(entry.name)} is encrypted; only plain members can be read.")
    if entry.method not in (STORED, DEFLATED):
        raise Refused(f"{describe(entry.name)} is neither stored nor deflated; use one of the two.")
    if entry.method == STORED and entry.size != entry.packed:
        raise Refused(f"{describe(entry.name)} is stored, yet has two different sizes.")


def _decode_path(path: bytes) -> str:
    try:
        name = path.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Refused(f"The member path {shorten(path.decode('latin-1'))} is not UTF-8.") from error
    if not name:
        raise Refused("The ZIP archive has a member without a name.")
    return name


def _read_extras(extra: bytes, name: str) -> dict[int, bytes]:
    """Return the extra fields of a header, by their id."""
    extras: dict[int, bytes] = {}
    at = 0
    while at < len(extra):
        kind, size = struct.unpack_from("<HH", extra, at) if at + 4 <= len(extra) else (0, _MAX16)
        if at + 4 + size > len(extra):
            raise Refused(f"{describe(name)} has a malformed extra field in its header.")
        if kind in extras and kind in (_ZIP64, _UNICODE_PATH):
            raise Refused(f"{describe(name)} has an extra field twice in its header.")
        extras[kind] = extra[at + 4 : at + 4 + size]
        at += 4 + size
    # Info-ZIP's second path (1 byte version, 4 bytes checksum): readers differ on which one counts.
    if _UNICODE_PATH in extras and extras[_UNICODE_PATH][5:] != name.encode():
        raise Refused(f"{describe(name)} has a second, different path in its header.")
    return extras


def _resolve_zip64(extras: dict[int, bytes], values: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Return *values* (unpacked size, packed size, offset) with those that stand in the ZIP64 extra field.

    Readers take either only the values that do not fit their 32 bits or every value by its position: both must
    come to the same.
    """
    if _ZIP64 not in extras and _MAX32 not in values:
        return values
    extra = extras.get(_ZIP64, b"")
    if len(extra) not in (0, 8, 16, 24, 28):
        raise Refused(f"{describe(name)} has a malformed ZIP64 field in its header.")
    large = list(struct.unpack_from(f"<{len(extra) // 8}Q", extra))
    needed = [index for index, value in enumerate(values) if value == _MAX32]
    if len(large) < len(needed):
        raise Refused(f"{describe(name)} says that its sizes stand in a ZIP64 field, which does not have them.")
    resolved = list(values)
    for index, value in zip(needed, large, strict=False):
        resolved[index] = value
    if len(large) > len(needed) and any(a != b for a, b in zip(resolved, large, strict=False)):
        raise Refused(f"{describe(name)} has a ZIP64 field that contradicts its header.")
    return tuple(resolved)


# --- the local headers ---


def _walk_local_headers(file: BinaryIO, entries: list[ZipEntry], end: int) -> None:
    """Check that local headers and data lie one after the other from byte 0 to *end*, and agree with *entries*.

    Every entry's offset is moved from its header to its data.
    """
    at = 0
    for entry in entries:
        if entry.offset != at:
            raise Refused(f"The ZIP archive has data that belong to no member before {shorten(entry.name)}.")
        file.seek(at)
        entry.offset = at + _check_local_header(file, entry)
        at = entry.offset + entry.packed
        if entry.flags & _DESCRIPTOR and at <= end:
            file.seek(at)
            at += _check_descriptor(file.read(24), entry)
        if at > end:
            raise Refused(f"{describe(entry.name)} reaches beyond the place where the directory begins.")
    if at != end:
        raise Refused("The ZIP archive has data that belong to no member before its directory.")


def _check_local_header(file: BinaryIO, entry: ZipEntry) -> int:
    """Return the length of the local header at the position of *file* if it agrees with *entry*."""
    fields = _LOCAL.unpack(_read_exactly(file, _LOCAL.size))
    signature, _, flags, method, _, _, crc, packed, size, path_size, extra_size = fields
    if signature != b"PK\x03\x04":
        raise Refused(f"{describe(entry.name)} has no header of its own where the directory says.")
    if _read_exactly(file, path_size) != entry.name.encode():
        raise Refused(f"{describe(entry.name)} is called otherwise in its own header.")
    extras = _read_extras(_read_exactly(file, extra_size), entry.name) if extra_size else {}
    length: int = _LOCAL.size + path_size + extra_size
    size, packed = _resolve_zip64(extras, (size, packed), entry.name)
    streamed = flags & _DESCRIPTOR
    if streamed and (size, packed) == (0, 0) != (entry.size, entry.packed):
        raise Refused(
            f"{describe(entry.name)} gives its size only after its data (a streamed ZIP); "
            "write the archive to a file that can be rewound."
        )
    if (size, packed) != (entry.size, entry.packed):
        raise Refused(f"{describe(entry.name)} has other sizes in its own header than in the directory.")
    if method != entry.method or (flags ^ entry.flags) & _COMPARED_FLAGS:
        raise Refused(f"{describe(entry.name)} is packed otherwise in its own header than in the directory.")
    if crc != entry.crc and not (streamed and crc == 0):
        raise Refused(f"{describe(entry.name)} has another checksum in its own header than in the directory.")
    return length


def _check_descriptor(data: bytes, entry: ZipEntry) -> int:
    """Return the length of the data descriptor that *data* start with, if it agrees with *entry*."""
    layouts = ("<LQQ", "<LLL") if max(entry.packed, entry.size) < _MAX32 else ("<LQQ",)
    for layout in layouts:
        body = struct.pack(layout, entry.crc, entry.packed, entry.size)
        for descriptor in (b"PK\x07\x08" + body, body):
            if data.startswith(descriptor):
                return len(descriptor)
    raise Refused(f"{describe(entry.name)} has a data descriptor that contradicts its header.")
