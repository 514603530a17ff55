"""runtimectl on a terminal: `top` and its screen, tables that fit, colours; and errors for programs."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Gateway
from tests.integration.stub import until
from tests.integration.terminal import Terminal
from tests.integration.test_cli import ECHO, PROGRAM, Runtimectl, ctl, echo

__all__ = ["ctl", "echo"]

ENTERED, LEFT = "\x1b[?1049h", "\x1b[?1049l"


@pytest.fixture
def terminal(ctl: Runtimectl) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **given: Any) -> Terminal:
            columns = given.pop("columns", 100)
            environment = ctl.environment | {"TERM": "xterm-256color"} | given
            made = Terminal([sys.executable, "-c", PROGRAM, *arguments], environment, columns)
            stack.callback(made.close)
            return made

        yield start


@pytest.mark.parametrize("how", ["q", "\x03", signal.SIGTERM, signal.SIGHUP])
def test_top_gives_the_terminal_back(terminal: Any, gateway: Gateway, how: str | signal.Signals) -> None:
    top = terminal("top", "--interval", "0.25")
    top.read(ENTERED)
    screen = top.read("more functions")
    assert "\x1b[7mNAME" in screen
    assert "INV/s*" in screen
    assert "up " in screen
    top.type("e")
    assert "ERR/s*" in top.read("ERR/s*")
    if isinstance(how, str):
        top.type(how)
    else:
        os.kill(top.process.pid, how)
    status, last = top.end()
    assert status == 0
    assert LEFT in last
    assert "Traceback" not in last
    until(lambda: gateway.performers.statistics.watchers == 0)  # type: ignore[attr-defined]


def test_top_that_is_suspended(terminal: Any) -> None:
    top = terminal("top", "--interval", "0.25")
    top.read("more functions")
    top.type("\x1a")
    top.read(LEFT)
    until(lambda: Path(f"/proc/{top.process.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    assert termios.tcgetattr(top.slave) == top.modes
    os.kill(top.process.pid, signal.SIGCONT)
    top.read(ENTERED)
    top.read("more functions")
    top.type("q")
    assert top.end()[0] == 0


def test_top_when_the_daemon_goes_or_is_not_there(terminal: Any, ctl: Runtimectl) -> None:
    none = terminal("top", "--address", str(ctl.home / "none.sock"))
    status, text = none.end()
    assert (status, ENTERED in text) == (3, False)
    assert "does not exist" in text


def test_top_for_programs(ctl: Runtimectl) -> None:
    told = json.loads(ctl("top", "--once", "--json", "--sort", "p99")[0])
    assert told["Functions"][0]["FunctionName"] == "echo"
    out, _ = ctl("top", "--once", "--sort", "name")
    lines = out.splitlines()
    heading = next(index for index, line in enumerate(lines) if line.startswith("NAME"))
    assert lines[heading + 1].startswith("echo ")
    assert "\x1b" not in out
    follower = ctl.start("top", "--json", "--interval", "0.25")
    assert follower.stdout is not None
    looks = [json.loads(follower.stdout.readline())["Functions"][0]["Invocations"] for _ in range(3)]
    follower.send_signal(signal.SIGINT)
    follower.communicate(timeout=60)
    assert looks == sorted(looks)
    assert follower.returncode == 130
    assert "0.25" in ctl("top", "--interval", "0.1", status=2)[1]


def test_tables_fit_the_terminal_and_are_whole_elsewhere(terminal: Any, ctl: Runtimectl) -> None:
    name = "a-function-with-quite-a-long-name-of-its-own"
    (ctl.home / "app.py").write_text(ECHO)
    ctl("deploy", name, "app.py")
    assert name in ctl("functions")[0]
    shown = terminal("functions", columns=80)
    status, text = shown.end()
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()
    assert status == 0
    assert max(map(len, plain)) <= 80
    assert "…" in plain[1]
    assert plain[1].endswith(("ago", "now"))


def test_colours(terminal: Any, ctl: Runtimectl) -> None:
    assert "\x1b[31m" in terminal("doctor").end()[1]
    for arguments, environment in ((("doctor",), {"NO_COLOR": "1"}), (("doctor", "--color", "never"), {})):
        assert "\x1b[" not in terminal(*arguments, **environment).end()[1]
    assert "\x1b[" not in ctl("doctor", status=1)[0]
    assert "\x1b[31m" in ctl("doctor", "--color", "always", status=1)[0]
    assert "\x1b[31m" in ctl("--color", "always", "doctor", status=1)[0]


@pytest.mark.parametrize(
    ("arguments", "status", "code", "following"),
    [
        (("functions", "get", "ehco"), 4, "ResourceNotFoundException", "runtimectl functions list"),
        (("functions", "gte", "echo"), 2, "Usage", "runtimectl help functions"),
        (("invoke", "echo", "--nonsense"), 2, "Usage", "runtimectl help invoke"),
        (("status", "--address", "none.sock:"), 2, "ClientError", ""),
        (("status", "--address", "/none.sock"), 3, "Unreachable", None),
    ],
)
def test_errors_for_programs(
    echo: Runtimectl, arguments: tuple[str, ...], status: int, code: str, following: str | None
) -> None:
    out, err = echo(*arguments, "--json", status=status)
    told = json.loads(err)["error"]
    assert out == ""
    assert told["code"] == code
    assert told["message"]
    assert following is None or told["next"] == following
    if "ehco" in arguments:
        assert "Did you mean echo?" in told["message"]


def test_errors_name_the_next_command(echo: Runtimectl, tmp_path: Path) -> None:
    err = echo("logs", "ecko", status=4)[1]
    assert "Did you mean echo?" in err
    assert "Next: runtimectl functions list" in err
    err = echo("status", "--address", f"{tmp_path}/none.sock", status=3)[1]
    assert f"{tmp_path}/none.sock" in err
    assert re.search("Next: (systemctl status runtimed|runtimectl doctor)", err)


def test_a_function_that_fails_for_programs(ctl: Runtimectl) -> None:
    (ctl.home / "app.py").write_text("def handler(event, context):\n    raise LookupError('not there')\n")
    ctl("deploy", "failing", "app.py")
    out, err = ctl("invoke", "failing", "--json", status=1)
    told = json.loads(err)["error"]
    assert (told["code"], told["message"]) == ("LookupError", "not there")
    assert told["next"] == f"runtimectl logs failing --request-id {json.loads(out)['RequestId']}"


def test_what_functions_write_cannot_steer_the_terminal(terminal: Any, ctl: Runtimectl) -> None:
    code = "def handler(event, context):\n    print('\\x1b[2J')\n    raise LookupError('\\x1b]0;title\\x07')\n"
    (ctl.home / "app.py").write_text(code)
    ctl("deploy", "steering", "app.py")
    status, text = terminal("invoke", "steering", "--log-tail").end()
    assert (status, "\x1b" in text, "\x07" in text) == (1, False, False)
    assert "]0;title" in text


def test_progress_is_shown_on_a_terminal(terminal: Any, ctl: Runtimectl) -> None:
    (ctl.home / "app.py").write_text(ECHO)
    for given, shown in (({}, True), ({"TERM": "dumb"}, False)):
        status, text = terminal("deploy", "shown", str(ctl.home / "app.py"), "--memory", "256", **given).end()
        assert status == 0
        assert ("shown: " in text) is shown
        assert "shown is Active" in text
        assert ("\x1b[?25l" in text) == ("\x1b[?25h" in text) == shown  # the cursor is hidden, and comes back
