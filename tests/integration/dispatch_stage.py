"""A stage for the dispatcher: the real `runtimed-dispatch`, with the test as launcher, environments, control plane and
invokers. Everything is told step by step over the real sockets; nothing else of the node is needed.

The program is taken from the installed package, or from RUNTIMED_DISPATCH.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bench import node
from runtimed.dispatch.counters import CounterPage
from runtimed.dispatch.logs import Cursor, Record
from runtimed.model import wire

REPOSITORY = Path(__file__).resolve().parents[2]
PROGRAM = Path(os.environ.get("RUNTIMED_DISPATCH", REPOSITORY / "runtimed" / "libexec" / "runtimed-dispatch"))
PATIENCE = 60.0 * node.PATIENCE
PART = 65536
UNSET = 0xFFFFFFFF
FUNCTION = bytes(range(16))
LEVELS = (wire.EnvState, wire.Demand, wire.LimitState, wire.QueueState)

M = TypeVar("M", bound=wire.Message)
Packet = tuple[wire.Header, Any]


def target(**changes: Any) -> wire.PutTarget:
    """A function version with room for one of everything; `changes` as PUT_TARGET's fields."""
    fields: dict[str, Any] = {
        "plan": 7,
        "function_uid": FUNCTION,
        "function_name": "f",
        "function_version": "$LATEST",
        "arn": "arn:aws:lambda:us-east-1:000000000000:function:f",
        "memory_mb": 128,
        "timeout_ms": 20_000,  # the test plays the environment, and may be slow
        "init_timeout_ms": 20_000,
        "max_environments": 10,
        "max_concurrency": UNSET,
        "max_waiting": 100,
        "keep_alive_ms": 60000,
        "configuration": b'{"handler":"app.handler"}',
    }
    return wire.PutTarget(**{**fields, **changes})


class Link:
    """One end of a SEQPACKET socket that speaks the protocol."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.received: list[int] = []  # descriptors, in the order of arrival; who asked owns them
        self._seq = 0

    def send(self, message: wire.Message, *, fds: tuple[int, ...] = (), **header: int) -> None:
        packet = wire.encode(message, **header)
        if fds:
            socket.send_fds(self.sock, [packet], list(fds))
        else:
            self.sock.send(packet)

    def raw(self, packet: bytes) -> None:
        self.sock.send(packet)

    def next(self, timeout: float = PATIENCE) -> Packet:
        self.sock.settimeout(timeout)
        packet, fds, _, _ = socket.recv_fds(self.sock, wire.MESSAGE_MAX, 8)
        self.received += fds
        if not packet:
            raise EOFError
        return wire.decode(packet)

    def expect(self, kind: type[M], timeout: float = PATIENCE) -> tuple[wire.Header, M]:
        header, message = self.next(timeout)
        assert isinstance(message, kind), message
        return header, message

    def silent(self, seconds: float = 0.05) -> bool:
        return not select.select([self.sock], [], [], seconds)[0]

    def closed(self, timeout: float = PATIENCE) -> bool:
        """The other side closes, whatever it says before."""
        try:
            while True:
                self.next(timeout)
        except (EOFError, ConnectionError):
            return True
        except TimeoutError:
            return False

    def close(self) -> None:
        for fd in self.received:
            with contextlib.suppress(OSError):
                os.close(fd)
        self.received.clear()
        self.sock.close()


class Launcher(Link):
    """The launcher's end. Who asks for an arena gets none unless the test says so: that is seen to apart."""

    def next(self, timeout: float = PATIENCE) -> Packet:
        while True:
            header, message = super().next(timeout)
            if not isinstance(message, wire.Arena):
                return header, message

    def any(self, timeout: float = PATIENCE) -> Packet:
        """What is there to read, one that asks for an arena too: for whoever waits for several sockets."""
        return super().next(timeout)

    def asked(self, timeout: float = PATIENCE) -> int:
        """The next message asks for an arena: for which environment."""
        header, message = super().next(timeout)
        assert isinstance(message, wire.Arena), message
        return header.object


