"""Routes that cost nothing until they are used: what would take a third of the time of a start."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

from werkzeug.routing import Rule

Builder = Callable[..., tuple[str, str]]


class Route(Rule):
    """A route whose function for building URLs is made when the first URL is built.

    werkzeug compiles two for each route, from a syntax tree: about 0.5 ms, and the app has a hundred.
    """

    def _compile_builder(self, append_unknown: bool = True) -> Builder:
        # Should werkzeug call this otherwise one day, routes are as slow as ever, and no less right.
        make = super()._compile_builder
        made: list[Builder] = []

        def build(route: Rule, **values: Any) -> tuple[str, str]:  # noqa: ANN401 - as werkzeug has it
            if not made:
                made.append(make(append_unknown))  # twice, if two threads come at once: both are the same
            return made[0](route, **values)

        return build


class Later:
    """Stands for a module, which is imported when the first of its names is asked for.

    For what only pages for people need: a server of programs alone never loads it. Names are looked up anew each
    time, so this is a stand-in for ``module.name`` in functions, not for what runs at import.
    """

    def __init__(self, name: str) -> None:
        """Stand for the module *name*."""
        self._name = name

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the module has
        return getattr(import_module(self._name), name)
