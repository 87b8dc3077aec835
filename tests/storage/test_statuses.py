"""The status of a project (PEP 792): what it lets in, what it offers, where it is kept."""

from __future__ import annotations

import json

import pytest

from storage.checking import check_storage
from storage.errors import FileNotFound, InvalidValue, ProjectNotFound
from storage.statuses import (
    DAMAGED,
    MAX_REASON,
    ProjectClosed,
    ProjectStatus,
    Status,
    check_reason,
    parse_status,
    read_status,
)
from tests.conftest import TESTER
from tests.storage.makers import make_sdist, make_wheel

WHEEL, WHEEL_BYTES = make_wheel()
SDIST, SDIST_BYTES = make_sdist()


@pytest.fixture
def project(repository, add):
    """The repository with one wheel of the project "toolbox"."""
    add(WHEEL, WHEEL_BYTES)
    return repository


@pytest.mark.parametrize(
    ("status", "takes_uploads", "offers_files"),
    [
        (Status.ACTIVE, True, True),
        (Status.ARCHIVED, False, True),
        (Status.DEPRECATED, True, True),
        (Status.QUARANTINED, False, False),
    ],
)
def test_a_status_decides_what_comes_in_and_what_is_offered(project, add, status, takes_uploads, offers_files):
    project.change_status("toolbox", ProjectStatus(status, "why"), TESTER)

    assert [file.filename for file in project.project("toolbox").files] == ([WHEEL] if offers_files else [])
    if takes_uploads:
        assert add(SDIST, SDIST_BYTES).created
    else:
        with pytest.raises(ProjectClosed, match=f"'toolbox' is {status} and takes no uploads: why"):
            add(SDIST, SDIST_BYTES)
    if not offers_files:
        for read in (project.open_file, project.sidecar, project.core_metadata, project.attestations):
            with pytest.raises(FileNotFound):
                read("toolbox", WHEEL)


def test_a_status_lies_in_a_file_of_the_project_with_who_and_when(project):
    project.change_status("toolbox", ProjectStatus(Status.ARCHIVED, "moved"), TESTER)

    document = json.loads(project.tree.status_file("toolbox").read_text())
    assert document.pop("changed_at").endswith("Z")
    assert document == {
        "format": 1,
        "status": "archived",
        "reason": "moved",
        "changed_by": {"kind": "command line", "description": "test"},
    }


def test_an_active_project_has_no_file_of_its_status(project):
    project.change_status("toolbox", ProjectStatus(Status.ARCHIVED), TESTER)
    project.change_status("toolbox", ProjectStatus(Status.ACTIVE, "back"), TESTER)

    assert not project.tree.status_file("toolbox").exists()
    assert project.project("toolbox").status == ProjectStatus()
    assert list(project.tree.temporary.iterdir()) == []


def test_the_status_stays_when_the_last_file_is_deleted(project, add):
    project.change_status("toolbox", ProjectStatus(Status.QUARANTINED, "malware"), TESTER)
    project.delete_file("toolbox", WHEEL, TESTER)

    assert project.project("toolbox").status.reason == "malware"
    with pytest.raises(ProjectClosed):
        add(WHEEL, WHEEL_BYTES)


def test_a_project_without_files_is_gone_when_it_is_active_again(project, add):
    project.change_status("toolbox", ProjectStatus(Status.ARCHIVED), TESTER)
    project.delete_file("toolbox", WHEEL, TESTER)
    assert project.projects() == ["toolbox"]

    project.change_status("toolbox", ProjectStatus(Status.ACTIVE), TESTER)

    assert project.projects() == []
    with pytest.raises(ProjectNotFound):
        project.project("toolbox")
    assert add(WHEEL, WHEEL_BYTES).created


def test_a_project_that_is_not_there_has_no_status(repository):
    with pytest.raises(ProjectNotFound):
        repository.change_status("toolbox", ProjectStatus(Status.ARCHIVED), TESTER)


def test_a_closed_project_can_still_lose_and_regain_files(project):
    project.change_status("toolbox", ProjectStatus(Status.QUARANTINED), TESTER)

    entry = project.delete_file("toolbox", WHEEL, TESTER)
    project.restore_file("toolbox", entry.id, TESTER)
    project.change_status("toolbox", ProjectStatus(), TESTER)

    assert [file.filename for file in project.project("toolbox").files] == [WHEEL]


def a_folder(path):
    path.mkdir()


def a_link(path):
    path.symlink_to("/etc/hostname")


def a_dangling_link(path):
    path.symlink_to("nowhere")


CONTENTS = [b"", b"{", b"[]", b"{}", b'{"status": "gone"}', b'{"status": 5}', b"\xff", bytes(100)]


@pytest.mark.parametrize(
    "damage",
    [
        *(lambda path, content=content: path.write_bytes(content) for content in CONTENTS),
        a_folder,
        a_link,
        a_dangling_link,
    ],
    ids=[*map(repr, CONTENTS), "a folder", "a link", "a dangling link"],
)
def test_a_damaged_status_never_releases_a_quarantined_project(project, add, registry, damage, caplog):
    project.change_status("toolbox", ProjectStatus(Status.QUARANTINED, "malware"), TESTER)
    path = project.tree.status_file("toolbox")
    path.unlink()
    damage(path)
    add(*make_wheel("neighbour"))

    assert read_status(project.tree, "toolbox") == ProjectStatus(Status.QUARANTINED, DAMAGED)
    assert project.project("toolbox").files == ()
    with pytest.raises(FileNotFound):
        project.open_file("toolbox", WHEEL)
    with pytest.raises(ProjectClosed, match="status is damaged"):
        add(SDIST, SDIST_BYTES)
    assert len(project.project("neighbour").files) == 1
    assert [record.message for record in caplog.records if str(path) in record.message] == [
        next(record.message for record in caplog.records if "counts as quarantined" in record.message)
    ]
    assert [finding.path for finding in check_storage(registry)] == [str(path)]


@pytest.mark.parametrize("content", CONTENTS)
def test_a_damaged_status_is_mended_by_giving_another(project, content):
    project.tree.status_file("toolbox").write_bytes(content)

    project.change_status("toolbox", ProjectStatus(), TESTER)

    assert project.project("toolbox").status == ProjectStatus()
    assert [file.filename for file in project.project("toolbox").files] == [WHEEL]


@pytest.mark.parametrize("text", ["", "gone", "ARCHIVED", " archived", "archived\n"])
def test_what_is_no_status_is_refused_with_those_that_are(text):
    with pytest.raises(InvalidValue, match="status must be one of active, archived, deprecated, quarantined"):
        parse_status(text)


@pytest.mark.parametrize("reason", ["", "moved", "\N{SNOWMAN} & <b>", "x" * MAX_REASON])
def test_a_reason_is_one_line_of_text(reason):
    assert parse_status("archived", f"  {reason} ").reason == reason


@pytest.mark.parametrize(
    "reason",
    ["a\nb", "a\rb", "a\tb", "a\x00", "\x1b[31m", "\ud800", "a\u2028b", "\u202eabc", "x" * (MAX_REASON + 1)],
)
def test_a_reason_that_could_do_harm_on_a_page_or_terminal_is_refused(reason):
    with pytest.raises(InvalidValue, match="reason must be one line"):
        check_reason(reason)
