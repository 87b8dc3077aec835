"""The tree on disk (contract.md section 6): one drawing, one property or method for each path in it.

::

    {storage}/
      registry.json                     format version, secret keys (mode 0600)
      users/{user}.json
      tokens/{id}.json                  {id}.used.json: when and from where it was last used
      {org}/
        organization.json
        {repo}/
          repository.json               name, description, emoji, color, private, settings
          packages/
            {project}/
              {filename}                the artifact, byte for byte as uploaded
              {filename}.json           its sidecar
              {filename}.metadata       core metadata, byte for byte as in the archive
              {filename}.attestations   PEP 740 attestations, as they were uploaded
              project.json              the project's status and why, while it is not "active" (PEP 792)
          trash/                        deleted files with their sidecars
          downloads/                    counts
          events.jsonl                  what happened, by whom, when: append-only
          .locks/{project}.lock         held while the project is changed
          .tmp/                         what is being written; the leftovers of a crash
          .summaries.json               derived: each project in a few words; may be deleted, as the next two
          .catalog.json                 derived: the files of each project, by time
          .downloads.json               derived: the downloads of each project
          .index/{project}.jsonl        derived: the files of a project that has many; may be deleted
        .renaming.json                  is there while a repository gets another name

A path is built only here, from names that ``names.py`` has checked. All temporary files of a repository lie in
its one ``.tmp``, so that sweeping them costs the same however many projects there are.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from packaging.utils import NormalizedName

SIDECAR_SUFFIX = ".json"
CORE_METADATA_SUFFIX = ".metadata"
ATTESTATIONS_SUFFIX = ".attestations"
COMPANION_SUFFIXES = (CORE_METADATA_SUFFIX, ATTESTATIONS_SUFFIX, SIDECAR_SUFFIX)  # the sidecar is written last
STATUS_FILE = "project.json"

KEPT_PATHS = 2_000  # about 500 bytes each


@lru_cache(maxsize=KEPT_PATHS)
def _join(folder: Path, name: str) -> Path:
    """Return ``folder / name``, kept: every request asks for the same paths, and pathlib takes its time."""
    return folder / name


@dataclass(frozen=True, slots=True)
class RepositoryTree:
    """The paths of one repository."""

    root: Path

    @property
    def repository_file(self) -> Path:
        """What the repository is called, and its settings; without it there is no repository."""
        return _join(self.root, "repository.json")

    @property
    def packages(self) -> Path:
        """The folder of the projects; a project is there exactly while it has a folder here."""
        return _join(self.root, "packages")

    def project(self, project: NormalizedName) -> Path:
        """The folder of one project's files."""
        return _join(self.packages, project)

    def artifact(self, project: NormalizedName, filename: str) -> Path:
        """The wheel or sdist itself."""
        return _join(self.project(project), filename)

    def sidecar(self, project: NormalizedName, filename: str) -> Path:
        """The sidecar of *filename*."""
        return self.project(project) / f"{filename}{SIDECAR_SUFFIX}"

    def core_metadata(self, project: NormalizedName, filename: str) -> Path:
        """The core metadata of *filename*."""
        return self.project(project) / f"{filename}{CORE_METADATA_SUFFIX}"

    def companion(self, project: NormalizedName, filename: str, suffix: str) -> Path:
        """The file with *suffix*, one of COMPANION_SUFFIXES, that goes with *filename*."""
        return self.project(project) / f"{filename}{suffix}"

    def status_file(self, project: NormalizedName) -> Path:
        """The status of a project (PEP 792)."""
        return _join(self.project(project), STATUS_FILE)

    @property
    def trash(self) -> Path:
        """The folder of what was deleted."""
        return _join(self.root, "trash")

    def deleted(self, project: str) -> Path:
        """The folder of what was deleted from one project."""
        return _join(self.trash, project)

    @property
    def downloads(self) -> Path:
        """The folder of the download counts."""
        return _join(self.root, "downloads")

    def download_counts(self, project: NormalizedName) -> Path:
        """How often each file of a project was downloaded, by day."""
        return self.downloads / f"{project}.json"

    @property
    def events_file(self) -> Path:
        """What happened in this repository."""
        return _join(self.root, "events.jsonl")

    @property
    def summaries_file(self) -> Path:
        """Each project in a few words: derived, and dotted so that it may be left out of a backup."""
        return _join(self.root, ".summaries.json")

    @property
    def catalog_file(self) -> Path:
        """The files of each project, by time: derived and dotted as well."""
        return _join(self.root, ".catalog.json")

    @property
    def totals_file(self) -> Path:
        """The downloads of each project, all in all: derived and dotted as well."""
        return _join(self.root, ".downloads.json")

    @property
    def index(self) -> Path:
        """The folder of what is derived from projects; dotted so that it may be left out of a backup."""
        return _join(self.root, ".index")

    def listing_file(self, project: NormalizedName) -> Path:
        """The files of a project as they are listed: derived."""
        return self.index / f"{project}.jsonl"

    @property
    def replacing_file(self) -> Path:
        """Changes whenever a file of a project is about to be replaced or removed."""
        return _join(self.index, ".replacing")

    @property
    def temporary(self) -> Path:
        """The folder of what is being written."""
        return _join(self.root, ".tmp")

    @property
    def locks(self) -> Path:
        """The folder of the lock files."""
        return _join(self.root, ".locks")

    def lock_file(self, name: str) -> Path:
        """The lock for changes of the project *name*, or of the repository itself under the name "" ."""
        return _join(self.locks, f"{name or '.repository'}.lock")


