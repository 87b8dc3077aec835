"""The package API beside publishing: reading, searching, yanking, deleting, promoting, counting (specs.md 5)."""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, urlsplit

import pytest
from werkzeug.security import generate_password_hash

import storage.registry
from storage.downloads import downloads_of
from storage.errors import FileAlreadyExists
from storage.registry import Registry
from storage.repository import Repository, RepositorySettings
from storage.statuses import ProjectStatus, Status
from storage.tokens import Scope
from storage.users import Role
from tests.conftest import ORG, REPO, TESTER, add_to, basic
from tests.storage.makers import make_sdist, make_wheel
from tests.test_publish import DETAILS

V1 = f"/api/v1/repos/{ORG}/{REPO}"
PACKAGES = f"{V1}/packages.json"
FRAGMENT = {
    "name",
    "distro_version",
    "created_at",
    "version",
    "release",
    "architecture",
    "epoch",
    "scope",
    "private",
    "type",
    "filename",
    "uploader_name",
    "indexed",
    "sha256sum",
    "repository_html_url",
    "package_url",
    "package_html_url",
    "download_url",
    "downloads_detail_url",
    "downloads_series_url",
    "downloads_count_url",
    "promote_url",
    "destroy_url",
}
WHEEL, WHEEL_BYTES = make_wheel(requires=["six"], requires_python=">=3.8", summary="a wheel")
SDIST, SDIST_BYTES = make_sdist(summary="an sdist")


@pytest.fixture
def call(client, tokens):
    """Call the API with the credential that may do all: ``call("PUT", path, json={...})``."""

    def call(method: str, path: str, credential: str | None = tokens.admin, **options):
        headers = {**(basic(credential) if credential else {}), **options.pop("headers", {})}
        return client.open(path, method=method, headers=headers, buffered=True, **options)

    return call


@pytest.fixture
def get(call):
    """GET a path of the API; answered with 200 and JSON."""

    def get(path: str):
        answer = call("GET", path)
        assert answer.status_code == 200, answer.text
        assert answer.content_type == "application/json"
        return answer.json

    return get


@pytest.fixture
def filled(repository: Repository) -> Repository:
    """A wheel and an sdist of one version, another version, another project."""
    add_to(repository, SDIST, SDIST_BYTES)
    add_to(repository, WHEEL, WHEEL_BYTES)
    add_to(repository, *make_wheel(version="1.10"))
    add_to(repository, *make_wheel("Py.Thon_lib", "2!1.0+local.7"))
    return repository


def events(repository: Repository) -> list[dict]:
    return [json.loads(line) for line in repository.tree.events_file.read_text().splitlines()]


def content_of(repository: Repository, filename: str, project: str = "toolbox") -> bytes:
    with repository.open_file(project, filename)[1] as artifact:
        return artifact.read()


# --- lists ---


def test_the_list_names_every_file_once_newest_first(get, filled):
    page = get(PACKAGES)

    assert [item["filename"] for item in page] == [
        "py_thon_lib-2!1.0+local.7-py3-none-any.whl",
        "toolbox-1.10-py3-none-any.whl",
        WHEEL,
        SDIST,
    ]
    assert all(set(item) == FRAGMENT for item in page)


@pytest.mark.parametrize("suffix", [".json", ""])
def test_lists_are_there_with_and_without_a_suffix(get, filled, suffix):
    for path in (
        f"{V1}/packages",
        f"{V1}/packages/python",
        f"{V1}/search",
        f"{V1}/package/python/toolbox/versions",
        f"{V1}/package/python/toolbox/1.0",
        f"{V1}/package/python/toolbox/1.0/stats/downloads/count",
        f"{V1}/package/python/toolbox/1.0/stats/downloads/detail",
        f"{V1}/package/python/toolbox/1.0/stats/downloads/series/daily",
        f"{V1}/gpg_keys",
        V1,
        "/api/v1/repos",
        "/api/v1/distributions",
    ):
        get(f"{path}{suffix}")


def test_an_empty_repository_has_empty_lists(call, repository):
    for path in (PACKAGES, f"{V1}/packages/python.json", f"{V1}/search.json?q=x"):
        answer = call("GET", path)
        assert answer.json == []
        assert answer.headers["Total"] == "0"


def links(answer) -> dict[str, str]:
    found = re.findall(r'<([^>]+)>; rel="(\w+)"', answer.headers["Link"])
    return {rel: url for url, rel in found}


def test_pages_say_where_the_others_are(call, filled):
    first = call("GET", f"{PACKAGES}?per_page=2&x=a%26b")
    second = call("GET", links(first)["next"].removeprefix("http://localhost"))

    assert (first.headers["Total"], first.headers["Per-Page"], first.headers["Max-Per-Page"]) == ("4", "2", "100")
    assert set(links(first)) == {"next", "last"}
    assert links(first)["next"] == links(first)["last"] == f"http://localhost{PACKAGES}?per_page=2&x=a%26b&page=2"
    assert set(links(second)) == {"prev", "last"}
    assert len({item["filename"] for item in first.json + second.json}) == 4


@pytest.mark.parametrize(
    ("query", "length", "per_page"),
    [
        ("", 4, "30"),
        ("?per_page=1000", 4, "100"),
        ("?per_page=0", 1, "1"),
        ("?per_page=-1", 4, "30"),
        ("?per_page=x", 4, "30"),
        ("?page=0", 4, "30"),
        ("?page=2", 0, "30"),
        ("?page=999999999999999999999", 4, "30"),
        ("?page=999999999", 0, "30"),
        ("?page=\N{ARABIC-INDIC DIGIT TWO}", 4, "30"),
        ("?page=2&per_page=3", 1, "3"),
    ],
)
def test_odd_pages_are_empty_or_clamped_and_never_an_error(call, filled, query, length, per_page):
    answer = call("GET", f"{PACKAGES}{query}")

    assert answer.status_code == 200
    assert len(answer.json) == length
    assert answer.headers["Per-Page"] == per_page


