"""The index read from the tree: damage hides one file alone, links are not followed, changes show at once."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import time

import pytest

import storage.listings
import storage.simple
from storage.errors import FileNotFound, NameBlocked, ProjectNotFound, RepositoryNotFound
from storage.registry import Registry
from storage.repository import RepositorySettings
from tests.conftest import ORG, REPO, TESTER, add_to
from tests.storage.makers import make_sdist, make_wheel

WHEEL, CONTENT = make_wheel()
NEIGHBOUR = "toolbox-1.0.tar.gz"


def listed(repository, project="toolbox"):
    return [file.filename for file in repository.project(project).files]


def replace_by_folder(path):
    path.unlink()
    path.mkdir()
    (path / "within").write_text("x")


def replace_by_link(path, target):
    path.unlink()
    path.symlink_to(target)


def replace_by_link_to_itself(path):
    path.unlink()
    path.symlink_to(path)


def replace_by_pipe(path):
    path.unlink()
    os.mkfifo(path)


def overwrite(change):
    def damage(path):
        content = path.read_bytes()
        time.sleep(0.02)  # two ticks of the clock that stamps files: damage comes later than the upload
        path.write_bytes(change(content))

    return damage


DAMAGE = {
    "removed": lambda path: path.unlink(),
    "truncated": overwrite(lambda content: content[: len(content) // 2]),
    "emptied": overwrite(lambda content: b""),
    "zeroed": overwrite(lambda content: bytes(len(content))),
    "nonsense": overwrite(lambda content: b"\xde\xad\xbe\xef" * 200),
    "one bit": overwrite(lambda content: content[:30] + bytes([content[30] ^ 1]) + content[31:]),
    "longer": overwrite(lambda content: content + b"x"),
    "folder": replace_by_folder,
    "dangling link": lambda path: replace_by_link(path, "nowhere"),
    "link elsewhere": lambda path: replace_by_link(path, "/etc/passwd"),
    "link to itself": replace_by_link_to_itself,
    "named pipe": replace_by_pipe,
    "unreadable": lambda path: path.chmod(0),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_artifact_hides_itself_alone(repository, add, damage):
    add(WHEEL, CONTENT)
    add(*make_sdist())

    damage(repository.tree.artifact("toolbox", WHEEL))

    assert listed(repository) == [NEIGHBOUR]
    with pytest.raises(FileNotFound):
        repository.open_file("toolbox", WHEEL)
    with pytest.raises(FileNotFound):
        repository.sidecar("toolbox", WHEEL)
    repository.open_file("toolbox", NEIGHBOUR)[1].close()


# A sidecar is believed as long as it parses; running as root, an unreadable one is read.
SIDECAR_DAMAGE = [kind for kind in DAMAGE if kind not in ("one bit", "unreadable")]


@pytest.mark.parametrize("kind", SIDECAR_DAMAGE)
def test_a_damaged_sidecar_hides_its_file_alone(repository, add, kind):
    add(WHEEL, CONTENT)
    add(*make_sdist())

    DAMAGE[kind](repository.tree.sidecar("toolbox", WHEEL))

    assert listed(repository) == [NEIGHBOUR]
    with pytest.raises(FileNotFound):
        repository.open_file("toolbox", WHEEL)


@pytest.mark.parametrize("kind", [kind for kind in DAMAGE if kind != "unreadable"])
def test_damaged_core_metadata_is_not_advertised_and_its_file_is_served(repository, add, kind):
    add(WHEEL, CONTENT)
    add(*make_sdist())

    DAMAGE[kind](repository.tree.core_metadata("toolbox", WHEEL))

    files = {file.filename: file.core_metadata_sha256 for file in repository.project("toolbox").files}
    assert files[WHEEL] is None
    assert files[NEIGHBOUR] is not None
    with pytest.raises(FileNotFound):
        repository.core_metadata("toolbox", WHEEL)
    repository.open_file("toolbox", WHEEL)[1].close()


FALSE_SIDECARS = {
    "another file's name": (b'"filename": "toolbox-1.0-', b'"filename": "toolbox-2.0-'),
    "another size": (b'"size": 8', b'"size": 9'),
    "no number as size": (b'"size": 8', b'"size": true, "was": 8'),
    "a digest that is none": (b'"sha256": "', b'"sha256": "X'),
    "a metadata digest that is none": (b'"core_metadata_sha256": "', b'"core_metadata_sha256": "\\u003c'),
    "a time without a zone": (b'Z",\n"uploader"', b'",\n"uploader"'),
    "a time before all time": (b'"upload_time": "2', b'"upload_time": "0001-01-01T00:00:00+14:00", "was": "2'),
    "a number as requires-python": (b'"requires_python": null', b'"requires_python": 3'),
}


@pytest.mark.parametrize(("old", "new"), FALSE_SIDECARS.values(), ids=FALSE_SIDECARS.keys())
def test_a_false_sidecar_hides_its_file_alone(repository, add, old, new):
    add(WHEEL, CONTENT)
    add(*make_sdist())
    path = repository.tree.sidecar("toolbox", WHEEL)
    content = path.read_bytes()
    assert old in content

    path.write_bytes(content.replace(old, new, 1))

    assert listed(repository) == [NEIGHBOUR]


def test_damage_is_found_although_the_time_stamp_is_as_before(repository, add):
    add(WHEEL, CONTENT)
    path = repository.tree.artifact("toolbox", WHEEL)
    assert listed(repository) == [WHEEL]

    path.write_bytes(CONTENT[:-1])
    os.utime(path, (1, 1))

    assert listed(repository) == []


def test_a_file_copied_without_its_time_stamp_is_still_served(repository, add):
    add(WHEEL, CONTENT)
    path = repository.tree.artifact("toolbox", WHEEL)

    for stamp in (time.time() + 3600, time.time() - 3600, 0):
        os.utime(path, (stamp, stamp))
        assert listed(repository) == [WHEEL]


def test_damage_after_the_first_look_is_seen(repository, add):
    add(WHEEL, CONTENT)
    folder = repository.tree.project("toolbox")
    long_ago = time.time() - 60
    for path in folder.iterdir():
        os.utime(path, (long_ago, long_ago))
    assert listed(repository) == [WHEEL]

    DAMAGE["zeroed"](repository.tree.artifact("toolbox", WHEEL))
    assert listed(repository) == []
    repository.tree.artifact("toolbox", WHEEL).write_bytes(CONTENT)
    assert listed(repository) == [WHEEL]


def test_damage_is_logged_once(repository, add, caplog):
    add(WHEEL, CONTENT)
    repository.tree.sidecar("toolbox", WHEEL).unlink()

    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert listed(repository) == []

    assert [record.getMessage() for record in caplog.records] == [
        f"{repository.tree.artifact('toolbox', WHEEL)} has no sidecar; run 'packhouse check'"
    ]


def test_what_packhouse_would_not_have_written_is_ignored(repository, add):
    add(WHEEL, CONTENT)
    folder = repository.tree.project("toolbox")
    for name in ("README", ".hidden", ".0123456789abcdef01234567.tmp", "x.json", "other-1.0.tar.gz"):
        (folder / name).write_text("x")
    (folder / "folder").mkdir()
    shutil.copy(folder / WHEEL, folder / "copy.whl")
    (repository.tree.packages / "Not_Normalized").mkdir()
    (repository.tree.packages / "file").write_text("x")

    assert listed(repository) == [WHEEL]
    assert repository.projects() == ["toolbox"]


def test_a_file_of_another_project_is_not_listed(repository, add):
    add(*make_wheel("other"))
    add(WHEEL, CONTENT)
    for path in repository.tree.project("other").iterdir():
        shutil.copy2(path, repository.tree.project("toolbox"))

    assert listed(repository) == [WHEEL]
    with pytest.raises(FileNotFound):
        repository.open_file("toolbox", "other-1.0-py3-none-any.whl")


# --- links ---


@pytest.fixture
def elsewhere(tmp_path):
    """A whole storage outside of the one under test, with acme/main/toolbox in it."""
    outside = Registry(tmp_path / "outside")
    outside.create_organization(ORG)
    add_to(outside.create_repository(ORG, REPO, RepositorySettings(name="Outside")), WHEEL, CONTENT)
    return outside.repository(ORG, REPO).tree


def everything_in(folder):
    return {path: path.lstat().st_mtime_ns for path in folder.rglob("*")}


def test_a_link_in_the_place_of_a_project_is_not_followed(repository, add, elsewhere):
    repository.tree.project("toolbox").symlink_to(elsewhere.project("toolbox"))
    before = everything_in(elsewhere.root)

    assert repository.projects() == []
    with pytest.raises(ProjectNotFound):
        repository.project("toolbox")
    with pytest.raises(FileNotFound):
        repository.open_file("toolbox", WHEEL)
    with pytest.raises(NameBlocked):
        add(*make_sdist())
    with pytest.raises(FileNotFound):
        repository.delete_file("toolbox", WHEEL, TESTER)
    assert everything_in(elsewhere.root) == before


def test_a_link_in_the_place_of_all_packages_is_not_followed(repository, add, elsewhere):
    repository.tree.packages.rmdir()
    repository.tree.packages.symlink_to(elsewhere.packages)
    before = everything_in(elsewhere.root)

    assert repository.projects() == []
    with pytest.raises(ProjectNotFound):
        repository.project("toolbox")
    with pytest.raises(FileNotFound):
        repository.open_file("toolbox", WHEEL)
    with pytest.raises(NameBlocked):
        add(*make_sdist())
    assert everything_in(elsewhere.root) == before


def test_a_link_in_the_place_of_a_repository_is_not_followed(registry, elsewhere):
    registry.tree.repository(ORG, "linked").root.symlink_to(elsewhere.root)

    assert registry.repositories(ORG) == []
    with pytest.raises(RepositoryNotFound):
        registry.repository(ORG, "linked")


def test_a_link_in_the_place_of_an_organization_is_not_followed(registry, elsewhere):
    registry.tree.organization("linked").symlink_to(elsewhere.root.parent)

    assert [organization.slug for organization in registry.organizations()] == [ORG]
    assert registry.repositories("linked") == []
    with pytest.raises(RepositoryNotFound):
        registry.repository("linked", REPO)


def test_a_link_in_the_place_of_the_trash_is_not_followed(repository, add, elsewhere):
    add(WHEEL, CONTENT)
    repository.tree.trash.rmdir()
    repository.tree.trash.symlink_to(elsewhere.root)
    before = everything_in(elsewhere.root)

    assert list(repository.trash()) == []
    with pytest.raises(FileExistsError):
        repository.delete_file("toolbox", WHEEL, TESTER)
    assert listed(repository) == [WHEEL]
    assert everything_in(elsewhere.root) == before


# --- changes while one looks ---


def test_a_file_deleted_while_it_is_looked_at_is_gone_and_not_damaged(repository, add, monkeypatch, caplog):
    add(WHEEL, CONTENT)
    add(*make_sdist())
    check = storage.simple._check

    def delete_first(folder, filename, stats):
        monkeypatch.undo()
        repository.delete_file("toolbox", WHEEL, TESTER)
        return check(folder, filename, stats._replace(sidecar=None, core_metadata=None))

    monkeypatch.setattr(storage.simple, "_check", delete_first)

    with pytest.raises(FileNotFound):
        repository.open_file("toolbox", WHEEL)

    assert caplog.records == []


def test_a_file_published_while_its_folder_is_listed_is_whole(repository, add, monkeypatch, caplog):
    add(WHEEL, CONTENT)
    names_in = storage.listings._names_in

    def without_the_sidecar(folder):  # as if it had come behind the place read, and the artifact before it
        return {name for name in names_in(folder) if not name.endswith(".json")}

    monkeypatch.setattr(storage.listings, "_names_in", without_the_sidecar)

    assert listed(repository) == [WHEEL]
    assert caplog.records == []


def test_every_listed_digest_is_that_of_the_served_bytes(repository, add):
    for version in ("1.0", "2.0"):
        add(*make_wheel(version=version))

    for file in repository.project("toolbox").files:
        _, content = repository.open_file("toolbox", file.filename)
        with content:
            assert hashlib.sha256(content.read()).hexdigest() == file.sha256
