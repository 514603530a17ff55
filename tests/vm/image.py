"""Makes the guest's root: a Debian system without anything of the project, its kernel, and an initramfs.

Runs as root on the host. Made once and kept below build/vm/ARCHITECTURE until its recipe changes. What it mounts and
registers is in a mount namespace of its own and ends with it, so that a crash leaves only files below build/vm.
"""

from __future__ import annotations

import pathlib
import shlex
import shutil
import subprocess
import sys

from tests.vm import recipe
from tests.vm.recipe import Architecture

IMAGE_BYTES = 3 << 30  # sparse
MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "getty@tty1.service", "systemd-timesyncd.service", "systemd-firstboot.service",
    "ldconfig.service", "systemd-networkd-wait-online.service",
)  # fmt: skip


class BuildError(Exception):
    """Something of the host is missing or broken; the text says what to do."""


def run(*command: str | pathlib.Path, **options: object) -> str:
    """Runs it to its end and returns what it printed. BuildError has the end of its output."""
    words = [str(word) for word in command]
    done = subprocess.run(
        ["setpriv", "--pdeathsig", "KILL", *words], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True, check=False, **options,
    )  # fmt: skip
    if done.returncode != 0:
        raise BuildError(f"{shlex.join(words)[:300]}: exit status {done.returncode}\n{done.stdout[-3000:]}")
    return done.stdout


