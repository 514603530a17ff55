"""runtimectl keys: create, list, revoke."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from runtimed.cli import failures, output
from runtimed.cli.options import Session, common, completing
from runtimed.cli.verb import VerbGroup

if TYPE_CHECKING:
    from runtimed.model.key import CreatedKey


def _key_id(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    """Completes a key's id by asking the daemon; nothing when it does not answer."""
    try:
        with completing(ctx).client(failures.NAMES_SECONDS) as client:
            return [key.key_id for key in client.list_keys() if key.key_id.startswith(incomplete)]
    except Exception:
        return []


@click.group(
    "keys",
    cls=VerbGroup,
    invoke_without_command=True,
    examples=(
        ("runtimectl keys create --description 'build server'", "A key for a program elsewhere:"),
        ("runtimectl keys", "Those that there are:"),
        ("runtimectl keys revoke RTEXAMPLEKEY00000001", "Let its owner in no more:"),
    ),
)
@common
def command(session: Session) -> None:
    """List the keys that callers over TCP use (the default), make one, or revoke one.

    With a key functions are invoked over HTTP (port 7402), signed by an AWS SDK or with the key's token, and the whole
    API is open (port 7401). Over the unix sockets no key is needed.
    """
    ctx = click.get_current_context()
    if ctx.invoked_subcommand is None:
        _list(session)
    else:
        ctx.obj = session.where


@command.command(
    "list",
    examples=(
        ("runtimectl keys list", "A table:"),
        ("runtimectl keys list --json", "For a program:"),
    ),
)
@common
def list_command(session: Session) -> None:
    """List all keys, without their secrets."""
    _list(session)


@command.command(
    "create",
    examples=(
        ("runtimectl keys create --description 'build server'", "Secret and token are shown this once:"),
        ("runtimectl keys create --json | jq -r .Token > build.key", "The token into a file, for --key-file:"),
    ),
)
@click.option("--description", metavar="TEXT", default="", help="Whose it is; at most 256 characters.")
@common
def create_command(session: Session, description: str) -> None:
    """Make a key. Its secret is shown now and never again."""
    with session.client() as client:
        created = client.create_key(description)
    if session.as_json:
        output.as_json(created)
        return
    output.fields(
        [("Key", created.key.key_id), ("Secret", created.secret), ("Token", created.token), ("Region", created.region)]
    )
    click.echo("\nKeep the secret and the token now: they are not shown again.\n", err=True)
    click.echo(_usage(created), err=True)


@command.command(
    "revoke",
    examples=(("runtimectl keys revoke RTEXAMPLEKEY00000001", "Whoever has it is refused from now on:"),),
)
@click.argument("key_id", shell_complete=_key_id)
@common
def revoke_command(session: Session, key_id: str) -> None:
    """Revoke the key KEY_ID. It is refused as soon as this ends."""
    with session.client() as client:
        client.revoke_key(key_id)
    if session.as_json:
        output.as_json({"Revoked": key_id})
    else:
        click.echo(f"{key_id} is revoked")


def _list(session: Session) -> None:
    with session.client() as client:
        keys = client.list_keys()
    if session.as_json:
        output.as_json({"Keys": keys})
    elif keys:
        output.table(
            ("KEY", "CREATED", "DESCRIPTION"),
            [(key.key_id, output.when(key.created_at), key.description) for key in keys],
            shrink=("DESCRIPTION",),
        )
    else:
        click.echo("There are no keys yet. `runtimectl keys create` makes one.", err=True)


def _usage(created: CreatedKey) -> str:
    """How to use it, to be copied."""
    if not created.endpoint:
        return "This node takes no invocations over TCP: the setting invoke.listen is empty."
    return "\n".join(
        (
            "With an AWS SDK or the AWS CLI:",
            f"  export AWS_ACCESS_KEY_ID={created.key.key_id}",
            f"  export AWS_SECRET_ACCESS_KEY={created.secret}",
            f"  export AWS_DEFAULT_REGION={created.region}",
            f"  aws lambda invoke --endpoint-url {created.endpoint} --function-name NAME out.json",
            f'  boto3.client("lambda", endpoint_url="{created.endpoint}").invoke(FunctionName="NAME")',
            "With curl:",
            f"  curl -H 'Authorization: Bearer {created.token}' -d '{{}}' \\",
            f"    {created.endpoint}/2015-03-31/functions/NAME/invocations",
        )
    )
