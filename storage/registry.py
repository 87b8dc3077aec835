"""The registry: organizations and their repositories, people and tokens. Where ``app.py`` and ``cli.py`` come in.

A storage is a folder; several processes may share it. Nothing is kept here that another process could make stale.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterable
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeGuard

from packaging.utils import NormalizedName

from storage.catalog import Catalog
from storage.damage import report_damage
from storage.downloads import DownloadCounter, drop_downloads
from storage.errors import (
    AlreadyExists,
    InvalidName,
    InvalidValue,
    OrganizationNotFound,
    RepositoryNotFound,
    StorageDamaged,
    StorageError,
    TokenNotFound,
    UserNotFound,
)
from storage.failures import SignInFailures
from storage.files import (
    directory_entries,
    discard_directory,
    draft_directory,
    encode_json,
    is_directory,
    is_regular,
    make_directories,
    make_directory,
    move_directory,
    read_json,
    remove_file,
    replace_file,
    status_of,
    subdirectories,
    sweep,
    sync_directory,
    write_new,
)
from storage.layout import RepositoryTree, StorageTree
from storage.limits import Limits
from storage.locks import LOCK_TIMEOUT, lock
from storage.names import check_organization_slug, check_repository_slug, is_slug
from storage.publishing import Claims
from storage.repository import Repository, RepositorySettings
from storage.rights import Caller
from storage.sidecars import Actor, Sidecar, format_time, new_id, now
from storage.summaries import Summaries
from storage.tokens import TokenStore
from storage.uploads import copy_into
from storage.users import UserStore

log = logging.getLogger("packhouse.storage")

FORMAT_VERSION = 1
KEPT_CATALOGS = 64


@dataclass(frozen=True, slots=True)
class Organization:
    """An owner of repositories."""

    slug: str
    name: str  # as a person typed it
    id: str  # UUIDv7
    created_at: str


class Registry:
    """All that one storage holds."""

    def __init__(self, root: Path, limits: Limits | None = None, lock_timeout: float = LOCK_TIMEOUT) -> None:
        """Open the storage at *root*, making it if there is nothing yet.

        :raises StorageDamaged: if it is not empty, yet not a storage, or one of a later format.
        :raises OSError: if it cannot be read or written.
        """
        # The storage itself may be a link, to another disk for example; nothing below it may be one.
        root = root.resolve()
        self.tree = StorageTree(root)
        self.limits = limits or Limits()
        self.lock_timeout = lock_timeout  # seconds
        self.users = UserStore(self.tree, lock_timeout)
        self.tokens = TokenStore(self.tree)
        self.downloads = DownloadCounter()
        self.failures = SignInFailures(self.tree.failures)
        self._catalogs: dict[Path, Catalog] = {}
        self._summaries: dict[Path, Summaries] = {}
        make_directories(root)
        if not is_regular(self.tree.registry_file):
            with lock(self.tree.lock_file, "the storage", lock_timeout):
                if not is_regular(self.tree.registry_file):
                    self._initialize()
        self.secret_key = self._read_secret_key()

    def _initialize(self) -> None:
        """Make ``registry.json`` in an empty folder."""
        strangers = {entry.name for entry in directory_entries(self.tree.root)} - {"lost+found"}  # a disk's own
        if strangers:
            reason = f"is missing, and {self.tree.root} is not empty ({min(strangers)!r} is in it)"
            remedy = (
                "restore it from a backup, run 'packhouse check --repair', or name an empty folder as the storage"
            )
            raise StorageDamaged(str(self.tree.registry_file), reason, remedy)
        write_registry_file(self.tree)

    def _read_secret_key(self) -> str:
        path = self.tree.registry_file
        try:
            document = read_json(path)
            key = document["secret_key"]
            if not _is_secret_key(key):
                raise ValueError("no secret key")
        except (ValueError, KeyError) as error:
            remedy = "restore it from a backup or run 'packhouse check --repair'"
            raise StorageDamaged(str(path), f"is damaged ({error})", remedy) from error
        if document.get("format") != FORMAT_VERSION:
            raise StorageDamaged(str(path), "is of an unknown format", "use the version of Packhouse that wrote it")
        return key

    def sweep(self) -> int:
        """Remove old leftovers of crashes; costs the same however many projects there are. Return their number.

        Also purges what the trash has kept for as long as it was to.
        """
        removed = sweep(self.tree.root) + sweep(self.tree.users) + sweep(self.tree.tokens)
        for organization in self.organizations():
            removed += sweep(self.tree.organization(organization.slug))
            if is_regular(self.tree.renaming_file(organization.slug)):
                with self._lock():
                    self._finish_renaming(organization.slug)
            for repository in self.repositories(organization.slug):
                removed += sweep(repository.tree.temporary)
                _purge_expired(repository)
        return removed

    # --- organizations ---

    def organizations(self) -> list[Organization]:
        """Return the organizations, by slug; a damaged one hides itself."""
        found = []
        for slug in sorted(subdirectories(self.tree.root)):
            try:
                found.append(self.organization(slug))
            except (OrganizationNotFound, StorageDamaged):
                continue
        return found

    def organization(self, org: str) -> Organization:
        """Return one organization.

        :raises OrganizationNotFound: if there is none of that name.
        :raises StorageDamaged: if its file does not parse.
        """
        path = self.tree.organization_file(org)
        try:
            document = read_json(path) if self._is_organization(org) else None
        except (FileNotFoundError, NotADirectoryError) as error:
            raise OrganizationNotFound(org) from error
        except ValueError as error:
            raise StorageDamaged(str(path), f"is damaged ({error})", "restore it from a backup") from error
        if document is None:
            raise OrganizationNotFound(org)
        name, org_id, created_at = (str(document.get(key, "")) for key in ("name", "id", "created_at"))
        return Organization(org, name or org, org_id, created_at)

    def create_organization(self, org: str, name: str = "") -> Organization:
        """Make an organization; on disk when this returns.

        :raises InvalidName: if none can be called so.
        :raises AlreadyExists: if one is.
        """
        organization = Organization(check_organization_slug(org), name or org, new_id(now()), format_time(now()))
        document = {"format": FORMAT_VERSION, **asdict(organization)}
        with self._lock(), draft_directory(self.tree.root) as draft:
            if status_of(self.tree.organization(org)) is not None:
                raise AlreadyExists("organization", org)
            write_new(draft / "organization.json", encode_json(document))
            self._forget_organization(org)  # what a deletion left that was killed
            sync_directory(draft)
            move_directory(draft, self.tree.organization(org))  # commit
        return organization

    def delete_organization(self, org: str) -> None:
        """Remove an organization with all its repositories and tokens, and everybody's role in it.

        :raises OrganizationNotFound: if there is none of that name.
        """
        with self._lock():
            self.organization(org)
            discard_directory(self.tree.organization(org), self.tree.root)  # commit
        # Where this is not reached, create_organization() sees to it before the name means anything again.
        self._forget_organization(org)

    # --- repositories ---

    def repositories(self, org: str) -> list[Repository]:
        """Return the repositories of an organization, by slug, those with damaged settings among them."""
        slugs = sorted(subdirectories(self.tree.organization(org))) if self._is_organization(org) else []
        found = [self._repository(self.tree.repository(org, slug), org, slug) for slug in slugs if is_slug(slug)]
        return [repository for repository in found if is_regular(repository.tree.repository_file)]

    def repository(self, org: str, repo: str) -> Repository:
        """Return one repository.

        :raises RepositoryNotFound: if there is none of that name.
        """
        repository = self._repository_in_folder(org, repo)
        if not is_regular(repository.tree.repository_file):
            raise RepositoryNotFound(org, repo)
        return repository

    def repository_with_settings(self, org: str, repo: str) -> tuple[Repository, RepositorySettings]:
        """Return one repository and its settings: every request asks, and both are told by one look at their file.

        :raises RepositoryNotFound: if there is none of that name.
        :raises StorageDamaged: if the settings do not parse.
        """
        repository = self._repository_in_folder(org, repo)
        return repository, repository.settings

    def create_repository(self, org: str, repo: str, settings: RepositorySettings) -> Repository:
        """Make a repository; on disk when this returns.

        :raises InvalidName: if none can be called so.
        :raises OrganizationNotFound: if there is no such organization.
        :raises AlreadyExists: if there is one of that name.
        """
        check_repository_slug(repo)
        with self._lock():
            self.organization(org)
            tree = self.tree.repository(org, repo)
            if status_of(tree.root) is not None:
                raise AlreadyExists("repository", f"{org}/{repo}")
            self._finish_renaming(org)
            with draft_directory(self.tree.organization(org)) as folder:
                self._fill(RepositoryTree(folder), settings)
                self._revoke_tokens(org, repo)  # what a deletion left that was killed
                sync_directory(folder)
                move_directory(folder, tree.root)  # commit
        return self._repository(tree, org, repo)

    def rename_repository(self, org: str, repo: str, new: str) -> Repository:
        """Give a repository another name, and so another address; its tokens follow. On disk when this returns.

        :raises InvalidName: if none can be called so.
        :raises RepositoryNotFound: if there is none of that name.
        :raises AlreadyExists: if there is one called *new*.
        """
        check_repository_slug(new)
        with self._lock():
            self._finish_renaming(org)
            source, target = self.repository(org, repo).tree, self.tree.repository(org, new)
            if status_of(target.root) is not None:
                raise AlreadyExists("repository", f"{org}/{new}")
            self._revoke_tokens(org, new)  # what a deletion left that was killed
            self.downloads.flush()  # while their place is there
            replace_file(self.tree.renaming_file(org), encode_json({"from": repo, "to": new}))
            move_directory(source.root, target.root)  # commit
            self._finish_renaming(org)
        return self._repository(target, org, new)

    def _finish_renaming(self, org: str) -> None:
        """Let the tokens follow a repository that was renamed, be it before we were killed. Needs the lock."""
        path = self.tree.renaming_file(org)
        try:
            document = read_json(path)
            old, new = str(document["from"]), str(document["to"])
        except FileNotFoundError:
            return
        except (ValueError, KeyError) as error:
            report_damage(path, str(error))
        else:
            there = is_slug(old) and is_slug(new) and is_directory(self.tree.repository(org, new).root)
            if there and not is_directory(self.tree.repository(org, old).root):
                self.tokens.follow_repository(org, old, new)
        remove_file(path)

    def delete_repository(self, org: str, repo: str) -> None:
        """Remove a repository with all its files, and the tokens for it alone.

        :raises RepositoryNotFound: if there is none of that name.
        """
        with self._lock():
            repository = self.repository(org, repo)
            discard_directory(repository.tree.root, self.tree.organization(org))  # commit
        # Where this is not reached, create_repository() sees to it before the name means anything again.
        self._revoke_tokens(org, repo)

    def catalog(self, repository: Repository) -> Catalog:
        """Return the list of all files of a repository, as far as this process has seen them."""
        root = repository.tree.root
        if root not in self._catalogs and len(self._catalogs) >= KEPT_CATALOGS:
            self._catalogs.pop(next(iter(self._catalogs)), None)
        return self._catalogs.setdefault(root, Catalog(repository.tree))

    def summaries(self, repository: Repository) -> Summaries:
        """Return the list of the projects of a repository, as far as this process has seen them."""
        root = repository.tree.root
        if root not in self._summaries and len(self._summaries) >= KEPT_CATALOGS:
            self._summaries.pop(next(iter(self._summaries)), None)
        return self._summaries.setdefault(root, Summaries(repository.tree))

    def promote_file(
        self, source: Repository, destination: Repository, project: NormalizedName, filename: str, actor: Actor
    ) -> Sidecar:
        """Move a file to another repository, never losing it on the way: there first, then gone here.

        It takes its yank state and its attestations along. It goes to the source's trash, so its name stays taken
        there; its download counts are forgotten.

        :raises FileNotFound: if it is not there, or damaged.
        :raises InvalidDistribution, FileAlreadyExists, ProjectClosed: if the destination cannot take it.
        """
        if source.tree == destination.tree:
            raise InvalidValue("destination", "must be another repository")
        file, content = source.open_file(project, filename)
        with content, closing(destination.receive()) as incoming:
            copy_into(incoming, content)
            moved = destination.add_file(
                incoming,
                filename,
                actor,
                claims=Claims(sha256=file.sha256),  # what is damaged here must not look whole there
                attestations=source.attestations(project, filename),
                yanked_reason=file.yanked_reason,
            )
        source.delete_file(project, filename, actor)
        self.downloads.flush()
        drop_downloads(source.tree, project, filename)
        facts = {"project": project, "version": file.version, "filename": filename}
        source.record("promoted", actor, **facts, to=f"{destination.org}/{destination.slug}")
        destination.record("promoted", actor, **facts, origin=f"{source.org}/{source.slug}")
        return moved.sidecar

    # --- people ---

    def delete_user(self, name: str) -> None:
        """Remove a user and that user's tokens.

        :raises UserNotFound: if there is none of that name.
        """
        self.users.get(name)
        for token in self.tokens.list():
            if token.user == name:
                self.tokens.revoke(token.id)
        self.users.delete(name)

    def caller_of_token(self, text: str) -> Caller | None:
        """Return who sends the token *text*; None if it is not good (any more)."""
        token = self.tokens.authenticate(text)
        if token is None:
            return None
        if token.user is None:
            return Caller(token, None)
        try:
            return Caller(token, self.users.get(token.user))
        except (UserNotFound, StorageDamaged):
            return None

    def paths_of_caller(self, caller: Caller) -> list[Path]:
        """Return the files that say what the *caller* may do; who changes or removes them changes that."""
        paths = [self.tree.token_file(caller.token.id)] if caller.token is not None else []
        return paths + ([self.tree.user_file(caller.user.name)] if caller.user is not None else [])

    def roles_for(self, pairs: Iterable[tuple[str, str]]) -> dict[str, str]:
        """Return *pairs* of organization and role as a mapping, after looking that the organizations are there.

        :raises OrganizationNotFound: if one is not.
        """
        return {self.organization(org).slug: role for org, role in pairs}

    # --- pieces ---

    def _is_organization(self, org: str) -> bool:
        try:
            check_organization_slug(org)
        except InvalidName:
            return False
        return is_directory(self.tree.organization(org)) and is_regular(self.tree.organization_file(org))

    def _repository_in_folder(self, org: str, repo: str) -> Repository:
        """Return what may be a repository: the folder is there, and its file has not been looked at.

        :raises RepositoryNotFound: if the folder is not there.
        """
        tree = self.tree.repository(org, repo)
        # A link instead of a folder could lead out of the storage.
        if not (self._is_organization(org) and is_slug(repo) and is_directory(tree.root)):
            raise RepositoryNotFound(org, repo)
        return self._repository(tree, org, repo)

    def _repository(self, tree: RepositoryTree, org: str, repo: str) -> Repository:
        return Repository(tree, org, repo, self.limits, self.lock_timeout)

    def _fill(self, tree: RepositoryTree, settings: RepositorySettings) -> None:
        for folder in (tree.packages, tree.trash, tree.downloads, tree.temporary, tree.locks):
            make_directory(folder)
        write_new(tree.events_file, b"")
        write_new(tree.repository_file, settings.encode())

    def _lock(self) -> AbstractContextManager[None]:
        return lock(self.tree.lock_file, "the list of repositories", self.lock_timeout)

    def _forget_organization(self, org: str) -> None:
        """Take away every token and every role in an organization that is not there."""
        self._revoke_tokens(org, None)
        for user in self.users.list():
            if org in user.roles:
                with suppress(UserNotFound):  # deleted meanwhile
                    self.users.change_role(user.name, org, None)

    def _revoke_tokens(self, org: str, repo: str | None) -> None:
        for token in self.tokens.list(org, repo):
            with suppress(TokenNotFound):  # revoked meanwhile
                self.tokens.revoke(token.id)


def _purge_expired(repository: Repository) -> None:
    try:
        repository.purge_expired()
    except (StorageError, OSError) as error:  # no reason not to start
        log.warning("the trash of %s could not be purged: %s", repository, error)


def write_registry_file(tree: StorageTree) -> None:
    """Write a new ``registry.json``; who is signed in is signed out, and nothing else is lost."""
    document = {"format": FORMAT_VERSION, "created_at": format_time(now()), "secret_key": secrets.token_hex(32)}
    replace_file(tree.registry_file, encode_json(document), mode=0o600)


def mend_registry_file(root: Path) -> bool:
    """Write a new ``registry.json`` if the storage at *root* has lost it, or it is damaged; return whether it did.

    Leaves alone what is of another format, and a folder in which nothing is ours.
    """
    tree = StorageTree(root.resolve())
    try:
        document = read_json(tree.registry_file)
    except (FileNotFoundError, ValueError):
        document = {}
    if document.get("format", FORMAT_VERSION) != FORMAT_VERSION or _is_secret_key(document.get("secret_key")):
        return False
    ours = is_directory(tree.users) or any(is_regular(tree.organization_file(s)) for s in subdirectories(root))
    if ours:
        write_registry_file(tree)
    return ours


def _is_secret_key(key: object) -> TypeGuard[str]:
    return isinstance(key, str) and len(key) >= 64
