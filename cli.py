"""The command line: ``packhouse serve``, and what an administrator does beside it.

In order:

the program    _Program, _Command: options of every command, errors as one line
arguments      ORG/REPO, ORG=ROLE, 90d
output         tables, a progress bar
the storage    _settings, _open_registry
serve          what it does is in ``serving.py``
org, repo      organizations and repositories
user, token    people, and credentials for programs
import, check
yank, unyank, delete, status, promote, trash

Every command works beside a running server: it changes the storage, and the server reads the storage. What only one
command needs is imported in it, so that the others, and the server above all, start sooner.
"""

from __future__ import annotations

import gc
import os
import re
import secrets
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from settings import Settings, SettingsError, load_settings
from storage.errors import RepositoryNotFound, StorageDamaged, StorageError, printable
from storage.files import set_syncing
from storage.layout import StorageTree
from storage.locks import set_patient_threads
from storage.names import normalize_project, parse_version
from storage.registry import Registry, mend_registry_file
from storage.repository import Repository, RepositorySettings, project_of
from storage.sidecars import SERVER_VERSION, Actor
from storage.statuses import Status, parse_status
from storage.tokens import Scope, Token, parse_scopes
from storage.trash import TrashEntry
from storage.users import Role, parse_roles

if TYPE_CHECKING:
    from storage.importing import Report

# --- the program ---

INTERRUPTED = 130  # exit status; 128 + SIGINT, as shells have it


def _sentence(error: Exception) -> str:
    """What *error* says, in one line."""
    if isinstance(error, click.UsageError) and error.ctx is not None:
        return f"{error.format_message()} See '{error.ctx.command_path} --help'."
    if isinstance(error, click.ClickException):
        return error.format_message()
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


# What is said in one line instead of a traceback, and the exit status that goes with it.
_EXPECTED: dict[type[Exception], int] = {
    click.UsageError: 2,
    click.ClickException: 1,
    SettingsError: 1,
    StorageError: 1,
    OSError: 1,
}


def _say_error(error: Exception) -> int:
    """Say on standard error what went wrong and return the exit status.

    :raises Exception: *error* itself, if it is a mistake of ours: its traceback is what is needed then.
    """
    if isinstance(error, click.UsageError) and type(error).__name__ == "NoArgsIsHelpError":  # not in older click
        error.show()  # the help of a group that was called without a command
        return error.exit_code
    for kind, status in _EXPECTED.items():
        if isinstance(error, kind):
            click.echo(f"Error: {printable(' '.join(_sentence(error).split()))}", err=True)
            return status
    raise error


class _StorageOptions(click.Command):
    """Adds to a command, or to a group of them, the options that say where the storage is."""

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """Return the command's own parameters and the two of every command."""
        return [*super().get_params(ctx), *_STORAGE_OPTIONS]


def _remember(ctx: click.Context, param: click.Parameter, value: Path | None) -> None:
    """Keep an option for _settings(); the one that is nearest to the end of the command line counts."""
    if value is not None and param.name is not None:
        ctx.ensure_object(dict)[param.name] = value


_STORAGE_OPTIONS = [
    click.Option(
        ["--config"],
        type=click.Path(path_type=Path),
        metavar="FILE",
        expose_value=False,
        callback=_remember,
        help="The TOML file with the settings; see config.example.toml.",
    ),
    click.Option(
        ["--storage"],
        type=click.Path(path_type=Path),
        metavar="FOLDER",
        expose_value=False,
        callback=_remember,
        help="The folder of the storage. Default: ./data, or what the settings say.",
    ),
]


class _Command(_StorageOptions):
    """One command."""


class _Group(_StorageOptions, click.Group):
    """A group of commands, which are of the two classes here."""

    command_class = _Command
    group_class = type


