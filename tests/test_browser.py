"""The pages as people use them, in a real Chromium: with a mouse, with the keyboard alone, without JavaScript.

A test fails where a page asked another server for anything, or wrote an error on the browser's console, as it does
where it breaks its own Content-Security-Policy.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app import create_app
from settings import Settings
from storage.registry import Registry
from tests.browser import (
    DELETED,
    LONG,
    ORG,
    REPO,
    WHEEL,
    Shown,
    Visitor,
    choose,
    furnish,
    launch,
    obstacles,
    visiting,
    wider_than,
)
from tests.conftest import LiveServer, start_server

_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium; stopped after this module, since others run event loops of their own."""
    with sync_playwright() as playwright:
        browser = launch(playwright)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[LiveServer]:
    """The one server of these tests."""
    server = start_server(tmp_path_factory.mktemp("browser") / "data")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def shown(server: LiveServer) -> Shown:
    """What the pages show, on the same server."""
    return furnish(server.storage)


@pytest.fixture
def stranger(browser: Browser, server: LiveServer) -> Iterator[Visitor]:
    """Somebody who is not signed in."""
    with visiting(browser, server.url) as visitor:
        yield visitor


@pytest.fixture(scope="module")
def alice_signed_in(browser: Browser, server: LiveServer, shown: Shown) -> list:
    with visiting(browser, server.url) as visitor:
        visitor.sign_in("alice")
        return visitor.context.storage_state()


@pytest.fixture
def alice(browser: Browser, server: LiveServer, alice_signed_in) -> Iterator[Visitor]:
    """An admin of ``acme``, signed in."""
    with visiting(browser, server.url, storage_state=alice_signed_in) as visitor:
        yield visitor


# --- everybody can read every page, anywhere ---

HOME = f"/{ORG}/{REPO}"
PLANNER = f"{HOME}/packages/motion-planner"
FILE = f"{PLANNER}/{WHEEL}"
WHY = "?python=3.9&platform=manylinux-x86_64"


def press(path: str, button: str, *unfold: str, **fields: str) -> Callable[[Visitor], None]:
    """Go to *path*, fill in *fields*, and press a button."""

    def act(visitor: Visitor) -> None:
        page = visitor.open(path)
        for title in unfold:
            choose(page, title)
        for label, text in fields.items():
            page.locator(f"main [name={label}]").last.fill(text)
        with page.expect_response(lambda response: response.request.method == "POST"):
            page.get_by_role("button", name=button, exact=True).last.click()
        page.wait_for_load_state()

    return act


def upload_of_nonsense(visitor: Visitor) -> None:
    page = visitor.open(f"{HOME}/")
    choose(page, "Publishing a package")
    page.set_input_files("#file", {"name": "nonsense.whl", "mimeType": "", "buffer": b"nonsense"})
    page.get_by_role("button", name="Upload", exact=True).click()
    expect(page.locator(".uploads .failed")).to_be_visible()


@cache
def page_of_a_bug() -> str:
    """The page that says that there is a bug; no address of a live server leads to it."""

    def fail():
        raise ZeroDivisionError

    app = create_app(Settings(storage=Path("nowhere")), Registry.__new__(Registry))
    app.add_url_rule("/bug", view_func=fail)
    return app.test_client().get("/bug", headers={"Accept": "text/html"}).text


