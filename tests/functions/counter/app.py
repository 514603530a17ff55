"""Keeps state the way warm functions do: a global, a file in /tmp, and a cached client."""

import functools
import os
import pathlib
import uuid

calls = 0
environment = str(uuid.uuid4())
NOTES = pathlib.Path("/tmp/notes/calls.txt")


@functools.lru_cache(maxsize=1)
def client():
    return object()


def handler(event, context):
    global calls
    calls += 1
    NOTES.parent.mkdir(exist_ok=True)
    with NOTES.open("a") as notes:
        notes.write(context.aws_request_id + "\n")
    return {
        "calls": calls,
        "environment": environment,
        "pid": os.getpid(),
        "noted": len(NOTES.read_text().splitlines()),
        "clients": len({id(client()), id(client())}) * client.cache_info().misses,
        "code_is_read_only": not os.access(os.path.dirname(__file__), os.W_OK),
    }
