"""Floor: a bare interpreter that forks itself into new namespaces and lets each child call a handler once.

    zygote.py OBJECT first COUNT GAP [DIRECTORY]
                                       time from fork to the child's answer, one at a time, after GAP ms of idleness;
                                       with the handler of DIRECTORY/app.py imported before
    zygote.py OBJECT rate COUNT        forks, answers and reaps COUNT children, with 8 in flight; one figure
    zygote.py OBJECT hold COUNT        keeps COUNT children after their call; prints their ids, waits for input

Microseconds (seconds for rate) as text, one a line.
"""

import ctypes
import gc
import json
import os
import select
import socket
import sys
import time

IN_FLIGHT = 8
CALL = b'{"name": "you"}'


def handler(event: dict[str, str], context: None) -> dict[str, str]:
    return {"hello": event.get("name", "you")}


class Zygote:
    """Forks children and keeps them by the descriptor of the parent's end of their socketpair."""

    def __init__(self, shared_object: str, stay: bool) -> None:
        self.fork = ctypes.PyDLL(shared_object).floor_fork
        self.stay = stay
        self.poll = select.epoll()
        self.children: dict[int, tuple[int, socket.socket]] = {}

    def start(self) -> socket.socket:
        """One child, to which its call is sent."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = self.fork()
        if pid < 0:
            raise OSError("clone failed: root is needed")
        if pid == 0:
            self.live(ours, theirs)
        theirs.close()
        ours.send(CALL)
        self.children[ours.fileno()] = (pid, ours)
        self.poll.register(ours, select.EPOLLIN)
        return ours

    def live(self, ours: socket.socket, theirs: socket.socket) -> None:
        ours.close()
        theirs.send(json.dumps(handler(json.loads(theirs.recv(65536)), None)).encode())
        if self.stay:
            for _, end in self.children.values():
                end.close()
            theirs.recv(1)
        os._exit(0)

    def end(self, fd: int) -> None:
        pid, ours = self.children.pop(fd)
        self.poll.unregister(fd)
        ours.close()
        os.waitpid(pid, 0)

    def end_some(self) -> None:
        for fd, _ in self.poll.poll():
            self.children[fd][1].recv(65536)
            self.end(fd)


def first(zygote: Zygote, count: int, gap: float) -> None:
    for _ in range(count):
        time.sleep(gap)
        start = time.perf_counter()
        child = zygote.start()
        child.recv(65536)
        print(f"{(time.perf_counter() - start) * 1e6:.1f}")
        zygote.end(child.fileno())


def rate(zygote: Zygote, count: int) -> None:
    start = time.perf_counter()
    for _ in range(count):
        zygote.start()
        if len(zygote.children) == IN_FLIGHT:
            zygote.end_some()
    while zygote.children:
        zygote.end_some()
    print(f"{time.perf_counter() - start:.6f}")


def hold(zygote: Zygote, count: int) -> None:
    for _ in range(count):
        zygote.start().recv(65536)
    print(" ".join(str(pid) for pid, _ in zygote.children.values()), flush=True)
    sys.stdin.read(1)
    for fd in list(zygote.children):
        zygote.end(fd)


def main() -> None:
    global handler
    mode, count = sys.argv[2], int(sys.argv[3])
    if len(sys.argv) > 5:
        sys.path.insert(0, sys.argv[5])
        handler = __import__("app").handler
    zygote = Zygote(sys.argv[1], stay=mode == "hold")
    json.loads(json.dumps({}))
    gc.freeze()
    if mode == "first":
        first(zygote, count, float(sys.argv[4]) / 1000)
    elif mode == "rate":
        rate(zygote, count)
    else:
        hold(zygote, count)


main()
