"""Names with a version or an alias behind them, as they are typed and as bash breaks them."""

from __future__ import annotations

import click
import pytest

from runtimed.cli.options import alias_of, qualified, split, version_of
from runtimed.cli.shells import Bash, joined

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("f", ("f", "")),
        ("f:3", ("f", "3")),
        ("f:", ("f:", "")),
        ("f:$LATEST", ("f", "$LATEST")),
        ("000000000000:f", ("000000000000:f", "")),
        ("000000000000:function:f", ("000000000000:function:f", "")),
        ("000000000000:function:f:prod", ("000000000000:function:f", "prod")),
        (ARN, (ARN, "")),
        (f"{ARN}:$LATEST", (ARN, "$LATEST")),
    ],
)
def test_splitting(name: str, parts: tuple[str, str]) -> None:
    assert split(name) == parts
    assert qualified(name, None) == (parts[0], parts[1] or "$LATEST")


def test_said_twice() -> None:
    assert version_of("f:3", None) == version_of("f", "3") == version_of("f:3", "3") == ("f", "3")
    assert alias_of(f"{ARN}:prod", None) == (ARN, "prod")
    for call in (lambda: version_of("f:3", "4"), lambda: alias_of("f:a", "b"), lambda: qualified("f:3", "4")):
        with pytest.raises(click.UsageError, match="contradicts"):
            call()
    for call in (lambda: version_of("f", None), lambda: alias_of("f", "")):
        with pytest.raises(click.UsageError, match="is missing: f "):
            call()


@pytest.mark.parametrize(
    ("broken", "whole"),
    [
        (["invoke", "f", ":", "pr"], ["invoke", "f:pr"]),
        (["invoke", "f", ":"], ["invoke", "f:"]),
        (["invoke", "f", ":", ""], ["invoke", "f:", ""]),
        (["a", "b", ":", "c", ":", "d", "e"], ["a", "b:c:d", "e"]),
        (["--address", "unix", ":", "/run/x", "top"], ["--address", "unix:/run/x", "top"]),
        ([""], [""]),
        ([], []),
    ],
)
def test_words_that_bash_broke(broken: list[str], whole: list[str]) -> None:
    assert joined(broken) == whole


def test_what_bash_is_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what stands behind the last colon is replaced."""
    from click.shell_completion import CompletionItem

    shell = Bash(click.Command("x"), {}, "x", "_X_COMPLETE")
    for words, at, before, incomplete, offered in (
        ("x invoke f : pr", 4, ["invoke"], "f:pr", "plain,prod"),
        ("x invoke f :", 3, ["invoke"], "f:", "plain,prod"),
        ("x invoke f : prod ", 5, ["invoke", "f:prod"], "", "plain,f:prod"),
    ):
        monkeypatch.setenv("COMP_WORDS", words)
        monkeypatch.setenv("COMP_CWORD", str(at))
        assert shell.get_completion_args() == (before, incomplete)
        assert shell.format_completion(CompletionItem("f:prod")) == offered