def test_a_page_that_is_not_the_last_is_full_even_where_files_are_damaged(call, filled):
    for number in range(3):
        add_to(filled, *make_wheel("anvil", f"1.{number}"))
    call("GET", PACKAGES)
    make_look_settled(filled)
    call("GET", PACKAGES)
    filled.tree.artifact("anvil", "anvil-1.1-py3-none-any.whl").write_bytes(b"short")

    first = call("GET", f"{PACKAGES}?per_page=3")
    second = call("GET", f"{PACKAGES}?per_page=3&page=2")

    # The published export script takes a short page for the last one (specs.md 5.6).
    assert len(first.json) == len(second.json) == 3
    assert len({item["filename"] for item in first.json + second.json} - {"anvil-1.1-py3-none-any.whl"}) >= 5


def make_look_settled(repository: Repository) -> None:
    """Wait until the catalog trusts the time stamps of the projects' folders."""
    newest = max(path.stat().st_ctime for path in repository.tree.packages.iterdir())
    time.sleep(max(0, newest + 2.05 - time.time()))


@pytest.mark.parametrize("path", [PACKAGES, f"{V1}/search.json?q=a", f"{V1}/packages/python.json"])
def test_a_list_that_cannot_be_complete_yet_is_to_be_asked_for_again(call, filled, monkeypatch, path):
    monkeypatch.setattr("storage.catalog.PATIENCE", 0.0)
    monkeypatch.setattr("storage.gathering.FEW", 0)
    may_read = threading.Event()
    monkeypatch.setattr("storage.catalog.read_entries", lambda tree, project: may_read.wait(20) and ())

    answer = call("GET", path)
    may_read.set()

    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert "have not been read yet" in answer.json["message"]


def test_projects_are_listed_with_their_versions_counted(get, filled):
    assert get(f"{V1}/packages/python.json") == [
        {
            "name": name,
            "versions_count": count,
            "versions_url": f"{V1}/package/python/{name}/versions.json",
            "repository_url": V1,
            "repository_html_url": f"/{ORG}/{REPO}",
        }
        for name, count in (("py-thon-lib", 1), ("toolbox", 2))
    ]
    assert [item["name"] for item in get(f"{V1}/packages/python.json?filter=TOOL")] == ["toolbox"]


def test_the_versions_of_a_project_are_its_files_newest_version_first(get, filled):
    page = get(f"{V1}/package/python/Tool_box/versions.json".replace("Tool_box", "TOOLBOX"))

    assert [item["filename"] for item in page] == ["toolbox-1.10-py3-none-any.whl", SDIST, WHEEL]
    assert all(set(item) == FRAGMENT for item in page)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("q=toolbox", 3),
        ("q=TOOLBOX-1.10", 1),
        ("q=py.thon", 1),
        ("q=Py_Thon-Lib", 1),
        ("q=2!1.0%2Blocal", 1),
        ("q=nothing", 0),
        ("q=", 4),
        ("", 4),
        ("q=.whl", 3),
        ("q=toolbox&filter=python", 3),
        ("q=toolbox&filter=debs", 0),
        ("q=toolbox&dist=python", 3),
        ("q=toolbox&dist=ubuntu/xenial", 0),
        ("q=%FF%00%5B", 0),
        ("q=toolbox&per_page=2", 2),
    ],
)
def test_files_are_found_by_a_part_of_their_name(get, filled, query, found):
    page = get(f"{V1}/search.json?{query}")

    assert len(page) == found
    assert all(set(item) == FRAGMENT for item in page)


# --- one file ---


def test_a_release_shows_its_wheel_unless_a_file_is_named(get, filled):
    path = f"{V1}/package/python/toolbox/1.0.json"

    assert get(path)["filename"] == WHEEL
    assert get(f"{path}?filename={SDIST}")["filename"] == SDIST
    assert get(f"{V1}/package/python/ToolBox/v1.0.0.json")["filename"] == WHEEL
    assert set(get(path)) == DETAILS


def test_every_address_of_every_file_leads_to_that_file(get, call, filled):
    for item in get(PACKAGES):
        details = get(item["package_url"])
        assert set(details) == DETAILS
        assert {key: details[key] for key in FRAGMENT} == item
        assert get(details["self_url"]) == details
        assert item["filename"] in [other["filename"] for other in get(details["versions_url"])]
        assert get(details["repository_url"])["fqname"] == f"{ORG}/{REPO}"
        assert get(details["downloads_count_url"]) == {"value": 0}
        assert get(details["downloads_detail_url"]) == []
        assert get(details["downloads_series_url"]) == {"value": {}}


def test_a_project_called_python_or_like_a_list_is_shown_like_any_other(get, repository):
    for name in ("python", "versions", "packages", "json"):
        add_to(repository, *make_wheel(name, "1.0"))

    for item in get(PACKAGES):
        assert get(item["package_url"])["filename"] == item["filename"]
        assert get(f"{V1}/package/python/{item['name']}/versions.json")[0]["filename"] == item["filename"]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("package/python/none/1.0.json", None),
        ("package/python/none/versions.json", None),
        ("package/python/-/versions.json", None),
        ("package/python/toolbox/9.json", None),
        ("package/python/toolbox/no-version.json", None),
        ("package/python/toolbox/%00.json", None),
        (f"package/python/toolbox/1.10.json?filename={WHEEL}", "filename"),
        ("package/python/toolbox/1.0.json?filename=x", "filename"),
        ("package/python/toolbox/9/stats/downloads/count.json", None),
        ("package/python/toolbox/1.0/stats/downloads/series/hourly.json", None),
        ("nothing.json", None),
    ],
)
def test_what_is_not_there_is_404_in_json(call, filled, path, field):
    answer = call("GET", f"{V1}/{path}")

    assert answer.status_code == 404
    assert answer.json["error"] == "Not Found"
    assert answer.json.get("filename") == (["not found"] if field else None)


