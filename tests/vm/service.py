"""The installation as an administrator goes through it: install, use, reboot, stop, upgrade, remove. On a machine that
has nothing else to do with runtimed, by the project's own `./dev install` and from wheels alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

from tests.vm.guest import Failed, Guest
from tests.vm.recipe import HOME

UNIT = "runtimed.service"
GROUP_OF_UNIT = f"/sys/fs/cgroup/system.slice/{UNIT}"
EXPOSURE_MOST = 6.5  # of systemd-analyze security, which gives 9.6 to a service that says nothing

HELLO = "import os\ncalls = 0\ndef handler(event, context):\n    return {'hello': event['name'], 'pid': os.getpid()}\n"
# Seen from outside as a process, which is how a test knows that a call runs.
SLOW = (
    "import subprocess\ndef handler(event, context):\n    subprocess.run(['sleep', event['seconds']], check=True)\n"
    "    return 'slept'\n"
)
HUNGRY = "def handler(event, context):\n    return len(bytearray(1 << 30))\n"
CAGE = (
    "import pathlib\ndef handler(event, context):\n"
    "    return [line.split()[-1] for line in pathlib.Path('/proc/self/status').read_text().splitlines()\n"
    "            if line.startswith(('CapEff', 'NoNewPrivs', 'Seccomp:'))]\n"
)
FUNCTIONS = {"hello": HELLO, "slow": SLOW, "hungry": HUNGRY, "cage": CAGE}
# A build that differs from the one installed: the same wheel with one file more.
OTHER_BUILD = """
import pathlib, shutil, zipfile
old, new = pathlib.Path("wheels"), pathlib.Path("/var/tmp/wheels")
shutil.copytree(old, new)
wheel = next(new.glob("runtimed-*.whl"))
with zipfile.ZipFile(next(old.glob("runtimed-*.whl"))) as source, zipfile.ZipFile(wheel, "w") as target:
    for info in source.infolist():
        data = source.read(info)
        if info.filename.endswith("/RECORD"):
            data += b"runtimed/another.txt,,\\n"
        target.writestr(info, data)
    target.writestr("runtimed/another.txt", "another build")
"""
# What is of ours and still there.
LEFT = r"""
find /sys/fs/cgroup -name '*runtimed*'
grep runtimed /proc/mounts | grep -v ' /opt/payload '
for file in /sys/block/loop*/loop/backing_file; do [ -e "$file" ] && cat "$file"; done
getent passwd | grep runtimed; getent group | grep runtimed
ps -eo pid,args | grep '[r]untimed-'
for path in /opt/runtimed /etc/runtimed /var/lib/runtimed /run/runtimed; do [ ! -e "$path" ] || echo "$path"; done
find /usr/local /etc/systemd -name '*runtime[dc]*'
ip netns list
true
"""

Show = Callable[[str], None]  # of output as it comes
Step = Callable[[Guest, Show], str | None]


def sh(guest: Guest, script: str, seconds: float = 300, show: Show | None = None) -> str:
    """Runs it; Failed with its output unless it ends well."""
    status, output = guest.run("bash", "-c", script, seconds=seconds, show=show)
    if status != 0:
        raise Failed(f"{script.strip().splitlines()[0][:80]}: exit status {status}\n{output[-3000:]}")
    return output.strip()


def invoke(guest: Guest, name: str, event: object) -> object:
    return json.loads(sh(guest, f"runtimectl invoke {name} --payload '{json.dumps(event)}'"))


def expect(what: str, seen: object, wanted: object) -> None:
    if seen != wanted:
        raise Failed(f"{what}: {seen!r} instead of {wanted!r}")


def install(guest: Guest, show: Show) -> str:
    sh(guest, f"./dev install --wheelhouse {HOME}/wheels", 900, show)
    expect("the service", sh(guest, f"systemctl is-active {UNIT}; systemctl is-enabled {UNIT}"), "active\nenabled")
    return sh(guest, "readlink /opt/runtimed/current")


def use(guest: Guest, show: Show) -> str:
    for name, code in FUNCTIONS.items():
        path = f"/var/tmp/{name}.py"
        sh(
            guest,
            f"cat >{path} <<'END'\n{code}END\nruntimectl deploy {name} {path} --handler {name}.handler --timeout 120",
        )
    answers = [invoke(guest, "hello", {"name": "you"}) for _ in range(2)]
    expect("the answer", [answer["hello"] for answer in answers], ["you", "you"])  # type: ignore[index]
    expect("capabilities, no_new_privs, seccomp", invoke(guest, "cage", {}), ["0" * 16, "1", "2"])
    status, output = guest.run("runtimectl", "invoke", "hungry", "--payload", "{}", seconds=300)
    if status != 1 or "OutOfMemory" not in output:
        raise Failed(f"out of memory: exit status {status}\n{output}")
    expect("after it", invoke(guest, "hello", {"name": "me"})["hello"], "me")  # type: ignore[index]
    limits = sh(guest, f"cat {GROUP_OF_UNIT}/runtimed*/*/memory.max | sort -u")
    if str(128 << 20) not in limits.split():
        raise Failed(f"no environment below {GROUP_OF_UNIT} has its limit\n{limits}")
    expect("processes in the unit's own cgroup", sh(guest, f"cat {GROUP_OF_UNIT}/cgroup.procs"), "")
    return "deployed, invoked, out of memory, limits in the unit's cgroup"


def status_and_journal(guest: Guest, show: Show) -> str:
    show(sh(guest, f"systemctl status --no-pager --lines 3 {UNIT}") + "\n")
    journal = sh(guest, f"journalctl --unit {UNIT} --boot --no-pager --output cat")
    bad = [
        line for line in journal.splitlines() if re.search("(?i)error|cannot|fail|traceback|warn|refus|denied", line)
    ]
    bad = [line for line in bad if not line.startswith("{") or '"level": "INFO"' not in line]
    if bad:
        raise Failed(f"{len(bad)} lines of the journal\n" + "\n".join(bad[:40]))
    expect("units that failed", sh(guest, "systemctl --failed --plain --no-legend"), "")
    return f"{len(journal.splitlines())} lines, none about a fault"


def security(guest: Guest, show: Show) -> str:
    text = sh(guest, f"systemd-analyze security --no-pager {UNIT}")
    line = text.splitlines()[-1]
    level = float(re.findall(r"[0-9]+\.[0-9]+", line)[-1])
    if level > EXPOSURE_MOST:
        raise Failed(f"exposure {level}\n{text}")
    return f"exposure {level}"


def reboot(guest: Guest, show: Show) -> str:
    sh(guest, f"systemctl restart {UNIT}")  # so that what is stopped at shutdown is not the first incarnation
    before = guest.boot_id
    guest.reboot()
    if guest.boot_id == before:
        raise Failed("it did not reboot")
    ended = sh(guest, f"journalctl --unit {UNIT} --boot -1 --no-pager --output cat | tail -n 3")
    if "Deactivated successfully" not in ended and "Stopped" not in ended:
        raise Failed("the service did not end well at shutdown\n" + ended)
    sh(guest, f"for _ in $(seq 240); do systemctl is-active --quiet {UNIT} && exit 0; sleep 0.5; done; exit 1")
    expect("the answer", invoke(guest, "hello", {"name": "again"})["hello"], "again")  # type: ignore[index]
    return "the function answers after it"


def drain(guest: Guest, show: Show) -> str:
    """A call that runs while the service stops gets its answer."""
    script = f"""
