"""An invocation that came from nobody: what a zygote warms up with (warm.py), and an environment that is started ahead
of demand (environment.py) does before it says that it is ready.
"""

import time

INVOKE = 131
VERSION = 1

# Meanwhile nothing is told to anybody.
under_way = False


def handler(event, context):
    context.get_remaining_time_in_millis()
    return {"statusCode": 200, "headers": {}, "body": event}


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


packet = _invoke(b'{"key1": "value1", "number": 1, "list": [1.5, true, null]}')
