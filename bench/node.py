"""A real node in directories of its own: started, awaited, stopped, and searched for what it left behind.

The tests, the demo and the benches use it; it needs root. Everything the node owns can be found again from its two
directories: the cgroup's name derives from the run directory, loop devices and mounts name the state directory, and
all processes descend from the launcher.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

ROOT = pathlib.Path(__file__).resolve().parent.parent
PROC = pathlib.Path("/proc")
CGROUPS = pathlib.Path("/sys/fs/cgroup")
# The command as installed, without depending on where: `runtimectl` from this interpreter.
RUNTIMECTL = (
    sys.executable,
    "-c",
    "import sys; from runtimed.cli import main; sys.argv[0] = 'runtimectl'; sys.exit(main())",
)
# How many times longer than usual everything may take here: an emulated machine is some twelve times slower.
PATIENCE = float(os.environ.get("RUNTIMED_TEST_PATIENCE", "1"))
SHARES = 200  # of user ids, for nodes beside each other
NAMESPACES = ("cgroup", "ipc", "mnt", "net", "pid", "user", "uts")


class Process(NamedTuple):
    """One process; the start time tells it from a later one with the same id."""

    pid: int
    started: int
    name: str
    command: str


def processes() -> dict[int, tuple[Process, int]]:
    """All processes of the machine with their parents."""
    found = {}
    for entry in PROC.iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            head, _, tail = (entry / "stat").read_text().rpartition(")")
            fields = tail.split()
            if fields[0] in "ZX":
                continue
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            process = Process(int(entry.name), int(fields[19]), head.partition("(")[2], command)
            found[process.pid] = (process, int(fields[1]))
    return found


def await_true(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Polls until the condition holds; TimeoutError names what did not happen."""
    deadline = time.monotonic() + seconds * PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds:g} s")
        time.sleep(0.01)


