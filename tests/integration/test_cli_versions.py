"""runtimectl on versions and aliases: what it prints where, and its exit status; and a release and its way back on a
real node."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.node import Node, await_true
from runtimed.client import Client
from tests.integration.test_cli import ECHO, Runtimectl, ctl, echo

__all__ = ["ctl", "echo"]

SOURCE = """
def handler(event, context):
    print('release', {0})
    return [{0}, context.function_version, context.invoked_function_arn.rpartition(":")[2]]
"""


def test_versions_are_published_listed_and_deleted(echo: Runtimectl) -> None:
    out, err = echo("versions", "echo")
    assert [line.split()[0] for line in out.splitlines()] == ["VERSION", "$LATEST"]
    assert "`runtimectl versions publish echo` makes version 1" in err
    assert echo("versions", "publish", "echo", "--description", "the first") == ("echo:1 is Active\n", "")
    digest = json.loads(echo("functions", "get", "echo", "--json")[0])["CodeSha256"]
    made = json.loads(echo("versions", "publish", "echo", "--code-sha256", digest, "--json")[0])
    assert (made["Version"], made["State"]) == ("2", "Active")
    assert echo("aliases", "create", "echo", "prod", "--version", "1")[0] == "echo:prod leads to version 1\n"
    head, *rows = (line.split() for line in echo("versions", "echo")[0].splitlines())
    assert head[:3] == ["VERSION", "STATE", "ALIASES"]
    assert [row[:3] for row in rows] == [["$LATEST", "Active", "-"], ["1", "Active", "prod"], ["2", "Active", "-"]]
    assert rows[1][-2:] == ["the", "first"]
    listed = json.loads(echo("versions", "list", "echo", "--json")[0])["Versions"]
    assert [version["Version"] for version in listed] == ["$LATEST", "1", "2"]
    assert [line.split()[0] for line in echo("functions", "--versions")[0].splitlines()] == [
        "NAME", "echo", "echo:1", "echo:2",
    ]  # fmt: skip
    assert "Version      1" in echo("functions", "get", "echo:prod")[0]
    assert echo("versions", "delete", "echo:2") == ("echo:2 is deleted\n", "")
    assert "prod" in echo("versions", "delete", "echo", "1", status=4)[1]


def test_aliases_are_made_moved_and_deleted(echo: Runtimectl) -> None:
    assert echo("aliases", "echo")[0] == ""
    for _ in range(2):
        echo("versions", "publish", "echo")
    out, err = echo("aliases", "create", "echo", "prod", "--version", "1", "--also", "2=0.1", "--description", "words")
    assert (out, err) == ("echo:prod leads to version 1 (90 %), 2 (10 %)\n", "")
    out, _ = echo("aliases", "update", "echo:prod", "--version", "2", "--no-also")
    assert out == "echo:prod leads to version 2\n"
    assert echo("aliases", "echo", "--version", "2")[0].splitlines()[1].split() == ["prod", "2", "words"]
    assert echo("aliases", "echo", "--version", "1")[0] == ""
    found = json.loads(echo("aliases", "get", "echo:prod", "--json")[0])
    assert (found["Name"], found["FunctionVersion"]) == ("prod", "2")
    assert found["RevisionId"] in echo("aliases", "get", "echo", "prod")[0]
    _, err = echo("aliases", "update", "echo", "prod", "--version", "1", "--revision-id", "stale", "--json", status=4)
    assert json.loads(err)["error"]["code"] == "PreconditionFailedException"
    assert json.loads(echo("aliases", "list", "echo", "--json")[0]) == {"Aliases": [found]}
    assert echo("aliases", "delete", "echo", "prod") == ("echo:prod is deleted\n", "")
    assert "Cannot find alias" in echo("aliases", "get", "echo", "prod", status=4)[1]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("versions",), "NAME is missing"),
        (("versions", "pubish", "echo"), "Did you mean publish?"),
        (("versions", "delete", "echo"), "VERSION is missing"),
        (("aliases",), "NAME is missing"),
        (("aliases", "get", "echo"), "ALIAS is missing"),
        (("aliases", "get", "echo:prod", "test"), "contradicts"),
        (("aliases", "create", "echo", "prod"), "--version"),
        (("aliases", "create", "echo", "prod", "--version", "1", "--also", "2"), "VERSION=SHARE"),
        (("aliases", "update", "echo", "prod", "--also", "2=1.5"), "from 0.0 to 1.0"),
        (("aliases", "update", "echo", "prod"), "nothing to change"),
        (("aliases", "update", "echo", "prod", "--also", "2=0.1", "--no-also"), "exclude"),
        (("deploy", "echo", "app.py", "--alias", "prod"), "--alias is for --publish"),
        (("logs", "echo", "--version", "prod"), "where an alias leads"),
    ],
)
def test_wrong_usage(ctl: Runtimectl, arguments: tuple[str, ...], part: str) -> None:
    (ctl.home / "app.py").write_text(ECHO)
    assert part in ctl(*arguments, status=2)[1]


def test_refusals_say_what_to_do(echo: Runtimectl) -> None:
    _, err = echo("versions", "ecko", status=4)
    assert "Did you mean echo?" in err
    assert err.endswith("Next: runtimectl functions list\n")
    _, err = echo("functions", "get", "echo:9", status=4)
    assert "`runtimectl versions echo` and `runtimectl aliases echo`" in err
    assert "Did you mean" not in err
    _, err = echo("versions", "delete", "echo", "prod", status=4)
    assert "`runtimectl aliases delete echo prod`" in err
    _, err = echo("logs", "echo:prod", status=4)
    assert "`runtimectl aliases get echo prod`" in err
    _, err = echo("deploy", "echo", "app.py", "--publish", "--alias", "7", status=4)
    assert "not digits alone" in err


def test_a_release_and_the_way_back(node: Node, tmp_path: Path) -> None:
    """As an owner does it: two releases, a tenth of the calls, all of them, and back."""
    code = tmp_path / "app.py"

    def said(*arguments: str) -> str:
        done = node.runtimectl(*arguments)
        assert done.returncode == 0, done.stderr
        return str(done.stdout)

    with Client(node.address) as client:
        try:
            code.write_text(SOURCE.format(1))
            out = said("deploy", "shop", str(code), "--publish", "--alias", "prod", "--timeout", "60")
            assert out.splitlines()[0].startswith("shop:1 is Active: ")
            assert out.splitlines()[1].startswith("shop:prod leads to version 1; ")
            assert "as before" in said("deploy", "shop", str(code), "--publish", "--alias", "prod")
            code.write_text(SOURCE.format(2))
            back = "runtimectl aliases update shop prod --version 1"
            out = said("deploy", "shop", str(code), "--publish", "--alias", "prod")
            assert f"shop:prod leads to version 2, until now 1; `{back}` moves it back" in out
            assert json.loads(said("invoke", "shop:prod")) == [2, "2", "prod"]
            said(*back.split()[1:])
            assert json.loads(said("invoke", "shop", "--qualifier", "prod")) == [1, "1", "prod"]
            assert json.loads(said("invoke", "shop:2", "--stream")) == [2, "2", "2"]
            assert json.loads(said("invoke", "shop:prod", "--json"))["ExecutedVersion"] == "1"
            said("aliases", "update", "shop", "prod", "--also", "2=1.0")
            assert json.loads(said("invoke", "shop:prod")) == [2, "2", "prod"]
            out = said("deploy", "shop", str(code), "--publish", "--alias", "prod")
            assert f"`{back} --also 2=1` moves it back" in out

            def logged(version: str) -> set[str]:
                events = client.logs("shop", version=version)
                return {event.message for event in events if event.message.startswith("release")}

            await_true(lambda: logged("1") == {"release 1"} and logged("2") == {"release 2"}, 60, "a version's log")
            assert logged("$LATEST") == set()
            assert "release 1" not in said("logs", "shop:2")
        finally:
            client.delete_function("shop")
