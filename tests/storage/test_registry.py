"""Organizations and repositories: made, found, deleted, with what goes along; and a storage that is damaged."""

from __future__ import annotations

import json
import os
import time

import pytest

from storage.errors import (
    AlreadyExists,
    InvalidName,
    OrganizationNotFound,
    RepositoryNotFound,
    StorageBusy,
    StorageDamaged,
)
from storage.files import temporary_name
from storage.locks import lock
from storage.registry import Registry, mend_registry_file
from storage.repository import RepositorySettings
from storage.tokens import Scope
from storage.users import Role
from tests.conftest import ORG, REPO, TESTER
from tests.storage.makers import make_wheel

SETTINGS = RepositorySettings(name="New")


def slugs(registry, org=ORG):
    return [repository.slug for repository in registry.repositories(org)]


# --- the storage itself ---


def test_a_new_storage_has_a_format_and_a_secret_that_only_its_owner_reads(tmp_path):
    registry = Registry(tmp_path / "a" / "b" / "data")

    document = json.loads(registry.tree.registry_file.read_text())
    assert (document["format"], document["secret_key"]) == (1, registry.secret_key)
    assert len(registry.secret_key) == 64
    assert registry.tree.registry_file.stat().st_mode & 0o777 == 0o600
    assert Registry(tmp_path / "a" / "b" / "data").secret_key == registry.secret_key


