"""Scopes and API tokens: the credentials that Packhouse generates (contract.md section 3).

A token is ``pkh_{id}_{secret}``. Only its hash is stored; the secret has 160 random bits, so one plain SHA-256 is
enough and checking costs microseconds. Every check looks at the token's file, so a revoked token is refused by
every process on its next request.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.errors import InvalidValue, TokenNotFound
from storage.files import (
    Signature,
    directory_entries,
    encode_json,
    is_directory,
    make_directory,
    put_file,
    read_json,
    read_once,
    remove_file,
    replace_file,
    status_of,
)
from storage.layout import StorageTree
from storage.locks import lock
from storage.sidecars import Actor, format_time, now, parse_time

log = logging.getLogger("packhouse.storage")


class Scope(StrEnum):
    """What a token may do (specs.md 6.1)."""

    READ_PACKAGES = "read_packages"
    WRITE_PACKAGES = "write_packages"
    DELETE_PACKAGES = "delete_packages"
    READ_REGISTRIES = "read_registries"
    WRITE_REGISTRIES = "write_registries"
    DELETE_REGISTRIES = "delete_registries"


def parse_scopes(names: Iterable[str]) -> frozenset[Scope]:
    """Return the scopes called *names*.

    :raises InvalidValue: if there is none, or one of them is unknown.
    """
    known = ", ".join(Scope)
    try:
        scopes = frozenset(Scope(name) for name in names)
    except ValueError as error:
        raise InvalidValue("scope", f"must be one of {known}") from error
    if not scopes:
        raise InvalidValue("scope", f"is missing: choose from {known}")
    return scopes


_TOKEN = re.compile(r"pkh_([0-9a-f]{12})_([0-9a-f]{40})", re.ASCII)
_TOKEN_ID = re.compile(r"[0-9a-f]{12}", re.ASCII)
_USE_INTERVAL = 60.0  # seconds between two notes of a token's use: a busy token is not a busy disk


@dataclass(frozen=True, slots=True)
class Token:
    """An API token as stored; the secret itself is not known here."""

    id: str
    sha256: str  # hex, of the whole text of the token
    description: str
    org: str
    repo: str | None  # None: every repository of the organization
    scopes: frozenset[Scope]
    created_at: datetime  # aware UTC
    created_by: Actor
    user: str | None = None  # whose token it is; it can do no more than this user may
    expires_at: datetime | None = None  # aware UTC

    @property
    def is_expired(self) -> bool:
        """Whether its time is over."""
        return self.expires_at is not None and now() >= self.expires_at

    @property
    def actor(self) -> Actor:
        """The token as somebody who does things."""
        return Actor("token", self.id, self.description)

    def to_json(self) -> dict[str, Any]:
        """Return the document that stands in the token's file."""
        return {
            "format": 1,
            "id": self.id,
            "sha256": self.sha256,
            "description": self.description,
            "organization": self.org,
            "repository": self.repo,
            "scopes": sorted(self.scopes),
            "created_at": format_time(self.created_at),
            "created_by": self.created_by.to_json(),
            "user": self.user,
            "expires_at": self.expires_at and format_time(self.expires_at),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Token:
        """Read what :meth:`to_json` wrote.

        :raises ValueError: if it was not written so.
        """
        try:
            return cls(
                id=str(document["id"]),
                sha256=str(document["sha256"]),
                description=str(document["description"]),
                org=str(document["organization"]),
                repo=_optional_text(document["repository"]),
                scopes=frozenset(Scope(name) for name in document["scopes"]),
                created_at=parse_time(document["created_at"]),
                created_by=Actor.from_json(document["created_by"]),
                user=_optional_text(document["user"]),
                expires_at=document["expires_at"] and parse_time(document["expires_at"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a token: {error}") from error


def _optional_text(value: object) -> str | None:
    if value is not None and not isinstance(value, str):
        raise ValueError("neither a text nor null")
    return value


KEPT_TOKENS = 1_000  # about 1 kB each


@lru_cache(maxsize=KEPT_TOKENS)
def _read_token(path: str, signature: Signature) -> Token:
    """Read a token's file: see :func:`read_once`.

    :raises FileNotFoundError: if it is not there.
    :raises ValueError: if it does not parse.
    """
    return Token.from_json(read_json(Path(path)))


@dataclass(frozen=True, slots=True)
class TokenUse:
    """The last use of a token, to the minute."""

    when: datetime  # aware UTC
    address: str
    client: str  # its User-Agent


class TokenStore:
    """The tokens of a storage."""

    def __init__(self, tree: StorageTree) -> None:
        """Speak for the tokens in *tree*."""
        self._tree = tree
        self._noted: dict[str, float] = {}  # token id -> time of the last note, seconds; at most _KEPT_NOTES

    def create(
        self,
        org: str,
        repo: str | None,
        scopes: frozenset[Scope],
        created_by: Actor,
        *,
        description: str = "",
        user: str | None = None,
        lifetime: timedelta | None = None,
    ) -> tuple[Token, str]:
        """Make a token and return it with its text, which nobody can learn later; on disk when this returns."""
        token_id = secrets.token_hex(6)
        text = f"pkh_{token_id}_{secrets.token_hex(20)}"
        created_at = now()
        token = Token(
            id=token_id,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            description=description,
            org=org,
            repo=repo,
            scopes=scopes,
            created_at=created_at,
            created_by=created_by,
            user=user,
            expires_at=None if lifetime is None else created_at + lifetime,
        )
        make_directory(self._tree.tokens)
        self._write(token)
        return token, text

    def get(self, token_id: str) -> Token:
        """Return a token, expired or not.

        :raises TokenNotFound: if there is none of that id, or its file is damaged.
        """
        if not _TOKEN_ID.fullmatch(token_id):
            raise TokenNotFound(token_id)
        try:
            if not is_directory(self._tree.tokens):  # a link could lead out of the storage
                raise TokenNotFound(token_id)
            token = read_once(_read_token, self._tree.token_file(token_id))
        except FileNotFoundError as error:
            raise TokenNotFound(token_id) from error
        except ValueError as error:
            log.warning("the file of token %s is damaged (%s); run 'packhouse check'", token_id, error)
            raise TokenNotFound(token_id) from error
        if token.id != token_id:
            raise TokenNotFound(token_id)
        return token

    def authenticate(self, text: str) -> Token | None:
        """Return the token whose text is *text*; None if there is none, or it is revoked or expired."""
        match = _TOKEN.fullmatch(text)
        if match is None:
            return None
        try:
            token = self.get(match[1])
        except TokenNotFound:
            return None
        digest = hashlib.sha256(text.encode()).hexdigest()
        return token if hmac.compare_digest(digest, token.sha256) and not token.is_expired else None

    def list(self, org: str | None = None, repo: str | None = None) -> list[Token]:
        """Return the tokens, oldest first; of one organization, or of one repository alone."""
        tokens = []
        for entry in directory_entries(self._tree.tokens):
            token_id = entry.name.removesuffix(".json")
            if _TOKEN_ID.fullmatch(token_id) and token_id != entry.name:
                try:
                    tokens.append(self.get(token_id))
                except TokenNotFound:  # revoked meanwhile, or damaged: get() has logged it
                    continue
        wanted = [t for t in tokens if org in (None, t.org) and repo in (None, t.repo)]
        return sorted(wanted, key=lambda token: (token.created_at, token.id))

    def revoke(self, token_id: str) -> None:
        """Make a token worthless for every process at once; on disk when this returns.

        :raises TokenNotFound: if there is none of that id.
        """
        with self._lock():
            if not _TOKEN_ID.fullmatch(token_id) or status_of(self._tree.token_file(token_id)) is None:
                raise TokenNotFound(token_id)
            remove_file(self._tree.token_file(token_id))  # commit
        with suppress(OSError):  # the token is worthless all the same
            self._tree.token_use_file(token_id).unlink(missing_ok=True)

    def describe(self, token_id: str, description: str) -> Token:
        """Give a token another description; on disk when this returns.

        :raises TokenNotFound: if there is none of that id.
        """
        with self._lock():  # or else what is revoked meanwhile would be good again
            token = replace(self.get(token_id), description=description)
            self._write(token)
        return token

    def follow_repository(self, org: str, old: str, new: str) -> None:
        """Let the tokens for a repository that was called *old* be good for it as *new*."""
        with self._lock():
            for token in self.list(org, old):
                self._write(replace(token, repo=new))

    def _write(self, token: Token) -> None:
        replace_file(self._tree.token_file(token.id), encode_json(token.to_json()), mode=0o600)

    def _lock(self) -> AbstractContextManager[None]:
        return lock(self._tree.tokens_lock_file, "the list of tokens")

    # --- last use ---

    def note_use(self, token: Token, address: str, client: str) -> None:
        """Remember that *token* was used now; written at most once a minute, and not worth a failing request."""
        if time.monotonic() - self._noted.get(token.id, -_USE_INTERVAL) < _USE_INTERVAL:
            return
        if len(self._noted) >= 10_000:
            self._noted.clear()
        self._noted[token.id] = time.monotonic()
        document = {"when": format_time(now()), "address": address, "client": client[:200]}
        path = self._tree.token_use_file(token.id)
        try:
            put_file(path, encode_json(document), late=True)  # the server's event loop must not wait for a disk
        except OSError as error:
            log.warning("the last use of token %s could not be noted: %s", token.id, error)

    def last_use(self, token_id: str) -> TokenUse | None:
        """Return when, from where and with what a token was last used; None if never."""
        try:
            document = read_json(self._tree.token_use_file(token_id))
            return TokenUse(parse_time(document["when"]), str(document["address"]), str(document["client"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None
