"""API tokens: made, checked, limited, expired, revoked; only their hashes are on disk."""

from __future__ import annotations

import hashlib
import json
import re
from datetime import timedelta

import pytest

import storage.files
import storage.tokens
from storage.errors import InvalidValue, TokenNotFound
from storage.files import Signature
from storage.registry import Registry
from storage.tokens import Scope, parse_scopes
from tests.conftest import ORG, REPO, TESTER

READ = frozenset({Scope.READ_PACKAGES})


@pytest.fixture
def create(registry, repository):
    """Make a token: ``create()`` returns it and its text."""
    return lambda repo=REPO, scopes=READ, **more: registry.tokens.create(ORG, repo, scopes, TESTER, **more)


def test_a_token_opens_with_its_text_in_every_process(tmp_path, registry, create):
    token, text = create(description="CI")

    assert re.fullmatch(r"pkh_[0-9a-f]{12}_[0-9a-f]{40}", text)
    assert registry.tokens.authenticate(text) == token
    assert Registry(tmp_path / "data").tokens.authenticate(text) == token
    assert (token.org, token.repo, token.scopes, token.description) == (ORG, REPO, READ, "CI")
    assert str(token.actor) == f"token {token.id} (CI)"


def test_only_the_hash_of_a_token_is_on_disk(registry, create):
    token, text = create()

    path = registry.tree.token_file(token.id)
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text())["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    secret = text.rpartition("_")[2].encode()
    assert not [path for path in registry.tree.root.rglob("*") if path.is_file() and secret in path.read_bytes()]


def test_a_wrong_text_opens_nothing(registry, create):
    token, text = create()
    other = create()[1]

    wrong = [
        "",
        "pkh",
        f"pkh_{token.id}_",
        f"pkh_{token.id}_{'0' * 40}",
        text[:-1],
        f"{text}0",
        f"{text}\n",
        f" {text}",
    ]
    wrong += [text.upper(), f"pkh_{'0' * 12}_{text[-40:]}", f"pkh_{token.id}_{other[-40:]}", f"pkh_../{token.id}_x"]
    assert [guess for guess in wrong if registry.tokens.authenticate(guess) is not None] == []
    assert registry.tokens.authenticate(text) == token


def test_a_token_ends_with_its_time(registry, create, monkeypatch):
    token, text = create(lifetime=timedelta(days=90))
    assert registry.tokens.authenticate(text) == token

    monkeypatch.setattr(storage.tokens, "now", lambda: token.created_at + timedelta(days=90))

    assert registry.tokens.authenticate(text) is None
    assert registry.tokens.get(token.id).is_expired
    assert token.expires_at == token.created_at + timedelta(days=90)


def test_a_revoked_token_is_worthless_for_every_process_at_once(tmp_path, registry, create):
    other = Registry(tmp_path / "data")
    token, text = create()
    registry.tokens.note_use(token, "127.0.0.1", "pip/25")
    assert other.tokens.authenticate(text)

    other.tokens.revoke(token.id)

    assert registry.tokens.authenticate(text) is None
    assert list(registry.tree.tokens.iterdir()) == []
    with pytest.raises(TokenNotFound):
        registry.tokens.revoke(token.id)
    with pytest.raises(TokenNotFound):
        registry.tokens.get(token.id)


def test_a_token_that_was_read_before_is_looked_at_each_time(tmp_path, registry, create, monkeypatch):
    monkeypatch.setattr(Signature, "is_settled", lambda self: True)  # what is as new as this is not kept
    token, text = create(description="CI")
    elsewhere = Registry(tmp_path / "data").tokens

    assert registry.tokens.authenticate(text) is registry.tokens.authenticate(text)
    elsewhere.describe(token.id, "CD")
    assert registry.tokens.authenticate(text).description == "CD"
    elsewhere.revoke(token.id)
    assert registry.tokens.authenticate(text) is None


@pytest.mark.parametrize(
    "token_id", ["", "x", "../users/admin", "0" * 11, "0" * 13, "0" * 11 + "G", "0" * 12 + "\n"]
)
def test_an_id_that_is_none_names_no_token(registry, token_id):
    with pytest.raises(TokenNotFound):
        registry.tokens.get(token_id)
    with pytest.raises(TokenNotFound):
        registry.tokens.revoke(token_id)


def test_tokens_are_listed_by_age_and_by_what_they_open(registry, create):
    made = [create()[0], create(repo=None)[0], create(repo="other")[0]]
    foreign = registry.tokens.create("else", None, READ, TESTER)[0]

    assert registry.tokens.list() == [*made, foreign]
    assert registry.tokens.list(ORG) == made
    assert registry.tokens.list(ORG, REPO) == [made[0]]
    assert registry.tokens.list("nobody") == []


def test_the_last_use_is_known_to_the_minute(registry, create, monkeypatch):
    token, _ = create()
    clock = [1000.0]
    monkeypatch.setattr(storage.tokens.time, "monotonic", lambda: clock[0])
    assert registry.tokens.last_use(token.id) is None

    registry.tokens.note_use(token, "10.0.0.1", "pip/25")
    clock[0] += 30
    registry.tokens.note_use(token, "10.0.0.2", "uv/1")
    within = registry.tokens.last_use(token.id)
    clock[0] += 31
    registry.tokens.note_use(token, "10.0.0.3", "x" * 1000)
    after = registry.tokens.last_use(token.id)

    assert (within.address, within.client) == ("10.0.0.1", "pip/25")
    assert (after.address, after.client) == ("10.0.0.3", "x" * 200)
    assert after.when >= within.when
    assert registry.tokens.list() == [token]


DAMAGE = {
    "empty": b"",
    "zeros": b"\0" * 300,
    "an empty object": b"{}",
    "unknown scope": (b"read_packages", b"fly"),
    "another id": (b'"id": "', b'"id": "f'),
    "a number as repository": (b'"repository": "main"', b'"repository": 7'),
    "a list as user": (b'"user": null', b'"user": []'),
    "no time": (b'"created_at": "', b'"created_at": "x'),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_token_opens_nothing_and_leaves_the_others_alone(registry, create, damage):
    token, text = create()
    good, good_text = create()
    path = registry.tree.token_file(token.id)
    path.write_bytes(damage if isinstance(damage, bytes) else path.read_bytes().replace(*damage))

    assert registry.tokens.authenticate(text) is None
    assert registry.tokens.list() == [good]
    assert registry.tokens.authenticate(good_text) == good


@pytest.mark.parametrize("kind", ["folder", "dangling link", "link"])
def test_what_is_no_file_is_no_token(tmp_path, registry, create, kind):
    token, text = create()
    path = registry.tree.token_file(token.id)
    path.rename(tmp_path / "token.json")
    if kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(tmp_path / ("token.json" if kind == "link" else "nowhere"))

    assert registry.tokens.authenticate(text) is None
    assert registry.tokens.list() == []


def test_a_link_in_the_place_of_all_tokens_is_not_followed(tmp_path, registry, create):
    _, text = create()
    registry.tree.tokens.rename(tmp_path / "elsewhere")
    registry.tree.tokens.symlink_to(tmp_path / "elsewhere")

    assert registry.tokens.authenticate(text) is None
    assert registry.tokens.list() == []


def test_scopes_are_chosen_by_name():
    assert parse_scopes(["read_packages", "write_packages"]) == {Scope.READ_PACKAGES, Scope.WRITE_PACKAGES}
    for names in (["fly"], [], ["read_packages", ""]):
        with pytest.raises(InvalidValue, match="read_packages"):
            parse_scopes(names)


def test_nobody_waits_for_the_disk_when_a_token_is_used(registry, create, monkeypatch):
    token, _ = create()
    synced = []
    monkeypatch.setattr(storage.files, "sync_file", synced.append)

    registry.tokens.note_use(token, "10.0.0.1", "pip/25")

    assert synced == []
    assert registry.tokens.last_use(token.id).address == "10.0.0.1"


def test_a_last_use_that_a_power_cut_took_counts_as_none(tmp_path, registry, create):
    token, text = create()
    registry.tokens.note_use(token, "10.0.0.1", "pip/25")
    (tmp_path / "data" / "tokens" / f"{token.id}.used.json").write_bytes(b"")

    assert registry.tokens.last_use(token.id) is None
    assert registry.tokens.authenticate(text) == token