def test_a_quarantined_project_is_in_no_list_and_shows_no_file(get, call, filled):
    filled.change_status("toolbox", ProjectStatus(Status.QUARANTINED), TESTER)

    assert [item["name"] for item in get(PACKAGES)] == ["py-thon-lib"]
    assert get(f"{V1}/search.json?q=toolbox") == []
    assert [item["name"] for item in get(f"{V1}/packages/python.json")] == ["py-thon-lib"]
    assert get(f"{V1}/package/python/toolbox/versions.json") == []
    for path in (
        f"{V1}/package/python/toolbox/1.0.json",
        f"{V1}/package/python/toolbox/1.0.json?filename={WHEEL}",
        f"{V1}/package/python/toolbox/1.0/stats/downloads/count.json",
        f"/{ORG}/{REPO}/packages/python/{WHEEL}/download",
    ):
        assert call("GET", path).status_code == 404


# --- the export script (specs.md 5.6) ---


@pytest.mark.parametrize("per_page", [1, 2, 3, 30])
def test_the_export_loop_retrieves_every_file_byte_for_byte(get, call, filled, per_page):
    add_to(filled, *make_wheel("Py.Thon_lib", "1.0", build="1a", tags="cp311-cp311-linux_x86_64"))
    retrieved: dict[str, bytes] = {}
    page, items = 1, [{}] * per_page
    while len(items) == per_page:
        items = get(f"{PACKAGES}?page={page}&per_page={per_page}")
        for item in items:
            url = urlsplit(get(item["package_url"])["download_url"])
            assert item["filename"] not in retrieved
            retrieved[item["filename"]] = call("GET", url.path).data
        page += 1

    stored = {
        path.name: path.read_bytes() for path in filled.tree.packages.glob("*/*") if path.suffix in (".whl", ".gz")
    }
    assert retrieved == stored
    assert len(stored) == 5


# --- yanking ---


@pytest.mark.parametrize(
    ("body", "yanked"),
    [
        ({"json": {"reason": "broken"}}, "broken"),
        ({"json": {"reason": " broken "}}, "broken"),
        ({"data": {"reason": "broken \N{SNOWMAN}"}}, "broken \N{SNOWMAN}"),
        ({"data": b"reason=a+b", "content_type": "application/x-www-form-urlencoded"}, "a b"),
        ({"data": {"reason": "multi"}, "content_type": "multipart/form-data"}, "multi"),
        ({"json": {}}, True),
        ({"json": {"reason": None}}, True),
        ({"json": {"reason": ""}}, True),
        ({}, True),
        ({"data": b'{"reason": "charset"}', "content_type": "application/json; charset=utf-8"}, "charset"),
        ({"data": b'{"reason": "kin"}', "content_type": "application/vnd.api+json"}, "kin"),
    ],
    ids=repr,
)
def test_a_file_is_yanked_with_the_reason_in_a_form_or_json(call, filled, body, yanked):
    answer = call("PUT", f"{V1}/python/1/{WHEEL}/yank", **body)

    assert answer.status_code == 200
    assert answer.json == {"filename": WHEEL, "yanked": yanked}
    assert filled.sidecar("toolbox", WHEEL).file.yanked == yanked
    assert filled.sidecar("toolbox", SDIST).file.yanked is False


def test_a_yank_is_taken_back(call, filled):
    call("PUT", f"{V1}/python/1/{WHEEL}/yank", json={"reason": "broken"})

    answer = call("DELETE", f"{V1}/python/1/{WHEEL}/yank")

    assert answer.json == {"filename": WHEEL, "yanked": False}
    assert filled.sidecar("toolbox", WHEEL).file.yanked is False
    assert [(e["event"], e.get("reason")) for e in events(filled)[4:]] == [("yanked", "broken"), ("unyanked", None)]


def test_a_release_is_yanked_in_one_step_and_back(call, filled):
    path = f"{V1}/package/python/toolbox/1.0/yank"

    yanked = call("PUT", path, json={"reason": "broken"})
    again = call("DELETE", path)

    assert yanked.json == [{"filename": name, "yanked": "broken"} for name in (WHEEL, SDIST)]
    assert again.json == [{"filename": name, "yanked": False} for name in (WHEEL, SDIST)]
    assert filled.sidecar("toolbox", "toolbox-1.10-py3-none-any.whl").file.yanked is False


def test_yanking_twice_is_one_event(call, filled):
    for _ in range(2):
        call("PUT", f"{V1}/python/1/{WHEEL}/yank", json={"reason": "x"})

    assert [event["event"] for event in events(filled)[4:]] == ["yanked"]


