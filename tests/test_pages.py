"""The pages above the repositories: signing in, one's account, organizations, members."""

from __future__ import annotations

import html
import re
from datetime import timedelta

import pytest

from storage.repository import RepositorySettings
from storage.tokens import Scope
from storage.users import Role
from tests.conftest import ORG, REPO, TESTER, basic
from tests.people import HOSTILE, PASSWORD, PASSWORD_HASH, beside, visitor, words
from tests.storage.makers import make_wheel

SECRET = re.compile(r"pkh_[0-9a-f]{12}_[0-9a-f]{40}")


@pytest.fixture
def admin(app, registry, repository):
    return visitor(app, registry, "alice", Role.ADMIN)


@pytest.fixture
def reader(app, registry, repository):
    return visitor(app, registry, "carol", Role.READER)


@pytest.fixture
def stranger(app, registry, repository):
    registry.create_organization("other")
    return visitor(app, registry, "mallory", Role.ADMIN, "other")


@pytest.fixture
def nobody(app, repository):
    return visitor(app)


# --- signing in and out ---


def test_who_signs_in_goes_where_they_wanted_to_go(app, registry, repository):
    browser = visitor(app)
    registry.users.create("alice", PASSWORD_HASH, {ORG: Role.READER})
    asked = browser.get(f"/{ORG}/{REPO}/?q=x")
    assert asked.status_code == 303
    assert asked.location == f"/login?next=/{ORG}/{REPO}/?q%3Dx"
    assert f'value="/{ORG}/{REPO}/?q=x"' in browser.get(asked.location).text

    answer = browser.sign_in("alice", target=f"/{ORG}/{REPO}/?q=x")

    assert (answer.status_code, answer.location) == (303, f"/{ORG}/{REPO}/?q=x")


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example/",
        "//evil.example",
        "/\\evil.example",
        "javascript:alert(1)",
        "/\t/evil.example",
        "evil",
    ],
)
def test_signing_in_leads_to_no_other_site(app, registry, target):
    browser = visitor(app)
    registry.users.create("alice", PASSWORD_HASH, {})

    assert browser.sign_in("alice", target=target).location == "/"


def test_a_wrong_password_is_refused_and_what_was_typed_is_only_text(app, registry):
    browser = visitor(app)

    answer = browser.sign_in(HOSTILE, "wrong")

    assert answer.status_code == 401
    assert "There is no user with that name and password" in words(answer)
    assert "<script>alert" not in answer.text


def test_ten_wrong_passwords_bring_a_page_that_says_to_wait(app, registry):
    browser = visitor(app)
    registry.users.create("alice", PASSWORD_HASH, {})
    for _ in range(10):
        assert browser.sign_in("alice", "wrong").status_code == 401

    answer = browser.sign_in("alice")

    assert answer.status_code == 429
    assert "Wait a minute" in words(answer)
    assert int(answer.headers["Retry-After"]) > 0


def test_signing_out_takes_a_form_so_that_no_link_can_do_it(admin):
    page = admin.get("/logout")
    assert "You are signed in as alice" in words(page)
    assert admin.get("/account").status_code == 200

    assert admin.post("/logout").status_code == 303
    assert admin.get("/account").status_code == 303
    assert "Nobody is signed in" in words(admin.get("/logout"))


def test_each_form_needs_the_token_of_its_page(app, admin, registry, repository):
    rules = [rule for rule in app.url_map.iter_rules() if "POST" in rule.methods]
    mine = [r for r in rules if r.endpoint.partition(".")[0] in ("pages", "repository_pages", "settings_pages")]
    assert len(mine) >= 20
    for rule in mine:
        values = dict.fromkeys(rule.arguments, "x") | {"org": ORG, "repo": REPO}
        with app.test_request_context():
            address = rule.build({key: value for key, value in values.items() if key in rule.arguments})[1]
        form = {"data": {"name": "made"}, "content_type": "multipart/form-data"}
        answer = admin.client.post(address, **form, buffered=True)
        assert answer.status_code == 400, rule
    assert [repository.slug for repository in registry.repositories(ORG)] == [REPO]


