"""SnapStart: environments that are filled from the memory of another one, which the launcher gathered.

The test is the control plane and the dispatcher; launcher, zygote, environments are real. One zygote: a snapshot is
good for the children of one. One launcher serves all tests but those that
kill parts of it; each has a plan of its own."""

from __future__ import annotations

import itertools
import os
import signal
from collections.abc import Iterator

import pytest

from bench.node import await_true
from runtimed.model import wire
from tests.integration.launcher_peers import Environment
from tests.integration.launcher_stage import Played, played
from tests.integration.snapshot_stage import Refusal, Stage, State, begin, expect, made, run, send_start
from tests.integration.test_launcher import process_of

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the launcher is root's")


@pytest.fixture(scope="module")
def shared() -> Iterator[Played]:
    with played(zygotes=1) as stage:
        yield stage


numbers = itertools.count(1, 2)


@pytest.fixture
def stage(shared: Played) -> Iterator[Stage]:
    stage = Stage(shared, next(numbers))
    yield stage
    stage.close()


@pytest.fixture
def own() -> Iterator[Stage]:
    with played(zygotes=1) as stage:
        yield Stage(stage, 1)


# ---- what they have in common, and what they do not -------------------------------------------------------------


def test_later_environments_begin_where_the_first_was(stage: Stage) -> None:
    first = made(stage)
    others = [begin(stage) for _ in range(3)]
    answers = [run(one, "result = hooks") for one in (first, *others, others[0])]
    assert len({answer["born"] for answer in answers}) == 1
    assert [answer["count"] for answer in answers] == [1, 1, 1, 1, 2]
    assert all(answer["result"] == ["before b", "before a", "after a", "after b"] for answer in answers)


def test_what_must_differ_differs(stage: Stage) -> None:
    first = made(stage, "random.random(); ssl.RAND_bytes(1); tempfile.mktemp(); uuid.uuid1()")
    others = [begin(stage, stream=f"stream {number}") for number in range(3)]
    asked = (
        "result = [random.random(), ssl.RAND_bytes(16).hex(), os.path.basename(tempfile.mktemp()), uuid.uuid1().hex,"
        " os.environ['AWS_LAMBDA_LOG_STREAM_NAME'], context.aws_request_id]"
    )
    answers = [run(one, asked)["result"] for one in (first, *others)]
    for values in zip(*answers, strict=True):
        assert len(set(values)) == len(answers), values
    last = run(others[2], "result = [context.log_stream_name, os.environ['AWS_LAMBDA_INITIALIZATION_TYPE']]")
    assert last["result"] == ["stream 2", "snap-start"]


LOOK = """
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
result = {name: status[name].strip() for name in status
          if name.startswith("Cap") or name in ("Seccomp", "Seccomp_filters", "NoNewPrivs", "Groups", "Threads")}
listing = os.listdir("/proc/self/fd")
result["open"] = sorted(int(fd) for fd in listing if os.path.exists("/proc/self/fd/" + fd)
                        or os.path.islink("/proc/self/fd/" + fd))
result["processes"] = sum(name.isdigit() for name in os.listdir("/proc"))
result["limits"] = open("/proc/self/limits").read()
result["score"] = open("/proc/self/oom_score_adj").read()
result["session"] = os.getsid(0) == os.getpid()
result["thread"] = threading.get_native_id() == os.getpid() == threading.main_thread().native_id
result["shared"] = [line for line in open("/proc/self/maps") if line.split()[1] == "rw-s"]
result["cwd"] = os.getcwd()
"""


def test_a_restored_environment_may_do_what_any_may(stage: Stage) -> None:
    made(stage)
    restored = run(begin(stage), LOOK)["result"]
    stage.put("other = 1", wire.SnapshotMode.OFF, beyond=1)
    ordinary = run(begin(stage, beyond=1), LOOK)["result"]
    assert restored == ordinary


def test_siblings_do_not_see_each_other(stage: Stage) -> None:
    first = made(stage)
    others = [begin(stage) for _ in range(2)]
    environments = (first, *others)
    for name in ("net", "pid", "mnt", "ipc", "uts", "cgroup"):
        assert len({os.readlink(f"/proc/{process_of(one)}/ns/{name}") for one in environments}) == 3, name
    assert len({one.uid for one in environments}) == 3
    asked = "open('/tmp/mine', 'x').close(); secret = globals()['secret'] = born; result = os.listdir('/tmp')"
    for one in environments:
        assert run(one, asked)["result"] == ["mine"]
    # The file that they were filled from cannot be reached through what is mapped of it.
    reach = (
        "import glob\nresult = []\n"
        "for path in glob.glob('/proc/self/map_files/*'):\n"
        "    try:\n"
        "        if 'snapshot' in os.readlink(path): result.append(open(path).fileno())\n"
        "    except OSError: pass"
    )
    assert run(others[0], reach)["result"] == []


