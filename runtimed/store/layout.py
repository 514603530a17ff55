"""What lies in the state and run directories, and whose it is. Made as root, before the launcher starts.

    STATE                  control plane, 0750          RUN                     control plane, group of the sockets,
    0750 STATE/packages/...     control plane, 0755 STATE/staging          control plane, 0755 STATE/keys
    control plane, 0700 STATE/logs             dispatcher, group of the control plane, 2750 (files inherit the
    group) STATE/queue            dispatcher, 0700 STATE/tmp              root, 0700

The control plane owns the directory in which root works here, so nothing is followed: each directory is opened without
following a link, and changed through its descriptor.
"""

from __future__ import annotations

import os
from pathlib import Path

from msgspec import Struct

from runtimed.store.database import StoreError


class Owner(Struct, frozen=True):
    """Of a directory."""

    uid: int
    gid: int


def lay_out(state: Path, run: Path, *, control: Owner, dispatch: Owner, socket_gid: int) -> None:
    """Makes what is missing and sets owners and modes right. StoreError says which directory cannot be made."""
    root = Owner(0, 0)
    for path in (state, run):
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot make {path}: {error.strerror}") from None
    moved = state.stat().st_uid not in (0, control.uid)
    _own(state, control, 0o750)
    _own(run, Owner(control.uid, socket_gid), 0o750)
    for name, owner, mode in (
        ("packages", control, 0o755),
        ("packages/zip", control, 0o750),
        ("packages/sha256", control, 0o755),
        ("staging", control, 0o755),
        ("keys", control, 0o700),
        ("logs", Owner(dispatch.uid, control.gid), 0o2750),
        ("queue", dispatch, 0o700),
        ("tmp", root, 0o700),
    ):
        _own(state / name, owner, mode)
    if moved:
        _hand_over(state, control, dispatch)


def _own(path: Path, owner: Owner, mode: int) -> None:
    try:
        path.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise StoreError(f"cannot use {path}: {error.strerror}") from None
    try:
        os.fchown(descriptor, owner.uid, owner.gid)
        os.fchmod(descriptor, mode)
    except OSError as error:
        raise StoreError(
            f"cannot use {path}: {error.strerror}; it must be on a disk that can be written and knows owners"
        ) from None
    finally:
        os.close(descriptor)


def _hand_over(state: Path, control: Owner, dispatch: Owner) -> None:
    """The node runs as somebody else than the last time: what lies there follows. Links are changed, never followed."""
    for directory, folders, files, descriptor in os.fwalk(state, follow_symlinks=False):
        below = Path(directory).relative_to(state).parts[:1]
        if below == ("tmp",):
            folders.clear()
            continue
        owners: dict[tuple[str, ...], Owner] = {("logs",): Owner(dispatch.uid, control.gid), ("queue",): dispatch}
        owner = owners.get(below, control)
        for name in files + (folders if below else []):
            os.chown(name, owner.uid, owner.gid, dir_fd=descriptor, follow_symlinks=False)
