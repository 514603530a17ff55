"""What is to be typed after an error."""

from __future__ import annotations

import grp
import os
import pwd
from pathlib import Path

import pytest

from runtimed.cli import REFUSED, UNREACHABLE, USAGE, failures
from runtimed.client import errors as client
from runtimed.model import errors as api


@pytest.mark.parametrize(
    ("error", "code", "status", "following"),
    [
        (api.ResourceNotFound("x"), "ResourceNotFoundException", REFUSED, "runtimectl functions list"),
        (api.TooManyRequests("x"), "TooManyRequestsException", REFUSED, "runtimectl top"),
        (api.InvalidRuntime("x"), "InvalidRuntimeException", REFUSED, "runtimectl status"),
        (api.NotOffered("x"), "NotImplementedException", REFUSED, "sudo systemctl restart runtimed"),
        (client.Incompatible("x"), "Incompatible", REFUSED, "sudo systemctl restart runtimed"),
        (client.TimedOut("x"), "TimedOut", UNREACHABLE, "runtimectl status"),
        (client.DeployFailed("x"), "DeployFailed", REFUSED, "runtimectl functions list"),
        (client.ClientError("x"), "ClientError", USAGE, ""),
    ],
)
def test_every_error_has_its_command(error: Exception, code: str, status: int, following: str) -> None:
    assert failures.explain(error) == failures.Failure(code, "x", following, status)


def test_who_misses_an_event_looks_through_those_there_are() -> None:
    told = failures.explain(api.ResourceNotFound("Event not found: x."))
    assert told is not None
    assert told.next == "runtimectl queue list"


def test_a_defect_is_not_explained() -> None:
    assert failures.explain(KeyError("x")) is None


def test_who_may_not_use_the_socket_is_told_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    socket = tmp_path / "control.sock"
    socket.touch()
    group = next(entry for entry in grp.getgrall() if entry.gr_gid and not entry.gr_mem)
    user = pwd.getpwuid(os.geteuid()).pw_name
    monkeypatch.setattr(os, "stat", lambda path: os.stat_result((0o140660, 0, 0, 1, 0, group.gr_gid, 0, 0, 0, 0)))
    told = failures.explain(client.NotPermitted("x", socket))
    assert told == failures.Failure(
        "NotPermitted", "x", f"sudo usermod --append --groups {group.gr_name} {user}", UNREACHABLE
    )
    monkeypatch.setattr(grp, "getgrgid", lambda gid: grp.struct_group((group.gr_name, "x", gid, [user])))
    told = failures.explain(client.NotPermitted("x", socket))
    assert told is not None
    assert told.next == f"newgrp {group.gr_name}"
