"""What a function does to its /tmp, and what the next user of the image finds there: nothing."""

from __future__ import annotations

import pathlib

import pytest

from tests.outcomes import Outcome
from tests.security.escape.arena import Arena

# Leaves everything behind that a file system can hold. Each deed may fail; which ones did is told.
MESS = """
import os, socket, stat
def handler(event, context):
    os.chdir("/tmp")
    refused = []
    def attempt(name, deed):
        try:
            deed()
        except OSError as error:
            refused.append([name, error.errno])
    def linked():
        for n in range(3000):
            os.link("data", "links/%d" % n)
    def full():
        with open("full", "wb") as file:
            file.write(MARK * 200000)
            while True:
                os.posix_fallocate(file.fileno(), os.stat("full").st_size, 4 << 20)
    with open("data", "wb") as file:
        file.write(MARK * 4096)
    os.mkdir("links")
    attempt("hard links", linked)
    attempt("hard link to /usr", lambda: os.link("/usr/bin/env", "env"))
    attempt("hard link to the package", lambda: os.link("/var/task/app.py", "app.py"))
    attempt("block device", lambda: os.mknod("block", 0o600 | stat.S_IFBLK, os.makedev(7, 0)))
    attempt("character device", lambda: os.mknod("character", 0o600 | stat.S_IFCHR, os.makedev(1, 1)))
    attempt("immutable", lambda: immutable("data"))
    attempt("file capability", lambda: os.setxattr("data", "security.capability", bytes(20)))
    attempt("trusted attribute", lambda: os.setxattr("data", "trusted.x", b"x"))
    attempt("chown", lambda: os.chown("data", 0, 0))
    attempt("fifo", lambda: os.mkfifo("fifo"))
    attempt("socket", lambda: socket.socket(socket.AF_UNIX).bind("socket"))
    attempt("suid", lambda: os.chmod("data", 0o6777))
    attempt("attribute", lambda: os.setxattr("data", "user.x", MARK))
    attempt("attribute of the root", lambda: os.setxattr("/tmp", "user.x", MARK))
    attempt("links out", lambda: [os.symlink(to, "out%d" % n) for n, to in enumerate(["/", "/proc/self/root", "/dev"])])
    attempt("times", lambda: os.utime("/tmp", (1, 1)))
    attempt("closed", lambda: (os.makedirs("closed/inner"), os.chmod("closed", 0)))
    attempt("full", full)
    attempt("mode", lambda: os.chmod("/tmp", 0o7777))
    return refused
def immutable(path):
    import fcntl
    fd = os.open(path, os.O_RDONLY)
    fcntl.ioctl(fd, 0x40086602, bytes([16, 0, 0, 0, 0, 0, 0, 0]))
MARK = b"the last owner's a6f2"
"""

# Reads all that it is given: names, attributes, every block that can be allocated without being written.
LOOK = """
import os
def handler(event, context):
    s = os.stat("/tmp")
    found = {"names": os.listdir("/tmp"), "attributes": os.listxattr("/tmp"), "mode": oct(s.st_mode),
             "mine": s.st_uid == os.getuid() == s.st_gid, "old": s.st_mtime < 1000}
    v = os.statvfs("/tmp")
    found["free"] = [v.f_bavail * v.f_frsize >> 20, v.f_ffree > 10000]
    fd = os.open("/tmp/all", os.O_RDWR | os.O_CREAT)
    size = v.f_bavail * v.f_frsize - (8 << 20)
    os.posix_fallocate(fd, 0, size)
    found["traces"] = sum(os.pread(fd, 1 << 20, at).strip(b"\\0") != b"" for at in range(0, size, 1 << 20))
    os.close(fd)
    os.unlink("/tmp/all")
    return found
"""


@pytest.mark.case("escape", "a /tmp left full of links, devices, attributes, closed directories; its next user looks")
def test_images_are_clean(arena: Arena, outcome: Outcome) -> None:
    """Several times, so that images come round; the platform has not followed a link, and hands on no byte."""
    hashes = {path: pathlib.Path(path).stat().st_nlink for path in ("/usr/bin/env", "/etc/passwd")}
    for _ in range(2):
        name = arena.fresh(MESS, ephemeral_storage=512, timeout=60)
        refused = dict(arena.call(name).value)
        assert set(refused) == {
            "hard link to /usr", "hard link to the package", "block device", "character device",
            "immutable", "file capability", "trusted attribute", "chown", "full",
        }  # fmt: skip
        assert refused["hard link to /usr"] == refused["hard link to the package"] == 18  # EXDEV
        arena.client.delete_function(name)
        seen = arena.call(arena.fresh(LOOK, ephemeral_storage=512)).value
        (free, files) = seen.pop("free")
        assert free > 450 and files
        assert seen == {"names": [], "attributes": [], "mode": "0o40700", "mine": True, "old": False, "traces": 0}
    assert hashes == {path: pathlib.Path(path).stat().st_nlink for path in hashes}
    outcome("devices, immutable files, capabilities are refused; the next user finds an empty directory and zeros")
