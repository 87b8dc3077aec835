"""Every client that publishes, as its users run it, against one live server: what they see, well or ill.

What is published lies ready in ``dist/``; only flit builds anew each time, which it does alike each time. Where a
client has its own word for a thing (skipping, checking, probing), that is tested below the table of all clients.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import stat
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

import pytest

from snippets import curl_command
from storage.names import normalize_project
from storage.registry import Registry
from storage.sidecars import Actor
from storage.statuses import parse_status
from storage.tokens import Scope
from tests.client_programs import PDM as PDM_REQUIREMENT
from tests.client_programs import Ended, clean_environment, run_program
from tests.clients import LiveRepository, make_repository
from tests.conftest import LiveServer, start_server
from tests.storage.makers import make_sdist, make_wheel

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[LiveServer]:
    """The one server of this matrix."""
    server = start_server(tmp_path_factory.mktemp("matrix") / "data")
    yield server
    server.stop()


@pytest.fixture
def private(server: LiveServer) -> LiveRepository:
    return make_repository(server, f"private{next(_numbers)}")


@pytest.fixture
def public(server: LiveServer) -> LiveRepository:
    return make_repository(server, f"public{next(_numbers)}", public=True)


# --- a project, ready to be published ---

PYPROJECT = """\
[build-system]
requires = ["flit_core"]
build-backend = "flit_core.buildapi"

[project]
name = "{name}"
version = "{version}"
description = "{summary}"
requires-python = ">=3.8"
authors = [{{name = "A. Uthor", email = "author@example.com"}}]
"""


@dataclass
class Project:
    """A project's folder with ``dist/``, in a home of its own."""

    folder: Path
    name: str = "toolbox"
    version: str = "1.0"

    def build(self, summary: str) -> None:
        """Put the wheel and the sdist in place; another *summary* makes other bytes."""
        texts = {"name": self.name, "version": self.version, "summary": summary}
        (self.folder / "dist").mkdir(parents=True, exist_ok=True)
        (self.folder / "pyproject.toml").write_text(PYPROJECT.format(**texts))
        (self.folder / f"{self.name}.py").write_text(f'"""{summary}"""\n')
        for filename, content in (
            make_wheel(self.name, self.version, summary=summary),
            make_sdist(self.name, self.version, summary=summary),
        ):
            (self.folder / "dist" / filename).write_bytes(content)

    @property
    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file in ``dist/``."""
        files = sorted((self.folder / "dist").iterdir())
        return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path / "project")
    project.build("One")
    return project


def listing(repository: LiveRepository, name: str = "toolbox") -> dict[str, dict]:
    """Return what the index lists of a project, by file name."""
    request = urllib.request.Request(
        f"{repository.index_url()}/{name}/?format=application/vnd.pypi.simple.v1%2Bjson"
    )
    request.add_header("Authorization", "Basic " + b64encode(f"{repository.read_token}:".encode()).decode())
    with urllib.request.urlopen(request, timeout=30) as answer:
        return {file["filename"]: file for file in json.load(answer)["files"]}


def listed_digests(repository: LiveRepository, name: str = "toolbox") -> dict[str, str]:
    return {filename: file["hashes"]["sha256"] for filename, file in listing(repository, name).items()}


# --- the clients ---


def upload_url(repository: LiveRepository, path: str = "legacy/") -> str:
    return f"{repository.server.url}/{repository.org}/{repository.slug}/pypi/{path}"


def with_user(url: str, user: str, password: str = "") -> str:
    return url.replace("://", f"://{user}:{password}@")


@dataclass(frozen=True)
class Publisher:
    """A client, and how it publishes what lies in ``dist/`` with its credentials in the environment."""

    name: str
    command: str
    variables: dict[str, str]  # with {url} and {token}
    requirement: str
    path: str = "legacy/"

    def __call__(
        self, project: Project, repository: LiveRepository, token: str = "", *arguments: str, **variables: str
    ) -> Ended:
        """Run it in the project's folder; *token* is the repository's own for writing if it is empty."""
        values = {"url": upload_url(repository, self.path), "token": token or repository.write_token}
        own = {name: text.format(**values) for name, text in self.variables.items()}
        return self.run(project, [*self.command.split(), *arguments], **{**own, **variables})

    def run(self, project: Project, command: list[str] | str, **variables: str) -> Ended:
        """Run any command with this client at hand, its reproducible builds switched on as flit's users do."""
        home = project.folder.parent
        environment = clean_environment(home, self.requirement, SOURCE_DATE_EPOCH="1580601600", **variables)
        return run_program(command, project.folder, environment)


