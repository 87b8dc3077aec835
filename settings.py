"""The settings: one frozen dataclass, filled from a TOML file, then ``PACKHOUSE_*`` variables, then flags.

Nothing is read that was not named: a TOML file counts only if ``--config`` or ``PACKHOUSE_CONFIG`` says so. A
setting that cannot be is a :class:`SettingsError`, before anything is touched. ``config.example.toml`` shows all.
"""

from __future__ import annotations

import ipaddress
import math
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from storage.limits import KIB, MB, MIB, Limits

PREFIX = "PACKHOUSE_"
CONFIG_VARIABLE = "PACKHOUSE_CONFIG"

_LIMITS = Limits()


class SettingsError(Exception):
    """A setting that cannot be; the sentence names it, says where it came from and what would do."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that can be chosen; the defaults need no configuration."""

    # where to listen, and where the storage is
    host: str = "127.0.0.1"  # name or address to listen on
    port: int = 8080  # 0: any free one
    storage: Path = Path("data")  # folder; a relative one in a TOML file starts at that file's folder

    # the server's address for others
    public_url: str = ""  # without a slash at its end; "": the Host header, if it is a loopback name or in hosts
    hosts: tuple[str, ...] = ()  # lower case, "name" or "name:port"
    trusted_proxies: tuple[str, ...] = ()  # IP addresses whose X-Forwarded-* count
    x_accel_redirect: str = ""  # address in these proxies below which they have the storage; "": files come from us

    # what clients may cost
    processes: int = 1
    threads: int = 16  # in each process
    max_connections: int = 1000  # more wait unaccepted
    idle_timeout: float = 60.0  # seconds without progress
    stop_timeout: float = 10.0  # seconds that requests in flight get to finish
    lock_timeout: float = 8.0  # seconds to wait for somebody else's change

    page_cache_size: int = 40 * MIB  # bytes of index pages that are kept ready, in each process

    # what is accepted (contract.md section 8)
    max_file_size: int = _LIMITS.max_file_size  # bytes
    max_metadata_size: int = _LIMITS.max_metadata_size  # bytes
    max_metadata_headers: int = _LIMITS.max_metadata_headers
    max_archive_members: int = _LIMITS.max_archive_members
    max_unpacked_size: int = _LIMITS.max_unpacked_size  # bytes
    max_unpacked_ratio: int = _LIMITS.max_unpacked_ratio  # times the packed size
    max_form_size: int = 16 * MB  # bytes of a form's text, its file not counted
    max_form_parts: int = 20_000
    max_request_header_size: int = 64 * KIB  # bytes of request line and headers

    # safety and logs
    unsafe_no_fsync: bool = False  # true: a power cut may lose what was answered with success
    log_format: str = "text"  # of the access log: "text" or "json"
    log_level: str = "info"  # "debug", "info", "warning" or "error"

    @property
    def limits(self) -> Limits:
        """What the storage accepts."""
        return Limits(**{limit.name: getattr(self, limit.name) for limit in fields(Limits)})


def load_settings(config: Path | None, environ: Mapping[str, str], flags: Mapping[str, object]) -> Settings:
    """Return the defaults, overruled by the TOML file, that by the environment, and that by *flags*.

    *config* is the TOML file; for None, the one that ``PACKHOUSE_CONFIG`` names, if any. A flag that is None was
    not given.

    :raises SettingsError: if a file cannot be read, a key is unknown, or a value is not one that it can have.
    """
    named = config or (Path(environ[CONFIG_VARIABLE]) if environ.get(CONFIG_VARIABLE) else None)
    values: dict[str, Any] = {
        **(_from_file(named) if named else {}),
        **_from_environment(environ),
        **_from_flags(flags),
    }
    settings = Settings(**values)
    _check_folder(settings.storage)
    return settings


# --- the three sources ---


def _from_file(path: Path) -> dict[str, Any]:
    import tomllib  # many a server does without a file

    try:
        document = tomllib.loads(path.read_bytes().decode("utf-8-sig"))  # -sig: some editors put a mark in front
    except OSError as error:
        raise SettingsError(f"cannot read the configuration {path}: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"the configuration {path} is not TOML: {error}") from error
    values = {key: _check(f"{path}: {key}", key, value, str(path)) for key, value in document.items()}
    if "storage" in document:
        values["storage"] = path.parent / str(values["storage"])
    return values


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    values = {}
    for variable in sorted(environ):
        if not variable.startswith(PREFIX) or variable == CONFIG_VARIABLE:
            continue
        key = variable.removeprefix(PREFIX).lower()
        if key not in _DEFAULTS or variable != variable_of(key):
            known = [CONFIG_VARIABLE, *map(variable_of, _DEFAULTS)]
            raise SettingsError(f"the variable {variable} is unknown{_nearest(variable, known)}")
        values[key] = _check(f"the variable {variable}", key, _parse(environ[variable], _DEFAULTS[key]))
    return values


def _from_flags(flags: Mapping[str, object]) -> dict[str, Any]:
    given = {key: value for key, value in flags.items() if value is not None}
    return {key: _check(f"--{key.replace('_', '-')}", key, value) for key, value in given.items()}


def variable_of(key: str) -> str:
    """Return the environment variable for a setting."""
    return PREFIX + key.upper()


def _parse(text: str, default: object) -> object:
    """Return *text* as a value of the kind of *default*, or as it is where it is none: _check() then says so."""
    if isinstance(default, bool):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.strip().lower(), text)
    if isinstance(default, tuple):
        return [item.strip() for item in text.split(",") if item.strip()]
    if isinstance(default, int | float):
        try:
            return type(default)(text)
        except ValueError:
            return text
    return text


