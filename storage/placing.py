"""Put a file among a project's files, and take it away: the two changes of a project folder, crash-proof.

Each has one commit point. What is written before it is invisible or harmless, and every state that a crash or a
power cut may leave is a correct one. The caller holds the project's lock.
"""

from __future__ import annotations

import errno
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from packaging.utils import NormalizedName

from storage.errors import NameBlocked
from storage.files import (
    Batch,
    directory_entries,
    discard_directory,
    draft_directory,
    is_directory,
    link_unsynced,
    make_directory,
    move_directory,
    remove_file,
    remove_unsynced,
    status_of,
    sync_directory,
)
from storage.layout import COMPANION_SUFFIXES, RepositoryTree
from storage.listings import note_replacing
from storage.names import is_filename
from storage.simple import has_project

log = logging.getLogger("packhouse.storage")


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file and what goes with it, ready to be placed."""

    project: NormalizedName
    filename: str
    artifact: Path  # in the repository's file system
    companions: dict[str, bytes]  # by suffix, the sidecar among them
    unsynced: BinaryIO | None = None  # the artifact, where its bytes are not on disk yet


def place_file(tree: RepositoryTree, bundle: Bundle) -> None:
    """Make the file visible, and whole for whoever sees it; on disk once :func:`sync_place` has returned.

    :raises NameBlocked: if there is anything of its name, or of what goes with it; it is left untouched.
    """
    try:
        if has_project(tree, bundle.project):
            _place_in_project(tree, bundle)
        else:
            _place_with_project(tree, bundle)
    except FileExistsError as error:
        raise NameBlocked(bundle.filename) from error


def _place_in_project(tree: RepositoryTree, bundle: Bundle) -> None:
    artifact = tree.artifact(bundle.project, bundle.filename)
    if status_of(artifact) is not None:
        raise FileExistsError(errno.EEXIST, "there already", str(artifact))
    # Sidecar first: whoever sees the artifact, even after a power cut, can rely on its sidecar.
    with _companions_of(tree, bundle):
        link_unsynced(bundle.artifact, artifact)  # commit


def sync_place(tree: RepositoryTree, project: NormalizedName) -> None:
    """Wait until the files that were placed in *project* are on disk.

    The lock is not needed for it, and others should not have to wait: whatever they do to a file that is not on
    disk yet is promised only when they have synced the same folder.
    """
    with suppress(FileNotFoundError):  # deleted since with all its files, durably
        sync_directory(tree.project(project))


@contextmanager
def _companions_of(tree: RepositoryTree, bundle: Bundle) -> Iterator[None]:
    """Write what goes with a file into its project's folder; on disk, as the file is, when the block begins.

    Nobody looks at them before the file is there. Where the block fails, they are removed.
    """
    written: list[Path] = []
    try:
        with Batch() as batch:
            if bundle.unsynced is not None:
                batch.add(bundle.unsynced)
            for suffix in COMPANION_SUFFIXES:
                path = tree.companion(bundle.project, bundle.filename, suffix)
                if suffix in bundle.companions:
                    batch.put(path, bundle.companions[suffix], temporary=tree.temporary)
                    written.append(path)
                elif status_of(path) is not None:  # of another file, left by a deletion that was killed
                    remove_unsynced(path)
            batch.sync(tree.project(bundle.project))
        yield
    except Exception:
        for path in written:
            with suppress(OSError):
                remove_unsynced(path)
        raise


def _place_with_project(tree: RepositoryTree, bundle: Bundle) -> None:
    """Make the project's folder with its first file in it appear in one step.

    So a project is listed exactly while it has a file, and the list of projects never has to look into folders.
    """
    if not is_directory(tree.packages):
        make_directory(tree.packages)  # empty folders may be left out of a backup
    with draft_directory(tree.temporary) as draft:
        link_unsynced(bundle.artifact, draft / bundle.filename)
        with Batch() as batch:
            if bundle.unsynced is not None:
                batch.add(bundle.unsynced)
            for suffix, content in bundle.companions.items():
                batch.write(draft / f"{bundle.filename}{suffix}", content)
            batch.sync(draft)
        move_directory(draft, tree.project(bundle.project))  # commit


def withdraw_file(tree: RepositoryTree, project: NormalizedName, filename: str) -> None:
    """Remove a file from its project; gone on disk when this returns. With the last file the project goes."""
    folder = tree.project(project)
    note_replacing(tree)
    if _holds_nothing_but(folder, filename):
        discard_directory(folder, tree.temporary)  # commit
        return
    remove_file(tree.artifact(project, filename))  # commit
    try:
        for suffix in COMPANION_SUFFIXES:
            remove_file(tree.companion(project, filename, suffix))
    except OSError:  # the file is gone all the same, and nobody looks at what went with it
        log.exception("what went with %s could not be removed", tree.artifact(project, filename))


def _holds_nothing_but(folder: Path, filename: str) -> bool:
    """Whether *folder* goes with *filename*: it holds no other file, and no leavings but of files that are gone."""
    names = {entry.name for entry in directory_entries(folder)}
    others = names - {filename, *(f"{filename}{suffix}" for suffix in COMPANION_SUFFIXES)}
    return all(_is_orphan(name, names) for name in others)


def _is_orphan(name: str, names: set[str]) -> bool:
    for suffix in COMPANION_SUFFIXES:
        if name.endswith(suffix):
            return is_filename(name.removesuffix(suffix)) and name.removesuffix(suffix) not in names
    return False
