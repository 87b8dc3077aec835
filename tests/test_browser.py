"""The pages as people use them, in a real Chromium: with a mouse, with the keyboard alone, without JavaScript.

A test fails where a page asked another server for anything, or wrote an error on the browser's console, as it does
where it breaks its own Content-Security-Policy.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import abort
from playwright.sync_api import Browser, Page, expect, sync_playwright

from app import create_app
from settings import Settings
from storage.names import normalize_project
from storage.registry import Registry
from storage.repository import Repository, RepositorySettings
from storage.sidecars import Actor
from storage.tokens import Scope
from tests.browser import (
    DELETED,
    LONG,
    ORG,
    REPO,
    WHEEL,
    Keyboard,
    Mouse,
    Shown,
    Visitor,
    choose,
    furnish,
    launch,
    obstacles,
    publish,
    snippets_on,
    visiting,
    wider_than,
)
from tests.client_programs import PDM, clean_environment, installed, make_environment, run_program
from tests.conftest import LiveServer, start_server
from tests.storage.makers import make_sdist, make_wheel

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
WHY = "?python=3.9&platform=windows-win_amd64"


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


STRANGERS_PAGES: dict[str, str] = {
    "sign in": "/login",
    "sign out, of nobody": "/logout",
    "not found": "/nowhere/at/all",
    "a public repository": f"/{ORG}/open-source/",
    "a public package": f"/{ORG}/open-source/packages/toolbox/toolbox-1.0-py3-none-any.whl",
}
PAGES: dict[str, str | Callable[[Visitor], None]] = {
    "sign out": "/logout",
    "new organization": "/organizations/new",
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
    assert obstacles(page, only=("target-size", "scrollable-region-focusable")) == []


@pytest.mark.parametrize("name", PAGES)
def test_axe_finds_nothing_on_the_page_in_light_and_dark_and_it_fits_a_phone(name, alice, shown):
    way = PAGES[name]
    if isinstance(way, str):
        alice.open(way.format(token=shown.token_id, trash=shown.trash_id))
    else:
        way(alice)

    is_for_everybody(alice.page)


TROUBLE = (400, 413, 429, 500, 503)  # a live server comes into such only by great efforts


@pytest.mark.parametrize("status", TROUBLE)
def test_axe_finds_nothing_on_the_page_of_an_error(status, stranger, server):
    app = create_app(Settings(storage=server.storage), Registry(server.storage))
    app.add_url_rule("/trouble", view_func=lambda: abort(status))
    answer = app.test_client().get("/trouble", headers={"Accept": "text/html"})
    headers = dict(answer.headers)
    stranger.page.route("**/trouble", lambda route: route.fulfill(status=status, headers=headers, body=answer.text))

    stranger.open("/trouble")

    expect(stranger.page.get_by_text(str(status), exact=True)).to_be_visible()
    is_for_everybody(stranger.page)


def test_axe_finds_nothing_on_the_page_that_a_reader_sees_in_place_of_the_settings(stranger, shown):
    stranger.sign_in("carol")

    stranger.open(f"{HOME}/settings")

    expect(stranger.page.get_by_text("403", exact=True)).to_be_visible()
    is_for_everybody(stranger.page)


@pytest.mark.parametrize("name", STRANGERS_PAGES)
def test_axe_finds_nothing_on_the_pages_for_everybody(name, stranger, shown):
    stranger.open(STRANGERS_PAGES[name])

    is_for_everybody(stranger.page)


# --- the whole story ---


@pytest.fixture(scope="module")
def public_index(server: LiveServer, shown: Shown) -> str:
    """What stands in the place of the public index, which no test asks."""
    return f"{server.url}/{ORG}/open-source/pypi/simple"


def in_a_shell(command: str, folder: Path, *programs: str, **variables: str) -> str:
    """Run a command by a shell that knows nothing of this machine, and return what it says."""
    environment = clean_environment(folder.parent, *programs, **variables)
    environment["PATH"] = f"{folder / '.venv' / 'bin'}:{environment['PATH']}"
    ended = run_program(command, folder, environment)
    assert ended.status == 0, ended
    return ended.seen


CLIPBOARD = ["clipboard-read", "clipboard-write"]
WAYS = {
    "with a mouse": (Mouse, {"permissions": CLIPBOARD}),
    "with the keyboard alone": (Keyboard, {"permissions": CLIPBOARD}),
    "without JavaScript": (Mouse, {"java_script_enabled": False}),
}


@pytest.fixture(params=WAYS)
def hands(request: pytest.FixtureRequest, browser: Browser, server: LiveServer) -> Iterator[Mouse]:
    kind, options = WAYS[request.param]
    with visiting(browser, server.url, **options) as visitor:
        yield kind(visitor, has_script=options.get("java_script_enabled", True))


def taken_from(hands: Mouse, box: str) -> str:
    """Return what the copy button of a code box copies; without JavaScript, what is selected there by hand."""
    text = hands.page.locator(f"#{box}").inner_text()
    button = hands.page.locator(f"[data-copy={box}]")
    if hands.has_script:
        expect(button).to_be_visible()
    else:
        expect(button).to_be_hidden()
        return text
    hands.press(button)
    expect(button).to_have_attribute("title", "Copied")
    assert hands.page.evaluate("navigator.clipboard.readText()") == text
    return text


def test_the_whole_story_from_signing_in_to_the_end_of_the_repository(hands, server, public_index, tmp_path):
    page, name, folder = hands.page, f"story-{next(_numbers)}", tmp_path / "home" / "application"
    wheel, sdist = make_wheel("toolbox", "2.0"), make_sdist("toolbox", "2.0")
    for place, (filename, content) in ((folder, wheel), (tmp_path, sdist)):
        place.mkdir(parents=True, exist_ok=True)
        (place / filename).write_bytes(content)

    # sign in with the printed password
    hands.visitor.open("/")
    hands.write("User name", "admin")
    hands.write("Password", server.password)
    hands.press(hands.button("Sign in"))
    expect(page.get_by_role("heading", level=1)).to_have_text("My organization")

    # create a repository
    hands.press(hands.link("New repository"))
    hands.write("Name", name.replace("-", " "))
    hands.press(hands.button("Create Repository"))
    expect(page.get_by_role("heading", level=1)).to_contain_text(name)
    expect(page.get_by_text("This repository is empty.")).to_be_visible()

    # make a credential, and publish with the command that is shown
    hands.press(hands.button("Make a credential"))
    expect(page.get_by_text("It is shown only now")).to_be_visible()
    command = taken_from(hands, "publish-curl")
    said = in_a_shell(command.replace("@FILE", f"@{wheel[0]}"), folder)
    assert f'"filename":"{wheel[0]}"' in said

    # upload another by the form
    hands.give(tmp_path / sdist[0])
    hands.press(hands.button("Upload"))
    expect(page.get_by_text(f"{sdist[0]} is published.")).to_be_visible()

    # see both
    hands.press(page.get_by_role("navigation", name="Repository").get_by_role("link", name="Packages"))
    row = page.get_by_role("row").filter(has_text="toolbox")
    expect(row).to_contain_text("2.0")
    expect(row.get_by_role("cell").nth(1)).to_have_text("2")
    hands.press(row.get_by_role("link", name="toolbox"))
    hands.press(page.get_by_role("link", name=wheel[0]))
    expect(page.get_by_role("heading", level=1)).to_have_text(wheel[0])

    # install
    hands.press(hands.button("Make a read token"))
    expect(page.get_by_text("Your new read token is filled in below.")).to_be_visible()
    make_environment(folder / ".venv", "pip")
    (folder / "pip.conf").write_text(taken_from(hands, "pip-conf"))
    pip = {"PIP_CONFIG_FILE": "pip.conf", "PIP_INDEX_URL": public_index}
    in_a_shell(taken_from(hands, "pip-install"), folder, **pip)
    assert installed(folder / ".venv") == {"toolbox": "2.0"}

    # yank
    hands.unfold("Yank")
    hands.write("Reason", "explodes")
    hands.press(hands.button("Yank this file"))
    expect(page.get_by_text(f"{wheel[0]} is yanked.")).to_be_visible()
    expect(page.get_by_text("Reason: explodes")).to_be_visible()

    # delete, first with a wrong name
    hands.unfold("Delete")
    hands.write("Type the name of the file", "toolbox")
    hands.press(hands.button("Delete this file"))
    expect(page.get_by_text("nothing was deleted")).to_be_visible()
    hands.write("Type the name of the file", wheel[0])
    hands.press(hands.button("Delete this file"))
    expect(page.get_by_role("heading", level=1)).to_have_text(f"{wheel[0]} was deleted")

    # restore
    hands.press(hands.button(f"Restore {wheel[0]}"))
    expect(page.get_by_text(f"{wheel[0]} is restored.")).to_be_visible()
    expect(page.get_by_text("Reason: explodes")).to_be_visible()

    # delete the repository
    hands.press(page.get_by_role("navigation", name="Breadcrumb").get_by_role("link", name=name))
    hands.press(page.get_by_role("navigation", name="Repository").get_by_role("link", name="Settings"))
    hands.write(f"Type {name} to confirm", name)
    hands.press(hands.button("Delete Repository"))
    expect(page.get_by_text(f"The repository {name} is deleted.")).to_be_visible()
    expect(page.get_by_role("main").get_by_role("link", name=name)).to_have_count(0)


def test_the_first_key_skips_to_the_content(alice):
    page = alice.open(f"{HOME}/")

    page.keyboard.press("Tab")
    page.keyboard.press("Enter")

    expect(page.get_by_role("main")).to_be_focused()


def test_the_keyboard_chooses_between_the_ways_to_publish(alice):
    page, keyboard = alice.open(f"/{ORG}/empty/"), Keyboard(alice)

    keyboard.reach(page.get_by_role("radio", name="curl"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")

    expect(page.locator("#publish-uv")).to_be_visible()
    expect(page.locator("#publish-curl")).to_be_hidden()


# --- every snippet, as it is ---


@pytest.fixture
def alice_with_a_clipboard(browser, server, alice_signed_in) -> Iterator[Visitor]:
    with visiting(browser, server.url, storage_state=alice_signed_in, permissions=CLIPBOARD) as visitor:
        yield visitor


PUBLISHING = {"curl": (), "twine": ("twine",), "uv": ("uv",), "poetry": ("poetry",)}
PYPROJECT = """\
[project]
name = "application"
version = "1"
requires-python = ">=3.11"
dependencies = []

