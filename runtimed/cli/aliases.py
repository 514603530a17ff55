"""runtimectl aliases: names for versions of a function, and where they lead; create, get, list, update, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runtimed.cli import output
from runtimed.cli.options import Session, alias_of, common, function_name, qualified_name, qualifier_name
from runtimed.cli.verb import NamedGroup

if TYPE_CHECKING:
    from runtimed.client.releases import Move
    from runtimed.model.alias import AliasConfiguration


def _weights(_ctx: click.Context, _parameter: click.Parameter, text: str | None) -> dict[str, float] | None:
    """Of 4=0.1."""
    if text is None:
        return None
    version, _, share = text.partition("=")
    try:
        weight = float(share)
    except ValueError:
        weight = -1.0
    if not (version.isascii() and version.isdigit()) or not 0.0 <= weight <= 1.0:
        raise click.BadParameter(
            f"{text!r} is not of the form VERSION=SHARE, with a version's number and a share from 0.0 to 1.0: 4=0.1."
        )
    return {version: weight}


_name = click.argument("name", shell_complete=qualified_name)
_alias = click.argument("alias", required=False, shell_complete=qualifier_name)
_also = click.option(
    "--also", metavar="VERSION=SHARE", callback=_weights, help="Another version, and its share: 4=0.1 is a tenth."
)


@click.group(
    "aliases",
    cls=NamedGroup,
    invoke_without_command=True,
    examples=(
        ("runtimectl aliases hello", "Which there are, and where they lead:"),
        ("runtimectl aliases create hello prod --version 3", "A name for version 3:"),
        ("runtimectl aliases update hello prod --also 4=0.1", "Try version 4 with a tenth of the invocations:"),
        ("runtimectl aliases update hello prod --version 4 --no-also", "All of them, from now on:"),
        ("runtimectl aliases update hello prod --version 3 --no-also", "And back:"),
        ("runtimectl invoke hello:prod", "Invoke where it leads:"),
    ),
)
@common
def command(session: Session) -> None:
    """List the aliases of the function NAME (the default), create one, move it, or delete it.

    An alias is a name for a version. NAME:ALIAS stands for it wherever a function is invoked; moving the alias changes
    for all callers at once what they invoke, and loses no invocation.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        raise click.UsageError("NAME is missing: of which function? `runtimectl functions` lists them.", ctx)
    ctx.obj = session.where


@command.command(
    "list",
    examples=(
        ("runtimectl aliases list hello", "The same as `runtimectl aliases hello`:"),
        ("runtimectl aliases list hello --version 3", "Those that lead to version 3:"),
    ),
)
@click.argument("name", shell_complete=function_name)
@click.option(
    "--version", metavar="VERSION", default="", shell_complete=qualifier_name, help="Only those that lead to it."
)
@common
def list_command(session: Session, name: str, version: str) -> None:
    """List the aliases of the function NAME."""
    with session.client() as client:
        aliases = client.list_aliases(name, version)
    if session.as_json:
        output.as_json({"Aliases": aliases})
    elif aliases:
        output.table(
            ("ALIAS", "VERSION", "DESCRIPTION"),
            [(alias.name, _lead(alias), alias.description) for alias in aliases],
            shrink=("ALIAS", "DESCRIPTION"),
        )
    else:
        leads = f" leads to version {version} of" if version else " of"
        output.complain(
            f"No alias{leads} {name} yet. `runtimectl aliases create {name} ALIAS --version {version or 'VERSION'}` "
            "makes one."
        )


@command.command(
    "get",
    examples=(
        ("runtimectl aliases get hello prod", "Where it leads:"),
        ("runtimectl aliases get hello:prod --json", "As the API says it:"),
    ),
)
@_name
@_alias
@common
def get_command(session: Session, name: str, alias: str | None) -> None:
    """Show the alias ALIAS of the function NAME."""
    name, alias = alias_of(name, alias)
    with session.client() as client:
        found = client.get_alias(name, alias)
    if session.as_json:
        output.as_json(found)
    else:
        output.fields(
            [
                ("Alias", found.name),
                ("ARN", found.alias_arn),
                ("Version", _lead(found)),
                ("Description", found.description),
                ("Revision", found.revision_id),
            ]
        )


