"""Deleted files: where they lie, what counts as deleted, purging, and damage in the trash."""

from __future__ import annotations

import json

import pytest

from storage.errors import FileAlreadyExists, FileNotFound
from storage.trash import purge_from_trash, put_into_trash
from tests.conftest import TESTER
from tests.storage.makers import make_wheel

WHEEL, CONTENT = make_wheel()


@pytest.fixture
def deleted(repository, add):
    """A deleted file: its entry in the trash."""
    add(WHEEL, CONTENT)
    return repository.delete_file("toolbox", WHEEL, TESTER)


def test_a_deleted_file_lies_in_the_trash_with_all_that_went_with_it(repository, deleted):
    folder = repository.tree.trash / "toolbox" / deleted.id

    assert {path.name for path in folder.iterdir()} == {
        WHEEL,
        f"{WHEEL}.json",
        f"{WHEEL}.metadata",
        "deletion.json",
    }
    assert (folder / WHEEL).read_bytes() == CONTENT
    deletion = json.loads((folder / "deletion.json").read_text())
    assert deletion["deleted_by"] == TESTER.to_json()


def test_the_trash_says_who_deleted_what_and_when(repository, deleted):
    (entry,) = repository.trash()

    assert entry == deleted
    assert (entry.deleted_by, entry.purged) == (TESTER, False)
    assert entry.deleted_at >= entry.sidecar.file.upload_time
    assert list(repository.trash("toolbox")) == [entry]
    assert list(repository.trash("other")) == []


def test_a_deletion_that_was_killed_halfway_has_not_happened_and_can_be_done_again(repository, add):
    sidecar = add(WHEEL, CONTENT).sidecar
    with repository.locked("toolbox"):
        put_into_trash(repository.tree, sidecar, TESTER)  # and no further

    assert list(repository.trash()) == []
    assert [file.filename for file in repository.project("toolbox").files] == [WHEEL]
    entry = repository.delete_file("toolbox", WHEEL, TESTER)
    assert list(repository.trash()) == [entry]
    assert repository.projects() == []


def test_what_is_purged_cannot_be_restored_and_its_name_stays_taken(repository, add, deleted):
    with repository.locked("toolbox"):
        purge_from_trash(repository.tree, deleted)

    (entry,) = repository.trash()
    assert entry.purged
    with pytest.raises(FileNotFound):
        repository.restore_file("toolbox", deleted.id, TESTER)
    with pytest.raises(FileAlreadyExists):
        add(*make_wheel(summary="other"))
    assert add(WHEEL, CONTENT).created


@pytest.mark.parametrize("name", ["deletion.json", f"{WHEEL}.json"])
@pytest.mark.parametrize("damage", ["removed", "emptied", "a list", "a folder", "another id"])
def test_a_damaged_entry_hides_itself_alone(repository, add, deleted, name, damage):
    add(*make_wheel(version="2.0"))
    other = repository.delete_file("toolbox", "toolbox-2.0-py3-none-any.whl", TESTER)
    path = repository.tree.trash / "toolbox" / deleted.id / name
    content = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage == "another id":
        path.write_bytes(
            content.replace(b'"id": "', b'"id": "../').replace(b'"deleted_by": {', b'"deleted_by": 7, "": {')
        )
    elif damage != "removed":
        path.write_bytes(b"" if damage == "emptied" else b"[]")

    assert list(repository.trash()) == [other]
    with pytest.raises(FileNotFound):
        repository.restore_file("toolbox", deleted.id, TESTER)
    assert add(*make_wheel(version="3.0")).created


def test_lost_core_metadata_does_not_keep_a_file_from_coming_back(repository, deleted):
    (repository.tree.trash / "toolbox" / deleted.id / f"{WHEEL}.metadata").unlink()

    repository.restore_file("toolbox", deleted.id, TESTER)

    (file,) = repository.project("toolbox").files
    assert (file.filename, file.core_metadata_sha256) == (WHEEL, None)


def test_strays_in_the_trash_are_ignored(repository, deleted):
    (repository.tree.trash / "file").write_text("x")
    (repository.tree.trash / "Not_Normalized").mkdir()
    (repository.tree.trash / "toolbox" / "file").write_text("x")
    (repository.tree.trash / "toolbox" / deleted.id / "x.json").write_text("x")

    assert list(repository.trash()) == [deleted]


def test_an_upload_reads_nothing_of_deleted_files_with_other_names(repository, add, deleted, caplog):
    (repository.tree.trash / "toolbox" / deleted.id / "deletion.json").write_text("{ damaged")

    add(*make_wheel(version="9.9"))

    assert caplog.messages == []
