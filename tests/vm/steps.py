"""What is done in a booted guest, in order. A step returns a few words for the summary or raises Failed."""

from __future__ import annotations

import re

from tests.vm.guest import Failed, Guest
from tests.vm.recipe import HOME
from tests.vm.service import Show, Step

PYTHON = f"{HOME}/venv/bin/python"
PYTEST_SECONDS = 1500


def pytest_step(*arguments: str, seconds: float = PYTEST_SECONDS) -> Step:
    """Tests as pytest runs them, in the guest; nothing may be skipped."""

    def step(guest: Guest, show: Show) -> str:
        environment = {
            "RUNTIMED_MUST_WORK": "1",
            "RUNTIMED_TEST_PATIENCE": "20",
            "PYTHONUNBUFFERED": "1",
            "COLUMNS": "110",
        }
        command = (PYTHON, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--durations=8", *arguments)
        status, output = guest.run(*command, seconds=seconds, environment=environment, show=show)
        counts = re.findall(r"^.*\b(?:passed|failed|error|errors|deselected)\b.* in [0-9.]+s.*$", output, re.MULTILINE)
        said = counts[-1].strip("= ") if counts else f"exit status {status}"
        if status != 0:
            raise Failed(said)
        return said

    return step


def host_facts(guest: Guest, show: Show) -> str:
    """It is the host that we mean: systemd as pid 1, unified cgroups with controllers."""
    script = (
        "set -e; test $(cat /proc/1/comm) = systemd; test $(stat -fc %T /sys/fs/cgroup) = cgroup2fs; "
        "uname -rm; cat /sys/fs/cgroup/cgroup.controllers; systemctl is-system-running --wait || systemctl --failed"
    )
    status, output = guest.run("sh", "-c", script, seconds=120)
    if status != 0 or "running" not in output.split():
        raise Failed("not a running systemd with unified cgroups\n" + output)
    return ", ".join(output.split("\n")[:2])


FACTS: tuple[str, Step] = ("systemd and unified cgroups", host_facts)
# What only a machine with controllers in a unified hierarchy shows, and what differs between architectures.
SHORT: list[tuple[str, Step]] = [
    FACTS,
    (
        "limits, identities, cgroups",
        pytest_step(
            "tests/sandbox/test_limits.py",
            "tests/sandbox/test_identity.py",
            "tests/integration/test_launcher.py",
            "-k",
            "memory_is_limited or memory_of_children or fork_bomb or rule_5 or rule_12 or while_frozen or hard_cpu"
            " or tmp_is_not_memory or mapped or rule_4 or dumpable or limits_and_an_id or cgroups or out_of_memory"
            " or frozen_environment or left_running",
        ),
    ),
]
# But for what only computes: the filter's tables hold for every machine.
WHOLE: list[tuple[str, Step]] = [
    FACTS,
    (
        "sandboxes",
        pytest_step("tests/sandbox", "tests/security/test_jail_escapes.py", "-k", "not agrees_with_libseccomp"),
    ),
    ("launcher", pytest_step("tests/integration/test_launcher.py")),
]
