"""From a path to an archive: installs a requirements.txt for the function's runtime and packs everything.

The dependencies are built for the runtime, not for the interpreter that runs this: when the versions differ, only ready
wheels can be taken, since nothing here can compile for another Python.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from runtimed.client import package
from runtimed.client.errors import ClientError
from runtimed.model.runtime import python_minor

REQUIREMENTS = "requirements.txt"

Progress = Callable[[str, int, int], None]
"""Told (stage, done, total): installing (total 0: not known), packing, uploading, activating."""

COMPLAINT_LINES = 12
"""The end of pip's output that goes into an error."""


def build(path: Path, runtime: str, progress: Progress | None = None) -> bytes:
    """The archive of a .zip, a .py file or a directory, with its dependencies."""
    if path.suffix == ".zip" and path.is_file():
        return package.read_zip(path)
    own = package.files(path)
    report: package.Report | None = None
    if progress is not None:
        tell = progress

        def report(done: int, total: int) -> None:
            tell("packing", done, total)

    requirements = (path if path.is_dir() else path.parent) / REQUIREMENTS
    if not _asks_for_something(requirements):
        return package.archive(own, report)
    with tempfile.TemporaryDirectory(prefix="runtimed-build-") as directory:
        site = Path(directory) / "site"
        site.mkdir()
        if progress is not None:
            progress("installing", 0, 0)
        install(requirements, runtime, site)
        installed = package.files(site) if any(site.iterdir()) else {}
        scripts = [name for name in installed if name.startswith("bin/")]
        for name in scripts:  # they name the interpreter that installed them
            del installed[name]
        return package.archive({**installed, **own}, report)


def install(requirements: Path, runtime: str, site: Path) -> None:
    """Installs what the file asks for into `site`, as the runtime needs it."""
    minor = python_minor(runtime)
    if minor is None:
        raise ClientError(f"{REQUIREMENTS} can be installed for a Python runtime only, not for {runtime}.")
    command = _command(requirements.name, minor, site)
    ran = subprocess.run(
        command,
        cwd=requirements.parent,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if ran.returncode != 0:
        end = "\n".join(ran.stdout.strip().splitlines()[-COMPLAINT_LINES:])
        raise ClientError(f"{requirements} could not be installed for {runtime}:\n{end}\n{_advice(minor)}")


def _advice(minor: int) -> str:
    if minor == sys.version_info.minor:
        return "Correct the file, or install the packages into the directory yourself."
    return (
        f"Packages for {_name(minor)} are taken as ready wheels, because this is {_name(sys.version_info.minor)}. "
        f"Choose versions that have wheels, run runtimectl with {_name(minor)}, or deploy with another --runtime."
    )


def _name(minor: int) -> str:
    return f"Python 3.{minor}"


def _asks_for_something(requirements: Path) -> bool:
    if not requirements.is_file():
        return False
    lines = requirements.read_text(encoding="utf-8", errors="replace").splitlines()
    return any(line.strip() and not line.lstrip().startswith("#") for line in lines)


def _command(requirements: str, minor: int, site: Path) -> list[str]:
    same = minor == sys.version_info.minor
    if importlib.util.find_spec("pip") is not None:
        return [*_pip(sys.executable, "-m", "pip"), *_target(requirements, site), *([] if same else _foreign(minor))]
    uv = shutil.which("uv")
    if uv is not None:
        version = ["--python-version", f"3.{minor}", *([] if same else ["--only-binary", ":all:"])]
        return [uv, "pip", "install", "--quiet", *_target(requirements, site), *version]
    pip = shutil.which("pip3") or shutil.which("pip")
    if pip is not None:
        return [*_pip(pip), *_target(requirements, site), *_foreign(minor)]
    raise ClientError(
        f"{REQUIREMENTS} needs pip and there is none: install python3-pip, or install the packages into the directory "
        "yourself and remove the file."
    )


def _pip(*program: str) -> list[str]:
    return [*program, "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile"]


def _target(requirements: str, site: Path) -> list[str]:
    return ["--requirement", requirements, "--target", str(site)]


def _foreign(minor: int) -> list[str]:
    """What makes pip choose wheels for another version of Python."""
    options = ["--python-version", f"3.{minor}", "--implementation", "cp", "--only-binary", ":all:"]
    for tag in platforms(platform.machine(), _glibc()):
        options += ["--platform", tag]
    for abi in (f"cp3{minor}", "abi3", "none"):
        options += ["--abi", abi]
    return options


def _glibc() -> int:
    """N of glibc 2.N; that of manylinux2014 where it cannot be told."""
    try:
        return int((os.confstr("CS_GNU_LIBC_VERSION") or "").split()[-1].split(".")[1])
    except (IndexError, OSError, ValueError):
        return 17


def platforms(machine: str, glibc: int) -> Sequence[str]:
    """The wheel platforms that run on a machine with glibc 2.N, newest first (PEP 600 and its predecessors)."""
    aliases = {17: "manylinux2014", 12: "manylinux2010", 5: "manylinux1"}
    oldest = 5 if machine == "x86_64" else 17
    tags = []
    for minor in range(glibc, oldest - 1, -1):
        tags.append(f"manylinux_2_{minor}_{machine}")
        if minor in aliases:
            tags.append(f"{aliases[minor]}_{machine}")
    return [*tags, f"linux_{machine}"]
