"""Reading gzipped TAR archives without trusting a single header.

``tarfile`` reads the 512-byte headers (:meth:`tarfile.TarInfo.frombuf`), which touches nothing else. What makes it
loop or allocate without bound (sizes, extended headers, sparse maps) is decided here, on a stream that stops at
the limits.
"""

from __future__ import annotations

import re
import tarfile
import zlib
from collections.abc import Callable, Iterator
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
    escape_unprintable,
    find_below,
    has_control_characters,
    keep_bytes,
    measure,
    path_fault,
)
from storage.limits import MIB, Limits

_BLOCK = tarfile.BLOCKSIZE
MAX_GZIP_MEMBERS = 1000  # RFC 1952 lets a file be several gzip members; each costs time
MAX_EXTENDED_HEADER = 1 * MIB  # bytes of one pax header or long name
MAX_EXTENDED_HEADERS = 16 * MIB  # bytes of all of them
_LINKS = (tarfile.LNKTYPE, tarfile.SYMTYPE)
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
_SIZE_FIELD = slice(124, 136)
_OCTAL = re.compile(rb"[ \x00]*[0-7]*[ \x00]*")
_PREFIX_FIELD = slice(345, 500)


def read_tar_gz(file: BinaryIO, limits: Limits, findings: Findings, wanted: Wanted) -> Contents:
    """Walk through a gzipped TAR archive to its end, keeping the members that are *wanted*.

    What is wrong with single members goes into *findings*.

    :raises Refused: if the archive cannot be read any further, or a limit is passed.
    """
    packed = measure(file)
    file.seek(0)
    if file.read(2) != b"\x1f\x8b":
        raise Refused("The file is not compressed with gzip; an sdist is a .tar.gz.")
    file.seek(0)
    stream = _Stream(_gunzip(file, packed, limits))
    headers, walk = _Headers(stream, limits), _Walk(stream, limits, findings)
    while header := headers.next():
        walk.add(header, wanted)
    stream.expect_only_zeros()
    return walk.contents()


# --- gzip ---


class _Source:
    """A file read in chunks, with room to give back what was read too far."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._given_back = b""

    def read(self) -> bytes:
        data, self._given_back = self._given_back or self._file.read(CHUNK), b""
        return data

    def give_back(self, data: bytes) -> None:
        self._given_back = data


def _gunzip(file: BinaryIO, packed: int, limits: Limits) -> Iterator[bytes]:
    """Yield what *file* unpacks to, stopping at the limits; several gzip members follow each other.

    Zeros after the last one are padding; anything else is refused.
    """
    source = _Source(file)
    unpacked = 0
    for _ in range(MAX_GZIP_MEMBERS):
        inflater = Inflater(source.read, 16 + zlib.MAX_WBITS, "The gzip stream")
        for piece in inflater.pieces():
            unpacked += len(piece)
            check_unpacked_size(unpacked, packed, limits)
            yield piece
        source.give_back(inflater.unused)
        rest = source.read()
        if not rest or rest[0] == 0:
            break
        source.give_back(rest)
    while rest:
        if rest.strip(b"\x00"):
            raise Refused("The gzip stream is followed by other data, or is in too many pieces.")
        rest = source.read()


class _Stream:
    """The unpacked bytes, to be read forwards in pieces."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = b""
        self._at = 0

    def pieces(self, size: int) -> Iterator[bytes]:
        """Yield the next *size* bytes, fewer at the end."""
        while size:
            if self._at == len(self._piece):
                self._piece, self._at = next(self._pieces, b""), 0
                if not self._piece:
                    return
            piece = self._piece[self._at : self._at + size]
            self._at += len(piece)
            size -= len(piece)
            yield piece

    def read(self, size: int) -> bytes:
        """Return the next *size* bytes, fewer at the end."""
        return b"".join(self.pieces(size))

    def exactly(self, size: int, what: str) -> Iterator[bytes]:
        """Yield the next *size* bytes and pass over the padding behind them.

        :raises Refused: if the archive ends before.
        """
        left = size
        for piece in self.pieces(size):
            left -= len(piece)
            yield piece
        padding = -size % _BLOCK
        if left or len(self.read(padding)) != padding:
            raise Refused(f"{what} is cut off; the archive is not whole.")

    def expect_only_zeros(self) -> None:
        """Read to the end.

        :raises Refused: if anything but zeros comes.
        """
        while rest := self.read(CHUNK):
            if rest.strip(b"\x00"):
                raise Refused("The TAR archive has data after its end.")


# --- headers ---


