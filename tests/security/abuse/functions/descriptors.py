"""Uses up descriptors and what the kernel counts per user or for all of the host."""

import ctypes
import os
import select
import socket

from look import hold, look

__all__ = ["hold", "look"]

libc = ctypes.CDLL(None, use_errno=True)
kept = []


def count(make, most=300_000):
    """How many succeed, and the errno that ends it."""
    made = 0
    while made < most:
        try:
            got = make()
        except OSError as error:
            return [made, error.errno]
        if isinstance(got, int) and got < 0:
            return [made, ctypes.get_errno()]
        made += 1
    return [made, 0]


def shut():
    """Descriptors that an attempt left open."""
    os.closerange(4, 1025)
    kept.clear()


def all_kinds():
    """Each kind alone, up to the limit."""
    makers = {
        "files": lambda: os.open("/dev/null", os.O_RDONLY),
        "eventfd": lambda: os.eventfd(0),
        "timerfd": lambda: libc.timerfd_create(1, 0),
        "epoll": lambda: kept.append(select.epoll()),
        "signalfd": lambda: libc.signalfd(-1, ctypes.create_string_buffer(128), 0),
        "memfd": lambda: os.memfd_create("x"),
        "pidfd": lambda: os.pidfd_open(os.getpid()),
        "sockets": lambda: kept.append(socket.socket()),
        "inotify": libc.inotify_init,
    }
    found = {}
    for name, make in makers.items():
        found[name] = count(make)
        shut()
    return found


def leave_open():
    """Held over the reply, so that nothing can be opened in the next call."""
    count(lambda: os.open("/dev/null", os.O_RDONLY))
    return True


def watches():
    """Inotify watches on as many files as there are."""
    fd = libc.inotify_init()
    made = 0
    for top, folders, files in os.walk("/usr"):
        for name in folders + files:
            if libc.inotify_add_watch(fd, os.fsencode(os.path.join(top, name)), 2) < 0:
                error = ctypes.get_errno()
                if error == 28:
                    os.close(fd)
                    return [made, error]
            else:
                made += 1
    os.close(fd)
    return [made, 0]


def objects():
    """What is counted per user: how many of each."""
    timer = ctypes.c_void_p()
    event = ctypes.create_string_buffer(64)
    event[8:12] = (40).to_bytes(4, "little")  # sigev_signo
    return {
        "timers": count(lambda: libc.timer_create(1, event, ctypes.byref(timer))),
        "queues": count(lambda: libc.mq_open(b"/hog", os.O_CREAT | os.O_RDWR, 0o600, None)),
        "keys": count(lambda: libc.syscall(KEYS, b"user", b"hog", b"x", 1, -3)),
        "locked": libc.mlock(ctypes.create_string_buffer(64 << 20), 64 << 20),
        "priority": count(lambda: os.nice(-1), 1),
        "realtime": count(lambda: os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1)), 1),
        "cgroups": count(lambda: os.mkdir("/sys/fs/cgroup/hog"), 1),
    }


KEYS = 248 if os.uname().machine == "x86_64" else 217


def handler(event, context):
    return globals()[event["deed"]]()
