"""The README: its commands do what it says, and what it names is there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import storage.layout
from tests.clients import Environment, client_environment, curl, run
from tests.conftest import HERE, LiveServer, program_environment, start_server
from tests.storage.makers import make_wheel

README = (HERE / "README.md").read_text()


def section(title: str) -> str:
    """Return the text below one heading."""
    return re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.MULTILINE | re.DOTALL)[1]


def blocks(title: str, language: str = "sh") -> list[str]:
    """Return the fenced blocks below one heading."""
    return re.findall(rf"^```{language}\n(.*?)^```$", section(title), re.MULTILINE | re.DOTALL)


@pytest.fixture
def server(tmp_path: Path):
    """A first start, as the README's, in a folder of its own."""
    server = start_server(tmp_path / "data")
    yield server
    server.stop()


def filled_in(block: str, server: LiveServer) -> str:
    """Return *block* with what differs from reader to reader."""
    for placeholder, value in {
        "http://127.0.0.1:8080": server.url,
        "@127.0.0.1:8080": f"@{server.url.removeprefix('http://')}",
        "PUBLISHING_TOKEN": server.publishing_token,
        "READ_TOKEN": server.read_token,
        "@FILE": "@dist/hello_packhouse-1.0-py3-none-any.whl",
    }.items():
        block = block.replace(placeholder, value)
    return block


def run_block(block: str, folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run *block* in *folder* as a reader does who activated the environment; every command in it must go well."""
    programs = folder / "programs"
    programs.mkdir(exist_ok=True)
    packhouse = programs / "packhouse"
    packhouse.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "import cli; cli.main()" "$@"\n')
    packhouse.chmod(0o755)
    path = f"{programs}:{variables.pop('PATH', program_environment()['PATH'])}"
    env = client_environment(folder, **variables, PATH=path, PYTHONPATH=str(HERE))
    done = run(f"set -e\n{block}", folder, env)
    assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    return done


@pytest.fixture
def dist(tmp_path: Path) -> Path:
    filename, content = make_wheel("hello-packhouse")
    (tmp_path / "dist").mkdir()
    (tmp_path / "dist" / filename).write_bytes(content)
    return tmp_path / "dist"


def test_the_first_command_sets_up_and_starts_a_server_in_one_line():
    [start, _activate] = blocks("Run it")

    assert start == "python3.11 -m venv .venv && .venv/bin/pip install -e . && .venv/bin/packhouse serve\n"


def test_the_commands_of_publishing_and_installing_are_those_that_the_server_prints(server):
    publish = filled_in(blocks("Publish")[0], server).replace("@dist/hello_packhouse-1.0-py3-none-any.whl", "@FILE")
    install = filled_in(blocks("Install")[0], server).replace("hello-packhouse", "PACKAGE")
    [pip_conf] = blocks("Install", "ini")

    assert publish in server.output
    assert install in server.output
    assert filled_in(pip_conf, server) in server.output


def test_a_reader_publishes_and_installs(server, dist, pip_of_this_python, tmp_path):
    environment = Environment.make(tmp_path / "environment")
    variables = pip_of_this_python.environment_variables(tmp_path, environment, PIP_INDEX_URL=f"{server.url}/none")

    published = run_block(filled_in(blocks("Publish")[0], server), tmp_path)
    run_block(filled_in(blocks("Install")[0], server), tmp_path, **variables)

    assert '"name":"hello-packhouse"' in published.stdout
    assert environment.version_of("hello-packhouse") == "1.0"


def test_a_reader_administers_and_imports_beside_the_running_server(server, dist, tmp_path):
    [administer] = blocks("Organizations, repositories, users, tokens")
    [import_folder] = blocks("Import a folder")

    administered = run_block(administer, tmp_path)
    imported = run_block(import_folder, tmp_path)

    assert re.search(r"^pkh_\w+$", administered.stdout, re.MULTILINE)
    assert imported.stdout == "1 stored, 0 already there, 0 refused.\n"


def test_a_reader_backs_up_while_the_server_runs_and_restores(server, dist, tmp_path):
    back_up, restore = blocks("Back it up")
    run_block(filled_in(blocks("Publish")[0], server), tmp_path)

    run_block(back_up, tmp_path)
    server.stop()
    shutil.rmtree(tmp_path / "data")
    restored = run_block(restore, tmp_path)
    again = start_server(tmp_path / "data")
    try:
        index = f"{again.url}/my-organization/my-python-packages/pypi/simple/hello-packhouse/"
        page = curl("-u", f"{server.read_token}:", index, cwd=tmp_path)
    finally:
        again.stop()

    assert restored.stdout == "Everything is as it should be.\n"
    assert "hello_packhouse-1.0-py3-none-any.whl</a>" in page.body
    assert "pkh_" not in again.output  # no first start: users and tokens are those of before
    [wheel] = (tmp_path / "data").rglob("*.whl")
    assert wheel.read_bytes() == (dist / wheel.name).read_bytes()


def test_the_settings_are_given_as_the_readme_says():
    [block] = blocks("Settings")

    for line in block.splitlines():
        assert re.fullmatch(r"(PACKHOUSE_[A-Z]+=\S+ )?packhouse serve( --(config|port|storage) \S+)*", line)


def test_the_test_commands_are_those_of_ci():
    ci = (HERE / ".ci" / "run").read_text().splitlines()
    install, test = blocks("Test")[0].splitlines()
    style = blocks("Test")[1].strip().split(" && ")

    assert install.removeprefix("pip install ") in next(line for line in ci if ".[dev]" in line)
    assert ci[-1] == test
    assert [line for line in ci if line in style] == style


def test_the_tree_has_only_what_the_storage_draws():
    [tree] = blocks("On disk", "")
    drawn = storage.layout.__doc__

    for line in tree.splitlines()[1:]:
        assert line.split()[0].rstrip("/") in drawn


LINKS = re.findall(r"\]\(([^)#]+)\)", README)


@pytest.mark.parametrize("target", sorted(set(LINKS)))
def test_what_the_readme_links_to_is_there(target):
    assert (HERE / target).exists()


def test_every_module_at_the_top_and_every_folder_of_code_is_named():
    wheel = tomllib.loads((HERE / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert set(wheel["only-include"]) <= set(LINKS)
