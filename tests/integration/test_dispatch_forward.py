"""Requests that are no invocations, as the dispatcher passes them to the control plane: the real program, with the test
as control plane and callers."""

from __future__ import annotations

import datetime as dt
import fcntl
import hashlib
import hmac
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.dispatch_stage import ROUTE, Control, Stage, await_true, counters, staged, target
from tests.integration.http_caller import Caller
from tests.integration.test_dispatch_keys import KEY_ID, SECRET, TOKEN, principal
from tests.native.test_signatures import derived

BEARER = f"Authorization: Bearer {TOKEN}\r\n"
LIST = "GET /2015-03-31/functions?MaxItems=3 HTTP/1.1\r\nHost: h\r\n"
DRY = "POST /2015-03-31/functions/f/invocations HTTP/1.1\r\nHost: h\r\nX-Amz-Invocation-Type: DryRun\r\n"
UNAVAILABLE = (503, "ServiceUnavailableException")


class Taken:
    """A request that was forwarded."""

    def __init__(self, control: Control) -> None:
        header, self.message = control.expect(wire.Forward)
        self.id = header.object
        connection, self.spool = control.received[-2:]
        del control.received[-2:]
        self.sock = socket.socket(fileno=connection)
        self.sock.settimeout(30)
        self.data = os.pread(self.spool, 1 << 20, 0)
        assert len(self.data) == self.message.size or self.message.size > 1 << 20
        self.head, self.rest = self.data[: self.message.head], self.data[self.message.head :]
        assert self.head.endswith(b"\r\n\r\n")

    def close(self) -> None:
        self.sock.close()
        os.close(self.spool)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with staged(tmp_path) as stage:
        yield stage


@pytest.fixture
def control(stage: Stage) -> Control:
    control = stage.control()
    control.greet()
    control.send(wire.Credit(n=2))
    control.synchronise((1, target()), (1, ROUTE), (5, principal()))
    return control


def credit(control: Control, over: int = 0) -> None:
    """For one more; returns when the dispatcher knows."""
    control.send(wire.Credit(n=1), object=over)
    control.acknowledged(control.put(wire.DelTarget(), 999))


def signed(body: bytes = b"", method: str = "PUT", path: str = "/2015-03-31/functions/f/code", **wrong: str) -> bytes:
    """A request signed as AWS says it; `wrong`: another `secret` or `key_id`."""
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    scope = f"{stamp[:8]}/us-east-1/lambda/aws4_request"
    canonical = f"{method}\n{path}\n\nhost:h\nx-amz-date:{stamp}\n\nhost;x-amz-date\n{hashlib.sha256(body).hexdigest()}"
    text = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = derived(wrong.get("secret", SECRET), stamp[:8], "us-east-1", "lambda")
    signature = hmac.digest(key, text.encode(), hashlib.sha256).hex()
    return (
        f"{method} {path} HTTP/1.1\r\nHost: h\r\nX-Amz-Date: {stamp}\r\nContent-Length: {len(body)}\r\n"
        f"Authorization: AWS4-HMAC-SHA256 Credential={wrong.get('key_id', KEY_ID)}/{scope}, "
        f"SignedHeaders=host;x-amz-date, Signature={signature}\r\n\r\n"
    ).encode()


def test_known_callers_are_passed_on_as_they_came(stage: Stage, control: Control) -> None:
    with Caller(stage) as unix, Caller(stage, tcp=True) as tcp:
        unix.send(LIST + "Content-Length: 9\r\n\r\nbody")
        taken = Taken(control)
        assert (taken.head, taken.rest) == ((LIST + "Content-Length: 9\r\n\r\n").encode(), b"body")
        assert (taken.message.flags, taken.message.key_id) == (0, "")
        unix.send(" more")  # what the dispatcher has not read is still in the connection
        assert taken.sock.recv(100) == b" more"
        taken.sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nme")
        assert unix.answer().body == b"me"
        taken.close()
        assert unix.closed()

        tcp.send(LIST + BEARER + "\r\n")
        taken = Taken(control)
        assert (taken.head, taken.rest, taken.message.key_id) == ((LIST + BEARER + "\r\n").encode(), b"", KEY_ID)
        seals = fcntl.fcntl(taken.spool, fcntl.F_GET_SEALS)
        assert seals & fcntl.F_SEAL_WRITE and seals & fcntl.F_SEAL_SHRINK
        taken.close()
        assert tcp.closed()
    assert counters(control).node()["forwarded"] == 2
    await_true(lambda: counters(control).node()["connections"] == 0, "the dispatcher forgets them")


