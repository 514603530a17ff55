"""Reading logs through the API: searched, limited, followed, taken up again; with files as the dispatcher writes them,
the real registry, a real server and the SDK."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import threading
import time
import tty
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import grpc
import msgspec
import pytest

from runtimed.api.table import bind
from runtimed.client import Client, ClientError
from runtimed.client.requests import Reading
from runtimed.dispatch.logs import MAGIC, RECORD, SEGMENT, Cursor, Kind
from runtimed.gateway.grpc.pb import logs_pb2
from runtimed.gateway.grpc.server import Server
from runtimed.invocation import logs as reader
from runtimed.machines.deployment import State
from runtimed.model import errors
from runtimed.model.arn import Identity
from runtimed.model.function import LoggingConfig
from runtimed.model.log import LogEvent, LogKind
from runtimed.store.database import Database
from runtimed.store.functions import FunctionStore
from runtimed.store.schema import MIGRATIONS
from runtimed.store.secrets import KEY_BYTES, Secrets
from runtimed.store.targets import Definition
from tests.integration.conftest import Loop
from tests.integration.performers import performers
from tests.integration.stub import until
from tests.integration.test_cli import PROGRAM, Runtimectl

T0 = 1_700_000_000_000_000
FIRST, SECOND = uuid.UUID(int=1), uuid.UUID(int=2)


def record(payload: bytes, time_us: int, kind: int = Kind.LINE, request: uuid.UUID = FIRST, version: int = 0) -> bytes:
    number, size = version.to_bytes(3, "little"), RECORD.size + len(payload)
    return RECORD.pack(size, 0, time_us, kind, number, 1_700_000_000_000 << 20, request.bytes) + payload


class Log:
    """The log of the function `f`, as a dispatcher writes it."""

    def __init__(self, logs: Path, uid: bytes) -> None:
        self.directory = logs / uid.hex()
        self.directory.mkdir(parents=True)
        self.uid = uid

    def segment(self, number: int, *records: bytes, created: int = T0) -> Path:
        path = self.directory / f"{number:08x}.log"
        path.write_bytes(SEGMENT.pack(MAGIC, 1, created, self.uid) + b"".join(records))
        return path

    def append(self, number: int, *records: bytes) -> None:
        with (self.directory / f"{number:08x}.log").open("ab") as file:
            file.write(b"".join(records))


class Node:
    """Registry, reader and server; the server can be restarted."""

    def __init__(self, loop: Loop, directory: Path) -> None:
        self.loop = loop
        self.socket = directory / "control.sock"
        self.logs = directory / "logs"
        self._directory, self._starts = directory, 0
        self.database = Database(directory / "db", MIGRATIONS)
        self.functions = FunctionStore(self.database, Secrets(bytes(KEY_BYTES)), Identity(), "x86_64")
        self.log = self.create()
        self.server: Server | None = None
        self.start()

    def create(self) -> Log:
        definition = Definition(
            runtime="python3.11", handler="a.b", description="", timeout=3, memory_size=128, storage_size=512,
            logging=LoggingConfig(), zip_sha256="0" * 64, zip_size=1,
        )  # fmt: skip
        made = self.loop.run(lambda: self.functions.create("f", definition, {}, 0))
        self.id = made.id
        assert made.state is State.PREPARING
        return Log(self.logs, made.uid)

    def start(self) -> None:
        self._starts += 1
        behind = self._directory / f"performers.{self._starts}"
        behind.mkdir()

        async def start() -> Server:
            made = performers(behind)
            logs = reader.LogReader(self.logs, self.functions)
            server = Server(
                bind(msgspec.structs.replace(made, functions=self.functions, logs=logs)), socket=self.socket
            )
            await server.start()
            return server

        self.server = self.loop.run(start)

    def stop(self) -> None:
        server = self.server
        assert server is not None
        self.loop.run(lambda: server.stop(0))
        self.server = None

    def close(self) -> None:
        if self.server is not None:
            self.stop()
        self.database.close()


@pytest.fixture
def node(loop: Loop, tmp_path: Path) -> Iterator[Node]:
    made = Node(loop, tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(node: Node) -> Iterator[Client]:
    with Client(f"unix:{node.socket}") as made:
        yield made


def messages(events: Iterator[LogEvent]) -> list[str]:
    return [event.message for event in events]


def test_of_one_version(node: Node, client: Client) -> None:
    """Said as an option or with the name; limits count only what is wanted."""
    lines = [record(b"%d of %d" % (n, n % 3), T0 + n, version=n % 3) for n in range(9)]
    node.log.segment(1, *lines)
    assert messages(client.logs("f", version="2")) == messages(client.logs("f:2")) == ["2 of 2", "5 of 2", "8 of 2"]
    assert messages(client.logs("f", version="$LATEST")) == ["0 of 0", "3 of 0", "6 of 0"]
    assert messages(client.logs("f", version="1", limit=2)) == ["4 of 1", "7 of 1"]
    assert messages(client.logs("f:3")) == []
    assert len(messages(client.logs("f"))) == 9
    follower = client.logs("f", version="1", follow=True, limit=1)
    assert next(follower).message == "7 of 1"
    node.log.append(1, record(b"not asked for", T0 + 10, version=2), record(b"more", T0 + 11, version=1))
    assert next(follower).message == "more"
    follower.close()
    with pytest.raises(errors.InvalidParameterValue, match="aliases get f prod"):
        messages(client.logs("f:prod"))
    for name, version in (("f", "01"), ("f", "prod"), ("f:2", "1")):
        with pytest.raises(errors.InvalidParameterValue):
            messages(client.logs(name, version=version))


def fill(log: Log, segments: int = 4, lines: int = 100) -> None:
    """Line n was written n seconds after T0; odd ones belong to the second invocation."""
    for number in range(segments):
        log.segment(
            number + 1,
            *(
                record(b"line %d" % n, T0 + n * 1_000_000, request=SECOND if n % 2 else FIRST)
                for n in range(number * lines, (number + 1) * lines)
            ),
            created=T0 + number * lines * 1_000_000,
        )


def at(second: float) -> datetime:
    return datetime.fromtimestamp(T0 / 1e6 + second, UTC)


def test_what_is_asked_for(node: Node, client: Client) -> None:
    fill(node.log)
    assert len(messages(client.logs("f"))) == 400
    assert messages(client.logs("f", limit=3)) == ["line 397", "line 398", "line 399"]
    assert len(messages(client.logs("f", limit=250))) == 250
    assert len(messages(client.logs("f", limit=10_000))) == 400
    assert messages(client.logs("f", since=at(150), until=at(152))) == ["line 150", "line 151", "line 152"]
    assert messages(client.logs("f", until=at(250), limit=2)) == ["line 249", "line 250"]
    assert messages(client.logs("f", request_id=str(SECOND), limit=2)) == ["line 397", "line 399"]
    assert messages(client.logs("f", contains=["7"], limit=2)) == ["line 387", "line 397"]
    assert messages(client.logs("f", contains=["line 3", "00"])) == ["line 300"]
    assert messages(client.logs("f", contains=["nothing"], limit=5)) == []
    assert messages(client.logs("f", since=at(398), limit=5)) == ["line 398", "line 399"]
    with pytest.raises(errors.InvalidParameterValue, match="1 to 10000"):
        messages(client.logs("f", limit=0))
    with pytest.raises(errors.InvalidParameterValue, match="texts"):
        messages(client.logs("f", contains=[""]))


def test_little_is_read_for_little(node: Node, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the end of a long log nor a moment in it costs reading all of it."""
    fill(node.log, segments=6, lines=20_000)
    opened: list[int] = []
    read = Cursor._read_segment

    def counted(self: Cursor) -> object:
        opened.append(self.place.segment)
        return read(self)

    monkeypatch.setattr(Cursor, "_read_segment", counted)
    assert messages(client.logs("f", limit=10))[-1] == "line 119999"
    assert set(opened) == {6}
    opened.clear()
    assert messages(client.logs("f", since=at(45_000), until=at(45_001))) == ["line 45000", "line 45001"]
    assert set(opened) == {3}
    opened.clear()
    assert messages(client.logs("f", since=at(119_990), limit=1000))[0] == "line 119990"
    assert set(opened) == {6}


