"""Who may do what, over every route there is: addresses and expectations are made from the app's own URL map.

A new route is asked as all others the moment it exists. It fails here without a rule, without a value for a part of
its address, and, where its rule names no scope, without a line in OTHERS.
"""

from __future__ import annotations

import io
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from werkzeug.routing import Rule as Route
from werkzeug.test import EnvironBuilder

import app as app_module
from app import create_app
from settings import Settings
from storage.registry import Registry
from storage.repository import RepositorySettings
from storage.tokens import Scope
from storage.users import Role
from tests.conftest import ORG, REPO, TESTER, add_to, basic
from tests.people import visitor
from tests.storage.makers import make_sdist, make_wheel
from web.access import CHALLENGE, RULES, Rule

WHEEL, CONTENT = make_wheel()
SDIST, SDIST_CONTENT = make_sdist()
PUBLIC = "open"  # a public repository of the same organization
COOKIE = "packhouse"
PEOPLE = {"reader": Role.READER, "writer": Role.WRITER, "admin": Role.ADMIN, "stranger": None}
MISSING = ((ORG, "nothing"), ("nobody", "nothing"), ("nobody", REPO))

# How the endpoints answer that no scope on a repository guards, with an empty form: to nobody, and to the people.
OTHERS: dict[tuple[str, str], tuple[int, int, int, int, int]] = {
    # nobody, stranger, reader, writer, admin
    ("static", "GET"): (200, 200, 200, 200, 200),
    ("health.healthz", "GET"): (200, 200, 200, 200, 200),
    ("health.metrics", "GET"): (200, 200, 200, 200, 200),
    ("registries.distributions", "GET"): (200, 200, 200, 200, 200),
    ("registries.repository_list", "GET"): (401, 200, 200, 200, 200),
    ("registries.create_repository", "POST"): (401, 422, 403, 403, 422),  # the stranger's is an organization, too
    ("pages.login", "GET"): (200, 200, 200, 200, 200),
    ("pages.log_in", "POST"): (401, 401, 401, 401, 401),  # no name and no password
    ("pages.logout", "GET"): (200, 200, 200, 200, 200),
    ("pages.log_out", "POST"): (303, 303, 303, 303, 303),
    ("pages.account", "GET"): (303, 200, 200, 200, 200),
    ("pages.create_token", "POST"): (303, 422, 422, 422, 422),
    ("pages.revoke_token", "POST"): (303, 404, 404, 404, 404),  # it is nobody's own
    ("pages.change_password", "POST"): (303, 422, 422, 422, 422),
    ("pages.start", "GET"): (303, 303, 303, 303, 303),  # people go on to their only organization
    ("pages.organization_list", "GET"): (303, 200, 200, 200, 200),
    ("pages.new_organization", "GET"): (303, 200, 403, 403, 200),
    ("pages.create_organization", "POST"): (303, 422, 403, 403, 422),
    ("pages.repository_list", "GET"): (200, 200, 200, 200, 200),  # one of its repositories is public
    ("pages.new_repository", "GET"): (303, 404, 403, 403, 200),
    ("pages.create_repository", "POST"): (303, 404, 403, 403, 422),
    ("pages.member_list", "GET"): (303, 404, 403, 403, 200),
    ("pages.add_member", "POST"): (303, 404, 403, 403, 422),
    ("pages.change_member", "POST"): (303, 404, 403, 403, 422),
}


# --- a world to ask in ---


@dataclass(frozen=True)
class World:
    """A storage with an organization that has a private and a public repository, and what opens them."""

    root: Path
    values: dict[str, dict[str, str]]  # of a repository: the parts of addresses in it
    tokens: dict[str, dict[str, str]]  # of a repository: by what they may do
    sessions: dict[str, tuple[str, str]]  # of a person: the cookie and a CSRF token

    def copy(self, folder: Path) -> World:
        """The same once more, to be changed."""
        shutil.copytree(self.root, folder)
        return World(folder, self.values, self.tokens, self.sessions)


ALL = frozenset(Scope)
READ = frozenset({Scope.READ_PACKAGES})


