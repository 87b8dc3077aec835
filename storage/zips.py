"""Reading ZIP archives so that every reader sees the same: the framing rules of specs.md 4.5.

``zipfile`` trusts the central directory and looks at nothing else; here the whole file is accounted for, from byte
0 to the last, before a single member is unpacked.
"""

from __future__ import annotations

import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from storage.archives import (
    CHUNK,
    MAX_PATHS_SIZE,
    Contents,
    Findings,
    Inflater,
    Member,
    Refused,
    Wanted,
    check_unpacked_size,
    describe,
    find_below,
    has_control_characters,
    keep_bytes,
    measure,
    path_fault,
)
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
_UTF8 = 0x0800
_COMPARED_FLAGS = _ENCRYPTED | _DESCRIPTOR | _PATCHED | _UTF8
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


class ZipArchive:
    """A ZIP archive whose framing has been checked.

    *entries* are the members in the order of their data, folders included.
    """

    def __init__(self, file: BinaryIO, entries: list[ZipEntry]) -> None:
        self._file = file
        self.entries = entries

    def find(self, path: str) -> ZipEntry | None:
        """Return the member at *path*, if there is one."""
        return next((entry for entry in self.entries if entry.name == path), None)

    def pieces(self, entry: ZipEntry) -> Iterator[bytes]:
        """Yield the unpacked bytes of *entry*, comparing size and checksum with what the headers say.

        :raises Refused: if they differ, at the latest when everything has been yielded.
        """
        size, crc = 0, 0
        for piece in self._stored(entry) if entry.method == STORED else self._inflated(entry):
            size += len(piece)
            if size > entry.size:
                break
            crc = zlib.crc32(piece, crc)
            yield piece
        if size != entry.size:
            raise Refused(
                f"{describe(entry.name)} does not unpack to the {entry.size:,} bytes that its header says."
            )
        if crc != entry.crc:
            raise Refused(f"{describe(entry.name)} does not match its checksum (CRC-32); the archive is damaged.")

    def read(self, entry: ZipEntry, limit: int) -> bytes:
        """Return the unpacked bytes of *entry*.

        :raises Refused: if they are more than *limit* bytes or do not match the headers.
        """
        if entry.size > limit:
            raise Refused(f"{describe(entry.name)} is larger than the limit of {limit:,} bytes.")
        return keep_bytes(self.pieces(entry), limit, describe(entry.name))

    def walk(self, wanted: Wanted) -> Contents:
        """Unpack every member, keeping those that are *wanted*.

        :raises Refused: at the first member that does not match its headers.
        """
        kept = {}
        for entry in self.entries:
            if limit := 0 if entry.is_folder else wanted(entry.name):
                kept[entry.name] = self.read(entry, limit)
            else:
                for _ in self.pieces(entry):
                    pass
        return Contents(self.members(), self.tops(), kept)

    def members(self) -> tuple[Member, ...]:
        """The files, in the order of their data."""
        return tuple(Member(entry.name, entry.size) for entry in self.entries if not entry.is_folder)

    def tops(self) -> frozenset[str]:
        """The first part of every path."""
        return frozenset(entry.name.split("/", 1)[0] for entry in self.entries)

    def _stored(self, entry: ZipEntry) -> Iterator[bytes]:
        self._file.seek(entry.offset)
        left = entry.packed
        while left and (piece := self._file.read(min(left, CHUNK))):
            left -= len(piece)
            yield piece

    def _inflated(self, entry: ZipEntry) -> Iterator[bytes]:
        if not entry.packed and not entry.size:
            return  # Python 2 wrote folders so: "deflated", and not a byte of it
        packed = self._stored(entry)
        inflater = Inflater(lambda: next(packed, b""), -zlib.MAX_WBITS, describe(entry.name))
        yield from inflater.pieces()
        if inflater.unused or next(packed, b""):
            raise Refused(f"{describe(entry.name)} has data after the end of its compressed data.")


def open_zip(file: BinaryIO, limits: Limits, findings: Findings) -> ZipArchive:
    """Check the framing of a ZIP archive and the paths of its members, and return it for reading.

    What is wrong with single members goes into *findings*.

    :raises Refused: if the framing is not what every reader understands in the same way, or a limit is passed.
    """
    size = measure(file)
    file.seek(0)
    if file.read(4) not in (b"PK\x03\x04", b"PK\x05\x06"):
        raise Refused("The file is not a ZIP archive, or has data before its first member.")
    directory = _read_end(file, size)
    entries = _read_directory(file, directory, limits)
    check_unpacked_size(sum(entry.size for entry in entries), size, limits)
    _walk_local_headers(file, entries, directory.offset)
    _check_members(entries, findings)
    return ZipArchive(file, entries)


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
    extras = _read_extras(_read_exactly(file, extra_size), name)
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
    extras = _read_extras(_read_exactly(file, extra_size), entry.name)
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


# --- the members ---


def _check_members(entries: list[ZipEntry], findings: Findings) -> None:
    for entry in entries:
        if fault := _path_fault(entry.name.removesuffix("/")) or _mode_fault(entry):
            findings.refuse(f"{describe(entry.name)} {fault}.")
        elif not (entry.flags & _UTF8 or entry.name.isascii()):
            findings.warn(f"{describe(entry.name)} is not marked as UTF-8; some readers see another path.")
    files = {entry.name for entry in entries if not entry.is_folder}
    if below := find_below((entry.name for entry in entries), files):
        findings.refuse(f"{describe(below)} lies below a file, not a folder.")


def _path_fault(path: str) -> str | None:
    if fault := path_fault(path):
        return fault
    if "\\" in path:
        return "contains a back-slash; folders are separated by '/'"
    if has_control_characters(path):
        return "contains control characters"
    if not {"", "."}.isdisjoint(path.split("/")):
        return "contains an empty part or '.'"
    return None


def _mode_fault(entry: ZipEntry) -> str | None:
    if stat.S_ISLNK(entry.mode):
        return "is a symbolic link; put a copy of the file in its place"
    if stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if stat.S_ISDIR(entry.mode) and not entry.is_folder:
        return "is a folder by its mode, but its path does not end with '/'"
    if entry.is_folder and entry.size:
        return "is a folder, yet has content"
    return None
