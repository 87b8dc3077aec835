"""The command line, command by command; most run in-process, and what is about processes in one of its own."""

from __future__ import annotations

import errno
import json
import logging
import os
import pty
import re
import signal
import socket
import subprocess
import time
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result
from werkzeug.security import check_password_hash

import cli
import serving
import snippets
from settings import Settings
from storage.errors import StorageFull
from storage.files import set_syncing
from storage.importing import walk
from storage.registry import Registry
from storage.repository import Repository
from storage.tokens import Scope
from storage.users import Role
from tests.conftest import HERE, TESTER, packhouse, program, program_environment, start_server
from tests.storage.makers import make_sdist, make_wheel


@pytest.fixture
def storage(tmp_path) -> Path:
    """Where the storage of the test is, or will be."""
    return tmp_path / "data"


@pytest.fixture
def run(storage, monkeypatch):
    """Run a command on the storage of the test: ``run("org", "list")``; it ends with *status*."""
    for variable in [name for name in os.environ if name.startswith("PACKHOUSE_")]:
        monkeypatch.delenv(variable)

    def run(*arguments: str, input: str | bytes | None = None, status: int = 0) -> Result:
        given = [*arguments, "--storage", str(storage)]
        result = CliRunner().invoke(cli.program, given, input=input, catch_exceptions=False)
        set_syncing(False)  # which the command has turned on
        assert result.exit_code == status, result.output
        return result

    return run


def error_of(result: Result) -> str:
    """Return the one line that a failed command says on standard error, and nowhere else."""
    assert result.stdout == ""
    assert re.fullmatch(r"Error: .+\n", result.stderr), result.stderr
    return result.stderr.removeprefix("Error: ").rstrip("\n")


def rows_of(result: Result) -> list[list[str]]:
    """Return what a command has listed."""
    return [line.split("\t") for line in result.stdout.splitlines()]


def all_commands(group: click.Group = cli.program, path: tuple[str, ...] = ()):
    """Yield every command and group with the words that call it."""
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from all_commands(command, (*path, name))
        else:
            yield (*path, name), command


# --- help and errors ---


def test_the_program_lists_its_commands():
    assert sorted(cli.program.commands) == [
        "check",
        "check-file",
        "delete",
        "import",
        "org",
        "promote",
        "repo",
        "serve",
        "status",
        "token",
        "trash",
        "unyank",
        "user",
        "yank",
    ]


@pytest.mark.parametrize("path", [path for path, _ in all_commands()], ids=" ".join)
def test_every_command_explains_itself_and_takes_config_and_storage(path):
    command = dict(all_commands())[path]

    text = CliRunner().invoke(cli.program, [*path, "--help"]).stdout

    assert command.help
    assert all(option in text for option in ("--config FILE", "--storage FOLDER", "--help"))
    options = command.get_params(click.Context(command))
    assert all(option.help for option in options if isinstance(option, click.Option))


@pytest.mark.parametrize("group", [[], ["org"], ["token"]], ids=["packhouse", "org", "token"])
def test_a_group_without_a_command_shows_its_help(group):
    result = CliRunner().invoke(cli.program, group)

    assert result.output.startswith(" ".join(["Usage: packhouse", *group, "[OPTIONS] COMMAND [ARGS]..."]))
    assert "Commands:" in result.output


