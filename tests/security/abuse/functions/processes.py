"""Uses up processes and threads."""

import os
import signal
import threading
import time

from look import hold, look

__all__ = ["hold", "look"]


def fork_bomb():
    """Every process makes more of itself, for as long as it lives."""
    while True:
        try:
            os.fork()
        except OSError:
            pass


def forks():
    """As many children as it gets; tells how many."""
    made = 0
    try:
        while True:
            if os.fork() == 0:
                time.sleep(600)
            made += 1
    except OSError as error:
        return [made, error.errno]


def threads():
    """As many threads as it gets, each spinning a little; then more."""
    made = 0
    stop = threading.Event()
    try:
        while True:
            threading.Thread(target=stop.wait, daemon=True).start()
            made += 1
    except RuntimeError as error:
        stop.set()
        return [made, str(error)]


def zombies():
    """Children that have ended and that nobody waits for."""
    made = 0
    try:
        while True:
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            made += 1
    except OSError as error:
        os._exit(3 if made > 100 and error.errno == 11 else 4)


def orphans():
    """Daemons: their parent ends, whoever adopts them has to wait for them."""
    for _ in range(200):
        pid = os.fork()
        if pid == 0:
            if os.fork() == 0:
                time.sleep(0.01)
            os._exit(0)
        os.waitpid(pid, 0)
    return True


def linger():
    """The reply comes while a child spins on."""
    for _ in range(4):
        if os.fork() == 0:
            os.setsid()
            signal.alarm(60)
            while True:
                pass
    return True


def handler(event, context):
    deed = event["deed"]
    if deed == "nothing":
        return None
    return globals()[deed]()
