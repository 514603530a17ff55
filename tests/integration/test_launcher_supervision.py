"""The launcher when processes around it die, when peers misbehave, and when it is stopped or killed itself."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.node import Process, processes
from runtimed.model import wire
from tests.integration.launcher_peers import PATIENCE
from tests.integration.launcher_stage import Played, Stage, libexec_of_build, plan, played
from tests.integration.test_launcher import ECHO, cgroups, loops, process_of, processes_of, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")


@pytest.fixture
def stage() -> Iterator[Played]:
    with played() as stage:
        stage.put(1, plan(stage.deploy(ECHO)))
        yield stage


def descendants(stage: Stage) -> set[Process]:
    """Children of the launcher; each is told from a later process with its number."""
    everybody = processes()
    return {everybody[pid][0] for pid in processes_of(stage.pid) if pid in everybody}


def alive(those: set[Process]) -> set[Process]:
    return those & {process for process, _ in processes().values()}


def named(stage: Stage, name: str) -> int:
    """Once there is one: right after a fork it still bears its parent's name."""
    wait_until(lambda: name in processes_of(stage.pid).values(), f"a process called {name}")
    return next(pid for pid, comm in processes_of(stage.pid).items() if comm == name)


def zygotes(stage: Stage) -> list[int]:
    """The pids of the running zygotes; children of the launcher that end while one looks are not among them."""
    found = []
    for pid in processes_of(stage.pid):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            runs_zygote = b"zygote.py" in Path(f"/proc/{pid}/cmdline").read_bytes()
            pids = Path(f"/proc/{pid}/status").read_text().split("\nNSpid:\t")[1].split("\n")[0]
            if runs_zygote and "\t" not in pids:  # environments have its command line too
                found.append(pid)
    return found


def nothing_is_left(stage: Played) -> None:
    assert cgroups(stage) == {}
    assert list(stage.run_dir.iterdir()) == []
    assert list((stage.state_dir / "tmp").iterdir()) == []
    wait_until(lambda: not loops(stage), "loop devices are free")


# ---- services ---------------------------------------------------------------------------------------------------


def test_services_meet_by_a_fresh_socket(stage: Played) -> None:
    _, to_control, fds = stage.control.expect(wire.Peer)
    _, to_dispatch, others = stage.dispatch.expect(wire.Peer)
    assert (to_control.role, to_dispatch.role) == (wire.Role.DISPATCH, wire.Role.CONTROL)
    assert to_control.peer_epoch == to_dispatch.peer_epoch
    ends = [socket.socket(fileno=fd) for fd in (*fds, *others)]
    ends[0].send(b"x")
    assert ends[1].recv(8) == b"x"
    for end in ends:
        end.close()


def test_the_control_plane_is_told_what_the_machine_offers(stage: Played) -> None:
    _, node, _ = stage.control.expect(wire.Node)
    assert node.cgroup_version in (1, 2)
    assert node.kernel == os.uname().release
    assert node.features & 3 == 3


def test_environments_outlive_the_control_plane(stage: Played) -> None:
    first = stage.dispatch.expect(wire.Peer)[1]
    environment = stage.launch(1)
    environment.start()
    os.kill(stage.control.pid, signal.SIGKILL)
    again = stage.accept("control")
    assert environment.invoke("alive") == "alive"
    other = stage.launch(1)
    stage.end(other)
    second = stage.dispatch.expect(wire.Peer)[1]
    assert second.peer_epoch > first.peer_epoch
    stage.control.close()
    stage.control = again
    stage.greet(again, wire.Role.CONTROL)
    assert again.expect(wire.PlanState, 1)[1].state == wire.Progress.READY
    assert again.expect(wire.RuntimeState, 0)[1].name == "python3"
    assert again.expect(wire.Peer)[1].peer_epoch == second.peer_epoch
    stage.end(environment)


def test_a_dispatcher_that_dies_takes_its_environments_along(stage: Played) -> None:
    environments = [stage.launch(1) for _ in range(3)]
    for environment in environments:
        environment.start()
    pids = [process_of(environment) for environment in environments]
    os.kill(stage.dispatch.pid, signal.SIGKILL)
    again = stage.accept("dispatch")
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "environments are gone")
    stage.dispatch.close()
    stage.dispatch = again
    stage._id = 0  # a new dispatcher counts anew
    stage.greet(again, wire.Role.DISPATCH)
    environment = stage.launch(1)
    assert isinstance(environment.start(), wire.InitDone)
    stage.end(environment)


def test_a_service_that_ends_at_once_is_started_with_pauses(stage: Played) -> None:
    for _ in range(4):
        os.kill(stage.control.pid, signal.SIGKILL)
        again = stage.accept("control")
        stage.control.close()
        stage.control = again
    stage.greet(stage.control, wire.Role.CONTROL)


