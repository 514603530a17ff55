"""Other stores that keep events on the disk, started in directories of their own for bench/event_accept.py: Redis with
`appendfsync always`, PostgreSQL, SQLite. Each is set up as it is fastest while what it confirmed is on the disk.

`./dev bench` unpacks what the machine lacks of them below build/peers; nothing is installed, no service is started.
"""

from __future__ import annotations

import contextlib
import glob
import os
import pathlib
import socket
import subprocess
import sysconfig
from collections.abc import Iterator

from bench.measure import Compiled, await_true
from bench.node import ROOT

UNPACKED = ROOT / "build" / "peers" / "root"
LIBRARIES = UNPACKED / "usr" / "lib" / str(sysconfig.get_config_var("MULTIARCH") or "")
NOBODY = 65534
"""PostgreSQL refuses to run as root."""


def _program(*patterns: str) -> str:
    """The first that is there: unpacked, or the machine's own; empty: none."""
    return next((path for root in (UNPACKED, "/") for one in patterns for path in glob.glob(f"{root}/{one}")), "")


def _redis() -> str:
    return _program("usr/bin/redis-server", "usr/local/bin/redis-server")


def _postgres() -> str:
    return _program("usr/lib/postgresql/*/bin/postgres", "usr/local/pgsql/bin/postgres")


def missing() -> str:
    """What to do before the bench can run; empty: nothing."""
    needed = {
        "redis-server": _redis(),
        "postgresql": _postgres(),
        "libsqlite3-dev": _program("usr/include/sqlite3.h"),
    }
    lacking = [name for name, there in needed.items() if not there]
    return f"needs {', '.join(lacking)}: `./dev bench event_accept` gets them where there is apt" if lacking else ""


def _environment() -> dict[str, str]:
    paths = [str(LIBRARIES), os.environ.get("LD_LIBRARY_PATH", "")]
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(filter(None, paths)), "LC_ALL": "C"}


def _connects(path: pathlib.Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _running(command: list[str], path: pathlib.Path, user: int | None = None) -> Iterator[str]:
    """Until it answers on the socket; ends with the bench."""
    with (path.parent / "log").open("wb") as log:
        process = subprocess.Popen(
            command, env=_environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, user=user, group=user
        )
    try:
        await_true(lambda: process.poll() is not None or _connects(path), 60, f"{command[0]}'s first answer")
        if process.poll() is not None:
            raise RuntimeError(f"{command[0]} left: {(path.parent / 'log').read_text()[-1000:]}")
        yield str(path)
    finally:
        process.terminate()
        process.wait(60)


@contextlib.contextmanager
def redis(directory: pathlib.Path) -> Iterator[str]:
    """Yields its socket's path. Its file is never rewritten, which would cost it time."""
    directory.mkdir()
    path = directory / "redis.sock"
    command = [
        _redis(), "--port", "0", "--unixsocket", str(path), "--dir", str(directory), "--save", "",
        "--appendonly", "yes", "--appendfsync", "always", "--auto-aof-rewrite-percentage", "0",
    ]  # fmt: skip
    with _running(command, path) as address:
        yield address


def redis_add(payload: bytes) -> bytes:
    """XADD of one event, as it goes over the socket."""
    words = [b"XADD", b"events", b"*", b"payload", payload]
    return b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)


def redis_forget(path: str) -> None:
    """The stream goes: it lies in memory."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(60)
        connection.connect(path)
        connection.sendall(b"*2\r\n$6\r\nUNLINK\r\n$6\r\nevents\r\n")
        connection.recv(64)


@contextlib.contextmanager
def postgres(directory: pathlib.Path) -> Iterator[str]:
    """Yields its socket's path. A table of events is there; checkpoints are further apart than the bench is long."""
    directory.mkdir()
    os.chown(directory, NOBODY, NOBODY)
    program, path, data = _postgres(), directory / ".s.PGSQL.5432", directory / "data"
    folder = pathlib.Path(program).parent
    subprocess.run(
        [str(folder / "initdb"), "-D", str(data), "-U", "bench", "--auth=trust", "--no-locale", "-E", "UTF8"],
        env=_environment(), check=True, stdout=subprocess.DEVNULL, user=NOBODY, group=NOBODY, cwd=directory,
    )  # fmt: skip
    create = "CREATE TABLE events (id bigint GENERATED ALWAYS AS IDENTITY, payload bytea NOT NULL);\n"
    subprocess.run(
        [program, "--single", "-D", str(data), "postgres"], env=_environment(), input=create.encode(), check=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, user=NOBODY, group=NOBODY, cwd=directory,
    )  # fmt: skip
    settings = {
        "listen_addresses": "", "unix_socket_directories": str(directory), "max_connections": "300",
        "shared_buffers": "256MB", "max_wal_size": "16GB", "checkpoint_timeout": "1h", "autovacuum": "off",
        "fsync": "on", "synchronous_commit": "on", "jit": "off", "wal_level": "minimal", "max_wal_senders": "0",
    }  # fmt: skip
    command = [program, "-D", str(data), *(f"--{name}={value}" for name, value in settings.items())]
    with _running(command, path, NOBODY) as address:
        yield address


def sqlite(compiled: Compiled) -> str:
    """The program whose threads write rows; see floors/rows.c."""
    flags = (
        ["-I", str(UNPACKED / "usr" / "include"), "-L", str(LIBRARIES)] if (UNPACKED / "usr/include").exists() else []
    )
    return compiled.program("rows", *flags, "-lpthread", "-Wl,--no-as-needed", "-lsqlite3")
