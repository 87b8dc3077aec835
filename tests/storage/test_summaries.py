"""The list of packages: each project in a few words, as true as the tree and quick with very many."""

from __future__ import annotations

import json

import pytest
from packaging.version import Version

from storage import gathering
from storage import summaries as module
from storage.files import Signature
from storage.sidecars import format_time
from storage.statuses import ProjectStatus, Status
from storage.summaries import Summaries
from tests.conftest import TESTER
from tests.storage.makers import make_sdist, make_wheel


@pytest.fixture
def summaries(repository):
    return Summaries(repository.tree)


def names(found):
    return [summary.project for summary in found]


def test_a_project_is_told_in_a_few_words(summaries, add):
    add(*make_wheel("Tool_Box", "1.0", summary="Old words"))
    last = add(*make_wheel("Tool_Box", "1.1", summary="Tools,\tin a box"))
    add(*make_wheel("Tool_Box", "2.0rc1", summary="New words"))

    (summary,) = summaries.overview().projects

    assert (summary.project, summary.name) == ("tool-box", "Tool_Box")
    assert (summary.latest, summary.summary) == ("1.1", "Tools, in a box")
    assert (summary.files, summary.releases) == (3, 3)
    assert summary.size > last.sidecar.file.size
    assert summary.pushed >= format_time(last.sidecar.file.upload_time)
    assert (summary.status, summary.yanked) == ("active", False)


@pytest.mark.parametrize(
    ("versions", "yanked", "latest"),
    [
        (["1.0", "2.0"], [], "2.0"),
        (["1.0", "2.0rc1"], [], "1.0"),
        (["1.0a1", "1.0b1"], [], "1.0b1"),
        (["1.0", "2.0"], ["2.0"], "1.0"),
        (["1.0", "2.0rc1"], ["1.0"], "2.0rc1"),
        (["1.0", "2.0"], ["1.0", "2.0"], "2.0"),
    ],
    ids=["newest", "final before pre-release", "only pre-releases", "not yanked", "yanked final", "all yanked"],
)
def test_the_latest_release_is_what_pip_would_choose(summaries, repository, add, versions, yanked, latest):
    for version in versions:
        add(*make_wheel(version=version))
    for version in yanked:
        repository.yank_release("toolbox", Version(version), "", TESTER)

    (summary,) = summaries.overview().projects

    assert summary.latest == latest
    assert summary.yanked == (set(yanked) == set(versions))


def test_each_change_is_on_the_list_at_once(summaries, repository, add):
    assert summaries.overview().is_empty

    add(*make_wheel(version="1.0"))
    assert summaries.overview().projects[0].latest == "1.0"
    add(*make_wheel(version="2.0"))
    assert summaries.overview().projects[0].latest == "2.0"
    repository.yank_file("toolbox", "toolbox-2.0-py3-none-any.whl", "", TESTER)
    assert summaries.overview().projects[0].latest == "1.0"
    repository.change_status("toolbox", ProjectStatus(Status.QUARANTINED), TESTER)
    assert summaries.overview().projects[0].status == "quarantined"
    for version in ("1.0", "2.0"):
        repository.delete_file("toolbox", f"toolbox-{version}-py3-none-any.whl", TESTER)
    assert summaries.overview().is_empty


def test_what_is_changed_by_hand_is_seen_at_the_next_look(summaries, repository, add, monkeypatch):
    add(*make_wheel(version="1.0"))
    add(*make_wheel(version="2.0"))
    assert summaries.overview().projects[0].latest == "2.0"

    repository.tree.artifact("toolbox", "toolbox-2.0-py3-none-any.whl").unlink()
    monkeypatch.setattr(module, "LOOK_AGAIN", 0.0)

    assert summaries.overview().projects[0].latest == "1.0"


def test_between_two_looks_no_project_is_looked_at(summaries, add, monkeypatch):
    add(*make_wheel())
    first = summaries.overview()

    monkeypatch.setattr(Summaries, "_look", lambda self: pytest.fail("looked"))

    assert summaries.overview() is first