def test_a_storage_may_be_a_link_and_lie_behind_one(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")

    behind = Registry(tmp_path / "link" / "data")
    behind.create_organization(ORG)
    behind.create_repository(ORG, REPO, SETTINGS)
    (tmp_path / "data").symlink_to(tmp_path / "disk" / "data")

    assert slugs(Registry(tmp_path / "data")) == slugs(behind) == [REPO]


def test_a_disk_of_its_own_may_be_the_storage(tmp_path):
    (tmp_path / "lost+found").mkdir()

    assert Registry(tmp_path).organizations() == []


def test_a_folder_with_other_things_in_it_is_not_taken_for_a_storage(tmp_path):
    (tmp_path / "notes.txt").write_text("precious")

    with pytest.raises(StorageDamaged, match=r"'notes\.txt' is in it.*name an empty folder"):
        Registry(tmp_path)

    assert not (tmp_path / "registry.json").exists()


def test_a_file_in_the_place_of_the_storage_is_an_error(tmp_path):
    (tmp_path / "data").write_text("x")

    with pytest.raises(FileExistsError):
        Registry(tmp_path / "data")


DAMAGE = {
    "empty": b"",
    "zeros": b"\0" * 100,
    "no key": b'{"format": 1}',
    "a short key": b'{"format": 1, "secret_key": "abc"}',
    "a number as key": b'{"format": 1, "secret_key": 7}',
}


@pytest.mark.parametrize("content", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_registry_file_is_named_with_its_remedy_and_can_be_mended(registry, repository, content):
    registry.tree.registry_file.write_bytes(content)

    with pytest.raises(StorageDamaged, match=r"registry\.json is damaged .*packhouse check --repair"):
        Registry(registry.tree.root)
    mended = mend_registry_file(registry.tree.root)

    assert mended
    assert slugs(Registry(registry.tree.root)) == [REPO]
    assert not mend_registry_file(registry.tree.root)


@pytest.mark.parametrize("kind", ["missing", "a folder", "a dangling link"])
def test_a_lost_registry_file_is_not_made_anew_by_itself(registry, repository, kind):
    registry.tree.registry_file.unlink()
    if kind == "a folder":
        registry.tree.registry_file.mkdir()
    elif kind == "a dangling link":
        registry.tree.registry_file.symlink_to("nowhere")

    with pytest.raises(StorageDamaged, match=r"registry\.json is missing, and .* is not empty"):
        Registry(registry.tree.root)


def test_a_storage_of_a_later_format_is_left_alone(registry):
    document = json.loads(registry.tree.registry_file.read_text())
    registry.tree.registry_file.write_text(json.dumps({**document, "format": 2}))

    with pytest.raises(StorageDamaged, match="unknown format"):
        Registry(registry.tree.root)
    assert not mend_registry_file(registry.tree.root)


def test_old_leftovers_are_swept_everywhere_and_young_ones_stay(registry, repository, add):
    add(*make_wheel())
    registry.users.create("ada", "hash", {})
    registry.tokens.create(ORG, REPO, frozenset(Scope), TESTER)
    tree = registry.tree
    folders = [tree.root, tree.users, tree.tokens, tree.organization(ORG), repository.tree.temporary]
    for folder in folders:
        (folder / temporary_name()).write_text("young")
        old = folder / temporary_name()
        old.write_text("old")
        os.utime(old, (time.time() - 90_000, time.time() - 90_000))

    removed = Registry(tree.root).sweep()

    assert removed == len(folders)
    assert {path.read_text() for folder in folders for path in folder.glob(".*.tmp") if path.is_file()} == {"young"}


# --- organizations ---


def test_organizations_are_listed_by_slug_for_every_process(tmp_path, registry):
    made = registry.create_organization("zebra", "The Zebra Inc.")

    other = Registry(tmp_path / "data")
    assert [organization.slug for organization in other.organizations()] == [ORG, "zebra"]
    assert other.organization("zebra") == made
    assert (made.name, registry.organization(ORG).name) == ("The Zebra Inc.", ORG)


@pytest.mark.parametrize("slug", ["", "..", "Acme", "login", "tokens", "a/b", ".acme", "acme\n"], ids=ascii)
def test_what_cannot_be_an_organization_is_neither_made_nor_found(registry, slug):
    with pytest.raises(InvalidName):
        registry.create_organization(slug)
    with pytest.raises(OrganizationNotFound):
        registry.organization(slug)
    with pytest.raises(OrganizationNotFound):
        registry.delete_organization(slug)
    assert registry.repositories(slug) == []


def test_a_name_is_not_given_twice(registry, repository):
    with pytest.raises(AlreadyExists, match="organization 'acme'"):
        registry.create_organization(ORG)
    with pytest.raises(AlreadyExists, match="repository 'acme/main'"):
        registry.create_repository(ORG, REPO, SETTINGS)

    assert repository.settings.name == "Main"
    assert list(registry.tree.root.glob(".*.tmp")) == list(registry.tree.organization(ORG).glob(".*.tmp")) == []


@pytest.mark.parametrize("kind", ["file", "empty folder", "full folder", "dangling link", "link to a folder"])
def test_whatever_has_the_name_keeps_it(tmp_path, registry, kind):
    for path in (registry.tree.organization("new"), registry.tree.repository(ORG, "other").root):
        if kind == "file":
            path.write_text("x")
        elif kind == "dangling link":
            path.symlink_to("nowhere")
        elif kind == "link to a folder":
            path.symlink_to(tmp_path)
        else:
            path.mkdir()
            if kind == "full folder":
                (path / "x").write_text("x")
    before = {path for path in registry.tree.root.rglob("*") if not path.name.startswith(".")}

    with pytest.raises(AlreadyExists):
        registry.create_organization("new")
    with pytest.raises(AlreadyExists):
        registry.create_repository(ORG, "other", SETTINGS)

    assert {path for path in registry.tree.root.rglob("*") if not path.name.startswith(".")} == before


def test_a_damaged_organization_hides_itself_alone(registry, repository):
    registry.create_organization("broken")
    registry.tree.organization_file("broken").write_text("{")

    assert [organization.slug for organization in registry.organizations()] == [ORG]
    with pytest.raises(StorageDamaged, match="backup"):
        registry.organization("broken")
    assert slugs(registry) == [REPO]


# --- repositories ---


def test_repositories_are_listed_by_slug_for_every_process(tmp_path, registry, repository):
    registry.create_repository(ORG, "alpha", SETTINGS)

    assert slugs(Registry(tmp_path / "data")) == ["alpha", REPO]
    assert Registry(tmp_path / "data").repository(ORG, "alpha").settings == SETTINGS


@pytest.mark.parametrize("slug", ["", "..", "Main", "new", "settings", "a/b", ".tmp"])
def test_what_cannot_be_a_repository_is_neither_made_nor_found(registry, slug):
    with pytest.raises(InvalidName):
        registry.create_repository(ORG, slug, SETTINGS)
    with pytest.raises(RepositoryNotFound):
        registry.repository(ORG, slug)
    with pytest.raises(RepositoryNotFound):
        registry.delete_repository(ORG, slug)


def test_there_is_no_repository_without_its_organization(registry):
    with pytest.raises(OrganizationNotFound):
        registry.create_repository("nobody", REPO, SETTINGS)
    with pytest.raises(RepositoryNotFound):
        registry.repository("nobody", REPO)
    assert registry.repositories("nobody") == []


@pytest.mark.parametrize("kind", ["missing", "folder", "dangling link"])
def test_a_folder_without_its_settings_is_no_repository(registry, repository, kind):
    registry.create_repository(ORG, "other", SETTINGS)
    path = repository.tree.repository_file
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "dangling link":
        path.symlink_to("nowhere")

    assert slugs(registry) == ["other"]
    with pytest.raises(RepositoryNotFound):
        registry.repository(ORG, REPO)


def test_creation_waits_for_nobody_longer_than_it_should(tmp_path, registry):
    hurried = Registry(tmp_path / "data", lock_timeout=0.2)

    with lock(registry.tree.lock_file, "it"):
        with pytest.raises(StorageBusy):
            hurried.create_organization("new")
        with pytest.raises(StorageBusy):
            hurried.create_repository(ORG, "other", SETTINGS)

    assert [organization.slug for organization in registry.organizations()] == [ORG]


# --- what a deletion takes along ---


def test_a_deleted_repository_takes_its_tokens_along_and_no_others(registry, repository):
    registry.create_repository(ORG, "other", SETTINGS)
    mine, others, all_of_them = (
        registry.tokens.create(ORG, repo, frozenset(Scope), TESTER)[1] for repo in (REPO, "other", None)
    )

    registry.delete_repository(ORG, REPO)

    assert slugs(registry) == ["other"]
    assert registry.caller_of_token(mine) is None
    assert registry.caller_of_token(others)
    assert registry.caller_of_token(all_of_them)
    assert list(registry.tree.organization(ORG).glob(".*.tmp")) == []


def killed(*_args):
    raise KeyboardInterrupt


def test_a_new_repository_is_not_opened_by_the_tokens_of_one_of_the_same_name(registry, repository, monkeypatch):
    _, text = registry.tokens.create(ORG, REPO, frozenset(Scope), TESTER)
    monkeypatch.setattr(registry, "_revoke_tokens", killed)
    with pytest.raises(KeyboardInterrupt):
        registry.delete_repository(ORG, REPO)
    monkeypatch.undo()

    registry.create_repository(ORG, REPO, SETTINGS)

    assert registry.caller_of_token(text) is None


def test_a_deleted_organization_takes_tokens_and_roles_along(registry, repository):
    registry.create_organization("other")
    registry.users.create("ada", "hash", {ORG: Role.ADMIN, "other": Role.READER})
    texts = [registry.tokens.create(ORG, repo, frozenset(Scope), TESTER)[1] for repo in (REPO, None)]
    kept = registry.tokens.create("other", None, frozenset(Scope), TESTER)[1]

    registry.delete_organization(ORG)

    assert [organization.slug for organization in registry.organizations()] == ["other"]
    assert [registry.caller_of_token(text) for text in texts] == [None, None]
    assert registry.caller_of_token(kept)
    assert registry.users.get("ada").roles == {"other": Role.READER}


def test_a_new_organization_is_not_opened_to_those_of_one_of_the_same_name(registry, repository, monkeypatch):
    registry.users.create("ada", "hash", {ORG: Role.ADMIN})
    _, text = registry.tokens.create(ORG, None, frozenset(Scope), TESTER)
    monkeypatch.setattr(registry, "_forget_organization", killed)
    with pytest.raises(KeyboardInterrupt):
        registry.delete_organization(ORG)
    monkeypatch.undo()

    registry.create_organization(ORG)

    assert registry.caller_of_token(text) is None
    assert registry.users.get("ada").roles == {}


def test_a_damaged_user_stands_in_the_way_of_no_organization(registry, repository):
    registry.users.create("ada", "hash", {})
    registry.tree.user_file("ada").write_text("{")

    registry.delete_organization(ORG)
    registry.create_organization(ORG)

    assert slugs(registry) == []
