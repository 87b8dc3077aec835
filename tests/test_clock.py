"""A clock that jumps an hour, back or forth, changes no answer but the times in them."""

from __future__ import annotations

import os
import time

import pytest

from storage.users import Role
from tests.conftest import ORG, REPO, basic
from tests.people import visitor
from tests.storage.makers import make_sdist, make_wheel

HOUR = 3600.0  # seconds
API, PYPI = f"/api/v1/repos/{ORG}/{REPO}", f"/{ORG}/{REPO}/pypi"
WHEEL, CONTENT = make_wheel()
SDIST, SDIST_CONTENT = make_sdist()


@pytest.fixture(params=[-HOUR, HOUR], ids=["back", "forth"])
def jump(request, registry, monkeypatch):
    """Let the clock jump: for the process, and for what it has written, whose stamps are from before the jump."""

    def jump() -> None:
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + request.param)
        for path in registry.tree.root.rglob("*"):
            stamp = path.stat().st_mtime - request.param
            os.utime(path, (stamp, stamp))

    return jump


def test_every_change_shows_at_once_and_every_file_stays(client, publish, tokens, jump):
    admin = basic(tokens.admin)

    def listed() -> dict[str, object]:
        headers = {**admin, "Accept": "application/vnd.pypi.simple.v1+json"}
        page = client.get(f"{PYPI}/simple/toolbox/", headers=headers, buffered=True)
        return {file["filename"]: file["yanked"] for file in page.json.get("files", ())}

    assert publish(WHEEL, CONTENT).status_code == 201
    before = listed()
    jump()
    assert listed() == before == {WHEEL: False}
    assert publish(WHEEL, CONTENT).status_code == 200
    assert publish(*make_wheel(summary="Other")).status_code == 422
    assert publish(SDIST, SDIST_CONTENT).status_code == 201
    assert listed() == {WHEEL: False, SDIST: False}
    assert client.put(f"{API}/python/1/{WHEEL}/yank", headers=admin, buffered=True).status_code == 200
    assert listed() == {WHEEL: True, SDIST: False}
    assert client.delete(f"{API}/python/1/{SDIST}", headers=admin, buffered=True).status_code == 200
    assert listed() == {WHEEL: True}
    answer = client.get(f"{PYPI}/files/toolbox/{WHEEL}", headers=admin, buffered=True)
    assert (answer.status_code, answer.data) == (200, CONTENT)
    packages = client.get(f"{API}/packages.json", headers=admin, buffered=True).json
    assert [package["filename"] for package in packages] == [WHEEL]


def test_whoever_is_signed_in_stays_so_and_forms_are_accepted(app, registry, repository, jump):
    browser = visitor(app, registry, "ada", Role.ADMIN)
    token = browser.token()
    jump()

    page = browser.get("/account")
    saved = browser.client.post(
        f"/{ORG}/{REPO}/settings", data={"csrf_token": token, "name": "Main", "description": "later"}, buffered=True
    )

    assert page.status_code == 200
    assert saved.status_code == 303
    assert repository.settings.description == "later"


def test_a_session_of_a_far_future_is_none(app, registry, monkeypatch):
    browser = visitor(app, registry, "ada", Role.ADMIN)
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 48 * HOUR)

    assert browser.get("/account").status_code == 303
