"""The socket that callers connect to is closed to others, whatever the umask of who starts the launcher."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from tests.integration.launcher_stage import Played

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")


def test_socket_is_closed_to_others_under_any_umask() -> None:
    with tempfile.TemporaryDirectory(prefix="runtimed-stage-") as directory:
        stage = Played(Path(directory))
        before = os.umask(0)
        try:
            stage.begin()
            mode = (stage.run_dir / "dispatch.sock").stat().st_mode
            assert (stat.S_ISSOCK(mode), stat.S_IMODE(mode)) == (True, 0o660)
        finally:
            os.umask(before)
            stage.close()
