"""The pages of the simple index: rendered, compressed and tagged, the same bytes in every process.

The models are PEP 503, 691, 700, 714 and 792. A page is made of pieces that are cut at places its content decides,
so that one more file changes one piece, and only that one has to be rendered and compressed again.
"""

from __future__ import annotations

import hashlib
import html
import json
import re
import struct
import sys
import threading
import zlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from itertools import pairwise
from typing import Generic, TypeVar
from urllib.parse import quote

from packaging.utils import NormalizedName
from werkzeug.datastructures import MIMEAccept
from werkzeug.http import parse_accept_header

from storage.sidecars import File, format_time
from storage.simple import ProjectDetail

API_VERSION = "1.4"  # PEP 792; PEP 833 froze the HTML form there
JSON_TYPE = "application/vnd.pypi.simple.v1+json"
HTML_TYPE = "application/vnd.pypi.simple.v1+html"
# What can be had, in the order in which ties are broken: no preference gets what old clients and browsers read.
OFFERS = ("text/html", HTML_TYPE, JSON_TYPE)

MIN_COMPRESSED = 500  # bytes; shorter pages fit a packet as they are


@dataclass(frozen=True)
class IndexPage:
    """A page of the simple index."""

    content_type: str
    pieces: Sequence[Piece]

    @cached_property
    def size(self) -> int:
        """How long the page is before it is compressed, in bytes."""
        return sum(len(piece.text) for piece in self.pieces)

    def etag(self, coding: str) -> str:
        """Return what this content, in this type and content *coding*, is known by; in every process the same."""
        variant = f"{self.content_type} {coding}".encode()
        digests = b"".join(piece.digest for piece in self.pieces)
        return hashlib.blake2b(digests, digest_size=20, key=variant).hexdigest()

    def encode(self, coding: str) -> bytes:
        """Return the body in the content *coding*: "zstd", "gzip" or "" for none; the same bytes each time."""
        body = b"".join(piece.text for piece in self.pieces)
        if coding == "gzip":
            _deflate(self.pieces)
            check = _GZIP_CHECK.pack(zlib.crc32(body), self.size % 2**32)
            return b"".join((_GZIP_HEAD, *(piece.deflated for piece in self.pieces), _GZIP_END, check))
        if coding != "zstd":
            return body
        if sys.version_info >= (3, 14):
            from compression import zstd  # here, since few clients ask for it
        else:
            from backports import zstd
        return zstd.compress(body)


# --- pages ---


def project_list_html(projects: Iterable[NormalizedName], content_type: str) -> IndexPage:
    """Return the list of *projects*; in normalized names is nothing that HTML or a URL would need escaped."""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="pypi:repository-version" content="{API_VERSION}">\n'
        "<title>Simple index</title>\n</head>\n<body>\n"
    )
    return IndexPage(content_type, _pieces(_LIST_HTML, head, tuple(projects), "</body>\n</html>\n"))


def project_list_json(projects: Iterable[NormalizedName]) -> IndexPage:
    """Return the list of *projects* as PEP 691 has it."""
    head = f'{{"meta":{{"api-version":"{API_VERSION}"}},"projects":['
    return IndexPage(JSON_TYPE, _pieces(_LIST_JSON, head, tuple(projects), "]}"))


def project_html(detail: ProjectDetail, up: str, content_type: str) -> IndexPage:
    """Return a project's page; *up* is the way from it to the folder that holds ``files/``."""
    status, reason = detail.status.status, detail.status.reason
    why = f'<meta name="pypi:project-status-reason" content="{html.escape(reason)}">\n' if reason else ""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="pypi:repository-version" content="{API_VERSION}">\n'
        f'<meta name="pypi:project-status" content="{status}">\n{why}'
        f"<title>Links for {detail.name}</title>\n</head>\n<body>\n<h1>Links for {detail.name}</h1>\n"
    )
    return IndexPage(content_type, _pieces(_project_form(up), head, detail.files, "</body>\n</html>\n"))


def project_json(detail: ProjectDetail) -> IndexPage:
    """Return a project's page as PEP 691, 700, 714 and 792 have it."""
    status = {"status": str(detail.status.status)}
    if detail.status.reason:
        status["reason"] = detail.status.reason
    facts = {
        "meta": {"api-version": API_VERSION},
        "name": detail.name,
        "project-status": status,
        "versions": detail.versions,
    }
    head = f'{_compact(facts)[:-1]},"files":['
    return IndexPage(JSON_TYPE, _pieces(_PROJECT_JSON, head, detail.files, "]}"))