BAD_BODIES = [
    (b"{", "application/json"),
    (b"", "application/json"),
    (b"[]", "application/json"),
    (b'"reason"', "application/json"),
    (b"null", "application/json"),
    (b"\xff\xfe", "application/json"),
    (b"[" * 100_000, "application/json"),
    (b'{"reason":' * 50_000, "application/json"),
    (b'{"reason": ["a"]}', "application/json"),
    (b'{"reason": {"a": 1}}', "application/json"),
    (b'{"reason": "a\\nb"}', "application/json"),
    (b'{"reason": "\\ud800"}', "application/json"),
    (json.dumps({"reason": "x" * 501}).encode(), "application/json"),
    (b"reason=a%0Ab", "application/x-www-form-urlencoded"),
    (b"reason=%00", "application/x-www-form-urlencoded"),
    (b'{"reason": "as curl -d sends it"}', "application/x-www-form-urlencoded"),
    (b'{"reason": "said to be text"}', "text/plain"),
    (b"--x\r\nbroken", "multipart/form-data; boundary=x"),
]


@pytest.mark.parametrize(("body", "content_type"), BAD_BODIES, ids=lambda value: repr(value[:24]))
@pytest.mark.parametrize(
    "path", [f"python/1/{WHEEL}/yank", "package/python/toolbox/1.0/yank"], ids=["file", "release"]
)
def test_a_body_that_cannot_be_meant_is_refused_in_json_and_changes_nothing(call, filled, path, body, content_type):
    answer = call("PUT", f"{V1}/{path}", data=body, content_type=content_type)

    assert answer.status_code in (400, 422), answer.text
    assert answer.content_type == "application/json"
    assert set(answer.json) in ({"error", "message"}, {"reason"})
    assert filled.sidecar("toolbox", WHEEL).file.yanked is False
    assert len(events(filled)) == 4


# --- status ---

STATUS = f"{V1}/package/python/ToolBox/status"


@pytest.mark.parametrize("status", list(Status))
@pytest.mark.parametrize("form", [True, False], ids=["form", "json"])
def test_a_project_gets_a_status_with_a_reason(call, filled, status, form):
    fields = {"status": str(status), "reason": "moved"}

    answer = call("PUT", STATUS, **({"data": fields} if form else {"json": fields}))

    assert answer.json == {"name": "toolbox", **fields}
    held = filled.project("toolbox").status
    assert held == (ProjectStatus() if status is Status.ACTIVE else ProjectStatus(status, "moved"))
    event = events(filled)[-1]
    assert (event["event"], event["status"], event["reason"]) == ("status changed", status, "moved")
    assert event["by"]["kind"] == "token"


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({}, "status"),
        ({"status": ""}, "status"),
        ({"status": None}, "status"),
        ({"status": "gone"}, "status"),
        ({"status": "ARCHIVED"}, "status"),
        ({"status": "archived", "reason": "a\nb"}, "reason"),
        ({"status": ["archived"]}, "status"),
    ],
)
def test_a_status_that_is_none_is_422_and_names_the_field(call, filled, fields, field):
    answer = call("PUT", STATUS, json=fields)

    assert answer.status_code == 422
    assert list(answer.json) == [field]
    assert filled.project("toolbox").status == ProjectStatus()


def test_a_project_that_is_not_there_gets_no_status(call, filled):
    answer = call("PUT", f"{V1}/package/python/none/status", json={"status": "archived"})

    assert answer.status_code == 404


def test_publishing_into_an_archived_project_is_403_with_the_reason(publish, filled):
    filled.change_status("toolbox", ProjectStatus(Status.ARCHIVED, "use hammer"), TESTER)

    answer = publish(*make_wheel(version="9"))

    assert answer.status_code == 403
    assert "use hammer" in answer.json["message"]


# --- deleting ---


@pytest.mark.parametrize("distribution", ["python", "pypi"])
def test_a_deleted_file_is_gone_and_in_the_trash(call, filled, tokens, distribution):
    answer = call("DELETE", f"{V1}/{distribution}/1/{WHEEL}")

    assert answer.status_code == 200
    assert answer.json == {}
    assert [file.filename for file in filled.project("toolbox").files] == [SDIST, "toolbox-1.10-py3-none-any.whl"]
    [entry] = filled.trash("toolbox")
    assert entry.sidecar.file.filename == WHEEL
    assert entry.deleted_by.id == tokens.admin.split("_")[1]
    assert events(filled)[-1]["event"] == "deleted"
    assert events(filled)[-1]["by"]["id"] == entry.deleted_by.id


@pytest.mark.parametrize(
    "filename",
    ["toolbox-9.0.tar.gz", "none-1.0.tar.gz", "x", "toolbox-1.0.exe", "%2e%2e", "a%2Fb", "%FF", "x" * 300],
)
@pytest.mark.parametrize("method_and_end", [("DELETE", ""), ("PUT", "/yank"), ("POST", "/promote.json")])
def test_a_file_that_is_not_there_is_said_so_field_by_field(call, filled, registry, filename, method_and_end):
    registry.create_repository(ORG, "second", RepositorySettings(name="Second"))
    _, credential = registry.tokens.create(ORG, None, frozenset(Scope), TESTER)
    method, end = method_and_end

    answer = call(
        method, f"{V1}/python/1/{filename}{end}", credential, data={"destination": f"{ORG}/second", "reason": ""}
    )

    assert answer.status_code == 404
    if filename != "a%2Fb":  # no address of ours has a slash there
        assert answer.json["filename"] == ["not found"]
    assert answer.content_type == "application/json"
    assert len(events(filled)) == 4


def test_restoring_brings_back_the_bytes_the_sidecar_and_the_yank(call, filled):
    call("PUT", f"{V1}/python/1/{WHEEL}/yank", json={"reason": "broken"})
    before = filled.tree.sidecar("toolbox", WHEEL).read_bytes()
    metadata = filled.core_metadata("toolbox", WHEEL)[1]
    call("DELETE", f"{V1}/python/1/{WHEEL}")
    [entry] = filled.trash("toolbox")

    filled.restore_file("toolbox", entry.id, TESTER)

    assert filled.tree.sidecar("toolbox", WHEEL).read_bytes() == before
    assert filled.sidecar("toolbox", WHEEL).file.yanked == "broken"
    assert content_of(filled, WHEEL) == WHEEL_BYTES
    assert filled.core_metadata("toolbox", WHEEL)[1] == metadata
    assert list(filled.trash()) == []
    assert events(filled)[-1]["event"] == "restored"


