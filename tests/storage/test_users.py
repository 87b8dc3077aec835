"""People, their roles, and what a caller may do."""

from __future__ import annotations

import pytest

from storage.errors import AlreadyExists, InvalidName, InvalidValue, StorageBusy, StorageDamaged, UserNotFound
from storage.files import Signature
from storage.locks import lock
from storage.registry import Registry
from storage.rights import Caller
from storage.tokens import Scope
from storage.users import Role, parse_roles
from tests.conftest import ORG, REPO, TESTER

READS = {Scope.READ_PACKAGES, Scope.READ_REGISTRIES}


@pytest.fixture
def ada(registry):
    return registry.users.create("ada", "a hash", {ORG: Role.WRITER})


def test_a_user_is_known_to_every_process(tmp_path, registry, ada):
    assert Registry(tmp_path / "data").users.get("ada") == ada
    assert registry.users.list() == [ada]
    assert registry.tree.user_file("ada").stat().st_mode & 0o777 == 0o600
    assert str(ada.actor) == "user ada"


def test_nobody_takes_the_name_of_another(registry, ada):
    with pytest.raises(AlreadyExists, match="user 'ada'"):
        registry.users.create("ada", "another hash", {})
    with pytest.raises(InvalidName):
        registry.users.create("../ada", "hash", {})
    assert registry.users.get("ada") == ada


def test_password_and_roles_change_and_the_rest_stays(registry, ada):
    registry.users.change_password("ada", "new hash")
    registry.users.change_role("ada", "other", Role.READER)
    registry.users.change_role("ada", ORG, None)

    changed = registry.users.get("ada")
    assert (changed.password_hash, changed.roles) == ("new hash", {"other": Role.READER})
    assert changed.created_at == ada.created_at


def test_a_user_who_was_read_before_is_looked_at_each_time(tmp_path, registry, ada, monkeypatch):
    monkeypatch.setattr(Signature, "is_settled", lambda self: True)  # what is as new as this is not kept
    elsewhere = Registry(tmp_path / "data")

    assert registry.users.get("ada") is registry.users.get("ada")
    elsewhere.users.change_role("ada", "acme", None)
    assert registry.users.get("ada").roles == {}
    elsewhere.delete_user("ada")
    with pytest.raises(UserNotFound):
        registry.users.get("ada")


def test_a_deleted_user_is_gone(registry, ada):
    registry.users.delete("ada")

    for act in (
        lambda: registry.users.get("ada"),
        lambda: registry.users.delete("ada"),
        lambda: registry.users.change_password("ada", "hash"),
        lambda: registry.users.change_role("ada", ORG, Role.ADMIN),
        lambda: registry.users.get("../registry"),
        lambda: registry.users.delete("../registry"),
    ):
        with pytest.raises(UserNotFound):
            act()
    assert registry.users.list() == []


def test_who_is_being_changed_is_not_deleted_meanwhile(tmp_path, registry, ada):
    hurried = Registry(tmp_path / "data", lock_timeout=0.2)

    with lock(registry.tree.users_lock_file, "it"), pytest.raises(StorageBusy, match="users"):
        hurried.users.delete("ada")

    assert registry.users.get("ada") == ada


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"name": "bob", "roles": {"acme": "king"}}'], ids=repr)
def test_a_damaged_user_is_left_out_and_said_where_asked_for(registry, ada, content):
    registry.tree.user_file("bob").write_bytes(content)

    assert registry.users.list() == [ada]
    with pytest.raises(StorageDamaged, match="backup"):
        registry.users.get("bob")


def test_a_user_in_the_file_of_another_is_nobody(registry, ada):
    registry.tree.user_file("bob").write_bytes(registry.tree.user_file("ada").read_bytes())

    assert registry.users.list() == [ada]
    with pytest.raises(UserNotFound):
        registry.users.get("bob")


# --- rights ---


@pytest.mark.parametrize(
    ("role", "scopes"),
    [
        (Role.READER, READS),
        (Role.WRITER, READS | {Scope.WRITE_PACKAGES}),
        (Role.ADMIN, set(Scope)),
    ],
)
def test_a_role_amounts_to_scopes_in_its_organization_only(registry, role, scopes):
    user = registry.users.create("bob", "hash", {ORG: role})

    assert Caller(None, user).scopes(ORG, REPO) == user.scopes(ORG) == scopes
    assert Caller(None, user).scopes("other", REPO) == frozenset()


def test_a_token_opens_its_repository_or_all_of_its_organization(registry, repository):
    one, everything = (
        registry.caller_of_token(registry.tokens.create(ORG, repo, frozenset(READS), TESTER)[1])
        for repo in (REPO, None)
    )

    assert one.scopes(ORG, REPO) == everything.scopes(ORG, REPO) == everything.scopes(ORG, None) == READS
    assert one.scopes(ORG, "other") == one.scopes(ORG, None) == one.scopes("other", REPO) == frozenset()
    assert everything.scopes("other", REPO) == frozenset()


def test_the_token_of_a_user_does_no_more_than_the_user_may_now(registry, repository, ada):
    _, text = registry.tokens.create(ORG, None, frozenset(Scope), TESTER, user="ada")

    as_writer = registry.caller_of_token(text).scopes(ORG, REPO)
    registry.users.change_role("ada", ORG, Role.READER)
    as_reader = registry.caller_of_token(text).scopes(ORG, REPO)
    registry.users.change_role("ada", ORG, None)

    assert (as_writer, as_reader) == (READS | {Scope.WRITE_PACKAGES}, READS)
    assert registry.caller_of_token(text).scopes(ORG, REPO) == frozenset()


def test_the_tokens_of_a_deleted_user_are_dead_also_for_a_new_one_of_that_name(registry, repository, ada):
    _, text = registry.tokens.create(ORG, None, frozenset(Scope), TESTER, user="ada")
    assert registry.caller_of_token(text)

    registry.delete_user("ada")
    gone = registry.caller_of_token(text)
    registry.users.create("ada", "hash", {ORG: Role.ADMIN})

    assert gone is registry.caller_of_token(text) is None
    with pytest.raises(UserNotFound):
        registry.delete_user("bob")


def test_the_token_of_a_damaged_user_opens_nothing(registry, repository, ada):
    _, text = registry.tokens.create(ORG, None, frozenset(Scope), TESTER, user="ada")
    registry.tree.user_file("ada").write_text("{")

    assert registry.caller_of_token(text) is None


def test_roles_are_chosen_by_name():
    assert parse_roles({ORG: "admin"}) == {ORG: Role.ADMIN}
    with pytest.raises(InvalidValue, match="reader, writer, admin"):
        parse_roles({ORG: "king"})
