"""A stage for the launcher: a real `runtimed-launcher` with real zygotes, whose control plane and dispatcher are two
tiny programs that hand their sockets to the test. The test then speaks for both.

The launcher is told its own directories, cgroup name and range of ids, so that stages do not meet a node that runs.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from runtimed.__main__ import find_libexec
from runtimed.model import wire
from tests.integration.launcher_peers import PATIENCE, Environment, Peer

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = "stage"
INTERPRETER = {"path": "/usr/bin/python3", "prefix": "/usr"}

# Runs as a service: passes its descriptors on and stays until it is killed, or told to leave.
RELAY = """\
import os, socket, sys, time
name, sockets = sys.argv[1], [int(fd) for fd in sys.argv[2].split(",")]
stage = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
stage.connect(os.path.join(os.path.dirname(os.path.abspath(sys.argv[0])), name + ".stage"))
socket.send_fds(stage, [name.encode()], sockets)
for fd in sockets:
    os.close(fd)
status = stage.recv(1)
os._exit(status[0] if status else 0)
"""


def libexec_of_build() -> Path:
    """Where the programs under test are: RUNTIMED_LIBEXEC, or those of the installation."""
    given = os.environ.get("RUNTIMED_LIBEXEC")
    return Path(given) if given else find_libexec()


class Stage:
    """One launcher."""

    def __init__(
        self,
        root: Path,
        *,
        zygotes: int = 2,
        shells: int = 8,
        spares: int = 0,
        tmp_pool: int = 4,
        drain_ms: int = 200,
        disk_reserve_mb: int = 1,
        snapshots: dict[str, int] | None = None,
    ) -> None:
        self.root = root
        self.run_dir, self.state_dir, self.libexec = root / "run", root / "state", root / "libexec"
        self.cgroup_name = "runtimed-" + hashlib.sha256(str(self.run_dir).encode()).hexdigest()[:8]
        # Of the process that tests: two of them beside each other look for processes by their users.
        uids = 1_700_000_000 + os.getpid() % 190 * 1_000_000
        self.settings = {
            "build": BUILD,
            "run_dir": str(self.run_dir),
            "state_dir": str(self.state_dir),
            "libexec": str(self.libexec),
            "bootstrap": str(root / "bootstrap"),
            "cgroup_name": self.cgroup_name,
            "uid_base": uids,
            "control": {
                "uid": uids + 1,
                "gid": uids + 1,
                "argv": ["/usr/bin/python3", "-I", "-S", str(self.libexec / "relay.py"), "control", "3"],
                "environment": {},
                "mounts": [{"source": str(self.libexec), "target": str(self.libexec), "writable": False}],
            },
            "dispatch": {"uid": uids + 2, "gid": uids + 2, "loops": 1, "busy_percent": 75},
            "socket_gid": 0,
            "interpreters": [INTERPRETER, {"path": "/usr/bin/no-such-python", "prefix": "/usr"}],
            "zygotes_per_runtime": zygotes,
            "shells": shells,
            "spares": spares,
            "tmp_pool": tmp_pool,
            "disk_reserve_mb": disk_reserve_mb,
            "invoke_address": "",
            "invoke_port": 0,
            "drain_ms": drain_ms,
            "hang_ms": 0,
            "log_level": "info",
            "logs": {"function_mb": 32, "node_mb": 0, "days": 0},
            "events": {"segment_mb": 8},
            "snapshots": {"memory_mb": 0, "making_ms": 60_000, "uses": 1000, "age_ms": 3_600_000, **(snapshots or {})},
        }
        self.process: subprocess.Popen[bytes] | None = None
        self._listeners: dict[str, socket.socket] = {}
        self._prepare()

    def _prepare(self) -> None:
        for directory in (self.run_dir, self.state_dir, self.libexec, self.state_dir / "packages" / "sha256"):
            directory.mkdir(parents=True, exist_ok=True)
        os.chmod(self.root, 0o755)
        shutil.copytree(libexec_of_build() / "python", self.libexec / "python", dirs_exist_ok=True)
        shutil.copytree(REPOSITORY / "runtimed" / "bootstrap", self.root / "bootstrap", dirs_exist_ok=True)
        (self.libexec / "relay.py").write_text(RELAY)
        dispatch = self.libexec / "runtimed-dispatch"
        dispatch.write_text(
            "#!/bin/sh\nexec /usr/bin/python3 -I -S " + str(self.libexec / "relay.py") + " dispatch 3,4,5\n"
        )
        dispatch.chmod(0o755)
        for name in ("control", "dispatch"):
            listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            path = self.libexec / f"{name}.stage"
            listener.bind(str(path))
            path.chmod(0o666)
            listener.listen(4)
            self._listeners[name] = listener

    def start(self, *, stderr: int | None = None, environment: dict[str, str] | None = None) -> None:
        self.process = self.spawn(stderr, environment)

    def spawn(self, stderr: int | None = None, environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        """A launcher with the settings as they are."""
        memfd = os.memfd_create("boot")
        os.write(memfd, json.dumps(self.settings).encode())

        def as_three() -> None:
            if memfd != 3:
                os.dup2(memfd, 3)
            else:
                os.set_inheritable(3, True)

        try:
            return subprocess.Popen(
                [str(libexec_of_build() / "runtimed-launcher")],
                close_fds=False,
                preexec_fn=as_three,
                stderr=stderr,
                env={**os.environ, **(environment or {})},
            )
        finally:
            os.close(memfd)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def accept(self, name: str) -> Peer:
        """The next incarnation of a service."""
        listener = self._listeners[name]
        if not select.select([listener], [], [], PATIENCE)[0]:
            raise TimeoutError(f"{name} did not start")
        stage, _ = listener.accept()
        pid, _uid, _gid = credentials_of(stage)
        _data, fds, _flags, _address = socket.recv_fds(stage, 64, 8)
        return Peer(socket.socket(fileno=fds[0]), pid, list(fds[1:]), stage)

    def greet(self, peer: Peer, role: wire.Role) -> None:
        peer.send(wire.Hello(role=role, build=BUILD))
        peer.expect(wire.Hello)

    def deploy(self, code: str) -> str:
        """A package of one file; its key."""
        key = hashlib.sha256(code.encode()).hexdigest()
        directory = self.state_dir / "packages" / "sha256" / key
        directory.mkdir(exist_ok=True)
        (directory / "app.py").write_text(code)
        subprocess.run([INTERPRETER["path"], "-m", "compileall", "-q", str(directory)], check=True)
        return key

    def stop(self) -> int:
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(PATIENCE)
        for listener in self._listeners.values():
            listener.close()


def credentials_of(sock: socket.socket) -> tuple[int, int, int]:
    raw = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("3i", raw)
    return pid, uid, gid


def plan(package: str, **changes: object) -> wire.PutPlan:
    fields: dict[str, object] = {
        "max": 100,
        "rate": 10_000,
        "runtime": "python3",
        "package": package,
        "memory_mb": 128,
        "storage_mb": 512,
        "pids": 1024,
        "descriptors": 1024,
        "cpu": wire.CpuMode.WEIGHT,
    }
    return wire.PutPlan(**{**fields, **changes})  # type: ignore[arg-type]


class Played(Stage):
    """A stage with both services greeted and a runtime put."""

    def __init__(self, root: Path, snapshots: dict[str, int] | None = None, **options: int) -> None:
        super().__init__(root, snapshots=snapshots, **options)
        self._id = 0
        self._environments: list[Environment] = []

    def begin(self, **options: object) -> None:
        self.start(**options)  # type: ignore[arg-type]
        self.meet()

    def meet(self) -> None:
        """Takes the place of the services that start."""
        self.dispatch = self.accept("dispatch")
        self.control = self.accept("control")
        self.greet(self.control, wire.Role.CONTROL)
        self.greet(self.dispatch, wire.Role.DISPATCH)
        assert self.control.request(wire.PutRuntime(name="python3"), 0) is None

    def put(self, number: int, message: wire.PutPlan) -> None:
        """Puts a plan and waits until it can be launched."""
        refused = self.control.request(message, number)
        assert refused is None, refused
        _header, state, _ = self.control.expect(
            wire.PlanState, number, lambda state: state.state != wire.Progress.PENDING
        )
        assert state.state == wire.Progress.READY, state

    def launch(self, number: int) -> Environment:
        id_ = self.ask(number)
        return self.launched(id_)

    def launched(self, id_: int) -> Environment:
        """The environment asked for; closed with the stage if not before."""
        _header, launched, fds = self.dispatch.expect(wire.Launched, id_)
        environment = Environment(id_, launched, fds)
        self._environments.append(environment)
        return environment

    def ask(self, number: int) -> int:
        self._id += 1
        self.dispatch.send(wire.Launch(plan=number), self._id)
        return self._id

    def end(self, environment: Environment) -> wire.Exited:
        self.dispatch.send(wire.End(reason=0), environment.id)
        exited = self.exited(environment)
        environment.close()
        return exited

    def exited(self, environment: Environment) -> wire.Exited:
        return self.dispatch.expect(wire.Exited, environment.id)[1]

    def close(self) -> None:
        super().close()
        for environment in self._environments:
            environment.close()
        for peer in (getattr(self, "control", None), getattr(self, "dispatch", None)):
            if peer is not None:
                peer.close()


@contextlib.contextmanager
def played(*, snapshots: dict[str, int] | None = None, **options: int) -> Iterator[Played]:
    """A stage in a directory of its own, begun."""
    with tempfile.TemporaryDirectory(prefix="runtimed-stage-") as directory:
        stage = Played(Path(directory), snapshots, **options)
        try:
            stage.begin()
            yield stage
        finally:
            stage.close()
