"""The options that every verb has, and the client that they lead to."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtimed.client import Client


class Session:
    """One run of the command: where the daemon is, and how to print."""

    def __init__(self, address: str | None, key_file: str | None, as_json: bool) -> None:
        self._address, self._key_file = address, key_file
        self.as_json = as_json

    @property
    def where(self) -> tuple[str | None, str | None]:
        """What a verb below this one finds in its context."""
        return self._address, self._key_file

    def client(self) -> Client:
        """A client for the daemon; gRPC is loaded here."""
        from runtimed.client import Client

        return Client(self._address, key_file=self._key_file)


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --address, --key-file and --json; the verb gets a `Session` first."""

    @click.option("--address", metavar="ADDRESS", help="unix:/path or host:port.")
    @click.option("--key-file", metavar="FILE", help="The key that TCP needs.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @click.pass_context
    @functools.wraps(function)
    def verb(
        ctx: click.Context, /, address: str | None, key_file: str | None, as_json: bool, *args: Any, **kwargs: Any
    ) -> Any:
        above = ctx.obj if isinstance(ctx.obj, tuple) else (None, None)
        above_json = any(parent.params.get("as_json") for parent in _parents(ctx))
        session = Session(address or above[0], key_file or above[1], as_json or above_json)
        return function(session, *args, **kwargs)

    return verb


def _parents(ctx: click.Context) -> list[click.Context]:
    found = []
    parent = ctx.parent
    while parent is not None:
        found.append(parent)
        parent = parent.parent
    return found


def function_name(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completes a function's name by asking the daemon; nothing when it does not answer."""
    above = ctx.find_root().params
    try:
        with Session(
            ctx.params.get("address") or above.get("address"),
            ctx.params.get("key_file") or above.get("key_file"),
            False,
        ).client() as client:
            names = [function.function_name for function in client.list_functions()]
    except Exception:
        return []
    return [name for name in names if name.startswith(incomplete)]
