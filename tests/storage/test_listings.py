"""What is kept of a project's files is what a fresh reading of the tree finds, whatever happens in between."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
import threading
import time
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import storage.listings
import storage.simple
from storage.errors import FileAlreadyExists, FileNotFound, ProjectNotFound
from storage.listings import Listings, note_replacing
from storage.registry import Registry
from storage.repository import RepositorySettings
from storage.simple import project_detail
from storage.statuses import ProjectClosed, ProjectStatus, Status
from storage.watching import Watch
from tests.conftest import ORG, REPO, TESTER, add_to
from tests.storage.makers import make_wheel


@pytest.fixture
def listings():
    """The listings of a process that has just begun."""
    return Listings()


@pytest.fixture
def settled(monkeypatch):
    """Take time stamps for settled at once: whoever uses this makes no two changes within a tick of the clock."""
    for module in (storage.listings, storage.files):
        monkeypatch.setattr(module, "COARSE_CLOCK", -1.0)


@pytest.fixture
def everything_is_large(monkeypatch):
    """Take every folder for a large one, where only what is new is looked at."""
    monkeypatch.setattr(storage.listings, "MANY", 0)
    monkeypatch.setattr(storage.listings, "LARGE", 0)


@pytest.fixture
def looked_at(monkeypatch):
    """The names that are looked at, as they are."""
    names = []
    look_at = storage.listings.look_at

    def noted(folder, filename):
        names.append(filename)
        return look_at(folder, filename)

    monkeypatch.setattr(storage.listings, "look_at", noted)
    return names


def wheel(version):
    return make_wheel("toolbox", version)


def names(listing):
    return [file.filename for file in listing.detail.files]


def tick():
    time.sleep(0.02)  # two ticks of the clock that stamps files


# --- what is looked at ---


def test_nothing_is_looked_at_while_the_folder_is_as_it_was(repository, add, listings, settled, looked_at):
    add(*wheel("1.0"))
    tick()
    first = listings.listing(repository.tree, "toolbox")
    looked_at.clear()

    again = listings.listing(repository.tree, "toolbox")

    assert again is first
    assert looked_at == []


@pytest.mark.usefixtures("settled", "everything_is_large")
def test_after_one_more_file_only_that_one_is_looked_at(repository, add, listings, looked_at):
    for version in ("1.0", "3.0"):
        add(*wheel(version))
    tick()
    listings.listing(repository.tree, "toolbox")
    looked_at.clear()

    filename, _ = add(*wheel("2.0")).sidecar.file.filename, tick()
    listing = listings.listing(repository.tree, "toolbox")

    assert looked_at == [filename]
    assert names(listing) == [wheel(version)[0] for version in ("1.0", "2.0", "3.0")]


@pytest.mark.usefixtures("settled", "everything_is_large")
def test_everything_is_looked_at_after_a_file_was_replaced(repository, add, listings, looked_at):
    for version in ("1.0", "2.0"):
        add(*wheel(version))
    tick()
    listings.listing(repository.tree, "toolbox")
    looked_at.clear()

    repository.yank_file("toolbox", wheel("1.0")[0], "broken", TESTER)
    listing = listings.listing(repository.tree, "toolbox")

    assert sorted(looked_at) == [wheel("1.0")[0], wheel("2.0")[0]]
    assert [file.yanked_reason for file in listing.detail.files] == ["broken", None]


@pytest.mark.usefixtures("settled", "everything_is_large")
def test_everything_is_looked_at_after_a_file_was_mended(repository, add, listings):
    add(*wheel("1.0"))
    tick()
    listings.listing(repository.tree, "toolbox")

    repository.tree.sidecar("toolbox", wheel("1.0")[0]).unlink()
    add(*wheel("1.0"))
    tick()

    # The sidecar that was written anew has another time.
    assert listings.listing(repository.tree, "toolbox").detail == project_detail(repository.tree, "toolbox")


@pytest.mark.usefixtures("settled", "everything_is_large")
def test_a_file_changed_in_place_is_seen_by_the_next_thorough_look(repository, add, listings, monkeypatch):
    add(*wheel("1.0"))
    tick()
    assert names(listings.listing(repository.tree, "toolbox")) == [wheel("1.0")[0]]

    repository.tree.artifact("toolbox", wheel("1.0")[0]).write_bytes(b"x")
    later = time.monotonic() + 1.1
    monkeypatch.setattr(storage.listings.time, "monotonic", lambda: later)

    assert names(listings.listing(repository.tree, "toolbox")) == []


@pytest.mark.usefixtures("settled", "everything_is_large")
def test_an_overdue_look_is_put_off_for_an_upload_but_once(repository, add, listings, looked_at, monkeypatch):
    add(*wheel("1.0"))
    tick()
    listings.listing(repository.tree, "toolbox")
    later = time.monotonic() + 1.1
    monkeypatch.setattr(storage.listings.time, "monotonic", lambda: later)
    counts = []

    for version in ("2.0", "3.0", "4.0"):
        add(*wheel(version))
        tick()
        looked_at.clear()
        listings.listing(repository.tree, "toolbox")
        counts.append(len(looked_at))

    assert counts == [1, 3, 1]


@pytest.mark.usefixtures("settled", "everything_is_large")
def test_what_is_said_while_the_folder_is_read_is_heard(repository, add, listings, looked_at, monkeypatch):
    for version in ("1.0", "2.0"):
        add(*wheel(version))
    tick()
    listings.listing(repository.tree, "toolbox")
    looked_at.clear()
    names_in = storage.listings._names_in

    def say_meanwhile(folder):
        note_replacing(repository.tree)
        return names_in(folder)

    monkeypatch.setattr(storage.listings, "_names_in", say_meanwhile)
    os.utime(repository.tree.project("toolbox"))
    listings.listing(repository.tree, "toolbox")

    assert len(looked_at) == 2


@pytest.mark.usefixtures("settled", "everything_is_large")
def test_where_nothing_can_be_said_everything_is_looked_at(repository, add, listings, looked_at):
    add(*wheel("1.0"))
    repository.tree.index.write_text("in the way")
    tick()
    listings.listing(repository.tree, "toolbox")
    looked_at.clear()

    os.utime(repository.tree.project("toolbox"))
    listings.listing(repository.tree, "toolbox")

    assert looked_at == [wheel("1.0")[0]]


def test_every_word_of_a_change_is_another_signature_within_a_tick(repository):
    seen = set()

    for _ in range(5_000):
        note_replacing(repository.tree)
        status = repository.tree.replacing_file.stat()
        seen.add((status.st_size, status.st_mtime_ns))

    assert len(seen) == 5_000


def test_many_threads_that_want_a_project_at_once_read_it_once(repository, add, listings, monkeypatch):
    for version in ("1.0", "2.0"):
        add(*wheel(version))
    for module in (storage.listings, storage.files):
        monkeypatch.setattr(module, "COARSE_CLOCK", -1.0)
    tick()
    judged = []
    judge = storage.listings.judge

    def slowly(folder, filename, stats):
        judged.append(filename)
        time.sleep(0.05)
        return judge(folder, filename, stats)

    monkeypatch.setattr(storage.listings, "judge", slowly)
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(listings.listing(repository.tree, "toolbox")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(judged) == 2
    assert [names(listing) for listing in found] == [[wheel("1.0")[0], wheel("2.0")[0]]] * 8


def test_no_more_is_kept_than_it_may_be(repository, add):
    listings = Listings(most=20)
    for i in range(20):
        add(*make_wheel(f"project-{i}", "1.0"))
        listings.listing(repository.tree, f"project-{i}")

    assert 0 < len(listings._kept) <= 10
    assert listings._held <= 20

    for i in range(20):
        repository.delete_file(f"project-{i}", make_wheel(f"project-{i}", "1.0")[0], TESTER)
        with pytest.raises(ProjectNotFound):
            listings.listing(repository.tree, f"project-{i}")
    assert listings._held == len(listings._kept) == 0


def test_what_is_damaged_is_listed_as_soon_as_it_is_mended(repository, add, listings):
    filename, content = wheel("1.0")
    add(filename, content)
    repository.tree.artifact("toolbox", filename).write_bytes(b"x")
    assert names(listings.listing(repository.tree, "toolbox")) == []

    add(filename, content)

    assert names(listings.listing(repository.tree, "toolbox")) == [filename]


@pytest.mark.usefixtures("everything_is_large")
def test_what_has_just_changed_is_judged_again_in_every_look(repository, add, listings, judged):
    add(*wheel("1.0"))

    found = [listings.listing(repository.tree, "toolbox") for _ in range(3)]

    assert judged == [wheel("1.0")[0]] * 3
    assert found[0] is not found[1]


@pytest.mark.usefixtures("settled", "everything_is_large")
def test_a_file_that_could_not_be_read_is_judged_again_in_the_next_look(repository, add, listings, monkeypatch):
    add(*wheel("1.0"))
    tick()
    monkeypatch.setattr(storage.listings, "judge", lambda *_: (None, False))
    assert names(listings.listing(repository.tree, "toolbox")) == []
    monkeypatch.undo()

    os.utime(repository.tree.project("toolbox"))

    assert names(listings.listing(repository.tree, "toolbox")) == [wheel("1.0")[0]]


# --- the watch of an answer ---


@pytest.fixture
def watched(repository, add, listings, settled):
    """A watch on the listing of a project with two files, and what makes it look thoroughly."""
    for version in ("1.0", "2.0"):
        add(*wheel(version))
    tick()
    watch = Watch([], repository.tree.project("toolbox"), repository.tree.events_file)
    watch.add(listings.listing(repository.tree, "toolbox").watch)
    return watch


def later(monkeypatch):
    now = time.monotonic() + 1.1
    monkeypatch.setattr(storage.listings.time, "monotonic", lambda: now)


def test_an_answer_holds_while_nothing_happens(watched, monkeypatch):
    assert watched.holds({})
    later(monkeypatch)
    assert watched.holds({})


@pytest.mark.parametrize("suffix", ["", ".json", ".metadata"])
def test_an_answer_holds_no_longer_once_a_file_was_changed_in_place(watched, repository, monkeypatch, suffix):
    path = repository.tree.project("toolbox") / f"{wheel('1.0')[0]}{suffix}"

    path.write_bytes(path.read_bytes())
    later(monkeypatch)

    assert not watched.holds({})


def test_an_answer_holds_no_longer_once_the_status_was_changed(watched, repository):
    repository.change_status("toolbox", ProjectStatus(Status.QUARANTINED), TESTER)

    assert not watched.holds({})


# --- the derived file ---


@pytest.fixture
def derived(repository, add, listings, settled, monkeypatch):
    """The derived file of a project with three files."""
    monkeypatch.setattr(storage.listings, "MIN_DERIVED", 3)
    for version in ("1.0", "1.10", "1.9"):
        add(*make_wheel("toolbox", version, requires_python=">=3.8"))
    repository.yank_file("toolbox", wheel("1.9")[0], "bröken", TESTER)
    tick()
    listings.listing(repository.tree, "toolbox")
    return repository.tree.listing_file("toolbox")


@pytest.fixture
def judged(monkeypatch):
    """The names that are judged, as they are."""
    names = []
    judge = storage.listings.judge

    def noted(folder, filename, stats):
        names.append(filename)
        return judge(folder, filename, stats)

    monkeypatch.setattr(storage.listings, "judge", noted)
    return names


def test_a_new_process_judges_nothing_that_the_derived_file_knows(repository, derived, judged):
    listing = Listings().listing(repository.tree, "toolbox")

    assert judged == []
    assert listing.detail == project_detail(repository.tree, "toolbox")
    assert names(listing) == [wheel(version)[0] for version in ("1.0", "1.9", "1.10")]


def test_a_new_process_judges_what_has_changed_since(repository, derived, judged):
    filename = wheel("1.9")[0]
    repository.unyank_file("toolbox", filename, TESTER)
    repository.delete_file("toolbox", wheel("1.0")[0], TESTER)
    tick()

    listing = Listings().listing(repository.tree, "toolbox")

    assert judged == [filename]
    assert listing.detail == project_detail(repository.tree, "toolbox")


def rewritten(change):
    def damage(path):
        rows = json.loads(path.read_bytes().partition(b"\n")[2])
        change(rows)
        write(path, json.dumps(rows).encode())

    return damage


def write(path, body):
    head = {"format": 1, "blake2b": storage.listings.hashlib.blake2b(body).hexdigest()}
    path.write_bytes(json.dumps(head).encode() + b"\n" + body)


def set_cell(column, value):
    return rewritten(lambda rows: rows[0].__setitem__(column, value))


HARMS = {
    "emptied": lambda path: path.write_bytes(b""),
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-10]),
    "one bit": lambda path: path.write_bytes(path.read_bytes().replace(b">=3.8", b">=3.9", 1)),
    "no object at its head": lambda path: path.write_bytes(b"[]\n[]"),
    "no list": lambda path: write(path, b"1"),
    "nested": lambda path: write(path, b"[" * 100_000),
    "no rows": lambda path: write(path, b"[1]"),
    "a short row": rewritten(lambda rows: rows[0].pop()),
    "a number as a name": set_cell(0, 3),
    "a name of another project": set_cell(0, "anvil-1.0-py3-none-any.whl"),
    "another version": set_cell(1, "7.0"),
    "a kind that is none": set_cell(2, "bdist_egg"),
    "a negative size": set_cell(3, -1),
    "true as a size": set_cell(3, True),
    "a digest that is none": set_cell(4, '"><script>'),
    "no digest": set_cell(4, None),
    "a time that is none": set_cell(5, "yesterday"),
    "a number as requires-python": set_cell(6, 3),
    "half a surrogate pair": set_cell(6, "\ud800"),
    "a metadata digest that is none": set_cell(7, "x"),
    "true as a reason": set_cell(8, True),
    "a stamp that is none": set_cell(9, "%"),
    "a link": lambda path: (path.unlink(), path.symlink_to("/etc/passwd")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("harm", HARMS.values(), ids=HARMS.keys())
def test_a_damaged_derived_file_changes_nothing(repository, derived, harm, caplog):
    true = project_detail(repository.tree, "toolbox")

    harm(derived)

    with caplog.at_level(logging.ERROR):
        assert Listings().listing(repository.tree, "toolbox").detail == true
        assert Listings().listing(repository.tree, "toolbox").detail == true
    assert caplog.records == []


@pytest.mark.parametrize("harm", [HARMS["truncated"], HARMS["a negative size"]], ids=["truncated", "false"])
def test_a_damaged_derived_file_is_reported_and_written_anew(repository, derived, harm, judged, caplog):
    harm(derived)

    with caplog.at_level(logging.WARNING):
        Listings().listing(repository.tree, "toolbox")
    judged.clear()
    Listings().listing(repository.tree, "toolbox")

    assert [record.getMessage().partition(" (")[0] for record in caplog.records] == [f"{derived} is damaged"]
    assert judged == []


def test_the_derived_folder_may_be_deleted_at_any_time(repository, add, derived, listings, judged):
    shutil.rmtree(repository.tree.index)

    assert names(listings.listing(repository.tree, "toolbox")) == names(
        Listings().listing(repository.tree, "toolbox")
    )
    assert derived.exists()
    repository.yank_file("toolbox", wheel("1.0")[0], "", TESTER)
    assert listings.listing(repository.tree, "toolbox").detail == project_detail(repository.tree, "toolbox")


def test_a_project_of_few_files_has_no_derived_file(repository, add, listings, settled):
    for i in range(5):
        add(*wheel(f"1.{i}"))
        tick()
        listings.listing(repository.tree, "toolbox")

    assert not repository.tree.index.exists()


@pytest.mark.usefixtures("settled", "everything_is_large")
def test_a_repository_made_anew_under_the_same_name_shows_its_own_files(registry, repository, add, listings):
    filename, content = wheel("1.0")
    add(filename, content)
    listings.listing(repository.tree, "toolbox")

    registry.delete_repository(ORG, REPO)
    anew = registry.create_repository(ORG, REPO, RepositorySettings(name="Anew"))
    other = make_wheel("toolbox", "1.0", summary="other bytes")
    add_to(anew, *other)

    assert listings.listing(anew.tree, "toolbox").detail == project_detail(anew.tree, "toolbox")


# --- histories ---

VERSIONS = ["0.9", "1.0", "1.10", "2.0"]


@lru_cache
def content_of(version: str, variant: int) -> tuple[str, bytes]:
    return make_wheel("toolbox", version, summary=f"variant {variant}")


class History(RuleBasedStateMachine):
    """Changes a project in every way, in two processes; what each of them keeps is what a fresh reading finds."""

    large = False

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        registry = Registry(self.folder / "data")
        registry.create_organization(ORG)
        self.repository = registry.create_repository(
            ORG, REPO, RepositorySettings(name="Main", reuse_filenames=True)
        )
        self.processes = [Listings(), Listings()]
        self.trash: list[str] = []
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(storage.listings, "MIN_DERIVED", 2)
        if self.large:
            self.patch.setattr(storage.listings, "MANY", 0)
            self.patch.setattr(storage.listings, "LARGE", 0)

    def teardown(self) -> None:
        self.patch.undo()
        shutil.rmtree(self.folder)

    @initialize(aged=st.booleans())
    def begin(self, aged):
        """Let time stamps count as settled in half of the histories: each change takes longer than a tick then."""
        self.aged = aged
        if aged:
            for module in (storage.listings, storage.files):
                self.patch.setattr(module, "COARSE_CLOCK", 0.001)

    @rule(version=st.sampled_from(VERSIONS), variant=st.integers(0, 1))
    def publish(self, version, variant):
        with suppress(FileAlreadyExists, ProjectClosed):
            add_to(self.repository, *content_of(version, variant))

    @rule(version=st.sampled_from(VERSIONS))
    def delete(self, version):
        with suppress(FileNotFound):
            entry = self.repository.delete_file("toolbox", content_of(version, 0)[0], TESTER)
            self.trash.append(entry.id)

    @rule(data=st.data())
    @precondition(lambda self: self.trash)
    def restore(self, data):
        with suppress(FileNotFound, FileAlreadyExists):
            self.repository.restore_file("toolbox", data.draw(st.sampled_from(self.trash)), TESTER)

    @rule(version=st.sampled_from(VERSIONS), reason=st.sampled_from([None, "", "aa", "bb"]))
    def yank(self, version, reason):
        with suppress(FileNotFound):
            if reason is None:
                self.repository.unyank_file("toolbox", content_of(version, 0)[0], TESTER)
            else:
                self.repository.yank_file("toolbox", content_of(version, 0)[0], reason, TESTER)

    @rule(version=st.sampled_from(VERSIONS))
    def yank_twice_so_that_an_inode_may_come_back(self, version):
        with suppress(FileNotFound):
            for reason in ("cc", "dd", "ee"):
                self.repository.yank_file("toolbox", content_of(version, 0)[0], reason, TESTER)

    @rule(version=st.sampled_from(VERSIONS), variant=st.integers(0, 1))
    def put_other_bytes_in_its_place(self, version, variant):
        with suppress(FileNotFound, ProjectClosed):
            self.repository.delete_file("toolbox", content_of(version, 0)[0], TESTER)
            add_to(self.repository, *content_of(version, variant))

    @rule(version=st.sampled_from(VERSIONS), variant=st.integers(0, 1))
    def lose_the_sidecar_and_send_the_file_again(self, version, variant):
        filename, content = content_of(version, variant)
        self.repository.tree.sidecar("toolbox", filename).unlink(missing_ok=True)
        with suppress(FileAlreadyExists, ProjectClosed):
            add_to(self.repository, filename, content)

    @rule(status=st.sampled_from([Status.ACTIVE, Status.DEPRECATED, Status.QUARANTINED]))
    def change_status(self, status):
        with suppress(ProjectNotFound):
            self.repository.change_status("toolbox", ProjectStatus(status), TESTER)

    @rule(which=st.integers(0, 1))
    def restart(self, which):
        self.processes[which] = Listings()

    @rule(which=st.integers(0, 1))
    def look(self, which):
        assert self.kept(which) == self.fresh()

    @rule()
    def lose_the_derived_folder(self):
        shutil.rmtree(self.repository.tree.index, ignore_errors=True)

    @rule(
        version=st.sampled_from(VERSIONS),
        suffix=st.sampled_from(["", ".json", ".metadata"]),
        damage=st.sampled_from(["gone", "emptied", "other"]),
    )
    def damage(self, version, suffix, damage):
        path = self.repository.tree.project("toolbox") / f"{content_of(version, 0)[0]}{suffix}"
        if not path.exists():
            return
        if damage == "gone":
            path.unlink()
        else:
            path.write_bytes(b"" if damage == "emptied" else b"x" * path.stat().st_size)
        for process in self.processes:  # a second passes
            for key, listing in process._kept.items():
                process._kept[key] = storage.listings.replace(listing, look_again=0.0)

    @invariant()
    def what_is_kept_is_what_is_there(self):
        if hasattr(self, "aged"):
            if self.aged:
                tick()
            assert self.kept(0) == self.fresh()

    def kept(self, which):
        with suppress(ProjectNotFound):
            listing = self.processes[which].listing(self.repository.tree, "toolbox")
            if listing.is_postponed:
                listing = self.processes[which].listing(self.repository.tree, "toolbox")
            return listing.detail
        return None

    def fresh(self):
        storage.simple._read_sidecar.cache_clear()
        storage.simple._hash_file.cache_clear()
        with suppress(ProjectNotFound):
            return project_detail(self.repository.tree, "toolbox")
        return None


class HistoryOfALargeFolder(History):
    """The same, where only what is new is looked at."""

    large = True


some = settings(
    max_examples=25,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
)
TestHistory = History.TestCase
TestHistoryOfALargeFolder = HistoryOfALargeFolder.TestCase
TestHistory.settings = TestHistoryOfALargeFolder.settings = some
