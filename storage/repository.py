"""One repository: its settings, its projects, and every change of its files.

All roads that publish end in :meth:`Repository.add_file` (contract.md section 4).
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from packaging.utils import NormalizedName

from storage.distributions import Distribution, read_distribution
from storage.errors import (
    FileAlreadyExists,
    FileNotFound,
    InvalidFilename,
    NameBlocked,
    ProjectNotFound,
    RepositoryNotFound,
    StorageDamaged,
)
from storage.events import record_event
from storage.files import (
    LOCK_TIMEOUT,
    encode_json,
    is_directory,
    is_regular,
    lock,
    open_regular,
    overwrite_file,
    read_json,
    replace_file,
)
from storage.layout import RepositoryTree
from storage.limits import Limits
from storage.names import parse_filename
from storage.placing import Bundle, place_file, withdraw_file
from storage.sidecars import Actor, File, Sidecar, new_id, now
from storage.simple import ProjectDetail, find_file, project_detail, project_names
from storage.trash import (
    TrashEntry,
    bundle_from_trash,
    drop_from_trash,
    find_in_trash,
    put_into_trash,
    trash_entries,
)
from storage.uploads import Incoming

log = logging.getLogger("packhouse.storage")


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
    id: str = field(default_factory=lambda: new_id(now()))  # UUIDv7
    created_at: str = field(default_factory=lambda: now().isoformat(timespec="seconds"))

    def encode(self) -> bytes:
        """Return the content of ``repository.json``."""
        return encode_json(asdict(self))


class Added(NamedTuple):
    """What :meth:`Repository.add_file` did."""

    sidecar: Sidecar
    created: bool  # False: the same bytes were there already


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
        try:
            document = read_json(self.tree.repository_file)
            known = {f.name: document[f.name] for f in fields(RepositorySettings) if f.name in document}
            settings = RepositorySettings(**known)
            if not isinstance(settings.private, bool):
                raise ValueError("'private' is neither true nor false")
        except (FileNotFoundError, NotADirectoryError) as error:
            raise RepositoryNotFound(self.org, self.slug) from error
        except (ValueError, TypeError) as error:
            remedy = "restore it from a backup"
            raise StorageDamaged(str(self.tree.repository_file), f"is damaged ({error})", remedy) from error
        return settings

    def change_settings(self, change: dict[str, object]) -> RepositorySettings:
        """Replace some fields of the settings and return them all; on disk when this returns."""
        with self._lock(""):
            settings = RepositorySettings(**{**asdict(self.settings), **change})
            replace_file(self.tree.repository_file, settings.encode())
        return settings

    # --- reading ---

    def projects(self) -> list[NormalizedName]:
        """Return the names of the projects, sorted."""
        return project_names(self.tree)

    def project(self, project: NormalizedName) -> ProjectDetail:
        """Return the files of *project*, by version and then file name, yanked ones included.

        :raises ProjectNotFound: if there is no file of it.
        """
        return project_detail(self.tree, project)

    def sidecar(self, project: NormalizedName, filename: str) -> Sidecar:
        """Return all that is known of a file.

        :raises FileNotFound: if it is not there, or damaged.
        """
        file = find_file(self.tree, project, filename)
        try:
            return Sidecar.from_json(read_json(self.tree.sidecar(project, filename)), file.filename)
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

    # --- publishing ---

    def receive(self) -> Incoming:
        """Return a temporary file for an upload to this repository; no lock is held while it fills."""
        return Incoming(self.tree.temporary, self.limits.max_file_size)

    def add_file(self, incoming: Incoming, filename: str, actor: Actor) -> Added:
        """Publish the bytes of *incoming* as *filename*; on disk and listed when this returns.

        The same bytes under the same name are no change; they mend the stored file if it was damaged.

        :raises InvalidFilename: if no wheel or sdist is called so.
        :raises InvalidDistribution: if the archive is not acceptable.
        :raises FileAlreadyExists: if other bytes have that name, or had it before they were deleted.
        :raises StorageBusy: if the project is being changed by somebody else for too long.
        """
        strict = self.settings.strict_record
        distribution = read_distribution(incoming.file, filename, limits=self.limits, strict_record=strict)
        incoming.sync()
        sidecar = Sidecar.describe(distribution, incoming.digests, incoming.size, actor)
        bundle = _bundle(sidecar, incoming.path, distribution)
        with self._lock(distribution.project):
            standing = self._standing(sidecar)
            if standing is not None:
                return Added(self._mend(bundle, sidecar, standing), created=False)
            self._check_deleted(sidecar.file)
            place_file(self.tree, bundle)
        self._record("published", actor, sidecar.file)
        return Added(sidecar, created=True)

    def _standing(self, sidecar: Sidecar) -> Sidecar | None:
        """Return the sidecar of the stored file with the same name and bytes; None if the name is free.

        Where the stored sidecar is lost, *sidecar* stands for it: the bytes are what counts.

        :raises FileAlreadyExists: if the name stands for other bytes.
        :raises NameBlocked: if something that is no file has the name.
        """
        file = sidecar.file
        artifact = self.tree.artifact(file.project, file.filename)
        if not os.path.lexists(artifact):
            return None
        if not is_regular(artifact):
            raise NameBlocked(file.filename)
        try:
            standing = Sidecar.from_json(read_json(self.tree.sidecar(file.project, file.filename)), file.filename)
        except (FileNotFoundError, ValueError):
            stored_sha256, uploader = hash_file(artifact), "an unknown uploader, for its sidecar is lost"
            when = datetime.fromtimestamp(artifact.stat().st_mtime, UTC)
            standing = sidecar
        else:
            stored_sha256, uploader = standing.file.sha256, str(standing.uploader)
            when = standing.file.upload_time
        if stored_sha256 != file.sha256:
            raise FileAlreadyExists(
                file.filename, sha256=file.sha256, stored_sha256=stored_sha256, upload_time=when, uploader=uploader
            )
        return standing

    def _mend(self, bundle: Bundle, sidecar: Sidecar, standing: Sidecar) -> Sidecar:
        """Make the stored file whole again from the same bytes, where it is not."""
        file = standing.file
        if bundle.core_metadata is not None:
            path = self.tree.core_metadata(file.project, file.filename)
            if not is_regular(path) or hash_file(path) != sidecar.file.core_metadata_sha256:
                replace_file(path, bundle.core_metadata, temporary=self.tree.temporary)
        if standing is sidecar:
            path = self.tree.sidecar(file.project, file.filename)
            replace_file(path, bundle.sidecar, temporary=self.tree.temporary)
        artifact = self.tree.artifact(file.project, file.filename)
        if hash_file(artifact) != file.sha256:
            overwrite_file(bundle.artifact, artifact)
        return standing

    def _check_deleted(self, file: File) -> None:
        """Refuse other bytes under the name of a deleted file, unless names may be reused."""
        entries = [e for e in trash_entries(self.tree, file.project) if e.sidecar.file.filename == file.filename]
        if (
            not entries
            or self.settings.reuse_filenames
            or any(e.sidecar.file.sha256 == file.sha256 for e in entries)
        ):
            return
        first = entries[0].sidecar
        raise FileAlreadyExists(
            file.filename,
            sha256=file.sha256,
            stored_sha256=first.file.sha256,
            upload_time=first.file.upload_time,
            uploader=str(first.uploader),
            deleted=True,
        )

    # --- deleting ---

    def delete_file(self, project: NormalizedName, filename: str, actor: Actor) -> TrashEntry:
        """Move a file to the trash; gone from the index, on disk, when this returns.

        :raises FileNotFound: if it is not there, or damaged.
        """
        with self._lock(project):
            sidecar = self.sidecar(project, filename)
            put_into_trash(self.tree, sidecar, actor)
            withdraw_file(self.tree, project, filename)
        self._record("deleted", actor, sidecar.file)
        return find_in_trash(self.tree, project, sidecar.id)

    def trash(self, project: NormalizedName | None = None) -> Iterator[TrashEntry]:
        """Yield the deleted files, of one project or all; purged ones included."""
        return trash_entries(self.tree, project)

    def restore_file(self, project: NormalizedName, entry_id: str, actor: Actor) -> Sidecar:
        """Bring a deleted file back, with its sidecar and yank state.

        :raises FileNotFound: if the trash has no such file.
        :raises FileAlreadyExists: if its name has been taken by other bytes since.
        """
        with self._lock(project):
            entry = find_in_trash(self.tree, project, entry_id)
            if self._standing(entry.sidecar) is None:
                place_file(self.tree, bundle_from_trash(self.tree, entry))
            drop_from_trash(self.tree, entry)
        self._record("restored", actor, entry.sidecar.file)
        return entry.sidecar

    # --- pieces ---

    @contextmanager
    def _lock(self, project: str) -> Iterator[None]:
        """Hold the lock of *project*, or of the settings for ""."""
        if not is_regular(self.tree.repository_file):
            raise RepositoryNotFound(self.org, self.slug)
        what = f"the project {project!r}" if project else f"the repository '{self.org}/{self.slug}'"
        if not is_directory(self.tree.locks):
            self.tree.locks.mkdir(exist_ok=True)  # dotted folders may be left out of a backup
        with lock(self.tree.lock_file(project), what, self.lock_timeout):
            yield

    def _record(self, event: str, actor: Actor, file: File) -> None:
        """Note a change that is on disk already; a failing note does not make it undone, so it is logged."""
        facts = {"project": file.project, "version": file.version, "filename": file.filename, "sha256": file.sha256}
        try:
            record_event(self.tree.events_file, event, actor, **facts)
        except OSError:
            log.exception("%s: the event %r of %s could not be recorded", self, event, file.filename)


def hash_file(path: Path) -> str:
    """Return the sha256 of a file, hex."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def project_of(filename: str) -> NormalizedName:
    """Return the project that *filename* belongs to.

    :raises ProjectNotFound: if no wheel or sdist is called so.
    """
    try:
        return parse_filename(filename).project
    except InvalidFilename as error:
        raise ProjectNotFound(filename) from error


def _bundle(sidecar: Sidecar, artifact: Path, distribution: Distribution) -> Bundle:
    core_metadata = distribution.metadata_bytes if distribution.metadata_served else None
    encoded = encode_json(sidecar.to_json())
    return Bundle(sidecar.file.project, sidecar.file.filename, artifact, encoded, core_metadata)