def test_a_service_that_lets_go_has_a_moment_to_end(tmp_path: Path) -> None:
    """Who ends by itself meanwhile is told by its own status; who does not is ended."""
    stage = Played(tmp_path / "stage")
    said = tmp_path / "said"
    try:
        with said.open("wb") as log:
            stage.begin(stderr=log.fileno())
        for ends in (True, False):
            old = stage.control
            old.let_go()
            assert Path(f"/proc/{old.pid}").exists()
            if ends:
                old.leave(7)
            stage.control = stage.accept("control")
            assert not Path(f"/proc/{old.pid}").exists()
            old.close()
            stage.greet(stage.control, wire.Role.CONTROL)
        stage.stop()
    finally:
        stage.close()
    lines = [line.partition("the control plane")[2] for line in said.read_text().splitlines() if "starts" not in line]
    assert [line for line in lines if line][:3] == [
        " ended with status 7",
        ": let go of us and did not end: ending it",
        " was killed by signal 9",
    ]


@pytest.mark.parametrize(
    "packet",
    [
        b"",
        b"garbage",
        b"\xff" * 32,
        wire.encode(wire.Launch(plan=1), object=5)[:-1],
        wire.encode(wire.Launch(plan=1), object=5) + b"x",
        wire.encode(wire.Forked(pid=1), object=5),
        wire.encode(wire.PutRuntime(name="python3")),
    ],
)
def test_a_dispatcher_that_breaks_the_protocol_is_replaced(stage: Played, packet: bytes) -> None:
    old = stage.dispatch
    old.socket.send(packet)
    stage.dispatch = stage.accept("dispatch")
    assert not Path(f"/proc/{old.pid}").exists()
    old.close()
    stage.greet(stage.dispatch, wire.Role.DISPATCH)
    stage.end(stage.launch(1))


def test_a_control_plane_of_another_build_is_refused(stage: Played) -> None:
    os.kill(stage.control.pid, signal.SIGKILL)
    peer = stage.accept("control")
    peer.send(wire.Hello(role=wire.Role.CONTROL, build="another"))
    assert peer.expect(wire.Nack)[1].field == "build"
    peer.close()
    stage.control.close()
    stage.control = stage.accept("control")


def test_an_end_during_a_launch_leaves_nothing(stage: Played) -> None:
    for _ in range(20):
        id_ = stage.ask(1)
        stage.dispatch.send(wire.End(reason=0), id_)
        _header, answer, fds = stage.dispatch.expect(wire.Message, id_)
        if isinstance(answer, wire.Launched):
            assert stage.dispatch.expect(wire.Exited, id_)[1].status != 0
        else:  # it still waited for a zygote
            assert isinstance(answer, wire.LaunchFailed)
            assert answer.error == errno.ECANCELED
        for fd in fds:  # not before: who finds its channel closed leaves by itself
            os.close(fd)
    stage.end(stage.launch(1))


# ---- zygotes ----------------------------------------------------------------------------------------------------


def test_environments_outlive_their_zygote(stage: Played) -> None:
    environment = stage.launch(1)
    environment.start()
    stage.control.inbox.clear()
    killed = zygotes(stage)
    assert len(killed) == 2
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    # They served: nobody is told that the runtime cannot be used, which would fail a deployment for good.
    stage.control.expect(wire.RuntimeState, 0, lambda state: state.state == wire.Progress.PENDING)
    told = stage.control.expect(wire.RuntimeState, 0, lambda state: state.state != wire.Progress.PENDING)[1]
    assert told.state == wire.Progress.READY
    assert environment.invoke("alive") == "alive"
    other = stage.launch(1)
    assert isinstance(other.start(), wire.InitDone)
    stage.end(other)
    stage.end(environment)
    assert not set(zygotes(stage)) & set(killed)


def test_launches_that_a_zygote_was_to_fork_are_told_of_its_end(stage: Played) -> None:
    wait_until(lambda: list(processes_of(stage.pid).values()).count("anchor") == 16, "stock is full")
    for pid in zygotes(stage):
        os.kill(pid, signal.SIGSTOP)
    asked = [stage.ask(1) for _ in range(3)]
    # The launcher has passed them on before it can hear of the end: it answers in the order in which it is asked.
    assert stage.dispatch.expect(wire.LaunchFailed, stage.ask(12345))[1].step == "plan"
    for pid in zygotes(stage):
        os.kill(pid, signal.SIGKILL)
    ended = 0
    for id_ in asked:
        _header, answer, fds = stage.dispatch.expect(wire.Message, id_)
        for fd in fds:
            os.close(fd)
        if isinstance(answer, wire.Launched):  # it was about to fork: the environment ends with the reason
            exited = stage.dispatch.expect(wire.Exited, id_)[1]
            ended += exited.step == "zygote"
        else:
            assert isinstance(answer, wire.LaunchFailed)
            assert answer.retryable
    assert ended > 0
    stage.control.expect(wire.RuntimeState, 0, lambda state: state.state == wire.Progress.READY)
    stage.control.inbox.clear()
    wait_until(lambda: len(zygotes(stage)) == 2, "zygotes are back")
    stage.end(stage.launch(1))


def test_a_shellmaker_that_dies_is_replaced_with_its_zygote(stage: Played) -> None:
    os.kill(named(stage, "shellmaker"), signal.SIGKILL)
    wait_until(lambda: list(processes_of(stage.pid).values()).count("shellmaker") == 2, "it is back")
    for _ in range(4):
        stage.end(stage.launch(1))


