"""Writes more log than anybody wants to read."""

import os
import sys

from look import hold, look

__all__ = ["hold", "look"]


def lines():
    text = b"a line of the flood, and not the last one\n" * 1500
    while True:
        os.write(1, text)


def short_lines():
    text = b"\n" * 60_000
    while True:
        os.write(1, text)


def endless_line():
    text = b"x" * 65_536
    while True:
        os.write(2, text)


def binary():
    text = bytes(range(256)) * 256
    while True:
        os.write(1, text)


def printed():
    while True:
        print("x" * 1000)


def last_words():
    """A megabyte that nobody has read when the process is gone."""
    sys.stdout.write("y" * 1_000_000)
    sys.stdout.flush()
    os._exit(7)


def long_line():
    """Longer than a line may be, with an end."""
    print("z" * 3_000_000)
    return True


def handler(event, context):
    return globals()[event["deed"]]()
