"""People: a user name, the hash of a password, and a role in each of their organizations.

Hashing passwords is the caller's business (werkzeug.security); here the hash is an opaque text.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from functools import lru_cache
from pathlib import Path
from typing import Any

from storage.damage import report_damage
from storage.errors import AlreadyExists, InvalidName, InvalidValue, StorageDamaged, UserNotFound
from storage.files import (
    Signature,
    directory_entries,
    encode_json,
    is_directory,
    make_directory,
    read_json,
    read_once,
    remove_file,
    replace_file,
    status_of,
)
from storage.layout import StorageTree
from storage.locks import LOCK_TIMEOUT, lock
from storage.names import check_user_name
from storage.sidecars import Actor, format_time, now, parse_time
from storage.tokens import Scope


class Role(StrEnum):
    """What a person may do in an organization."""

    READER = "reader"
    WRITER = "writer"
    ADMIN = "admin"

    @property
    def scopes(self) -> frozenset[Scope]:
        """The scopes that the role amounts to (specs.md 6.6)."""
        return _ROLE_SCOPES[self]


_READS = frozenset({Scope.READ_PACKAGES, Scope.READ_REGISTRIES})
_ROLE_SCOPES = {
    Role.READER: _READS,
    Role.WRITER: _READS | {Scope.WRITE_PACKAGES},
    Role.ADMIN: frozenset(Scope),
}


def parse_roles(pairs: Mapping[str, str]) -> dict[str, Role]:
    """Return the roles in *pairs* of organization and role.

    :raises InvalidValue: if a role is unknown.
    """
    try:
        return {org: Role(role) for org, role in pairs.items()}
    except ValueError as error:
        raise InvalidValue("role", f"must be one of {', '.join(Role)}") from error


@dataclass(frozen=True, slots=True)
class User:
    """A person as stored."""

    name: str
    password_hash: str
    roles: dict[str, Role] = field(default_factory=dict)  # organization -> role
    created_at: datetime = field(default_factory=now)  # aware UTC

    @property
    def actor(self) -> Actor:
        """The person as somebody who does things."""
        return Actor("user", self.name)

    def scopes(self, org: str) -> frozenset[Scope]:
        """What the person may do in an organization."""
        role = self.roles.get(org)
        return role.scopes if role else frozenset()

    def to_json(self) -> dict[str, Any]:
        """Return the document that stands in the user's file."""
        return {
            "format": 1,
            "name": self.name,
            "password_hash": self.password_hash,
            "roles": dict(self.roles),
            "created_at": format_time(self.created_at),
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> User:
        """Read what :meth:`to_json` wrote.

        :raises ValueError: if it was not written so.
        """
        try:
            roles = {str(org): Role(role) for org, role in document["roles"].items()}
            created_at = parse_time(document["created_at"])
            return cls(str(document["name"]), str(document["password_hash"]), roles, created_at)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"not a user: {error}") from error


KEPT_USERS = 1_000  # about 1 kB each


@lru_cache(maxsize=KEPT_USERS)
def _read_user(path: str, signature: Signature) -> User:
    """Read a user's file: see :func:`read_once`.

    :raises FileNotFoundError: if it is not there.
    :raises ValueError: if it does not parse.
    """
    return User.from_json(read_json(Path(path)))


class UserStore:
    """The people of a storage."""

    def __init__(self, tree: StorageTree, lock_timeout: float = LOCK_TIMEOUT) -> None:
        """Speak for the people in *tree*."""
        self._tree = tree
        self._lock_timeout = lock_timeout  # seconds

    def create(self, name: str, password_hash: str, roles: dict[str, Role]) -> User:
        """Make a user; on disk when this returns.

        :raises InvalidName: if nobody can be called so.
        :raises AlreadyExists: if somebody is.
        """
        user = User(check_user_name(name), password_hash, roles)
        make_directory(self._tree.users)
        with self._lock():
            if status_of(self._tree.user_file(name)) is not None:
                raise AlreadyExists("user", name)
            self._write(user)
        return user

    def get(self, name: str) -> User:
        """Return the user called *name*.

        :raises UserNotFound: if there is none.
        :raises StorageDamaged: if the user's file does not parse.
        """
        try:
            path = self._tree.user_file(check_user_name(name))
            if not is_directory(path.parent):  # a link could lead out of the storage
                raise UserNotFound(name)
            user = read_once(_read_user, path)
        except (FileNotFoundError, InvalidName) as error:
            raise UserNotFound(name) from error
        except ValueError as error:
            remedy = "restore it from a backup, or delete it and create the user anew"
            raise StorageDamaged(str(path), f"is damaged ({error})", remedy) from error
        if user.name != name:
            raise UserNotFound(name)
        return user

    def list(self) -> list[User]:
        """Return everybody, by name; who has a damaged file is left out, and that is logged."""
        users = []
        for entry in sorted(directory_entries(self._tree.users), key=lambda entry: entry.name):
            if entry.name.endswith(".json"):
                try:
                    users.append(self.get(entry.name.removesuffix(".json")))
                except UserNotFound:  # deleted meanwhile, or no user's file
                    continue
                except StorageDamaged as error:
                    report_damage(Path(error.path), error.reason)
        return users

    def change_password(self, name: str, password_hash: str) -> None:
        """Give a user another password.

        :raises UserNotFound: if there is none of that name.
        """
        with self._lock():
            self._write(replace(self.get(name), password_hash=password_hash))

    def change_role(self, name: str, org: str, role: Role | None) -> None:
        """Give a user another role in an organization; None: none any more.

        :raises UserNotFound: if there is none of that name.
        """
        with self._lock():
            user = self.get(name)
            roles = {other: held for other, held in user.roles.items() if other != org}
            self._write(replace(user, roles=roles if role is None else {**roles, org: role}))

    def delete(self, name: str) -> None:
        """Remove a user; gone on disk when this returns.

        :raises UserNotFound: if there is none of that name.
        """
        with self._lock():  # else somebody who is just writing the user would write it anew
            if not _is_user(name) or status_of(self._tree.user_file(name)) is None:
                raise UserNotFound(name)
            remove_file(self._tree.user_file(name))  # commit

    def _lock(self) -> AbstractContextManager[None]:
        return lock(self._tree.users_lock_file, "the list of users", self._lock_timeout)

    def _write(self, user: User) -> None:
        replace_file(self._tree.user_file(user.name), encode_json(user.to_json()), mode=0o600)


def _is_user(name: str) -> bool:
    try:
        return check_user_name(name) == name
    except InvalidName:
        return False
