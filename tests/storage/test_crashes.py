"""Every call that changes a file fails, or the process dies at it: then all of the operation stands, or nothing.

Afterwards the listing is true, the project list agrees with the project pages, and the same again ends well.
"""

from __future__ import annotations

import gc
import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

from storage.errors import AlreadyExists, FileNotFound, NotFound, OrganizationNotFound, RepositoryNotFound
from storage.files import as_storage_error, set_syncing
from storage.registry import Registry
from storage.repository import Repository, RepositorySettings
from storage.statuses import parse_status
from storage.tokens import Scope
from tests.conftest import ORG, REPO, TESTER, add_to
from tests.storage.faults import BROKEN, FULL, Fault, between, dies_at
from tests.storage.makers import make_sdist, make_wheel

WHEEL, CONTENT = make_wheel(requires_python=">=3.9")
SDIST, SDIST_CONTENT = make_sdist()
NOTHING: dict[str, dict[str, tuple[str, bool | str]]] = {}


@pytest.fixture(autouse=True)
def _syncing():
    """The calls that wait for the disk are calls too."""
    set_syncing(True)
    yield
    set_syncing(False)


def state_of(root: Path) -> object:
    """All that a fresh look at the storage shows; every listed file has been read and compared with its digest."""
    registry = Registry(root)
    seen = {}
    for organization in registry.organizations():
        for repository in registry.repositories(organization.slug):
            name = f"{organization.slug}/{repository.slug}"
            seen[name] = (repository.settings.description, _projects(repository), _trash(repository))
    organizations = [organization.slug for organization in registry.organizations()]
    tokens = sorted((token.description, token.repo) for token in registry.tokens.list())
    users = {user.name: {org: str(role) for org, role in user.roles.items()} for user in registry.users.list()}
    return organizations, seen, tokens, users


def _projects(repository: Repository) -> dict[str, object]:
    projects = {}
    for project in repository.projects():
        detail = repository.project(project)
        assert detail.files or not detail.status.offers_files, "a project is listed while it has a file"
        projects[project] = (str(detail.status.status), {})
        for file in detail.files:
            opened, content = repository.open_file(project, file.filename)
            with content:
                assert hashlib.sha256(content.read()).hexdigest() == file.sha256 == opened.sha256
            assert file.core_metadata_sha256 is not None
            metadata = repository.core_metadata(project, file.filename)[1]
            assert hashlib.sha256(metadata).hexdigest() == file.core_metadata_sha256
            assert repository.sidecar(project, file.filename).file == file
            projects[project][1][file.filename] = (file.sha256, file.yanked)
    return projects


def _trash(repository: Repository) -> list[str]:
    return sorted(entry.sidecar.file.filename for entry in repository.trash() if not entry.purged)


# --- the operations ---


@dataclass(frozen=True)
class Operation:
    """What is done, to what, and which errors of doing it again mean that it had been done."""

    prepare: Callable[[Registry], object]
    act: Callable[[Registry], object]
    done_before: tuple[type[Exception], ...] = ()
    accumulates: bool = False  # doing it again adds another


def _empty(registry: Registry) -> Repository:
    registry.create_organization(ORG)
    return registry.create_repository(ORG, REPO, RepositorySettings(name="Main"))


def _with_one(registry: Registry) -> None:
    add_to(_empty(registry), WHEEL, CONTENT)


def _with_two(registry: Registry) -> None:
    _with_one(registry)
    _upload_second(registry)


def _with_deleted(registry: Registry) -> None:
    _with_one(registry)
    _delete(registry)


def _with_one_deleted_of_two(registry: Registry) -> None:
    _with_two(registry)
    _delete(registry)


def _upload(registry: Registry) -> None:
    add_to(registry.repository(ORG, REPO), WHEEL, CONTENT)


def _upload_second(registry: Registry) -> None:
    add_to(registry.repository(ORG, REPO), SDIST, SDIST_CONTENT)


def _delete(registry: Registry) -> None:
    registry.repository(ORG, REPO).delete_file("toolbox", WHEEL, TESTER)


def _restore(registry: Registry) -> None:
    repository = registry.repository(ORG, REPO)
    # As a client does that has read the id before: the entry of a file that is live again does not show.
    folder = repository.tree.trash / "toolbox"
    ids = [path.name for path in folder.iterdir()] if folder.exists() else []
    repository.restore_file("toolbox", ids[0] if ids else "gone", TESTER)


