"""Beside each hostile function: what an invocation finds of earlier ones."""

import os


def look():
    return {
        "tmp": sorted(os.listdir("/tmp")),
        "processes": [name for name in os.listdir("/proc") if name.isdigit()],
        "threads": len(os.listdir("/proc/self/task")),
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,
    }