def make_world(root: Path) -> World:
    registry = Registry(root)
    registry.create_organization(ORG)
    registry.create_organization("other")
    registry.create_repository(ORG, "neighbour", RepositorySettings(name="Neighbour"))
    values, tokens = {}, {}
    for repo in (REPO, PUBLIC):
        repository = registry.create_repository(ORG, repo, RepositorySettings(name=repo, private=repo == REPO))
        add_to(repository, WHEEL, CONTENT)
        add_to(repository, SDIST, SDIST_CONTENT)
        deleted = repository.delete_file("toolbox", SDIST, TESTER)

        def make(*scopes: Scope, org: str = ORG, repo: str | None = repo) -> str:
            return registry.tokens.create(org, repo, frozenset(scopes), TESTER, description="test")[1]

        tokens[repo] = {
            "stranger": make(*ALL, org="other", repo=None),
            "neighbour": make(*ALL, repo="neighbour"),
            "reader": make(*READ),
            "admin": make(*ALL),
            **{f"read and {scope}": make(Scope.READ_PACKAGES, scope) for scope in Scope},
            **{f"all but {scope}": make(*ALL - {scope}) for scope in Scope},
        }
        values[repo] = {
            "org": ORG,
            "repo": repo,
            "name": "toolbox",
            "project": "toolbox",
            "filename": WHEEL,
            "version": "1.0",
            "interval": "daily",
            "member": "toolbox/__init__.py",
            "token_id": tokens[repo]["reader"].split("_")[1],
            "entry_id": deleted.id,
        }
    app = create_app(Settings(storage=root), registry)
    sessions = {}
    for name, role in PEOPLE.items():
        browser = visitor(app, registry, name, role)
        if role is None:
            registry.users.change_role(name, "other", Role.ADMIN)
        csrf = re.search(r'name="csrf_token" value="([^"]+)"', browser.get("/logout").text)[1]
        sessions[name] = browser.client.get_cookie(COOKIE).value, csrf
    return World(root, values, tokens, sessions)


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> World:
    return make_world(tmp_path_factory.mktemp("routes") / "data")


