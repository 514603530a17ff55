"""Every command that the README shows exists."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.house.tree import ROOT

README = (ROOT / "README.md").read_text()
SHELL = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
BLOCKS = "\n".join(SHELL + re.findall(r"^    (\S.*)$", README, re.MULTILINE))


def verbs(command: str) -> list[str]:
    return sorted(set(re.findall(rf"(?:^|[\s(]){re.escape(command)} +([a-z-]+)", BLOCKS, re.MULTILINE)))


def options(command: str) -> list[tuple[str, str]]:
    """(verb, option) of each use."""
    found = set()
    for line in BLOCKS.splitlines():
        used = re.search(rf"(?:^|\s){re.escape(command)} +([a-z-]+)(.*)", line)
        if used:
            found |= {(used[1], option) for option in re.findall(r"(--[a-z-]+)", used[2].partition(" #")[0])}
    return sorted(found)


def runtimectl_help(*verb: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from runtimed.cli import main; sys.argv[0] = 'runtimectl'; sys.exit(main())"
    command = [sys.executable, "-c", code, *verb, "--help"]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_two_commands_are_there() -> None:
    assert "sudo ./dev demo" in README
    assert "sudo ./dev test" in README


def test_verbs_of_dev() -> None:
    text = (ROOT / "dev").read_text()
    unknown = [verb for verb in verbs("./dev") if not re.search(rf"^{verb}\)", text, re.MULTILINE)]
    assert unknown == []
    shown = subprocess.run(["./dev"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = set(re.findall(r"^  ([a-z]+)  ", shown, re.MULTILINE))
    assert listed == set(re.findall(r"^([a-z]+)\)", text, re.MULTILINE))


@pytest.mark.parametrize("verb", verbs("runtimectl"))
def test_verbs_of_runtimectl(verb: str) -> None:
    done = runtimectl_help(verb)
    assert done.returncode == 0, done.stderr
    missing = [option for used, option in options("runtimectl") if used == verb and option not in done.stdout]
    assert missing == []


def test_options_of_runtimed() -> None:
    command = [sys.executable, "-m", "runtimed", "--help"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    used = {option for line in BLOCKS.splitlines() if re.search(r"(^|/|\s)runtimed ", line)
            for option in re.findall(r"(--[a-z-]+)", line)}  # fmt: skip
    assert {option for option in used if option not in done.stdout} == set()
