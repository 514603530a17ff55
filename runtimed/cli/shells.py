"""Completion where a shell needs more than click knows: bash takes NAME:QUALIFIER for three words."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from click.shell_completion import BashComplete, add_completion_class, split_arg_string

if TYPE_CHECKING:
    from collections.abc import Sequence


class Bash(BashComplete):
    """With the words that bash broke at colons (COMP_WORDBREAKS) put together again.

    What is offered then replaces only what stands behind the last colon.
    """

    def get_completion_args(self) -> tuple[list[str], str]:
        words = split_arg_string(os.environ["COMP_WORDS"])
        at = int(os.environ["COMP_CWORD"])
        *before, self._incomplete = joined([*words[1 : at + 1], *([] if at < len(words) else [""])])
        return before, self._incomplete

    def format_completion(self, item: Any) -> str:
        shown = str(super().format_completion(item))
        kind, comma, value = shown.partition(",")
        kept = self._incomplete.rpartition(":")[0]
        return kind + comma + (value.removeprefix(f"{kept}:") if kept else value)


def joined(words: Sequence[str]) -> list[str]:
    """Words of a line with those put together that only colons separate."""
    made: list[str] = []
    for word in words:
        if made and word and (made[-1].endswith(":") or not word.strip(":")):
            made[-1] += word
        else:
            made.append(word)
    return made


def register() -> None:
    """In place of click's own."""
    add_completion_class(Bash, "bash")
