"""Which Pythons the node offers.

The candidates were found by name only. Each is asked for its version by the probe, a program of ours that the
launcher runs with it in a jail, and nothing that comes back is believed beyond a version number. CPython 3.9 and
later is offered as python3.N; of several with one N the newest patch wins, then the first in the list. For each
runtime offered the launcher keeps zygotes; what it says of them is the runtime's state.

Node.js is offered as nodejsN.x for what the probes of offered Pythons found in a sandbox's /usr. Its environments, and
those of custom runtimes, are forked from the newest Python's zygotes and execute what they are.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable, Mapping, Sequence

import msgspec
from msgspec import Struct

from runtimed.link.mirror import Refused
from runtimed.model import wire
from runtimed.model.runtime import (
    CUSTOM,
    NODE_MAJOR_MIN,
    PYTHON_MINOR_MIN,
    RuntimeState,
    RuntimeStatus,
    SpareCounts,
    is_executed,
    newest,
    node_major,
)
from runtimed.sandbox.launcher import Failed, Launcher
from runtimed.sandbox.tasks import run_task

PROBE_MEMORY_MB = 128
PROBE_TIMEOUT_MS = 10_000
PROBE_ANSWER_BYTES = 4096
PROBES_AT_ONCE = 4

log = logging.getLogger(__name__)


class ProbeAnswer(Struct, frozen=True):
    """Of what runtimed/bootstrap/probe.py prints, the members that decide."""

    implementation: str
    version: str
    gil: bool = True
    nodes: dict[str, str] = {}  # noqa: RUF012: msgspec copies it


class Candidate(Struct, frozen=True):
    """An interpreter: `number` is its index in the boot configuration."""

    number: int
    path: str


class Node(Struct, frozen=True):
    """A Node.js that sandboxes see."""

    path: str
    version: tuple[int, int, int]

    @property
    def name(self) -> str:
        return f"nodejs{self.version[0]}.x"


class Probed(Struct, frozen=True, kw_only=True):
    """What became of a candidate: `reason` says why it is not offered."""

    candidate: Candidate
    name: str
    version: tuple[int, int, int] = (0, 0, 0)
    reason: str = ""
    nodes: tuple[Node, ...] = ()


_answer_decoder = msgspec.json.Decoder(ProbeAnswer)
_NAMED = re.compile(r"python3\.(\d{1,3})$")
_NODE_PATH = re.compile(r"/usr/(local/)?bin/node[a-z0-9.]*", re.ASCII)
_NODE_VERSION = re.compile(r"v(\d{1,3})\.(\d{1,3})\.(\d{1,3})", re.ASCII)
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})\.(\d{1,3})")  # what may follow, as in 3.14.0rc1, does not matter
_STATES = {
    wire.Progress.PENDING: RuntimeState.PENDING,
    wire.Progress.READY: RuntimeState.READY,
    wire.Progress.FAILED: RuntimeState.FAILED,
}


class Runtimes:
    """The candidates, and what is offered of them."""

    def __init__(self, launcher: Launcher, candidates: Sequence[Candidate]) -> None:
        self._launcher = launcher
        self._candidates = candidates
        self._probed: list[Probed] = []
        self._offered: dict[str, Probed] = {}
        self._nodes: dict[str, Node] = {}

    async def discover(self) -> None:
        """Probes all candidates and tells the launcher (by `preload_runtime`) which to keep zygotes of."""
        places = asyncio.Semaphore(PROBES_AT_ONCE)

        async def probe(candidate: Candidate) -> Probed:
            async with places:
                return await self._probe(candidate)

        self._probed = list(await asyncio.gather(*map(probe, self._candidates)))
        self._offered = choose(self._probed)
        self._nodes = choose_nodes(self._offered.values())
        for probed in self._probed:
            if probed.reason:
                log.warning("%s is not offered: %s", probed.candidate.path, probed.reason)
        for name, probed in self._offered.items():
            self._launcher.preload_runtime(probed.candidate.number, name)

    def interpreter(self, name: str) -> int | None:
        """The number of the Python behind a runtime's name."""
        if node_major(name) is not None and name not in self._nodes:
            return None
        probed = self._offered.get(self.zygote(name))
        return probed.candidate.number if probed else None

    def executable(self, name: str) -> str:
        """What environments of a runtime execute; nothing for Python's, and for those that the package brings."""
        node = self._nodes.get(name)
        return node.path if node is not None else ""

    def zygote(self, name: str) -> str:
        """From whose zygotes a runtime's environments are forked: its own; of those that execute something else, the
        newest Python's."""
        return newest(list(self._offered)) or name if is_executed(name) else name

    def status(self) -> list[RuntimeStatus]:
        """Offered ones first, newest first; then those that do not work, with the reason."""
        offered = sorted(self._offered.values(), key=lambda probed: probed.version, reverse=True)
        failed = [probed for probed in self._probed if probed.reason]
        executed = [
            msgspec.structs.replace(
                self._status(offered[0]),
                name=node.name,
                version=".".join(map(str, node.version)),
                path=node.path,
                spares=SpareCounts(),
            )
            for node in sorted(self._nodes.values(), key=lambda node: node.version, reverse=True)
        ] + [
            msgspec.structs.replace(self._status(offered[0]), name=name, version="", spares=SpareCounts())
            for name in CUSTOM[: len(offered)]
        ]
        return [self._status(probed) for probed in offered] + executed + [self._status(probed) for probed in failed]

    def zygotes(self) -> list[tuple[str, int]]:
        """Name of a runtime and pid of one of its zygotes, as the launcher last said."""
        states = [self._launcher.runtime_state(probed.candidate.number) for probed in self._offered.values()]
        return [(state.name, state.pid) for state in states if state is not None and state.pid]

    def _status(self, probed: Probed) -> RuntimeStatus:
        version = ".".join(map(str, probed.version)) if any(probed.version) else ""
        state, reason = RuntimeState.PENDING, ""
        told = self._launcher.runtime_state(probed.candidate.number)
        if probed.reason:
            state, reason = RuntimeState.FAILED, probed.reason
        elif told is not None:
            state = _STATES.get(wire.Progress(told.state), RuntimeState.FAILED)
            reason = told.reason if state is RuntimeState.FAILED else ""
        return RuntimeStatus(
            name=probed.name,
            version=version,
            path=probed.candidate.path,
            state=state,
            reason=reason,
            spares=self._spares(probed.candidate.number),
        )

    def spares(self) -> list[tuple[str, SpareCounts]]:
        """Of each runtime that has zygotes: parked sandboxes, as the launcher last said."""
        return [(probed.name, self._spares(probed.candidate.number)) for probed in self._offered.values()]

    def _spares(self, interpreter: int) -> SpareCounts:
        told = self._launcher.spares(interpreter)
        return SpareCounts(ready=told.ready, made=told.made, taken=told.taken, failed=told.failed)

    async def _probe(self, candidate: Candidate) -> Probed:
        answer = bytearray()

        def feed(piece: bytes) -> bool:
            answer.extend(piece[: PROBE_ANSWER_BYTES + 1 - len(answer)])
            return len(answer) <= PROBE_ANSWER_BYTES

        named = _NAMED.search(candidate.path)
        guess = f"python3.{named[1]}" if named else "python3"
        try:
            outcome = await run_task(
                self._launcher,
                wire.TaskKind.PROBE,
                feed,
                interpreter=candidate.number,
                memory_mb=PROBE_MEMORY_MB,
                timeout_ms=PROBE_TIMEOUT_MS,
            )
        except (Failed, Refused) as error:
            return Probed(candidate=candidate, name=guess, reason=str(error))
        if outcome.refused:
            return Probed(candidate=candidate, name=guess, reason="its answer is too long")
        if not outcome.end.succeeded:
            complaint = f": {outcome.complaint[-300:]}" if outcome.complaint else ""
            return Probed(candidate=candidate, name=guess, reason=f"{outcome.end.explain()}{complaint}")
        return judge(candidate, guess, bytes(answer))