@dataclass(slots=True)
class _Header:
    """What the headers in front of a member say about it, extended ones taken together."""

    kind: bytes  # one of the types that tarfile names
    path: str
    link: str  # where a link points
    size: int  # bytes of data that follow


class _Headers:
    """The headers of an archive, one member's at a time."""

    def __init__(self, stream: _Stream, limits: Limits) -> None:
        self._stream = stream
        self._limits = limits
        self._count = 0
        self._extended_size = 0  # bytes of extended headers up to now

    def next(self) -> _Header | None:
        """Return the next member's header, None at the end of the archive.

        :raises Refused: if it is malformed or readers would disagree about it.
        """
        extended: dict[str, str] = {}
        while (block := self._stream.read(_BLOCK)).strip(b"\x00"):
            self._count += 1
            if self._count > 2 * self._limits.max_archive_members:
                raise Refused(
                    f"The archive has more than the limit of {self._limits.max_archive_members:,} members."
                )
            info = _parse_block(block)
            if info.type in _EXTENDED:
                self._read_extended(info, extended)
            else:
                return _combine(info, extended)
        if extended:
            raise Refused("The TAR archive ends with a header that belongs to no member.")
        return None

    def _read_extended(self, info: tarfile.TarInfo, extended: dict[str, str]) -> None:
        self._extended_size += info.size
        if info.size > MAX_EXTENDED_HEADER or self._extended_size > MAX_EXTENDED_HEADERS:
            raise Refused("The TAR archive's extended headers are absurdly large.")
        data = b"".join(self._stream.exactly(info.size, "A header of the TAR archive"))
        records = _EXTENDED[info.type](data)
        if not records.keys().isdisjoint(extended) or (info.type == tarfile.XGLTYPE and (records or extended)):
            raise Refused("The TAR archive has extended headers that readers understand differently.")
        extended.update(records)


def _parse_block(block: bytes) -> tarfile.TarInfo:
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise Refused(f"The TAR archive is damaged or cut off: {error}.") from error
    # int() takes signs and underscores too, and other readers do not stop at a NUL.
    if block[_SIZE_FIELD][0] != 0x80 and not _OCTAL.fullmatch(block[_SIZE_FIELD]):
        raise Refused(f"{describe(info.name)} has a malformed size in its header.")
    if not block.startswith(b"ustar\x00", 257) and block[_PREFIX_FIELD].strip(b"\x00"):
        raise Refused(f"{describe(info.name)} has a header in no known TAR format.")
    return info


def _combine(info: tarfile.TarInfo, extended: dict[str, str]) -> _Header:
    if extended.get("size", str(info.size)) != str(info.size):
        raise Refused(f"{describe(info.name)} has two different sizes in its headers.")
    if info.type == tarfile.GNUTYPE_SPARSE:
        raise Refused(f"{describe(info.name)} is stored as a sparse file; use plain ones.")
    return _Header(info.type, extended.get("path", info.name), extended.get("linkpath", info.linkname), info.size)


def _read_long_path(data: bytes) -> dict[str, str]:
    return {"path": _decode(data)}


def _read_long_link(data: bytes) -> dict[str, str]:
    return {"linkpath": _decode(data)}


def _decode(data: bytes) -> str:
    text, _, rest = data.partition(b"\x00")
    if not text or rest.strip(b"\x00"):
        raise Refused("The TAR archive has a malformed long path.")
    return text.decode("utf-8", "surrogateescape")


def _read_pax(data: bytes) -> dict[str, str]:
    """Return those of the pax records in *data* that change what a member is called or how long it is."""
    records: dict[str, str] = {}
    at = 0
    while at < len(data):
        length = _PAX_LENGTH.match(data, at)
        end = at + int(length[1]) if length else 0
        if length is None or not length.end() < end <= len(data) or data[end - 1] != ord("\n"):
            raise Refused("The TAR archive has a malformed pax header.")
        key, equals, value = data[length.end() : end - 1].partition(b"=")
        if not key or not equals:
            raise Refused("The TAR archive has a malformed pax header.")
        if key.startswith(b"GNU.sparse"):
            raise Refused("The TAR archive has members stored as sparse files; use plain ones.")
        if (name := key.decode("latin-1")) in _PAX_KEYS:
            if name in records:
                raise Refused(f"The TAR archive has a pax header with two values for {name}.")
            records[name] = _decode(value)
        at = end
    return records


