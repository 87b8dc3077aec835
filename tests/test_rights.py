"""Who may do what: the table of contract.md section 3."""

from __future__ import annotations

import io
from datetime import timedelta

import pytest
from werkzeug.security import generate_password_hash
from werkzeug.test import EnvironBuilder, run_wsgi_app

import storage.files
import storage.tokens
import web.access
from app import make_gate
from server import BODY_KEY
from storage.repository import RepositorySettings
from storage.sidecars import now
from storage.tokens import Scope
from storage.users import Role
from tests.conftest import ORG, REPO, TESTER, basic
from tests.storage.makers import make_wheel

READ = f"/{ORG}/{REPO}/pypi/simple/"
WRITE = f"/api/v1/repos/{ORG}/{REPO}/packages.json"
CHALLENGE = 'Basic realm="packhouse", charset="UTF-8"'


def write(client, url: str = WRITE, **headers: str):
    filename, content = make_wheel()
    form = {"package[package_file]": (io.BytesIO(content), filename)}
    return client.post(url, data=form, headers=headers, buffered=True)


@pytest.fixture
def public(repository):
    repository.change_settings({"private": False})
    return repository


@pytest.mark.parametrize(
    "spell",
    [
        lambda token: basic(token),
        lambda token: basic("buildkite", token),
        lambda token: basic("__token__", token),
        lambda token: {"Authorization": f"Bearer {token}"},
        lambda token: {"Authorization": f"bearer {token}"},
    ],
    ids=[
        "as the user name",
        "as anybody's password",
        "as __token__'s password",
        "as bearer",
        "as bearer, lower case",
    ],
)
def test_a_token_is_accepted_in_each_spelling(client, tokens, spell):
    assert client.get(READ, headers=spell(tokens.read), buffered=True).status_code == 200
    assert write(client, **spell(tokens.write)).status_code == 201


@pytest.mark.parametrize("address", [READ, f"/{ORG}/nothing/pypi/simple/", "/nobody/nothing/pypi/simple/"])
def test_without_a_credential_a_private_repository_and_none_are_401_alike(client, repository, address):
    answer = client.get(address, buffered=True)
    private = client.get(READ, buffered=True)

    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == CHALLENGE
    assert answer.data == private.data


def bad_credentials(tokens) -> dict[str, dict[str, str]]:
    return {
        "unknown token": basic("pkh_0123456789ab_" + "0" * 40),
        "other secret": basic(tokens.read[:-1] + ("0" if tokens.read[-1] != "0" else "1")),
        "garbage": {"Authorization": "Basic %%%"},
        "unknown scheme": {"Authorization": "Digest x"},
        "empty": {"Authorization": ""},
        "nobody": basic("nobody", "wrong"),
        "empty names": basic("", ""),
        "bearer of nothing": {"Authorization": "Bearer"},
        "not ascii": {"Authorization": "Basic \xe4\xf6\xfc"},
    }


@pytest.mark.parametrize("kind", list(bad_credentials(type("T", (), {"read": "x"}))))
def test_a_bad_credential_is_401_even_for_reading_a_public_repository(client, tokens, public, kind):
    headers = bad_credentials(tokens)[kind]

    assert client.get(READ, headers=headers, buffered=True).status_code == 401
    assert write(client, **headers).status_code == 401


def test_a_public_repository_is_read_by_anybody_and_written_by_nobody_without_a_credential(client, public):
    assert client.get(READ, buffered=True).status_code == 200
    answer = write(client)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == CHALLENGE
    assert answer.json["error"] == "Unauthenticated"


def test_a_good_credential_elsewhere_learns_nothing_of_a_private_repository(client, registry, repository):
    registry.create_organization("other")
    _, stranger = registry.tokens.create("other", None, frozenset(Scope), TESTER)

    there = client.get(READ, headers=basic(stranger), buffered=True)
    missing = client.get(f"/{ORG}/nothing/pypi/simple/", headers=basic(stranger), buffered=True)

    assert there.status_code == missing.status_code == 404
    assert there.data == missing.data
    assert list(there.headers) == list(missing.headers)
    assert write(client, **basic(stranger)).status_code == 404