def test_pages_are_kept_by_no_cache_and_run_no_foreign_script(admin):
    for address in ("/account", f"/{ORG}/", f"/{ORG}/{REPO}/", f"/{ORG}/{REPO}/settings"):
        headers = admin.get(address).headers
        assert headers["Cache-Control"] == "private, no-store"
        assert "unsafe-inline" not in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]


# --- one's account ---


def test_a_token_is_shown_once_and_works(admin, client, registry):
    form = {"description": "laptop", "place": f"{ORG}/{REPO}", "days": "30", "scope-read_packages": "1"}

    page = admin.post("/account/tokens", form)

    assert page.status_code == 200
    (text,) = set(SECRET.findall(page.text))
    assert client.get(f"/{ORG}/{REPO}/pypi/simple/", headers=basic(text), buffered=True).status_code == 200
    (token,) = registry.tokens.list()
    assert (token.user, token.repo, token.scopes) == ("alice", REPO, {Scope.READ_PACKAGES})
    assert token.expires_at - token.created_at == timedelta(days=30)
    later = admin.get("/account")
    assert "laptop" in words(later)
    assert not SECRET.search(later.text)


def test_the_account_tells_when_where_and_with_what_a_token_was_used(admin, client):
    form = {"description": "laptop", "place": ORG, "days": "", "scope-read_packages": "1"}
    text = SECRET.search(admin.post("/account/tokens", form).text)[0]
    assert "never" in words(admin.get("/account"))

    headers = {**basic(text), "User-Agent": "pip/99 <b>"}
    client.get(f"/{ORG}/{REPO}/pypi/simple/", headers=headers, buffered=True)

    page = admin.get("/account")
    assert "just now 127.0.0.1, pip/99 <b>" in words(page).replace("&lt;", "<") or "pip/99 &lt;b&gt;" in page.text
    assert "pip/99 <b>" not in page.text


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"description": ""}, "description", "Please fill this in."),
        ({"description": "x" * 201}, "description", "Use at most 200 characters."),
        ({"description": "a\x07b"}, "description", "Use one line"),
        ({"place": "other"}, "place", "Choose one of the list."),
        ({"place": f"{ORG}/nothing"}, "place", "Choose one of the list."),
        ({"days": "36500"}, "days", "Choose one of the list."),
        ({"scope-read_packages": ""}, "scope", "Choose at least one."),
        ({"scope-delete_packages": "1"}, "scope", "Your role in acme does not allow you to delete packages."),
    ],
)
def test_what_is_wrong_with_a_new_token_stands_beside_the_field(reader, registry, change, field, reason):
    form = {"description": "laptop", "place": ORG, "days": "", "scope-read_packages": "1"}

    page = reader.post("/account/tokens", {**form, **change})

    assert page.status_code == 422
    assert reason in beside(page, field)
    assert registry.tokens.list() == []


def test_a_revoked_token_is_gone_and_nobody_revokes_that_of_another(admin, reader, registry):
    token, _ = registry.tokens.create(ORG, None, frozenset({Scope.READ_PACKAGES}), TESTER, user="alice")

    assert reader.post(f"/account/tokens/{token.id}/revoke").status_code == 404
    assert registry.tokens.list() == [token]
    assert admin.post(f"/account/tokens/{token.id}/revoke").status_code == 303
    assert registry.tokens.list() == []


def test_no_token_makes_another_one(app, client, registry, repository):
    registry.users.create("alice", PASSWORD_HASH, {ORG: Role.ADMIN})
    _, text = registry.tokens.create(ORG, None, frozenset(Scope), TESTER, user="alice")
    browser = visitor(app)
    form = {"description": "more", "place": ORG, "days": "", "scope-read_packages": "1"}

    for address in ("/account/tokens", f"/{ORG}/{REPO}/credentials", f"/{ORG}/{REPO}/settings/tokens"):
        assert browser.post(address, form, headers=basic(text)).status_code == 403
    assert len(registry.tokens.list()) == 1


