"""The probe's look at Node.js: what is believed of it, and that one that hangs costs nobody else anything."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

import runtimed

PROBE = Path(runtimed.__file__).parent / "bootstrap" / "probe.py"


def nodes(pattern: Path, patience: float = 60.0) -> dict[str, str]:
    module: dict[str, Any] = runpy.run_path(str(PROBE))
    function = module["nodes"]
    function.__globals__.update(NODES=(str(pattern),), PATIENCE=patience)
    found: dict[str, str] = function()
    return found


def script(path: Path, text: str) -> Path:
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_versions_are_told_once(tmp_path: Path) -> None:
    one = script(tmp_path / "node", "echo v20.1.0")
    (tmp_path / "nodejs").symlink_to(one)
    (tmp_path / "node-notes").write_text("not a program")
    assert nodes(tmp_path / "node*") == {str(one): "v20.1.0"}


@pytest.mark.parametrize("text", ["sleep 600", "sleep 600 & wait", "sleep 600 &", "trap '' TERM; cat; sleep 600"])
def test_one_that_hangs_is_left(tmp_path: Path, text: str) -> None:
    one = script(tmp_path / "node", text)
    assert nodes(one, 0.2) == {str(one): ""}


def test_one_that_cannot_be_started_is_left(tmp_path: Path) -> None:
    (tmp_path / "node").write_text("#!/not/there\n")
    (tmp_path / "node").chmod(0o755)
    assert nodes(tmp_path / "node") == {}


def test_a_flood_of_words_is_cut(tmp_path: Path) -> None:
    one = script(tmp_path / "node", "head -c 100000 /dev/zero | tr '\\0' x")
    assert nodes(one) == {str(one): "x" * 64}