def host_packages(architecture: Architecture) -> None:
    """Installs what the host lacks."""
    needed = architecture.host_packages.items()
    missing = sorted({package for command, package in needed if shutil.which(command) is None})
    if not missing:
        return
    if shutil.which("apt-get") is None:
        raise BuildError(f"missing (as Debian names them): {' '.join(missing)}. Install them and try again.")
    print("installing:", *missing, file=sys.stderr)
    run("apt-get", "update", "-qq")
    run("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing)


def directory(architecture: Architecture) -> pathlib.Path:
    return recipe.BUILD / architecture.machine


def ensure(architecture: Architecture) -> pathlib.Path:
    """The directory with `root` (unpacked), `root.img`, `kernel`, `initramfs`; makes them unless they are current."""
    place = directory(architecture)
    wanted = recipe.root_stamp(architecture)
    mark = place / "root.stamp"
    if mark.exists() and mark.read_text() == wanted:
        return place
    place.mkdir(parents=True, exist_ok=True)
    mark.unlink(missing_ok=True)
    for name in ("root", "kernel", "initramfs", "root.img", "early"):
        remove(place / name)
    bootstrap(architecture, place / "root")
    furnish(place / "root")
    version = unpack_kernel(place)
    make_initramfs(place, version)
    run(
        "mke2fs",
        "-q",
        "-t",
        "ext4",
        "-E",
        "lazy_itable_init=1",
        "-d",
        place / "root",
        place / "root.img",
        f"{IMAGE_BYTES >> 20}M",
    )
    mark.write_text(wanted)
    return place


def remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def bootstrap(architecture: Architecture, root: pathlib.Path) -> None:
    """An installed system in a directory, with its kernel's package in `/kernel`."""
    kernel = f"linux-image-cloud-{architecture.debian}"
    # Its own apt configuration asks for the other architecture's packages without the host knowing of it.
    fetch = (
        'mkdir "$1/kernel" && cd "$1/kernel" && export APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" && '
        f'apt-get -o APT::Sandbox::User=root download -qq $(apt-cache depends {kernel} | sed -n "s/.*Depends: //p")'
    )
    command = [
        "mmdebstrap", "--quiet", "--mode=root", "--variant=minbase", "--format=directory",
        f"--architectures={architecture.debian}", f"--include={','.join(recipe.packages())}",
        "--aptopt=APT::Install-Recommends \"false\"", "--dpkgopt=force-unsafe-io",
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")),
        f"--customize-hook={fetch}", recipe.SUITE, str(root),
    ]  # fmt: skip
    script = f"set -e\n{'' if architecture.native else register(architecture)}\nexec {shlex.join(command)}\n"
    try:
        run("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", script)
    except BuildError:
        remove(root)
        raise


def register(architecture: Architecture) -> str:
    """Lets the kernel run the other architecture's programs while this mount namespace lives: the entry goes with the
    last mount of its file system, so nothing stays registered."""
    place = "/proc/sys/fs/binfmt_misc"
    interpreter = f"/usr/bin/qemu-{architecture.machine}-static"
    entry = f":runtimed-{architecture.machine}:M::{architecture.magic}:{recipe.MAGIC_MASK}:{interpreter}:F"
    return (
        f"mount -t binfmt_misc none {place}\n"
        f"if [ ! -e {place}/qemu-{architecture.machine} ] && [ ! -e {place}/runtimed-{architecture.machine} ]; then\n"
        f"    printf '%s' {shlex.quote(entry)} >{place}/register\nfi"
    )


def furnish(root: pathlib.Path) -> None:
    """What makes an installed system this guest: its mounts, the agent, and nothing that runs by the clock."""
    units = root / "etc" / "systemd" / "system"
    (units / "guest-agent.service").write_text(recipe.AGENT_UNIT)
    (units / "multi-user.target.wants").mkdir(exist_ok=True)
    (units / "multi-user.target.wants" / "guest-agent.service").symlink_to("../guest-agent.service")
    for name in MASKED:
        remove(units / name)
        (units / name).symlink_to("/dev/null")
    remove(units / "default.target")
    (units / "default.target").symlink_to("/lib/systemd/system/multi-user.target")
    (root / "etc" / "fstab").write_text(recipe.FSTAB)
    (root / "etc" / "hostname").write_text("guest\n")
    (root / "etc" / "machine-id").write_text("")
    (root / "root.journal").unlink(missing_ok=True)
    (root / "var" / "log" / "journal").mkdir(exist_ok=True)  # so that the journal survives a reboot
    (root / recipe.HOME.lstrip("/")).mkdir(parents=True, exist_ok=True)


def unpack_kernel(place: pathlib.Path) -> str:
    """Modules into the root, the kernel beside it; returns its version."""
    root = place / "root"
    package = next((root / "kernel").glob("linux-image-*.deb"))
    unpacked = place / "early"
    remove(unpacked)
    run("dpkg-deb", "-x", package, unpacked)
    modules = next((unpacked / "lib" / "modules").iterdir())
    for name in recipe.MODULES_LEFT_OUT:
        shutil.rmtree(modules / "kernel" / name, ignore_errors=True)
    shutil.copytree(modules, root / "usr" / "lib" / "modules" / modules.name)
    shutil.copyfile(next((unpacked / "boot").glob("vmlinuz-*")), place / "kernel")
    run("depmod", "-b", root, modules.name)
    remove(unpacked)
    remove(root / "kernel")
    return modules.name


def make_initramfs(place: pathlib.Path, version: str) -> None:
    root, early = place / "root", place / "early"
    for folder in ("bin", "dev", "proc", "root", "lib"):
        (early / folder).mkdir(parents=True)
    shutil.copy2(root / "bin" / "busybox", early / "bin" / "busybox")
    paths: list[str] = []
    for module in recipe.MODULES:
        # "insmod PATH [OPTIONS]" in order; "builtin NAME"; nothing where this kernel has no such module.
        shown = subprocess.run(
            ["modprobe", "-D", "-d", str(root), "-S", version, module], capture_output=True, text=True, check=False
        )
        for line in shown.stdout.splitlines():
            words = line.split()
            if words[0] == "insmod" and words[1] not in paths:
                paths.append(words[1])
    for path in paths:
        shutil.copyfile(path, early / "lib" / pathlib.Path(path).name)
    (early / "modules").write_text("".join(f"/lib/{pathlib.Path(path).name}\n" for path in paths))
    (early / "init").write_text(recipe.INIT)
    (early / "init").chmod(0o755)
    run("sh", "-c", "find . | cpio --quiet -o -H newc >../initramfs", cwd=early)
    remove(early)
