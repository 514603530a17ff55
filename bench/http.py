"""How the benches reach a node over HTTP: its addresses, a key, and requests as bytes."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NamedTuple

from bench.node import Node
from runtimed.client import Client

HELLO = b"GET / HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\r\n"
"""For the floor hello.c, which answers whatever ends in an empty line."""
WITHOUT_POLICY = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n"
"""What the floor relay.c answers over HTTP, before the sixteen bytes of the hello function's result."""


class Served(NamedTuple):
    """A node that listens on TCP."""

    node: Node
    client: Client
    port: str
    token: str

    @property
    def socket(self) -> str:
        """The path of the socket that needs no key."""
        return str(self.node.run_dir / "invoke.sock")


def free_address() -> str:
    """Of a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


@contextlib.contextmanager
def served(settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Served]:
    address = free_address()
    port = address.rpartition(":")[2]
    with Node.start({"RUNTIMED_INVOKE_LISTEN": address, **settings}) as node, Client(node.address) as client:
        yield Served(node, client, port, client.create_key("bench").token)


def post(name: str, body: bytes, token: str = "") -> bytes:
    """An invocation. Over TCP it needs a token."""
    return (
        f"POST /2015-03-31/functions/{name}/invocations HTTP/1.1\r\nHost: localhost\r\n"
        + (f"Authorization: Bearer {token}\r\n" if token else "")
        + f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
