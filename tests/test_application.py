"""Routes that are found again, and sessions that nobody asked for."""

from __future__ import annotations

import flask
import pytest

import web.application
from tests.conftest import basic
from tests.storage.makers import make_wheel

PAGE = "/acme/main/pypi/simple/toolbox/"


@pytest.fixture
def ask(client, tokens, publish):
    """Ask with a good token: ``ask("GET", address)``; there is one project."""
    publish(*make_wheel("toolbox", "1.0"))
    return lambda method, address, **headers: client.open(
        address, method=method, headers={**basic(tokens.read), **headers}, buffered=True
    )


def test_an_address_means_the_same_each_time(ask):
    first = [ask("GET", PAGE), ask("HEAD", PAGE), ask("GET", f"{PAGE}nothing"), ask("DELETE", PAGE)]
    again = [ask("GET", PAGE), ask("HEAD", PAGE), ask("GET", f"{PAGE}nothing"), ask("DELETE", PAGE)]

    assert [answer.status_code for answer in first] == [200, 200, 404, 405]
    assert [answer.status_code for answer in again] == [200, 200, 404, 405]
    assert [answer.data for answer in again] == [answer.data for answer in first]


def test_what_is_asked_to_become_a_web_socket_is_no_page(ask):
    assert ask("GET", PAGE).status_code == 200

    assert ask("GET", PAGE, Connection="Upgrade", Upgrade="websocket").status_code == 400


def test_routes_are_kept_within_bounds(app, ask, monkeypatch):
    monkeypatch.setattr(web.application, "KEPT_MATCHES", 3)

    for i in range(10):
        ask("GET", f"/acme/main/pypi/simple/project-{i}/")
    assert ask("GET", f"/acme/main/pypi/simple/{'x' * 500}/").status_code == 404

    assert len(app.matches) <= 3
    assert all(len(path) < 300 for _, path in app.matches)


def test_who_sends_no_cookie_gets_none_where_no_session_counts(ask):
    answer = ask("GET", PAGE)

    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers["Vary"]


def test_an_address_that_is_known_belongs_to_the_host_that_is_asked(app, ask):
    for _ in range(2):
        for host in ("127.0.0.1:8080", "localhost:8080"):
            with app.test_request_context(PAGE, headers={"Host": host}):
                assert flask.request.host == host
                assert flask.request.view_args == {"org": "acme", "repo": "main", "name": "toolbox"}
                assert flask.url_for("health.healthz", _external=True).startswith(f"http://{host}/")


def test_a_host_that_cannot_be_one_is_refused_at_a_known_address_too(app, ask):
    assert ask("GET", PAGE).status_code == 200

    for _ in range(2):
        with app.test_request_context(PAGE, headers={"Host": f"{'x' * 70}.example"}):
            assert flask.request.routing_exception.code == 400
            assert flask.request.url_rule is None


def test_hosts_are_kept_within_bounds(app, ask, monkeypatch):
    monkeypatch.setattr(web.application, "KEPT_ADAPTERS", 3)
    ask("GET", PAGE)

    for i in range(10):
        assert ask("GET", PAGE, Host=f"host-{i}.example").status_code == 200

    assert 0 < len(app.adapters) <= 3