def _nearest(word: str, known: list[str]) -> str:
    import difflib  # only where something is wrong

    near = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {near[0]}?" if near else "; config.example.toml lists what there is"


# --- values ---

_DEFAULTS: dict[str, object] = {field.name: field.default for field in fields(Settings)}
_Kind = TypeVar("_Kind")
_DAY = 86_400.0  # seconds
# Smallest and largest value; a size or count that is not here is at least 1.
_RANGES: dict[str, tuple[float, float]] = {
    "port": (0, 65_535),
    "threads": (1, 1024),
    "processes": (1, 64),
    "max_connections": (1, 1_000_000),
    "page_cache_size": (0, math.inf),
    "idle_timeout": (1, _DAY),
    "stop_timeout": (0, _DAY),
    "lock_timeout": (0, _DAY),
}
_CHOICES = {"log_format": ("text", "json"), "log_level": ("debug", "info", "warning", "error")}


def _check(where: str, key: str, value: object, file: str = "") -> object:
    """Return *value* as the setting *key* has it; *where* names the setting and its source for the message.

    :raises SettingsError: if there is no such setting, or it cannot have that value.
    """
    if key not in _DEFAULTS:
        section = ", and there are no sections" if isinstance(value, dict) else ""
        raise SettingsError(f"{file}: there is no setting {key!r}{section}{_nearest(key, list(_DEFAULTS))}")
    try:
        return _converted(key, value)
    except ValueError as error:
        shown = repr(str(value) if isinstance(value, Path) else value)
        raise SettingsError(f"{where} must be {error}, not {shown[:200]}") from error


def _converted(key: str, value: object) -> object:
    """Return *value* as the setting *key* has it.

    :raises ValueError: with what it must be.
    """
    default = _DEFAULTS[key]
    if isinstance(default, bool):
        return _typed(value, bool, "true or false")
    if isinstance(default, int | float):
        return _number(key, value, default)
    if isinstance(default, Path):
        return _folder(value)
    if isinstance(default, tuple):
        return _texts(key, value)
    text = _typed(value, str, "a text")
    return _TEXTS[key](text) if key in _TEXTS else _chosen(key, text)


def _typed(value: object, kind: type[_Kind], rule: str) -> _Kind:
    if not isinstance(value, kind):
        raise ValueError(rule)
    return value


def _number(key: str, value: object, default: float) -> float:
    lowest, highest = _RANGES.get(key, (1, math.inf))
    kind = "a whole number" if isinstance(default, int) else "a number of seconds"
    rule = f"{kind} of at least {lowest:g}" if highest == math.inf else f"{kind} from {lowest:g} to {highest:.0f}"
    allowed = int if isinstance(default, int) else (int, float)
    if isinstance(value, bool) or not isinstance(value, allowed) or not lowest <= value <= highest:
        raise ValueError(rule)
    return type(default)(value)


def _folder(value: object) -> Path:
    if not isinstance(value, str | Path) or not str(value) or "\0" in str(value):
        raise ValueError("the path of a folder")
    return Path(value)


def _texts(key: str, value: object) -> tuple[str, ...]:
    items = _typed(value, list, f"a list, each item {_ITEMS[key][0]}")
    return tuple(_ITEMS[key][1](item) for item in items)


def _chosen(key: str, text: str) -> str:
    if text not in _CHOICES[key]:
        *others, last = map(repr, _CHOICES[key])
        raise ValueError(f"{', '.join(others)} or {last}")
    return text


def _host(text: str) -> str:
    if not re.fullmatch(r"[\w.:%-]+", text):
        raise ValueError("a host name or an address")
    return text


def _public_url(text: str) -> str:
    rule = "an address such as 'https://packages.example.com', without user, query or fragment"
    if not text:
        return text
    try:
        parts = urlsplit(text)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError as error:
        raise ValueError(rule) from error
    if not good or re.search(r"[^!-~]|[?#@\"'<>\\]", text):
        raise ValueError(rule)
    return text.rstrip("/")


def _proxy_prefix(text: str) -> str:
    if text and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", text):
        raise ValueError("an address in the proxy such as '/_files'")
    return text.rstrip("/")


_HOST_NAME = re.compile(r"([a-z0-9._-]+|\[[0-9a-f:.]+\])(:\d{1,5})?", re.ASCII)
_HOST_RULE = "a host name, 'name' or 'name:port'"
_ADDRESS_RULE = "an IP address"


def _host_name(item: object) -> str:
    if not isinstance(item, str) or not _HOST_NAME.fullmatch(item.lower()):
        raise ValueError(f"a list, each item {_HOST_RULE}")
    return item.lower()


def _address(item: object) -> str:
    try:
        return str(ipaddress.ip_address(_typed(item, str, _ADDRESS_RULE)))
    except ValueError as error:
        raise ValueError(f"a list, each item {_ADDRESS_RULE}") from error


_TEXTS: dict[str, Callable[[str], str]] = {
    "host": _host,
    "public_url": _public_url,
    "x_accel_redirect": _proxy_prefix,
}
_ITEMS: dict[str, tuple[str, Callable[[object], str]]] = {
    "hosts": (_HOST_RULE, _host_name),
    "trusted_proxies": (_ADDRESS_RULE, _address),
}


def _check_folder(storage: Path) -> None:
    """Look that the storage, where it exists, is a folder we can work in.

    :raises SettingsError: if it is not.
    """
    try:
        if not storage.exists():  # it will be made
            return
        if not storage.is_dir():
            raise SettingsError(f"the storage {storage} is not a folder")
        if not os.access(storage, os.R_OK | os.W_OK | os.X_OK):
            raise SettingsError(f"the storage {storage} cannot be read and written by this user")
    except OSError as error:
        raise SettingsError(f"the storage {storage} cannot be read: {error.strerror or error}") from error
