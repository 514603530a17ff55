"""Uses up memory: its own, shared, the page cache's, the kernel's. A deed tells how many MB it got, if it lives."""

import ctypes
import fcntl
import mmap
import os
import signal
import socket

from look import hold, look

__all__ = ["hold", "look"]
MB = 1 << 20
PAGE = 4096
ENOUGH = 400 * MB
libc = ctypes.CDLL(None, use_errno=True)
kept = []


def touch(area, size):
    for at in range(0, size, PAGE):
        area[at] = 1


def anonymous():
    while True:
        kept.append(bytearray(b"x" * MB))


def shared_mapping():
    area = mmap.mmap(-1, ENOUGH)
    touch(area, ENOUGH)
    return ENOUGH // MB


def in_children():
    """Each takes less than the limit."""
    for _ in range(8):
        if os.fork() == 0:
            kept.append(b"x" * (60 * MB))
            signal.pause()
    os.wait()
    os._exit(5)


def page_cache():
    """Written to disk: charged, and given back when it is needed."""
    with open("/tmp/large", "wb") as file:
        file.writelines(b"x" * MB for _ in range(ENOUGH // MB))
    with open("/tmp/large", "rb") as file:
        while file.read(MB):
            pass
    os.unlink("/tmp/large")
    return ENOUGH // MB


def dirty_mapping():
    """A file's pages, all dirty."""
    with open("/tmp/mapped", "w+b") as file:
        file.truncate(ENOUGH)
        with mmap.mmap(file.fileno(), ENOUGH) as area:
            touch(area, ENOUGH)
    os.unlink("/tmp/mapped")
    return ENOUGH // MB


def memfd():
    fd = os.memfd_create("hog")
    for _ in range(ENOUGH // MB):
        os.write(fd, b"x" * MB)
    return ENOUGH // MB


def system_v():
    """Segments that nobody is attached to outlive their maker."""
    libc.shmat.restype = ctypes.c_void_p
    made = 0
    while made < ENOUGH // MB:
        segment = libc.shmget(0, 16 * MB, 0o1600)
        at = libc.shmat(segment, None, 0)
        if segment < 0 or at in (None, ctypes.c_void_p(-1).value):
            return [made, ctypes.get_errno()]
        ctypes.memset(at, 1, 16 * MB)
        libc.shmdt(ctypes.c_void_p(at))
        made += 16
    return made


def posix_shared():
    """Is there a /dev/shm?"""
    try:
        with open("/dev/shm/hog", "wb") as file:
            file.writelines(b"x" * MB for _ in range(ENOUGH // MB))
    except OSError as error:
        return error.errno
    return ENOUGH // MB


def stuff(write):
    """Bytes written until it would block."""
    total = 0
    chunk = b"x" * 65536
    try:
        while True:
            total += write(chunk)
    except OSError:
        try:
            while True:
                total += write(chunk[:PAGE])
        except OSError:
            return total


def across_processes(make):
    """`make` in children, so that descriptors are not what ends it: MB in all, as they tell."""
    total = 0
    reader, writer = os.pipe()
    for _ in range(8):
        if os.fork() == 0:
            held = 0
            try:
                while held < ENOUGH:
                    held += make()
            except OSError:
                pass
            os.write(writer, held.to_bytes(8, "little"))
            signal.pause()
    for _ in range(8):
        total += int.from_bytes(os.read(reader, 8), "little")
    return total // MB


def pipes():
    def one():
        reader, writer = os.pipe()
        kept.extend((reader, writer))
        try:
            fcntl.fcntl(writer, 1031, MB)  # F_SETPIPE_SZ
        except OSError:
            pass
        os.set_blocking(writer, False)
        return stuff(lambda data: os.write(writer, data))

    return across_processes(one)


def large_buffers(*sockets):
    for one in sockets:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8 * MB)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 * MB)
        one.setblocking(False)
    kept.extend(sockets)


def unix_sockets():
    def one():
        pair = socket.socketpair()
        large_buffers(*pair)
        return stuff(pair[0].send) + stuff(pair[1].send)

    return across_processes(one)


def tcp_sockets():
    def one():
        with socket.create_server(("127.0.0.1", 0)) as server:
            near = socket.create_connection(server.getsockname())
            far, _ = server.accept()
        large_buffers(near, far)
        return stuff(near.send) + stuff(far.send)

    return across_processes(one)


def udp_sockets():
    def one():
        far = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        near = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        far.bind(("127.0.0.1", 0))
        near.connect(far.getsockname())
        large_buffers(near, far)
        return sum(near.send(b"x" * 32768) for _ in range(20))

    across_processes(one)
    with open("/proc/net/sockstat") as file:  # pages of the whole host: what is held, not what was sent and dropped
        line = next(line for line in file if line.startswith("UDP:"))
    return int(line.split()[-1]) * PAGE // MB


def page_tables():
    """A page in every two megabytes: as much for the table as for the page."""
    area = mmap.mmap(-1, 1 << 40, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000)  # MAP_NORESERVE
    area.madvise(15)  # MADV_NOHUGEPAGE
    for at in range(0, 100_000 * 2 * MB, 2 * MB):
        area[at] = 1
    return 100_000 * 2 * PAGE // MB


def names():
    """Names that do not exist are remembered, too."""
    long = "x" * 200
    for number in range(300_000):
        try:
            os.stat(f"/tmp/{long}{number}")
        except OSError:
            pass
    return True


def inodes():
    """Empty files: the disk's inodes and the kernel's, whichever end first."""
    made = 0
    try:
        for directory in range(1000):
            os.mkdir(f"/tmp/{directory}")
            for number in range(1000):
                os.close(os.open(f"/tmp/{directory}/{number}", os.O_CREAT | os.O_WRONLY))
                made += 1
    except OSError as error:
        return [made, error.errno]
    return [made, 0]


def messages():
    """System V queues, filled."""
    held = 0
    message = ctypes.create_string_buffer(8 + 8192)
    message[0] = 1
    while held < ENOUGH:
        queue = libc.msgget(0, 0o1600)
        if queue < 0:
            return [held // MB, ctypes.get_errno()]
        while libc.msgsnd(queue, message, 8192, 0o4000) == 0:  # IPC_NOWAIT
            held += 8192
    return held // MB


def semaphores():
    """System V sets, as large as they may be."""
    held = 0
    while held < ENOUGH:
        if libc.semget(0, 32000, 0o1600) < 0:
            return [held // MB, ctypes.get_errno()]
        held += 32000 * 64
    return held // MB


def locks():
    """Record locks on every other byte of a file: one structure in the kernel each."""
    with open("/tmp/locked", "wb") as file:
        for at in range(0, 30_000, 2):
            fcntl.lockf(file, fcntl.LOCK_EX, 1, at)
    return True


def handler(event, context):
    return globals()[event["deed"]]()
