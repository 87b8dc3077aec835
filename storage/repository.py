"""One repository: its settings, its projects, and every change of its files.

All roads that publish end in :meth:`Repository.add_file` (contract.md section 4).
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, NoReturn

from packaging.utils import NormalizedName
from packaging.version import Version

from storage.errors import (
    Conflict,
    Denied,
    FileNotFound,
    InvalidFilename,
    InvalidValue,
    ProjectNotFound,
    ReleaseNotFound,
    RepositoryNotFound,
    StorageDamaged,
)
from storage.events import record_event
from storage.files import (
    Signature,
    encode_json,
    hash_file,
    is_directory,
    is_regular,
    make_directory,
    open_regular,
    read_json,
    read_once,
    replace_file,
    subdirectories,
)
from storage.layout import ATTESTATIONS_SUFFIX, STATUS_FILE, RepositoryTree
from storage.limits import Limits
from storage.listings import LISTINGS, FilesWatch, Listing, note_replacing, watch_file
from storage.locks import LOCK_TIMEOUT, lock
from storage.names import parse_filename
from storage.placing import place_file, sync_place, withdraw_file
from storage.publishing import (
    Added,
    Claims,
    Upload,
    find_place,
    find_standing,
    mend_file,
    publish,
    read_upload,
)
from storage.sidecars import Actor, File, Sidecar, new_id, now
from storage.simple import ProjectDetail, find_file, look_up_file, project_names, read_files
from storage.statuses import ProjectStatus, Status, check_reason, read_status, write_status
from storage.trash import (
    TrashEntry,
    bundle_from_trash,
    drop_from_trash,
    find_in_trash,
    is_live,
    purge_from_trash,
    put_into_trash,
    trash_entries,
)
from storage.uploads import Incoming

log = logging.getLogger("packhouse.storage")

NO_CLAIMS = Claims()
MAX_NAME = 200  # characters of what a person calls a repository
MAX_DESCRIPTION = 10_000  # characters


@dataclass(frozen=True, slots=True)
class RepositorySettings:
    """What stands in ``repository.json``."""

    name: str  # as a person typed it
    description: str = ""
    emoji: str = ""
    color: str = ""  # "#rrggbb" or ""
    private: bool = True
    reuse_filenames: bool = False  # may a deleted file's name be taken by other bytes?
    strict_record: bool = True  # must a wheel's RECORD agree with its contents?
    trash_days: int = 0  # deleted files are purged after so many days; 0: never
    id: str = field(default_factory=lambda: new_id(now()))  # UUIDv7
    created_at: str = field(default_factory=lambda: now().isoformat(timespec="seconds"))

    def encode(self) -> bytes:
        """Return the content of ``repository.json``.

        :raises InvalidValue: if it holds text that a page could not show.
        """
        if not self.name.isprintable() or len(self.name) > MAX_NAME:
            raise InvalidValue("name", f"must be one line of at most {MAX_NAME} characters")
        if not "".join(self.description.split()).isprintable() or len(self.description) > MAX_DESCRIPTION:
            raise InvalidValue("description", f"must be text of at most {MAX_DESCRIPTION} characters")
        return encode_json(asdict(self))


KEPT_SETTINGS = 1_000  # about 500 bytes each

_DEFAULTS = RepositorySettings(name="")  # a value of the right type for each field


@lru_cache(maxsize=KEPT_SETTINGS)
def _read_settings(path: str, signature: Signature) -> RepositorySettings:
    """Read ``repository.json``: see :func:`read_once`.

    :raises FileNotFoundError, NotADirectoryError: if it is not there.
    :raises ValueError, TypeError: if it does not parse.
    """
    document = read_json(Path(path))
    known = {f.name: document[f.name] for f in fields(RepositorySettings) if f.name in document}
    for name, value in known.items():
        if type(value) is not type(getattr(_DEFAULTS, name)):
            raise ValueError(f"{name!r} cannot be {value!r}")
    return RepositorySettings(**known)


class Repository:
    """A named set of projects with one simple index."""

    def __init__(
        self, tree: RepositoryTree, org: str, slug: str, limits: Limits, lock_timeout: float = LOCK_TIMEOUT
    ) -> None:
        """Speak for the repository at *tree*, which exists."""
        self.tree = tree
        self.org = org
        self.slug = slug
        self.limits = limits
        self.lock_timeout = lock_timeout  # seconds

    def __repr__(self) -> str:
        return f"<Repository {self.org}/{self.slug}>"

    # --- settings ---

    @property
    def settings(self) -> RepositorySettings:
        """What ``repository.json`` says now.

        :raises RepositoryNotFound: if the repository has been deleted.
        :raises StorageDamaged: if the file does not parse.
        """
        path = self.tree.repository_file
        try:
            return read_once(_read_settings, path)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RepositoryNotFound(self.org, self.slug) from error
        except (ValueError, TypeError) as error:
            remedy = "restore it from a backup"
            raise StorageDamaged(str(path), f"is damaged ({error})", remedy) from error

    def change_settings(self, change: dict[str, object]) -> RepositorySettings:
        """Replace some fields of the settings and return them all; on disk when this returns."""
        with self.locked(""):
            settings = RepositorySettings(**{**asdict(self.settings), **change})
            replace_file(self.tree.repository_file, settings.encode(), temporary=self.tree.temporary)
        return settings

    # --- reading ---

    def projects(self) -> list[NormalizedName]:
        """Return the names of the projects, sorted."""
        return project_names(self.tree)

    def count_projects(self) -> int:
        """Return the number of the projects."""
        return len(subdirectories(self.tree.packages))

    def project(self, project: NormalizedName) -> ProjectDetail:
        """Return the files of *project*, by version and then file name, yanked ones included.

        :raises ProjectNotFound: if there is no file of it.
        """
        return self.listing(project).detail

    def listing(self, project: NormalizedName) -> Listing:
        """Return the same, and what tells whether it is still so.

        :raises ProjectNotFound: if there is no file of it.
        """
        return LISTINGS.listing(self.tree, project)

    def sidecar(self, project: NormalizedName, filename: str) -> Sidecar:
        """Return all that is known of a file.

        :raises FileNotFound: if it is not there, or damaged.
        """
        if not self.status(project).offers_files:
            raise FileNotFound(filename)
        return self.any_sidecar(project, filename)

    def any_sidecar(self, project: NormalizedName, filename: str) -> Sidecar:
        """Return all that is known of a file, even if its project is quarantined.

        :raises FileNotFound: if it is not there, or damaged.
        """
        look_up_file(self.tree, project, filename)
        try:
            return Sidecar.from_json(read_json(self.tree.sidecar(project, filename)), filename)
        except (FileNotFoundError, ValueError) as error:
            raise FileNotFound(filename) from error

    def open_file(self, project: NormalizedName, filename: str) -> tuple[File, BinaryIO]:
        """Open an artifact for reading; the caller closes it.

        :raises FileNotFound: if it is not there, or damaged.
        """
        file = find_file(self.tree, project, filename)
        try:
            content = open_regular(self.tree.artifact(project, filename))
        except FileNotFoundError as error:
            raise FileNotFound(filename) from error
        if os.fstat(content.fileno()).st_size != file.size:
            content.close()
            raise FileNotFound(filename)
        return file, content

    def core_metadata(self, project: NormalizedName, filename: str) -> tuple[File, bytes]:
        """Return the core metadata of a file, byte for byte as in the archive (PEP 658).

        :raises FileNotFound: if it is not served for this file, or damaged.
        """
        file = find_file(self.tree, project, filename)
        try:
            with open_regular(self.tree.core_metadata(project, filename)) as source:
                content = source.read()
        except FileNotFoundError as error:
            raise FileNotFound(f"{filename}.metadata") from error
        if hashlib.sha256(content).hexdigest() != file.core_metadata_sha256:
            raise FileNotFound(f"{filename}.metadata")
        return file, content

    def watch_file(self, project: NormalizedName, filename: str) -> FilesWatch:
        """Return what tells whether a file is as it is now: called before it is read.

        :raises FileNotFound: if no file of *project* is called so.
        """
        if project_of(filename) != project:
            raise FileNotFound(filename)
        return watch_file(self.tree, project, filename)

    def attestations(self, project: NormalizedName, filename: str) -> bytes | None:
        """Return the PEP 740 attestations of a file, verbatim as they were uploaded; None if there are none."""
        find_file(self.tree, project, filename)
        try:
            with open_regular(self.tree.companion(project, filename, ATTESTATIONS_SUFFIX)) as source:
                return source.read()
        except FileNotFoundError:
            return None

    # --- publishing ---

    def receive(self) -> Incoming:
        """Return a temporary file for an upload to this repository; no lock is held while it fills."""
        if not is_directory(self.tree.temporary):
            self._make_dotted(self.tree.temporary)
        return Incoming(self.tree.temporary, self.limits.max_file_size)

    def add_file(
        self,
        incoming: Incoming,
        filename: str,
        actor: Actor,
        *,
        claims: Claims = NO_CLAIMS,
        attestations: bytes | None = None,
        yanked_reason: str | None = None,
    ) -> Added:
        """Publish the bytes of *incoming* as *filename*; on disk and listed when this returns.

        The same bytes under the same name are no change; they mend the stored file if it was damaged. *claims* is
        what the form said; *attestations*, a PEP 740 document, is kept verbatim beside the file; with a
        *yanked_reason* it is yanked from the first moment on.

        :raises InvalidFilename: if no wheel or sdist is called so.
        :raises InvalidDistribution: if the archive is not acceptable, or not what was claimed.
        :raises FileAlreadyExists: if other bytes have that name, or had it before they were deleted.
        :raises ProjectClosed: if the project is archived or quarantined.
        :raises StorageBusy: if the project is being changed by somebody else for too long.
        """
        settings = self.settings
        try:
            upload = read_upload(
                incoming,
                filename,
                actor,
                limits=self.limits,
                strict_record=settings.strict_record,
                claims=claims,
                attestations=attestations,
                yanked_reason=yanked_reason,
            )
        except FileNotFoundError as error:
            self.say_missing(error)
        with self.locked(upload.sidecar.file.project):
            added = publish(self.tree, upload, reuse_filenames=settings.reuse_filenames)
        if added.created:
            self._sync_place(added.sidecar.file.project)
            self._record("published", actor, added.sidecar.file)
        elif added.mended:
            self._record("mended", actor, added.sidecar.file)
        return added

    def find_reasons(self, incoming: Incoming, filename: str, actor: Actor) -> tuple[str, ...]:
        """Return every reason for which :meth:`add_file` would refuse *incoming*; nothing is stored."""
        from storage.distributions import find_reasons  # it brings all that reads archives

        settings = self.settings
        strict_record = settings.strict_record
        reasons = find_reasons(incoming.content, filename, limits=self.limits, strict_record=strict_record)
        if reasons:
            return reasons
        upload = read_upload(
            incoming,
            filename,
            actor,
            limits=self.limits,
            strict_record=strict_record,
            claims=NO_CLAIMS,
            attestations=None,
        )
        try:
            find_place(self.tree, upload.sidecar, reuse_filenames=settings.reuse_filenames)
        except (Conflict, Denied) as error:
            return (str(error),)
        return ()

    # --- yanking ---

    def yank_file(self, project: NormalizedName, filename: str, reason: str, actor: Actor) -> Sidecar:
        """Mark a file as yanked (PEP 592), with a *reason* or ""; on disk when this returns.

        :raises FileNotFound: if it is not there, or damaged.
        :raises InvalidValue: if the reason is not one line.
        """
        return self._change_yank(project, filename, check_reason(reason), actor)

    def unyank_file(self, project: NormalizedName, filename: str, actor: Actor) -> Sidecar:
        """Take the mark of :meth:`yank_file` away; on disk when this returns.

        :raises FileNotFound: if it is not there, or damaged.
        """
        return self._change_yank(project, filename, None, actor)

    def yank_release(
        self, project: NormalizedName, version: Version, reason: str | None, actor: Actor
    ) -> list[Sidecar]:
        """Yank every file of a release, or with None take the mark away; each on disk when this returns.

        Versions that mean the same (PEP 440), such as 1.0 and 1.0.0, are one release.

        :raises ReleaseNotFound: if the project has no file of that version.
        """
        if reason is not None:
            reason = check_reason(reason)
        filenames = [file.filename for file in read_files(self.tree, project) if file.sort_key[0] == version]
        if not filenames:
            raise ReleaseNotFound(project, str(version))
        return [self._change_yank(project, filename, reason, actor) for filename in sorted(filenames)]

    def _change_yank(self, project: NormalizedName, filename: str, reason: str | None, actor: Actor) -> Sidecar:
        with self.locked(project):
            before = self.any_sidecar(project, filename)
            after = before.with_yanked(reason)
            if after == before:
                return before
            path = self.tree.sidecar(project, filename)
            note_replacing(self.tree)
            replace_file(path, encode_json(after.to_json()), temporary=self.tree.temporary)  # commit
        self._record("unyanked" if reason is None else "yanked", actor, after.file, reason=reason)
        return after

    # --- status ---

    def status(self, project: NormalizedName) -> ProjectStatus:
        """Return the status of a project (PEP 792); active where there is no such project."""
        return read_status(self.tree, project)

    def change_status(self, project: NormalizedName, status: ProjectStatus, actor: Actor) -> None:
        """Give a project another status (PEP 792); on disk when this returns.

        :raises ProjectNotFound: if the repository holds no file of it.
        """
        with self.locked(project):
            if not is_directory(self.tree.project(project)):
                raise ProjectNotFound(project)
            if status.status is Status.ACTIVE:
                withdraw_file(self.tree, project, STATUS_FILE)  # a project without files stays for its status alone
            else:
                write_status(self.tree, project, status, actor)
        facts = {"project": project, "status": str(status.status), "reason": status.reason}
        self._record_facts("status changed", actor, facts)

    # --- deleting ---

    def delete_file(self, project: NormalizedName, filename: str, actor: Actor) -> TrashEntry:
        """Move a file to the trash; gone from the index, on disk, when this returns.

        :raises FileNotFound: if it is not there, or damaged.
        """
        with self.locked(project):
            sidecar = self.any_sidecar(project, filename)
            put_into_trash(self.tree, sidecar, actor)
            withdraw_file(self.tree, project, filename)
            entry = find_in_trash(self.tree, project, sidecar.id)
        self._record("deleted", actor, sidecar.file)
        return entry

    def trash(self, project: NormalizedName | None = None) -> Iterator[TrashEntry]:
        """Yield the deleted files, of one project or all; purged ones included."""
        return trash_entries(self.tree, project)

    def deleted_file(self, project: NormalizedName, entry_id: str) -> TrashEntry:
        """Return one deleted file.

        :raises FileNotFound: if the trash has no such file, or it is purged.
        """
        return find_in_trash(self.tree, project, entry_id)

    def restore_file(self, project: NormalizedName, entry_id: str, actor: Actor) -> Sidecar:
        """Bring a deleted file back, with its sidecar and yank state.

        :raises FileNotFound: if the trash has no such file, or it is damaged.
        :raises FileAlreadyExists: if its name has been taken by other bytes since.
        """
        with self.locked(project):
            entry = find_in_trash(self.tree, project, entry_id)
            bundle = bundle_from_trash(self.tree, entry)
            if hash_file(bundle.artifact) != entry.sidecar.file.sha256:
                raise FileNotFound(entry.sidecar.file.filename)
            standing = find_standing(self.tree, entry.sidecar)
            if standing is None:
                place_file(self.tree, bundle)
                sync_place(self.tree, project)
            else:
                mend_file(self.tree, Upload(entry.sidecar, bundle), standing)
            drop_from_trash(self.tree, entry)
        self._record("restored", actor, entry.sidecar.file)
        return standing or entry.sidecar

    def purge_file(self, project: NormalizedName, entry_id: str, actor: Actor) -> TrashEntry:
        """Remove the bytes of a deleted file for good; its name stays taken. On disk when this returns.

        :raises FileNotFound: if the trash has no such file, or it is purged already.
        """
        with self.locked(project):
            entry = find_in_trash(self.tree, project, entry_id)
            if not is_live(self.tree, entry.sidecar):
                purge_from_trash(self.tree, entry)
        self._record("purged", actor, entry.sidecar.file)
        return entry

    def purge_expired(self) -> int:
        """Purge what was deleted longer ago than the settings want it kept; return how many files that were."""
        days = self.settings.trash_days
        if type(days) is not int or days <= 0:
            return 0
        limit = now() - timedelta(days=days)
        expired = [entry for entry in self.trash() if not entry.purged and entry.deleted_at < limit]
        purged = 0
        for entry in expired:
            with suppress(FileNotFound):  # restored or purged meanwhile
                self.purge_file(
                    entry.sidecar.file.project, entry.id, Actor("command line", description="retention")
                )
                purged += 1
        return purged

    # --- pieces ---

    def _sync_place(self, project: NormalizedName) -> None:
        """Wait until what was published to *project* is on disk; nobody has to hold its lock for that.

        :raises RepositoryNotFound: if the repository is gone, or called otherwise, before it was.
        """
        sync_place(self.tree, project)
        if not is_regular(self.tree.repository_file):
            raise RepositoryNotFound(self.org, self.slug)

    def locked(self, project: str) -> AbstractContextManager[None]:
        """Hold the lock for changes of *project*, or of the settings for "".

        :raises RepositoryNotFound: if the repository has been deleted.
        :raises StorageBusy: if somebody else has held it for too long.
        """
        return _Locked(self, project)

    def say_missing(self, error: FileNotFoundError) -> NoReturn:
        """Raise what it means that a file is missing: just that, or that the repository is gone.

        :raises FileNotFoundError: if the repository is there.
        :raises RepositoryNotFound: if it has been deleted meanwhile.
        """
        if is_regular(self.tree.repository_file):
            raise error
        raise RepositoryNotFound(self.org, self.slug) from error

    def make_dotted(self) -> None:
        """Make ``.locks`` and ``.tmp`` where they are missing: dotted folders may be left out of a backup."""
        for folder in (self.tree.locks, self.tree.temporary):
            if not is_directory(folder):
                self._make_dotted(folder)

    def _make_dotted(self, folder: Path) -> None:
        """Make ``.tmp`` or ``.locks`` anew: dotted folders may be left out of a backup."""
        try:
            make_directory(folder)
        except FileNotFoundError as error:
            raise RepositoryNotFound(self.org, self.slug) from error

    def record(self, event: str, actor: Actor, **facts: object) -> None:
        """Note what *actor* did to the repository itself: its settings, its tokens."""
        self._record_facts(event, actor, facts)

    def _record(self, event: str, actor: Actor, file: File, **more: object) -> None:
        facts = {"project": file.project, "version": file.version, "filename": file.filename, "sha256": file.sha256}
        self._record_facts(event, actor, {**facts, **more})

    def _record_facts(self, event: str, actor: Actor, facts: Mapping[str, object]) -> None:
        """Note a change that is on disk already; a failing note does not make it undone, so it is logged.

        Pages that are kept are looked after when something is noted (see :class:`~storage.watching.Watch`).
        """
        try:
            record_event(self.tree.events_file, event, actor, **facts)
        except OSError:
            log.exception("%s: the event %r could not be recorded: %s", self, event, facts)
            with suppress(OSError):  # by this they see it, too, and it needs no room on the disk
                os.utime(self.tree.repository_file)


class _Locked:
    """What :meth:`Repository.locked` returns. A class, since every upload comes by here."""

    __slots__ = ("_hold", "_project", "_repository")

    def __init__(self, repository: Repository, project: str) -> None:
        self._repository = repository
        self._project = project

    def __enter__(self) -> None:
        repository, project = self._repository, self._project
        if not is_regular(repository.tree.repository_file):
            raise RepositoryNotFound(repository.org, repository.slug)
        what = f"the project {project!r}" if project else f"the repository '{repository.org}/{repository.slug}'"
        self._hold = lock(repository.tree.lock_file(project), what, repository.lock_timeout)
        try:
            repository.make_dotted()
            self._hold.__enter__()
        except FileNotFoundError as error:
            repository.say_missing(error)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._hold.__exit__(kind, error, traceback)
        if isinstance(error, FileNotFoundError):
            self._repository.say_missing(error)


def project_of(filename: str) -> NormalizedName:
    """Return the project that *filename* belongs to.

    :raises FileNotFound: if no wheel or sdist is called so.
    """
    try:
        return parse_filename(filename).project
    except InvalidFilename as error:
        raise FileNotFound(filename) from error
