"""Where the settings come from, and what is said about one that cannot be."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest

from settings import Settings, SettingsError, load_settings, variable_of
from storage.limits import Limits

EXAMPLE = Path(__file__).parent.parent / "config.example.toml"
SETTING = re.compile(r"#([a-z_]+ = .*)")


@pytest.fixture
def config(tmp_path):
    """Write a TOML file and return its path: ``config('port = 9000')``."""

    def write(text: str | bytes) -> Path:
        path = tmp_path / "packhouse.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write


def refusal_of(config=None, environ=None, **flags) -> str:
    """Return what is said about settings that cannot be."""
    with pytest.raises(SettingsError) as caught:
        load_settings(config, environ or {}, flags)
    return str(caught.value)


# --- defaults, and the example of them ---


def test_no_configuration_is_needed():
    assert load_settings(None, {"PATH": "/bin", "HOME": "/root"}, {}) == Settings()


def test_a_file_is_read_only_if_it_is_named(tmp_path, monkeypatch):
    (tmp_path / "config.toml").write_text("port = 9000")
    monkeypatch.chdir(tmp_path)

    assert load_settings(None, {}, {}).port == 8080
    assert load_settings(None, {"PACKHOUSE_CONFIG": "config.toml"}, {}).port == 9000
    assert load_settings(Path("config.toml"), {"PACKHOUSE_CONFIG": "missing.toml"}, {}).port == 9000


def test_the_example_shows_every_setting_with_its_default_and_in_order():
    shown = tomllib.loads("\n".join(match[1] for match in map(SETTING.fullmatch, lines_of_example()) if match))

    defaults = {field.name: field.default for field in fields(Settings)}
    assert list(shown) == list(defaults)
    assert {**shown, "storage": Path(shown["storage"])} == {
        key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()
    }


def test_the_example_explains_every_setting_with_its_unit():
    lines = lines_of_example()
    explained = {
        SETTING.fullmatch(line)[1].split()[0]: lines[i - 1] for i, line in enumerate(lines) if is_setting(line)
    }

    assert all(re.fullmatch(r"# [A-Z\"t].*\.", line) for line in explained.values())
    assert all("Bytes" in explained[key] for key in explained if key.endswith("_size"))
    assert all("Seconds" in explained[key] for key in explained if key.endswith("_timeout"))


def test_the_example_changes_nothing_as_it_is():
    assert load_settings(EXAMPLE, {}, {}) == Settings()


def lines_of_example() -> list[str]:
    return EXAMPLE.read_text().splitlines()


def is_setting(line: str) -> bool:
    return SETTING.fullmatch(line) is not None


def test_the_limits_of_the_storage_are_settings():
    assert Settings().limits == Limits()
    assert Settings(max_file_size=5, max_unpacked_ratio=3).limits == Limits(max_file_size=5, max_unpacked_ratio=3)


# --- the three sources ---


def test_flags_overrule_variables_and_variables_the_file(config):
    file = config('port = 1\nthreads = 1\nhost = "one"')
    environ = {"PACKHOUSE_PORT": "2", "PACKHOUSE_THREADS": "2"}

    settings = load_settings(file, environ, {"port": 3, "threads": None})

    assert (settings.host, settings.threads, settings.port) == ("one", 2, 3)


@pytest.mark.parametrize(
    ("variable", "text", "value"),
    [
        ("PACKHOUSE_PORT", "0", 0),
        ("PACKHOUSE_STORAGE", "/srv/packages", Path("/srv/packages")),
        ("PACKHOUSE_HOSTS", "a.example.com, B.example.com:8443,", ("a.example.com", "b.example.com:8443")),
        ("PACKHOUSE_HOSTS", "", ()),
        ("PACKHOUSE_TRUSTED_PROXIES", "10.0.0.1,::1", ("10.0.0.1", "::1")),
        ("PACKHOUSE_UNSAFE_NO_FSYNC", "true", True),
        ("PACKHOUSE_UNSAFE_NO_FSYNC", "1", True),
        ("PACKHOUSE_UNSAFE_NO_FSYNC", "False", False),
        ("PACKHOUSE_IDLE_TIMEOUT", "2.5", 2.5),
        ("PACKHOUSE_LOG_FORMAT", "json", "json"),
    ],
)
def test_a_variable_sets_a_value(variable, text, value):
    settings = load_settings(None, {variable: text}, {})

    assert getattr(settings, variable.removeprefix("PACKHOUSE_").lower()) == value


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("idle_timeout = 5", "idle_timeout", 5.0),
        ("max_file_size = 1_000_000", "max_file_size", 1_000_000),
        ('hosts = ["[::1]:80", "Box"]', "hosts", ("[::1]:80", "box")),
        ('public_url = "https://packages.example.com/"', "public_url", "https://packages.example.com"),
        ('x_accel_redirect = "/_files/"', "x_accel_redirect", "/_files"),
        ('public_url = "http://box:8080/packages/"', "public_url", "http://box:8080/packages"),
        ("\ufeffport = 81", "port", 81),  # a byte order mark, as some editors leave it
        ("port = 82\r\nthreads = 2\r\n", "port", 82),
    ],
)
def test_a_file_sets_a_value(config, text, key, value):
    assert getattr(load_settings(config(text), {}, {}), key) == value


def test_a_relative_storage_in_a_file_starts_at_that_file(config, tmp_path):
    file = config('storage = "packages"')

    assert load_settings(file, {}, {}).storage == tmp_path / "packages"
    assert load_settings(file, {}, {"storage": Path("here")}).storage == Path("here")


def test_a_variable_is_the_setting_in_capitals():
    assert variable_of("max_file_size") == "PACKHOUSE_MAX_FILE_SIZE"


# --- what cannot be ---


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("prot = 1", "there is no setting 'prot'; did you mean port?"),
        ("frobnicate = 1", "there is no setting 'frobnicate'; config.example.toml lists what there is"),
        ("[server]\nport = 1", "there is no setting 'server', and there are no sections"),
        ('port = "8080"', "port must be a whole number from 0 to 65535, not '8080'"),
        ("port = 65536", "port must be a whole number from 0 to 65535, not 65536"),
        ("port = -1", "port must be a whole number from 0 to 65535, not -1"),
        ("port = true", "port must be a whole number from 0 to 65535, not True"),
        ("port = 1.5", "port must be a whole number from 0 to 65535, not 1.5"),
        ("threads = 0", "threads must be a whole number from 1 to 1024, not 0"),
        ("max_file_size = 0", "max_file_size must be a whole number of at least 1, not 0"),
        ("idle_timeout = nan", "idle_timeout must be a number of seconds from 1 to 86400, not nan"),
        ("idle_timeout = inf", "idle_timeout must be a number of seconds from 1 to 86400, not inf"),
        ("unsafe_no_fsync = 1", "unsafe_no_fsync must be true or false, not 1"),
        ("host = 1", "host must be a text, not 1"),
        ('host = "a b"', "host must be a host name or an address, not 'a b'"),
        ("storage = 1", "storage must be the path of a folder, not 1"),
        ('storage = ""', "storage must be the path of a folder, not ''"),
        ('hosts = "a"', "hosts must be a list, each item a host name, 'name' or 'name:port', not 'a'"),
        ('hosts = ["https://a"]', "hosts must be a list, each item a host name"),
        ("hosts = [1]", "hosts must be a list, each item a host name"),
        ('trusted_proxies = ["box"]', "trusted_proxies must be a list, each item an IP address, not ['box']"),
        ('log_format = "xml"', "log_format must be 'text' or 'json', not 'xml'"),
        ('log_level = "loud"', "log_level must be 'debug', 'info', 'warning' or 'error', not 'loud'"),
        ('x_accel_redirect = "_files"', "x_accel_redirect must be an address in the proxy such as '/_files', not"),
        ('x_accel_redirect = "/a b"', "x_accel_redirect must be an address in the proxy such as '/_files', not"),
        ('public_url = "packages.example.com"', "public_url must be an address such as 'https://"),
        ('public_url = "ftp://example.com"', "public_url must be an address such as 'https://"),
        ('public_url = "https://"', "public_url must be an address such as 'https://"),
        ('public_url = "https://a:b@example.com"', "public_url must be an address such as 'https://"),
        ('public_url = "https://example.com/?q"', "public_url must be an address such as 'https://"),
        ('public_url = "https://example.com:99999"', "public_url must be an address such as 'https://"),
        ('public_url = "https://exa mple.com"', "public_url must be an address such as 'https://"),
    ],
)
def test_a_setting_that_cannot_be_is_named_with_its_file(config, text, sentence):
    file = config(text)

    refusal = refusal_of(file)

    assert refusal.startswith(f"{file}: ")
    assert sentence in refusal


@pytest.mark.parametrize(
    ("environ", "sentence"),
    [
        ({"PACKHOUSE_PROT": "1"}, "the variable PACKHOUSE_PROT is unknown; did you mean PACKHOUSE_PORT?"),
        ({"PACKHOUSE_port": "1"}, "the variable PACKHOUSE_port is unknown"),
        (
            {"PACKHOUSE_PORT": "http"},
            "the variable PACKHOUSE_PORT must be a whole number from 0 to 65535, not 'http'",
        ),
        ({"PACKHOUSE_PORT": ""}, "the variable PACKHOUSE_PORT must be a whole number"),
        ({"PACKHOUSE_STORAGE": ""}, "the variable PACKHOUSE_STORAGE must be the path of a folder, not ''"),
        ({"PACKHOUSE_UNSAFE_NO_FSYNC": "yes"}, "must be true or false, not 'yes'"),
        (
            {"PACKHOUSE_CONFIG": "/nowhere/config.toml"},
            "cannot read the configuration /nowhere/config.toml: No such",
        ),
    ],
)
def test_a_variable_that_cannot_be_is_named(environ, sentence):
    assert sentence in refusal_of(environ=environ)


def test_a_flag_that_cannot_be_is_named():
    assert refusal_of(port=70_000) == "--port must be a whole number from 0 to 65535, not 70000"


@pytest.mark.parametrize("text", ["port", "port = 1\nport = 2", b"\xff", "a = " + "[" * 5000])
def test_a_file_that_is_not_toml_is_named(config, text):
    file = config(text)

    assert refusal_of(file).startswith(f"the configuration {file} is not TOML: ")


def test_a_folder_is_no_configuration(tmp_path):
    assert refusal_of(tmp_path) == f"cannot read the configuration {tmp_path}: Is a directory"


def test_a_storage_that_is_a_file_is_named(tmp_path):
    file = tmp_path / "data"
    file.write_text("")

    assert refusal_of(storage=file) == f"the storage {file} is not a folder"


def test_a_storage_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # the tests may run as root, who can read all

    assert refusal_of(storage=tmp_path) == f"the storage {tmp_path} cannot be read and written by this user"


def test_a_long_wrong_value_is_shown_in_part(config):
    assert len(refusal_of(config(f'port = "{"9" * 5000}"'))) < 500
