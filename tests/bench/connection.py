"""One HTTP/1.1 connection that costs little beside the servers it measures, and twine's upload request."""

from __future__ import annotations

import base64
import hashlib
import socket
from dataclasses import dataclass

USER_AGENT = "pip/26.0"
BOUNDARY = "bench-boundary-7MA4YWxkTrZu0gW"
TIMEOUT = 60  # seconds


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered."""

    status: int
    headers: dict[str, str]  # by name in lower case
    body: bytes


class Connection:
    """A connection that is kept while the server keeps it, and made again when it is not."""

    def __init__(self, port: int) -> None:
        """Connect at the first request."""
        self._port = port
        self._socket: socket.socket | None = None
        self._buffer = b""

    def get(self, path: str, **headers: str) -> Answer:
        """Ask for a page; ``If_None_Match="..."`` names a header."""
        return self.request(request_head("GET", path, {"Accept": "text/html", **headers}))

    def request(self, request: bytes) -> Answer:
        """Send a whole request.

        :raises OSError: if a new connection fails, too.
        """
        if self._socket is not None:
            try:
                self._socket.sendall(request)
                return self._answer()
            except ConnectionError:
                self.close()
        self.open().sendall(request)
        return self._answer()

    def open(self) -> socket.socket:
        """Connect anew, and return the socket, for what is no whole request."""
        self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=TIMEOUT)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._socket

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._buffer = None, b""

    def _receive(self) -> None:
        assert self._socket is not None
        data = self._socket.recv(256 * 1024)
        if not data:
            raise ConnectionError("the server closed the connection")
        self._buffer += data

    def _take(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _take_until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            self._receive()
        data, self._buffer = self._buffer.split(mark, 1)
        return data

    def _answer(self) -> Answer:
        first, *lines = self._take_until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        status = int(first.split()[1])
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        body = b"" if status in (204, 304) else self._body(headers)
        if first.startswith("HTTP/1.0") or headers.get("connection", "").lower() == "close":
            self.close()
        return Answer(status, headers, body)

    def _body(self, headers: dict[str, str]) -> bytes:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self._take_until(b"\r\n").split(b";")[0], 16):
                chunks.append(self._take(size + 2)[:-2])
            self._take(2)
            return b"".join(chunks)
        if "content-length" in headers:
            return self._take(int(headers["content-length"]))
        try:
            while True:
                self._receive()
        except ConnectionError:
            body = self._buffer
            self.close()
            return body


def request_head(method: str, path: str, headers: dict[str, str]) -> bytes:
    """Return the head of a request; an underscore in a header's name stands for a hyphen."""
    lines = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    start = [f"{method} {path} HTTP/1.1", "Host: 127.0.0.1", f"User-Agent: {USER_AGENT}"]
    return ("\r\n".join([*start, *lines]) + "\r\n\r\n").encode()


def basic(user: str, password: str) -> str:
    """Return the value of the Authorization header."""
    return "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def twine_fields(project: str, version: str, sha256: str) -> dict[str, str]:
    """Return the fields that go with a wheel's upload."""
    return {
        ":action": "file_upload",
        "protocol_version": "1",
        "metadata_version": "2.1",
        "name": project,
        "version": version,
        "filetype": "bdist_wheel",
        "pyversion": "py3",
        "sha256_digest": sha256,
    }


def multipart(project: str, version: str, file_field: str, filename: str, content: bytes) -> bytes:
    """Return the form that twine sends."""
    fields = twine_fields(project, version, hashlib.sha256(content).hexdigest())
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in fields.items()
    ]
    file = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{file_field}"; filename="{filename}"\r\n'
    head = "".join(parts) + file + "Content-Type: application/octet-stream\r\n\r\n"
    return head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()


def post(path: str, authorization: str, body: bytes) -> bytes:
    """Return a request that sends a form."""
    headers = {
        "Authorization": authorization,
        "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
        "Content-Length": str(len(body)),
    }
    return request_head("POST", path, headers) + body