def test_the_version_is_the_projects():
    version = tomllib.loads((HERE / "pyproject.toml").read_text())["project"]["version"]

    assert CliRunner().invoke(cli.program, ["--version"]).stdout == f"packhouse {version}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["repo", "updat"], "No such command 'updat'."),
        (["org", "create"], "Missing argument 'ORG'. See 'packhouse org create --help'."),
        (["org", "create", "x", "--nmae", "y"], "No such option"),
        (["repo", "create", "main"], "'main' is not of the form ORG/REPO. See 'packhouse repo create --help'."),
        (["repo", "create", "a/b/c"], "'a/b/c' is not of the form ORG/REPO."),
        (["user", "create", "ann", "--role", "acme"], "'acme' is not of the form ORG=ROLE"),
        (["user", "create", "ann"], "Missing option '--role'."),
        (["token", "create", "acme"], "Missing option '--scope'."),
        (
            ["token", "create", "acme", "--scope", "read_packages", "--expires", "soon"],
            "'soon' is not a time such as",
        ),
        (["token", "create", "acme", "--scope", "read_packages", "--expires", "99999w"], "is not a time such as"),
        (["repo", "update", "acme/main"], "Nothing to change."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_wrong_use_is_one_line(run, arguments, sentence):
    assert sentence in error_of(run(*arguments, status=2))


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["org", "create", "acme"], "the organization 'acme' exists already"),
        (["org", "create", "login"], "'login' is not an allowed organization name: the word is reserved"),
        (["org", "delete", "nobody", "--yes"], "there is no organization 'nobody'"),
        (["repo", "create", "nobody/main"], "there is no organization 'nobody'"),
        (["repo", "create", "acme/Main"], "'Main' is not an allowed repository name"),
        (["repo", "list", "nobody"], "there is no organization 'nobody'"),
        (["repo", "update", "acme/none", "--public"], "there is no repository 'acme/none'"),
        (["repo", "delete", "acme/none", "--yes"], "there is no repository 'acme/none'"),
        (
            ["user", "create", "ann", "--role", "acme=boss", "--generate-password"],
            "role must be one of reader, writer",
        ),
        (["user", "create", "ann", "--role", "nobody=reader", "--generate-password"], "no organization 'nobody'"),
        (
            ["user", "create", "Ann", "--role", "acme=reader", "--generate-password"],
            "'Ann' is not an allowed user name",
        ),
        (["user", "passwd", "nobody", "--generate-password"], "there is no user 'nobody'"),
        (["user", "role", "nobody", "acme=reader"], "there is no user 'nobody'"),
        (["user", "delete", "nobody"], "there is no user 'nobody'"),
        (["token", "create", "acme", "--scope", "everything"], "scope must be one of read_packages, "),
        (["token", "create", "acme/none", "--scope", "read_packages"], "there is no repository 'acme/none'"),
        (["token", "create", "nobody", "--scope", "read_packages"], "there is no organization 'nobody'"),
        (["token", "list", "nobody"], "there is no organization 'nobody'"),
        (["token", "revoke", "../users/ann"], "there is no token '../users/ann'"),
        (["check", "acme/none"], "there is no repository 'acme/none'"),
        (["trash", "list", "acme/none"], "there is no repository 'acme/none'"),
        (["import", "acme/none", "x.whl"], "there is no repository 'acme/none'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_one_line(run, repository, arguments, sentence):
    result = run(*arguments, status=1)

    assert sentence in error_of(result)


def test_no_storage_is_left_behind_for_a_mistyped_path(run, storage):
    assert error_of(run("org", "list", status=1)).startswith(f"there is no storage at {storage};")
    assert not storage.exists()


def test_a_folder_that_is_no_storage_is_left_alone(run, storage):
    storage.mkdir()
    (storage / "letter.txt").write_text("Dear Ann")

    assert "is missing" in error_of(run("org", "create", "acme", status=1))
    assert "is missing" in error_of(run("check", "--repair", status=1))
    assert [path.name for path in storage.iterdir() if not path.name.startswith(".")] == ["letter.txt"]


def test_a_failing_disk_is_one_line(run, storage, registry, monkeypatch):
    def fail(*_arguments):
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(storage / "acme"))

    monkeypatch.setattr(Registry, "organizations", fail)

    assert error_of(run("org", "list", status=1)) == f"{storage / 'acme'}: Input/output error"


def test_a_wrong_setting_is_one_line(run, tmp_path):
    config = tmp_path / "config.toml"
    config.write_text("prot = 1")

    assert error_of(run("org", "list", "--config", str(config), status=1)) == (
        f"{config}: there is no setting 'prot'; did you mean port?"
    )


def test_a_mistake_of_ours_is_not_hidden(run, registry, monkeypatch):
    monkeypatch.setattr(Registry, "organizations", lambda self: 1 / 0)

    with pytest.raises(ZeroDivisionError):
        run("org", "list")