class Curl(Publisher):
    """The printed command, once for each file; with the flag that makes curl fail where the server says so."""

    def __call__(self, project, repository, token="", *arguments, **variables):
        commands = []
        for path in sorted((project.folder / "dist").iterdir()):
            names = repository.org, repository.slug, token or repository.write_token
            command = curl_command(repository.server.url, *names, file=f"dist/{path.name}")
            commands.append(command.replace("curl -X", "curl -sS --fail-with-body -X"))
        return self.run(project, "\n".join(commands), **variables)

    def run(self, project, command, **variables):
        home = project.folder.parent
        return run_program(command, project.folder, clean_environment(home, **variables))


CURL = Curl("curl", "", {}, "")
TWINE = Publisher(
    "twine",
    "twine upload --non-interactive dist/toolbox-1.0-py3-none-any.whl dist/toolbox-1.0.tar.gz",
    {"TWINE_REPOSITORY_URL": "{url}", "TWINE_USERNAME": "__token__", "TWINE_PASSWORD": "{token}"},
    "twine",
)
UV = Publisher("uv", "uv publish", {"UV_PUBLISH_URL": "{url}", "UV_PUBLISH_TOKEN": "{token}"}, "uv")
POETRY = Publisher(
    "poetry",
    "poetry publish --no-interaction --repository acme",
    {
        "POETRY_REPOSITORIES_ACME_URL": "{url}",
        "POETRY_HTTP_BASIC_ACME_USERNAME": "__token__",
        "POETRY_HTTP_BASIC_ACME_PASSWORD": "{token}",
    },
    "poetry",
)
PDM = Publisher(
    "pdm",
    "pdm publish --no-build",
    {
        "PDM_PUBLISH_REPO": "{url}",
        "PDM_PUBLISH_USERNAME": "__token__",
        "PDM_PUBLISH_PASSWORD": "{token}",
        "PDM_USE_VENV": "0",  # else it makes a virtual environment, even to publish
    },
    PDM_REQUIREMENT,
)
HATCH = Publisher(
    "hatch",
    "hatch --no-interactive publish",
    {"HATCH_INDEX_REPO": "{url}", "HATCH_INDEX_USER": "__token__", "HATCH_INDEX_AUTH": "{token}"},
    "hatch",
)
FLIT = Publisher(
    "flit",
    "flit publish --no-use-vcs",
    {"FLIT_INDEX_URL": "{url}", "FLIT_USERNAME": "__token__", "FLIT_PASSWORD": "{token}"},
    "flit",
)
PUBLISHERS = [CURL, TWINE, UV, POETRY, PDM, HATCH, FLIT]


@pytest.fixture(params=PUBLISHERS, ids=lambda publisher: publisher.name)
def publisher(request: pytest.FixtureRequest) -> Publisher:
    return request.param


# --- all of them ---


def test_what_is_published_is_listed_with_its_digest(publisher, project, private):
    ended = publisher(project, private)

    assert ended.status == 0, ended
    assert len(project.digests) == 2
    assert listed_digests(private) == project.digests


def test_the_same_job_run_twice_ends_well(publisher, project, private):
    publisher(project, private)
    before = listing(private)

    ended = publisher(project, private)

    assert ended.status == 0, ended
    assert listing(private) == before


# hatch looks first which names are there, and then says nothing of their bytes; see below.
OUTSPOKEN = [CURL, TWINE, UV, POETRY, PDM, replace(HATCH, path=""), FLIT]


@pytest.mark.parametrize("publisher", OUTSPOKEN, ids=lambda publisher: publisher.name)
def test_a_conflict_is_told_with_both_digests_when_and_by_whom(publisher, project, private):
    assert publisher(project, private).status == 0
    first = listing(private)
    project.build("Two")

    ended = publisher(project, private)

    assert ended.status != 0
    told = [
        name
        for name, file in first.items()
        if ended.says(file["hashes"]["sha256"][:12], project.digests[name][:12])
    ]
    assert told, ended
    when = datetime.fromisoformat(first[told[0]]["upload-time"])
    assert ended.says(f"{when:%Y-%m-%d %H:%M:%S} UTC by token {id_of(private.write_token)} (test)"), ended
    assert listing(private) == first