runtimectl invoke slow --payload '{{"seconds": "4.125"}}' >/var/tmp/answer & call=$!
for _ in $(seq 600); do ps -eo args | grep -q '^sleep 4[.]125$' && break; sleep 0.1; done
ps -eo args | grep -q '^sleep 4[.]125$' || {{ echo "the call did not begin"; exit 1; }}
systemctl stop {UNIT}
wait $call || exit 1
cat /var/tmp/answer
systemctl show --property Result --value {UNIT}
systemctl is-active {UNIT}
true
"""
    expect("answer, result, state", sh(guest, script).split(), ['"slept"', "success", "inactive"])
    expect("left in its cgroup", sh(guest, f"ls -d {GROUP_OF_UNIT}/* 2>/dev/null | wc -l"), "0")
    sh(guest, f"systemctl start {UNIT}")
    return "the running call was answered"


def upgrade(guest: Guest, show: Show) -> str:
    before = sh(guest, "readlink /opt/runtimed/current")
    sh(guest, f"{HOME}/venv/bin/python - <<'END'\n{OTHER_BUILD}END")
    sh(guest, "./dev install --wheelhouse /var/tmp/wheels", 900, show)
    after = sh(guest, "readlink /opt/runtimed/current")
    if after == before:
        raise Failed("the build is the same as before")
    expect("builds", sh(guest, "ls -d /opt/runtimed/[0-9]*"), f"/opt/runtimed/{after}")
    expect("the answer", invoke(guest, "hello", {"name": "new"})["hello"], "new")  # type: ignore[index]
    return f"from {before} to {after}"


def uninstall(guest: Guest, show: Show) -> str:
    sh(guest, "./dev uninstall --purge", 300, show)
    left = sh(guest, LEFT)
    if left:
        raise Failed(f"{len(left.splitlines())} things are left\n{left}")
    return "nothing is left"


STEPS: list[tuple[str, Step]] = [
    ("service: install", install),
    ("service: deploy and invoke", use),
    ("service: reboot", reboot),
    ("service: status and journal", status_and_journal),
    ("service: security of the unit", security),
    ("service: stop while a call runs", drain),
    ("service: upgrade in place", upgrade),
    ("service: uninstall", uninstall),
]