def test_the_working_directory_handlers_and_variables_are_kept(stage: Stage) -> None:
    made(
        stage,
        "os.chdir('/opt'); os.environ['MINE'] = 'x'; got = []\nsignal.signal(signal.SIGUSR1, lambda *_: got.append(1))",
    )
    asked = "os.kill(os.getpid(), signal.SIGUSR1); result = [os.getcwd(), os.environ['MINE'], got]"
    assert run(begin(stage), asked)["result"] == ["/opt", "x", [1]]


def test_threads_that_a_fork_ends_are_no_hindrance(stage: Stage) -> None:
    made(
        stage,
        "stop = threading.Event()\nthread = threading.Thread(target=stop.wait)\nthread.start()\n"
        "def end():\n    stop.set(); thread.join()\n"
        "os.register_at_fork(before=end)",
    )
    assert run(begin(stage), "result = threading.active_count()")["result"] == 1


def test_memory_is_copied_on_writing(stage: Stage) -> None:
    """What one writes no other sees, and what was large is there."""
    made(stage, "data = bytearray(b'x' * (20 << 20))")
    one, other = begin(stage), begin(stage)
    assert run(one, "data[5 << 20] = 7; result = sum(data[i] for i in range(0, len(data), 4096))")["result"] != 0
    assert run(other, "result = set(data) == {ord('x')}")["result"] is True


def test_automatic_begins_with_the_second(stage: Stage) -> None:
    stage.put(mode=wire.SnapshotMode.AUTOMATIC)
    first, second = begin(stage), begin(stage)
    expect(stage, State.READY)
    third = begin(stage)
    born = [run(one, "result = None")["born"] for one in (first, second, third)]
    assert born[0] != born[1] == born[2]


# ---- what cannot be copied --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at_init", "refusal"),
    [
        ("threading.Thread(target=threading.Event().wait, daemon=True).start()", Refusal.THREADS),
        ("kept = socket.socket()", Refusal.DESCRIPTORS),
        ("kept = open('/etc/passwd')", Refusal.DESCRIPTORS),
        ("import mmap; kept = mmap.mmap(-1, 4096)", Refusal.SHARED),
        ("if os.fork() == 0:\n    os.closerange(3, 9)\n    while True: time.sleep(99)", Refusal.CHILDREN),
        ("signal.setitimer(signal.ITIMER_REAL, 1000)", Refusal.TIMERS),
        ("open('/tmp/kept', 'w').close()", Refusal.FILES),
        ("libc = ctypes.CDLL(None); libc.shmget(0, ctypes.c_size_t(4096), 0o600)", Refusal.IPC),
        (
            "import mmap; f = os.memfd_create('x'); os.ftruncate(f, 4096)\n"
            "kept = mmap.mmap(f, 4096, mmap.MAP_PRIVATE); os.close(f); kept.close if 0 else None",
            None,
        ),
    ],
    ids=["threads", "socket", "file", "shared", "children", "timer", "tmp", "ipc", "memfd"],
)
def test_what_cannot_be_copied_is_an_ordinary_environment(
    stage: Stage, at_init: str, refusal: wire.SnapshotRefusal | None
) -> None:
    stage.put(at_init)
    first = begin(stage)
    told = expect(stage, State.REFUSED)
    assert told.refusal == refusal or refusal is None
    second = begin(stage)
    answers = [run(one, "result = hooks") for one in (first, second)]
    assert answers[0]["born"] != answers[1]["born"]
    assert answers[1]["result"] == ["before b", "before a", "after a", "after b"]


def test_hooks_that_raise_fail_the_init_phase(stage: Stage) -> None:
    stage.put("register_before_snapshot(lambda: 1 / 0)")
    environment = stage.launch()
    send_start(environment)
    answer = environment.receive()
    assert isinstance(answer, wire.InitError) and answer.error_type == "Runtime.BeforeSnapshotError", answer
    stage.exited(environment)
    expect(stage, State.NONE)


# ---- who dies ---------------------------------------------------------------------------------------------------


def test_the_maker_may_die(stage: Stage) -> None:
    maker = made(stage)
    other = begin(stage)
    os.kill(process_of(maker), signal.SIGKILL)
    stage.exited(maker)
    assert run(other, "result = None")["count"] == 1
    assert run(begin(stage), "result = None")["born"] == run(other, "result = None")["born"]


def test_a_maker_that_dies_on_the_way_is_followed_by_another(stage: Stage) -> None:
    stage.put("while os.getpid() == 30000 and not os.path.exists('/nowhere'): time.sleep(0.01)")
    maker = stage.launch()
    send_start(maker)
    expect(stage, State.MAKING)
    ordinary = begin(stage)  # does not wait for it
    assert run(ordinary, "result = None")["count"] == 1
    stage.end(maker)
    expect(stage, State.NONE)
    next_one = stage.launch()
    send_start(next_one)
    expect(stage, State.MAKING)


