"""Callers who may never notice anything: each call over each way in is answered rightly, or it is a fault.

Ways: HTTP/1.1 with kept connections and the SDK (gRPC) on RUN/invoke.sock, the dispatcher's own socket with one call
at a time, and the control plane, whose one connection to the dispatcher carries all of its calls.
"""

from __future__ import annotations

import http.client
import itertools
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable

import msgspec

from bench.calls import zipped
from bench.node import Node
from runtimed.client import Client
from runtimed.model import wire
from tests.crash import load

SOURCE = """
import time, uuid

ME, CALLS = str(uuid.uuid4()), 0

def handler(event, context):
    global CALLS
    CALLS += 1
    time.sleep(event.get("pause", 0))
    return {"nonce": event["nonce"], "me": ME, "calls": CALLS, "pad": "x" * event.get("pad", 0)}
"""
NAME = "steady"
WAYS = ("http", "grpc", "dispatch", "control")


def deploy(client: Client, name: str = NAME) -> None:
    client.deploy(name, zipped(SOURCE), runtime="python3.11", handler="app.handler", timeout=60)


class UnixHttp(http.client.HTTPConnection):
    """HTTP/1.1 on a unix socket; connects again by itself when it was told that the connection ends, never else."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=load.PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(load.PATIENCE)
        self.sock.connect(self._path)


class Steady:
    """Callers of one function in threads, until closed. `faults` must stay empty; `right` counts by way."""

    def __init__(self, node: Node, callers: int = 2, ways: tuple[str, ...] = WAYS) -> None:
        """`callers`: of each way. A caller is a thread with a connection of its own."""
        self.node = node
        self.right: Counter[str] = Counter()
        self.faults: list[str] = []
        self.calls: Counter[str] = Counter()  # the highest count that each environment told
        self.seconds: list[float] = []
        self._began: dict[str, float] = {}
        self._nonces = itertools.count(1)
        self._stop = threading.Event()
        lives: dict[str, Callable[[], None]] = {
            "http": self._http, "grpc": self._grpc, "dispatch": self._dispatch, "control": self._control
        }  # fmt: skip
        self._threads = [threading.Thread(target=lives[way]) for way in ways for _ in range(callers)]
        self._ways = ways
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> Steady:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def served_since(self, moment: float) -> bool:
        """Was a call that began after that moment (time.monotonic) answered rightly, on each way?"""
        return all(self._began.get(way, 0.0) > moment for way in self._ways)

    def _event(self) -> dict[str, object]:
        nonce = next(self._nonces)
        return {"nonce": nonce, "pause": 0.05 * (nonce % 5 == 0), "pad": 300_000 * (nonce % 31 == 0)}

    def _until_closed(self, way: str, call: Callable[[dict[str, object]], bytes]) -> None:
        while not self._stop.is_set():
            event, began = self._event(), time.monotonic()
            try:
                value = msgspec.json.decode(call(event))
                if value["nonce"] != event["nonce"]:
                    raise ValueError(f"the answer to {value['nonce']}")
            except Exception as error:
                cause = error.__cause__ or error.__context__
                self.faults.append(
                    f"{way} {event['nonce']} after {time.monotonic() - began:.3f} s: {error!r} {cause!r}"
                )
                self._stop.wait(0.1)
                continue
            self.seconds.append(time.monotonic() - began)
            self.calls[value["me"]] = max(self.calls[value["me"]], value["calls"])
            self.right[way] += 1
            self._began[way] = max(self._began.get(way, 0.0), began)

    def _http(self) -> None:
        connection = UnixHttp(str(self.node.run_dir / "invoke.sock"))

        def call(event: dict[str, object]) -> bytes:
            try:
                connection.request("POST", f"/2015-03-31/functions/{NAME}/invocations", msgspec.json.encode(event))
                response = connection.getresponse()
                body = response.read()
            except Exception:
                connection.close()  # one that broke off in a request takes no other
                raise
            if response.status != 200:
                raise ValueError(f"{response.status} {body[:200]!r}")
            return body

        self._until_closed("http", call)
        connection.close()

    def _grpc(self) -> None:
        with Client(self.node.address, timeout=load.PATIENCE) as client:
            self._until_closed("grpc", lambda event: bytes(client.invoke(NAME, event, timeout=load.PATIENCE).payload))

    def _control(self) -> None:
        with Client(self.node.address, timeout=load.PATIENCE) as client:
            client._direct.address = None  # the dispatcher is not looked for: each call goes through the control plane
            self._until_closed(
                "control", lambda event: bytes(client.invoke(NAME, event, timeout=load.PATIENCE).payload)
            )

    def _dispatch(self) -> None:
        with load.Caller(self.node) as caller:

            def call(event: dict[str, object]) -> bytes:
                answer, body = caller.call(NAME, event)
                if answer.outcome != wire.Outcome.SUCCESS:
                    raise ValueError(f"{answer.status} {answer.code} {answer.message} {body[:200]!r}")
                return body

            self._until_closed("dispatch", call)