def test_the_storage_can_be_named_in_front_of_the_command_after_it_or_in_the_configuration(
    registry, storage, tmp_path, monkeypatch
):
    config = tmp_path / "config.toml"
    config.write_text('storage = "data"')
    monkeypatch.chdir(tmp_path)

    for arguments in (
        ["--storage", str(storage), "org", "list"],
        ["org", "--storage", str(storage), "list"],
        ["org", "list", "--storage", str(storage)],
        ["--storage", "elsewhere", "org", "list", "--storage", str(storage)],
        ["org", "list", "--config", str(config)],
        ["--config", str(config), "org", "list"],
        ["org", "list"],
    ):
        result = CliRunner().invoke(cli.program, arguments)
        set_syncing(False)
        assert rows_of(result) == [["acme", "acme", "0"]], arguments


def test_a_list_is_a_table_on_a_terminal(run, repository):
    shown = run_on_terminal("org", "list", "--storage", str(repository.tree.root.parent.parent))

    assert shown.splitlines() == ["ORG   NAME  REPOSITORIES", "acme  acme  1"]


def test_what_others_wrote_cannot_command_the_terminal(run, registry):
    registry.tokens.create(
        "acme", None, frozenset({Scope.READ_PACKAGES}), TESTER, description="\x1b[2Jgone\nnext\t"
    )

    assert r"\x1b[2Jgone\nnext\t" in run("token", "list").stdout


# --- organizations ---


def test_the_first_organization_makes_the_storage(run, storage):
    assert run("org", "create", "acme", "--name", "Acme Corp").stdout == "Made the organization acme.\n"
    assert Registry(storage).organization("acme").name == "Acme Corp"


def test_organizations_are_listed_with_their_repositories_counted(run, repository, registry):
    registry.create_organization("beta", "Beta Inc")

    assert rows_of(run("org", "list")) == [["acme", "acme", "1"], ["beta", "Beta Inc", "0"]]


def test_an_organization_is_deleted_once_its_name_is_typed(run, repository, registry, tokens):
    refused = run("org", "delete", "acme", input="acmee\n", status=1)
    assert "that is not 'acme'; nothing was deleted" in refused.stderr
    assert registry.repository("acme", "main")

    asked = run("org", "delete", "acme", input="acme\n")
    assert "This deletes the organization acme with 1 repository, for good." in asked.stderr
    assert registry.organizations() == []
    assert registry.tokens.list() == []


def test_a_question_that_nobody_answers_deletes_nothing(run, repository, registry):
    result = run("repo", "delete", "acme/main", input="", status=1)

    assert result.stderr.endswith("Error: the input ended before an answer.\n")
    assert registry.repository("acme", "main")


# --- repositories ---


def test_a_repository_is_private_unless_told_otherwise(run, registry):
    run("repo", "create", "acme/main")
    run("repo", "create", "acme/open", "--public", "--name", "Open", "--description", "For all")

    main, open_ = (registry.repository("acme", slug).settings for slug in ("main", "open"))
    assert (main.private, main.name, main.description) == (True, "main", "")
    assert (open_.private, open_.name, open_.description) == (False, "Open", "For all")


def test_repositories_are_listed(run, repository, registry):
    registry.create_organization("beta")
    run("repo", "create", "beta/open", "--public", "--description", "For all")

    everything = [["acme/main", "private", "Main", ""], ["beta/open", "public", "open", "For all"]]
    assert rows_of(run("repo", "list")) == everything
    assert rows_of(run("repo", "list", "beta")) == everything[1:]


def test_a_damaged_repository_is_listed_as_such(run, repository):
    repository.tree.repository_file.write_text("{")

    assert rows_of(run("repo", "list")) == [["acme/main", "damaged", "", ""]]


def test_an_update_changes_what_is_named_and_nothing_else(run, repository):
    run("repo", "update", "acme/main", "--public", "--description", "For all")
    run("repo", "update", "acme/main", "--reuse-filenames", "--no-strict-record")

    settings = repository.settings
    assert (settings.private, settings.name, settings.description) == (False, "Main", "For all")
    assert (settings.reuse_filenames, settings.strict_record) == (True, False)

    run("repo", "update", "acme/main", "--private", "--description", "", "--name", "Other")

    settings = repository.settings
    assert (settings.private, settings.name, settings.description) == (True, "Other", "")
    assert (settings.reuse_filenames, settings.strict_record) == (True, False)


