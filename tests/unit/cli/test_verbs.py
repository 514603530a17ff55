"""Every verb: its help, its examples, and its page of the manual."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from runtimed.cli import PROGRAM, VERBS, main
from runtimed.cli import command as root
from runtimed.cli.man import pages
from runtimed.cli.roff import Page


def commands(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        ctx = click.Context(command, info_name=path[-1])
        for name in command.list_commands(ctx):
            below = command.get_command(ctx, name)
            assert below is not None
            yield from commands(below, (*path, name))


ALL = dict(commands(root, (PROGRAM,)))


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_help_has_examples_that_parse(path: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*path[1:], "--help"]) == 0
    text = capsys.readouterr().out
    examples = getattr(ALL[path], "examples", ())
    assert examples, "give it cls=Verb and examples"
    assert "Examples:" in text
    for line, what in examples:
        assert line in text
        assert what.endswith(":")
        for words in _calls(line):
            *_, verb = (candidate for candidate in ALL if tuple(words[: len(candidate)]) == candidate)
            known = {option for parameter in ALL[verb].params for option in parameter.opts}
            used = {word.partition("=")[0] for word in words if word.startswith("-") and len(word) > 1}
            assert used <= known, (line, used - known)


def _calls(line: str) -> Iterator[list[str]]:
    """Each use of the program in a shell's line."""
    words = shlex.split(line.replace('"$(', "").replace(')"', ""))
    while PROGRAM in words:
        words = words[words.index(PROGRAM) :]
        end = next((index for index, word in enumerate(words) if word in ("|", ">", "&&")), len(words))
        yield words[:end]
        words = words[end:]


def test_every_option_and_verb_says_what_it_does() -> None:
    silent = [
        f"{' '.join(path)} {parameter.opts[0]}"
        for path, command in ALL.items()
        for parameter in command.params
        if isinstance(parameter, click.Option) and not parameter.help
    ]
    assert silent == []
    assert [path for path, command in ALL.items() if not command.help] == []


def test_help_of_a_verb_of_a_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["help", "functions", "get"]) == 0
    assert capsys.readouterr().out.startswith("Usage: runtimectl functions get ")
    assert main(["help", "functions", "gte"]) == 2
    assert "Did you mean get?" in capsys.readouterr().err
    assert main(["statsu"]) == 2
    assert "Did you mean status?" in capsys.readouterr().err
    assert main(["functions", "lits"]) == 2
    assert "Did you mean list?" in capsys.readouterr().err
    assert main(["logs", "x", "--folow"]) == 2
    assert "--follow" in capsys.readouterr().err


def test_the_manual_is_whole_and_clean(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man", "--directory", str(tmp_path)]) == 0
    written = sorted(map(Path, capsys.readouterr().out.split()))
    assert {path.name for path in written} == {
        f"{PROGRAM}.1", *(f"{PROGRAM}-{verb}.1" for verb in VERBS), "runtimed.8", "runtimed.toml.5",
    }  # fmt: skip
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is missing; ./dev setup installs it")
    done = subprocess.run(["mandoc", "-Tlint", "-Wwarning", *written], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    rendered = subprocess.run(["mandoc", "-Tascii", *written], capture_output=True, text=True, check=True).stdout
    text = "".join(part[-1:] if index else part for index, part in enumerate(rendered.split("\b")))
    assert "`" not in text
    page = pages()["runtimed.toml.5"]()
    assert "RUNTIMED_NODE_STATE_DIR" in page


def test_text_of_a_page_is_shown_as_it_is() -> None:
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is missing; ./dev setup installs it")
    page = Page("x", 1, "y", version="1", date="2026-01-31")
    page.section("Text")
    texts = (".TH is no macro here", "'quotes' and \\ and --dashes", "C:\\n ^~ `bold`")
    for text in texts:
        page.paragraph(text)
        page.example("So:", text)
    shown = subprocess.run(["mandoc", "-Tutf8"], input=page.text(), capture_output=True, text=True, check=True).stdout
    plain = re.sub(".\\x08", "", shown)
    for text in texts:
        assert text.replace("`", "") in plain
        assert text in plain


def test_one_page_to_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["man", "runtimectl-top.1"]) == 0
    assert capsys.readouterr().out.startswith(".TH RUNTIMECTL\\-TOP 1 ")
    assert main(["man", "nothing.1"]) == 2
    assert "runtimed.toml.5" in capsys.readouterr().err
