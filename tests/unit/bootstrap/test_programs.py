"""probe.py and compile.py: what they print, on every interpreter."""

from __future__ import annotations

import importlib.util
import json
import pathlib

import pytest

from tests.unit.bootstrap.dispatcher import BOOTSTRAP
from tests.unit.bootstrap.programs import compiled, run


def version(python: str) -> str:
    return run(python, "-c", "import sys; print('%d.%d' % sys.version_info[:2])").decode().strip()


def test_probe(python: str) -> None:
    line = run(python, BOOTSTRAP / "probe.py")
    assert line.count(b"\n") == 1
    described = json.loads(line)
    assert described["version"].startswith(version(python) + ".")
    assert described["implementation"] == "cpython"
    assert described["abi"].startswith("cpython-" + version(python).replace(".", ""))
    assert described["platform"].startswith("linux-")
    assert described["gil"] is True
    assert pathlib.Path(described["prefix"], "lib").is_dir()


def write(root: pathlib.Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_compiles_what_the_interpreter_then_uses(python: str, tmp_path: pathlib.Path) -> None:
    write(
        tmp_path,
        {"app.py": "'Text.'\nimport pkg.mod\nVALUE = pkg.mod.VALUE", "pkg/__init__.py": "", "pkg/mod.py": "VALUE = 7"},
    )
    files, summary = compiled(python, tmp_path)
    tag = "cpython-" + version(python).replace(".", "")
    assert sorted(files) == [
        f"__pycache__/app.{tag}.pyc",
        f"pkg/__pycache__/__init__.{tag}.pyc",
        f"pkg/__pycache__/mod.{tag}.pyc",
    ]
    assert summary == {
        "version": 1,
        "tag": tag,
        "files": 3,
        "bytes": sum(map(len, files.values())),
        "skipped_count": 0,
        "skipped": [],
        "complete": True,
    }
    for name, data in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    # Unchecked: the bytecode counts, whatever became of the source.
    (tmp_path / "pkg/mod.py").write_text("VALUE = 8")
    printed = run(
        python, "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import app; print(app.VALUE, app.__doc__)"
    )
    assert printed == b"7 Text.\n"


def test_traces_name_the_source(python: str, tmp_path: pathlib.Path) -> None:
    write(tmp_path, {"pkg/mod.py": "x = 1"})
    (data,) = compiled(python, tmp_path)[0].values()
    assert f"{tmp_path}/pkg/mod.py".encode() in data


def test_skips_and_names_what_cannot_be_compiled(python: str, tmp_path: pathlib.Path) -> None:
    write(tmp_path, {"good.py": "", "bad.py": "x = 1\nif:\n", "nul.py": "x\0", "deep.py": "(" * 1000 + ")" * 1000})
    (tmp_path / "coding.py").write_bytes(b"# coding: nonsense\n")
    (tmp_path / "latin.py").write_bytes(b"x = '\xe9'\n")
    files, summary = compiled(python, tmp_path)
    assert len(files) == summary["files"] == 1
    assert summary["complete"] is True
    skipped = {entry["path"]: entry for entry in summary["skipped"]}
    assert set(skipped) == {"bad.py", "nul.py", "deep.py", "coding.py", "latin.py"}
    assert summary["skipped_count"] == 5
    assert skipped["bad.py"] == {"path": "bad.py", "line": 2, "message": "invalid syntax"}


def test_leaves_alone_what_is_no_source_of_the_package(python: str, tmp_path: pathlib.Path) -> None:
    package, outside = tmp_path / "package", tmp_path / "outside"
    write(outside, {"secret.py": "x"})
    write(package, {"__pycache__/old.py": "x", "data.txt": "x", "app.pyc": "x", "a.py": "x = 1"})
    (package / "link.py").symlink_to(outside / "secret.py")
    (package / "tree").symlink_to(outside)
    (package / "dir.py").mkdir()
    files, summary = compiled(python, package)
    assert [path.split(".")[0] for path in files] == ["__pycache__/a"]
    assert summary["skipped"] == []


def test_warnings_of_the_functions_code_are_not_shown(python: str, tmp_path: pathlib.Path) -> None:
    write(tmp_path, {"app.py": "x = '\\d'\ny = 1 is 1\n"})
    assert compiled(python, tmp_path)[1]["files"] == 1  # run() looks at standard error


def test_names_that_are_not_utf8(python: str, tmp_path: pathlib.Path) -> None:
    (tmp_path / "a.py").write_text("")
    with open(bytes(tmp_path) + b"/\xff.py", "wb"):
        pass
    files, summary = compiled(python, tmp_path)
    assert len(files) == 1
    assert summary["skipped"] == [{"path": "\\udcff.py", "line": None, "message": "the name cannot be told"}]


@pytest.mark.parametrize(
    ("setting", "count", "complete"),
    [("FILES_MAX=2", 2, False), ("BYTES_MAX=10", 0, False), ("SOURCE_MAX=3", 0, True), ("PATH_MAX=3", 0, True)],
)
def test_limits(python: str, tmp_path: pathlib.Path, setting: str, count: int, complete: bool) -> None:
    write(tmp_path, {f"m{number}.py": "x = 1" for number in range(4)})
    files, summary = compiled(python, tmp_path, setting)
    assert (len(files), summary["files"], summary["complete"]) == (count, count, complete)
    assert summary["skipped_count"] == (0 if count or not complete else 4)


def test_number_of_names_skipped_is_bounded(python: str, tmp_path: pathlib.Path) -> None:
    write(tmp_path, {f"m{number}.py": "if:" for number in range(120)})
    summary = compiled(python, tmp_path)[1]
    assert (len(summary["skipped"]), summary["skipped_count"]) == (100, 120)


def test_the_tests_own_interpreter_agrees_on_the_mark(tmp_path: pathlib.Path) -> None:
    """importlib reads the flags as the format says: hash-based, not checked."""
    import sys

    write(tmp_path, {"app.py": "x = 1"})
    (data,) = compiled(sys.executable, tmp_path)[0].values()
    assert data[:4] == importlib.util.MAGIC_NUMBER
    assert data[4:8] == b"\x01\0\0\0"
    assert data[8:16] == importlib.util.source_hash(b"x = 1")
