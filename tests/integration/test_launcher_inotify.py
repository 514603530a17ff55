"""inotify: what one function's environments take, others of the runtime still have."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.launcher_stage import plan, played

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")

SHARE = 8  # native/jail/spawn_enter.c
HOST = Path("/proc/sys/fs/inotify/max_user_instances")
KERNELS = 128  # fs.inotify.max_user_instances as the kernel has it, for all of a zygote's environments together

TAKES = """\
import ctypes
libc = ctypes.CDLL(None)
def handler(event, context):
    return sum(libc.inotify_init() >= 0 for _ in range(event))
"""


def test_each_environment_has_its_share() -> None:
    with played(zygotes=1) as stage:
        host = int(HOST.read_text())
        if host < 2 * KERNELS and os.statvfs(HOST.parent).f_flag & os.ST_RDONLY:
            return  # where /proc/sys is read-only the launcher can only say so
        assert host >= 2 * KERNELS, "the launcher raises it"
        stage.put(1, plan(stage.deploy(TAKES)))
        for _ in range(KERNELS // SHARE + 1):
            environment = stage.launch(1)
            assert isinstance(environment.start(), wire.InitDone)
            assert environment.invoke(SHARE + 1) == SHARE