def test_a_new_password_ends_every_other_session(app, admin):
    other = visitor(app)
    other.sign_in("alice")

    form = {"current": PASSWORD, "new": "a new password", "again": "a new password"}
    assert admin.post("/account/password", form).status_code == 303

    assert admin.get("/account").status_code == 200
    assert other.get("/account").status_code == 303
    assert other.sign_in("alice").status_code == 401
    assert other.sign_in("alice", "a new password").status_code == 303


@pytest.mark.parametrize(
    ("form", "field", "reason"),
    [
        (
            {"current": "wrong", "new": "long enough", "again": "long enough"},
            "current",
            "This is not your password.",
        ),
        ({"current": PASSWORD, "new": "short", "again": "short"}, "new", "Use 8 to 1,024 characters."),
        ({"current": PASSWORD, "new": "long enough", "again": "different"}, "again", "This is not the same."),
    ],
    ids=["wrong", "short", "misspelled"],
)
def test_what_is_wrong_with_a_new_password_stands_beside_the_field(app, admin, form, field, reason):
    page = admin.post("/account/password", form)

    assert page.status_code == 422
    assert reason in beside(page, field)
    assert visitor(app).sign_in("alice").status_code == 303


# --- organizations ---


def test_with_exactly_one_organization_the_start_page_leads_straight_to_it(admin, registry):
    assert admin.get("/").location == f"/{ORG}/"

    registry.create_organization("labs")
    registry.users.change_role("alice", "labs", Role.READER)

    page = admin.get("/")
    assert page.status_code == 200
    assert "labs" in words(page)
    assert "other" not in words(page)


def test_who_is_in_no_organization_is_told_so(app, registry):
    browser = visitor(app, registry, "dave")

    assert "not a member of any organization" in words(browser.get("/"))


def test_an_admin_makes_an_organization_and_is_its_admin(admin, registry):
    answer = admin.post("/organizations/new", {"name": "Acme Labs"})

    assert answer.location == "/acme-labs/"
    assert registry.users.get("alice").roles["acme-labs"] is Role.ADMIN


@pytest.mark.parametrize(
    ("name", "reason"),
    [("", "Please fill this in."), ("acme", "already"), ("Login", "reserved"), ("!!!", "letters or digits")],
)
def test_what_is_wrong_with_an_organization_stands_beside_its_name(admin, registry, name, reason):
    page = admin.post("/organizations/new", {"name": name})

    assert page.status_code == 422
    assert reason in beside(page, "name")
    assert [organization.slug for organization in registry.organizations()] == [ORG]


def test_the_repositories_of_an_organization_are_listed(admin, registry, add, repository):
    add(*make_wheel())
    settings = RepositorySettings(name="Open", description=HOSTILE, emoji="🌍", color="#d7f5e3", private=False)
    registry.create_repository(ORG, "open", settings)

    page = admin.get(f"/{ORG}/")

    assert "1 package last pushed" in words(page)
    assert "0 packages" in words(page)
    assert html.escape(HOSTILE).replace("&#x27;", "&#39;").replace("&quot;", "&#34;") in page.text
    assert 'fill="#d7f5e3"' in page.text


def test_who_is_no_member_sees_the_public_repositories_alone(app, nobody, stranger, registry):
    registry.create_repository(ORG, "open", RepositorySettings(name="Open", private=False))

    for browser in (nobody, stranger):
        page = browser.get(f"/{ORG}/")
        assert "Open" in words(page)
        assert "Main" not in words(page)
        assert "New repository" not in words(page)


def test_an_organization_without_public_repositories_and_none_are_alike_to_those_outside(nobody, stranger):
    assert nobody.get(f"/{ORG}/").location == f"/login?next=/{ORG}/"
    assert nobody.get("/nothing/").location == "/login?next=/nothing/"
    there, missing = stranger.get(f"/{ORG}/"), stranger.get("/nothing/")
    assert there.status_code == missing.status_code == 404
    assert words(there).replace(ORG, "") == words(missing).replace("nothing", "")


