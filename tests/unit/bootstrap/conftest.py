"""Environments on every CPython that is there, with the extension that the build made (or one made here)."""

from __future__ import annotations

import glob
import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable

import pytest

from tests.unit.bootstrap.dispatcher import ROOT, Environment

OLDEST = 9  # the minor version of Python 3 from which functions may run
EXTENSION = "_zygote.abi3.so"


def interpreters() -> list[str]:
    """One of each minor version from 3.9: on the path, in the usual places, and where pyenv keeps them."""
    found: dict[int, str] = {sys.version_info.minor: sys.executable}
    home = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    for directory in ["/usr/bin", "/usr/local/bin", *sorted(glob.glob(f"{home}/versions/3.*/bin"))]:
        for path in glob.glob(f"{directory}/python3.*"):
            minor = path.rpartition(".")[2]
            if minor.isdigit() and int(minor) >= OLDEST and os.access(path, os.X_OK):
                found.setdefault(int(minor), path)
    return [found[minor] for minor in sorted(found)]


def build(into: pathlib.Path) -> pathlib.Path:
    if shutil.which("cmake") is None:
        pytest.skip("the extension _zygote is not built, and there is no cmake")
    subprocess.run(["cmake", "-S", ROOT / "native", "-B", into], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["cmake", "--build", into, "--target", "_zygote"], check=True, stdout=subprocess.DEVNULL)
    return into / "libexec" / "python"


@pytest.fixture(scope="session")
def native(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The directory with the extension."""
    named = os.environ.get("RUNTIMED_LIBEXEC")
    for directory in [*([pathlib.Path(named)] if named else []), ROOT / "runtimed" / "libexec"]:
        if (directory / "python" / EXTENSION).exists():
            return directory / "python"
    return build(tmp_path_factory.mktemp("native"))


@pytest.fixture(params=interpreters(), ids=lambda path: "3." + pathlib.Path(path).resolve().name.rpartition(".")[2])
def python(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Make = Callable[..., Environment]


@pytest.fixture
def make(python: str, native: pathlib.Path, tmp_path: pathlib.Path) -> Make:
    """make(source, files): an environment whose app.py is that source and whose other files, below task/ or opt/, are
    those. Not started yet."""

    def make(source: str = "", files: dict[str, str] | None = None) -> Environment:
        for name, text in {"task/app.py": source, **(files or {})}.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return Environment(python, native, tmp_path / "task", tmp_path / "opt")

    return make
