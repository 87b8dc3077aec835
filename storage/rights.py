"""Who is asking, and what they may do (contract.md section 3)."""

from __future__ import annotations

from dataclasses import dataclass

from storage.errors import Denied
from storage.sidecars import Actor
from storage.tokens import Scope, Token
from storage.users import User


class ScopeMissing(Denied):
    """The caller may see what this is about, but not do this."""

    def __init__(self, scope: Scope, what: str) -> None:
        self.scope, self.what = scope, what

    def __str__(self) -> str:
        return f"this credential may not do that: it lacks the scope {self.scope} on {self.what}"


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever sent a good credential: a token, and perhaps the user whose it is, or a user with a password."""

    token: Token | None
    user: User | None  # of a token: None also where the token belongs to nobody

    @property
    def actor(self) -> Actor:
        """The caller as somebody who does things."""
        if self.token is not None:
            return self.token.actor
        return self.user.actor if self.user is not None else Actor("command line")

    def scopes(self, org: str, repo: str | None) -> frozenset[Scope]:
        """What the caller may do in a repository, or in the organization itself for None.

        A user's token may do what both the token's scopes and the user's role allow.
        """
        if self.token is None:
            return self.user.scopes(org) if self.user is not None else frozenset()
        if self.token.org != org or self.token.repo not in (None, repo):
            return frozenset()
        if self.token.user is None:
            return self.token.scopes
        return self.token.scopes & self.user.scopes(org) if self.user is not None else frozenset()
