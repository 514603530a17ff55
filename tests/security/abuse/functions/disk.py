"""Uses up /tmp and the disk's time."""

import os

from look import hold, look

__all__ = ["hold", "look"]


def fill_with_bytes():
    with open("/tmp/full", "wb", buffering=0) as file:
        try:
            while True:
                file.write(b"x" * (1 << 20))
        except OSError as error:
            return [error.errno, os.fstat(file.fileno()).st_size >> 20]


def hold_and_write():
    """A megabyte more, where there is room for it."""
    found = hold()
    try:
        with open("/tmp/mine", "wb", buffering=0) as file:
            found["wrote"] = file.write(b"x" * (1 << 20))
    except OSError as error:
        found["wrote"] = -error.errno
    os.unlink("/tmp/mine")
    return found


def fill_at_once():
    """All of it promised, none of it written."""
    with open("/tmp/full", "wb") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, 10 << 30)
        except OSError as error:
            return error.errno


def fill_with_files():
    made = 0
    try:
        while True:
            os.close(os.open(f"/tmp/{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError as error:
        return [made, error.errno]


def hole():
    """As large as a file can be, and empty."""
    with open("/tmp/hole", "wb") as file:
        try:
            file.truncate(1 << 62)
        except OSError:
            file.truncate(1 << 40)
    os.unlink("/tmp/hole")
    return True


def deep():
    """A tree that is too deep for paths."""
    os.chdir("/tmp")
    for _ in range(3000):
        os.mkdir("d")
        os.chdir("d")
    os.chdir("/tmp")
    os._exit(6)


def flood():
    """Writes that have to reach the disk, again and again."""
    fd = os.open(f"/tmp/flood{os.getpid()}", os.O_CREAT | os.O_RDWR)
    data = os.urandom(1 << 20)
    while True:
        for at in range(16):
            os.pwrite(fd, data, at << 20)
        os.fsync(fd)


def handler(event, context):
    return globals()[event["deed"]]()
