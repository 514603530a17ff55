"""Fails in the way the event asks for."""

import ctypes
import os
import signal
import sys
import threading
import time


class OutOfStock(Exception):
    pass


def reserve(article):
    raise OutOfStock(f"no {article} left")


def exhaust_memory():
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 20)))


def fill_disk():
    with open("/tmp/full", "wb") as file:
        while True:
            file.write(b"\0" * (1 << 20))


def handler(event, context):
    kind = event["kind"]
    if kind == "raise":
        reserve("bolts")
    elif kind == "chain":
        try:
            reserve("nuts")
        except OutOfStock as error:
            raise RuntimeError("could not order") from error
    elif kind == "unserialisable":
        return {"a": {1, 2}}
    elif kind == "exit":
        sys.exit(event.get("status", 3))
    elif kind == "leave":
        os._exit(event.get("status", 0))
    elif kind == "signal":
        os.kill(os.getpid(), event.get("signal", signal.SIGKILL))
    elif kind == "crash":
        ctypes.string_at(0)
    elif kind == "sleep":
        time.sleep(event.get("seconds", 60))
    elif kind == "spin":
        while True:
            pass
    elif kind == "memory":
        exhaust_memory()
    elif kind == "disk":
        fill_disk()
    elif kind == "descriptors":
        kept = []
        while True:
            kept.append(open("/dev/null"))  # noqa: SIM115
    elif kind == "threads":
        for _ in range(100_000):
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    elif kind == "large":
        return "x" * event.get("size", 7 << 20)
    elif kind == "deep":
        return handler(event, context)
    return {"kind": kind}
