"""A real Chromium that visits a live server, and what it must never do; a registry that is worth looking at."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from axe_playwright_python.sync_playwright import Axe
from packaging.version import Version
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Locator, Page, Playwright, Request, expect

from storage.names import normalize_project
from storage.registry import Registry
from storage.repository import Repository, RepositorySettings
from storage.sidecars import Actor
from storage.statuses import ProjectStatus, Status
from storage.tokens import Scope
from storage.uploads import copy_into
from storage.users import Role
from tests.people import PASSWORD, PASSWORD_HASH
from tests.storage.makers import make_sdist, make_wheel

CHROMIUM = Path("/usr/bin/chromium")
MISSING = "Chromium is missing, so the pages cannot be tested: install Debian's package chromium, as .ci/run does"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
WAIT = 15_000  # milliseconds that a page may take, on a machine that does much else


def launch(playwright: Playwright) -> Browser:
    """Start Debian's Chromium."""
    program = CHROMIUM if CHROMIUM.exists() else shutil.which("chromium")
    if program is None:
        pytest.fail(MISSING)
    expect.set_options(timeout=WAIT)
    return playwright.chromium.launch(executable_path=program, args=ARGUMENTS)


# --- somebody who looks at pages ---


@dataclass
class Visitor:
    """A browser of one person, who sees whether anything is amiss on the pages that are visited."""

    context: BrowserContext
    server: str  # its address
    amiss: list[str] = field(default_factory=list)  # requests to others, errors on the console
    _asked: set[str] = field(default_factory=set)

    @property
    def page(self) -> Page:
        return self.context.pages[0] if self.context.pages else self.context.new_page()

    def watch(self) -> None:
        """Begin to look for what is amiss."""
        self.context.set_default_timeout(WAIT)
        self.context.on("request", self._on_request)
        self.context.on("console", self._on_console)
        self.context.on("weberror", lambda error: self.amiss.append(f"a script failed: {error.error}"))

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((f"{self.server}/", "data:")):
            self.amiss.append(f"a request left the server: {request.url}")
        if request.is_navigation_request() or request.resource_type == "xhr":
            self._asked.add(request.url.partition("#")[0])

    def _on_console(self, message: ConsoleMessage) -> None:
        # Chromium writes down every page and upload that is answered with an error, as errors are.
        answered = message.text.startswith("Failed to load resource: the server responded with a status of ")
        if answered and message.location["url"].partition("#")[0] in self._asked:
            return
        if message.type in ("error", "warning"):
            self.amiss.append(f"the console says: {message.text} ({message.location['url']})")

    def open(self, path: str) -> Page:
        """Go to a page of the server."""
        self.page.goto(urljoin(self.server, path))
        return self.page

    def sign_in(self, name: str, password: str = PASSWORD) -> Page:
        """Sign in by the form."""
        page = self.open("/login")
        page.get_by_label("User name").fill(name)
        page.get_by_label("Password").fill(password)
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("button", name="Sign out")).to_be_visible()
        return page


@contextmanager
def visiting(browser: Browser, server: str, **options: Any) -> Iterator[Visitor]:
    """Open a browser of its own cookies; at the end, nothing must have been amiss on any page."""
    # Colours that fade into each other are no colours to be judged.
    context = browser.new_context(reduced_motion="reduce", **options)
    visitor = Visitor(context, server)
    visitor.watch()
    try:
        yield visitor
        assert not visitor.amiss, "\n".join(visitor.amiss)
    finally:
        context.close()


def choose(page: Page, title: str) -> None:
    """Unfold the part of a page that is called *title*, if it is folded."""
    box = page.locator("details", has=page.locator("summary", has_text=title)).last
    if box.get_attribute("open") is None:
        box.locator("summary").first.click()


# --- whether everybody can read a page ---