def test_a_repository_is_deleted_once_its_name_is_typed(run, repository, registry, add):
    add(*make_wheel())

    assert "nothing was deleted" in run("repo", "delete", "acme/main", input="main\n", status=1).stderr
    assert registry.repository("acme", "main")

    asked = run("repo", "delete", "acme/main", input="acme/main\n")
    assert "the repository acme/main with 1 project, for good" in asked.stderr
    assert registry.repositories("acme") == []


def test_yes_answers_the_question(run, repository, registry):
    run("repo", "delete", "acme/main", "--yes")

    assert registry.repositories("acme") == []


# --- users ---


def test_a_user_is_made_with_a_password_from_standard_input(run, registry):
    registry.create_organization("beta")

    run(
        "user",
        "create",
        "ann",
        "--role",
        "acme=admin",
        "--role",
        "beta=reader",
        "--password-stdin",
        input="s3cret é!\r\n",
    )

    ann = registry.users.get("ann")
    assert check_password_hash(ann.password_hash, "s3cret é!")
    assert ann.password_hash.startswith("scrypt:")
    assert ann.roles == {"acme": Role.ADMIN, "beta": Role.READER}
    assert rows_of(run("user", "list")) == [["ann", "acme=admin beta=reader"]]


def test_a_generated_password_is_all_of_standard_output(run, registry):
    made = run("user", "create", "ann", "--role", "acme=reader", "--generate-password").stdout
    assert check_password_hash(registry.users.get("ann").password_hash, made.removesuffix("\n"))

    changed = run("user", "passwd", "ann", "--generate-password").stdout
    assert check_password_hash(registry.users.get("ann").password_hash, changed.removesuffix("\n"))
    assert len(changed) >= 16
    assert changed != made


@pytest.mark.parametrize(
    ("password", "sentence"),
    [
        (b"1234567\n", "the password must have at least 8"),
        (b"", "the password must have at least 8"),
        (b"x" * 5000, "at most 1024 characters"),
        (b"\xff" * 10, "not UTF-8"),
    ],
    ids=["short", "none", "long", "not text"],
)
def test_a_password_that_will_not_do_makes_no_user(run, registry, password, sentence):
    result = run("user", "create", "ann", "--role", "acme=reader", "--password-stdin", input=password, status=1)

    assert sentence in error_of(result)
    assert registry.users.list() == []


def test_a_password_is_given_in_one_way(run, registry):
    create = ("user", "create", "ann", "--role", "acme=reader")

    assert "use --password-stdin or --generate-password" in error_of(run(*create, status=2))
    assert "Choose one" in error_of(run(*create, "--password-stdin", "--generate-password", status=2))


def test_a_password_is_asked_for_twice_and_not_shown(registry, storage):
    create = ("user", "create", "ann", "--role", "acme=reader", "--storage", str(storage))

    shown = run_on_terminal(*create, answers=["s3cret-1\n", "s3cret-1\n"])

    assert "s3cret-1" not in shown
    assert "Made the user ann." in shown
    assert check_password_hash(registry.users.get("ann").password_hash, "s3cret-1")


def test_roles_are_changed_and_taken_away(run, registry):
    registry.create_organization("beta")
    registry.users.create("ann", "-", {"acme": Role.ADMIN})

    run("user", "role", "ann", "acme=none", "beta=writer")

    assert registry.users.get("ann").roles == {"beta": Role.WRITER}
    assert "no organization 'nobody'" in error_of(run("user", "role", "ann", "nobody=writer", status=1))


def test_a_user_is_deleted_with_the_users_tokens(run, registry):
    registry.users.create("ann", "-", {"acme": Role.ADMIN})
    registry.tokens.create("acme", None, frozenset({Scope.READ_PACKAGES}), TESTER, user="ann")

    run("user", "delete", "ann")

    assert registry.users.list() == []
    assert registry.tokens.list() == []


# --- tokens ---


def test_a_new_token_is_all_of_standard_output(run, repository, registry):
    create = ("token", "create", "acme/main", "--scope", "read_packages", "--scope", "write_packages")

    result = run(*create, "--description", "build", "--expires", "90d")

    assert re.fullmatch(r"pkh_[0-9a-f]{12}_[0-9a-f]{40}\n", result.stdout)
    token = registry.tokens.authenticate(result.stdout.strip())
    assert (token.org, token.repo, token.description) == ("acme", "main", "build")
    assert token.scopes == {Scope.READ_PACKAGES, Scope.WRITE_PACKAGES}
    assert (token.expires_at - token.created_at).days == 90
    assert str(token.created_by) == "the command line"


