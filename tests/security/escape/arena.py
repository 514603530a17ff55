"""Where hostile functions run: a node whose runtime has one zygote, a victim beside them, and attacks from every stage
of a function's life. Attacker and victim are forked from the same process, which is as near as two functions ever
are."""

from __future__ import annotations

import contextlib
import hashlib
import io
import itertools
import pathlib
import textwrap
import zipfile
from typing import Any

from bench.node import Node, await_true
from runtimed.client import Client
from runtimed.client.result import Result
from tests.sandbox.jail import PRELUDE

RUNTIME = "python3.11"
PATIENCE = 60.0  # seconds that a call may take before the node counts as stalled
STAGES = ("handler", "init", "thread", "child", "program")
SECRET = "the victim's own 5b1e90c7"
MARK = "code of the victim 77a0"

VICTIM = f"""
import hashlib, os
MARK = {MARK!r}
def handler(event, context):
    with open("/tmp/secret", "w") as file:
        file.write(os.environ["SECRET"])
    digest = hashlib.sha256(os.environ["SECRET"].encode() + bytes(event)).hexdigest()
    with open("/proc/self/uid_map") as file:
        base = int(file.read().split()[1])
    return {{"digest": digest, "tmp": os.listdir("/tmp"), "base": base, "uid": base + os.getuid()}}
"""

# Runs what the event says, where the event says. What an attack saw is what it passed to show().
ATTACKER = f"""
PRELUDE = {PRELUDE!r}
exec(PRELUDE)
import json, subprocess, threading, time
shown = []
show = shown.append
def run(code):
    try:
        exec(compile(code, "attack", "exec"), globals())
    except BaseException as error:
        show("%s: %s" % (type(error).__name__, error))
def is_answering():
    frame = sys._current_frames()[threading.main_thread().ident]
    while frame is not None and frame.f_code is not handler.__code__:
        frame = frame.f_back
    return frame is not None
def after_the_reply(code):
    while is_answering():
        time.sleep(0.001)
    run(code)
def in_child(code):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        run(code)
        os.write(write, json.dumps(shown).encode())
        os._exit(0)
    os.close(write)
    with open(read, "rb") as file:
        shown.extend(json.loads(file.read() or b"[]"))
    return os.waitpid(pid, 0)[1]
def in_program(code):
    whole = PRELUDE + "import json\\ndef show(value):\\n    print(json.dumps(value), flush=True)\\n" + code
    done = subprocess.run([sys.executable, "-I", "-S", "-c", whole], capture_output=True, text=True)
    shown.extend(json.loads(line) for line in done.stdout.splitlines())
    return done.stderr
def handler(event, context):
    stage, code = event
    if stage == "collect":
        return [shown, None]
    shown.clear()
    if stage == "thread":
        threading.Thread(target=after_the_reply, args=(code,), daemon=True).start()
        return None
    return [shown, dict(handler=run, child=in_child, program=in_program)[stage](code)]
"""

AT_INIT = """
exec(PRELUDE)
shown = []
show = shown.append
try:
    exec(compile(CODE, "attack", "exec"), globals())
except BaseException as error:
    show("%s: %s" % (type(error).__name__, error))
def handler(event, context):
    return [shown, None]
"""


def zipped(files: dict[str, str | bytes]) -> bytes:
    """An archive of these files, each of which may be executed."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = 0o100755 << 16
            archive.writestr(info, content)
    return out.getvalue()


def started(pid: int) -> str:
    """When the process started, which tells it from a later one of its number; empty when it has ended."""
    try:
        fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]


class Arena:
    """A node with a victim on it."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.client = Client(node.address, timeout=PATIENCE)
        self._numbers = itertools.count(1)
        self.deploy("victim", VICTIM, environment={"SECRET": SECRET})
        self.deploy("attacker", ATTACKER)
        answer = self.victim()
        self.victim_uid: int = answer["uid"]  # on the host
        self.uid_base: int = answer["base"]
        core = {**node.roles(), "zygote": self.zygotes()[0]}
        self._core = {role: (pid, started(pid)) for role, pid in core.items()}

    def close(self) -> None:
        self.client.close()

    def deploy(self, name: str, code: str | bytes | dict[str, str | bytes], **settings: Any) -> str:
        """A function of one app.py, of these files or of this archive; its name."""
        if isinstance(code, str):
            code = {"app.py": code}
        given = {"runtime": RUNTIME, "handler": "app.handler", "timeout": 30, "memory_size": 256, **settings}
        self.client.deploy(name, code if isinstance(code, bytes) else zipped(code), **given)
        return name

    def fresh(self, code: str | bytes | dict[str, str | bytes], **settings: Any) -> str:
        """A function that nobody has called yet."""
        return self.deploy(f"fresh-{next(self._numbers)}", code, **settings)

    def victim(self) -> dict[str, Any]:
        """The victim's answer, which must be right."""
        data = list(next(self._numbers).to_bytes(4, "big"))
        answer: dict[str, Any] = self.client.invoke("victim", data, timeout=PATIENCE).value
        assert answer["digest"] == hashlib.sha256(SECRET.encode() + bytes(data)).hexdigest()
        assert answer["tmp"] == ["secret"]
        return answer

    def call(self, name: str, event: Any = None, *, log_tail: bool = False) -> Result:
        return self.client.invoke(name, event, timeout=PATIENCE, log_tail=log_tail)

    def see(self, code: str, stage: str = "handler") -> Any:
        """The one value that the code passed to `show`; it has `call` for system calls by number."""
        code = textwrap.dedent(code)
        if stage == "init":
            name = self.fresh(f"PRELUDE = {PRELUDE!r}\nCODE = {code!r}\n" + AT_INIT)
            shown, ended = self.call(name).value
            self.client.delete_function(name)
        else:
            shown, ended = self.call("attacker", [stage, code]).value or self._collect()
        assert len(shown) == 1, (shown, ended)
        return shown[0]

    def pids(self, uid: int) -> list[int]:
        """Process ids on the host of what runs Python as this user id of the host."""
        found = []
        for process in self.node.processes():
            with contextlib.suppress(FileNotFoundError):  # it has ended
                owner = pathlib.Path(f"/proc/{process.pid}").stat().st_uid
                if owner == uid and process.name.startswith("python"):
                    found.append(process.pid)
        return found

    def lost(self) -> list[str]:
        """Which of the node's processes are not those that it began with."""
        return [role for role, (pid, moment) in self._core.items() if started(pid) != moment]

    def _collect(self) -> Any:
        """What the thread saw, which runs between invocations: so there have to be gaps."""
        answer: Any = [[], None]

        def has_seen() -> bool:
            answer[:] = self.call("attacker", ["collect", ""]).value
            return bool(answer[0])

        await_true(has_seen, PATIENCE, "what the thread saw")
        return answer

    def victim_pid(self) -> int:
        """On the host."""
        return self.pids(self.victim_uid)[0]

    def zygotes(self) -> list[int]:
        """Of the runtime: root of its user namespace."""
        return self.pids(self.uid_base)
