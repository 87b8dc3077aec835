"""The one road that all uploads end in (contract.md section 4): read the archive, settle what its name stands for.

Metadata comes from inside the archive; what a form says is a claim that must agree with it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, NamedTuple

from storage.errors import FileAlreadyExists, InvalidDistribution, NameBlocked
from storage.files import (
    encode_json,
    hash_file,
    is_regular,
    overwrite_file,
    read_json,
    replace_file,
    status_of,
    sync_directory,
    sync_file,
)
from storage.layout import ATTESTATIONS_SUFFIX, CORE_METADATA_SUFFIX, SIDECAR_SUFFIX, RepositoryTree
from storage.limits import MIB, Limits
from storage.listings import note_replacing
from storage.placing import Bundle, place_file
from storage.sidecars import Actor, Digests, File, Sidecar
from storage.simple import has_project
from storage.statuses import ProjectClosed, read_status
from storage.trash import deleted_namesakes
from storage.uploads import Incoming

SYNCED_TOGETHER = 1 * MIB  # bytes; smaller files are synced together with what goes with them


@dataclass(frozen=True, slots=True)
class Claims:
    """What an upload form says of its file; None: nothing (specs.md 3.1)."""

    name: str | None = None
    version: str | None = None
    packagetype: str | None = None
    md5: str | None = None
    sha256: str | None = None
    blake2b_256: str | None = None


class Added(NamedTuple):
    """What became of an upload."""

    sidecar: Sidecar
    created: bool  # False: the same bytes were there already
    mended: bool = False  # the stored file was damaged, and is whole again


@dataclass(frozen=True, slots=True)
class Upload:
    """An acceptable distribution, about to be published."""

    sidecar: Sidecar
    bundle: Bundle


def read_upload(
    incoming: Incoming,
    filename: str,
    actor: Actor,
    *,
    limits: Limits,
    strict_record: bool,
    claims: Claims,
    attestations: bytes | None,
    yanked_reason: str | None = None,
) -> Upload:
    """Read the archive in *incoming*, and hold the *claims* against it.

    A large one is on disk when this returns: nobody should have to wait for that while the project is locked.

    :raises InvalidFilename, InvalidDistribution: if it cannot be accepted.
    """
    digests = incoming.digests
    check_digests(filename, digests, claims)
    from storage.distributions import read_distribution  # it brings all that reads archives: not at every start

    distribution = read_distribution(
        incoming.content,
        filename,
        limits=limits,
        strict_record=strict_record,
        claimed_name=claims.name,
        claimed_version=claims.version,
    )
    if claims.packagetype not in (None, distribution.packagetype):
        reason = f"the form says filetype {claims.packagetype!r}, yet this is a {distribution.packagetype}"
        raise InvalidDistribution(filename, (reason,))
    unsynced: BinaryIO | None = incoming.file
    if incoming.size > SYNCED_TOGETHER:
        incoming.sync()
        unsynced = None
    sidecar = Sidecar.describe(distribution, digests, incoming.size, actor).with_yanked(yanked_reason)
    companions = {}
    if distribution.metadata_served:
        companions[CORE_METADATA_SUFFIX] = distribution.metadata_bytes
    if attestations is not None:
        companions[ATTESTATIONS_SUFFIX] = attestations
    companions[SIDECAR_SUFFIX] = encode_json(sidecar.to_json())
    return Upload(sidecar, Bundle(distribution.project, filename, incoming.path, companions, unsynced))


def check_digests(filename: str, digests: Digests, claims: Claims) -> None:
    """Compare every digest that was claimed with that of the bytes that came.

    :raises InvalidDistribution: if one differs.
    """
    for name in ("md5", "sha256", "blake2b_256"):
        claimed, came = getattr(claims, name), getattr(digests, name)
        if claimed is not None and claimed.lower() != came:
            difference = f"{claimed[:16]!r}..., yet the bytes that came have {came[:16]!r}..."
            reason = f"the form says {name} {difference}; send it again"
            raise InvalidDistribution(filename, (reason,))


def publish(tree: RepositoryTree, upload: Upload, *, reuse_filenames: bool) -> Added:
    """Make *upload* visible; on disk once :func:`sync_place` has returned. The caller holds the project's lock.

    The same bytes under the same name are no change; they mend the stored file if it was damaged.

    :raises FileAlreadyExists: if other bytes have that name, or had it before they were deleted.
    :raises NameBlocked: if something that is no file has the name.
    :raises ProjectClosed: if the project's status lets nothing in.
    """
    standing = find_place(tree, upload.sidecar, reuse_filenames=reuse_filenames)
    if standing is not None:
        return Added(standing, created=False, mended=mend_file(tree, upload, standing))
    place_file(tree, upload.bundle)
    return Added(upload.sidecar, created=True)


def find_place(tree: RepositoryTree, sidecar: Sidecar, *, reuse_filenames: bool) -> Sidecar | None:
    """Return the sidecar of the same file where it is stored already; None if it would be new.

    :raises FileAlreadyExists, NameBlocked, ProjectClosed: as :func:`publish`.
    """
    file = sidecar.file
    status = read_status(tree, file.project)
    if not status.takes_uploads:
        raise ProjectClosed(file.project, status)
    standing = find_standing(tree, sidecar)
    if standing is None and not reuse_filenames:
        _check_deleted(tree, file)
    return standing


def find_standing(tree: RepositoryTree, sidecar: Sidecar) -> Sidecar | None:
    """Return the sidecar of the stored file with the same name and bytes; None if the name is free.

    Where the stored sidecar is lost, *sidecar* stands for it: the bytes are what counts.

    :raises FileAlreadyExists: if the name stands for other bytes.
    :raises NameBlocked: if something that is no file has the name.
    """
    file = sidecar.file
    artifact = tree.artifact(file.project, file.filename)
    if not has_project(tree, file.project) or status_of(artifact) is None:
        return None
    if not is_regular(artifact):
        raise NameBlocked(file.filename)
    try:
        standing = Sidecar.from_json(read_json(tree.sidecar(file.project, file.filename)), file.filename)
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


def mend_file(tree: RepositoryTree, upload: Upload, standing: Sidecar) -> bool:
    """Make the stored file whole again from the same bytes; False if it was. On disk when this returns.

    :raises NameBlocked: if a folder has the name of what goes with the file.
    """
    note_replacing(tree)
    try:
        mended = _mend(tree, upload, standing)
    except FileExistsError as error:
        raise NameBlocked(standing.file.filename) from error
    # Whoever stored it may have been killed before this, and what is answered now promises as much.
    sync_directory(tree.project(standing.file.project))
    sync_directory(tree.packages)
    return mended


def _mend(tree: RepositoryTree, upload: Upload, standing: Sidecar) -> bool:
    mended = False
    file, companions = standing.file, upload.bundle.companions
    path = tree.core_metadata(file.project, file.filename)
    served = file.core_metadata_sha256 if CORE_METADATA_SUFFIX in companions else None
    if served is not None and not _has_sha256(path, served):
        replace_file(path, companions[CORE_METADATA_SUFFIX], temporary=tree.temporary)
        mended = True
    attestations = companions.get(ATTESTATIONS_SUFFIX)
    path = tree.companion(file.project, file.filename, ATTESTATIONS_SUFFIX)
    if attestations is not None and not is_regular(path):  # the first that come are kept
        replace_file(path, attestations, temporary=tree.temporary)
        mended = True
    if standing is upload.sidecar:
        path = tree.sidecar(file.project, file.filename)
        replace_file(path, companions[SIDECAR_SUFFIX], temporary=tree.temporary)
        mended = True
    artifact = tree.artifact(file.project, file.filename)
    if not _has_sha256(artifact, file.sha256):
        if upload.bundle.unsynced is not None:
            sync_file(upload.bundle.unsynced)
        overwrite_file(upload.bundle.artifact, artifact)
        mended = True
    return mended


def _has_sha256(path: Path, sha256: str) -> bool:
    try:
        return hash_file(path) == sha256
    except (FileNotFoundError, PermissionError):
        return False


def _check_deleted(tree: RepositoryTree, file: File) -> None:
    """Refuse other bytes under the name of a deleted file."""
    namesakes = [entry.sidecar for entry in deleted_namesakes(tree, file.project, file.filename)]
    if not namesakes or file.sha256 in {sidecar.file.sha256 for sidecar in namesakes}:
        return
    first = namesakes[0]
    raise FileAlreadyExists(
        file.filename,
        sha256=file.sha256,
        stored_sha256=first.file.sha256,
        upload_time=first.file.upload_time,
        uploader=str(first.uploader),
        deleted=True,
    )