@dataclass(frozen=True, slots=True)
class StorageTree:
    """The paths above the repositories."""

    root: Path

    @property
    def registry_file(self) -> Path:
        """Format version and secret keys."""
        return _join(self.root, "registry.json")

    @property
    def starting_file(self) -> Path:
        """Is there while the first start on an empty storage has not come to its end."""
        return _join(self.root, ".starting")

    @property
    def failures(self) -> Path:
        """The folder of the failed sign-ins of the last minute."""
        return _join(self.root, ".failures")

    @property
    def starting_lock_file(self) -> Path:
        """The lock of the first start."""
        return _join(self.root, ".starting.lock")

    @property
    def lock_file(self) -> Path:
        """The lock for changes of the organizations and of the list of repositories."""
        return _join(self.root, ".registry.lock")

    @property
    def users_lock_file(self) -> Path:
        """The lock for changes of users; may be taken while the lock above is held."""
        return _join(self.root, ".users.lock")

    @property
    def users(self) -> Path:
        """The folder of the people."""
        return _join(self.root, "users")

    def user_file(self, user: str) -> Path:
        """One person."""
        return _join(self.users, f"{user}.json")

    @property
    def tokens(self) -> Path:
        """The folder of the tokens."""
        return _join(self.root, "tokens")

    @property
    def tokens_lock_file(self) -> Path:
        """The lock for changes of tokens that are there."""
        return _join(self.root, ".tokens.lock")

    def token_file(self, token_id: str) -> Path:
        """One token."""
        return _join(self.tokens, f"{token_id}.json")

    def token_use_file(self, token_id: str) -> Path:
        """When one token was last used."""
        return self.tokens / f"{token_id}.used.json"

    def organization(self, org: str) -> Path:
        """The folder of an organization's repositories."""
        return _join(self.root, org)

    def organization_file(self, org: str) -> Path:
        """What the organization is called; without it there is no organization."""
        return _join(self.organization(org), "organization.json")

    def renaming_file(self, org: str) -> Path:
        """Is there while a repository of the organization gets another name: what it was and will be called."""
        return self.organization(org) / ".renaming.json"

    def repository(self, org: str, repo: str) -> RepositoryTree:
        """The paths of one repository."""
        return RepositoryTree(_join(self.organization(org), repo))
