"""More than one's share: privilege by programs and files, priority, limits."""

from __future__ import annotations

import pytest

from tests.outcomes import Outcome
from tests.security.escape.arena import Arena
from tests.security.escape.test_calls import COLUMN, NUMBERS


@pytest.mark.case("escape", "setuid and setgid programs of /usr, its own setuid files, file capabilities")
def test_privileged_programs(arena: Arena, outcome: Outcome) -> None:
    seen = arena.see("""
        import glob, subprocess
        found, gained = 0, []
        for path in glob.glob("/usr/bin/*") + glob.glob("/usr/sbin/*") + glob.glob("/usr/lib/*/*"):
            mode = os.stat(path).st_mode if os.path.isfile(path) else 0
            if mode & 0o6000 or (os.path.isfile(path) and "security.capability" in os.listxattr(path)):
                found += 1
                child = subprocess.Popen(["/bin/sh", "-c", "exec " + path], stdin=-3, stdout=-3, stderr=-3)
                try:
                    with open("/proc/%d/status" % child.pid) as file:
                        lines = dict(line.split(":\\t") for line in file if line[:3] in ("Uid", "Gid", "Cap"))
                    ids = {*lines["Uid"].split(), *lines["Gid"].split()}
                    if ids != {str(os.getuid())} or int(lines["CapPrm"], 16) or int(lines["CapEff"], 16):
                        gained.append(path)
                except (FileNotFoundError, ProcessLookupError):
                    pass
                child.kill()
                child.wait()
        subprocess.check_call(["cp", "/usr/bin/id", "/tmp/id"])
        os.chmod("/tmp/id", 0o6777)
        own = subprocess.check_output(["/tmp/id", "-u"], text=True).strip()
        os.unlink("/tmp/id")
        show([found > 0, gained, own == str(os.getuid())])
    """)
    assert seen == [True, [], True]
    outcome("they run as the function's own user without a capability")


@pytest.mark.case("escape", "limits upward, priorities, real time, I/O classes, the out-of-memory score, core dumps")
@pytest.mark.parametrize("stage", ["handler", "init", "program"])
def test_more_than_its_share(arena: Arena, outcome: Outcome, stage: str) -> None:
    ioprio = NUMBERS["ioprio_set"][COLUMN]
    seen = arena.see(
        f"""
        import resource, struct
        def attempt(deed, *arguments):
            try:
                deed(*arguments)
                return "done"
            except OSError as error:
                return errno.errorcode[error.errno]
            except ValueError:
                return "refused"
        def write(path, text):
            with open(path, "w") as file:
                file.write(text)
        raised = [attempt(resource.setrlimit, kind, (1 << 40, 1 << 40))
                  for kind in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC, resource.RLIMIT_SIGPENDING,
                               resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE, resource.RLIMIT_MSGQUEUE)]
        attempt(resource.setrlimit, resource.RLIMIT_CORE, (0, 0))
        deadline = struct.pack("<IIQiIQQQ", 48, 6, 0, 0, 0, 10**6, 10**7, 10**7)
        show({{
            "limits": raised,
            "core": list(resource.getrlimit(resource.RLIMIT_CORE)),
            "nice": attempt(os.setpriority, os.PRIO_PROCESS, 0, -1),
            "real time": [attempt(os.sched_setscheduler, 0, policy, os.sched_param(1)) for policy in (1, 2)],
            "deadline": call({NUMBERS["sched_setattr"][COLUMN]}, 0, deadline, 0),
            "io": [call({ioprio}, 1, 0, value) for value in (1 << 13, 1 << 13 | 7, 2 << 13, 2 << 13 | 3)],
            "io down": call({ioprio}, 1, 0, 2 << 13 | 7),
            "oom": attempt(write, "/proc/self/oom_score_adj", "-1"),
            "autogroup": attempt(write, "/proc/self/autogroup", "-1"),
            "cgroup": os.path.exists("/sys/fs/cgroup"),
            "cachestat": call({NUMBERS["cachestat"][COLUMN]}, 0, 0, 0, 0),
        }})
        """,
        stage,
    )
    assert seen == {
        "limits": ["refused"] * 6,
        "core": [1, 1],
        "nice": "EACCES",
        "real time": ["EPERM", "EPERM"],
        "deadline": -1,
        "io": [-1] * 4,
        "io down": 0,
        "oom": "EACCES",
        "autogroup": seen["autogroup"],
        "cgroup": False,
        "cachestat": -38,
    }
    assert seen["autogroup"] in ("EACCES", "ENOENT")
    outcome("refused; RLIMIT_CORE is 1 whatever is asked, so that no program that core_pattern names runs for a crash")
