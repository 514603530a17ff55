"""The control plane's own log: one line an event on standard error, which the journal keeps with time and unit."""

from __future__ import annotations

import logging
import sys


class _OneLine(logging.Formatter):
    """`runtimed: warning: text`; what follows a newline (a trace) is indented, so that it is seen to belong there."""

    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno == logging.INFO else f"{record.levelname.lower()}: "
        text = f"runtimed: {level}{super().format(record)}"
        return text.replace("\n", "\n  ")


def begin_logging(level: str) -> None:
    """Once, at start."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    logging.captureWarnings(True)