def id_of(token: str) -> str:
    return token.split("_")[1]


@pytest.mark.parametrize("visibility", ["private", "public"])
def test_a_wrong_token_is_told(publisher, project, visibility, request):
    repository = request.getfixturevalue(visibility)

    ended = publisher(project, repository, "pkh_000000000000_wrong")

    assert ended.status != 0
    assert ended.says("401"), ended
    assert ended.says("this credential is not valid: it is misspelled, revoked or expired"), ended


def test_a_token_that_only_reads_is_told_what_it_lacks(publisher, project, private):
    ended = publisher(project, private, private.read_token)

    assert ended.status != 0
    assert ended.says("403"), ended
    assert ended.says("write_packages"), ended


def test_a_repository_that_is_not_theirs_or_not_there_is_told_alike(publisher, project, private, server):
    other = make_repository(server, f"other{next(_numbers)}")
    gone = replace(other, slug="nowhere")

    ended = [publisher(project, repository, private.write_token) for repository in (other, gone)]

    assert [one.status != 0 for one in ended] == [True, True]
    assert all(one.says("404") and one.says("not found") for one in ended), ended


def test_an_archived_project_refuses_with_its_reason(publisher, project, private, tmp_path):
    private.publish(*make_wheel("toolbox", "0.9"), cwd=tmp_path)
    repository = Registry(private.server.storage).repository(private.org, private.slug)
    status = parse_status("archived", "moved to the toolshed")
    repository.change_status(normalize_project("toolbox"), status, Actor("command line"))

    ended = publisher(project, private)

    assert ended.status != 0
    assert ended.says("403"), ended
    assert ended.says("is archived and takes no uploads: moved to the toolshed"), ended
    assert list(listing(private)) == ["toolbox-0.9-py3-none-any.whl"]


# What the reason phrase is to these, the name must not push out of it.
@pytest.mark.parametrize("publisher", [TWINE, PDM, replace(HATCH, path="")], ids=lambda publisher: publisher.name)
def test_a_conflict_is_told_whole_however_long_the_names_are(publisher, private, tmp_path):
    long = Project(
        tmp_path / "project", name="acme_internal_platform_toolbox_for_everyone", version="2026.11.24.post1"
    )
    scopes = frozenset([Scope.READ_PACKAGES, Scope.WRITE_PACKAGES])
    tokens = Registry(private.server.storage).tokens
    actor = Actor("command line")
    _, token = tokens.create(
        private.org, private.slug, scopes, actor, description="the nightly build of the platform"
    )
    long.build("One")
    assert CURL(long, private, token).status == 0
    long.build("Two")

    command = replace(publisher, command=publisher.command.replace("toolbox-1.0", f"{long.name}-{long.version}"))
    ended = command(long, private)

    assert ended.status != 0
    first = listed_digests(private, long.name.replace("_", "-"))
    assert any(ended.says(digest[:12], long.digests[name][:12]) for name, digest in first.items()), ended


# --- what only some of them have ---


def test_uv_checks_the_index_first_and_sends_nothing_that_is_there(project, private):
    check = ["--check-url", private.index_url(private.read_token)]
    fresh = UV(project, private, "", *check)
    again = UV(project, private, "", *check)

    assert fresh.status == again.status == 0, (fresh, again)
    assert again.says("already exists, skipping"), again
    assert listed_digests(private) == project.digests


def test_uv_checks_the_index_first_and_tells_a_conflict(project, private):
    check = ["--check-url", private.index_url(private.read_token)]
    UV(project, private, "", *check)
    before = listed_digests(private)
    project.build("Two")

    ended = UV(project, private, "", *check)

    assert ended.status != 0
    assert ended.says("Local file and index file do not match"), ended
    assert ended.says(*(digest for name, digest in before.items() if name.endswith(".whl"))), ended


def test_uv_publishes_where_it_may_not_check(project, private):
    check = ["--check-url", private.index_url()]

    runs = [UV(project, private, "", *check) for _ in range(2)]

    assert [run.status for run in runs] == [0, 0], runs
    assert listed_digests(private) == project.digests