def test_file_names_with_plus_and_exclamation_mark_can_be_spelled_encoded_or_not(call, filled):
    filename = "py_thon_lib-2!1.0+local.7-py3-none-any.whl"
    for spelled in (filename, quote(filename), filename.replace("+", "%2B")):
        assert call("PUT", f"{V1}/python/1/{spelled}/yank").json == {"filename": filename, "yanked": True}
        assert call("GET", f"/{ORG}/{REPO}/packages/python/{spelled}/download").status_code == 200
        assert call("GET", f"/{ORG}/{REPO}/pypi/files/py-thon-lib/{spelled}").status_code == 200
    assert call("PUT", f"{V1}/package/python/py-thon-lib/2!1.0+local.7/yank").json[0]["filename"] == filename
    assert call("DELETE", f"{V1}/python/1/{quote(filename)}").status_code == 200


# --- promoting ---


@pytest.fixture
def second(registry: Registry) -> Repository:
    return registry.create_repository(ORG, "second", RepositorySettings(name="Second"))


@pytest.fixture
def promote(call, registry, second, filled):
    """Promote a file, as a token for the whole organization."""
    _, token = registry.tokens.create(ORG, None, frozenset(Scope), TESTER, description="promoter")

    def promote(filename: str = WHEEL, destination: str = f"{ORG}/second", credential: str = token):
        return call("POST", f"{V1}/python/1/{filename}/promote.json", credential, data={"destination": destination})

    return promote


def test_a_promoted_file_is_there_and_no_longer_here(promote, filled, second):
    filled.yank_file("toolbox", WHEEL, "wait", TESTER)

    answer = promote()

    assert answer.status_code == 200
    assert set(answer.json) == DETAILS
    assert answer.json["repository"] == "second"
    assert answer.json["sha256sum"] == second.sidecar("toolbox", WHEEL).file.sha256
    assert content_of(second, WHEEL) == WHEEL_BYTES
    assert second.sidecar("toolbox", WHEEL).file.yanked == "wait"
    assert WHEEL not in [file.filename for file in filled.project("toolbox").files]
    assert [entry.sidecar.file.filename for entry in filled.trash()] == [WHEEL]
    assert [e["event"] for e in events(second)] == ["published", "promoted"]
    assert [e["event"] for e in events(filled)][-2:] == ["deleted", "promoted"]
    assert events(filled)[-1]["by"]["description"] == "promoter"


def test_a_promoted_file_takes_its_attestations_along_and_leaves_its_counts(promote, filled, second, registry):
    filled.tree.companion("toolbox", WHEEL, ".attestations").write_bytes(b"[{}]")
    registry.downloads.count(filled.tree, "toolbox", WHEEL)
    registry.downloads.flush()
    registry.downloads.count(filled.tree, "toolbox", WHEEL)

    promote()

    registry.downloads.flush()
    assert second.attestations("toolbox", WHEEL) == b"[{}]"
    assert downloads_of(filled.tree, "toolbox", WHEEL) == {}
    assert downloads_of(second.tree, "toolbox", WHEEL) == {}


@pytest.mark.parametrize("destination", [f"{ORG}/{REPO}", "", "second", "/", f"{ORG}/", "/second"])
def test_a_destination_that_is_none_is_refused(promote, filled, destination):
    answer = promote(destination=destination)

    assert answer.status_code in (404, 422)
    assert content_of(filled, WHEEL) == WHEEL_BYTES
    assert len(events(filled)) == 4


def test_a_conflict_at_the_destination_leaves_both_as_they_were(promote, filled, second):
    _, other = make_wheel(summary="other")
    add_to(second, WHEEL, other)

    answer = promote()

    assert answer.status_code == 422
    assert answer.json["filename"] == ["has already been taken"]
    assert content_of(filled, WHEEL) == WHEEL_BYTES
    assert content_of(second, WHEEL) == other
    assert list(filled.trash()) == []
    assert list(second.tree.temporary.iterdir()) == []


def test_a_closed_project_at_the_destination_leaves_the_file_where_it_is(promote, filled, second):
    add_to(second, SDIST, SDIST_BYTES)
    second.change_status("toolbox", ProjectStatus(Status.ARCHIVED, "no more"), TESTER)

    assert promote().status_code == 403
    assert content_of(filled, WHEEL) == WHEEL_BYTES


def test_a_quarantined_file_is_not_promoted(promote, filled, second):
    filled.change_status("toolbox", ProjectStatus(Status.QUARANTINED), TESTER)

    assert promote().status_code == 404
    assert second.projects() == []


def test_a_file_whose_bytes_have_rotted_is_not_promoted(promote, filled, second):
    artifact = filled.tree.artifact("toolbox", WHEEL)
    artifact.write_bytes(WHEEL_BYTES[:-1] + b"\1")

    answer = promote()

    assert answer.status_code == 404
    assert second.projects() == []
    assert artifact.exists()
    assert len(events(filled)) == 4


