"""runtimectl invoke: one event in, the result out."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from runtimed.cli import FUNCTION_FAILED, PROGRAM, failures, output
from runtimed.cli.options import Session, common, qualified_name, qualifier_option, split
from runtimed.cli.verb import Verb

if TYPE_CHECKING:
    from runtimed.client import FunctionFailed, Result


@click.command(
    "invoke",
    cls=Verb,
    examples=(
        ('runtimectl invoke hello --payload \'{"name": "you"}\'', "Print the result; the log goes nowhere:"),
        (
            "runtimectl invoke hello --payload-file event.json --log-tail",
            "The event from a file, the log on standard error:",
        ),
        (
            "echo '[1, 2]' | runtimectl invoke sum --payload - --json",
            "From standard input, with everything known of the invocation:",
        ),
        ("runtimectl invoke hello:prod", "Where an alias leads; a version's number will do as well:"),
        ("runtimectl invoke report --async --event-id order-17", "Accept the event once, and run it later:"),
        ("runtimectl invoke report --stream > report.csv", "A result that comes in parts, written as it comes:"),
    ),
)
@click.argument("name", shell_complete=qualified_name)
@click.option("--payload", metavar="JSON", help="The event; - reads it from standard input. Default: {}.")
@click.option(
    "--payload-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The event, from a file.",
)
@qualifier_option
@click.option("--log-tail", is_flag=True, help="Print the end of the log on standard error.")
@click.option("--stream", is_flag=True, help="Print the result's parts as they come, not the whole at the end.")
@click.option("--async", "asynchronous", is_flag=True, help="Accept the event and print its id; it is run later.")
@click.option("--event-id", metavar="ID", help="With --async: what was accepted under ID is not again.")
@common
def command(
    session: Session,
    name: str,
    payload: str | None,
    payload_file: Path | None,
    qualifier: str | None,
    log_tail: bool,
    stream: bool,
    asynchronous: bool,
    event_id: str | None,
) -> int:
    """Run the function NAME once and print its result.

    When the function fails, its error goes to standard error with type and stack, and the exit status is 1.
    """
    if stream and session.as_json:
        raise click.UsageError("--stream and --json exclude each other: a result in parts is printed as it comes.")
    if asynchronous and (stream or log_tail):
        raise click.UsageError("--async excludes --stream and --log-tail: the event is run later. See its log then.")
    if event_id is not None and not asynchronous:
        raise click.UsageError("--event-id is for --async.")
    if event_id == "":
        raise click.UsageError("--event-id is empty: give the event a name, or leave the option out.")
    if asynchronous:
        return _accept(session, name, qualifier or "", _payload(payload, payload_file), event_id or "")
    if stream:
        return _stream(session, name, qualifier or "", _payload(payload, payload_file), log_tail)
    with session.client() as client:
        result = client.invoke(
            name, payload=_payload(payload, payload_file), qualifier=qualifier or "", log_tail=log_tail
        )
    if log_tail and result.log_tail:
        output.complain(result.log_tail.rstrip("\n"))
    if session.as_json:
        output.as_json(_described(result))
    error = result.error()
    if error is None:
        if not session.as_json:
            click.echo(result.payload)
        return 0
    if session.as_json:
        again = f"{PROGRAM} logs {split(name)[0]} --request-id {error.request_id}"
        kind = error.error_type or "FunctionError"
        failures.show(failures.Failure(kind, error.error_message, again, FUNCTION_FAILED), as_json=True)
        return FUNCTION_FAILED
    _complain(error)
    return FUNCTION_FAILED


def _accept(session: Session, name: str, qualifier: str, payload: bytes, event_id: str) -> int:
    with session.client() as client:
        accepted = client.invoke_async(name, payload=payload, qualifier=qualifier, event_id=event_id)
    if session.as_json:
        output.as_json({"StatusCode": 202, "RequestId": accepted})
    else:
        click.echo(accepted)
    return 0


def _complain(error: FunctionFailed) -> None:
    output.complain(str(error))
    for line in error.stack_trace:
        output.complain(line.rstrip("\n"))


def _stream(session: Session, name: str, qualifier: str, payload: bytes, log_tail: bool) -> int:
    """Byte by byte what the function sends, and nothing behind it."""
    from runtimed.client import FunctionFailed

    failed = None
    with (
        session.client() as client,
        client.invoke_stream(name, payload=payload, qualifier=qualifier, log_tail=log_tail) as parts,
    ):
        try:
            for part in parts:
                sys.stdout.buffer.write(part)
                sys.stdout.buffer.flush()
        except FunctionFailed as error:
            failed = error
    if parts.log_tail:
        output.complain(parts.log_tail.rstrip("\n"))
    if failed is None:
        return 0
    _complain(failed)
    return FUNCTION_FAILED


def _payload(text: str | None, file: Path | None) -> bytes:
    if text is not None and file is not None:
        raise click.UsageError("--payload and --payload-file exclude each other. Give one of them.")
    if file is not None:
        try:
            return file.read_bytes()
        except OSError as error:
            raise click.UsageError(f"cannot read {file}: {error.strerror}.") from None
    if text == "-":
        return sys.stdin.buffer.read()
    return text.encode(errors="surrogateescape") if text is not None else b"{}"


def _described(result: Result) -> dict[str, Any]:
    """The response with its payload as a value and its log as text."""
    import msgspec

    response = result.response
    described = {
        "StatusCode": response.status_code,
        "RequestId": response.request_id,
        "ExecutedVersion": response.executed_version,
        "DurationMs": round(response.duration_us / 1000, 3),
        "InitDurationMs": round(response.init_duration_us / 1000, 3),
        "Payload": msgspec.Raw(response.payload or b"null"),
    }
    if result.failed:
        described["FunctionError"] = response.function_error
    if result.log_tail:
        described["LogResult"] = result.log_tail
    return described
