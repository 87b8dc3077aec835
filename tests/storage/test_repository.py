"""One repository: publishing wheels and sdists, what stands on disk, taken names, mending, two processes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import threading
from datetime import UTC, datetime

import pytest

from storage import placing
from storage import repository as repository_module
from storage.errors import (
    FileAlreadyExists,
    FileNotFound,
    FileTooLarge,
    InvalidDistribution,
    InvalidFilename,
    NameBlocked,
    ProjectNotFound,
    RepositoryNotFound,
    StorageBusy,
    StorageDamaged,
)
from storage.limits import Limits
from storage.locks import lock
from storage.registry import Registry
from storage.repository import RepositorySettings, project_of
from storage.uploads import copy_into
from tests.conftest import ORG, REPO, TESTER, add_to
from tests.storage.makers import make_metadata, make_sdist, make_wheel

WHEEL = "toolbox-1.0-py3-none-any.whl"
SDIST = "toolbox-1.0.tar.gz"


def listed(repository, project="toolbox"):
    """The names on a project's page."""
    return [file.filename for file in repository.project(project).files]


def content_of(repository, filename, project="toolbox"):
    file, content = repository.open_file(project, filename)
    with content:
        read = content.read()
    assert hashlib.sha256(read).hexdigest() == file.sha256
    return read


# --- publishing ---


PUBLISHED = {
    "wheel": make_wheel(),
    "metadata 1.0": make_wheel(metadata_version="1.0"),
    "metadata 1.1": make_sdist(metadata_version="1.1"),
    "metadata 1.2": make_wheel(metadata_version="1.2", requires_python=">=3.8"),
    "metadata 2.0": make_wheel(metadata_version="2.0"),
    "metadata 2.2": make_sdist(metadata_version="2.2"),
    "metadata 2.3": make_wheel(metadata_version="2.3"),
    "metadata 2.4": make_wheel(metadata_version="2.4", extra_headers=[("License-Expression", "MIT")]),
    "metadata 2.5": make_wheel(metadata_version="2.5", extra_headers=[("Import-Name", "toolbox")]),
    "metadata 2.6": make_wheel(metadata_version="2.6"),
    "sdist": make_sdist(),
    "legacy zip": make_sdist(suffix=".zip"),
    "legacy sdist name": make_sdist("My-Tool", "1.0", top="My-Tool-1.0", filename="My-Tool-1.0.tar.gz"),
    "local version": make_wheel(version="1.0+local.7"),
    "epoch": make_wheel(version="1!2.0"),
    "build tag": make_wheel(build="7"),
    "compressed tags": make_wheel(tags="py2.py3-none-any"),
    "many platforms": make_wheel(tags="cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64"),
    "linux tag": make_wheel(tags="cp311-cp311-linux_x86_64"),
    "private classifier": make_wheel(extra_headers=[("Classifier", "Private :: Do Not Upload")]),
    "capitals": make_wheel("ToolBox"),
}