def _yank(registry: Registry) -> None:
    registry.repository(ORG, REPO).yank_file("toolbox", WHEEL, "wrong tag", TESTER)


def _archive(registry: Registry) -> None:
    registry.repository(ORG, REPO).change_status("toolbox", parse_status("archived", "over"), TESTER)


def _quarantine(registry: Registry) -> None:
    registry.repository(ORG, REPO).change_status("toolbox", parse_status("quarantined", "malware"), TESTER)


def _with_quarantined(registry: Registry) -> None:
    _with_one(registry)
    _quarantine(registry)


def _release(registry: Registry) -> None:
    registry.repository(ORG, REPO).change_status("toolbox", parse_status("active"), TESTER)


def _change_settings(registry: Registry) -> None:
    registry.repository(ORG, REPO).change_settings({"description": "changed"})


def _create_token(registry: Registry) -> None:
    registry.tokens.create(ORG, REPO, frozenset(Scope), TESTER, description="made")


def _create_other_repository(registry: Registry) -> None:
    registry.create_repository(ORG, "other", RepositorySettings(name="Other", description="other"))


OPERATIONS = {
    "upload of the first file": Operation(_empty, _upload),
    "upload of the second file": Operation(_with_one, _upload_second),
    "upload of the same bytes": Operation(_with_one, _upload),
    "upload of a deleted file": Operation(_with_deleted, _upload),
    "deletion of the last file": Operation(_with_one, _delete, (FileNotFound,)),
    "deletion of one of two": Operation(_with_two, _delete, (FileNotFound,)),
    "restoring the first file": Operation(_with_deleted, _restore, (FileNotFound,)),
    "restoring the second file": Operation(_with_one_deleted_of_two, _restore, (FileNotFound,)),
    "yank": Operation(_with_one, _yank),
    "change of status": Operation(_with_one, _archive),
    "another status": Operation(_with_one, _quarantine),
    "release from quarantine": Operation(_with_quarantined, _release),
    "change of settings": Operation(_with_one, _change_settings),
    "creation of a token": Operation(_with_one, _create_token, accumulates=True),
    "creation of an organization": Operation(
        lambda registry: None, lambda registry: registry.create_organization(ORG), (AlreadyExists,)
    ),
    "creation of a repository": Operation(_with_one, _create_other_repository, (AlreadyExists,)),
    "deletion of a repository": Operation(
        _with_one, lambda registry: registry.delete_repository(ORG, REPO), (RepositoryNotFound,)
    ),
    "deletion of an organization": Operation(
        _with_one, lambda registry: registry.delete_organization(ORG), (OrganizationNotFound,)
    ),
}


class Stage:
    """A storage before and after one operation, as folders and as what they show."""

    def __init__(self, folder: Path, operation: Operation) -> None:
        self.operation = operation
        set_syncing(False)
        self.template, self.data = folder / "template", folder / "data"
        operation.prepare(Registry(self.template))
        self.before = state_of(self.template)
        self.after = self.state_after(self.fresh())
        set_syncing(True)
        assert self.before != self.after or operation.act is _upload

    def fresh(self) -> Path:
        """A new copy of the storage before the operation."""
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(self.template, self.data, symlinks=True)
        return self.data

    def state_after(self, root: Path) -> object:
        self.operation.act(Registry(root))
        return state_of(root)

    def judge(self, root: Path) -> None:
        """All of the operation or nothing of it; then the same again ends well."""
        set_syncing(False)
        found = state_of(root)
        assert found in (self.before, self.after)
        try:
            again = self.state_after(root)
        except self.operation.done_before:
            again = state_of(root)
            assert found == self.after
        if not (self.operation.accumulates and found == self.after):
            assert again == self.after
        set_syncing(True)


@pytest.fixture(params=OPERATIONS.values(), ids=OPERATIONS.keys())
def stage(request, tmp_path) -> Stage:
    return Stage(tmp_path, request.param)


FAULTS = {"broken disk": (BROKEN, False), "full disk": (FULL, True)}


