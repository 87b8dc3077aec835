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
from werkzeug.routing import Rule

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
MAX_KEPT_PATH = 300  # characters; longer ones are nobody's every day


class App(Flask):
    """Flask, without what no request here needs."""

    def __init__(self, *args: Any, **options: Any) -> None:  # noqa: ANN401 - as Flask
        super().__init__(*args, **options)
        self.matches: dict[tuple[str, str], tuple[Rule, dict[str, Any]]] = {}  # by method and path

    def wsgi_app(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer, with the headers that every answer has."""

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:  # noqa: ANN401 - as WSGI
            return start_response(status, [*headers, *PROTECTION], exc_info)

        return super().wsgi_app(environ, start)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return *func*: none of ours is asynchronous."""
        return func

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
        environ, matches = self.request.environ, self.app.matches
        key = environ["REQUEST_METHOD"], environ.get("PATH_INFO", "")
        if "HTTP_UPGRADE" in environ or len(key[1]) > MAX_KEPT_PATH:
            super().match_request()
            return
        known = matches.get(key)
        if known is not None:
            self.request.url_rule, self.request.view_args = known[0], dict(known[1])
            return
        super().match_request()
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