_PLAIN = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)  # what needs no escaping in a URL, in HTML and in JSON


def _html_of(up: str, file: File) -> str:
    filename = file.filename
    is_plain = _PLAIN.fullmatch(filename)
    url, text = (filename, filename) if is_plain else (quote(filename), html.escape(filename))
    python = f' data-requires-python="{html.escape(file.requires_python)}"' if file.requires_python else ""
    digest = file.core_metadata_sha256
    metadata = f' data-core-metadata="sha256={digest}" data-dist-info-metadata="sha256={digest}"' if digest else ""
    yanked = "" if file.yanked_reason is None else f' data-yanked="{html.escape(file.yanked_reason)}"'
    # The URL is relative to the page, so that it has the page's very origin (specs.md 2.9).
    return (
        f'<a href="{up}files/{file.project}/{url}#sha256={file.sha256}"{python}{metadata}{yanked}'
        f' data-size="{file.size}" data-upload-time="{format_time(file.upload_time)}">{text}</a><br>\n'
    )


def _json_of(file: File) -> str:
    filename = file.filename
    is_plain = _PLAIN.fullmatch(filename)
    url, text = (filename, f'"{filename}"') if is_plain else (quote(filename), _compact(filename))
    python = f'"requires-python":{_compact(file.requires_python)},' if file.requires_python else ""
    digest = file.core_metadata_sha256
    metadata = f'{{"sha256":"{digest}"}}' if digest else "false"
    yanked = "false" if file.yanked_reason is None else _compact(file.yanked)
    return (
        f'{{"filename":{text},"url":"../../files/{file.project}/{url}","hashes":{{"sha256":"{file.sha256}"}},{python}'
        f'"core-metadata":{metadata},"dist-info-metadata":{metadata},'  # the second is the spelling before PEP 714
        f'"yanked":{yanked},"size":{file.size},"upload-time":"{format_time(file.upload_time)}"}}'
    )


_compact = json.JSONEncoder(separators=(",", ":")).encode


# --- pieces ---

GZIP_LEVEL = 6  # 9 takes twice as long for one hundredth less: what is in a page is mostly hashes
# RFC 1952: no name, no time, any system; behind all pieces comes an empty last block (RFC 1951 section 3.2.6).
_GZIP_HEAD, _GZIP_END = b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\x03\0"
_GZIP_CHECK = struct.Struct("<II")  # of the text: CRC-32 and length

KEPT_TEXT = 5 * 1024 * 1024  # bytes of text in the pieces that are kept; what they are made of takes as much again


class Piece:
    """A part of a page, and what has been made of it."""

    __slots__ = ("deflated", "digest", "items", "text")

    def __init__(self, items: Sequence[object], text: bytes) -> None:
        """Hold the *text* that was made of *items*."""
        self.items, self.text = items, text
        self.digest = hashlib.blake2b(text, digest_size=20).digest()
        # The text as blocks of a deflate stream that need nothing of what is before them; b"": not compressed yet.
        self.deflated = b""

    def deflate(self) -> None:
        """Compress the text."""
        compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
        # The flush ends on a whole byte. Pieces could not be joined otherwise.
        self.deflated = compressor.compress(self.text) + compressor.flush(zlib.Z_FULL_FLUSH)


SHARED = 16  # pieces; from so many on, a second thread is worth its start: it halves the time of a large first page


def _deflate(pieces: Iterable[Piece]) -> None:
    """Compress those of *pieces* that are not compressed yet."""
    waiting = [piece for piece in pieces if not piece.deflated]
    if len(waiting) < SHARED:
        _deflate_each(waiting)
        return
    helper = threading.Thread(target=_deflate_each, args=(waiting[1::2],), name="deflate", daemon=True)
    helper.start()
    _deflate_each(waiting[::2])
    helper.join()
    _deflate_each([piece for piece in waiting if not piece.deflated])  # should the helper have failed


def _deflate_each(pieces: Iterable[Piece]) -> None:
    for piece in pieces:
        piece.deflate()


T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Form(Generic[T]):
    """How a page shows its items."""

    name: str
    write: Callable[[T], str]
    separator: str
    ends_piece: Callable[[T], bool]
    key: Callable[[T], Hashable]  # by which a piece that begins with the item is found