class _Program(_Group):
    """The whole program; says what went wrong in one line, and exits with a status that tells."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        windows_expand_args: bool = True,
        **extra: Any,  # noqa: ANN401 - as click has it
    ) -> Any:  # noqa: ANN401 - as click has it
        """Run the program and exit."""
        extra = {"obj": {}, "windows_expand_args": windows_expand_args, **extra}
        status: object
        try:
            status = super().main(args, prog_name or "packhouse", complete_var, standalone_mode=False, **extra)
        except click.Abort as error:
            ended = isinstance(error.__cause__ or error.__context__, EOFError)
            click.echo("Error: the input ended before an answer." if ended else "Stopped.", err=True)
            status = 1 if ended else INTERRUPTED
        except Exception as error:
            status = _say_error(error)
        sys.exit(status if isinstance(status, int) else 0)


@click.group("packhouse", cls=_Program, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(SERVER_VERSION, prog_name="packhouse", message="%(prog)s %(version)s")
def program() -> None:
    """Packhouse, a self-hosted registry of Python packages.

    Start it with 'packhouse serve'. All other commands work beside a running server; what they list is a table on a
    terminal, and through a pipe one line for each with tabs between the columns.
    """


def main() -> None:
    """Run the command line."""
    program.main()


# --- arguments ---


def _repository_name(text: str) -> tuple[str, str]:
    """Read ORG/REPO."""
    org, slash, repo = text.partition("/")
    if not (org and slash and repo) or "/" in repo:
        raise click.BadParameter(f"{text!r} is not of the form ORG/REPO.")
    return org, repo


def _scope_of_work(text: str) -> tuple[str, str | None]:
    """Read ORG or ORG/REPO; None is for all repositories."""
    return _repository_name(text) if "/" in text else (text, None)


def _role(text: str) -> tuple[str, str]:
    """Read ORG=ROLE; the storage looks at what they are."""
    org, equals, role = text.partition("=")
    if not (org and equals and role):
        raise click.BadParameter(f"{text!r} is not of the form ORG=ROLE, ROLE being {', '.join(Role)}.")
    return org, role


_UNITS = {"h": timedelta(hours=1), "d": timedelta(days=1), "w": timedelta(weeks=1)}
_LONGEST = timedelta(weeks=5200)


def _duration(text: str) -> timedelta:
    """Read a time such as 12h, 90d or 52w."""
    match = re.fullmatch(r"([1-9][0-9]{0,5})([hdw])", text, re.ASCII)
    if match is None or int(match[1]) * _UNITS[match[2]] > _LONGEST:
        raise click.BadParameter(
            f"{text!r} is not a time such as 12h, 90d or 52w (hours, days, weeks; at most 5200w)."
        )
    return int(match[1]) * _UNITS[match[2]]


_repository_argument = click.argument("name", metavar="ORG/REPO", type=_repository_name)
_yes_option = click.option("--yes", is_flag=True, help="Do not ask.")
_description_option = click.option("--description", metavar="TEXT", help="What people read about it.")
_visibility_option = click.option(
    "--public/--private", default=None, help="May anyone read and install? Writing always needs a credential."
)


# --- output ---


def _print_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print a table for people on a terminal, and lines with tabs for programs elsewhere."""
    lines: list[Sequence[str]] = [[printable(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        for line in lines:
            click.echo("\t".join(line))
        return
    widths = [max(map(len, column)) for column in zip(header, *lines, strict=True)]
    for line in [header, *lines]:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _day(time: datetime | None) -> str:
    return "" if time is None else time.astimezone(UTC).strftime("%Y-%m-%d %H:%M")


def _counted(number: int, noun: str, plural: str = "") -> str:
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


class _Progress(NamedTuple):
    """A progress bar on a terminal; nothing elsewhere."""

    step: Callable[[], None]
    say: Callable[[str], None]  # prints a line without getting in the way of the bar


@contextmanager
def _progress(label: str, count: Callable[[], int]) -> Iterator[_Progress]:
    """Show a progress bar of *count* steps, which are counted only if it is shown."""
    if not sys.stderr.isatty():
        yield _Progress(lambda: None, click.echo)
        return

    def say(line: str) -> None:
        click.echo("\r\x1b[K", nl=False, err=True)
        click.echo(line)

    with click.progressbar(length=count(), label=label, file=sys.stderr) as bar:
        yield _Progress(lambda: bar.update(1), say)


# --- the storage ---


def _settings(**flags: object) -> Settings:
    """Return the settings for the command that is running."""
    named = click.get_current_context().ensure_object(dict)
    return load_settings(named.get("config"), os.environ, {"storage": named.get("storage"), **flags})


def _open_registry(settings: Settings | None = None, *, make: bool = False) -> Registry:
    """Open the storage; *make* it where there is none, instead of leaving one behind for a mistyped path.

    :raises SettingsError: if there is none.
    """
    settings = settings or _settings()
    if not make and not _holds_anything(settings.storage):
        raise SettingsError(
            f"there is no storage at {settings.storage}; name it with --storage, --config or PACKHOUSE_STORAGE, "
            "or make one with 'packhouse serve' or 'packhouse org create'"
        )
    set_syncing(not settings.unsafe_no_fsync)
    set_patient_threads(settings.threads // 2)
    if settings.unsafe_no_fsync:
        click.secho(
            "WARNING: unsafe_no_fsync is on: a power cut can destroy what was answered with success.",
            fg="red",
            bold=True,
            err=True,
        )
    return Registry(settings.storage, settings.limits, settings.lock_timeout)


def _holds_anything(folder: Path) -> bool:
    return folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir())


def _hash_password(password: str) -> str:
    # Here, since most commands need no password, and importing it takes longer than they do.
    from werkzeug.security import generate_password_hash

    return generate_password_hash(password)  # scrypt


# --- serve ---


@program.command()
@click.option("--host", help="Name or address to listen on. Default: 127.0.0.1.")
@click.option("--port", type=int, help="Port to listen on, 0 for any free one. Default: 8080.")
@click.option("--threads", type=int, help="How many requests a process works on at a time. Default: 16.")
@click.option(
    "--processes", type=int, help="How many processes serve; more than one where one is not enough. Default: 1."
)
def serve(**flags: str | int | None) -> None:
    """Run the server until Ctrl-C or SIGTERM; SIGHUP lets it read its configuration again.

    On an empty storage it makes an organization, a repository, a user and two tokens, and prints once how to use
    them.
    """
    # What is imported stays: looking for garbage among it would take a twentieth of the start, and time later on.
    gc.disable()
    import serving  # here, since the other commands are faster without flask

    gc.enable()
    gc.freeze()
    serving.serve(lambda: _settings(**flags), _open_registry, _hash_password)


# --- org ---


@program.group("org")
def organizations() -> None:
    """Organizations, the owners of repositories."""


@organizations.command("create")
@click.argument("name", metavar="ORG")
@click.option("--name", "display_name", metavar="TEXT", default="", help="What people read. Default: ORG.")
def org_create(name: str, display_name: str) -> None:
    """Make the organization ORG.

    ORG stands in addresses: lower-case letters, digits and single hyphens. Makes the storage too, if there is none.
    """
    _open_registry(make=True).create_organization(name, display_name)
    click.echo(f"Made the organization {name}.")


@organizations.command("list")
def org_list() -> None:
    """List the organizations and how many repositories each has."""
    registry = _open_registry()
    rows = [[o.slug, o.name, str(len(registry.repositories(o.slug)))] for o in registry.organizations()]
    _print_table(["ORG", "NAME", "REPOSITORIES"], rows)


@organizations.command("delete")
@click.argument("name", metavar="ORG")
@_yes_option
def org_delete(name: str, yes: bool) -> None:
    """Delete ORG with all its repositories, their files, and its tokens, for good."""
    registry = _open_registry()
    registry.organization(name)
    repositories = _counted(len(registry.repositories(name)), "repository", "repositories")
    _confirm(name, f"the organization {name} with {repositories}", yes)
    registry.delete_organization(name)
    click.echo(f"Deleted the organization {name}.")


def _confirm(name: str, what: str, yes: bool) -> None:
    """Have *name* typed before *what* is deleted.

    :raises ClickException: if something else is.
    """
    if yes:
        return
    question = f"This deletes {what}, for good. Type its name to go on"
    if click.prompt(question, err=True, default="", show_default=False) != name:
        raise click.ClickException(f"that is not {name!r}; nothing was deleted")


# --- repo ---


@program.group("repo")
def repositories() -> None:
    """Repositories, each with an index for pip."""


@repositories.command("create")
@_repository_argument
@_visibility_option
@click.option("--name", "display_name", metavar="TEXT", help="What people read. Default: REPO.")
@_description_option
def repo_create(
    name: tuple[str, str], public: bool | None, display_name: str | None, description: str | None
) -> None:
    """Make the repository REPO of ORG, private unless told otherwise.

    REPO stands in addresses: lower-case letters, digits and single hyphens.
    """
    settings = RepositorySettings(name=display_name or name[1], description=description or "", private=not public)
    repository = _open_registry().create_repository(*name, settings)
    repository.record("repository created", _ACTOR, name=settings.name, private=settings.private)
    click.echo(f"Made the {_visibility(settings)} repository {'/'.join(name)}.")


def _visibility(settings: RepositorySettings) -> str:
    return "private" if settings.private else "public"


@repositories.command("list")
@click.argument("org", required=False)
def repo_list(org: str | None) -> None:
    """List the repositories, all or those of ORG."""
    registry = _open_registry()
    organizations = registry.organizations() if org is None else [registry.organization(org)]
    repositories = [found for o in organizations for found in registry.repositories(o.slug)]
    _print_table(["REPOSITORY", "VISIBILITY", "NAME", "DESCRIPTION"], map(_repository_row, repositories))


def _repository_row(repository: Repository) -> list[str]:
    name = f"{repository.org}/{repository.slug}"
    try:
        settings = repository.settings
    except StorageDamaged:  # 'packhouse check' says how
        return [name, "damaged", "", ""]
    return [name, _visibility(settings), settings.name, settings.description]


@repositories.command("update")
@_repository_argument
@_visibility_option
@click.option("--name", "display_name", metavar="TEXT", help="What people read.")
@_description_option
@click.option(
    "--reuse-filenames/--no-reuse-filenames",
    default=None,
    help="May other bytes take the name of a deleted file?",
)
@click.option(
    "--strict-record/--no-strict-record",
    default=None,
    help="Must the RECORD of a wheel agree with what is in the wheel?",
)
def repo_update(
    name: tuple[str, str], public: bool | None, display_name: str | None, **others: str | bool | None
) -> None:
    """Change settings of a repository; what is not named stays."""
    values = {"private": None if public is None else not public, "name": display_name, **others}
    change: dict[str, object] = {key: value for key, value in values.items() if value is not None}
    if not change:
        raise click.UsageError("Nothing to change.", click.get_current_context())
    repository = _open_registry().repository(*name)
    repository.change_settings(change)
    repository.record("settings changed", _ACTOR, settings=", ".join(sorted(change)))
    click.echo(f"Changed {'/'.join(name)}.")


@repositories.command("delete")
@_repository_argument
@_yes_option
def repo_delete(name: tuple[str, str], yes: bool) -> None:
    """Delete a repository with all its files and the tokens for it alone, for good."""
    registry = _open_registry()
    projects = _counted(len(registry.repository(*name).projects()), "project")
    _confirm("/".join(name), f"the repository {'/'.join(name)} with {projects}", yes)
    registry.delete_repository(*name)
    click.echo(f"Deleted the repository {'/'.join(name)}.")


# --- user ---

MIN_PASSWORD_LENGTH = 8  # characters
MAX_PASSWORD_LENGTH = 1024  # characters


def _password_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the two ways to give a password other than typing it."""
    from_stdin = click.option("--password-stdin", is_flag=True, help="Read the password from standard input.")
    generated = click.option("--generate-password", is_flag=True, help="Make a password up and print it.")
    return from_stdin(generated(command))


@program.group("user")
def users() -> None:
    """People, who sign in with a name and a password."""


@users.command("create")
@click.argument("name")
@click.option(
    "--role",
    "roles",
    metavar="ORG=ROLE",
    type=_role,
    multiple=True,
    required=True,
    help="What the user may do in an organization: reader, writer or admin. Can be given several times.",
)
@_password_options
def user_create(name: str, roles: list[tuple[str, str]], password_stdin: bool, generate_password: bool) -> None:
    """Make a user.

    On a terminal the password is asked for; it has at least 8 characters.
    """
    registry = _open_registry()
    held = parse_roles(registry.roles_for(roles))
    password = _password(stdin=password_stdin, generate=generate_password)
    registry.users.create(name, _hash_password(password), held)
    click.echo(f"Made the user {name}.", err=True)
    if generate_password:
        click.echo(password)


@users.command("list")
def user_list() -> None:
    """List the users and their roles."""
    rows = [
        [u.name, " ".join(f"{o}={r}" for o, r in sorted(u.roles.items()))] for u in _open_registry().users.list()
    ]
    _print_table(["USER", "ROLES"], rows)


@users.command("passwd")
@click.argument("name")
@_password_options
def user_passwd(name: str, password_stdin: bool, generate_password: bool) -> None:
    """Give a user another password.

    On a terminal it is asked for; it has at least 8 characters. Tokens stay good.
    """
    registry = _open_registry()
    registry.users.get(name)
    password = _password(stdin=password_stdin, generate=generate_password)
    registry.users.change_password(name, _hash_password(password))
    click.echo(f"Changed the password of {name}.", err=True)
    if generate_password:
        click.echo(password)


@users.command("role")
@click.argument("name")
@click.argument("roles", metavar="ORG=ROLE...", type=_role, nargs=-1, required=True)
def user_role(name: str, roles: list[tuple[str, str]]) -> None:
    """Change what a user may do in an organization: reader, writer, admin or none."""
    registry = _open_registry()
    given = [(org, role) for org, role in roles if role != "none"]
    changes: dict[str, Role | None] = {org: None for org, role in roles if role == "none"}
    changes.update(parse_roles(registry.roles_for(given)))
    for org, role in changes.items():
        registry.users.change_role(name, org, role)
    click.echo(f"Changed the roles of {name}.")


@users.command("delete")
@click.argument("name")
def user_delete(name: str) -> None:
    """Delete a user and the user's tokens; what the user published stays."""
    _open_registry().delete_user(name)
    click.echo(f"Deleted the user {name}.")


def _password(*, stdin: bool, generate: bool) -> str:
    """Return the password that is given, made up, or typed twice.

    :raises ClickException: if there is none, or it is not good enough.
    """
    if stdin and generate:
        raise click.UsageError(
            "Choose one of --password-stdin and --generate-password.", click.get_current_context()
        )
    if generate:
        return secrets.token_urlsafe(12)
    if stdin:
        password = _read_password()
    elif sys.stdin.isatty():
        password = click.prompt("Password", hide_input=True, confirmation_prompt="Once more", err=True)
    else:
        raise click.UsageError(
            "There is no terminal to ask for a password; use --password-stdin or --generate-password.",
            click.get_current_context(),
        )
    if not MIN_PASSWORD_LENGTH <= len(password) <= MAX_PASSWORD_LENGTH:
        raise click.ClickException(
            f"the password must have at least {MIN_PASSWORD_LENGTH} and at most {MAX_PASSWORD_LENGTH} characters"
        )
    return password


def _read_password() -> str:
    line = sys.stdin.buffer.readline(4 * MAX_PASSWORD_LENGTH + 2)  # the longest in UTF-8, and the end of the line
    try:
        return line.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise click.ClickException("the password on standard input is not UTF-8") from error


# --- token ---


@program.group("token")
def tokens() -> None:
    """Tokens, the credentials of programs such as pip, curl and twine."""


@tokens.command("create")
@click.argument("name", metavar="ORG[/REPO]", type=_scope_of_work)
@click.option(
    "--scope",
    "scopes",
    metavar="SCOPE",
    multiple=True,
    required=True,
    help=f"What it may do: {', '.join(Scope)}. Can be given several times, or with commas.",
)
@click.option("--description", metavar="TEXT", default="", help="What it is for.")
@click.option(
    "--expires", "lifetime", metavar="TIME", type=_duration, help="When it ends, such as 12h, 90d or 52w."
)
def token_create(
    name: tuple[str, str | None], scopes: list[str], description: str, lifetime: timedelta | None
) -> None:
    """Make a token for a repository, or for all of an organization, and print it.

    Standard output is the token and nothing else. It cannot be shown again.
    """
    registry = _open_registry()
    org, repo = _existing(registry, name)
    wanted = parse_scopes(scope.strip() for given in scopes for scope in given.split(","))
    made, text = registry.tokens.create(org, repo, wanted, _ACTOR, description=description, lifetime=lifetime)
    if repo is not None:
        registry.repository(org, repo).record("token created", _ACTOR, description=description, token=made.id)
    click.echo(f"Made the token {made.id}; it is not shown again.", err=True)
    click.echo(text)


@tokens.command("list")
@click.argument("name", metavar="[ORG[/REPO]]", type=_scope_of_work, required=False)
def token_list(name: tuple[str, str | None] | None) -> None:
    """List the tokens: all, those of an organization, or those for one repository alone."""
    registry = _open_registry()
    org, repo = (None, None) if name is None else _existing(registry, name)
    header = ["ID", "FOR", "SCOPES", "DESCRIPTION", "MADE", "EXPIRES", "LAST USED"]
    _print_table(header, (_token_row(registry, token) for token in registry.tokens.list(org, repo)))


def _token_row(registry: Registry, token: Token) -> list[str]:
    use = registry.tokens.last_use(token.id)
    return [
        token.id,
        token.org if token.repo is None else f"{token.org}/{token.repo}",
        ",".join(sorted(token.scopes)),
        token.description,
        _day(token.created_at),
        "expired" if token.is_expired else _day(token.expires_at) or "never",
        _day(use.when) if use else "never",
    ]


@tokens.command("revoke")
@click.argument("token_id", metavar="ID")
def token_revoke(token_id: str) -> None:
    """Make a token worthless at once; 'packhouse token list' shows the IDs."""
    registry = _open_registry()
    token = registry.tokens.get(token_id)
    registry.tokens.revoke(token_id)
    if token.repo is not None:
        with suppress(RepositoryNotFound):
            repository = registry.repository(token.org, token.repo)
            repository.record("token revoked", _ACTOR, description=token.description, token=token_id)
    click.echo(f"Revoked the token {token_id}.")


def _existing(registry: Registry, name: tuple[str, str | None]) -> tuple[str, str | None]:
    """Return *name*, after looking that there is such an organization or repository.

    :raises NotFound: if there is not.
    """
    org, repo = name
    if repo is None:
        registry.organization(org)
    else:
        registry.repository(org, repo)
    return name


# --- import ---

_ACTOR = Actor("command line")


@program.command("import")
@_repository_argument
@click.argument("sources", metavar="FILE_OR_FOLDER...", nargs=-1, required=True)
def import_files(name: tuple[str, str], sources: tuple[str, ...]) -> None:
    """Publish wheels and sdists from this machine in a repository.

    From folders, and the folders in them, it takes every *.whl, *.tar.gz and *.zip; names that start with a dot are
    passed over. Says at the end what was stored, what was there already, and what was refused and why; exits with 1
    if anything was. Can be run again.
    """
    from storage.importing import Report, import_all, walk

    repository = _open_registry().repository(*name)
    report = Report()
    try:
        with _progress("Importing", lambda: sum(source.kind == "file" for source in walk(sources))) as progress:
            for _ in import_all(repository, sources, _ACTOR, report):
                progress.step()
    finally:  # also after Ctrl-C, or with a full disk
        _print_report(report)
    if report.refused:
        click.get_current_context().exit(1)


@program.command("check-file")
@click.argument("files", metavar="FILE...", nargs=-1, required=True, type=click.Path(path_type=Path))
def check_files(files: tuple[Path, ...]) -> None:
    """Say whether wheels and sdists would be accepted, with every reason against them; needs no server.

    Prints a line for each FILE that is fine and one for each reason against another; exits with 1 if there are any.
    """
    from storage.distributions import find_reasons

    limits = _settings().limits
    refused = False
    for path in files:
        with path.open("rb") as file:
            reasons = find_reasons(file, path.name, limits=limits)
        refused |= bool(reasons)
        for reason in reasons:
            click.echo(f"{printable(str(path))}: {printable(reason)}")
        if not reasons:
            click.echo(f"{printable(str(path))}: ok")
    if refused:
        click.get_current_context().exit(1)


def _print_report(report: Report) -> None:
    for path, reason in report.refused:
        click.echo(f"refused {printable(path)}: {printable(reason)}")
    skipped = f"; skipped {_counted(report.skipped, 'other file')}" if report.skipped else ""
    counts = f"{report.stored:,} stored, {report.present:,} already there, {len(report.refused):,} refused"
    click.echo(f"{counts}{skipped}.")


# --- check ---


@program.command(short_help="Read every file and name what is damaged, missing or stray.")
@click.argument("name", metavar="[ORG[/REPO]]", type=_scope_of_work, required=False)
@click.option("--repair", is_flag=True, help="Rebuild what the artifacts tell; never deletes an artifact.")
def check(name: tuple[str, str | None] | None, repair: bool) -> None:
    """Read every file, compare it with what is known of it, and name what is damaged, missing or stray.

    Of the whole storage, of an organization or of a repository. Exits with 1 if something is wrong that was not
    repaired.
    """
    from storage.checking import artifact_count, check_storage

    settings = _settings()
    if repair and _holds_anything(settings.storage) and mend_registry_file(settings.storage):
        click.echo(f"{StorageTree(settings.storage).registry_file}: was lost (repaired); who was signed in is not")
    registry = _open_registry(settings)
    org, repo = (None, None) if name is None else _existing(registry, name)
    repaired: Counter[bool] = Counter()
    with _progress("Checking", lambda: artifact_count(registry, org, repo)) as progress:
        for finding in check_storage(registry, org, repo, repair=repair, progress=progress.step):
            progress.say(printable(str(finding)))
            repaired[finding.repaired] += 1
    click.echo(_summary(wrong=repaired[False], repaired=repaired[True]))
    if repaired[False]:
        click.get_current_context().exit(1)


def _summary(*, wrong: int, repaired: int) -> str:
    if not wrong and not repaired:
        return "Everything is as it should be."
    return f"{_counted(wrong + repaired, 'finding')}, {repaired:,} repaired."


# --- files and projects ---


@program.command()
@_repository_argument
@click.argument("what", metavar="FILENAME|PROJECT==VERSION")
@click.option("--reason", metavar="TEXT", default="", help="Why; pip shows it to whoever installs it all the same.")
def yank(name: tuple[str, str], what: str, reason: str) -> None:
    """Yank a file, or every file of a release.

    It stays listed and can be downloaded, but pip takes it only where that very version is asked for.
    """
    _change_yank(name, what, reason)


@program.command()
@_repository_argument
@click.argument("what", metavar="FILENAME|PROJECT==VERSION")
def unyank(name: tuple[str, str], what: str) -> None:
    """Take back that a file, or a release, is yanked."""
    _change_yank(name, what, None)


def _change_yank(name: tuple[str, str], what: str, reason: str | None) -> None:
    """Yank what is named, or with None take that back, and say what it was."""
    repository = _open_registry().repository(*name)
    project, equals, version = what.partition("==")
    if equals:
        release = normalize_project(project.strip()), parse_version(version.strip())
        changed = repository.yank_release(*release, reason, _ACTOR)
    elif reason is None:
        changed = [repository.unyank_file(project_of(what), what, _ACTOR)]
    else:
        changed = [repository.yank_file(project_of(what), what, reason, _ACTOR)]
    for sidecar in changed:
        click.echo(f"{'Unyanked' if reason is None else 'Yanked'} {sidecar.file.filename}.")


@program.command()
@_repository_argument
@click.argument("filename")
@_yes_option
def delete(name: tuple[str, str], filename: str, yes: bool) -> None:
    """Move a file to the trash, from which it can be restored."""
    repository = _open_registry().repository(*name)
    project = project_of(filename)
    repository.any_sidecar(project, filename)
    if not yes:
        click.confirm(f"Delete {filename} from {'/'.join(name)}?", abort=True, err=True)
    entry = repository.delete_file(project, filename, _ACTOR)
    click.echo(f"Deleted {filename}; its ID in the trash is {entry.id}.")


@program.command()
@_repository_argument
@click.argument("project")
@click.argument("status", metavar="[STATUS]", type=click.Choice([str(one) for one in Status]), required=False)
@click.option("--reason", metavar="TEXT", help="Why; it stands on the index page.")
def status(name: tuple[str, str], project: str, status: str | None, reason: str | None) -> None:
    """Show the status of a project, or give it another one.

    An archived project takes no uploads, a deprecated one is only said to be so, a quarantined one takes no uploads
    and offers no files. All others are active.
    """
    repository = _open_registry().repository(*name)
    normalized = normalize_project(project)
    if status is None:
        if reason is not None:
            raise click.UsageError("A reason goes with a status.", click.get_current_context())
        held = repository.project(normalized).status
        click.echo(printable(f"{held.status}: {held.reason}" if held.reason else str(held.status)))
        return
    repository.change_status(normalized, parse_status(status, reason or ""), _ACTOR)
    click.echo(f"{normalized} is {status} now.")


@program.command()
@_repository_argument
@click.argument("filename")
@click.argument("destination", metavar="ORG/REPO", type=_repository_name)
def promote(name: tuple[str, str], filename: str, destination: tuple[str, str]) -> None:
    """Move a file from the first repository to the second.

    It takes along that it is yanked, and leaves its download counts behind.
    """
    registry = _open_registry()
    source, target = registry.repository(*name), registry.repository(*destination)
    registry.promote_file(source, target, project_of(filename), filename, _ACTOR)
    click.echo(f"Moved {filename} from {'/'.join(name)} to {'/'.join(destination)}.")


# --- trash ---


@program.group()
def trash() -> None:
    """Deleted files."""


@trash.command("list")
@_repository_argument
def trash_list(name: tuple[str, str]) -> None:
    """List the deleted files of a repository; of purged ones only the name is left."""
    entries = _open_registry().repository(*name).trash()
    _print_table(["ID", "FILE", "DELETED", "BY", "STATE"], map(_trash_row, entries))


def _trash_row(entry: TrashEntry) -> list[str]:
    state = "purged" if entry.purged else "restorable"
    return [entry.id, entry.sidecar.file.filename, _day(entry.deleted_at), str(entry.deleted_by), state]


@trash.command("restore")
@_repository_argument
@click.argument("wanted", metavar="ID|FILENAME")
def trash_restore(name: tuple[str, str], wanted: str) -> None:
    """Bring a deleted file back, yanked if it was."""
    repository = _open_registry().repository(*name)
    entry = _one_deleted(_deleted(repository, wanted), wanted)
    repository.restore_file(entry.sidecar.file.project, entry.id, _ACTOR)
    click.echo(f"Restored {entry.sidecar.file.filename}.")


@trash.command("purge")
@_repository_argument
@click.argument("wanted", metavar="[ID|FILENAME]", required=False)
@click.option(
    "--older-than",
    "age",
    metavar="TIME",
    type=_duration,
    help="Purge what was deleted longer ago than, say, 12h, 30d or 52w.",
)
@click.option("--all", "everything", is_flag=True, help="Purge all of it.")
@_yes_option
def trash_purge(
    name: tuple[str, str], wanted: str | None, age: timedelta | None, everything: bool, yes: bool
) -> None:
    """Remove the bytes of deleted files for good; their names stay taken."""
    if (wanted is not None) + (age is not None) + everything != 1:
        raise click.UsageError("Name a file, or give one of --older-than and --all.", click.get_current_context())
    repository = _open_registry().repository(*name)
    entries = _deleted(repository, wanted)
    if wanted is not None and not entries:
        raise _not_in_trash(wanted)
    if age is not None:
        before = datetime.now(UTC) - age
        entries = [entry for entry in entries if entry.deleted_at < before]
    files = _counted(len(entries), "deleted file")
    if entries and not yes:
        click.confirm(f"Remove {files} of {'/'.join(name)} for good?", abort=True, err=True)
    for entry in entries:
        repository.purge_file(entry.sidecar.file.project, entry.id, _ACTOR)
    click.echo(f"Purged {files}.")


def _deleted(repository: Repository, wanted: str | None) -> list[TrashEntry]:
    """Return the deleted files that are not purged yet: all, or those with *wanted* as their id or name."""
    left = [entry for entry in repository.trash() if not entry.purged]
    return [entry for entry in left if wanted in (None, entry.id, entry.sidecar.file.filename)]


def _not_in_trash(wanted: str) -> click.ClickException:
    return click.ClickException(f"the trash holds no file {wanted!r}, or it is purged already")


def _one_deleted(entries: list[TrashEntry], wanted: str) -> TrashEntry:
    """Return the only one of *entries*.

    :raises ClickException: if there is none, or there are several.
    """
    if not entries:
        raise _not_in_trash(wanted)
    if len(entries) > 1:
        ids = ", ".join(entry.id for entry in entries)
        raise click.ClickException(f"{wanted} was deleted more than once; name one by its ID: {ids}")
    return entries[0]


if __name__ == "__main__":
    main()
