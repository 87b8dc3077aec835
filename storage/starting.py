"""The first start on an empty storage (contract.md section 7): something to publish to, and somebody to do it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from storage.errors import AlreadyExists, UserNotFound
from storage.files import directory_entries, is_regular, remove_file, replace_file
from storage.layout import StorageTree
from storage.locks import lock
from storage.registry import Registry
from storage.repository import Repository, RepositorySettings
from storage.sidecars import Actor
from storage.tokens import Scope
from storage.users import Role

ORGANIZATION, ORGANIZATION_NAME = "my-organization", "My organization"
REPOSITORY, REPOSITORY_NAME = "my-python-packages", "My Python packages"
USER = "admin"


@dataclass(frozen=True, slots=True)
class Start:
    """What the first start made; the secrets are known only here and now."""

    repository: Repository
    user: str
    password: str
    publishing_token: str
    read_token: str


def start(registry: Registry, hash_password: Callable[[str], str]) -> Start | None:
    """Make the first organization, repository, user and tokens; None if this is not the first start.

    A start that was killed in between is done over: its password and tokens, which nobody has seen, are replaced.
    """
    # Looked at in this order, and with the lock again: a first start begins with this file, and ends without it.
    if _holds_anything(registry.tree) and not is_regular(registry.tree.starting_file):
        return None
    with lock(registry.tree.starting_lock_file, "the first start", registry.lock_timeout):
        if not is_regular(registry.tree.starting_file):
            if _holds_anything(registry.tree):
                return None
            replace_file(registry.tree.starting_file, b"")
        repository = _make_repository(registry)
        password = _make_user(registry, hash_password)
        publishing, reading = _make_tokens(registry)
        remove_file(registry.tree.starting_file)  # commit
    return Start(repository, USER, password, publishing, reading)


def _holds_anything(tree: StorageTree) -> bool:
    """Whether somebody has made anything here, be it damaged by now."""
    ours = (tree.registry_file.name, tree.users.name, tree.tokens.name, "lost+found")
    return any(e.name not in ours for e in directory_entries(tree.root)) or any(
        directory_entries(folder) for folder in (tree.users, tree.tokens)
    )


def _make_repository(registry: Registry) -> Repository:
    with suppress(AlreadyExists):
        registry.create_organization(ORGANIZATION, ORGANIZATION_NAME)
    settings = RepositorySettings(name=REPOSITORY_NAME, private=True)
    with suppress(AlreadyExists):
        registry.create_repository(ORGANIZATION, REPOSITORY, settings)
    return registry.repository(ORGANIZATION, REPOSITORY)


def _make_user(registry: Registry, hash_password: Callable[[str], str]) -> str:
    password = secrets.token_urlsafe(12)
    with suppress(UserNotFound):
        registry.users.delete(USER)
    registry.users.create(USER, hash_password(password), {ORGANIZATION: Role.ADMIN})
    return password


def _make_tokens(registry: Registry) -> tuple[str, str]:
    scopes = {
        "publish (made at the first start)": frozenset({Scope.READ_PACKAGES, Scope.WRITE_PACKAGES}),
        "install (made at the first start)": frozenset({Scope.READ_PACKAGES}),
    }
    for token in registry.tokens.list(ORGANIZATION, REPOSITORY):
        if token.description in scopes:  # others were made at the command line meanwhile
            registry.tokens.revoke(token.id)
    publishing, reading = (
        registry.tokens.create(ORGANIZATION, REPOSITORY, held, Actor("command line"), description=description)[1]
        for description, held in scopes.items()
    )
    return publishing, reading