def obstacles(page: Page, only: tuple[str, ...] = ()) -> list[str]:
    """Return what axe-core finds wrong on a page, in all its rules or in those named."""
    options: dict[str, Any] = {"resultTypes": ["violations"]}
    if only:
        options["runOnly"] = list(only)
    if not page.evaluate("() => 'axe' in window"):
        page.evaluate(Axe().axe_script)
    found = page.evaluate("(options) => axe.run(options)", options)["violations"]
    return [f"{rule['id']}: {node['html'][:300]} ({rule['help']})" for rule in found for node in rule["nodes"]]


WIDER = """() => {
  const room = document.documentElement.clientWidth;
  const clips = (box) => box && box !== document.documentElement
    && (getComputedStyle(box).overflowX !== "visible" || clips(box.parentElement));
  const wide = document.documentElement.scrollWidth > room || document.body.scrollWidth > room;
  const boxes = [...document.body.querySelectorAll("*")];
  return wide ? [document.documentElement.scrollWidth, ...boxes
    .filter((box) => box.getBoundingClientRect().right > room + 1 && !clips(box.parentElement))
    .map((box) => box.outerHTML.slice(0, 200))] : [];
}"""


def wider_than(page: Page, width: int) -> list[str]:
    """Return what stands out to the right of a window of *width* pixels."""
    page.set_viewport_size({"width": width, "height": 800})
    return page.evaluate(WIDER)


# --- a registry that is worth looking at ---

ORG, REPO = "acme", "robots"
LONG = "a-very-long-project-name-that-goes-on-and-on-until-it-fills-the-line-and-then-some-more-of-it-to-be-sure"
WHEEL = "motion_planner-2.1.0-py3-none-any.whl"
DELETED = "gripper_drive-0.9-py3-none-any.whl"
README = """\
# Motion planner

Plans how the arms of our robots move, **smoothly** and without hitting each other.

```python
from motion_planner import Planner

planner = Planner(robot="arm-7", clearance=0.02)
path = planner.plan(start, goal)  # a list of joint angles
```

| Planner | Joints | Speed |
|---------|-------:|------:|
| `rrt`   |      7 | 12 ms |
| `chomp` |      7 | 40 ms |

- Works offline, on the robot's own computer
- Reads [URDF](https://wiki.ros.org/urdf) and our own format

> Upgrade before the next field test.
"""
PROJECTS = {
    "camera-calibration": "Finds the lenses' distortion from pictures of a chessboard",
    "encoder-fusion": "Joint angles from two encoders that disagree",
    "gripper-control": "Opens and closes whatever is at the end of an arm",
    "imu-filter": "Attitude from gyroscopes and accelerometers",
    "kinematics": "Forward and inverse kinematics of serial arms",
    "lidar-tools": "Reads, crops and thins point clouds",
    "map-server": "Serves maps of the halls, in tiles",
    "odometry": "Where the robot is, from what its wheels did",
    "task-queue": "Hands out jobs to idle robots, the urgent ones first",
    "telemetry": "Sends numbers to the dashboards, a few at a time",
}


@dataclass(frozen=True)
class Shown:
    """What :func:`furnish` made, as far as pages need to be told."""

    token_id: str
    trash_id: str


def publish(repository: Repository, made: tuple[str, bytes], by: Actor, attestations: bytes | None = None) -> None:
    filename, content = made
    incoming = repository.receive()
    try:
        copy_into(incoming, io.BytesIO(content))
        repository.add_file(incoming, filename, by, attestations=attestations)
    finally:
        incoming.close()


def statement(filename: str) -> bytes:
    """Return a PEP 740 document with one attestation."""
    said = {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": filename, "digest": {"sha256": "0" * 64}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": None,
    }
    envelope = {"statement": base64.b64encode(json.dumps(said).encode()).decode(), "signature": "MEUC"}
    return json.dumps([{"version": 1, "verification_material": {}, "envelope": envelope}]).encode()


