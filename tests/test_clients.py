"""Real curl and real pip against one live server: what the first start prints, and what their users do next.

pip knows of no index but those of these servers, so nothing here needs the internet, with one exception: the newest
pip comes from the registry that the machine's pip is set up for, and its tests are skipped where that fails.
"""

from __future__ import annotations

import itertools
import os
import re
import shutil
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from packaging.tags import sys_tags

from tests.clients import Environment, LiveRepository, Pip, client_environment, curl, make_repository, run
from tests.conftest import LiveServer, start_server
from tests.storage.makers import make_sdist, make_wheel

ABOVE_1_MIB = {"big/data.bin": os.urandom(2 * 1024 * 1024)}  # curl sends Expect: 100-continue

_numbers = itertools.count(1)


@pytest.fixture
def new_name() -> Callable[[str], str]:
    """Names that no other test uses, since all share a server: ``new_name("toolbox")``."""
    return lambda stem: f"{stem}{next(_numbers)}"


@pytest.fixture
def private(live_server: LiveServer, new_name) -> LiveRepository:
    return make_repository(live_server, new_name("private"))


@pytest.fixture
def public(live_server: LiveServer, new_name) -> LiveRepository:
    return make_repository(live_server, new_name("public"), public=True)


@pytest.fixture(scope="session")
def other_server(tmp_path_factory) -> Iterator[LiveServer]:
    """A second registry, in the place of the public one."""
    server = start_server(tmp_path_factory.mktemp("other") / "data")
    yield server
    server.stop()


@pytest.fixture
def elsewhere(other_server: LiveServer, new_name) -> LiveRepository:
    """A public repository of another server."""
    return make_repository(other_server, new_name("elsewhere"), public=True)


@pytest.fixture(scope="session")
def small_server(tmp_path_factory) -> Iterator[LiveServer]:
    """A server that takes files up to 100 kB."""
    limits = {"PACKHOUSE_MAX_FILE_SIZE": "100000", "PACKHOUSE_MAX_FORM_SIZE": "100000"}
    server = start_server(tmp_path_factory.mktemp("small") / "data", env=limits)
    yield server
    server.stop()


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment.make(tmp_path / "environment")


@pytest.fixture(params=["pip_of_this_python", "newest_pip"])
def pip(request: pytest.FixtureRequest) -> Pip:
    return request.getfixturevalue(request.param)


def succeeded(done: subprocess.CompletedProcess[str]) -> bool:
    """Whether a command did; shows what it said where it did not."""
    print(done.stdout, done.stderr)  # noqa: T201 - pytest shows it with a failure
    return done.returncode == 0


# --- as printed ---


def printed_curl_command(server: LiveServer) -> str:
    return re.search(r"^curl -X POST .*\\\n.*\\\n.*$", server.output, re.MULTILINE)[0]


def printed_pip_command(server: LiveServer) -> str:
    return re.search(r"^pip install .*$", server.output, re.MULTILINE)[0]


def printed_pip_conf(server: LiveServer) -> str:
    return re.search(r"^\[global\]\n.+\n", server.output, re.MULTILINE)[0]


@pytest.fixture
def first(live_server: LiveServer) -> LiveRepository:
    """The repository that the first start made."""
    tokens = live_server.read_token, live_server.publishing_token
    return LiveRepository(live_server, "my-organization", "my-python-packages", *tokens)


def test_the_printed_curl_command_has_the_three_lines_of_the_mission(live_server):
    lines = printed_curl_command(live_server).splitlines()

    url = f"{live_server.url}/api/v1/repos/my-organization/my-python-packages/packages.json"
    assert lines == [
        f"curl -X POST {url} \\",
        f'  -u "{live_server.publishing_token}:" \\',
        '  -F "package[package_file]=@FILE"',
    ]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_the_printed_curl_command_publishes_a_wheel_that_is_called_FILE(first, new_name, tmp_path, shell):
    filename, content = make_wheel(new_name("asprinted"))
    (tmp_path / "FILE").write_bytes(content)

    done = run([shutil.which(shell), "-c", printed_curl_command(first.server)], tmp_path)

    assert succeeded(done)
    assert f'"filename":"{filename}"' in done.stdout


