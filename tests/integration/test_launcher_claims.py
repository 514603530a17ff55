"""A zygote that lies. Its socket is the only way to the launcher for whoever takes a zygote over, and what it says of
the environments it forked is a claim: which process they are decides whom the launcher signals, as root of the host."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.launcher_stage import Environment, Played, plan

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")

# In place of zygote.py, where the launcher runs it: says that it is ready, and answers each FORK with the claim that
# lies beside it. Its children end with it: a pipe of theirs ends.
DOUBLE = f"""
import ctypes, json, os, signal, socket, struct
HEADER = struct.Struct("<HBBIIIQQ")
libc = ctypes.CDLL(None, use_errno=True)
launcher = socket.socket(fileno=3)
launcher.send(bytes.fromhex("{wire.encode(wire.ZygoteReady(version="3")).hex()}"))
held = []
def child(flags):
    alive = os.pipe()
    pid = libc.syscall(CLONE, ctypes.c_long(flags), 0, 0, 0, 0)
    if pid == 0:
        os.close(alive[1])
        os.read(alive[0], 1)
        os._exit(0)
    os.close(alive[0])
    held.append(alive[1])
    return pid
while True:
    data, fds, _, _ = socket.recv_fds(launcher, 81920, 16)
    if not data:
        break
    held.append(fds)
    number = HEADER.unpack_from(data)[6]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "claim.json")) as file:
        claim = json.load(file)
    libc.setns(fds[0], CLONE_NEWPID)  # as a zygote does: what it forks ends with the anchor
    sibling, own = child(CLONE_PARENT), child(signal.SIGCHLD)
    ended = child(CLONE_PARENT)
    ended_pidfd = os.pidfd_open(ended)
    os.close(held.pop())
    words = dict(sibling=sibling, own=own, itself=os.getpid(), parent=os.getppid(), ended=ended)
    pid = words.get(claim["pid"], claim["pid"])
    pidfds = [ended_pidfd if word == "ended" else os.open("/dev/null", os.O_RDWR) if word == "file"
              else os.pidfd_open(words[word]) for word in claim["pidfds"]]
    message = HEADER.pack(FORKED, 1, 0, 0, 0, 0, number + claim.get("beyond", 0), 0) + struct.pack("<I", pid)
    socket.send_fds(launcher, [message], pidfds)
    if claim.get("then"):
        os.kill(sibling, claim["then"])
"""

HOST, DISPATCH = "HOST", "DISPATCH"  # stand for pids that the test knows
CLAIMS: dict[str, dict[str, object]] = {
    "a process of the host": {"pid": HOST, "pidfds": ["sibling"]},
    "a process of the host, by a child that ended": {"pid": HOST, "pidfds": ["ended"]},
    "a process of the host, by a child of its own": {"pid": HOST, "pidfds": ["own"]},
    "a child of its own": {"pid": "own", "pidfds": ["own"]},
    "itself": {"pid": "itself", "pidfds": ["itself"]},
    "the launcher": {"pid": "parent", "pidfds": ["parent"]},
    "the launcher, by a child": {"pid": "parent", "pidfds": ["sibling"]},
    "the dispatcher": {"pid": DISPATCH, "pidfds": ["sibling"]},
    "init": {"pid": 1, "pidfds": ["sibling"]},
    "everybody": {"pid": 0xFFFFFFFF, "pidfds": ["sibling"]},
    "its group": {"pid": 0, "pidfds": ["sibling"]},
    "a number alone": {"pid": "sibling", "pidfds": []},
    "a file": {"pid": "sibling", "pidfds": ["file"]},
    "two descriptors": {"pid": "sibling", "pidfds": ["sibling", "sibling"]},
    "an environment that nobody asked for": {"pid": "sibling", "pidfds": ["sibling"], "beyond": 1000},
}


class Lying(Played):
    """A stage whose zygotes are the double."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, zygotes=1)
        numbers = {"FORKED": wire.Forked.TYPE, "CLONE": {"x86_64": 56, "aarch64": 220}[os.uname().machine]}
        head = "".join(
            f"{name} = {value}\n"
            for name, value in {**numbers, "CLONE_PARENT": 0x8000, "CLONE_NEWPID": 0x20000000}.items()
        )
        (root / "bootstrap" / "zygote.py").write_text(head + DOUBLE)

    def launched_at_last(self) -> Environment:
        """While the zygote is away launches are refused, to be tried again."""
        while True:
            id_ = self.ask(1)
            header, message, fds = self.dispatch.expect(wire.Message, id_)
            if isinstance(message, wire.Launched):
                self.dispatch.inbox.append((header, message, fds))
                return self.launched(id_)
            assert isinstance(message, wire.LaunchFailed) and message.retryable
            self.control.expect(wire.RuntimeState, 0, lambda state: state.state == wire.Progress.READY)

    def claim(self, claim: dict[str, object], host: int) -> None:
        words = {HOST: host, DISPATCH: self.dispatch.pid}
        said = {**claim, "pid": words.get(str(claim["pid"]), claim["pid"])}
        (self.root / "bootstrap" / "claim.json").write_text(json.dumps(said))


@pytest.fixture(scope="module")
def lying(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lying]:
    root = tmp_path_factory.mktemp("lying")
    for parent in (root, root.parent, root.parent.parent):
        parent.chmod(0o755)
    stage = Lying(root)
    try:
        stage.begin()
        stage.put(1, plan(stage.deploy("handler = print")))
        yield stage
    finally:
        stage.close()


@pytest.fixture
def bystander() -> Iterator[subprocess.Popen[bytes]]:
    """A process of root's that has nothing to do with the launcher."""
    code = "import sys; sys.stdin.read()"
    with subprocess.Popen([sys.executable, "-I", "-S", "-c", code], stdin=subprocess.PIPE) as process:
        yield process
        process.kill()


@pytest.mark.parametrize("name", CLAIMS)
def test_a_lie_ends_the_zygote(lying: Lying, bystander: subprocess.Popen[bytes], name: str) -> None:
    """And nobody else: the environment is told to have ended with its zygote; nothing was signalled."""
    lying.claim(CLAIMS[name], bystander.pid)
    environment = lying.launched_at_last()
    exited = lying.exited(environment)
    environment.close()
    assert exited.step == "zygote", exited
    assert bystander.poll() is None
    assert Path(f"/proc/{lying.dispatch.pid}").exists()
    assert lying.process is not None and lying.process.poll() is None


def test_what_is_true_is_believed(lying: Lying, bystander: subprocess.Popen[bytes]) -> None:
    """The control: a child of the launcher's, named rightly, is the environment, whose end is told as its end."""
    lying.claim({"pid": "sibling", "pidfds": ["sibling"], "then": signal.SIGTERM}, bystander.pid)
    environment = lying.launched_at_last()
    exited = lying.exited(environment)
    environment.close()
    assert (exited.step, os.WTERMSIG(exited.status)) == ("", signal.SIGTERM)