@pytest.mark.parametrize(("number", "lasting"), FAULTS.values(), ids=FAULTS.keys())
def test_a_failing_call_leaves_all_or_nothing(stage, number, lasting):
    n = 0
    while True:
        n += 1
        root = stage.fresh()
        registry = Registry(root)
        fault = Fault(n, number, lasting=lasting)
        with between(fault):
            try:
                stage.operation.act(registry)
            except OSError as error:
                assert str(as_storage_error(error))  # noqa: PT017 - most calls fail, some are not needed
                failed = True
            else:
                failed = False
        if not fault.was_met:
            break
        stage.judge(root) if failed else _check_done(stage, root)

    assert n > 3
    assert not failed


def _check_done(stage: Stage, root: Path) -> None:
    """What was answered as done is done, whatever failed on the way."""
    assert state_of(root) == stage.after


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_dying_at_any_call_leaves_all_or_nothing(stage):
    gc.freeze()  # a fork copies less
    n = 1
    while dies_at(n, partial(stage.operation.act, Registry(stage.fresh()))):
        stage.judge(stage.data)
        n += 1
    gc.unfreeze()

    assert n > 3
    assert state_of(stage.data) == stage.after


# --- promotion: two repositories ---


def _with_destination(registry: Registry) -> None:
    _with_one(registry)
    registry.repository(ORG, REPO).yank_file("toolbox", WHEEL, "wrong tag", TESTER)
    registry.create_repository(ORG, "next", RepositorySettings(name="Next"))


def _promote(registry: Registry) -> None:
    source, destination = registry.repository(ORG, REPO), registry.repository(ORG, "next")
    registry.promote_file(source, destination, "toolbox", WHEEL, TESTER)


class Promotion:
    """The storage before a promotion, as often as it is needed."""

    def __init__(self, folder: Path) -> None:
        self.template, self.data = folder / "template", folder / "data"
        set_syncing(False)
        _with_destination(Registry(self.template))
        set_syncing(True)

    def fresh(self) -> Path:
        shutil.rmtree(self.data, ignore_errors=True)
        shutil.copytree(self.template, self.data, symlinks=True)
        return self.data

    def judge(self) -> None:
        """The file is whole in one repository or in both, never in none; the same again ends well."""
        set_syncing(False)
        registry = Registry(self.data)
        here, there = (_projects(registry.repository(ORG, slug)) for slug in (REPO, "next"))
        assert here or there
        assert all(found in ({}, WHOLE) for found in (here, there))
        if here:
            _promote(Registry(self.data))
        self.judge_done()
        set_syncing(True)

    def judge_done(self) -> None:
        registry = Registry(self.data)
        assert _projects(registry.repository(ORG, REPO)) == {}
        assert _projects(registry.repository(ORG, "next")) == WHOLE
        assert _trash(registry.repository(ORG, REPO)) == [WHEEL]


WHOLE = {"toolbox": ("active", {WHEEL: (hashlib.sha256(CONTENT).hexdigest(), "wrong tag")})}


@pytest.fixture
def promotion(tmp_path) -> Promotion:
    return Promotion(tmp_path)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_dying_at_any_call_of_a_promotion_leaves_the_file_in_one_repository_or_in_both(promotion):
    n = 1
    while dies_at(n, partial(_promote, Registry(promotion.fresh()))):
        promotion.judge()
        n += 1

    assert n > 10
    promotion.judge_done()


@pytest.mark.parametrize(("number", "lasting"), FAULTS.values(), ids=FAULTS.keys())
def test_a_failing_call_of_a_promotion_leaves_the_file_in_one_repository_or_in_both(promotion, number, lasting):
    n = 0
    while True:
        n += 1
        registry = Registry(promotion.fresh())
        fault = Fault(n, number, lasting=lasting)
        with between(fault):
            try:
                _promote(registry)
            except OSError as error:
                assert str(as_storage_error(error))  # noqa: PT017 - most calls fail, some are not needed
                failed = True
            else:
                failed = False
        if not fault.was_met:
            break
        promotion.judge() if failed else promotion.judge_done()

    assert n > 10
    assert not failed


def test_leftovers_of_a_crash_are_swept_when_they_are_old(tmp_path):
    root = tmp_path / "data"
    _empty(Registry(root))
    n = 1
    while dies_at(n, lambda: _upload(Registry(root))):
        n += 1
    leftovers = list(root.rglob(".*.tmp"))
    assert leftovers
    for path in leftovers:
        os.utime(path, (1, 1))

    assert Registry(root).sweep() == len(leftovers)

    assert not list(root.rglob(".*.tmp"))
    with suppress(NotFound):
        assert _projects(Registry(root).repository(ORG, REPO))
