"""Whatever the bytes are: a distribution, or one of two errors that say why not; and what is accepted is true."""

from __future__ import annotations

import email.parser
import gzip
import io
import tarfile
import zipfile

from hypothesis import example, given, settings
from hypothesis import strategies as st

from storage.archives import Findings
from storage.distributions import Distribution, find_reasons, name_from_content, read_distribution
from storage.errors import InvalidDistribution, InvalidFilename
from storage.limits import Limits
from storage.metadata import CoreMetadata, read_metadata
from tests.storage.makers import make_metadata, make_sdist, make_tar, make_tar_gz, make_wheel

LIMITS = Limits(max_unpacked_size=10_000_000, max_file_size=10_000_000)
OPTIONS = {
    "requires": ["requests>=2; python_version<'3.9'"],
    "requires_python": ">=3.9",
    "extra_headers": [("Project-URL", "Home, https://example.org"), ("License-Expression", "MIT")],
    "description": "Tools in a box.\n",
}
WHEEL, WHEEL_BYTES = make_wheel(build="1", entry_points="[console_scripts]\na = b:c\n", **OPTIONS)
STORED_WHEEL_BYTES = make_wheel(build="1", compression=zipfile.ZIP_STORED, **OPTIONS)[1]
SDIST, SDIST_BYTES = make_sdist(files={"a" * 150: b"x", "setup.py": b"y" * 600}, **OPTIONS)
ZIP_SDIST, ZIP_SDIST_BYTES = make_sdist(suffix=".zip", **OPTIONS)
TAR = gzip.decompress(SDIST_BYTES)
METADATA = make_metadata(metadata_version="2.5", **OPTIONS)

# Bytes that mean something to one of the formats, so that mutations hit more often than by chance.
NUMBERS = st.sampled_from(
    [
        b"\0",
        b"\xff",
        b"\x80",
        b"-",
        b"\n",
        b"\r",
        b"PK\1\2",
        b"PK\3\4",
        b"PK\5\6",
        b"PK\6\7",
        b"\xff\xff\xff\xff",
        b"L",
        b"x",
    ]
)
PIECES = NUMBERS | st.binary(max_size=8)


@st.composite
def mutations(draw, original: bytes):
    """Draw what remains of *original* after a few replacements, insertions and cuts."""
    data = original
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        piece = draw(PIECES)
        removed = draw(st.sampled_from([0, len(piece), len(piece), len(piece), 1, 30, 512]))
        data = data[:at] + piece + data[at + removed :]
    return data


def attempt(action, *arguments):
    """Return what *action* returns, or the error that says why not; anything else is a failure."""
    try:
        return action(*arguments, limits=LIMITS)
    except (InvalidDistribution, InvalidFilename) as error:
        return error


def judge(content: bytes, filename: str):
    """Read a distribution in every way; None if it is refused."""
    reasons = find_reasons(io.BytesIO(content), filename, limits=LIMITS)
    name = attempt(name_from_content, io.BytesIO(content))
    found = attempt(read_distribution, io.BytesIO(content), filename)

    assert all(reason.isascii() and reason.isprintable() for reason in reasons)
    assert isinstance(name, str) or name.reasons
    assert isinstance(found, Distribution) is (reasons == ())
    assert not isinstance(found, InvalidDistribution) or found.reasons == reasons
    return found if isinstance(found, Distribution) else None


@settings(max_examples=500, deadline=None)
@given(mutations(WHEEL_BYTES) | mutations(STORED_WHEEL_BYTES))
def test_a_wheel_with_changed_bytes_is_refused_or_what_zipfile_sees(content):
    distribution = judge(content, WHEEL)

    if distribution:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            assert archive.testzip() is None
            seen = {info.filename: info.file_size for info in archive.infolist() if not info.is_dir()}
            assert seen == {member.name: member.size for member in distribution.members}
            assert archive.read("toolbox-1.0.dist-info/METADATA") == distribution.metadata_bytes


@settings(max_examples=200, deadline=None)
@given(mutations(SDIST_BYTES))
def test_an_sdist_with_changed_bytes_is_refused_or_what_tarfile_sees(content):
    judge_sdist(content)


