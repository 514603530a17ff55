"""The service's unit, its users and directories, as systemd's own tools see them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SYSTEMD = Path(__file__).resolve().parents[2] / "systemd"
UNIT = SYSTEMD / "runtimed.service"
# Of 10, as `systemd-analyze security` of version 252 reckons. What the launcher does takes most of it.
EXPOSURE_MAX = 5.6

needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd's tools are not there")


def settings() -> dict[str, str]:
    """Those of [Service]; a setting given twice is joined."""
    found: dict[str, str] = {}
    for key, value in re.findall(r"^([A-Z]\w+)=(.*)$", UNIT.read_text(), re.MULTILINE):
        found[key] = f"{found[key]} {value}" if key in found else value
    return found


@needs_systemd
def test_verify(tmp_path: Path) -> None:
    """Nothing unknown, nothing misspelled. The command is not installed here."""
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/runtimed/current/bin/runtimed", sys.executable))
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@needs_systemd
def test_exposure() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", UNIT],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    level = re.search(r"Overall exposure level for runtimed.service: ([\d.]+)", done.stdout)
    assert level is not None, done.stderr
    print(level[0])
    assert float(level[1]) <= EXPOSURE_MAX


@needs_systemd
@pytest.mark.skipif(os.geteuid() != 0, reason="writes another root's files")
def test_users_and_directories(tmp_path: Path) -> None:
    for folder in ("etc", "var/lib", "run"):
        (tmp_path / folder).mkdir(parents=True)
    for tool in ("sysusers", "tmpfiles"):
        command = [f"systemd-{tool}", f"--root={tmp_path}", *(["--create"] if tool == "tmpfiles" else [])]
        subprocess.run([*command, SYSTEMD / f"runtimed.{tool}"], check=True)
    users = {line.split(":")[0]: line.split(":") for line in (tmp_path / "etc/passwd").read_text().splitlines()}
    groups = {line.split(":")[0]: line.split(":")[2] for line in (tmp_path / "etc/group").read_text().splitlines()}
    assert users["runtimed"][3] == groups["runtimed"]
    assert users["runtimed-dispatch"][3] not in (groups["runtimed"], "0")
    for path in ("var/lib/runtimed", "run/runtimed"):
        status = (tmp_path / path).stat()
        assert (status.st_mode & 0o7777, str(status.st_gid)) == (0o750, groups["runtimed"])


def test_stops_later_than_it_drains() -> None:
    from runtimed.config import Settings

    assert int(settings()["TimeoutStopSec"]) > Settings().node.drain_seconds


def test_what_would_break_sandboxes_is_not_set() -> None:
    """Each has its reason in the unit."""
    broken = {
        "ProtectControlGroups", "ProtectProc", "ProcSubset",
        "ProtectHostname", "RestrictNamespaces", "RestrictSUIDSGID", "MemoryDenyWriteExecute", "PrivateDevices",
        "PrivateUsers", "PrivateNetwork", "StateDirectory", "RuntimeDirectory",
    }  # fmt: skip
    assert broken & settings().keys() == set()
    text = UNIT.read_text()
    assert {name for name in broken if name not in text} == set()
