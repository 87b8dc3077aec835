"""Core metadata: what is read from METADATA and PKG-INFO, what is refused, what is merely odd."""

from __future__ import annotations

import time
from email.parser import Parser

import pytest
from packaging.metadata import parse_email

from storage.archives import Findings
from storage.limits import Limits
from storage.metadata import CoreMetadata, read_metadata
from tests.storage.makers import make_metadata

LIMITS = Limits()


def read(data: bytes | str, limits: Limits = LIMITS):
    """Read metadata; return them and what was found."""
    findings = Findings()
    data = data.encode() if isinstance(data, str) else data
    return read_metadata(data, "METADATA", limits, findings), findings


def with_headers(*headers: str, version="2.1", body=""):
    """Return metadata with these header lines."""
    return (
        f"Metadata-Version: {version}\nName: toolbox\nVersion: 1.0\n"
        + "".join(f"{header}\n" for header in headers)
        + (f"\n{body}" if body else "")
    )


def test_every_field_is_read():
    metadata, findings = read(
        with_headers(
            "Summary: Tools, boxed",
            "Author: Ada",
            "Author-email: Ada <ada@example.org>",
            "Maintainer: Bob",
            "Maintainer-email: bob@example.org",
            "Home-page: https://example.org",
            "Download-URL: https://example.org/files",
            "License-Expression: MIT OR Apache-2.0",
            "License-File: LICENSE",
            "License-File: docs/NOTICE",
            "Keywords: hammer, nail ,,saw",
            "Classifier: Private :: Do Not Upload",
            "Classifier: Topic :: Utilities",
            "Requires-Python: >=3.9",
            "Requires-Dist: requests (>=2.0) ; extra == 'web'",
            "Requires-Dist: tomli; python_version<'3.11'",
            "Requires-External: libpng (>=1.5)",
            "Provides-Extra: web",
            "Provides-Dist: boxtool",
            "Obsoletes-Dist: oldbox",
            "Project-URL: Documentation, https://example.org/docs?a=1,2",
            "Project-URL: Documentation, https://example.org/more",
            "Dynamic: Requires-External",
            "Platform: any",
            "Supported-Platform: linux",
            "Description-Content-Type: text/markdown; charset=UTF-8; variant=GFM",
            "Import-Name: toolbox",
            "Import-Name: _toolbox ; private",
            "Import-Namespace: boxes",
            version="2.5",
            body="# Toolbox\n\nTools.\n",
        )
    )

    assert findings == Findings()
    assert metadata == CoreMetadata(
        metadata_version="2.5",
        name="toolbox",
        version="1.0",
        summary="Tools, boxed",
        description="# Toolbox\n\nTools.\n",
        description_content_type="text/markdown; charset=UTF-8; variant=GFM",
        keywords=("hammer", "nail", "saw"),
        author="Ada",
        author_email="Ada <ada@example.org>",
        maintainer="Bob",
        maintainer_email="bob@example.org",
        home_page="https://example.org",
        download_url="https://example.org/files",
        license_expression="MIT OR Apache-2.0",
        license_files=("LICENSE", "docs/NOTICE"),
        classifiers=("Private :: Do Not Upload", "Topic :: Utilities"),
        requires_python=">=3.9",
        requires_dist=("requests (>=2.0) ; extra == 'web'", "tomli; python_version<'3.11'"),
        requires_external=("libpng (>=1.5)",),
        provides_extra=("web",),
        provides_dist=("boxtool",),
        obsoletes_dist=("oldbox",),
        project_urls=(
            ("Documentation", "https://example.org/docs?a=1,2"),
            ("Documentation", "https://example.org/more"),
        ),
        dynamic=("requires-external",),
        platforms=("any",),
        supported_platforms=("linux",),
        import_names=("toolbox", "_toolbox ; private"),
        import_namespaces=("boxes",),
    )


