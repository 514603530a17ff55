"""Who may import whom, and what the Python that runs inside sandboxes may be."""

from __future__ import annotations

import ast
import pathlib
import subprocess
import sys

import pytest

from tests.house.tree import ROOT, written

OLDEST = (3, 9)  # the oldest interpreter that functions may ask for
BOOTSTRAP = [path for path in written(".py") if path.parts[:2] == ("runtimed", "bootstrap")]


def test_imports_only_go_down() -> None:
    command = [str(pathlib.Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", BOOTSTRAP, ids=lambda path: path.stem)
def test_bootstrap_stands_alone(path: pathlib.Path) -> None:
    """It is imported by whatever interpreter the function has: its syntax, its library, and nothing else."""
    tree = ast.parse((ROOT / path).read_text(), feature_version=OLDEST)
    allowed = sys.stdlib_module_names | {"_runtimed", "_zygote"}  # the package's name in a sandbox; the extension
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            assert node.level <= 1, f"line {node.lineno}: above the package there is nothing in a sandbox"
            names = [node.module or ""] if node.level == 0 else []
        for name in names:
            assert name.partition(".")[0] in allowed, f"line {node.lineno} imports {name}"


def test_there_is_a_bootstrap() -> None:
    assert "zygote" in {path.stem for path in BOOTSTRAP}
