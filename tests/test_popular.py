"""Packages that everybody knows: published with curl, and installed from Packhouse alone."""

from __future__ import annotations

import hashlib
import re
import zipfile
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

from tests.clients import Environment, LiveRepository, curl, make_repository
from tests.conftest import ORG, LiveServer, packhouse
from tests.popular import SDISTS, WHEELS, download_popular


@pytest.fixture(scope="session")
def popular(request: pytest.FixtureRequest, tmp_path_factory) -> list[Path]:
    """The files; from the test cache (``pytest --cache-clear`` empties it) if they were downloaded before."""
    cache = getattr(request.config, "cache", None)
    folder = download_popular(cache.mkdir("popular") if cache else tmp_path_factory.mktemp("popular"))
    return sorted(folder.iterdir())


@pytest.fixture
def repository(live_server: LiveServer, request: pytest.FixtureRequest) -> LiveRepository:
    return make_repository(live_server, f"popular-{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}")


def name_and_version(path: Path) -> tuple[str, str]:
    parse = parse_wheel_filename if path.suffix == ".whl" else parse_sdist_filename
    name, version, *_ = parse(path.name)
    return canonicalize_name(name), str(version)


def test_there_are_wheels_and_sdists_of_every_age(popular):
    kinds = {"".join(path.suffixes[-2:]) if path.name.endswith(".tar.gz") else path.suffix for path in popular}

    assert kinds == {".whl", ".tar.gz", ".zip"}
    assert len(popular) >= len(WHEELS) + len(SDISTS)
    assert [path.name for path in popular if "linux" in path.name or "macosx" in path.name]  # binary


def test_every_popular_file_is_published_and_served_as_it_is(popular, repository, tmp_path):
    for path in popular:
        sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        project, version = name_and_version(path)
        address = f"{repository.server.url}/{ORG}/{repository.slug}/pypi/files/{project}/{path.name}"

        answer = repository.try_to_publish_file(path)
        file = curl("-u", f"{repository.read_token}:", "-o", str(tmp_path / "file"), address, cwd=tmp_path)

        assert answer.status == 201, f"{path.name}: {answer.body}"
        assert (answer.json["name"], answer.json["version"]) == (project, version)
        assert answer.json["sha256sum"] == sha256
        assert answer.json["summary"]
        assert file.status == 200
        assert hashlib.sha256((tmp_path / "file").read_bytes()).hexdigest() == sha256
        assert path.name in repository.listed(project)
        if path.suffix == ".whl":
            metadata = curl("-u", f"{repository.read_token}:", "-o", "m", f"{address}.metadata", cwd=tmp_path)
            assert metadata.status == 200
            assert (tmp_path / "m").read_bytes() == metadata_of(path)


def metadata_of(wheel: Path) -> bytes:
    with zipfile.ZipFile(wheel) as archive:
        # setuptools has those of its vendored packages in deeper folders
        [member] = [name for name in archive.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", name)]
        return archive.read(member)


def test_a_folder_of_popular_files_is_imported(popular, repository):
    folder = popular[0].parent

    done = packhouse(repository.server.storage, "import", f"{ORG}/{repository.slug}", str(folder))

    assert (done.returncode, done.stdout) == (0, f"{len(popular)} stored, 0 already there, 0 refused.\n")


def test_requests_is_installed_with_its_dependencies_from_packhouse_alone(
    popular, repository, pip_of_this_python, tmp_path
):
    for path in popular:
        repository.try_to_publish_file(path)
    environment = Environment.make(tmp_path / "environment")
    index = repository.index_url(repository.read_token)

    done = pip_of_this_python("install", "--index-url", index, "requests", "markupsafe", into=environment)

    assert done.returncode == 0, done.stderr
    assert environment.run("import requests; print(requests.__version__)") == "2.34.2"
    assert environment.run("import urllib3, idna, certifi, charset_normalizer, markupsafe; print('all')") == "all"


def test_an_old_sdist_is_built_with_tools_from_packhouse_alone(popular, repository, pip_of_this_python, tmp_path):
    for path in popular:
        repository.try_to_publish_file(path)
    environment = Environment.make(tmp_path / "environment")
    index = repository.index_url(repository.read_token)

    command = ["install", "--index-url", index, "--no-binary", "six", "six==1.10.0"]
    done = pip_of_this_python(*command, into=environment)

    assert done.returncode == 0, done.stderr
    assert environment.run("import six; print(six.__version__)") == "1.10.0"
