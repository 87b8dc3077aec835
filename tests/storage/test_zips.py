"""What of a ZIP archive is accepted: only what every reader understands in the same way."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass, replace

import pytest

from storage.archives import Findings, Refused
from storage.limits import MIB, Limits
from storage.zips import open_zip
from tests.storage.makers import make_zip

LIMITS = Limits()
MAX32 = 0xFFFFFFFF


@dataclass(frozen=True)
class Part:
    """One member of a ZIP archive in which everything can be made a lie."""

    name: bytes = b"a.txt"
    data: bytes = b"hello"  # as it lies in the archive
    size: int | None = None  # unpacked; None: that of data
    method: int = 0
    flags: int = 0
    crc: int | None = None
    extra: bytes = b""
    comment: bytes = b""
    mode: int = stat.S_IFREG | 0o644
    disk: int = 0
    offset: int | None = None  # None: the true one
    local: dict[str, object] | None = None  # what the local header says instead
    before: bytes = b""  # bytes in front of the local header
    after: bytes = b""  # bytes behind the data
    central_size: int | None = None  # sizes in the central header, with ZIP64 in mind
    central_packed: int | None = None

    @property
    def values(self):
        """Name, flags, method, checksum, packed and unpacked size, extra."""
        crc = zlib.crc32(self.data) if self.crc is None else self.crc
        size = len(self.data) if self.size is None else self.size
        return {
            "name": self.name,
            "flags": self.flags,
            "method": self.method,
            "crc": crc,
            "packed": len(self.data),
            "size": size,
            "extra": self.extra,
        }


def build(*parts: Part, prefix=b"", gap=b"", suffix=b"", comment=b"", end=None, middle=b"", backwards=False):
    """Return an archive of *parts*; *end* replaces fields of its end record."""
    body, headers = bytearray(prefix), []
    for part in parts:
        body += part.before
        offset = len(body) if part.offset is None else part.offset
        here = part.values | (part.local or {})
        numbers = (20, here["flags"], here["method"], 0, 0x5000, here["crc"], here["packed"], here["size"])
        body += struct.pack("<4s5H3L2H", b"PK\3\4", *numbers, len(here["name"]), len(here["extra"]))
        body += here["name"] + here["extra"] + part.data + part.after
        there = part.values
        packed = there["packed"] if part.central_packed is None else part.central_packed
        size = there["size"] if part.central_size is None else part.central_size
        numbers = (0x031E, 20, there["flags"], there["method"], 0, 0x5000, there["crc"], packed, size)
        lengths = (len(part.name), len(part.extra), len(part.comment), part.disk, 0, part.mode << 16, offset)
        header = struct.pack("<4s6H3L5H2L", b"PK\1\2", *numbers, *lengths)
        headers.append(header + part.name + part.extra + part.comment)
    body += gap
    directory = b"".join(reversed(headers) if backwards else headers)
    fields = {
        "disk": 0,
        "first_disk": 0,
        "here": len(parts),
        "count": len(parts),
        "size": len(directory),
        "offset": len(body),
        "comment": len(comment),
    } | (end or {})
    return (
        bytes(body + directory + middle) + struct.pack("<4s4H2LH", b"PK\5\6", *fields.values()) + comment + suffix
    )


def build64(*parts: Part, end=None, locator=None, plain=None):
    """Return an archive with a ZIP64 end record; *plain* replaces fields of the ordinary one."""
    whole = build(*parts)
    _, _, _, here, count, size, offset, _ = struct.unpack("<4s4H2LH", whole[-22:])
    where = len(whole) - 22
    fields = {"signature": b"PK\6\6", "length": 44, "made": 45, "needed": 45, "disk": 0, "first": 0}
    fields |= {"here": here, "count": count, "size": size, "offset": offset} | (end or {})
    points = {"signature": b"PK\6\7", "disk": 0, "where": where, "disks": 1} | (locator or {})
    middle = struct.pack("<4sQ2H2L4Q", *fields.values()) + struct.pack("<4sLQL", *points.values())
    markers = {"here": 0xFFFF, "count": 0xFFFF, "size": MAX32, "offset": MAX32}
    return build(*parts, middle=middle, end=markers if plain is None else plain)


def zip64(*values, size=None):
    """Return a ZIP64 extra field with *values*."""
    data = struct.pack(f"<{len(values)}Q", *values)
    return struct.pack("<HH", 1, len(data) if size is None else size) + data


def deflate(data: bytes) -> bytes:
    """Return *data* as a raw deflate stream."""
    packer = zlib.compressobj(wbits=-15)
    return packer.compress(data) + packer.flush()


def descriptor(part: Part, signature=b"PK\7\x08", layout="<LLL", **lies):
    """Return the data descriptor that belongs behind *part*."""
    values = part.values | lies
    return signature + struct.pack(layout, values["crc"], values["packed"], values["size"])


def read(archive: bytes, limits: Limits = LIMITS):
    """Read an archive to its end; return its contents and what was found."""
    findings = Findings()
    contents = open_zip(io.BytesIO(archive), limits, findings).walk(lambda _: MIB)
    return contents, findings


def faults(archive: bytes, limits: Limits = LIMITS):
    """Return the reasons for which an archive is refused."""
    findings = Findings()
    with findings.collecting():
        open_zip(io.BytesIO(archive), limits, findings).walk(lambda _: 0)
    return findings.reasons


HELLO = Part()
PACKED = Part(data=deflate(b"hello" * 10), size=50, method=8, crc=zlib.crc32(b"hello" * 10))
STREAMED = Part(flags=8)
LARGE = Part(extra=zip64(5, 5), central_size=MAX32, central_packed=MAX32, local={"size": MAX32, "packed": MAX32})
EMPTY_FOLDER = Part(name=b"pkg/", data=b"", mode=stat.S_IFDIR | 0o755)

ACCEPTED = {
    "one stored member": build(HELLO),
    "one deflated member": build(PACKED),
    "no members at all": build(),
    "as zipfile writes it": make_zip({"a/": b"", "a/b.txt": b"hello" * 1000}),
    "a directory of the same name as a file's prefix": build(Part(name=b"a"), Part(name=b"a.d/b")),
    "an archive comment": build(HELLO, comment=b"made by hand"),
    "an empty file": build(Part(data=b"")),
    "a folder entry": build(EMPTY_FOLDER),
    "a folder entry that is deflated, without a byte": build(replace(EMPTY_FOLDER, method=8)),
    "a folder entry that is deflated": build(replace(EMPTY_FOLDER, data=deflate(b""), size=0, method=8, crc=0)),
    "a UTF-8 path with its flag": build(Part(name="naïve/文.py".encode(), flags=0x800)),
    "no mode at all, as on Windows": build(Part(mode=0)),
    "an unknown extra field": build(Part(extra=struct.pack("<HH4s", 0x5455, 4, b"time"))),
    "an equal Unicode path": build(Part(extra=struct.pack("<HHBL5s", 0x7075, 10, 1, 0, b"a.txt"))),
    "an empty ZIP64 field": build(Part(extra=zip64())),
    "a ZIP64 field that repeats the sizes": build(Part(extra=zip64(5, 5))),
    "sizes in a ZIP64 field": build(LARGE),
    "sizes in a local ZIP64 field only": build(
        Part(local={"size": MAX32, "packed": MAX32, "extra": zip64(5, 5)}),
    ),
    "a ZIP64 end record": build64(HELLO),
    "a ZIP64 end record that repeats the plain one": build64(HELLO, plain={}),
    "a data descriptor after known sizes": build(replace(STREAMED, after=descriptor(STREAMED))),
    "a data descriptor without signature": build(replace(STREAMED, after=descriptor(STREAMED, b""))),
    "a data descriptor of ZIP64": build(replace(STREAMED, after=descriptor(STREAMED, layout="<LQQ"))),
    "a data descriptor and no checksum in the header": build(
        replace(STREAMED, after=descriptor(STREAMED), local={"crc": 0})
    ),
    "members listed in another order": build(Part(name=b"b"), Part(name=b"a"), backwards=True),
    "names that differ by case": build(Part(name=b"a"), Part(name=b"A")),
    "a stored archive inside": build(Part(name=b"inner.zip", data=build(HELLO))),
}


@pytest.mark.parametrize("archive", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_unusual_but_unambiguous_archives_are_accepted(archive):
    contents, findings = read(archive)

    assert findings.reasons == []
    assert all(len(contents.kept[member.name]) == member.size for member in contents.members)


REFUSED = {
    "not a ZIP": (b"hello" * 100, "not a ZIP"),
    "empty": (b"", "not a ZIP"),
    "cut off in the end record": (build(HELLO)[:-1], "end"),
    "cut off in the directory": (build(HELLO)[:-40], "no end record"),
    "data before": (build(HELLO, prefix=b"#!/bin/sh\n"), "before its first member"),
    "data before, offsets adjusted": (b"MZ" + build(HELLO), "before its first member"),
    "a member before that is not listed": (build(HELLO, prefix=build(HELLO)[:40]), "belong to no member"),
    "data between members": (build(HELLO, replace(HELLO, name=b"b", before=b"xx")), "belong to no member"),
    "data before the directory": (build(HELLO, gap=b"xx"), "belong to no member"),
    "data after the directory": (build(HELLO, middle=b"xx"), "end record does not say truly"),
    "data after the end": (build(HELLO, suffix=b"xx"), "after its end"),
    "a second archive after the end": (build(HELLO) + build(Part(name=b"b")), "end record"),
    "zeros after the end": (build(HELLO, suffix=bytes(512)), "after its end"),
    "an end record inside the comment": (build(HELLO, comment=build()), "end record"),
    "a shorter comment than announced": (build(HELLO, end={"comment": 5}), "after its end"),
    "more members than counted": (build(HELLO, Part(name=b"b"), end={"here": 1, "count": 1}), "not counted"),
    "fewer members than counted": (build(HELLO, end={"here": 2, "count": 2}), "middle of a header"),
    "another count on this disk": (build(HELLO, end={"here": 0}), "split"),
    "another disk": (build(HELLO, end={"disk": 1}), "split"),
    "a member on another disk": (build(Part(disk=3)), "split"),
    "a wrong directory offset": (build(HELLO, end={"offset": 0}), "does not say truly"),
    "a wrong directory size": (build(HELLO, end={"size": 1}), "does not say truly"),
    "a digital signature": (build(HELLO, middle=b"PK\5\5\2\0xx"), "does not say truly"),
    "the same member twice": (build(HELLO, HELLO), "twice"),
    "two members in one place": (build(HELLO, Part(name=b"b", offset=0)), "belong to no member"),
    "another local name": (build(Part(local={"name": b"b.txt"})), "called otherwise"),
    "a longer local name": (build(Part(local={"name": b"a.txt\0"})), "called otherwise"),
    "another local size": (build(Part(local={"size": 4})), "other sizes"),
    "another local packed size": (build(Part(local={"packed": 4})), "other sizes"),
    "no local sizes": (build(Part(local={"size": 0, "packed": 0})), "other sizes"),
    "another local checksum": (build(Part(local={"crc": 1})), "checksum"),
    "another local method": (build(Part(local={"method": 8})), "packed otherwise"),
    "another local flag": (build(Part(local={"flags": 0x800})), "packed otherwise"),
    "a descriptor flag in one header only": (build(Part(local={"flags": 8})), "packed otherwise"),
    "a streamed member": (
        build(replace(STREAMED, after=descriptor(STREAMED), local={"size": 0, "packed": 0, "crc": 0})),
        "streamed",
    ),
    "a missing data descriptor": (build(STREAMED), "descriptor"),
    "a lying data descriptor": (build(replace(STREAMED, after=descriptor(STREAMED, size=6))), "descriptor"),
    "a wrong checksum": (build(Part(crc=1)), "CRC-32"),
    "a smaller size than unpacked": (build(replace(PACKED, size=49)), "does not unpack to"),
    "a larger size than unpacked": (build(replace(PACKED, size=51)), "does not unpack to"),
    "two sizes of a stored member": (build(Part(size=4)), "two different sizes"),
    "damaged deflate": (build(Part(data=b"\xff\xff\xff", size=3, method=8)), "do not unpack"),
    "cut off deflate": (build(replace(PACKED, data=PACKED.data[:-2])), "cut off"),
    "data after deflate": (build(replace(PACKED, data=PACKED.data + b"hidden")), "after the end of its compressed"),
    "bzip2": (build(Part(method=12)), "neither stored nor deflated"),
    "lzma": (build(Part(method=14)), "neither stored nor deflated"),
    "deflate64": (build(Part(method=9)), "neither stored nor deflated"),
    "zstandard": (build(Part(method=93)), "neither stored nor deflated"),
    "encrypted": (build(Part(flags=0x1)), "encrypted"),
    "strongly encrypted": (build(Part(flags=0x41)), "encrypted"),
    "masked headers": (build(Part(flags=0x2000)), "encrypted"),
    "patch data": (build(Part(flags=0x20)), "encrypted"),
    "a member comment": (build(Part(comment=b"hi")), "comment"),
    "a path that is not UTF-8": (build(Part(name=b"\xff\xfe")), "not UTF-8"),
    "a path in CP437": (build(Part(name="naïve".encode("cp437"))), "not UTF-8"),
    "no name": (build(Part(name=b"")), "without a name"),
    "a truncated extra field": (build(Part(extra=b"\1\0\x20\0abc")), "malformed extra"),
    "extra bytes that are no field": (build(Part(extra=b"\0\0")), "malformed extra"),
    "two ZIP64 fields": (build(Part(extra=zip64(5) + zip64(5))), "twice"),
    "two Unicode paths": (build(Part(extra=struct.pack("<HHBL5s", 0x7075, 10, 1, 0, b"a.txt") * 2)), "twice"),
    "another Unicode path": (build(Part(extra=struct.pack("<HHBL5s", 0x7075, 10, 1, 0, b"b.txt"))), "second"),
    "a ZIP64 field of odd length": (build(Part(extra=struct.pack("<HH4s", 1, 4, b"xxxx"))), "malformed ZIP64"),
    "a ZIP64 field that contradicts": (build(Part(extra=zip64(6, 5))), "contradicts"),
    "a ZIP64 field that contradicts the second size": (build(Part(extra=zip64(5, 6))), "contradicts"),
    "a ZIP64 field read in two ways": (build(replace(LARGE, central_packed=5, extra=zip64(5, 9))), "contradicts"),
    "a missing ZIP64 field": (build(Part(central_size=MAX32)), "does not have them"),
    "a ZIP64 field that is too short": (build(replace(LARGE, extra=zip64(5))), "does not have them"),
    "ZIP64 sizes that differ": (
        build(Part(local={"size": MAX32, "packed": MAX32, "extra": zip64(7, 7)})),
        "other sizes",
    ),
    "an absurd ZIP64 size": (build(replace(LARGE, extra=zip64(2**63, 5))), "stored, yet"),
    "a ZIP64 end record with another count": (build64(HELLO, end={"count": 2, "here": 2}), "unknown record"),
    "a ZIP64 end record that contradicts": (build64(HELLO, plain={}, end={"count": 2, "here": 2}), "contradict"),
    "a ZIP64 end record of another length": (build64(HELLO, end={"length": 45}), "malformed"),
    "a ZIP64 end record of another kind": (build64(HELLO, end={"signature": b"PK\6\5"}), "malformed"),
    "a ZIP64 end record on another disk": (build64(HELLO, end={"disk": 1}), "split"),
    "a ZIP64 locator that points elsewhere": (build64(HELLO, locator={"where": 0}), "locator"),
    "a ZIP64 locator for several disks": (build64(HELLO, locator={"disks": 2}), "locator"),
    "an absurd ZIP64 offset": (build64(HELLO, end={"offset": 2**63}), "does not say truly"),
    "markers without ZIP64": (build(HELLO, end={"size": MAX32, "offset": MAX32}), "does not say truly"),
    "an offset beyond the end": (build(Part(offset=0x7FFFFFFF)), "belong to no member"),
    "a member that reaches into the directory": (
        build(Part(data=b"", size=9, central_packed=9, local={"packed": 9, "size": 9}), gap=b""),
        "reaches beyond",
    ),
}


@pytest.mark.parametrize(("archive", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_ambiguous_or_damaged_archives_are_refused_with_a_reason(archive, words):
    reasons = faults(archive)

    assert len(reasons) == 1
    assert words in reasons[0]
    assert reasons[0].isprintable()
    assert reasons[0].isascii()


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../evil.py",
        "pkg/../../evil.py",
        "pkg/..",
        "pkg\\evil.py",
        "..\\evil.py",
        "C:/evil.py",
        "c:evil.py",
        "\\\\server\\share",
        "pkg//a.py",
        "./a.py",
        "pkg/./a.py",
        "pkg/a\n.py",
        "pkg/a\x7f.py",
        "pkg/a\0.py",
        "a" * 5000,
        "a/" * 200 + "a",
        "/",
    ],
    ids=lambda path: ascii(path)[:30],
)
def test_paths_that_lead_elsewhere_are_refused(path):
    assert len(faults(build(Part(name=path.encode())))) == 1


@pytest.mark.parametrize(
    "path",
    [
        "pkg/..a",
        "pkg/a..b",
        "...",
        "a b/c",
        "pkg/.hidden",
        "pkg/[x]{y}'&$!",
        "Foo::Bar.3",
        "pkg/sub/a:b",
        "x" * 1000,
    ],
)
def test_odd_but_harmless_paths_are_accepted(path):
    assert faults(build(Part(name=path.encode()))) == []


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_links_and_devices_are_refused(kind):
    assert len(faults(build(Part(mode=kind | 0o777)))) == 1


def test_several_faulty_members_are_named_each():
    archive = build(Part(name=b"/a"), Part(name=b"../b"), Part(name=b"c", mode=stat.S_IFLNK | 0o777))

    assert len(faults(archive)) == 3


@pytest.mark.parametrize("names", [(b"a", b"a/b"), (b"a", b"a/"), (b"x/a", b"x/a/b/c")])
def test_a_file_cannot_be_a_folder_as_well(names):
    reasons = faults(build(*(Part(name=name, data=b"") for name in names)))

    assert len(reasons) == 1
    assert "below a file" in reasons[0]


def test_a_file_with_the_mode_of_a_folder_is_refused():
    assert "folder by its mode" in faults(build(Part(mode=stat.S_IFDIR | 0o755)))[0]


def test_a_folder_with_content_is_refused():
    assert "folder, yet has content" in faults(build(Part(name=b"pkg/")))[0]


def test_a_path_outside_ascii_without_its_flag_brings_a_warning():
    _, findings = read(build(Part(name="naïve".encode())))

    assert findings.reasons == []
    assert "not marked as UTF-8" in findings.warnings[0]


def test_more_members_than_the_limit_are_refused():
    archive = build(*(Part(name=b"%d" % number) for number in range(11)))

    assert "limit of 10 members" in faults(archive, Limits(max_archive_members=10))[0]


def test_paths_that_fill_the_memory_are_refused():
    archive = build(*(Part(name=b"%5d" % number * 800) for number in range(5000)))

    assert "member paths" in faults(archive)[0]


def test_a_bomb_is_refused_by_what_it_declares():
    zeros = bytes(65 * MIB)
    bomb = make_zip({"zeros": zeros})

    assert "50 times its size" in faults(bomb)[0]
    assert "limit of 1,000 bytes" in faults(make_zip({"a": zeros[:1001]}), Limits(max_unpacked_size=1000))[0]


def test_a_bomb_that_declares_little_is_stopped():
    bomb = Part(data=deflate(bytes(65 * MIB)), size=5, method=8)

    assert "does not unpack to the 5 bytes" in faults(build(bomb))[0]


def test_highly_compressible_but_small_members_are_accepted():
    assert faults(make_zip({"zeros": bytes(2 * MIB)})) == []


def test_a_member_larger_than_wanted_is_refused():
    archive = open_zip(io.BytesIO(build(HELLO)), LIMITS, Findings())

    with pytest.raises(Refused, match="limit of 4 bytes"):
        archive.read(archive.entries[0], 4)


def test_every_kind_of_compression_that_zipfile_knows_but_two_is_refused():
    for method in (zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        assert "neither stored nor deflated" in faults(make_zip({"a": b"x" * 100}, compression=method))[0]
