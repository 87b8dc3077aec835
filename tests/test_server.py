"""The server by itself: raw sockets, real curl and little WSGI applications."""

import contextlib
import io
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from server import BODY_KEY, HEAD_KEY, MIB, HotAnswer, Refusal, Server, ServerOptions
from tests.conftest import wait_until
from wire.connections import Channel

GET = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST_GET = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


class Receiver:
    """A BodyReceiver that remembers; it has seen enough after *enough* bytes."""

    def __init__(self, enough=None):
        self.body = bytearray()
        self.closed = 0
        self.enough = enough

    def write(self, data):
        self.body += data
        return self.enough is None or len(self.body) < self.enough

    def close(self):
        self.closed += 1


class Application:
    """Answers every request with its method and path, and remembers the environs."""

    def __init__(self):
        self.environs = []

    def __call__(self, environ, start_response):
        self.environs.append(dict(environ))
        receiver = environ.get(BODY_KEY)
        body = environ["wsgi.input"].read() if receiver is None else bytes(receiver.body[:100])
        answer = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']} ".encode() + body
        start_response("200 OK", [("Content-Length", str(len(answer)))])
        return [answer]


def in_memory(environ):
    return 1000


@pytest.fixture
def app():
    return Application()


@pytest.fixture
def serve():
    """Start a server in a thread: serve(app, gate, **options) gives it; all are stopped in the end."""
    with contextlib.ExitStack() as running:

        def start(app, gate=in_memory, hot=lambda head, address, looks: None, **options):
            options = ServerOptions(**{"host": "127.0.0.1", "port": 0, "stop_timeout": 1.0} | options)
            server = Server(app, gate, options, hot=hot)
            thread = threading.Thread(target=server.run)
            thread.start()
            running.callback(thread.join, 5)
            running.callback(server.stop)
            server.thread = thread
            return server

        yield start


class Client:
    """One raw connection."""

    def __init__(self, server, receive_buffer=None):
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(5)
        self.sock.connect(server.address)
        self.file = self.sock.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.sock.close()

    def send(self, data):
        self.sock.sendall(data)
        return self

    def head(self):
        """The next status code and headers."""
        line = self.file.readline()
        status = int(line.split(b" ")[1]) if line else None
        headers = {}
        while (line := self.file.readline()) not in (b"\r\n", b""):
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        return status, headers

    def answer(self):
        """The next status code, headers and body."""
        status, headers = self.head()
        if headers.get("transfer-encoding") == "chunked":
            return status, headers, self.chunked_body()
        return status, headers, self.file.read(int(headers.get("content-length", 0)))

    def chunked_body(self):
        body = b""
        while size := int(self.file.readline(), 16):
            body += self.file.read(size)
            self.file.readline()
        self.file.readline()
        return body

    def is_open(self):
        """Whether the server answers another request here."""
        try:
            return self.send(GET).answer()[0] == 200
        except OSError:
            return False

    def is_cut_off(self):
        """Whether the server has closed and takes nothing more."""
        try:
            self.send(b"x")
        except ConnectionError:
            return True
        return False

    def wait_for_end(self, seconds):
        """Seconds until the server closes, at most so many."""
        start = time.monotonic()
        self.sock.settimeout(seconds)
        with contextlib.suppress(ConnectionError):
            while self.sock.recv(65536):
                pass
        return time.monotonic() - start


def ask(server, data):
    with Client(server) as client:
        return client.send(data).answer()


def post(body, *fields, path=b"/upload"):
    head = [b"POST " + path + b" HTTP/1.1", b"Host: localhost", *fields]
    return b"\r\n".join(head) + b"\r\n\r\n" + body


def named(cases):
    return [pytest.param(*values, id=name) for name, values in cases.items()]


# --- heads ---

HOST = b"Host: localhost\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: localhost\r\n\r\n"


