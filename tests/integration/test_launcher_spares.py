"""Spares: sandboxes that are made ahead of demand. An environment that was one is like any other, and what cannot be
one, or fails, nobody notices. The test plays control plane and dispatcher."""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimed.model import wire
from tests.integration.launcher_peers import Environment
from tests.integration.launcher_stage import Played, plan, played
from tests.integration.test_launcher import cgroups, processes_of, wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")

ECHO = "def handler(event, context):\n    return event\n"
EATS = "def handler(event, context):\n    return len(bytearray(event['mb'] << 20)) >> 20\n"
# Everything that an environment can tell of itself and that must not depend on how it was made.
TELLS = r"""
import ctypes, gc, logging, os, random, re, resource, signal, stat, sys, threading

def tried(what, *arguments):
    try:
        return str(what(*arguments) is None)
    except OSError as error:
        return error.errno

def syscall(number, *arguments):
    libc = ctypes.CDLL(None, use_errno=True)
    return 0 if libc.syscall(number, *arguments) >= 0 else ctypes.get_errno()

def layers_left():
    # Of landlock, which holds sixteen on top of each other: how many more may be put on.
    libc, count = ctypes.CDLL(None, use_errno=True), 0
    attributes = ctypes.c_uint64(1 << 11)  # the making of block devices, which nobody may anyway
    ruleset = libc.syscall(444, ctypes.byref(attributes), 8, 0)
    while ruleset >= 0 and libc.syscall(446, ruleset, 0) == 0:
        count += 1
    return count

def handler(event, context):
    status = dict(line.split(":\t", 1) for line in open("/proc/self/status").read().splitlines())
    mounts = []
    for line in open("/proc/self/mountinfo"):
        before, after = line.split(" - ")
        fields, rest = before.split(), after.split()
        source = re.sub("loop[0-9]+$", "loop", rest[1])
        root = re.sub("^.*/runtimed-stage-[^/]*/", "", fields[3])
        mounts.append([root, *fields[4:], rest[0], source, rest[2]])
    open("/tmp/file", "w").write("x")
    os.mkdir("/tmp/directory")
    return {
        "status": status,
        "mounts": sorted(mounts),
        "uid": os.getresuid(), "gid": os.getresgid(), "groups": os.getgroups(),
        "limits": [resource.getrlimit(n) for n in range(16)],
        "limits file": open("/proc/self/limits").read(),
        "cgroup": open("/proc/self/cgroup").read(),
        "score": open("/proc/self/oom_score_adj").read(),
        "namespaces": {n: os.readlink("/proc/self/ns/" + n) for n in os.listdir("/proc/self/ns")},
        "fds": {n: re.sub(r"\d+", "N", os.readlink("/proc/self/fd/" + n)) for n in ("0", "1", "2", "3")},
        "descriptors": len(os.listdir("/proc/self/fd")),
        "environ": dict(os.environ),
        "environ file": sorted(open("/proc/self/environ").read().split("\0")),
        "cwd": os.getcwd(), "umask": os.umask(0o22), "pid": os.getpid(), "ppid": os.getppid(),
        "session": [os.getsid(0), os.getpgid(0)],
        "processes": sorted(n for n in os.listdir("/proc") if n.isdigit()),
        "path": sys.path, "modules": sorted(sys.modules), "argv": sys.argv,
        "gc": [gc.isenabled(), gc.get_freeze_count() > 0, gc.get_threshold()],
        "threads": [thread.name for thread in threading.enumerate()],
        "native": threading.main_thread().native_id == threading.get_native_id(),
        "signals": {n: str(signal.getsignal(n)) for n in range(1, 32)},
        "dumpable": ctypes.CDLL(None).prctl(3, 0, 0, 0, 0),
        "death": tried(os.kill, 1, 0),
        "outside": [tried(os.mkdir, p) for p in ("/var/task/x", "/opt/x", "/x", "/dev/x", "/var/x")],
        "task": sorted(os.listdir("/var/task")), "opt": sorted(os.listdir("/opt")), "tmp": sorted(os.listdir("/tmp")),
        "tmp owner": [os.stat("/tmp").st_uid == os.getuid(), oct(stat.S_IMODE(os.stat("/tmp").st_mode))],
        "tmp size": [os.statvfs("/tmp").f_blocks, os.statvfs("/tmp").f_files],
        "task device": os.stat("/var/task").st_dev == os.stat("/opt").st_dev,
        "calls": {n: syscall(n, -1, -1, -1, -1, -1) for n in (165, 166, 272, 308, 310, 321, 425, 429, 435)},
        "hosts": [open("/etc/hostname").read() if os.path.exists("/etc/hostname") else "", os.uname().nodename],
        "loggers": [len(logging.getLogger().handlers), logging.getLogger().level],
        "context": [context.function_name, context.memory_limit_in_mb],
        "random": random.random(),
        "layers": layers_left(),
    }
"""
# Of each process, by nature.
OWN = ("Pid", "Tgid", "NSpid", "NStgid", "NSpgid", "NSsid", "PPid", "Uid", "Gid", "voluntary_ctxt_switches",
       "nonvoluntary_ctxt_switches", "Cpus_allowed", "Cpus_allowed_list")  # fmt: skip
