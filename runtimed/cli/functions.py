"""runtimectl functions: list, get, delete."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common, function_name, qualified_name, qualifier_option
from runtimed.cli.verb import VerbGroup

if TYPE_CHECKING:
    from runtimed.model.function import FunctionConfiguration
    from runtimed.model.node import EnvironmentCounts


@click.group(
    "functions",
    cls=VerbGroup,
    invoke_without_command=True,
    examples=(
        ("runtimectl functions", "All functions:"),
        ("runtimectl functions get hello", "One of them:"),
        ("runtimectl functions delete hello", "Not any more:"),
    ),
)
@click.option("--versions", is_flag=True, help="Published versions, too.")
@common
def command(session: Session, versions: bool) -> None:
    """List the functions of the node (the default), show one, or delete one."""
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        _list(session, versions)
    else:
        ctx.obj = session.where


@command.command(
    "list",
    examples=(
        ("runtimectl functions list", "A table:"),
        ("runtimectl functions list --json", "For a program:"),
        ("runtimectl functions list --versions", "With all published versions:"),
    ),
)
@click.option("--versions", is_flag=True, help="Published versions, too.")
@common
def list_command(session: Session, versions: bool) -> None:
    """List all functions."""
    _list(session, versions)


@command.command(
    "get",
    examples=(
        ("runtimectl functions get hello", "Configuration and state:"),
        ("runtimectl functions get hello --json", "As the API says it:"),
        ("runtimectl functions get hello:prod", "Of a version, or of what an alias leads to:"),
    ),
)
@click.argument("name", shell_complete=qualified_name)
@qualifier_option
@common
def get_command(session: Session, name: str, qualifier: str | None) -> None:
    """Show the configuration and the state of the function NAME."""
    with session.client() as client:
        function = client.get_function(name, qualifier or "")
        there = None
        if not session.as_json and function.version == "$LATEST":
            rows = client.statistics(function.function_name, limit=1).functions
            there = next((row.environments for row in rows if row.function_name == function.function_name), None)
    if session.as_json:
        output.as_json(function)
    else:
        output.fields(_described(function, there))


@command.command("delete", examples=(("runtimectl functions delete hello", "Versions, aliases and logs go too:"),))
@click.argument("name", shell_complete=function_name)
@common
def delete_command(session: Session, name: str) -> None:
    """Delete the function NAME with its versions, its aliases, its code and its logs."""
    with session.client() as client:
        client.delete_function(name)
    if session.as_json:
        output.as_json({"Deleted": name})
    else:
        click.echo(f"{name} is deleted")


def _list(session: Session, versions: bool) -> None:
    with session.client() as client:
        functions = client.list_functions(versions=versions)
    if session.as_json:
        output.as_json({"Functions": functions})
    elif functions:
        output.table(
            ("NAME", "STATE", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CODE", "MODIFIED"),
            [
                (
                    _named(function) if versions else function.function_name,
                    function.state.value,
                    function.runtime,
                    function.handler,
                    f"{function.memory_size} MB",
                    f"{function.timeout} s",
                    output.size(function.code_size),
                    output.when(function.last_modified),
                )
                for function in functions
            ],
            right=("MEMORY", "TIMEOUT", "CODE"),
            shrink=("NAME", "HANDLER"),
        )
    else:
        click.echo("There are no functions yet. `runtimectl deploy NAME PATH` makes one.", err=True)


def _named(function: FunctionConfiguration) -> str:
    """hello, or hello:3."""
    name, version = function.function_name, function.version
    return name if version == "$LATEST" else f"{name}:{version}"


def _described(function: FunctionConfiguration, there: EnvironmentCounts | None) -> list[tuple[str, str]]:
    """`there`: environments of all versions together."""
    logging = function.logging_config
    pairs = [
        ("Name", function.function_name),
        ("ARN", function.function_arn),
        ("State", _with_reason(function.state.value, function.state_reason)),
        ("Last update", _with_reason(function.last_update_status.value, function.last_update_status_reason)),
        ("Runtime", function.runtime),
        ("Handler", function.handler),
        ("Description", function.description),
        ("Timeout", f"{function.timeout} s"),
        ("Memory", f"{function.memory_size} MB"),
        ("/tmp", f"{function.ephemeral_storage.size} MB"),
        ("Log format", logging.log_format.value),
        ("SnapStart", _snap_start(function)),
        ("Code", f"{output.size(function.code_size)}, SHA-256 {function.code_sha256}"),
        ("Version", function.version),
        ("Revision", function.revision_id),
        ("Modified", output.when(function.last_modified)),
    ]
    if there is not None:
        pairs.append(("Now", f"environments: {output.environments(there)}"))
    variables = sorted(function.environment.variables.items())
    return pairs + [("Environment" if not index else "", f"{k}={v}") for index, (k, v) in enumerate(variables)]


def _snap_start(function: FunctionConfiguration) -> str:
    """The reason why it is not possible stands beside the state."""
    choice = function.snapshot.value
    if choice == "node":
        return "as the node says (pools.snapshot)"
    if choice == "off":
        return "off: never"
    wanted = "yes" if choice == "on" else "auto"
    if function.snap_start.optimization_status.value == "On":
        return f"{wanted} (there is a snapshot)"
    if function.state_reason_code == "SnapStartNotPossible":
        return f"{wanted}, but not possible"
    return f"{wanted} (no snapshot yet)"


def _with_reason(state: str, reason: object) -> str:
    return f"{state} ({reason})" if isinstance(reason, str) and reason else state
