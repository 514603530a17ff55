"""The settings as text: every one has a meaning, and the default file says what the defaults are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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
    assert "\nold\n" not in text
    assert config_text.with_table(text) == text
    with pytest.raises(ValueError, match="there is no"):
        config_text.with_table("nothing")


def test_settings_in_force_are_told_with_their_origin(tmp_path: Path) -> None:
    file = tmp_path / "runtimed.toml"
    file.write_text('[node]\nregion = "eu-west-1"\ndrain_seconds = 3\n')
    environment = {**os.environ, "RUNTIMED_NODE_DRAIN_SECONDS": "4"}
    command = [sys.executable, "-m", "runtimed", "--config", str(file), "--check-config", "--run-dir", "/r"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert tomllib.loads(done.stdout)["node"]["region"] == "eu-west-1"
    lines = [re.sub(r"\s+#", " #", line) for line in done.stdout.splitlines()]
    assert f'region = "eu-west-1" # {file}' in lines
    assert "drain_seconds = 4 # RUNTIMED_NODE_DRAIN_SECONDS" in lines
    assert 'run_dir = "/r" # --run-dir' in lines
    assert 'group = "runtimed" # default' in lines
    file.write_text("[node]\nregoin = 1\n")
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (78, "")
    assert "node.regoin: no such setting" in done.stderr
