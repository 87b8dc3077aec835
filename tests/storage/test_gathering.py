"""What is gathered from all projects: nobody waits for minutes, nothing is taken for complete that is not."""

from __future__ import annotations

import json
import logging
import os
import threading
import time

import pytest

from storage import gathering
from storage.catalog import Catalog
from storage.downloads import DownloadTotals
from storage.errors import StillReading
from storage.files import Signature
from storage.gathering import Gathering, scan_folder
from storage.summaries import Summaries, read_summary
from tests.storage.makers import make_wheel

LONG = 20.0  # seconds; for what has to happen, but at no special time


class Numbers(Gathering[int]):
    """A number for each file in a folder; reading one waits as long as the test wants."""

    def __init__(self, folder):
        super().__init__(folder / ".numbers.json", folder)
        self.folder = folder
        self.may_read = threading.Event()
        self.may_read.set()
        self.begun = threading.Event()
        self.read_names: list[str] = []

    def scan(self):
        return scan_folder(self.folder)

    def path(self, project):
        return self.folder / project

    def read(self, project):
        text = self.path(project).read_text()
        self.read_names.append(project)
        self.begun.set()
        assert self.may_read.wait(LONG)
        return int(text)

    def from_json(self, _project, written):
        return int(written)


@pytest.fixture
def numbers(tmp_path) -> Numbers:
    return Numbers(tmp_path)


@pytest.fixture
def write(tmp_path):
    """Write the number of a project, with a time stamp of its own, long ago."""
    times = iter(range(1_000_000_000, 1_000_001_000))

    def write(name: str, number: object) -> None:
        (tmp_path / name).write_text(str(number))
        os.utime(tmp_path / name, (next(times),) * 2)

    return write


@pytest.fixture
def _very_many(monkeypatch):
    """A single project is too many to be waited for with special patience."""
    monkeypatch.setattr(gathering, "FEW", 0)


@pytest.fixture
def _settled(monkeypatch):
    monkeypatch.setattr(Signature, "is_settled", lambda self: True)


def wait_for_the_thread(numbers: Gathering) -> None:
    deadline = time.monotonic() + LONG
    while numbers._thread is not None:
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_few_are_read_at_once(numbers, write):
    write("one", 1)
    write("two", 2)

    found = numbers.look(LONG)

    assert (found.values, found.missing) == ({"one": 1, "two": 2}, 0)


@pytest.mark.usefixtures("_very_many")
def test_a_look_ends_with_its_patience_and_says_what_is_missing_while_reading_goes_on(numbers, write):
    for number in range(3):
        write(f"p{number}", number)
    numbers.may_read.clear()

    early = numbers.look(0.01)
    numbers.may_read.set()
    wait_for_the_thread(numbers)
    later = numbers.look(0.0)

    assert (early.values, early.missing) == ({}, 3)
    assert later.values == {"p0": 0, "p1": 1, "p2": 2}


@pytest.mark.usefixtures("_settled", "_very_many")
def test_while_very_many_are_read_only_the_first_look_waits(numbers, write):
    write("one", 1)
    numbers.may_read.clear()
    numbers.look(0.01)

    started = time.monotonic()
    assert numbers.look(LONG).missing == 1
    assert time.monotonic() - started < LONG / 2

    numbers.may_read.set()
    wait_for_the_thread(numbers)
    assert numbers.look(0.0).missing == 0
    write("two", 2)
    assert numbers.look(LONG).values == {"one": 1, "two": 2}


def test_what_changed_last_is_read_first(numbers, write):
    for name in ("old", "newer", "newest"):
        write(name, 1)

    numbers.look(LONG)

    assert numbers.read_names == ["newest", "newer", "old"]


@pytest.mark.usefixtures("_settled")
def test_few_are_waited_for_even_without_patience(numbers, write):
    write("one", 1)
    numbers.may_read.clear()
    threading.Timer(0.05, numbers.may_read.set).start()

    assert numbers.look(0.0).values == {"one": 1}


@pytest.mark.usefixtures("_settled")
def test_what_changes_while_it_is_read_is_read_again(numbers, write, monkeypatch):
    write("one", 1)
    numbers.may_read.clear()
    with monkeypatch.context() as very_many:
        very_many.setattr(gathering, "FEW", 0)
        numbers.look(0.0)
    assert numbers.begun.wait(LONG)

    write("one", 2)
    threading.Timer(0.05, numbers.may_read.set).start()
    found = numbers.look(LONG)

    assert (found.values, found.missing) == ({"one": 2}, 0)


@pytest.mark.usefixtures("_settled")
def test_only_what_changed_is_read_and_a_change_gives_another_version(numbers, write):
    write("one", 1)
    write("two", 2)
    first = numbers.look(LONG)
    numbers.read_names.clear()

    again = numbers.look(LONG)
    write("two", 3)
    changed = numbers.look(LONG)
    numbers.path("one").unlink()
    gone = numbers.look(LONG)

    assert numbers.read_names == ["two"]
    assert first.version == again.version < changed.version < gone.version
    assert gone.values == {"two": 3}


@pytest.mark.usefixtures("_settled")
def test_one_that_cannot_be_read_counts_as_missing_is_logged_and_is_in_nobodys_way(numbers, write, caplog):
    write("bad", "no number")
    write("good", 1)

    found = numbers.look(LONG)
    write("other", 2)
    later = numbers.look(LONG)
    write("bad", 3)
    mended = numbers.look(LONG)

    assert (found.values, found.missing) == ({"good": 1}, 1)
    assert (later.values, later.missing) == ({"good": 1, "other": 2}, 1)
    assert (mended.values, mended.missing) == ({"good": 1, "other": 2, "bad": 3}, 0)
    assert f"{numbers.path('bad')} could not be read" in caplog.text


