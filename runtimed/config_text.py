"""What the settings are, as text: the README's table, the commented default file, the page runtimed.toml(5).

All of it is read off `config.py`: a setting's meaning is the text below it, what it accepts the description of its
type, its default the field's. So a new setting needs nothing here. `python -m runtimed.config_text README.md` puts the
table between the README's markers; with `--check` it writes nothing and says by its exit status whether it would.
"""

from __future__ import annotations

import argparse
import ast
import inspect
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct

from runtimed.config import DEFAULT_FILE, PREFIX, Section, Settings, load

BEGIN, END = "<!-- settings -->", "<!-- /settings -->"
WIDTH = 100
"""Columns of the default file's comments."""


class Setting(Struct, frozen=True, kw_only=True):
    """One setting."""

    section: str
    key: str
    default: Any
    accepts: str
    """What values do; empty when any text does."""
    meaning: str

    @property
    def name(self) -> str:
        return f"{self.section}.{self.key}"

    @property
    def variable(self) -> str:
        """Its name in the environment."""
        return f"{PREFIX}{self.section.upper()}_{self.key.upper()}"

    @property
    def text(self) -> str:
        """Meaning and accepted values as sentences."""
        accepts = f"Value: {self.accepts}." if self.accepts else ""
        return " ".join(part for part in (self.meaning, accepts) if part)


def sections() -> dict[str, str]:
    """The sections in their order, each with what it is about."""
    return {name: " ".join((kind.__doc__ or "").split()) for name, kind in _sections()}


def settings() -> list[Setting]:
    """All settings in the order of config.py."""
    return [setting for name, kind in _sections() for setting in _settings(name, kind)]


def value(default: object) -> str:
    """A value as TOML writes it; TypeError for one that TOML has not."""
    if isinstance(default, bool):
        return "true" if default else "false"
    if isinstance(default, str):
        return json.dumps(default)
    if isinstance(default, int | float):
        return str(default)
    if isinstance(default, list | tuple):
        return f"[{', '.join(map(value, default))}]"
    raise TypeError(f"a setting cannot be {default!r}")


def default_file() -> str:
    """The file that a package installs: every setting, commented out, with its default."""
    head = "runtimed's settings. What is commented out has the value shown. Each can also be given in the environment, "
    lines = _comment(head + "by the name behind it, which wins over this file. See runtimed.toml(5).")
    known = settings()
    for section, about in sections().items():
        lines += ["", *_comment(about), f"[{section}]"]
        for setting in (setting for setting in known if setting.section == section):
            lines += ["", *_comment(f"{setting.text} ({setting.variable})"), f"#{_assignment(setting)}"]
    return "\n".join(lines) + "\n"


def effective(file: Path | None, environment: Mapping[str, str], overrides: Mapping[str, str]) -> str:
    """The settings that a node started so would have, as TOML, each with where it comes from; raises as `load`."""
    origins: dict[str, str] = {}
    chosen = load(file, environment, overrides, origins)
    lines: list[str] = []
    section = ""
    for setting in settings():
        if setting.section != section:
            section = setting.section
            lines += [*([""] if lines else []), f"[{section}]"]
        assignment = f"{setting.key} = {value(getattr(getattr(chosen, section), setting.key))}"
        lines.append(f"{assignment:<40}  # {origins.get(setting.name, 'default')}")
    return "\n".join(lines) + "\n"


def command_line() -> argparse.ArgumentParser:
    """The options of `runtimed`; its manual page is made from them too."""
    parser = argparse.ArgumentParser(
        prog="runtimed",
        description="The daemon of a self-hosted Lambda. Every setting can also be given as RUNTIMED_SECTION_KEY.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help=f"settings in TOML ({DEFAULT_FILE})")
    parser.add_argument("--state-dir", metavar="DIR", help="functions, code, logs (/var/lib/runtimed)")
    parser.add_argument("--run-dir", metavar="DIR", help="sockets (/run/runtimed)")
    parser.add_argument(
        "--check-config", action="store_true", help="print the settings in force, each with its origin, and end"
    )
    parser.add_argument("--print-config", action="store_true", help="print a settings file with every default, and end")
    parser.add_argument("--version", action="store_true", help="print version and build, and end")
    return parser


def table() -> str:
    """All settings as a Markdown table."""
    rows = [
        (f"`{setting.name}`", f"`{setting.variable}`", f"`{_shown(setting)}`", setting.text) for setting in settings()
    ]
    lines = ["| setting | in the environment | default | meaning |", "|---|---|---|---|"]
    return "\n".join(lines + [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in rows])


def with_table(text: str) -> str:
    """The text with the table between its markers; ValueError when it has none."""
    head, begin, rest = text.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"there is no {BEGIN} with an {END} after it")
    return f"{head}{BEGIN}\n{table()}\n{END}{tail}"


def _sections() -> list[tuple[str, type[Section]]]:
    hints = get_type_hints(Settings)
    return [(name, hints[name]) for name in Settings.__struct_fields__]


def _settings(section: str, kind: type[Section]) -> Iterator[Setting]:
    hints = get_type_hints(kind, include_extras=True)
    texts = _texts(kind)
    defaults = kind()
    for key in kind.__struct_fields__:
        yield Setting(
            section=section,
            key=key,
            default=getattr(defaults, key),
            accepts=_accepts(hints[key]),
            meaning=texts.get(key, ""),
        )


def _texts(kind: type[Section]) -> dict[str, str]:
    """The text below each field. It is not kept at run time, so the source is read."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(kind))).body[0]
    assert isinstance(tree, ast.ClassDef)
    found = {}
    for field, below in zip(tree.body, tree.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
            continue
        if isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant) and isinstance(below.value.value, str):
            found[field.target.id] = " ".join(below.value.value.split())
    return found


def _accepts(kind: object) -> str:
    """The description of a type, or of a list's items."""
    for part, prefix in ((kind, ""), *((argument, "each ") for argument in get_args(kind))):
        if get_origin(part) is Annotated:
            described = [extra.description for extra in get_args(part)[1:] if isinstance(extra, Meta)]
            if described and described[0]:
                return f"{prefix}{described[0]}" if get_origin(kind) is list else described[0]
    return "true or false" if kind is bool else ""


def _shown(setting: Setting) -> str:
    return value(setting.default)


def _assignment(setting: Setting) -> str:
    return f"{setting.key} = {value(setting.default)}"


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_on_hyphens=False)]


def main(arguments: Sequence[str]) -> int:
    """Puts the table into the file named, or checks that it is there."""
    file = Path(next(argument for argument in arguments if not argument.startswith("-")))
    text = file.read_text()
    wanted = with_table(text)
    if text == wanted:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"the settings in {file} are out of date: run ./dev generate\n")
        return 1
    file.write_text(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