def furnish(storage: Path) -> Shown:
    """Fill a registry with what pages can show: people, repositories, releases, tokens, trash, long names."""
    registry = Registry(storage)
    registry.create_organization(ORG, "Acme Robotics")
    registry.create_organization("labs", "Acme Labs")
    registry.users.create("alice", PASSWORD_HASH, {ORG: Role.ADMIN, "labs": Role.ADMIN})
    registry.users.create("bob", PASSWORD_HASH, {ORG: Role.WRITER})
    registry.users.create("carol", PASSWORD_HASH, {ORG: Role.READER})
    alice, ci = Actor("user", "alice"), Actor("token", "0123456789ab", "CI of the robots")
    settings = RepositorySettings(
        name=REPO,
        description="Everything that the robots run, built by CI from tagged commits.",
        emoji="🤖",
        color="#d9e8ff",
    )
    repository = registry.create_repository(ORG, REPO, settings)
    made = RepositorySettings(
        name="open-source", description="What we publish for everybody.", emoji="🌍", color="#d7f5e3", private=False
    )
    public = registry.create_repository(ORG, "open-source", made)
    registry.create_repository(ORG, "empty", RepositorySettings(name="empty"))
    publish(public, make_wheel("toolbox", summary="What everybody needs"), alice)
    for name, summary in PROJECTS.items():
        for version in ("1.0", "1.1"):
            publish(repository, make_wheel(name, version, summary=summary), ci)
    for number in range(60):
        publish(repository, make_wheel(f"sensor-{number:02}", summary=f"Driver of sensor {number}"), ci)
    publish(repository, make_wheel(LONG, "2026.11.24.post1.dev20261124", summary="Something long. " * 20), alice)
    furnish_planner(repository, alice, ci)
    publish(repository, make_wheel("gripper-drive", "0.9"), alice)
    publish(repository, make_wheel("legacy-arm", "3.2", summary="The old arms"), alice)
    for project, status in (
        ("legacy-arm", ProjectStatus(Status.DEPRECATED, "use motion-planner")),
        ("sensor-07", ProjectStatus(Status.QUARANTINED, "published with a stolen token")),
    ):
        repository.change_status(project, status, alice)
    repository.delete_file("gripper-drive", DELETED, alice)
    trash_id = next(iter(repository.trash())).id
    repository.delete_file("sensor-08", "sensor_08-1.0-py3-none-any.whl", alice)
    repository.purge_file("sensor-08", next(iter(repository.trash("sensor-08"))).id, alice)
    token, _ = registry.tokens.create(
        ORG, REPO, frozenset({Scope.READ_PACKAGES}), alice, description="CI of the web shop"
    )
    registry.tokens.note_use(token, "192.0.2.17", 'pip/26.0 {"ci":true}')
    for description, repo, days in (("laptop", REPO, 90), ("everything", None, None), ("forgotten", REPO, -1)):
        lifetime = timedelta(days=days) if days else None
        scopes = frozenset(Scope) if repo is None else frozenset({Scope.READ_PACKAGES, Scope.WRITE_PACKAGES})
        registry.tokens.create(ORG, repo, scopes, alice, description=description, user="alice", lifetime=lifetime)
    return Shown(token.id, trash_id)


