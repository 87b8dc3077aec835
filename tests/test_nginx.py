"""Behind a real nginx that sends the files itself, set up as docs/performance.md says."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from storage.downloads import downloads_of
from storage.registry import Registry
from tests.conftest import basic, start_server
from tests.storage.makers import make_wheel

NGINX = shutil.which("nginx", path="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin")
GUIDE = Path(__file__).parent.parent / "docs" / "performance.md"
ORG, REPO = "my-organization", "my-python-packages"  # of the first start
MAIN = """
daemon off; master_process off; pid {folder}/pid; error_log {folder}/error.log warn;
events {{ worker_connections 64; }}
http {{
  access_log {folder}/access.log; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
{servers}
}}
"""

pytestmark = pytest.mark.skipif(NGINX is None, reason="nginx is not installed")


class Front:
    """nginx in front of Packhouse."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        variables = {"PACKHOUSE_TRUSTED_PROXIES": "127.0.0.1", "PACKHOUSE_X_ACCEL_REDIRECT": "/_files"}
        self.packhouse = start_server(folder / "data", env=variables)
        servers = re.search(r"```nginx\n(.*?)```", GUIDE.read_text(), re.DOTALL)[1]
        servers = servers.replace("listen 443 ssl;", f"listen 127.0.0.1:{self.port};")
        servers = re.sub(r"^ *ssl_.*\n", "", servers, flags=re.MULTILINE)
        servers = servers.replace("127.0.0.1:8080", self.packhouse.url.removeprefix("http://"))
        servers = servers.replace("/srv/packhouse", str(self.packhouse.storage))
        configuration = folder / "nginx.conf"
        configuration.write_text(MAIN.format(folder=folder, servers=servers))
        self.nginx = subprocess.Popen([NGINX, "-c", configuration, "-p", folder], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and self.nginx.poll() is None:
            try:
                return socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"nginx did not start: {(folder / 'error.log').read_text()}")

    def get(self, path: str, **headers: str):
        """Return status, headers and body."""
        asked = {name.replace("_", "-"): value for name, value in headers.items()}
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", headers=asked)
        try:
            with urllib.request.urlopen(request, timeout=20) as answer:
                return answer.status, answer.headers, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.headers, error.read()

    def stop(self) -> None:
        self.nginx.terminate()
        self.nginx.wait(10)
        self.packhouse.stop()


@pytest.fixture
def front(tmp_path):
    front = Front(tmp_path)
    yield front
    front.stop()


@pytest.fixture
def wheel(front):
    """A published wheel: its file name and its bytes."""
    filename, content = make_wheel("toolbox", "1.0+local.1", files={"toolbox.py": b"x = 1\n" * 5000})
    path = front.packhouse.storage.parent / filename
    path.write_bytes(content)
    form = ["-F", f"package[package_file]=@{path}", "-u", f"{front.packhouse.publishing_token}:"]
    address = f"{front.packhouse.url}/api/v1/repos/{ORG}/{REPO}/packages.json"
    subprocess.run(["curl", "-sf", *form, address], check=True, capture_output=True, timeout=20)
    return filename, content


def file_of(filename: str) -> str:
    return f"/{ORG}/{REPO}/pypi/files/toolbox/{filename.replace('+', '%2B')}"


def stored_at(filename: str) -> str:
    return f"/_files/{ORG}/{REPO}/packages/toolbox/{filename.replace('+', '%2B')}"


def credential(front: Front) -> dict[str, str]:
    return basic("__token__", front.packhouse.read_token)


def test_nginx_sends_the_file_and_packhouse_counts_it(front, wheel):
    filename, content = wheel

    status, headers, body = front.get(file_of(filename), **credential(front))

    assert (status, body) == (200, content)
    assert headers["Content-Type"] == "application/octet-stream"
    assert headers["Cache-Control"] == "private, max-age=31536000, immutable"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "X-Accel-Redirect" not in headers
    front.packhouse.stop()
    repository = Registry(front.packhouse.storage).repository(ORG, REPO)
    counts = downloads_of(repository.tree, "toolbox", filename)
    assert list(counts.values()) == [1]
    assert " 200 0B " in front.packhouse.log.read_text()  # not one byte of the file came from Packhouse


def test_nginx_sends_a_part_of_the_file(front, wheel):
    filename, content = wheel

    status, headers, body = front.get(file_of(filename), Range="bytes=100-199", **credential(front))

    assert (status, body) == (206, content[100:200])
    assert headers["Content-Range"] == f"bytes 100-199/{len(content)}"


def test_nginx_sends_nothing_without_the_right_to_read(front, wheel):
    filename, _ = wheel

    assert front.get(file_of(filename))[0] == 401
    assert front.get(stored_at(filename))[0] == 404
    assert front.get(stored_at(filename), **credential(front))[0] == 404
    assert front.get("/_files/registry.json", **credential(front))[0] == 404


def test_the_download_from_a_page_keeps_its_name(front, wheel):
    filename, content = wheel
    address = f"/{ORG}/{REPO}/packages/toolbox/{filename.replace('+', '%2B')}/download"

    status, headers, body = front.get(address, **credential(front))

    assert (status, body) == (200, content)
    assert headers["Content-Disposition"] == f"attachment; filename={filename}"