class Asking:
    """An app over a world, which notes whether a request reached its view."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.app = create_app(Settings(storage=world.root), Registry(world.root))
        self.admitted = False
        dispatch = self.app.dispatch_request

        def note_and_dispatch():
            self.admitted = True
            return dispatch()

        self.app.dispatch_request = note_and_dispatch

    def move_to(self, world: World) -> None:
        """Serve another world with the same secret key, which takes less time than to make another app."""
        self.world = world
        self.app.config["REGISTRY"] = Registry(world.root)

    def __call__(
        self,
        method: str,
        address: str,
        *,
        token: str = "",
        person: str = "",
        csrf: bool = True,
        multipart: bool = False,
        **headers: str,
    ):
        client = self.app.test_client()
        form = {}
        if person:
            cookie, csrf_token = self.world.sessions[person]
            client.set_cookie(COOKIE, cookie)
            form = {"csrf_token": csrf_token} if csrf else {}
        self.admitted = False
        credential = basic(token) if token else {}
        data = form if method != "GET" else None
        kind = "multipart/form-data" if multipart else None
        headers = {**credential, **headers}
        return client.open(address, method=method, headers=headers, data=data, content_type=kind, buffered=True)


@pytest.fixture(scope="module")
def template_asking(template) -> Asking:
    """To read, and to be refused; nothing is changed by it."""
    return Asking(template)


def routes_of(app: Flask) -> Iterator[tuple[Route, str, Rule | None]]:
    """Every route with every method, and its rule; HEAD and OPTIONS go the ways of others."""
    for route in app.url_map.iter_rules():
        for method in sorted(route.methods - {"HEAD", "OPTIONS"}):
            yield route, method, RULES.get(app.view_functions[route.endpoint])


def scoped_routes(app: Flask) -> Iterator[tuple[Route, str, Rule]]:
    return ((route, method, rule) for route, method, rule in routes_of(app) if rule is not None and rule.scope)


def address_of(route: Route, values: dict[str, str], **more: str) -> str:
    """The address of *route*; a part that nobody has thought of is a KeyError."""
    known = {**values, **more}
    if route.endpoint == "static":
        known["filename"] = "style.css"
    if route.endpoint == "pages.change_member":
        known["name"] = "reader"
    return route.build({name: known[name] for name in route.arguments}, append_unknown=False)[1]


# --- the URL map ---


def test_every_route_has_a_rule_and_a_known_expectation(template_asking):
    unused = {*OTHERS}
    for route, method, rule in routes_of(template_asking.app):
        if rule is not None and rule.scope is not None:
            assert {"org", "repo"} <= route.arguments, f"{route}: a scope on which repository?"
        else:
            assert (route.endpoint, method) in OTHERS, f"{method} {route}: who may do that?"
            unused.discard((route.endpoint, method))
        assert address_of(route, template_asking.world.values[REPO])
    assert not unused, "no such routes any more"


def test_a_view_without_a_rule_stops_the_start(template, monkeypatch):
    monkeypatch.delitem(RULES, app_module.healthz)

    with pytest.raises(RuntimeError, match=r"health\.healthz"):
        create_app(Settings(storage=template.root), Registry(template.root))


def test_a_scope_without_a_repository_in_the_address_stops_the_start(template, monkeypatch):
    monkeypatch.setitem(RULES, app_module.healthz, Rule(Scope.READ_PACKAGES))

    with pytest.raises(RuntimeError, match="/healthz"):
        create_app(Settings(storage=template.root), Registry(template.root))


# --- what every answer has ---


def problems_of(rule: Rule | None, method: str, answer) -> list[str]:
    """What no answer may be, whoever asked."""
    policy = dict(part.strip().partition(" ")[::2] for part in answer.headers["Content-Security-Policy"].split(";"))
    location = answer.headers.get("Location", "/")
    checks = {
        "5xx": answer.status_code >= 500,
        "a redirect of what is no page": (rule is None or not rule.page)
        and method != "GET"
        and answer.status_code // 100 == 3,
        "a redirect elsewhere": re.match(r"/(?![/\\])", location) is None,
        "no nosniff": answer.headers["X-Content-Type-Options"] != "nosniff",
        "the Referer is sent elsewhere": answer.headers["Referrer-Policy"] not in ("same-origin", "no-referrer"),
        "may be framed": policy["frame-ancestors"] != "'none'",
        "unsafe scripts or styles": "unsafe" in answer.headers["Content-Security-Policy"],
        "scripts from elsewhere": policy["default-src"] != "'none'" or policy["script-src"] != "'self'",
        # The page for signing in says 401 to a wrong password, and a browser must not ask for another by itself.
        "a 401 without a challenge": answer.status_code == 401
        and answer.request.path != "/login"
        and answer.headers.get("WWW-Authenticate") != CHALLENGE,
        "a page that is kept": rule is not None
        and rule.page
        and answer.headers["Cache-Control"] not in ("private, no-store", "no-store"),
    }
    return [problem for problem, is_there in checks.items() if is_there]


@pytest.fixture
def wrong() -> Iterator[list[str]]:
    """What went wrong, over all routes; shown at the end as a whole."""
    found: list[str] = []
    yield found
    assert not found, "\n".join(["", *found])


def note(wrong: list[str], asked: str, answer, rule: Rule | None, method: str, is_good: bool) -> None:
    wrong += [f"{asked}: {answer.status}, {problem}" for problem in problems_of(rule, method, answer)]
    if not is_good:
        wrong.append(f"{asked}: {answer.status} is not what was expected")


def is_sign_in(answer, method: str, address: str) -> bool:
    """Whether the visitor is sent to sign in, and back to the page afterwards."""
    location = urlsplit(answer.headers.get("Location", ""))
    target = address if method == "GET" else "/"
    return (
        answer.status_code == 303 and location.path == "/login" and parse_qs(location.query) == {"next": [target]}
    )


def content_of(answer) -> tuple:
    """An answer byte for byte, but for a session's secrets, which tell the time, and where signing in leads."""
    headers = [(name, value) for name, value in answer.headers if name not in ("Set-Cookie", "Location")]
    return answer.status, headers, re.sub(rb'(name="csrf[_-]token" (?:value|content)=)"[^"]+"', rb"\1", answer.data)


# --- who is refused ---


@pytest.mark.parametrize("repo", [REPO, PUBLIC])
def test_nobody_is_challenged_or_sent_to_sign_in_except_for_reading_what_is_public(template_asking, wrong, repo):
    for route, method, rule in scoped_routes(template_asking.app):
        address = address_of(route, template_asking.world.values[repo])
        answer = template_asking(method, address)
        is_open = repo == PUBLIC and rule.scope is Scope.READ_PACKAGES and not rule.signed_in
        if is_open:
            is_good = template_asking.admitted
        elif rule.page:
            is_good = is_sign_in(answer, method, address) and not template_asking.admitted
        else:
            is_good = answer.status_code == 401 and not template_asking.admitted
        note(wrong, f"nobody {method} {address}", answer, rule, method, is_good)