def furnish_planner(repository: Repository, alice: Actor, ci: Actor) -> None:
    """Publish the project of which most pages are shown."""
    for version in ("1.0", "1.9", "2.0", "2.2rc1"):
        publish(repository, make_wheel("motion-planner", version, summary="Plans how arms move"), ci)
    headers = [
        ("Description-Content-Type", "text/markdown"),
        ("License-Expression", "MIT"),
        ("Author-email", "Motion team <motion@example.com>"),
        ("Project-URL", "Source, https://git.example.com/motion-planner"),
        ("Project-URL", "Changes, https://git.example.com/motion-planner/changes"),
        ("Keywords", "robots,planning"),
        ("Classifier", "Programming Language :: Python :: 3"),
        ("Provides-Extra", "viewer"),
    ]
    files = {
        "motion_planner/__init__.py": b'"""Plans how arms move."""\n\nfrom motion_planner.rrt import Planner\n',
        "motion_planner/rrt.py": b"class Planner:\n    def plan(self, start, goal):\n        return [start, goal]\n"
        * 9,
        "motion_planner/models/arm.urdf": b"<robot name='arm-7'/>\n",
        "motion_planner/models/mesh.bin": bytes(range(256)) * 40,
    }
    planner = partial(
        make_wheel,
        "motion-planner",
        "2.1.0",
        metadata_version="2.4",
        summary="Plans how the arms of our robots move",
        requires=["kinematics>=1.0", "numpy>=1.26", "pyglet; extra == 'viewer'"],
        requires_python=">=3.11",
        extra_headers=headers,
        description=README,
        files=files,
        entry_points="[console_scripts]\nplan-motion = motion_planner.rrt:main\n",
    )
    publish(repository, planner(), alice, statement(WHEEL))
    publish(repository, planner(tags="cp312-cp312-manylinux_2_28_x86_64"), ci)
    publish(repository, make_sdist("motion-planner", "2.1.0", summary="Plans how the arms of our robots move"), ci)
    repository.yank_release(normalize_project("motion-planner"), Version("1.9"), "plans through walls", alice)
    today = datetime.now(UTC).date()
    days = {f"{today - timedelta(days=ago)}": 3 + (ago * 7) % 19 for ago in range(80) if ago % 7 not in (2, 3)}
    counts = repository.tree.download_counts(normalize_project("motion-planner"))
    counts.parent.mkdir(exist_ok=True)
    counts.write_text(json.dumps({WHEEL: days}))


# --- hands ---


class Mouse:
    """Somebody who points and clicks."""

    def __init__(self, visitor: Visitor, *, has_script: bool = True) -> None:
        self.visitor = visitor
        self.page = visitor.page
        self.has_script = has_script

    def button(self, name: str) -> Locator:
        return self.page.get_by_role("button", name=name, exact=True)

    def link(self, name: str) -> Locator:
        return (
            self.page.get_by_role("main")
            .or_(self.page.get_by_role("navigation"))
            .get_by_role("link", name=name, exact=True)
        )

    def press(self, target: Locator) -> None:
        """Follow a link, push a button, unfold what is folded."""
        target.click()

    def write(self, label: str, text: str) -> None:
        """Write into the field with that label."""
        field = self.field(label)
        field.click()
        field.fill(text)

    def field(self, label: str) -> Locator:
        return self.page.get_by_label(label).and_(self.page.locator("input:visible"))

    def unfold(self, title: str) -> None:
        """Unfold the part of the page that is called *title*."""
        self.press(self.page.locator("summary", has_text=re.compile(f"^{title}$")))

    def give(self, *files: Path) -> None:
        """Choose files in the form for them."""
        with self.page.expect_file_chooser() as chooser:
            self.press(self.page.locator("input[type=file]"))
        chooser.value.set_files(files if len(files) > 1 else files[0])


class Keyboard(Mouse):
    """Somebody who has nothing but a keyboard."""

    def press(self, target: Locator) -> None:
        self.reach(target)
        self.page.keyboard.press("Enter")

    def write(self, label: str, text: str) -> None:
        self.reach(self.field(label))
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)

    def reach(self, target: Locator) -> None:
        """Press Tab until *target* has the focus, and can be seen to have it."""
        expect(target).to_be_visible()
        for _ in range(150):
            if target.evaluate("(element) => element === document.activeElement"):
                assert target.evaluate("(element) => getComputedStyle(element).outlineStyle") != "none", (
                    f"nobody sees that {target} has the focus"
                )
                return
            self.page.keyboard.press("Tab")
        raise AssertionError(f"the Tab key never comes to {target}")


def snippets_on(page: Page) -> dict[str, str]:
    """Return the text of every code box on a page, by the id of each."""
    boxes = page.locator(".code pre").evaluate_all("(boxes) => boxes.map((box) => [box.id, box.textContent])")
    return dict(boxes)
