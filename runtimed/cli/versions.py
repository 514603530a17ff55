"""runtimectl versions: what a function was at moments of its past; publish, list, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common, function_name, qualified_name, qualifier_name, version_of
from runtimed.cli.verb import NamedGroup

if TYPE_CHECKING:
    from runtimed.client.releases import Publication
    from runtimed.model.alias import AliasConfiguration
    from runtimed.model.function import FunctionConfiguration

DIGEST_CHARACTERS = 12
"""Of a SHA-256 in a table: enough to see which are the same."""


@click.group(
    "versions",
    cls=NamedGroup,
    invoke_without_command=True,
    examples=(
        ("runtimectl versions hello", "What there is, and which aliases lead there:"),
        ("runtimectl versions publish hello --description 'new prices'", "Keep what is deployed now as a version:"),
        ("runtimectl invoke hello:3", "Invoke one of them:"),
        ("runtimectl versions delete hello:3", "It is not needed any more:"),
    ),
)
@common
def command(session: Session) -> None:
    """List the versions of the function NAME (the default), publish one, or delete one.

    A version is the function's code and configuration as they were when it was published. It never changes, and its
    number never comes back. NAME:NUMBER stands for it wherever a function is invoked or shown; an alias can lead to it.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        raise click.UsageError("NAME is missing: of which function? `runtimectl functions --versions` shows all.", ctx)
    ctx.obj = session.where


@command.command(
    "list",
    examples=(
        ("runtimectl versions list hello", "The same as `runtimectl versions hello`:"),
        ("runtimectl versions list hello --json", "For a program:"),
    ),
)
@click.argument("name", shell_complete=function_name)
@common
def list_command(session: Session, name: str) -> None:
    """List $LATEST and the published versions of the function NAME."""
    with session.client() as client:
        versions = client.list_versions(name)
        aliases = [] if session.as_json else client.list_aliases(name)
    if session.as_json:
        output.as_json({"Versions": versions})
        return
    _table(versions, aliases)
    if len(versions) == 1:
        output.complain(f"Nothing is published yet. `runtimectl versions publish {name}` makes version 1.")


@command.command(
    "publish",
    examples=(
        ("runtimectl versions publish hello", "Prints the version's name, such as hello:3:"),
        ("runtimectl versions publish hello --revision-id 3f2c", "Only if nobody has changed the function meanwhile:"),
    ),
)
@click.argument("name", shell_complete=function_name)
@click.option("--description", metavar="TEXT", help="Of the version; default: the function's.")
@click.option("--code-sha256", metavar="DIGEST", help="Only if the code has this digest, as `functions get` shows it.")
@click.option("--revision-id", metavar="ID", help="Only if this is the function's revision.")
@common
def publish_command(
    session: Session, name: str, description: str | None, code_sha256: str | None, revision_id: str | None
) -> None:
    """Publish the function NAME as it is, and wait until the version is Active.

    When neither code nor configuration has changed since the last version, that one is the answer.
    """
    wishes = {"description": description, "code_sha256": code_sha256, "revision_id": revision_id}
    given: Publication = {key: text for key, text in wishes.items() if text is not None}  # type: ignore[assignment]
    with session.client() as client:
        made = client.publish_version(name, **given)
        made = client.wait_until_active(made.function_name, qualifier=made.version)
    if session.as_json:
        output.as_json(made)
    else:
        click.echo(f"{made.function_name}:{made.version} is {made.state.value}")


@command.command("delete", examples=(("runtimectl versions delete hello:3", "No alias may lead to it:"),))
@click.argument("name", shell_complete=qualified_name)
@click.argument("version", required=False, shell_complete=qualifier_name)
@common
def delete_command(session: Session, name: str, version: str | None) -> None:
    """Delete the version NAME:VERSION. Invocations that are under way finish."""
    name, version = version_of(name, version)
    with session.client() as client:
        client.delete_version(name, version)
    if session.as_json:
        output.as_json({"Deleted": f"{name}:{version}"})
    else:
        click.echo(f"{name}:{version} is deleted")


def _table(versions: list[FunctionConfiguration], aliases: list[AliasConfiguration]) -> None:
    leading: dict[str, list[str]] = {}
    for alias in aliases:
        weights = {} if not alias.routing_config else alias.routing_config.additional_version_weights
        for number in (alias.function_version, *weights):
            leading.setdefault(number, []).append(alias.name)
    output.table(
        ("VERSION", "STATE", "ALIASES", "RUNTIME", "MEMORY", "CODE", "SHA-256", "MODIFIED", "DESCRIPTION"),
        [
            (
                one.version,
                one.state.value,
                ", ".join(leading.get(one.version, ())) or "-",
                one.runtime,
                f"{one.memory_size} MB",
                output.size(one.code_size),
                one.code_sha256[:DIGEST_CHARACTERS],
                output.when(one.last_modified),
                one.description,
            )
            for one in versions
        ],
        right=("MEMORY", "CODE"),
        shrink=("ALIASES", "DESCRIPTION"),
    )