def test_scopes_can_be_given_with_commas(run, registry):
    text = run("token", "create", "acme", "--scope", "read_packages,delete_packages").stdout.strip()

    token = registry.tokens.authenticate(text)
    assert token.scopes == {Scope.READ_PACKAGES, Scope.DELETE_PACKAGES}
    assert (token.repo, token.expires_at) == (None, None)


@pytest.mark.parametrize(
    ("text", "hours"), [("12h", 12), ("90d", 90 * 24), ("52w", 52 * 7 * 24), ("5200w", 873_600)]
)
def test_a_token_ends_after_hours_days_or_weeks(run, registry, text, hours):
    run("token", "create", "acme", "--scope", "read_packages", "--expires", text)

    [token] = registry.tokens.list()
    assert (token.expires_at - token.created_at).total_seconds() == hours * 3600


def test_tokens_are_listed_without_their_secrets(run, repository, registry, tokens):
    run("token", "create", "acme", "--scope", "read_packages", "--expires", "1h", "--description", "for all")

    everything = rows_of(run("token", "list"))

    assert [row[1] for row in everything] == ["acme/main", "acme/main", "acme/main", "acme"]
    assert everything[3][2:4] == ["read_packages", "for all"]
    assert everything[0][5:] == ["never", "never"]
    assert rows_of(run("token", "list", "acme")) == everything
    assert rows_of(run("token", "list", "acme/main")) == everything[:3]
    assert not any(token.sha256 in cell for token in registry.tokens.list() for row in everything for cell in row)


def test_a_revoked_token_is_worthless_at_once(run, registry, tokens):
    run("token", "revoke", tokens.read.split("_")[1])

    assert registry.tokens.authenticate(tokens.read) is None
    assert registry.tokens.authenticate(tokens.write)


# --- import ---


def lay(folder: Path, *files: tuple[str, bytes]) -> Path:
    """Write made files into *folder* and return it."""
    folder.mkdir(parents=True, exist_ok=True)
    for filename, content in files:
        (folder / filename).write_bytes(content)
    return folder


def test_folders_are_imported_with_the_folders_in_them(run, repository, tmp_path):
    wheels = lay(tmp_path / "in" / "wheels", make_wheel("toolbox", "1.0"), ("README.txt", b""), ("x.json", b""))
    lay(wheels / "deeper", make_sdist("toolbox", "1.0"))
    lay(tmp_path / "in" / ".cache", make_wheel("hidden", "1.0"))
    filename, content = make_wheel("single", "2.0")
    single = lay(tmp_path / "more", (filename, content)) / filename

    result = run("import", "acme/main", str(tmp_path / "in"), str(single))

    assert result.stdout == "3 stored, 0 already there, 0 refused; skipped 2 other files.\n"
    assert repository.projects() == ["single", "toolbox"]
    with repository.open_file("single", filename)[1] as stored:
        assert stored.read() == content


def test_an_import_can_be_run_again(run, repository, tmp_path):
    folder = lay(tmp_path / "in", *(make_wheel(f"project{n}") for n in range(40)))

    assert run("import", "acme/main", str(folder)).stdout == "40 stored, 0 already there, 0 refused.\n"
    assert run("import", "acme/main", str(folder)).stdout == "0 stored, 40 already there, 0 refused.\n"


def test_what_is_refused_is_named_with_its_reason_and_the_rest_is_stored(run, repository, tmp_path, add):
    filename, _ = add(*make_wheel("taken", "1.0", summary="first")) and make_wheel("taken", "1.0")
    folder = lay(
        tmp_path / "in", make_wheel("good"), make_wheel("taken", "1.0"), ("bad-1.0.tar.gz", b"not an archive")
    )
    note = lay(tmp_path, ("note.txt", b"")) / "note.txt"

    result = run("import", "acme/main", str(folder), str(tmp_path / "missing.whl"), str(note), status=1)

    *refused, summary = result.stdout.splitlines()
    assert summary == "1 stored, 0 already there, 4 refused."
    reasons = dict(line.removeprefix("refused ").split(": ", 1) for line in refused)
    assert "has already been taken" in reasons[str(folder / filename)]
    assert reasons[str(tmp_path / "missing.whl")] == "there is no such file"
    assert "neither a wheel (.whl) nor an sdist" in reasons[str(note)]
    assert str(folder / "bad-1.0.tar.gz") in reasons
    assert repository.projects() == ["good", "taken"]