def test_folders_that_are_no_projects_are_passed_over(summaries, repository, add):
    add(*make_wheel())
    (repository.tree.packages / "Not_Normal").mkdir()
    (repository.tree.packages / ".hidden").mkdir()
    (repository.tree.packages / "empty").mkdir()
    (repository.tree.packages / "link").symlink_to("toolbox")

    assert names(summaries.overview().projects) == ["toolbox"]


@pytest.fixture
def _settled(monkeypatch):
    monkeypatch.setattr(Signature, "is_settled", lambda self: True)


@pytest.mark.usefixtures("_settled")
def test_a_new_process_reads_only_what_has_changed(repository, add, monkeypatch):
    monkeypatch.setattr(gathering, "UNWRITTEN", 1)
    add(*make_wheel("one"))
    add(*make_wheel("two"))
    Summaries(repository.tree).overview()
    add(*make_wheel("two", "2.0"))
    read = []
    read_summary = module.read_summary
    monkeypatch.setattr(module, "read_summary", lambda tree, name: read.append(name) or read_summary(tree, name))

    found = Summaries(repository.tree).overview().sorted_by("name")

    assert read == ["two"]
    assert [(summary.project, summary.latest) for summary in found] == [("one", "1.0"), ("two", "2.0")]


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[]",
        b'{"format": 1}',
        b'{"format": 1, "projects": {"one": 1}, "downloads": {}}',
        b'{"format": 9}',
    ],
)
def test_the_derived_file_may_be_deleted_or_damaged(repository, add, monkeypatch, content):
    monkeypatch.setattr(gathering, "UNWRITTEN", 1)
    add(*make_wheel("one"))
    expected = Summaries(repository.tree).overview().projects
    path = repository.tree.summaries_file
    assert json.loads(path.read_bytes())["projects"].keys() == {"one"}

    path.write_bytes(content)
    assert Summaries(repository.tree).overview().projects == expected
    path.unlink()
    assert Summaries(repository.tree).overview().projects == expected


def test_a_damaged_project_hides_itself_alone(summaries, repository, add):
    add(*make_wheel("one"))
    filename, content = make_sdist("two")
    add(filename, content)
    repository.tree.sidecar("two", filename).write_bytes(b"{")

    assert names(summaries.overview().projects) == ["one"]


def test_the_projects_come_in_each_order(summaries, add):
    add(*make_wheel("beta", summary="x"))
    add(*make_wheel("alpha", summary="x"))
    add(*make_wheel("alpha", "2.0", summary="x"))
    add(*make_wheel("gamma", summary="x" * 400))
    overview = summaries.overview()

    assert names(overview.sorted_by("name")) == ["alpha", "beta", "gamma"]
    assert names(overview.sorted_by("name", descending=True)) == ["gamma", "beta", "alpha"]
    assert names(overview.sorted_by("pushed")) == ["beta", "alpha", "gamma"]
    assert names(overview.sorted_by("files", descending=True))[0] == "alpha"
    assert names(overview.sorted_by("size"))[0] == "beta"


def test_a_search_finds_every_word_and_shows_the_best_first(summaries, add):
    add(*make_wheel("flask-login", summary="Users for Flask"))
    add(*make_wheel("flask", summary="A small framework"))
    add(*make_wheel("my-flask", summary=""))
    add(*make_wheel("sessions", summary="Sessions for FLASK apps"))
    overview = summaries.overview()

    assert names(overview.search("flask")) == ["flask", "flask-login", "my-flask", "sessions"]
    assert names(overview.search("Flask_Login")) == ["flask-login"]
    assert names(overview.search("for flask")) == ["flask-login", "sessions"]
    assert names(overview.search("nothing")) == []
    assert names(overview.search(" ")) == ["flask", "flask-login", "my-flask", "sessions"]


def test_the_projects_come_by_their_downloads(summaries, repository, registry, add):
    for name in ("one", "two", "three"):
        add(*make_wheel(name))
    for project, number in (("two", 2), ("three", 1)):
        for _ in range(number):
            registry.downloads.count(repository.tree, project, f"{project}-1.0-py3-none-any.whl")
    registry.downloads.flush()

    assert names(summaries.by_downloads(summaries.overview(), descending=True)[0]) == ["two", "three", "one"]
    assert names(summaries.by_downloads(summaries.overview(), descending=False)[0]) == ["one", "three", "two"]
