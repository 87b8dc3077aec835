"""What can go wrong in the storage, as types with fields; each says in ``str()`` what happened and what would do.

A caller acts on the five kinds (:class:`NotFound`, :class:`Conflict`, :class:`Invalid`, :class:`Denied`,
:class:`Unavailable`); the leaves carry what a message or an answer needs.
"""

from __future__ import annotations

from datetime import datetime


class StorageError(Exception):
    """Anything the storage raises on purpose."""


class NotFound(StorageError):
    """What was asked for is not there."""


class Conflict(StorageError):
    """The change contradicts what is there."""


class Invalid(StorageError):
    """What was given cannot be accepted as it is."""


class Denied(StorageError):
    """The caller may not do this."""


class Unavailable(StorageError):
    """The storage cannot do this now; the same request may succeed later."""


# --- not found ---


class OrganizationNotFound(NotFound):
    """No such organization."""

    def __init__(self, org: str) -> None:
        self.org = org

    def __str__(self) -> str:
        return f"there is no organization {self.org!r}"


class RepositoryNotFound(NotFound):
    """No such repository in the organization."""

    def __init__(self, org: str, repo: str) -> None:
        self.org, self.repo = org, repo

    def __str__(self) -> str:
        return f"there is no repository '{self.org}/{self.repo}'"


class ProjectNotFound(NotFound):
    """The repository holds no file of the project."""

    def __init__(self, project: str) -> None:
        self.project = project

    def __str__(self) -> str:
        return f"there is no project {self.project!r} in this repository"


class ReleaseNotFound(NotFound):
    """The project has no file of that version."""

    def __init__(self, project: str, version: str) -> None:
        self.project, self.version = project, version

    def __str__(self) -> str:
        return f"there is no release {self.version!r} of the project {self.project!r} in this repository"


class FileNotFound(NotFound):
    """The repository holds no such file, or it is damaged and hides itself."""

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def __str__(self) -> str:
        return f"there is no file {self.filename!r} in this repository"


class UserNotFound(NotFound):
    """No such user."""

    def __init__(self, user: str) -> None:
        self.user = user

    def __str__(self) -> str:
        return f"there is no user {self.user!r}"


class TokenNotFound(NotFound):
    """No such token, or it is revoked."""

    def __init__(self, token_id: str) -> None:
        self.token_id = token_id

    def __str__(self) -> str:
        return f"there is no token {self.token_id!r}"


# --- conflicts ---


class AlreadyExists(Conflict):
    """An organization, repository or user of that name is there already."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name

    def __str__(self) -> str:
        return f"the {self.kind} {self.name!r} exists already; choose another name"


class FileAlreadyExists(Conflict):
    """Other bytes stand (or stood, before they were deleted) under that file name."""

    def __init__(
        self,
        filename: str,
        *,
        sha256: str,
        stored_sha256: str,
        upload_time: datetime,
        uploader: str,
        deleted: bool = False,
    ) -> None:
        self.filename = filename
        self.sha256 = sha256  # hex, of the bytes that came
        self.stored_sha256 = stored_sha256  # hex, of the bytes that were there first
        self.upload_time = upload_time  # of the first, aware UTC
        self.uploader = uploader  # who sent the first, in words
        self.deleted = deleted  # the first has been deleted since

    def __str__(self) -> str:
        when = self.upload_time.strftime("%Y-%m-%d %H:%M:%S UTC")
        state = "uploaded and later deleted" if self.deleted else "uploaded"
        return (
            f"{self.filename} has already been taken: the file {state} on {when} by {self.uploader} has sha256 "
            f"{self.stored_sha256[:16]}..., this one has {self.sha256[:16]}...; use a different version"
        )


class NameBlocked(Conflict):
    """Something that is not a file has the name on disk."""

    def __init__(self, filename: str) -> None:
        self.filename = filename

    def __str__(self) -> str:
        return f"{self.filename} cannot be stored: something that is not a file has its name; run 'packhouse check'"


# --- not acceptable ---


class InvalidName(Invalid):
    """A slug, project name or user name that cannot be one."""

    def __init__(self, kind: str, name: str, rule: str) -> None:
        self.kind, self.name, self.rule = kind, name, rule

    def __str__(self) -> str:
        return f"{shorten(self.name)} is not an allowed {self.kind}: {self.rule}"


class InvalidFilename(Invalid):
    """A file name that no wheel or sdist can have here."""

    def __init__(self, filename: str, rule: str) -> None:
        self.filename, self.rule = filename, rule

    def __str__(self) -> str:
        return f"{shorten(self.filename)} is not an acceptable file name: {self.rule}"


class InvalidDistribution(Invalid):
    """A wheel or sdist that cannot be accepted; *reasons* has at least one sentence."""

    def __init__(self, filename: str, reasons: tuple[str, ...]) -> None:
        self.filename, self.reasons = filename, reasons

    def __str__(self) -> str:
        return "; ".join(self.reasons)


class InvalidValue(Invalid):
    """A field, setting or option with a value that it cannot have."""

    def __init__(self, field: str, rule: str) -> None:
        self.field, self.rule = field, rule

    def __str__(self) -> str:
        return f"{self.field} {self.rule}"


class FileTooLarge(Invalid):
    """A file over the configured limit."""

    def __init__(self, filename: str, limit: int) -> None:
        self.filename = filename
        self.limit = limit  # bytes

    def __str__(self) -> str:
        return f"{shorten(self.filename)} is larger than the limit of {self.limit:,} bytes"


# --- not now ---


class StillReading(Unavailable):
    """A list cannot be complete yet: projects have to be read first, which goes on meanwhile."""

    def __init__(self, repository: str, missing: int) -> None:
        self.repository = repository  # ORG/REPO
        self.missing = missing  # projects

    def __str__(self) -> str:
        number = "1 project of" if self.missing == 1 else f"{self.missing:,} projects of"
        verb = "has" if self.missing == 1 else "have"
        return f"{number} {self.repository} {verb} not been read yet; this goes on meanwhile, try again"


class StorageBusy(Unavailable):
    """Somebody else has held a lock for too long."""

    def __init__(self, what: str, seconds: float) -> None:
        self.what = what
        self.seconds = seconds  # how long we waited

    def __str__(self) -> str:
        return f"{self.what} is being changed by somebody else; gave up after {self.seconds:.1f} s, try again"


class StorageFull(Unavailable):
    """The disk or the quota is full."""

    def __str__(self) -> str:
        return "the storage is full; nothing was stored. Free some space and try again"


class StorageFailing(Unavailable):
    """The operating system refused to read or write."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __str__(self) -> str:
        return f"the storage does not work ({self.reason}); nothing was stored, try again later"


class StorageDamaged(StorageError):
    """A file of the tree that nothing can go on without is missing or unreadable."""

    def __init__(self, path: str, reason: str, remedy: str) -> None:
        self.path, self.reason, self.remedy = path, reason, remedy

    def __str__(self) -> str:
        return f"{self.path} {self.reason}; {self.remedy}"


def printable(text: str) -> str:
    """Return *text* with escapes for what would start a line, move a terminal's cursor, or cannot be encoded."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def shorten(text: str, limit: int = 120) -> str:
    """Return *text* quoted for a message, printable ASCII only, at most about *limit* characters long."""
    quoted = ascii(text)
    return quoted if len(quoted) <= limit else f"{quoted[:limit]}...{quoted[0]}"
