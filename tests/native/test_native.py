"""The C tests and fuzzers, built with the sanitizers: each is one test here."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "sanitized"


def ctests() -> list[str]:
    """The names that ctest knows; none where nothing is built (`./dev test` builds first)."""
    if not (BUILD / "CTestTestfile.cmake").exists():
        return []
    command = ["ctest", "--test-dir", str(BUILD), "--show-only=json-v1"]
    listed = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
    return [test["name"] for test in json.loads(listed.stdout)["tests"]]


def test_native_core_is_built() -> None:
    if not ctests():
        pytest.skip("the sanitizer build is missing; ./dev test makes it")


@pytest.mark.parametrize("name", ctests())
def test_native(name: str) -> None:
    command = ["ctest", "--test-dir", str(BUILD), "--output-on-failure", "-R", f"^{name}$"]
    environment = {**os.environ, "UBSAN_OPTIONS": "print_stacktrace=1", "CLICOLOR": "0"}
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, env=environment
    )
    if "***Skipped" in done.stdout:
        pytest.skip(f"{name} says that it cannot work here: {done.stdout[-1000:]}")
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
