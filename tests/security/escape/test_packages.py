"""Packages that attack the platform by their names and contents: while they are unpacked, compiled, imported."""

from __future__ import annotations

import io
import stat
import zipfile

import pytest

from runtimed.client import DeployFailed
from runtimed.model.errors import ApiError
from tests.outcomes import Outcome
from tests.security.escape.arena import Arena, zipped

APP = "def handler(event, context):\n    import builtins\n    return getattr(builtins, 'ran', [])\n"
# Whoever runs it leaves a mark in its process: the zygote's would be inherited by everybody.
MARK = "import builtins\nbuiltins.ran = getattr(builtins, 'ran', []) + [__name__]\n"
# What the runtime has imported already, what interpreters run by themselves, and names of the runtime's own.
NAMES = """
    json.py logging.py os.py io.py time.py encodings/__init__.py importlib/__init__.py site.py sitecustomize.py
    usercustomize.py runtimed.py _runtimed/__init__.py _runtimed/payload.py _zygote.py zygote.py environment.py warm.py
    bootstrap bootstrap.py python/sitecustomize.py lib/os.py
""".split()


def entry(name: str, content: bytes = b"", mode: int = stat.S_IFREG | 0o644, times: int = 1) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("app.py", APP)
        info = zipfile.ZipInfo(name)
        info.external_attr = mode << 16
        info.compress_type = zipfile.ZIP_DEFLATED
        for _ in range(times):
            archive.writestr(info, content)
    return out.getvalue()


REFUSED = {
    "above its directory": entry("../../../../etc/cron.d/job", b"x"),
    "above it, inside": entry("a/../../b", b"x"),
    "absolute": entry("/etc/passwd", b"x"),
    "a link out": entry("link", b"/etc/shadow", stat.S_IFLNK | 0o777),
    "a link above": entry("link", b"../../secret", stat.S_IFLNK | 0o777),
    "a device": entry("disk", b"", stat.S_IFBLK | 0o666),
    "a pipe": entry("pipe", b"", stat.S_IFIFO | 0o666),
    "a long name": entry("n" * 300, b"x"),
    "a bomb": entry("zeros", bytes(270 << 20)),
}


@pytest.mark.case("escape", "packages that climb out, link out, hold devices, long names, bombs, damage")
def test_refused(arena: Arena, outcome: Outcome) -> None:
    broken = {"cut short": zipped({"app.py": APP})[:-30], "no package": b"PK\3\4 nothing"}
    accepted = []
    for what, package in {**REFUSED, **broken}.items():
        try:
            arena.deploy("refused", package)
            accepted.append(what)
        except (ApiError, DeployFailed) as error:
            print(what, error)
    assert accepted == []
    assert "refused" not in [function.function_name for function in arena.client.list_functions()]
    outcome("refused with a sentence that says why; nothing is written outside the package's own directory")


@pytest.mark.case("escape", "modules named like the runtime's, .pth, sitecustomize, bootstrap, false .pyc files")
def test_names_and_bytecode(arena: Arena, outcome: Outcome) -> None:
    """They run in their own function when it imports them, and never before: neither in the zygote nor in compiling."""
    files: dict[str, str | bytes] = dict.fromkeys(NAMES, MARK)
    files |= {
        "app.py": APP,
        "evil.pth": "import builtins; builtins.ran = ['pth']\n",
        "__pycache__/app.cpython-311.pyc": b"\xa7\r\r\n\1\0\0\0" + bytes(8) + b"\xe3 lies",
        "__pycache__/json.cpython-311.pyc": b"\xa7\r\r\n" + bytes(12) + b"\xe3",
        "deep.py": "-" * 100_000 + "1",
        "nested.py": "(" * 5000 + ")" * 5000,
        "zero.py": b"x = 1\0",
        "big.py": "x = [" + "1," * 1_000_000 + "]",
    }
    name = arena.fresh(files)
    called = arena.call(name)
    assert not called.failed and called.value == [], called.payload
    assert arena.see("import builtins; show(hasattr(builtins, 'ran'))") is False
    crash = b"\xa7\r\r\n" + bytes(12) + b"\xe3" + b"\xff" * 64
    imported = arena.fresh({"app.py": "import evil\nhandler = print", "evil.pyc": crash})
    assert arena.call(imported).failed
    outcome("not one of them runs unless its own function imports it; false .pyc files are compiled over")
