"""What pages show of one project: its releases, what its files hold and need, what of it was deleted."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import NormalizedName, canonicalize_name
from packaging.version import Version

from storage.archives import Member
from storage.errors import ProjectNotFound
from storage.files import is_directory
from storage.members import MemberContent, MemberNotFound, read_member
from storage.metadata import CoreMetadata
from storage.names import is_normalized_project
from storage.repository import Repository
from storage.sidecars import File
from storage.simple import read_files
from storage.statuses import ProjectStatus, read_status
from storage.trash import TrashEntry

# --- releases ---


@dataclass(frozen=True, slots=True)
class Release:
    """One version of a project, with the files of it, wheels after sdists by name."""

    version: str  # normalized
    files: tuple[File, ...]

    @property
    def is_prerelease(self) -> bool:
        """Whether installers leave it out unless they are asked."""
        return Version(self.version).is_prerelease

    @property
    def yanked_count(self) -> int:
        """How many of its files are yanked."""
        return sum(file.yanked_reason is not None for file in self.files)

    @property
    def is_yanked(self) -> bool:
        """Whether all of it is."""
        return self.yanked_count == len(self.files)

    @property
    def first(self) -> File:
        """The file that was there first."""
        return min(self.files, key=lambda file: file.upload_time)

    @property
    def size(self) -> int:
        """Bytes of its files together."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True, slots=True)
class Project:
    """A project with its releases, the newest version (PEP 440) first, even if it is quarantined."""

    name: NormalizedName
    releases: tuple[Release, ...]
    status: ProjectStatus

    @property
    def latest(self) -> Release:
        """The newest release that is neither a pre-release nor yanked, or else the newest that is not yanked."""
        final = (r for r in self.releases if not r.is_prerelease and not r.is_yanked)
        standing = (r for r in self.releases if not r.is_yanked)
        return next(final, None) or next(standing, None) or self.releases[0]

    @property
    def files(self) -> list[File]:
        """All files, the newest version first."""
        return [file for release in self.releases for file in release.files]


def open_project(repository: Repository, project: NormalizedName) -> Project:
    """Return a project as pages show it.

    :raises ProjectNotFound: if the repository holds no file of it.
    """
    if not has_project(repository, project):
        raise ProjectNotFound(project)
    files = sorted(read_files(repository.tree, project), key=lambda file: file.sort_key)
    releases = [Release(version, tuple(group)) for version, group in groupby(files, lambda file: file.version)]
    if not releases:
        raise ProjectNotFound(project)
    return Project(project, tuple(reversed(releases)), read_status(repository.tree, project))


def has_project(repository: Repository, project: NormalizedName) -> bool:
    """Whether the repository holds files of *project*."""
    return is_normalized_project(project) and is_directory(repository.tree.project(project))


def representative(release: Release) -> File:
    """Return the file of a release whose metadata speak for it: what most people install."""
    return min(release.files, key=lambda file: (file.yanked_reason is not None, file.packagetype == "sdist"))


def deleted_files(repository: Repository, project: NormalizedName, filename: str = "") -> list[TrashEntry]:
    """Return what was deleted of a project, or of one of its file names, the latest deletion first."""
    entries = (e for e in repository.trash(project) if filename in ("", e.sidecar.file.filename))
    return sorted(entries, key=lambda entry: entry.deleted_at, reverse=True)


# --- contents ---


@dataclass(slots=True)
class Folder:
    """A folder of an archive."""

    name: str
    folders: dict[str, Folder] = field(default_factory=dict)
    files: list[tuple[str, Member]] = field(default_factory=list)  # with their last part
    size: int = 0  # bytes of all files in it
    count: int = 0  # of files in it

    def sorted_folders(self) -> list[Folder]:
        """The folders in it, by name."""
        return [self.folders[name] for name in sorted(self.folders)]

    def sorted_files(self) -> list[tuple[str, Member]]:
        """The files in it, by name."""
        return sorted(self.files, key=lambda pair: pair[0])


def folder_tree(members: Iterable[Member]) -> Folder:
    """Return *members* as a tree, under a folder without a name."""
    root = Folder("")
    for member in members:
        *parts, last = member.name.split("/")
        folder = root
        folder.size, folder.count = folder.size + member.size, folder.count + 1
        for part in parts:
            folder = folder.folders.setdefault(part, Folder(part))
            folder.size, folder.count = folder.size + member.size, folder.count + 1
        folder.files.append((last, member))
    return root


def matching_members(members: Sequence[Member], wanted: str) -> list[Member]:
    """Return the members whose path contains *wanted*, whatever its case."""
    folded = wanted.casefold()
    return [member for member in members if folded in member.name.casefold()]


def open_member(repository: Repository, project: NormalizedName, filename: str, path: str) -> MemberContent:
    """Return the text of a member of a stored file.

    :raises FileNotFound: if the file is not there, damaged, or its project quarantined.
    :raises MemberNotFound: if it has no such member.
    """
    sidecar = repository.sidecar(project, filename)
    member = next((member for member in reversed(sidecar.members) if member.name == path), None)
    if member is None:
        raise MemberNotFound(filename, path)
    _, content = repository.open_file(project, filename)
    with content:
        return read_member(content, filename, path, member.size, repository.limits)


# --- dependencies ---

MAX_DEPENDENCIES = 500  # that are shown
_EXTRA = re.compile(r"""\bextra\s*==\s*["']([^"']+)["']|["']([^"']+)["']\s*==\s*extra\b""")


@dataclass(frozen=True, slots=True)
class Dependency:
    """What a file needs besides itself."""

    name: str  # as spelled
    details: str  # extras, versions and conditions as they were written, "" if there are none
    extra: str  # the extra that asks for it; "": always
    project: NormalizedName | None  # where the repository has it


@dataclass(frozen=True, slots=True)
class Dependencies:
    """All that a file needs."""

    count: int  # without extras
    extra_count: int  # only with extras
    shown: tuple[Dependency, ...]

    def by_extra(self) -> Iterator[tuple[str, list[Dependency]]]:
        """Yield what is shown by the extra that asks for it, first what none does."""
        for extra, group in groupby(sorted(self.shown, key=lambda d: d.extra), lambda d: d.extra):
            yield extra, list(group)


def dependencies_of(repository: Repository, metadata: CoreMetadata) -> Dependencies:
    """Return what a file with that *metadata* needs, linked where *repository* has it."""
    extras = [_EXTRA.search(text) is not None for text in metadata.requires_dist]
    shown = (_dependency(repository, text) for text in islice(metadata.requires_dist, MAX_DEPENDENCIES))
    return Dependencies(extras.count(False), extras.count(True), tuple(shown))


def _dependency(repository: Repository, text: str) -> Dependency:
    match = _EXTRA.search(text)
    extra = (match[1] or match[2]) if match else ""
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        return Dependency(text, "", extra, None)
    details = str(requirement).removeprefix(requirement.name).strip()
    project = canonicalize_name(requirement.name)
    return Dependency(requirement.name, details, extra, project if has_project(repository, project) else None)