@pytest.mark.parametrize("make", [make_wheel, make_sdist])
@pytest.mark.parametrize("folder", [".", "dist", "with a space", "/"])
def test_the_printed_curl_command_publishes_the_file_whose_path_stands_in_place_of_FILE(
    first, new_name, tmp_path, folder, make
):
    filename, content = make(new_name("asprinted"))
    path = tmp_path / folder.strip("/") / filename
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    typed = str(path) if folder == "/" else f"{folder}/{filename}"

    done = run(printed_curl_command(first.server).replace("@FILE", f"@{typed}"), tmp_path)

    assert succeeded(done)
    assert f'"filename":"{filename}"' in done.stdout


def test_the_printed_pip_command_installs_what_was_published(
    first, elsewhere, pip, environment, new_name, tmp_path
):
    name = new_name("asprinted")
    first.publish(*make_wheel(name), cwd=tmp_path)
    variables = pip.environment_variables(tmp_path, environment, PIP_INDEX_URL=elsewhere.index_url())

    done = run(printed_pip_command(first.server).replace("PACKAGE", name), tmp_path, variables)

    assert succeeded(done)
    assert environment.version_of(name) == "1.0"


def test_the_printed_pip_conf_lets_every_pip_install_find_what_was_published(
    first, elsewhere, pip, environment, new_name, tmp_path
):
    name = new_name("asprinted")
    first.publish(*make_wheel(name), cwd=tmp_path)
    conf = tmp_path / ".config" / "pip" / "pip.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text(printed_pip_conf(first.server))
    variables = pip.environment_variables(tmp_path, environment, PIP_INDEX_URL=elsewhere.index_url())
    del variables["PIP_CONFIG_FILE"]

    done = run(f"pip install {name}", tmp_path, variables)

    assert succeeded(done)
    assert environment.version_of(name) == "1.0"
    assert "seems invalid" not in done.stderr
    assert first.read_token not in done.stdout + done.stderr


# --- curl ---


def test_a_file_above_1_mib_is_published_after_100_continue(private, new_name, tmp_path):
    answer = private.publish(*make_wheel(new_name("big"), files=ABOVE_1_MIB), cwd=tmp_path)

    assert answer.status == 201
    assert re.search(r"^> Expect: 100-continue", answer.verbose, re.MULTILINE | re.IGNORECASE)
    assert re.search(r"^< HTTP/1.1 100 Continue", answer.verbose, re.MULTILINE)


def test_a_bad_token_is_refused_before_the_file_is_sent(private, new_name, tmp_path):
    filename, content = make_wheel(new_name("big"), files=ABOVE_1_MIB)
    (tmp_path / filename).write_bytes(content)

    answer = curl(private.publish_url, "-u", "pkh_no_no:", "-F", f"package[package_file]=@{filename}", cwd=tmp_path)

    assert (answer.status, answer.sent) == (401, 0)
    assert answer.json["error"] == "Unauthenticated"
    assert "misspelled, revoked or expired" in answer.json["message"]


def test_no_token_is_refused_before_the_file_is_sent(public, new_name, tmp_path):
    filename, content = make_wheel(new_name("big"), files=ABOVE_1_MIB)
    (tmp_path / filename).write_bytes(content)

    answer = curl(public.publish_url, "-F", f"package[package_file]=@{filename}", cwd=tmp_path)

    assert (answer.status, answer.sent) == (401, 0)
    assert re.search(r'^< WWW-Authenticate: Basic realm="packhouse"', answer.verbose, re.MULTILINE)


def test_a_body_that_cannot_be_right_is_refused_before_it_is_sent(small_server, new_name, tmp_path):
    repository = make_repository(small_server, new_name("private"))

    answer = repository.try_to_publish(*make_wheel("big", files=ABOVE_1_MIB), cwd=tmp_path)

    assert (answer.status, answer.sent) == (413, 0)


def test_a_file_over_the_limit_is_refused_in_words(small_server, new_name, tmp_path):
    repository = make_repository(small_server, new_name("private"))

    answer = repository.try_to_publish(*make_wheel("big", files={"big.bin": os.urandom(120_000)}), cwd=tmp_path)

    assert answer.status == 413
    assert "100,000" in answer.json["message"] or "100000" in answer.json["message"]


def test_a_token_is_taken_as_a_bearer_token(private, new_name, tmp_path):
    filename, content = make_wheel(new_name("toolbox"))
    (tmp_path / filename).write_bytes(content)
    bearer = ["-H", f"Authorization: Bearer {private.write_token}"]

    answer = curl(private.publish_url, *bearer, "-F", f"package[package_file]=@{filename}", cwd=tmp_path)

    assert answer.status == 201


