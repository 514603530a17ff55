"""A manual page as man(7) macros. Text is escaped here and nowhere else."""

from __future__ import annotations

import re

_SPECIAL = {"\\": "\\e", "-": "\\-", "`": "\\(ga", "^": "\\(ha", "~": "\\(ti", "'": "\\(aq", "…": "\\&..."}
_CODE = re.compile(r"`([^`]+)`")


class Page:
    """Written from top to bottom."""

    def __init__(self, name: str, section: int, what: str, *, version: str, date: str) -> None:
        """`what`: the line that whatis(1) shows; `date`: YYYY-MM-DD."""
        self._lines = [
            f'.TH {escape(name.upper())} {section} "{date}" "{escape(version)}"',
            ".nh",
            ".SH NAME",
            f"{escape(name)} \\- {escape(what)}",
        ]

    def text(self) -> str:
        return "\n".join(self._lines) + "\n"

    def section(self, title: str) -> None:
        self._lines.append(f".SH {escape(title.upper())}")

    def subsection(self, title: str) -> None:
        self._lines.append(f".SS {escape(title)}")

    def paragraph(self, text: str) -> None:
        self._break()
        self._lines.append(marked(text))

    def synopsis(self, command: str, rest: str) -> None:
        self._lines += [f".B {escape(command)}", marked(rest)]

    def item(self, term: str, text: str) -> None:
        """A term, and what it means below it."""
        self._lines += [".TP", f".B {escape(term)}", marked(text)]

    def example(self, what: str, command: str) -> None:
        self._break()
        self._lines += [marked(what), ".RS 4", ".nf", line(escape(command)), ".fi", ".RE"]

    def _break(self) -> None:
        if not self._lines[-1].startswith((".SH", ".SS")):
            self._lines.append(".PP")


def escape(text: str) -> str:
    return "".join(_SPECIAL.get(character, character) for character in text)


def marked(text: str) -> str:
    """Text as one line, with what stands between backquotes in bold."""
    parts = _CODE.split(" ".join(text.split()))
    return line("".join(f"\\fB{escape(part)}\\fR" if index % 2 else escape(part) for index, part in enumerate(parts)))


def line(escaped: str) -> str:
    """What begins as a macro does is none."""
    return f"\\&{escaped}" if escaped.startswith((".", "'")) else escaped
