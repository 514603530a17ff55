"""A launcher that has no descriptors left for what its side processes send it: launches fail and say so, and work again
as soon as there are some."""

from __future__ import annotations

import contextlib
import os
import resource
from collections.abc import Iterator

import pytest

from runtimed.model import wire
from tests.integration.launcher_stage import Played, plan, played
from tests.integration.test_launcher import ECHO, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")


@pytest.fixture
def stage() -> Iterator[Played]:
    with played(shells=2, tmp_pool=2) as stage:
        stage.put(1, plan(stage.deploy(ECHO)))
        yield stage


@contextlib.contextmanager
def no_more_descriptors(pid: int) -> Iterator[None]:
    soft, hard = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    held = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (min(set(range(len(held) + 1)) - held), hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (soft, hard))


def launch(stage: Played) -> bool:
    """One launch, and its end."""
    id_ = stage.ask(1)
    _, answer, fds = stage.dispatch.expect(wire.Message, id_)
    for fd in fds:
        os.close(fd)
    if isinstance(answer, wire.Launched):
        stage.dispatch.send(wire.End(reason=0), id_)
        stage.dispatch.expect(wire.Exited, id_)
    return isinstance(answer, wire.Launched)


def test_what_found_no_room_is_asked_for_again(stage: Played) -> None:
    """More launches than there is stock for: answers of the imager and of the seater lose their descriptors."""
    assert launch(stage)
    with no_more_descriptors(stage.pid):
        asked = [stage.ask(1) for _ in range(24)]
        _, failed, _ = stage.dispatch.expect(wire.LaunchFailed)
        assert failed.retryable
        for id_ in asked:  # those that still wait are refused
            stage.dispatch.send(wire.End(reason=0), id_)
        stage.dispatch.expect(wire.LaunchFailed, stage.ask(12345))  # all of it is heard
    wait_until(lambda: launch(stage), "a launch that succeeds")
    for _ in range(4):
        environment = stage.launch(1)
        assert isinstance(environment.start(), wire.InitDone)
        assert environment.invoke("as before") == "as before"
        stage.end(environment)
