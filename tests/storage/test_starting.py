"""The first start: once, on an empty storage, and done over if it was killed."""

from __future__ import annotations

import pytest

import storage.starting
from storage.files import is_regular
from storage.registry import Registry
from storage.repository import RepositorySettings
from storage.starting import ORGANIZATION, REPOSITORY, USER, start
from storage.tokens import Scope
from storage.users import Role
from tests.conftest import TESTER


@pytest.fixture
def empty(tmp_path) -> Registry:
    return Registry(tmp_path / "data")


def hash_password(password: str) -> str:
    return f"hash of {password}"


def assert_is_complete(registry, started):
    repository = registry.repository(ORGANIZATION, REPOSITORY)
    assert repository.settings.private
    assert started.repository.tree == repository.tree
    user = registry.users.get(started.user)
    assert (user.password_hash, user.roles) == (hash_password(started.password), {ORGANIZATION: Role.ADMIN})
    publishing = registry.caller_of_token(started.publishing_token)
    reading = registry.caller_of_token(started.read_token)
    assert publishing.scopes(ORGANIZATION, REPOSITORY) == {Scope.READ_PACKAGES, Scope.WRITE_PACKAGES}
    assert reading.scopes(ORGANIZATION, REPOSITORY) == {Scope.READ_PACKAGES}
    assert not registry.tree.starting_file.exists()


def test_the_first_start_makes_something_to_publish_to_and_somebody_to_do_it(empty):
    started = start(empty, hash_password)

    assert_is_complete(empty, started)
    assert len(started.password) >= 16
    assert len(empty.tokens.list()) == 2


def test_a_second_start_makes_and_tells_nothing(empty):
    started = start(empty, hash_password)

    assert start(empty, hash_password) is None
    assert start(Registry(empty.tree.root), hash_password) is None
    assert_is_complete(empty, started)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("step", ["_make_repository", "_make_user", "_make_tokens", "remove_file"])
def test_a_start_that_was_killed_is_done_over(empty, monkeypatch, step, when):
    do = getattr(storage.starting, step)

    def killed(*args):
        if when == "after":
            do(*args)
        raise KeyboardInterrupt

    monkeypatch.setattr(storage.starting, step, killed)
    with pytest.raises(KeyboardInterrupt):
        start(empty, hash_password)
    monkeypatch.undo()
    registry = Registry(empty.tree.root)

    again = start(registry, hash_password)

    if (step, when) == ("remove_file", "after"):  # the commit point
        assert again is None
    else:
        assert_is_complete(registry, again)
    assert len(registry.tokens.list()) == 2


def test_tokens_made_after_a_killed_start_survive_the_next_one(empty, monkeypatch):
    monkeypatch.setattr(storage.starting, "_make_user", lambda *_args: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        start(empty, hash_password)
    monkeypatch.undo()
    _, text = empty.tokens.create(ORGANIZATION, None, frozenset(Scope), TESTER, description="CI")

    started = start(empty, hash_password)

    assert_is_complete(empty, started)
    assert empty.caller_of_token(text)


MADE = {
    "an organization": lambda registry: registry.create_organization("acme"),
    "a damaged organization": lambda registry: (
        registry.create_organization("acme"),
        registry.tree.organization_file("acme").write_text("{"),
    ),
    "a user": lambda registry: registry.users.create("ada", "hash", {}),
    "a damaged user": lambda registry: (
        registry.users.create("ada", "hash", {}),
        registry.tree.user_file("ada").write_text("{"),
    ),
    "a token": lambda registry: registry.tokens.create("acme", None, frozenset(Scope), TESTER),
    "a repository": lambda registry: (
        registry.create_organization("acme"),
        registry.create_repository("acme", "main", RepositorySettings(name="x")),
    ),
}


def files_of(registry):
    return {path for path in registry.tree.root.rglob("*") if is_regular(path) and path.suffix != ".lock"}


@pytest.mark.parametrize("make", MADE.values(), ids=MADE.keys())
def test_where_something_was_made_at_the_command_line_there_is_no_first_start(empty, make):
    make(empty)
    before = files_of(empty)

    assert start(empty, hash_password) is None

    assert files_of(empty) == before
    assert USER not in [user.name for user in empty.users.list()]
