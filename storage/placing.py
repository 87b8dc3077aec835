"""Put a file among a project's files, and take it away: the two changes of a project folder, crash-proof.

Each has one commit point. What is written before it is invisible or harmless, and every state that a crash or a
power cut may leave is a correct one. The caller holds the project's lock.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from packaging.utils import NormalizedName

from storage.files import (
    is_directory,
    link_file,
    move_directory,
    put_file,
    remove_file,
    remove_tree,
    sync_directory,
    temporary_name,
    write_synced,
)
from storage.layout import COMPANION_SUFFIXES, RepositoryTree
from storage.names import is_filename


@dataclass(frozen=True, slots=True)
class Bundle:
    """A file and what goes with it, ready to be placed."""

    project: NormalizedName
    filename: str
    artifact: Path  # synced, in the repository's file system
    companions: dict[str, bytes]  # by suffix, the sidecar among them


def place_file(tree: RepositoryTree, bundle: Bundle) -> None:
    """Make the file visible; whole and on disk when this returns.

    :raises FileExistsError: if there is anything of that name; it is left untouched.
    """
    if is_directory(tree.project(bundle.project)):
        _place_in_project(tree, bundle)
    else:
        _place_with_project(tree, bundle)


def _place_in_project(tree: RepositoryTree, bundle: Bundle) -> None:
    artifact = tree.artifact(bundle.project, bundle.filename)
    if os.path.lexists(artifact):
        raise FileExistsError(str(artifact))
    for suffix, content in bundle.companions.items():
        put_file(tree.companion(bundle.project, bundle.filename, suffix), content, temporary=tree.temporary)
    # Sidecar first: whoever sees the artifact, even after a power cut, can rely on its sidecar.
    sync_directory(artifact.parent)
    link_file(bundle.artifact, artifact)  # commit


def _place_with_project(tree: RepositoryTree, bundle: Bundle) -> None:
    """Make the project's folder with its first file in it appear in one step.

    So a project is listed exactly while it has a file, and the list of projects never has to look into folders.
    """
    draft = tree.temporary / temporary_name()
    draft.mkdir()
    try:
        os.link(bundle.artifact, draft / bundle.filename, follow_symlinks=False)
        for suffix, content in bundle.companions.items():
            write_synced(draft / f"{bundle.filename}{suffix}", content)
        sync_directory(draft)
        move_directory(draft, tree.project(bundle.project))  # commit
    except BaseException:
        with suppress(OSError):
            remove_tree(draft)
        raise


def withdraw_file(tree: RepositoryTree, project: NormalizedName, filename: str) -> None:
    """Remove a file from its project; gone on disk when this returns. With the last file the project goes."""
    folder = tree.project(project)
    if _holds_nothing_but(folder, filename):
        draft = tree.temporary / temporary_name()
        move_directory(folder, draft)  # commit
        remove_tree(draft)
        return
    remove_file(tree.artifact(project, filename))  # commit
    for suffix in COMPANION_SUFFIXES:
        remove_file(tree.companion(project, filename, suffix))


def _holds_nothing_but(folder: Path, filename: str) -> bool:
    """Whether *folder* goes with *filename*: it holds no other file, and no leavings but of files that are gone."""
    names = {entry.name for entry in os.scandir(folder)}
    others = names - {filename, *(f"{filename}{suffix}" for suffix in COMPANION_SUFFIXES)}
    return all(_is_orphan(name, names) for name in others)


def _is_orphan(name: str, names: set[str]) -> bool:
    for suffix in COMPANION_SUFFIXES:
        if name.endswith(suffix):
            return is_filename(name.removesuffix(suffix)) and name.removesuffix(suffix) not in names
    return False
