"""Sidecars: written and read back alike, and refused as a whole where they are not what was written."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta

import pytest

from storage.sidecars import Actor, Sidecar, file_from_json, format_time, new_id, now, parse_time
from tests.storage.makers import make_wheel


@pytest.fixture
def sidecar(add):
    made = make_wheel(
        "Tool_Box",
        requires=["packaging>=20; python_version < '4'"],
        requires_python=">=3.9",
        summary="größe",
        description="long",
        entry_points="[console_scripts]\ntool = toolbox:main\n",
        build="7a",
    )
    return add(*made).sidecar


def test_a_sidecar_is_read_back_as_it_was_written(sidecar):
    document = json.loads(json.dumps(sidecar.to_json()))

    assert Sidecar.from_json(document, sidecar.file.filename) == sidecar
    assert file_from_json(document, sidecar.file.filename) == sidecar.file


@pytest.mark.parametrize(("reason", "yanked"), [(None, False), ("", True), ("wrong tag", "wrong tag")])
def test_yanked_is_false_or_true_or_the_reason(sidecar, reason, yanked):
    changed = sidecar.with_yanked(reason)

    assert changed.file.yanked == yanked
    assert Sidecar.from_json(changed.to_json(), sidecar.file.filename) == changed


REQUIRED = ["id", "name", "filename", "size", "md5", "sha1", "sha256", "sha512", "blake2b_256", "upload_time"]


@pytest.mark.parametrize("key", REQUIRED)
@pytest.mark.parametrize("value", [None, [], {}, 1.5, True], ids=repr)
def test_a_sidecar_without_a_required_value_is_none(sidecar, key, value):
    document = {**sidecar.to_json(), key: value}

    with pytest.raises(ValueError, match=r".+"):
        Sidecar.from_json(document, sidecar.file.filename)


FALSE = [
    ("id", "../../../etc"),
    ("id", ""),
    ("size", -1),
    ("sha256", "A" * 64),
    ("sha256", "0" * 63),
    ("core_metadata_sha256", "<script>"),
    ("core_metadata_size", "7"),
    ("upload_time", "yesterday"),
    ("upload_time", "2026-11-24T09:30:00"),
    ("upload_time", "0001-01-01T00:00:00+14:00"),
    ("uploader", {"kind": "somebody"}),
    ("uploader", "x"),
    ("members", [["name"]]),
    ("members", 7),
    ("tags", "py3"),
    ("warnings", [1]),
    ("metadata", []),
    ("entry_points", []),
]


@pytest.mark.parametrize(("key", "value"), FALSE, ids=[f"{key} {value!r}" for key, value in FALSE])
def test_a_sidecar_with_a_false_value_is_none(sidecar, key, value):
    with pytest.raises(ValueError, match=r".+"):
        Sidecar.from_json({**sidecar.to_json(), key: value}, sidecar.file.filename)


def test_a_sidecar_speaks_for_its_own_file_only(sidecar):
    with pytest.raises(ValueError, match="another file"):
        Sidecar.from_json(sidecar.to_json(), "tool_box-2.0-py3-none-any.whl")
    with pytest.raises(ValueError, match="neither a wheel"):
        Sidecar.from_json({**sidecar.to_json(), "filename": "x.txt"}, "x.txt")


def test_project_and_version_come_from_the_file_name(sidecar):
    document = {**sidecar.to_json(), "project": "other", "version": "9.9"}

    read = Sidecar.from_json(document, sidecar.file.filename)

    assert (read.file.project, read.file.version) == ("tool-box", "1.0")


# --- pieces ---


def test_ids_are_uuids_of_version_7_in_the_order_of_time():
    first = uuid.UUID(new_id(datetime(2026, 1, 1, tzinfo=UTC)))
    later = uuid.UUID(new_id(datetime(2026, 1, 1, 0, 0, 1, tzinfo=UTC)))

    assert (first.version, first.variant) == (7, uuid.RFC_4122)
    assert first < later
    assert first.int >> 80 == int(datetime(2026, 1, 1, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    "when",
    [
        datetime(2026, 11, 24, 9, 30, tzinfo=UTC),
        datetime(2026, 11, 24, 9, 30, 0, 1, tzinfo=UTC),
        datetime(1970, 1, 1, tzinfo=UTC),
        datetime.max.replace(tzinfo=UTC),
    ],
    ids=str,
)
def test_times_are_read_back_to_the_microsecond(when):
    assert parse_time(format_time(when)) == when
    assert format_time(when).endswith("Z")


def test_now_is_aware_and_now():
    assert abs(now() - datetime.fromtimestamp(time.time(), UTC)) < timedelta(minutes=1)
    assert now().utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("actor", "words"),
    [
        (Actor("token", "0123", "CI"), "token 0123 (CI)"),
        (Actor("token", "0123"), "token 0123"),
        (Actor("user", "ada"), "user ada"),
        (Actor("command line"), "the command line"),
    ],
    ids=lambda value: str(value),
)
def test_who_did_something_is_said_in_words_and_kept(actor, words):
    assert str(actor) == words
    assert Actor.from_json(actor.to_json()) == actor
