"""What cold starts are measured beside: the same work without runtimed, from nothing each time.

`python3 -c 'import …'`, a bare interpreter; the same below bubblewrap (`bwrap`) and as an OCI container of `crun`, with
the same interpreter and file system; and packages to import. `./dev bench cold_start` fetches them into build/sandboxes
and build/packages; what is not there is left out, and the report says so.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable

from bench import measure
from bench.node import ROOT

SANDBOXES = ROOT / "build/sandboxes/root"
PACKAGES = ROOT / "build/packages"
CALLS = 8
HELLO = "import json; print(json.dumps({'hello': 'you'}))"
NAMESPACES = ("pid", "mount", "ipc", "uts", "network")
LIMIT_MB = 250  # of a function's code, as on Lambda
# What each of them needs of the others; test suites stay out.
CONTENTS = {
    "numpy": ("numpy", "numpy.libs"),
    "boto3": ("boto3", "botocore", "s3transfer", "jmespath", "dateutil", "urllib3", "six.py"),
    "pandas": ("pandas", "numpy", "numpy.libs", "dateutil", "pytz", "tzdata", "six.py"),
}
SOURCES = {
    "numpy": "import numpy\n\nvalue = float(numpy.arange(1000).sum())\n",
    "boto3": "import boto3\n\nvalue = boto3.client('s3', region_name='us-east-1', aws_access_key_id='a',"
    " aws_secret_access_key='b')\n",
    "pandas": "import pandas\n\nvalue = pandas.DataFrame({'a': range(10)}).a.sum()\n",
}
HANDLER = "\ndef handler(event, context):\n    return {'hello': event.get('name', 'you')}\n"


def packages() -> list[str]:
    """Those that are there."""
    return [name for name in CONTENTS if (PACKAGES / name).is_dir()]


def package(name: str, directory: pathlib.Path) -> None:
    """A function's code: the package as it is installed, and a handler."""
    ignored = shutil.ignore_patterns("__pycache__", "tests", "*.pyi")
    for entry in CONTENTS[name]:
        source = PACKAGES / entry
        if source.is_dir():
            shutil.copytree(source, directory / entry, ignore=ignored)
        elif source.exists():
            shutil.copy(source, directory)
    (directory / "app.py").write_text(SOURCES[name] + HANDLER)


def _timed(command: list[str], environment: dict[str, str]) -> Callable[[], dict[str, float]]:
    def run() -> dict[str, float]:
        samples = []
        for _ in range(CALLS):
            start = time.perf_counter()
            subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment, check=True)
            samples.append((time.perf_counter() - start) * 1e6)
        return measure.latency(samples[1:])

    return run


def _bundled(python: str, bundle: pathlib.Path) -> list[str]:
    """crun and a bundle: this file system, read-only, in namespaces of its own."""
    configuration = {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": [python, "-I", "-S", "-c", HELLO],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
            "capabilities": {},
        },
        "root": {"path": "/", "readonly": True},
        "mounts": [{"destination": "/proc", "type": "proc", "source": "proc"}],
        "linux": {"namespaces": [{"type": name} for name in NAMESPACES]},
    }
    (bundle / "config.json").write_text(json.dumps(configuration))
    crun = str(SANDBOXES / "usr/bin/crun")
    return [crun, f"--root={bundle}/state", "--cgroup-manager=disabled", "run", f"--bundle={bundle}", bundle.name]


def peers(python: str) -> tuple[dict[str, Callable[[], dict[str, float]]], list[str], tempfile.TemporaryDirectory[str]]:
    """By name; the names of those that do not run here, with the reason; a directory to be kept as long."""
    made = tempfile.TemporaryDirectory(prefix="runtimed-bench-")
    libraries = ":".join(str(path.parent) for path in SANDBOXES.glob("usr/lib/*/lib*.so.*"))
    environment = {**os.environ, "LD_LIBRARY_PATH": libraries}
    hello = [python, "-I", "-S", "-c", HELLO]
    bwrap = [
        str(SANDBOXES / "usr/bin/bwrap"),
        "--ro-bind",
        "/",
        "/",
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/tmp",
    ]
    wanted = {
        "python3": (hello, dict(os.environ)),
        "bwrap, python3": ([*bwrap, "--unshare-all", *hello], environment),
        "crun, python3": (_bundled(python, pathlib.Path(made.name)), environment),
    }
    for name in packages():
        program = f"import sys; sys.path.insert(0, {str(PACKAGES)!r}); " + SOURCES[name]
        wanted[f"python3, {name}"] = ([python, "-I", "-c", program], dict(os.environ))
    found, missing = {}, [f"{name}: not fetched" for name in CONTENTS if name not in packages()]
    for name, (command, variables) in wanted.items():
        try:
            done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
        except FileNotFoundError:
            missing.append(f"{name}: not fetched")
            continue
        if done.returncode == 0:
            found[name] = _timed(command, variables)
        else:
            missing.append(f"{name}: {done.stderr.strip().splitlines()[-1:] or done.returncode}")
    return found, missing, made
