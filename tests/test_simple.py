"""The simple index in HTML (PEP 503) and the files behind it."""

from __future__ import annotations

import hashlib
import html
import re
from urllib.parse import unquote, urljoin

import pytest

from tests.conftest import ORG, REPO, basic
from tests.storage.makers import make_sdist, make_wheel

SIMPLE = f"/{ORG}/{REPO}/pypi/simple/"


@pytest.fixture
def get(client, tokens):
    """GET a path with the read token."""
    return lambda path, **headers: client.get(path, headers={**basic(tokens.read), **headers}, buffered=True)


def links(page: str) -> dict[str, str]:
    """Return the anchors of a page: text -> href."""
    found = re.findall(r'<a href="([^"]*)"[^>]*>([^<]*)</a>', page)
    return {html.unescape(text): html.unescape(href) for href, text in found}


def test_the_root_lists_every_project_once_by_its_normalized_name(get, add):
    add(*make_wheel("Tool_Box", "1.0"))
    add(*make_wheel("Tool_Box", "2.0"))
    add(*make_wheel("anvil", "1.0"))

    page = get(SIMPLE)

    assert page.status_code == 200
    assert page.content_type == "text/html; charset=utf-8"
    assert links(page.text) == {"anvil": "anvil/", "tool-box": "tool-box/"}
    assert '<meta name="pypi:repository-version" content="1.4">' in page.text


def test_the_root_of_an_empty_repository_is_an_empty_list(get):
    page = get(SIMPLE)

    assert page.status_code == 200
    assert links(page.text) == {}


def test_files_are_listed_by_version_and_then_name(get, add):
    for version in ("1.10", "1.9", "1.0rc1"):
        add(*make_wheel(version=version))
    add(*make_sdist(version="1.9"))

    page = get(f"{SIMPLE}toolbox/")

    assert list(links(page.text)) == [
        "toolbox-1.0rc1-py3-none-any.whl",
        "toolbox-1.9-py3-none-any.whl",
        "toolbox-1.9.tar.gz",
        "toolbox-1.10-py3-none-any.whl",
    ]


@pytest.mark.parametrize("version", ["1.0", "1.0+local.7", "2!1.0"])
def test_a_link_leads_to_the_bytes_with_the_listed_hash(get, add, version):
    filename, content = make_wheel(version=version)
    add(filename, content)
    [(text, href)] = links(get(f"{SIMPLE}toolbox/").text).items()
    url, _, fragment = urljoin(f"{SIMPLE}toolbox/", href).partition("#")

    answer = get(url)

    assert answer.status_code == 200
    assert answer.data == content
    assert fragment == f"sha256={hashlib.sha256(content).hexdigest()}"
    assert unquote(url.rpartition("/")[2]) == text == filename


def test_core_metadata_is_advertised_in_both_spellings_and_served_byte_for_byte(get, add):
    filename, content = make_wheel(requires=["six"])
    sidecar = add(filename, content).sidecar
    page = get(f"{SIMPLE}toolbox/").text

    answer = get(f"/{ORG}/{REPO}/pypi/files/toolbox/{filename}.metadata")

    digest = hashlib.sha256(answer.data).hexdigest()
    assert answer.status_code == 200
    assert b"Requires-Dist: six" in answer.data
    assert digest == sidecar.file.core_metadata_sha256
    assert f'data-core-metadata="sha256={digest}"' in page
    assert f'data-dist-info-metadata="sha256={digest}"' in page


def test_requires_python_is_escaped_for_html(get, add):
    add(*make_wheel(requires_python=">=3.8,<4"))

    page = get(f"{SIMPLE}toolbox/").text

    value = re.search(r'data-requires-python="([^"]*)"', page)[1]
    assert "<" not in value
    assert ">" not in value
    assert html.unescape(value) == ">=3.8,<4"


def test_a_file_that_is_not_yanked_has_no_yanked_mark(get, add):
    add(*make_wheel())

    assert "data-yanked" not in get(f"{SIMPLE}toolbox/").text


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (f"{SIMPLE}Tool_Box/", f"{SIMPLE}tool-box/"),
        (f"{SIMPLE}tool.box/", f"{SIMPLE}tool-box/"),
        (f"{SIMPLE}tool-box", f"{SIMPLE}tool-box/"),
        (f"{SIMPLE}Tool--Box?a=1%202", f"{SIMPLE}tool-box/?a=1%202"),
        (SIMPLE.rstrip("/"), SIMPLE),
    ],
    ids=["capitals", "dot", "no slash", "with a query", "root without slash"],
)
def test_other_spellings_are_redirected_within_the_origin(get, add, asked, told):
    add(*make_wheel("tool-box"))

    answer = get(asked)

    assert answer.status_code == 301
    assert answer.headers["Location"] == told


@pytest.mark.parametrize("name", ["nothing", "-x", "a%00b", "%2e%2e", "a%0Ab", "x" * 300, "caf%C3%A9"])
def test_an_unknown_project_is_404(get, name):
    assert get(f"{SIMPLE}{name}/").status_code == 404


@pytest.mark.parametrize(
    "path",
    [
        "toolbox/toolbox-2.0-py3-none-any.whl",
        "other/toolbox-1.0-py3-none-any.whl",
        "toolbox/toolbox-1.0-py3-none-any.whl.json",
        "toolbox/.tmp",
        "toolbox/%2e%2e%2frepository.json",
        "toolbox/toolbox-1.0-py3-none-any.whl%00",
        "toolbox/toolbox-2.0-py3-none-any.whl.metadata",
    ],
)
def test_only_listed_files_are_served(get, add, path):
    add(*make_wheel())

    assert get(f"/{ORG}/{REPO}/pypi/files/{path}").status_code == 404


def test_a_file_is_immutable_and_has_its_hash_as_its_etag(get, add):
    filename, content = make_wheel()
    add(filename, content)

    answer = get(f"/{ORG}/{REPO}/pypi/files/toolbox/{filename}")

    assert answer.headers["ETag"] == f'"{hashlib.sha256(content).hexdigest()}"'
    assert answer.headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Length"] == str(len(content))
    assert "Content-Encoding" not in answer.headers


@pytest.mark.parametrize(
    ("asked", "status", "part"),
    [
        ("bytes=0-9", 206, slice(0, 10)),
        ("bytes=-5", 206, slice(-5, None)),
        ("bytes=10-", 206, slice(10, None)),
        ("bytes=0-0,5-6", 200, slice(None)),
        ("nonsense", 200, slice(None)),
    ],
)
def test_single_ranges_of_a_file_are_served(get, add, asked, status, part):
    filename, content = make_wheel()
    add(filename, content)

    answer = get(f"/{ORG}/{REPO}/pypi/files/toolbox/{filename}", Range=asked)

    assert answer.status_code == status
    assert answer.data == content[part]


def test_a_range_beyond_the_end_is_416(get, add):
    filename, content = make_wheel()
    add(filename, content)

    answer = get(f"/{ORG}/{REPO}/pypi/files/toolbox/{filename}", Range=f"bytes={len(content)}-")

    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(content)}"


def test_a_file_published_by_another_process_shows_in_the_next_answer(get, add, registry):
    add(*make_wheel(version="1.0"))
    get(f"{SIMPLE}toolbox/")
    other = type(registry)(registry.tree.root).repository(ORG, REPO)

    add(*make_wheel(version="2.0"), other)

    assert list(links(get(f"{SIMPLE}toolbox/").text))[-1] == "toolbox-2.0-py3-none-any.whl"