# --- a new repository ---


def test_a_new_repository_is_private_unless_the_box_is_cleared_and_leads_to_its_page(admin, registry):
    assert re.search(r'name="private" value="1" checked', admin.get(f"/{ORG}/new").text)
    form = {"name": "My Python packages", "type": "python", "emoji": "🐍", "color": "#ffe0f1"}

    private = admin.post(f"/{ORG}/new", {**form, "private": "1"})
    public = admin.post(f"/{ORG}/new", {**form, "name": "Open"})

    assert private.location == f"/{ORG}/my-python-packages/"
    settings = registry.repository(ORG, "my-python-packages").settings
    assert (settings.name, settings.private, settings.emoji) == ("My-Python-packages", True, "🐍")
    assert public.location == f"/{ORG}/open/"
    assert registry.repository(ORG, "open").settings.private is False


@pytest.mark.parametrize(
    ("change", "field", "reason"),
    [
        ({"name": ""}, "name", "Please fill this in."),
        ({"name": "Main"}, "name", "There is a repository acme/main already."),
        ({"name": "settings"}, "name", "reserved"),
        ({"name": "x" * 101}, "name", "Use at most 100 characters."),
        ({"name": "x" * 80}, "name", "64"),
        ({"name": "\u202etxt"}, "name", "Use one line"),
        ({"description": "x" * 501}, "description", "Use at most 500 characters."),
        ({"emoji": "<script>alert(1)</script>"}, "emoji", "Use one emoji"),
        ({"emoji": "\u202e"}, "emoji", "Use one emoji"),
        ({"color": "red;x"}, "color", "six hexadecimal digits"),
        ({"type": "ruby"}, "type", "Choose one of the list."),
    ],
)
def test_what_is_wrong_with_a_new_repository_stands_beside_the_field(admin, registry, change, field, reason):
    page = admin.post(f"/{ORG}/new", {"name": "new", "type": "python", "private": "1", **change})

    assert page.status_code == 422
    assert reason in beside(page, field)
    assert "<script>alert" not in page.text
    assert [repository.slug for repository in registry.repositories(ORG)] == [REPO]


# --- members ---


def test_somebody_new_becomes_a_user_whose_password_is_shown_once(app, admin, registry):
    page = admin.post(f"/{ORG}/members", {"username": "Dave", "role": "writer"})

    password = re.search(r'<code id="secret">([^<]+)</code>', page.text)[1]
    assert registry.users.get("dave").roles == {ORG: Role.WRITER}
    assert visitor(app).sign_in("dave", password).status_code == 303
    assert password not in admin.get(f"/{ORG}/members").text


def test_somebody_known_gets_a_role_and_keeps_the_password(app, admin, registry):
    registry.users.create("dave", PASSWORD_HASH, {})

    assert admin.post(f"/{ORG}/members", {"username": "dave", "role": "reader"}).status_code == 303

    assert registry.users.get("dave").roles == {ORG: Role.READER}
    assert visitor(app).sign_in("dave").status_code == 303


@pytest.mark.parametrize(
    ("form", "field", "reason"),
    [
        ({"username": "", "role": "reader"}, "username", "Please fill this in."),
        ({"username": HOSTILE, "role": "reader"}, "username", "Use lower-case letters"),
        ({"username": "alice", "role": "reader"}, "username", "alice is a member already"),
        ({"username": "dave", "role": "owner"}, "role", "Choose one of the list."),
    ],
    ids=["nothing", "hostile", "member", "role"],
)
def test_what_is_wrong_with_a_new_member_stands_beside_the_field(admin, registry, form, field, reason):
    page = admin.post(f"/{ORG}/members", form)

    assert page.status_code == 422
    assert reason in beside(page, field)
    assert "<script>alert" not in page.text
    assert [user.name for user in registry.users.list()] == ["alice"]