def test_the_same_bytes_at_the_destination_are_no_conflict(promote, filled, second):
    add_to(second, WHEEL, WHEEL_BYTES)

    assert promote().status_code == 200
    assert WHEEL not in [file.filename for file in filled.project("toolbox").files]


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(
    "step",
    ["copy_into", "Repository.add_file", "Repository.delete_file", "drop_downloads"],
)
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_a_crash_while_promoting_loses_no_file_and_the_next_try_succeeds(
    filled, second, registry, monkeypatch, step, after
):
    filled.yank_file("toolbox", WHEEL, "wait", TESTER)
    owner, name = (Repository, step.partition(".")[2]) if "." in step else (storage.registry, step)
    real = getattr(owner, name)

    def crash(*arguments, **more):
        if after:
            real(*arguments, **more)
        raise Crash

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, crash)
        with pytest.raises(Crash):
            registry.promote_file(filled, second, "toolbox", WHEEL, TESTER)

    fresh = Registry(registry.tree.root)
    source, destination = fresh.repository(ORG, REPO), fresh.repository(ORG, "second")
    places = [
        place
        for place in (source, destination)
        if "toolbox" in place.projects() and WHEEL in [f.filename for f in place.project("toolbox").files]
    ]
    assert places
    assert all(content_of(place, WHEEL) == WHEEL_BYTES for place in places)
    if source in places:
        fresh.promote_file(source, destination, "toolbox", WHEEL, TESTER)
    assert content_of(destination, WHEEL) == WHEEL_BYTES
    assert destination.sidecar("toolbox", WHEEL).file.yanked == "wait"
    assert WHEEL not in [file.filename for file in source.project("toolbox").files]


def test_promoting_back_and_forth_ends_where_it_began(filled, second, registry):
    for _ in range(2):
        registry.promote_file(filled, second, "toolbox", WHEEL, TESTER)
        registry.promote_file(second, filled, "toolbox", WHEEL, TESTER)

    assert content_of(filled, WHEEL) == WHEEL_BYTES
    assert second.projects() == []


def test_a_name_that_was_promoted_away_stays_taken(promote, filled):
    promote()

    with pytest.raises(FileAlreadyExists):
        add_to(filled, *make_wheel(summary="other"))


# --- download counts ---


def downloads(get, path: str = "count.json", query: str = "") -> object:
    return get(f"{V1}/package/python/toolbox/1.0/stats/downloads/{path}?filename={WHEEL}{query}")["value"]


@pytest.fixture
def downloaded(call, filled, registry):
    """GET the wheel with headers and write the counts down."""

    def downloaded(method: str = "GET", suffix: str = "", page: bool = False, **headers: str) -> int:
        path = (
            f"/{ORG}/{REPO}/packages/python/{WHEEL}/download"
            if page
            else f"/{ORG}/{REPO}/pypi/files/toolbox/{WHEEL}"
        )
        answer = call(method, f"{path}{suffix}", headers=headers)
        registry.downloads.flush()
        return answer.status_code

    return downloaded


def test_a_download_counts_once_for_its_file_and_day(get, downloaded):
    assert [downloaded(), downloaded(), downloaded(page=True)] == [200, 200, 200]

    today = f"{datetime.now(UTC):%Y%m%d}Z"
    assert downloads(get) == 3
    assert downloads(get, "series/daily.json") == {today: 3}
    assert list(downloads(get, "series/weekly.json").values()) == [3]
    assert get(f"{V1}/package/python/toolbox/1.0/stats/downloads/count.json?filename={SDIST}") == {"value": 0}
    assert get(f"{V1}/package/python/toolbox/1.0.json")["total_downloads_count"] == 3


def test_only_a_whole_file_counts(get, filled, downloaded):
    etag = f'"{filled.sidecar("toolbox", WHEEL).file.sha256}"'

    statuses = [
        downloaded("HEAD"),
        downloaded(suffix=".metadata"),
        downloaded(Range="bytes=0-9"),
        downloaded(Range="bytes=999999-"),
        downloaded(**{"If-None-Match": etag}),
        downloaded(suffix="x"),
        downloaded(Authorization=""),
        downloaded("HEAD", page=True),
    ]

    assert statuses == [200, 200, 206, 416, 304, 404, 401, 200]
    assert downloads(get) == 0


def test_counts_are_asked_for_by_days(get, filled):
    today = datetime.now(UTC).date()
    days = {today - timedelta(days=age): age + 1 for age in (0, 6, 7, 400)}
    document = {WHEEL: {day.isoformat(): number for day, number in days.items()}}
    filled.tree.download_counts("toolbox").write_text(json.dumps(document))

    assert downloads(get) == 1 + 7
    assert downloads(get, query="&start_date=19700101Z") == 1 + 7 + 8 + 401
    assert downloads(get, query=f"&start_date=19700101Z&end_date={today - timedelta(days=7):%Y%m%d}Z") == 8 + 401
    assert set(downloads(get, "series/daily.json")) == {
        f"{d:%Y%m%d}Z" for d in days if d > today - timedelta(days=7)
    }


@pytest.mark.parametrize("day", ["", "x", "2026-02-21", "20260231Z", "20260221Zx", "99999999Z"])
def test_a_day_that_is_none_is_422(call, filled, day):
    answer = call("GET", f"{V1}/package/python/toolbox/1.0/stats/downloads/count.json?start_date={day}")

    assert answer.status_code == 422
    assert list(answer.json) == ["start_date"]


# --- repositories ---


def test_a_repository_is_described(get, filled):
    for path in (f"{V1}.json", V1):
        described = get(path)
        assert described.pop("created_at") == filled.settings.created_at
        assert described == {
            "name": REPO,
            "url": f"http://localhost/{ORG}/{REPO}",
            "last_push_human": "just now",
            "package_count_human": "4 packages",
            "private": True,
            "fqname": f"{ORG}/{REPO}",
        }


