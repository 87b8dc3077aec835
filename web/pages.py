"""The pages for people: signing in, organizations, repositories, projects, files.

A page is a view with :func:`web.access.page_needs`; its forms carry a CSRF token, its errors are pages, too.
"""

from __future__ import annotations

from urllib.parse import urlsplit

from flask import Blueprint, flash, g, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import Unauthorized

from storage.users import User
from web.access import caller_of_password, caller_of_session, page_needs, registry, sign_in, sign_out

pages = Blueprint("pages", __name__)


def current_viewer() -> User | None:
    """Who is looking at this page; a function, so that only pages that ask for it depend on the session."""
    caller = g.caller if "caller" in g else caller_of_session()
    return caller.user if caller is not None else None


# --- signing in ---


@pages.get("/login")
@page_needs()
def login() -> ResponseReturnValue:
    """The form to sign in with."""
    return render_template("login.html", next=local_path(request.args.get("next", "")))


@pages.post("/login")
@page_needs()
def log_in() -> ResponseReturnValue:
    """Sign in, and go where the visitor wanted to go."""
    username, password = request.form.get("username", "").strip().lower(), request.form.get("password", "")
    caller = caller_of_password(username, password)
    if caller is None or caller.user is None:
        page = render_template(
            "login.html",
            next=local_path(request.form.get("next", "")),
            username=username,
            error="There is no user with that name and password.",
        )
        return page, Unauthorized.code
    sign_in(caller.user)
    return redirect(local_path(request.form.get("next", "")), 303)


@pages.post("/logout")
@page_needs()
def log_out() -> ResponseReturnValue:
    """Sign out."""
    sign_out()
    flash("You are signed out.")
    return redirect(url_for(".login"), 303)


def local_path(target: str) -> str:
    """Return *target* if it is a path on this very server, else the start page; never another site."""
    parts = urlsplit(target)
    is_local = target.startswith("/") and not target.startswith("//") and not parts.scheme and not parts.netloc
    return target if is_local and "\\" not in target and target.isprintable() else "/"


@pages.get("/account")
@page_needs(signed_in=True)
def account() -> ResponseReturnValue:
    """One's own tokens and password."""
    return render_template("account.html")


# --- organizations ---


@pages.get("/")
@page_needs(signed_in=True)
def organization_list() -> ResponseReturnValue:
    """The organizations that the visitor may see; with exactly one, straight to it."""
    organizations = [o for o in registry().organizations() if g.caller.scopes(o.slug, None)]
    return render_template("organizations.html", organizations=organizations)
