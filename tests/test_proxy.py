"""Behind nginx: nothing is smuggled through it, its word counts where it is trusted, and big files pass."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from werkzeug.security import generate_password_hash

from storage.registry import Registry
from storage.users import Role
from tests.clients import LiveRepository, make_repository
from tests.conftest import LiveServer, start_server
from tests.storage.makers import make_wheel
from tests.test_races import Side

MIB = 1024 * 1024
CONFIGURATION = """
{user} daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 256; }}
http {{
    access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    upstream packhouse {{ server {upstream}; keepalive 1; }}
    server {{
        listen 127.0.0.1:{port}; client_max_body_size 0;
        location / {{
            proxy_pass http://packhouse; proxy_http_version 1.1; proxy_set_header Connection "";
            proxy_request_buffering {buffering};
            proxy_set_header Host $http_host; proxy_set_header X-Forwarded-Host packages.example.com;
            proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-For $remote_addr;
        }}
    }}
}}
"""


@dataclass
class Proxied:
    """A server, and nginx before it."""

    server: LiveServer
    port: int
    repository: LiveRepository

    @property
    def side(self) -> Side:
        """The repository by way of nginx."""
        side = Side(self.server, self.repository)
        side.host = f"127.0.0.1:{self.port}"
        return side

    def send(self, request: bytes) -> bytes:
        """Send raw bytes to nginx and return all that comes back until it is quiet."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=0.25) as connection:
            connection.sendall(request)
            received = b""
            try:
                while piece := connection.recv(65536):
                    received += piece
            except (TimeoutError, ConnectionError):
                pass
            return received

    def carried_out(self) -> list[str]:
        """The words in the queries of Packhouse's access log so far."""
        time.sleep(0.5)
        return re.findall(r"/healthz\?(\S+)", self.server.log.read_text())


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


@pytest.fixture(scope="module", params=["on", "off"], ids=["bodies kept by nginx", "bodies passed on at once"])
def proxied(request, tmp_path_factory) -> Iterator[Proxied]:
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    folder = tmp_path_factory.mktemp("nginx")
    server = start_server(folder / "data", env={"PACKHOUSE_TRUSTED_PROXIES": "127.0.0.1"})
    try:
        port = free_port()
        upstream = server.url.removeprefix("http://")
        text = CONFIGURATION.format(
            user="user root;" if os.geteuid() == 0 else "",
            folder=folder,
            port=port,
            upstream=upstream,
            buffering=request.param,
        )
        (folder / "nginx.conf").write_text(text)
        command = [program, "-e", folder / "error.log", "-p", folder, "-c", folder / "nginx.conf"]
        with subprocess.Popen(command, stdin=subprocess.DEVNULL) as nginx:
            try:
                wait_for_port(port, nginx)
                yield Proxied(server, port, make_repository(server, "main"))
            finally:
                nginx.send_signal(signal.SIGTERM)
                nginx.wait(20)
    finally:
        server.stop()


