"""The service on a machine of its own, under a real systemd: installed from wheels without a compiler, upgraded, rolled
back, stopped, removed. Nothing of this machine is touched."""

from __future__ import annotations

import importlib.metadata
import json
import os
import runpy
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.node import ROOT, await_true
from tests.integration.systemd_machine import Machine

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and services need root"),
    pytest.mark.skipif(not Path("/lib/systemd/systemd").exists(), reason="systemd is not installed"),
]

PATIENCE = 60.0
HELLO = "import time\ndef handler(event, context):\n    time.sleep(event.get('seconds', 0))\n    return event\n"


@pytest.fixture(scope="module")
def wheelhouse() -> Path:
    """All wheels, as `./dev wheel --all` makes them."""
    subprocess.run([ROOT / "dev", "wheel", "--all"], stdin=subprocess.DEVNULL, check=True, capture_output=True)
    return ROOT / "dist"


@pytest.fixture
def machine(wheelhouse: Path) -> Iterator[Machine]:
    with Machine(ROOT) as made:
        assert made.run("sh", "-c", "command -v cc gcc cmake", check=False).stdout == "", "there is a compiler"
        made.run("cp", "-r", "/tmp/tree/systemd", "/tmp/systemd")
        yield made


def install(machine: Machine) -> subprocess.CompletedProcess[str]:
    command = ("install", "--wheelhouse", "/tmp/tree/dist", "--offline")
    return machine.run("/usr/bin/python3", "-B", "/tmp/systemd/install.py", *command, check=False)


def deploy(machine: Machine) -> None:
    machine.run("sh", "-c", 'printf %s "$0" >/tmp/hello.py', HELLO)
    machine.run("runtimectl", "deploy", "hello", "/tmp/hello.py", "--handler", "hello.handler", "--timeout", "30")


def invoke(machine: Machine, event: object = None) -> object:
    payload = json.dumps(event or {})
    return json.loads(machine.run("runtimectl", "invoke", "hello", "--payload", payload).stdout)


def shown(machine: Machine, name: str) -> str:
    return machine.run("systemctl", "show", "--property", name, "--value", "runtimed").stdout.strip()


def builds(machine: Machine) -> set[str]:
    return set(machine.run("ls", "/opt/runtimed").stdout.split()) - {"current"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_install_serve_restart_remove(machine: Machine) -> None:
    before = machine.files()
    done = install(machine)
    assert done.returncode == 0, done.stderr
    assert "runtimectl deploy" in done.stdout, "it says what to do next"
    assert machine.run("systemctl", "is-enabled", "runtimed").stdout == "enabled\n"
    assert shown(machine, "StatusText").startswith("Serving")
    deploy(machine)
    assert invoke(machine, {"a": 1}) == {"a": 1}

    # Once more: nothing changes.
    launcher = shown(machine, "MainPID")
    made = builds(machine)
    assert len(made) == 1
    again = install(machine)
    assert again.returncode == 0, again.stderr
    assert "is there already" in again.stdout
    assert builds(machine) == made
    assert invoke(machine) == {}

    # A launcher that dies is started again by systemd, which leaves nothing of the one before; who is frozen too.
    await_true(lambda: "1 frozen" in machine.run("runtimectl", "status").stdout, PATIENCE, "a frozen environment")
    launcher = shown(machine, "MainPID")
    machine.run("kill", "-KILL", launcher)
    await_true(
        lambda: shown(machine, "MainPID") not in ("0", launcher) and shown(machine, "StatusText").startswith("Serving"),
        PATIENCE,
        "another launcher",
    )
    assert invoke(machine) == {}

    # What runs when it is stopped comes to its end.
    with subprocess.Popen(
        machine.command("runtimectl", "invoke", "hello", "--payload", '{"seconds": 6}'), stdout=subprocess.PIPE
    ) as running:
        assert running.stdout is not None
        await_true(lambda: "1 busy" in machine.run("runtimectl", "status").stdout, PATIENCE, "a call")
        machine.run("systemctl", "stop", "runtimed")
        assert json.loads(running.stdout.read()) == {"seconds": 6}
    assert (shown(machine, "Result"), shown(machine, "ExecMainStatus")) == ("success", "0")
    assert "runtimed" not in machine.run("find", "/sys/fs/cgroup", "-type", "d").stdout
    assert "runtimed" not in machine.run("cat", "/proc/mounts").stdout

    machine.run("/usr/bin/python3", "-B", "/tmp/systemd/install.py", "uninstall")
    assert machine.run("ls", "/var/lib/runtimed").stdout, "state is kept"
    machine.run("/usr/bin/python3", "-B", "/tmp/systemd/install.py", "uninstall", "--purge")
    assert machine.files() - before == set()
    assert machine.run("getent", "passwd", "runtimed", check=False).stdout == ""


@pytest.mark.soak
@pytest.mark.timeout(900)
def test_upgrade_and_the_way_back(machine: Machine) -> None:
    assert install(machine).returncode == 0
    first = builds(machine)
    deploy(machine)
    machine.run("sh", "-c", "echo '# newer' >>/tmp/systemd/runtimed.tmpfiles")
    assert install(machine).returncode == 0
    second = builds(machine)
    assert len(second) == 1
    assert second != first
    assert invoke(machine) == {}

    unit = "s#^ExecStart=.*#ExecStart=/opt/runtimed/current/bin/runtimed --config /nonexistent#"
    machine.run("sed", "-i", unit, "/tmp/systemd/runtimed.service")
    done = install(machine)
    assert done.returncode == 1
    assert "/nonexistent does not exist" in done.stderr
    assert f"{next(iter(second))} serves again" in done.stderr
    assert machine.run("readlink", "/opt/runtimed/current").stdout.strip() in second
    assert "nonexistent" not in machine.run("systemctl", "cat", "runtimed").stdout
    assert invoke(machine) == {}


def test_wrong_uses(wheelhouse: Path, tmp_path: Path) -> None:
    """Wrong uses are refused before anything is done."""
    command = ["/usr/bin/python3", "-B", str(ROOT / "systemd" / "install.py")]
    for arguments, said in (
        (["install", "--wheelhouse", str(tmp_path)], "0 wheels of runtimed where one is needed"),
        (["install", "--wheelhouse", str(wheelhouse), "--root", str(tmp_path)], "has no /usr/bin/python3"),
        (["install", "--wheelhouse", str(wheelhouse), "--prefix", "a b"], "absolute path of plain characters"),
        (["uninstall", "--prefix", str(tmp_path)], "is not an installation of ours"),
    ):
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert said in done.stderr, arguments
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("version", ["22.2.2", None, importlib.metadata.version("pip")])
def test_what_installs_into_an_environment(
    version: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pip of the installer's Python, or one in the environment where there is none or too old a one."""

    def found(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    installer = runpy.run_path(str(ROOT / "systemd" / "install.py"))
    monkeypatch.setattr(importlib.metadata, "version", found)
    own = version not in ("22.2.2", None)
    pip = installer["make_environment"](tmp_path / "build")
    assert (tmp_path / "build" / "bin" / "pip").exists() != own
    seen = subprocess.run([*pip, "list", "--format", "json"], check=True, capture_output=True, text=True)
    names = {package["name"] for package in json.loads(seen.stdout)}
    assert names == (set() if own else names & {"pip", "setuptools"}), "packages of elsewhere"
