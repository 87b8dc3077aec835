"""The settings of a repository: general, visibility, files, tokens, status, trash, deleting."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from storage.errors import RepositoryNotFound
from storage.events import newest_events
from storage.files import encode_json, read_json
from storage.registry import Registry
from storage.repository import RepositorySettings
from storage.sidecars import format_time, now
from storage.tokens import Scope
from storage.trash import DELETION_FILE
from storage.users import Role
from tests.conftest import ORG, REPO, TESTER, basic
from tests.people import HOSTILE, beside, visitor, words
from tests.storage.makers import make_wheel

SETTINGS = f"/{ORG}/{REPO}/settings"
WHEEL = "toolbox-1.0-py3-none-any.whl"
SECRET = re.compile(r"pkh_[0-9a-f]{12}_[0-9a-f]{40}")


@pytest.fixture
def admin(app, registry, repository):
    return visitor(app, registry, "alice", Role.ADMIN)


def last_event(repository) -> str:
    return newest_events(repository.tree.events_file).events[0].kind


# --- general ---


def test_name_description_emoji_and_colour_are_changed(admin, repository):
    form = {"name": "MAIN", "description": "All of it", "emoji": "🤖", "color": "#FFE0F1"}

    answer = admin.post(SETTINGS, form)

    assert (answer.status_code, answer.location) == (303, SETTINGS)
    settings = repository.settings
    assert (settings.name, settings.description, settings.emoji) == ("MAIN", "All of it", "🤖")
    assert settings.color == "#ffe0f1"
    page = admin.get(SETTINGS)
    assert "The settings are saved." in words(page)
    assert 'value="All of it"' in page.text
    assert last_event(repository) == "settings changed"


def test_saving_what_was_there_changes_nothing(admin, repository):
    repository.change_settings({"name": "My Python packages of old"})
    kept = repository.settings

    answer = admin.post(SETTINGS, {"name": kept.name, "description": "", "emoji": "", "color": "#dfe5ee"})

    assert answer.status_code == 303
    assert repository.settings == kept
    assert "Nothing was changed." in words(admin.get(SETTINGS))


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"name": ""}, "name", "Please fill this in."),
        ({"name": "tokens"}, "name", "reserved"),
        ({"name": "second", "rename": "yes"}, "name", "There is a repository acme/second already."),
        ({"description": "x" * 501}, "description", "Use at most 500 characters."),
        ({"emoji": "a b"}, "emoji", "Use one emoji"),
        ({"color": "pink"}, "color", "six hexadecimal digits"),
    ],
)
def test_what_is_wrong_stands_beside_the_field(admin, registry, repository, change, field, reason):
    registry.create_repository(ORG, "second", RepositorySettings(name="second"))
    kept = repository.settings

    page = admin.post(SETTINGS, {"name": "Main", "description": HOSTILE[:100], **change})

    assert page.status_code == 422
    assert reason in beside(page, field)
    assert "<script>alert" not in page.text
    assert repository.settings == kept


def test_another_name_is_another_address_after_a_warning_and_tokens_follow(
    admin, client, registry, repository, add
):
    add(*make_wheel())
    _, token = registry.tokens.create(ORG, REPO, frozenset({Scope.READ_PACKAGES}), TESTER)
    _, everywhere = registry.tokens.create(ORG, None, frozenset({Scope.READ_PACKAGES}), TESTER)

    warning = admin.post(SETTINGS, {"name": "Robots", "description": "kept"})
    assert warning.status_code == 422
    assert "This changes the address from /acme/main/ to /acme/robots/" in words(warning)
    assert 'value="kept"' in warning.text
    assert repository.settings.name == "Main"

    answer = admin.post(SETTINGS, {"name": "Robots", "description": "kept", "rename": "yes"})

    assert answer.location == f"/{ORG}/robots/settings"
    for text in (token, everywhere):
        listed = client.get(f"/{ORG}/robots/pypi/simple/toolbox/", headers=basic(text), buffered=True)
        assert listed.status_code == 200
    assert client.get(f"/{ORG}/main/pypi/simple/", headers=basic(token), buffered=True).status_code == 404
    assert registry.repository(ORG, "robots").settings.description == "kept"
    assert "renamed the repository from main to robots" in words(admin.get(f"/{ORG}/robots/activity"))


def test_no_token_of_a_renamed_repository_opens_what_gets_its_name_later(client, registry, repository):
    _, token = registry.tokens.create(ORG, REPO, frozenset({Scope.READ_PACKAGES}), TESTER)

    registry.rename_repository(ORG, REPO, "robots")
    registry.create_repository(ORG, REPO, RepositorySettings(name="Another"))

    assert client.get(f"/{ORG}/main/pypi/simple/", headers=basic(token), buffered=True).status_code == 404
    assert client.get(f"/{ORG}/robots/pypi/simple/", headers=basic(token), buffered=True).status_code == 200


@pytest.mark.parametrize("after", ["start", "creation"])
def test_a_renaming_that_was_killed_is_finished(registry, repository, monkeypatch, after):
    token, _ = registry.tokens.create(ORG, REPO, frozenset({Scope.READ_PACKAGES}), TESTER)
    with monkeypatch.context() as patch:
        patch.setattr(type(registry.tokens), "follow_repository", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            registry.rename_repository(ORG, REPO, "robots")
    assert registry.tokens.get(token.id).repo == REPO

    later = Registry(registry.tree.root)
    if after == "start":
        later.sweep()
    else:
        later.create_repository(ORG, REPO, RepositorySettings(name="Another"))

    assert later.tokens.get(token.id).repo == "robots"
    assert not later.tree.renaming_file(ORG).exists()


# --- visibility ---


def test_a_repository_becomes_public_only_if_that_is_confirmed(admin, repository):
    page = admin.post(f"{SETTINGS}/visibility", {"private": "0"})
    assert page.status_code == 422
    assert beside(page, "sure") == "Check this box first."
    assert repository.settings.private is True

    assert admin.post(f"{SETTINGS}/visibility", {"private": "0", "sure": "1"}).status_code == 303
    assert repository.settings.private is False
    assert admin.post(f"{SETTINGS}/visibility", {"private": "1"}).status_code == 303
    assert repository.settings.private is True
    assert admin.post(f"{SETTINGS}/visibility", {"private": "maybe"}).status_code == 422


# --- files ---


def test_what_is_accepted_and_how_long_the_trash_is_kept_is_changed(admin, repository):
    answer = admin.post(f"{SETTINGS}/files", {"reuse_filenames": "1", "trash_days": "30"})

    assert answer.status_code == 303
    settings = repository.settings
    assert (settings.reuse_filenames, settings.strict_record, settings.trash_days) == (True, False, 30)
    assert admin.post(f"{SETTINGS}/files", {"strict_record": "1", "trash_days": ""}).status_code == 303
    assert (repository.settings.strict_record, repository.settings.trash_days) == (True, 0)


@pytest.mark.parametrize("days", ["-1", "1.5", "x", "36501", "9" * 30, HOSTILE])
def test_a_wrong_number_of_days_is_refused_beside_the_field(admin, repository, days):
    page = admin.post(f"{SETTINGS}/files", {"strict_record": "1", "trash_days": days})

    assert page.status_code == 422
    assert beside(page, "trash_days") == "Use a whole number from 0 to 36,500."
    assert "<script>alert" not in page.text
    assert repository.settings.trash_days == 0


# --- deleting ---


@pytest.mark.parametrize("typed", ["Main", "main"])
def test_a_repository_is_deleted_by_typing_its_name(admin, registry, repository, add, typed):
    add(*make_wheel())
    registry.tokens.create(ORG, REPO, frozenset({Scope.READ_PACKAGES}), TESTER)

    answer = admin.post(f"{SETTINGS}/delete", {"confirm": typed})

    assert answer.location == f"/{ORG}/"
    assert "The repository main is deleted." in words(admin.get(answer.location))
    assert registry.tokens.list() == []
    with pytest.raises(RepositoryNotFound):
        registry.repository(ORG, REPO)


@pytest.mark.parametrize("typed", ["", "Mai", "other", HOSTILE])
def test_another_name_deletes_nothing(admin, registry, repository, typed):
    page = admin.post(f"{SETTINGS}/delete", {"confirm": typed})

    assert page.status_code == 422
    assert beside(page, "confirm") == "Type Main to delete the repository."
    assert registry.repository(ORG, REPO).settings.name == "Main"


# --- tokens ---


def test_a_registry_token_is_shown_once_installs_and_does_nothing_else(admin, client, registry, repository, add):
    add(*make_wheel())

    page = admin.post(f"{SETTINGS}/tokens", {"description": "CI <b>"})

    (text,) = set(SECRET.findall(page.text))
    assert "<b>" not in page.text
    assert client.get(f"/{ORG}/{REPO}/pypi/simple/toolbox/", headers=basic(text), buffered=True).status_code == 200
    url = f"/api/v1/repos/{ORG}/{REPO}/packages.json"
    assert client.post(url, headers=basic(text), buffered=True).status_code == 403
    (token,) = registry.tokens.list()
    assert (token.user, token.repo, str(token.created_by)) == (None, REPO, "user alice")
    later = admin.get(f"{SETTINGS}/tokens")
    assert "CI <b>" in words(later)
    assert not SECRET.search(later.text)
    assert last_event(repository) == "token created"


def test_the_description_of_a_registry_token_is_edited(admin, registry, repository):
    token, _ = registry.tokens.create(ORG, REPO, frozenset({Scope.READ_PACKAGES}), TESTER, description="old")
    assert 'value="old"' in admin.get(f"{SETTINGS}/tokens/{token.id}").text

    assert admin.post(f"{SETTINGS}/tokens/{token.id}", {"description": "new"}).status_code == 303
    page = admin.post(f"{SETTINGS}/tokens/{token.id}", {"description": ""})

    assert page.status_code == 422
    assert beside(page, "description") == "Please fill this in."
    assert registry.tokens.get(token.id).description == "new"


@pytest.mark.parametrize("description", ["", "x" * 201, "a\nb"])
def test_what_is_wrong_with_a_registry_token_stands_beside_the_field(admin, registry, description):
    page = admin.post(f"{SETTINGS}/tokens", {"description": description})

    assert page.status_code == 422
    assert beside(page, "description")
    assert "such as" not in beside(page, "description")
    assert registry.tokens.list() == []


def test_registry_tokens_are_hidden_while_the_repository_is_public_and_good_again_later(
    admin, client, registry, repository
):
    made, text = registry.tokens.create(ORG, REPO, frozenset({Scope.READ_PACKAGES}), TESTER, description="CI of x")
    repository.change_settings({"private": False})

    page = words(admin.get(f"{SETTINGS}/tokens"))
    assert "CI of x" not in page
    assert "it needs no registry tokens" in page
    refused = admin.post(f"{SETTINGS}/tokens", {"description": "more"})
    assert refused.status_code == 422
    assert admin.get(f"{SETTINGS}/tokens/{made.id}").status_code == 404

    repository.change_settings({"private": True})
    assert "CI of x" in words(admin.get(f"{SETTINGS}/tokens"))
    assert client.get(f"/{ORG}/{REPO}/pypi/simple/", headers=basic(text), buffered=True).status_code == 200
    assert len(registry.tokens.list()) == 1


def test_an_admin_sees_and_deletes_every_token_that_opens_the_repository(admin, registry, repository):
    registry.create_repository(ORG, "second", RepositorySettings(name="second"))
    registry.create_organization("other")
    scopes = frozenset({Scope.READ_PACKAGES, Scope.WRITE_PACKAGES})
    here, _ = registry.tokens.create(ORG, REPO, scopes, TESTER, description="of bob", user="bob")
    everywhere, _ = registry.tokens.create(ORG, None, scopes, TESTER, description="of all")
    second, _ = registry.tokens.create(ORG, "second", scopes, TESTER, description="of second")
    foreign, _ = registry.tokens.create("other", None, scopes, TESTER, description="of other")

    page = words(admin.get(f"{SETTINGS}/tokens"))
    assert "of bob this repository bob install packages, publish and yank packages" in page
    assert "of all every repository of acme" in page
    assert "of second" not in page
    assert "of other" not in page

    statuses = [
        admin.post(f"{SETTINGS}/tokens/{t.id}/delete").status_code for t in (here, everywhere, second, foreign)
    ]
    assert statuses == [303, 303, 404, 404]
    assert {token.id for token in registry.tokens.list()} == {second.id, foreign.id}
    assert last_event(repository) == "token revoked"


# --- trash ---


@pytest.fixture
def deleted(repository, add):
    """A deleted file."""
    add(*make_wheel())
    return repository.delete_file("toolbox", WHEEL, TESTER)


def test_a_deleted_file_is_restored(admin, repository, deleted):
    assert f"{WHEEL} " in words(admin.get(f"{SETTINGS}/trash"))

    answer = admin.post(f"{SETTINGS}/trash/toolbox/{deleted.id}/restore")

    assert answer.status_code == 303
    page = words(admin.get(f"{SETTINGS}/trash"))
    assert f"{WHEEL} is back." in page
    assert "The trash is empty." in page
    assert repository.sidecar("toolbox", WHEEL).id == deleted.id


def test_a_file_whose_name_is_taken_is_not_restored_and_the_page_says_why(admin, repository, deleted, add):
    repository.change_settings({"reuse_filenames": True})
    add(*make_wheel(summary="other bytes"))

    page = admin.post(f"{SETTINGS}/trash/toolbox/{deleted.id}/restore")

    assert page.status_code == 422
    assert "has already been taken" in words(page)


def test_a_deleted_file_is_purged_after_a_question(admin, repository, deleted):
    question = admin.get(f"{SETTINGS}/trash/toolbox/{deleted.id}/purge")
    assert f"Purge {WHEEL}?" in words(question)
    assert [entry.purged for entry in repository.trash()] == [False]

    assert admin.post(f"{SETTINGS}/trash/toolbox/{deleted.id}/purge").status_code == 303

    assert [entry.purged for entry in repository.trash()] == [True]
    assert "Purged (1)" in words(admin.get(f"{SETTINGS}/trash"))
    assert WHEEL in words(admin.get(f"{SETTINGS}/trash?show=purged"))
    assert admin.post(f"{SETTINGS}/trash/toolbox/{deleted.id}/restore").status_code == 404
    assert last_event(repository) == "purged"


@pytest.mark.parametrize("place", ["toolbox/nothing", "other/{id}", "..%2f/{id}", "Tool_Box/nothing"])
def test_what_is_not_in_the_trash_is_not_found(admin, deleted, place):
    for action in ("restore", "purge"):
        assert admin.post(f"{SETTINGS}/trash/{place.format(id=deleted.id)}/{action}").status_code == 404


def let_it_be_old(repository, entry, days: int) -> None:
    path = repository.tree.trash / "toolbox" / entry.id / DELETION_FILE
    document = read_json(path)
    path.write_bytes(encode_json({**document, "deleted_at": format_time(now() - timedelta(days=days))}))


@pytest.mark.parametrize("when", ["start", "visit"])
def test_what_is_older_than_the_retention_is_purged_at_the_start_and_when_the_trash_is_visited(
    admin, registry, repository, deleted, when
):
    let_it_be_old(repository, deleted, 31)
    repository.change_settings({"trash_days": 30})

    if when == "start":
        registry.sweep()
    else:
        admin.get(f"{SETTINGS}/trash")

    assert [entry.purged for entry in repository.trash()] == [True]


@pytest.mark.parametrize(("kept", "age"), [(0, 9999), (30, 29)])
def test_what_is_to_be_kept_is_kept(admin, registry, repository, deleted, kept, age):
    let_it_be_old(repository, deleted, age)
    repository.change_settings({"trash_days": kept})

    registry.sweep()
    admin.get(f"{SETTINGS}/trash")

    assert [entry.purged for entry in repository.trash()] == [False]


# --- status ---


def test_the_status_of_a_project_is_changed_and_listed(admin, repository, add):
    add(*make_wheel("Tool_Box"))
    assert "Every project is active." in words(admin.get(f"{SETTINGS}/status"))

    form = {"project": "Tool.Box", "status": "quarantined", "reason": "why <b>"}
    assert admin.post(f"{SETTINGS}/status", form).status_code == 303

    page = admin.get(f"{SETTINGS}/status")
    assert "Tool_Box quarantined why <b>" in words(page)
    assert "<b>" not in page.text
    assert admin.post(f"{SETTINGS}/status", {"project": "tool-box", "status": "active"}).status_code == 303
    assert "Every project is active." in words(admin.get(f"{SETTINGS}/status"))


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"project": ""}, "project", "Please fill this in."),
        ({"project": "nothing"}, "project", "There is no project of that name here."),
        ({"project": "../x"}, "project", "There is no project of that name here."),
        ({"status": "great"}, "status", "Choose one of the list."),
        ({"reason": "x" * 501}, "reason", "Use at most 500 characters."),
    ],
)
def test_what_is_wrong_with_a_status_stands_beside_the_field(admin, repository, add, change, field, reason):
    add(*make_wheel())

    page = admin.post(f"{SETTINGS}/status", {"project": "toolbox", "status": "archived", "reason": "", **change})

    assert page.status_code == 422
    assert beside(page, field) == reason
    assert repository.status("toolbox").status == "active"


# --- who may ---

ADDRESSES = [
    ("GET", ""),
    ("POST", ""),
    ("POST", "/visibility"),
    ("POST", "/files"),
    ("POST", "/delete"),
    ("GET", "/tokens"),
    ("POST", "/tokens"),
    ("GET", "/tokens/0123456789ab"),
    ("POST", "/tokens/0123456789ab"),
    ("POST", "/tokens/0123456789ab/delete"),
    ("GET", "/trash"),
    ("POST", "/trash/toolbox/x/restore"),
    ("GET", "/trash/toolbox/x/purge"),
    ("POST", "/trash/toolbox/x/purge"),
    ("GET", "/status"),
    ("POST", "/status"),
]


@pytest.mark.parametrize("public", [False, True], ids=["private", "public"])
def test_only_admins_come_to_the_settings(app, registry, repository, public):
    repository.change_settings({"private": not public})
    registry.create_organization("other")
    kept = repository.settings
    browsers = {role: visitor(app, registry, f"a-{role}", role) for role in (Role.READER, Role.WRITER)}
    stranger, nobody = visitor(app, registry, "mallory", Role.ADMIN, "other"), visitor(app)
    form = {"name": "Main", "confirm": "Main", "description": "x", "private": "0", "sure": "1"}

    for method, path in ADDRESSES:

        def ask(browser, address, method=method):
            return browser.get(address) if method == "GET" else browser.post(address, form)

        address = SETTINGS + path
        assert ask(nobody, address).location == f"/login?next={address if method == 'GET' else '/'}"
        assert ask(stranger, address).status_code == (403 if public else 404), address
        assert ask(stranger, address.replace(REPO, "nothing")).status_code == 404
        for browser in browsers.values():
            assert ask(browser, address).status_code == 403, address
    assert repository.settings == kept
    assert registry.tokens.list() == []