class Environment(Link):
    """What the dispatcher takes for an execution environment: the other ends of what LAUNCHED carried."""

    def __init__(
        self, launcher: Link, number: int, directory: Path, *, peak: int, frozen: str,
        listener: socket.socket | None = None, restored: bool = False,
    ) -> None:  # fmt: skip
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        super().__init__(ours)
        self.launcher, self.number = launcher, number
        self.freezer = directory / f"freeze.{number}"
        self.freezer.write_text(frozen)
        memory = directory / f"peak.{number}"
        memory.write_text(f"{peak}\n")
        read, self.log = os.pipe()
        fds = (theirs.fileno(), read, os.open(self.freezer, os.O_RDWR), os.open(memory, os.O_RDONLY))
        flags = wire.LaunchedFlags
        kinds = flags.CHANNEL | flags.LOG | flags.FREEZE | flags.PEAK
        passed = fds
        if listener is not None:
            kinds |= flags.LISTENER
            passed += (listener.fileno(),)
        launcher.send(wire.Launched(descriptors=int(kinds), uid=1000, restored=restored), fds=passed, object=number)
        theirs.close()
        for fd in fds[1:]:
            os.close(fd)

    def start(self) -> wire.Start:
        """The init phase, done at once."""
        _, start = self.expect(wire.Start)
        self.send(wire.InitDone())
        return start

    def print(self, text: str | bytes) -> None:
        os.write(self.log, text.encode() if isinstance(text, str) else text)

    def invoke(self, timeout: float = PATIENCE) -> tuple[wire.Invoke, bytes]:
        """The next event, whole."""
        _, invoke = self.expect(wire.Invoke, timeout)
        body = bytearray(invoke.body)
        while len(body) < invoke.total:
            body += self.expect(wire.Chunk)[1].data
        assert len(body) == invoke.total
        return invoke, bytes(body)

    def result(self, number: bytes, body: bytes = b"{}", *, ready: bool = True, error: str = "") -> None:
        head = wire.Result(id=number, error=int(bool(error)), error_type=error, total=len(body), body=body[:PART])
        self.send(head, flags=wire.HeaderFlags.READY if ready else 0)
        for at in range(PART, len(body), PART):
            self.send(wire.Chunk(data=body[at : at + PART]))

    def serve(self, body: bytes = b"{}") -> wire.Invoke:
        """Answers one invocation."""
        invoke, _ = self.invoke()
        self.result(invoke.id, body)
        return invoke

    def hang_up(self) -> None:
        """All that the processes of the environment held is closed."""
        self.sock.close()
        if self.log >= 0:
            os.close(self.log)
        self.log = -1

    def close(self) -> None:
        super().close()
        self.hang_up()

    def exit(self, status: int = 0, **fields: Any) -> None:
        """As the launcher tells it."""
        self.hang_up()
        self.launcher.send(wire.Exited(status=status, **fields), object=self.number)


class Invoker(Link):
    """A connection to dispatch.sock."""

    def __init__(self, path: Path) -> None:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        super().__init__(sock)
        self._numbers = 0

    def call(self, payload: bytes = b"{}", name: str = "f", **fields: Any) -> int:
        self._numbers += 1
        call = wire.Call(name=name, total=len(payload), body=payload[:PART], **fields)
        self.send(call, object=self._numbers)
        for at in range(PART, len(payload), PART):
            self.send(wire.CallChunk(data=payload[at : at + PART]), object=self._numbers)
        return self._numbers

    def answer(self, number: int | None = None, timeout: float = PATIENCE) -> tuple[wire.Answer, bytes]:
        """The next answer, whole."""
        header, answer = self.expect(wire.Answer, timeout)
        assert number in (None, header.object)
        body = bytearray(answer.body)
        while len(body) < answer.total:
            chunk, part = self.expect(wire.AnswerChunk, timeout)
            assert chunk.object == header.object
            body += part.data
        assert len(body) == answer.total
        return answer, bytes(body)


