"""What went wrong, as the user reads it: a sentence, the command to type next, and the exit status.

With --json it is one line on standard error, so that standard output holds results and nothing else:

    {"error": {"code": "ResourceNotFoundException", "message": "Function not found: ...", "next": "runtimectl ..."}}

`code` is the API's where the daemon answered; otherwise Usage, Unreachable, NotPermitted, TimedOut, Incompatible,
DeployFailed or ClientError.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import click

from runtimed.cli import PROGRAM, REFUSED, UNREACHABLE, USAGE, output

if TYPE_CHECKING:
    from collections.abc import Callable

SYSTEMD = "/run/systemd/system"
"""There when systemd runs the machine (sd_booted(3))."""
NAMES_SECONDS = 2.0
"""For the list of functions that a misspelled name is compared with."""


class Failure(NamedTuple):
    code: str
    message: str
    next: str
    """A command line; empty when there is none that would do."""
    status: int


def usage(error: click.ClickException) -> Failure:
    """Of a command line that cannot be understood."""
    context = error.ctx if isinstance(error, click.UsageError) else None
    path = context.command_path if context is not None else PROGRAM
    verb = path.removeprefix(PROGRAM)
    return Failure("Usage", error.format_message(), f"{PROGRAM} help{verb}", USAGE)


def explain(error: Exception) -> Failure | None:
    """None when it is a defect of ours."""
    from runtimed.client import errors as client
    from runtimed.model import errors as api

    match error:
        case api.ApiError():
            return Failure(error.code, error.message, _after(error), REFUSED)
        case client.NotPermitted():
            return Failure("NotPermitted", str(error), _permit(error.socket), UNREACHABLE)
        case client.Unreachable():
            return Failure("Unreachable", str(error), _look(), UNREACHABLE)
        case client.TimedOut():
            return Failure("TimedOut", str(error), f"{PROGRAM} status", UNREACHABLE)
        case client.Incompatible():
            return Failure("Incompatible", str(error), "sudo systemctl restart runtimed", REFUSED)
        case client.DeployFailed():
            return Failure("DeployFailed", str(error), f"{PROGRAM} functions list", REFUSED)
        case client.ClientError():
            return Failure("ClientError", str(error), "", USAGE)
    return None


def show(failure: Failure, as_json: bool) -> None:
    """On standard error."""
    if as_json:
        import msgspec

        told = {"code": failure.code, "message": failure.message, "next": failure.next}
        click.echo(msgspec.json.encode({"error": told}).decode(), err=True)
        return
    known = failure.code not in ("Unreachable", "NotPermitted", "TimedOut", "ClientError", "DeployFailed")
    output.complain(f"{PROGRAM}: {f'{failure.code}: ' if known else ''}{failure.message}")
    if failure.next and f"`{failure.next}`" not in failure.message:
        click.echo(f"Next: {failure.next}", err=True)


def with_guess(error: Exception, name: object, names: Callable[[], list[str]]) -> None:
    """Adds to the error which function may have been meant."""
    from runtimed.model.errors import ApiError, ResourceNotFound

    if not isinstance(error, ResourceNotFound) or not isinstance(name, str):
        return
    from runtimed.cli.options import split
    from runtimed.cli.verb import guess

    try:
        known = names()
        name = split(name)[0]
        meant = "" if name in known else guess(name, known)  # it is there, and something of it is not
    except (ApiError, Exception):
        return  # the error itself is what counts
    if meant:
        error.message = f"{error.message} {meant.rstrip()}"


def _after(error: Exception) -> str:
    """What to type after an answer of the daemon's."""
    from runtimed.model import errors as api

    match error:
        case api.ResourceNotFound(message=message) if message.startswith("Event not found"):
            return f"{PROGRAM} queue list"
        case api.ResourceNotFound(message=message) if (
            f"`{PROGRAM} " in message and f"`{PROGRAM} functions`" not in message
        ):
            return ""  # it says so itself
        case api.ResourceNotFound():
            return f"{PROGRAM} functions list"
        case api.Unauthenticated() | api.AccessDenied():
            return f"{PROGRAM} --key-file FILE status"
        case api.TooManyRequests():
            return f"{PROGRAM} top"
        case api.InvalidRuntime() | api.ServiceUnavailable() | api.ResourceNotReady():
            return f"{PROGRAM} status"
        case api.NotOffered():
            return "sudo systemctl restart runtimed"
        case api.ServiceError():
            return "journalctl --unit runtimed --since -10min" if os.path.isdir(SYSTEMD) else f"{PROGRAM} doctor"
    return ""


def _look() -> str:
    return "systemctl status runtimed" if os.path.isdir(SYSTEMD) else f"{PROGRAM} doctor"


def _permit(socket: os.PathLike[str]) -> str:
    """How this user gets to use the socket: the group that it belongs to."""
    import grp
    import pwd

    try:
        group = grp.getgrgid(os.stat(socket).st_gid)
        user = pwd.getpwuid(os.geteuid()).pw_name
    except (OSError, KeyError):
        return f"sudo {PROGRAM} status"
    if user in group.gr_mem:
        return f"newgrp {group.gr_name}"  # a member, but not yet in this session
    return f"sudo usermod --append --groups {group.gr_name} {user}" if group.gr_gid else f"sudo {PROGRAM} status"
