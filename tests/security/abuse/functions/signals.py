"""Signals, endless loops and ends that do not come."""

import atexit
import ctypes
import os
import signal
import sys
import threading
import time

from look import hold, look

__all__ = ["hold", "look"]

libc = ctypes.CDLL(None, use_errno=True)


def storm():
    """From eight children to the whole group."""
    signal.signal(signal.SIGUSR1, lambda *_: None)
    for _ in range(8):
        if os.fork() == 0:
            break
    while True:
        os.killpg(0, signal.SIGUSR1)


def queued():
    """Real-time signals that nobody takes: as many as may wait."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [40])
    sent = 0
    while libc.sigqueue(os.getpid(), 40, None) == 0:
        sent += 1
    while signal.sigtimedwait([40], 0) is not None:
        pass
    return sent


def kill_all():
    """Everybody that it can see, and itself."""
    for _ in range(5):
        if os.fork() == 0:
            time.sleep(60)
    os.kill(-1, signal.SIGKILL)
    os.kill(os.getpid(), signal.SIGKILL)


def stop():
    os.kill(os.getpid(), signal.SIGSTOP)


def deaf():
    """Ignores what can be ignored, and everything else ends in a handler that does not return."""

    def forever(*_):
        while True:
            pass

    for number in range(1, signal.NSIG):
        try:
            signal.signal(number, forever)
        except (OSError, ValueError):
            pass
    os.kill(os.getpid(), signal.SIGTERM)
    forever()


def spin():
    while True:
        pass


def spin_in_c():
    """One operation, the interpreter's lock held: no signal handler runs."""
    return len(str(7 ** (10**9)))


def spin_at_exit():
    atexit.register(spin)
    sys.exit(0)


def threads_spin_on():
    """The reply comes, the threads stay."""
    for _ in range(4):
        threading.Thread(target=spin, daemon=True).start()
    return True


def overflow():
    """Of the C stack, in the middle of a repr."""
    sys.setrecursionlimit(10**9)
    nested = []
    for _ in range(1_000_000):
        nested = [nested]
    return repr(nested)


def recursion():
    return recursion()


def wander():
    """Asks to be moved to another processor, and back: the kernel's stopper threads would do it before all else."""
    every = os.sched_getaffinity(0)
    for _ in range(8):
        if os.fork() == 0:
            break
    while True:
        for processor in every:
            os.sched_setaffinity(0, {processor})


def pinned():
    every = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(every)})
    return os.sched_getaffinity(0) == every


def alarms():
    """A timer that fires faster than its handler ends."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.00001, 0.00001)
    while True:
        pass


def handler(event, context):
    return globals()[event["deed"]]()
