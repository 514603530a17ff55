"""The settings as text: every one has a meaning, and the default file says what the defaults are."""

from __future__ import annotations

import tomllib
from pathlib import Path

import msgspec
import pytest

from runtimed import config_text
from runtimed.config import Settings, load


def test_every_setting_has_a_meaning() -> None:
    known = config_text.settings()
    assert [setting.name for setting in known if len(setting.meaning) < 20 or setting.meaning[-1] != "."] == []
    assert all(config_text.sections().values())
    names = {f"{name}.{key}" for name, part in msgspec.to_builtins(Settings()).items() for key in part}
    assert {setting.name for setting in known} == names


def test_a_setting_is_read_off_its_field() -> None:
    found = {setting.name: setting for setting in config_text.settings()}
    cpu, interpreters = found["sandbox.cpu"], found["sandbox.interpreters"]
    assert (cpu.variable, cpu.default, cpu.accepts) == ("RUNTIMED_SANDBOX_CPU", "weight", "weight or hard")
    assert cpu.meaning.startswith("How CPU is given to environments.")
    assert (interpreters.default, interpreters.accepts) == ([], "each an absolute path")


def test_the_default_file_is_the_defaults(tmp_path: Path) -> None:
    text = config_text.default_file()
    file = tmp_path / "runtimed.toml"
    file.write_text(text)
    assert load(file, {}, {}) == Settings()
    assert all(line.startswith(("#", "[")) for line in text.splitlines() if line)
    known = {setting.key for setting in config_text.settings()}
    lines = [line[1:] if line[1:].partition(" = ")[0] in known else line for line in text.splitlines()]
    told = tomllib.loads("\n".join(lines))
    assert told == msgspec.to_builtins(Settings())
    assert max(map(len, text.splitlines())) <= 120


def test_the_table_goes_between_the_markers() -> None:
    text = config_text.with_table("before\n<!-- settings -->\nold\n<!-- /settings -->\nafter\n")
    assert text.startswith("before\n<!-- settings -->\n| setting |")
    assert text.endswith("|\n<!-- /settings -->\nafter\n")
    assert "old" not in text
    assert config_text.with_table(text) == text
    with pytest.raises(ValueError, match="there is no"):
        config_text.with_table("nothing")
