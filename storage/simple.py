"""The simple index (PEP 503, PEP 691), read from the tree: the files of a project, the projects of a repository.

The directory and its sidecars are the only truth. What is kept of a sidecar is valid for the signature that
``stat`` gives at that moment. A file without a sidecar, a sidecar that does not parse and an artifact with other
bytes hide that file alone; its neighbours are listed. All files of a project at once are in ``listings.py``.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

from packaging.utils import NormalizedName

from storage.damage import report_damage
from storage.errors import FileNotFound, InvalidFilename, ProjectNotFound
from storage.files import (
    Signature,
    directory_entries,
    hash_file,
    is_directory,
    kept_if_settled,
    read_json,
    status_of,
    subdirectories,
)
from storage.layout import COMPANION_SUFFIXES, CORE_METADATA_SUFFIX, SIDECAR_SUFFIX, RepositoryTree
from storage.names import is_normalized_project, parse_filename
from storage.sidecars import File, file_from_json
from storage.statuses import ProjectStatus, read_status

KEPT_SIDECARS = 6_000  # about 2 KB each
KEPT_DIGESTS = 12_000  # about 500 bytes each


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
    """Return the files of *project*, read anew: for whoever reads each project once. Pages have ``listings.py``.

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
    folder = str(tree.project(project))
    file = judge(folder, filename, look_at(folder, filename))[0] if fits and has_project(tree, project) else None
    if file is None:
        raise FileNotFound(filename)
    return file


def read_files(tree: RepositoryTree, project: NormalizedName) -> Iterator[File]:
    """Yield the files of *project* that are whole, even if it is quarantined; in no order."""
    folder = tree.project(project)
    for entry in directory_entries(folder):
        if not entry.name.endswith(COMPANION_SUFFIXES):
            file, _ = judge(str(folder), entry.name, look_at(str(folder), entry.name))
            if file is not None and file.project == project:
                yield file


class Stats(NamedTuple):
    """What ``lstat`` says of an artifact and of what goes with it; None where there is nothing of that name."""

    artifact: os.stat_result | None
    sidecar: os.stat_result | None
    core_metadata: os.stat_result | None

    @property
    def signatures(self) -> list[Signature | None]:
        """The signatures of the three."""
        return [None if status is None else Signature.of(status) for status in self]


def look_at(folder: str, filename: str) -> Stats:
    """Look at a file of a project, now."""
    path = f"{folder}/{filename}"
    try:  # all at once: pages of many files spend their time here
        return Stats(os.lstat(path), os.lstat(path + SIDECAR_SUFFIX), os.lstat(path + CORE_METADATA_SUFFIX))
    except OSError:
        return Stats(status_of(path), status_of(path + SIDECAR_SUFFIX), status_of(path + CORE_METADATA_SUFFIX))


def judge(folder: str, filename: str, stats: Stats) -> tuple[File | None, bool]:
    """Return *filename* as listed, or None if it has to hide, and whether nothing is wrong with it.

    What is wrong is logged. *stats* is what :func:`look_at` has just returned.
    """
    if stats.artifact is None:
        return None, True
    try:
        return _check(folder, filename, stats)
    except (ValueError, OSError) as error:
        fresh = look_at(folder, filename)
        if fresh.signatures != stats.signatures:  # it was changed while we looked: nothing is damaged
            return judge(folder, filename, fresh)
        report_damage(Path(folder, filename), str(error))
        return None, False


def _check(folder: str, filename: str, stats: Stats) -> tuple[File, bool]:
    artifact, sidecar, core_metadata = stats
    if artifact is None or sidecar is None:
        raise ValueError("has no sidecar")
    path = f"{folder}/{filename}"
    signature = Signature.of(sidecar)
    file = kept_if_settled(_read_sidecar, signature)(path + SIDECAR_SUFFIX, filename, signature)
    if file.size != artifact.st_size or not _is_readable(artifact):
        raise ValueError(f"is not a readable file of {file.size} bytes, as its sidecar says")
    # An upload is written before the moment that counts as its time. What was written to since (or copied without
    # its time stamp) is read over, once for each of its signatures.
    touched = artifact.st_mtime_ns > file.upload_time.timestamp() * 1e9
    if touched and _sha256_of(path, artifact) != file.sha256:
        raise ValueError("has other bytes than were uploaded")
    if file.core_metadata_sha256 is not None:
        path += CORE_METADATA_SUFFIX
        if core_metadata is None or _sha256_of(path, core_metadata) != file.core_metadata_sha256:
            # pip gives up on advertised metadata that is missing or has another hash (specs.md 2.1).
            report_damage(Path(path), "is missing or damaged; not advertised")
            return replace(file, core_metadata_sha256=None), False
    return file, True


def _is_readable(status: os.stat_result) -> bool:
    return stat.S_ISREG(status.st_mode) and bool(status.st_mode & 0o444)


def _sha256_of(path: str, status: os.stat_result) -> str | None:
    """The sha256 of a file, hex; None if it cannot be read."""
    signature = Signature.of(status)
    try:
        return kept_if_settled(_hash_file, signature)(path, signature)
    except OSError:
        return None


@lru_cache(maxsize=KEPT_DIGESTS)
def _hash_file(path: str, signature: Signature) -> str:
    """Return the sha256 of a file, hex; *signature* makes a changed one another entry of the cache."""
    return hash_file(Path(path))


@lru_cache(maxsize=KEPT_SIDECARS)
def _read_sidecar(path: str, filename: str, signature: Signature) -> File:
    """Read what the index needs of a sidecar; *signature* makes a changed one another entry of the cache."""
    return file_from_json(read_json(Path(path)), filename)
