"""`runtimed`: reads the settings, prepares the directories, and becomes the launcher.

Runs as root, briefly. It executes nothing it finds; what the launcher must know goes to it as JSON in a memory file on
descriptor 3. From here on the launcher is the parent of everything (the way sshd and postfix do it), and the control
plane, `runtimed.daemon`, is its child without privileges.
"""

from __future__ import annotations

import argparse
import grp
import json
import os
import pwd
import site
import socket
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

import msgspec

import runtimed
from runtimed import config_text
from runtimed.config import Boot, Interpreter, Settings, SettingsError, boot_encoder, build_id, cgroup_name, load
from runtimed.sandbox.interpreters import find_interpreters
from runtimed.store.database import StoreError
from runtimed.store.layout import Owner, lay_out

PACKAGE = Path(runtimed.__file__).resolve().parent
BOOT_DESCRIPTOR = 3
SERVICE_VARIABLES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "INVOCATION_ID")  # sd_notify(3), systemd.exec(5)
EXIT_CONFIGURATION = 78  # sysexits.h: EX_CONFIG; systemd does not restart on it


class StartError(Exception):
    """The node cannot be started; the text says why and what to do."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The command."""
    options = config_text.command_line().parse_args(sys.argv[1:] if arguments is None else arguments)
    if options.version:
        sys.stdout.write(f"{build_id()}\n")
        sys.exit(0)
    if options.print_config:
        sys.stdout.write(config_text.default_file())
        sys.exit(0)
    try:
        if options.check_config:
            sys.stdout.write(config_text.effective(options.config, os.environ, _overrides(options)))
            sys.exit(0)
        if os.geteuid() != 0:
            raise StartError("needs root, to make sandboxes: start it with sudo, or by its systemd unit")
        settings = load(options.config, os.environ, _overrides(options))
        launcher, boot = prepare(settings, os.environ)
    except (StartError, SettingsError, StoreError) as error:
        refuse(str(error))
    become(launcher, boot)


def refuse(why: str) -> NoReturn:
    """One line on standard error, and an exit status on which systemd does not try again."""
    sys.stderr.write(f"runtimed: {why}\n")
    sys.exit(EXIT_CONFIGURATION)


def _overrides(options: argparse.Namespace) -> dict[str, str]:
    """Settings that the command line gives."""
    return {
        f"node.{name}": os.path.abspath(text)
        for name, text in (("state_dir", options.state_dir), ("run_dir", options.run_dir))
        if text is not None
    }


def prepare(settings: Settings, environment: Mapping[str, str]) -> tuple[Path, dict[str, object]]:
    """Makes the directories; returns the launcher and its boot configuration."""
    libexec = find_libexec()
    node = settings.node
    control = _control_owner(settings)
    dispatch = _dispatch_owner(settings)
    socket_gid = control.gid
    state, run = Path(node.state_dir), Path(node.run_dir)
    lay_out(state, run, control=control, dispatch=dispatch, socket_gid=socket_gid)
    interpreters = [
        Interpreter(path=found.path, prefix=found.prefix)
        for found in find_interpreters(
            settings.sandbox.interpreters, _homes(environment), {0, int(environment.get("SUDO_UID", "0"))}
        )
    ]
    address, port = resolve(settings.invoke.listen)
    handed = Boot(build=build_id(), settings=settings, interpreters=interpreters, socket_gid=socket_gid)
    return libexec / "runtimed-launcher", {
        "build": handed.build,
        "run_dir": str(run),
        "state_dir": str(state),
        "libexec": str(libexec),
        "bootstrap": str(PACKAGE / "bootstrap"),
        "cgroup_name": cgroup_name(str(run)),
        "uid_base": settings.sandbox.uid_base,
        "control": {
            "uid": control.uid,
            "gid": control.gid,
            "argv": [sys.executable, "-P", "-m", "runtimed.daemon"],
            "environment": _control_environment(handed),
            "mounts": _control_mounts(state, run),
        },
        "dispatch": {
            "uid": dispatch.uid,
            "gid": dispatch.gid,
            "loops": settings.dispatch.loops,
            "busy_percent": settings.dispatch.busy_percent,
        },
        "socket_gid": socket_gid,
        "invoke_address": address,
        "invoke_port": port,
        "interpreters": msgspec.to_builtins(interpreters),
        "zygotes_per_runtime": settings.sandbox.zygotes_per_runtime,
        "shells": settings.sandbox.shells,
        "spares": settings.pools.spares,
        "tmp_pool": settings.sandbox.tmp_pool,
        "disk_reserve_mb": settings.limits.disk_reserve_mb,
        "drain_ms": node.drain_seconds * 1000,
        "hang_ms": node.hang_seconds * 1000,
        "log_level": node.log_level,
        "logs": msgspec.to_builtins(settings.logs),
        "events": {"segment_mb": settings.events.segment_mb},
        "snapshots": {
            "memory_mb": settings.snapshots.memory_mb,
            "making_ms": settings.snapshots.seconds * 1000,
            "uses": settings.snapshots.uses,
            "age_ms": settings.snapshots.minutes * 60_000,
        },
    }