class Node:
    """One running node. `with Node.start() as node:` stops it and raises AssertionError when anything is left."""

    def __init__(self, directory: pathlib.Path, environment: Mapping[str, str], prefix: Sequence[str] = ()) -> None:
        """`prefix`: a command that executes the rest of its arguments, such as prlimit(1)."""
        self.directory = directory
        self.state_dir = directory / "state"
        self.run_dir = directory / "run"
        self.log = directory / "daemon.log"
        self.address = f"unix:{self.run_dir}/control.sock"
        self.cgroup = "runtimed-" + hashlib.sha256(str(self.run_dir).encode()).hexdigest()[:8]
        self.environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment, "RUNTIMED_ADDRESS": self.address}
        self.prefix = prefix
        self.launcher = self._launch()

    def _launch(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as log:
            return subprocess.Popen(  # the command becomes the launcher, so this is the launcher's pid
                [*self.prefix, sys.executable, "-m", "runtimed",
                 "--state-dir", self.state_dir, "--run-dir", self.run_dir],
                env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip

    def start_again(self, seconds: float = 60) -> None:
        """In the same directories, after the launcher ended, however it did. Returns when the node answers."""
        self.launcher.wait(seconds)
        self.launcher = self._launch()
        await_true(self.answers, seconds, "the node's return")

    @classmethod
    def start(
        cls, environment: Mapping[str, str] | None = None, seconds: float = 60, prefix: Sequence[str] = ()
    ) -> Node:
        """A node that answers. What it wrote is part of the error when it does not."""
        directory = fresh_directory()
        node = cls(directory, {**private(directory), **(environment or {})}, prefix)
        try:
            await_true(node.answers, seconds, "the node's first answer")
        except BaseException as error:
            if sys.exc_info()[0] is not KeyboardInterrupt:
                error.add_note(node.log.read_text(errors="replace")[-4000:])
            node.launcher.kill()
            node.launcher.wait()
            raise
        return node

    def answers(self) -> bool:
        """Does the control plane say that it serves? RuntimeError when the launcher has gone."""
        if self.launcher.poll() is not None:
            raise RuntimeError(f"the launcher left with {self.launcher.returncode}")
        with grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(), timeout=2 * PATIENCE
                )
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def runtimectl(self, *arguments: str | os.PathLike[str], input: str | bytes | None = None,
                   seconds: float = 120) -> subprocess.CompletedProcess[str]:  # fmt: skip
        """Runs the command line against this node; standard output and error are text."""
        data = input.encode() if isinstance(input, str) else input
        done = subprocess.run(
            [*RUNTIMECTL, *(os.fspath(argument) for argument in arguments)],
            env=self.environment, input=data if data is not None else b"", capture_output=True,
            timeout=seconds * PATIENCE, check=False,
        )  # fmt: skip
        return subprocess.CompletedProcess(
            done.args, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
        )

    def processes(self) -> list[Process]:
        """The launcher, all that descends from it, and whoever sits in its cgroups."""
        everybody = processes()
        mine = {self.launcher.pid}
        grown = True
        while grown:
            children = {pid for pid, (_, parent) in everybody.items() if parent in mine}
            grown = not children <= mine
            mine |= children
        for pid in everybody:
            with contextlib.suppress(OSError):
                if f"/{self.cgroup}" in (PROC / str(pid) / "cgroup").read_text():
                    mine.add(pid)
        return [everybody[pid][0] for pid in sorted(mine) if pid in everybody]

    def roles(self) -> dict[str, int]:
        """Process ids of the three daemons, by role; a role that is not running is absent."""
        words = {"control": "runtimed.daemon", "dispatch": "runtimed-dispatch"}
        # By its number: what the launcher forked bears its name too.
        found = {} if self.launcher.poll() is not None else {"launcher": self.launcher.pid}
        for process in self.processes():
            for role, word in words.items():
                if word in process.command.split(" --")[0]:
                    found.setdefault(role, process.pid)
        return found

    def stop(self, seconds: float = 60) -> list[str]:
        """SIGTERM, then the search. Returns what is left over, as sentences; the directories go when nothing is."""
        before = self.processes()
        spaces = namespaces(process.pid for process in before) - namespaces([os.getpid()])
        inside = {process for process, _ in processes().values() if namespaces([process.pid]) & spaces}
        if self.launcher.poll() is None:
            self.launcher.send_signal(signal.SIGTERM)
        found = []
        try:
            status = self.launcher.wait(seconds * PATIENCE)
            if status != 0:
                found.append(f"the launcher ended with {status}")
        except subprocess.TimeoutExpired:
            found.append(f"the launcher did not end within {seconds:g} s of SIGTERM")
            self.launcher.kill()
            self.launcher.wait()
        left: list[str] = []

        def clean() -> bool:
            left[:] = self.leftovers(before, spaces, inside)
            return not left

        with contextlib.suppress(TimeoutError):  # the kernel takes network namespaces and loop devices down later
            await_true(clean, 60, "clean")
        found += left
        if not found:
            shutil.rmtree(self.directory)
        return found

    def leftovers(self, before: list[Process], spaces: set[str], inside: set[Process] | None = None) -> list[str]:
        """What is still there of a node that has ended. `inside`: who was in its namespaces."""
        now = {process for process, _ in processes().values()}
        found = [f"process {p.pid}: {p.name} {p.command}" for p in before if p in now]
        found += [f"process {p.pid} in its cgroup: {p.command}" for p in self.processes()]
        found += [f"cgroup {path}" for path in cgroups(self.cgroup)]
        found += [f"mount {line}" for line in mounts() if str(self.directory) in line]
        found += [f"loop device {path}" for path in loop_devices(self.directory)]
        # A namespace's number is given again: who was not in it before is in one of somebody else's.
        those = now if inside is None else now & inside
        found += [f"namespace {space}" for space in spaces & namespaces([p.pid for p in those])]
        found += [f"namespace mount {line}" for line in mounts() for space in spaces if space in line]
        for folder in (self.run_dir, self.state_dir / "tmp", self.state_dir / "staging"):
            found += [f"file {top}/{name}" for top, _, names in os.walk(folder) for name in sorted(names)]
        return found

    def __enter__(self) -> Node:
        return self

    def __exit__(self, *_: object) -> None:
        left = self.stop()
        if left:
            raise AssertionError("left over:\n  " + "\n  ".join(left) + f"\nthe daemon's output is in {self.log}")


def fresh_directory() -> pathlib.Path:
    """For a node: none that is there has the same share of user ids, as far as there are enough of them."""
    for _ in range(SHARES):
        directory = pathlib.Path(tempfile.mkdtemp(prefix="runtimed-node-"))
        if share_of(directory) not in {share_of(other) for other in directory.parent.glob("runtimed-node-*")
                                       if other != directory}:  # fmt: skip
            break
        directory.rmdir()
    else:
        directory = pathlib.Path(tempfile.mkdtemp(prefix="runtimed-node-"))
    directory.chmod(0o755)
    return directory


def share_of(directory: pathlib.Path) -> int:
    """Which of the shares of user ids a node in that directory has."""
    return int.from_bytes(hashlib.sha256(str(directory).encode()).digest()[:2]) % SHARES


def free_address() -> str:
    """An address of this machine on which nobody listens. Its port is not among those that the kernel gives to whoever
    asks for any, so that it stays free until it is used."""
    lowest = int((PROC / "sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for port in random.sample(range(10_000, max(lowest, 11_000)), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return f"127.0.0.1:{port}"
    raise OSError("no port is free")


def private(directory: pathlib.Path) -> dict[str, str]:
    """Settings by which nodes on one machine stay apart: no TCP port, and user ids of their own (below 2.8e9). And
    nothing is launched, or ended sooner, by what was learnt of a function: who looks at that says so."""
    share = share_of(directory)
    return {
        "RUNTIMED_API_LISTEN": "",
        "RUNTIMED_INVOKE_LISTEN": "",
        "RUNTIMED_METRICS_LISTEN": "",
        "RUNTIMED_POOLS_KEEP_ALIVE": "fixed",
        "RUNTIMED_POOLS_PARKED": "0",
        "RUNTIMED_SANDBOX_UID_BASE": str(1_900_019_712 + share * 64 * 65_536),
    }


def namespaces(pids: Iterator[int] | list[int]) -> set[str]:
    """The namespaces that these processes are in, as the kernel writes them: `net:[4026531840]`."""
    found = set()
    for pid in pids:
        for kind in NAMESPACES:
            with contextlib.suppress(OSError):
                found.add(os.readlink(PROC / str(pid) / "ns" / kind))
    return found


def cgroups(name: str) -> list[pathlib.Path]:
    """Cgroup directories of that name in every hierarchy."""
    found = []
    for directory, folders, _ in os.walk(CGROUPS):
        if name in folders:
            found.append(pathlib.Path(directory) / name)
            folders.remove(name)
    return found


def below(top: pathlib.Path) -> Iterator[pathlib.Path]:
    """A directory and all below it; those that vanish while one looks are passed over."""
    for directory, _, _ in os.walk(top):
        yield pathlib.Path(directory)


def mounts() -> list[str]:
    return (PROC / "self" / "mountinfo").read_text().splitlines()


def loop_devices(directory: pathlib.Path) -> list[str]:
    """Loop devices whose backing file lies (or lay) below the directory."""
    found = []
    for backing in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            path = backing.read_text().strip()
            if path.startswith(f"{directory}/"):
                found.append(f"/dev/{backing.parent.parent.name} of {path}")
    return found
