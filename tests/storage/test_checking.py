"""What ``packhouse check`` finds, what it repairs, and that it never deletes an artifact."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import time

import pytest

from storage.checking import Finding, artifact_count, check_storage
from storage.errors import RepositoryNotFound
from storage.files import is_regular
from storage.registry import Registry
from storage.repository import RepositorySettings
from storage.tokens import Scope
from storage.trash import purge_from_trash
from storage.uploads import copy_into
from tests.conftest import ORG, REPO, TESTER, add_to
from tests.storage.makers import make_sdist, make_wheel

WHEEL, CONTENT = make_wheel()


@pytest.fixture
def check(registry):
    """All findings, as the path below the storage and the problem; a finding that was repaired ends in "!"."""

    def check(*what, repair=False):
        found = check_storage(registry, *what, repair=repair)
        prefix = f"{registry.tree.root}/"
        return {f.path.removeprefix(prefix): f.problem + ("!" if f.repaired else "") for f in found}

    return check


@pytest.fixture
def folder(repository, add):
    """The folder of a project with a wheel and an sdist."""
    add(WHEEL, CONTENT)
    add(*make_sdist())
    return repository.tree.project("toolbox")


PLACE = f"acme/main/packages/toolbox/{WHEEL}"


def test_a_whole_storage_has_no_findings(registry, repository, folder, check):
    registry.users.create("ada", "hash", {})
    token, _ = registry.tokens.create(ORG, REPO, frozenset(Scope), TESTER)
    registry.tokens.note_use(token, "127.0.0.1", "pip")
    repository.yank_file("toolbox", WHEEL, "", TESTER)
    entry = repository.delete_file("toolbox", "toolbox-1.0.tar.gz", TESTER)
    with repository.locked("toolbox"):
        purge_from_trash(repository.tree, entry)

    assert check() == check(repair=True) == {}
    assert artifact_count(registry) == artifact_count(registry, ORG, REPO) == 1
    assert artifact_count(registry, "other") == 0


def replace(path, content=None):
    path.unlink()
    if content is None:
        path.mkdir()
    else:
        path.symlink_to(content)


ARTIFACT_DAMAGE = {
    "truncated": lambda path: path.write_bytes(CONTENT[:50]),
    "zeroed": lambda path: path.write_bytes(bytes(len(CONTENT))),
    "zeroed with its time stamp": lambda path: (path.write_bytes(bytes(len(CONTENT))), os.utime(path, (1, 1))),
    "a folder": replace,
    "a dangling link": lambda path: replace(path, "nowhere"),
    "a link elsewhere": lambda path: replace(path, "/etc/passwd"),
}


@pytest.mark.parametrize("damage", ARTIFACT_DAMAGE.values(), ids=ARTIFACT_DAMAGE.keys())
def test_a_damaged_artifact_is_named_and_never_touched(folder, check, damage):
    damage(folder / WHEEL)
    before = (folder / WHEEL).lstat()

    found, again = check(), check(repair=True)

    assert found == again
    assert list(found) == [PLACE]
    assert "damaged" in found[PLACE] or "not a regular file" in found[PLACE]
    assert ((folder / WHEEL).lstat().st_ino, (folder / WHEEL).lstat().st_size) == (before.st_ino, before.st_size)
    assert {path.name for path in folder.iterdir()} >= {WHEEL, f"{WHEEL}.json", f"{WHEEL}.metadata"}


SIDECAR_DAMAGE = {
    "lost": lambda path: path.unlink(),
    "zeroed": lambda path: path.write_bytes(bytes(500)),
    "of another file": lambda path: path.write_bytes(
        path.read_bytes().replace(b"toolbox-1.0-py3", b"toolbox-2.0-py3")
    ),
    "a dangling link": lambda path: replace(path, "nowhere"),
}


@pytest.mark.parametrize("damage", SIDECAR_DAMAGE.values(), ids=SIDECAR_DAMAGE.keys())
def test_a_lost_sidecar_is_rebuilt_from_its_artifact(repository, folder, check, damage):
    before = repository.sidecar("toolbox", WHEEL)
    damage(folder / f"{WHEEL}.json")

    found, repaired, after = check(), check(repair=True), check()

    assert list(found) == list(repaired) == [f"{PLACE}.json"]
    assert repaired[f"{PLACE}.json"].endswith("!")
    assert after == {}
    rebuilt = repository.sidecar("toolbox", WHEEL)
    assert (rebuilt.digests, rebuilt.metadata, rebuilt.members) == (before.digests, before.metadata, before.members)
    assert str(rebuilt.uploader) == "the command line"
    assert abs(rebuilt.file.upload_time - before.file.upload_time).total_seconds() < 60
    assert WHEEL in [file.filename for file in repository.project("toolbox").files]


@pytest.mark.parametrize("damage", ["lost", "zeroed"])
def test_lost_core_metadata_is_taken_from_the_archive_again(repository, folder, check, damage):
    path = folder / f"{WHEEL}.metadata"
    good = path.read_bytes()
    path.unlink() if damage == "lost" else path.write_bytes(bytes(len(good)))

    found, repaired, after = check(), check(repair=True), check()

    assert list(found) == list(repaired) == [f"{PLACE}.metadata"]
    assert after == {}
    assert path.read_bytes() == good
    assert repository.core_metadata("toolbox", WHEEL)[1] == good


def test_a_sidecar_without_its_artifact_is_named_and_cleared_away(repository, folder, check):
    (folder / WHEEL).unlink()

    found, _, after = check(), check(repair=True), check()

    assert list(found) == [PLACE]
    assert "missing" in found[PLACE]
    assert after == {}
    assert sorted(path.name for path in folder.iterdir() if path.name.startswith(WHEEL)) == []
    assert [file.filename for file in repository.project("toolbox").files] == ["toolbox-1.0.tar.gz"]


def test_a_project_of_which_nothing_is_left_goes_with_its_leavings(repository, add, check):
    add(WHEEL, CONTENT)
    repository.tree.artifact("toolbox", WHEEL).unlink()

    check(repair=True)

    assert repository.projects() == []


def test_what_is_no_distribution_gets_no_sidecar(folder, check):
    (folder / WHEEL).write_bytes(b"not a wheel")
    (folder / f"{WHEEL}.json").unlink()

    repaired = check(repair=True)

    assert list(repaired) == [f"{PLACE}.json"]
    assert not repaired[f"{PLACE}.json"].endswith("!")
    assert (folder / WHEEL).read_bytes() == b"not a wheel"


def test_a_file_in_the_folder_of_another_project_is_named(repository, folder, add, check):
    add(*make_wheel("other"))
    for path in repository.tree.project("other").iterdir():
        path.rename(folder / path.name)
    repository.tree.project("other").rmdir()

    assert "another project" in check()["acme/main/packages/toolbox/other-1.0-py3-none-any.whl"]


STRAYS = [
    "stray.txt",
    "users/notes.txt",
    "tokens/x.json",
    "acme/notes.txt",
    "acme/Not A Slug",
    "acme/empty",
    "acme/main/notes.txt",
    "acme/main/packages/file",
    "acme/main/packages/Not_Normalized",
    "acme/main/packages/toolbox/README",
    "acme/main/packages/toolbox/x.json",
    "acme/main/trash/file",
    "acme/main/trash/toolbox",
]


@pytest.mark.parametrize("place", STRAYS)
def test_what_packhouse_would_not_have_put_there_is_named_and_left(registry, folder, check, place):
    registry.users.create("ada", "hash", {})
    registry.tokens.create(ORG, REPO, frozenset(Scope), TESTER)
    path = registry.tree.root / place
    if place in ("acme/empty", "acme/Not A Slug", "acme/main/packages/Not_Normalized"):
        path.mkdir()
    else:
        path.write_text("x")

    assert list(check()) == list(check(repair=True)) == [place]
    assert path.exists()


def test_damage_above_the_projects_is_named(registry, repository, folder, check):
    registry.create_organization("broken")
    registry.tree.organization_file("broken").write_text("{")
    registry.create_repository(ORG, "broken", RepositorySettings(name="x"))
    registry.tree.repository(ORG, "broken").repository_file.write_text("{")
    registry.users.create("ada", "hash", {})
    registry.tree.user_file("ada").write_bytes(bytes(100))
    token, _ = registry.tokens.create(ORG, REPO, frozenset(Scope), TESTER)
    replace(registry.tree.token_file(token.id))
    repository.tree.status_file("toolbox").write_text('{"status": "asleep"}')

    assert set(check()) == {
        "broken",
        "acme/broken/repository.json",
        "users/ada.json",
        f"tokens/{token.id}.json",
        "acme/main/packages/toolbox/project.json",
    }


@pytest.mark.parametrize("name", [WHEEL, f"{WHEEL}.json", "deletion.json"])
def test_damage_in_the_trash_is_named(repository, folder, check, name):
    entry = repository.delete_file("toolbox", WHEEL, TESTER)
    path = repository.tree.trash / "toolbox" / entry.id
    (path / name).write_bytes(b"x")

    found = check(repair=True)

    assert list(found) == [f"acme/main/trash/toolbox/{entry.id}" + (f"/{WHEEL}" if name == WHEEL else "")]
    assert (path / WHEEL).exists()


def test_one_repository_can_be_checked_alone(registry, folder, check):
    (registry.tree.root / "stray.txt").write_text("x")
    (folder / "README").write_text("x")
    registry.create_repository(ORG, "other", RepositorySettings(name="x"))

    assert list(check(ORG, REPO)) == ["acme/main/packages/toolbox/README"]
    assert check(ORG, "other") == {}
    with pytest.raises(RepositoryNotFound):
        check(ORG, "missing")


def test_a_backup_without_dotted_folders_is_checked_and_repaired(repository, folder, check):
    for dotted in (repository.tree.locks, repository.tree.temporary):
        for path in dotted.iterdir():
            path.unlink()
        dotted.rmdir()
    (folder / f"{WHEEL}.json").unlink()

    check(repair=True)

    assert check() == {}


def test_old_leftovers_are_swept_by_a_check(registry, repository, check):
    leftover = repository.receive()
    copy_into(leftover, io.BytesIO(CONTENT))
    leftover.sync()
    os.utime(leftover.path, (1, 1))

    assert check() == {}
    assert not leftover.path.exists()
    leftover.close()


def test_uploads_and_deletions_that_are_going_on_are_no_findings(tmp_path, repository, check):
    end = time.monotonic() + 1.5
    errors = []

    def change(number):
        try:
            own = Registry(tmp_path / "data").repository(ORG, REPO)
            filename, content = make_wheel(version=f"{number}.0")
            while time.monotonic() < end:
                add_to(own, filename, content)
                entry = own.delete_file("toolbox", filename, TESTER)
                own.restore_file("toolbox", entry.id, TESTER)
                own.delete_file("toolbox", filename, TESTER)
        except Exception as error:
            errors.append(error)
            raise

    threads = [threading.Thread(target=change, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    found, rounds = {}, 0
    while any(thread.is_alive() for thread in threads):
        found |= check(repair=True)
        rounds += 1
    for thread in threads:
        thread.join()

    assert rounds > 2
    assert errors == []
    assert found == {}


def test_a_finding_is_one_line():
    assert str(Finding("a/b", "it is damaged")) == "a/b: it is damaged"
    assert str(Finding("a/b", "it is lost", repaired=True)) == "a/b: it is lost (repaired)"


def test_a_check_reads_every_artifact_once(registry, folder):
    steps = []

    assert list(check_storage(registry, progress=lambda: steps.append(1))) == []

    assert len(steps) == artifact_count(registry) == 2
    assert hashlib.sha256((folder / WHEEL).read_bytes()).hexdigest() == hashlib.sha256(CONTENT).hexdigest()
    assert is_regular(folder / WHEEL)