def test_uv_knows_both_addresses_from_its_settings(project, private):
    with (project.folder / "pyproject.toml").open("a") as pyproject:
        pyproject.write(f"""
[[tool.uv.index]]
name = "acme"
url = "{private.index_url()}"
publish-url = "{upload_url(private)}"
""")
    variables = {"UV_PUBLISH_TOKEN": private.write_token}

    runs = [UV.run(project, "uv publish --index acme", **variables) for _ in range(2)]

    assert [run.status for run in runs] == [0, 0], runs
    assert listed_digests(private) == project.digests


@pytest.mark.parametrize(
    ("publisher", "words"),
    [(POETRY, "- Uploading {} File exists. Skipping"), (PDM, "Skipping {} because it appears to already exist")],
    ids=["poetry", "pdm"],
)
def test_skip_existing_leaves_the_first_file_of_a_name_in_peace(publisher, words, project, private):
    assert publisher(project, private, "", "--skip-existing").status == 0
    before = listing(private)
    project.build("Two")

    ended = publisher(project, private, "", "--skip-existing")

    assert ended.status == 0, ended
    assert all(ended.says(words.format(filename)) for filename in before), ended
    assert listing(private) == before


def test_twine_refuses_to_skip_but_need_not(project, private):
    TWINE(project, private)

    refused = TWINE(project, private, "", "--skip-existing")

    assert refused.status != 0
    assert refused.says("UnsupportedConfiguration"), refused
    assert TWINE(project, private).status == 0


def test_hatch_looks_first_and_sends_nothing_whose_name_is_there(project, private):
    HATCH(project, private)
    before = listing(private)
    project.build("Two")

    ended = HATCH(project, private)

    assert ended.status == 0, ended
    assert all(ended.says(f"dist/{filename} ... already exists") for filename in before), ended
    assert listing(private) == before


def test_hatch_sends_everything_where_it_cannot_look(project, private):
    hatch = replace(HATCH, path="")
    hatch(project, private)
    before = listing(private)

    ended = hatch(project, private)

    assert ended.status == 0, ended
    assert all(ended.says(f"dist/{filename} ... success") for filename in before), ended
    assert listing(private) == before


def test_flit_builds_the_same_bytes_again(project, private):
    FLIT(project, private)
    first = project.digests
    for path in (project.folder / "dist").iterdir():
        path.unlink()

    ended = FLIT(project, private)

    assert ended.status == 0, ended
    assert project.digests == first == listed_digests(private)


# --- credentials, in every spelling ---

PYPIRC = """\
[distutils]
index-servers = acme

[acme]
repository = {url}
username = __token__
password = {token}
"""
HATCH_CONFIG = """\
[publish.index]
repo = "acme"

[publish.index.repos.acme]
url = "{url}"
user = "__token__"
auth = "{token}"
"""
PDM_CONFIG = """\
[repository.acme]
url = "{url}"
username = "__token__"
password = "{token}"
"""
NETRC = "machine 127.0.0.1 login __token__ password {token}\n"

