"""The simple index (PEP 503, PEP 691), read from the tree: the files of a project, the projects of a repository.

The directory and its sidecars are the only truth, and every answer looks at them anew. What is kept of a sidecar
is valid for the signature that ``stat`` gives at that moment. A file without a sidecar, a sidecar that does not
parse and an artifact of another size hide that file alone; its neighbours are listed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from packaging.utils import NormalizedName

from storage.damage import report_damage
from storage.errors import FileNotFound, InvalidFilename, ProjectNotFound
from storage.files import Signature, is_directory, read_json, subdirectories
from storage.layout import COMPANION_SUFFIXES, CORE_METADATA_SUFFIX, SIDECAR_SUFFIX, RepositoryTree
from storage.names import is_normalized_project, parse_filename
from storage.sidecars import File, file_from_json
from storage.statuses import ProjectStatus, read_status

KEPT_SIDECARS = 20_000  # about 1 KB each


@dataclass(frozen=True, slots=True)
class ProjectDetail:
    """One project's page: its files by version (PEP 440) and then file name, yanked ones included."""

    name: NormalizedName
    files: tuple[File, ...]
    status: ProjectStatus

    @property
    def versions(self) -> list[str]:
        """The versions that have files, in the order of PEP 440."""
        return list(dict.fromkeys(file.version for file in self.files))


def project_names(tree: RepositoryTree) -> list[NormalizedName]:
    """Return the names of the projects, sorted. Lists the directory anew."""
    return sorted(NormalizedName(name) for name in subdirectories(tree.packages) if is_normalized_project(name))


def project_detail(tree: RepositoryTree, project: NormalizedName) -> ProjectDetail:
    """Return the files of *project*. Lists the directory anew, so a file another process added is there at once.

    :raises ProjectNotFound: if the repository holds no file of *project*.
    """
    if not is_directory(tree.project(project)):
        raise ProjectNotFound(project)
    status = read_status(tree, project)
    files = sorted(read_files(tree, project), key=lambda file: file.sort_key) if status.offers_files else []
    return ProjectDetail(project, tuple(files), status)


def find_file(tree: RepositoryTree, project: NormalizedName, filename: str) -> File:
    """Return one file as the index shows it.

    :raises FileNotFound: if *project* has no such file, or none that can be served.
    """
    if not read_status(tree, project).offers_files:
        raise FileNotFound(filename)
    return look_up_file(tree, project, filename)


def look_up_file(tree: RepositoryTree, project: NormalizedName, filename: str) -> File:
    """Return one file, even of a project that is quarantined.

    :raises FileNotFound: if *project* has no such file, or it is damaged.
    """
    folder = tree.project(project)
    try:
        if parse_filename(filename).project != project or not is_directory(folder):
            raise FileNotFound(filename)
        stats = {
            name: (folder / name).lstat()
            for name in (filename, f"{filename}{SIDECAR_SUFFIX}", f"{filename}{CORE_METADATA_SUFFIX}")
            if os.path.lexists(folder / name)
        }
    except InvalidFilename as error:
        raise FileNotFound(filename) from error
    file = _judge(folder, filename, stats)
    if file is None:
        raise FileNotFound(filename)
    return file


def read_files(tree: RepositoryTree, project: NormalizedName) -> Iterator[File]:
    """Yield the files of *project* that are whole, even if it is quarantined; in no order."""
    folder = tree.project(project)
    stats = {}
    for entry in _entries(folder):
        with suppress(FileNotFoundError):  # deleted since the directory was read
            stats[entry.name] = entry.stat(follow_symlinks=False)
    for name in stats:
        if name.endswith(COMPANION_SUFFIXES) or name.startswith("."):
            continue
        file = _judge(folder, name, stats)
        if file is not None and file.project == project:
            yield file


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:  # its last file was deleted meanwhile
        return []


def _judge(folder: Path, filename: str, stats: dict[str, os.stat_result]) -> File | None:
    """Return *filename* as listed, or None if it has to hide; the reason is logged."""
    if filename not in stats:
        return None
    try:
        return _check(folder, filename, stats)
    except FileNotFoundError:  # deleted while we looked
        return None
    except (ValueError, OSError) as error:
        report_damage(folder / filename, str(error))
        return None


def _check(folder: Path, filename: str, stats: dict[str, os.stat_result]) -> File:
    artifact, sidecar = stats[filename], stats.get(f"{filename}{SIDECAR_SUFFIX}")
    if sidecar is None:
        raise ValueError("has no sidecar")
    signature = Signature.of(sidecar)
    path = f"{folder}/{filename}{SIDECAR_SUFFIX}"
    read = _read_sidecar if signature.is_settled() else _read_sidecar.__wrapped__
    file, core_metadata_size = read(path, filename, signature)
    if file.size != artifact.st_size or not _is_regular(artifact):
        raise ValueError(f"is not a file of {file.size} bytes, as its sidecar says")
    core_metadata = stats.get(f"{filename}{CORE_METADATA_SUFFIX}")
    if file.core_metadata_sha256 and (core_metadata is None or core_metadata.st_size != core_metadata_size):
        # pip gives up on advertised metadata that is missing or has another hash (specs.md 2.1).
        report_damage(folder / f"{filename}{CORE_METADATA_SUFFIX}", "is missing or damaged; not advertised")
        return replace(file, core_metadata_sha256=None)
    return file


def _is_regular(status: os.stat_result) -> bool:
    return (status.st_mode & 0o170000) == 0o100000


@lru_cache(maxsize=KEPT_SIDECARS)
def _read_sidecar(path: str, filename: str, signature: Signature) -> tuple[File, int | None]:
    """Read what the index needs of a sidecar; *signature* makes a changed one another entry of the cache."""
    document = read_json(Path(path))
    size = document.get("core_metadata_size")
    return file_from_json(document, filename), size if isinstance(size, int) else None
