"""What is generated and committed is what the generators make."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.house.tree import ROOT


@pytest.mark.parametrize("generator", ["native/protocol/generate.py", "proto/generate.py"])
def test_committed_is_generated(generator: str) -> None:
    command = [sys.executable, generator, "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"run ./dev generate\n{done.stdout}{done.stderr}"