def test_nobody_cannot_tell_what_is_private_from_what_is_not_there(template_asking, wrong):
    values = template_asking.world.values[REPO]
    for route, method, rule in scoped_routes(template_asking.app):
        there = content_of(template_asking(method, address_of(route, values)))
        for org, repo in MISSING:
            address = address_of(route, values, org=org, repo=repo)
            answer = template_asking(method, address)
            is_good = rule.page or content_of(answer) == there
            if rule.page:
                is_good = is_sign_in(answer, method, address)
            note(wrong, f"nobody {method} {address}", answer, rule, method, is_good)


@pytest.mark.parametrize("repo", [REPO, PUBLIC])
def test_a_bad_credential_is_401_everywhere(template_asking, wrong, repo):
    good = template_asking.world.tokens[repo]["admin"]
    bad = good[:-1] + ("0" if good[-1] != "0" else "1")
    for route, method, rule in scoped_routes(template_asking.app):
        address = address_of(route, template_asking.world.values[repo])
        answer = template_asking(method, address, token=bad)
        is_good = answer.status_code == 401 and not template_asking.admitted
        note(wrong, f"bad credential {method} {address}", answer, rule, method, is_good)


@pytest.mark.parametrize("who", ["stranger", "neighbour"])
def test_a_token_of_elsewhere_cannot_tell_what_is_private_from_what_is_not_there(template_asking, wrong, who):
    token, values = template_asking.world.tokens[REPO][who], template_asking.world.values[REPO]
    for route, method, rule in scoped_routes(template_asking.app):
        if rule.page and method != "GET":
            continue  # people's forms are below
        answers = []
        for org, repo in ((ORG, REPO), *MISSING):
            address = address_of(route, values, org=org, repo=repo)
            answer = template_asking(method, address, token=token)
            answers.append(content_of(answer))
            is_good = answer.status_code == 404 and not template_asking.admitted and answers[-1] == answers[0]
            note(wrong, f"{who} {method} {address}", answer, rule, method, is_good)


def test_a_stranger_who_is_signed_in_cannot_tell_what_is_private_from_what_is_not_there(template_asking, wrong):
    values = template_asking.world.values[REPO]
    for route, method, rule in scoped_routes(template_asking.app):
        if not rule.page:
            continue
        answers = []
        for org, repo in ((ORG, REPO), *MISSING):
            address = address_of(route, values, org=org, repo=repo)
            answer = template_asking(method, address, person="stranger")
            answers.append(content_of(answer))
            is_good = answer.status_code == 404 and not template_asking.admitted and answers[-1] == answers[0]
            note(wrong, f"stranger {method} {address}", answer, rule, method, is_good)


def refused_scopes(rule: Rule) -> list[str]:
    """The tokens of make_world() that lack just what *rule* demands."""
    return [] if rule.scope is Scope.READ_PACKAGES else ["reader", f"all but {rule.scope}"]


@pytest.mark.parametrize("repo", [REPO, PUBLIC])
def test_a_token_without_the_scope_is_403_on_what_it_may_see(template_asking, wrong, repo):
    for route, method, rule in scoped_routes(template_asking.app):
        if rule.page and method != "GET":
            continue
        address = address_of(route, template_asking.world.values[repo])
        strangers = ["stranger", "neighbour"] if repo == PUBLIC and rule.scope is not Scope.READ_PACKAGES else []
        for who in (*refused_scopes(rule), *strangers):
            answer = template_asking(method, address, token=template_asking.world.tokens[repo][who])
            is_good = answer.status_code == 403 and not template_asking.admitted
            note(wrong, f"{who} {method} {address}", answer, rule, method, is_good)


@pytest.mark.parametrize("repo", [REPO, PUBLIC])
def test_people_are_refused_on_pages_as_their_roles_say(template_asking, wrong, repo):
    registry = Registry(template_asking.world.root)
    for route, method, rule in scoped_routes(template_asking.app):
        address = address_of(route, template_asking.world.values[repo])
        for person in ("reader", "writer", "admin"):
            if not rule.page or rule.scope in registry.users.get(person).scopes(ORG):
                continue
            answer = template_asking(method, address, person=person)
            is_good = answer.status_code == 403 and not template_asking.admitted
            note(wrong, f"{person} {method} {address}", answer, rule, method, is_good)


