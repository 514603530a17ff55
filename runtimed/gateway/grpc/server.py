"""The gRPC server of the control plane: a unix socket for root and the node's group, and TCP for whoever holds a key.

Two grpc servers with the same handlers: who may connect to the socket is decided by its file mode, which the kernel
checks against the peer's credentials; on TCP every call, health and reflection included, needs
`authorization: Bearer KEY`: the node's own, or the token of one that was made for a caller.
"""

from __future__ import annotations

import hmac
import logging
import os
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer
from grpc_reflection.v1alpha import reflection

from runtimed.gateway.grpc import status
from runtimed.gateway.grpc.limits import LIMITS, Limits
from runtimed.gateway.grpc.servicer import Servicer
from runtimed.model import errors

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from runtimed.api.operation import Bound

log = logging.getLogger(__name__)

BEARER = b"Bearer "
SOCKET_UMASK = 0o117
"""Leaves 0660."""
SOCKET_PATH_BYTES = 107
"""sun_path of unix(7), less its NUL."""


class Server:
    """Serves the API until it is stopped."""

    def __init__(
        self,
        api: Mapping[str, Bound],
        *,
        socket: Path | None = None,
        socket_gid: int | None = None,
        address: str | None = None,
        key: str = "",
        tokens: Callable[[bytes], bool] | None = None,
        limits: Limits = LIMITS,
    ) -> None:
        """`address` is host:port (port 0: any, see `port`) and needs a `key`; `tokens` says which others there are."""
        if address and not key:
            raise ValueError("TCP needs a key")
        self.port = 0
        self._socket, self._socket_gid = socket, socket_gid
        self._address, self._key, self._tokens = address, key, tokens
        self._limits = limits
        self._servicer = Servicer(api, limits.first_seconds)
        self._health = HealthServicer()
        self._servers: list[grpc.aio.Server] = []

    async def start(self) -> None:
        """Listens; OSError when a listener cannot be made. Serving begins before it returns."""
        names = [*self._servicer.services(), health.SERVICE_NAME, reflection.SERVICE_NAME]
        if self._socket is not None:
            server = self._server(names)
            self._listen_on_socket(server, self._socket)
        if self._address is not None:
            server = self._server(names, _KeyInterceptor(self._key, self._tokens))
            try:
                self.port = server.add_insecure_port(self._address)
            except RuntimeError:
                raise OSError(f"cannot listen on {self._address}: is another node running?") from None
        for server in self._servers:
            await server.start()
        await self.set_serving(True)

    async def set_serving(self, serving: bool) -> None:
        """What the health service answers."""
        state = health_pb2.HealthCheckResponse.SERVING if serving else health_pb2.HealthCheckResponse.NOT_SERVING
        for name in ("", *self._servicer.services()):
            await self._health.set(name, state)

    async def stop(self, grace: float) -> None:
        """Refuses new calls at once, gives running ones `grace` seconds, and ends the rest."""
        await self._health.enter_graceful_shutdown()
        self._servicer.end_streams()
        for server in self._servers:
            await server.stop(grace)
        if self._socket is not None:
            self._socket.unlink(missing_ok=True)

    def _server(self, names: list[str], *interceptors: grpc.aio.ServerInterceptor) -> grpc.aio.Server:
        server = grpc.aio.server(
            interceptors=interceptors, options=self._limits.options(), maximum_concurrent_rpcs=self._limits.calls
        )
        server.add_generic_rpc_handlers(tuple(self._servicer.handlers()))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(names, server)
        self._servers.append(server)
        return server

    def _listen_on_socket(self, server: grpc.aio.Server, path: Path) -> None:
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            raise OSError(f"{path} is too long for a unix socket (at most {SOCKET_PATH_BYTES} bytes)")
        path.unlink(missing_ok=True)  # a predecessor that was killed left it
        before = os.umask(SOCKET_UMASK)
        try:
            server.add_insecure_port(f"unix:{path}")
        except RuntimeError:
            raise OSError(f"cannot listen on {path}") from None
        finally:
            os.umask(before)
        if self._socket_gid is not None and os.stat(path).st_gid != self._socket_gid:
            try:
                os.chown(path, -1, self._socket_gid)
            except PermissionError:
                log.warning("%s stays with group %d: not a member of %d", path, os.stat(path).st_gid, self._socket_gid)


class _KeyInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call through only with a key."""

    def __init__(self, key: str, tokens: Callable[[bytes], bool] | None) -> None:
        self._expected = f"Bearer {key}".encode()
        self._tokens = tokens
        self._refusal = grpc.unary_unary_rpc_method_handler(_refuse)

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> grpc.RpcMethodHandler[Any, Any]:
        given = dict(handler_call_details.invocation_metadata or ()).get(status.AUTHORIZATION, "")
        presented = given if isinstance(given, bytes) else given.encode()
        if hmac.compare_digest(presented, self._expected) or self._is_token(presented):
            return await continuation(handler_call_details)
        return self._refusal

    def _is_token(self, presented: bytes) -> bool:
        return self._tokens is not None and presented.startswith(BEARER) and self._tokens(presented[len(BEARER) :])


async def _refuse(_request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
    error = errors.Unauthenticated(
        "The key is missing or wrong. Send `authorization: Bearer TOKEN` with a token of `runtimectl keys create`, or "
        "with the key in STATE/keys/control.key."
    )
    await context.abort(*status.encode(error))
