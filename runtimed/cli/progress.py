"""Shows on a terminal how far a deployment is; anywhere else it says nothing."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from types import TracebackType

STAGES = {
    "installing": "installing the requirements",
    "packing": "packing",
    "uploading": "uploading",
    "activating": "waiting until it is active",
    "publishing": "publishing a version",
    "moving": "moving the alias",
}


class Progress:
    """Called with (stage, done, total); total 0: not known."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._shown = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def __call__(self, stage: str, done: int, total: int) -> None:
        if self._shown:
            self._draw(stage, done, total)

    def _draw(self, stage: str, done: int, total: int) -> None:
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, SpinnerColumn, TextColumn
            from rich.progress import Progress as Bar

            columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), DownloadColumn())
            self._bar = Bar(
                *columns,
                console=Console(stderr=True),  # it knows NO_COLOR
                transient=True,
            )
            self._task = self._bar.add_task(self._name)
            self._bar.start()
        text = f"{self._name}: {STAGES.get(stage, stage)}"
        self._bar.update(self._task, description=text, completed=done, total=total or None)
