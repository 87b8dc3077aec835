"""What each kind of error answers, in the form of each kind of client (contract.md section 4)."""

from __future__ import annotations

import logging
import re
from http import HTTPStatus
from typing import Any

from flask import Response, jsonify, make_response, redirect, render_template, request, url_for
from werkzeug.exceptions import HTTPException
from werkzeug.exceptions import NotFound as PageNotFound

from server import REQUEST_ID_KEY
from storage.errors import (
    Conflict,
    Denied,
    FileAlreadyExists,
    FileNotFound,
    FileTooLarge,
    Invalid,
    InvalidDistribution,
    InvalidFilename,
    InvalidValue,
    NotFound,
    RepositoryNotFound,
    StorageDamaged,
    StorageFull,
    Unavailable,
)
from storage.files import as_storage_error
from storage.rights import ScopeMissing
from web.access import CHALLENGE, rule_of_request
from web.forms import NoFile

log = logging.getLogger("packhouse")


# What each kind of storage error answers, the first that fits; roads differ only in form (contract.md section 4).
STATUS: list[tuple[type[Exception], HTTPStatus]] = [
    (NotFound, HTTPStatus.NOT_FOUND),
    (FileTooLarge, HTTPStatus.REQUEST_ENTITY_TOO_LARGE),
    (Conflict, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Invalid, HTTPStatus.UNPROCESSABLE_ENTITY),
    (Denied, HTTPStatus.FORBIDDEN),
    (StorageFull, HTTPStatus.INSUFFICIENT_STORAGE),
    (Unavailable, HTTPStatus.SERVICE_UNAVAILABLE),
    (StorageDamaged, HTTPStatus.SERVICE_UNAVAILABLE),
]
RETRY_AFTER = "10"  # seconds


def answer_error(error: Exception) -> Response:
    """Answer *error* in the client's form: JSON for the API, a reason phrase for uploaders, else a line of text."""
    if isinstance(error, OSError):
        log.error("%s %s: %s", request.method, request.path, error)
        error = as_storage_error(error)
    status = status_of(error)
    if request.path.startswith("/api/"):
        response = jsonify(v1_error(error, status))
        response.status_code = status
    elif request.blueprint == "pypi" and request.method == "POST":
        response = legacy_error(error, status)
    elif is_for_people():
        response = page_error(error, status)
    else:
        response = Response(f"{sentence_of(error)}\n", status, content_type="text/plain; charset=utf-8")
    if isinstance(error, HTTPException):
        keep = ("allow", "retry-after", "content-range")
        response.headers.extend((name, value) for name, value in error.get_headers() if name.lower() in keep)
    if response.status_code == HTTPStatus.UNAUTHORIZED:
        response.headers["WWW-Authenticate"] = CHALLENGE
    if status in (HTTPStatus.INSUFFICIENT_STORAGE, HTTPStatus.SERVICE_UNAVAILABLE):
        response.headers["Retry-After"] = RETRY_AFTER
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and REQUEST_ID_KEY in request.environ:
        response.headers["X-Request-ID"] = request.environ[REQUEST_ID_KEY]  # to be found in the log
    response.headers["Cache-Control"] = "no-store"  # a cached 404 would hide a project published since
    return response


def is_for_people() -> bool:
    """Whether a page is the right answer: somebody asks for a page, or with a browser for what is not there."""
    rule = rule_of_request()
    return (
        rule.page
        if rule is not None
        else request.accept_mimetypes.quality("text/html") > 0
        and ("text/html" in request.headers.get("Accept", ""))
    )


def page_error(error: Exception, status: int) -> Response:
    """Say it on a page; who is not signed in is sent to do so first."""
    if status == HTTPStatus.UNAUTHORIZED and "Authorization" not in request.headers:
        target = request.full_path.rstrip("?") if request.method == "GET" else "/"
        return make_response(redirect(url_for("pages.login", next=target), HTTPStatus.SEE_OTHER))
    sentence = sentence_of(error)
    if isinstance(error, PageNotFound) and error.description == PageNotFound.description:
        sentence = "there is no page at this address"
    if isinstance(error, ScopeMissing):
        sentence = f"your role does not allow this in {error.what.partition('/')[0]}"
    if request.accept_mimetypes.best == "application/json":  # the script of a page
        response = jsonify(message=f"{sentence[0].upper()}{sentence[1:]}")
        response.status_code = status
        return response
    page = render_template(
        "error.html",
        status=status,
        title=HTTPStatus(status).phrase,
        sentence=sentence,
        advice=ADVICE.get(status, ""),
    )
    return make_response(page, status)


