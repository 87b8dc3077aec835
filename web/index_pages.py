"""The pages of the simple index: rendered, compressed and tagged, the same bytes in every process.

The models are PEP 503, 691, 700, 714 and 792. A page is made of pieces that are cut at places its content decides,
so that one more file changes one piece, and only that one has to be compressed again. What is written of a file is
kept with it, so that nothing is rendered twice.
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
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise
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
KEPT_DEFLATED = 4 * 1024 * 1024  # bytes of compressed pieces; the page of 5,000 files takes an eighth of it


@dataclass(frozen=True)
class IndexPage:
    """A page of the simple index."""

    content_type: str
    pieces: Sequence[bytes]  # of the text, in UTF-8

    @cached_property
    def size(self) -> int:
        """How long the page is before it is compressed, in bytes."""
        return sum(map(len, self.pieces))

    def etag(self, coding: str) -> str:
        """Return what this content, in this type and content *coding*, is known by; in every process the same."""
        variant = f"{self.content_type} {coding}".encode()
        return hashlib.blake2b(b"".join(self._digests), digest_size=20, key=variant).hexdigest()

    def encode(self, coding: str) -> bytes:
        """Return the body in the content *coding*: "zstd", "gzip" or "" for none; the same bytes each time."""
        body = b"".join(self.pieces)
        if coding == "gzip":
            deflated = (_deflated(*piece) for piece in zip(self._digests, self.pieces, strict=True))
            return b"".join(
                (_GZIP_HEAD, *deflated, _GZIP_END, _GZIP_CHECK.pack(zlib.crc32(body), self.size % 2**32))
            )
        if coding != "zstd":
            return body
        if sys.version_info >= (3, 14):
            from compression import zstd  # here, since few clients ask for it
        else:
            from backports import zstd
        return zstd.compress(body)

    @cached_property
    def _digests(self) -> list[bytes]:
        return [hashlib.blake2b(piece, digest_size=20).digest() for piece in self.pieces]


# --- pages ---


def project_list_html(projects: Iterable[NormalizedName], content_type: str) -> IndexPage:
    """Return the list of *projects*; in normalized names is nothing that HTML or a URL would need escaped."""
    head = (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="pypi:repository-version" content="{API_VERSION}">\n'
        "<title>Simple index</title>\n</head>\n<body>\n"
    )
    rows = [f'<a href="{project}/">{project}</a><br>\n' for project in projects]
    return IndexPage(content_type, _cut(head, rows, "", "</body>\n</html>\n", _cuts_of_texts(rows)))


def project_list_json(projects: Iterable[NormalizedName]) -> IndexPage:
    """Return the list of *projects* as PEP 691 has it."""
    head = f'{{"meta":{{"api-version":"{API_VERSION}"}},"projects":['
    rows = [f'{{"name":"{project}"}}' for project in projects]
    return IndexPage(JSON_TYPE, _cut(head, rows, ",", "]}", _cuts_of_texts(rows)))


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
    rows = [file.texts.get(up) or _html_of(file, up) for file in detail.files]
    return IndexPage(content_type, _cut(head, rows, "", "</body>\n</html>\n", _cuts_of_files(detail.files)))


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
    rows = [file.texts.get("json") or _json_of(file) for file in detail.files]
    return IndexPage(JSON_TYPE, _cut(head, rows, ",", "]}", _cuts_of_files(detail.files)))


def _html_of(file: File, up: str) -> str:
    python = f' data-requires-python="{html.escape(file.requires_python)}"' if file.requires_python else ""
    digest = file.core_metadata_sha256
    metadata = f' data-core-metadata="sha256={digest}" data-dist-info-metadata="sha256={digest}"' if digest else ""
    yanked = "" if file.yanked_reason is None else f' data-yanked="{html.escape(file.yanked_reason)}"'
    text = file.texts[up] = (
        f'<a href="{file_url(up, file)}#sha256={file.sha256}"{python}{metadata}{yanked} data-size="{file.size}"'
        f' data-upload-time="{format_time(file.upload_time)}">{html.escape(file.filename)}</a><br>\n'
    )
    return text


def _json_of(file: File) -> str:
    metadata = {"sha256": file.core_metadata_sha256} if file.core_metadata_sha256 else False
    facts = {
        "filename": file.filename,
        "url": file_url("../../", file),
        "hashes": {"sha256": file.sha256},
        **({"requires-python": file.requires_python} if file.requires_python else {}),
        "core-metadata": metadata,
        "dist-info-metadata": metadata,  # the spelling before PEP 714
        "yanked": file.yanked,
        "size": file.size,
        "upload-time": format_time(file.upload_time),
    }
    text = file.texts["json"] = _compact(facts)
    return text


_IN_URL_AS_IT_IS = re.compile(r"[A-Za-z0-9._~-]+", re.ASCII)  # nothing that HTML would need escaped, either


def file_url(up: str, file: File) -> str:
    """The URL of a file, relative to an index page, so that it has the page's very origin (specs.md 2.9)."""
    filename = file.filename
    return f"{up}files/{file.project}/{filename if _IN_URL_AS_IT_IS.fullmatch(filename) else quote(filename)}"


