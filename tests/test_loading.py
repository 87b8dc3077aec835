"""What a start loads: nothing that only people, uploads or an administrator need (docs/performance.md)."""

from __future__ import annotations

import subprocess
import sys

import pytest
from werkzeug.routing import Map, Rule

from storage.registry import Registry
from storage.repository import RepositorySettings
from tests.conftest import HERE, program_environment
from web.routing import Later, Route

# What a server that answers a first index page has loaded, one name a line.
FIRST_PAGE = """
import sys
from pathlib import Path
import cli, serving
from app import create_app
from settings import Settings
from storage.registry import Registry
from storage.starting import start

registry = Registry(Path(sys.argv[1]))
registry.sweep()
assert start(registry, None) is None
client = create_app(Settings(storage=Path(sys.argv[1])), registry).test_client()
assert client.get("/acme/main/pypi/simple/").status_code == 200
assert client.get("/acme/main/pypi/simple/none/").status_code == 404
print("\\n".join(sys.modules))
"""


@pytest.fixture(scope="module")
def loaded(tmp_path_factory) -> set[str]:
    folder = tmp_path_factory.mktemp("loading") / "data"
    registry = Registry(folder)
    registry.create_organization("acme")
    registry.create_repository("acme", "main", RepositorySettings(name="Main", private=False))
    command = [sys.executable, "-c", FIRST_PAGE, folder]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=program_environment(), cwd=HERE
    )
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


@pytest.mark.parametrize(
    "module",
    [
        "backports.zstd",
        "compression.zstd",
        "filelock",
        "flask_wtf",
        "nh3",
        "packaging.metadata",
        "prometheus_client",
        "pygments",
        "readme_renderer",
        "storage.browsing",
        "storage.checking",
        "storage.distributions",
        "storage.explaining",
        "storage.importing",
        "storage.tars",
        "storage.wheels",
        "storage.zips",
        "tarfile",
        "tomllib",
        "web.package_facts",
        "web.readme",
        "wtforms",
    ],
)
def test_a_start_and_a_first_page_do_not_load(loaded, module):
    assert module not in loaded


def test_a_start_loads_every_module_with_views_so_that_every_view_has_its_rule(loaded):
    views = {"app", "web.pages", "web.repository_pages", "web.settings_pages", "web.package_pages"}

    assert views <= loaded


def built(kind: type[Rule]) -> list[str]:
    """Build addresses with routes of that *kind*, each more than once."""
    rules = [kind("/<org>/<repo>/", endpoint="repository"), kind("/<path:rest>/of/<int:n>", endpoint="rest")]
    urls = Map(rules).bind("localhost")
    assert urls.match("/a/b/of/3") == ("rest", {"rest": "a/b", "n": 3})
    values = {"org": "a b", "repo": "c?d", "q": "x&y"}
    return [
        *(urls.build("repository", values) for _ in range(2)),
        *(urls.build("rest", {"rest": "a/b", "n": 3, "q": 1}, append_unknown=bool(more)) for more in range(2)),
    ]


def test_a_route_builds_the_same_addresses_as_one_of_werkzeug():
    assert built(Route) == built(Rule)


def test_a_module_for_later_is_loaded_with_its_first_name(monkeypatch):
    later = Later("colorsys")
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)

    assert "colorsys" not in sys.modules
    assert later.rgb_to_hsv(0, 0, 0) == (0.0, 0.0, 0)
    assert "colorsys" in sys.modules
    with pytest.raises(AttributeError):
        _ = later.nothing