def test_a_good_credential_elsewhere_reads_a_public_repository_and_may_not_write(client, registry, public):
    registry.create_organization("other")
    _, stranger = registry.tokens.create("other", None, frozenset(Scope), TESTER)

    assert client.get(READ, headers=basic(stranger), buffered=True).status_code == 200
    assert write(client, **basic(stranger)).status_code == 403


def test_who_may_read_and_not_write_is_told_so(client, tokens):
    answer = write(client, **basic(tokens.read))

    assert answer.status_code == 403
    assert "write_packages" in answer.json["message"]


def test_a_token_for_one_repository_does_not_open_another(client, registry, tokens):
    registry.create_repository(ORG, "second", RepositorySettings(name="Second"))

    assert client.get(f"/{ORG}/second/pypi/simple/", headers=basic(tokens.read), buffered=True).status_code == 404


def test_a_token_for_the_organization_opens_each_of_its_repositories(client, registry, repository):
    registry.create_repository(ORG, "second", RepositorySettings(name="Second"))
    _, token = registry.tokens.create(ORG, None, frozenset({Scope.READ_PACKAGES}), TESTER)

    for address in (READ, f"/{ORG}/second/pypi/simple/"):
        assert client.get(address, headers=basic(token), buffered=True).status_code == 200


def test_a_revoked_token_is_refused_on_the_next_request(client, registry, tokens):
    assert client.get(READ, headers=basic(tokens.read), buffered=True).status_code == 200

    another_process = type(registry)(registry.tree.root)
    another_process.tokens.revoke(tokens.read.split("_")[1])

    assert client.get(READ, headers=basic(tokens.read), buffered=True).status_code == 401


def test_an_expired_token_is_refused(client, registry, repository):
    _, token = registry.tokens.create(ORG, REPO, frozenset(Scope), TESTER, lifetime=timedelta(seconds=-1))

    assert client.get(READ, headers=basic(token), buffered=True).status_code == 401


def test_a_repository_made_private_is_closed_on_the_next_request(client, public):
    assert client.get(READ, buffered=True).status_code == 200

    public.change_settings({"private": True})

    assert client.get(READ, buffered=True).status_code == 401


@pytest.mark.parametrize(
    ("role", "may_write"),
    [(Role.READER, 403), (Role.WRITER, 201), (Role.ADMIN, 201)],
    ids=["reader", "writer", "admin"],
)
def test_a_persons_password_works_over_basic_as_far_as_the_role_goes(client, registry, repository, role, may_write):
    registry.users.create("alice", generate_password_hash("correct horse"), {ORG: role})
    headers = basic("alice", "correct horse")

    assert client.get(READ, headers=headers, buffered=True).status_code == 200
    assert write(client, **headers).status_code == may_write


def test_a_users_token_can_do_no_more_than_the_user(client, registry, repository):
    registry.users.create("alice", generate_password_hash("correct horse"), {ORG: Role.READER})
    _, token = registry.tokens.create(ORG, REPO, frozenset(Scope), TESTER, user="alice")

    assert client.get(READ, headers=basic(token), buffered=True).status_code == 200
    assert write(client, **basic(token)).status_code == 403
    registry.users.change_role("alice", ORG, None)
    assert client.get(READ, headers=basic(token), buffered=True).status_code == 404


def test_ten_wrong_passwords_in_a_minute_close_the_door_even_for_the_right_one(
    client, registry, repository, tokens
):
    registry.users.create("alice", generate_password_hash("correct horse", "scrypt:1024:8:1"), {ORG: Role.ADMIN})

    statuses = [client.get(READ, headers=basic("alice", "wrong"), buffered=True).status_code for _ in range(10)]
    answer = client.get(READ, headers=basic("alice", "correct horse"), buffered=True)

    assert statuses == [401] * 10
    assert answer.status_code == 429
    assert int(answer.headers["Retry-After"]) > 0
    assert client.get(READ, headers=basic(tokens.read), buffered=True).status_code == 200


