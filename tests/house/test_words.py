"""Names that say nothing are not used, and nothing in the tree knows one machine or a registry."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

from tests.house.tree import ROOT, files, written

EMPTY = re.compile(r"(^|_)(worker|container|job|manager|helper|util)s?($|_)")
# Words of others' interfaces, and others' things: systemd is a service manager, the host may be a container.
FOREIGN = {"contextmanager", "asynccontextmanager", "max_workers", "test_find_container"}
FOREIGN_WORDS = re.compile("service_manager")
CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
C_TYPE = r"^(?:static |inline |const |extern |struct |enum |union |typedef )*[a-z_0-9 ]*\*?"
C_NAME = re.compile(C_TYPE + r"\b([a-z_0-9]+)(?:\(| \{)")
# Written in pieces, so that this file does not find itself.
PLACES = re.compile("|".join(["/wor" + "k/", "/roo" + r"t/\.", "/tmp/pla" + "n", "/tmp/ven" + "v", "/home/[a-z]+/"]))
REGISTRY = re.compile(
    r"https?://[a-z0-9.-]*(debi" + "an|pyp" + "i|pythonhost" + "ed|npm" + "js|crat" + r"es)\b", re.IGNORECASE
)


def python_names(path: pathlib.Path) -> Iterator[str]:
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg):
            yield node.arg


def c_names(path: pathlib.Path) -> Iterator[str]:
    for line in (ROOT / path).read_text().splitlines():
        named = C_NAME.match(line)
        if named:
            yield named[1]


def snake(name: str) -> str:
    return FOREIGN_WORDS.sub("", CAMEL.sub("_", name).lower())


def test_empty_words_are_not_names() -> None:
    found = [
        f"{path}: {part}" for path in files() for part in path.parts if EMPTY.search(snake(pathlib.Path(part).stem))
    ]
    for path in written(".py"):
        found += [f"{path}: {name}" for name in python_names(path) if name not in FOREIGN and EMPTY.search(snake(name))]
    for path in written(".c", ".h"):
        found += [f"{path}: {name}" for name in c_names(path) if name not in FOREIGN and EMPTY.search(name)]
    assert found == []


def test_no_places_of_one_machine_and_no_registries() -> None:
    found = []
    for path in files():
        try:
            text = (ROOT / path).read_text()
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if PLACES.search(line) or REGISTRY.search(line):
                found.append(f"{path}:{number}: {line.strip()}")
    assert found == []
