"""What the guest is made of: an architecture's names, the packages of its root, and the stamp of all that.

A guest is Debian 12 as it is installed: its kernel, systemd, unified cgroup v2. But for the project, nothing in it
comes from the machine that tests it.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import platform
import re
import tomllib

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = ROOT / "build" / "vm"
SUITE = "bookworm"
PYTHON = "3.11"  # the suite's
HOME = "/opt/payload"  # where the payload is mounted in the guest; /opt/runtimed is where the project installs itself

# systemd and what it needs to run as on a server; what the project's programs and tests call.
PACKAGES = (
    "systemd", "systemd-sysv", "dbus", "udev", "kmod", "python3", "python3-pip", "python3-venv", "ca-certificates",
    "e2fsprogs", "mount", "util-linux", "procps", "iproute2", "busybox-static", "libseccomp2", "libssl-dev",
    "libnghttp2-dev", f"libpython{PYTHON}-dev", "passwd", "acl",
)  # fmt: skip
# Loaded before the root is there; whatever else is needed is loaded by the guest itself.
MODULES = ("virtio_pci", "virtio_mmio", "virtio_blk", "ext4", "crc32c_generic", "crc32c_intel")
# Parts of the kernel's package that guests have no use for: they cost space and time at boot.
MODULES_LEFT_OUT = (
    "arch/x86/kvm",
    "drivers/cpufreq",
    "drivers/gpu",
    "drivers/infiniband",
    "drivers/net/ethernet",
    "drivers/scsi",
    "drivers/target",
    "sound",
)
# Of the project's development tools, those that run tests.
TEST_TOOLS = ("hypothesis", "pytest", "pytest-asyncio", "pytest-timeout")
# Debian's own packages that the host needs.
HOST_TOOLS = {
    "mmdebstrap": "mmdebstrap", "arch-test": "arch-test", "mke2fs": "e2fsprogs", "depmod": "kmod", "cpio": "cpio",
    "qemu-img": "qemu-utils", "setpriv": "util-linux",
}  # fmt: skip

AGENT_UNIT = f"""[Unit]
Description=Runs what the host asks for
RequiresMountsFor={HOME}
After=basic.target dbus.service

[Service]
ExecStart=/usr/bin/python3 -I {HOME}/tests/vm/agent.py
Delegate=yes
KillMode=control-group
TimeoutStopSec=10
StandardOutput=journal+console
StandardError=journal+console

[Install]
WantedBy=multi-user.target
"""
FSTAB = f"/dev/vda / ext4 defaults 0 0\n/dev/vdb {HOME} ext4 defaults 0 0\n"
# Runs before systemd: what a distribution's initramfs does, without its searching.
INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
mount -t proc proc /proc
while read -r module; do insmod "$module"; done </modules
case $(cat /proc/cmdline) in *accelerator-probe*) echo accelerator-works; poweroff -f ;; esac
while [ ! -b /dev/vda ]; do sleep 0.05; done
mount -t ext4 /dev/vda /root
umount /proc
exec switch_root /root /sbin/init
"""


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One architecture, by the names that Debian, the kernel, the compilers and QEMU have for it."""

    debian: str  # amd64
    machine: str  # x86_64, as uname and wheels have it
    triplet: str
    qemu: tuple[str, ...]
    console: str
    magic: str  # of its programs, for binfmt_misc
    kernel_file: str = "vmlinuz"

    @property
    def native(self) -> bool:
        return platform.machine() == self.machine

    @property
    def host_packages(self) -> dict[str, str]:
        """Commands that the host must have, and the package that each is in."""
        system = {"amd64": "qemu-system-x86", "arm64": "qemu-system-arm"}[self.debian]
        needed = {**HOST_TOOLS, self.qemu[0]: system}
        if not self.native:
            needed[f"qemu-{self.machine}-static"] = "qemu-user-static"
            needed[f"{self.triplet}-gcc"] = "gcc-" + self.triplet.replace("_", "-")
        return needed


ARCHITECTURES = {
    "x86_64": Architecture(
        debian="amd64", machine="x86_64", triplet="x86_64-linux-gnu", console="ttyS0",
        qemu=("qemu-system-x86_64", "-M", "q35"),
        magic=r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x3e\x00",
    ),
    "arm64": Architecture(
        debian="arm64", machine="aarch64", triplet="aarch64-linux-gnu", console="ttyAMA0",
        qemu=("qemu-system-aarch64", "-M", "virt,gic-version=3"),
        magic=r"\x7fELF\x02\x01\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\xb7\x00",
    ),
}  # fmt: skip
MAGIC_MASK = r"\xff\xff\xff\xff\xff\xff\xff\x00\xff\xff\xff\xff\xff\xff\xff\xff\xfe\xff\xff\xff"


def packages() -> tuple[str, ...]:
    """The root's packages. The libraries that `dev` builds with are there too, so that it can be built against."""
    libraries = sorted(set(re.findall(r"\b(lib[a-z0-9.+-]+-dev)\b", (ROOT / "dev").read_text())))
    return (*PACKAGES, *libraries)


def dependencies() -> tuple[str, ...]:
    """Requirements of the project and of its tests, as pip reads them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    tools = project["optional-dependencies"]["dev"]
    wanted = [tool for tool in tools if re.split("[<>=~!]", tool)[0] in TEST_TOOLS]
    return (*project["dependencies"], *wanted)


def stamp(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def root_stamp(architecture: Architecture) -> str:
    """Changes with anything that the image of the root is made from; not with the suite's own updates."""
    code = (pathlib.Path(__file__).with_name("image.py")).read_bytes()
    return stamp(architecture, packages(), MODULES, MODULES_LEFT_OUT, AGENT_UNIT, FSTAB, INIT, SUITE, code)


def site_stamp(architecture: Architecture) -> str:
    code = (pathlib.Path(__file__).with_name("wheels.py")).read_bytes()
    return stamp(architecture.machine, dependencies(), PYTHON, code)
