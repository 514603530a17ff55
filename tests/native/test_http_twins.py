"""The dispatcher's readers of HTTP against others: h11 and httptools for requests, the API's own rules for names.

Ours may refuse what others accept (it is stricter on purpose). What ours accepts, the others must read as the very same
request: a difference would let one request hide in another.
"""

from __future__ import annotations

import pathlib
import struct
import subprocess
from collections.abc import Iterator
from typing import Any

import h11
import httptools
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runtimed.model import arn, errors

PROGRAM = pathlib.Path(__file__).resolve().parent.parent.parent / "build" / "sanitized" / "tests" / "print_http"
SHARED = settings(
    max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


class Reader:
    """The program, asked again and again."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([PROGRAM], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, kind: str, data: bytes) -> list[str]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(kind.encode() + struct.pack("=I", len(data)) + data)
        self._process.stdin.flush()
        return self._process.stdout.readline().decode().split()

    def close(self) -> None:
        self._process.communicate()
        assert self._process.returncode == 0


@pytest.fixture(scope="module")
def reader() -> Iterator[Reader]:
    if not PROGRAM.exists():
        pytest.skip("the sanitizer build is missing; ./dev test makes it")
    made = Reader()
    yield made
    made.close()


def blob(word: str) -> bytes:
    assert word[0] == "x"
    return bytes.fromhex(word[1:])


# ---- names -------------------------------------------------------------------------------------------------------

PARTS = st.sampled_from(
    ["arn", "aws", "aws-cn", "lambda", "us-east-1", "us-gov-west-1", "eu-1", "000000000000", "123456789012", "function",
     "f", "a-b_C9", "$LATEST", "$LATEST.PUBLISHED", "$latest", "", "x" * 64, "x" * 65, "ä", "a b", "1", "-gov-x-1"]
)  # fmt: skip
NAMES = st.one_of(st.lists(PARTS, min_size=1, max_size=9).map(":".join), st.text("arnw:-_$LATES0123", max_size=30))
REFERENCE_ERRORS = {1: errors.InvalidParameterValue, 2: errors.InvalidParameterValue, 4: errors.InvalidParameterValue}


@given(text=NAMES, qualifier=st.sampled_from(["", "", "$LATEST", "1", "f"]))
@SHARED
def test_names_are_read_as_the_api_reads_them(reader: Reader, text: str, qualifier: str) -> None:
    said = reader.ask("R", text.encode() + b"\0" + qualifier.encode())
    region, account = "us-east-1", "000000000000"
    if said[0] == "0":
        name, found, region, account = (blob(word).decode() for word in said[1:])
    identity = arn.Identity(account=account or "000000000000", region=region or "us-east-1")
    try:
        expected = arn.parse(text, identity, qualifier)
    except errors.InvalidParameterValue:
        assert said[0] in ("1", "2", "4")
    else:
        assert said[0] == "0", f"{text!r} is a name"
        assert (name, found) == (expected.name, expected.qualifier)


def test_operations(reader: Reader) -> None:
    def seen(method: str, target: str) -> tuple[Any, ...] | str:
        said = reader.ask("O", method.encode() + b"\0" + target.encode())
        return said[0] if len(said) == 1 else (int(said[0]), blob(said[1]).decode(), blob(said[2]).decode())

    invoke = "/2015-03-31/functions/{}/invocations"
    assert seen("POST", invoke.format("f")) == (1, "f", "")
    assert seen("POST", invoke.format("a%3Af") + "?x=1&Qualifier=%24LATEST&y") == (1, "a%3Af", "%24LATEST")
    assert seen("POST", invoke.format("f") + "?Qualifier=1&Qualifier=1") == "EINVAL"
    assert seen("POST", "/2021-11-15/functions/f/response-streaming-invocations?") == (2, "f", "")
    for method, target in (
        ("GET", invoke.format("f")), ("post", invoke.format("f")), ("POST", invoke.format("")),
        ("POST", invoke.format("a/b")), ("POST", invoke.format("f") + "/"), ("POST", "/"), ("POST", "*"),
        ("POST", "/2015-03-31/functions/f/invoke-async"),
    ):  # fmt: skip
        found = seen(method, target)
        assert isinstance(found, tuple)
        assert found[0] == 0, target


# ---- requests ----------------------------------------------------------------------------------------------------


class Request:
    """One request as a reader saw it. Names of fields in lower case."""

    def __init__(self, method: bytes, target: bytes, fields: list[tuple[bytes, bytes]], body: bytes) -> None:
        self.method, self.target, self.body = method, target, body
        codings = (b"transfer-encoding",)  # whose case says nothing; h11 lowers it
        self.fields = [(n.lower(), v.lower() if n.lower() in codings else v) for n, v in fields]

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return repr(vars(self))


def ours(reader: Reader, data: bytes) -> Request | None:
    """None: refused, or not complete."""
    said = reader.ask("Q", data)
    if said[0] != "DONE" or said[-1] != "DONE":
        return None
    method, target, _, _, count, *rest = said[1:-1]
    words = [blob(word) for word in rest]
    fields = [(words[2 * i], words[2 * i + 1]) for i in range(int(count))]
    return Request(blob(method), blob(target), fields, words[-1])


def by_h11(data: bytes) -> Request | str:
    connection = h11.Connection(h11.SERVER)
    try:
        connection.receive_data(data)
        head = connection.next_event()
        assert isinstance(head, h11.Request)
        body = b""
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                return f"it ends in {event}"
            body += event.data
    except h11.RemoteProtocolError as error:
        return str(error)
    return Request(head.method, head.target, [(bytes(n), bytes(v)) for n, v in head.headers.raw_items()], body)


class Listener:
    def __init__(self) -> None:
        self.target, self.body, self.done, self.headed = b"", b"", False, False
        self.parser: Any = None
        self.method = b""
        self.fields: list[tuple[bytes, bytes]] = []

    def on_url(self, url: bytes) -> None:
        if not self.done:
            self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.headed:  # the rest are trailers
            self.fields.append((name, value.rstrip(b" \t")))

    def on_headers_complete(self) -> None:
        self.headed = True
        self.method = self.method or self.parser.get_method()  # of the first; others may follow in the same bytes

    def on_body(self, body: bytes) -> None:
        if not self.done:
            self.body += body

    def on_message_complete(self) -> None:
        self.done = True


def by_httptools(data: bytes) -> Request | str:
    listener = Listener()
    parser = listener.parser = httptools.HttpRequestParser(listener)
    try:
        parser.feed_data(data)
    except httptools.HttpParserUpgrade:
        pass
    except httptools.HttpParserError as error:
        if not listener.done:
            return str(error)
    if not listener.done:
        return "not complete"
    return Request(listener.method, listener.target, listener.fields, listener.body)


METHODS = st.sampled_from([b"GET", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"get"])
TARGETS = st.sampled_from([b"/", b"/a?b=c", b"/%41", b"/a//b", b"//x", b"/a;b", b"/~!'()*+,", b"*", b"http://h/x"])
VERSIONS = st.sampled_from([b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/1.1 "])
ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n ", b"\0\r\n"])
FIELDS = st.sampled_from(
    [b"Host: h", b"A: b", b"A:b", b"A:  b \t", b"A:", b"A : b", b" A: b", b"A\t: b", b"A: \xe4", b"A: b\x01c",
     b"Content-Length: 3", b"Content-Length: 5", b"Content-Length: 03", b"Content-Length: +3", b"Content-Length: 3, 3",
     b"Transfer-Encoding: chunked", b"transfer-encoding: CHUNKED", b"Transfer-Encoding: chunked, chunked",
     b"Transfer-Encoding: x, chunked", b"Transfer-Encoding:\x0bchunked", b"Transfer-Encoding : chunked",
     b"Connection: close", b"Expect: 100-continue", b"X_Y: z", b"no colon", b": nameless"]
)  # fmt: skip
BODIES = st.sampled_from(
    [b"", b"abc", b"abcde", b"3\r\nabc\r\n0\r\n\r\n", b"3;x=y\r\nabc\r\n0\r\n\r\n", b"3\nabc\n0\n\n",
     b"03\r\nabc\r\n00\r\n\r\n", b"3 \r\nabc\r\n0\r\n\r\n", b"0x3\r\nabc\r\n0\r\n\r\n", b"3\r\nabcd\r\n0\r\n\r\n",
     b"3\r\nabc\r\n0\r\nT: v\r\n\r\n", b"-3\r\nabc\r\n0\r\n\r\n",
     b"3\r\nabc\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n", b"abcGET /x HTTP/1.1\r\nHost: h\r\n\r\n"]
)  # fmt: skip


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    lines = [draw(METHODS) + b" " + draw(TARGETS) + b" " + draw(VERSIONS)]
    lines += draw(st.lists(FIELDS, max_size=5))
    if draw(st.booleans()):
        lines.insert(1, b"Host: h")
    data = b"".join(line + draw(ENDS) for line in lines) + draw(ENDS) + draw(BODIES)
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(min_size=1, max_size=2)) + data[at:]
    return data


def same(mine: Request, theirs: Request | str) -> bool:
    """Absolute targets are cut to their path here, and elsewhere kept."""
    if isinstance(theirs, str):
        return False
    if theirs.target.lower().startswith(b"http://"):
        theirs.target = theirs.target[theirs.target.index(b"/", 7) :]
    return mine == theirs


@given(data=requests())
@SHARED
def test_requests_are_read_as_others_read_them(reader: Reader, data: bytes) -> None:
    mine = ours(reader, data)
    if mine is None:
        return
    assert same(mine, theirs := by_h11(data)), f"h11: {theirs}"
    theirs = by_httptools(data)
    if isinstance(theirs, str) and "method" in theirs:  # it knows a list of them only
        return
    assert same(mine, theirs), f"httptools: {theirs}"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
        b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc",
        b"POST /a HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;x\r\nabc\r\n0\r\nT: v\r\n\r\n",
    ],
)
def test_the_comparison_compares(reader: Reader, data: bytes) -> None:
    mine = ours(reader, data)
    assert mine is not None
    assert same(mine, by_h11(data)) and same(mine, by_httptools(data))
    assert not same(mine, by_h11(data.replace(b"/", b"/b", 1)))
