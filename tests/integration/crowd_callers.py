"""How the callers of crowd.py behave. The honest keep to the protocols, in HTTP/1.1 (one after another, pipelined,
chunked) and gRPC (many at once, deadlines, cancellation), and check every answer; the rude disconnect, stall, cut
bodies short, reset streams, never read, send what is no protocol, or are not who they should be.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import struct
import time
from collections.abc import Iterator

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings
from botocore.eventstream import EventStreamBuffer

from bench import node
from runtimed.gateway.grpc.pb import invocations_pb2 as pb
from tests.integration.crowd import TOKEN, Call, Ledger
from tests.integration.dispatch_stage import Stage
from tests.integration.grpc_caller import PATH, PREFACE

INVOKE = "/2015-03-31/functions/f/invocations"
STREAM = "/2021-11-15/functions/f/response-streaming-invocations"
STREAM_PATH = PATH + "Stream"
GONE = (ConnectionError, asyncio.IncompleteReadError, h2.exceptions.ProtocolError)
SECONDS = 60 * node.PATIENCE  # for an answer, or for all of a rude caller's doings
LIMIT = 16 << 20  # of a line or an answer that is read


class Caller:
    """One of the crowd; what it does is drawn anew for each connection."""

    def __init__(self, stage: Stage, ledger: Ledger) -> None:
        self.stage, self.ledger, self.rng = stage, ledger, ledger.rng

    async def run(self, until: float, *, honest: bool) -> None:
        manners = (self.polite_http, self.polite_grpc, self.polite_stream) if honest else RUDE
        while time.monotonic() < until:
            behave = self.rng.choice(manners)
            tcp = self.rng.random() < 0.4
            address = {"host": "127.0.0.1", "port": self.stage.port}
            if tcp:
                reader, writer = await asyncio.open_connection(**address, limit=LIMIT)  # type: ignore[arg-type]
            else:
                reader, writer = await asyncio.open_unix_connection(str(self.stage.http_path), limit=LIMIT)
            try:
                if honest:
                    await behave(reader, writer, TOKEN if tcp else "")  # type: ignore[operator]
                else:
                    async with asyncio.timeout(SECONDS):
                        await behave(self, reader, writer, TOKEN if tcp else "")  # type: ignore[operator]
            except GONE as error:
                if honest:
                    self.ledger.complain(f"an honest caller lost its connection: {error!r}")
            except TimeoutError:
                self.ledger.complain(f"{behave.__name__} waits for ever")
            finally:
                writer.transport.abort()

    # ---- HTTP/1.1 ------------------------------------------------------------------------------------------------

    def rude_request(self, call: Call, token: str, *, chunked: bool = False) -> bytes:
        return self.request(call, token, chunked=chunked, path=self.rng.choice((INVOKE, STREAM)))

    def request(self, call: Call, token: str, *, chunked: bool = False, fields: str = "", path: str = INVOKE) -> bytes:
        head = f"POST {path} HTTP/1.1\r\nHost: h\r\n{fields}"
        if token:
            head += f"Authorization: Bearer {token}\r\n"
        if not chunked:
            return f"{head}Content-Length: {len(call.event)}\r\n\r\n".encode() + call.event
        cut = self.rng.randrange(1, len(call.event))
        pieces = (call.event[:cut], call.event[cut:])
        body = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
        return f"{head}Transfer-Encoding: chunked\r\n\r\n".encode() + body + b"0\r\n\r\n"

    async def polite_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        for _ in range(self.rng.randint(1, 8)):
            count = self.rng.choice((1, 1, 1, 2, 6))
            calls = [self.ledger.call(large=count == 1) for _ in range(count)]
            writer.write(b"".join(self.request(call, token, chunked=self.rng.random() < 0.2) for call in calls))
            for call in calls:
                async with asyncio.timeout(SECONDS):
                    await self.answer(reader, call)

    async def answer(self, reader: asyncio.StreamReader, call: Call) -> None:
        lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        fields = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines[1:])}
        body = await reader.readexactly(int(fields["content-length"]))
        if lines[0] == "HTTP/1.1 200 OK":
            self.ledger.tell(call, "error" if "x-amz-function-error" in fields else "success", body)
        elif lines[0].startswith("HTTP/1.1 429 "):
            self.ledger.tell(call, "throttled")
        else:
            self.ledger.complain(f"{call.number} was answered {lines[0]}: {body[:200]!r}")

    # ---- event streams -------------------------------------------------------------------------------------------

    async def polite_stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        for _ in range(self.rng.randint(1, 4)):
            call = self.ledger.call(large=True, streamed=True)
            writer.write(self.request(call, token, path=STREAM, chunked=self.rng.random() < 0.2))
            async with asyncio.timeout(SECONDS):
                await self.stream_answer(reader, call, slow=self.rng.random() < 0.2)

    async def stream_answer(self, reader: asyncio.StreamReader, call: Call, *, slow: bool) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if head.startswith(b"HTTP/1.1 429 "):
            size = int(head.lower().partition(b"content-length: ")[2].partition(b"\r")[0])
            await reader.readexactly(size)
            self.ledger.tell(call, "throttled")
            return
        if not head.startswith(b"HTTP/1.1 200 OK\r\n"):
            self.ledger.complain(f"{call.number} was answered {head[:200]!r}")
            return
        events, parts, complete = EventStreamBuffer(), [], None
        while size := int(await reader.readuntil(b"\r\n"), 16):
            events.add_data((await reader.readexactly(size + 2))[:-2])
            for event in events:
                if complete is not None:
                    self.ledger.complain(f"{call.number}: something comes behind the end")
                if event.headers[":event-type"] == "InvokeComplete":
                    complete = json.loads(event.payload)
                else:
                    parts.append(event.payload)
            if slow and len(parts) < 10:
                await asyncio.sleep(0.005)
        await reader.readexactly(2)
        if complete is None:
            self.ledger.complain(f"{call.number}: a stream without an end")
        elif "ErrorCode" in complete:
            self.ledger.tell(call, "error", complete["ErrorDetails"].encode())
        else:
            self.ledger.tell(call, "success", b"".join(parts))

    # ---- gRPC ----------------------------------------------------------------------------------------------------

    async def polite_grpc(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        session = Session(reader, writer, token)
        for _ in range(self.rng.randint(1, 4)):
            count = self.rng.choice((1, 1, 2, 10))
            calls = {}
            for _ in range(count):
                call = self.ledger.call(large=count == 1)
                hasty = call.do == "slow" and self.rng.random() < 0.5
                streamed = self.rng.random() < 0.4
                path = STREAM_PATH if streamed else PATH
                calls[await session.call(call, path=path, timeout="10m" if hasty else "")] = call, hasty, streamed
            while calls:
                async with asyncio.timeout(SECONDS):
                    stream, fields, data = await session.ended()
                self.judge(*calls.pop(stream), fields, data)

    def judge(self, call: Call, hasty: bool, streamed: bool, fields: dict[str, str], data: bytes) -> None:
        status = fields.get("grpc-status")
        if status == "0" and streamed:
            *parts, last = (pb.InvokeStreamResponse.FromString(message) for message in messages(data))
            if last.complete.HasField("error_code"):
                self.ledger.tell(call, "error", last.complete.error_details)
            else:
                self.ledger.tell(call, "success", b"".join(part.payload_chunk for part in parts))
        elif status == "0":
            answer = pb.InvokeResponse.FromString(data[5:])
            what = "error" if answer.HasField("function_error") else "success"
            self.ledger.tell(call, what, answer.payload)
        elif status == "8" and fields.get("runtimed-error-code") == "TooManyRequestsException":
            self.ledger.tell(call, "throttled")
        elif status == "4" and hasty:
            self.ledger.tell(call, "deadline")
        else:
            self.ledger.complain(f"{call.number} was answered {fields}")

    # ---- the rude ------------------------------------------------------------------------------------------------

    async def linger(self) -> None:
        await asyncio.sleep(self.rng.choice((0, 0, 0.01, 0.1, 0.5)))

    async def leave_within(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """After any byte of a request or two, at once or after a while."""
        data = b"".join(self.rude_request(self.ledger.call(large=True), token) for _ in range(2))
        writer.write(data[: self.rng.randrange(len(data))])
        await self.linger()

    async def leave_behind(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """After the whole request, or after some of the answer."""
        writer.write(self.rude_request(self.ledger.call(large=True), token, chunked=self.rng.random() < 0.5))
        await writer.drain()
        if self.rng.random() < 0.5:
            await reader.read(self.rng.choice((1, 100, 100_000)))
        await self.linger()

    async def sip(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """Wants its answer in parts, and leaves in the middle of them."""
        writer.write(self.request(self.ledger.call(streamed=True), token, path=STREAM))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(2):
                for _ in range(self.rng.randint(1, 8)):
                    if not await reader.read(self.rng.choice((1, 1000, 100_000))):
                        break
                    await asyncio.sleep(self.rng.choice((0, 0.02)))

    async def half_close(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        data = self.rude_request(self.ledger.call(), token)
        writer.write(data if self.rng.random() < 0.5 else data[: self.rng.randrange(1, len(data))])
        writer.write_eof()
        await reader.read()

    async def drip(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """A byte now and then."""
        for byte in self.rude_request(self.ledger.call(), token)[: self.rng.randrange(40)]:
            writer.write(bytes((byte,)))
            await asyncio.sleep(0.01)

    async def deaf(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """Asks for much and reads nothing of it."""
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        for _ in range(self.rng.randint(1, 20)):
            writer.write(self.rude_request(self.ledger.call(large=True), token))
        await asyncio.sleep(0.3)

    async def garbage(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """Noise, or a request or a session with noise in it."""
        noise = self.rng.randbytes(self.rng.randint(1, 3000))
        start = self.rng.choice((b"", b"POST ", PREFACE, self.rude_request(self.ledger.call(), token)))
        cut = self.rng.randrange(len(start) + 1) if self.rng.random() < 0.5 else len(start)
        writer.write(start[:cut] + noise)
        await self.linger()

    async def mangled(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """A request of which one byte of the head is another."""
        data = bytearray(self.rude_request(self.ledger.call(), token, chunked=self.rng.random() < 0.5))
        data[self.rng.randrange(data.index(b"\r\n\r\n"))] = self.rng.randrange(256)
        writer.write(data)
        await self.linger()

    async def stranger(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """Over TCP without a key, or with one that is none."""
        call = self.ledger.call()
        writer.write(self.request(call, "not-a-key" if token else "", fields="X: y\r\n"))
        line = await reader.readuntil(b"\r\n")
        if token and (b" 403 " not in line or self.ledger.handled[call.number]):
            self.ledger.complain(f"a stranger was answered {line!r}")

    async def resetter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """Opens streams and resets them: before the message, within, behind it, while the answer comes."""
        session = Session(reader, writer, token)
        for _ in range(self.rng.randint(1, 30)):
            call = self.ledger.call(large=self.rng.random() < 0.1)
            cut = self.rng.choice((0, 3, 20, 1 << 30))
            stream = await session.call(
                path=self.rng.choice((PATH, STREAM_PATH)),
                call=call,
                cut=cut,
                timeout=self.rng.choice(("", "", "1m", "0n")),
            )
            if self.rng.random() < 0.3:
                await session.pump(0.01)
            session.reset(stream)
        await session.pump(0.02)

    async def breaker(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """A session like any other, and then frames that are none, or the end."""
        session = Session(reader, writer, token)
        for _ in range(self.rng.randint(0, 5)):
            await session.call(
                path=self.rng.choice((PATH, STREAM_PATH)), call=self.ledger.call(large=self.rng.random() < 0.2)
            )
        kind, flags, stream = self.rng.randrange(12), self.rng.randrange(256), self.rng.randrange(12)
        body = self.rng.randbytes(self.rng.choice((0, 1, 4, 5, 8, 60)))
        writer.write(struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body)
        await self.linger()

    async def closed_window(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str) -> None:
        """Asks for much and gives no window for it."""
        session = Session(reader, writer, token, window=1)
        for _ in range(self.rng.randint(1, 5)):
            await session.call(path=self.rng.choice((PATH, STREAM_PATH)), call=self.ledger.call(large=True))
        await session.pump(0.3, acknowledge=False)


def messages(data: bytes) -> Iterator[bytes]:
    """Of a stream of gRPC's."""
    while data:
        (size,) = struct.unpack_from(">I", data, 1)
        yield data[5 : 5 + size]
        data = data[5 + size :]


