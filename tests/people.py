"""People who visit pages in tests: browsers that sign in, and send forms as a page has them."""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from typing import Any
from wsgiref.validate import validator

from werkzeug.security import generate_password_hash

from storage.registry import Registry
from storage.users import Role
from tests.conftest import ORG

PASSWORD = "correct horse"
# A cheap one: tests are not attacked.
PASSWORD_HASH = generate_password_hash(PASSWORD, "scrypt:1024:8:1")
HOSTILE = "\"'><script>alert(1)</script>&{{7*7}}"


@dataclass
class Browser:
    """A client of the app with cookies, who may be signed in."""

    client: Any
    name: str = ""

    def get(self, address: str, **options):
        return self.client.get(address, buffered=True, **options)

    def token(self) -> str:
        """Return a CSRF token, as any page with a form has it."""
        return re.search(r'name="csrf_token" value="([^"]+)"', self.get("/login").text)[1]

    def post(self, address: str, form: dict | None = None, **options):
        """Send a form with its CSRF token."""
        return self.client.post(
            address, data={"csrf_token": self.token(), **(form or {})}, buffered=True, **options
        )

    def sign_in(self, name: str, password: str = PASSWORD, target: str = ""):
        self.name = name
        return self.post("/login", {"username": name, "password": password, "next": target})


def visitor(
    app, registry: Registry | None = None, name: str = "", role: Role | None = None, org: str = ORG
) -> Browser:
    """Return a browser whose answers are checked; with a *name*, of somebody signed in who has that *role*."""
    if "validator" not in app.extensions:
        app.extensions["validator"] = app.wsgi_app = validator(app.wsgi_app)
    browser = Browser(app.test_client())
    if name and registry is not None:
        registry.users.create(name, PASSWORD_HASH, {org: role} if role else {})
        assert browser.sign_in(name).status_code == 303
    return browser


def words(page) -> str:
    """Return what a page says, without its markup."""
    text = re.sub(r"<[^>]*>", " ", page.text)
    return re.sub(r"\s+", " ", html.unescape(text))


def beside(page, field: str) -> str:
    """Return the explanation or the error that belongs to *field*; "" if there is none."""
    found = re.search(rf'id="{field}-help">(.*?)</p>', page.text, re.DOTALL)
    return html.unescape(found[1]) if found else ""