def test_json_carries_the_fields_that_are_present_and_only_those():
    metadata, _ = read(with_headers("Keywords: a,b", "Project-URL: Home, https://example.org", "Import-Name:"))

    assert metadata.to_json() == {
        "metadata_version": "2.1",
        "name": "toolbox",
        "version": "1.0",
        "keywords": ["a", "b"],
        "project_urls": [["Home", "https://example.org"]],
        "import_names": [],
    }
    assert CoreMetadata.from_json(metadata.to_json()) == metadata


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": None, "classifiers": "x", "keywords": 3, "summary": ["x"], "unknown": 1},
        {"project_urls": [["a"], "ab", 7, None], "classifiers": [1, None]},
        {"project_urls": {"a": "b"}},
    ],
)
def test_damaged_json_counts_as_absent_fields(document):
    metadata = CoreMetadata.from_json(document)

    assert metadata == CoreMetadata("", "", "", classifiers=(), project_urls=metadata.project_urls)


@pytest.mark.parametrize("version", ["1.0", "1.1", "1.2", "2.1", "2.2", "2.3", "2.4", "2.5", "2.6"])
def test_every_published_metadata_version_is_accepted(version):
    metadata, findings = read(with_headers(version=version))

    assert findings == Findings()
    assert metadata.metadata_level == tuple(map(int, version.split(".")))


@pytest.mark.parametrize("version", ["2.0", "2.7", "2.10", "2.99", "1.3"])
def test_other_minor_metadata_versions_are_accepted_with_a_warning(version):
    _, findings = read(with_headers(version=version))

    assert findings.reasons == []
    assert version in findings.warnings[0]


@pytest.mark.parametrize(
    "version",
    [
        "3.0",
        "0.9",
        "2",
        "2.",
        "2.x",
        "",
        "UNKNOWN",
        "2.1.0",
        "-2.1",
        "2.1 beta",
        "\u0662.\u0661",
        "2." + "1" * 5000,
    ],
)
def test_other_major_or_malformed_metadata_versions_are_refused(version):
    _, findings = read(with_headers(version=version))

    assert len(findings.reasons) == 1
    assert "Metadata-Version" in findings.reasons[0]