@pytest.mark.parametrize("user", ["buildkite:{}", "__token__:{}", "{}:"])
def test_a_token_is_taken_as_user_name_or_password(private, new_name, tmp_path, user):
    filename, content = make_wheel(new_name("toolbox"))
    (tmp_path / filename).write_bytes(content)
    credential = ["-u", user.format(private.write_token)]

    answer = curl(private.publish_url, *credential, "-F", f"package[package_file]=@{filename}", cwd=tmp_path)

    assert answer.status == 201


def test_curl_reads_the_token_from_netrc(private, new_name, tmp_path):
    write_netrc(tmp_path, private.write_token)
    filename, content = make_wheel(new_name("toolbox"))
    (tmp_path / filename).write_bytes(content)

    answer = curl(private.publish_url, "-n", "-F", f"package[package_file]=@{filename}", cwd=tmp_path)

    assert answer.status == 201


def test_a_read_token_may_not_publish(private, new_name, tmp_path):
    filename, content = make_wheel(new_name("toolbox"))
    (tmp_path / filename).write_bytes(content)
    credential = ["-u", f"{private.read_token}:"]

    answer = curl(private.publish_url, *credential, "-F", f"package[package_file]=@{filename}", cwd=tmp_path)

    assert answer.status == 403
    assert "write_packages" in answer.json["message"]


def test_the_same_file_again_is_fine_and_another_of_its_name_is_taken(private, new_name, tmp_path):
    name = new_name("toolbox")

    answers = [
        private.try_to_publish(*make_wheel(name, summary=summary), cwd=tmp_path)
        for summary in ("One", "One", "Two")
    ]

    assert [answer.status for answer in answers] == [201, 200, 422]
    assert answers[2].json["filename"] == ["has already been taken"]


WRONG_USES = {
    "-T": (["-T", "toolbox-1.0-py3-none-any.whl"], 405, ""),
    "another name of the part": (["-F", "file=@toolbox-1.0-py3-none-any.whl"], 422, "can't be blank"),
    "no @": (["-F", "package[package_file]=toolbox-1.0-py3-none-any.whl"], 422, "can't be blank"),
    "the bytes as the body": (["--data-binary", "@toolbox-1.0-py3-none-any.whl"], 422, "can't be blank"),
    "nothing": (["-X", "POST"], 422, "can't be blank"),
    "no wheel": (["-F", "package[package_file]=@notes.txt"], 422, "neither a wheel (.whl) nor an sdist"),
}


@pytest.mark.parametrize(("arguments", "status", "words"), WRONG_USES.values(), ids=WRONG_USES)
def test_a_wrong_use_of_curl_is_told_what_is_wrong(private, tmp_path, arguments, status, words):
    filename, content = make_wheel("toolbox")
    (tmp_path / filename).write_bytes(content)
    (tmp_path / "notes.txt").write_text("no wheel")

    answer = curl(private.publish_url, "-u", f"{private.write_token}:", *arguments, cwd=tmp_path)

    assert answer.status == status
    assert words in answer.body
    assert answer.json  # an object with something in it, as scripts expect


# --- pip ---


def write_netrc(home: Path, token: str) -> None:
    path = home / ".netrc"
    path.write_text(f"machine 127.0.0.1 login __token__ password {token}\n")
    path.chmod(stat.S_IRUSR | stat.S_IWUSR)


def test_pip_resolves_dependencies_between_packages_of_the_repository(
    private, pip, environment, new_name, tmp_path
):
    top, middle, bottom = new_name("top"), new_name("middle"), new_name("bottom")
    private.publish(*make_wheel(top, requires=[f"{middle}[more]>=2"]), cwd=tmp_path)
    extra = [("Provides-Extra", "more")]
    for version in ("1.0", "2.0"):
        requires = [f"{bottom}<3; extra == 'more'"]
        private.publish(*make_wheel(middle, version, requires=requires, extra_headers=extra), cwd=tmp_path)
    for version in ("2.9", "3.0"):
        private.publish(*make_wheel(bottom, version), cwd=tmp_path)

    done = pip("install", "--index-url", private.index_url(private.read_token), top, into=environment)

    assert succeeded(done)
    assert [environment.version_of(name) for name in (top, middle, bottom)] == ["1.0", "2.0", "2.9"]


