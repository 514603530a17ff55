"""Runtimes: the language interpreters that the node offers to functions."""

from __future__ import annotations

import re
from enum import Enum

from runtimed.model.shape import Shape

PYTHON_MINOR_MIN = 9
"""The oldest CPython that the bootstrap supports."""

CUSTOM = ("provided.al2023", "provided")
"""Runtimes that the package brings: an executable `bootstrap` at its top, which speaks the Runtime API."""

ENTRYPOINT = "bootstrap"

NODE_MAJOR_MIN = 18
"""The oldest Node.js that the bootstrap supports."""

_PYTHON = re.compile(r"python3\.(\d{1,3})", re.ASCII)
_NODE = re.compile(r"nodejs(\d{1,3})\.x", re.ASCII)


class RuntimeState(Enum):
    PENDING = "Pending"
    READY = "Ready"
    FAILED = "Failed"


class SpareCounts(Shape, frozen=True, kw_only=True):
    """Of a runtime: sandboxes that are made ahead of demand and wait for a function's code."""

    ready: int = 0
    """That are there now."""
    made: int = 0
    """Since the node started, as are the other two."""
    taken: int = 0
    """That became environments."""
    failed: int = 0
    """That could not be made, or ended before anybody took them."""


class RuntimeStatus(Shape, frozen=True, kw_only=True):
    """One runtime of the node."""

    name: str
    """python3.N, nodejsN.x, or one of CUSTOM."""
    version: str
    """The full version, such as 3.11.2."""
    path: str
    """The interpreter on the host; of a custom runtime, that from whose processes it is started."""
    state: RuntimeState
    reason: str = ""
    """Why it cannot be used, when it failed."""
    spares: SpareCounts = SpareCounts()
    """Of the processes of this interpreter; custom runtimes and Node.js take from those of their Python."""


def python_minor(name: str) -> int | None:
    """N of python3.N; None for anything else."""
    match = _PYTHON.fullmatch(name)
    return int(match[1]) if match else None


def is_custom(name: str) -> bool:
    return name in CUSTOM


def node_major(name: str) -> int | None:
    """N of nodejsN.x; None for anything else."""
    match = _NODE.fullmatch(name)
    return int(match[1]) if match else None


def is_executed(name: str) -> bool:
    """A runtime whose environments begin as a Python's, execute something else, and speak the Runtime API."""
    return is_custom(name) or node_major(name) is not None


def newest(names: list[str]) -> str | None:
    """The newest Python among the names of runtimes."""
    pythons = [(minor, name) for name in names if (minor := python_minor(name)) is not None]
    return max(pythons)[1] if pythons else None
