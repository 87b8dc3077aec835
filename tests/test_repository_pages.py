"""The page of a repository: publishing, uploading, the list of packages, and what happened."""

from __future__ import annotations

import io
import re
import time

import pytest
from packaging.version import Version

import snippets
from storage import summaries as module
from storage.statuses import ProjectStatus, Status
from storage.tokens import Scope
from storage.users import Role
from tests.conftest import ORG, REPO, TESTER, basic
from tests.people import HOSTILE, beside, visitor, words
from tests.storage.makers import make_sdist, make_wheel

PAGE = f"/{ORG}/{REPO}/"
SECRET = re.compile(r"pkh_[0-9a-f]{12}_[0-9a-f]{40}")


@pytest.fixture
def writer(app, registry, repository):
    return visitor(app, registry, "bob", Role.WRITER)


@pytest.fixture
def reader(app, registry, repository):
    return visitor(app, registry, "carol", Role.READER)


@pytest.fixture
def nobody(app, repository):
    return visitor(app)


@pytest.fixture
def stranger(app, registry, repository):
    registry.create_organization("other")
    return visitor(app, registry, "mallory", Role.ADMIN, "other")


def rows(page) -> list[str]:
    """Return the projects that the page lists, in their order."""
    return re.findall(rf'<th scope="row"><a href="{PAGE}packages/([^"/]+)/">', page.text)


# --- publishing ---


def test_an_empty_repository_explains_the_first_upload(writer):
    page = writer.get(PAGE)

    assert '<details class="panel" id="publishing" open>' in page.text
    assert "This repository is empty. Build your package" in words(page)
    assert "YOUR_TOKEN" in words(page)


def test_the_commands_are_those_of_the_snippets(writer):
    page = words(writer.get(PAGE))

    place = ("http://localhost", ORG, REPO, "YOUR_TOKEN")
    for command in (
        snippets.curl_command(*place),
        snippets.twine_command(*place),
        snippets.uv_publish_command(*place),
        snippets.poetry_commands(*place),
    ):
        assert re.sub(r"\s+", " ", command) in page


def test_a_credential_is_filled_into_every_command_once_and_publishes(writer, client, registry):
    page = writer.post(f"{PAGE}credentials")

    (text,) = set(SECRET.findall(page.text))
    assert page.text.count(text) == 5  # by itself, and with curl, twine, uv and poetry
    filename, content = make_wheel()
    form = {"package[package_file]": (io.BytesIO(content), filename)}
    url = f"/api/v1/repos/{ORG}/{REPO}/packages.json"
    assert client.post(url, data=form, headers=basic(text), buffered=True).status_code == 201
    (token,) = registry.tokens.list()
    assert token.user == "bob"
    assert token.scopes == {Scope.READ_PACKAGES, Scope.WRITE_PACKAGES}
    assert not SECRET.search(writer.get(PAGE).text)


def test_who_may_only_read_sees_how_to_install_and_nothing_to_publish_with(reader, add):
    add(*make_wheel())

    page = words(reader.get(PAGE))

    assert "Installing a package pip install --extra-index-url http://__token__:YOUR_TOKEN@localhost" in page
    assert "Publishing a package" not in page
    assert "Settings" not in page


def test_the_install_command_of_a_public_repository_names_no_token(nobody, repository, add):
    add(*make_wheel())
    repository.change_settings({"private": False})

    page = nobody.get(PAGE)

    assert "pip install --extra-index-url http://localhost/acme/main/pypi/simple PACKAGE" in words(page)
    assert "Activity" not in words(page)


# --- uploading ---


def upload(browser, filename: str, content: bytes, form: dict | None = None, **options):
    return browser.post(f"{PAGE}packages", {"file": (io.BytesIO(content), filename), **(form or {})}, **options)


def test_a_file_is_uploaded_by_the_form(writer, repository):
    filename, content = make_wheel()

    answer = upload(writer, filename, content)

    assert (answer.status_code, answer.location) == (303, PAGE)
    assert f"{filename} is published." in words(writer.get(PAGE))
    assert str(repository.sidecar("toolbox", filename).uploader) == "user bob"
    assert upload(writer, filename, content).status_code == 303
    assert f"{filename} was here already, with the very same bytes." in words(writer.get(PAGE))


def test_the_script_of_the_page_gets_each_result_as_json(writer):
    filename, content = make_wheel()
    headers = {"Accept": "application/json", "X-CSRFToken": writer.token()}

    good = upload(writer, filename, content, {"csrf_token": ""}, headers=headers)
    bad = upload(writer, "x.txt", b"x", {"csrf_token": ""}, headers=headers)
    forged = upload(writer, filename, content, {"csrf_token": ""}, headers={"Accept": "application/json"})

    assert good.json == {"filename": filename, "message": f"{filename} is published."}
    assert bad.status_code == 422
    assert "neither a wheel" in bad.json["message"]
    assert forged.status_code == 400
    assert "load the page again" in forged.json["message"]


