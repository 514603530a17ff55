"""A running guest: QEMU as a child that ends with this process, and the agent in it that runs commands.

The console goes to a file; commands and their output go over a virtio serial port, which is QEMU's standard input and
output. The disks are overlays that go with the guest.
"""

from __future__ import annotations

import json
import os
import pathlib
import select
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.vm import recipe
from tests.vm.image import run
from tests.vm.recipe import Architecture

MEMORY_MB = 2048
PROCESSORS = 2
BOOT_SECONDS = 240  # emulated, on a busy machine
PROBE_SECONDS = 10


class GuestError(Exception):
    """The guest did not do what it was asked for in time, or ended."""


class Failed(Exception):
    """A step did not come out as it should; the first line goes into the summary."""


def accelerated(architecture: Architecture, place: pathlib.Path) -> bool:
    """Does KVM run this kernel? The device may be there where it does not (a nested machine): so it is tried."""
    if not architecture.native or not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    command = command_line(architecture, place, kvm=True, extra="accelerator-probe")
    try:
        done = subprocess.run(
            [*command, "-serial", "stdio"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=PROBE_SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return b"accelerator-works" in done.stdout


def command_line(architecture: Architecture, place: pathlib.Path, kvm: bool, extra: str = "") -> list[str]:
    """QEMU without devices but those named here."""
    accelerator = ("-accel", "kvm", "-cpu", "host") if kvm else ("-accel", "tcg,thread=multi", "-cpu", "max")
    if not kvm and architecture.debian == "arm64":
        accelerator = (
            *accelerator[:-1],
            "cortex-a72",
        )  # `max` computes pointer authentication, which is slow to emulate
    kernel = (
        f"console={architecture.console} quiet panic=-1 mitigations=off nokaslr systemd.show_status=0 "
        f"systemd.unified_cgroup_hierarchy=1 {extra}"
    )
    return [
        "setpriv", "--pdeathsig", "KILL", *architecture.qemu, *accelerator, "-smp", str(PROCESSORS),
        "-m", str(MEMORY_MB), "-nodefaults", "-no-user-config", "-display", "none",
        "-kernel", str(place / "kernel"), "-initrd", str(place / "initramfs"), "-append", kernel.strip(),
    ]  # fmt: skip


class Guest:
    """`with Guest(...) as guest:`; when it is left, QEMU has ended."""

    def __init__(self, architecture: Architecture, place: pathlib.Path, payload: pathlib.Path, directory: pathlib.Path,
                 kvm: bool) -> None:  # fmt: skip
        self.console = directory / "console.log"
        disks = []
        for name, image in (("root", place / "root.img"), ("payload", payload)):
            overlay = directory / f"{name}.qcow2"
            run("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", image, overlay)
            disks += [
                "-drive", f"file={overlay},if=none,id={name},format=qcow2,cache=unsafe",
                "-device", f"virtio-blk-pci,drive={name}",
            ]  # fmt: skip
        channel = [
            "-chardev", "stdio,id=agent,signal=off", "-device", "virtio-serial-pci",
            "-device", "virtserialport,chardev=agent,name=agent",
        ]  # fmt: skip
        command = [*command_line(architecture, place, kvm), *disks, *channel, "-serial", f"file:{self.console}"]
        self.boot_id = ""
        self._buffer = b""
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def await_ready(self, seconds: float = BOOT_SECONDS) -> str:
        """Until the agent of a new boot says that it is there; returns the boot's id."""
        deadline = time.monotonic() + seconds
        while True:
            message = self._receive(deadline)
            if "ready" in message and message["ready"] != self.boot_id:
                self.boot_id = message["ready"]
                return self.boot_id

    def run(self, *command: str, seconds: float, environment: Mapping[str, str] | None = None,
            directory: str = recipe.HOME, show: Callable[[str], None] | None = None) -> tuple[int, str]:  # fmt: skip
        """Runs it in the guest to its end: exit status and output. GuestError when the guest is gone or stuck."""
        request = {"run": command, "environment": dict(environment or {}), "directory": directory, "seconds": seconds}
        self._send(request)
        deadline = time.monotonic() + seconds + 30  # the agent ends it first
        output = []
        while True:
            message = self._receive(deadline)
            if "text" in message:
                output.append(message["text"])
                if show is not None:
                    show(message["text"])
            elif "exit" in message:
                return message["exit"], "".join(output)
            elif "ready" in message:
                raise GuestError(f"the guest rebooted during {' '.join(command)[:80]}\n{self.console_tail()}")

    def reboot(self) -> None:
        """Through systemd, as an administrator does; returns when the next boot's agent is there."""
        self._send({"run": ["systemctl", "reboot"], "seconds": 60})
        self.await_ready()

    def power_off(self, seconds: float = 90) -> int:
        """Through systemd; the exit status of QEMU."""
        self._send({"run": ["systemctl", "poweroff"], "seconds": 60})
        try:
            return self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise GuestError(f"the guest did not power off within {seconds:g} s") from None

    def _send(self, request: Mapping[str, Any]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()

    def _receive(self, deadline: float) -> dict[str, Any]:
        assert self._process.stdout is not None
        output = self._process.stdout.fileno()
        while True:
            line, found, rest = self._buffer.partition(b"\n")
            if found:
                self._buffer = rest
                try:
                    return json.loads(line)
                except ValueError:  # a line that a reboot cut
                    continue
            left = deadline - time.monotonic()
            if left <= 0:
                raise GuestError("the guest did not answer in time\n" + self.console_tail())
            if select.select([output], [], [], left)[0]:
                data = os.read(output, 1 << 16)
                if not data:
                    raise GuestError(f"QEMU ended with {self._process.wait()}\n" + self.console_tail())
                self._buffer += data

    def console_tail(self) -> str:
        text = self.console.read_text(errors="replace") if self.console.exists() else ""
        return "the end of its console:\n" + text[-3000:]

    def __enter__(self) -> Guest:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream is not None
            try:
                stream.close()
            except BrokenPipeError:
                print("QEMU had gone before its last request", file=sys.stderr)
