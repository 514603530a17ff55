"""What one caller, or all of them together, may take of the server.

The library's own defaults are made for trusted peers: no bound on calls, two minutes for a handshake, connections that
stay for ever. A caller over TCP is a stranger until its call brings the key, which comes after the connection.
"""

from __future__ import annotations

from msgspec import Struct

RECEIVE_BYTES = 16 * 1024 * 1024
"""More than a payload may have, so that one a little too large is refused with our own sentence."""


class Limits(Struct, frozen=True, kw_only=True):
    """Of one listener each: who exhausts the port's leaves the socket's alone."""

    calls: int = 4096
    """At the same time; the account's concurrency is 1,000 by default, the rest are streams and short calls. Further
    ones are answered RESOURCE_EXHAUSTED."""
    streams: int = 1000
    """At the same time on one connection."""
    metadata_bytes: int = 16 * 1024
    """Of one call's headers; a key and a request id are far below 1 KB."""
    handshake_seconds: float = 10.0
    """From the connection to its HTTP/2 settings."""
    idle_seconds: float = 600.0
    """A connection without calls is closed."""
    first_seconds: float = 30.0
    """From an upload's headers to its first message."""
    ping_seconds: float = 20.0
    """A peer that pings more often, three times, is disconnected."""
    silence_seconds: float = 60.0
    """A peer that was silent for so long is pinged, and given up when it does not answer within a third of it."""

    def options(self) -> tuple[tuple[str, int], ...]:
        """For grpc.aio.server."""
        return (
            ("grpc.max_receive_message_length", RECEIVE_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.so_reuseport", 0),  # a second node on the same port must fail, not share it
            ("grpc.max_concurrent_streams", self.streams),
            ("grpc.max_metadata_size", self.metadata_bytes),
            ("grpc.absolute_max_metadata_size", self.metadata_bytes),
            ("grpc.server_handshake_timeout_ms", int(self.handshake_seconds * 1000)),
            ("grpc.max_connection_idle_ms", int(self.idle_seconds * 1000)),
            ("grpc.keepalive_time_ms", int(self.silence_seconds * 1000)),
            ("grpc.keepalive_timeout_ms", int(self.silence_seconds * 1000 / 3)),
            ("grpc.http2.min_recv_ping_interval_without_data_ms", int(self.ping_seconds * 1000)),
            ("grpc.http2.max_ping_strikes", 2),
        )


LIMITS = Limits()
