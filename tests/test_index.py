"""The simple index as clients negotiate it: JSON and HTML, conditional, compressed, the same for every parser."""

from __future__ import annotations

import gzip
import hashlib
import html
import json
import re
import subprocess
import sys
import warnings
import zlib
from collections import OrderedDict
from dataclasses import replace
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin

import mousebender.simple
import pypi_simple
import pytest
from jsonschema import Draft202012Validator

from storage.repository import Repository
from storage.sidecars import File
from storage.simple import ProjectDetail
from storage.statuses import ProjectStatus, Status
from tests.conftest import ORG, REPO, TESTER, add_to, basic
from tests.storage.makers import make_sdist, make_wheel
from web import index_pages
from web.index_pages import project_html, project_json, project_list_html, project_list_json

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

SIMPLE = f"/{ORG}/{REPO}/pypi/simple/"
FILES = f"/{ORG}/{REPO}/pypi/files/"
PAGE = f"{SIMPLE}toolbox/"
JSON = "application/vnd.pypi.simple.v1+json"
HTML = "application/vnd.pypi.simple.v1+html"
TEXT_HTML = "text/html; charset=utf-8"
PIP = f"{JSON}, {HTML}; q=0.1, text/html; q=0.01"
SCHEMAS = {
    name: Draft202012Validator(json.loads((Path(__file__).parent / "schemas" / f"{name}.json").read_text()))
    for name in ("project-list", "project-detail")
}
# Everything that a specifier may look like, and a reason may be, that HTML would take for something else.
HOSTILE = "</a><script>alert(\"1\")</script> & '%0A' &lt; \N{SNOWMAN} {{ 7 * 7 }} -->"


@pytest.fixture
def get(client, tokens):
    """GET a path with the read token."""
    return lambda path, **headers: client.get(path, headers={**basic(tokens.read), **headers}, buffered=True)


@pytest.fixture
def document(get):
    """The JSON page at a path, which fits its schema."""

    def document(path: str = PAGE):
        page = get(path, Accept=JSON)
        assert page.status_code == 200
        assert page.content_type == JSON
        SCHEMAS["project-list" if path == SIMPLE else "project-detail"].validate(page.json)
        return page.json

    return document


@pytest.fixture
def filled(repository: Repository) -> Repository:
    """A repository with one of everything."""
    add_to(repository, *make_wheel(version="1.10", requires_python=">=3.8,<4"))
    add_to(repository, *make_sdist(version="1.9"))
    add_to(repository, *make_wheel(version="1.9", requires=["six; python_version < '4'"]))
    add_to(repository, *make_sdist(version="1.0", metadata_version="2.1"))
    add_to(repository, *make_wheel(version="2!1.0+local.7"))
    add_to(repository, *make_wheel("other", "3.0"))
    repository.yank_file("toolbox", "toolbox-1.9.tar.gz", HOSTILE, TESTER)
    repository.yank_file("toolbox", "toolbox-1.9-py3-none-any.whl", "", TESTER)
    return repository


