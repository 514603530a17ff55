"""What the guest runs of ours: the project's wheel and its dependencies, for the guest's architecture, on a disk.

The native core is compiled on the host against the guest's root (its headers, its C library), so that neither the
architecture nor the distribution of the host matters; the generators of the build run on the host's Python.
"""

from __future__ import annotations

import os
import pathlib
import shutil
import sys
import zipfile

from tests.vm import recipe
from tests.vm.image import BuildError, directory, remove, run
from tests.vm.recipe import PYTHON, ROOT, Architecture

# The tree as a test sees it; what the house tests read, and what is made, stays behind.
TREE = ("tests", "bench", "native", "pyproject.toml", "systemd", "proto", "dev", "README.md", "LICENSE")
IGNORED = shutil.ignore_patterns("__pycache__", "*.pyc", ".*_cache", "libexec", "house")
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "-q")


def compiler(architecture: Architecture) -> str:
    """The host's own one where it makes the guest's programs; a cross compiler otherwise."""
    return "cc" if architecture.native else f"{architecture.triplet}-gcc"


def environment(architecture: Architecture, place: pathlib.Path) -> dict[str, str]:
    """For builds: the guest's Python is described by its own sysconfig data, whatever the host's is."""
    root, data = place / "root", place / "sysconfig"
    name = f"_sysconfigdata__{architecture.triplet}"
    data.mkdir(exist_ok=True)
    shutil.copyfile(root / "usr" / "lib" / f"python{PYTHON}" / f"{name}.py", data / f"{name}.py")
    command = f"{compiler(architecture)} --sysroot={root}"
    return {
        **os.environ,
        "PYTHONPATH": str(data),
        "_PYTHON_SYSCONFIGDATA_NAME": name,
        "_PYTHON_HOST_PLATFORM": f"linux-{architecture.machine}",
        "CC": command,
        "LDSHARED": f"{command} -shared",
        "CFLAGS": f"-O2 -isystem {root}/usr/include/python{PYTHON}",
        "CMAKE_TOOLCHAIN_FILE": str(toolchain(architecture, place)),
    }


def toolchain(architecture: Architecture, place: pathlib.Path) -> pathlib.Path:
    """CMake's description of the guest. Headers and libraries come from its root only, programs from the host only."""
    root = place / "root"
    path = place / "toolchain.cmake"
    text = f"""set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR {architecture.machine})
set(CMAKE_C_COMPILER {shutil.which(compiler(architecture))})
set(CMAKE_SYSROOT {root})
set(CMAKE_LIBRARY_ARCHITECTURE {architecture.triplet})
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
set(ENV{{PKG_CONFIG_LIBDIR}} {root}/usr/lib/{architecture.triplet}/pkgconfig:{root}/usr/share/pkgconfig)
set(ENV{{PKG_CONFIG_SYSROOT_DIR}} {root})
set(Python3_INCLUDE_DIR {root}/usr/include/python{PYTHON} CACHE PATH "" FORCE)
set(Python3_LIBRARY {root}/usr/lib/{architecture.triplet}/libpython{PYTHON}.so CACHE FILEPATH "" FORCE)
"""
    if not path.exists() or path.read_text() != text:
        path.write_text(text)
    return path


def tagged(folder: pathlib.Path, pattern: str, architecture: Architecture, python: str, abi: str) -> pathlib.Path:
    """The one wheel of that name, under the tag of the guest's Python: building says the host's."""
    (wheel,) = folder.glob(pattern)
    name = run(
        sys.executable, "-m", "wheel", "tags", "--remove", "--python-tag", python, "--abi-tag", abi,
        "--platform-tag", f"linux_{architecture.machine}", wheel,
    )  # fmt: skip
    return folder / name.strip().splitlines()[-1]


def project_wheel(architecture: Architecture) -> pathlib.Path:
    """Builds the project. Objects are kept, so that only what changed is compiled again."""
    place = directory(architecture)
    folder = place / "dist"
    remove(folder)
    run(
        *PIP, "wheel", "--no-build-isolation", "--no-deps", "-w", folder, ROOT,
        env={**environment(architecture, place), "SKBUILD_BUILD_DIR": f"{place}/native"}, cwd=ROOT,
    )  # fmt: skip
    return tagged(folder, "runtimed-*.whl", architecture, "cp311", "abi3")