def test_a_form_without_a_csrf_token_is_400_for_whoever_may_send_it(template_asking, wrong):
    forms = 0
    for route, method, rule in routes_of(template_asking.app):
        if rule is None or not rule.page or method == "GET":
            continue
        forms += 1
        address = address_of(route, template_asking.world.values[REPO])
        multipart = bool(rule.upload_fields)
        answer = template_asking(method, address, person="admin", csrf=False, multipart=multipart)
        is_good = answer.status_code == 400 and (not template_asking.admitted or bool(rule.upload_fields))
        note(wrong, f"admin {method} {address} without a CSRF token", answer, rule, method, is_good)
        # A browser sends a Basic credential by itself, as it does cookies.
        token = template_asking.world.tokens[REPO]["admin"]
        answer = template_asking(method, address, token=token, multipart=multipart)
        is_good = answer.status_code == 400
        note(wrong, f"admin token {method} {address} without a CSRF token", answer, rule, method, is_good)

    assert forms > 10


def test_a_csrf_token_of_somebody_elses_session_is_400(template_asking, wrong):
    _, strange = template_asking.world.sessions["stranger"]
    cookie, _ = template_asking.world.sessions["admin"]
    for route, method, rule in routes_of(template_asking.app):
        if rule is None or not rule.page or method == "GET":
            continue
        address = address_of(route, template_asking.world.values[REPO])
        client = template_asking.app.test_client()
        client.set_cookie(COOKIE, cookie)
        kind = {"content_type": "multipart/form-data"} if rule.upload_fields else {}
        answer = client.open(address, method=method, data={"csrf_token": strange}, buffered=True, **kind)
        note(wrong, f"{method} {address}", answer, rule, method, answer.status_code == 400)


