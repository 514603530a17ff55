"""Lambda's REST API byte by byte, on a real node's unix socket: bodies as they come, refusals, and what happens around
restarts. What AWS's own clients make of it: tests/conformance."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from bench import calls
from bench.node import Node, await_true
from runtimed.client import Client
from tests.conftest import need_root
from tests.integration.zips import Member, build

FUNCTIONS = "/2015-03-31/functions"
SOURCE = b"def handler(event, context):\n    return event\n"
SECONDS = 60.0


class Answer:
    """Read to the connection's end, or to the answer's."""

    def __init__(self, file: Any) -> None:
        first = file.readline().decode()
        self.status = int(first.split()[1]) if first else 0
        self.fields: dict[str, str] = {}
        while line := file.readline().decode().rstrip("\r\n"):
            name, _, value = line.partition(": ")
            self.fields[name.lower()] = value
        self.body = file.read(int(self.fields.get("content-length", "0")))

    @property
    def error(self) -> tuple[int, str]:
        said = json.loads(self.body)
        assert said["Type"] == ("Service" if self.status >= 500 else "User")
        return self.status, self.fields["x-amzn-errortype"]

    @property
    def sentence(self) -> str:
        said = json.loads(self.body)
        return str(said.get("message") or said["Message"])


class Caller:
    """One connection."""

    def __init__(self, node: Node) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(SECONDS)
        self.sock.connect(str(node.run_dir / "invoke.sock"))
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> Caller:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def head(self, method: str, path: str, *fields: str) -> None:
        self.send("\r\n".join((f"{method} {path} HTTP/1.1", "Host: h", *fields, "", "")).encode())

    def answer(self) -> Answer:
        return Answer(self._file)

    def ended(self) -> bool:
        return self._file.read(1) == b""


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    need_root()
    with Node.start() as node:
        with Client(node.address) as client:
            calls.deploy(client, "kept", SOURCE.decode(), 128)
        yield node


def asked(node: Node, method: str, path: str, body: bytes | dict[str, Any] = b"", *fields: str) -> Answer:
    data = json.dumps(body).encode() if isinstance(body, dict) else body
    with Caller(node) as caller:
        caller.head(method, path, f"Content-Length: {len(data)}", *fields)
        caller.send(data)
        answer = caller.answer()
        assert answer.fields["connection"] == "close"
        assert len(answer.fields["x-amzn-requestid"]) == 36
        assert caller.ended()
        return answer


def creation(name: str, package: bytes | None = None, **more: Any) -> dict[str, Any]:
    package = build(Member(name=b"app.py", content=SOURCE)) if package is None else package
    return {
        "FunctionName": name, "Runtime": "python3.11", "Handler": "app.handler", "Role": "r",
        "Code": {"ZipFile": base64.b64encode(package).decode()}, **more,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("method", "path", "body", "error", "sentence"),
    [
        ("GET", "/", b"", (404, "UnknownOperationException"), "Lambda's API is here"),
        ("PATCH", FUNCTIONS, b"", (404, "UnknownOperationException"), "takes GET, POST"),
        ("GET", "/2018-10-31/layers", b"", (501, "NotImplementedException"), "^ListLayers: "),
        ("GET", f"{FUNCTIONS}/none", b"", (404, "ResourceNotFoundException"), "Function not found"),
        ("GET", f"{FUNCTIONS}/no%20name", b"", (400, "InvalidParameterValueException"), "name"),
        ("GET", f"{FUNCTIONS}/kept?Qualifier=7", b"", (404, "ResourceNotFoundException"), "kept:7"),
        ("GET", f"{FUNCTIONS}?MaxItems=x", b"", (400, "InvalidParameterValueException"), "^MaxItems: a whole number"),
        ("GET", f"{FUNCTIONS}?MaxItems=0", b"", (400, "InvalidParameterValueException"), "^MaxItems: a whole number"),
        ("GET", f"{FUNCTIONS}?MaxItems=1&MaxItems=2", b"", (400, "InvalidParameterValueException"), "twice"),
        ("GET", f"{FUNCTIONS}?Colour=1", b"", (400, "InvalidParameterValueException"), "^Colour: "),
        ("POST", FUNCTIONS, b"", (400, "InvalidParameterValueException"), "^Code: "),
        ("POST", FUNCTIONS, b"{", (400, "InvalidRequestContentException"), "JSON"),
        ("POST", FUNCTIONS, b"[]", (400, "InvalidRequestContentException"), "JSON object"),
        ("POST", FUNCTIONS, creation("f", b"no zip"), (400, "InvalidParameterValueException"), "^Code: "),
        ("POST", FUNCTIONS, creation("kept"), (409, "ResourceConflictException"), "already exists"),
        ("POST", FUNCTIONS, creation("f", Handler=1), (400, "InvalidParameterValueException"), "^Handler: "),
        ("POST", FUNCTIONS, creation("f", Layers=["x"]), (400, "InvalidParameterValueException"), "^Layers: "),
        ("POST", FUNCTIONS, creation("f", Publish="x"), (400, "InvalidParameterValueException"), "^Publish: "),
        ("POST", FUNCTIONS, creation("f", Code={"S3Bucket": "b"}), (400, "InvalidParameterValueException"), "S3Bucket"),
        ("POST", FUNCTIONS, creation("f", Description="x" * 20000), (400, "InvalidParameterValueException"), "ZipFile"),
        ("POST", FUNCTIONS, b'"' + b"x" * 400_000, (400, "InvalidRequestContentException"), "no end"),
        ("POST", FUNCTIONS, b"1" * 400_000, (413, "RequestTooLargeException"), "larger"),
        ("PUT", f"{FUNCTIONS}/kept/code", {"ZipFile": "!"}, (400, "InvalidParameterValueException"), "base64"),
        ("PUT", f"{FUNCTIONS}/kept/code", {"ZipFile": "UEs="}, (400, "InvalidParameterValueException"), "^Code: "),
        ("PUT", f"{FUNCTIONS}/kept/configuration", {"Timeout": 0}, (400, "InvalidParameterValueException"), "^Timeout"),
        ("PUT", f"{FUNCTIONS}/kept/configuration", {"RevisionId": "x"}, (412, "PreconditionFailedException"), ""),
    ],
)  # fmt: skip
def test_refusals(
    node: Node, method: str, path: str, body: bytes | dict[str, Any], error: tuple[int, str], sentence: str
) -> None:
    answer = asked(node, method, path, body)
    assert answer.error == error

    assert re.search(sentence, answer.sentence), answer.sentence


def test_pages(node: Node) -> None:
    with Client(node.address) as client:
        package = build(Member(name=b"app.py", content=SOURCE))
        for name in ("page-a", "page-b"):
            client.deploy(name, package, runtime="python3.11", handler="app.handler")
        seen, query = [], "?MaxItems=1"
        while True:
            page = json.loads(asked(node, "GET", FUNCTIONS + query).body)
            seen += [found["FunctionName"] for found in page["Functions"]]
            if "NextMarker" not in page:
                break
            query = f"?MaxItems=1&Marker={page['NextMarker']}"
        assert seen == sorted(seen)
        assert {"kept", "page-a", "page-b"} <= set(seen)
        for name in ("page-a", "page-b"):
            assert asked(node, "DELETE", f"{FUNCTIONS}/{name}").status == 204


def settled(node: Node) -> bool:
    return bool(
        json.loads(asked(node, "GET", f"{FUNCTIONS}/kept/configuration").body)["LastUpdateStatus"] == "Successful"
    )


def test_a_body_in_every_way(node: Node) -> None:
    """In chunks, after 100 Continue, byte by byte, and larger than what is kept in memory."""
    data = json.dumps({"Description": "ä"}).encode()
    path = f"{FUNCTIONS}/kept/configuration"
    with Caller(node) as caller:
        caller.head("PUT", path, "Transfer-Encoding: chunked", "Expect: 100-continue")
        assert caller.answer().status == 100
        for byte in data:
            caller.send(b"1\r\n%c\r\n" % byte)
        caller.send(b"0\r\n\r\n")
        answer = caller.answer()
        assert (answer.status, json.loads(answer.body)["Description"]) == (200, "ä")
    await_true(lambda: settled(node), SECONDS, "the change")
    with Caller(node) as caller:
        request = f"PUT {path} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data
        for at in range(len(request)):
            caller.send(request[at : at + 1])
        assert caller.answer().status == 200
    noise = build(Member(name=b"app.py", content=SOURCE), Member(name=b"n", content=os.urandom(9 << 20), method=0))
    made = asked(node, "POST", FUNCTIONS, creation("large", noise))
    assert (made.status, json.loads(made.body)["CodeSize"]) == (201, len(noise))
    assert asked(node, "DELETE", f"{FUNCTIONS}/large").status == 204
    assert list((node.state_dir / "staging").iterdir()) == []


def test_a_body_too_long(node: Node) -> None:
    """Its length is not said beforehand."""
    with Caller(node) as caller:
        caller.head("POST", FUNCTIONS, "Transfer-Encoding: chunked")
        piece = b"400000\r\n" + b"x" * (4 << 20) + b"\r\n"
        try:
            for _ in range(20):
                caller.send(piece)
        except OSError:
            pass  # it has answered and does not read on
        else:
            assert caller.answer().error == (413, "RequestTooLargeException")
    assert asked(node, "GET", FUNCTIONS).status == 200


def test_callers_that_leave(node: Node) -> None:
    """At every place of a request: what they held is given back, so more of them than there are places make no
    difference."""
    data = json.dumps(creation("left", build(Member(name=b"n", content=os.urandom(200_000), method=0)))).encode()
    head = f"POST {FUNCTIONS} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(data)}\r\n\r\n".encode()
    for number in range(40):
        with Caller(node) as caller:
            caller.send((head + data)[: len(head) + number * len(data) // 41])
    await_true(lambda: asked_or_busy(node), SECONDS, "an answer")
    with Client(node.address) as client:
        assert "left" not in [function.function_name for function in client.list_functions()]
    await_true(lambda: list((node.state_dir / "staging").iterdir()) == [], SECONDS, "nothing in staging")


def asked_or_busy(node: Node) -> bool:
    answer = asked_once(node)
    assert answer.status in (200, 503)
    return answer.status == 200


def asked_once(node: Node) -> Answer:
    with Caller(node) as caller:
        caller.head("GET", FUNCTIONS)
        return caller.answer()


def test_places_are_bounded_and_given_back(node: Node) -> None:
    """Many callers whose bodies do not come; invocations go on meanwhile."""
    stalled = [Caller(node) for _ in range(40)]
    try:
        for caller in stalled:
            caller.head("POST", FUNCTIONS, "Content-Length: 9")
        await_true(lambda: asked_once(node).status == 503, SECONDS, "all places are taken")
        answer = asked_once(node)
        assert answer.error == (503, "ServiceUnavailableException")
        assert answer.fields["retry-after"] == "1"
        with Caller(node) as caller:
            for _ in range(2):
                caller.head("GET", FUNCTIONS)
                assert caller.answer().status == 503
                caller.head("POST", f"{FUNCTIONS}/kept/invocations", "Content-Length: 1")
                caller.send(b"7")
                assert caller.answer().body == b"7"
    finally:
        for caller in stalled:
            caller.__exit__()
    await_true(lambda: asked_or_busy(node), SECONDS, "an answer")


def test_many_at_once(node: Node) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda _: asked_once(node).status, range(200)))
    assert found == [200] * 200


def test_the_control_plane_dies_and_returns(node: Node) -> None:
    """Invocations go on over the same connection; requests for the control plane are answered, or their connection
    ends, and are served again when it is back."""
    with Caller(node) as caller, Caller(node) as stalled:
        stalled.head("POST", FUNCTIONS, "Content-Length: 9")
        before = node.roles()["control"]
        await_true(lambda: asked_once(node).status == 200, SECONDS, "an answer")
        os.kill(before, signal.SIGKILL)
        assert stalled.ended()
        for _ in range(20):
            caller.head("POST", f"{FUNCTIONS}/kept/invocations", "Content-Length: 1")
            caller.send(b"7")
            assert caller.answer().body == b"7"
        await_true(lambda: asked_once(node).status == 200, SECONDS, "the control plane's return")
        assert node.roles()["control"] != before
        caller.head("GET", FUNCTIONS)
        assert caller.answer().status == 200