def test_links_are_followed_to_files_and_never_around_in_circles(run, repository, tmp_path):
    filename, content = make_wheel()
    target = lay(tmp_path / "elsewhere", ("target", content)) / "target"
    folder = lay(tmp_path / "in")
    (folder / filename).symlink_to(target)
    (folder / "circle").symlink_to(folder)
    (folder / "loop-1.0.tar.gz").symlink_to("loop-1.0.tar.gz")
    os.mkfifo(folder / "pipe-1.0.tar.gz")

    assert run("import", "acme/main", str(folder)).stdout == (
        "1 stored, 0 already there, 0 refused; skipped 3 other files.\n"
    )


def test_a_pipe_in_place_of_a_file_is_refused(run, repository, tmp_path):
    os.mkfifo(tmp_path / "pipe-1.0.tar.gz")

    result = run("import", "acme/main", str(tmp_path / "pipe-1.0.tar.gz"), status=1)

    assert "it is neither a file nor a folder" in result.stdout


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def fail(_folder):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("storage.importing.os.scandir", fail)  # the tests may run as root, who can read all

    [found] = walk([str(tmp_path)])

    assert found == (str(tmp_path), "unreadable", "Permission denied")


def test_a_file_that_cannot_be_read_is_refused(run, repository, tmp_path, monkeypatch):
    filename, content = make_wheel()
    path = lay(tmp_path, (filename, content)) / filename
    readable = Path.open

    def fail(self, *arguments, **options):
        if self == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return readable(self, *arguments, **options)

    monkeypatch.setattr(Path, "open", fail)

    assert "it cannot be read: Permission denied" in run("import", "acme/main", str(path), status=1).stdout


def test_a_full_storage_ends_the_import_and_what_was_done_is_said(run, repository, tmp_path, monkeypatch):
    def fail(self, *_arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Repository, "add_file", fail)
    folder = lay(tmp_path / "in", *(make_wheel(f"project{n}") for n in range(100)))

    result = run("import", "acme/main", str(folder), status=1)

    assert result.stdout == "0 stored, 0 already there, 0 refused.\n"
    assert result.stderr == f"Error: {StorageFull()}\n"
    assert list(repository.tree.temporary.iterdir()) == []


def test_an_interrupted_import_says_what_was_done(run, repository, tmp_path, monkeypatch):
    monkeypatch.setattr("storage.importing.import_all", interrupted)

    result = run("import", "acme/main", str(tmp_path), status=130)

    assert result.stdout == "1 stored, 0 already there, 0 refused.\n"
    assert result.stderr.endswith("Stopped.\n")


def interrupted(_repository, _sources, _actor, report):
    report.stored = 1
    yield
    raise KeyboardInterrupt


def test_an_import_shows_its_progress_on_a_terminal(repository, tmp_path, storage):
    folder = lay(tmp_path / "in", *(make_wheel(f"project{n}") for n in range(3)))

    shown = run_on_terminal("import", "acme/main", str(folder), "--storage", str(storage))

    assert "100%" in shown
    assert shown.endswith("3 stored, 0 already there, 0 refused.\n")


# --- check and trash ---


def test_a_storage_without_damage_is_as_it_should_be(run, add):
    add(*make_wheel())

    assert run("check").stdout == "Everything is as it should be.\n"
    assert run("check", "acme").stdout == "Everything is as it should be.\n"
    assert run("check", "acme/main").stdout == "Everything is as it should be.\n"


def test_damage_is_named_until_it_is_repaired(run, repository, add):
    sidecar = add(*make_wheel()).sidecar
    path = repository.tree.sidecar(sidecar.file.project, sidecar.file.filename)
    path.unlink()

    found = run("check", "acme/main", status=1)
    assert found.stdout.startswith(f"{path}: ")
    assert found.stdout.endswith("\n1 finding, 0 repaired.\n")

    assert run("check", "--repair").stdout.endswith("\n1 finding, 1 repaired.\n")
    assert run("check").stdout == "Everything is as it should be.\n"