# One item in 64 ends a piece: few enough to compress again quickly, enough to compress nearly as well as all. Files
# have what is as good as thrown dice already.
def _file_ends_piece(file: File) -> bool:
    return file.sha256 < "04"


def _project_ends_piece(project: NormalizedName) -> bool:
    return zlib.crc32(project.encode()) % 64 == 0


def _key_of_file(file: File) -> Hashable:
    return file.filename, file.upload_time


@lru_cache
def _project_form(up: str) -> _Form[File]:
    return _Form(up, partial(_html_of, up), "", _file_ends_piece, _key_of_file)


_PROJECT_JSON = _Form("json", _json_of, ",", _file_ends_piece, _key_of_file)
_LIST_HTML: _Form[NormalizedName] = _Form(
    "list", lambda project: f'<a href="{project}/">{project}</a><br>\n', "", _project_ends_piece, str
)
_LIST_JSON: _Form[NormalizedName] = _Form(
    "list json", lambda project: f'{{"name":"{project}"}}', ",", _project_ends_piece, str
)

_kept: OrderedDict[Hashable, Piece] = OrderedDict()  # the last used at the end
_kept_text = 0  # bytes
_kept_lock = threading.Lock()


def _pieces(form: _Form[T], head: str, items: Sequence[T], tail: str) -> list[Piece]:
    """Return a page that shows *items* between *head* and *tail*, in pieces; those made before are kept."""
    ends_piece = form.ends_piece
    ends = [i for i, item in enumerate(items, start=1) if ends_piece(item)]
    ends = [0, *ends, len(items)] if not ends or ends[-1] != len(items) else [0, *ends]
    return [
        _piece(form, head if begin == 0 else form.separator, items[begin:end], tail if end == len(items) else "")
        for begin, end in pairwise(ends)
    ]


def _piece(form: _Form[T], head: str, items: Sequence[T], tail: str) -> Piece:
    global _kept_text
    key = (form.name, head, tail, form.key(items[0]) if items else None)
    with _kept_lock:
        kept = _kept.get(key)
        if kept is not None and kept.items == items:
            _kept.move_to_end(key)
            return kept
    piece = Piece(items, f"{head}{form.separator.join(map(form.write, items))}{tail}".encode())
    with _kept_lock:
        kept = _kept.pop(key, None)
        _kept[key] = piece
        _kept_text += len(piece.text) - (len(kept.text) if kept is not None else 0)
        while _kept_text > KEPT_TEXT:
            _kept_text -= len(_kept.popitem(last=False)[1].text)
    return piece


# --- negotiation ---

KEPT_CHOICES = 1_000
MAX_KEPT_HEADER = 300  # characters; clients send the same few short ones again and again


def choose_type(accept: str) -> str | None:
    """Return which of OFFERS a client that sends *accept* likes best; None if none (specs.md 1.4)."""
    return (_choose_type if len(accept) <= MAX_KEPT_HEADER else _choose_type.__wrapped__)(accept)


def choose_coding(accept_encoding: str) -> str:
    """Return the content coding that a client that sends *accept_encoding* likes best: "zstd", "gzip" or ""."""
    is_short = len(accept_encoding) <= MAX_KEPT_HEADER
    return (_choose_coding if is_short else _choose_coding.__wrapped__)(accept_encoding)


@lru_cache(maxsize=KEPT_CHOICES)
def _choose_type(accept: str) -> str | None:
    # "latest" is whatever version we have; the answer says which. We have one variant of each type, whatever the
    # parameters are that a client would like it to have.
    asked = re.sub(r";(?!\s*q\s*=)[^;,=]+=[^;,]*", "", accept.lower().replace("simple.latest+", "simple.v1+"))
    accepted = parse_accept_header(asked, MIMEAccept)
    best = max(OFFERS, key=accepted.quality)  # the first of the best
    return best if accepted.quality(best) > 0 else None


@lru_cache(maxsize=KEPT_CHOICES)
def _choose_coding(accept_encoding: str) -> str:
    accepted = parse_accept_header(accept_encoding)
    if not accepted:
        return ""
    named = {name.lower() for name in accepted.values()}
    known = ("zstd", "gzip") if "zstd" in named else ("gzip",)  # "*" does not say that a client has heard of zstd
    best = max(known, key=accepted.quality)
    explicit_identity = accepted.quality("identity") if "identity" in named else 0
    return best if accepted.quality(best) > explicit_identity else ""