@pytest.mark.parametrize(
    ("filename", "content", "reason"),
    [
        ("", b"", "Choose a file first."),
        ("x.txt", b"x", "neither a wheel (.whl) nor an sdist"),
        ("<script>alert(1)</script>.whl", b"x", "script"),
        ("toolbox-1.0-py3-none-any.whl", b"x", ""),
    ],
    ids=["none", "other kind", "hostile", "garbage"],
)
def test_what_is_wrong_with_an_uploaded_file_stands_beside_the_field(writer, repository, filename, content, reason):
    page = upload(writer, filename, content)

    assert page.status_code == 422
    assert reason in beside(page, "file")
    assert "Up to" not in beside(page, "file")
    assert "<script>alert" not in page.text
    assert repository.projects() == []


def test_other_bytes_under_a_name_and_a_closed_project_are_refused_beside_the_field(writer, repository, add):
    filename, content = make_wheel()
    add(filename, content)

    assert "has already been taken" in beside(upload(writer, *make_wheel(summary="other")), "file")
    repository.change_status("toolbox", ProjectStatus(Status.ARCHIVED), TESTER)
    assert "takes no uploads" in beside(upload(writer, *make_wheel(version="2.0")), "file")


# --- packages ---


def test_each_project_is_a_row_with_what_it_amounts_to(reader, add, registry, repository):
    add(*make_wheel("Tool_Box", "1.0", summary="Tools"))
    add(*make_sdist("Tool_Box", "1.0", summary="Tools"))
    add(*make_wheel("Tool_Box", "2.0rc1", summary="Tools"))
    for _ in range(3):
        registry.downloads.count(repository.tree, "tool-box", "tool_box-1.0-py3-none-any.whl")
    registry.downloads.flush()

    page = reader.get(PAGE)

    assert rows(page) == ["tool-box"]
    assert re.search(r"Tool_Box Tools 1\.0 3 [\d.]+ kB 3 \d+ \w+ \d{4}", words(page))


def test_hostile_text_of_packages_and_settings_is_text(reader, repository, add):
    add(*make_wheel("toolbox", "1.0", summary=HOSTILE))
    repository.change_settings({"name": HOSTILE, "description": HOSTILE, "emoji": "<b>", "color": '"><b>'})
    repository.change_status("toolbox", ProjectStatus(Status.DEPRECATED, HOSTILE), TESTER)

    for address in (PAGE, f"{PAGE}?q=toolbox", f"{PAGE}?q={'%3Cscript%3Ealert(1)'}", f"{PAGE}activity"):
        page = reader.get(address)
        assert page.status_code == 200
        assert "<script>alert" not in page.text
        assert "<b>" not in page.text
        assert HOSTILE in words(page)


def test_a_search_works_without_a_script(reader, add):
    for name in ("flask", "flask-login", "django"):
        add(*make_wheel(name, summary="Web"))

    assert rows(reader.get(f"{PAGE}?q=flask")) == ["flask", "flask-login"]
    assert rows(reader.get(f"{PAGE}?q=FLASK_login")) == ["flask-login"]
    nothing = reader.get(f"{PAGE}?q=nothing<b>")
    assert "No package matches “nothing<b>”" in nothing.text.replace("&lt;", "<").replace("&gt;", ">")
    assert "nothing<b>" not in nothing.text


def test_the_list_is_sorted_and_says_so(reader, add):
    for name in ("beta", "alpha", "gamma"):
        add(*make_wheel(name))
    add(*make_wheel("alpha", "2.0"))

    assert rows(reader.get(PAGE)) == ["alpha", "gamma", "beta"]
    assert rows(reader.get(f"{PAGE}?sort=name")) == ["alpha", "beta", "gamma"]
    assert rows(reader.get(f"{PAGE}?sort=-name")) == ["gamma", "beta", "alpha"]
    page = reader.get(f"{PAGE}?sort=-files")
    assert rows(page)[0] == "alpha"
    assert re.search(r'aria-sort="descending"><a class="sort" href="[^"]*\?sort=files#packages">Files', page.text)
    assert rows(reader.get(f"{PAGE}?sort=-downloads&q=alpha")) == ["alpha"]
    assert rows(reader.get(f"{PAGE}?sort=nonsense")) == ["alpha", "gamma", "beta"]


def test_the_list_comes_in_pages_of_fifty(reader, add):
    for number in range(53):
        add(*make_wheel(f"p{number:02}"))

    first, second = reader.get(f"{PAGE}?sort=name"), reader.get(f"{PAGE}?sort=name&page=2")

    assert rows(first) == [f"p{number:02}" for number in range(50)]
    assert rows(second) == ["p50", "p51", "p52"]
    assert f'rel="next" href="{PAGE}?sort=name&amp;page=2#packages"' in first.text
    for page in ("99", "-1", "x", "%EF%BC%99", "1" * 30):
        assert rows(reader.get(f"{PAGE}?sort=name&page={page}")) in (rows(first), rows(second))


def test_a_quarantined_project_is_listed_as_such(reader, repository, add):
    add(*make_wheel())
    repository.change_status("toolbox", ProjectStatus(Status.QUARANTINED), TESTER)

    assert "toolbox quarantined" in words(reader.get(PAGE))


# --- activity ---