def judge(candidate: Candidate, guess: str, answer: bytes) -> Probed:
    """What a probe's answer means."""
    try:
        told = _answer_decoder.decode(answer)
    except msgspec.DecodeError:
        return Probed(candidate=candidate, name=guess, reason="its answer makes no sense")
    numbers = _VERSION.match(told.version)
    if numbers is None:
        return Probed(candidate=candidate, name=guess, reason="its version makes no sense")
    version = (int(numbers[1]), int(numbers[2]), int(numbers[3]))
    reason = ""
    if told.implementation != "cpython":
        reason = "it is not CPython"
    elif not told.gil:
        reason = "it is a build without the GIL"
    elif version < (3, PYTHON_MINOR_MIN):
        reason = f"it is older than 3.{PYTHON_MINOR_MIN}"
    elif version >= (4,):
        reason = "it is not Python 3"
    name = f"python3.{version[1]}"
    return Probed(candidate=candidate, name=name, version=version, reason=reason, nodes=judge_nodes(told.nodes))


def judge_nodes(told: Mapping[str, str]) -> tuple[Node, ...]:
    """Those that can be offered."""
    found = []
    for path, text in told.items():
        numbers = _NODE_VERSION.fullmatch(text)
        if numbers is not None and int(numbers[1]) >= NODE_MAJOR_MIN and _NODE_PATH.fullmatch(path):
            found.append(Node(path, (int(numbers[1]), int(numbers[2]), int(numbers[3]))))
    return tuple(found)


def choose_nodes(offered: Iterable[Probed]) -> dict[str, Node]:
    """By name: the newest. All Pythons see the same ones, but those that settings name may see more of the host."""
    chosen: dict[str, Node] = {}
    best = max(offered, key=lambda probed: probed.version, default=None)  # their environments come from its zygotes
    for node in best.nodes if best is not None else ():
        if node.name not in chosen or node.version > chosen[node.name].version:
            chosen[node.name] = node
    return chosen


def choose(probed: Sequence[Probed]) -> dict[str, Probed]:
    """By name: the newest patch, then the first."""
    chosen: dict[str, Probed] = {}
    for candidate in probed:
        if candidate.reason:
            continue
        best = chosen.get(candidate.name)
        if best is None or candidate.version > best.version:
            chosen[candidate.name] = candidate
    return chosen