def test_a_slow_reader_holds_nothing_up(node: Node, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who does not take events leaves them on disk: the node reads ahead by what gRPC's windows hold, not more."""
    line = b"x" * 100_000
    for number in range(1, 5):
        node.log.segment(number, *(record(line, T0) for _ in range(80)))
    taken = 0
    following = reader._Reading.next

    def counted(self: reader._Reading) -> list[LogEvent] | None:
        nonlocal taken
        events = following(self)
        taken += len(events or ())
        return events

    monkeypatch.setattr(reader._Reading, "next", counted)
    events = client.logs("f")
    next(events)
    steady = [-1]

    def stands() -> bool:
        time.sleep(0.1)
        steady.append(taken)
        return len(steady) > 5 and len(set(steady[-5:])) == 1

    until(stands)
    assert 0 < taken < 160, "of 320"
    assert sum(1 for _ in events) == 319, "and nothing is lost"


def test_a_follower_outlives_the_server(node: Node, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before its first event and after it; what was written meanwhile comes once."""
    node.log.segment(1, record(b"old", T0))
    seen: list[str] = []
    failed: list[BaseException] = []
    positioned = threading.Event()
    take = Reading.take

    def taken(self: Reading, event: LogEvent) -> bool:
        if event.kind is LogKind.POSITION:
            positioned.set()
        return take(self, event)

    def follow() -> None:
        try:
            for event in client.logs("f", follow=True):
                seen.append(event.message)
                if event.message == "end":
                    return
        except BaseException as error:
            failed.append(error)

    monkeypatch.setattr(Reading, "take", taken)
    thread = threading.Thread(target=follow)
    thread.start()
    for number in range(1, 4):
        assert positioned.wait(30)
        positioned.clear()
        node.stop()
        node.log.append(1, record(b"down %d" % number, T0))
        node.start()
        assert positioned.wait(30)
        positioned.clear()
        node.log.append(1, record(b"up %d" % number, T0))
        until(lambda number=number: len(seen) == 2 * number)  # type: ignore[misc]
        node.stop()
        node.start()
    node.log.append(1, record(b"end", T0))
    thread.join(30)
    assert not failed
    assert seen == ["down 1", "up 1", "down 2", "up 2", "down 3", "up 3", "end"]


def test_patience_ends(tmp_path: Path) -> None:
    with Client(f"unix:{tmp_path}/none.sock") as client:
        (tmp_path / "none.sock").touch()
        gone = errors.ServiceUnavailable("The node is stopping. Try again when it is back.")
        reading = Reading("f", {"follow": True}, client.address)
        with pytest.raises(errors.ServiceUnavailable):
            reading.pause(gone, 0.0)
        assert not reading.take(LogEvent(time=at(0), kind=LogKind.POSITION, message="", cursor="00000000-00000001-32"))
        assert reading.pause(gone, 0.0) < reading.pause(gone, 29.0) <= 1.0
        with pytest.raises(errors.ServiceUnavailable):
            reading.pause(gone, 31.0)
        with pytest.raises(ClientError, match="not understood"):
            reading.pause(ClientError("the daemon's answer is not understood"), 0.0)


def test_positions_tell_how_far_the_log_was_searched(node: Node) -> None:
    fill(node.log, 1)
    with grpc.insecure_channel(f"unix:{node.socket}") as channel:
        tail = channel.unary_stream(
            "/runtimed.v1.Logs/TailLogs",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=logs_pb2.LogEvent.FromString,
        )
        stream = tail(
            logs_pb2.TailLogsRequest(function_name="f", follow=True, positions=True, contains=["special"], limit=1)
        )
        first = next(stream)
        assert (first.kind, first.message) == (logs_pb2.LOG_KIND_POSITION, "")
        node.log.append(1, record(b"dull", T0))
        second = next(stream)
        assert second.kind == logs_pb2.LOG_KIND_POSITION
        assert second.cursor > first.cursor
        stream.cancel()
        plain = [event.kind for event in tail(logs_pb2.TailLogsRequest(function_name="f", after=first.cursor))]
        assert plain == [logs_pb2.LOG_KIND_FUNCTION], "only who asks is told"


def test_the_log_of_a_deleted_function_ends(node: Node, client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "LOOKS_PER_CHECK", 1)
    fill(node.log, 1, 2)
    events = client.logs("f", follow=True, limit=1)
    last = next(events)
    node.loop.run(lambda: node.functions.forget(node.id))
    with pytest.raises(errors.ResourceNotFound, match="was deleted"):
        next(events)
    later = node.create()
    later.segment(1, record(b"later", T0))
    with grpc.insecure_channel(f"unix:{node.socket}") as channel:
        tail = channel.unary_stream(
            "/runtimed.v1.Logs/TailLogs",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=logs_pb2.LogEvent.FromString,
        )
        found = tail(logs_pb2.TailLogsRequest(function_name="f", after=last.cursor))
        assert [event.message for event in found] == ["later"], "another log, from its beginning"


# ---- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ctl(node: Node, tmp_path: Path) -> Runtimectl:
    home = tmp_path / "home"
    home.mkdir()
    return Runtimectl(f"unix:{node.socket}", home)


def test_the_command_chooses(node: Node, ctl: Runtimectl) -> None:
    fill(node.log)

    def lines(*options: str) -> list[str]:
        return [line.split(" ", 1)[1] for line in ctl("logs", "f", *options)[0].splitlines()]

    assert lines("-n", "2") == ["line 398", "line 399"]
    assert lines("--filter", "99") == ["line 99", "line 199", "line 299", "line 399"]
    assert lines("--grep", r"[12]9\d$", "-n", "3") == ["line 297", "line 298", "line 299"]
    assert lines("--since", at(10).isoformat(), "--until", at(11).isoformat()) == ["line 10", "line 11"]
    assert lines("--since", "1h") == []
    assert '"Message":"line 399"' in ctl("logs", "f", "-n", "1", "--json")[0]
    for options, part in (
        (("--follow", "--until", "1h"), "exclude"),
        (("--grep", "("), "regular expression"),
        (("-n", "0"), "1<=x<=10000"),
        (("--until", "soon"), "10m"),
    ):
        assert part in ctl("logs", "f", *options, status=2)[1]
    assert "`runtimectl functions`" in ctl("logs", "missing", status=4)[1]


def test_a_terminal_gets_colours_and_no_commands(node: Node, ctl: Runtimectl) -> None:
    """The platform's lines are dim; a function's colours end with its line; what else it sends is shown, not obeyed."""
    hostile = b"\x1b[31mred\x1b]0;title\x07\x1b[2J\xc2\x9b\r\tend"
    node.log.segment(1, record(b"", T0, Kind.START), record(hostile, T0))
    ours, theirs = pty.openpty()
    try:
        for environment, dim, shown in (
            ({}, True, "\x1b[31mred\\x1b]0;title\\x07\\x1b[2J\\x9b\\x0d\tend\x1b[0m"),
            ({"NO_COLOR": "1"}, False, "red\\x1b]0;title\\x07\\x1b[2J\\x9b\\x0d\tend"),
        ):
            command = [sys.executable, "-c", PROGRAM, "logs", "f"]
            tty.setraw(theirs)
            subprocess.run(command, stdout=theirs, env=ctl.environment | environment, check=True, timeout=60)
            start, line, _ = os.read(ours, 65536).decode().split("\n")
            assert (start.startswith("\x1b[2m"), start.endswith("\x1b[0m")) == (dim, dim)
            assert line.split(" ", 1)[1] == shown
    finally:
        os.close(ours)
        os.close(theirs)
    piped = ctl("logs", "f")[0]
    assert piped.split("\n")[1].split(" ", 1)[1] == hostile.decode(), "elsewhere as it is"
