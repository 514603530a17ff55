"""Floor: a gRPC server that answers every call with the same invocation response. Run: grpc_hello.py SOCKET"""

import sys

import grpc
import uvloop

from runtimed.gateway.grpc.pb import invocations_pb2

ANSWER = invocations_pb2.InvokeResponse(
    status_code=200,
    request_id="8476a536-e9f4-11e8-9739-2dfe598c3fcd",
    executed_version="$LATEST",
    payload=b'{"hello":"you"}',
).SerializeToString()


class Everything(grpc.GenericRpcHandler):
    """Every method."""

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        return grpc.unary_unary_rpc_method_handler(self.answer)

    async def answer(self, request: bytes, context: grpc.aio.ServicerContext) -> bytes:
        return ANSWER


async def main() -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((Everything(),))
    server.add_insecure_port(f"unix:{sys.argv[1]}")
    await server.start()
    print("ready", flush=True)
    await server.wait_for_termination()


uvloop.run(main())