def test_the_activity_says_who_did_what(reader, registry, repository, add):
    add(*make_wheel())
    repository.yank_release("toolbox", Version("1.0"), "broken", TESTER)
    repository.record("repository renamed", TESTER, old="a", new="b")

    page = words(reader.get(f"{PAGE}activity"))

    assert "the command line published toolbox-1.0-py3-none-any.whl just now" in page
    assert "the command line yanked toolbox-1.0-py3-none-any.whl because: broken" in page
    assert "the command line renamed the repository from a to b" in page


def test_the_activity_is_filtered_and_comes_in_pages(reader, repository):
    for number in range(60):
        repository.record("published", TESTER, project="toolbox", filename=f"file-{number:02}.whl")
    repository.record("deleted", TESTER, project="other", filename="other-1.0.whl")

    def listed(page) -> list[str]:
        return re.findall(r"file-\d\d\.whl(?=</a>)", page.text)

    first = reader.get(f"{PAGE}activity?kind=published&q=TOOLBOX")
    older = re.search(r'rel="next" href="([^"]+)"', first.text)[1].replace("&amp;", "&")
    second = reader.get(older)

    assert listed(first) == [f"file-{number:02}.whl" for number in reversed(range(10, 60))]
    assert listed(second) == [f"file-{number:02}.whl" for number in reversed(range(10))]
    assert "other-1.0.whl" not in first.text
    assert "other-1.0.whl" in reader.get(f"{PAGE}activity?kind=deleted").text
    assert "Nothing like that has happened" in words(reader.get(f"{PAGE}activity?q=nobody"))
    assert reader.get(f"{PAGE}activity?before=x").status_code == 200


def test_the_activity_names_people_so_it_is_for_members_alone(nobody, stranger, repository):
    repository.change_settings({"private": False})

    assert nobody.get(f"{PAGE}activity").location == f"/login?next={PAGE}activity"
    assert stranger.get(f"{PAGE}activity").status_code == 403


# --- who may ---


@pytest.mark.parametrize("path", ["", "?q=x", "activity"])
def test_a_private_repository_is_there_for_those_who_may_read_it(nobody, stranger, reader, path):
    missing = PAGE.replace(REPO, "nothing")

    assert reader.get(PAGE + path).status_code == 200
    assert nobody.get(PAGE + path).status_code == nobody.get(missing + path).status_code == 303
    there, not_there = stranger.get(PAGE + path), stranger.get(missing + path)
    assert there.status_code == not_there.status_code == 404
    assert words(there) == words(not_there)


@pytest.mark.parametrize("path", ["packages", "credentials"])
def test_only_writers_publish(nobody, stranger, reader, registry, repository, path):
    def send(browser):
        return browser.post(PAGE + path, {"file": (io.BytesIO(make_wheel()[1]), make_wheel()[0])})

    assert send(nobody).location == "/login?next=/"
    assert send(stranger).status_code == 404
    assert send(reader).status_code == 403
    assert repository.projects() == []
    assert registry.tokens.list() == []


# --- very many ---


def test_a_page_shows_what_is_known_and_says_that_the_rest_is_being_read(
    reader, registry, repository, add, monkeypatch
):
    add(*make_wheel("toolbox"))
    known = registry.summaries(repository).overview().projects
    monkeypatch.setattr(module.Summaries, "overview", lambda self: module.Overview(known, missing=1234))

    page = reader.get(PAGE)

    assert rows(page) == ["toolbox"]
    assert "1,234 packages have not been read yet and may be missing from this list." in words(page)
    assert "load the list again" in words(page)
    assert 'placeholder="Search 1,235 packages"' in page.text
    monkeypatch.setattr(module.Summaries, "overview", lambda self: module.Overview((), missing=1))
    page = reader.get(PAGE)
    assert "1 package has not been read yet" in words(page)
    assert "empty" not in words(page)


def test_a_page_by_downloads_says_what_is_not_counted_yet(reader, registry, add, monkeypatch):
    add(*make_wheel("toolbox"))
    by_downloads = module.Summaries.by_downloads
    monkeypatch.setattr(module.Summaries, "by_downloads", lambda *given: (by_downloads(*given)[0], 7))

    assert "The downloads of 7 packages have not been counted yet." in words(reader.get(f"{PAGE}?sort=-downloads"))
    assert "counted yet" not in words(reader.get(PAGE))


def test_twenty_thousand_projects_are_quick_once_they_have_been_read(reader, registry, repository, monkeypatch):
    """No stop-watch on 20,000 real files here: what is asked for is that nothing is read anew for a second look."""

    def summary(number: int):
        name = f"project-{number:05}"
        when = "2026-11-24T09:30:00.000000Z"
        return module.ProjectSummary(name, name, "1.0", "Some words", 1, 1, number, when, "active", False)

    overview = module.Overview(summary(number) for number in range(20_000))
    monkeypatch.setattr(module.Summaries, "overview", lambda self: overview)
    reader.get(f"{PAGE}?q=project-1")

    started = time.perf_counter()
    page = reader.get(f"{PAGE}?q=project-19&sort=-size")

    assert time.perf_counter() - started < 2
    assert "1,000 packages found" in words(page)
    assert rows(page)[0] == "project-19999"