@pytest.mark.usefixtures("_settled")
def test_after_a_failure_the_next_look_goes_on(numbers, write, monkeypatch, caplog):
    monkeypatch.setattr(gathering, "UNWRITTEN", 1)
    write("one", 1)
    monkeypatch.setattr(Numbers, "to_json", lambda self, value: 1 / 0)
    numbers.look(LONG)
    monkeypatch.undo()

    write("two", 2)

    assert numbers.look(LONG).values == {"one": 1, "two": 2}
    assert "the next look goes on" in caplog.text


@pytest.mark.usefixtures("_settled")
def test_a_new_process_reads_what_stands_in_the_derived_file_from_there(numbers, write, monkeypatch, tmp_path):
    monkeypatch.setattr(gathering, "UNWRITTEN", 2)
    write("one", 1)
    write("two", 2)
    numbers.look(LONG)
    write("two", 3)

    fresh = Numbers(tmp_path)

    assert fresh.look(LONG).values == {"one": 1, "two": 3}
    assert fresh.read_names == ["two"]


@pytest.mark.usefixtures("_settled")
def test_very_many_are_written_in_between_so_that_a_restart_goes_on(numbers, write, monkeypatch, tmp_path):
    monkeypatch.setattr(gathering, "WRITE_INTERVAL", -1.0)
    write("one", 1)

    numbers.look(LONG)

    assert json.loads((tmp_path / ".numbers.json").read_bytes())["projects"].keys() == {"one"}


def test_a_derived_file_that_cannot_be_written_is_done_without(numbers, write, monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(gathering, "UNWRITTEN", 1)
    (tmp_path / ".numbers.json").mkdir()
    write("one", 1)

    with caplog.at_level(logging.WARNING):
        assert numbers.look(LONG).values == {"one": 1}
    assert "could not be written" in caplog.text


@pytest.mark.usefixtures("_very_many")
def test_the_thread_ends_with_its_work_and_keeps_no_process_alive(numbers, write):
    write("one", 1)
    numbers.may_read.clear()
    numbers.look(0.0)
    thread = numbers._thread

    assert thread.daemon
    numbers.may_read.set()
    thread.join(LONG)
    assert not thread.is_alive()


# --- what is gathered of a repository ---


@pytest.fixture
def kinds(repository):
    """Ask each kind of list anew, as another process would: by the derived file that it has."""
    tree = repository.tree
    return {
        tree.summaries_file: lambda: Summaries(tree).overview().projects,
        tree.catalog_file: lambda: Catalog(tree).newest_first(),
        tree.totals_file: lambda: DownloadTotals(tree).look(LONG).values,
    }


@pytest.mark.usefixtures("_settled")
@pytest.mark.parametrize("kind", range(3), ids=["summaries", "catalog", "downloads"])
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b"{", b"[]", b"[" * 9999, b'{"format": 1}', b'{"format": 9}'),
        b'{"format": 1, "projects": {"one": 1}}',
        b'{"format": 1, "projects": {"one": [[1, 2, 3, 4], [["a", "b"]]]}}',
    ],
)
def test_a_derived_file_may_be_deleted_or_damaged(
    registry, repository, add, monkeypatch, kinds, kind, content, caplog
):
    monkeypatch.setattr(gathering, "UNWRITTEN", 1)
    add(*make_wheel("one"))
    registry.downloads.count(repository.tree, "one", "one-1.0-py3-none-any.whl")
    registry.downloads.flush()
    path, ask = list(kinds.items())[kind]
    expected = ask()
    whole = path.read_bytes()
    assert expected
    assert json.loads(whole)["projects"].keys() == {"one"}

    path.write_bytes(content)
    assert ask() == expected
    assert ("is damaged" in caplog.text) == (content != b'{"format": 9}')
    assert path.read_bytes() == whole
    path.unlink()
    assert ask() == expected
    assert path.read_bytes() == whole


@pytest.mark.usefixtures("_very_many")
def test_a_list_for_programs_is_never_short(repository, add, monkeypatch):
    add(*make_wheel("one"))
    monkeypatch.setattr("storage.catalog.PATIENCE", 0.01)
    may_read = threading.Event()
    monkeypatch.setattr("storage.catalog.read_entries", lambda tree, project: may_read.wait(LONG) and ())
    catalog = Catalog(repository.tree)

    for ask in (catalog.newest_first, catalog.version_counts):
        with pytest.raises(StillReading, match="1 project of acme/main has not been read"):
            ask()
    may_read.set()
    wait_for_the_thread(catalog._projects)
    monkeypatch.setattr(gathering, "FEW", 1)

    assert list(catalog.newest_first()) == []


@pytest.mark.usefixtures("_very_many")
def test_an_overview_says_how_much_of_it_is_missing(repository, add, monkeypatch):
    add(*make_wheel("one"))
    monkeypatch.setattr("storage.summaries.PATIENCE", 0.01)
    monkeypatch.setattr("storage.summaries.SOON", 0.0)
    may_read = threading.Event()
    monkeypatch.setattr("storage.summaries.read_summary", lambda *what: may_read.wait(LONG) and read_summary(*what))
    summaries = Summaries(repository.tree)

    early = summaries.overview()
    may_read.set()
    wait_for_the_thread(summaries._projects)
    monkeypatch.setattr(gathering, "FEW", 1)
    later = summaries.overview()

    assert (early.projects, early.missing, early.is_empty) == ((), 1, False)
    assert ([summary.project for summary in later.projects], later.missing) == (["one"], 0)
