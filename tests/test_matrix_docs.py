"""Every block of docs/clients.md, run as it is printed against a live server, only its placeholders filled in."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client_programs import PDM, clean_environment, installed, make_environment, run_program
from tests.clients import LiveRepository, make_repository
from tests.conftest import HERE, LiveServer, start_server
from tests.storage.makers import make_wheel
from tests.test_matrix_publish import Project, listed_digests

PAGE = HERE / "docs" / "clients.md"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE = re.compile(r"`((?:~/\.config/pip/pip\.conf|~/\.netrc|~/\.pypirc|requirements\.txt|pyproject\.toml))`")
ABOVE = "With the `pyproject.toml` above"

PROGRAMS = {"uv": "uv", "poetry": "poetry", "pdm": PDM, "twine": "twine", "hatch": "hatch", "flit": "flit"}

_numbers = itertools.count(1)


def sections(chapter: str) -> dict[str, str]:
    """Return the sections of a chapter of the page, by their titles."""
    text = PAGE.read_text().partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    parts = text.split("\n### ")[1:]
    return {title: body for title, _, body in (part.partition("\n") for part in parts)}


INSTALL, PUBLISH = sections("Install"), sections("Publish")


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[LiveServer]:
    server = start_server(tmp_path_factory.mktemp("docs") / "data")
    yield server
    server.stop()


@pytest.fixture
def private(server: LiveServer) -> LiveRepository:
    return make_repository(server, f"private{next(_numbers)}")


@pytest.fixture
def public(server: LiveServer) -> LiveRepository:
    """What stands in the place of the public registry."""
    return make_repository(server, f"public{next(_numbers)}", public=True)


def fill_in(text: str, repository: LiveRepository, token: str) -> str:
    """Put what is the user's own into a block; the server of the tests has no TLS."""
    address = repository.server.url.removeprefix("http://")
    words = {"ORG": repository.org, "REPO": repository.slug, "TOKEN": token, "HOST": address}
    text = re.sub(r"\bmachine HOST\b", f"machine {address.partition(':')[0]}", text)
    return re.sub(r"\b(HOST|ORG|REPO|TOKEN)\b", lambda word: words[word[0]], text).replace("https://", "http://")


def follow(
    title: str, body: str, folder: Path, repository: LiveRepository, token: str, **variables: str
) -> list[str]:
    """Do what a section says, in *folder*; return what it runs."""
    home = folder.parent
    program = PROGRAMS.get(re.match(r"\w+", title)[0])
    environment = clean_environment(home, *([program] if program else []), **variables)
    environment["PATH"] = f"{folder / '.venv' / 'bin'}:{environment['PATH']}"
    commands, position = [], 0
    for block in BLOCK.finditer(body):
        text = fill_in(block[2], repository, token)
        if block[1] == "sh":
            ended = run_program(text, folder, environment)
            assert ended.status == 0, ended
            commands.append(text)
        else:  # a file, the last that the text before it names
            name = FILE.findall(body, position, block.start())[-1]
            path = home / name.removeprefix("~/") if name.startswith("~") else folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        position = block.end()
    return commands


@pytest.mark.parametrize("title", INSTALL)
def test_what_the_page_says_of_installing_installs(title, private, public, tmp_path):
    folder = tmp_path / "home" / "application"
    folder.mkdir(parents=True)
    private.publish(*make_wheel("toolbox"), cwd=tmp_path)
    make_environment(folder / ".venv", "pip" if title.startswith("pip") else None)
    variables = {"PIP_INDEX_URL": public.index_url(), "UV_DEFAULT_INDEX": public.index_url()}
    if title == "pip: for every command":
        variables |= {
            "PIP_CONFIG_FILE": "",
            "XDG_CONFIG_DIRS": str(tmp_path),
        }  # read the user's own, not the machine's
    body = INSTALL[title]
    if ABOVE in body:
        body = f"`pyproject.toml`\n{BLOCK.search(INSTALL[title.partition(':')[0]])[0]}\n{body}"

    commands = follow(title, body, folder, private, private.read_token, **variables)

    assert commands
    assert installed(folder / ".venv") == {"toolbox": "1.0"}


@pytest.mark.parametrize("title", PUBLISH)
def test_what_the_page_says_of_publishing_publishes_however_often(title, private, tmp_path):
    project = Project(tmp_path / "home" / "project")
    project.build("One")

    for _ in range(2):
        commands = follow(title, PUBLISH[title], project.folder, private, private.write_token)

    assert commands
    listed = listed_digests(private)
    assert listed.items() <= project.digests.items()
    assert len(listed) == (1 if title == "curl" else 2)


def test_every_block_of_the_page_is_in_a_section_that_is_followed():
    followed = [block for body in (*INSTALL.values(), *PUBLISH.values()) for block in BLOCK.findall(body)]

    assert followed == BLOCK.findall(PAGE.read_text())
    assert all(BLOCK.search(body) for body in (*INSTALL.values(), *PUBLISH.values()))
