"""Slugs, project names, versions and file names: what is accepted, what it becomes, what is refused."""

from __future__ import annotations

import pytest
from packaging.version import Version

from storage.errors import InvalidFilename, InvalidName
from storage.names import (
    MAX_FILENAME_BYTES,
    check_organization_slug,
    check_repository_slug,
    check_user_name,
    is_filename,
    is_normalized_project,
    is_slug,
    normalize_project,
    parse_filename,
    parse_version,
    slugify,
)

# --- slugs ---


@pytest.mark.parametrize(
    ("typed", "slug"),
    [
        ("My Python packages", "my-python-packages"),
        ("  Data & Tools!  ", "data-tools"),
        ("acme", "acme"),
        ("Größe", "groe"),
        ("\ufb01le", "file"),
        ("a__b--c", "a-b-c"),
    ],
)
def test_what_a_person_typed_becomes_a_slug(typed, slug):
    assert slugify(typed) == slug
    assert is_slug(slug)


@pytest.mark.parametrize("typed", ["", "  ", "---", "\u65e5\u672c", "x" * 65], ids=ascii)
def test_what_leaves_nothing_of_a_slug_is_refused(typed):
    with pytest.raises(InvalidName):
        slugify(typed)


@pytest.mark.parametrize("slug", ["a", "0", "a-b", "main", "x" * 64])
def test_a_slug_is_of_lower_case_letters_digits_and_single_hyphens(slug):
    assert check_organization_slug(slug) == slug
    assert check_repository_slug(slug) == slug


MALFORMED_SLUGS = {
    "empty": "",
    "capital": "Acme",
    "leading hyphen": "-a",
    "trailing hyphen": "a-",
    "double hyphen": "a--b",
    "dot": "a.b",
    "dots": "..",
    "hidden": ".acme",
    "underscore": "a_b",
    "slash": "a/b",
    "newline": "acme\n",
    "NUL": "acme\0",
    "full-width digit": "a\uff11",
    "cyrillic": "\u0430cme",
    "too long": "x" * 65,
}


@pytest.mark.parametrize("slug", MALFORMED_SLUGS.values(), ids=MALFORMED_SLUGS.keys())
def test_a_malformed_slug_is_neither_an_organization_nor_a_repository(slug):
    with pytest.raises(InvalidName):
        check_organization_slug(slug)
    with pytest.raises(InvalidName):
        check_repository_slug(slug)


# contract.md section 2: the first segment of every address, and what it names besides; and what lies at the top.
NOT_ORGANIZATIONS = ["login", "logout", "account", "api", "v2", "healthz", "metrics", "static", "admin"]
NOT_ORGANIZATIONS += ["organizations", "_", ".well-known", "users", "tokens"]


@pytest.mark.parametrize("word", NOT_ORGANIZATIONS)
def test_no_organization_has_the_name_of_an_address(word):
    with pytest.raises(InvalidName):
        check_organization_slug(word)


@pytest.mark.parametrize("word", ["new", "settings", "members", "tokens", "audit"])
def test_no_repository_has_the_name_of_a_page(word):
    with pytest.raises(InvalidName, match="reserved"):
        check_repository_slug(word)


@pytest.mark.parametrize("user", ["admin", "ada.lovelace", "a_b-c.d", "7"])
def test_a_person_signs_in_under_a_short_lower_case_name(user):
    assert check_user_name(user) == user


@pytest.mark.parametrize(
    "user", ["", "Ada", "a..b", ".a", "a.", "../a", "a/b", "a b", "a\n", "é", "x" * 65, "a:b"], ids=repr
)
def test_nobody_has_a_name_that_is_not_one_word(user):
    with pytest.raises(InvalidName):
        check_user_name(user)


# --- projects and versions ---


@pytest.mark.parametrize(
    ("name", "project"),
    [
        ("Flask_Login", "flask-login"),
        ("zope.interface", "zope-interface"),
        ("a-._b", "a-b"),
        ("X", "x"),
        ("2to3", "2to3"),
    ],
)
def test_a_project_name_is_normalized(name, project):
    assert normalize_project(name) == project
    assert is_normalized_project(project)
    assert not is_normalized_project(name) or name == project


HOSTILE_PROJECTS = ["", ".", "..", "-a", "a-", "a b", "a/b", "a\\b", "a\n", "a\0", "\uff41", "\u0430bc", "x" * 201]


@pytest.mark.parametrize("name", [*HOSTILE_PROJECTS, "con", "NUL", "com1", "Lpt9"], ids=ascii)
def test_no_project_is_called_so(name):
    with pytest.raises(InvalidName):
        normalize_project(name)
    assert not is_normalized_project(name)


@pytest.mark.parametrize("text", ["1.0", "1!2.0", "1.0+local.7", "1.0rc1", "2024.1.dev0", "v1.0", "1.0-1"])
def test_a_version_is_what_pep_440_says(text):
    assert parse_version(text) == Version(text)


HOSTILE_VERSIONS = {
    "empty": "",
    "words": "latest",
    "five thousand digits": "9" * 5000,
    "a long local part": "1.0+" + "a" * 200,
    "arabic digits": "\u0661.\u0660",
    "slash": "1/0",
}


@pytest.mark.parametrize("text", HOSTILE_VERSIONS.values(), ids=HOSTILE_VERSIONS.keys())
def test_what_is_no_version_is_refused_in_a_short_sentence(text):
    with pytest.raises(InvalidName) as caught:
        parse_version(text)

    assert "PEP 440" in str(caught.value)
    assert len(str(caught.value)) < 400


# --- file names ---

