"""Files and functions stay small enough to be read in one sitting."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

from tests.house.tree import ROOT, written

FILE_LINES = 450
PYTHON_FUNCTION_LINES = 60
C_FUNCTION_LINES = 80
# The house style opens a function's body at the end of a line that begins in the first column.
C_FUNCTION = re.compile(r"^[a-z_].*?\b([a-z_0-9]+)\(.*\) \{$")


def python_functions(path: pathlib.Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def c_functions(path: pathlib.Path) -> Iterator[tuple[str, int]]:
    name, start = "", 0
    for number, line in enumerate((ROOT / path).read_text().splitlines()):
        opened = C_FUNCTION.match(line)
        if opened:
            name, start = opened[1], number
        elif line == "}" and name:
            yield name, number - start + 1
            name = ""


@pytest.mark.parametrize("suffixes", [(".py",), (".c", ".h"), (".sh",)], ids=["python", "c", "shell"])
def test_files_are_short(suffixes: tuple[str, ...]) -> None:
    paths = [*written(*suffixes), *(map(pathlib.Path, ("dev", ".ci/run")) if ".sh" in suffixes else ())]
    lengths = {str(path): len((ROOT / path).read_text().splitlines()) for path in paths}
    assert {name: length for name, length in lengths.items() if length > FILE_LINES} == {}


def test_python_functions_are_short() -> None:
    long = {
        f"{path}:{name}": length
        for path in written(".py")
        for name, length in python_functions(path)
        if length > PYTHON_FUNCTION_LINES
    }
    assert long == {}


def test_c_functions_are_short() -> None:
    long = {
        f"{path}:{name}": length
        for path in written(".c", ".h")
        for name, length in c_functions(path)
        if length > C_FUNCTION_LINES
    }
    assert long == {}


def test_c_functions_are_found() -> None:
    found = dict(c_functions(pathlib.Path("native/base/descriptor.c")))
    assert found["packet_send"] > 20
    assert found["fd_set_cloexec"] == 3
