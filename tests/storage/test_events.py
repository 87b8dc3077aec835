"""The record of what happened: append-only, one line each, and never in the way of the change itself."""

from __future__ import annotations

import json
import threading

from storage.events import read_events, record_event
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