class Page(HTMLParser):
    """An HTML page of the index: its meta tags, and its anchors with their texts."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.meta: dict[str | None, str | None] = {}
        self.anchors: dict[str, dict[str, str | None]] = {}
        self.tags: list[str] = []
        self._anchor: dict[str, str | None] | None = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag == "meta":
            self.meta[dict(attrs).get("name")] = dict(attrs).get("content")
        self._anchor = dict(attrs) if tag == "a" else None

    def handle_data(self, data):
        if self._anchor is not None:
            self.anchors[data] = self._anchor

    def handle_endtag(self, tag):
        self._anchor = None


# --- JSON ---


def test_the_list_of_projects_is_there_in_json(document, filled):
    assert document(SIMPLE) == {
        "meta": {"api-version": "1.4"},
        "projects": [{"name": "other"}, {"name": "toolbox"}],
    }


def test_the_list_of_an_empty_repository_fits_the_schema_too(document, repository):
    assert document(SIMPLE)["projects"] == []


def test_a_file_in_json_has_all_that_the_standards_know(document, add):
    filename, content = make_wheel(requires_python=">=3.8,<4")
    sidecar = add(filename, content).sidecar
    core_metadata = {"sha256": sidecar.file.core_metadata_sha256}

    page = document()

    upload_time = page["files"][0].pop("upload-time")
    assert page == {
        "meta": {"api-version": "1.4"},
        "name": "toolbox",
        "project-status": {"status": "active"},
        "versions": ["1.0"],
        "files": [
            {
                "filename": filename,
                "url": f"../../files/toolbox/{filename}",
                "hashes": {"sha256": hashlib.sha256(content).hexdigest()},
                "requires-python": ">=3.8,<4",
                "core-metadata": core_metadata,
                "dist-info-metadata": core_metadata,
                "yanked": False,
                "size": len(content),
            }
        ],
    }
    assert upload_time == sidecar.file.upload_time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_versions_and_files_come_in_the_order_of_pep_440_and_then_by_name(document, filled):
    page = document()

    assert page["versions"] == ["1.0", "1.9", "1.10", "2!1.0+local.7"]
    assert [file["filename"] for file in page["files"][:4]] == [
        "toolbox-1.0.tar.gz",
        "toolbox-1.9-py3-none-any.whl",
        "toolbox-1.9.tar.gz",
        "toolbox-1.10-py3-none-any.whl",
    ]


def test_every_url_resolves_to_the_listed_bytes_and_its_metadata_to_theirs(get, document, filled):
    files = document()["files"]

    for file in files:
        url = urljoin(PAGE, file["url"])
        content = get(url).data
        assert hashlib.sha256(content).hexdigest() == file["hashes"]["sha256"]
        assert len(content) == file["size"]
        metadata = get(f"{url}.metadata")
        if file["core-metadata"]:
            assert hashlib.sha256(metadata.data).hexdigest() == file["core-metadata"]["sha256"]
        else:
            assert metadata.status_code == 404
    assert [f["filename"] for f in files if not f["core-metadata"]] == ["toolbox-1.0.tar.gz"]


def test_yanked_is_true_or_the_reason(document, filled):
    yanked = {file["filename"]: file["yanked"] for file in document()["files"]}

    assert yanked["toolbox-1.9.tar.gz"] == HOSTILE
    assert yanked["toolbox-1.9-py3-none-any.whl"] is True
    assert yanked["toolbox-1.10-py3-none-any.whl"] is False


def test_the_same_repository_gives_the_same_bytes_in_another_process(client, get, filled, registry, app, tokens):
    pages = [get(PAGE, Accept=accept, **{"Accept-Encoding": "gzip"}) for accept in (JSON, HTML)]

    app.config["REGISTRY"] = type(registry)(registry.tree.root)
    again = [get(PAGE, Accept=accept, **{"Accept-Encoding": "gzip"}) for accept in (JSON, HTML)]

    assert [page.data for page in again] == [page.data for page in pages]
    assert [page.headers["ETag"] for page in again] == [page.headers["ETag"] for page in pages]


# --- status ---


@pytest.mark.parametrize("status", [Status.ARCHIVED, Status.DEPRECATED])
def test_an_archived_or_deprecated_project_lists_its_files_and_says_so(get, document, filled, status):
    before = document()["files"]
    filled.change_status("toolbox", ProjectStatus(status, HOSTILE), TESTER)

    page = document()
    meta = Page(get(PAGE).text).meta

    assert page["project-status"] == {"status": status, "reason": HOSTILE}
    assert page["files"] == before
    assert meta["pypi:project-status"] == status
    assert meta["pypi:project-status-reason"] == HOSTILE


def test_a_quarantined_project_lists_no_files_and_serves_none(get, document, filled):
    filled.change_status("toolbox", ProjectStatus(Status.QUARANTINED, "malware?"), TESTER)
    filename = "toolbox-1.10-py3-none-any.whl"

    page = document()

    assert page["project-status"] == {"status": "quarantined", "reason": "malware?"}
    assert page["files"] == []
    assert page["versions"] == []
    assert Page(get(PAGE).text).anchors == {}
    assert get(f"{FILES}toolbox/{filename}").status_code == 404
    assert get(f"{FILES}toolbox/{filename}.metadata").status_code == 404
    assert get(f"/{ORG}/{REPO}/packages/python/{filename}/download").status_code == 404
    assert {"name": "toolbox"} in document(SIMPLE)["projects"]


def test_a_project_that_is_active_again_lists_its_files_again(document, filled):
    before = document()
    filled.change_status("toolbox", ProjectStatus(Status.QUARANTINED), TESTER)
    filled.change_status("toolbox", ProjectStatus(Status.ACTIVE), TESTER)

    assert document() == before


# --- HTML ---


def test_html_says_of_each_file_what_json_says(get, document, filled):
    anchors = Page(get(PAGE).text).anchors

    files = document()["files"]
    assert list(anchors) == [file["filename"] for file in files]
    for file in files:
        anchor = anchors[file["filename"]]
        core_metadata = f"sha256={file['core-metadata']['sha256']}" if file["core-metadata"] else None
        yanked = "" if file["yanked"] is True else file["yanked"] or None
        expected = {
            "href": f"{file['url']}#sha256={file['hashes']['sha256']}",
            "data-requires-python": file.get("requires-python"),
            "data-core-metadata": core_metadata,
            "data-dist-info-metadata": core_metadata,
            "data-yanked": yanked,
            "data-size": str(file["size"]),
            "data-upload-time": file["upload-time"],
        }
        assert anchor == {key: value for key, value in expected.items() if value is not None}
        assert unquote(file["url"].rpartition("/")[2]) == file["filename"]


def test_hostile_text_opens_no_tag_and_leaves_no_attribute(get, filled):
    filled.change_status("toolbox", ProjectStatus(Status.DEPRECATED, HOSTILE), TESTER)

    page = Page(get(PAGE).text)

    assert set(page.tags) == {"html", "head", "meta", "title", "body", "h1", "a", "br"}
    assert page.anchors["toolbox-1.9.tar.gz"]["data-yanked"] == HOSTILE
    assert page.meta["pypi:project-status-reason"] == HOSTILE


def test_a_specifier_with_every_operator_arrives_unchanged(get, document, add):
    specifier = ">=3.8,<4,!=3.9.*,~=3.7,===3.11"
    add(*make_wheel(requires_python=specifier))

    listed = document()["files"][0]["requires-python"]
    [anchor] = Page(get(PAGE).text).anchors.values()

    assert listed == anchor["data-requires-python"]
    assert set(listed.replace(" ", "").split(",")) == set(specifier.split(","))


def test_a_sidecar_with_hostile_text_breaks_no_page(get, document, filled):
    filename = "toolbox-1.10-py3-none-any.whl"
    sidecar = filled.tree.sidecar("toolbox", filename)
    changed = {**json.loads(sidecar.read_text()), "requires_python": HOSTILE, "yanked_reason": f"{HOSTILE}\n\x00\t"}
    sidecar.write_text(json.dumps(changed))

    files = {file["filename"]: file for file in document()["files"]}
    page = Page(get(PAGE).text)

    assert files[filename]["requires-python"] == HOSTILE
    assert page.anchors[filename]["data-requires-python"] == HOSTILE
    assert set(page.tags) == {"html", "head", "meta", "title", "body", "h1", "a", "br"}


@pytest.mark.parametrize("key", ["requires_python", "yanked_reason"])
def test_half_a_surrogate_pair_in_a_sidecar_hides_that_file_alone(get, document, filled, key):
    filename = "toolbox-1.10-py3-none-any.whl"
    sidecar = filled.tree.sidecar("toolbox", filename)
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), key: "\ud800"}))

    files = [file["filename"] for file in document()["files"]]

    assert filename not in files
    assert list(Page(get(PAGE).text).anchors) == files
    assert len(files) == 4


def test_half_a_surrogate_pair_in_the_reason_of_a_status_opens_nothing(get, document, filled):
    filled.tree.status_file("toolbox").write_text(json.dumps({"status": "quarantined", "reason": "a\ud800"}))

    assert document()["project-status"] == {"status": "quarantined", "reason": "a?"}
    assert Page(get(PAGE).text).meta["pypi:project-status-reason"] == "a?"


# --- strict parsers ---


def strictly_parsed(get, path: str):
    """Return what mousebender and pypi-simple read of a page in both forms; a warning is an error."""
    parsed = []
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # mousebender's parser knows the minor versions up to 1.1; PEP 629 has it warn of later ones and read on.
        warnings.simplefilter("ignore", mousebender.simple.APIVersionWarning)
        for accept in (JSON, HTML, "text/html"):
            page = get(path, Accept=accept)
            content_type = page.content_type
            if path == SIMPLE:
                read = mousebender.simple.parse_project_index(page.text, content_type)
                names = {project["name"] for project in read["projects"]}
                simple = (
                    pypi_simple.IndexPage.from_json_data(page.json)
                    if accept == JSON
                    else pypi_simple.IndexPage.from_html(page.text)
                )
                parsed += [names, set(simple.projects)]
                assert simple.repository_version == "1.4"
            else:
                details = mousebender.simple.parse_project_details(page.text, content_type, "toolbox")
                files = {file["filename"]: file["hashes"]["sha256"] for file in details["files"]}
                url = f"http://localhost{path}"
                simple = (
                    pypi_simple.ProjectPage.from_json_data(page.json, url)
                    if accept == JSON
                    else pypi_simple.ProjectPage.from_html("toolbox", page.text, url)
                )
                parsed += [files, {package.filename: package.digests["sha256"] for package in simple.packages}]
                for package in simple.packages:
                    assert package.url.startswith(f"http://localhost{FILES}toolbox/")
                    assert package.project == "toolbox"
                    assert package.version is not None
                assert simple.repository_version == "1.4"
    return parsed


def test_strict_parsers_read_the_same_in_every_form(get, document, filled):
    files = {file["filename"]: file["hashes"]["sha256"] for file in document()["files"]}

    assert strictly_parsed(get, PAGE) == [files] * 6
    assert strictly_parsed(get, SIMPLE) == [{"other", "toolbox"}] * 6


@pytest.mark.parametrize("status", list(Status))
def test_strict_parsers_read_every_status(get, filled, status):
    filled.change_status("toolbox", ProjectStatus(status, HOSTILE), TESTER)

    parsed = strictly_parsed(get, PAGE)

    assert all(files == parsed[0] for files in parsed)
    assert bool(parsed[0]) == (status is not Status.QUARANTINED)


# --- negotiation ---


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        (None, TEXT_HTML),
        ("", TEXT_HTML),
        ("*/*", TEXT_HTML),
        ("*", TEXT_HTML),
        ("text/*", TEXT_HTML),
        ("text/html", TEXT_HTML),
        ("TEXT/HTML", TEXT_HTML),
        ("text/html; charset=utf-8", TEXT_HTML),
        (JSON, JSON),
        (JSON.upper(), JSON),
        (f"{JSON}; charset=utf-8", JSON),
        (HTML, HTML),
        (PIP, JSON),
        ("application/*", HTML),
        ("application/vnd.pypi.simple.latest+json", JSON),
        ("application/vnd.pypi.simple.latest+html", HTML),
        ("Application/Vnd.PyPI.Simple.Latest+JSON", JSON),
        (f"{JSON};q=0.5, {HTML};q=0.6", HTML),
        (f"{JSON};q=0.5, {HTML};q=0.5", HTML),
        (f"{JSON};q=0.5, text/html;q=0.5", TEXT_HTML),
        (f"{JSON}, */*;q=0.1", JSON),
        (f"text/html;q=0, {JSON};q=0.001", JSON),
        ("*/*, text/html;q=0", HTML),
        (f"*/*, text/html;q=0, {HTML};q=0", JSON),
        (f"*/*;q=0.9, text/html;q=0.1, {HTML};q=0.2", JSON),
        (f"application/vnd.pypi.simple.v2+json, {JSON};q=0.9", JSON),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", TEXT_HTML),
        ("application/json;q=0.9, */*;q=0.1", TEXT_HTML),
        ("complete nonsense", TEXT_HTML),
        (",;=,", TEXT_HTML),
    ],
)
def test_the_form_of_a_page_is_negotiated(get, filled, accept, content_type):
    headers = {} if accept is None else {"Accept": accept}

    for path in (SIMPLE, PAGE):
        page = get(path, **headers)
        assert page.status_code == 200
        assert page.content_type == content_type
        assert {"Accept", "Accept-Encoding", "Authorization"} <= set(page.vary)


@pytest.mark.parametrize(
    "accept",
    [
        "application/json",
        "application/xml",
        "image/*",
        "*/*;q=0",
        f"{JSON};q=0",
        "application/vnd.pypi.simple.v2+json",
        f"text/html;q=0, {JSON};q=0.0, {HTML};q=0",
    ],
)
def test_what_cannot_be_had_is_406_with_the_three_types_named(get, filled, accept):
    for path in (SIMPLE, PAGE):
        page = get(path, Accept=accept)
        assert page.status_code == 406
        assert page.content_type == "text/plain; charset=utf-8"
        assert all(name in page.text for name in ("text/html", HTML, JSON))
        assert {"Accept", "Accept-Encoding"} <= set(page.vary)


@pytest.mark.parametrize(
    ("query", "content_type"),
    [
        ("application/vnd.pypi.simple.v1%2Bjson", JSON),
        ("application/vnd.pypi.simple.v1+json", JSON),  # as a person types it
        ("application/vnd.pypi.simple.latest%2Bjson", JSON),
        ("application/vnd.pypi.simple.v1%2Bhtml", HTML),
        ("text/html", TEXT_HTML),
        ("", JSON),
    ],
)
def test_the_format_in_the_query_beats_the_accept_header(get, filled, query, content_type):
    page = get(f"{PAGE}?format={query}", Accept=JSON if query in ("", "text/html") else "text/html")

    assert page.status_code == 200
    assert page.content_type == content_type


def test_an_unknown_format_in_the_query_is_406(get, filled):
    assert get(f"{PAGE}?format=application/xml", Accept=JSON).status_code == 406
    assert get(f"{PAGE}?format=xml", Accept=JSON).status_code == 406


def test_files_are_never_406(get, filled):
    answer = get(f"{FILES}toolbox/toolbox-1.9.tar.gz", Accept="application/xml")

    assert answer.status_code == 200


def test_a_public_repository_does_not_vary_by_credential(client, filled):
    filled.change_settings({"private": False})

    page = client.get(PAGE, buffered=True)

    assert set(page.vary) == {"Accept", "Accept-Encoding"}
    assert page.headers["Cache-Control"] == "no-cache"


# --- conditional requests ---

VARIANTS = [
    {"Accept": accept, "Accept-Encoding": coding}
    for accept in ("text/html", HTML, JSON)
    for coding in ("identity", "gzip", "zstd")
]


def test_every_form_and_coding_has_a_strong_etag_of_its_own(get, filled):
    for path in (SIMPLE, PAGE):
        etags = {get(path, **variant).headers["ETag"] for variant in VARIANTS}
        expected = 9 if path == PAGE else 3  # the short list is not compressed
        assert len(etags) == expected
        assert all(re.fullmatch(r'"[^"]+"', etag) for etag in etags)


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda v: f"{v['Accept']} {v['Accept-Encoding']}")
def test_a_known_page_is_304_with_the_headers_of_the_page_and_no_body(get, filled, variant):
    page = get(PAGE, **variant)
    etag = page.headers["ETag"]

    for known in (etag, f"W/{etag}", "*", f'"other", {etag}', f'W/"x", W/{etag}, "y"'):
        answer = get(PAGE, **variant, **{"If-None-Match": known})
        assert answer.status_code == 304
        assert answer.data == b""
        assert "Content-Length" not in answer.headers
        for name in ("ETag", "Vary", "Cache-Control"):
            assert answer.headers[name] == page.headers[name]


@pytest.mark.parametrize("known", ['"other"', 'W/"other"', '"a", "b"', "", "nonsense"])
def test_another_etag_brings_the_page(get, filled, known):
    assert get(PAGE, **{"If-None-Match": known}).status_code == 200


def test_the_etag_of_another_form_brings_the_page(get, filled):
    etag = get(PAGE, Accept=JSON).headers["ETag"]

    assert get(PAGE, Accept=HTML, **{"If-None-Match": etag}).status_code == 200


def test_every_change_of_a_project_changes_its_etag(get, filled):
    filename = "toolbox-1.10-py3-none-any.whl"
    etags = [get(PAGE, Accept=JSON).headers["ETag"]]
    for change in (
        lambda: add_to(filled, *make_sdist(version="4.0")),
        lambda: filled.yank_file("toolbox", filename, "a", TESTER),
        lambda: filled.yank_file("toolbox", filename, "b", TESTER),
        lambda: filled.change_status("toolbox", ProjectStatus(Status.ARCHIVED), TESTER),
        lambda: filled.change_status("toolbox", ProjectStatus(Status.ARCHIVED, "old"), TESTER),
        lambda: filled.delete_file("toolbox", filename, TESTER),
    ):
        change()
        etags.append(get(PAGE, Accept=JSON).headers["ETag"])

    assert len(set(etags)) == 7


def test_a_page_and_a_304_of_a_private_repository_are_kept_by_nobody_else(get, filled):
    assert get(PAGE).headers["Cache-Control"] == "private, no-cache"
    assert get(PAGE, **{"If-None-Match": "*"}).headers["Cache-Control"] == "private, no-cache"


def test_a_missing_project_is_not_remembered_by_caches(get, filled):
    answer = get(f"{SIMPLE}nothing/", **{"If-None-Match": "*"})

    assert answer.status_code == 404
    assert answer.headers["Cache-Control"] == "no-store"


# --- compression ---


@pytest.mark.parametrize("accept", ["text/html", HTML, JSON])
def test_gzip_and_zstd_hold_the_same_text(get, filled, accept):
    plain = get(PAGE, Accept=accept)
    zipped = get(PAGE, Accept=accept, **{"Accept-Encoding": "gzip, deflate"})
    squeezed = get(PAGE, Accept=accept, **{"Accept-Encoding": "gzip, deflate, zstd"})

    assert "Content-Encoding" not in plain.headers
    assert zipped.headers["Content-Encoding"] == "gzip"
    assert squeezed.headers["Content-Encoding"] == "zstd"
    assert gzip.decompress(zipped.data) == zstd.decompress(squeezed.data) == plain.data
    assert zipped.content_type == squeezed.content_type == plain.content_type
    for page in (plain, zipped, squeezed):
        assert int(page.headers["Content-Length"]) == len(page.data)


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br, deflate", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("gzip;q=0", None),
        ("gzip;q=0.5, zstd;q=0.4", "gzip"),
        ("zstd;q=0, gzip", "gzip"),
        ("gzip;q=0.5, identity", None),
        ("gzip, identity;q=0.5", "gzip"),
        ("identity;q=0.5, *;q=0", None),
        ("*", "gzip"),  # whoever does not name zstd may never have heard of it
        ("*;q=0.1, zstd;q=0", "gzip"),
    ],
)
def test_a_page_is_compressed_as_the_client_asks(get, filled, accepted, coding):
    headers = {} if accepted is None else {"Accept-Encoding": accepted}

    assert get(PAGE, **headers).headers.get("Content-Encoding") == coding


def test_files_and_metadata_are_never_compressed(get, filled):
    for suffix in ("", ".metadata"):
        answer = get(f"{FILES}toolbox/toolbox-1.9-py3-none-any.whl{suffix}", **{"Accept-Encoding": "gzip, zstd"})
        assert answer.status_code == 200
        assert "Content-Encoding" not in answer.headers


# --- HEAD ---


@pytest.mark.parametrize("coding", ["identity", "gzip"])
@pytest.mark.parametrize(
    "path",
    [
        SIMPLE,
        PAGE,
        f"{PAGE}?format={JSON.replace('+', '%2B')}",
        f"{SIMPLE}nothing/",
        f"{SIMPLE}Tool_Box/",
        f"/{ORG}/{REPO}/pypi/legacy/+simple/toolbox/",
        f"{FILES}toolbox/toolbox-1.9-py3-none-any.whl",
        f"{FILES}toolbox/toolbox-1.9-py3-none-any.whl.metadata",
        f"{FILES}toolbox/nothing-1.0.tar.gz",
        f"/{ORG}/{REPO}/packages/python/toolbox-1.9.tar.gz/download",
    ],
)
def test_head_answers_with_the_headers_of_get(client, tokens, filled, path, coding):
    headers = {**basic(tokens.read), "Accept-Encoding": coding}
    whole = client.get(path, headers=headers, buffered=True)

    head = client.head(path, headers=headers, buffered=True)

    assert head.status_code == whole.status_code
    at_any_time = [[field for field in answer.headers if field[0] != "Date"] for answer in (head, whole)]
    assert sorted(at_any_time[0]) == sorted(at_any_time[1])
    assert head.data == b""
    assert int(whole.headers["Content-Length"]) == len(whole.data)


def test_a_file_is_304_to_who_knows_it_and_says_when_it_came(get, filled):
    path = f"{FILES}toolbox/toolbox-1.9-py3-none-any.whl"
    etag = get(path).headers["ETag"]

    for known in (etag, f"W/{etag}", "*", f'"x", {etag}'):
        assert get(path, **{"If-None-Match": known}).status_code == 304
    modified = get(path).headers["Last-Modified"]
    assert get(path, **{"If-Modified-Since": modified}).status_code == 304
    assert get(path, Range="bytes=0-9", **{"If-Range": etag}).status_code == 206
    assert get(path, Range="bytes=0-9", **{"If-Range": '"other"'}).status_code == 200


def test_metadata_can_be_asked_for_by_range(get, filled):
    path = f"{FILES}toolbox/toolbox-1.9-py3-none-any.whl.metadata"
    content = get(path).data

    answer = get(path, Range="bytes=5-9")

    assert answer.status_code == 206
    assert answer.data == content[5:10]
    assert answer.headers["Content-Range"] == f"bytes 5-9/{len(content)}"


# --- hatch's page, redirects ---


def test_hatch_finds_the_page_in_html_below_the_upload_address(get, filled):
    for address in ("+simple", "%2Bsimple"):
        url = f"/{ORG}/{REPO}/pypi/legacy/{address}/toolbox/"
        page = get(url, Accept="*/*")
        assert page.content_type == TEXT_HTML
        for filename, anchor in Page(page.text).anchors.items():
            target = urljoin(url, anchor["href"].partition("#")[0])
            assert target.startswith(f"{FILES}toolbox/")
            assert filename in re.findall(r"<a [^>]*>([^<]+)</a>", page.text)


@pytest.mark.parametrize("host", ["evil.example", "localhost", "localhost:99"])
def test_a_redirect_names_no_host(get, filled, host):
    answer = get(f"{SIMPLE}Tool_Box?format=a%26b", Host=host)

    assert answer.status_code == 301
    assert answer.headers["Location"] == f"{SIMPLE}tool-box/?format=a%26b"
    assert "evil.example" not in html.unescape(answer.text)


def test_a_project_called_python_is_like_any_other(get, document, add):
    filename, content = make_wheel("python", "3.0")
    add(filename, content)

    page = document(f"{SIMPLE}python/")

    assert get(urljoin(f"{SIMPLE}python/", page["files"][0]["url"])).data == content
    assert get(f"/{ORG}/{REPO}/packages/python/{filename}/download").data == content


# --- pages in pieces ---


@pytest.fixture(scope="module")
def long_detail():
    """The detail of a project with so many files that its page is cut into several pieces."""
    files = tuple(
        File(
            filename=f"toolbox-1.{i}.tar.gz",
            project="toolbox",
            version=f"1.{i}",
            packagetype="sdist",
            size=i,
            sha256=hashlib.sha256(str(i).encode()).hexdigest(),
            upload_time=datetime(2026, 11, 24, tzinfo=UTC),
            requires_python=">=3.8",
            core_metadata_sha256=None,
            yanked_reason=None,
        )
        for i in range(500)
    )
    return ProjectDetail("toolbox", files, ProjectStatus())


def html_of(detail):
    return project_html(detail, "../../", "text/html")


@pytest.mark.parametrize("make", [html_of, project_json], ids=["html", "json"])
def test_a_page_in_pieces_is_one_gzip_member_that_every_decoder_reads(tmp_path, long_detail, make):
    page = make(long_detail)
    zipped = page.encode("gzip")
    (tmp_path / "page.gz").write_bytes(zipped)

    unzipped = subprocess.run(["gzip", "-dc", tmp_path / "page.gz"], capture_output=True, check=True).stdout

    decoder = zlib.decompressobj(zlib.MAX_WBITS | 16)
    assert len(page.pieces) > 3
    assert decoder.decompress(zipped) == unzipped == gzip.decompress(zipped) == page.encode("")
    assert decoder.eof
    assert decoder.unused_data == b""
    assert unzipped.count(b"toolbox-1.") >= 500


def test_json_in_pieces_is_what_it_is_in_one(long_detail):
    document = json.loads(project_json(long_detail).encode(""))

    assert [file["filename"] for file in document["files"]] == [file.filename for file in long_detail.files]
    assert document["versions"] == long_detail.versions


@pytest.mark.parametrize("make", [html_of, project_json], ids=["html", "json"])
@pytest.mark.parametrize("gone", [0, 1, 250, 499])
def test_one_file_less_changes_few_pieces(long_detail, make, gone):
    fewer = replace(long_detail, files=long_detail.files[:gone] + long_detail.files[gone + 1 :])

    before, after = make(long_detail), make(fewer)

    # JSON has all versions at its head.
    texts = [{piece.text for piece in page.pieces} for page in (before, after)]
    assert len(texts[0] - texts[1]) <= 3
    assert before.etag("gzip") != after.etag("gzip")


def test_a_page_is_the_same_bytes_whatever_was_compressed_before(monkeypatch, long_detail):
    kept = [html_of(long_detail).encode("gzip") for _ in range(2)]
    monkeypatch.setattr(index_pages, "_kept", OrderedDict())
    monkeypatch.setattr(index_pages, "_kept_text", 0)
    monkeypatch.setattr(index_pages, "KEPT_TEXT", 50_000)

    anew = [html_of(long_detail).encode("gzip") for _ in range(2)]

    assert kept == anew
    assert 0 < sum(len(piece.text) for piece in index_pages._kept.values()) <= 50_000


def test_the_list_of_many_projects_is_cut_too():
    projects = [f"project-{i}" for i in range(1000)]

    as_html, as_json = project_list_html(projects, "text/html"), project_list_json(projects)

    assert len(as_html.pieces) > 3
    assert re.findall(rb'<a href="([^/]*)/">', as_html.encode("")) == [name.encode() for name in projects]
    assert [row["name"] for row in json.loads(as_json.encode(""))["projects"]] == projects