def test_a_check_shows_its_progress_on_a_terminal_and_findings_in_lines_of_their_own(repository, storage, add):
    sidecar = add(*make_wheel()).sidecar
    path = repository.tree.sidecar(sidecar.file.project, sidecar.file.filename)
    path.unlink()

    shown = run_on_terminal("check", "--repair", "--storage", str(storage))

    assert "100%" in shown
    assert f"\x1b[K{path}: " in shown
    assert shown.endswith("1 finding, 1 repaired.\n")


def test_a_storage_that_lost_its_registry_file_is_repaired(run, registry, storage, repository):
    (storage / "registry.json").unlink()

    assert "run 'packhouse check --repair'" in error_of(run("check", status=1))

    assert "(repaired)" in run("check", "--repair").stdout
    assert run("check").stdout == "Everything is as it should be.\n"
    assert Registry(storage).repository("acme", "main")


def test_a_storage_of_a_later_format_is_never_repaired(run, registry, storage):
    file = storage / "registry.json"
    document = {**json.loads(file.read_text()), "format": 99, "secret_key": None}
    file.write_text(json.dumps(document))

    run("check", "--repair", status=1)

    assert json.loads(file.read_text()) == document


def test_the_trash_lists_deleted_files(run, repository, add):
    file = add(*make_wheel()).sidecar.file
    entry = repository.delete_file(file.project, file.filename, TESTER)

    [row] = rows_of(run("trash", "list", "acme/main"))

    assert row[:2] == [entry.id, file.filename]
    assert row[3:] == ["the command line", "restorable"]


# --- serve ---


def test_the_first_start_says_how_to_publish_and_install_and_the_second_where_it_is(tmp_path):
    first = start_server(tmp_path / "data")
    assert first.stop(signal.SIGTERM) == 0
    second = start_server(tmp_path / "data")
    assert second.stop(signal.SIGINT) == 0

    address = first.url.removeprefix("http://")
    index = f"http://__token__:{first.read_token}@{address}/my-organization/my-python-packages/pypi/simple"
    lines = first.output.splitlines()
    start = lines.index(
        f"curl -X POST {first.url}/api/v1/repos/my-organization/my-python-packages/packages.json \\"
    )
    assert lines[start + 1 : start + 3] == [
        f'  -u "{first.publishing_token}:" \\',
        '  -F "package[package_file]=@FILE"',
    ]
    assert f"pip install --extra-index-url {index} PACKAGE" in lines
    assert lines[lines.index("[global]") + 1] == f"extra-index-url = {index}"
    registry = Registry(tmp_path / "data")
    assert check_password_hash(registry.users.get("admin").password_hash, first.password)
    assert registry.tokens.authenticate(first.read_token).scopes == {Scope.READ_PACKAGES}
    assert Scope.WRITE_PACKAGES in registry.tokens.authenticate(first.publishing_token).scopes
    assert second.output.splitlines() == [f"Packhouse 0.1.0 serves {tmp_path / 'data'} at {second.url}"]


def test_what_the_first_start_prints_is_built_from_the_public_url(tmp_path):
    server = start_server(tmp_path / "data", env={"PACKHOUSE_PUBLIC_URL": "https://packages.example.com/"})
    server.stop()

    curl = (
        "curl -X POST https://packages.example.com/api/v1/repos/my-organization/my-python-packages/packages.json \\"
    )
    assert curl in server.output.splitlines()
    assert "https://__token__:" in server.output
    assert server.output.endswith(f" at {server.url}, for others at https://packages.example.com\n")


def test_a_taken_port_is_one_line_and_nothing_is_made(storage):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        result = packhouse(storage, "serve", "--port", str(port))

    assert result.returncode == 1
    assert result.stdout == ""
    assert re.fullmatch(
        rf"Error: cannot listen on 127.0.0.1 port {port}: Address already in use.*\n", result.stderr
    )
    assert not storage.exists()


def test_commands_work_beside_a_running_server(tmp_path):
    server = start_server(tmp_path / "data")
    try:
        made = packhouse(server.storage, "token", "create", "my-organization", "--scope", "read_packages")
        listed = packhouse(server.storage, "token", "list")
    finally:
        status = server.stop()

    assert (made.returncode, listed.returncode, status) == (0, 0, 0)
    assert len(listed.stdout.splitlines()) == 3


