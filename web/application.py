"""Flask, made to fit: the headers of every answer, routes that are found again, sessions without cost.

Everything here is a refinement of Flask or werkzeug; what the app answers is no business of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from flask import Flask, Request, Response, request
from flask.ctx import RequestContext
from flask.sessions import SecureCookieSession, SecureCookieSessionInterface, SessionMixin
from itsdangerous import SignatureExpired, TimestampSigner, URLSafeTimedSerializer
from werkzeug.routing import MapAdapter, Rule

from web.access import settings

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

# Images of a README may come from anywhere, but only by https; nothing else from elsewhere.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' https:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
PROTECTION = (
    ("X-Content-Type-Options", "nosniff"),
    ("Referrer-Policy", "same-origin"),
    ("Content-Security-Policy", CONTENT_SECURITY_POLICY),
)

KEPT_MATCHES = 2_000  # about 1 kB each
KEPT_ADAPTERS = 100  # about 1 kB each; servers are reached under few names
MAX_KEPT_PATH = 300  # characters; longer ones are nobody's every day
MAX_KEPT_HOST = 300  # characters
# What of a request's environ its links depend on.
ADDRESS_KEYS = ("REQUEST_METHOD", "wsgi.url_scheme", "HTTP_HOST", "SERVER_NAME", "SERVER_PORT", "SCRIPT_NAME")


def route_key(environ: WSGIEnvironment) -> tuple[str, str]:
    """Return what the route of a request depends on: method and path."""
    return environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")


class App(Flask):
    """Flask, without what no request here needs."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as Flask
        super().__init__(*args, **options)
        self.matches: dict[tuple[str, str], tuple[Rule, dict[str, Any]]] = {}  # by method and path
        self.adapters: dict[tuple[str | None, ...], tuple[MapAdapter, str]] = {}  # each with the host

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, with the headers that every answer has."""

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401 - as WSGI
            return start_response(status, [*headers, *PROTECTION], exc_info)

        return super().wsgi_app(environ, start)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return *func*: none of ours is asynchronous."""
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        """Return what finds the route of *request* and makes its links.

        Where the route is found again (see :class:`Context`), it is set, and the adapter is that of an earlier
        request by the same method to the same host: path and query are looked at only to find a route.

        :raises SecurityError: if the ``Host`` header cannot be one.
        """
        match = self.matches.get(route_key(request.environ)) if request is not None else None
        if request is None or match is None or "HTTP_UPGRADE" in request.environ:
            return super().create_url_adapter(request)
        environ = request.environ
        key = tuple(map(environ.get, ADDRESS_KEYS))
        adapter: MapAdapter | None
        kept = self.adapters.get(key)
        if kept is not None:
            adapter, request.host = kept
        else:
            adapter = super().create_url_adapter(request)
            if adapter is not None and len(request.host) <= MAX_KEPT_HOST:
                if len(self.adapters) >= KEPT_ADAPTERS:
                    self.adapters.clear()
                self.adapters[key] = adapter, request.host
        request.url_rule, request.view_args = match[0], dict(match[1])
        return adapter

    def request_context(self, environ: WSGIEnvironment) -> RequestContext:
        """Return the context of a request."""
        return Context(self, environ)


class Context(RequestContext):
    """A request's context that finds the routes of addresses again that were asked for lately.

    Which route is meant depends on nothing but method and path; werkzeug tries each part of a path by a regular
    expression of its own, which takes as long as half of the rest of Flask.
    """

    app: App

    def match_request(self) -> None:
        """Find the route; what is found again is what werkzeug said the first time. Errors are not kept."""
        if self.request.url_rule is not None:  # App.create_url_adapter() has found it again
            return
        super().match_request()
        environ, matches = self.request.environ, self.app.matches
        key = route_key(environ)
        if "HTTP_UPGRADE" in environ or len(key[1]) > MAX_KEPT_PATH:
            return
        rule, values = self.request.url_rule, self.request.view_args
        if self.request.routing_exception is None and rule is not None and values is not None:
            if len(matches) >= KEPT_MATCHES:
                matches.clear()
            matches[key] = rule, dict(values)


# --- sessions ---

MAX_SETBACK = timedelta(days=1)  # that a clock may be set back by without signing anybody out


class PatientSigner(TimestampSigner):
    """A signer that takes its own signatures, too, where the clock has been set back since."""

    def unsign(self, signed_value: str | bytes, max_age: int | None = None, return_timestamp: bool = False) -> Any:  # noqa: ANN401 - as itsdangerous has it
        """Return what was signed.

        :raises BadSignature: if it is not ours, or too old, or of more than MAX_SETBACK in the future.
        """
        try:
            return super().unsign(signed_value, max_age, return_timestamp)  # type: ignore[call-overload]
        except SignatureExpired as error:
            signed_at = error.date_signed
            present = self.timestamp_to_datetime(self.get_timestamp())
            if signed_at is None or not timedelta(0) < signed_at - present < MAX_SETBACK:
                raise
            return super().unsign(signed_value, None, return_timestamp)  # type: ignore[call-overload]


class SessionInterface(SecureCookieSessionInterface):
    """Flask's own signed cookie, kept to https where the server is reached so."""

    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        """Return what signs cookies."""
        serializer = super().get_signing_serializer(app)
        if serializer is not None:
            serializer.signer = PatientSigner
        return serializer

    def open_session(self, app: Flask, request: Request) -> SecureCookieSession | None:
        """Read the cookie; where there is none, without the signer that Flask would make for it."""
        if "HTTP_COOKIE" not in request.environ or self.get_cookie_name(app) not in request.cookies:
            return self.session_class()
        return super().open_session(app, request)

    def save_session(self, app: Flask, session: SessionMixin, response: Response) -> None:
        """Send the cookie; where nobody has asked for the session, without finding out how it would be sent."""
        if session or session.modified or session.accessed:
            super().save_session(app, session, response)

    def get_cookie_secure(self, app: Flask) -> bool:
        """Whether the browser is to send it over https alone."""
        return request.is_secure or settings().public_url.startswith("https:")