def test_a_snapshot_ends_with_its_zygote(own: Stage) -> None:
    stage = own
    maker = made(stage)
    zygote = stage.played.control.expect(wire.RuntimeState, 0, lambda told: told.pid != 0)[1].pid
    os.kill(zygote, signal.SIGKILL)
    expect(stage, State.NONE)
    again = begin(stage)
    expect(stage, State.READY)
    born = run(again, "result = None")["born"]
    assert born != run(maker, "result = None")["born"]
    assert run(begin(stage), "result = None")["born"] == born


def goes_on(environment: Environment, *, started: bool = False) -> bool:
    """It is let out of its init phase and answers; otherwise it never began."""
    try:
        if not started:
            send_start(environment)
        environment.send_invoke({})
        assert isinstance(environment.receive(), wire.InitDone)
    except (EOFError, ConnectionError):
        return False
    return isinstance(environment.receive(), wire.Result)


def test_a_snapshot_that_is_done_after_its_zygote_died(own: Stage) -> None:
    """It is good for nobody, and nobody waits for the zygote that it would be good for."""
    stage = own
    stage.put("import select\nif os.getpid() == 30000:\n    os.write(1, b'here\\n')\n    select.select([3], [], [])")
    maker = stage.launch()
    send_start(maker)
    os.set_blocking(maker.fds[wire.LaunchedFlags.LOG], False)
    await_true(lambda: b"here" in maker.log(), 60, "the end of its init phase")
    zygote = stage.played.control.expect(wire.RuntimeState, 0, lambda told: told.pid != 0)[1].pid
    os.kill(zygote, signal.SIGKILL)
    assert goes_on(maker, started=True)
    while not goes_on(another := stage.launch()):  # of the zygote that dies: asked for again, as the dispatcher does
        stage.exited(another)
    expect(stage, State.READY)
    assert run(begin(stage), "result = None")["count"] == 1


# ---- a maker that lies ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "refusal"),
    [
        ("bytes([200])", Refusal.FAILED),
        ("bytes([0])", Refusal.FAILED),
        ("bytes(300 << 20)", Refusal.TOO_LARGE),
    ],
    ids=["unknown", "zero", "much"],
)
def test_what_is_no_snapshot_is_not_used(stage: Stage, written: str, refusal: wire.SnapshotRefusal) -> None:
    stage.put(LIE % written)
    begin(stage)
    assert expect(stage, State.REFUSED).refusal == refusal
    assert run(begin(stage), "result = None")["count"] == 1


def test_snapshots_that_break_off_are_given_up(stage: Stage) -> None:
    stage.put(LIE % "os.urandom(9000)")
    for state in (State.NONE, State.NONE, State.REFUSED):
        begin(stage)
        told = expect(stage, State.MAKING)
        told = expect(stage, state)
    assert told.refusal == Refusal.FAILED
    assert run(begin(stage), "result = None")["count"] == 1


def test_a_maker_that_says_nothing_is_followed_by_another(stage: Stage) -> None:
    stage.put(LIE % "b''")
    for _ in range(4):
        begin(stage)
        expect(stage, State.MAKING)
        expect(stage, State.NONE)


# Only the maker has the descriptor; the others of this code are as they are.
LIE = """
if os.getpid() == 30000:
    view = memoryview(%s)
    try:
        while view: view = view[os.write(4, view[:65536]):]
    except BrokenPipeError: pass
    os.close(4)
"""


def test_copies_that_do_not_live_are_given_up(stage: Stage) -> None:
    """Ends as a snapshot does, and is none: each environment filled with it ends, and then no more are."""
    stage.put(LIE % "b'x' * 8192 + (0x646e65746f687370).to_bytes(8, 'little')")
    begin(stage)
    expect(stage, State.READY)
    for _ in range(3):
        environment = stage.launch()
        assert os.waitstatus_to_exitcode(stage.exited(environment).status) == 124
    assert expect(stage, State.REFUSED).refusal == Refusal.FAILED
    assert run(begin(stage), "result = None")["count"] == 1


def test_a_maker_that_never_ends_its_snapshot_holds_nobody_up(stage: Stage) -> None:
    stage.put(
        "if os.getpid() == 30000:\n    os.write(4, bytes(100)); os.dup2(4, 200); os.close(4)",
    )
    maker = begin(stage)
    assert run(begin(stage), "result = None")["count"] == 1
    assert run(maker, "result = None")["count"] == 1
    stage.end(maker)
    expect(stage, State.NONE)
