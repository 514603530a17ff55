"""The fuzzers, fifty times as long as the native tests run them."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.native.test_native import BUILD

LONGER = 50


def commands() -> dict[str, list[str]]:
    """Those of ctest, by name, with LONGER times the runs; none where nothing is built (`./dev soak` builds first)."""
    if not (BUILD / "CTestTestfile.cmake").exists():
        return {}
    listed = subprocess.run(
        ["ctest", "--test-dir", BUILD, "--show-only=json-v1"], capture_output=True, text=True, check=True
    )
    found = {}
    for test in json.loads(listed.stdout)["tests"]:
        if test["name"].startswith("fuzz_") and "command" in test:
            program, runs, *corpus = test["command"]
            option, _, number = runs.rpartition("=")  # libFuzzer's is -runs=N
            found[test["name"]] = [program, f"{option}{'=' * bool(option)}{int(number) * LONGER}", *corpus]
    return found


@pytest.mark.soak
@pytest.mark.parametrize("name", sorted(commands()) or ["nothing is built"])
def test_fuzz(name: str, tmp_path: Path) -> None:
    """A crash leaves what it was fed in the test's directory."""
    done = subprocess.run(commands()[name], cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, f"{done.stderr[-8000:]}\n{list(tmp_path.iterdir())}"