def test_an_anchor_that_dies_in_stock_is_not_used(stage: Played) -> None:
    wait_until(lambda: list(processes_of(stage.pid).values()).count("anchor") == 16, "stock is full")
    anchors = [pid for pid, name in processes_of(stage.pid).items() if name == "anchor"]
    for pid in anchors:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in anchors), "they are gone")
    environment = stage.launch(1)
    assert isinstance(environment.start(), wire.InitDone)
    stage.end(environment)


def test_an_anchor_that_dies_ends_its_environment(stage: Played) -> None:
    environment = stage.launch(1)
    environment.start()
    of_environment = os.readlink(f"/proc/{process_of(environment)}/ns/pid")
    found = []
    for pid, name in processes_of(stage.pid).items():
        with contextlib.suppress(OSError):  # one of those in stock may be on its way out
            if name == "anchor" and os.readlink(f"/proc/{pid}/ns/pid") == of_environment:
                found.append(pid)
    [anchor] = found
    os.kill(anchor, signal.SIGKILL)
    assert os.WTERMSIG(stage.exited(environment).status) == signal.SIGKILL
    environment.close()


# ---- the end ----------------------------------------------------------------------------------------------------


def test_stopping_leaves_nothing() -> None:
    with played() as stage:
        stage.put(1, plan(stage.deploy(ECHO)))
        environments = [stage.launch(1) for _ in range(4)]
        for environment in environments:
            environment.start()
        assert cgroups(stage)
        everybody = descendants(stage)
        assert stage.stop() == 0
        assert not alive(everybody)
        nothing_is_left(stage)


def test_a_dispatcher_is_told_to_drain_and_awaited() -> None:
    with played(drain_ms=60_000) as stage:
        assert stage.process is not None
        stage.process.send_signal(signal.SIGTERM)
        stage.dispatch.expect(wire.Drain)
        assert stage.process.poll() is None
        stage.dispatch.leave()
        assert stage.process.wait(PATIENCE) == 0


def test_a_killed_launcher_takes_everything_along_and_the_next_cleans() -> None:
    with played() as stage:
        stage.put(1, plan(stage.deploy(ECHO)))
        environment = stage.launch(1)
        environment.start()
        everybody = descendants(stage)
        assert stage.process is not None
        stage.process.kill()
        stage.process.wait(PATIENCE)
        wait_until(lambda: not alive(everybody), "all processes are gone")
        assert cgroups(stage)
        for peer in (stage.control, stage.dispatch):
            peer.close()
        stage._id = 0
        stage.start()
        stage.meet()
        stage.put(1, plan(stage.deploy(ECHO)))
        again = stage.launch(1)
        assert isinstance(again.start(), wire.InitDone)
        assert stage.stop() == 0
        nothing_is_left(stage)


def test_a_second_launcher_is_refused(stage: Played) -> None:
    other = stage.spawn(subprocess.PIPE)
    _out, errors = other.communicate(timeout=PATIENCE)
    assert other.returncode == 1
    assert b"another runtimed" in errors
    stage.end(stage.launch(1))


def test_the_service_manager_is_told(tmp_path: Path) -> None:
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as service_manager,
        contextlib.closing(Played(tmp_path / "stage")) as stage,
    ):
        service_manager.bind(str(tmp_path / "notify"))
        service_manager.settimeout(PATIENCE)
        stage.begin(environment={"NOTIFY_SOCKET": str(tmp_path / "notify")})
        assert stage.control.request(wire.SyncEnd()) is None
        assert service_manager.recv(64).startswith(b"STATUS=Starting")
        stage.control.send(wire.Serving())
        assert service_manager.recv(64) == b"READY=1"
        assert service_manager.recv(64) == b"STATUS=Serving; environments: 0"
        stage.stop()
        assert service_manager.recv(64).startswith(b"STOPPING=1\nEXTEND_TIMEOUT_USEC=")


@pytest.mark.parametrize(
    ("member", "value", "named"),
    [
        ("build", 5, b"build"),
        ("run_dir", "relative", b"run_dir"),
        ("run_dir", "/nonexistent", b"/nonexistent"),
        ("uid_base", 0, b"uid_base"),
        ("uid_base", 4294967000, b"uid_base"),
        ("cgroup_name", "a/b", b"cgroup_name"),
        ("zygotes_per_runtime", 99, b"zygotes_per_runtime"),
        ("surprise", 1, b"surprise"),
    ],
)
def test_a_boot_configuration_that_is_wrong_is_refused(
    tmp_path: Path, member: str, value: object, named: bytes
) -> None:
    stage = Stage(tmp_path / "stage")
    stage.settings[member] = value
    stage.start(stderr=subprocess.PIPE)
    assert stage.process is not None
    _out, errors = stage.process.communicate(timeout=PATIENCE)
    assert stage.process.returncode == 1
    assert named in errors
    stage.close()


def test_without_a_boot_configuration_it_says_so() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os,sys; os.dup2(0, 3); os.execv(sys.argv[1], sys.argv[1:])",
            str(libexec_of_build() / "runtimed-launcher"),
        ],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert b"boot configuration" in done.stderr
