"""``packhouse serve``: the listening socket, the processes on it, signals, logs, the welcome of the first start.

In order:

the server     serve(read_settings, open_registry, hash_password)
signals        SIGTERM ends it, SIGHUP lets it read its configuration again
the welcome    what the first start prints
logs           start_logging(settings)

What the command line says and asks is in ``cli.py``.
"""

from __future__ import annotations

import json
import logging
import os
import resource
import shlex
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from types import FrameType
from typing import Protocol

import click

import snippets
from app import create_app, make_gate
from server import Server, ServerOptions, listening_socket
from settings import Settings, SettingsError
from storage.errors import printable
from storage.files import set_waiting
from storage.registry import Registry
from storage.sidecars import SERVER_VERSION
from storage.starting import Start, start
from web.logs import AccessLog, without_secrets
from web.metrics import Noted
from web.workers import OBEYED, Workers
from wire.threads import waiting

# --- the server ---


class OpenRegistry(Protocol):
    """Opens the storage that the settings name."""

    def __call__(self, settings: Settings, *, make: bool = False) -> Registry:
        """Return it; *make* it where there is none.

        :raises SettingsError: if there is none.
        """


def serve(
    read_settings: Callable[[], Settings],
    open_registry: OpenRegistry,
    hash_password: Callable[[str], str],
) -> None:
    """Run the server until Ctrl-C or SIGTERM.

    *read_settings* is called again upon SIGHUP. Where there is no storage at the start, one is made.

    :raises SettingsError: if a setting cannot be.
    :raises OSError: if the address is taken, or the storage cannot be read or written.
    """
    settings = read_settings()
    start_logging(settings)
    _allow_descriptors(settings.max_connections)
    # First of all, so that a taken port leaves nothing behind, least of all secrets that nobody gets to see.
    with listening_socket(settings.host, settings.port) as listener:
        registry = open_registry(settings, make=True)
        registry.sweep()
        signal.pthread_sigmask(signal.SIG_BLOCK, OBEYED)  # they have to wait until somebody can obey them
        made = start(registry, hash_password)
        local = snippets.local_url(*listener.getsockname()[:2])
        if made is not None:
            click.echo(_welcome(made, settings, settings.public_url or local))
        public = f", for others at {settings.public_url}" if settings.public_url else ""
        click.echo(f"Packhouse {SERVER_VERSION} serves {settings.storage.absolute()} at {local}{public}")
        work = partial(_serve_again_and_again, read_settings, open_registry, settings, listener)
        if settings.processes == 1:
            work()
        else:
            worker = partial(_end_with_parent, os.getpid(), work)
            Workers(settings.processes, worker, settings.stop_timeout, on_stop=listener.close).run()


def _serve_again_and_again(
    read_settings: Callable[[], Settings],
    open_registry: OpenRegistry,
    settings: Settings,
    listener: socket.socket,
) -> None:
    """Serve on *listener*; upon SIGHUP finish what is in flight and begin anew with the settings of then.

    Where to listen, where the storage is and how many processes there are stays as it was at the start.
    """
    while True:
        registry, access_log = open_registry(settings), AccessLog(settings.log_format)
        server = _make_server(settings, registry, listener.dup(), access_log)
        again = _obey_signals(server, listener)
        server.run()
        registry.downloads.flush()
        access_log.flush()
        if not again:
            return
        try:
            fixed = {key: getattr(settings, key) for key in ("host", "port", "storage", "processes")}
            settings = replace(read_settings(), **fixed)
        except SettingsError as error:
            logging.getLogger("packhouse").error("the old settings stay: %s", error)