STRANGERS_PAGES: dict[str, str] = {
    "sign in": "/login",
    "sign out, of nobody": "/logout",
    "not found": "/nowhere/at/all",
    "a public repository": f"/{ORG}/open-source/",
    "a public package": f"/{ORG}/open-source/packages/toolbox/toolbox-1.0-py3-none-any.whl",
}
PAGES: dict[str, str | Callable[[Visitor], None]] = {
    "sign out": "/logout",
    "account": "/account",
    "account, new token": press("/account", "Create token", "New token", description="a laptop"),
    "account, wrong password": press("/account", "Change password", current="a", new="b", again="c"),
    "organizations": "/organizations",
    "repositories": f"/{ORG}/",
    "new repository": f"/{ORG}/new",
    "new repository, taken": press(f"/{ORG}/new", "Create Repository", name=REPO),
    "members": f"/{ORG}/members",
    "members, taken": press(f"/{ORG}/members", "Add", username="No Name"),
    "repository": f"{HOME}/",
    "repository, page 2": f"{HOME}/?page=2&sort=name",
    "repository, found": f"{HOME}/?q=very-long",
    "repository, nothing found": f"{HOME}/?q=zzz",
    "repository, empty": f"/{ORG}/empty/",
    "repository, credential": press(f"/{ORG}/empty/", "Make a credential"),
    "repository, upload refused": upload_of_nonsense,
    "activity": f"{HOME}/activity",
    "activity, nothing": f"{HOME}/activity?q=zzz",
    "settings": f"{HOME}/settings",
    "settings, another address": press(f"{HOME}/settings", "Update Repository", name="androids"),
    "settings, not deleted": press(f"{HOME}/settings", "Delete Repository", confirm="no"),
    "tokens": f"{HOME}/settings/tokens",
    "tokens, made": press(f"{HOME}/settings/tokens", "Create Registry Token", description="a shop"),
    "tokens, of a public repository": f"/{ORG}/open-source/settings/tokens",
    "token": f"{HOME}/settings/tokens/{{token}}",
    "status": f"{HOME}/settings/status",
    "trash": f"{HOME}/settings/trash",
    "trash, purged": f"{HOME}/settings/trash?show=purged",
    "trash, empty": f"/{ORG}/empty/settings/trash",
    "purge": f"{HOME}/settings/trash/gripper-drive/{{trash}}/purge",
    "project": f"{PLANNER}/",
    "project, why": f"{PLANNER}/{WHY}",
    "project, why, wrong": f"{PLANNER}/?python=nonsense",
    "project, deprecated": f"{HOME}/packages/legacy-arm/",
    "project, quarantined": f"{HOME}/packages/sensor-07/",
    "project, long name": f"{HOME}/packages/{LONG}/",
    "project, deleted": f"{HOME}/packages/gripper-drive/",
    "package": FILE,
    "package, read token": press(FILE, "Make a read token"),
    "package, contents": f"{FILE}?tab=contents",
    "package, contents, found": f"{FILE}?tab=contents&q=rrt",
    "package, contents, nothing found": f"{FILE}?tab=contents&q=zzz",
    "package, details": f"{FILE}?tab=details",
    "package, attestations": f"{FILE}?tab=attestations",
    "package, not deleted": press(FILE, "Delete this file", "Delete", confirm="no"),
    "package, yanked": f"{PLANNER}/motion_planner-1.9-py3-none-any.whl",
    "package, quarantined": f"{HOME}/packages/sensor-07/sensor_07-1.0-py3-none-any.whl",
    "package, long name": f"{HOME}/packages/{LONG}/{LONG.replace('-', '_')}"
    "-2026.11.24.post1.dev20261124-py3-none-any.whl",
    "package, deleted": f"{HOME}/packages/gripper-drive/{DELETED}",
    "member": f"{FILE}/contents/motion_planner/rrt.py",
    "member, no text": f"{FILE}/contents/motion_planner/models/mesh.bin",
    "no such package": f"{HOME}/packages/nothing/",
}


def is_for_everybody(page: Page) -> None:
    """Look at an open page in light and dark, on a desk and on two phones."""
    page.emulate_media(color_scheme="light")
    assert obstacles(page) == []
    page.emulate_media(color_scheme="dark")
    assert obstacles(page, only=("color-contrast", "link-in-text-block")) == []
    for width in (360, 320):
        assert wider_than(page, width) == [], width
    assert obstacles(page, only=("target-size", "scrollable-region-focusable", "color-contrast")) == []


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_on_the_page_in_light_and_dark_and_it_fits_a_phone(name, alice, shown):
    way = PAGES[name]
    if isinstance(way, str):
        alice.open(way.format(token=shown.token_id, trash=shown.trash_id))
    else:
        way(alice)

    is_for_everybody(alice.page)


@pytest.mark.parametrize("name", STRANGERS_PAGES)
def test_axe_finds_nothing_on_the_pages_for_everybody(name, stranger, shown):
    stranger.open(STRANGERS_PAGES[name])

    is_for_everybody(stranger.page)