@settings(max_examples=400, deadline=None)
@given(mutations(TAR))
def test_an_sdist_with_changed_headers_is_refused_or_what_tarfile_sees(tar):
    judge_sdist(gzip.compress(tar, compresslevel=1, mtime=0))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_an_sdist_with_a_changed_header_of_right_checksum_is_refused_or_what_tarfile_sees(data):
    tar = make_tar(
        {"toolbox-1.0/": b"", "toolbox-1.0/PKG-INFO": METADATA, "toolbox-1.0/" + "n" * 120: b"x"},
        tar_format=data.draw(st.sampled_from([tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])),
    )
    headers = [at for at in range(0, len(tar), 512) if tar[at + 257 : at + 262] == b"ustar"]
    at = data.draw(st.sampled_from(headers))
    block = tar[at : at + 512]
    field = data.draw(st.sampled_from([0, 100, 108, 116, 124, 136, 156, 157, 257, 265, 329, 345]))
    piece = data.draw(PIECES)
    block = (block[:field] + piece + block[field + len(piece) :])[:512]
    total = sum(block[:148]) + sum(block[156:]) + 8 * 32
    block = block[:148] + b"%06o\0 " % total + block[156:]

    judge_sdist(gzip.compress(tar[:at] + block + tar[at + 512 :], compresslevel=1, mtime=0))


def judge_sdist(content: bytes) -> None:
    """Read an sdist; if it is accepted, ``tarfile`` must see the same in it."""
    distribution = judge(content, SDIST)
    if distribution:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            seen = {info.name.removeprefix("./"): info for info in archive if not info.isdir()}
            assert len(seen) == len(distribution.members)
            pkg_info = archive.extractfile(seen["toolbox-1.0/PKG-INFO"])
            assert pkg_info.read() == distribution.metadata_bytes


@settings(max_examples=150, deadline=None)
@given(mutations(ZIP_SDIST_BYTES))
def test_a_zip_sdist_with_changed_bytes_is_refused_or_read(content):
    judge(content, ZIP_SDIST)


@settings(max_examples=300, deadline=None)
@given(mutations(METADATA))
@example(METADATA + b"\xff")
def test_changed_metadata_are_refused_or_what_email_sees(data):
    findings = Findings()

    metadata = read_metadata(data, "METADATA", LIMITS, findings)

    if metadata and not findings.reasons:
        seen = email.parser.Parser().parsestr(data.decode())
        assert metadata.name == seen["Name"].strip()
        assert list(metadata.requires_dist) == [value.strip() for value in seen.get_all("Requires-Dist", [])]
        assert CoreMetadata.from_json(metadata.to_json()) == metadata


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(st.sampled_from(["METADATA", "WHEEL", "RECORD", "entry_points.txt"]), mutations(METADATA)))
def test_a_wheel_with_anything_in_its_dist_info_is_refused_or_read(changed):
    options = {"metadata": changed.get("METADATA"), "wheel": changed.get("WHEEL"), "record": changed.get("RECORD")}
    files = (
        {"toolbox-1.0.dist-info/entry_points.txt": changed["entry_points.txt"]}
        if "entry_points.txt" in changed
        else {}
    )

    judge(make_wheel(files=files, **options)[1], "toolbox-1.0-py3-none-any.whl")


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=40), st.text(max_size=40))
def test_any_text_in_the_metadata_is_refused_or_comes_back(summary, version):
    filename, content = make_wheel(
        metadata=f"Metadata-Version: 2.1\nName: toolbox\nVersion: {version}\nSummary: {summary}\n".encode(
            errors="replace"
        )
    )

    judge(content, filename)


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2000), st.sampled_from([WHEEL, SDIST, ZIP_SDIST, "toolbox.egg", "a-1.whl"]))
def test_arbitrary_bytes_are_refused(content, filename):
    assert judge(content, filename) is None
    assert judge(b"PK\3\4" + content, filename) is None
    assert judge(gzip.compress(content), filename) is None


_SEGMENTS = st.text(st.characters(codec="utf-8", exclude_characters="/\\"), min_size=1, max_size=12)


@settings(max_examples=150, deadline=None)
@given(st.lists(_SEGMENTS, min_size=1, max_size=4).map("/".join), st.binary(max_size=100))
def test_any_path_is_refused_or_listed_as_it_is(path, data):
    wheel = make_wheel(files={f"toolbox/x/{path}": data})
    sdist = "toolbox-1.0.tar.gz", make_tar_gz({"toolbox-1.0/PKG-INFO": METADATA, f"toolbox-1.0/x/{path}": data})

    if found := judge(*reversed(wheel)):
        assert f"toolbox/x/{path}" in {member.name for member in found.members}
    if found := judge(*reversed(sdist)):
        assert len(found.members) == 2