# What a person can do about it.
ADVICE: dict[int, str] = {
    HTTPStatus.BAD_REQUEST: "Go back, load the page again, and try once more.",
    HTTPStatus.UNAUTHORIZED: "Sign in, or send a token that is good.",
    HTTPStatus.FORBIDDEN: "An admin of the organization can give you a role that does.",
    HTTPStatus.NOT_FOUND: "The address may be misspelled, or what was there is deleted or renamed. Private things "
    "are shown only to those who may see them: another account may see more.",
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: "Whoever runs this server can raise the limit in its configuration.",
    HTTPStatus.TOO_MANY_REQUESTS: "Wait a minute, then try again.",
    HTTPStatus.INTERNAL_SERVER_ERROR: "Nothing is lost that was answered with success. Try again; if it happens "
    "again, whoever runs this server finds the reason in its log.",
    HTTPStatus.SERVICE_UNAVAILABLE: "Try again in a few seconds; if it goes on, whoever runs this server finds the "
    "reason in its log.",
    HTTPStatus.INSUFFICIENT_STORAGE: "Whoever runs this server has to free some space.",
}


def status_of(error: Exception) -> int:
    """The status code that *error* is answered with."""
    if isinstance(error, HTTPException):
        return error.code or HTTPStatus.INTERNAL_SERVER_ERROR
    return next(status for kind, status in STATUS if isinstance(error, kind))


def sentence_of(error: Exception) -> str:
    """What happened and what to do, in one sentence."""
    if isinstance(error, RepositoryNotFound):
        return "not found"  # the same whether it is there or not
    return (error.description or error.name) if isinstance(error, HTTPException) else str(error) or "not found"


MAX_REASON_PHRASE = 200  # characters; contract.md section 4


def legacy_error(error: Exception, status: int) -> Response:
    """Answer an uploader: the sentence stands in the reason phrase, all that some of them show (specs.md 3.3).

    uv reads the field ``code`` of a body that is exactly ``application/json``.
    """
    if status == HTTPStatus.UNPROCESSABLE_ENTITY:
        status = HTTPStatus.BAD_REQUEST
    message = legacy_sentence(error)
    short = already_exists(error, MAX_REASON_PHRASE) if isinstance(error, FileAlreadyExists) else message
    phrase = re.sub(r"[^\x20-\x7e\xa0-\xff]", "?", short)
    code = f"{status} {phrase if len(phrase) <= MAX_REASON_PHRASE else phrase[: MAX_REASON_PHRASE - 3] + '...'}"
    if "application/json" in request.headers.get("Accept", ""):
        response = jsonify(code=f"{status} {message}", message=message, title=HTTPStatus(status).phrase)
    else:
        response = Response(f"{message}\n", content_type="text/plain; charset=utf-8")
    response.status = code
    return response


def legacy_sentence(error: Exception) -> str:
    """Say what was wrong in the words that uploaders know from PyPI (contract.md section 4)."""
    if isinstance(error, FileAlreadyExists):
        return already_exists(error)
    if isinstance(error, (InvalidDistribution, InvalidFilename)):
        return f"Invalid distribution file. {error}"
    return sentence_of(error)


def already_exists(error: FileAlreadyExists, limit: int | None = None) -> str:
    """Say which file was there first, since when and by whom; of a long name only what *limit* leaves room for.

    Where there is only a line to read, as in a reason phrase, both digests matter more than the whole name.
    """
    head = "File already exists ('"
    tail = (
        f"', with sha256 hash '{error.stored_sha256[:12]}', {'deleted since, ' if error.deleted else ''}"
        f"uploaded {error.upload_time:%Y-%m-%d %H:%M:%S} UTC by {error.uploader[:40]}; "
        f"yours has '{error.sha256[:12]}')."
    )
    advice = " Use a different version."
    filename = error.filename
    if limit is not None and len(head) + len(filename) + len(tail) + len(advice) > limit:
        advice = ""
        room = limit - len(head) - len(tail)
        if len(filename) > room:
            filename = f"{filename[: room - 3]}..."
    return f"{head}{filename}{tail}{advice}"


TAKEN = "has already been taken"  # scripts look for these very words (specs.md 5.1)


def v1_error(error: Exception, status: int) -> dict[str, Any]:
    """The body that packagecloud's clients expect (specs.md 5.1)."""
    if isinstance(error, Conflict):
        return {"filename": [TAKEN], "message": sentence_of(error)}
    if isinstance(error, NoFile):
        return {"package_file": ["can't be blank"]}
    if isinstance(error, InvalidDistribution):
        return {"package_file": list(error.reasons)}
    if isinstance(error, InvalidValue):
        return {error.field: [error.rule]}
    if isinstance(error, FileNotFound):
        return {"error": "Not Found", "filename": ["not found"], "message": str(error)}
    if isinstance(error, Invalid) and status == HTTPStatus.UNPROCESSABLE_ENTITY:
        return {"package_file": [str(error)]}
    if status == HTTPStatus.UNAUTHORIZED:
        return {"error": "Unauthenticated", "message": sentence_of(error)}
    return {"error": HTTPStatus(status).phrase, "message": sentence_of(error)}