def test_signed_requests_come_whole(stage: Stage, control: Control) -> None:
    body = os.urandom(300_000)
    with Caller(stage, tcp=True) as caller:
        caller.send(signed(body))
        assert control.silent()
        caller.send(body[:-1])
        assert control.silent()
        caller.send(body[-1:] + b"GET / HTTP/1.1\r\n")  # behind it comes what nobody reads
        taken = Taken(control)
        assert (taken.rest, taken.message.flags, taken.message.key_id) == (body, wire.ForwardFlags.WHOLE, KEY_ID)
        taken.close()
    with Caller(stage, tcp=True) as caller:
        caller.send(signed(method="GET", path="/2015-03-31/functions"))
        taken = Taken(control)
        assert (taken.rest, taken.message.flags) == (b"", wire.ForwardFlags.WHOLE)
        taken.close()
    await_true(lambda: counters(control).node()["payload_bytes"] > 300_000, "both are counted")
    for number in (1, 2):
        credit(control, number)
    await_true(lambda: counters(control).node()["payload_bytes"] == 0, "the budget is given back")


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: LIST.encode() + b"\r\n", "MissingAuthenticationTokenException"),
        (lambda: LIST.encode() + b"Authorization: Bearer x\r\n\r\n", "UnrecognizedClientException"),
        (lambda: signed(b"abc", secret="other") + b"abc", "InvalidSignatureException"),
        (lambda: signed(b"abc") + b"abd", "InvalidSignatureException"),
        (lambda: signed(b"abc", key_id="K") + b"abc", "UnrecognizedClientException"),
        (lambda: signed(secret="other"), "InvalidSignatureException"),
    ],
)
def test_nothing_of_a_stranger_is_passed_on(
    stage: Stage, control: Control, make: Callable[[], bytes], code: str
) -> None:
    with Caller(stage, tcp=True) as caller:
        caller.send(make())
        assert caller.answer().error == (403, code)
        caller.send(DRY + BEARER + "\r\n")  # and the connection goes on
        assert caller.answer().status == 204
    assert control.silent()
    node = counters(control).node()
    assert (node["http_denied"], node["forwarded"], node["payload_bytes"]) == (1, 0, 0)


def test_a_key_revoked_on_the_way(stage: Stage, control: Control) -> None:
    with Caller(stage, tcp=True) as caller:
        caller.send(signed(b"abc") + b"ab")
        await_true(lambda: counters(control).node()["http_requests"] == 1, "the head is read")
        control.acknowledged(control.put(wire.DelPrincipal(), 5))
        caller.send(b"c")
        assert caller.answer().error == (403, "UnrecognizedClientException")
    assert control.silent()


def test_without_credit(stage: Stage, control: Control) -> None:
    with Caller(stage) as caller:
        for _ in range(2):
            with Caller(stage) as other:
                other.send(LIST + "\r\n")
                Taken(control).close()
        for body in (b"", b"abc"):
            caller.send(LIST + f"Content-Length: {len(body)}\r\n\r\n")
            caller.send(body)
            answer = caller.answer()
            assert (answer.error, answer.fields["retry-after"]) == (UNAVAILABLE, "1")
        caller.send(DRY + "\r\n")
        assert caller.answer().status == 204
        credit(control, 1)
        caller.send(LIST + "\r\n")
        taken = Taken(control)
        assert taken.id == 3
        taken.close()
    assert counters(control).node()["forwards_refused"] == 2


def test_without_control_plane(stage: Stage, control: Control) -> None:
    page = counters(control)
    with Caller(stage, tcp=True) as waiting:
        waiting.send(signed(b"abc") + b"ab")
        await_true(lambda: page.node()["http_requests"] == 1, "the head is read")
        control.close()
        waiting.send(b"c")
        assert waiting.answer().error == UNAVAILABLE
    with Caller(stage) as caller:
        caller.send(LIST + "\r\n")
        answer = caller.answer()
        assert answer.error == UNAVAILABLE
        assert b"control plane" in answer.body
        caller.send(DRY + "\r\n")
        assert caller.answer().status == 204
        again = stage.ready()
        caller.send(LIST + "\r\n")
        assert caller.answer().error == UNAVAILABLE  # it has given no credit yet
        credit(again)
        caller.send(LIST + "\r\n")
        Taken(again).close()


def test_what_a_control_plane_had_is_forgotten_with_it(stage: Stage, control: Control) -> None:
    page = counters(control)
    with Caller(stage, tcp=True) as caller:
        caller.send(signed(b"abc") + b"abc")
        Taken(control).close()
    await_true(lambda: page.node()["payload_bytes"] > 0, "it is counted")
    control.close()
    await_true(lambda: page.node()["payload_bytes"] == 0, "the budget is given back")


def test_lengths(stage: Stage, control: Control) -> None:
    for length in (72 << 20) + 1, 1 << 40:
        with Caller(stage) as caller:
            caller.send(LIST + f"Content-Length: {length}\r\n\r\n")
            assert caller.answer().error == (413, "RequestTooLargeException")
    stamp = dt.datetime.now(dt.UTC).strftime("%Y%m%dT%H%M%SZ")
    claim = (
        f"X-Amz-Date: {stamp}\r\nAuthorization: AWS4-HMAC-SHA256 Credential={KEY_ID}/{stamp[:8]}/us-east-1/lambda/"
        f"aws4_request, SignedHeaders=host;x-amz-date, Signature={'0' * 64}\r\n"
    )
    with Caller(stage, tcp=True) as caller:
        caller.send(LIST + claim + "Transfer-Encoding: chunked\r\n\r\n")
        caller.send(b"700000\r\n" + bytes(6 << 20))
        caller.send(b"1")
        assert caller.answer().error == (413, "RequestTooLargeException")
    await_true(lambda: counters(control).node()["connections"] == 0, "they are closed")