def test_a_member_gets_another_role_or_none(admin, reader, registry):
    assert admin.post(f"/{ORG}/members/carol", {"role": "writer"}).status_code == 303
    assert registry.users.get("carol").roles == {ORG: Role.WRITER}

    assert admin.post(f"/{ORG}/members/carol", {"role": "writer", "remove": "1"}).status_code == 303
    assert registry.users.get("carol").roles == {}
    assert admin.post(f"/{ORG}/members/carol", {"role": "admin"}).status_code == 404
    assert reader.get(f"/{ORG}/{REPO}/").status_code == 404


@pytest.mark.parametrize("form", [{"role": "reader"}, {"role": "admin", "remove": "1"}, {"role": "owner"}])
def test_the_only_admin_stays(admin, registry, form):
    page = admin.post(f"/{ORG}/members/alice", form)

    assert page.status_code == 422
    assert "alice is the only admin" in words(page)
    assert registry.users.get("alice").roles == {ORG: Role.ADMIN}


# --- who may ---

ADMINS_ONLY = [
    ("GET", f"/{ORG}/new"),
    ("POST", f"/{ORG}/new"),
    ("GET", f"/{ORG}/members"),
    ("POST", f"/{ORG}/members"),
    ("POST", f"/{ORG}/members/alice"),
    ("GET", "/organizations/new"),
    ("POST", "/organizations/new"),
]


def ask(browser, method: str, address: str):
    return browser.get(address) if method == "GET" else browser.post(address)


@pytest.mark.parametrize(("method", "address"), ADMINS_ONLY)
def test_only_admins_make_and_change_organizations(app, registry, nobody, reader, stranger, method, address):
    writer = visitor(app, registry, "bob", Role.WRITER)

    anonymous = ask(nobody, method, address)
    assert anonymous.status_code == 303
    assert anonymous.location == f"/login?next={address if method == 'GET' else '/'}"
    assert [ask(browser, method, address).status_code for browser in (reader, writer)] == [403, 403]
    if address.startswith(f"/{ORG}"):
        assert ask(stranger, method, address).status_code == 404
        assert ask(stranger, method, address.replace(ORG, "nothing")).status_code == 404


# --- errors ---


@pytest.mark.parametrize("address", ["/nothing/nothing/", "/a/b/c/d", f"/{ORG}/{REPO}/packages/nothing/"])
def test_what_is_not_there_is_a_page_in_the_same_frame(admin, address):
    page = admin.get(address, headers={"Accept": "text/html"})

    assert page.status_code == 404
    assert "Not Found" in words(page)
    assert "Sign out" in words(page)
    assert "may be misspelled" in words(page)


def test_who_may_not_is_told_who_can_help(reader):
    page = reader.get(f"/{ORG}/new")

    assert page.status_code == 403
    assert "Your role does not allow this in acme" in words(page)
    assert "An admin of the organization" in words(page)


def test_a_form_that_is_too_large_is_a_page(admin):
    page = admin.post("/login", {"username": "x"}, environ_overrides={"CONTENT_LENGTH": str(10**12)})

    assert page.status_code == 413
    assert "raise the limit" in words(page)


def test_a_storage_that_fails_is_a_page_and_not_a_second_failure(admin, registry, monkeypatch):
    def fail(*_args):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(registry.users, "get", fail)

    page = admin.get("/account")

    assert page.status_code == 503
    assert "Try again in a few seconds" in words(page)
    assert int(page.headers["Retry-After"]) > 0


def test_an_error_of_ours_is_a_page(app, admin, registry, monkeypatch):
    app.config["PROPAGATE_EXCEPTIONS"] = False
    monkeypatch.setattr(registry, "organizations", lambda: 1 / 0)

    page = admin.get("/organizations")

    assert page.status_code == 500
    assert "Nothing is lost that was answered with success" in words(page)