def files_of(root: Path) -> dict[Path, bytes]:
    """All that is in a storage but what notes who asked."""
    return {
        path: path.read_bytes()
        for path in root.rglob("*")
        if path.is_file()
        and not path.name.endswith(".used.json")
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


def test_nothing_is_changed_by_whoever_is_refused(template, tmp_path, wrong):
    world = template.copy(tmp_path / "data")
    asking = Asking(world)
    before = files_of(world.root)
    for route, method, rule in scoped_routes(asking.app):
        if method == "GET":
            continue
        address = address_of(route, world.values[REPO])
        for who in ("", "stranger", "neighbour", *refused_scopes(rule)):
            answer = asking(method, address, token=world.tokens[REPO].get(who, ""))
            note(wrong, f"{who} {method} {address}", answer, rule, method, answer.status_code // 100 in (3, 4))

    assert files_of(world.root) == before


# --- who is let in ---


@pytest.fixture
def fresh(template, tmp_path) -> Callable[[], Asking]:
    """Ask in ever new copies of the world, which may be changed: ``fresh()``."""
    asking = Asking(template)
    numbers = count()

    def ask() -> Asking:
        asking.move_to(template.copy(tmp_path / f"{next(numbers)}"))
        return asking

    return ask


@pytest.mark.parametrize("repo", [REPO, PUBLIC])
def test_a_token_with_the_scope_reaches_the_view(template, template_asking, fresh, wrong, repo):
    for route, method, rule in scoped_routes(template_asking.app):
        if rule.page and method != "GET":
            continue
        address = address_of(route, template.values[repo])
        for who in ("admin", f"read and {rule.scope}"):
            asking = template_asking if method == "GET" else fresh()
            answer = asking(method, address, token=template.tokens[repo][who])
            # A public repository has no registry tokens whose page could be shown.
            missing = repo == PUBLIC and "token_id" in route.arguments
            is_good = asking.admitted and (answer.status_code not in (401, 404) or missing)
            note(wrong, f"{who} {method} {address}", answer, rule, method, is_good)


@pytest.mark.parametrize("repo", [REPO, PUBLIC])
def test_people_reach_the_pages_that_their_roles_open(template, template_asking, fresh, wrong, repo):
    registry = Registry(template.root)
    for route, method, rule in scoped_routes(template_asking.app):
        address = address_of(route, template.values[repo])
        for person in ("reader", "writer", "admin"):
            if not rule.page or rule.scope not in registry.users.get(person).scopes(ORG):
                continue
            asking = template_asking if method == "GET" else fresh()
            answer = asking(method, address, person=person)
            is_good = asking.admitted and answer.status_code not in (401, 403)
            note(wrong, f"{person} {method} {address}", answer, rule, method, is_good)


def test_what_no_scope_guards_answers_each_person_as_it_is_said_above(template, template_asking, fresh, wrong):
    for route, method, rule in routes_of(template_asking.app):
        if rule is not None and rule.scope is not None:
            continue
        address = address_of(route, template.values[REPO])
        expected = OTHERS[route.endpoint, method]
        for person, status in zip(("", "stranger", "reader", "writer", "admin"), expected, strict=True):
            asking = template_asking if method == "GET" else fresh()
            if rule is not None and rule.page:
                answer = ask_page(asking, method, address, person)
                is_good = answer.status_code == status
                if not person and status == 303 and route.endpoint != "pages.log_out":
                    is_good = is_sign_in(answer, method, address)
            else:
                headers = basic(person, "correct horse") if person else {}
                answer = asking(method, address, **headers)
                is_good = answer.status_code == status
            note(wrong, f"{person or 'nobody'} {method} {address}", answer, rule, method, is_good)


def ask_page(asking: Asking, method: str, address: str, person: str):
    """Ask as somebody signed in, or as nobody whose browser has loaded a page with a form."""
    if person or method == "GET":
        return asking(method, address, person=person)
    browser = visitor(asking.app)
    return browser.client.open(address, method=method, data={"csrf_token": browser.token()}, buffered=True)


def test_a_session_opens_pages_and_nothing_else(template_asking, wrong):
    for route, method, rule in scoped_routes(template_asking.app):
        if rule.page:
            continue
        address = address_of(route, template_asking.world.values[REPO])
        answer = template_asking(method, address, person="admin")
        is_good = answer.status_code == 401 and not template_asking.admitted
        if route.endpoint == "downloads.download_from_page":
            continue  # a link on a page: its own tests say what it does
        note(wrong, f"admin's browser {method} {address}", answer, rule, method, is_good)


# --- across organizations and scopes ---


def promote(asking: Asking, token: str, destination: str):
    address = f"/api/v1/repos/{ORG}/{REPO}/python/1/{WHEEL}/promote.json"
    client = asking.app.test_client()
    return client.post(address, data={"destination": destination}, headers=basic(token), buffered=True)


def test_a_file_is_promoted_only_by_who_may_delete_here_and_write_there(template, fresh):
    registry = Registry(template.root)
    everywhere = registry.tokens.create(ORG, None, ALL, TESTER)[1]
    no_delete = registry.tokens.create(ORG, None, ALL - {Scope.DELETE_PACKAGES}, TESTER)[1]
    only_here = template.tokens[REPO]["admin"]

    def status(token: str, destination: str) -> int:
        return promote(fresh(), token, destination).status_code

    assert status(everywhere, f"{ORG}/neighbour") == 200
    assert status(no_delete, f"{ORG}/neighbour") == 403
    assert status(only_here, f"{ORG}/neighbour") == status(only_here, f"{ORG}/nothing") == 404
    assert status(only_here, f"{ORG}/{PUBLIC}") == 403
    assert status(everywhere, "other/anything") == 404


def test_nobody_makes_a_repository_in_somebody_elses_organization(template, tmp_path):
    asking = Asking(template.copy(tmp_path / "data"))
    form = {"repository[name]": "taken over", "repository[organization]": ORG}

    for token in (template.tokens[REPO]["stranger"], template.tokens[REPO]["neighbour"]):
        answer = asking.app.test_client().post("/api/v1/repos.json", data=form, headers=basic(token), buffered=True)
        assert answer.status_code == 403

    assert {repository.slug for repository in Registry(asking.world.root).repositories(ORG)} == {
        REPO,
        PUBLIC,
        "neighbour",
    }


def test_a_token_of_another_repository_is_not_changed_through_ones_own(template, tmp_path):
    """An admin of one organization names, in the address of a repository there, a token of another one."""
    asking = Asking(template.copy(tmp_path / "data"))
    registry = Registry(asking.world.root)
    registry.create_repository("other", "theirs", RepositorySettings(name="Theirs"))
    victim = template.values[REPO]["token_id"]

    answers = [
        asking(method, f"/other/theirs/settings/tokens/{victim}{more}", person="stranger")
        for method, more in (("GET", ""), ("POST", ""), ("POST", "/delete"))
    ]

    assert [answer.status_code for answer in answers] == [404, 404, 404]
    assert registry.tokens.get(victim).description == "test"


def test_an_upload_form_needs_its_csrf_token_before_anything_is_stored(template, tmp_path):
    asking = Asking(template.copy(tmp_path / "data"))
    client = asking.app.test_client()
    client.set_cookie(COOKIE, asking.world.sessions["admin"][0])
    filename, content = make_wheel(version="2.0")

    answer = client.post(f"/{ORG}/{REPO}/packages", data={"file": (io.BytesIO(content), filename)}, buffered=True)

    assert answer.status_code == 400
    assert not list(asking.world.root.rglob(filename))


# --- redirects ---

ELSEWHERE = [
    "https://evil.example/",
    "//evil.example/",
    "///evil.example/",
    "/\\evil.example/",
    "\\\\evil.example/",
    "/\t/evil.example/",
    "\thttps://evil.example/",
    "javascript:alert(1)",
    "https:evil.example",
    "/%0d%0aLocation:%20https://evil.example/".replace("%0d%0a", "\r\n"),
    "//[",
    "http://[evil",
    "/\u2028/evil.example",
    "@evil.example",
    "",
]


@pytest.mark.parametrize("target", ELSEWHERE)
def test_signing_in_leads_to_a_page_here_wherever_the_link_wanted_to_go(template_asking, target):
    browser = visitor(template_asking.app)

    page = browser.get("/login", query_string={"next": target})
    answer = browser.sign_in("reader", target=target)

    assert page.status_code == 200
    assert "evil.example" not in page.text
    assert (answer.status_code, answer.headers["Location"]) == (303, "/")


@pytest.mark.parametrize(
    "address",
    [
        "//evil.example/",
        "//evil.example/%2e%2e",
        f"//evil.example/{ORG}/{REPO}/pypi/simple",
        f"/{ORG}/{REPO}/pypi/simple/%2f%2fevil.example",
        f"/{ORG}/{REPO}/pypi/simple/..%2f..%2f",
        "/\\evil.example",
        "/evil.example",
        "/evil.example//",
        "//evil.example",
    ],
)
def test_no_address_redirects_elsewhere(template_asking, address):
    for headers in ({}, basic(template_asking.world.tokens[REPO]["admin"])):
        environ = EnvironBuilder("/", headers=headers, query_string="").get_environ()
        environ["PATH_INFO"] = address  # a client of werkzeug would read a host from it
        answer = template_asking.app.test_client().open(environ, buffered=True)

        assert answer.status_code < 500
        assert re.match(r"/(?![/\\])", answer.headers.get("Location", "/"))


def test_no_answer_takes_a_host_from_the_request(template_asking, wrong):
    for route, method, rule in routes_of(template_asking.app):
        if method != "GET":
            continue
        address = address_of(route, template_asking.world.values[REPO])
        hostile = {"Host": "evil.example", "X-Forwarded-Host": "evil.example", "X-Forwarded-Proto": "gopher"}
        answer = template_asking("GET", address, token=template_asking.world.tokens[REPO]["admin"], **hostile)
        said = (
            "\n".join([answer.headers.get("Location", ""), answer.headers.get("Link", "")]).encode() + answer.data
        )
        is_good = b"evil.example" not in said and b"gopher" not in said
        note(wrong, f"{method} {address} of evil.example", answer, rule, method, is_good)


def test_an_address_without_its_slash_is_redirected_on_this_host(template_asking):
    answer = template_asking("GET", f"/{ORG}/{PUBLIC}", Host="evil.example")

    assert (answer.status_code // 100, answer.headers["Location"]) == (3, f"/{ORG}/{PUBLIC}/")


def test_no_call_of_a_client_is_redirected_with_or_without_a_slash(template_asking, wrong):
    token = template_asking.world.tokens[PUBLIC]["admin"]
    for route, _, rule in routes_of(template_asking.app):
        if rule is not None and rule.page:
            continue
        address = address_of(route, template_asking.world.values[PUBLIC])
        other = address.removesuffix("/") if address.endswith("/") else f"{address}/"
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            answer = template_asking(method, other, token=token)
            note(wrong, f"{method} {other}", answer, rule, method, answer.status_code // 100 != 3)