def test_the_last_use_of_a_token_is_noted(client, registry, tokens):
    client.get(READ, headers={**basic(tokens.read), "User-Agent": "pip/99"}, buffered=True)

    use = registry.tokens.last_use(tokens.read.split("_")[1])

    assert use.client == "pip/99"
    assert use.address == "127.0.0.1"


# --- while a body comes in ---


class Slow:
    """An upload whose head is in, and its body not yet."""

    def __init__(self, app, **headers: str) -> None:
        filename, content = make_wheel()
        form = {"package[package_file]": (io.BytesIO(content), filename)}
        self.app = app
        self.environ = EnvironBuilder(WRITE, method="POST", data=form, headers=headers).get_environ()
        body = self.environ.pop("wsgi.input").read()
        self.receiver = make_gate(app)(self.environ)
        assert self.receiver.write(body)

    def finish(self) -> int:
        """Let the app answer, and return its status."""
        environ = {**self.environ, "wsgi.input": io.BytesIO(), BODY_KEY: self.receiver}
        _, status, _ = run_wsgi_app(self.app, environ, buffered=True)
        self.receiver.close()
        return int(status[:3])


@pytest.fixture
def alice(registry, repository, monkeypatch):
    """A user whose files are old enough to be trusted by a look."""
    monkeypatch.setattr(storage.files, "COARSE_CLOCK", 0.0)
    registry.users.create("alice", generate_password_hash("correct horse", "scrypt:1024:8:1"), {ORG: Role.WRITER})
    return basic("alice", "correct horse")


def test_the_password_of_an_upload_is_compared_once(app, alice, monkeypatch):
    compared = []
    monkeypatch.setattr(web.access, "check_password_hash", lambda *which: compared.append(which) or True)

    upload = Slow(app, **alice)
    assert len(compared) == 1

    assert upload.finish() == 201
    assert len(compared) == 1


LOST = {
    "the role": (lambda registry: registry.users.change_role("alice", ORG, Role.READER), 403),
    "the user": (lambda registry: registry.delete_user("alice"), 401),
    "the password": (lambda registry: registry.users.change_password("alice", "x"), 401),
    "the repository": (lambda registry: registry.delete_repository(ORG, REPO), 404),
}


@pytest.mark.parametrize(("lose", "status"), LOST.values(), ids=LOST.keys())
def test_what_is_lost_while_the_body_comes_in_refuses_the_upload(app, registry, alice, lose, status):
    upload = Slow(app, **alice)

    lose(registry)

    assert upload.finish() == status


def test_a_token_that_is_revoked_or_expires_while_the_body_comes_in_refuses_the_upload(
    app, registry, repository, alice, monkeypatch
):
    def make_token(**more) -> tuple[str, dict[str, str]]:
        token, text = registry.tokens.create(ORG, REPO, frozenset(Scope), TESTER, **more)
        return token.id, basic(text)

    token_id, credential = make_token()
    revoked = Slow(app, **credential)
    registry.tokens.revoke(token_id)
    expired = Slow(app, **make_token(lifetime=timedelta(seconds=30))[1])
    later = now() + timedelta(minutes=1)
    monkeypatch.setattr(storage.tokens, "now", lambda: later)

    assert revoked.finish() == 401
    assert expired.finish() == 401


def test_a_post_is_never_redirected(client, tokens):
    for url in (READ, READ.rstrip("/"), f"{READ}Tool_Box/", f"//{ORG}/{REPO}/pypi/simple", WRITE + "/"):
        assert client.post(url, headers=basic(tokens.write), buffered=True).status_code in (404, 405)
