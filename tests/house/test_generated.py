"""What is generated and committed is what the generators make."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.tree import ROOT

GENERATORS = (
    ["native/protocol/generate.py"],
    ["proto/generate.py"],
    ["-m", "runtimed.config_text", "README.md"],
)


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda generator: generator[-1])
def test_committed_is_generated(generator: list[str]) -> None:
    command = [sys.executable, *generator, "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run ./dev generate\n{done.stdout}{done.stderr}"
