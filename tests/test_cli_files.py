"""The commands for files and projects: yank, delete, status, promote, trash."""

from __future__ import annotations

import json
import re
from datetime import timedelta

import pytest
from click.testing import CliRunner, Result

import cli
from storage import trash
from storage.errors import FileAlreadyExists
from storage.events import read_events
from storage.files import set_syncing
from storage.repository import Repository, RepositorySettings
from storage.sidecars import now
from storage.statuses import ProjectStatus, Status
from tests.conftest import ORG, REPO, TESTER, add_to
from tests.storage.makers import make_sdist, make_wheel

NAME = f"{ORG}/{REPO}"
WHEEL, WHEEL_BYTES = make_wheel()
SDIST, SDIST_BYTES = make_sdist()
LATER, LATER_BYTES = make_wheel(version="2!1.0+local.7")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command on the storage of the test; it ends with *status*."""
    monkeypatch.delenv("PACKHOUSE_STORAGE", raising=False)

    def run(*arguments: str, input: str | None = None, status: int = 0) -> Result:
        given = [*arguments, "--storage", str(tmp_path / "data")]
        result = CliRunner().invoke(cli.program, given, input=input, catch_exceptions=False)
        set_syncing(False)  # which the command has turned on
        assert result.exit_code == status, result.output
        return result

    return run


@pytest.fixture
def filled(repository: Repository) -> Repository:
    """A wheel and an sdist of one version, and another version."""
    for filename, content in ((WHEEL, WHEEL_BYTES), (SDIST, SDIST_BYTES), (LATER, LATER_BYTES)):
        add_to(repository, filename, content)
    return repository


def listed(repository: Repository) -> dict[str, bool | str]:
    """Return the files of the project and whether they are yanked."""
    return {file.filename: file.yanked for file in repository.project("toolbox").files}


def last_event(repository: Repository) -> tuple[str, str]:
    event = json.loads(repository.tree.events_file.read_text().splitlines()[-1])
    return event["event"], event["by"]["kind"]


def error_of(result: Result) -> str:
    assert result.stdout == ""
    assert re.fullmatch(r"Error: .+\n", result.stderr), result.stderr
    return result.stderr


def trash_ids(run) -> list[str]:
    return [line.split("\t")[0] for line in run("trash", "list", NAME).stdout.splitlines()]


# --- yank ---


def test_a_file_is_yanked_with_a_reason_and_back(run, filled):
    assert run("yank", NAME, WHEEL, "--reason", "broken").stdout == f"Yanked {WHEEL}.\n"
    assert listed(filled) == {WHEEL: "broken", SDIST: False, LATER: False}
    assert last_event(filled) == ("yanked", "command line")

    assert run("unyank", NAME, WHEEL).stdout == f"Unyanked {WHEEL}.\n"
    assert not any(listed(filled).values())
    assert last_event(filled) == ("unyanked", "command line")


@pytest.mark.parametrize("release", ["toolbox==1.0", "ToolBox == 1.0.0", "TOOLBOX==v1"])
def test_a_release_is_yanked_and_back(run, filled, release):
    assert run("yank", NAME, release).stdout == f"Yanked {WHEEL}.\nYanked {SDIST}.\n"
    assert listed(filled) == {WHEEL: True, SDIST: True, LATER: False}

    run("unyank", NAME, release)
    assert not any(listed(filled).values())


def test_a_release_with_an_epoch_and_a_local_part_is_yanked(run, filled):
    run("yank", NAME, "toolbox==2!1.0+local.7")

    assert listed(filled)[LATER] is True


@pytest.mark.parametrize(
    ("what", "sentence"),
    [
        ("toolbox-9.tar.gz", "there is no file 'toolbox-9.tar.gz'"),
        ("toolbox", "there is no file 'toolbox'"),
        ("../../x.tar.gz", "there is no file"),
        ("toolbox==9", "there is no release '9'"),
        ("toolbox==", "is not an allowed version"),
        ("toolbox==1.*", "is not an allowed version"),
        ("==1.0", "is not an allowed project name"),
        ("other==1.0", "there is no release"),
    ],
)
@pytest.mark.parametrize("command", ["yank", "unyank"])
def test_what_is_not_there_is_not_yanked(run, filled, command, what, sentence):
    assert sentence in error_of(run(command, NAME, what, status=1))
    assert not any(listed(filled).values())


def test_a_reason_is_one_line(run, filled):
    assert "one line" in error_of(run("yank", NAME, WHEEL, "--reason", "a\nb", status=1))


# --- delete ---


@pytest.mark.parametrize(("options", "answer"), [(["--yes"], None), ([], "y\n")], ids=["--yes", "asked"])
def test_a_file_is_deleted(run, filled, options, answer):
    result = run("delete", NAME, WHEEL, *options, input=answer)

    assert result.stdout == f"Deleted {WHEEL}; its ID in the trash is {trash_ids(run)[0]}.\n"
    assert list(listed(filled)) == [SDIST, LATER]
    assert last_event(filled) == ("deleted", "command line")


@pytest.mark.parametrize(("answer", "status"), [("n\n", cli.INTERRUPTED), ("\n", cli.INTERRUPTED), ("", 1)])
def test_a_file_stays_unless_the_answer_is_yes(run, filled, answer, status):
    result = run("delete", NAME, WHEEL, input=answer, status=status)

    assert result.stdout == ""
    assert f"Delete {WHEEL} from {NAME}?" in result.stderr
    assert WHEEL in listed(filled)


@pytest.mark.parametrize("filename", ["toolbox-9.tar.gz", "x", "..", "toolbox==1.0"])
def test_what_is_not_there_is_not_asked_about(run, filled, filename):
    assert "there is no file" in error_of(run("delete", NAME, filename, status=1))


# --- status ---


@pytest.mark.parametrize("status", [str(status) for status in Status])
def test_a_project_gets_a_status_and_shows_it(run, filled, status):
    assert run("status", NAME, "ToolBox", status).stdout == f"toolbox is {status} now.\n"

    assert filled.project("toolbox").status == ProjectStatus(Status(status))
    assert run("status", NAME, "toolbox").stdout == f"{status}\n"
    assert last_event(filled) == ("status changed", "command line")


def test_a_status_is_shown_with_its_reason(run, filled):
    run("status", NAME, "toolbox", "archived", "--reason", "moved")

    assert run("status", NAME, "toolbox").stdout == "archived: moved\n"


@pytest.mark.parametrize(
    ("arguments", "code", "sentence"),
    [
        (["toolbox", "gone"], 2, "'gone' is not one of"),
        (["toolbox", "--reason", "x"], 2, "A reason goes with a status."),
        (["other"], 1, "there is no project 'other'"),
        (["other", "archived"], 1, "there is no project 'other'"),
        (["-"], 1, "is not an allowed project name"),
        (["toolbox", "archived", "--reason", "a\tb"], 1, "one line"),
    ],
)
def test_a_status_that_cannot_be_is_one_line(run, filled, arguments, code, sentence):
    assert sentence in error_of(run("status", NAME, *arguments, status=code))
    assert filled.project("toolbox").status == ProjectStatus()


# --- promote ---


@pytest.fixture
def second(registry) -> Repository:
    return registry.create_repository(ORG, "second", RepositorySettings(name="Second"))


def test_a_file_is_moved_to_another_repository(run, filled, second):
    result = run("promote", NAME, LATER, f"{ORG}/second")

    assert result.stdout == f"Moved {LATER} from {NAME} to {ORG}/second.\n"
    assert list(listed(second)) == [LATER]
    assert LATER not in listed(filled)
    assert last_event(second) == ("promoted", "command line")


@pytest.mark.parametrize(
    ("filename", "destination", "code", "sentence"),
    [
        (WHEEL, NAME, 1, "must be another repository"),
        (WHEEL, f"{ORG}/none", 1, "there is no repository"),
        (WHEEL, "none", 2, "is not of the form ORG/REPO"),
        ("toolbox-9.tar.gz", f"{ORG}/second", 1, "there is no file"),
        ("x", f"{ORG}/second", 1, "there is no file"),
    ],
)
def test_what_cannot_be_moved_is_one_line(run, filled, second, filename, destination, code, sentence):
    assert sentence in error_of(run("promote", NAME, filename, destination, status=code))
    assert list(listed(filled)) == [WHEEL, SDIST, LATER]


def test_a_conflict_at_the_destination_moves_nothing(run, filled, second):
    add_to(second, *make_wheel(summary="other"))

    assert "has already been taken" in error_of(run("promote", NAME, WHEEL, f"{ORG}/second", status=1))
    assert WHEEL in listed(filled)


# --- trash ---


def test_a_deleted_file_is_restored_by_its_name_with_its_yank(run, filled):
    run("yank", NAME, WHEEL, "--reason", "broken")
    run("delete", NAME, WHEEL, "--yes")

    assert run("trash", "restore", NAME, WHEEL).stdout == f"Restored {WHEEL}.\n"

    assert listed(filled)[WHEEL] == "broken"
    assert trash_ids(run) == []
    assert last_event(filled) == ("restored", "command line")


def test_a_file_that_was_deleted_twice_is_restored_by_its_id(run, filled):
    for _ in range(2):
        run("delete", NAME, WHEEL, "--yes")
        add_to(filled, WHEEL, WHEEL_BYTES)
    filled.delete_file("toolbox", WHEEL, cli._ACTOR)
    ids = trash_ids(run)

    message = error_of(run("trash", "restore", NAME, WHEEL, status=1))
    assert all(entry_id in message for entry_id in ids)
    run("trash", "restore", NAME, ids[0])
    assert WHEEL in listed(filled)


@pytest.mark.parametrize("command", ["restore", "purge"])
def test_what_is_not_in_the_trash_is_one_line(run, filled, command):
    assert "the trash holds no file" in error_of(run("trash", command, NAME, WHEEL, status=1))


@pytest.fixture
def deleted(filled) -> Repository:
    """A repository with two files in the trash."""
    for filename in (WHEEL, SDIST):
        filled.delete_file("toolbox", filename, cli._ACTOR)
    return filled


def purged(repository: Repository) -> list[str]:
    return sorted(entry.sidecar.file.filename for entry in repository.trash() if entry.purged)


@pytest.mark.parametrize("by_id", [True, False], ids=["by id", "by name"])
def test_one_file_is_purged_and_its_name_stays_taken(run, deleted, by_id):
    entry = next(entry for entry in deleted.trash() if entry.sidecar.file.filename == WHEEL)

    result = run("trash", "purge", NAME, entry.id if by_id else WHEEL, "--yes")

    assert result.stdout == "Purged 1 deleted file.\n"
    assert purged(deleted) == [WHEEL]
    assert not list(deleted.tree.trash.rglob("*.whl"))
    assert last_event(deleted) == ("purged", "command line")
    with pytest.raises(FileAlreadyExists):
        add_to(deleted, *make_wheel(summary="other"))
    assert "purged already" in error_of(run("trash", "restore", NAME, WHEEL, status=1))


def test_all_is_purged_once_the_answer_is_yes(run, deleted):
    asked = run("trash", "purge", NAME, "--all", input="n\n", status=cli.INTERRUPTED)
    assert f"Remove 2 deleted files of {NAME} for good?" in asked.stderr
    assert purged(deleted) == []

    assert run("trash", "purge", NAME, "--all", input="y\n").stdout == "Purged 2 deleted files.\n"
    assert purged(deleted) == [WHEEL, SDIST]
    assert run("trash", "purge", NAME, "--all").stdout == "Purged 0 deleted files.\n"


def test_what_is_older_is_purged_and_what_is_not_stays(run, deleted, monkeypatch):
    monkeypatch.setattr(trash, "now", lambda: now() - timedelta(days=31))
    deleted.delete_file("toolbox", LATER, cli._ACTOR)

    assert run("trash", "purge", NAME, "--older-than", "52w").stdout == "Purged 0 deleted files.\n"
    assert run("trash", "purge", NAME, "--older-than", "30d", "--yes").stdout == "Purged 1 deleted file.\n"
    assert purged(deleted) == [LATER]


@pytest.mark.parametrize(
    "arguments", [[], ["x", "--all"], ["--all", "--older-than", "1d"], ["x", "--older-than", "1d"]]
)
def test_what_is_to_be_purged_is_said_in_one_way(run, deleted, arguments):
    assert "Name a file, or give one of" in error_of(run("trash", "purge", NAME, *arguments, "--yes", status=2))
    assert purged(deleted) == []


def test_what_the_command_line_does_to_a_repository_stands_in_its_events(registry, repository, tmp_path):
    storage = ("--storage", str(registry.tree.root))

    def run(*arguments: str) -> str:
        result = CliRunner().invoke(cli.program, [*arguments, *storage])
        assert result.exit_code == 0, result.output
        return result.stdout

    run("repo", "create", "acme/second", "--public")
    run("repo", "update", "acme/second", "--private")
    token = run("token", "create", "acme/second", "--scope", "read_packages", "--description", "for CI").strip()
    run("token", "revoke", token.split("_")[1])

    events = list(read_events(registry.repository("acme", "second").tree.events_file))
    assert [event["event"] for event in events] == [
        "repository created",
        "settings changed",
        "token created",
        "token revoked",
    ]
    assert {event["by"]["kind"] for event in events} == {"command line"}
    assert token.split("_")[2] not in registry.repository("acme", "second").tree.events_file.read_text()


def test_a_promotion_stands_in_the_events_of_both_repositories(registry, repository, add):
    other = registry.create_repository("acme", "second", RepositorySettings(name="Second"))
    filename, content = make_wheel()
    add(filename, content)

    registry.promote_file(repository, other, "toolbox", filename, TESTER)

    left = [event for event in read_events(repository.tree.events_file) if event["event"] == "promoted"]
    came = [event for event in read_events(other.tree.events_file) if event["event"] == "promoted"]
    assert [event["to"] for event in left] == ["acme/second"]
    assert [event["origin"] for event in came] == ["acme/main"]