def resolve(listen: str) -> tuple[str, int]:
    """HOST:PORT as a numeric address and a port; ("", 0) for nothing. StartError when the host is not known."""
    if not listen:
        return "", 0
    host, _, port = listen.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, OverflowError) as error:
        raise StartError(f"invoke.listen={listen!r}: {error}") from None
    if not 0 < int(port) < 65536:
        raise StartError(f"invoke.listen={listen!r}: a port is a number from 1 to 65535")
    return str(found[0][4][0]), int(port)


def become(launcher: Path, boot: dict[str, object]) -> NoReturn:
    """Executes the launcher with its configuration on descriptor 3; everything else but 0 to 2 is closed."""
    memory = os.memfd_create("runtimed-boot", 0)
    with os.fdopen(memory, "wb", closefd=False) as file:
        file.write(json.dumps(boot).encode())
    os.lseek(memory, 0, os.SEEK_SET)
    os.dup2(memory, BOOT_DESCRIPTOR, inheritable=True)
    os.closerange(BOOT_DESCRIPTOR + 1, os.sysconf("SC_OPEN_MAX"))
    os.chdir("/")
    os.umask(0o022)
    keep = {name: os.environ[name] for name in SERVICE_VARIABLES if name in os.environ}
    try:
        os.execve(launcher, [str(launcher)], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", **keep})
    except OSError as error:
        refuse(f"cannot execute {launcher}: {error.strerror}")


def find_libexec() -> Path:
    """Where the native programs are: beside the package, or where an editable install puts them."""
    places = [PACKAGE / "libexec"]
    places += [Path(sysconfig.get_path(name)) / "runtimed" / "libexec" for name in ("platlib", "purelib")]
    places += [Path(entry) / "runtimed" / "libexec" for entry in site.getsitepackages()]
    for place in places:
        if (place / "runtimed-launcher").is_file():
            return place.resolve()
    raise StartError(
        "the native programs are not built (no libexec/runtimed-launcher): install the package with `pip install .`, "
        "or run `./dev setup`"
    )


def _control_owner(settings: Settings) -> Owner:
    """The user and group of the settings where they exist; otherwise the range's own."""
    spare = settings.sandbox.uid_base + 1
    try:
        user = pwd.getpwnam(settings.node.user)
        uid, gid = user.pw_uid, user.pw_gid
    except KeyError:
        uid = gid = spare
    try:
        gid = grp.getgrnam(settings.node.group).gr_gid
    except KeyError:
        pass
    if uid == 0:
        raise StartError(f"node.user is {settings.node.user}, which is root: the control plane must not be")
    return Owner(uid, gid if gid != 0 else spare)


def _dispatch_owner(settings: Settings) -> Owner:
    """`runtimed-dispatch` where there is such a user; otherwise the range's own."""
    try:
        user = pwd.getpwnam(f"{settings.node.user}-dispatch")
        return Owner(user.pw_uid, user.pw_gid)
    except KeyError:
        return Owner(settings.sandbox.uid_base + 2, settings.sandbox.uid_base + 2)


def _homes(environment: Mapping[str, str]) -> list[str]:
    """Of root, and of whoever ran sudo."""
    homes = [pwd.getpwuid(0).pw_dir]
    try:
        homes.append(pwd.getpwnam(environment.get("SUDO_USER", "root")).pw_dir)
    except KeyError:
        pass
    return list(dict.fromkeys(homes))


def _control_environment(handed: Boot) -> dict[str, str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "HOME": "/",
        "PYTHONDONTWRITEBYTECODE": "1",
        "GRPC_VERBOSITY": "NONE",
        "RUNTIMED_SETTINGS": boot_encoder.encode(handed).decode(),
    }
    if str(PACKAGE.parent) not in site.getsitepackages():
        environment["PYTHONPATH"] = str(PACKAGE.parent)  # run from a source tree
    return environment


def _control_mounts(state: Path, run: Path) -> list[dict[str, object]]:
    """What the control plane's root shows besides the system: its interpreter, its code, the control groups, whose
    memory it looks at, and its two directories."""
    code = {Path(sys.prefix), Path(sys.base_prefix), PACKAGE, Path(sys.executable).resolve().parent.parent}
    shown = [path for path in code if not path.is_relative_to("/usr")]
    outermost = sorted(
        path for path in shown if not any(path != other and path.is_relative_to(other) for other in shown)
    )
    mounts: list[dict[str, object]] = [
        {"source": str(path), "target": str(path), "writable": False} for path in outermost
    ]
    groups = "/sys/fs/cgroup"
    mounts.append({"source": groups, "target": groups, "writable": False})
    mounts += [{"source": str(path), "target": str(path), "writable": True} for path in (state, run)]
    return mounts


if __name__ == "__main__":
    main()
