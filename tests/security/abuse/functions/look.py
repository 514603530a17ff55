"""Beside each hostile function: what an invocation finds of earlier ones, and how to be in many at once."""

import os
import time


def look():
    return {
        "tmp": sorted(os.listdir("/tmp")),
        "processes": [name for name in os.listdir("/proc") if name.isdigit()],
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
    }


def hold():
    """Which environment this is, and what it finds: long enough that as many of these at once are in as many."""
    found = look()
    time.sleep(0.3)
    return {"environment": os.environ["AWS_LAMBDA_LOG_STREAM_NAME"], **found}