RUDE = (
    Caller.leave_within, Caller.leave_behind, Caller.half_close, Caller.drip, Caller.deaf, Caller.garbage,
    Caller.sip, Caller.mangled, Caller.stranger, Caller.resetter, Caller.breaker, Caller.closed_window,
)  # fmt: skip


class Session:
    """A client of HTTP/2 on one connection."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, token: str, window: int = 65535
    ) -> None:
        self.reader, self.writer, self.token = reader, writer, token
        self.h2 = h2.connection.H2Connection(
            h2.config.H2Configuration(client_side=True, header_encoding="utf-8", validate_inbound_headers=True)
        )
        self.h2.initiate_connection()
        self.h2.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.fields: dict[int, dict[str, str]] = {}
        self.data: dict[int, bytearray] = {}
        self.over: list[int] = []
        self.done: set[int] = set()
        self._flush()

    def _flush(self) -> None:
        self.writer.write(self.h2.data_to_send())

    def reset(self, stream: int) -> None:
        if stream not in self.done:
            self.h2.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
            self._end(stream)
            self._flush()

    def _end(self, stream: int) -> None:
        """Once: who is refused before all was said is told the answer, and to say no more."""
        if stream not in self.done:
            self.done.add(stream)
            self.over.append(stream)

    async def call(self, call: Call, *, path: str = PATH, cut: int = 1 << 30, timeout: str = "") -> int:
        """The stream of a new call. `cut`: so much of its message is sent, and no end of it."""
        stream = self.h2.get_next_available_stream_id()
        fields = [
            (":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "h"), ("te", "trailers"),
            ("content-type", "application/grpc"),
        ]  # fmt: skip
        fields += [("authorization", f"Bearer {self.token}")] if self.token else []
        fields += [("grpc-timeout", timeout)] if timeout else []
        self.h2.send_headers(stream, fields)
        body = pb.InvokeRequest(function_name="f", payload=call.event).SerializeToString()
        message = b"\0" + struct.pack(">I", len(body)) + body
        whole, message = cut >= len(message), message[:cut]
        while message and stream not in self.done:
            room = min(self.h2.local_flow_control_window(stream), self.h2.max_outbound_frame_size)
            if room == 0:
                self._flush()
                await self._read()
                continue
            self.h2.send_data(stream, message[:room])
            message = message[room:]
        if whole and stream not in self.done:
            self.h2.end_stream(stream)
        self._flush()
        return stream

    async def _read(self, *, acknowledge: bool = True) -> None:
        data = await self.reader.read(1 << 18)
        if not data:
            raise ConnectionResetError("the other side hung up")
        for event in self.h2.receive_data(data):
            if isinstance(event, (h2.events.ResponseReceived, h2.events.TrailersReceived)):
                self.fields.setdefault(event.stream_id, {}).update(event.headers)  # type: ignore[arg-type]
            elif isinstance(event, h2.events.DataReceived):
                self.data.setdefault(event.stream_id, bytearray()).extend(event.data)
                if acknowledge:
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, (h2.events.StreamEnded, h2.events.StreamReset)):
                self._end(event.stream_id)
            elif isinstance(event, h2.events.ConnectionTerminated):
                raise ConnectionResetError(f"GOAWAY {event.error_code}")
        self._flush()

    async def ended(self) -> tuple[int, dict[str, str], bytes]:
        """The next stream that is over: its number, its fields, its data."""
        while not self.over:
            await self._read()
        stream = self.over.pop(0)
        return stream, self.fields.pop(stream, {}), bytes(self.data.pop(stream, b""))

    async def pump(self, seconds: float, *, acknowledge: bool = True) -> None:
        """Reads for a while."""
        try:
            async with asyncio.timeout(seconds):
                while True:
                    await self._read(acknowledge=acknowledge)
        except TimeoutError:
            pass