FILES = "dist/toolbox-1.0-py3-none-any.whl dist/toolbox-1.0.tar.gz"
V1 = "{server}/api/v1/repos/{org}/{repo}/packages.json"
CURLS = "for file in dist/*; do curl -sS --fail-with-body {how} -F package[package_file]=@$file " + V1 + "; done"
# Without a credential at hand uv asks first whether the server trusts the CI job, over TLS, which ours has not.
UV_ALONE = "uv publish --trusted-publishing never"
POETRY_URL = {"POETRY_REPOSITORIES_ACME_URL": "{url}"}
SPELLINGS: dict[str, tuple[Publisher, str, dict[str, str], dict[str, str]]] = {
    # what, by which client: its command, its environment, and files in its user's home
    "curl, token as user name": (CURL, CURLS.replace("{how}", "-u {token}:"), {}, {}),
    "curl, bearer token": (CURL, CURLS.replace("{how}", "-H 'Authorization: Bearer {token}'"), {}, {}),
    "curl, netrc": (CURL, CURLS.replace("{how}", "-n"), {}, {".netrc": NETRC}),
    "twine, flags": (TWINE, f"twine upload --repository-url {{url}} -u __token__ -p {{token}} {FILES}", {}, {}),
    "twine, token as user name": (
        TWINE,
        f"twine upload --repository-url {{url}} -u {{token}} -p '' {FILES}",
        {},
        {},
    ),
    "twine, address": (TWINE, f"twine upload --repository-url {{url_with_token}} {FILES}", {}, {}),
    "twine, pypirc": (TWINE, f"twine upload -r acme {FILES}", {}, {".pypirc": PYPIRC}),
    "uv, flags": (UV, "uv publish --publish-url {url} --username anybody --password {token}", {}, {}),
    "uv, token flag": (UV, "uv publish --publish-url {url} --token {token}", {}, {}),
    "uv, token as user name": (UV, "uv publish --publish-url {url} --username {token}", {}, {}),
    "uv, environment": (
        UV,
        "uv publish",
        {"UV_PUBLISH_URL": "{url}", "UV_PUBLISH_USERNAME": "__token__", "UV_PUBLISH_PASSWORD": "{token}"},
        {},
    ),
    "uv, address": (UV, "uv publish --publish-url {url_with_token}", {}, {}),
    "uv, netrc": (UV, f"{UV_ALONE} --publish-url {{url}}", {}, {".netrc": NETRC}),
    "poetry, flags": (POETRY, "poetry publish -n -r acme -u __token__ -p {token}", POETRY_URL, {}),
    "poetry, token": (POETRY, "poetry publish -n -r acme", {**POETRY_URL, "POETRY_PYPI_TOKEN_ACME": "{token}"}, {}),
    "poetry, settings": (
        POETRY,
        "poetry config repositories.acme {url}; poetry config http-basic.acme __token__ {token}\n"
        "poetry publish -n -r acme",
        {},
        {},
    ),
    "pdm, flags": (PDM, "pdm publish --no-build -r {url} -u __token__ -P {token}", {"PDM_USE_VENV": "0"}, {}),
    "pdm, password alone": (
        PDM,
        "pdm publish --no-build -r {url}",
        {"PDM_USE_VENV": "0", "PDM_PUBLISH_PASSWORD": "{token}"},
        {},
    ),
    "pdm, address": (PDM, "pdm publish --no-build -r {url_with_token}", {"PDM_USE_VENV": "0"}, {}),
    "pdm, settings": (
        PDM,
        "pdm publish --no-build -r acme",
        {"PDM_USE_VENV": "0"},
        {".config/pdm/config.toml": PDM_CONFIG},
    ),
    "hatch, flags": (HATCH, "hatch publish -n -r {url} -u __token__ -a {token}", {}, {}),
    "hatch, settings": (HATCH, "hatch publish -n", {}, {".config/hatch/config.toml": HATCH_CONFIG}),
    "flit, pypirc": (FLIT, "flit publish --no-use-vcs --repository acme", {}, {".pypirc": PYPIRC}),
}


@pytest.mark.parametrize("spelling", SPELLINGS.values(), ids=SPELLINGS)
def test_a_credential_is_taken_in_every_spelling_that_the_client_knows(spelling, project, private):
    publisher, command, variables, files = spelling
    url, token = upload_url(private), private.write_token
    values = {
        "url": url,
        "token": token,
        "url_with_token": with_user(url, "__token__", token),
        "server": private.server.url,
        "org": private.org,
        "repo": private.slug,
    }
    for place, text in files.items():
        path = project.folder.parent / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.format(**values))
        path.chmod(stat.S_IRUSR | stat.S_IWUSR)

    filled = {name: text.format(**values) for name, text in variables.items()}
    ended = publisher.run(project, command.format(**values), **filled)

    assert ended.status == 0, ended
    assert listed_digests(private) == project.digests
    assert token not in ended.seen


@pytest.mark.parametrize(
    ("publisher", "words"),
    [
        (replace(TWINE, variables={"TWINE_REPOSITORY_URL": "{url}"}), "Credential"),
        (replace(UV, command=UV_ALONE, variables={"UV_PUBLISH_URL": "{url}"}), "Missing credentials"),
        (replace(POETRY, variables=POETRY_URL), "a credential is needed"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_a_client_without_a_credential_is_told_that_it_needs_one(publisher, words, project, private):
    ended = publisher(project, private)

    assert ended.status != 0
    assert ended.says(words), ended
