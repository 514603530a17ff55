"""From a request's method and path to an operation. Pure.

The table of operations says the routes of those that are offered, `api.absent` of those that are not.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Generic, TypeVar

from msgspec import Struct

from runtimed.api.operation import Bound, Route
from runtimed.gateway.rest.protocol import decoded
from runtimed.model import errors

T = TypeVar("T")
Query = Collection[tuple[str, str]]

_MEMBER = re.compile(r"\{(\w+)(\+?)\}")


class Match(Struct, Generic[T], frozen=True):
    """Where a path leads, and the members that it holds."""

    found: T
    members: dict[str, str]


class Routes(Generic[T]):
    """Patterns of paths by method; the most literal one that fits counts."""

    def __init__(self, routes: Iterable[tuple[Route, T]]) -> None:
        """ValueError when two say the same."""
        self._by_method: dict[str, list[tuple[re.Pattern[str], tuple[str, str] | None, T]]] = {}
        seen = set()
        for route, found in sorted(routes, key=_literal):
            pattern = _pattern(route.path)
            if (route.method, pattern.pattern, route.query) in seen:
                raise ValueError(f"two operations have the route {route.method} {route.path}")
            seen.add((route.method, pattern.pattern, route.query))
            self._by_method.setdefault(route.method, []).append((pattern, route.query, found))

    def find(self, method: str, path: str, query: Query = ()) -> Match[T] | None:
        for pattern, asked, found in self._by_method.get(method, ()):
            match = pattern.fullmatch(path) if asked is None or asked in query else None
            if match:
                return Match(found, {name: decoded(value) for name, value in match.groupdict().items()})
        return None

    def methods(self, path: str) -> list[str]:
        """Those that the path knows."""
        return sorted(method for method in self._by_method if self.find(method, path))


class Router:
    """All of Lambda's paths."""

    def __init__(self, api: Mapping[str, Bound], absent: Mapping[str, Route]) -> None:
        self._offered = Routes((bound.operation.route, bound) for bound in api.values() if bound.operation.route)
        self._absent = Routes((route, name) for name, route in absent.items())

    def find(self, method: str, path: str, query: Query = ()) -> Match[Bound]:
        """Raises NotOffered, UnknownOperation."""
        path = path.rstrip("/") if len(path) > 1 else path
        offered = self._offered.find(method, path, query)
        if offered:
            return offered
        absent = self._absent.find(method, path)
        if absent:
            raise errors.NotOffered(f"{absent.found}: this node does not have this operation.")
        methods = sorted({*self._offered.methods(path), *self._absent.methods(path)})
        if methods:
            raise errors.UnknownOperation(f"No operation: {method} {path}. This path takes {', '.join(methods)}.")
        raise errors.UnknownOperation(
            f"No operation: {method} {path}. Lambda's API is here, such as GET /2015-03-31/functions."
        )


def _literal(pair: tuple[Route, Any]) -> tuple[int, int, bool]:
    """In which order routes are looked at."""
    route = pair[0]
    return route.path.count("{"), -len(route.path), route.query is None


def _pattern(path: str) -> re.Pattern[str]:
    """`{Name}` is one part of the path, `{Name+}` any number of them."""
    text, at = "", 0
    for member in _MEMBER.finditer(path):
        text += re.escape(path[at : member.start()]) + f"(?P<{member[1]}>{'.+' if member[2] else '[^/]+'})"
        at = member.end()
    return re.compile(text + re.escape(path[at:].rstrip("/")))
