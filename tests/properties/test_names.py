"""What holds for every name, version and file name."""

from __future__ import annotations

from contextlib import suppress
from pathlib import PurePosixPath

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from packaging.version import Version

from storage.errors import InvalidFilename, InvalidName
from storage.names import (
    MAX_FILENAME_BYTES,
    is_normalized_project,
    is_slug,
    normalize_project,
    parse_filename,
    parse_version,
    slugify,
)
from tests.properties.strategies import hostile_texts, project_names, versions
from tests.storage.makers import escape_name

many = settings(deadline=None, max_examples=80)


@many
@given(project_names())
def test_normalizing_twice_changes_nothing(name):
    with suppress(InvalidName):  # a device of Windows
        project = normalize_project(name)

        assert normalize_project(project) == project
        assert is_normalized_project(project)


@many
@given(project_names(), st.sampled_from(["-", "_", ".", "-._"]))
def test_spellings_that_differ_in_case_and_separators_are_one_project(name, separator):
    respelled = "".join(separator if character in "-_." else character for character in name).swapcase()
    with suppress(InvalidName):
        assert normalize_project(respelled) == normalize_project(name)


@many
@given(st.text() | hostile_texts())
def test_a_slug_of_any_text_is_one_or_none(text):
    with suppress(InvalidName):
        slug = slugify(text)

        assert is_slug(slug)
        assert slugify(slug) == slug


@many
@given(project_names(), versions())
def test_a_made_file_name_says_what_it_was_made_from(name, version):
    try:
        project = normalize_project(name)
    except InvalidName:
        assume(False)
    stem = f"{escape_name(name)}-{version}"

    for filename in (f"{stem}-py3-none-any.whl", f"{stem}.tar.gz", f"{name}-{version}.tar.gz"):
        parsed = parse_filename(filename)
        assert (parsed.project, parsed.version) == (project, Version(version))


@many
@given(hostile_texts() | st.text())
def test_whatever_text_is_accepted_as_a_file_name_is_one_harmless_path_part(text):
    try:
        parsed = parse_filename(text)
    except InvalidFilename as error:
        message = str(error)
    else:
        message = "accepted"
        assert PurePosixPath(text).parts == (text,)
        assert not text.startswith(".")
        assert len(text.encode()) <= MAX_FILENAME_BYTES
        assert is_normalized_project(parsed.project)

    assert message.isascii()
    assert message.isprintable()


@many
@given(st.text() | versions() | hostile_texts())
def test_any_text_is_a_version_or_refused(text):
    with suppress(InvalidName):
        assert parse_version(str(parse_version(text))) == parse_version(text)
