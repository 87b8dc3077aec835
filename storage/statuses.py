"""The status of a project (PEP 792): ``project.json`` in its folder, there while the status is not active."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from packaging.utils import NormalizedName

from storage.damage import report_damage
from storage.errors import Denied, InvalidValue
from storage.files import encode_json, read_json, remove_file, replace_file, status_of
from storage.layout import RepositoryTree
from storage.sidecars import Actor, format_time, now


class Status(StrEnum):
    """What PEP 792 knows."""

    ACTIVE = "active"
    ARCHIVED = "archived"  # takes no uploads
    DEPRECATED = "deprecated"  # a word of warning only
    QUARANTINED = "quarantined"  # takes no uploads, offers no files


@dataclass(frozen=True, slots=True)
class ProjectStatus:
    """A project's status and why it has it."""

    status: Status = Status.ACTIVE
    reason: str = ""

    @property
    def takes_uploads(self) -> bool:
        """Whether new files may come."""
        return self.status in (Status.ACTIVE, Status.DEPRECATED)

    @property
    def offers_files(self) -> bool:
        """Whether its files are listed and served."""
        return self.status is not Status.QUARANTINED


_ACTIVE = ProjectStatus()


class ProjectClosed(Denied):
    """The project's status lets nothing be published."""

    def __init__(self, project: str, status: ProjectStatus) -> None:
        self.project, self.status = project, status

    def __str__(self) -> str:
        reason = f": {self.status.reason}" if self.status.reason else ""
        return f"the project {self.project!r} is {self.status.status} and takes no uploads{reason}"


MAX_REASON = 500  # characters
DAMAGED = "the file of the project's status is damaged; whoever runs this server has to look at it"


def check_reason(reason: str) -> str:
    """Return the *reason* for a yank or a status, without white space around it.

    :raises InvalidValue: if it is too long, or not one line of text.
    """
    reason = reason.strip()
    if len(reason) > MAX_REASON or not reason.isprintable():
        raise InvalidValue("reason", f"must be one line of at most {MAX_REASON} characters")
    return reason


def parse_status(text: str, reason: str = "") -> ProjectStatus:
    """Return the status called *text*.

    :raises InvalidValue: if PEP 792 knows none of that name, or the reason is not one line.
    """
    try:
        status = Status(text)
    except ValueError as error:
        raise InvalidValue("status", f"must be one of {', '.join(Status)}") from error
    return ProjectStatus(status, check_reason(reason))


def read_status(tree: RepositoryTree, project: NormalizedName) -> ProjectStatus:
    """Return the status of *project*; active where none was given, quarantined where its file is damaged.

    The file is there only while the status is not active, so damage must not release what was quarantined.
    """
    path = tree.status_file(project)
    if status_of(path) is None:
        return _ACTIVE
    try:
        document = read_json(path)
        reason = str(document.get("reason", "")).encode("utf-8", "replace").decode()  # fit for a page
        return ProjectStatus(Status(document["status"]), reason)
    except (FileNotFoundError, NotADirectoryError):
        if status_of(path) is None:
            return _ACTIVE
        problem = "is not a regular file"
    except (ValueError, KeyError) as error:
        problem = f"does not parse ({error})"
    report_damage(path, f"{problem}; the project counts as quarantined until its status is changed")
    return ProjectStatus(Status.QUARANTINED, DAMAGED)


def write_status(tree: RepositoryTree, project: NormalizedName, status: ProjectStatus, actor: Actor) -> None:
    """Give *project*, whose folder is there, a status; on disk when this returns. The caller holds its lock."""
    path = tree.status_file(project)
    if status.status is Status.ACTIVE:
        remove_file(path)
        return
    document = {
        "format": 1,
        "status": status.status,
        "reason": status.reason,
        "changed_at": format_time(now()),
        "changed_by": actor.to_json(),
    }
    replace_file(path, encode_json(document), temporary=tree.temporary)
