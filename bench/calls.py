"""How the benches deploy and call: a function made of one file, and calls straight to the dispatcher's socket."""

from __future__ import annotations

import io
import socket
import sys
import zipfile
from typing import NamedTuple

import msgspec

from bench.node import Node
from runtimed.client import Client
from runtimed.model import wire

HELLO = """
import json

def handler(event, context):
    return {"hello": event.get("name", "you")}
"""
EVENT = b'{"name": "you"}'

# Enters, then stays until the moment that the event names, so that all calls of a wave have environments of their own.
WAVE = """
import time

def handler(event, context):
    entered = time.time()
    time.sleep(max(0, event["until"] - entered))
    return entered
"""


class Answered(NamedTuple):
    """What the bench wants of an answer."""

    value: object
    init_us: int
    duration_us: int


def zipped(source: str) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        archive.writestr("app.py", source)
    return out.getvalue()


def deploy(client: Client, name: str, source: str, memory: int) -> str:
    """Deploys for this interpreter's version where it is offered; returns the runtime's interpreter, for the floors."""
    runtimes = {runtime.name: runtime.path for runtime in client.runtimes()}
    own = f"python3.{sys.version_info.minor}"
    runtime = own if own in runtimes else next(iter(runtimes))
    client.deploy(name, zipped(source), runtime=runtime, handler="app.handler", memory_size=memory, timeout=60)
    return runtimes[runtime]


def request(name: str, event: bytes = EVENT) -> bytes:
    """A call as the dispatcher's socket takes it."""
    return wire.encode(wire.Call(name=name, total=len(event), body=event), object=1)


def dispatch_socket(node: Node) -> str:
    return str(node.run_dir / "dispatch.sock")


def wave(node: Node, name: str, count: int, event: object) -> list[Answered]:
    """`count` calls at once on one connection. RuntimeError when one is refused or fails."""
    body = msgspec.json.encode(event)
    answers = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(60)
        connection.connect(dispatch_socket(node))
        for number in range(1, count + 1):
            connection.send(wire.encode(wire.Call(name=name, total=len(body), body=body), object=number))
        for _ in range(count):
            _, answer = wire.decode(connection.recv(wire.MESSAGE_MAX))
            assert isinstance(answer, wire.Answer)
            if answer.outcome != wire.Outcome.SUCCESS:
                raise RuntimeError(f"{answer.code} {answer.message} {answer.body!r}")
            answers.append(Answered(msgspec.json.decode(answer.body), answer.init_us, answer.duration_us))
    return answers
