"""An invocation that came from nobody: what a zygote warms up with (warm.py), and an environment that is started ahead
of demand (environment.py) does before it says that it is ready. And, for spares, a START from nobody.
"""

import marshal
import time

START = 128
INVOKE = 131
VERSION = 1

# Meanwhile nothing is told to anybody.
under_way = False


def handler(event, context):
    context.get_remaining_time_in_millis()
    return {"statusCode": 200, "headers": {}, "body": event}


def _counted(data):
    return len(data).to_bytes(4, "little") + data


# A function's module, as it lies compiled in a package.
NAME = "rehearsed"
SOURCE = """
import json
import os

def handler(event, context):
    return {"hello": event.get("name", "you")}
"""
code = marshal.dumps(compile(SOURCE, "/var/task/%s.py" % NAME, "exec"))

CONFIGURATION = b"""{"handler": "rehearsed.handler", "function_name": "rehearsed", "function_version": "$LATEST",
 "log_group": "", "memory_mb": 128, "region": "us-east-1", "runtime": "python3", "log_format": "Text",
 "environment": {"REHEARSED": "x"}}"""


def _head(kind):
    return kind.to_bytes(2, "little") + VERSION.to_bytes(1, "little") + bytes(29)


def _invoke(body):
    """An INVOKE packet, as native/protocol/schema.toml lays it out."""
    return b"".join(
        [
            _head(INVOKE),
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


start_packet = _head(START) + bytes(2) + _counted(b"stream") + _counted(CONFIGURATION)
packet = _invoke(b'{"key1": "value1", "number": 1, "list": [1.5, true, null]}')
