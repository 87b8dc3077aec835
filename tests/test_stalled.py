"""One hundred and fifty clients that do not move, at a whole Packhouse, and two ordinary ones beside them."""

from __future__ import annotations

import os
import socket
import time
from contextlib import ExitStack

from tests.clients import make_repository
from tests.conftest import start_server
from tests.storage.makers import make_wheel
from tests.test_races import Side

MIB = 1024 * 1024
STALLED = 150


def test_others_are_served_within_ten_seconds_beside_150_stalled_connections(tmp_path):
    server = start_server(tmp_path / "data")
    with ExitStack() as stack:
        stack.callback(server.stop)
        side = Side(server, make_repository(server, "main"))
        filename, content = make_wheel("big", files={"big.bin": os.urandom(16 * MIB)})
        assert side.upload(filename, content)[0] == 201
        credential = f"Authorization: {side.headers['Authorization']}\r\n"
        head = f"Host: x\r\n{credential}"
        kind = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000000\r\n"
        part = (
            '--b\r\nContent-Disposition: form-data; name="package[package_file]"; filename="x-1.0.tar.gz"\r\n\r\nx'
        )
        beginnings = [
            f"GET {side.pypi}/simple/ HTTP/1.1\r\nHost: x\r\nX-Slow: ",  # in the headers
            f"POST {side.api}/packages.json HTTP/1.1\r\n{head}{kind}\r\n{part}",  # in a file
            f"PUT {side.api}/package/python/big/status HTTP/1.1\r\n{head}Content-Length: 100\r\n\r\nstatus=",
            f"GET {side.pypi}/files/big/{filename} HTTP/1.1\r\n{head}\r\n",  # does not read
            "",
        ]
        host, _, port = side.host.partition(":")
        for number in range(STALLED):
            connection = stack.enter_context(socket.socket())
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            connection.connect((host, int(port)))
            connection.sendall(beginnings[number % len(beginnings)].encode())
        time.sleep(1)

        begin = time.monotonic()
        got = side.get("big", filename)
        seconds_to_get = time.monotonic() - begin
        put = side.upload(*make_wheel())
        seconds_to_put = time.monotonic() - begin - seconds_to_get
        listed = side.files("toolbox")
        pages = [
            side.ask("GET", address)[0] for address in (f"/{side.org}/{side.repo}/", f"{side.api}/packages.json")
        ]

    assert (got[0], got[2] == content, put[0]) == (200, True, 201)
    assert seconds_to_get < 10
    assert seconds_to_put < 10
    assert len(listed) == 1
    assert pages == [200, 200]
