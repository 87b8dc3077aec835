"""The trash of a repository: deleted files with their sidecars, to be restored, or purged.

::

    trash/{project}/{id}/               {id} of the file
        {filename}  {filename}.json  {filename}.metadata
        deletion.json                   when and by whom

An entry counts only while the file is not among its project's files: a deletion that a crash interrupted has not
happened. What is purged leaves its sidecar behind, so that its name stays taken (contract.md section 4).
The caller holds the project's lock.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from packaging.utils import NormalizedName

from storage.damage import report_damage
from storage.errors import FileNotFound
from storage.files import (
    discard_directory,
    draft_directory,
    encode_json,
    is_directory,
    is_regular,
    link_unsynced,
    make_directory,
    move_directory,
    open_regular,
    read_json,
    remove_file,
    subdirectories,
    sync_directory,
    write_new,
)
from storage.layout import COMPANION_SUFFIXES, SIDECAR_SUFFIX, RepositoryTree
from storage.names import is_filename, is_normalized_project
from storage.placing import Bundle
from storage.sidecars import Actor, Sidecar, format_time, now, parse_time
from storage.simple import has_project

DELETION_FILE = "deletion.json"


@dataclass(frozen=True, slots=True)
class TrashEntry:
    """One deleted file."""

    sidecar: Sidecar
    deleted_at: datetime
    deleted_by: Actor
    purged: bool  # the bytes are gone for good

    @property
    def id(self) -> str:
        """The id that the file had and will have again."""
        return self.sidecar.id


def put_into_trash(tree: RepositoryTree, sidecar: Sidecar, actor: Actor) -> None:
    """Give the file a second home in the trash; it is still among its project's files when this returns."""
    project, filename = sidecar.file.project, sidecar.file.filename
    folder = tree.project(project)
    with draft_directory(tree.temporary) as draft:
        for suffix in ("", *COMPANION_SUFFIXES):
            if is_regular(folder / f"{filename}{suffix}"):
                link_unsynced(folder / f"{filename}{suffix}", draft / f"{filename}{suffix}")
        deletion = {"deleted_at": format_time(now()), "deleted_by": actor.to_json()}
        write_new(draft / DELETION_FILE, encode_json(deletion))
        sync_directory(draft)
        make_directory(tree.trash)
        make_directory(tree.trash / project)
        entry = _entry(tree, project, sidecar.id)
        if is_directory(entry):  # of an interrupted deletion
            discard_directory(entry, tree.temporary)
        move_directory(draft, entry)


def trash_entries(tree: RepositoryTree, project: NormalizedName | None = None) -> Iterator[TrashEntry]:
    """Yield what was deleted from *project*, or from the whole repository; purged files included."""
    names = sorted(subdirectories(tree.trash))
    for name in names if project is None else [project] if project in names else []:
        if is_normalized_project(name):
            entry_ids = sorted(subdirectories(tree.trash / name))
            yield from _deleted(tree, [tree.trash / name / entry_id for entry_id in entry_ids])


def deleted_namesakes(tree: RepositoryTree, project: NormalizedName, filename: str) -> Iterator[TrashEntry]:
    """Yield those deleted files of *project* that were called *filename*; purged ones included.

    Every upload asks, and what is purged stays for ever: of other files nothing is read.
    """
    folder = tree.deleted(project)
    entries = [folder / entry_id for entry_id in sorted(subdirectories(folder))]
    yield from _deleted(tree, [entry for entry in entries if is_regular(entry / f"{filename}{SIDECAR_SUFFIX}")])


def _deleted(tree: RepositoryTree, folders: Iterable[Path]) -> Iterator[TrashEntry]:
    for folder in folders:
        entry = read_entry(folder)
        if entry is not None and not is_live(tree, entry.sidecar):
            yield entry


def find_in_trash(tree: RepositoryTree, project: NormalizedName, entry_id: str) -> TrashEntry:
    """Return the entry that can be restored; also one that was, if we were killed before it could be dropped.

    :raises FileNotFound: if there is none, or it is purged.
    """
    there = project in subdirectories(tree.trash) and entry_id in subdirectories(tree.trash / project)
    entry = read_entry(_entry(tree, project, entry_id)) if there else None
    if entry is None or entry.purged:
        raise FileNotFound(entry_id)
    return entry


def bundle_from_trash(tree: RepositoryTree, entry: TrashEntry) -> Bundle:
    """Return the deleted file ready to be placed again, with the yank state that it had."""
    file = entry.sidecar.file
    folder = _entry(tree, file.project, entry.id)
    companions = {}
    for suffix in COMPANION_SUFFIXES:
        if is_regular(folder / f"{file.filename}{suffix}"):
            with open_regular(folder / f"{file.filename}{suffix}") as source:
                companions[suffix] = source.read()
    return Bundle(file.project, file.filename, folder / file.filename, companions)


def drop_from_trash(tree: RepositoryTree, entry: TrashEntry) -> None:
    """Remove an entry whose file is among its project's files again."""
    discard_directory(_entry(tree, entry.sidecar.file.project, entry.id), tree.temporary)


def purge_from_trash(tree: RepositoryTree, entry: TrashEntry) -> None:
    """Remove the bytes of a deleted file for good; its sidecar stays, so that its name stays taken."""
    folder, filename = _entry(tree, entry.sidecar.file.project, entry.id), entry.sidecar.file.filename
    remove_file(folder / filename)  # commit
    for suffix in COMPANION_SUFFIXES:
        if suffix != SIDECAR_SUFFIX:
            remove_file(folder / f"{filename}{suffix}")


def _entry(tree: RepositoryTree, project: NormalizedName, entry_id: str) -> Path:
    return tree.trash / project / entry_id


def read_entry(folder: Path) -> TrashEntry | None:
    """Return the deleted file in *folder*, also if it is live (again); None if it is damaged."""
    try:
        deletion = read_json(folder / DELETION_FILE)
        filename = _deleted_filename(folder)
        sidecar = Sidecar.from_json(read_json(folder / f"{filename}{SIDECAR_SUFFIX}"), filename)
        if (sidecar.file.project, sidecar.id) != (folder.parent.name, folder.name):
            raise ValueError("is the folder of another file")
        return TrashEntry(
            sidecar,
            parse_time(str(deletion.get("deleted_at"))),
            Actor.from_json(_object(deletion.get("deleted_by"))),
            purged=not is_regular(folder / filename),
        )
    except (OSError, ValueError) as error:
        if is_directory(folder):  # else it has been restored meanwhile
            report_damage(folder, str(error))
        return None


def _deleted_filename(folder: Path) -> str:
    for path in folder.iterdir():
        filename = path.name.removesuffix(SIDECAR_SUFFIX)
        if filename != path.name and is_filename(filename):
            return filename
    raise ValueError("has no sidecar")


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def is_live(tree: RepositoryTree, sidecar: Sidecar) -> bool:
    """Whether the file with this very id is among its project's files."""
    file = sidecar.file
    if not has_project(tree, file.project) or not is_regular(tree.artifact(file.project, file.filename)):
        return False
    try:
        return read_json(tree.sidecar(file.project, file.filename)).get("id") == sidecar.id
    except (OSError, ValueError):
        return False