_PAX_LENGTH = re.compile(rb"([1-9][0-9]{0,8}) ")
_PAX_KEYS = frozenset({"path", "linkpath", "size"})
_EXTENDED: dict[bytes, Callable[[bytes], dict[str, str]]] = {
    tarfile.XHDTYPE: _read_pax,
    tarfile.XGLTYPE: _read_pax,
    tarfile.GNUTYPE_LONGNAME: _read_long_path,
    tarfile.GNUTYPE_LONGLINK: _read_long_link,
}


# --- members ---


class _Walk:
    """What has been seen of an archive."""

    def __init__(self, stream: _Stream, limits: Limits, findings: Findings) -> None:
        self._stream = stream
        self._limits = limits
        self._findings = findings
        self._kinds: dict[str, str] = {}  # path -> "file", "folder" or "link"
        self._paths_size = 0
        self.members: dict[str, Member] = {}
        self.kept: dict[str, bytes] = {}

    def add(self, header: _Header, wanted: Wanted) -> None:
        """Take in one member and read past its data."""
        path = "/".join(part for part in header.path.split("/") if part not in ("", "."))
        self._paths_size += len(header.path) + len(header.link)
        if len(self._kinds) > self._limits.max_archive_members or self._paths_size > MAX_PATHS_SIZE:
            raise Refused("The archive has more members, or longer paths, than the limits allow.")
        if header.size and header.kind not in _FILES:
            raise Refused(f"{describe(path)} is not a file, yet has content.")
        if fault := path_fault(header.path) or path_fault(path or "."):
            self._refuse(header.path, fault)
        elif header.kind == tarfile.DIRTYPE:
            self._note(path or ".", "folder")
        elif header.kind in _FILES:
            self._note(path, "file")
            self.members[path] = Member(escape_unprintable(path), header.size)
        elif header.kind in _LINKS:
            self._add_link(path, header)
        else:
            self._refuse(path, "is neither a file, a folder nor a link")
        self._read_data(path, header.size, wanted)

    def _read_data(self, path: str, size: int, wanted: Wanted) -> None:
        limit = wanted(path) if path in self.members else 0
        if limit and path in self.kept:
            self._refuse(path, "stands in the archive twice")
        pieces = self._stream.exactly(size, describe(path))
        if limit:
            self.kept[path] = keep_bytes(pieces, limit, describe(path))
        else:
            for _ in pieces:
                pass

    def _note(self, path: str, kind: str) -> None:
        known = self._kinds.setdefault(path, kind)
        if known != kind or (known == "link" and path in self.members):
            self._refuse(path, "stands in the archive twice, as different things")
        elif kind == "file" and path in self.members:
            self._findings.warn(f"{describe(path)} stands in the archive twice.")
        if has_control_characters(path):
            self._findings.warn(f"{describe(path)} contains control characters.")

    def _add_link(self, path: str, header: _Header) -> None:
        if header.kind == tarfile.LNKTYPE:
            target = "/".join(part for part in header.link.split("/") if part not in ("", "."))
            if path_fault(header.link) or target not in self.members or self._kinds[target] != "file":
                self._refuse(path, "is a hard link to something that is no file before it in the archive")
            else:
                self._note(path, "file")
                self.members[path] = Member(escape_unprintable(path), self.members[target].size)
        elif fault := _symbolic_link_fault(path, header.link):
            self._refuse(path, fault)
        else:
            self._note(path, "link")
            self.members[path] = Member(escape_unprintable(path), 0)

    def _refuse(self, path: str, fault: str) -> None:
        self._findings.refuse(f"{describe(path)} {fault}.")

    def contents(self) -> Contents:
        """Return what was seen, after a look at the tree as a whole."""
        leaves = {path for path, kind in self._kinds.items() if kind != "folder"}
        if below := find_below(self._kinds, leaves):
            self._refuse(below, "lies below a file or link, not a folder")
        tops = frozenset(path.split("/", 1)[0] for path in self._kinds if path != ".")
        return Contents(tuple(self.members.values()), tops, self.kept)


def _symbolic_link_fault(path: str, target: str) -> str | None:
    """Return what is wrong with a symbolic link at *path*, or None.

    ".." may only come first: after the name of another link it would lead from wherever that one points.
    """
    parts = [part for part in target.replace("\\", "/").split("/") if part != "."]
    climbs = next((index for index, part in enumerate(parts) if part != ".."), len(parts))
    leaves = climbs > max(path.count("/") - 1, 0) or ".." in parts[climbs:]
    if not target or leaves or path_fault("/".join(parts[climbs:]) or "."):
        return "is a symbolic link that leaves the archive's folder; links stay inside"
    return None
