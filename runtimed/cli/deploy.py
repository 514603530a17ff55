"""runtimectl deploy: code and settings in, an Active function out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common, function_name
from runtimed.cli.progress import Progress
from runtimed.cli.verb import Verb

if TYPE_CHECKING:
    from runtimed.client import Client
    from runtimed.model.alias import AliasConfiguration
    from runtimed.model.function import FunctionConfiguration, LoggingConfig, SnapshotChoice, SnapStart

LEVELS = ("trace", "debug", "info", "warn", "error", "fatal")
SYSTEM_LEVELS = ("debug", "info", "warn")
SNAPSHOTS = ("auto", "on", "off", "node")


def _variables(_ctx: click.Context, _parameter: click.Parameter, given: tuple[str, ...]) -> dict[str, str] | None:
    variables = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not of the form NAME=VALUE.")
        variables[name] = value
    return variables or None


def _logging(log_format: str | None, level: str | None, system_level: str | None) -> LoggingConfig | None:
    """None: as it is. A level alone means JSON: it has no effect on text."""
    if not (log_format or level or system_level):
        return None
    if (log_format or "").lower() == "text" and (level or system_level):
        raise click.UsageError("--log-level and --system-log-level need --log-format json.")
    from msgspec import UNSET

    from runtimed.model.function import ApplicationLogLevel, LogFormat, LoggingConfig, SystemLogLevel

    return LoggingConfig(
        log_format=LogFormat.TEXT if (log_format or "").lower() == "text" else LogFormat.JSON,
        application_log_level=ApplicationLogLevel(level.upper()) if level else UNSET,
        system_log_level=SystemLogLevel(system_level.upper()) if system_level else UNSET,
    )


def _snap_start(wanted: bool | None) -> SnapStart | None:
    if wanted is None:
        return None
    from runtimed.model.function import SnapStart, SnapStartApplyOn

    return SnapStart(apply_on=SnapStartApplyOn.PUBLISHED_VERSIONS if wanted else SnapStartApplyOn.NONE)


def _snapshot(choice: str | None, snap_start: bool | None) -> SnapshotChoice | None:
    if choice is None:
        return None
    if snap_start and choice != "on":
        raise click.UsageError(f"--snap-start and --snapshot {choice} contradict each other. Give one of them.")
    from runtimed.model.function import SnapshotChoice

    return SnapshotChoice(choice)


@click.command(
    "deploy",
    cls=Verb,
    examples=(
        ("runtimectl deploy hello hello.py", "A file with a function `handler` or `lambda_handler`:"),
        (
            "runtimectl deploy thumbs thumbs/ --memory 512 --timeout 30",
            "A directory, whose requirements.txt is installed:",
        ),
        (
            "runtimectl deploy api code.zip --runtime python3.11 --handler app.handler --env STAGE=test --env DEBUG=",
            "An archive, with environment variables:",
        ),
        ("runtimectl deploy hello hello.py --publish --alias prod", "A new version, and prod leads to it:"),
    ),
)
@click.argument("name", shell_complete=function_name)
@click.argument("path", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--runtime",
    metavar="RUNTIME",
    help="python3.N, nodejsN.x or provided.al2023; default: this Python's version, else the node's newest; for "
    "JavaScript its newest Node.js.",
)
@click.option("--handler", metavar="MODULE.FUNCTION", help="Default: found by looking at the code.")
@click.option("--memory", type=int, metavar="MB", help="128 (the default) to 10240.")
@click.option("--timeout", type=int, metavar="SECONDS", help="1 to 900; default 3.")
@click.option("--ephemeral-storage", type=int, metavar="MB", help="Size of /tmp, 512 (the default) to 10240.")
@click.option("--env", multiple=True, metavar="NAME=VALUE", callback=_variables, help="May be repeated. Replaces all.")
@click.option("--description", metavar="TEXT", help="What it is for, in up to 256 characters.")
@click.option("--log-format", type=click.Choice(["text", "json"], case_sensitive=False), help="Default: text.")
@click.option("--log-level", type=click.Choice(LEVELS, case_sensitive=False), help="Of the function; JSON only.")
@click.option(
    "--system-log-level", type=click.Choice(SYSTEM_LEVELS, case_sensitive=False), help="Of the platform; JSON only."
)
@click.option(
    "--snap-start/--no-snap-start",
    default=None,
    help="Begin environments as copies of one whose init phase is over. Default: no.",
)
@click.option(
    "--snapshot",
    type=click.Choice(SNAPSHOTS, case_sensitive=False),
    help="Whether they may be copies at all: on (as --snap-start), auto (from the third on), off (never), or as the "
    "node says (the default).",
)
@click.option("--publish", is_flag=True, help="Make a version of what is deployed.")
@click.option("--alias", metavar="ALIAS", help="With --publish: make ALIAS lead to the version, once it is Active.")
@common
def command(
    session: Session,
    name: str,
    path: Path,
    runtime: str | None,
    handler: str | None,
    memory: int | None,
    timeout: int | None,
    ephemeral_storage: int | None,
    env: dict[str, str] | None,
    description: str | None,
    log_format: str | None,
    log_level: str | None,
    system_log_level: str | None,
    snap_start: bool | None,
    snapshot: str | None,
    publish: bool,
    alias: str | None,
) -> None:
    """Create the function NAME from PATH, or update it, and wait until it is Active.

    PATH is a .py, .js, .mjs or .cjs file, a directory or a .zip. The packages in a requirements.txt in the directory,
    or beside the .py file, are installed into the package. What is not given keeps its value when the function exists.
    """
    if alias is not None and not publish:
        raise click.UsageError("--alias is for --publish: an alias leads to a published version.")
    settings: dict[str, Any] = {
        "runtime": runtime,
        "handler": handler,
        "memory_size": memory,
        "timeout": timeout,
        "ephemeral_storage": ephemeral_storage,
        "environment": env,
        "description": description,
        "logging_config": _logging(log_format, log_level, system_log_level),
        "snap_start": _snap_start(snap_start),
        "snapshot": _snapshot(snapshot, snap_start),
    }
    given = {key: value for key, value in settings.items() if value is not None}
    with session.client() as client, Progress(name) as progress:
        before = _lead(client, name, alias) if alias else None
        function = client.deploy(name, path, progress=progress, publish=publish, alias=alias or "", **given)
    if session.as_json:
        output.as_json(function)
        return
    click.echo(_summary(function, publish))
    if alias:
        click.echo(_moved(f"{name} {alias}", before, function.version))


def _lead(client: Client, name: str, alias: str) -> AliasConfiguration | None:
    """Where it leads until now."""
    from runtimed.model.errors import ResourceNotFound

    try:
        return client.get_alias(name, alias)
    except ResourceNotFound:
        return None


def _moved(whose: str, before: AliasConfiguration | None, version: str) -> str:
    name, _, alias = whose.partition(" ")
    now = f"{name}:{alias} leads to version {version}"
    if before is None:
        return f"{now}; `runtimectl invoke {name}:{alias}` invokes it"
    weights = before.routing_config.additional_version_weights if before.routing_config else {}
    if before.function_version == version and not weights:
        return f"{now}, as before"
    back = f"runtimectl aliases update {name} {alias} --version {before.function_version}"
    also = "".join(f" --also {other}={share:g}" for other, share in weights.items())
    return f"{now}, until now {before.function_version}; `{back}{also}` moves it back"


def _summary(function: FunctionConfiguration, published: bool) -> str:
    version = f":{function.version}" if published else ""
    return (
        f"{function.function_name}{version} is {function.state.value}: {function.runtime}, {function.handler}, "
        f"{function.memory_size} MB, {function.timeout} s, code {output.size(function.code_size)}"
    )