def dependencies(architecture: Architecture) -> pathlib.Path:
    """A folder with a wheel of each requirement, and another (`site`) in which they are unpacked; kept."""
    place = directory(architecture)
    wheels, site, mark = place / "wheels", place / "site", place / "site.stamp"
    wanted = recipe.site_stamp(architecture)
    if mark.exists() and mark.read_text() == wanted:
        return wheels
    mark.unlink(missing_ok=True)
    for folder in (wheels, site):
        remove(folder)
        folder.mkdir()
    made_here = [line for line in recipe.dependencies() if line.startswith("python-prctl")]
    others = [line for line in recipe.dependencies() if line not in made_here]
    platforms = [f"--platform=manylinux_2_{minor}_{architecture.machine}" for minor in range(36, 16, -1)]
    platforms.append(f"--platform=manylinux2014_{architecture.machine}")
    run(
        *PIP, "download", "-d", wheels, "--only-binary=:all:", f"--python-version={PYTHON}", "--implementation=cp",
        *platforms, *others,
    )  # fmt: skip
    # It comes as source only.
    run(
        *PIP, "wheel", "--no-build-isolation", "--no-deps", "-w", place / "prctl", *made_here,
        env=environment(architecture, place),
    )  # fmt: skip
    shutil.move(tagged(place / "prctl", "python_prctl-*.whl", architecture, "cp311", "cp311"), wheels)
    for wheel in wheels.glob("*.whl"):
        unpack(wheel, site)
    mark.write_text(wanted)
    return wheels


def unpack(wheel: pathlib.Path, site: pathlib.Path) -> None:
    """As pip does, but for programs: nothing in the guest is started by a console script."""
    with zipfile.ZipFile(wheel) as archive:
        for info in archive.infolist():
            path = archive.extract(info, site)
            mode = info.external_attr >> 16
            if not info.is_dir() and mode & 0o111:
                os.chmod(path, 0o755)
    for data in site.glob("*.data"):
        for kind in ("purelib", "platlib"):
            if (data / kind).is_dir():
                shutil.copytree(data / kind, site, dirs_exist_ok=True)
        remove(data)


def payload(architecture: Architecture, disk: pathlib.Path) -> None:
    """Makes the disk that is mounted at HOME: a virtual environment with everything, the wheels, and the tests."""
    place = directory(architecture)
    wheels = dependencies(architecture)
    wheel = project_wheel(architecture)
    stage = place / "payload"
    remove(stage)
    site = stage / "venv" / "lib" / f"python{PYTHON}" / "site-packages"
    shutil.copytree(place / "site", site, copy_function=os.link)
    unpack(wheel, site)
    binaries = stage / "venv" / "bin"
    binaries.mkdir()
    (binaries / "python3").symlink_to("/usr/bin/python3")
    (binaries / "python").symlink_to("python3")
    (stage / "venv" / "pyvenv.cfg").write_text("home = /usr/bin\ninclude-system-site-packages = false\n")
    shutil.copytree(wheels, stage / "wheels", copy_function=os.link)
    shutil.copy(wheel, stage / "wheels")
    for name in TREE:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, stage / name, ignore=IGNORED)
        elif source.exists():
            shutil.copy(source, stage / name)
    # Where an editable installation has them: tests look beside themselves.
    (stage / "runtimed").symlink_to(site.relative_to(stage) / "runtimed")
    if sys.version_info[:2] == tuple(map(int, PYTHON.split("."))):  # otherwise the guest compiles what it imports
        run(
            sys.executable,
            "-m",
            "compileall",
            "-q",
            "-j2",
            "-s",
            stage,
            "-p",
            recipe.HOME,
            stage / "venv" / "lib",
            stage / "tests",
            stage / "bench",
        )
    mega = sum(path.lstat().st_size for path in stage.rglob("*") if path.is_file()) >> 20
    disk.unlink(missing_ok=True)
    run("mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=1", "-d", stage, disk, f"{2 * mega + 512}M")
    if not any(
        wheel.name.endswith(f"{architecture.machine}.whl") for wheel in (stage / "wheels").glob("runtimed-*.whl")
    ):
        raise BuildError(f"the wheel is not for {architecture.machine}")