KEPT_NAMESPACES = ("user", "time", "time_for_children")


class Spares:
    """What the launcher tells of them."""

    def __init__(self, stage: Played) -> None:
        self._stage = stage
        self.last = wire.Spares()

    def until(self, **least: int) -> wire.Spares:
        def reached(told: wire.Spares) -> bool:
            self.last = told
            return all(getattr(told, name) >= count for name, count in least.items())

        if not reached(self.last):
            self._stage.control.expect(wire.Spares, 0, reached)
        return self.last


@pytest.fixture
def stage() -> Iterator[Played]:
    with played(zygotes=1, spares=2) as stage:
        yield stage


def uids(stage: Played) -> set[int]:
    """Whose processes there are, among the launcher's children."""
    found = set()
    for pid in processes_of(stage.pid):
        with contextlib.suppress(OSError):
            found.add(int((Path("/proc") / str(pid) / "status").read_text().split("\nUid:\t")[1].split()[0]))
    return found


def spare_pids(stage: Played) -> list[int]:
    return [pid for pid, name in processes_of(stage.pid).items() if name == "spare"]


def told(environment: Environment) -> dict[str, object]:
    assert isinstance(environment.start(), wire.InitDone)
    answer = environment.invoke({})
    assert isinstance(answer, dict), answer
    return answer


def comparable(answer: dict[str, object], uid: int) -> dict[str, object]:
    """Without what is another in every process."""
    status = answer["status"]
    assert isinstance(status, dict)
    kept = {
        name: re.sub(r"\s+", " ", value)
        for name, value in status.items()
        if name not in OWN and not name.startswith(("Vm", "Rss", "Hugetlb"))
    }
    namespaces = answer["namespaces"]
    assert isinstance(namespaces, dict)
    same = {name: link for name, link in namespaces.items() if name in KEPT_NAMESPACES}
    assert answer["uid"] == answer["gid"] == [uid] * 3
    cut = {**answer, "status": kept, "namespaces": {"names": sorted(namespaces), **same}}
    del cut["random"], cut["uid"], cut["gid"]
    return cut


# ---- taking one -------------------------------------------------------------------------------------------------


def test_a_launch_takes_a_spare(stage: Played) -> None:
    spares = Spares(stage)
    stage.put(1, plan(stage.deploy(ECHO)))
    spares.until(ready=1)
    before = uids(stage)
    environment = stage.launch(1)
    assert environment.uid in before, "it was there before it was asked for"
    assert isinstance(environment.start(), wire.InitDone)
    assert environment.invoke({"n": 1}) == {"n": 1}
    spares.until(taken=1, ready=2)  # and others took its place
    exited = stage.end(environment)
    assert (os.WTERMSIG(exited.status), exited.oom, exited.step) == (signal.SIGKILL, 0, "")
    assert spares.last.failed == 0


