"""Warms a zygote up: invokes a function of ours over a real channel, so that what the first invocations of every
environment would do (filling caches, specialising bytecode, first touches of the interpreter) has been done before the
fork, once, in memory that all share.
"""

import logging
import os
import time

from . import context, environment, logs, rehearsal

# The interpreter specialises a function's bytecode after a few calls; measured: no gain beyond.
ROUNDS = 32

SEQPACKET_MAX = 81920


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
    for _ in range(ROUNDS):
        ours.send(rehearsal.packet)
        environment.answer(channel, native, rehearsal.handler, channel.next())
        ours.recv(SEQPACKET_MAX)
    ours.close()
    context.channel = None  # here, or its descriptor's number would be closed in each environment
    del channel
    _format_records()
    logs.current.request_id = ""
    os.environ.pop(environment.TRACE_VARIABLE, None)