@pytest.mark.parametrize(
    ("status", "request_"),
    named(
        {
            "length and coding": (400, post(b"0\r\n\r\n", b"Content-Length: 6", b"Transfer-Encoding: chunked")),
            "coding and length": (400, post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Content-Length: 5")),
            "two lengths": (400, post(b"hello", b"Content-Length: 5", b"Content-Length: 6")),
            "the same length twice": (400, post(b"hello", b"Content-Length: 5", b"Content-Length: 5")),
            "a list of lengths": (400, post(b"hello", b"Content-Length: 5, 5")),
            "a signed length": (400, post(b"hello", b"Content-Length: +5")),
            "a negative length": (400, post(b"hello", b"Content-Length: -5")),
            "a hexadecimal length": (400, post(b"hello", b"Content-Length: 0x5")),
            "a length with an underscore": (400, post(b"hello", b"Content-Length: 1_0")),
            "an empty length": (400, post(b"hello", b"Content-Length:")),
            "an endless length": (400, post(b"hello", b"Content-Length: " + b"9" * 5000)),
            "a length in other digits": (400, post(b"hello", b"Content-Length: \xb2")),
            "gzip and chunked": (501, post(b"0\r\n\r\n", b"Transfer-Encoding: gzip, chunked")),
            "chunked twice": (501, post(b"0\r\n\r\n", b"Transfer-Encoding: chunked, chunked")),
            "two codings": (400, post(b"0\r\n\r\n", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity")),
            "identity": (501, post(b"", b"Transfer-Encoding: identity")),
            "no coding": (501, post(b"", b"Transfer-Encoding:")),
            "nearly chunked": (501, post(b"0\r\n\r\n", b"Transfer-Encoding: xchunked")),
            "quoted chunked": (501, post(b"0\r\n\r\n", b'Transfer-Encoding: "chunked"')),
            "chunked with a vertical tab": (400, post(b"0\r\n\r\n", b"Transfer-Encoding: \x0bchunked")),
            "chunked in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            "a folded header": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\r\n b\r\n\r\n"),
            "a folded first header": (400, b"GET / HTTP/1.1\r\n X: a\r\n" + HOST + b"\r\n"),
            "bare LF": (400, b"GET / HTTP/1.1\nHost: localhost\n\n"),
            "bare LF in a header": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\nContent-Length: 5\r\n\r\n"),
            "bare LF at the end": (400, b"GET / HTTP/1.1\r\n" + HOST + b"\n"),
            "bare CR": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\rY: b\r\n\r\n"),
            "bare CR in the request line": (400, b"GET /\r HTTP/1.1\r\n" + HOST + b"\r\n"),
            "NUL in a header": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: a\0b\r\n\r\n"),
            "NUL in the address": (400, b"GET /\0 HTTP/1.1\r\n" + HOST + b"\r\n"),
            "DEL in a header": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X: \x7f\r\n\r\n"),
            "a tab in the request line": (400, b"GET\t/ HTTP/1.1\r\n" + HOST + b"\r\n"),
            "white space before the colon": (400, post(b"hello", b"Content-Length : 5")),
            "white space in a name": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X Y: a\r\n\r\n"),
            "a header without colon": (400, b"GET / HTTP/1.1\r\n" + HOST + b"X\r\n\r\n"),
            "a header without name": (400, b"GET / HTTP/1.1\r\n" + HOST + b": a\r\n\r\n"),
            "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
            "no Host but an absolute address": (400, b"GET http://localhost/ HTTP/1.1\r\n\r\n"),
            "two Hosts": (400, b"GET / HTTP/1.1\r\n" + HOST + b"Host: example.org\r\n\r\n"),
            "an odd Host": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
            "user in an absolute address": (400, b"GET http://a@b/ HTTP/1.1\r\n" + HOST + b"\r\n"),
            "a broken absolute address": (400, b"GET http://[::1/ HTTP/1.1\r\n" + HOST + b"\r\n"),
            "two Authorizations": (
                400,
                b"GET / HTTP/1.1\r\n" + HOST + b"Authorization: a\r\nAuthorization: b\r\n\r\n",
            ),
            "no version": (400, b"GET /\r\n" + HOST + b"\r\n"),
            "an unknown version": (505, b"GET / HTTP/2.0\r\n" + HOST + b"\r\n"),
            "the preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            "a lower-case method": (400, b"get / HTTP/1.1\r\n" + HOST + b"\r\n"),
            "a space too many": (400, b"GET  / HTTP/1.1\r\n" + HOST + b"\r\n"),
            "a space before": (400, b" GET / HTTP/1.1\r\n" + HOST + b"\r\n"),
            "a space behind": (400, b"GET / HTTP/1.1 \r\n" + HOST + b"\r\n"),
            "a space inside": (400, b"GET /a b HTTP/1.1\r\n" + HOST + b"\r\n"),
            "a relative address": (400, b"GET a HTTP/1.1\r\n" + HOST + b"\r\n"),
            "a proxy's CONNECT": (400, b"CONNECT a:1 HTTP/1.1\r\n" + HOST + b"\r\n"),
            "raw UTF-8 in the address": (400, "GET /ä HTTP/1.1\r\n".encode() + HOST + b"\r\n"),
            "TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
            "a long request line": (414, b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n" + HOST + b"\r\n"),
            "large headers": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X: " + b"a" * 70_000 + b"\r\n\r\n"),
            "many headers": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X:\r\n" * 20_000 + b"\r\n"),
            "spaces without end": (431, b"GET / HTTP/1.1\r\n" + HOST + b"X:" + b" " * 70_000 + b"\r\n\r\n"),
        }
    ),
)
def test_a_doubtful_request_is_refused_and_nothing_behind_it_is_carried_out(serve, app, status, request_):
    server = serve(app)

    with Client(server) as client:
        client.send(request_ + SMUGGLED * 2)

        assert client.answer()[0] == status
        assert client.file.read() == b""

    assert app.environs == []


def test_a_bare_lf_is_refused_before_the_head_is_complete(serve, app):
    assert ask(serve(app), b"GET / HTTP/1.1\n")[0] == 400


def test_a_head_may_come_byte_by_byte_and_behind_empty_lines(serve, app):
    with Client(serve(app)) as client:
        for byte in b"\r\n\r\n" + GET:
            client.send(bytes([byte]))
            time.sleep(0.001)

        assert client.answer()[2] == b"GET / "


@pytest.mark.parametrize(
    "request_",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: a" + b" " * 60_000 + b"b\r\n\r\n",
        b"GET http://" + b"a" * 16_000 + b" b HTTP/1.1\r\nHost: localhost\r\n\r\n",
        b"\r\n" * 100_000 + GET,
    ],
    ids=["spaces", "an address", "empty lines"],
)
def test_a_long_head_costs_nothing(serve, app, request_):
    start = time.monotonic()

    ask(serve(app), request_)

    assert time.monotonic() - start < 0.5


def test_the_application_sees_the_request_as_wsgi_says(serve, app):
    ask(serve(app), b"GET /a%2Fb%2520c?d=%20e HTTP/1.1\r\nHost: example.org:80\r\nX-Y: 1\r\nX-Y: 2\r\n\r\n")

    environ = app.environs[0]
    assert environ["PATH_INFO"] == "/a/b%20c"
    assert environ["REQUEST_URI"] == "/a%2Fb%2520c?d=%20e"
    assert environ["QUERY_STRING"] == "d=%20e"
    assert environ["HTTP_HOST"] == "example.org:80"
    assert environ["HTTP_X_Y"] == "1, 2"
    assert environ["REMOTE_ADDR"] == "127.0.0.1"


def test_a_header_with_an_underscore_does_not_pass_for_one_with_a_hyphen(serve, app):
    ask(serve(app), b"GET / HTTP/1.1\r\nHost: localhost\r\nX_Forwarded_For: 1.2.3.4\r\nContent_Length: 5\r\n\r\n")

    assert not {"HTTP_X_FORWARDED_FOR", "CONTENT_LENGTH"} & app.environs[0].keys()


def test_forwarded_headers_are_left_to_the_application(serve, app):
    ask(serve(app), b"GET / HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n")

    assert app.environs[0]["HTTP_X_FORWARDED_FOR"] == "1.2.3.4"
    assert app.environs[0]["REMOTE_ADDR"] == "127.0.0.1"


def test_an_absolute_address_takes_the_place_of_the_host_header(serve, app):
    ask(serve(app), b"GET http://example.org/a HTTP/1.1\r\nHost: localhost\r\n\r\n")

    assert (app.environs[0]["HTTP_HOST"], app.environs[0]["PATH_INFO"]) == ("example.org", "/a")


# --- bodies ---


@pytest.mark.parametrize("piece", [1, 7, 10_000])
def test_a_chunked_body_is_decoded_however_it_is_cut(serve, app, piece):
    receiver = Receiver()
    chunks = b'5\r\nhello\r\n00001;a=b;c="d;e"\r\n,\r\n6\r\n world\r\n0\r\nX-Trailer: a\r\n\r\n'
    request = post(chunks, b"Transfer-Encoding: Chunked") + GET

    with Client(serve(app, lambda environ: receiver)) as client:
        for start in range(0, len(request), piece):
            client.send(request[start : start + piece])

        assert client.answer()[2] == b"POST /upload hello, world"
        assert client.answer()[2] == b"GET / "
    assert receiver.closed == 1
    assert "HTTP_TRANSFER_ENCODING" not in app.environs[0]


@pytest.mark.parametrize(
    "chunks",
    [
        b"5 \r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"5\nhello\r\n",
        b"5\n\r\nhello\r\n",
        b"+5\r\nhello\r\n",
        b"0x5\r\nhello\r\n",
        b"-1\r\nhello\r\n",
        b"\r\n5\r\nhello\r\n",
        b"ffffffffffffffffffff\r\nhello\r\n",
        b"5\r\nhello!\r\n",
        b"5\r\nhello5\r\n",
        b"5\r\nhello\n",
        b"5\r\nhello\rX",
        b"5;\r\nhello\r\n",
        b"5;a b\r\nhello\r\n",
        b"5;a\0=b\r\nhello\r\n",
        b"5;a=" + b"b" * 2000 + b"\r\nhello\r\n",
        b"1" * 2000,
        b"0\r\nno trailer\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\n a: b\r\n\r\n",
        b"0\r\nX: a\n\r\n",
        b"0\r\n" + b"X: a\r\n" * 100 + b"\r\n",
        b"0\r\nX: " + b"a" * 2000 + b"\r\n\r\n",
        b"5\r\nhello\r\n0\r\nX:\0\r\n\r\n",
    ],
)
def test_a_broken_chunk_ends_the_connection_without_running_anything(serve, app, chunks):
    receiver = Receiver()

    with Client(serve(app, lambda environ: receiver)) as client:
        client.send(post(chunks, b"Transfer-Encoding: chunked") + SMUGGLED)

        assert client.answer()[0] == 400
        assert client.file.read() == b""
    wait_until(lambda: receiver.closed == 1)
    assert app.environs == []


def test_every_byte_in_a_chunk_of_its_own_is_no_burden(serve, app):
    receiver = Receiver()
    chunks = b"1\r\nx\r\n" * 50_000 + b"0\r\n\r\n"
    start = time.monotonic()

    answer = ask(serve(app, lambda environ: receiver), post(chunks, b"Transfer-Encoding: chunked"))

    assert answer[0] == 200
    assert len(receiver.body) == 50_000
    assert time.monotonic() - start < 3


def test_a_body_is_handed_over_while_it_comes_in_and_occupies_no_thread(serve, app):
    receiver = Receiver()
    server = serve(app, lambda environ: receiver, threads=1)

    with Client(server) as upload:
        upload.send(post(b"hello", b"Content-Length: 10"))
        wait_until(lambda: receiver.body == b"hello")

        assert ask(server, GET)[0] == 200
        assert receiver.closed == 0

        assert upload.send(b"world").answer()[2] == b"POST /upload helloworld"
        assert upload.is_open()
        assert receiver.closed == 1


def test_a_receiver_that_is_full_is_written_to_again_when_it_says_so(serve, app):
    class Full(Receiver):
        resume = None

        def is_full(self, resume):
            if self.body == b"hello":
                self.resume = resume
            return self.body == b"hello"

    receiver = Full()
    server = serve(app, lambda environ: receiver, idle_timeout=0.3)

    with Client(server) as upload:
        upload.send(post(b"hello", b"Content-Length: 11"))
        wait_until(lambda: receiver.resume is not None)
        upload.send(b"world!")
        time.sleep(1)  # the client is not to blame for the waiting

        assert receiver.body == b"hello"
        assert ask(server, GET)[0] == 200
        receiver.body += b" "
        receiver.resume()
        assert upload.answer()[2] == b"POST /upload hello world!"


def test_the_gate_sees_the_environ_that_the_application_gets(serve, app):
    seen = []

    def gate(environ):
        seen.append(dict(environ))
        environ["packhouse.user"] = "mia"
        return Receiver()

    answer = ask(serve(app, gate), post(b"hello", b"Content-Length: 5", b"Authorization: Basic eDp5"))

    assert answer[2] == b"POST /upload hello"
    assert seen[0]["HTTP_AUTHORIZATION"] == "Basic eDp5"
    assert "wsgi.input" not in seen[0]
    assert app.environs[0]["packhouse.user"] == "mia"
    assert seen[0].items() <= app.environs[0].items()


def test_a_request_without_a_body_does_not_pass_the_gate(serve, app):
    def gate(environ):
        raise AssertionError

    assert ask(serve(app, gate), post(b"", b"Content-Length: 0"))[0] == 200


@pytest.mark.parametrize("fields", [(b"Content-Length: 5",), (b"Transfer-Encoding: chunked",)])
def test_a_small_body_is_read_from_wsgi_input(serve, app, fields):
    body = b"hello" if b"Length" in fields[0] else b"2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"

    assert ask(serve(app), post(body, *fields))[2] == b"POST /upload hello"
    assert app.environs[0]["CONTENT_LENGTH"] == "5"


def test_a_body_over_the_gates_limit_is_refused(serve, app):
    server = serve(app)

    assert ask(server, post(b"", b"Content-Length: 1001"))[0] == 413
    assert ask(server, post(b"3e9\r\n" + b"x" * 1001, b"Transfer-Encoding: chunked"))[0] == 413
    assert ask(server, post(b"x" * 1000, b"Content-Length: 1000"))[0] == 200


@pytest.mark.parametrize("enough", [1, 500_000])
def test_a_receiver_that_has_seen_enough_lets_the_application_answer_at_once(serve, app, enough):
    receiver = Receiver(enough)

    with Client(serve(app, lambda environ: receiver)) as client:
        client.send(post(b"x" * MIB, b"Content-Length: 50000000"))

        status, headers, _ = client.answer()

    assert (status, headers["connection"]) == (200, "close")
    assert enough <= len(receiver.body) < MIB
    wait_until(lambda: receiver.closed == 1)


def test_a_client_that_vanishes_leaves_nothing_behind(serve, app):
    receiver = Receiver()

    with Client(serve(app, lambda environ: receiver)) as client:
        client.send(post(b"hello", b"Content-Length: 10"))
        wait_until(lambda: receiver.body)

    wait_until(lambda: receiver.closed == 1)
    assert app.environs == []


class SlowGate:
    """A gate that thinks until it is told what to say."""

    def __init__(self):
        self.verdict = None
        self.asked, self.may_speak = threading.Event(), threading.Event()

    def __call__(self, environ):
        self.asked.set()
        assert self.may_speak.wait(5)
        return self.verdict

    def speak(self, verdict):
        self.verdict = verdict
        self.may_speak.set()


def test_a_gate_that_thinks_for_long_keeps_nobody_else_waiting(serve, app):
    gate = SlowGate()
    server = serve(app, gate)

    with Client(server) as client:
        client.send(post(b"hello", b"Content-Length: 5"))
        assert gate.asked.wait(5)
        assert ask(server, GET)[0] == 200
        gate.speak(Receiver())

        assert client.answer()[2] == b"POST /upload hello"


@pytest.mark.parametrize("fields", [(b"Content-Length: 15",), (b"Transfer-Encoding: chunked",)])
def test_what_comes_while_the_gate_thinks_is_part_of_the_body_and_what_follows_is_the_next_request(
    serve, app, fields
):
    gate = SlowGate()
    pieces = [b"some ", b"more ", b"bytes"]
    if b"chunked" in fields[0]:
        pieces = [b"5\r\n%b\r\n" % piece for piece in pieces] + [b"0\r\n\r\n"]

    with Client(serve(app, gate)) as client:
        client.send(post(pieces[0], *fields))
        assert gate.asked.wait(5)
        for piece in pieces[1:]:
            client.send(piece)
            time.sleep(0.05)
        client.send(GET)
        gate.speak(Receiver())

        assert client.answer()[2] == b"POST /upload some more bytes"
        assert client.answer()[0] == 200
    assert [environ["REQUEST_METHOD"] for environ in app.environs] == ["POST", "GET"]


def test_a_request_whose_body_comes_while_it_is_given_back_is_answered_once(serve, app, monkeypatch):
    give_back = Channel._give_back

    def give_back_slowly(self):
        give_back(self)
        time.sleep(0.2)  # the event loop has the rest by then

    monkeypatch.setattr(Channel, "_give_back", give_back_slowly)
    with Client(serve(app, lambda environ: Receiver())) as client:
        client.send(post(b"he", b"Content-Length: 5"))
        time.sleep(0.1)
        client.send(b"llo")
        assert client.answer()[2] == b"POST /upload hello"
        assert client.send(GET).answer()[0] == 200
        time.sleep(0.3)

    assert [environ["REQUEST_METHOD"] for environ in app.environs] == ["POST", "GET"]


def test_a_client_that_vanishes_while_the_gate_thinks_leaves_nothing_behind(serve, app):
    gate, receiver = SlowGate(), Receiver()

    with Client(serve(app, gate)) as client:
        client.send(post(b"hello", b"Content-Length: 10"))
        assert gate.asked.wait(5)
    gate.speak(receiver)

    wait_until(lambda: receiver.closed == 1)
    assert app.environs == []


def test_a_server_that_ends_while_the_gate_thinks_leaves_nothing_behind(serve, app):
    gate, receiver = SlowGate(), Receiver()
    server = serve(app, gate, stop_timeout=0.1)

    with Client(server) as client:
        client.send(post(b"hello", b"Content-Length: 10"))
        assert gate.asked.wait(5)
        server.stop()
        server.thread.join(5)
        assert not server.thread.is_alive()
        gate.speak(receiver)

        wait_until(lambda: receiver.closed == 1)
    assert app.environs == []


def test_a_failing_gate_or_receiver_is_a_500_in_the_log(serve, app, caplog):
    def failing_gate(environ):
        raise ValueError("no idea")

    class FailingReceiver(Receiver):
        def write(self, data):
            raise ValueError("no room")

    receiver = FailingReceiver()
    request = post(b"hello", b"Content-Length: 5")

    assert ask(serve(app, failing_gate), request)[0] == 500
    assert ask(serve(app, lambda environ: receiver), request)[0] == 500
    assert "no idea" in caplog.text
    assert "no room" in caplog.text
    wait_until(lambda: receiver.closed == 1)


# --- refusals ---


def refuse(environ):
    return Refusal("401 UNAUTHORIZED", [("WWW-Authenticate", "Basic")], b"who are you?\n")


def test_a_refusal_comes_before_the_body(serve, app):
    with Client(serve(app, refuse)) as client:
        status, headers, body = client.send(post(b"", b"Content-Length: 1000000000")).answer()

        assert (status, headers["www-authenticate"], body) == (401, "Basic", b"who are you?\n")
        assert headers["connection"] == "close"
        assert client.file.read() == b""
    assert app.environs == []


def test_a_client_that_goes_on_sending_can_still_read_the_refusal(serve, app):
    with Client(serve(app, refuse)) as client:
        client.send(post(b"", b"Content-Length: 50000000"))
        for _ in range(50):
            client.send(b"x" * 1_000_000)
        time.sleep(0.1)

        assert client.answer()[0] == 401


def test_nobody_can_send_for_ever_after_a_refusal(serve, app, monkeypatch):
    monkeypatch.setattr("wire.connections.Channel._linger_left", 10 * MIB)

    with Client(serve(app, refuse)) as client:
        client.send(post(b"", b"Content-Length: 1000000000000"))
        with pytest.raises(ConnectionError):
            client.send(bytes(500 * MIB))


def test_a_refused_client_that_does_nothing_is_closed(serve, app, monkeypatch):
    monkeypatch.setattr("wire.sizes.LINGER_IDLE", 0.1)

    with Client(serve(app, refuse, idle_timeout=0.4)) as client:
        client.send(post(b"", b"Content-Length: 5")).answer()
        time.sleep(0.5)

        wait_until(client.is_cut_off)


def test_a_refusal_cannot_break_out_of_its_line(serve, app, caplog):
    def gate(environ):
        return Refusal("400 no\r\nX-Injected: a", [], b"")

    status, headers, _ = ask(serve(app, gate), post(b"hello", b"Content-Length: 5"))

    assert status == 500
    assert "x-injected" not in headers
    assert "line break" in caplog.text


def test_only_an_accepted_request_is_told_to_continue(serve, app):
    fields = (b"Content-Length: 5", b"Expect: 100-continue")

    assert ask(serve(app, refuse), post(b"", *fields))[0] == 401
    assert ask(serve(app), post(b"", b"Content-Length: 5000", fields[1]))[0] == 413
    with Client(serve(app)) as client:
        assert client.send(post(b"", *fields)).head() == (100, {})
        assert client.send(b"hello").answer()[2] == b"POST /upload hello"
        assert client.is_open()


@pytest.mark.parametrize("expect", ["Expect: 100-continue", "Expect:"])
def test_curl_prints_the_refusal_of_an_upload(serve, app, tmp_path, expect):
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(50 * MIB)
    url = "http://{}:{}/upload".format(*serve(app, refuse).address)

    command = ["curl", "-sS", "-m", "10", "-H", expect, "-F", f"file=@{big}", "-w", "%{http_code}", url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)

    assert done.stdout == "who are you?\n401"


def test_refusals_do_not_wait_for_a_thread(serve):
    release = threading.Event()

    def app(environ, start_response):
        release.wait(5)
        start_response("204 No Content", [])
        return []

    server = serve(app, refuse, threads=1)
    with Client(server) as waiting:
        waiting.send(GET)
        assert ask(server, post(b"", b"Content-Length: 5"))[0] == 401
        release.set()
        assert waiting.answer()[0] == 204


# --- answers ---


@pytest.mark.parametrize("status", ["304 Not Modified", "204 No Content"])
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_answer_without_a_body_keeps_the_connection(serve, status, method):
    def app(environ, start_response):
        start_response(status, [("ETag", '"1"')])
        return []

    with Client(serve(app)) as client:
        for _ in range(3):
            code, headers, body = client.send(method + GET[3:]).answer()

            assert (code, body) == (int(status[:3]), b"")
            assert not {"connection", "content-length", "transfer-encoding"} & headers.keys()


@pytest.mark.parametrize("kind", ["nothing", "bytes", "file"])
def test_head_gives_the_length_and_no_body(serve, tmp_path, kind):
    file = tmp_path / "file"
    file.write_bytes(b"hello")

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", "5")])
        if kind == "file":
            return environ["wsgi.file_wrapper"](file.open("rb"))
        return [b"hello"] if kind == "bytes" else []

    with Client(serve(app)) as client:
        for _ in range(3):
            assert client.send(b"HEAD" + GET[3:]).head()[1]["content-length"] == "5"


def test_pipelined_requests_are_answered_in_order_even_if_the_client_closed_its_side(serve, app):
    paths = [b"/%d" % number for number in range(300)]
    requests = b"".join(b"GET " + path + b" HTTP/1.1\r\nHost: localhost\r\n\r\n" for path in paths)

    with Client(serve(app)) as client:
        client.send(requests).sock.shutdown(socket.SHUT_WR)

        assert [client.answer()[2] for _ in paths] == [b"GET " + path + b" " for path in paths]


def test_pipelined_uploads_are_each_asked_about_after_the_answer_before(serve, app):
    seen = []

    def gate(environ):
        seen.append(len(app.environs))
        return Receiver()

    with Client(serve(app, gate)) as client:
        client.send(post(b"hello", b"Content-Length: 5") * 3)

        assert [client.answer()[2] for _ in range(3)] == [b"POST /upload hello"] * 3
    assert seen == [0, 1, 2]


def test_http_1_0_keeps_the_connection_only_if_asked(serve, app):
    with Client(serve(app)) as client:
        status, headers, body = client.send(b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n").answer()
        assert (status, headers["connection"], body) == (200, "keep-alive", b"GET / ")

        status, headers, body = client.send(b"GET / HTTP/1.0\r\n\r\n").answer()
        assert (status, headers["connection"], body) == (200, "close", b"GET / ")
        assert client.file.read() == b""


def test_connection_close_is_obeyed(serve, app):
    with Client(serve(app)) as client:
        client.send(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: TE, Close\r\n\r\n" + SMUGGLED)

        assert client.answer()[1]["connection"] == "close"
        assert client.file.read() == b""
    assert len(app.environs) == 1


def test_an_answer_of_unknown_length_is_chunked_and_keeps_the_connection(serve):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"hello"
        yield b""
        yield b", world"

    server = serve(app)
    with Client(server) as client:
        for _ in range(2):
            assert client.send(GET).answer()[2] == b"hello, world"
    with Client(server) as client:
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.head()[1]["connection"] == "close"
        assert client.file.read() == b"hello, world"


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_an_exception_is_a_plain_500_and_logged(serve, caplog, method):
    def app(environ, start_response):
        start_response("200 OK", [("X-Secret", "a")])
        raise ValueError("a secret reason")

    with Client(serve(app)) as client:
        status, headers = client.send(method + GET[3:]).head()
        rest = client.file.read()

    assert (status, headers["connection"], headers["server"]) == (500, "close", "Packhouse")
    assert b"secret" not in rest
    assert (rest == b"") == (method == b"HEAD")
    assert "a secret reason" in caplog.text


def test_an_exception_amid_the_answer_tears_it_visibly(serve, caplog):
    def app(environ, start_response):
        start_response("200 OK", [])
        yield b"hello"
        raise ValueError("no more")

    with Client(serve(app)) as client:
        assert client.send(GET).head()[0] == 200
        assert client.file.read() == b"5\r\nhello\r\n"
    assert "no more" in caplog.text


def test_a_big_file_arrives_whole_and_its_file_is_closed(serve, tmp_path):
    content = bytes(range(256)) * 80_000
    path = tmp_path / "big"
    path.write_bytes(content)
    opened = []

    def app(environ, start_response):
        opened.append(path.open("rb"))
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return environ["wsgi.file_wrapper"](opened[-1])

    with Client(serve(app)) as client:
        for _ in range(2):
            assert client.send(GET).answer()[2] == content
    wait_until(lambda: all(file.closed for file in opened))  # just after the last byte is sent


@pytest.mark.parametrize("pieces", [1, 40])
def test_a_big_page_waits_for_a_slow_reader_without_a_temporary_file(serve, monkeypatch, pieces):
    def no_temporary_file(*args):
        raise AssertionError

    monkeypatch.setattr("tempfile.TemporaryFile", no_temporary_file)
    piece = bytes(range(256)) * (120_000 // pieces)

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(piece) * pieces))])
        return [piece] * pieces

    with Client(serve(app), receive_buffer=20_000) as client:
        client.send(GET)
        time.sleep(0.3)

        assert client.answer()[2] == piece * pieces
        assert client.is_open


class Files:
    """An application that gives out a file, with what it says of its length, and remembers what it opened."""

    def __init__(self, path, length=None, start=0):
        self.path = path
        self.length = path.stat().st_size if length is None else length
        self.start = start
        self.opened = []

    def __call__(self, environ, start_response):
        if environ["PATH_INFO"] == "/small":
            start_response("204 No Content", [])
            return []
        file = self.path.open("rb")
        self.opened.append(file)
        file.seek(self.start)
        start_response("200 OK", [("Content-Length", str(self.length))])
        return environ["wsgi.file_wrapper"](file)


@pytest.fixture
def big(tmp_path):
    """A file that no socket takes at once."""
    path = tmp_path / "big"
    path.write_bytes(bytes(range(251)) * 120_000)
    return path


def test_a_file_is_sent_from_where_it_stands_and_as_far_as_its_length_says(serve, big):
    app = Files(big, length=20_000_001, start=12_345)

    with Client(serve(app)) as client:
        for _ in range(2):
            assert client.send(GET).answer()[2] == big.read_bytes()[12_345:20_012_346]
    assert all(file.closed for file in app.opened)


def test_several_files_are_sent_at_the_same_time_to_slow_readers_and_to_fast_ones(serve, big, tmp_path):
    other = tmp_path / "other"
    other.write_bytes(bytes(range(253)) * 120_000)
    apps = {"/big": Files(big), "/other": Files(other)}
    server = serve(lambda environ, start_response: apps[environ["PATH_INFO"]](environ, start_response))

    with Client(server, receive_buffer=4096) as slow, Client(server, receive_buffer=200_000) as fast:
        slow.send(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n")
        for _ in range(3):
            assert fast.send(b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n").answer()[2] == other.read_bytes()

        assert slow.answer()[2] == big.read_bytes()


def test_a_file_in_memory_may_be_given_out_too(serve):
    content = bytes(range(256)) * 10_000

    def app(environ, start_response):
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return environ["wsgi.file_wrapper"](io.BytesIO(content))

    assert ask(serve(app), GET)[2] == content


def test_a_file_that_becomes_shorter_while_it_is_sent_tears_the_answer(serve, big):
    app = Files(big)

    with Client(serve(app), receive_buffer=4096) as client:
        assert client.send(GET).head()[0] == 200
        os.truncate(big, 1_000_000)

        assert len(client.file.read()) < app.length
    wait_until(lambda: app.opened[0].closed)


def test_a_download_that_is_given_up_closes_its_file(serve, big):
    app = Files(big)
    server = serve(app)

    for _ in range(3):
        with Client(server, receive_buffer=4096) as client:
            client.send(GET).file.read(1000)

    wait_until(lambda: len(app.opened) == 3 and all(file.closed for file in app.opened))


def test_slow_readers_of_files_occupy_no_thread_and_each_gets_all(serve, big):
    app = Files(big)
    server = serve(app, threads=1)
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(Client(server, receive_buffer=20_000)) for _ in range(4)]
        for client in clients:
            assert client.send(GET).head()[0] == 200

        assert ask(server, GET.replace(b"/", b"/small", 1))[0] == 204
        content = big.read_bytes()
        for client in clients:
            assert client.file.read(len(content)) == content


def test_what_a_client_sends_before_its_turn_is_answered_in_its_turn(serve):
    begun, release = threading.Event(), threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            begun.set()
            release.wait(5)
        start_response("200 OK", [("Content-Length", "3")])
        return [environ["PATH_INFO"][:3].encode()]

    with Client(serve(app)) as client:
        client.send(GET.replace(b"/", b"/slow", 1))
        begun.wait(5)
        client.send(GET.replace(b"/", b"/ab", 1))
        time.sleep(0.1)
        release.set()

        assert [client.answer()[2] for _ in range(2)] == [b"/sl", b"/ab"]
        assert client.send(GET.replace(b"/", b"/cd", 1)).answer()[2] == b"/cd"


def test_a_byte_out_of_band_is_nothing_to_us(serve, app):
    with Client(serve(app)) as client:
        client.sock.send(b"!", socket.MSG_OOB)

        assert client.send(GET).answer()[2] == b"GET / "


# --- known answers ---


def known(head, body=b"known"):
    return HotAnswer("200 OK", [("Content-Length", str(len(body)))], body, {"REQUEST_METHOD": "GET"})


def get(path):
    return GET.replace(b"/", path, 1)


@pytest.mark.parametrize("size", [0, 1000, 64 * 1024, 30 * MIB])
def test_a_known_answer_arrives_whole_and_the_connection_stays(serve, app, size):
    body = bytes(size)

    with Client(serve(app, hot=lambda head, address, looks: known(head, body))) as client:
        for _ in range(2):
            assert client.send(GET).answer()[2] == body


def test_a_search_for_a_known_answer_that_fails_is_logged_and_the_application_asked(serve, app, caplog):
    def hot(head, address, looks):
        raise ValueError("no idea")

    assert ask(serve(app, hot=hot), GET)[2] == b"GET / "
    assert "no idea" in caplog.text


@pytest.mark.parametrize("framing", [b"Content-Length: 5", b"Transfer-Encoding: chunked"])
def test_the_head_of_a_request_with_a_body_is_none_that_can_be_known(serve, app, framing):
    body = b"hello" if b"Length" in framing else b"5\r\nhello\r\n0\r\n\r\n"

    with Client(serve(app)) as client:
        client.send(GET[:-2] + framing + b"\r\n\r\n" + body).answer()
        client.send(GET).answer()

    assert HEAD_KEY not in app.environs[0]
    assert app.environs[1][HEAD_KEY] == GET


class Looking:
    """Known answers for all, one of them slow; remembers the looks that each was given with."""

    def __init__(self):
        self.looks = {}
        self.begun, self.release = threading.Event(), threading.Event()

    def __call__(self, head, address, looks):
        if head.count(b"\r\n\r\n") > 1:
            return None
        path = head.split(b" ")[1]
        self.looks[path] = looks
        if path == b"/slow":
            self.begun.set()
            self.release.wait(5)
        return known(head)


def test_requests_that_are_there_at_the_same_time_are_answered_from_the_same_looks(serve, app):
    hot = Looking()
    server = serve(app, hot=hot)
    with Client(server) as first, Client(server) as second, Client(server) as third:
        assert all(client.is_open() for client in (first, second, third))
        first.send(get(b"/slow"))
        hot.begun.wait(5)
        second.send(get(b"/b"))
        third.send(get(b"/c"))
        time.sleep(0.1)
        hot.release.set()

        assert [client.answer()[2] for client in (first, second, third)] == [b"known"] * 3
    assert hot.looks[b"/b"] is hot.looks[b"/c"]
    assert hot.looks[b"/b"] is not hot.looks[b"/slow"]


def test_no_request_is_answered_from_a_look_that_is_older_than_its_last_byte(serve, app):
    hot = Looking()
    server = serve(app, hot=hot)
    with Client(server) as slow, Client(server) as late, Client(server) as half:
        assert all(client.is_open() for client in (slow, late, half))
        half.send(get(b"/half")[:20])
        time.sleep(0.1)
        slow.send(get(b"/slow"))
        hot.begun.wait(5)
        half.send(get(b"/half")[20:])
        late.send(get(b"/late"))
        time.sleep(0.1)
        hot.release.set()

        assert late.answer()[2] == b"known"
        assert half.answer()[2] == b"GET /half "
    assert hot.looks[b"/late"] is not hot.looks[b"/slow"]
    assert b"/half" not in hot.looks


def test_what_waits_behind_another_answer_is_answered_from_a_look_of_its_own(serve, app):
    hot = Looking()

    with Client(serve(app, hot=hot)) as client:
        client.send(post(b"hello", b"Content-Length: 5") + get(b"/a") + get(b"/b"))

        assert [client.answer()[2] for _ in range(3)] == [b"POST /upload hello", b"GET /a ", b"known"]
    assert list(hot.looks) == [b"/b"]


# --- waiting clients ---


def test_stalled_clients_leave_others_unaffected(serve, tmp_path):
    content = b"x" * (8 * MIB)
    page = Application()

    def app(environ, start_response):
        if environ["PATH_INFO"] != "/big":
            return page(environ, start_response)
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return [content]

    server = serve(app, lambda environ: Receiver(), threads=2)
    stalled = [GET[:20], post(b"hello", b"Content-Length: 1000"), b"GET /big HTTP/1.1\r\nHost: localhost\r\n\r\n"]
    with contextlib.ExitStack() as clients:
        for request in stalled * 50:
            clients.enter_context(Client(server, receive_buffer=4096)).send(request)
        time.sleep(0.3)
        start = time.monotonic()

        for _ in range(10):
            assert ask(server, GET)[0] == 200
            assert ask(server, post(b"hello", b"Content-Length: 5"))[2] == b"POST /upload hello"

        assert time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("beginning", "dribble"),
    named(
        {
            "silent": (b"", b""),
            "idle": (GET, b""),
            "stalled head": (GET[:10], b""),
            "dribbled head": (b"GET / HTTP/1.1\r\nX: ", b"a"),
            "empty lines": (b"\r\n", b"\r\n"),
            "stalled body": (post(b"hello", b"Content-Length: 1000"), b""),
            "dribbled body": (post(b"hello", b"Content-Length: 1000"), b"a"),
            "dribbled chunks": (post(b"", b"Transfer-Encoding: chunked"), b"1\r\na\r\n"),
        }
    ),
)
def test_a_client_that_keeps_us_waiting_is_closed(serve, app, beginning, dribble):
    receivers = []

    def gate(environ):
        receivers.append(Receiver())
        return receivers[-1]

    with Client(serve(app, gate, idle_timeout=0.3)) as client:
        client.send(beginning)
        with contextlib.suppress(ConnectionError):
            for _ in range(10 if dribble else 0):
                client.send(dribble)
                time.sleep(0.1)

        assert client.wait_for_end(2) < 1.5
    wait_until(lambda: all(receiver.closed == 1 for receiver in receivers))


@pytest.mark.parametrize("pieces", [1, 100])
def test_a_client_that_does_not_read_is_closed_and_its_thread_set_free(serve, pieces):
    ended = threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/small":
            start_response("204 No Content", [])
            return
        start_response("200 OK", [])
        try:
            for _ in range(pieces):
                yield b"x" * (20 * MIB // pieces)
        finally:
            ended.set()

    server = serve(app, threads=1, idle_timeout=0.4)
    with Client(server, receive_buffer=4096) as client:
        client.send(GET)

        assert ended.wait(3)
        assert ask(server, GET.replace(b"/", b"/small", 1))[0] == 204
        wait_until(client.is_cut_off)


def test_a_client_that_keeps_moving_is_not_closed(serve, app):
    receiver = Receiver()

    with Client(serve(app, lambda environ: receiver, idle_timeout=0.4)) as client:
        for _ in range(6):
            assert client.is_open()
            time.sleep(0.1)
        client.send(post(b"", b"Content-Length: 6000"))
        for _ in range(6):
            client.send(b"x" * 1000)
            time.sleep(0.1)

        assert client.answer()[0] == 200


def test_a_slow_application_is_not_the_clients_fault(serve):
    def app(environ, start_response):
        time.sleep(0.6)
        start_response("204 No Content", [])
        return []

    assert ask(serve(app, idle_timeout=0.2), GET)[0] == 204


def test_more_clients_than_allowed_wait_their_turn(serve, app):
    server = serve(app, max_connections=2)
    with Client(server), Client(server), Client(server) as third:
        third.sock.settimeout(0.3)
        with pytest.raises(TimeoutError):
            third.send(GET).answer()

    assert ask(server, GET)[0] == 200


# --- starting and stopping ---


def test_a_taken_port_is_named():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        with pytest.raises(OSError, match=rf"cannot listen on 127\.0\.0\.1 port {port}: Address already in use"):
            Server(Application(), in_memory, ServerOptions("127.0.0.1", port))


def test_stopping_closes_idle_connections_at_once_and_frees_the_port(serve, app):
    server = serve(app, stop_timeout=10)
    with Client(server) as silent, Client(server) as idle:
        idle.send(GET).answer()
        start = time.monotonic()

        server.stop()
        server.thread.join(5)

        assert time.monotonic() - start < 1
        assert not server.thread.is_alive()
        assert idle.file.read() == silent.file.read() == b""
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(server.address)


def test_stopping_finishes_requests_in_flight(serve):
    content = b"x" * (20 * MIB)
    begun, release = threading.Event(), threading.Event()

    def app(environ, start_response):
        if environ["PATH_INFO"] == "/slow":
            begun.set()
            release.wait(5)
        start_response("200 OK", [("Content-Length", str(len(content)))])
        return [content]

    receiver = Receiver()
    server = serve(app, lambda environ: receiver, stop_timeout=10)
    with Client(server) as received, Client(server) as served, Client(server) as sent:
        received.send(post(b"hello", b"Content-Length: 10"))
        served.send(GET.replace(b"/", b"/slow", 1))
        sent.send(GET)
        wait_until(lambda: receiver.body and begun.is_set())

        server.stop()
        time.sleep(0.2)
        release.set()
        received.send(b"world")

        assert sent.answer()[2] == content
        assert served.answer()[2] == content
        status, headers, _ = received.answer()
        assert (status, headers["connection"]) == (200, "close")
        server.thread.join(1)
        assert not server.thread.is_alive()
    assert receiver.closed == 1


def test_stopping_waits_no_longer_than_it_should(serve):
    release = threading.Event()

    def app(environ, start_response):
        release.wait(10)
        return []

    receiver = Receiver()
    server = serve(app, lambda environ: receiver, stop_timeout=0.3)
    with Client(server) as served, Client(server) as received:
        served.send(GET)
        received.send(post(b"hello", b"Content-Length: 10"))
        wait_until(lambda: receiver.body)
        start = time.monotonic()

        server.stop()
        server.thread.join(5)

        assert time.monotonic() - start < 2
        assert receiver.closed == 1
        release.set()


MEASURED = """
import sys
from server import Server, ServerOptions

class Count:
    size = 0
    def write(self, data):
        self.size += len(data)
        return True
    def close(self):
        pass

def memory():
    status = open("/proc/self/status").read()
    return next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))

def app(environ, start_response):
    receiver = environ.get("packhouse.body", Count)
    answer = f"{receiver.size} {memory()}".encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]

server = Server(app, lambda environ: Count(), ServerOptions("127.0.0.1", 0))
print(server.address[1], flush=True)
server.run()
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of memory from Linux's /proc")
def test_a_body_of_a_gibibyte_costs_no_memory():
    with subprocess.Popen(
        [sys.executable, "-c", MEASURED], stdout=subprocess.PIPE, cwd=Path(__file__).parents[1]
    ) as child:
        try:
            server = type("", (), {"address": ("127.0.0.1", int(child.stdout.readline()))})
            before = int(ask(server, GET)[2].split()[1])
            with Client(server) as client:
                client.send(post(b"", b"Content-Length: 1073741824"))
                for _ in range(256):
                    client.send(bytes(4 * MIB))
                size, after = map(int, client.answer()[2].split())
        finally:
            child.kill()

    assert size == 1024 * MIB
    assert after - before < 16 * 1024  # kB