def wait_for_port(port: int, process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            assert process.poll() is None, "nginx did not start"
            assert time.monotonic() < deadline
            time.sleep(0.05)


# --- smuggling ---

HIDDEN = b"GET /healthz?smuggled-%s HTTP/1.1\r\nHost: x\r\n\r\n"
SMUGGLED = {
    "CL.TE": (b"Content-Length: %(length)d\r\nTransfer-Encoding: chunked\r\n", b"0\r\n\r\n%(hidden)s"),
    "TE.CL": (b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n", b"%(hexlength)x\r\n%(hidden)s\r\n0\r\n\r\n"),
    "two lengths": (b"Content-Length: 0\r\nContent-Length: %(length)d\r\n", b"%(hidden)s"),
    "a list of lengths": (b"Content-Length: 0, %(length)d\r\n", b"%(hidden)s"),
    "a signed length": (b"Content-Length: +0\r\n", b"%(hidden)s"),
    "a folded coding": (
        b"Transfer-Encoding:\r\n chunked\r\nContent-Length: %(length)d\r\n",
        b"0\r\n\r\n%(hidden)s",
    ),
    "a coding after a tab": (
        b"Transfer-Encoding:\tchunked\r\nContent-Length: %(length)d\r\n",
        b"0\r\n\r\n%(hidden)s",
    ),
    "a coding before a colon": (
        b"Transfer-Encoding : chunked\r\nContent-Length: %(length)d\r\n",
        b"0\r\n\r\n%(hidden)s",
    ),
    "another coding": (b"Transfer-Encoding: xchunked\r\nContent-Length: 0\r\n", b"%(hidden)s"),
    "two codings": (b"Transfer-Encoding: gzip, chunked\r\n", b"0\r\n\r\n%(hidden)s"),
    "an underscore": (b"Transfer_Encoding: chunked\r\nContent-Length: %(length)d\r\n", b"0\r\n\r\n%(hidden)s"),
    "a bare LF": (b"X: y\nTransfer-Encoding: chunked\nContent-Length: %(length)d\r\n", b"0\r\n\r\n%(hidden)s"),
    "a bare CR": (b"X: y\rTransfer-Encoding: chunked\r\nContent-Length: %(length)d\r\n", b"0\r\n\r\n%(hidden)s"),
    "a NUL": (b"X: y\x00Transfer-Encoding: chunked\r\nContent-Length: %(length)d\r\n", b"0\r\n\r\n%(hidden)s"),
    "a chunk's extension": (b"Transfer-Encoding: chunked\r\n", b"1;a=\n\r\nx\r\n0;\n\r\n%(hidden)s"),
    "an endless size": (b"Transfer-Encoding: chunked\r\n", b"%(zeros)s\r\n\r\n%(hidden)s"),
    "an upgrade": (
        b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nContent-Length: %(length)d\r\n",
        b"%(hidden)s",
    ),
    "a length named in Connection": (
        b"Connection: close, Content-Length\r\nContent-Length: %(length)d\r\n",
        b"%(hidden)s",
    ),
}
# nginx itself reads what follows as the next request of this client: as a body, it is none of the first's.
PIPELINED = {"a chunk's extension", "an endless size", "CL.TE"}


@pytest.mark.parametrize("method", [b"POST", b"GET"])
def test_what_nginx_passes_on_as_a_body_is_never_carried_out(proxied, method):
    for number, (name, (head, body)) in enumerate(SMUGGLED.items()):
        word = b"%s-%d" % (method, number)
        hidden = HIDDEN % word
        content = body % {b"hidden": hidden, b"hexlength": len(hidden), b"zeros": b"0" * 20}
        head = head % {b"length": len(content)}

        proxied.send(b"%s /healthz?outer-%s HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (method, word, head, content))
        # What was left in the connection between nginx and Packhouse would come before the answer to this.
        other = proxied.send(b"GET /healthz?other-%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % word)

        assert other.startswith(b"HTTP/1.1 200 OK"), name
        assert other.endswith(b"ok\n"), name
        assert other.count(b"HTTP/1.1 ") == 1, name

    seen = proxied.carried_out()
    for number, name in enumerate(SMUGGLED):
        word = f"{method.decode()}-{number}"
        assert seen.count(f"other-{word}") == 1, name
        assert seen.count(f"outer-{word}") <= 1, name
        assert seen.count(f"smuggled-{word}") <= (name in PIPELINED), name


# --- what nginx says of the client ---

ACCEPT = {"Accept": "application/json"}


def next_page(answer) -> str:
    return re.search(r'<(https?://[^/]+)/[^>]*>; rel="last"', answer[1]["Link"])[1]


def test_the_forwarded_host_counts_from_a_trusted_proxy_if_the_host_is_known(proxied):
    straight = Side(proxied.server, proxied.repository)

    behind = proxied.side.ask("GET", f"{straight.api}/packages.json")
    forged = straight.ask(
        "GET", f"{straight.api}/packages.json", **{"X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "https"}
    )

    assert behind[0] == forged[0] == 200
    for answer in (behind, forged):  # neither is a host that the configuration names
        assert "example" not in next_page(answer)


def test_the_scheme_of_the_client_counts_from_nginx_and_nobody_else(proxied, tmp_path):
    assert "; Secure" in proxied.side.ask("GET", "/login")[1]["Set-Cookie"]

    server = start_server(tmp_path / "data")
    try:
        untrusting = Side(server, make_repository(server, "main"))
        forged = untrusting.ask("GET", "/login", **{"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.77"})
        time.sleep(0.5)
        log = server.log.read_text()
    finally:
        server.stop()

    assert "Secure" not in forged[1]["Set-Cookie"]
    assert "192.0.2.77" not in log


def test_wrong_passwords_of_uploads_through_a_proxy_shut_out_their_client_alone(tmp_path):
    server = start_server(tmp_path / "data", env={"PACKHOUSE_TRUSTED_PROXIES": "127.0.0.1"})
    try:
        side = Side(server, make_repository(server, "main"))
        registry = Registry(server.storage)
        registry.users.create("alice", generate_password_hash("right", "scrypt:1024:8:1"), {side.org: Role.ADMIN})
        statuses = []
        for client, user, password in [
            *[("192.0.2.1", f"user{i}", "wrong") for i in range(10)],
            ("192.0.2.1", "alice", "right"),
            ("192.0.2.2", "alice", "right"),
        ]:
            credential = base64.b64encode(f"{user}:{password}".encode()).decode()
            headers = {"Authorization": f"Basic {credential}", "X-Forwarded-For": client}
            statuses.append(side.ask("POST", f"{side.api}/packages.json", b"x", **headers)[0])
        time.sleep(0.5)
        lines = [line for line in server.log.read_text().splitlines() if " POST /api" in line]
    finally:
        server.stop()

    assert statuses == [401] * 10 + [429, 422]
    assert [line.split()[1] for line in lines] == ["192.0.2.1"] * 11 + ["192.0.2.2"]


# --- big files ---


def test_a_big_file_is_uploaded_and_downloaded_through_nginx(proxied):
    filename, content = make_wheel("big", files={"big.bin": os.urandom(48 * MIB)})
    side = proxied.side

    status, _, _ = side.upload(filename, content)
    again, _, body = side.get("big", filename)

    assert (status, again) == (201, 200)
    assert hashlib.sha256(body).digest() == hashlib.sha256(content).digest()
    part = side.ask("GET", f"{side.pypi}/files/big/{filename}", Range="bytes=1000000-1000009")
    assert (part[0], part[2]) == (206, content[1000000:1000010])


def test_an_upload_without_a_credential_is_refused_through_nginx(proxied):
    side = proxied.side
    side.headers = {}

    status, headers, _ = side.upload(*make_wheel("refused"))

    assert status == 401
    assert headers["WWW-Authenticate"].startswith("Basic ")