class Control(Link):
    """The control plane's end."""

    def put(self, message: wire.Message, object_: int, generation: int = 1) -> int:
        self._seq += 1
        self.send(message, seq=self._seq, object=object_, generation=generation)
        return self._seq

    def next(self, timeout: float = PATIENCE) -> Packet:
        while True:
            header, message = super().next(timeout)
            if not isinstance(message, LEVELS):
                return header, message

    def level(self, kind: type[M], timeout: float = PATIENCE) -> tuple[wire.Header, M]:
        """The next one of this kind; others are passed over."""
        while True:
            header, message = super().next(timeout)
            if isinstance(message, kind):
                return header, message

    def acknowledged(self, seq: int) -> None:
        while self.expect(wire.Ack)[1].acknowledged < seq:
            pass

    def greet(self, build: str = "b1") -> list[tuple[int, wire.SnapshotEnvironment]]:
        """HELLO both ways; the snapshot."""
        self.send(wire.Hello(role=wire.Role.CONTROL, build=build))
        self.expect(wire.Hello)
        seen: list[tuple[int, wire.SnapshotEnvironment]] = []
        while True:
            header, message = self.next()
            if isinstance(message, wire.SnapshotEnd):
                return seen
            assert isinstance(message, wire.SnapshotEnvironment)
            seen.append((header.object, message))

    def synchronise(self, *puts: tuple[int, wire.Message], generation: int = 1) -> None:
        self.put(wire.SyncBegin(), 0, 0)
        for number, message in puts:
            self.put(message, number, generation)
        self.acknowledged(self.put(wire.SyncEnd(), 0, 0))


ROUTE = wire.PutRoute(name="f", qualifier="$LATEST", target=1)


