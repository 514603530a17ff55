"""runtimectl status: what the node is doing."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from runtimed.cli import output
from runtimed.cli.options import Session, common
from runtimed.cli.verb import Verb

if TYPE_CHECKING:
    from runtimed.model.node import NodeStatus


@click.command(
    "status",
    cls=Verb,
    examples=(
        ("runtimectl status", "What the node is doing:"),
        ("runtimectl status --address 10.0.0.5:7401 --key-file control.key", "Another machine:"),
        ("runtimectl status --json", "For a program:"),
    ),
)
@common
def command(session: Session) -> None:
    """Show what the node is doing: environments, invocations, processes, runtimes."""
    with session.client() as client:
        status = client.status()
    if session.as_json:
        output.as_json(status)
        return
    output.fields(_described(status))
    for warning in status.warnings:
        click.echo(f"warning: {warning}", err=True)


def _described(status: NodeStatus) -> list[tuple[str, str]]:
    ms = output.milliseconds
    environments, invocations, host = status.environments, status.invocations, status.host
    pairs = [
        ("Node", f"runtimed {status.build}, {'ready' if status.ready else 'not ready: the data plane is starting'}"),
        ("Started", output.when(status.started_at)),
        ("Account", f"{status.account_id}, {status.region}"),
        ("Functions", str(status.functions)),
        ("Environments", output.environments(environments)),
        (
            "Invocations",
            ", ".join(
                (
                    f"{invocations.total} in all",
                    f"{invocations.in_flight} running",
                    f"{invocations.waiting} waiting",
                    f"{invocations.cold_starts} cold starts",
                    f"{invocations.function_errors} function errors",
                    f"{invocations.throttles} throttles",
                )
            ),
        ),
        (
            "Latency",
            f"p50 {ms(invocations.latency_p50_us)}, p99 {ms(invocations.latency_p99_us)}",
        ),
        ("Concurrency", f"at most {status.concurrency_limit}"),
        (
            "Host",
            ", ".join(
                (
                    host.architecture,
                    f"Linux {host.kernel}",
                    f"{host.cpus} CPUs ({host.cpu_percent:.0f} % busy)",
                    f"{output.size(host.memory_available_bytes)} of {output.size(host.memory_total_bytes)} memory free",
                    f"{output.size(host.disk_free_bytes)} disk free",
                )
            ),
        ),
    ]
    for index, process in enumerate(status.processes):
        memory = f", {output.size(process.memory_bytes)}" if process.memory_bytes else ""
        started = f", started {output.when(process.started_at)}" if isinstance(process.started_at, datetime) else ""
        pairs.append(("Processes" if not index else "", f"{process.name} (pid {process.pid}{memory}{started})"))
    for index, runtime in enumerate(status.runtimes):
        reason = f": {runtime.reason}" if runtime.reason else ""
        spares = f", {runtime.spares.ready} spare, {runtime.spares.taken} taken" if runtime.spares.made else ""
        text = f"{runtime.name} {runtime.version} at {runtime.path}, {runtime.state.value}{spares}{reason}"
        pairs.append(("Runtimes" if not index else "", text))
    return pairs