@pytest.mark.parametrize("made", PUBLISHED.values(), ids=PUBLISHED.keys())
def test_what_is_published_is_listed_and_served_byte_for_byte(repository, add, made):
    filename, content = made

    added = add(filename, content)

    project = project_of(filename)
    assert added.created
    assert repository.projects() == [project]
    assert listed(repository, project) == [filename]
    assert content_of(repository, filename, project) == content
    file = repository.project(project).files[0]
    assert (file.size, file.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert file == added.sidecar.file == repository.sidecar(project, filename).file


def test_the_tree_on_disk_is_the_one_of_the_contract(registry, repository, add):
    filename, content = make_wheel(requires_python=">=3.9", requires=["packaging>=20"])

    add(filename, content)

    root = registry.tree.root
    tree = {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
    folder = "acme/main/packages/toolbox"
    assert {path for path in tree if not any(part.startswith(".") for part in path.split("/"))} == {
        "registry.json",
        "acme/organization.json",
        "acme/main/repository.json",
        "acme/main/events.jsonl",
        f"{folder}/{filename}",
        f"{folder}/{filename}.json",
        f"{folder}/{filename}.metadata",
    }
    assert (root / folder / filename).read_bytes() == content
    expected = make_metadata(requires_python=">=3.9", requires=["packaging>=20"])
    assert (root / folder / f"{filename}.metadata").read_bytes() == expected
    assert list((root / "acme/main/.tmp").iterdir()) == []


def test_the_sidecar_tells_what_the_bytes_cannot(repository, add):
    filename, content = make_wheel("Tool_Box", "1.0", requires_python=">=3.9", build="3")

    before = datetime.now(UTC)
    add(filename, content)
    after = datetime.now(UTC)

    document = json.loads(repository.tree.sidecar("tool-box", filename).read_bytes())
    metadata = make_metadata("Tool_Box", requires_python=">=3.9")
    assert {key: document[key] for key in ("format", "project", "name", "version", "filename", "packagetype")} == {
        "format": 1,
        "project": "tool-box",
        "name": "Tool_Box",
        "version": "1.0",
        "filename": filename,
        "packagetype": "bdist_wheel",
    }
    for algorithm in ("md5", "sha1", "sha256", "sha512"):
        assert document[algorithm] == hashlib.new(algorithm, content).hexdigest()
    assert document["blake2b_256"] == hashlib.blake2b(content, digest_size=32).hexdigest()
    assert document["size"] == len(content)
    assert document["core_metadata_sha256"] == hashlib.sha256(metadata).hexdigest()
    assert document["uploader"] == {"kind": "command line", "description": "test"}
    assert document["requires_python"] == ">=3.9"
    assert document["yanked_reason"] is None
    assert document["build"] == "3"
    assert document["metadata"]["name"] == "Tool_Box"
    assert ["tool_box/__init__.py", 13] in document["members"]
    assert document["server_version"]
    assert before <= datetime.fromisoformat(document["upload_time"]) <= after
    assert len(document["upload_time"]) == len("2026-11-24T09:30:00.123456Z")


def test_files_are_listed_by_version_and_then_by_name(repository, add):
    for version in ("1.10", "1.9", "1!0.1", "1.10rc1"):
        add(*make_wheel(version=version))
    add(*make_sdist(version="1.9"))

    assert repository.project("toolbox").versions == ["1.9", "1.10rc1", "1.10", "1!0.1"]
    assert listed(repository)[:2] == ["toolbox-1.9-py3-none-any.whl", "toolbox-1.9.tar.gz"]


def test_different_spellings_are_one_project(repository, add):
    add(*make_sdist("My.Tool", "1.0", filename="My.Tool-1.0.tar.gz", top="My.Tool-1.0"))
    add(*make_wheel("my-tool", "2.0"))

    assert repository.projects() == ["my-tool"]
    assert len(listed(repository, "my-tool")) == 2


@pytest.mark.parametrize("filename", ["../toolbox-1.0.tar.gz", "toolbox.egg", "a/b.whl", f"{WHEEL}.json"])
def test_a_name_that_is_no_distribution_stores_nothing(repository, add, filename):
    with pytest.raises(InvalidFilename):
        add(filename, make_wheel()[1])

    assert repository.projects() == []
    assert list(repository.tree.packages.iterdir()) == list(repository.tree.temporary.iterdir()) == []


def test_bytes_that_are_no_distribution_store_nothing(repository, add):
    with pytest.raises(InvalidDistribution):
        add(WHEEL, b"not a zip")

    assert repository.projects() == []
    assert list(repository.tree.packages.iterdir()) == list(repository.tree.temporary.iterdir()) == []


def test_a_file_over_the_limit_stops_coming_in(tmp_path, repository):
    small = Registry(tmp_path / "data", Limits(max_file_size=100)).repository(ORG, REPO)

    with pytest.raises(FileTooLarge, match="limit of 100 bytes"):
        add_to(small, *make_wheel())

    assert list(small.tree.temporary.iterdir()) == []


# --- the same name again ---


def test_the_same_bytes_again_are_no_change(repository, add):
    first = add(*make_wheel())

    again = add(*make_wheel())

    assert not again.created
    assert again.sidecar == first.sidecar


def test_other_bytes_under_the_name_are_refused_with_both_digests(repository, add):
    filename, content = make_wheel()
    add(filename, content)
    other = make_wheel(summary="other")[1]

    with pytest.raises(FileAlreadyExists) as caught:
        add(filename, other)

    error = caught.value
    assert error.stored_sha256 == hashlib.sha256(content).hexdigest()
    assert error.sha256 == hashlib.sha256(other).hexdigest()
    assert not error.deleted
    assert error.stored_sha256[:16] in str(error)
    assert error.sha256[:16] in str(error)
    assert content_of(repository, filename) == content


def test_of_many_contents_at_once_exactly_one_wins(tmp_path, repository):
    contents = [make_wheel(summary=f"content {n}")[1] for n in range(8)]
    outcomes = []

    def upload(content):
        own = Registry(tmp_path / "data").repository(ORG, REPO)
        try:
            outcomes.append((add_to(own, WHEEL, content).created, content))
        except FileAlreadyExists:
            outcomes.append((False, content))

    threads = [threading.Thread(target=upload, args=[content]) for content in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    winners = [content for created, content in outcomes if created]
    assert len(outcomes) == 8
    assert [content_of(repository, WHEEL)] == winners


def test_a_name_that_something_else_has_is_blocked(repository, add):
    (repository.tree.packages / "toolbox" / WHEEL).mkdir(parents=True)

    with pytest.raises(NameBlocked, match="packhouse check"):
        add(*make_wheel())

    assert (repository.tree.packages / "toolbox" / WHEEL).is_dir()


@pytest.mark.parametrize("suffix", [".json", ".metadata"])
def test_a_folder_in_the_place_of_what_goes_with_a_file_blocks_its_name(repository, add, suffix):
    add(*make_sdist())
    (repository.tree.packages / "toolbox" / f"{WHEEL}{suffix}" / "x").mkdir(parents=True)

    with pytest.raises(NameBlocked):
        add(*make_wheel())

    assert listed(repository) == [SDIST]


# --- mending by uploading again ---


def test_the_same_bytes_mend_a_truncated_artifact(repository, add):
    filename, content = make_wheel()
    first = add(filename, content)
    repository.tree.artifact("toolbox", filename).write_bytes(content[:100])

    again = add(filename, content)

    assert (again.created, again.sidecar) == (False, first.sidecar)
    assert content_of(repository, filename) == content
    assert listed(repository) == [filename]


SIDECAR_DAMAGE = {
    "lost": None,
    "empty": lambda content: b"",
    "zeroed": lambda content: bytes(len(content)),
    "cut off": lambda content: content[:200],
    "an empty object": lambda content: b"{}",
    "of another file": lambda content: content.replace(b'filename": "toolbox', b'filename": "foolbox'),
    "a strange id": lambda content: content.replace(b'"id": "', b'"id": "../../'),
}


@pytest.mark.parametrize("damage", SIDECAR_DAMAGE.values(), ids=SIDECAR_DAMAGE.keys())
def test_the_same_bytes_mend_a_sidecar(repository, add, damage):
    filename, content = make_wheel()
    add(filename, content)
    path = repository.tree.sidecar("toolbox", filename)
    if damage is None:
        path.unlink()
    else:
        path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(FileNotFound):
        repository.sidecar("toolbox", filename)

    again = add(filename, content)

    assert not again.created
    assert listed(repository) == [filename]
    assert repository.sidecar("toolbox", filename) == again.sidecar


@pytest.mark.parametrize("damage", ["lost", "zeroed", "longer"])
def test_the_same_bytes_mend_the_core_metadata(repository, add, damage):
    filename, content = make_wheel()
    add(filename, content)
    path = repository.tree.core_metadata("toolbox", filename)
    good = path.read_bytes()
    if damage == "lost":
        path.unlink()
    else:
        path.write_bytes(bytes(len(good)) if damage == "zeroed" else good + b"x")
    assert repository.project("toolbox").files[0].core_metadata_sha256 is None

    add(filename, content)

    assert repository.core_metadata("toolbox", filename)[1] == good
    assert repository.project("toolbox").files[0].core_metadata_sha256 == hashlib.sha256(good).hexdigest()


def test_other_bytes_do_not_mend_a_file_whose_sidecar_is_lost(repository, add):
    filename, content = make_wheel()
    add(filename, content)
    repository.tree.sidecar("toolbox", filename).unlink()

    with pytest.raises(FileAlreadyExists, match="its sidecar is lost"):
        add(filename, make_wheel(summary="other")[1])

    assert repository.tree.artifact("toolbox", filename).read_bytes() == content


def test_a_file_can_be_stored_after_a_backup_without_dotted_and_empty_folders(repository, add):
    for folder in (repository.tree.temporary, repository.tree.locks, repository.tree.packages):
        folder.rmdir()

    add(*make_wheel())

    assert listed(repository) == [WHEEL]


def test_what_an_interrupted_deletion_left_does_not_come_back_with_the_next_file(repository, add):
    add(*make_sdist())
    stale = repository.tree.companion("toolbox", WHEEL, ".attestations")
    stale.write_bytes(b"of another file")

    add(*make_wheel())

    assert not stale.exists()


# --- deleting and restoring ---


def test_a_deleted_name_stays_taken_by_other_bytes(repository, add):
    filename, content = make_wheel()
    add(filename, content)
    repository.delete_file("toolbox", filename, TESTER)

    with pytest.raises(FileAlreadyExists, match="uploaded and later deleted") as caught:
        add(filename, make_wheel(summary="other")[1])

    assert caught.value.deleted
    assert caught.value.stored_sha256 == hashlib.sha256(content).hexdigest()
    assert repository.projects() == []


def test_the_same_bytes_may_come_again_after_a_deletion(repository, add):
    filename, content = make_wheel()
    add(filename, content)
    repository.delete_file("toolbox", filename, TESTER)

    again = add(filename, content)

    assert again.created
    assert content_of(repository, filename) == content


def test_a_deleted_name_is_free_where_names_may_be_reused(repository, add):
    filename, content = make_wheel()
    add(filename, content)
    repository.delete_file("toolbox", filename, TESTER)
    repository.change_settings({"reuse_filenames": True})
    other = make_wheel(summary="other")[1]

    added = add(filename, other)

    assert added.created
    assert content_of(repository, filename) == other
    with pytest.raises(FileAlreadyExists):
        add(filename, content)


def test_a_project_goes_with_its_last_file(repository, add):
    add(*make_wheel())
    add(*make_sdist())

    repository.delete_file("toolbox", WHEEL, TESTER)
    left = repository.projects()
    repository.delete_file("toolbox", SDIST, TESTER)

    assert left == ["toolbox"]
    assert repository.projects() == []
    with pytest.raises(ProjectNotFound):
        repository.project("toolbox")


@pytest.mark.parametrize(
    ("project", "filename"), [("toolbox", "toolbox-2.0.tar.gz"), ("other", WHEEL), ("toolbox", "../x")]
)
def test_what_is_not_there_cannot_be_deleted(repository, add, project, filename):
    add(*make_wheel())

    with pytest.raises(FileNotFound):
        repository.delete_file(project, filename, TESTER)

    assert listed(repository) == [WHEEL]


def test_a_restored_file_is_as_it_was(repository, add):
    filename, content = make_wheel()
    first = add(filename, content)
    repository.yank_file("toolbox", filename, "wrong tag", TESTER)
    entry = repository.delete_file("toolbox", filename, TESTER)

    restored = repository.restore_file("toolbox", entry.id, TESTER)

    assert restored == first.sidecar.with_yanked("wrong tag") == repository.sidecar("toolbox", filename)
    assert content_of(repository, filename) == content
    assert list(repository.trash()) == []
    assert repository.core_metadata("toolbox", filename)[1]


def test_a_file_is_not_restored_over_other_bytes(repository, add):
    filename, content = make_wheel()
    add(filename, content)
    entry = repository.delete_file("toolbox", filename, TESTER)
    repository.change_settings({"reuse_filenames": True})
    other = make_wheel(summary="other")[1]
    add(filename, other)

    with pytest.raises(FileAlreadyExists):
        repository.restore_file("toolbox", entry.id, TESTER)

    assert content_of(repository, filename) == other
    assert [e.id for e in repository.trash()] == [entry.id]


@pytest.mark.parametrize("entry_id", ["", "..", "nothing", "01a20e76-175f-7fec-9fdf-8fbca39cca8d", "../toolbox"])
def test_what_is_not_in_the_trash_cannot_be_restored(repository, add, entry_id):
    add(*make_wheel())
    repository.delete_file("toolbox", WHEEL, TESTER)

    with pytest.raises(FileNotFound):
        repository.restore_file("toolbox", entry_id, TESTER)


def test_a_damaged_file_is_not_restored_and_stays_in_the_trash(repository, add):
    add(*make_wheel())
    entry = repository.delete_file("toolbox", WHEEL, TESTER)
    path = repository.tree.trash / "toolbox" / entry.id / WHEEL
    path.write_bytes(path.read_bytes()[:50])

    with pytest.raises(FileNotFound):
        repository.restore_file("toolbox", entry.id, TESTER)

    assert repository.projects() == []
    assert [e.id for e in repository.trash()] == [entry.id]


def test_restoring_mends_a_file_of_the_same_bytes_that_came_since(repository, add):
    filename, content = make_wheel()
    add(filename, content)
    entry = repository.delete_file("toolbox", filename, TESTER)
    add(filename, content)
    repository.tree.sidecar("toolbox", filename).write_bytes(b"")

    repository.restore_file("toolbox", entry.id, TESTER)

    assert listed(repository) == [filename]
    assert list(repository.trash()) == []


# --- not found ---


def test_what_is_not_there_says_so(repository, add):
    add(*make_wheel())

    with pytest.raises(ProjectNotFound, match="no project 'other'"):
        repository.project("other")
    with pytest.raises(FileNotFound):
        repository.open_file("toolbox", "toolbox-2.0.tar.gz")
    with pytest.raises(FileNotFound):
        repository.open_file("other", WHEEL)
    with pytest.raises(FileNotFound):
        repository.core_metadata("toolbox", "toolbox-2.0.tar.gz")
    with pytest.raises(FileNotFound):
        repository.sidecar("toolbox", f"{WHEEL}.json")
    with pytest.raises(FileNotFound):
        project_of("toolbox.egg")


def test_a_deleted_repository_answers_that_it_is_gone(registry, repository, add):
    add(*make_wheel())
    registry.delete_repository(ORG, REPO)

    for act in (
        lambda: repository.settings,
        lambda: repository.receive(),
        lambda: repository.delete_file("toolbox", WHEEL, TESTER),
        lambda: repository.change_settings({"private": False}),
    ):
        with pytest.raises(RepositoryNotFound):
            act()
    assert not repository.tree.root.exists()


def test_a_repository_that_is_deleted_during_an_upload_takes_nothing(registry, repository):
    filename, content = make_wheel()
    incoming = repository.receive()
    copy_into(incoming, io.BytesIO(content))
    registry.delete_repository(ORG, REPO)

    with pytest.raises(RepositoryNotFound):
        repository.add_file(incoming, filename, TESTER)

    incoming.close()
    assert not repository.tree.root.exists()


# --- settings ---


def test_settings_are_kept_for_every_process(tmp_path, repository):
    changed = repository.change_settings({"private": False, "description": "größer", "emoji": "📦"})

    assert Registry(tmp_path / "data").repository(ORG, REPO).settings == changed
    assert (changed.private, changed.name) == (False, "Main")
    assert [path.name for path in repository.tree.root.iterdir() if path.name.endswith(".tmp")] == [".tmp"]


def test_a_setting_that_the_file_does_not_name_has_its_default(repository):
    repository.tree.repository_file.write_text('{"name": "Old", "unknown": 7}')

    settings = repository.settings

    assert (settings.name, settings.private) == ("Old", True)
    assert (settings.strict_record, settings.reuse_filenames) == (True, False)


DAMAGED_SETTINGS = ["", "{", "[]", "{}", "\0" * 50, '{"name": 5}', '{"name": "x", "reuse_filenames": "no"}']
DAMAGED_SETTINGS += [
    '{"name": "x", "private": 0}',
    '{"name": "x", "private": null}',
    '{"name": "x", "private": ""}',
]
DAMAGED_SETTINGS += ['{"name": "x", "strict_record": null}', '{"name": "x", "description": null}']


@pytest.mark.parametrize("content", DAMAGED_SETTINGS, ids=ascii)
def test_damaged_settings_are_never_taken_for_laxer_ones(repository, content):
    repository.tree.repository_file.write_text(content)

    with pytest.raises(StorageDamaged, match="backup"):
        _ = repository.settings


# --- locks ---


def test_a_hung_upload_holds_up_neither_readers_nor_other_projects(tmp_path, repository, add):
    add(*make_wheel())
    hurried = Registry(tmp_path / "data", lock_timeout=0.2).repository(ORG, REPO)

    with lock(repository.tree.lock_file("toolbox"), "it"):
        with pytest.raises(StorageBusy, match="the project 'toolbox'"):
            add_to(hurried, *make_sdist())
        with pytest.raises(StorageBusy):
            hurried.delete_file("toolbox", WHEEL, TESTER)
        assert content_of(hurried, WHEEL) == make_wheel()[1]
        assert add_to(hurried, *make_wheel("other")).created

    assert add_to(hurried, *make_sdist()).created
    assert list(repository.tree.temporary.iterdir()) == []


# --- two processes on one folder ---


def test_two_registries_see_each_others_changes_at_once(tmp_path, repository, add):
    second = Registry(tmp_path / "data").repository(ORG, REPO)

    for n in range(10):  # many changes in one tick of the clock
        filename, content = make_wheel(version=f"1.{n}")
        add(filename, content)
        assert listed(second) == [filename]
        second.delete_file("toolbox", filename, TESTER)
        assert repository.projects() == []
        add(filename, content)
        assert content_of(second, filename) == content
        second.yank_file("toolbox", filename, f"reason {n}", TESTER)
        assert repository.project("toolbox").files[0].yanked == f"reason {n}"
        second.delete_file("toolbox", filename, TESTER)


def test_a_change_shows_although_all_time_stamps_are_equal(tmp_path, repository, add):
    second = Registry(tmp_path / "data").repository(ORG, REPO)
    folder = repository.tree.project("toolbox")

    def set_the_clock_back():
        for path in (folder, *folder.iterdir()):
            os.utime(path, (1_000_000_000, 1_000_000_000))

    add(*make_wheel())
    set_the_clock_back()
    assert listed(second) == [WHEEL]
    add(*make_sdist())
    set_the_clock_back()
    assert listed(second) == [WHEEL, SDIST]
    for reason in ("aaa", "bbb", "ccc"):
        repository.yank_file("toolbox", WHEEL, reason, TESTER)
        set_the_clock_back()
        assert second.project("toolbox").files[0].yanked == reason


def test_a_new_repository_stands_on_its_own(registry, repository, add):
    other = registry.create_repository(ORG, "other", RepositorySettings(name="Other"))
    add(*make_wheel())

    assert other.projects() == []
    assert add_to(other, WHEEL, make_wheel(summary="other")[1]).created


# --- waiting for the disk ---


def test_nobody_waits_for_a_project_while_the_last_file_goes_to_disk(repository, add, monkeypatch):
    real, locked = repository_module.sync_place, []

    def sync_place(tree, project):
        with repository.locked(project):
            locked.append(project)
        assert [file.filename for file in repository.project(project).files] == [WHEEL]
        real(tree, project)

    monkeypatch.setattr(repository_module, "sync_place", sync_place)
    add(*make_wheel())

    assert locked == ["toolbox"]


def test_a_file_that_is_deleted_before_it_was_on_disk_is_deleted(repository, add, monkeypatch):
    real = repository_module.sync_place

    def sync_place(tree, project):
        repository.delete_file(project, WHEEL, TESTER)
        real(tree, project)

    monkeypatch.setattr(repository_module, "sync_place", sync_place)

    assert add(*make_wheel()).created
    assert repository.projects() == []
    assert [entry.sidecar.file.filename for entry in repository.trash()] == [WHEEL]


def test_an_upload_to_a_repository_that_goes_away_before_it_was_on_disk_is_none(
    registry, repository, add, monkeypatch
):
    def sync_place(tree, project):
        registry.delete_repository(ORG, REPO)

    monkeypatch.setattr(repository_module, "sync_place", sync_place)

    with pytest.raises(RepositoryNotFound):
        add(*make_wheel())


def test_an_upload_that_fails_leaves_nothing_among_the_files_of_its_project(repository, add, monkeypatch):
    add(*make_wheel())

    def link(source, target):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(placing, "link_unsynced", link)
    with pytest.raises(OSError, match="Input/output"):
        add(*make_wheel(version="2.0"))

    assert not list(repository.tree.project("toolbox").glob("*2.0*"))