[tool.poetry]
package-mode = false

[tool.pdm]
distribution = false

"""


@pytest.fixture
def workshop(server: LiveServer, shown: Shown, tmp_path: Path) -> tuple[Repository, Path]:
    """A private repository of ``acme``, and a folder in a home of its own."""
    folder = tmp_path / "home" / "application"
    folder.mkdir(parents=True)
    name = f"workshop-{next(_numbers)}"
    return Registry(server.storage).create_repository(ORG, name, RepositorySettings(name=name)), folder


@pytest.mark.parametrize("client", PUBLISHING)
def test_each_way_to_publish_that_the_page_shows_publishes(client, alice, workshop):
    repository, folder = workshop
    (folder / "dist").mkdir()
    for filename, content in (make_wheel("toolbox"), make_sdist("toolbox")):
        (folder / "dist" / filename).write_bytes(content)
    (folder / "pyproject.toml").write_text('[project]\nname = "toolbox"\nversion = "1.0"\n')
    page = alice.open(f"/{ORG}/{repository.slug}/")
    page.get_by_role("button", name="Make a credential").click()
    page.get_by_text(client, exact=True).click()

    shown = page.locator(f"#publish-{client}").inner_text()
    in_a_shell(shown.replace("@FILE", "@dist/toolbox-1.0-py3-none-any.whl"), folder, *PUBLISHING[client])

    assert snippets_on(page).keys() == {f"publish-{way}" for way in PUBLISHING}
    published = {file.filename for file in repository.project(normalize_project("toolbox")).files}
    wheel, sdist = "toolbox-1.0-py3-none-any.whl", "toolbox-1.0.tar.gz"
    assert published == ({wheel} if client == "curl" else {wheel, sdist})


def with_pip_conf(boxes: dict[str, str], folder: Path, public_index: str) -> None:
    (folder.parent / ".config" / "pip").mkdir(parents=True)
    (folder.parent / ".config" / "pip" / "pip.conf").write_text(boxes["pip-conf"])
    variables = {"PIP_CONFIG_FILE": "", "XDG_CONFIG_DIRS": str(folder), "PIP_INDEX_URL": public_index}
    in_a_shell(boxes["pip-install"], folder, **variables)


def with_requirements(boxes: dict[str, str], folder: Path, public_index: str) -> None:
    (folder / "requirements.txt").write_text(f"{boxes['requirements-txt']}\ntoolbox==1.0\n")
    in_a_shell("pip install -r requirements.txt", folder, PIP_INDEX_URL=public_index)


def with_uv(boxes: dict[str, str], folder: Path, public_index: str) -> None:
    in_a_shell(boxes["uv"], folder, "uv", UV_DEFAULT_INDEX=public_index)


def with_poetry(boxes: dict[str, str], folder: Path, public_index: str) -> None:
    (folder / "pyproject.toml").write_text(PYPROJECT)
    in_a_shell(boxes["poetry"], folder, "poetry", POETRY_VIRTUALENVS_IN_PROJECT="1")


def with_pdm(boxes: dict[str, str], folder: Path, public_index: str) -> None:
    (folder / "pyproject.toml").write_text(f"{PYPROJECT}{boxes['pdm']}\n")
    in_a_shell(boxes["then"], folder, PDM, PDM_CHECK_UPDATE="0", PDM_PYPI_URL=public_index)


INSTALLING = {"pip.conf": with_pip_conf, "requirements.txt": with_requirements, "uv": with_uv}
INSTALLING |= {"poetry": with_poetry, "pdm": with_pdm}


@pytest.mark.parametrize("visibility", ["private", "public"])
@pytest.mark.parametrize("way", INSTALLING)
def test_each_way_to_install_that_the_page_shows_installs(way, visibility, alice, workshop, public_index):
    repository, folder = workshop
    publish(repository, make_wheel("toolbox"), Actor("user", "alice"))
    repository.change_settings({"private": visibility == "private"})
    make_environment(folder / ".venv", "pip" if way in ("pip.conf", "requirements.txt") else None)
    page = alice.open(f"/{ORG}/{repository.slug}/packages/toolbox/toolbox-1.0-py3-none-any.whl")
    if visibility == "private":
        page.get_by_role("button", name="Make a read token").click()
        expect(page.get_by_text("Your new read token is filled in below.")).to_be_visible()

    boxes = snippets_on(page)
    then = re.search(r"then: (pdm add \S+)", page.get_by_role("main").inner_text())[1]
    INSTALLING[way]({**boxes, "then": then}, folder, public_index)

    assert boxes.keys() == {"pip-conf", "requirements-txt", "pip-install", "uv", "poetry", "pdm"}
    assert installed(folder / ".venv") == {"toolbox": "1.0"}


@pytest.mark.parametrize("visibility", ["private", "public"])
def test_the_pip_commands_of_repository_and_project_install(visibility, alice, workshop, public_index):
    repository, folder = workshop
    publish(repository, make_wheel("toolbox"), Actor("user", "alice"))
    repository.change_settings({"private": visibility == "private"})
    _, token = Registry(repository.tree.root.parent.parent).tokens.create(
        ORG, repository.slug, frozenset({Scope.READ_PACKAGES}), Actor("user", "alice")
    )

    for number, path in enumerate(("", "packages/toolbox/")):
        place = folder / str(number)
        place.mkdir()
        make_environment(place / ".venv", "pip")
        page = alice.open(f"/{ORG}/{repository.slug}/{path}")
        boxes = {key: text for key, text in snippets_on(page).items() if not key.startswith("publish-")}
        (command,) = boxes.values()
        assert ("YOUR_TOKEN" in command) is (visibility == "private")
        filled_in = command.replace("YOUR_TOKEN", token).replace("PACKAGE", "toolbox")
        in_a_shell(filled_in, place, PIP_INDEX_URL=public_index)

        assert installed(place / ".venv") == {"toolbox": "1.0"}


# --- what JavaScript adds ---


@pytest.mark.parametrize("path", [f"{FILE}", f"{FILE}?tab=details", f"{FILE}?tab=attestations", f"{PLANNER}/"])
def test_copy_buttons_copy_exactly_the_text_that_is_shown(path, alice_with_a_clipboard, shown):
    page = alice_with_a_clipboard.open(path)
    buttons = page.locator("[data-copy]").all()
    assert buttons

    for button in buttons:
        button.click()
        expect(button).to_have_attribute("title", "Copied")

        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.locator(f"#{button.get_attribute('data-copy')}").inner_text()


def test_a_secret_is_copied_whole(alice_with_a_clipboard, shown):
    press("/account", "Create token", "New token", description="to copy")(alice_with_a_clipboard)
    page = alice_with_a_clipboard.page

    page.get_by_role("button", name="Copy: Token for to copy").click()

    expect(page.locator("[data-copy=secret]")).to_have_attribute("title", "Copied")
    assert re.fullmatch(r"pkh_\w+", page.evaluate("navigator.clipboard.readText()"))


def test_packages_are_found_as_one_types(alice):
    page = alice.open(f"{HOME}/")
    table = page.locator("#package-list")

    page.get_by_role("searchbox", name="Search packages").press_sequentially("kinem")

    expect(table.get_by_role("status")).to_contain_text("1 package found")
    expect(table.get_by_role("row")).to_have_count(2)
    expect(table.get_by_role("link", name="kinematics")).to_be_visible()
    assert page.url.endswith("?q=kinem")

    page.get_by_role("searchbox", name="Search packages").fill("")

    expect(table.get_by_role("row")).to_have_count(51)
    assert "?" not in page.url


def test_packages_are_found_without_javascript_too(browser, server, alice_signed_in):
    with visiting(browser, server.url, storage_state=alice_signed_in, java_script_enabled=False) as visitor:
        page = visitor.open(f"{HOME}/")
        page.get_by_role("searchbox", name="Search packages").fill("kinem")
        page.get_by_role("button", name="Search").click()

        expect(page.locator("#package-list").get_by_role("row")).to_have_count(2)


def test_the_contents_are_filtered_as_one_types(alice):
    page = alice.open(f"{FILE}?tab=contents")

    page.get_by_role("searchbox", name="Filter by path").press_sequentially("models/arm")

    expect(page.locator("#members .member:visible")).to_have_text([re.compile(r"arm\.urdf")])
    expect(page.locator("[data-filter-count]")).to_contain_text("1 of ")

    page.get_by_role("searchbox", name="Filter by path").fill("")

    expect(page.locator("[data-filter-count]")).to_contain_text("unpacked")


def test_the_activity_is_filtered(alice):
    page = alice.open(f"{HOME}/activity")

    page.get_by_label("What").select_option("Yanked")
    page.get_by_role("button", name="Filter").click()

    expect(page.get_by_role("main").get_by_role("listitem")).to_have_text([re.compile("plans through walls")])


def test_spaces_in_a_name_become_hyphens_as_one_types(alice):
    page = alice.open(f"/{ORG}/new")

    page.get_by_label("Name").press_sequentially("field test tools")

    expect(page.get_by_label("Name")).to_have_value("field-test-tools")


def test_several_files_are_uploaded_each_with_its_progress_and_its_result(alice, workshop, tmp_path):
    repository, _ = workshop
    large = make_wheel("large", files={"large.bin": os.urandom(3_000_000)})
    files = [large, make_wheel("small"), ("broken-1.0-py3-none-any.whl", b"no archive")]
    for filename, content in files:
        (tmp_path / filename).write_bytes(content)
    page = alice.open(f"/{ORG}/{repository.slug}/")
    page.evaluate("""() => {
      window.seen = [];
      const bars = () => document.querySelectorAll(".uploads progress");
      const note = () => bars().forEach((bar) => window.seen.push(bar.value));
      new MutationObserver(note).observe(document.querySelector(".uploads"), {attributes: true, subtree: true});
    }""")

    Mouse(alice).give(*(tmp_path / filename for filename, _ in files))
    page.get_by_role("button", name="Upload", exact=True).click()

    expect(page.locator(".uploads .done")).to_have_text([f"{name} is published." for name, _ in files[:2]])
    expect(page.locator(".uploads .failed")).to_have_text([re.compile("^broken-1.0-py3-none-any.whl: .+")])
    assert max(page.evaluate("window.seen")) == 1
    page.get_by_role("link", name="Show the packages").click()
    expect(page.locator("#package-list").get_by_role("row")).to_have_count(3)


def test_files_that_are_dropped_are_uploaded(alice, workshop):
    repository, _ = workshop
    filename, content = make_wheel("dropped")
    page = alice.open(f"/{ORG}/{repository.slug}/")
    dropped = page.evaluate_handle(
        """([name, bytes]) => {
          const dropped = new DataTransfer();
          dropped.items.add(new File([new Uint8Array(bytes)], name));
          return dropped;
        }""",
        [filename, list(content)],
    )

    page.locator(".drop").dispatch_event("drop", {"dataTransfer": dropped})

    expect(page.locator(".uploads .done")).to_have_text(f"{filename} is published.")


# --- these tests ---


def test_where_chromium_is_missing_the_tests_fail_and_say_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setattr("tests.browser.CHROMIUM", tmp_path / "chromium")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(pytest.fail.Exception, match="install Debian's package chromium"):
        launch(None)


def test_requests_to_others_and_errors_on_the_console_are_noticed(stranger):
    page = stranger.open("/login")
    page.route("https://elsewhere.example/**", lambda route: route.fulfill(body=""))

    with page.expect_request("https://elsewhere.example/pixel.png"):
        page.evaluate(
            "document.body.append(Object.assign(new Image(), {src: 'https://elsewhere.example/pixel.png'}))"
        )
    with page.expect_console_message(lambda message: "Content Security Policy" in message.text):
        page.evaluate("document.body.setAttribute('style', 'color: red')")

    noticed = "\n".join(stranger.amiss)
    stranger.amiss.clear()
    assert "a request left the server: https://elsewhere.example/pixel.png" in noticed
    assert "Content Security Policy" in noticed
