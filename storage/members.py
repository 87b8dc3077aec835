"""Looking into one member of a stored archive, without unpacking anything to the disk.

A wheel is read where the member lies; a TAR archive has to be walked through, so how far is bounded. What is asked
for is only ever compared with the paths that the archive has; none becomes a path on disk.
"""

from __future__ import annotations

import codecs
from dataclasses import dataclass, replace
from typing import BinaryIO

from storage.archives import Findings, Refused, escape_unprintable
from storage.errors import NotFound, shorten
from storage.limits import MB, MIB, Limits
from storage.tars import read_tar_gz
from storage.zips import open_zip

MAX_MEMBER = 512_000  # bytes of a member that can be looked at
MAX_WALK = 256 * MIB  # bytes of a TAR archive that are unpacked in search of one; a second or two


class MemberNotFound(NotFound):
    """The archive has no such member."""

    def __init__(self, filename: str, path: str) -> None:
        self.filename, self.path = filename, path

    def __str__(self) -> str:
        return f"{self.filename} holds no file {shorten(self.path)}"


@dataclass(frozen=True, slots=True)
class MemberContent:
    """What can be shown of a member."""

    lines: tuple[str, ...] = ()  # without their ends
    obstacle: str = ""  # why there are no lines, in a sentence


def read_member(file: BinaryIO, filename: str, path: str, size: int, limits: Limits) -> MemberContent:
    """Return the text of the member at *path*, of *size* bytes, of the stored archive *filename*.

    *path* and *size* are as the file's sidecar lists them.

    :raises MemberNotFound: if the archive has no such member.
    """
    if size > MAX_MEMBER:
        return MemberContent(
            obstacle=f"It is larger than {MAX_MEMBER // 1000} kB; download the package to read it."
        )
    try:
        content = _read_zip if filename.endswith((".whl", ".zip")) else _read_tar
        data = content(file, path, limits)
    except Refused as error:
        return MemberContent(obstacle=f"It cannot be shown here. {error}")
    if data is None:
        raise MemberNotFound(filename, path)
    if len(data) != size:
        return MemberContent(obstacle="It is a link to another file of the archive.")
    return _as_text(data)


def _read_zip(file: BinaryIO, path: str, limits: Limits) -> bytes | None:
    archive = open_zip(file, limits, Findings())
    entry = archive.find(path)
    return archive.read(entry, MAX_MEMBER) if entry is not None and not entry.is_folder else None


def _read_tar(file: BinaryIO, path: str, limits: Limits) -> bytes | None:
    """Walk to the end of the archive: of two members with one path, the last is what installers unpack."""
    bounded = replace(limits, max_unpacked_size=min(limits.max_unpacked_size, MAX_WALK))
    try:
        contents = read_tar_gz(
            file, bounded, Findings(), lambda found: MAX_MEMBER if escape_unprintable(found) == path else 0
        )
    except Refused as error:
        if "unpacks to more" in str(error):
            raise Refused(
                f"The sdist unpacks to more than {MAX_WALK // MB} MB; download it to look inside."
            ) from error
        raise
    return next(iter(contents.kept.values()), None)


# --- text ---

_SAMPLE = 8192  # bytes; git looks at as many for a zero
MAX_LINE = 2000  # characters of a line that are shown; more is no text that somebody reads


def _as_text(data: bytes) -> MemberContent:
    if b"\x00" in data[:_SAMPLE] and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return MemberContent(obstacle="It is a binary file.")
    text = _decode(data)
    if text is None:
        return MemberContent(obstacle="It is a binary file.")
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if lines[-1] == "":
        lines.pop()
    return MemberContent(tuple(_show(line) for line in lines), "" if lines else "It is empty.")


def _decode(data: bytes) -> str | None:
    """Return *data* as text: UTF-8, else UTF-16 with its mark, else Latin-1 where that makes sense."""
    for encoding in ("utf-8-sig", "utf-16"):
        if encoding == "utf-16" and not data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            continue
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    unprintable = sum(byte < 32 and byte not in b"\t\n\r\f\x1b" for byte in data[:_SAMPLE])
    return data.decode("latin-1") if unprintable * 20 < len(data[:_SAMPLE]) else None


def _show(line: str) -> str:
    r"""Make visible what would not be seen or would turn the text around: "\u202e" (Trojan Source)."""
    cut = line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} ... ({len(line) - MAX_LINE:,} more characters)"
    if cut.isascii() and cut.isprintable():
        return cut
    return "".join(c if c == "\t" or c.isprintable() or c == "\u00a0" else _escape(c) for c in cut)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
