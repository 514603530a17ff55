"""Completion in the real shells: bash and zsh on a terminal with Tab, fish by asking it what it would offer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.terminal import Terminal
from tests.integration.test_cli import Runtimectl, ctl, echo

__all__ = ["ctl", "echo"]

SHELLS = {"bash": ["bash", "--norc", "--noprofile", "-i"], "zsh": ["zsh", "-f", "-i"]}


def shell_environment(ctl: Runtimectl) -> dict[str, str]:
    """With the installed program on the path, and a terminal that can nothing but write."""
    path = f"{Path(sys.executable).parent}:{ctl.environment['PATH']}"
    return ctl.environment | {"PATH": path, "TERM": "dumb", "PS1": "ready> ", "PYTHONWARNINGS": ""}


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest, echo: Runtimectl) -> Iterator[Terminal]:
    echo("versions", "publish", "echo")
    echo("aliases", "create", "echo", "blue", "--version", "1")
    if shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is missing; ./dev setup installs it")
    made = Terminal(SHELLS[request.param], shell_environment(echo))
    try:
        made.type(f'eval "$(runtimectl completion {request.param})"; echo set""up\n')
        made.read("setup")
        yield made
    finally:
        made.close()


def test_tab(shell: Terminal) -> None:
    """What Tab completes is run, and its output tells what it was."""
    for typed, printed in (
        ("runtimectl stat\t\n", "runtimed test, ready"),  # a verb
        ("runtimectl status --js\t\n", '"AccountId"'),  # an option
        ("runtimectl top --once --json --sort thr\t\n", '"FunctionsTotal"'),  # a choice
        ("runtimectl functions ge\tech\t\n", "arn:aws:lambda"),  # a verb of a verb, and the name of a function
        ('runtimectl invoke ec\t--payload "[41]"\n', "\n[41]"),
        ("runtimectl functions get echo:bl\t\n", "function:echo:blue"),  # an alias behind a colon
        ("runtimectl aliases ec\t\n", "blue"),  # a function in the place of a verb
        ("runtimectl aliases get echo bl\t\n", "function:echo:blue"),
    ):
        shell.type(typed)
        shell.read(printed)


OFFERED = {
    "runtimectl st": ["status\tShow what the node is doing."],
    "runtimectl status --js": ["--json\tPrint JSON; errors too."],
    "runtimectl completion z": ["zsh"],
    "runtimectl functions g": ["get\tShow the configuration and the state of..."],
    "runtimectl logs e": ["echo"],
    "runtimectl versions e": ["echo"],
    "runtimectl invoke echo:": ["echo:1", "echo:blue"],
    "runtimectl aliases delete echo b": ["blue"],
    "runtimectl invoke echo --qualifier ": ["1", "blue"],
    "runtimectl provision put echo:b": ["echo:blue"],
    "runtimectl provision target echo:": ["echo:1", "echo:blue"],
    "runtimectl queue configure echo:b": ["echo:blue"],
    "runtimectl man runtimed.": ["runtimed.8", "runtimed.toml.5"],
}
"""What fish is to offer for a line; it shows as much of a text as click gives it."""


def test_fish(echo: Runtimectl) -> None:
    echo("versions", "publish", "echo")
    echo("aliases", "create", "echo", "blue", "--version", "1")
    if shutil.which("fish") is None:
        pytest.skip("fish is missing; ./dev setup installs it")
    script = "runtimectl completion fish | source; " + "; ".join(
        f"echo '> {line}'; complete -C '{line}'" for line in OFFERED
    )
    done = subprocess.run(
        ["fish", "--no-config", "-c", script], env=shell_environment(echo), capture_output=True, text=True, check=False
    )
    lines = [text for line, offered in OFFERED.items() for text in (f"> {line}", *offered)]
    assert (done.stdout.splitlines(), done.returncode) == (lines, 0), done.stderr


def test_nothing_is_said_without_a_daemon(ctl: Runtimectl) -> None:
    for address in (f"{ctl.home}/none.sock", "nonsense", "127.0.0.1:1"):
        told = ctl(
            _RUNTIMECTL_COMPLETE="bash_complete",
            COMP_WORDS="runtimectl invoke e",
            COMP_CWORD="2",
            RUNTIMED_ADDRESS=address,
        )
        assert "".join(told).strip() == ""