_compact = json.JSONEncoder(separators=(",", ":")).encode


# --- pieces ---

# One row in 64 ends a piece: few enough to compress again quickly, enough to compress nearly as well as all.
_LAST_OF_PIECE = "04"  # files whose sha256 is less; digests are as good as thrown dice, and here already


def _cuts_of_files(files: Sequence[File]) -> list[int]:
    return [i for i, file in enumerate(files, start=1) if file.sha256 < _LAST_OF_PIECE]


def _cuts_of_texts(texts: Iterable[str]) -> list[int]:
    return [i for i, text in enumerate(texts, start=1) if zlib.crc32(text.encode()) % 64 == 0]


def _cut(head: str, rows: Sequence[str], separator: str, tail: str, cuts: Iterable[int]) -> list[bytes]:
    """Return a page in pieces: the *rows* between *head* and *tail*, cut behind so many rows as *cuts* says."""
    ends = [0, *(cut for cut in cuts if cut < len(rows)), len(rows)]
    pieces = [separator.join(rows[begin:end]) for begin, end in pairwise(ends)]
    pieces[0] = head + pieces[0]
    pieces[1:] = [separator + piece for piece in pieces[1:]]
    pieces[-1] += tail
    return [piece.encode() for piece in pieces]


# --- compression ---

GZIP_LEVEL = 6  # 9 takes twice as long for one hundredth less: what is in a page is mostly hashes
# RFC 1952: no name, no time, any system; behind all pieces comes an empty last block (RFC 1951 section 3.2.6).
_GZIP_HEAD, _GZIP_END = b"\x1f\x8b\x08\0\0\0\0\0\0\xff", b"\x03\0"
_GZIP_CHECK = struct.Struct("<II")  # of the text: CRC-32 and length

_kept_deflated: OrderedDict[bytes, bytes] = OrderedDict()  # by digest of the piece; the last used at the end
_kept_size = 0  # bytes
_kept_lock = threading.Lock()


def _deflated(digest: bytes, piece: bytes) -> bytes:
    """Return a piece as blocks of a deflate stream that need nothing of what is before them."""
    global _kept_size
    with _kept_lock:
        if (kept := _kept_deflated.get(digest)) is not None:
            _kept_deflated.move_to_end(digest)
            return kept
    compressor = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    # The flush ends on a whole byte. Pieces could not be joined otherwise.
    deflated = compressor.compress(piece) + compressor.flush(zlib.Z_FULL_FLUSH)
    with _kept_lock:
        if digest not in _kept_deflated:
            _kept_deflated[digest] = deflated
            _kept_size += len(deflated)
        while _kept_size > KEPT_DEFLATED:
            _kept_size -= len(_kept_deflated.popitem(last=False)[1])
    return deflated


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