def test_whoever_asks_sees_the_repositories_that_are_theirs_to_read(call, registry, filled, second):
    registry.create_organization("other")
    registry.create_repository("other", "third", RepositorySettings(name="Third"))
    _, organization_token = registry.tokens.create(ORG, None, frozenset({Scope.READ_PACKAGES}), TESTER)
    registry.users.create("ann", generate_password_hash("x" * 8, "scrypt:1024:8:1"), {"other": Role.READER})

    def seen(headers) -> list[str]:
        return [found["fqname"] for found in call("GET", "/api/v1/repos.json", None, headers=headers).json]

    assert seen(basic(organization_token)) == [f"{ORG}/{REPO}", f"{ORG}/second"]
    assert seen(basic("ann", "x" * 8)) == ["other/third"]
    assert call("GET", "/api/v1/repos.json", None).status_code == 401


def test_a_damaged_repository_hides_itself_alone(call, registry, filled, second):
    _, token = registry.tokens.create(ORG, None, frozenset({Scope.READ_PACKAGES}), TESTER)
    second.tree.repository_file.write_text("{")

    answer = call("GET", "/api/v1/repos.json", token)

    assert answer.status_code == 200
    assert [found["fqname"] for found in answer.json] == [f"{ORG}/{REPO}"]


@pytest.fixture
def org_token(registry, repository) -> str:
    return registry.tokens.create(ORG, None, frozenset(Scope), TESTER)[1]


@pytest.mark.parametrize(
    ("body", "slug", "private"),
    [
        ({"json": {"repository": {"name": "My packages", "private": "1"}}}, "my-packages", True),
        ({"json": {"repository": {"name": "My packages", "private": "0"}}}, "my-packages", False),
        ({"json": {"repository": {"name": "My packages", "private": False}}}, "my-packages", False),
        ({"json": {"repository": {"name": "My packages", "private": None}}}, "my-packages", True),
        ({"json": {"name": "plain"}}, "plain", True),
        ({"data": {"repository[name]": "Form", "repository[private]": "false"}}, "form", False),
        ({"data": {"name": "plain", "private": "true"}}, "plain", True),
        ({"json": {"repository": {"name": 5}}}, "5", True),
    ],
    ids=repr,
)
def test_a_repository_is_made(call, registry, org_token, body, slug, private):
    answer = call("POST", "/api/v1/repos.json", org_token, **body)

    assert answer.status_code == 201, answer.text
    assert answer.json == {"url": f"http://localhost/{ORG}/{slug}"}
    assert registry.repository(ORG, slug).settings.private is private


@pytest.mark.parametrize(
    "name", [REPO, "Main!", "", None, "settings", "---", "x" * 65, "a\nb", "a\x00b", "\ud800ab", ["a"], {"a": 1}]
)
def test_a_repository_that_cannot_be_made_is_422(call, registry, org_token, name):
    answer = call("POST", "/api/v1/repos.json", org_token, json={"repository": {"name": name}})

    assert answer.status_code == 422, answer.text
    assert list(answer.json) in (["repository"], ["name"])
    assert [found.slug for found in registry.repositories(ORG)] == [REPO]


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"repository": []}', b'{"repository": "x"}', b"[" * 100_000])
def test_a_malformed_wish_for_a_repository_is_400(call, org_token, body):
    answer = call("POST", "/api/v1/repos.json", org_token, data=body, content_type="application/json")

    assert answer.status_code == 400
    assert set(answer.json) == {"error", "message"}


def test_who_may_make_repositories_in_several_organizations_has_to_say_in_which(call, registry, repository):
    registry.create_organization("other")
    registry.create_organization("third")
    roles = {ORG: Role.ADMIN, "other": Role.ADMIN, "third": Role.READER}
    registry.users.create("ann", generate_password_hash("x" * 8, "scrypt:1024:8:1"), roles)

    def make(**fields: str):
        return call("POST", "/api/v1/repos.json", None, headers=basic("ann", "x" * 8), json={"repository": fields})

    unsaid = make(name="new one")
    assert unsaid.status_code == 422
    assert list(unsaid.json) == ["organization"]
    assert all(org in unsaid.json["organization"][0] for org in (ORG, "other"))
    assert make(name="new one", organization="other").json == {"url": "http://localhost/other/new-one"}
    assert make(name="new one", organization="third").status_code == 403
    assert make(name="new one", organization="nowhere").status_code == 403


def test_a_user_with_one_organization_need_not_name_it(call, registry, repository):
    registry.create_organization("other")
    roles = {ORG: Role.READER, "other": Role.ADMIN}
    registry.users.create("ann", generate_password_hash("x" * 8, "scrypt:1024:8:1"), roles)

    answer = call("POST", "/api/v1/repos.json", None, headers=basic("ann", "x" * 8), json={"name": "fresh"})

    assert answer.json == {"url": "http://localhost/other/fresh"}


def test_distributions_are_known_to_anybody(call):
    answer = call("GET", "/api/v1/distributions.json", None)

    assert answer.json["py"][0]["versions"][0]["id"] == 166


def test_calls_for_other_kinds_of_packages_are_answered(call, filled):
    assert call("GET", f"{V1}/gpg_keys.json").json == {"gpg_keys": []}
    for path in ("gpg_keys.json", "packages/contents.json"):
        answer = call("POST", f"{V1}/{path}", data={"x": "y"})
        assert answer.status_code == 422
        assert answer.content_type == "application/json"


# --- rights ---

