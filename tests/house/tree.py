"""The tree as the house tests see it: every file that is or would be committed."""

from __future__ import annotations

import functools
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
GENERATED = ("native/protocol/wire.c", "native/protocol/include/protocol/wire.h", "runtimed/model/wire.py")
GENERATED_FOLDERS = ("runtimed/gateway/grpc/pb/", "native/tests/vectors/")


@functools.cache
def files(*suffixes: str) -> tuple[pathlib.Path, ...]:
    """Paths relative to the root, tracked or not yet, without what is ignored; all, or those with these suffixes."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout.decode().split("\0")
        paths = [pathlib.Path(name) for name in listed if name]
    else:  # an unpacked archive
        ignored = {"build", "dist", "libexec", "__pycache__"}
        paths = [path.relative_to(ROOT) for path in ROOT.rglob("*")]
        paths = [path for path in paths if not any(part in ignored or part[0] == "." for part in path.parts[:-1])]
    return tuple(
        sorted(path for path in paths if (not suffixes or path.suffix in suffixes) and (ROOT / path).is_file())
    )


def written(*suffixes: str) -> list[pathlib.Path]:
    """The files that people wrote."""
    return [
        path for path in files(*suffixes) if str(path) not in GENERATED and not str(path).startswith(GENERATED_FOLDERS)
    ]