def _end_with_parent(parent: int, work: Callable[[], None]) -> None:
    """Do *work* in a worker process; should the parent die without a word, so does the worker, in its own order."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, name="parent watch", daemon=True).start()
    work()


def _make_server(settings: Settings, registry: Registry, listener: socket.socket, access_log: AccessLog) -> Server:
    app = create_app(settings, registry)
    options = ServerOptions(
        host=settings.host,
        port=settings.port,
        threads=settings.threads,
        idle_timeout=settings.idle_timeout,
        max_connections=settings.max_connections,
        stop_timeout=settings.stop_timeout,
        max_header_size=settings.max_request_header_size,
    )
    is_logged = logging.getLogger().isEnabledFor(logging.INFO)
    noted = Noted(app.extensions["packhouse.answers"], access_log if is_logged else None)
    set_waiting(waiting)
    return Server(app, make_gate(app), options, listener, noted, app.extensions["packhouse.hot"].find)


def _allow_descriptors(connections: int) -> None:
    """Raise the soft limit of open files, as far as it may be, to what so many connections need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 256  # each with a file of its own, and some for everything else
    if soft < wanted:
        most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


# --- signals ---


def _obey_signals(server: Server, listener: socket.socket) -> list[int]:
    """Let Ctrl-C and SIGTERM end *server*, and SIGHUP, too: then the list that is returned gets an item.

    The second of two is the same wish sent by two senders.
    """
    again: list[int] = []

    def stop(_signal: int, _frame: FrameType | None) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        again.clear()
        listener.close()  # the server's is a copy, and this one would go on taking connections that nobody serves
        server.stop()

    def reload(number: int, _frame: FrameType | None) -> None:
        again.append(number)
        server.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    signal.signal(signal.SIGHUP, reload)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)
    return again


# --- the welcome ---

_WELCOME = """\
This storage is new. Made for a start:

  repository  {org}/{repo} (private), at {url}/{org}/{repo}/
  user        {user}
  password    {password}

Publish a wheel or an sdist: this command, with the path of the file in place of FILE

{curl}

Install a package from there: this command, with the package's name in place of PACKAGE

{pip}

or for every pip command of a user, these lines in ~/.config/pip/pip.conf

{pip_conf}

The password and the two tokens in these lines are not shown again. To make others:

  packhouse user passwd {user}{options}
  packhouse token create {org}/{repo} --scope read_packages --scope write_packages{options}
"""


def _welcome(made: Start, settings: Settings, url: str) -> str:
    """What the first start prints."""
    org, repo = made.repository.org, made.repository.slug
    is_default = settings.storage == Settings().storage
    return _WELCOME.format(
        url=url,
        org=org,
        repo=repo,
        user=made.user,
        password=made.password,
        curl=snippets.curl_command(url, org, repo, made.publishing_token),
        pip=snippets.pip_command(url, org, repo, made.read_token),
        pip_conf=snippets.pip_conf(url, org, repo, made.read_token),
        options="" if is_default else f" --storage {shlex.quote(str(settings.storage.absolute()))}",
    )


# --- logs ---


class _TextFormatter(logging.Formatter):
    """One line for each event; what clients sent cannot start a new one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s")

    def formatMessage(self, record: logging.LogRecord) -> str:
        """Return the line, a traceback not included."""
        record.message = printable(record.message)
        return super().formatMessage(record)


class _JsonFormatter(logging.Formatter):
    """One JSON object for each event; ``extra={"fields": {...}}`` of a logging call gives it further keys."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        document = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return json.dumps(document, default=str)


def _without_secrets(record: logging.LogRecord) -> bool:
    """Cut every token in a line down to its id, whoever wrote it; let the line pass."""
    message = record.getMessage()
    if (cleaned := without_secrets(message)) != message:
        record.msg, record.args = cleaned, None
    return True


def start_logging(settings: Settings) -> None:
    """Write the logs to standard error from now on."""
    handler = logging.StreamHandler()
    handler.addFilter(_without_secrets)
    handler.setFormatter(_JsonFormatter() if settings.log_format == "json" else _TextFormatter())
    logging.basicConfig(handlers=[handler], level=settings.log_level.upper(), force=True)
    # It says for every request that waits that one waits.
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
