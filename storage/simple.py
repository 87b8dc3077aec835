"""The simple index (PEP 503, PEP 691), read from the tree: the files of a project, the projects of a repository.

The directory and its sidecars are the only truth, and every answer looks at them anew. What is kept of a sidecar
is valid for the signature that ``stat`` gives at that moment. A file without a sidecar, a sidecar that does not
parse and an artifact with other bytes hide that file alone; its neighbours are listed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from packaging.utils import NormalizedName

from storage.damage import report_damage
from storage.errors import FileNotFound, InvalidFilename, ProjectNotFound
from storage.files import (
    Signature,
    directory_entries,
    is_directory,
    open_regular,
    read_json,
    status_of,
    subdirectories,
)
from storage.layout import COMPANION_SUFFIXES, CORE_METADATA_SUFFIX, SIDECAR_SUFFIX, RepositoryTree
from storage.names import is_normalized_project, parse_filename
from storage.sidecars import File, file_from_json
from storage.statuses import ProjectStatus, read_status

KEPT_SIDECARS = 10_000  # about 2 KB each
KEPT_DIGESTS = 20_000  # about 500 bytes each


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


def has_project(tree: RepositoryTree, project: NormalizedName) -> bool:
    """Whether *project* has its folder. A link in its place, or in place of the folder above, is none."""
    return is_directory(tree.packages) and is_directory(tree.project(project))


def project_detail(tree: RepositoryTree, project: NormalizedName) -> ProjectDetail:
    """Return the files of *project*. Lists the directory anew, so a file another process added is there at once.

    :raises ProjectNotFound: if the repository holds no file of *project*.
    """
    if not has_project(tree, project):
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
    try:
        fits = parse_filename(filename).project == project
    except InvalidFilename as error:
        raise FileNotFound(filename) from error
    folder = tree.project(project)
    file = _judge(folder, filename, _look(folder, filename)) if fits and has_project(tree, project) else None
    if file is None:
        raise FileNotFound(filename)
    return file


def read_files(tree: RepositoryTree, project: NormalizedName) -> Iterator[File]:
    """Yield the files of *project* that are whole, even if it is quarantined; in no order."""
    folder = tree.project(project)
    stats = {}
    for entry in directory_entries(folder):
        with suppress(FileNotFoundError):  # deleted since the directory was read
            stats[entry.name] = entry.stat(follow_symlinks=False)
    for name in stats:
        if not name.endswith(COMPANION_SUFFIXES):
            file = _judge(folder, name, {n: stats[n] for n in _names_to_look_at(name) if n in stats})
            if file is not None and file.project == project:
                yield file


Stats = dict[str, os.stat_result]  # by name: what ``lstat`` says of an artifact and of what goes with it


def _names_to_look_at(filename: str) -> tuple[str, str, str]:
    return filename, f"{filename}{SIDECAR_SUFFIX}", f"{filename}{CORE_METADATA_SUFFIX}"


def _look(folder: Path, filename: str) -> Stats:
    looked_at = ((name, status_of(folder / name)) for name in _names_to_look_at(filename))
    return {name: status for name, status in looked_at if status is not None}


def _judge(folder: Path, filename: str, stats: Stats) -> File | None:
    """Return *filename* as listed, or None if it has to hide; the reason is logged."""
    if filename not in stats:
        return None
    try:
        return _check(folder, filename, stats)
    except (ValueError, OSError) as error:
        fresh = _look(folder, filename)
        if _signatures(fresh) != _signatures(stats):  # it was changed while we looked: nothing is damaged
            return _judge(folder, filename, fresh)
        report_damage(folder / filename, str(error))
        return None


def _signatures(stats: Stats) -> dict[str, Signature]:
    return {name: Signature.of(status) for name, status in stats.items()}


def _check(folder: Path, filename: str, stats: Stats) -> File:
    artifact, sidecar = stats[filename], stats.get(f"{filename}{SIDECAR_SUFFIX}")
    if sidecar is None:
        raise ValueError("has no sidecar")
    signature = Signature.of(sidecar)
    path = f"{folder}/{filename}{SIDECAR_SUFFIX}"
    read = _read_sidecar if signature.is_settled() else _read_sidecar.__wrapped__
    file = read(path, filename, signature)
    if file.size != artifact.st_size or not _is_readable(artifact):
        raise ValueError(f"is not a readable file of {file.size} bytes, as its sidecar says")
    # An upload is written before the moment that counts as its time. What was written to since (or copied without
    # its time stamp) is read over, once for each of its signatures.
    touched = artifact.st_mtime_ns > file.upload_time.timestamp() * 1e9
    if touched and _sha256_of(f"{folder}/{filename}", artifact) != file.sha256:
        raise ValueError("has other bytes than were uploaded")
    if file.core_metadata_sha256 is not None:
        core_metadata = stats.get(f"{filename}{CORE_METADATA_SUFFIX}")
        core_metadata_path = f"{folder}/{filename}{CORE_METADATA_SUFFIX}"
        if core_metadata is None or _sha256_of(core_metadata_path, core_metadata) != file.core_metadata_sha256:
            # pip gives up on advertised metadata that is missing or has another hash (specs.md 2.1).
            report_damage(Path(core_metadata_path), "is missing or damaged; not advertised")
            return replace(file, core_metadata_sha256=None)
    return file


def _is_readable(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o444)


def _sha256_of(path: str, status: os.stat_result) -> str | None:
    """The sha256 of a file, hex; None if it cannot be read."""
    signature = Signature.of(status)
    read = _hash_file if signature.is_settled() else _hash_file.__wrapped__
    try:
        return read(path, signature)
    except OSError:
        return None


@lru_cache(maxsize=KEPT_DIGESTS)
def _hash_file(path: str, signature: Signature) -> str:
    """Return the sha256 of a file, hex; *signature* makes a changed one another entry of the cache."""
    with open_regular(Path(path)) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=KEPT_SIDECARS)
def _read_sidecar(path: str, filename: str, signature: Signature) -> File:
    """Read what the index needs of a sidecar; *signature* makes a changed one another entry of the cache."""
    return file_from_json(read_json(Path(path)), filename)
