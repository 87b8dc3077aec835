"""Asking what publishing would say: check.json and ``packhouse check-file``."""

from __future__ import annotations

import io

import pytest
from click.testing import CliRunner

from cli import program
from tests.conftest import ORG, REPO, TESTER, basic
from tests.storage.makers import make_wheel


@pytest.fixture
def check(client, tokens):
    """Ask about a made file as curl does."""

    def check(filename: str, content: bytes, credential: str = tokens.write):
        form = {"package[package_file]": (io.BytesIO(content), filename)}
        url = f"/api/v1/repos/{ORG}/{REPO}/packages/check.json"
        return client.post(url, data=form, headers=basic(credential), buffered=True)

    return check


def test_an_acceptable_file_is_ok_and_not_stored(check, repository):
    answer = check(*make_wheel())

    assert answer.status_code == 200
    assert answer.json["ok"] is True
    assert answer.json["filename"] == "toolbox-1.0-py3-none-any.whl"
    assert "reasons" not in answer.json
    assert repository.projects() == []
    assert list(repository.tree.temporary.iterdir()) == []


def test_every_reason_against_a_file_is_told(check):
    _, content = make_wheel("toolbox", "1.0", requires=["not a requirement !"])

    answer = check("hammer-2.0-py3-none-any.whl", content)

    assert answer.status_code == 200
    assert answer.json["ok"] is False
    assert len(answer.json["reasons"]) >= 2


def test_a_name_that_is_taken_is_a_reason(check, add):
    filename, content = make_wheel(summary="one")
    _, other = make_wheel(summary="two")
    add(filename, content)

    assert check(filename, content).json["ok"] is True
    [reason] = check(filename, other).json["reasons"]
    assert "taken" in reason


def test_a_name_that_was_deleted_is_a_reason(check, add, repository):
    filename, content = make_wheel(summary="one")
    _, other = make_wheel(summary="two")
    add(filename, content)
    repository.delete_file("toolbox", filename, TESTER)

    assert check(filename, content).json["ok"] is True
    assert check(filename, other).json["ok"] is False


def test_asking_takes_the_right_to_publish(check, tokens):
    assert check(*make_wheel(), tokens.read).status_code == 403
    assert check(*make_wheel(), "nobody").status_code == 401


def test_the_command_line_says_the_same_without_a_server(tmp_path):
    filename, content = make_wheel()
    good, bad = tmp_path / filename, tmp_path / "hammer-2.0-py3-none-any.whl"
    good.write_bytes(content)
    bad.write_bytes(content)

    result = CliRunner().invoke(program, ["check-file", str(good), str(bad)])

    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[0] == f"{good}: ok"
    assert lines[1:]
    assert all(line.startswith(f"{bad}: ") for line in lines[1:])
    assert not (tmp_path / "data").exists()