def test_pip_resolves_dependencies_between_the_repository_and_another_index(
    private, elsewhere, pip, environment, new_name, tmp_path
):
    ours, theirs = new_name("ours"), new_name("theirs")
    private.publish(*make_wheel(ours, requires=[theirs]), cwd=tmp_path)
    elsewhere.publish(*make_wheel(theirs, "4.0"), cwd=tmp_path)
    indexes = ["--index-url", elsewhere.index_url(), "--extra-index-url", private.index_url(private.read_token)]

    done = pip("install", *indexes, ours, into=environment)

    assert succeeded(done)
    assert environment.version_of(theirs) == "4.0"


def test_pip_reads_core_metadata_without_downloading_the_wheel(private, pip, environment, new_name, tmp_path):
    name = new_name("toolbox")
    private.publish(*make_wheel(name), cwd=tmp_path)

    done = pip("install", "-v", "--index-url", private.index_url(private.read_token), name, into=environment)

    assert succeeded(done)
    assert "-py3-none-any.whl.metadata" in done.stdout


@pytest.mark.parametrize("spelling", ["Tool_Box.Extras{}", "tool-box--extras{}", "TOOL.BOX_EXTRAS{}"])
def test_pip_finds_a_project_by_any_spelling_of_its_name(
    private, pip_of_this_python, environment, tmp_path, spelling
):
    number = str(next(_numbers))
    private.publish(*make_wheel(f"tool-box-extras{number}"), cwd=tmp_path)

    index = private.index_url(private.read_token)
    done = pip_of_this_python("install", "--index-url", index, spelling.format(number), into=environment)

    assert succeeded(done)


HERE = next(str(tag) for tag in sys_tags())
KINDS = {
    "epoch and local version": ({"version": "1!2.0+local.1"}, "==1!2.0+local.1"),
    "build tag": ({"build": "7"}, ""),
    "platform of this machine": ({"tags": HERE}, ""),
    "compressed tag set": ({"tags": "py2.py3-none-any"}, ""),
    "pre-release": ({"version": "2.0rc1"}, ">=2.0rc1"),
    "metadata 2.4": ({"metadata_version": "2.4", "extra_headers": [("License-Expression", "MIT")]}, ""),
    "private classifier": ({"extra_headers": [("Classifier", "Private :: Do Not Upload")]}, ""),
}


@pytest.mark.parametrize(("options", "specifier"), KINDS.values(), ids=KINDS)
def test_pip_installs_every_kind_of_wheel(
    private, pip_of_this_python, environment, new_name, tmp_path, options, specifier
):
    name = new_name("kind")
    private.publish(*make_wheel(name, **options), cwd=tmp_path)

    index = private.index_url(private.read_token)
    done = pip_of_this_python("install", "--index-url", index, f"{name}{specifier}", into=environment)

    assert succeeded(done)
    assert environment.version_of(name) == options.get("version", "1.0")


BACKEND = b"""\
import pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "NAME-1.0-py3-none-any.whl"
    with zipfile.ZipFile(pathlib.Path(folder, name), "w") as wheel:
        wheel.writestr("NAME.py", "built = True")
        wheel.writestr("NAME-1.0.dist-info/METADATA", "Metadata-Version: 2.1\\nName: NAME\\nVersion: 1.0\\n")
        wheel.writestr("NAME-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\\nTag: py3-none-any\\n")
        wheel.writestr("NAME-1.0.dist-info/RECORD", "")
    return name
"""
BUILD_SYSTEM = b'[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_pip_builds_and_installs_an_sdist(private, pip, environment, new_name, tmp_path, suffix):
    name = new_name("built")
    files = {"pyproject.toml": BUILD_SYSTEM, "backend.py": BACKEND.replace(b"NAME", name.encode())}
    private.publish(*make_sdist(name, files=files, suffix=suffix), cwd=tmp_path)

    done = pip("install", "--index-url", private.index_url(private.read_token), name, into=environment)

    assert succeeded(done)
    assert environment.run(f"import {name}; print({name}.built)") == "True"


def test_pip_passes_over_files_for_other_pythons(private, pip, environment, new_name, tmp_path):
    name = new_name("toolbox")
    private.publish(*make_wheel(name, "1.0", requires_python=">=3.8"), cwd=tmp_path)
    private.publish(*make_wheel(name, "2.0", requires_python=">=99"), cwd=tmp_path)

    done = pip("install", "--index-url", private.index_url(private.read_token), name, into=environment)

    assert succeeded(done)
    assert environment.version_of(name) == "1.0"