def test_one_that_was_a_spare_is_like_one_that_was_forked() -> None:
    """Field by field: identity, capabilities, filters, mounts, limits, descriptors, variables, interpreter."""
    answers = []
    for count in (0, 1):
        with played(zygotes=1, spares=count) as other:
            other.put(1, plan(other.deploy(TELLS)))
            if count:
                spares = Spares(other)
                spares.until(ready=1)
            environment = other.launch(1)
            answer = told(environment)
            if count:
                spares.until(taken=1)
            zygote_uid = environment.uid - int(other.settings["uid_base"]) - 65536  # type: ignore[call-overload]
            namespaces = answer["namespaces"]
            assert isinstance(namespaces, dict)
            host = {name: os.readlink(f"/proc/self/ns/{name}") for name in os.listdir("/proc/self/ns")}
            for name in ("pid", "mnt", "net", "ipc", "uts", "cgroup", "user"):
                assert namespaces[name] != host[name], name
            del namespaces["user"]  # of another zygote
            answers.append(comparable(answer, zygote_uid))
            other.end(environment)
    forked, spare = answers
    assert forked.keys() == spare.keys() and forked["layers"] in (0, 15)  # 0: the kernel has no landlock
    assert {name: value for name, value in spare.items() if value != forked[name]} == {}, forked


def test_two_that_were_spares_do_not_share_their_random_numbers(stage: Played) -> None:
    code = "import random, uuid\ndef handler(event, context):\n    return [random.random(), str(uuid.uuid4())]\n"
    spares = Spares(stage)
    stage.put(1, plan(stage.deploy(code)))
    spares.until(ready=1)
    stage.ask(1)  # so that more than one is wanted
    spares.until(taken=1, ready=2)
    first, second = stage.launch(1), stage.launch(1)
    spares.until(taken=3)
    answers = []
    for environment in (first, second):
        assert isinstance(environment.start(), wire.InitDone)
        answers.append(environment.invoke({}))
    assert answers[0][0] != answers[1][0] and answers[0][1] != answers[1][1]  # type: ignore[index]


def test_layers_come_too(stage: Played) -> None:
    layer = stage.deploy("WORD = 'layer'\n")
    code = "import os\ndef handler(event, context):\n    return [os.listdir('/opt'), os.listdir('/var/task')]\n"
    spares = Spares(stage)
    stage.put(1, plan(stage.deploy(code), layers=bytes.fromhex(layer)))
    spares.until(ready=1)
    environment = stage.launch(1)
    answer = told_list(environment)
    spares.until(taken=1)
    assert "app.py" in answer[0] and "app.py" in answer[1]


def told_list(environment: Environment) -> list[list[str]]:
    assert isinstance(environment.start(), wire.InitDone)
    answer = environment.invoke({})
    assert isinstance(answer, list)
    return answer


def test_shells_are_used_again_for_the_same_function_only(stage: Played) -> None:
    """What environments of one function left clean may hold its next spares, and nobody else's."""
    code = "import os\ndef handler(event, context):\n    return os.readlink('/proc/self/ns/net')\n"
    spares = Spares(stage)
    stage.put(1, plan(stage.deploy(code)))
    stage.put(2, plan(stage.deploy(code)))

    def namespace(number: int) -> str:
        spares.last = wire.Spares()
        spares.until(ready=1)
        environment = stage.launch(number)
        assert isinstance(environment.start(), wire.InitDone)
        answer = environment.invoke({})
        assert isinstance(answer, str)
        stage.end(environment)
        return answer

    for _ in range(8):  # more than one is wanted now, and for a while
        stage.end(stage.launch(1))
    first = [namespace(1) for _ in range(5)]
    second = [namespace(2) for _ in range(3)]
    assert len(set(first)) < len(first), "a shell was used again"
    assert not set(first) & set(second)
    assert spares.last.failed == 0


# ---- limits -----------------------------------------------------------------------------------------------------


def test_the_limits_of_whoever_takes_it_hold(stage: Played) -> None:
    """Made for a function of 512 MB, taken by one of 128, and the other way round."""
    spares = Spares(stage)
    package = stage.deploy(EATS)
    stage.put(1, plan(package, memory_mb=512))
    spares.until(ready=1)
    stage.put(2, plan(package, memory_mb=128))
    small = stage.launch(2)
    spares.until(taken=1)
    assert isinstance(small.start(), wire.InitDone)
    assert small.invoke({"mb": 60}) == 60
    small.send_invoke({"mb": 300})
    exited = stage.exited(small)
    assert exited.oom and os.WTERMSIG(exited.status) == signal.SIGKILL

    spares.until(ready=1)  # of the small one's kind now
    large = stage.launch(1)
    spares.until(taken=2)
    assert isinstance(large.start(), wire.InitDone)
    assert large.invoke({"mb": 300}) == 300


