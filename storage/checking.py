"""``packhouse check``: read every file, compare it with what is known of it, and name what is wrong.

Works beside a running server. What looks wrong is looked at again while nobody can change the project, so an upload
that is going on is no finding. Repairing rebuilds what the artifact tells, and never deletes an artifact.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from packaging.utils import NormalizedName

from storage.distributions import read_distribution
from storage.errors import Invalid, NotFound, StorageDamaged
from storage.files import (
    directory_entries,
    encode_json,
    is_directory,
    is_regular,
    open_regular,
    read_json,
    remove_file,
    remove_tree,
    replace_file,
    status_of,
    sweep,
)
from storage.layout import COMPANION_SUFFIXES, STATUS_FILE
from storage.listings import note_replacing
from storage.names import is_filename, is_normalized_project, is_slug, parse_filename
from storage.registry import Registry
from storage.repository import Repository
from storage.sidecars import Actor, Digests, Sidecar
from storage.statuses import Status
from storage.tokens import Token
from storage.trash import read_entry
from storage.uploads import CHUNK
from storage.users import User

_REPAIRER = Actor("command line", description="check --repair")


@dataclass(frozen=True, slots=True)
class Finding:
    """Something of the tree that is damaged, missing or stray."""

    path: str
    problem: str
    repaired: bool = False

    def __str__(self) -> str:
        return f"{self.path}: {self.problem}{' (repaired)' if self.repaired else ''}"


Progress = Callable[[], None]  # called once for each artifact that was read


def check_storage(
    registry: Registry,
    org: str | None = None,
    repo: str | None = None,
    *,
    repair: bool = False,
    progress: Progress = lambda: None,
) -> Iterator[Finding]:
    """Yield all that is wrong in the storage, or in one organization or repository of it.

    :raises OrganizationNotFound, RepositoryNotFound: if there is none of that name.
    """
    registry.sweep()
    if org is None:
        yield from _check_top(registry)
    for organization in registry.organizations() if org is None else [registry.organization(org)]:
        if repo is None:
            yield from _check_organization(registry, organization.slug)
        slug = organization.slug
        for repository in registry.repositories(slug) if repo is None else [registry.repository(slug, repo)]:
            yield from check_repository(repository, repair=repair, progress=progress)


def artifact_count(registry: Registry, org: str | None = None, repo: str | None = None) -> int:
    """How many artifacts :func:`check_storage` is going to read, about."""
    count = 0
    for organization in registry.organizations():
        for repository in registry.repositories(organization.slug) if org in (None, organization.slug) else []:
            if repo in (None, repository.slug):
                for project in repository.projects():
                    names = os.listdir(repository.tree.project(project))  # noqa: PTH208 - ten times as fast
                    count += sum(is_filename(name) for name in names)
    return count


# --- above the repositories ---


def _check_top(registry: Registry) -> Iterator[Finding]:
    tree = registry.tree
    organizations = {organization.slug for organization in registry.organizations()}
    for path in _visible(tree.root):
        if path == tree.registry_file or path.name in organizations or path.name == "lost+found":
            continue
        if path in (tree.users, tree.tokens) and is_directory(path):
            continue
        problem = "its organization.json is missing or damaged" if is_directory(path) else _STRAY
        yield Finding(str(path), problem)
    for path in _visible(tree.users):
        yield from _check_document(path, User.from_json)
    for path in _visible(tree.tokens):
        if not path.name.endswith(".used.json"):
            yield from _check_document(path, Token.from_json)


def _check_document(path: Path, read: Callable[[dict[str, object]], object]) -> Iterator[Finding]:
    try:
        read(read_json(path))
    except FileNotFoundError:
        if os.path.lexists(path):
            yield Finding(str(path), "it is not a regular file")
    except (ValueError, KeyError) as error:
        yield Finding(str(path), f"it does not parse ({error})")
    except OSError as error:
        yield Finding(str(path), f"it cannot be read ({error.strerror})")


def _check_organization(registry: Registry, org: str) -> Iterator[Finding]:
    folder = registry.tree.organization(org)
    for path in _visible(folder):
        if path == registry.tree.organization_file(org):
            continue
        if not is_directory(path) or not is_slug(path.name):
            yield Finding(str(path), _STRAY)
        elif not is_regular(registry.tree.repository(org, path.name).repository_file):
            yield Finding(str(path), "its repository.json is missing")


def _check_settings(repository: Repository) -> Iterator[Finding]:
    try:
        _ = repository.settings
    except StorageDamaged as error:
        yield Finding(str(repository.tree.repository_file), f"{error.reason}; {error.remedy}")
    except NotFound:  # deleted meanwhile
        return


_STRAY = "Packhouse would not have put this here; it is ignored"


def _visible(folder: Path) -> list[Path]:
    return sorted(folder / entry.name for entry in directory_entries(folder))


# --- one repository ---


def check_repository(
    repository: Repository, *, repair: bool = False, progress: Progress = lambda: None
) -> Iterator[Finding]:
    """Yield all that is wrong in one repository."""
    tree = repository.tree
    yield from _check_settings(repository)
    own = (tree.repository_file, tree.packages, tree.trash, tree.downloads, tree.events_file)
    yield from (Finding(str(path), _STRAY) for path in _visible(tree.root) if path not in own)
    sweep(tree.temporary)
    for path in _visible(tree.packages):
        status = status_of(path)  # one look: a project comes and goes with its files
        if status is None:
            continue
        if stat.S_ISDIR(status.st_mode) and is_normalized_project(path.name):
            yield from _check_project(repository, NormalizedName(path.name), repair=repair, progress=progress)
        else:
            yield Finding(str(path), _STRAY)
    yield from _check_trash(repository, progress)


def _check_project(
    repository: Repository, project: NormalizedName, *, repair: bool, progress: Progress
) -> Iterator[Finding]:
    folder = repository.tree.project(project)
    names = {path.name for path in folder.iterdir()} if is_directory(folder) else set()
    if STATUS_FILE in names:
        yield from _check_document(
            repository.tree.status_file(project), lambda document: Status(str(document["status"]))
        )
    owners = {_belongs_to(name, names) for name in names if not name.startswith(".")} - {STATUS_FILE}
    for filename in sorted(owners):
        if not is_filename(filename):
            yield Finding(str(folder / filename), _STRAY)
            continue
        if _problems(repository, project, filename):
            with repository.locked(project):
                yield from _settle(repository, project, filename, repair=repair)
        progress()


def _belongs_to(name: str, names: set[str]) -> str:
    """The name of the artifact that *name* goes with, or *name* itself."""
    for suffix in COMPANION_SUFFIXES:
        stem = name.removesuffix(suffix)
        if stem != name and (stem in names or is_filename(stem)):
            return stem
    return name


def _settle(repository: Repository, project: NormalizedName, filename: str, *, repair: bool) -> Iterator[Finding]:
    """Look again, with the project locked, and repair what can be."""
    folder = repository.tree.project(project)
    if repair:
        note_replacing(repository.tree)
    for name, problem, mend in _problems(repository, project, filename):
        repaired = repair and mend is not None and mend()
        if repaired:
            repository.record("mended", _REPAIRER, project=project, filename=filename)
        yield Finding(str(folder / name), problem, repaired=repaired)


Mend = Callable[[], bool]  # returns whether it worked


def _problems(repository: Repository, project: NormalizedName, filename: str) -> list[tuple[str, str, Mend | None]]:
    """What is wrong with one file: the name, the problem, and how to repair it if it can be."""
    try:
        return _faults(repository, project, filename)
    except FileNotFoundError:  # deleted while we looked
        return []
    except OSError as error:
        return [(filename, f"it cannot be read ({error.strerror})", None)]


def _faults(repository: Repository, project: NormalizedName, filename: str) -> list[tuple[str, str, Mend | None]]:
    tree = repository.tree
    artifact, sidecar_path = tree.artifact(project, filename), tree.sidecar(project, filename)
    if not os.path.lexists(artifact):
        if not any(os.path.lexists(tree.companion(project, filename, suffix)) for suffix in COMPANION_SUFFIXES):
            return []  # deleted since
        problem = "missing: an upload that never finished, or a file that was removed by hand"
        return [(filename, problem, lambda: _remove_leavings(repository, project, filename))]
    if not is_regular(artifact):
        return [(filename, "it is not a regular file; it is ignored", None)]
    if parse_filename(filename).project != project:
        return [(filename, "it belongs to another project; it is ignored", None)]
    try:
        sidecar = Sidecar.from_json(read_json(sidecar_path), filename)
    except (FileNotFoundError, ValueError) as error:
        problem = f"it is missing or does not parse ({error}), so its file is not served"
        return [(sidecar_path.name, problem, lambda: rebuild(repository, project, filename))]
    if (found := _damage(artifact, sidecar)) is not None:
        return [(filename, found, None)]
    core_metadata = tree.core_metadata(project, filename)
    if sidecar.file.core_metadata_sha256 not in (None, _sha256_of(core_metadata)):
        problem = "it is missing or damaged"
        return [(core_metadata.name, problem, lambda: _extract_metadata(repository, project, sidecar))]
    return []


def _damage(artifact: Path, sidecar: Sidecar) -> str | None:
    """What of the artifact differs from its sidecar; None if nothing does."""
    size, digests = measure(artifact)
    if size != sidecar.file.size:
        return f"damaged: it has {size} bytes instead of {sidecar.file.size}; {_MENDING}"
    for name in Digests.__slots__:
        if getattr(digests, name) != getattr(sidecar.digests, name):
            return f"damaged: its {name} is not the one at its upload; {_MENDING}"
    return None


_MENDING = "restore it from a backup, or upload it again"


def measure(path: Path) -> tuple[int, Digests]:
    """Return the size in bytes and the digests of a file, which is read once."""
    hashes = [hashlib.new(name, usedforsecurity=False) for name in ("md5", "sha1", "sha256", "sha512")]
    hashes.append(hashlib.blake2b(digest_size=32))  # type: ignore[arg-type]  # the same interface
    size = 0
    with open_regular(path) as file:
        while chunk := file.read(CHUNK):
            size += len(chunk)
            for digest in hashes:
                digest.update(chunk)
    return size, Digests(*(digest.hexdigest() for digest in hashes))


def _sha256_of(path: Path) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.sha256(file.read()).hexdigest()
    except FileNotFoundError:
        return ""


# --- repairing ---


def rebuild(repository: Repository, project: NormalizedName, filename: str) -> bool:
    """Write a lost sidecar anew from its artifact; False if that is not an acceptable distribution.

    Who uploaded it and its yank state are lost; the time of the upload is the file's own.
    """
    tree = repository.tree
    artifact = tree.artifact(project, filename)
    size, digests = measure(artifact)
    try:
        with open_regular(artifact) as file:
            distribution = read_distribution(file, filename, limits=repository.limits, strict_record=False)
    except Invalid:
        return False
    if distribution.project != project:
        return False
    sidecar = Sidecar.describe(distribution, digests, size, _REPAIRER)
    uploaded = datetime.fromtimestamp(artifact.stat().st_mtime, UTC)
    sidecar = replace(sidecar, file=replace(sidecar.file, upload_time=uploaded))
    if distribution.metadata_served:
        path = tree.core_metadata(project, filename)
        replace_file(path, distribution.metadata_bytes, temporary=tree.temporary)
    replace_file(tree.sidecar(project, filename), encode_json(sidecar.to_json()), temporary=tree.temporary)
    return True


def _extract_metadata(repository: Repository, project: NormalizedName, sidecar: Sidecar) -> bool:
    tree, filename = repository.tree, sidecar.file.filename
    try:
        with open_regular(tree.artifact(project, filename)) as file:
            distribution = read_distribution(file, filename, limits=repository.limits, strict_record=False)
    except Invalid:
        return False
    if hashlib.sha256(distribution.metadata_bytes).hexdigest() != sidecar.file.core_metadata_sha256:
        return False
    replace_file(tree.core_metadata(project, filename), distribution.metadata_bytes, temporary=tree.temporary)
    return True


def _remove_leavings(repository: Repository, project: NormalizedName, filename: str) -> bool:
    for suffix in COMPANION_SUFFIXES:
        path = repository.tree.companion(project, filename, suffix)
        if is_regular(path):
            remove_file(path)
    folder = repository.tree.project(project)
    if not any(folder.iterdir()):
        remove_tree(folder)  # else the project would be listed without a file
    return True


# --- the trash ---


def _check_trash(repository: Repository, progress: Progress) -> Iterator[Finding]:
    tree = repository.tree
    for project in _visible(tree.trash):
        if not is_directory(project) or not is_normalized_project(project.name):
            yield Finding(str(project), _STRAY)
            continue
        for folder in _visible(project):
            if _entry_problem(folder) is not None:
                with repository.locked(project.name):
                    if (found := _entry_problem(folder)) is not None:
                        yield found
            progress()


def _entry_problem(folder: Path) -> Finding | None:
    """What is wrong with one deleted file; None if nothing is, or it has been restored since."""
    if not is_directory(folder):
        return Finding(str(folder), _STRAY) if os.path.lexists(folder) else None
    entry = read_entry(folder)
    if entry is None:
        return Finding(str(folder), "its deletion.json or its sidecar is missing or damaged; it cannot be restored")
    if entry.purged:
        return None
    artifact = folder / entry.sidecar.file.filename
    try:
        damage = _damage(artifact, entry.sidecar)
    except OSError as error:
        damage = f"it cannot be read ({error.strerror})"
    return None if damage is None else Finding(str(artifact), damage)
