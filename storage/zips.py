"""Reading ZIP archives so that every reader sees the same: nothing is unpacked before the framing is sound.

The framing itself is read by :mod:`storage.zipframes`.
"""

from __future__ import annotations

import re
import stat
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from storage.archives import (
    CHUNK,
    MAX_PATH_DEPTH,
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
from storage.limits import Limits
from storage.zipframes import STORED, UTF8, ZipEntry, read_entries


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
    entries = read_entries(file, size, limits)
    check_unpacked_size(sum(entry.size for entry in entries), size, limits)
    _check_members(entries, findings)
    return ZipArchive(file, entries)


# --- the members ---


def _check_members(entries: list[ZipEntry], findings: Findings) -> None:
    for entry in entries:
        if fault := _path_fault(entry.name.removesuffix("/")) or _mode_fault(entry):
            findings.refuse(f"{describe(entry.name)} {fault}.")
        elif not (entry.flags & UTF8 or entry.name.isascii()):
            findings.warn(f"{describe(entry.name)} is not marked as UTF-8; some readers see another path.")
    files = {entry.name for entry in entries if not entry.is_folder}
    if below := find_below((entry.name for entry in entries), files):
        findings.refuse(f"{describe(below)} lies below a file, not a folder.")


# What nearly all paths look like, and none of the faults below: they need another character or a dot in front.
_PLAIN_PATH = re.compile(r"\w[\w.+-]*(?:/\w[\w.+-]*)*", re.ASCII)
_MAX_PLAIN = 2 * MAX_PATH_DEPTH - 1  # characters; in so many there are not too many folders


def _path_fault(path: str) -> str | None:
    if len(path) <= _MAX_PLAIN and _PLAIN_PATH.fullmatch(path):
        return None
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
    if stat.S_ISREG(entry.mode) and not entry.is_folder:
        return None
    if stat.S_ISLNK(entry.mode):
        return "is a symbolic link; put a copy of the file in its place"
    if stat.S_IFMT(entry.mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is neither a file nor a folder"
    if stat.S_ISDIR(entry.mode) and not entry.is_folder:
        return "is a folder by its mode, but its path does not end with '/'"
    if entry.is_folder and entry.size:
        return "is a folder, yet has content"
    return None
