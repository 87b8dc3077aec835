"""Answering one request, by the application or with the request's error; runs in a task thread."""

from __future__ import annotations

import logging
import secrets
import time
from typing import Any

from waitress.channel import ClientDisconnected
from waitress.task import WSGITask

from wire.heads import end_of_head, start_of_head
from wire.interface import HEAD_KEY, REQUEST_ID_KEY, Refusal
from wire.refusals import FAILED
from wire.sizes import SHARE_FROM

logger = logging.getLogger("packhouse.server")


class Task(WSGITask):  # type: ignore[misc]  # waitress has no types
    """Answers one request, by the application or with the request's error."""

    logger = logger
    close_on_finish: bool = False
    wrote_header: bool = False

    def execute(self) -> None:
        """Run the application or tell the error; whatever is raised before the headers are out is a 500."""
        try:
            if self.request.error is not None:
                self._answer(self.request.error)
            else:
                self.request.hand_over(self.get_environment())
                super().execute()
            super().finish()
        except ClientDisconnected:
            raise
        except Exception:
            if self.wrote_header:
                raise  # the channel logs it and closes, so that the client sees a torn answer
            logger.exception("failed to answer %s %r", self.request.command, self.request.path)
            self._answer(FAILED)
        finally:
            self._log()

    def finish(self) -> None:
        """Nothing is left to do: what fails at the end of an answer is told as what fails before."""

    def _log(self) -> None:
        size = self.content_bytes_written or self.content_length or 0  # files are sent without counting
        seconds = time.time() - self.start_time
        self.channel.server.access_log(self._known(), self.status, size if self.has_body else 0, seconds)

    def _known(self) -> dict[str, Any]:
        """The environ, or as much of it as could be parsed."""
        request = self.request
        if request.environ is not None:
            return dict(request.environ)
        known = {"REQUEST_METHOD": request.command, "PATH_INFO": request.path, "REMOTE_ADDR": self.channel.addr[0]}
        return {key: value for key, value in known.items() if value}

    def _answer(self, refusal: Refusal) -> None:
        self.complete = True
        self.status, self.response_headers = refusal.status, list(refusal.headers)
        self.content_length = len(refusal.body)
        self.close_on_finish = True
        self.chunked_response = False
        self.write(refusal.body)

    def write(self, data: bytes) -> None:
        """Queue *data*, behind the headers if it is the first; small answers go out as one packet, not as two."""
        if not self.complete:
            raise RuntimeError("the application has to call start_response before it gives a body")
        head = b"" if self.wrote_header else self.build_response_header()
        if self.content_length is not None:
            data = data[: self.content_length - self.content_bytes_written]
        self.content_bytes_written += len(data)
        if not self.has_body:
            data = b""
        elif data and self.chunked_response:
            data = b"%X\r\n%b\r\n" % (len(data), data)
        if head and len(data) >= SHARE_FROM:
            self.channel.write_soon(head)
            head = b""
        self.channel.write_soon(head + data)
        self.wrote_header = True

    def get_environment(self) -> dict[str, Any]:
        """Return the WSGI environ; for a request with a body the one the gate saw."""
        if self.request.environ is None:
            self.request.environ = super().get_environment()
            self.request.environ[REQUEST_ID_KEY] = secrets.token_hex(8)
            # A request with a body is not complete yet when its environ is made for the gate. Its head must not be
            # answered by itself: what follows would be taken for the next request.
            if self.request.keep_alive and self.version == "1.1" and self.request.completed:
                self.request.environ[HEAD_KEY] = self.request.header_plus
        environ: dict[str, Any] = self.request.environ
        return environ

    @property
    def has_body(self) -> bool:
        """Whether anything may follow the headers."""
        return not self._lengthless and self.request.command != "HEAD"

    @property
    def _lengthless(self) -> bool:
        return self.status.startswith(("1", "204", "304"))

    def set_close_on_finish(self) -> None:
        """Close the connection after this answer; the header is added when the headers are built."""
        self.close_on_finish = True

    def build_response_header(self) -> bytes:
        """Status line and headers; the connection stays open wherever the client can tell the answer's end.

        waitress 3.0.2 closes it after every answer without a body and after every chunked one.

        :raises ValueError: if a header would break out of its line.
        """
        headers = list(self.response_headers)
        given = {name.lower() for name, _ in headers}
        if self._lengthless:
            headers = [(name, value) for name, value in headers if name.lower() != "content-length"]
        elif "content-length" not in given and self.content_length is not None:
            headers.append(("Content-Length", str(self.content_length)))
        elif "content-length" not in given and self.has_body:
            if self.version == "1.1":
                headers.append(("Transfer-Encoding", "chunked"))
                self.chunked_response = True
            else:
                self.close_on_finish = True
        if self.close_on_finish or not self.request.keep_alive or self.channel.server.stopping:
            self.close_on_finish = True
            headers.append(("Connection", "close"))
        elif self.version == "1.0":
            headers.append(("Connection", "keep-alive"))
        headers = [(name, value) for name, value in headers if name.lower() != "date"]
        return start_of_head(self.status, headers, self.version) + end_of_head(self.start_time)
