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

import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from packaging.utils import NormalizedName

from storage.damage import report_damage
from storage.errors import FileNotFound
from storage.files import (
    encode_json,
    is_directory,
    is_regular,
    make_directory,
    move_directory,
    open_regular,
    read_json,
    remove_file,
    remove_tree,
    subdirectories,
    sync_directory,
    temporary_name,
    write_synced,
)
from storage.layout import COMPANION_SUFFIXES, SIDECAR_SUFFIX, RepositoryTree
from storage.names import is_normalized_project
from storage.placing import Bundle
from storage.sidecars import Actor, Sidecar, format_time, now, parse_time

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
    draft = tree.temporary / temporary_name()
    draft.mkdir()
    try:
        for suffix in ("", *COMPANION_SUFFIXES):
            if is_regular(folder / f"{filename}{suffix}"):
                name = f"{filename}{suffix}"
                os.link(folder / name, draft / name, follow_symlinks=False)
        deletion = {"deleted_at": format_time(now()), "deleted_by": actor.to_json()}
        write_synced(draft / DELETION_FILE, encode_json(deletion))
        sync_directory(draft)
        make_directory(tree.trash / project)
        remove_tree(_entry(tree, project, sidecar.id))  # of an interrupted deletion
        move_directory(draft, _entry(tree, project, sidecar.id))
    finally:
        remove_tree(draft)


def trash_entries(tree: RepositoryTree, project: NormalizedName | None = None) -> Iterator[TrashEntry]:
    """Yield what was deleted from *project*, or from the whole repository; purged files included."""
    for name in [project] if project else sorted(subdirectories(tree.trash)):
        if not is_normalized_project(name):
            continue
        for entry_id in sorted(subdirectories(tree.trash / name)):
            entry = _read_entry(tree.trash / name / entry_id)
            if entry is not None and not _is_live(tree, entry.sidecar):
                yield entry


def find_in_trash(tree: RepositoryTree, project: NormalizedName, entry_id: str) -> TrashEntry:
    """Return the entry that can be restored.

    :raises FileNotFound: if there is none, or it is purged.
    """
    for entry in trash_entries(tree, project):
        if entry.id == entry_id and not entry.purged:
            return entry
    raise FileNotFound(entry_id)


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
    draft = tree.temporary / temporary_name()
    move_directory(_entry(tree, entry.sidecar.file.project, entry.id), draft)
    remove_tree(draft)


def purge_from_trash(tree: RepositoryTree, entry: TrashEntry) -> None:
    """Remove the bytes of a deleted file for good; its sidecar stays, so that its name stays taken."""
    folder, filename = _entry(tree, entry.sidecar.file.project, entry.id), entry.sidecar.file.filename
    remove_file(folder / filename)  # commit
    for suffix in COMPANION_SUFFIXES:
        if suffix != SIDECAR_SUFFIX:
            remove_file(folder / f"{filename}{suffix}")


def _entry(tree: RepositoryTree, project: NormalizedName, entry_id: str) -> Path:
    return tree.trash / project / entry_id


def _read_entry(folder: Path) -> TrashEntry | None:
    try:
        deletion = read_json(folder / DELETION_FILE)
        filename = _deleted_filename(folder)
        sidecar = Sidecar.from_json(read_json(folder / f"{filename}{SIDECAR_SUFFIX}"), filename)
        return TrashEntry(
            sidecar,
            parse_time(str(deletion.get("deleted_at"))),
            Actor.from_json(_object(deletion.get("deleted_by"))),
            purged=not is_regular(folder / filename),
        )
    except (FileNotFoundError, ValueError) as error:
        report_damage(folder, str(error))
        return None


def _deleted_filename(folder: Path) -> str:
    for path in folder.iterdir():
        if path.name.endswith(SIDECAR_SUFFIX) and path.name != DELETION_FILE:
            return path.name.removesuffix(SIDECAR_SUFFIX)
    raise ValueError("has no sidecar")


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError("not an object")
    return value


def _is_live(tree: RepositoryTree, sidecar: Sidecar) -> bool:
    """Whether the file with this very id is among its project's files."""
    file = sidecar.file
    if not is_directory(tree.project(file.project)) or not is_regular(tree.artifact(file.project, file.filename)):
        return False
    try:
        return read_json(tree.sidecar(file.project, file.filename)).get("id") == sidecar.id
    except (FileNotFoundError, ValueError):
        return False
