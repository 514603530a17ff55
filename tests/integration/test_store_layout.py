"""The directories of a node: owners, modes, and links that are not followed."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from runtimed.store.database import StoreError
from runtimed.store.layout import Owner, lay_out

CONTROL, DISPATCH = Owner(70001, 70002), Owner(70003, 70004)

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to other users")


def shown(path: Path) -> tuple[int, int, int]:
    status = path.lstat()
    return status.st_uid, status.st_gid, stat.S_IMODE(status.st_mode)


def make(tmp_path: Path, control: Owner = CONTROL) -> tuple[Path, Path]:
    state, run = tmp_path / "deep/state", tmp_path / "run"
    lay_out(state, run, control=control, dispatch=DISPATCH, socket_gid=70009)
    return state, run


def test_owners_and_modes(tmp_path: Path) -> None:
    for _ in range(2):
        state, run = make(tmp_path)
    assert shown(run) == (70001, 70009, 0o750)
    assert {name: shown(state / name) for name in (".", "packages", "staging", "keys", "logs", "tmp")} == {
        ".": (70001, 70002, 0o750),
        "packages": (70001, 70002, 0o755),
        "staging": (70001, 70002, 0o755),
        "keys": (70001, 70002, 0o700),
        "logs": (70003, 70002, 0o2750),
        "tmp": (0, 0, 0o700),
    }


def test_wrong_modes_are_mended(tmp_path: Path) -> None:
    state, _ = make(tmp_path)
    (state / "keys").chmod(0o777)
    make(tmp_path)
    assert shown(state / "keys")[2] == 0o700


def test_a_planted_link_is_refused(tmp_path: Path) -> None:
    state, _ = make(tmp_path)
    victim = tmp_path / "victim"
    victim.mkdir(mode=0o700)
    (state / "keys").rmdir()
    (state / "keys").symlink_to(victim)
    with pytest.raises(StoreError, match="cannot use .*keys"):
        make(tmp_path)
    assert shown(victim) == (0, 0, 0o700)


def test_another_user_takes_over_what_is_there(tmp_path: Path) -> None:
    state, _ = make(tmp_path)
    victim = tmp_path / "victim"
    victim.touch()
    (state / "runtimed.db").touch()
    os.chown(state / "runtimed.db", *(CONTROL.uid, CONTROL.gid))
    (state / "packages/sha256/key").mkdir()
    (state / "packages/link").symlink_to(victim)
    (state / "logs/function").mkdir()
    make(tmp_path, Owner(80001, 80002))
    assert shown(state / "runtimed.db")[:2] == (80001, 80002)
    assert shown(state / "packages/sha256/key")[:2] == (80001, 80002)
    assert shown(state / "packages/link")[:2] == (80001, 80002)
    assert shown(state / "logs/function")[:2] == (70003, 80002)
    assert shown(victim)[:2] == (0, 0)


def test_a_path_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="cannot make"):
        lay_out(tmp_path / "file/state", tmp_path / "run", control=CONTROL, dispatch=DISPATCH, socket_gid=0)