ODD = {
    "a CRLF file": (with_headers("Summary: x").replace("\n", "\r\n"), "summary", "x"),
    "no line feed at the end": (with_headers("Summary: x").rstrip(), "summary", "x"),
    "headers in another case": (with_headers("SUMMARY: x"), "summary", "x"),
    "no space after the colon": (with_headers("Summary:x"), "summary", "x"),
    "tabs after the colon": (with_headers("Summary:\t x"), "summary", "x"),
    "a folded summary": (with_headers("Summary: x", "        y"), "summary", "x y"),
    "UNKNOWN": (with_headers("Summary: UNKNOWN"), "summary", None),
    "UNKNOWN twice": (with_headers("Home-page: UNKNOWN", "Home-page: https://a"), "home_page", "https://a"),
    "a platform UNKNOWN": (with_headers("Platform: UNKNOWN"), "platforms", ()),
    "an empty value": (with_headers("Author:"), "author", None),
    "a body UNKNOWN": (with_headers(body="UNKNOWN\n\n"), "description", None),
    "an empty body": (with_headers(body="\n\n"), "description", None),
    "a body that looks like headers": (with_headers(body="Name: other\n"), "description", "Name: other\n"),
    "a body with a form feed": (with_headers(body="a\x0c\r\rb"), "description", "a\x0c\r\rb"),
    "a folded description": (
        with_headers("Description: Title", "        =====", "        ", "          code", version="1.1"),
        "description",
        "Title\n=====\n\n  code",
    ),
    "a folded description with bars": (
        with_headers("Description: Title", "       |=====", "       |  code", version="1.2"),
        "description",
        "Title\n=====\n  code",
    ),
    "a form feed in a licence": (with_headers("License: GPL", "        \x0cpage 2"), "license", "GPL\n\x0cpage 2"),
    "a licence over several lines": (with_headers("License: MIT", "        Text"), "license", "MIT\nText"),
    "keywords with spaces, old": (with_headers("Keywords: a b c", version="1.0"), "keywords", ("a", "b", "c")),
    "keywords with spaces, new": (with_headers("Keywords: big box,saw"), "keywords", ("big box", "saw")),
    "requires of 1.1": (with_headers("Requires: zlib (>1.0)", version="1.1"), "requires", ("zlib (>1.0)",)),
    "harmless MIME": (
        with_headers("Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit"),
        "summary",
        None,
    ),
    "an unknown header": (with_headers("X-Tool: 1"), "summary", None),
    "a License-File before its time": (with_headers("License-File: L"), "license_files", ("L",)),
    "a direct reference": (
        with_headers("Requires-Dist: a @ https://a/b.whl"),
        "requires_dist",
        ("a @ https://a/b.whl",),
    ),
    "parentheses": (with_headers("Requires-Dist: a (>=1,<2)"), "requires_dist", ("a (>=1,<2)",)),
    "nested markers": (
        with_headers("Requires-Dist: a; ((os_name=='x' or (os_name=='y')))"),
        "requires_dist",
        ("a; ((os_name=='x' or (os_name=='y')))",),
    ),
    "arbitrary equality": (with_headers("Requires-Python: ===3.9"), "requires_python", "===3.9"),
    "a pre-release bound": (with_headers("Requires-Python: >=3.9.0a1,<4"), "requires_python", ">=3.9.0a1,<4"),
    "a lower-case charset": (
        with_headers("Description-Content-Type: text/markdown; charset=utf-8"),
        "description_content_type",
        "text/markdown; charset=utf-8",
    ),
    "a quoted charset": (
        with_headers('Description-Content-Type: text/x-rst; charset="UTF-8"'),
        "description_content_type",
        'text/x-rst; charset="UTF-8"',
    ),
    "CommonMark": (
        with_headers("Description-Content-Type: text/markdown;variant=CommonMark;"),
        "description_content_type",
        "text/markdown;variant=CommonMark;",
    ),
    "a content type UNKNOWN": (
        with_headers("Description-Content-Type: UNKNOWN"),
        "description_content_type",
        None,
    ),
    "a classifier nobody knows": (with_headers("Classifier: Foo :: Bar"), "classifiers", ("Foo :: Bar",)),
    "no URL in Project-URL": (with_headers("Project-URL: Docs"), "project_urls", (("Docs", ""),)),
    "an extra in capitals": (with_headers("Provides-Extra: Web_UI"), "provides_extra", ("Web_UI",)),
    "an invalid licence": (with_headers("License-Expression: Mine"), "license_expression", "Mine"),
    "a licence file outside": (with_headers("License-File: ../L"), "license_files", ("../L",)),
    "a dynamic Name": (with_headers("Dynamic: Name"), "dynamic", ("name",)),
    "both licences": (with_headers("License: MIT", "License-Expression: MIT"), "license", "MIT"),
    "a long summary": (with_headers("Summary: " + "x" * 600), "summary", "x" * 600),
    "an invalid import name": (with_headers("Import-Name: not-a-name"), "import_names", ("not-a-name",)),
    "an unfolded licence": (with_headers("License: MIT", "Copyright Ada", "and others", ""), "license", "MIT"),
}


@pytest.mark.parametrize(("data", "field", "value"), ODD.values(), ids=ODD.keys())
def test_odd_metadata_are_accepted(data, field, value):
    metadata, findings = read(data)

    assert findings.reasons == []
    assert getattr(metadata, field) == value


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        (("License: MIT", "License-Expression: MIT"), "both"),
        (("License-Expression: Mine",), "License-Expression"),
        (("License-Expression: " + "(" * 100,), "License-Expression"),
        (("Summary: a", "  b"), "Summary"),
        (("Summary: " + "x" * 513,), "Summary"),
        (("Provides-Extra: ?",), "Provides-Extra"),
        (("Dynamic: Version",), "Dynamic"),
        (("Project-URL: https://example.org",), "Project-URL"),
        (("X-Tool: 1",), "'x-tool'"),
        (("License: MIT", "Copyright Ada"), "not a header"),
        (("Description: x", "", "y"), "twice"),
    ],
)
def test_odd_fields_bring_a_warning(headers, words):
    _, findings = read(with_headers(*headers))

    assert findings.reasons == []
    assert any(words in warning for warning in findings.warnings)


