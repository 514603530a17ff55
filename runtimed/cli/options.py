"""The options that every verb has, and the client that they lead to."""

from __future__ import annotations

import functools
import os
from typing import TYPE_CHECKING, Any

import click

from runtimed.cli import failures

if TYPE_CHECKING:
    from collections.abc import Callable

    from runtimed.client import Client


NAMES = 300
"""Function names read for completion, or for finding what was meant."""


class Session:
    """One run of the command: where the daemon is, and how to print."""

    def __init__(self, address: str | None, key_file: str | None, as_json: bool) -> None:
        self._address, self._key_file = address, key_file
        self.as_json = as_json

    @property
    def where(self) -> tuple[str | None, str | None]:
        """What a verb below this one finds in its context."""
        return self._address, self._key_file

    def client(self, timeout: float = 60.0) -> Client:
        """A client for the daemon; gRPC is loaded here."""
        from runtimed.client import Client

        return Client(self._address, key_file=self._key_file, timeout=timeout)

    def names(self, prefix: str = "") -> list[str]:
        """Of functions, some hundred at most: for completion and for finding what was meant."""
        with self.client(failures.NAMES_SECONDS) as client:
            return [function.function_name for function in client.list_functions(prefix, limit=NAMES)]

    def qualifiers(self, name: str, *, versions: bool = True, aliases: bool = True) -> list[str]:
        """Of a function, for completion: aliases, then published versions, the newest first."""
        with self.client(failures.NAMES_SECONDS) as client:
            found = [alias.name for alias in client.list_aliases(name, limit=NAMES)] if aliases else []
            numbers = [version.version for version in client.list_versions(name, limit=NAMES)[1:]] if versions else []
            return found + numbers[::-1]


def common(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds --address, --key-file, --json and --color; the verb gets a `Session` first."""

    @click.option("--address", metavar="ADDRESS", help="unix:/path or host:port.")
    @click.option("--key-file", metavar="FILE", help="The key that TCP needs.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON; errors too.")
    @click.option("--color", type=click.Choice(["auto", "always", "never"]), help="Colours; auto: on terminals.")
    @click.pass_context
    @functools.wraps(function)
    def verb(
        ctx: click.Context,
        /,
        address: str | None,
        key_file: str | None,
        as_json: bool,
        color: str | None,
        *args: Any,
        **kwargs: Any,
    ) -> Any:
        above = ctx.obj if isinstance(ctx.obj, tuple) else (None, None)
        asked = [color, *(parent.params.get("color") for parent in _parents(ctx))]
        ctx.color = colours(next((choice for choice in asked if choice), "auto"))
        above_json = any(parent.params.get("as_json") for parent in _parents(ctx))
        session = Session(address or above[0], key_file or above[1], as_json or above_json)
        try:
            return function(session, *args, **kwargs)
        except Exception as error:
            failures.with_guess(error, kwargs.get("name"), session.names)
            raise

    return verb


def colours(asked: str) -> bool | None:
    """What click.echo does with colours: None leaves it to whether the stream is a terminal."""
    if asked != "auto":
        return asked == "always"
    return False if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" else None


def _parents(ctx: click.Context) -> list[click.Context]:
    found = []
    parent = ctx.parent
    while parent is not None:
        found.append(parent)
        parent = parent.parent
    return found


def completing(ctx: click.Context) -> Session:
    """The session of a command line that is not complete yet."""
    above = ctx.find_root().params
    address = ctx.params.get("address") or above.get("address")
    key_file = ctx.params.get("key_file") or above.get("key_file")
    return Session(address, key_file, False)


def function_name(ctx: click.Context, parameter: click.Parameter | None, incomplete: str) -> list[str]:
    """Completes a function's name by asking the daemon; nothing when it does not answer."""
    try:
        return completing(ctx).names(incomplete)
    except Exception:
        return []


def qualified_name(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completes a function's name, and behind a colon its versions and aliases."""
    name, colon, begun = incomplete.rpartition(":")
    if not colon:
        return function_name(ctx, parameter, incomplete)
    try:
        return [f"{name}:{one}" for one in completing(ctx).qualifiers(name) if one.startswith(begun)]
    except Exception:
        return []


def qualifier_name(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completes a version or an alias of the function that is named before it, as the parameter is called."""
    # Of a line that ends with an option without its value click has not told arguments and options apart.
    name = ctx.params.get("name") or next(iter(ctx.args), "")
    only = parameter.name
    try:
        found = completing(ctx).qualifiers(split(name)[0], versions=only != "alias", aliases=only != "version")
        return [one for one in found if one.startswith(incomplete)]
    except Exception:
        return []


qualifier_option = click.option(
    "--qualifier",
    metavar="QUALIFIER",
    shell_complete=qualifier_name,
    help="Which version or alias: a number or a name; NAME:QUALIFIER says the same. Default: $LATEST.",
)


def qualified(name: str, qualifier: str | None) -> tuple[str, str]:
    """The function's name or ARN and the qualifier, said with an option or behind the name; without one $LATEST's."""
    name, behind = split(name)
    if qualifier and behind and qualifier != behind:
        raise click.UsageError(f"--qualifier {qualifier} contradicts {behind} in NAME. Give one of them.")
    return name, qualifier or behind or "$LATEST"


def version_of(name: str, version: str | None) -> tuple[str, str]:
    """Of NAME:3, or NAME and 3."""
    return _both(name, version, "VERSION", "3")


def alias_of(name: str, alias: str | None) -> tuple[str, str]:
    """Of NAME:ALIAS, or NAME and ALIAS."""
    return _both(name, alias, "ALIAS", "prod")


def _both(name: str, given: str | None, what: str, such: str) -> tuple[str, str]:
    name, behind = split(name)
    if given and behind and given != behind:
        raise click.UsageError(f"{what} {given} contradicts {behind} in NAME. Give one of them.")
    if not given and not behind:
        raise click.UsageError(f"{what} is missing: {name} {such}, or {name}:{such}.")
    return name, given or behind


def split(name: str) -> tuple[str, str]:
    """The function's name or ARN, and what qualifies it; empty: nothing."""
    from runtimed.model import arn

    return arn.divide(name)
