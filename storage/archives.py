"""What the readers of ZIP and TAR archives share: findings, member paths, bounded inflating.

The containers themselves are read by :mod:`storage.zips` and :mod:`storage.tars`. Nothing is ever extracted.
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Callable, Iterable, Iterator, Set
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import BinaryIO

from storage.errors import shorten
from storage.limits import KIB, MIB, RATIO_FLOOR, Limits

CHUNK = 128 * KIB  # bytes read or inflated in one go
MAX_PATH_LENGTH = 4096  # bytes of one member's path; what Linux can open
MAX_PATH_DEPTH = 128  # folders; keeps the search for parents linear
MAX_PATHS_SIZE = 12 * MIB  # bytes of all paths together; what we hold in memory of an archive
MAX_FINDINGS = 50  # sentences; more help nobody


class Refused(Exception):
    """The file cannot be read any further; ``str()`` is the reason, a sentence for people."""


@dataclass(slots=True)
class Findings:
    """What is wrong with a file and what is merely odd: sentences, in the order they were found."""

    reasons: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def refuse(self, reason: str) -> None:
        """Note something for which the file is refused."""
        if reason not in self.reasons and len(self.reasons) < MAX_FINDINGS:
            self.reasons.append(reason)

    def warn(self, warning: str) -> None:
        """Note something that is accepted but odd."""
        if warning not in self.warnings and len(self.warnings) < MAX_FINDINGS:
            self.warnings.append(warning)

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Note the reason for which the block cannot go on, and go on after it."""
        try:
            yield
        except Refused as error:
            self.refuse(str(error))


@dataclass(frozen=True, slots=True)
class Member:
    """A file of an archive; folders are left out."""

    name: str  # path with "/" between folders
    size: int  # bytes, unpacked


@dataclass(frozen=True, slots=True)
class Contents:
    """What a walk through an archive brings back."""

    members: tuple[Member, ...]
    tops: frozenset[str]  # the first part of every path, of folders too
    kept: dict[str, bytes]  # the few members that were asked for, by path


Wanted = Callable[[str], int]  # how many bytes of the member with this path to keep; 0 for none


# --- member paths ---

_DRIVE = re.compile(r"[A-Za-z]:")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


def path_fault(path: str) -> str | None:
    """Return what is wrong with a member's *path*, or None: absolute, climbing out, a drive, too long."""
    parts = path.replace("\\", "/").split("/")
    if not parts[0]:
        return "is absolute or empty; a member's path starts with a folder or file name"
    if ".." in parts:
        return "contains '..'; a member's path stays inside the archive"
    # The second part too: installers strip the top folder of an sdist.
    if any(_DRIVE.match(part) for part in parts[:2]):
        return "starts with a drive letter; a member's path is relative"
    if len(path) > MAX_PATH_LENGTH or len(parts) > MAX_PATH_DEPTH:
        return f"is too long; {MAX_PATH_LENGTH} characters and {MAX_PATH_DEPTH} folders are the limit"
    return None


def has_control_characters(path: str) -> bool:
    """Whether a terminal or a protocol may choke on *path*."""
    return _CONTROL.search(path) is not None


def escape_unprintable(path: str) -> str:
    r"""Return *path* with control characters and undecodable bytes written as ``\xNN``."""
    return _UNPRINTABLE.sub(lambda match: f"\\x{ord(match[0]) & 0xFF:02x}", path)


def find_below(paths: Iterable[str], leaves: Set[str]) -> str | None:
    """Return the first of *paths* that lies below one of *leaves* (files or links), or None."""
    for path in paths:
        end = path.rfind("/")
        while end > 0:
            if path[:end] in leaves:
                return path
            end = path.rfind("/", 0, end)
    return None


# --- bytes ---


def measure(file: BinaryIO) -> int:
    """Return how many bytes *file* has; its position is then the end."""
    return file.seek(0, io.SEEK_END)


def check_unpacked_size(unpacked: int, packed: int, limits: Limits) -> None:
    """Stop at a bomb.

    :raises Refused: if *unpacked* bytes are too many, absolutely or for *packed* bytes (contract.md section 8).
    """
    if unpacked > limits.max_unpacked_size:
        raise Refused(f"The archive unpacks to more than the limit of {limits.max_unpacked_size:,} bytes.")
    if unpacked > RATIO_FLOOR and unpacked > packed * limits.max_unpacked_ratio:
        raise Refused(
            f"The archive unpacks to more than {limits.max_unpacked_ratio} times its size, as bombs do; "
            "leave such data out and generate them."
        )


class Inflater:
    """One deflate or gzip stream, unpacked in pieces of at most :data:`CHUNK` bytes."""

    def __init__(self, read: Callable[[], bytes], wbits: int, what: str) -> None:
        self._read = read  # returns the next packed bytes, b"" at the end
        self._zlib = zlib.decompressobj(wbits)
        self._what = what  # for messages

    @property
    def unused(self) -> bytes:
        """What was read but comes after the end of the stream."""
        return self._zlib.unused_data

    def pieces(self) -> Iterator[bytes]:
        """Yield the unpacked bytes up to the end of the stream.

        :raises Refused: if the stream is damaged or ends too early.
        """
        while not self._zlib.eof:
            data = self._zlib.unconsumed_tail or self._read()
            try:
                piece = self._zlib.decompress(data, CHUNK)
            except zlib.error as error:
                raise Refused(f"{self._what} is damaged: its compressed data do not unpack.") from error
            if piece:
                yield piece
            elif not data:
                raise Refused(f"{self._what} is cut off in the middle of its compressed data.")


def keep_bytes(pieces: Iterable[bytes], limit: int, what: str) -> bytes:
    """Return *pieces* joined.

    :raises Refused: as soon as they are more than *limit* bytes.
    """
    kept, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > limit:
            raise Refused(f"{what} is larger than the limit of {limit:,} bytes.")
        kept.append(piece)
    return b"".join(kept)


def looks_like_zip(file: BinaryIO) -> bool:
    """Whether a reader that looks for ZIP records from the end of *file* would find an archive.

    pip unpacks such a file as a ZIP whatever its name says.
    """
    size = measure(file)
    start = max(0, size - 0xFFFF - 22 - 76)
    file.seek(start)
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or len(tail) - at < 22:
        return False
    if tail[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        return True
    directory_size = int.from_bytes(tail[at + 12 : at + 16], "little")
    directory = start + at - directory_size
    if directory < 0 or directory_size < 46:
        return False
    file.seek(directory)
    return file.read(4) == b"PK\x01\x02"


def describe(path: str) -> str:
    """Return *path* as messages name a member."""
    return f"The member {shorten(path)}"