def test_pip_installs_by_the_digest_that_publishing_answered(private, pip, environment, new_name, tmp_path):
    name = new_name("toolbox")
    sha256 = private.publish(*make_wheel(name), cwd=tmp_path).json["sha256sum"]
    requirements = tmp_path / "requirements.txt"
    requirements.write_text(f"{name}==1.0 --hash=sha256:{sha256}\n")

    index = private.index_url(private.read_token)
    done = pip("install", "--require-hashes", "--index-url", index, "-r", str(requirements), into=environment)

    assert succeeded(done)


def test_pip_reads_the_token_from_netrc(private, pip, environment, new_name, tmp_path):
    name = new_name("toolbox")
    private.publish(*make_wheel(name), cwd=tmp_path)
    write_netrc(environment.folder.parent, private.read_token)

    done = pip("install", "--index-url", private.index_url(), name, into=environment)

    assert succeeded(done)


@pytest.mark.parametrize("credential", ["{}:@", "{}@", "buildkite:{}@", "__token__:{}@"])
def test_pip_sends_a_token_in_the_address_whatever_its_place(
    private, pip_of_this_python, environment, new_name, tmp_path, credential
):
    name = new_name("toolbox")
    private.publish(*make_wheel(name), cwd=tmp_path)
    index = private.index_url().replace("http://", f"http://{credential.format(private.read_token)}")

    done = pip_of_this_python("install", "--index-url", index, name, into=environment)

    assert succeeded(done)


@pytest.mark.parametrize("visibility", ["private", "public"])
def test_a_wrong_credential_installs_nothing(
    request, pip_of_this_python, environment, new_name, tmp_path, visibility
):
    repository = request.getfixturevalue(visibility)
    name = new_name("toolbox")
    repository.publish(*make_wheel(name), cwd=tmp_path)

    index = repository.index_url("pkh_no_no")
    done = pip_of_this_python("install", "--index-url", index, name, into=environment)

    assert done.returncode == 1
    assert environment.version_of(name) is None


def test_pip_says_that_a_credential_is_wrong(private, newest_pip, environment, new_name, tmp_path):
    name = new_name("toolbox")
    private.publish(*make_wheel(name), cwd=tmp_path)

    # pip 23.2 with --no-input says nothing and then finds "no versions".
    done = newest_pip("install", "--index-url", private.index_url("pkh_no_no"), name, into=environment)

    assert done.returncode == 1
    assert "401 Error, Credentials not correct for" in done.stdout + done.stderr


def test_a_private_repository_is_not_for_pip_without_a_credential(private, pip, environment, new_name, tmp_path):
    name = new_name("toolbox")
    private.publish(*make_wheel(name), cwd=tmp_path)

    done = pip("install", "--index-url", private.index_url(), name, into=environment)

    assert done.returncode == 1
    assert "No matching distribution found" in done.stderr


def test_a_token_for_one_repository_reads_no_other(private, live_server, pip, environment, new_name, tmp_path):
    other = make_repository(live_server, new_name("private"))
    name = new_name("toolbox")
    private.publish(*make_wheel(name), cwd=tmp_path)

    done = pip("install", "--index-url", private.index_url(other.read_token), name, into=environment)

    assert done.returncode == 1
    assert "No matching distribution found" in done.stderr


def test_a_public_repository_needs_no_credential(public, pip, environment, new_name, tmp_path):
    name = new_name("toolbox")
    public.publish(*make_wheel(name), cwd=tmp_path)

    done = pip("install", "--index-url", public.index_url(), name, into=environment)

    assert succeeded(done)


def test_pip_takes_a_newer_version_as_soon_as_it_is_published(private, pip, environment, new_name, tmp_path):
    name = new_name("toolbox")
    index = private.index_url(private.read_token)
    for version in ("1.0", "1.1", "1.2"):
        private.publish(*make_wheel(name, version), cwd=tmp_path)

        done = pip("install", "--upgrade", "--index-url", index, name, into=environment)

        assert succeeded(done)
        assert environment.version_of(name) == version


def test_the_clients_know_nothing_of_the_machine(tmp_path):
    variables = client_environment(tmp_path)

    assert not [name for name in variables if name.startswith("PIP_") or name.lower().endswith("_proxy")]
