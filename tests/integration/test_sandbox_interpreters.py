"""Interpreters are found by name, and nobody's who could replace them later."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtimed.sandbox import interpreters
from runtimed.sandbox.interpreters import Found, find_interpreters

ME = {os.geteuid(), 0}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(interpreters, "PATTERNS", interpreters.PATTERNS[-2:])
    return tmp_path


def make(path: Path, mode: int = 0o755) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("#!/bin/false\n")
    path.chmod(mode)
    return str(path)


def found(home: Path, *configured: str) -> list[str]:
    return [entry.path for entry in find_interpreters(configured, [str(home)], ME)]


def test_pyenv_and_uv(home: Path) -> None:
    one = make(home / ".pyenv/versions/3.12.1/bin/python3.12")
    two = make(home / ".local/share/uv/python/cpython-3.13.0-linux-x86_64-gnu/bin/python3.13")
    assert find_interpreters([], [str(home)], ME) == [
        Found(one, str(home / ".pyenv/versions/3.12.1")),
        Found(two, str(home / ".local/share/uv/python/cpython-3.13.0-linux-x86_64-gnu")),
    ]


def test_each_interpreter_once_and_only_interpreters(home: Path) -> None:
    versions = home / ".pyenv/versions"
    real = make(versions / "3.12.1/bin/python3.12")
    (versions / "3.12").symlink_to("3.12.1")
    (versions / "3.12.1/bin/python3").symlink_to("python3.12")
    make(versions / "3.12.1/bin/python3.12-config")
    make(versions / "3.8.1/bin/python3.8")
    make(versions / "3.11.1/bin/python3.11", mode=0o644)
    (versions / "3.10.1/bin/python3.10").mkdir(parents=True)
    (versions / "3.9.1/bin").mkdir(parents=True)
    (versions / "3.9.1/bin/python3.9").symlink_to("nowhere")
    assert found(home) == [real]


def test_what_others_can_write_is_left_out_unless_configured(home: Path) -> None:
    versions = home / ".pyenv/versions"
    file = make(versions / "3.12.1/bin/python3.12", mode=0o777)
    folder = make(versions / "3.11.1/bin/python3.11")
    (versions / "3.11.1").chmod(0o775)
    assert found(home) == []
    assert found(home, file, folder) == [file, folder]
    assert find_interpreters([], [str(home)], {12345}) == []


def test_no_more_than_the_launcher_takes(home: Path) -> None:
    for number in range(interpreters.MAX + 5):
        make(home / f".pyenv/versions/3.{10 + number}.0/bin/python3.{10 + number}")
    assert len(found(home)) == interpreters.MAX
