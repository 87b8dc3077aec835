"""Wheels and sdists as a whole: what is read from them, what is refused, what is merely odd."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import tarfile
import time
import tracemalloc
import zipfile

import pytest

from storage.archives import Member
from storage.distributions import find_reasons, name_from_content, read_distribution
from storage.errors import InvalidDistribution, InvalidFilename
from storage.limits import MIB, Limits
from tests.storage.makers import (
    make_metadata,
    make_record,
    make_sdist,
    make_tar_gz,
    make_wheel,
    make_wheel_file,
    make_zip,
)

LIMITS = Limits()
DIST_INFO = "toolbox-1.0.dist-info"
WHEEL = "toolbox-1.0-py3-none-any.whl"
SDIST = "toolbox-1.0.tar.gz"
MANY = ".".join("abcdefghijk")
MEMBERS = {
    "toolbox/__init__.py": b"__all__ = []\n",
    f"{DIST_INFO}/METADATA": make_metadata(),
    f"{DIST_INFO}/WHEEL": make_wheel_file(),
}


def read(made: tuple[str, bytes], **options):
    """Read a distribution as it comes from the makers."""
    filename, content = made
    return read_distribution(io.BytesIO(content), filename, limits=options.pop("limits", LIMITS), **options)


def reasons(made: tuple[str, bytes], **options):
    """Return the reasons against a distribution as it comes from the makers."""
    filename, content = made
    return find_reasons(io.BytesIO(content), filename, limits=options.pop("limits", LIMITS), **options)


def wheel_of(members, *, record=None, filename=WHEEL):
    """Return a wheel of exactly these *members*, with a RECORD of them unless given."""
    path = f"{DIST_INFO}/RECORD"
    return filename, make_zip(members | {path: make_record(members, path) if record is None else record})


def sdist_of(members, filename=SDIST):
    """Return an sdist of exactly these *members*."""
    return filename, make_zip(members) if filename.endswith(".zip") else make_tar_gz(members)


def hash_of(content: bytes, algorithm="sha256", pad=""):
    """Return a hash as RECORD writes it."""
    digest = base64.urlsafe_b64encode(hashlib.new(algorithm, content).digest()).rstrip(b"=").decode()
    return f"{algorithm}={digest}{pad}"


# --- what is read ---


def test_a_wheel_tells_what_it_is():
    made = make_wheel(
        "Tool.Box",
        "1.0+local.1",
        tags="cp311.cp312-abi3-manylinux_2_17_x86_64",
        build="2foo",
        requires=["requests"],
        requires_python=">=3.9",
        entry_points="[console_scripts]\ntool = tool_box:main\n\n[plugins]\na.b = tool_box.x:Y [extra]\n",
        description="Tools.",
    )

    distribution = read(made)

    assert distribution.filename == "tool_box-1.0+local.1-2foo-cp311.cp312-abi3-manylinux_2_17_x86_64.whl"
    assert (distribution.name, distribution.project, distribution.version) == (
        "Tool.Box",
        "tool-box",
        "1.0+local.1",
    )
    assert (distribution.packagetype, distribution.python_version) == ("bdist_wheel", "cp311.cp312")
    assert distribution.tags == ("cp311-abi3-manylinux_2_17_x86_64", "cp312-abi3-manylinux_2_17_x86_64")
    assert distribution.build == "2foo"
    assert distribution.metadata.requires_dist == ("requests",)
    assert distribution.metadata_served
    assert distribution.entry_points == {
        "console_scripts": {"tool": "tool_box:main"},
        "plugins": {"a.b": "tool_box.x:Y [extra]"},
    }
    assert distribution.wheel == {"wheel_version": "1.0", "generator": "makers 1.0", "root_is_purelib": False}
    assert distribution.warnings == ()


def test_metadata_are_returned_byte_for_byte():
    metadata = make_metadata(description="na\u00efve \U0001f600\r\n")

    assert read(make_wheel(metadata=metadata)).metadata_bytes == metadata
    assert read(make_sdist(metadata=metadata)).metadata_bytes == metadata


def test_an_sdist_tells_what_it_is():
    distribution = read(make_sdist("Tool.Box", "1.0rc1", files={"setup.py": b"x", "src/a.py": b"yy"}))

    assert distribution.filename == "tool_box-1.0rc1.tar.gz"
    assert (distribution.packagetype, distribution.python_version) == ("sdist", "source")
    assert (distribution.tags, distribution.build, distribution.wheel) == ((), None, {})
    assert Member("tool_box-1.0rc1/src/a.py", 2) in distribution.members
    assert len(distribution.members) == 3


def test_members_are_listed_without_folders():
    made = wheel_of(MEMBERS | {"toolbox/empty/": b""})

    assert [member.name for member in read(made).members] == [*MEMBERS, f"{DIST_INFO}/RECORD"]


@pytest.mark.parametrize(
    ("version", "dynamic", "served"),
    [
        ("2.1", (), False),
        ("1.0", (), False),
        ("2.2", (), True),
        ("2.2", ("Description", "Classifier"), True),
        ("2.2", ("Requires-Dist",), False),
        ("2.3", ("requires-python",), False),
        ("2.6", ("Provides-Extra",), False),
    ],
)
def test_the_metadata_of_an_sdist_are_served_if_installers_may_rely_on_them(version, dynamic, served):
    made = make_sdist(metadata_version=version, extra_headers=[("Dynamic", name) for name in dynamic])

    assert read(made).metadata_served is served


@pytest.mark.parametrize("position", [0, 100, -1])
def test_the_position_of_the_file_does_not_matter(position):
    filename, content = make_wheel()
    file = io.BytesIO(content)
    file.seek(position if position >= 0 else len(content))

    assert read_distribution(file, filename, limits=LIMITS).project == "toolbox"


# --- odd, but fine ---

ODD_WHEELS = {
    "a name in capitals": make_wheel(filename="ToolBox-1.0-py3-none-any.whl"),
    "another spelling in the metadata": make_wheel("tool-box", metadata=make_metadata("Tool.Box")),
    "an equal version": make_wheel(metadata=make_metadata(version="1.0.0")),
    "a version with a v": make_wheel(metadata=make_metadata(version="v1.0")),
    "an epoch": make_wheel(version="1!2.0"),
    "a local version": make_wheel(version="1.0+ubuntu.1"),
    "a post release of a dev": make_wheel(version="1.0a1.post2.dev3"),
    "a date": make_wheel(version="2024.1.31"),
    "an equivalent .dist-info": make_wheel("tool-box", dist_info="Tool.Box-1.0.0.dist-info"),
    "an old .dist-info with hyphens": make_wheel("tool-box", "1.0.post1", dist_info="tool-box-1.0-1.dist-info"),
    "an old .dist-info with an underscore": make_wheel(version="1.0.post1", dist_info="toolbox-1.0_1.dist-info"),
    "a build tag": make_wheel(build="20240131abc"),
    "compressed tags": make_wheel(tags="py2.py3-none-any"),
    "linux tags": make_wheel(tags="cp312-cp312-linux_x86_64"),
    "exotic tags": make_wheel(tags="pp310-pypy310_pp73-musllinux_1_2_aarch64.manylinux2014_aarch64"),
    "a future tag": make_wheel(tags="cp399-abi3t-pyemscripten_2026_0_wasm32"),
    "a private classifier": make_wheel(extra_headers=[("Classifier", "Private :: Do Not Upload")]),
    "metadata 2.0": make_wheel(metadata_version="2.0"),
    "metadata 1.2": make_wheel(metadata_version="1.2"),
    "metadata of the future": make_wheel(metadata_version="2.9", extra_headers=[("Flavour", "mint")]),
    "no files but its own": make_wheel(files={}),
    "stored members": make_wheel(compression=zipfile.ZIP_STORED),
    "a data folder": make_wheel(files={"toolbox-1.0.data/scripts/tool": b"#!python\n"}),
    "a vendored .dist-info": make_wheel(files={"toolbox/_vendor/other-1.0.dist-info/METADATA": b"x"}),
    "a comma in a path": make_wheel(files={"toolbox/a,b.py": b"x"}),
    "a path outside ASCII": make_wheel(files={"toolbox/na\u00efve.py": b"x"}),
    "an empty file": make_wheel(files={"toolbox/py.typed": b""}),
    "other tags in WHEEL": make_wheel(wheel=make_wheel_file("py2-none-any")),
    "no tags in WHEEL": make_wheel(wheel=b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\n"),
    "compressed tags in WHEEL": make_wheel(
        wheel=b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py2.py3-none-any\n"
    ),
    "a strange tag in WHEEL": make_wheel(wheel=make_wheel_file() + b"Tag: what\nTag: a-b-c-d\n"),
    "a later WHEEL": make_wheel(wheel=b"Wheel-Version: 1.9\nRoot-Is-Purelib: TRUE\nFuture: x\n"),
    "no Root-Is-Purelib": make_wheel(wheel=b"Wheel-Version: 1.0\n"),
    "a WHEEL with CRLF": make_wheel(wheel=make_wheel_file().replace(b"\n", b"\r\n")),
    "a RECORD with CRLF": wheel_of(
        MEMBERS, record=make_record(MEMBERS, f"{DIST_INFO}/RECORD").replace(b"\n", b"\r\n")
    ),
    "a RECORD without final line feed": wheel_of(
        MEMBERS, record=make_record(MEMBERS, f"{DIST_INFO}/RECORD").rstrip()
    ),
    "a RECORD with empty lines": wheel_of(MEMBERS, record=make_record(MEMBERS, f"{DIST_INFO}/RECORD") + b"\n\r\n"),
    "a RECORD that does not list itself": wheel_of(
        MEMBERS, record=make_record(MEMBERS, "x").replace(b"x,,\n", b"")
    ),
    "a RECORD with back-slashes": wheel_of(
        MEMBERS,
        record=make_record({path.replace("/", "\\"): content for path, content in MEMBERS.items()}, "x").replace(
            b"x,,\n", b""
        ),
    ),
    "a RECORD that lists folders": wheel_of(
        MEMBERS, record=make_record(MEMBERS, f"{DIST_INFO}/RECORD") + b"toolbox/,,\n"
    ),
    "a RECORD with the same row twice": wheel_of(MEMBERS, record=make_record(MEMBERS, f"{DIST_INFO}/RECORD") * 2),
    "a RECORD with other hashes and no sizes": wheel_of(
        MEMBERS,
        record="".join(
            f"{path},{hash_of(content, algorithm, pad)},\n"
            for (path, content), algorithm, pad in zip(
                MEMBERS.items(), ("sha512", "blake2b", "sha3_256"), ("", "", "="), strict=True
            )
        ).encode(),
    ),
    "signatures that RECORD does not list": wheel_of(
        MEMBERS | {f"{DIST_INFO}/RECORD.jws": b"x", f"{DIST_INFO}/RECORD.p7s": b"y"},
        record=make_record(MEMBERS, f"{DIST_INFO}/RECORD"),
    ),
    "signatures that RECORD lists": wheel_of(
        MEMBERS | {f"{DIST_INFO}/RECORD.jws": b"x"},
        record=make_record(MEMBERS, f"{DIST_INFO}/RECORD") + f"{DIST_INFO}/RECORD.jws,,\n".encode(),
    ),
    "an empty entry_points.txt": make_wheel(entry_points=""),
    "comments in entry_points.txt": make_wheel(entry_points="# a\n; b\n[x]\na=b\na = c=d\n"),
    "odd names of plugins": make_wheel(entry_points="[pytest11]\nmy plugin/1 = a:b\n"),
}
ODD_SDISTS = {
    "a zip": make_sdist(suffix=".zip"),
    "a name with hyphens": make_sdist("tool-box", metadata_version="2.1", filename="tool-box-1.0.tar.gz"),
    "a name in capitals": make_sdist(
        "ToolBox", metadata_version="2.2", filename="ToolBox-1.0.tar.gz", top="ToolBox-1.0"
    ),
    "a name with dots": make_sdist("tool.box", filename="tool.box-1.0.tar.gz", top="tool.box-1.0"),
    "a version that is not normalized": make_sdist(
        metadata=make_metadata(version="1.0-RC1"), filename="toolbox-1.0rc1.tar.gz", top="toolbox-1.0-RC1"
    ),
    "a legacy name of metadata 1.0": make_sdist(
        "Tool-Box", metadata_version="1.0", filename="Tool-Box-1.0.zip", suffix=".zip"
    ),
    "a new name of metadata 2.4": make_sdist("Tool-Box", "1.0+a.1", metadata_version="2.4"),
    "a zip of metadata 2.4": make_sdist(metadata_version="2.4", suffix=".zip"),
    "an epoch": make_sdist(version="1!2.0"),
    "GNU format": make_sdist(tar_format=tarfile.GNU_FORMAT),
    "an egg-info inside": make_sdist(files={"toolbox.egg-info/PKG-INFO": b"Name: other"}),
    "no pyproject.toml": make_sdist(files={"setup.py": b""}),
    "a zip inside": make_sdist(files={"tests/a.zip": make_zip({"a": b"b"})}),
}


@pytest.mark.parametrize("made", (ODD_WHEELS | ODD_SDISTS).values(), ids=(ODD_WHEELS | ODD_SDISTS).keys())
def test_valid_but_unusual_distributions_are_accepted(made):
    assert reasons(made) == ()
    assert read(made).filename == made[0]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (ODD_WHEELS["other tags in WHEEL"], "other tags"),
        (ODD_WHEELS["a strange tag in WHEEL"], "'what'"),
        (ODD_WHEELS["no Root-Is-Purelib"], "Root-Is-Purelib"),
        (ODD_WHEELS["a RECORD that does not list itself"], "does not list itself"),
        (ODD_WHEELS["metadata of the future"], "2.9"),
        (make_wheel(extra_headers=[("License-File", "LICENSE")]), "License-File"),
        (make_sdist(extra_headers=[("License-File", "LICENSE")]), "License-File"),
    ],
)
def test_oddities_are_noted_as_warnings(made, words):
    assert any(words in warning for warning in read(made).warnings)


@pytest.mark.parametrize("rest", [bytes(18), bytes(8) + b"\x30\0\0\0" + bytes(6), b"\xff" * 18, b""])
def test_bytes_that_merely_look_like_the_end_of_a_zip_are_accepted(rest):
    tar = gzip.decompress(make_sdist(files={"setup.py": b"PK\5\6" + rest})[1])

    assert reasons((SDIST, gzip.compress(tar, compresslevel=0))) == ()


@pytest.mark.parametrize("folder", ["", "licenses/", "license_files/"])
def test_licence_files_are_looked_for_where_tools_put_them(folder):
    files = {f"{DIST_INFO}/{folder}docs/LICENSE": b"MIT"}

    assert read(make_wheel(files=files, extra_headers=[("License-File", "docs/LICENSE")])).warnings == ()
    assert read(make_sdist(files={"LICENSE": b""}, extra_headers=[("License-File", "LICENSE")])).warnings == ()


# --- refused ---


def edited(change, **options):
    """Return a wheel whose RECORD is changed by a function."""
    return wheel_of(MEMBERS, record=change(make_record(MEMBERS, f"{DIST_INFO}/RECORD")), **options)


def without(name):
    """Return a wheel without the member *name* of its .dist-info."""
    return wheel_of({path: content for path, content in MEMBERS.items() if not path.endswith(f"/{name}")})


def rewrap(made, change):
    """Return a wheel whose RECORD is right, after its members were changed by a function."""
    return wheel_of(change(dict(MEMBERS)), filename=made)


RECORD_FAULTS = {
    "RECORD does not list a file": (
        wheel_of(MEMBERS | {"evil.py": b""}, record=make_record(MEMBERS, f"{DIST_INFO}/RECORD")),
        "does not list 'evil.py'",
    ),
    "RECORD lists a file too many": (edited(lambda record: record + b"gone.py,,\n"), "lists 'gone.py'"),
    "another hash": (edited(lambda record: record.replace(b"sha256=", b"sha256=x", 1)), "another hash or size"),
    "another size": (edited(lambda record: record.replace(b",13\n", b",14\n")), "another hash or size"),
    "a size that is no number": (edited(lambda record: record.replace(b",13\n", b",x\n")), "another hash or size"),
    "no hash": (edited(lambda record: record.replace(record.split(b",")[1], b"", 1)), "no hash of SHA-256"),
    "a weak hash": (
        wheel_of(MEMBERS, record="".join(f"{p},{hash_of(c, 'md5')},\n" for p, c in MEMBERS.items()).encode()),
        "no hash of SHA-256",
    ),
    "an unknown hash": (edited(lambda record: record.replace(b"sha256", b"sha0")), "no hash of SHA-256"),
    "a hash of variable length": (edited(lambda record: record.replace(b"sha256", b"shake_128")), "no hash"),
    "METADATA not listed": (
        edited(lambda record: b"\n".join(line for line in record.split(b"\n") if b"METADATA" not in line)),
        "does not list",
    ),
    "a hash of RECORD itself": (
        edited(lambda record: record.replace(b"RECORD,,", b"RECORD,sha256=x,")),
        "another hash or size",
    ),
    "two rows for one file": (edited(lambda record: record + b"toolbox/__init__.py,,\n"), "twice"),
    "rows of two columns": (edited(lambda record: record + b"a,b\n"), "2 columns"),
    "an empty RECORD": (wheel_of(MEMBERS, record=b""), "does not list"),
}
BROKEN_RECORDS = {
    "no RECORD": (("x", make_zip(MEMBERS)), "has no"),
    "a RECORD that is not UTF-8": (wheel_of(MEMBERS, record=b"\xff,,\n"), "not UTF-8"),
    "a RECORD that is not CSV": (wheel_of(MEMBERS, record=b'"' + b"x\n" * 200_000), "CSV"),
    "a RECORD that is too large": (wheel_of(MEMBERS, record=b"a,,\n" * 9_000_000), "RECORD is larger"),
    "a RECORD with a long line": (wheel_of(MEMBERS, record=b"x" * 500_000), "line longer"),
}
BROKEN_WHEELS = {
    "not a ZIP": ((WHEEL, b"hello"), "not a ZIP"),
    "an sdist under the name of a wheel": ((WHEEL, make_sdist()[1]), "not a ZIP"),
    "no .dist-info": ((WHEEL, make_zip({"a.py": b""})), "no .dist-info"),
    "an empty archive": ((WHEEL, make_zip({})), "no .dist-info"),
    "an .egg-info": ((WHEEL, make_zip({"EGG-INFO/PKG-INFO": make_metadata()})), "no .dist-info"),
    "two .dist-info": (wheel_of(MEMBERS | {"other-1.0.dist-info/METADATA": b""}), "2 .dist-info"),
    "two spellings of .dist-info": (wheel_of(MEMBERS | {"Toolbox-1.0.dist-info/METADATA": b""}), "2 .dist-info"),
    "a second .DIST-INFO": (wheel_of(MEMBERS | {"other-1.0.DIST-INFO/METADATA": b""}), "2 .dist-info"),
    "a smuggled .dist-info": (
        wheel_of(MEMBERS | {"toolbox-1.0.data/purelib/other-1.0.dist-info/METADATA": b""}),
        "2 .dist-info",
    ),
    "another project's .dist-info": (make_wheel(dist_info="other-1.0.dist-info"), "folder 'other-1.0.dist-info'"),
    "another version's .dist-info": (make_wheel(dist_info="toolbox-1.1.dist-info"), "folder"),
    "a .dist-info of a version that is none": (make_wheel(dist_info="toolbox-one.dist-info"), "folder"),
    "a .dist-info without version": (make_wheel(dist_info="toolbox.dist-info"), "folder"),
    "no METADATA": (without("METADATA"), "has no 'toolbox-1.0.dist-info/METADATA'"),
    "no WHEEL": (without("WHEEL"), "has no 'toolbox-1.0.dist-info/WHEEL'"),
    "METADATA that is a folder": (
        wheel_of({path.replace("METADATA", "METADATA/x"): content for path, content in MEMBERS.items()}),
        "has no",
    ),
    "another project in METADATA": (make_wheel(metadata=make_metadata("other")), "metadata say 'other'"),
    "another version in METADATA": (make_wheel(metadata=make_metadata(version="1.1")), "metadata say '1.1'"),
    "a local version in METADATA only": (
        make_wheel(metadata=make_metadata(version="1.0+x")),
        "metadata say '1.0+x'",
    ),
    "another project in the file name": (("other-1.0-py3-none-any.whl", make_wheel()[1]), "project 'other'"),
    "another version in the file name": (("toolbox-2.0-py3-none-any.whl", make_wheel()[1]), "version '2.0'"),
    "METADATA that is not UTF-8": (make_wheel(metadata=make_metadata() + b"\xff"), "not UTF-8"),
    "METADATA that is too large": (make_wheel(metadata=make_metadata(description="x" * 9_000_000)), "larger"),
    "an empty WHEEL": (make_wheel(wheel=b""), "Wheel-Version"),
    "a WHEEL of version 2": (make_wheel(wheel=b"Wheel-Version: 2.0\n"), "Wheel-Version '2.0'"),
    "two Wheel-Versions": (make_wheel(wheel=make_wheel_file() + b"Wheel-Version: 1.0\n"), "several times"),
    "a WHEEL that is not UTF-8": (make_wheel(wheel=make_wheel_file() + b"\xff"), "WHEEL is not UTF-8"),
    "a WHEEL with NUL": (make_wheel(wheel=make_wheel_file() + b"X: \0\n"), "control character"),
    "a Root-Is-Purelib of neither kind": (
        make_wheel(wheel=b"Wheel-Version: 1.0\nRoot-Is-Purelib: maybe\n"),
        "maybe",
    ),
    "a large WHEEL": (make_wheel(wheel=make_wheel_file() + b"X: y\n" * 20_000), "larger"),
    "a WHEEL of many tags": (make_wheel(wheel=make_wheel_file() + b"Tag: py3-none-any\n" * 1100), "headers"),
    "entry_points.txt that are not UTF-8": (
        rewrap(WHEEL, lambda members: members | {f"{DIST_INFO}/entry_points.txt": b"\xff"}),
        "entry_points.txt is not UTF-8",
    ),
    "entry_points.txt without group": (make_wheel(entry_points="a = b:c\n"), "Line 1 of entry_points.txt"),
    "entry_points.txt without value": (make_wheel(entry_points="[x]\na\n"), "Line 2 of entry_points.txt"),
    "entry_points.txt with colons": (make_wheel(entry_points="[x]\na: b\n"), "Line 2 of entry_points.txt"),
    "a script that is a path": (make_wheel(entry_points="[console_scripts]\n../x = a:b\n"), "script '../x'"),
    "a script that climbs": (make_wheel(entry_points="[gui_scripts]\n.. = a:b\n"), "script '..'"),
    "a file name of too many tags": (make_wheel(filename=f"toolbox-1.0-{MANY}-{MANY}-{MANY}.whl"), "tags"),
}
BROKEN_SDISTS = {
    "not gzip": ((SDIST, b"hello"), "not compressed with gzip"),
    "a wheel under the name of an sdist": ((SDIST, make_wheel()[1]), "ZIP"),
    "a wheel under the name of a zip sdist": (("toolbox-1.0.zip", make_wheel()[1]), "2 top folders"),
    "a ZIP behind gzip": ((SDIST, make_sdist()[1] + make_sdist(suffix=".zip")[1]), "ZIP archive behind"),
    "a ZIP64 archive behind gzip": (
        (SDIST, make_sdist()[1] + b"PK\6\7" + bytes(16) + b"PK\5\6" + bytes(18)),
        "ZIP archive behind",
    ),
    "an empty archive": (sdist_of({}), "0 top folders"),
    "two top folders": (sdist_of({"toolbox-1.0/PKG-INFO": make_metadata(), "b/c": b""}), "2 top folders"),
    "an empty second top folder": (sdist_of({"toolbox-1.0/PKG-INFO": make_metadata(), "b/": b""}), "2 top folders"),
    "a file beside the top folder": (
        sdist_of({"toolbox-1.0/PKG-INFO": make_metadata(), "b": b""}),
        "2 top folders",
    ),
    "a file beside the top folder, zipped": (
        sdist_of({"toolbox-1.0/PKG-INFO": make_metadata(), "b": b""}, "toolbox-1.0.zip"),
        "2 top folders",
    ),
    "a file in place of the top folder": (sdist_of({"toolbox-1.0": make_metadata()}), "'toolbox-1.0' beside it"),
    "no PKG-INFO": (sdist_of({"toolbox-1.0/setup.py": b""}), "no file 'toolbox-1.0'/PKG-INFO"),
    "PKG-INFO too deep": (sdist_of({"toolbox-1.0/a/PKG-INFO": make_metadata()}), "no file"),
    "PKG-INFO as a folder": (sdist_of({"toolbox-1.0/PKG-INFO/": b""}), "no file"),
    "another top folder": (make_sdist(top="other-1.0"), "folder 'other-1.0'"),
    "another version in the top folder": (make_sdist(top="toolbox-1.1"), "folder"),
    "a top folder without version": (make_sdist(top="toolbox"), "folder"),
    "another project in PKG-INFO": (make_sdist(metadata=make_metadata("other")), "metadata say 'other'"),
    "another version in PKG-INFO": (make_sdist(metadata=make_metadata(version="2")), "metadata say '2'"),
    "another file name": (("other-1.0.tar.gz", make_sdist()[1]), "project 'other'"),
    "PKG-INFO that is too large": (make_sdist(metadata=make_metadata(description="x" * 9_000_000)), "larger"),
    "PKG-INFO with NUL": (make_sdist(summary="a\0b"), "control character"),
    "a legacy name of metadata 2.4": (
        make_sdist("Tool-Box", metadata_version="2.4", filename="Tool-Box-1.0.tar.gz"),
        "'tool_box-1.0.tar.gz' (PEP 625)",
    ),
    "a version of metadata 2.4 that is not normalized": (
        make_sdist(version="1.0rc1", metadata_version="2.4", filename="toolbox-1.0.rc1.tar.gz"),
        "PEP 625",
    ),
}
REFUSED = {
    label: ((WHEEL if made[0] == "x" else made[0], made[1]), words)
    for label, (made, words) in (RECORD_FAULTS | BROKEN_RECORDS | BROKEN_WHEELS | BROKEN_SDISTS).items()
}


@pytest.mark.parametrize(("made", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_what_is_wrong_is_refused_with_a_sentence_that_says_it(made, words):
    with pytest.raises((InvalidDistribution, InvalidFilename)) as caught:
        read(made)

    found = reasons(made)
    assert any(words in reason for reason in found)
    if isinstance(caught.value, InvalidDistribution):
        assert caught.value.reasons == found
    assert all(reason.isascii() and reason.isprintable() and len(reason) < 400 for reason in found)


@pytest.mark.parametrize(("made", "words"), RECORD_FAULTS.values(), ids=RECORD_FAULTS.keys())
def test_a_repository_may_relax_what_record_lists(made, words):
    distribution = read(made, strict_record=False)

    assert any(words in warning for warning in distribution.warnings)


@pytest.mark.parametrize(("made", "words"), BROKEN_RECORDS.values(), ids=BROKEN_RECORDS.keys())
def test_a_missing_or_unreadable_record_is_refused_even_then(made, words):
    assert any(words in reason for reason in reasons((WHEEL, made[1]), strict_record=False))


@pytest.mark.parametrize(
    "filename",
    [
        "toolbox.egg",
        "toolbox-1.0.exe",
        "toolbox-1.0.tar.bz2",
        "toolbox-1.0.tgz",
        "toolbox-1.0-py3-none-any.whl.json",
        "toolbox-1.0.tar.gz.metadata",
        "../toolbox-1.0.tar.gz",
        ".toolbox-1.0.tar.gz",
        "toolbox-1.0\n.tar.gz",
        "t\u043eolbox-1.0.tar.gz",
        "toolbox-one.tar.gz",
        f"toolbox-{'1' * 5000}.tar.gz",
        "con-1.0.tar.gz",
        "",
    ],
)
def test_other_file_names_are_refused_whatever_the_content(filename):
    with pytest.raises(InvalidFilename):
        read((filename, make_sdist()[1]))

    assert len(reasons((filename, make_sdist()[1]))) == 1


def test_every_reason_is_found_at_once():
    metadata = make_metadata("other", "2.0", requires=["?"], requires_python="x")
    made = make_wheel(
        metadata=metadata,
        wheel=b"",
        entry_points="x",
        files={"../a": b""},
        record=b"gone.py,,\n",
        filename="bad.whl",
    )

    found = reasons(made)

    words = (
        "bad.whl",
        "'../a'",
        "Requires-Python",
        "Requires-Dist",
        "Wheel-Version",
        "entry_points",
        "not list",
        "gone",
    )
    assert all(any(word in reason for reason in found) for word in words)


@pytest.mark.parametrize(
    ("claims", "words"),
    [
        ({"claimed_name": "other"}, "project 'other'"),
        ({"claimed_version": "1.1"}, "version '1.1'"),
        ({"claimed_version": "one"}, "PEP 440"),
        ({"claimed_name": "-"}, "project name"),
        ({"claimed_version": "1" * 5000}, "PEP 440"),
    ],
)
def test_a_form_that_claims_something_else_is_refused(claims, words):
    with pytest.raises(InvalidDistribution, match=words):
        read(make_wheel(), **claims)

    assert words in reasons(make_wheel(), **claims)[0]


def test_a_form_may_spell_name_and_version_in_its_own_way():
    assert read(make_wheel("tool-box"), claimed_name="Tool.Box", claimed_version="v1.0.0").project == "tool-box"


# --- damage and bombs ---


def test_a_damaged_member_is_refused_even_if_record_is_relaxed():
    filename, content = make_wheel(files={"toolbox/a": b"hello-hello"}, compression=zipfile.ZIP_STORED)

    found = reasons((filename, content.replace(b"hello-hello", b"hello-hallo", 1)), strict_record=False)

    assert any("CRC-32" in reason for reason in found)


def test_files_over_the_limit_are_refused():
    assert "limit of 100 bytes" in reasons(make_wheel(), limits=Limits(max_file_size=100))[0]


def test_bombs_are_refused_before_memory_is_spent():
    zeros = bytes(65 * MIB)  # just above the mark from which the ratio counts
    bombs = [
        make_wheel(files={"toolbox/zeros": zeros}),
        make_wheel(metadata=make_metadata() + b"\n" + zeros),
        make_wheel(record=zeros),
        make_sdist(files={"zeros": zeros}),
        make_sdist(metadata=make_metadata() + b"\n" + zeros),
        (SDIST, gzip.compress(zeros)),
    ]
    tracemalloc.start()
    start = time.process_time()

    for bomb in bombs:
        with pytest.raises(InvalidDistribution):
            read(bomb)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 30 * MIB
    assert time.process_time() - start < 10


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_only_one_of_many_metadata_is_kept_in_memory(suffix):
    metadata = make_metadata(description="x" * 4_000_000)
    made = sdist_of({f"toolbox-{number}/PKG-INFO": metadata for number in range(15)}, f"toolbox-1.0{suffix}")
    tracemalloc.start()

    assert "15 top folders" in reasons(made)[0]

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * MIB


def test_a_record_larger_than_the_archive_is_refused():
    record = "".join(f"a{number},,\n" for number in range(200)).encode()

    assert "more rows" in reasons(make_wheel(record=record), limits=Limits(max_archive_members=100))[0]


# --- names from the content ---


@pytest.mark.parametrize(
    "made",
    [
        make_wheel(),
        make_wheel(
            "Tool.Box", "1.0+a.b", tags="cp311.cp312-abi3-manylinux2014_x86_64.manylinux_2_17_x86_64", build="3x"
        ),
        make_wheel(tags="py2.py3-none-any"),
        make_sdist("Tool.Box", "1!1.0rc1"),
        make_sdist(suffix=".zip"),
    ],
    ids=lambda made: made[0],
)
def test_a_file_without_a_usable_name_gets_the_one_it_should_have(made):
    assert name_from_content(io.BytesIO(made[1]), limits=LIMITS) == made[0]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"hello",
        b"PK",
        make_zip({}),
        make_zip({"a": b""}),
        make_tar_gz({"a/b": b""}),
        make_wheel(metadata=make_metadata("-"))[1],
        make_wheel(wheel=b"Wheel-Version: 1.0\n")[1],
        make_wheel(wheel=make_wheel_file() + b"Tag: cp311-abi3-any\n")[1],
        without("WHEEL")[1],
        make_sdist(metadata=make_metadata(version="one"))[1],
    ],
    ids=range(11),
)
def test_a_content_that_does_not_tell_its_name_is_refused(content):
    with pytest.raises(InvalidDistribution) as caught:
        name_from_content(io.BytesIO(content), limits=LIMITS)

    assert caught.value.reasons