REFUSED = {
    "empty": ("", "no Metadata-Version"),
    "nothing but a body": ("\nhello", "no Name"),
    "no name": ("Metadata-Version: 2.1\nVersion: 1.0\n", "no Name"),
    "no version": ("Metadata-Version: 2.1\nName: a\n", "no Version"),
    "a name UNKNOWN": ("Metadata-Version: 2.1\nName: UNKNOWN\nVersion: 1\n", "no Name"),
    "an invalid name": ("Metadata-Version: 2.1\nName: -a\nVersion: 1\n", "invalid Name"),
    "a name over two lines": ("Metadata-Version: 2.1\nName: a\n b\nVersion: 1\n", "invalid Name"),
    "a look-alike name": ("Metadata-Version: 2.1\nName: t\u043eolbox\nVersion: 1\n", "invalid Name"),
    "an invalid version": ("Metadata-Version: 2.1\nName: a\nVersion: one\n", "invalid Version"),
    "an absurd version": (f"Metadata-Version: 2.1\nName: a\nVersion: {'1' * 5000}\n", "invalid Version"),
    "two names": (with_headers("Name: other"), "Name 2 times"),
    "two names, in other case": (with_headers("NAME: other"), "Name 2 times"),
    "the same name twice": (with_headers("Name: toolbox"), "Name 2 times"),
    "two versions": (with_headers("Version: 2.0"), "Version 2 times"),
    "two metadata versions": (with_headers("Metadata-Version: 2.2"), "Metadata-Version 2 times"),
    "two summaries": (with_headers("Summary: a", "Summary: b"), "Summary 2 times"),
    "two Requires-Python": (with_headers("Requires-Python: >3", "Requires-Python: >2"), "Requires-Python 2 times"),
    "two descriptions": (with_headers("Description: a", "Description: b"), "Description 2 times"),
    "three keywords": (with_headers(*["Keywords: a"] * 3), "Keywords 3 times"),
    "an invalid Requires-Python": (with_headers("Requires-Python: 3.9"), "Requires-Python '3.9'"),
    "a Requires-Python over lines": (with_headers("Requires-Python: >=3", " ;x"), "Requires-Python"),
    "an old star": (with_headers("Requires-Python: >=3.6.*"), "Requires-Python"),
    "an absurd Requires-Python": (with_headers("Requires-Python: >=" + "1" * 5000), "Requires-Python"),
    "a long Requires-Python": (with_headers("Requires-Python: " + ">=1," * 9000), "Requires-Python"),
    "an invalid requirement": (with_headers("Requires-Dist: pytz (>dev)"), "Requires-Dist"),
    "an empty requirement": (with_headers("Requires-Dist: ;"), "Requires-Dist"),
    "a requirement over lines": (with_headers("Requires-Dist: a", " ; b"), "Requires-Dist"),
    "an injected requirement": (with_headers("Requires-Dist: a", "\tRequires-Dist: b"), "Requires-Dist"),
    "an unknown marker": (with_headers("Requires-Dist: a; color=='red'"), "Requires-Dist"),
    "a deep marker": (with_headers(f"Requires-Dist: a; {'(' * 5000}os_name=='x'{')' * 5000}"), "Requires-Dist"),
    "an absurd number in a requirement": (with_headers("Requires-Dist: a>=" + "1" * 5000), "Requires-Dist"),
    "a long requirement": (with_headers("Requires-Dist: a; " + "os_name=='x' or " * 5000), "Requires-Dist"),
    "a content type nobody renders": (with_headers("Description-Content-Type: text/html"), "Content-Type"),
    "no content type": (with_headers("Description-Content-Type: markdown"), "Content-Type"),
    "another charset": (with_headers("Description-Content-Type: text/plain; charset=latin-1"), "Content-Type"),
    "another variant": (with_headers("Description-Content-Type: text/markdown; variant=Mine"), "Content-Type"),
    "a malformed content type": (with_headers("Description-Content-Type: text/plain; x*"), "Content-Type"),
    "a content type with comments": (
        with_headers("Description-Content-Type: text/plain " + "(" * 99),
        "Content-Type",
    ),
    "a long content type": (with_headers("Description-Content-Type: text/plain" + ";a=b" * 99), "Content-Type"),
    "a lone carriage return": (with_headers("Summary: a\rRequires-Dist: b"), "carriage return"),
    "doubled carriage returns": (with_headers("Summary: a\r\r", "Author: b"), "carriage return"),
    "another message inside": (with_headers("Content-Type: message/rfc822"), "Content-Type"),
    "several parts": (with_headers("Content-Type: multipart/mixed; boundary=x"), "Content-Type"),
    "a description in base64": (with_headers("Content-Transfer-Encoding: base64"), "Content-Transfer-Encoding"),
    "NUL": (with_headers("Summary: a\0b"), "control character"),
    "an escape sequence": (with_headers("Author: \x1b[31m"), "control character"),
    "a vertical tab": (with_headers("Summary: a\x0bName: b"), "control character"),
    "a control character in an unknown header": (with_headers("X-Tool: \1"), "control character"),
    "a stray line that hides a name": (with_headers("hello", "Name: b"), "hides"),
    "a stray line that hides a requirement": (with_headers("hello", "Requires-Dist: b"), "hides"),
    "a space before the colon": (with_headers("Requires-Dist : b"), "hides"),
    "a byte order mark": ("\ufeff" + with_headers(), "hides"),
    "a mailbox line": ("From a: b\n" + with_headers(), "hides"),
}