@command.command(
    "create",
    examples=(
        ("runtimectl aliases create hello prod --version 3", "All invocations go to version 3:"),
        ("runtimectl aliases create hello prod --version 3 --also 4=0.1", "And one in ten to version 4:"),
    ),
)
@_name
@_alias
@click.option(
    "--version",
    metavar="VERSION",
    required=True,
    shell_complete=qualifier_name,
    help="Where it leads: a number, or $LATEST.",
)
@_also
@click.option("--description", metavar="TEXT", default="", help="What it is for, in up to 256 characters.")
@common
def create_command(
    session: Session, name: str, alias: str | None, version: str, also: dict[str, float] | None, description: str
) -> None:
    """Make the alias ALIAS of the function NAME."""
    name, alias = alias_of(name, alias)
    with session.client() as client:
        made = client.create_alias(name, alias, version, weights=also or {}, description=description)
    _show(session, name, made)


@command.command(
    "update",
    examples=(
        ("runtimectl aliases update hello prod --version 4", "Move it:"),
        ("runtimectl aliases update hello prod --also 4=0.5", "Half of the invocations to version 4:"),
        ("runtimectl aliases update hello prod --no-also", "None any more:"),
    ),
)
@_name
@_alias
@click.option(
    "--version", metavar="VERSION", shell_complete=qualifier_name, help="Where it shall lead: a number, or $LATEST."
)
@_also
@click.option("--no-also", is_flag=True, help="To one version only.")
@click.option("--description", metavar="TEXT", help="What it is for.")
@click.option("--revision-id", metavar="ID", help="Only if this is its revision, as `aliases get` shows it.")
@common
def update_command(
    session: Session,
    name: str,
    alias: str | None,
    version: str | None,
    also: dict[str, float] | None,
    no_also: bool,
    description: str | None,
    revision_id: str | None,
) -> None:
    """Move the alias ALIAS of the function NAME. What is not given stays.

    Invocations that are under way finish where they began; whatever comes after goes where the alias leads now.
    """
    name, alias = alias_of(name, alias)
    if also is not None and no_also:
        raise click.UsageError("--also and --no-also exclude each other.")
    move: Move = {}
    if version is not None:
        move["version"] = version
    if also is not None or no_also:
        move["weights"] = also or {}
    if description is not None:
        move["description"] = description
    if not move:
        raise click.UsageError("nothing to change: give --version, --also, --no-also or --description.")
    if revision_id is not None:
        move["revision_id"] = revision_id
    with session.client() as client:
        moved = client.update_alias(name, alias, **move)
    _show(session, name, moved)


@command.command("delete", examples=(("runtimectl aliases delete hello prod", "The version stays:"),))
@_name
@_alias
@common
def delete_command(session: Session, name: str, alias: str | None) -> None:
    """Delete the alias ALIAS of the function NAME, and what is provisioned or configured for it."""
    name, alias = alias_of(name, alias)
    with session.client() as client:
        client.delete_alias(name, alias)
    if session.as_json:
        output.as_json({"Deleted": f"{name}:{alias}"})
    else:
        click.echo(f"{name}:{alias} is deleted")


def _show(session: Session, name: str, alias: AliasConfiguration) -> None:
    if session.as_json:
        output.as_json(alias)
    else:
        click.echo(f"{name}:{alias.name} leads to version {_lead(alias)}")


def _lead(alias: AliasConfiguration) -> str:
    """3, or 3 (90 %), 4 (10 %)."""
    weights = {} if not alias.routing_config else alias.routing_config.additional_version_weights
    others = [f"{version} ({share * 100:g} %)" for version, share in weights.items()]
    rest = f" ({(1 - sum(weights.values())) * 100:.6g} %)" if others else ""
    return ", ".join([f"{alias.function_version}{rest}", *others])