ACCEPTABLE = [
    ("toolbox-1.0-py3-none-any.whl", "toolbox", "1.0"),
    ("toolbox-1.0-1-py3-none-any.whl", "toolbox", "1.0"),
    ("toolbox-1.0-12abc-py3-none-any.whl", "toolbox", "1.0"),
    ("toolbox-1.0-py2.py3-none-any.whl", "toolbox", "1.0"),
    ("toolbox-1.0-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", "toolbox", "1.0"),
    ("toolbox-1.0-cp311-cp311-linux_x86_64.whl", "toolbox", "1.0"),
    ("toolbox-1!2.0-py3-none-any.whl", "toolbox", "1!2.0"),
    ("toolbox-1.0+local.7-py3-none-any.whl", "toolbox", "1.0+local.7"),
    ("toolbox-1.0+local_7-py3-none-any.whl", "toolbox", "1.0+local.7"),
    ("my_tool-1.0.tar.gz", "my-tool", "1.0"),
    ("my-tool-1.0.tar.gz", "my-tool", "1.0"),
    ("My.Tool-1.0.tar.gz", "my-tool", "1.0"),
    ("toolbox-1.0.zip", "toolbox", "1.0"),
    ("toolbox-1.0.0rc1.tar.gz", "toolbox", "1.0.0rc1"),
]


@pytest.mark.parametrize(("filename", "project", "version"), ACCEPTABLE, ids=[row[0] for row in ACCEPTABLE])
def test_the_name_of_a_file_says_project_and_version(filename, project, version):
    parsed = parse_filename(filename)

    assert (parsed.filename, parsed.project, str(parsed.version)) == (filename, project, version)
    assert parsed.packagetype == ("bdist_wheel" if filename.endswith(".whl") else "sdist")
    assert is_filename(filename)


def test_the_tags_of_a_wheel_are_written_out():
    parsed = parse_filename("toolbox-1.0-7b-py2.py3-none-any.whl")

    assert sorted(map(str, parsed.tags)) == ["py2-none-any", "py3-none-any"]
    assert parsed.build == (7, "b")


HOSTILE = {
    "empty": "",
    "an egg": "toolbox-1.0-py3.11.egg",
    "no version": "toolbox.tar.gz",
    "bare suffix": ".whl",
    "two tags": "toolbox-1.0-py3-none.whl",
    "no PEP 440 version": "toolbox-latest-py3-none-any.whl",
    "version of 5,000 digits": f"toolbox-{'9' * 5000}.tar.gz",
    "version of 200 digits": f"toolbox-{'9' * 200}.tar.gz",
    "over 240 bytes": f"{'t' * 190}-1.0-{'p' * 40}-none-any.whl",
    "parent": "../toolbox-1.0-py3-none-any.whl",
    "absolute": "/toolbox-1.0.tar.gz",
    "slash": "a/toolbox-1.0.tar.gz",
    "back-slash": "a\\toolbox-1.0.tar.gz",
    "drive": "c:toolbox-1.0.tar.gz",
    "leading dot": ".toolbox-1.0-py3-none-any.whl",
    "NUL": "toolbox-1.0-py3-none-any.whl\0",
    "NUL within": "toolbox\0-1.0-py3-none-any.whl",
    "newline": "toolbox-1.0-py3-none-any.whl\n",
    "escape": "tool\x1bbox-1.0.tar.gz",
    "delete character": "tool\x7fbox-1.0.tar.gz",
    "space": "toolbox 1-1.0.tar.gz",
    "percent-encoded": "toolbox%2e-1.0.tar.gz",
    "full-width letter": "\uff54oolbox-1.0.tar.gz",
    "cyrillic letter": "t\u043eolbox-1.0.tar.gz",
    "surrogate": "tool\udcffbox-1.0.tar.gz",
    "right-to-left mark": "toolbox\u202e-1.0.tar.gz",
    "a wheel's sidecar": "toolbox-1.0-py3-none-any.whl.json",
    "a wheel's metadata": "toolbox-1.0-py3-none-any.whl.metadata",
    "an sdist's sidecar": "toolbox-1.0.tar.gz.json",
    "an sdist's metadata": "toolbox-1.0.tar.gz.metadata",
    "a temporary file": ".0123456789abcdef01234567.tmp",
    "a lock": "toolbox.lock",
    "device": "con-1.0.tar.gz",
    "device in capitals": "NUL-1.0-py3-none-any.whl",
    "device with a dot": "aux.tool-1.0.tar.gz",
    "capital suffix": "toolbox-1.0-py3-none-any.WHL",
    "tar.bz2": "toolbox-1.0.tar.bz2",
    "query": "toolbox-1.0.tar.gz?x",
    "fragment": "toolbox-1.0.tar.gz#sha256=0",
    "markup": "<b>-1.0.tar.gz",
    "quotes": '"toolbox"-1.0.tar.gz',
    "build without a digit": "toolbox-1.0-b7-py3-none-any.whl",
    "empty tag": "toolbox-1.0--none-any.whl",
    "dot tag": "toolbox-1.0-..-none-any.whl",
}


@pytest.mark.parametrize("filename", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_hostile_file_name_is_refused_with_its_rule(filename):
    with pytest.raises(InvalidFilename) as caught:
        parse_filename(filename)

    assert caught.value.filename == filename
    assert caught.value.rule
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 500
    assert not is_filename(filename)


def test_a_file_name_of_240_bytes_leaves_room_for_what_lies_beside_it():
    longest = f"toolbox-1.0-{'p' * 215}-none-any.whl"

    assert len(longest) == MAX_FILENAME_BYTES
    assert is_filename(longest)
    assert not is_filename(longest.replace("-none", "p-none"))
    assert len(f"{longest}.metadata") <= 255


def test_a_legacy_name_with_hyphens_is_cut_at_its_last_one():
    parsed = parse_filename("my-old-tool-1.0.tar.gz")

    assert parsed.spelled_name == "my-old-tool"