class Stage:
    """The dispatcher's process and the other ends of what it was given."""

    def __init__(
        self, directory: Path, logs: Path | None = None, *, features: int = 0, before: int = -1, **environment: str
    ) -> None:
        """`logs`: where it writes them, if not in a new directory; `features`: 1: another one runs, and hands over;
        `before`: the counters page of the one before; `environment`: what is added to its own."""
        if not PROGRAM.exists():
            pytest.skip(f"{PROGRAM} is not built; ./dev setup")
        self.directory = directory
        self.logs = logs or directory / "logs"
        self.logs.mkdir(exist_ok=True)
        self.path = directory / "dispatch.sock"
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._listener.bind(str(self.path))
        self._listener.listen(128)
        self.http_path = directory / "invoke.sock"
        self._http = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._http.bind(str(self.http_path))
        self._http.listen(128)
        self._tcp = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._tcp.getsockname()[1]
        environment = {"RUNTIMED_HTTP_GROUP": str(2**32 - 1), "RUNTIMED_HTTP_TCP": "1", **environment}
        environment.setdefault("RUNTIMED_DISPATCH_LOOPS", os.environ.get("RUNTIMED_DISPATCH_LOOPS", "1"))
        # Spread by their number, unless it is told otherwise: tests count on which loop has which connection.
        environment.setdefault("RUNTIMED_DISPATCH_BUSY_PERCENT", "0")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.launcher = Launcher(ours)
        self.links: list[Link] = [self.launcher]
        self.pid = self._spawn(theirs, environment)
        theirs.close()
        hello = wire.Hello(role=wire.Role.LAUNCHER, build="b1", features=features)
        self.launcher.send(hello, fds=(before,) if before >= 0 else (), epoch=1)
        self.launcher.expect(wire.Hello)
        self._epoch = 0

    def _spawn(self, launcher: socket.socket, environment: dict[str, str]) -> int:
        """Descriptors 3 to 7, and no other."""
        logs = os.open(self.logs, os.O_RDONLY | os.O_DIRECTORY)
        low = (launcher.fileno(), self._listener.fileno(), logs, self._http.fileno(), self._tcp.fileno())
        high = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 100) for fd in low]
        actions = [(os.POSIX_SPAWN_DUP2, fd, number) for number, fd in enumerate(high, 3)]
        try:
            return os.posix_spawn(PROGRAM, [PROGRAM.name], {**os.environ, **environment}, file_actions=actions)
        finally:
            for fd in (*high, logs):
                os.close(fd)

    def control(self) -> Control:
        """A fresh incarnation of the control plane's link."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._epoch += 1
        peer = wire.Peer(role=wire.Role.CONTROL, peer_epoch=self._epoch)
        self.launcher.send(peer, fds=(theirs.fileno(),))
        theirs.close()
        link = Control(ours)
        self.links.append(link)
        return link

    def ready(self, **changes: Any) -> Control:
        """With one target 1, to which `f` leads."""
        control = self.control()
        control.greet()
        control.synchronise((1, target(**changes)), (1, ROUTE))
        return control

    def invoker(self) -> Invoker:
        link = Invoker(self.path)
        self.links.append(link)
        return link

    def launch(
        self,
        *,
        peak: int = 10 << 20,
        frozen: str = "0\n",
        timeout: float = PATIENCE,
        listener: socket.socket | None = None,
        restored: bool = False,
    ) -> Environment:
        """The next LAUNCH, granted. END for one that hung up is passed over: it comes or not, as it happens."""
        header, message = self.launcher.next(timeout)
        while isinstance(message, wire.End):
            header, message = self.launcher.next(timeout)
        assert isinstance(message, wire.Launch)
        made = Environment(
            self.launcher, header.object, self.directory, peak=peak, frozen=frozen, listener=listener, restored=restored
        )
        self.links.append(made)
        return made

    def ended(self, environment: Environment, timeout: float = PATIENCE) -> wire.EndReason:
        """The next END is this environment's; it exits as the launcher makes it."""
        header, end = self.launcher.expect(wire.End, timeout)
        assert header.object == environment.number
        environment.exit(signal.SIGKILL)
        return wire.EndReason(end.reason)

    def warm(self, invoker: Invoker) -> Environment:
        """An idle environment."""
        invoker.call()
        environment = self.launch()
        environment.start()
        environment.serve()
        invoker.answer()
        return environment

    def records(self, function: bytes = FUNCTION) -> list[Record]:
        """All that is in the function's log now."""
        cursor = Cursor(self.logs / function.hex())
        found: list[Record] = []
        while more := cursor.read():
            found += more
        return found

    def await_records(self, count: int, function: bytes = FUNCTION) -> list[Record]:
        """All of them, once there are so many."""
        await_true(lambda: len(self.records(function)) >= count, f"{count} records")
        return self.records(function)

    def descriptors(self) -> int:
        """How many the dispatcher has open, once what was said until now is in the log, whose file it keeps open."""
        await_true(lambda: any(self.logs.glob("*/*.log")), "a log on disk")
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def running(self) -> bool:
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def left(self) -> int:
        """Its exit status, once it leaves by itself."""
        await_true(lambda: not self.running(), "the dispatcher leaves")
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """Its end is that of the launcher's link."""
        for link in self.links:
            link.close()
        self._listener.close()
        self._http.close()
        self._tcp.close()
        if self.pid:
            assert self.left() == 0


def await_true(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.002)


@contextlib.contextmanager
def staged(directory: Path, logs: Path | None = None, **environment: str) -> Iterator[Stage]:
    stage = Stage(directory, logs, **environment)
    try:
        yield stage
    finally:
        stage.close()


def counters(control: Control) -> CounterPage:
    """The page that came with HELLO."""
    return CounterPage(os.dup(control.received[0]))
