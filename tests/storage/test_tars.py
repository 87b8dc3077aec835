"""What of a gzipped TAR archive is accepted: only what every reader understands in the same way."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
import zlib

import pytest

from storage.archives import Findings
from storage.limits import GIB, MIB, Limits
from storage.tars import read_tar_gz
from tests.storage.makers import make_tar, make_tar_gz

LIMITS = Limits()
TOP = "toolbox-1.0"


def header(name=f"{TOP}/a", *, kind=tarfile.REGTYPE, size=0, link="", tar_format=tarfile.USTAR_FORMAT, **fields):
    """Return one 512-byte header; *fields* are attributes of a TarInfo."""
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, size, link
    for field, value in fields.items():
        setattr(info, field, value)
    return info.tobuf(tar_format)[-512:]


def patch(block: bytes, at: int, data: bytes) -> bytes:
    """Return a header with *data* written over it at *at*, and a right checksum."""
    block = block[:at] + data + block[at + len(data) :]
    block = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(block) + block[156:]


def pad(data: bytes) -> bytes:
    """Return *data* filled up to whole blocks."""
    return data + bytes(-len(data) % 512)


def member(name=f"{TOP}/a", data=b"hello", **options):
    """Return the header and the data of one member."""
    return header(name, size=len(data), **options) + pad(data)


def record(key: str | bytes, value: str | bytes) -> bytes:
    """Return one pax record."""
    key, value = (part if isinstance(part, bytes) else part.encode() for part in (key, value))
    length = len(key) + len(value) + 3
    length += len(str(length + len(str(length))))
    return b"%d %s=%s\n" % (length, key, value)


def pax(*records: bytes, kind=tarfile.XHDTYPE) -> bytes:
    """Return an extended header of *records*."""
    return member("././@PaxHeader", b"".join(records), kind=kind)


def long_name(name: str, kind=tarfile.GNUTYPE_LONGNAME) -> bytes:
    """Return the header in front of a member with a long name."""
    return member("././@LongLink", name.encode() + b"\0", kind=kind)


def pack(*blocks: bytes, end=bytes(1024)) -> bytes:
    """Return a gzipped archive of *blocks*."""
    return gzip.compress(b"".join(blocks) + end, mtime=0)


def read(archive: bytes, limits: Limits = LIMITS):
    """Read an archive; return its contents and what was found."""
    findings = Findings()
    return read_tar_gz(io.BytesIO(archive), limits, findings, lambda _: MIB), findings


def faults(archive: bytes, limits: Limits = LIMITS):
    """Return the reasons for which an archive is refused."""
    findings = Findings()
    with findings.collecting():
        read_tar_gz(io.BytesIO(archive), limits, findings, lambda _: 0)
    return findings.reasons


def link(target: str, name=f"{TOP}/a", kind=tarfile.SYMTYPE) -> bytes:
    """Return a symbolic link."""
    return header(name, kind=kind, link=target)


FOLDER = header(f"{TOP}/", kind=tarfile.DIRTYPE)
FILE = member()
PLAIN = FOLDER + FILE
HALF = gzip.compress(PLAIN[:700], mtime=0)

ACCEPTED = {
    "as tarfile writes it, pax": make_tar_gz({f"{TOP}/": b"", f"{TOP}/a": b"hello"}),
    "as tarfile writes it, GNU": make_tar_gz({f"{TOP}/{'long' * 60}": b"hello"}, tar_format=tarfile.GNU_FORMAT),
    "as tarfile writes it, ustar": make_tar_gz(
        {f"{TOP}/{'long' * 20}/{'name' * 20}": b"hello"}, tar_format=tarfile.USTAR_FORMAT
    ),
    "as tarfile writes it, a long pax path": make_tar_gz({f"{TOP}/{'naïve' * 60}": b"hello"}),
    "no folder entries": pack(FILE),
    "a V7 header": pack(patch(FILE[:512], 257, bytes(8)) + FILE[512:]),
    "an old regular file": pack(member(kind=tarfile.AREGTYPE)),
    "a contiguous file": pack(member(kind=tarfile.CONTTYPE)),
    "a V7 folder": pack(header(f"{TOP}/", kind=tarfile.AREGTYPE)),
    "paths that start with ./": pack(header("./", kind=tarfile.DIRTYPE), member(f"./{TOP}/a")),
    "a folder twice": pack(FOLDER, FOLDER, FILE),
    "a comment of git archive": pack(pax(record("comment", "0" * 40), kind=tarfile.XGLTYPE), FILE),
    "extended attributes": pack(pax(record("SCHILY.xattr.user.x", b"\0\xff\n=")), FILE),
    "times and owners in pax": pack(pax(record("mtime", "1.5"), record("uname", "naïve")), FILE),
    "the same size in pax": pack(pax(record("size", "5")), FILE),
    "an empty pax header": pack(pax(), FILE),
    "a GNU long name": pack(long_name(f"{TOP}/{'n' * 300}"), FILE),
    "a GNU long link": pack(long_name("n" * 300, tarfile.GNUTYPE_LONGLINK), link("n")),
    "a size in base 256": pack(patch(FILE[:512], 124, b"\x80" + bytes(10) + b"\5") + FILE[512:]),
    "a size with spaces": pack(patch(FILE[:512], 124, b"         5 \0") + FILE[512:]),
    "a negative time": pack(patch(FILE[:512], 136, b"\xff" * 12) + FILE[512:]),
    "a link beside itself": pack(link("b"), member(f"{TOP}/b")),
    "a link to nothing": pack(FILE, link("missing", f"{TOP}/b")),
    "a link to the top folder": pack(FILE, link("..", f"{TOP}/b/c")),
    "a link up and down": pack(FILE, link("../../a", f"{TOP}/b/c/d")),
    "a link to here": pack(FILE, link(".", f"{TOP}/b")),
    "a hard link": pack(FILE, link(f"{TOP}/a", f"{TOP}/b", tarfile.LNKTYPE)),
    "a back-slash, as Linux allows": pack(member(f"{TOP}/a\\b")),
    "no blocks of zeros at the end": pack(PLAIN, end=b""),
    "one block of zeros at the end": pack(PLAIN, end=bytes(512)),
    "many zeros at the end": pack(PLAIN, end=bytes(10240)),
    "a cut off block of zeros": pack(PLAIN, end=bytes(700)),
    "zeros after gzip": pack(PLAIN) + bytes(1000),
    "two gzip members": HALF + gzip.compress(PLAIN[700:] + bytes(1024), mtime=0),
    "an empty gzip member at the end": pack(PLAIN) + gzip.compress(b""),
    "gzip with a file name and a comment": pack(PLAIN)[:3]
    + b"\x18"
    + pack(PLAIN)[4:10]
    + b"name.tar\0comment\0"
    + pack(PLAIN)[10:],
    "gzip without compression": gzip.compress(PLAIN + bytes(1024), compresslevel=0),
}


@pytest.mark.parametrize("archive", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_unusual_but_unambiguous_archives_are_accepted(archive):
    contents, findings = read(archive)

    assert findings.reasons == []
    assert contents.tops == {TOP}


@pytest.mark.parametrize("archive", ACCEPTED.values(), ids=ACCEPTED.keys())
def test_what_is_accepted_looks_the_same_to_tarfile(archive):
    contents, _ = read(archive)

    with tarfile.open(fileobj=io.BytesIO(archive)) as reference:
        names = {info.name.removeprefix("./") for info in reference if not info.isdir()}
    assert {item.name for item in contents.members} == names


SPARSE = {
    "sparse, GNU": pack(header(kind=tarfile.GNUTYPE_SPARSE)),
    "sparse, pax 0.0": pack(pax(record("GNU.sparse.size", "1"), record("GNU.sparse.numblocks", "0")), FILE),
    "sparse, pax 0.1": pack(pax(record("GNU.sparse.map", "0,1")), FILE),
    "sparse, pax 1.0": pack(pax(record("GNU.sparse.major", "1"), record("GNU.sparse.minor", "0")), FILE),
    "sparse, global": pack(pax(record("GNU.sparse.realsize", "9"), kind=tarfile.XGLTYPE), FILE),
}
SIZES = {
    f"a size of {text!r}": pack(patch(FILE[:512], 124, text) + FILE[512:])
    for text in (
        b"-0000000005\0",
        b"+0000000005\0",
        b"0o000000005\0",
        b"0_000000005\0",
        b"\0" + b"0000000005\0",
        b"0000000005\x005",
        b"0000000009\0\0",
        b"0x000000005\0",
        b"0000 000005\0",
        b"\xff" * 12,
        b"\xff" + bytes(11),
        b"\x80" + b"\xff" * 11,
        b"77777777777\0",
    )
}
LINKS = {
    f"a link to {target!r}": pack(FILE, link(target, f"{TOP}/b"))
    for target in (
        "/etc/passwd",
        "..",
        "../x",
        "../../x",
        "x/../..",
        "x/../../y",
        "a/..",
        "C:\\x",
        "\\x",
        "..\\..\\x",
    )
} | {
    f"a hard link to {target!r}": pack(FILE, link(target, f"{TOP}/b", tarfile.LNKTYPE))
    for target in ("/etc/passwd", "../x", f"{TOP}/missing", f"{TOP}/../x", f"{TOP}/b", "a", f"{TOP}")
}
PATHS = {
    f"the path {path!r}": pack(member(path))
    for path in (
        "/etc/passwd",
        "../x",
        f"{TOP}/../x",
        f"{TOP}/..",
        "..",
        "\\x",
        f"{TOP}\\..\\x",
        "C:x",
        f"{TOP}/C:x",
    )
} | {f"the pax path {path!r}": pack(pax(record("path", path)), FILE) for path in ("/x", "../x", f"{TOP}/x/../../y")}
KINDS = {
    f"a member of kind {kind!r}": pack(FILE, header(f"{TOP}/b", kind=kind))
    for kind in (b"3", b"4", b"6", b"9", b"D", b"M", b"N", b"V", b"X", b"Z")
}
OTHERS = {
    "not gzip": b"hello" * 1000,
    "empty": b"",
    "bzip2": b"BZh91AY&SY" + bytes(100),
    "an uncompressed TAR": make_tar({f"{TOP}/a": b""}),
    "a damaged gzip stream": pack(PLAIN)[:20] + b"\xff\xff" + pack(PLAIN)[22:],
    "a cut off gzip stream": pack(PLAIN)[:-9],
    "a cut off gzip trailer": pack(PLAIN)[:-1],
    "a wrong gzip checksum": pack(PLAIN)[:-8] + b"xxxx" + pack(PLAIN)[-4:],
    "a wrong gzip length": pack(PLAIN)[:-4] + b"xxxx",
    "garbage after gzip": pack(PLAIN) + b"garbage",
    "zeros and garbage after gzip": pack(PLAIN) + bytes(100) + b"garbage",
    "far garbage after gzip": pack(PLAIN) + bytes(300_000) + b"garbage",
    "a zip after gzip": pack(PLAIN) + b"PK\3\4",
    "too many gzip members": pack(PLAIN) + gzip.compress(b"") * 2000,
    "a damaged second gzip member": HALF + gzip.compress(PLAIN[700:])[:-3],
    "nothing that is TAR": gzip.compress(b"hello" * 1000),
    "a wrong checksum": pack(FILE[:148] + b"0000000\0" + FILE[156:]),
    "a wrong checksum later": pack(FOLDER, FILE[:148] + b"0000000\0" + FILE[156:]),
    "a cut off header": pack(FOLDER + FILE[:300], end=b""),
    "cut off data": pack(FOLDER + FILE[:514], end=b""),
    "data after the end": pack(PLAIN, bytes(1024), FILE),
    "data after one block of zeros": pack(PLAIN, bytes(512), FILE),
    "a malformed owner": pack(patch(FILE[:512], 108, b"nobody\0\0") + FILE[512:]),
    "a malformed time": pack(patch(FILE[:512], 136, b"yesterday\0\0\0") + FILE[512:]),
    "a prefix without ustar": pack(patch(patch(FILE[:512], 257, bytes(8)), 345, b"evil") + FILE[512:]),
    "a folder with content": pack(header(f"{TOP}/", kind=tarfile.DIRTYPE, size=5), pad(b"hello")),
    "a link with content": pack(patch(link("b"), 124, b"00000000005\0"), pad(b"hello")),
    "a device with content": pack(patch(header(kind=tarfile.CHRTYPE), 124, b"00000000005\0"), pad(b"hello")),
    "another size in pax": pack(pax(record("size", "4")), FILE),
    "a negative size in pax": pack(pax(record("size", "-5")), FILE),
    "an absurd size in pax": pack(pax(record("size", "9" * 5000)), FILE),
    "a global path": pack(pax(record("path", f"{TOP}/x"), kind=tarfile.XGLTYPE), FILE),
    "a global size": pack(pax(record("size", "5"), kind=tarfile.XGLTYPE), FILE),
    "a global header inside a member's": pack(pax(record("path", f"{TOP}/x")), pax(kind=tarfile.XGLTYPE), FILE),
    "two paths in one pax header": pack(pax(record("path", "x"), record("path", "y")), FILE),
    "two pax paths": pack(pax(record("path", f"{TOP}/x")), pax(record("path", f"{TOP}/y")), FILE),
    "a pax path and a long name": pack(pax(record("path", f"{TOP}/x")), long_name(f"{TOP}/y"), FILE),
    "two long names": pack(long_name(f"{TOP}/x"), long_name(f"{TOP}/y"), FILE),
    "an empty pax path": pack(pax(record("path", "")), FILE),
    "a pax path with NUL": pack(pax(record("path", f"{TOP}/x\0y")), FILE),
    "a long name with more after NUL": pack(long_name(f"{TOP}/x\0y"), FILE),
    "an empty long name": pack(long_name(""), FILE),
    "a pax record of length 0": pack(pax(b"0 a=b\n"), FILE),
    "a pax record that is too long": pack(pax(b"99 a=b\n"), FILE),
    "a pax record that is too short": pack(pax(b"3 a=b\n"), FILE),
    "a pax record of absurd length": pack(pax(b"9" * 5000 + b" a=b\n"), FILE),
    "a negative pax length": pack(pax(b"-6 a=b\n"), FILE),
    "a pax record without =": pack(pax(b"6 abc\n"), FILE),
    "a pax record without key": pack(pax(b"5 =b\n"), FILE),
    "a pax record without line feed": pack(pax(b"6 a=bc"), FILE),
    "an extended header at the end": pack(PLAIN, pax(record("path", "x"))),
    "a cut off extended header": pack(PLAIN + pax(record("path", "x" * 600))[:700], end=b""),
    "an absurdly large extended header": pack(header(kind=tarfile.XHDTYPE, size=100 * MIB)),
    "an absurdly large long name": pack(header(kind=tarfile.GNUTYPE_LONGNAME, size=8 * GIB - 1)),
    "a file below a file": pack(FILE, member(f"{TOP}/a/b")),
    "a file below a link": pack(link("b"), member(f"{TOP}/a/b")),
    "a file below a later link": pack(member(f"{TOP}/a/b"), link("b")),
    "a file and a folder of one name": pack(FILE, header(f"{TOP}/a/", kind=tarfile.DIRTYPE)),
    "a file and a link of one name": pack(FILE, link("b")),
    "two links of one name": pack(link("b"), link("c")),
    "a path that is too deep": pack(long_name(f"{TOP}/{'d/' * 200}x"), FILE),
    "a path that is too long": pack(long_name(f"{TOP}/{'d' * 5000}"), FILE),
}
REFUSED = SPARSE | SIZES | LINKS | PATHS | KINDS | OTHERS


@pytest.mark.parametrize("archive", REFUSED.values(), ids=REFUSED.keys())
def test_ambiguous_damaged_or_escaping_archives_are_refused_with_one_reason(archive):
    reasons = faults(archive)

    assert len(reasons) == 1
    assert reasons[0].isprintable()
    assert reasons[0].isascii()
    assert len(reasons[0]) < 300


def test_several_faulty_members_are_named_each():
    assert len(faults(pack(member("/a"), member("../b"), link("/c"), header(f"{TOP}/d", kind=b"3")))) == 4


def test_a_member_twice_brings_a_warning_unless_its_content_matters():
    findings = Findings()

    read_tar_gz(io.BytesIO(pack(FILE, FILE)), LIMITS, findings, lambda _: 0)

    assert findings.reasons == []
    assert "twice" in findings.warnings[0]
    assert "twice" in read(pack(FILE, FILE))[1].reasons[0]


@pytest.mark.parametrize(("raw", "shown"), [("Icon\r", "Icon\\x0d"), ("\udce9t\udce9", "\\xe9t\\xe9")])
def test_unprintable_paths_are_listed_escaped(raw, shown):
    path = f"{TOP}/{raw}".encode(errors="surrogateescape")

    contents, findings = read(pack(pax(record("path", path)), FILE))

    assert findings.reasons == []
    assert contents.members[0].name == f"{TOP}/{shown}"


def test_more_members_than_the_limit_are_refused():
    archive = make_tar_gz({f"{TOP}/{number}": b"" for number in range(12)})

    assert "members" in faults(archive, Limits(max_archive_members=10))[0]


def test_headers_without_members_are_counted_too():
    archive = pack(*[pax(record("comment", "x"), kind=tarfile.XGLTYPE)] * 50, FILE)

    assert "members" in faults(archive, Limits(max_archive_members=10))[0]


@pytest.mark.parametrize("size", [0, 66 * MIB], ids=["in the padding", "in a member"])
def test_a_bomb_is_stopped_before_it_is_unpacked(size):
    archive = pack(header(size=size), bytes(66 * MIB))

    tracemalloc.start()
    reasons = faults(archive)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert "50 times its size" in reasons[0]
    assert peak < 8 * MIB


def test_an_absolute_limit_holds_as_well():
    assert "limit of 1,000 bytes" in faults(pack(PLAIN), Limits(max_unpacked_size=1000))[0]


def test_a_member_larger_than_wanted_is_refused():
    findings = Findings()

    with findings.collecting():
        read_tar_gz(io.BytesIO(pack(FILE)), LIMITS, findings, lambda _: 4)

    assert "limit of 4 bytes" in findings.reasons[0]


def test_extended_headers_are_bounded_together():
    archive = pack(*[pax(record("comment", b"x" * (MIB - 20)), kind=tarfile.XGLTYPE)] * 17, FILE)

    assert "absurdly large" in faults(archive)[0]


def test_gzip_members_may_end_anywhere():
    whole = PLAIN + bytes(1024)
    cut = [gzip.compress(whole[at : at + 97]) for at in range(0, len(whole), 97)]

    assert faults(b"".join(cut)) == []


def test_a_gzip_header_may_be_spread_over_chunks(monkeypatch):
    monkeypatch.setattr("storage.tars.CHUNK", 7)

    assert faults(pack(PLAIN) + gzip.compress(b"") + bytes(100)) == []
    assert len(faults(pack(PLAIN) + gzip.compress(b"") + bytes(100) + b"x")) == 1


def test_zlib_and_raw_deflate_are_not_gzip():
    for wbits in (15, -15):
        packer = zlib.compressobj(wbits=wbits)
        assert "gzip" in faults(packer.compress(PLAIN) + packer.flush())[0]


def test_the_size_of_a_hard_link_is_that_of_its_target():
    contents, _ = read(pack(FILE, link(f"{TOP}/a", f"{TOP}/b", tarfile.LNKTYPE)))

    assert [item.size for item in contents.members] == [5, 5]