def test_serving_without_syncing_is_said_loudly(tmp_path):
    server = start_server(tmp_path / "data", env={"PACKHOUSE_UNSAFE_NO_FSYNC": "1"})
    server.stop()

    assert "WARNING: unsafe_no_fsync is on" in server.output


def wait_until_asleep(pid: int) -> None:
    """Wait until a process has been waiting for something in ten looks in a row."""
    asleep, deadline = 0, time.monotonic() + 20
    while asleep < 10:
        assert time.monotonic() < deadline
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0]
        asleep = asleep + 1 if state == "S" else 0
        time.sleep(0.02)


def test_ctrl_c_ends_a_question_with_130(repository, storage):
    command = program("repo", "delete", "acme/main", "--storage", str(storage))
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=program_environment()
    ) as process:
        process.stderr.read(5)  # of the question
        wait_until_asleep(process.pid)  # a signal between the question and the waiting would not end the waiting
        process.send_signal(signal.SIGINT)
        process.wait(10)

    assert process.returncode == 130
    assert repository.settings.name == "Main"


# --- logs ---


@pytest.fixture
def log(capsys, monkeypatch):
    """Log something as the server does and return what stands on standard error."""
    root = logging.getLogger()
    monkeypatch.setattr(root, "handlers", [])
    level = root.level

    def log(settings: Settings, write) -> str:
        serving.start_logging(settings)
        write(logging.getLogger("packhouse"))
        return capsys.readouterr().err

    yield log
    root.setLevel(level)


def test_a_logged_line_stays_one_line(log):
    written = log(Settings(), lambda logger: logger.info("GET %s", "/\nfake\x1b[2J"))

    assert re.fullmatch(r"\d{4}-\d\d-\d\d \S+ INFO    GET /\\nfake\\x1b\[2J\n", written)


def test_a_log_for_programs_is_one_object_a_line(log):
    def write(logger):
        logger.info("served", extra={"fields": {"status": 200}})
        try:
            1 / 0  # noqa: B018
        except ZeroDivisionError:
            logger.exception("failed")

    served, failed = map(json.loads, log(Settings(log_format="json"), write).splitlines())

    assert (served["level"], served["message"], served["status"]) == ("info", "served", 200)
    assert (failed["level"], "ZeroDivisionError" in failed["exception"]) == ("error", True)


def test_the_log_level_decides_what_is_logged(log):
    assert log(Settings(log_level="error"), lambda logger: logger.warning("soft")) == ""


# --- snippets ---


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("0.0.0.0", "http://127.0.0.1:80"),
        ("192.0.2.1", "http://192.0.2.1:80"),
        ("::", "http://[::1]:80"),
        ("::1", "http://[::1]:80"),
        ("box", "http://box:80"),
    ],
)
def test_a_bound_address_becomes_one_to_connect_to(host, url):
    assert snippets.local_url(host, 80) == url


def test_a_public_repository_needs_no_token_in_its_address():
    assert snippets.pip_command("https://example.com/py", "acme", "main", project="toolbox") == (
        "pip install --extra-index-url https://example.com/py/acme/main/pypi/simple toolbox"
    )


# --- a terminal ---


def run_on_terminal(*arguments: str, answers: list[str] | None = None) -> str:
    """Run a command to its end on a terminal, answering each of its questions, and return what is shown."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        program(*arguments),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=program_environment(TERM="xterm"),
        start_new_session=True,  # without /dev/tty, so that this terminal is asked for passwords
    )
    os.close(slave)
    shown, waiting = b"", list(answers or [])
    try:
        while piece := read_terminal(master):
            shown += piece
            if waiting and shown.endswith(b": "):
                time.sleep(0.05)  # until the echo is off
                os.write(master, waiting.pop(0).encode())
        assert process.wait(10) == 0, shown
    finally:
        process.kill()
        process.wait()
        os.close(master)
    return shown.decode().replace("\r\n", "\n")


def read_terminal(master: int) -> bytes:
    try:
        return os.read(master, 65_536)
    except OSError:  # how Linux says that the other side is closed
        return b""
