"""All files of a repository at once: always what the tree says now, however the clock ticks."""

from __future__ import annotations

import os
import threading

import pytest

from storage import files
from storage.catalog import Catalog
from storage.repository import Repository
from storage.statuses import ProjectStatus, Status
from tests.conftest import ORG, REPO, TESTER, add_to
from tests.storage.makers import make_sdist, make_wheel

AGO = 1_700_000_000  # seconds since 1970; long before the tests


@pytest.fixture
def catalog(registry, repository) -> Catalog:
    return registry.catalog(repository)


@pytest.fixture
def settled(monkeypatch) -> None:
    """Every time stamp is old enough to be trusted."""
    monkeypatch.setattr(files.Signature, "is_settled", lambda self: True)


def names(catalog: Catalog) -> list[str]:
    return [entry.filename for entry in catalog.newest_first()]


def test_an_empty_repository_has_an_empty_catalog(catalog):
    assert catalog.newest_first() == []
    assert catalog.version_counts() == {}


def test_files_come_newest_first_across_projects(catalog, add):
    for made in (make_wheel("b", "1.0"), make_wheel("a", "1.0"), make_sdist("b", "0.9"), make_wheel("a", "0.1")):
        add(*made)

    assert names(catalog) == [
        "a-0.1-py3-none-any.whl",
        "b-0.9.tar.gz",
        "a-1.0-py3-none-any.whl",
        "b-1.0-py3-none-any.whl",
    ]


def test_versions_are_counted_and_not_files(catalog, add):
    for made in (make_wheel("b", "1.0"), make_sdist("b", "1.0"), make_sdist("b", "1.1"), make_wheel("a", "1.0")):
        add(*made)

    assert catalog.version_counts() == {"a": 1, "b": 2}
    assert list(catalog.version_counts()) == ["a", "b"]


@pytest.mark.usefixtures("settled")
def test_every_change_shows_in_the_next_look_though_all_else_is_remembered(registry, repository, catalog, add):
    add(*make_wheel("a", "1.0"))
    wheel, sdist = make_wheel("b", "1.0"), make_sdist("b", "1.0")
    add(*wheel)
    assert len(names(catalog)) == 2

    add(*sdist, type(registry)(registry.tree.root).repository(ORG, REPO))
    assert names(catalog)[0] == sdist[0]
    entry = repository.delete_file("b", sdist[0], TESTER)
    assert sdist[0] not in names(catalog)
    repository.restore_file("b", entry.id, TESTER)
    assert sdist[0] in names(catalog)
    repository.change_status("b", ProjectStatus(Status.QUARANTINED), TESTER)
    assert names(catalog) == ["a-1.0-py3-none-any.whl"]
    repository.change_status("b", ProjectStatus(Status.ACTIVE), TESTER)
    assert len(names(catalog)) == 3
    for filename in (wheel[0], sdist[0]):
        repository.delete_file("b", filename, TESTER)
    assert catalog.version_counts() == {"a": 1}


@pytest.mark.usefixtures("settled")
def test_a_project_that_did_not_change_is_not_read_again(catalog, add, monkeypatch):
    add(*make_wheel("a", "1.0"))
    add(*make_wheel("b", "1.0"))
    read: list[str] = []
    monkeypatch.setattr("storage.catalog.read_entries", lambda tree, project: read.append(project) or ())
    catalog.newest_first()

    add(*make_sdist("b", "1.0"))
    catalog.newest_first()
    catalog.newest_first()

    assert sorted(read) == ["a", "b", "b"]


def test_what_was_read_in_the_tick_of_a_change_is_not_trusted_when_the_tick_is_over(
    repository, catalog, add, monkeypatch
):
    """A file that comes in the very tick in which the folder was read shows up, if only the clock goes on."""
    add(*make_wheel("a", "1.0"))
    folder = repository.tree.project("a")
    frozen = files.Signature.of(folder.stat())
    monkeypatch.setattr(files.Signature, "of", classmethod(lambda cls, status: frozen))  # all within one tick
    monkeypatch.setattr("storage.gathering._stamp", lambda status: frozen[1:])
    assert names(catalog) == ["a-1.0-py3-none-any.whl"]

    add(*make_sdist("a", "1.0"))
    tick_is_over = max(frozen.mtime_ns, frozen.ctime_ns) / 1e9 + files.COARSE_CLOCK + 1
    monkeypatch.setattr(files.time, "time", lambda: tick_is_over)

    assert names(catalog) == ["a-1.0.tar.gz", "a-1.0-py3-none-any.whl"]


def test_a_clock_that_jumped_back_hides_nothing(repository, catalog, add):
    add(*make_wheel("a", "1.0"))
    os.utime(repository.tree.project("a"), (AGO * 2, AGO * 2))
    names(catalog)

    add(*make_sdist("a", "1.0"))
    os.utime(repository.tree.project("a"), (AGO * 2, AGO * 2))

    assert "a-1.0.tar.gz" in names(catalog)


def test_what_is_no_project_and_damaged_files_are_passed_over(repository, catalog, add):
    add(*make_wheel("a", "1.0"))
    add(*make_wheel("b", "1.0"))
    repository.tree.sidecar("b", "b-1.0-py3-none-any.whl").write_text("{")
    packages = repository.tree.packages
    (packages / "Not_Normalized").mkdir()
    (packages / ".hidden").mkdir()
    (packages / "file").write_text("x")
    (packages / "link").symlink_to(packages / "a")
    (packages / "empty").mkdir()

    assert names(catalog) == ["a-1.0-py3-none-any.whl"]
    assert catalog.version_counts() == {"a": 1}


def test_a_repository_whose_folder_is_gone_is_empty(registry, repository, catalog, add):
    add(*make_wheel())
    names(catalog)

    registry.delete_repository(ORG, REPO)

    assert catalog.newest_first() == []


def test_many_threads_may_look_while_files_come(repository: Repository, catalog):
    failures: list[BaseException] = []
    stop = threading.Event()

    def look() -> None:
        try:
            while not stop.is_set():
                entries = catalog.newest_first()
                assert entries == sorted(entries, key=lambda e: (e.upload_time, e.filename), reverse=True)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(10):
        add_to(repository, *make_sdist(f"p{number % 3}", f"1.{number}"))
    stop.set()
    for thread in threads:
        thread.join()

    assert failures == []
    assert len(catalog.newest_first()) == 10


def test_the_registry_keeps_a_catalog_for_each_of_many_repositories(registry, repository, monkeypatch):
    monkeypatch.setattr("storage.registry.KEPT_CATALOGS", 2)
    first = registry.catalog(repository)

    assert registry.catalog(repository) is first
    for slug in ("x", "y", "z"):
        registry.catalog(Repository(registry.tree.repository(ORG, slug), ORG, slug, registry.limits))
    assert len(registry._catalogs) <= 2
    assert registry.catalog(repository).newest_first() == []
