"""The record of what happened: append-only, one line each, and never in the way of the change itself."""

from __future__ import annotations

import json
import threading

import pytest

from storage import events as events_module
from storage.events import newest_events, read_events, record_event
from storage.files import is_directory
from tests.conftest import TESTER
from tests.storage.makers import make_wheel

WHEEL = "toolbox-1.0-py3-none-any.whl"


def test_every_change_is_recorded_with_who_and_what(repository, add):
    added = add(*make_wheel())
    add(*make_wheel())  # no change
    repository.yank_file("toolbox", WHEEL, "why", TESTER)
    repository.unyank_file("toolbox", WHEEL, TESTER)
    entry = repository.delete_file("toolbox", WHEEL, TESTER)
    repository.restore_file("toolbox", entry.id, TESTER)

    events = list(read_events(repository.tree.events_file))
    assert [event["event"] for event in events] == ["published", "yanked", "unyanked", "deleted", "restored"]
    for event in events:
        assert event["by"] == {"kind": "command line", "description": "test"}
        assert event["filename"] == WHEEL
        assert event["sha256"] == added.sidecar.file.sha256
        assert event["time"].endswith("Z")


def test_torn_and_foreign_lines_are_passed_over(tmp_path):
    path = tmp_path / "events.jsonl"
    record_event(path, "first", TESTER)
    with path.open("ab") as file:
        file.write(b'[1]\n\xff\xfe\n{"torn": ')
    record_event(path, "second", TESTER, odd="\u2028\n")

    events = list(read_events(path))

    assert [event["event"] for event in events] == ["first", "second"]
    assert events[1]["odd"] == "\u2028\n"
    assert list(read_events(tmp_path / "missing")) == []


def test_lines_of_many_writers_do_not_mix(tmp_path):
    path = tmp_path / "events.jsonl"

    def write(number):
        for n in range(20):
            record_event(path, "e", TESTER, number=number, n=n, filler="x" * 500)

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    seen = [(event["number"], event["n"]) for event in map(json.loads, path.read_text().splitlines())]
    assert sorted(seen) == [(number, n) for number in range(4) for n in range(20)]


def test_a_change_stands_although_it_could_not_be_recorded(repository, add, caplog):
    repository.tree.events_file.unlink()
    repository.tree.events_file.mkdir()

    added = add(*make_wheel())

    assert added.created
    assert [file.filename for file in repository.project("toolbox").files] == [WHEEL]
    assert "could not be recorded" in caplog.text
    assert is_directory(repository.tree.events_file)


# --- from the end ---


def test_the_newest_events_come_page_by_page(tmp_path):
    path = tmp_path / "events.jsonl"
    for number in range(120):
        record_event(path, "published", TESTER, filename=f"file {number}", padding="x" * number * 20)

    seen, before = [], None
    while True:
        page = newest_events(path, before=before, number=50)
        seen += [event.fact("filename") for event in page.events]
        if page.older is None:
            break
        before = page.older

    assert seen == [f"file {number}" for number in reversed(range(120))]


def test_only_the_events_that_are_wanted_come(tmp_path):
    path = tmp_path / "events.jsonl"
    for number in range(10):
        record_event(path, "yanked" if number % 3 == 0 else "published", TESTER, filename=str(number))

    page = newest_events(path, lambda event: event.kind == "yanked", number=3)

    assert [event.fact("filename") for event in page.events] == ["9", "6", "3"]
    assert [e.fact("filename") for e in newest_events(path, before=page.older).events] == ["2", "1", "0"]


def test_a_page_of_events_costs_the_same_however_long_the_file_is(tmp_path, monkeypatch):
    monkeypatch.setattr(events_module, "MAX_LOOKED_AT", 10_000)
    path = tmp_path / "events.jsonl"
    record_event(path, "yanked", TESTER)
    line = b'{"time": "2026-11-24T09:30:00.000000Z", "event": "published", "by": {"kind": "command line"}}\n'
    with path.open("ab") as file:
        file.write(line * 1000)
    looked_at = []

    page = newest_events(path, lambda event: looked_at.append(event) or event.kind == "yanked")

    assert page.events == []
    assert len(looked_at) <= 10_000 / len(line) + 1
    assert page.older == path.stat().st_size - len(line) * len(looked_at)


@pytest.mark.parametrize("before", [-5, 0, 1, 7, 10**9])
def test_no_place_in_the_file_breaks_a_page_of_events(tmp_path, before):
    path = tmp_path / "events.jsonl"
    record_event(path, "first", TESTER)
    with path.open("ab") as file:
        file.write(b'[1]\n\xff\xfe\n{"time": 1, "event": 2, "by": 3}\n\n{"torn": ')

    assert [event.kind for event in newest_events(path, before=before).events] == (
        ["first"] if before > 100 else []
    )


def test_a_line_that_is_no_event_and_without_end_is_passed_over(tmp_path, monkeypatch):
    monkeypatch.setattr(events_module, "BLOCK", 100)
    monkeypatch.setattr(events_module, "MAX_LOOKED_AT", 2000)
    path = tmp_path / "events.jsonl"
    record_event(path, "first", TESTER)
    with path.open("ab") as file:
        file.write(b"x" * 5000 + b"\n")
    record_event(path, "last", TESTER)

    seen, before = [], None
    for _ in range(10):
        page = newest_events(path, before=before)
        seen += [event.kind for event in page.events]
        before = page.older
        if before is None:
            break

    assert seen == ["last", "first"]
    assert before is None


def test_without_a_file_there_are_no_events(tmp_path):
    assert newest_events(tmp_path / "events.jsonl").events == []
