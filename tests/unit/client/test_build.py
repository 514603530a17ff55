"""How pip is asked for the packages of another Python."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from runtimed.client import build
from runtimed.client.errors import ClientError


def test_platforms_are_newest_first() -> None:
    tags = build.platforms("x86_64", 28)
    assert tags[:2] == ["manylinux_2_28_x86_64", "manylinux_2_27_x86_64"]
    assert tags[-3:] == ["manylinux_2_5_x86_64", "manylinux1_x86_64", "linux_x86_64"]
    assert tags.index("manylinux_2_17_x86_64") + 1 == tags.index("manylinux2014_x86_64")
    assert build.platforms("aarch64", 28)[-2:] == ["manylinux2014_aarch64", "linux_aarch64"]


def test_the_same_python_may_compile() -> None:
    command = build._command("requirements.txt", sys.version_info.minor, Path("/site"))
    assert "--only-binary" not in command
    assert command[-2:] == ["--target", "/site"]


def test_another_python_takes_wheels_only() -> None:
    command = build._command("requirements.txt", 9, Path("/site"))
    assert command[command.index("--python-version") + 1] == "3.9"
    assert command[command.index("--only-binary") + 1] == ":all:"
    assert "cp39" in command
    assert "abi3" in command


def test_only_python_has_requirements(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="nodejs"):
        build.install(tmp_path / "requirements.txt", "nodejs22.x", tmp_path)


def test_a_file_of_comments_asks_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("")
    (tmp_path / "requirements.txt").write_text("\n# nothing\n")
    stages: list[str] = []
    build.build(tmp_path, "python3.9", lambda stage, done, total: stages.append(stage))
    assert set(stages) == {"packing"}