READS = [
    ("GET", "packages.json"),
    ("GET", "packages/python.json"),
    ("GET", "package/python/toolbox/versions.json"),
    ("GET", "package/python/toolbox/1.0.json"),
    ("GET", "search.json?q=t"),
    ("GET", "package/python/toolbox/1.0/stats/downloads/count.json"),
    ("GET", "package/python/toolbox/1.0/stats/downloads/series/daily.json"),
    ("GET", "gpg_keys.json"),
    ("GET", ""),
]
WRITES = [
    ("PUT", f"python/1/{WHEEL}/yank"),
    ("DELETE", f"python/1/{WHEEL}/yank"),
    ("PUT", "package/python/toolbox/1.0/yank"),
    ("DELETE", "package/python/toolbox/1.0/yank"),
    ("PUT", "package/python/toolbox/status"),
    ("POST", f"python/1/{WHEEL}/promote.json"),
    ("GET", "package/python/toolbox/1.0/stats/downloads/detail.json"),
    ("POST", "packages.json"),
]
DELETES = [("DELETE", f"python/1/{WHEEL}"), ("DELETE", f"pypi/1/{WHEEL}")]
CHANGE = {"destination": f"{ORG}/second", "status": "archived"}


def address(path: str) -> str:
    return f"{V1}/{path}".rstrip("/")


@pytest.mark.parametrize(("method", "path"), READS + WRITES + DELETES, ids=lambda v: v.replace("/", " "))
def test_nobody_uses_a_private_repository_and_strangers_learn_nothing(call, registry, filled, method, path):
    registry.create_organization("other")
    _, stranger = registry.tokens.create("other", None, frozenset(Scope), TESTER)
    nowhere = address(path).replace(f"/{REPO}", "/nowhere", 1)

    nobody = call(method, address(path), None, data=CHANGE if method != "GET" else None)
    there, missing = (call(method, url, stranger, data=CHANGE) for url in (address(path), nowhere))

    assert nobody.status_code == 401
    assert nobody.json["error"] == "Unauthenticated"
    assert nobody.headers["WWW-Authenticate"].startswith("Basic ")
    assert there.status_code == missing.status_code == 404
    assert there.data == missing.data
    assert list(there.headers) == list(missing.headers)
    assert len(events(filled)) == 4


@pytest.mark.parametrize(("method", "path"), READS, ids=lambda v: v.replace("/", " "))
def test_reading_needs_no_more_than_the_right_to_read(call, tokens, filled, method, path):
    assert call(method, address(path), tokens.read).status_code == 200


@pytest.mark.parametrize(("method", "path"), READS, ids=lambda v: v.replace("/", " "))
def test_anybody_reads_a_public_repository_but_not_who_published(call, filled, method, path):
    filled.change_settings({"private": False})

    answer = call(method, address(path), None)

    assert answer.status_code == 200
    items = answer.json if isinstance(answer.json, list) else [answer.json]
    assert not any(item.get("uploader_name") for item in items)


@pytest.mark.parametrize(("method", "path"), WRITES + DELETES, ids=lambda v: v.replace("/", " "))
def test_changing_needs_more_than_the_right_to_read(call, tokens, filled, method, path):
    answer = call(method, address(path), tokens.read, data=CHANGE)

    assert answer.status_code == 403
    assert answer.json["error"] == "Forbidden"
    assert len(events(filled)) == 4


@pytest.mark.parametrize(("method", "path"), DELETES, ids=lambda v: v.replace("/", " "))
def test_deleting_needs_a_scope_of_its_own(call, tokens, filled, method, path):
    answer = call(method, address(path), tokens.write)

    assert answer.status_code == 403
    assert "delete_packages" in answer.json["message"]


def test_promoting_needs_the_right_to_delete_here_and_to_write_there(call, registry, filled, second, tokens):
    path = f"{V1}/python/1/{WHEEL}/promote.json"

    def promoted_by(*scopes: Scope, repo: str | None = None) -> int:
        _, token = registry.tokens.create(ORG, repo, frozenset(scopes), TESTER)
        return call("POST", path, token, data={"destination": f"{ORG}/second"}).status_code

    assert promoted_by(Scope.READ_PACKAGES, Scope.WRITE_PACKAGES) == 403
    assert promoted_by(*Scope, repo=REPO) == 404
    second.change_settings({"private": False})
    assert promoted_by(*Scope, repo=REPO) == 403
    assert promoted_by(*Scope) == 200


# --- errors of the framework ---


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{V1}/search.json"),
        ("PUT", PACKAGES),
        ("DELETE", V1),
        ("PATCH", f"{V1}/python/1/{WHEEL}"),
        ("POST", "/api/v1/distributions.json"),
        ("GET", f"{V1}/python/1/{WHEEL}/promote.json"),
    ],
)
def test_a_method_that_is_not_there_is_405_in_json(call, filled, method, path):
    answer = call(method, path)

    assert answer.status_code == 405
    assert set(answer.json) == {"error", "message"}
    assert answer.headers["Allow"]


@pytest.mark.parametrize(
    "path", ["/api/", "/api/v1/", "/api/v1/nothing", f"{V1}/", f"{V1}//packages.json", f"{V1}/.json"]
)
def test_an_address_that_is_not_there_is_404_in_json(call, filled, path):
    answer = call("GET", path)

    assert answer.status_code == 404
    assert answer.json["error"] == "Not Found"
    assert "Location" not in answer.headers


def test_a_mistake_of_ours_is_500_in_json_and_says_nothing_of_it(call, app, filled, monkeypatch):
    app.testing = False

    def fail(*arguments):
        raise ZeroDivisionError("a secret")

    monkeypatch.setattr(Repository, "project", fail)

    answer = call("GET", f"{V1}/package/python/toolbox/versions.json")

    assert answer.status_code == 500
    assert answer.json["error"] == "Internal Server Error"
    assert "secret" not in answer.text