@pytest.mark.parametrize(("data", "words"), REFUSED.values(), ids=REFUSED.keys())
def test_metadata_that_installers_would_misunderstand_are_refused(data, words):
    _, findings = read(data)

    assert any(words in reason for reason in findings.reasons)
    assert all(reason.isascii() and reason.isprintable() and len(reason) < 400 for reason in findings.reasons)


@pytest.mark.parametrize("tail", [b"\xff", b"\xc3", b"\xed\xa0\x80", b"\nna\xefve", b"\xc0\x80"])
def test_metadata_that_are_not_utf8_are_refused(tail):
    metadata, findings = read(make_metadata() + tail)

    assert metadata is None
    assert "UTF-8" in findings.reasons[0]


def test_every_fault_is_named():
    _, findings = read(
        with_headers(
            "Requires-Dist: ?", "Requires-Dist: !", "Requires-Python: x", "Summary: a", "Summary: b", version="9"
        )
    )

    assert len(findings.reasons) == 5


def test_metadata_over_the_limits_are_refused():
    limits = Limits(max_metadata_size=1000, max_metadata_headers=10)

    assert "1,000 bytes" in read(make_metadata(description="x" * 1000), limits)[1].reasons[0]
    assert "10 headers" in read(with_headers(*["Classifier: x"] * 8), limits)[1].reasons[0]
    assert "10 headers" in read(with_headers("Summary: x", *[" y"] * 100), limits)[1].reasons[0]
    assert read(with_headers(*["Classifier: x"] * 7), limits)[1].reasons == []


SLOW = {
    "many headers": with_headers(*(f"Classifier: {number}" for number in range(19_990))),
    "many unknown headers": with_headers(*(f"X-{number}: 1" for number in range(19_990))),
    "many requirements": with_headers(*(f"Requires-Dist: p{number}" for number in range(19_990))),
    "one long requirement": with_headers("Requires-Dist: a" + " " * 3_000_000 + "b"),
    "a long run of spaces": with_headers("Summary: a" + " " * 3_000_000 + "b", " c"),
    "many folded lines": with_headers("Description: a", *[" b"] * 190_000),
    "many stray lines": with_headers("stray", *["x"] * 500_000),
    "a long dotted name": with_headers("Import-Name: " + "a." * 1_000_000),
}


@pytest.mark.parametrize("data", SLOW.values(), ids=SLOW.keys())
def test_large_metadata_are_read_in_time_that_grows_with_their_size(data):
    start = time.process_time()

    read(data)

    assert time.process_time() - start < 4


@pytest.mark.parametrize("data", [data for data, *_ in ODD.values()], ids=ODD.keys())
def test_headers_and_body_are_those_that_installers_see(data):
    reference = Parser().parsestr(data)
    raw, _ = parse_email(data)

    metadata, _ = read(data)

    assert metadata.name == raw["name"] == reference["Name"]
    assert metadata.requires_dist == tuple(raw.get("requires_dist", ()))
    assert metadata.classifiers == tuple(raw.get("classifiers", ()))
    if metadata.description and not reference["Description"]:
        assert metadata.description == reference.get_payload()