@pytest.mark.parametrize("changes", [{"storage_mb": 64}, {"descriptors": 100}, {"pids": 64}], ids=str)
def test_what_does_not_fit_is_forked(stage: Played, changes: dict[str, int]) -> None:
    spares = Spares(stage)
    package = stage.deploy(TELLS)
    stage.put(1, plan(package))
    spares.until(ready=1)
    stage.put(2, plan(package, **changes))
    environment = stage.launch(2)
    answer = told(environment)
    assert spares.until(made=2).taken == 0  # and the next ones are of the kind that was asked for last
    if "descriptors" in changes:
        assert answer["limits"][7] == [100, 100]  # type: ignore[index]
    if "pids" in changes:
        assert answer["limits"][6] == [64, 64]  # type: ignore[index]
    wanted = stage.launch(2)
    spares.until(taken=1)
    assert isinstance(wanted.start(), wire.InitDone)


# ---- ends -------------------------------------------------------------------------------------------------------


def test_one_that_is_killed_is_replaced(stage: Played) -> None:
    spares = Spares(stage)
    stage.put(1, plan(stage.deploy(ECHO)))
    spares.until(ready=1)
    killed = set(spare_pids(stage))
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not killed & set(spare_pids(stage)), "their end")
    environment = stage.launch(1)
    assert isinstance(environment.start(), wire.InitDone)
    assert environment.invoke(1) == 1
    spares.until(failed=1, ready=1)
    assert spares.last.failed >= len(killed)


def test_they_end_with_their_zygote(stage: Played) -> None:
    spares = Spares(stage)
    stage.put(1, plan(stage.deploy(ECHO)))
    spares.until(ready=1)
    before = set(spare_pids(stage))
    zygote = stage.control.expect(wire.RuntimeState, 0, lambda state: state.pid != 0)[1].pid
    os.kill(zygote, signal.SIGKILL)
    wait_until(lambda: not before & set(spare_pids(stage)), "the end of the spares")
    environment = stage.launch(1)
    assert isinstance(environment.start(), wire.InitDone)
    assert environment.invoke(1) == 1
    spares.until(made=2)


def test_they_end_with_the_last_function(stage: Played) -> None:
    spares = Spares(stage)
    stage.put(1, plan(stage.deploy(ECHO)))
    spares.until(ready=1)
    assert stage.control.request(wire.DelPlan(), 1) is None
    wait_until(lambda: not spare_pids(stage), "the end of the spares")
    spares._stage.control.expect(wire.Spares, 0, lambda told: told.ready == 0)


def test_nothing_is_left_of_them() -> None:
    with played(zygotes=2, spares=3) as stage:
        spares = Spares(stage)
        stage.put(1, plan(stage.deploy(ECHO)))
        spares.until(ready=1)
        assert cgroups(stage)
        assert stage.stop() == 0
        assert cgroups(stage) == {}


def test_the_launchers_death_is_theirs() -> None:
    with played(zygotes=1, spares=2) as stage:
        spares = Spares(stage)
        stage.put(1, plan(stage.deploy(ECHO)))
        spares.until(ready=1)
        pids = spare_pids(stage)
        assert pids and stage.process is not None
        stage.process.kill()
        stage.process.wait()
        wait_until(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), "the end of the spares")
        stage.control.close()
        stage.dispatch.close()
        stage.start()  # and removes what is left
        stage.meet()
        assert stage.stop() == 0
        assert cgroups(stage) == {}


def test_none_are_made_when_none_are_wanted() -> None:
    with played(zygotes=1, spares=0) as stage:
        stage.put(1, plan(stage.deploy(ECHO)))
        for _ in range(3):
            environment = stage.launch(1)
            assert isinstance(environment.start(), wire.InitDone)
            assert not spare_pids(stage)
            stage.end(environment)
        assert not any(isinstance(message, wire.Spares) for _header, message, _fds in stage.control.inbox)
