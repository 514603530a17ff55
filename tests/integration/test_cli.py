"""runtimectl from outside: what it prints where, and its exit status, against a server in this process."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import KEY, Gateway
from tests.integration.performers import RUNTIME, UnpackingDeployer
from tests.integration.stub import until

PROGRAM = "import sys; from runtimed.cli import main; sys.exit(main())"
ROOT = Path(__file__).resolve().parents[2]
ECHO = "def handler(event, context):\n    print('got', event)\n    return event\n"


class Runtimectl:
    """The command as a process of its own."""

    def __init__(self, address: str, home: Path) -> None:
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "PYTHONPATH": str(ROOT),
            "PYTHONWARNINGS": "error",
            "RUNTIMED_ADDRESS": address,
        }
        self.home = home

    def __call__(
        self, *arguments: str | Path, status: int = 0, stdin: bytes = b"", **environment: str
    ) -> tuple[str, str]:
        ran = subprocess.run(
            [sys.executable, "-c", PROGRAM, *map(str, arguments)],
            input=stdin,
            capture_output=True,
            env=self.environment | environment,
            cwd=self.home,
            timeout=120,
        )
        out, err = ran.stdout.decode(), ran.stderr.decode()
        assert ran.returncode == status, (out, err)
        assert "Traceback" not in err, err
        return out, err

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=self.environment,
            text=True,
        )


@pytest.fixture
def ctl(gateway: Gateway, tmp_path: Path) -> Runtimectl:
    home = tmp_path / "home"
    home.mkdir()
    return Runtimectl(gateway.address, home)


@pytest.fixture
def echo(ctl: Runtimectl) -> Runtimectl:
    (ctl.home / "app.py").write_text(ECHO)
    ctl("deploy", "echo", "app.py")
    return ctl


def test_deploying_a_file(ctl: Runtimectl) -> None:
    (ctl.home / "thumb.py").write_text(ECHO.replace("handler", "lambda_handler"))
    out, err = ctl("deploy", "thumb", "thumb.py")
    assert out.startswith(f"thumb is Active: {RUNTIME}, thumb.lambda_handler, 128 MB, 3 s, code ")
    assert err == ""  # progress is for terminals


def test_deploying_a_directory_with_everything_given(ctl: Runtimectl) -> None:
    code = ctl.home / "code"
    (code / "inner").mkdir(parents=True)
    (code / "__pycache__").mkdir()
    (code / "__pycache__" / "x.pyc").write_text("")
    (code / "inner" / "mod.py").write_text(ECHO)
    (code / "data.txt").write_text("d")
    options = ["--runtime", RUNTIME, "--handler", "inner/mod.handler", "--memory", "256", "--timeout", "9"]
    options += ["--ephemeral-storage", "1024", "--env", "KEY=a=b", "--env", "OTHER=", "--description", "words of mine"]
    out, _ = ctl("deploy", "full", "code", *options, "--json")
    function = json.loads(out)
    assert function["State"] == "Active"
    assert function["Environment"] == {"Variables": {"KEY": "a=b", "OTHER": ""}}
    assert (function["MemorySize"], function["Timeout"], function["EphemeralStorage"]) == (256, 9, {"Size": 1024})
    assert function["Description"] == "words of mine"
    out, _ = ctl("invoke", "full", "--payload", "[1]")
    assert out == "[1]\n"


def test_deploying_again_changes_what_is_given_and_keeps_the_rest(echo: Runtimectl) -> None:
    first = json.loads(echo("functions", "get", "echo", "--json")[0])
    same = json.loads(echo("deploy", "echo", "app.py", "--json")[0])
    assert same == first
    (echo.home / "app.py").write_text(ECHO.replace("return event", "return 'second'"))
    changed = json.loads(echo("deploy", "echo", "app.py", "--memory", "512", "--json")[0])
    assert (changed["MemorySize"], changed["Timeout"], changed["State"]) == (512, 3, "Active")
    assert changed["CodeSha256"] != first["CodeSha256"]
    assert echo("invoke", "echo")[0] == '"second"\n'
    (echo.home / "other.py").write_text(ECHO)
    assert json.loads(echo("deploy", "echo", "other.py", "--json")[0])["Handler"] == "other.handler"


def test_deploying_a_zip(ctl: Runtimectl) -> None:
    with zipfile.ZipFile(ctl.home / "code.zip", "w") as archive:
        archive.writestr("lambda_function.py", "def lambda_handler(event, context): return 1\n")
    assert "lambda_function.lambda_handler" in ctl("deploy", "zipped", "code.zip")[0]
    assert ctl("invoke", "zipped")[0] == "1\n"


def wheel(directory: Path, name: str, tag: str = "py3-none-any") -> None:
    """A package that pip can install without a network."""
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(directory / f"{name}-1.0-{tag}.whl", "w") as archive:
        archive.writestr(f"{name}.py", f"WORD = '{name} of {tag}'\n")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        archive.writestr(f"{info}/entry_points.txt", f"[console_scripts]\n{name} = {name}:main\n")
        archive.writestr(f"{info}/RECORD", "")


@pytest.mark.parametrize("shape", ["directory", "file"])
def test_requirements_are_packed(ctl: Runtimectl, shape: str) -> None:
    code, wheels = ctl.home / "code", ctl.home / "wheels"
    code.mkdir()
    wheels.mkdir()
    wheel(wheels, "greeting")
    (code / "main.py").write_text("import greeting\ndef handler(event, context): return greeting.WORD\n")
    (code / "requirements.txt").write_text("# what it greets with\ngreeting\n")
    offline = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels)}
    path = code if shape == "directory" else code / "main.py"
    assert ctl("deploy", "greet", path, **offline)[1] == ""
    assert ctl("invoke", "greet")[0] == '"greeting of py3-none-any"\n'
    digest = json.loads(ctl("functions", "get", "greet", "--json")[0])["CodeSha256"]
    ctl("deploy", "greet", path, **offline)
    assert json.loads(ctl("functions", "get", "greet", "--json")[0])["CodeSha256"] == digest


def test_requirements_that_cannot_be_installed(ctl: Runtimectl) -> None:
    code = ctl.home / "code"
    code.mkdir()
    (code / "app.py").write_text(ECHO)
    (code / "requirements.txt").write_text("nowhere-to-be-found==9\n")
    _, err = ctl("deploy", "x", "code", status=2, PIP_NO_INDEX="1")
    assert "nowhere-to-be-found" in err
    assert "Correct the file" in err
    assert ctl("functions", "list", "--json")[0].split() == ["{", '"Functions":', "[]", "}"]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        ((), "Usage"),
        (("bogus",), "no verb 'bogus'"),
        (("deploy", "x"), "PATH"),
        (("deploy", "x", "missing.py"), "does not exist"),
        (("deploy", "x", "app.py", "--memory", "many"), "--memory"),
        (("deploy", "x", "app.py", "--env", "novalue"), "NAME=VALUE"),
        (("deploy", "x", "app.txt"), "neither"),
        (("deploy", "x", "empty"), "no files"),
        (("deploy", "x", "broken.zip"), "not a zip"),
        (("invoke", "x", "--payload", "1", "--payload-file", "app.txt"), "exclude"),
        (("invoke", "x", "--payload-file", "missing"), "does not exist"),
        (("logs", "x", "--since", "soon"), "10m"),
        (("functions", "explode"), "explode"),
        (("status", "--address", "nonsense"), "not an address"),
        (("status", "--key-file", "missing"), "key file"),
        (("completion", "tcsh"), "tcsh"),
    ],
)
def test_wrong_usage(ctl: Runtimectl, arguments: tuple[str, ...], part: str) -> None:
    (ctl.home / "app.py").write_text(ECHO)
    (ctl.home / "app.txt").write_text("")
    (ctl.home / "broken.zip").write_text("no")
    (ctl.home / "empty").mkdir()
    out, err = ctl(*arguments, status=2)
    assert part in out + err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("invoke", "missing"), "ResourceNotFoundException: Function not found"),
        (("invoke", "bad/name"), "InvalidParameterValueException"),
        (("invoke", "echo", "--payload", "{"), "InvalidRequestContentException"),
        (("invoke", "echo", "--payload-file", "large"), "RequestTooLargeException"),
        (("deploy", "echo", "app.py", "--memory", "1"), "MemorySize"),
        (("deploy", "echo", "app.py", "--timeout", "901"), "Timeout"),
        (("deploy", "new", "app.py", "--runtime", "python2.7"), f"Choose one of: {RUNTIME}"),
        (("deploy", "new", "app.py", "--env", "1=x"), "Environment.Variables"),
        (("deploy", "bad name", "app.py"), "FunctionName"),
        (("deploy", "new", "nothing.py"), "--handler MODULE.FUNCTION"),
        (("functions", "get", "missing"), "ResourceNotFoundException"),
        (("functions", "delete", "missing"), "ResourceNotFoundException"),
        (("logs", "missing"), "ResourceNotFoundException"),
        (("logs", "echo", "--request-id", "1"), "RequestId"),
        (("deploy", "new", "app.py", "--handler", "broken.handler"), "It is broken."),
    ],
)
def test_what_the_daemon_refuses(echo: Runtimectl, arguments: tuple[str, ...], part: str) -> None:
    (echo.home / "large").write_bytes(b'"' + b"x" * (6 << 20) + b'"')
    (echo.home / "nothing.py").write_text("def main(): pass\n")
    out, err = echo(*arguments, status=4)
    assert part in err
    assert out == ""


def test_results_go_to_standard_output_and_logs_beside_them(echo: Runtimectl) -> None:
    out, err = echo("invoke", "echo", "--payload", '{"ü": 1}', "--log-tail")
    assert json.loads(out) == {"ü": 1}
    assert err == "got {'ü': 1}\n"
    assert echo("invoke", "echo", "--payload", "-", stdin=b"[2]")[0] == "[2]\n"
    (echo.home / "event.json").write_text("3")
    assert echo("invoke", "echo", "--payload-file", "event.json")[0] == "3\n"
    assert echo("invoke", "echo")[0] == "{}\n"
    described = json.loads(echo("invoke", "echo", "--payload", "4", "--json", "--log-tail")[0])
    assert (described["Payload"], described["StatusCode"], described["LogResult"]) == (4, 200, "got 4\n")


def test_a_function_that_fails(ctl: Runtimectl) -> None:
    (ctl.home / "app.py").write_text("def handler(event, context):\n    raise LookupError('not there')\n")
    ctl("deploy", "failing", "app.py")
    out, err = ctl("invoke", "failing", status=1)
    assert out == ""
    assert err.startswith("LookupError: not there\n")
    assert 'in handler\n    raise LookupError("not there")' in err.replace("'", '"')
    out, err = ctl("invoke", "failing", "--json", status=1)
    assert json.loads(out)["FunctionError"] == "Unhandled"
    assert "LookupError" in err


def test_functions_are_listed_shown_and_deleted(echo: Runtimectl) -> None:
    table = echo("functions")[0].splitlines()
    assert table[0].split() == ["NAME", "STATE", "RUNTIME", "HANDLER", "MEMORY", "TIMEOUT", "CODE", "MODIFIED"]
    assert table[1].split()[:4] == ["echo", "Active", RUNTIME, "app.handler"]
    assert echo("functions", "list")[0] == echo("functions")[0]
    names = [function["FunctionName"] for function in json.loads(echo("functions", "--json")[0])["Functions"]]
    assert names == ["echo"]
    shown = echo("functions", "get", "echo")[0]
    assert "Handler      app.handler" in shown and "\nNow          environments: 0 busy, 2 idle (1 frozen)" in shown
    assert echo("functions", "delete", "echo")[0] == "echo is deleted\n"
    out, err = echo("functions", "list")
    assert (out, "deploy" in err) == ("", True)


def test_logs_are_printed_and_followed(echo: Runtimectl) -> None:
    echo("invoke", "echo", "--payload", "1")
    request_id = json.loads(echo("invoke", "echo", "--payload", "2", "--json")[0])["RequestId"]
    lines = echo("logs", "echo")[0].splitlines()
    assert [line.split(" ", 1)[1] for line in lines if "got" in line] == ["got 1", "got 2"]
    assert [line.split()[1] for line in echo("logs", "echo", "--request-id", request_id)[0].splitlines()] == [
        "START", "got", "END",
    ]  # fmt: skip
    events = [json.loads(line) for line in echo("logs", "echo", "--since", "1h", "--json")[0].splitlines()]
    assert events[-1]["RequestId"] == request_id
    assert echo("logs", "echo", "--since", "2100-01-01T00:00:00Z")[0] == ""

    follower = echo.start("logs", "echo", "--follow", "--since", "1h")
    assert follower.stdout is not None
    seen = [follower.stdout.readline() for _ in lines]
    assert seen[-1].split(" ", 1)[1] == lines[-1].split(" ", 1)[1] + "\n"
    echo("invoke", "echo", "--payload", "3")
    assert "START" in follower.stdout.readline()
    assert "got 3" in follower.stdout.readline()
    follower.send_signal(signal.SIGINT)
    _, err = follower.communicate(timeout=30)
    assert (follower.returncode, err.strip()) == (130, "")


def test_a_reader_that_has_enough_is_no_error(echo: Runtimectl) -> None:
    echo("invoke", "echo")
    follower = echo.start("logs", "echo", "--follow", "--since", "1h")
    assert follower.stdout is not None
    assert follower.stderr is not None
    follower.stdout.readline()
    follower.stdout.close()
    echo("invoke", "echo")
    echo("invoke", "echo")
    assert follower.wait(30) == 0
    assert follower.stderr.read() == ""
    follower.stderr.close()


def test_status_and_doctor_ask_the_daemon(ctl: Runtimectl) -> None:
    out, err = ctl("status")
    assert "Node          runtimed test, ready" in out
    assert err == "warning: The disk is nearly full. Delete something.\n"
    assert json.loads(ctl("status", "--json")[0])["Invocations"]["Total"] == 3
    out, _ = ctl("doctor", status=1)
    assert "MISSING  mke2fs" in out
    assert "makes /tmp. apt-get install e2fsprogs" in out
    checks = json.loads(ctl("doctor", "--json", status=1)[0])["Checks"]
    assert [check["State"] for check in checks] == ["Ok", "Missing"]


@pytest.mark.parametrize("verb", [["status"], ["functions"], ["invoke", "x"], ["logs", "x"], ["deploy", "x", "app.py"]])
def test_without_a_daemon(ctl: Runtimectl, tmp_path: Path, verb: list[str]) -> None:
    (ctl.home / "app.py").write_text(ECHO)
    out, err = ctl(*verb, "--address", f"unix:{tmp_path}/none.sock", status=3)
    assert out == ""
    assert "sudo runtimed" in err
    _, err = ctl("status", "--address", "127.0.0.1:1", status=3)
    assert "127.0.0.1:1" in err


def test_doctor_looks_itself_without_a_daemon(ctl: Runtimectl, tmp_path: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM, "doctor", "--address", f"{tmp_path}/none.sock"],
        capture_output=True,
        env=ctl.environment,
        text=True,
    )
    assert ran.returncode in (0, 1)
    assert "cgroup controllers" in ran.stdout
    assert "without it" in ran.stderr


def test_tcp_takes_a_key(gateway: Gateway, ctl: Runtimectl, tmp_path: Path) -> None:
    file = tmp_path / "control.key"
    file.write_text(KEY + "\n")
    assert "ready" in ctl("status", "--address", gateway.tcp, "--key-file", file)[0]
    assert "ready" in ctl("--address", gateway.tcp, "--key-file", file, "status")[0]
    assert "ready" in ctl("status", RUNTIMED_ADDRESS=gateway.tcp, RUNTIMED_KEY=KEY)[0]
    _, err = ctl("status", "--address", gateway.tcp, status=4)
    assert "control.key" in err


def test_completion(echo: Runtimectl) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "_RUNTIMECTL_COMPLETE" in echo("completion", shell)[0]
    assert json.loads(echo("completion", "bash", "--json")[0])["Shell"] == "bash"
    out, _ = echo(_RUNTIMECTL_COMPLETE="bash_complete", COMP_WORDS="runtimectl invoke e", COMP_CWORD="2")
    assert out == "plain,echo\n"


def test_deploy_waits_until_the_function_is_active(gateway: Gateway, ctl: Runtimectl) -> None:
    deployer: Any = gateway.performers.deployer
    assert isinstance(deployer, UnpackingDeployer)
    gateway.loop.loop.call_soon_threadsafe(deployer.release.clear)
    (ctl.home / "app.py").write_text(ECHO)
    running = ctl.start("deploy", "echo", str(ctl.home / "app.py"))
    until(lambda: '"Pending"' in "".join(ctl("functions", "--json")))
    assert running.poll() is None
    gateway.loop.loop.call_soon_threadsafe(deployer.release.set)
    out, _ = running.communicate(timeout=30)
    assert running.returncode == 0
    assert "echo is Active" in out


def test_starting_is_quick(ctl: Runtimectl) -> None:
    """No verb loads gRPC before it asks the daemon; measured in modules, and generously in the
    processor's time, which does not grow with what else the machine does."""
    program = PROGRAM.replace("sys.exit(main())", "main(['--help']); print(*sys.modules)")
    command = [sys.executable, "-c", program]
    out = subprocess.run(command, capture_output=True, env=ctl.environment, text=True, check=True).stdout
    assert not {"grpc", "rich", "msgspec", "google.protobuf", "asyncio"} & set(out.split())
    times = []
    for _ in range(5):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run(command, capture_output=True, env=ctl.environment, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 0.5


def test_keys(gateway: Gateway, ctl: Runtimectl, tmp_path: Path) -> None:
    out, err = ctl("keys")
    assert (out, "keys create" in err) == ("", True)
    out, err = ctl("keys", "create", "--description", "build server")
    key_id, secret, token, _ = (line.split()[1] for line in out.splitlines())
    assert token == f"{key_id}.{secret}"
    assert "not shown again" in err
    for told in ("AWS_SECRET_ACCESS_KEY", "endpoint_url", f"curl -H 'Authorization: Bearer {token}'"):
        assert told in err
    listed = json.loads(ctl("keys", "list", "--json")[0])["Keys"]
    assert [(key["KeyId"], key["Description"]) for key in listed] == [(key_id, "build server")]
    assert secret not in ctl("keys")[0]
    file = tmp_path / "build.key"
    file.write_text(token)
    assert "ready" in ctl("status", "--address", gateway.tcp, "--key-file", file)[0]
    made = json.loads(ctl("keys", "create", "--json")[0])
    assert made["Token"].startswith(made["Key"]["KeyId"])
    assert ctl("keys", "revoke", key_id)[0] == f"{key_id} is revoked\n"
    assert "keys create" in ctl("status", "--address", gateway.tcp, "--key-file", file, status=4)[1]
    assert "no key" in ctl("keys", "revoke", key_id, status=4)[1]
    assert "KeyId" in ctl("keys", "revoke", "x", status=4)[1]
