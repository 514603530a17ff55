"""Warms a zygote up: invokes a function of ours over a real channel, so that what the first invocations of every
environment would do (filling caches, specialising bytecode, first touches of the interpreter) has been done before the
fork, once, in memory that all share.
"""

import logging
import os
import time

from . import context, environment, logs

# The interpreter specialises a function's bytecode after a few calls; measured: no gain beyond.
ROUNDS = 32

INVOKE = 131
VERSION = 1
SEQPACKET_MAX = 81920


def _counted(data):
    return len(data).to_bytes(4, "little") + data


def _invoke(body):
    """An INVOKE packet, as native/protocol/schema.toml lays it out."""
    return b"".join(
        [
            INVOKE.to_bytes(2, "little"),
            VERSION.to_bytes(1, "little"),
            bytes(29),
            bytes(16),
            (int(time.time() * 1000) + 1000).to_bytes(8, "little"),
            _counted(b"arn:aws:lambda:us-east-1:000000000000:function:warm"),
            _counted(b"Root=1-00000000-000000000000000000000000"),
            _counted(b""),
            _counted(b""),
            _counted(b""),
            len(body).to_bytes(4, "little"),
            _counted(body),
        ]
    )


def _handler(event, context):
    context.get_remaining_time_in_millis()
    return {"statusCode": 200, "headers": {}, "body": event}


def _format_records():
    """What logging and the error path look up on first use."""
    record = logging.LogRecord("warm", logging.INFO, __file__, 1, "%s", ("warm",), None)
    record.aws_request_id = ""
    logging.Formatter(logs.TEXT_FORMAT, logs.TIME_FORMAT).format(record)
    logs.JsonFormatter().format(record)
    logs.timestamp(time.time())


def run(native):
    import _socket

    logs.open_streams()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    channel = native.Channel(theirs.detach())
    packet = _invoke(b'{"key1": "value1", "number": 1, "list": [1.5, true, null]}')
    for _ in range(ROUNDS):
        ours.send(packet)
        environment.answer(channel, native, _handler, channel.next())
        ours.recv(SEQPACKET_MAX)
    ours.close()
    context.channel = None  # here, or its descriptor's number would be closed in each environment
    del channel
    _format_records()
    logs.current.request_id = ""
    os.environ.pop(environment.TRACE_VARIABLE, None)
