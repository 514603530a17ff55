"""`./dev test-vm`: boots a real host, installs the project in it, runs tests there, as root on the machine that tests.

Whatever happens, QEMU ends with this process, and what was made for the run is removed; the images stay below build/vm.
"""

from __future__ import annotations

import argparse
import contextlib
import fcntl
import pathlib
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator

import psutil

from tests.vm import recipe, service
from tests.vm.guest import Failed, Guest, GuestError, accelerated
from tests.vm.image import BuildError, ensure, host_packages, remove
from tests.vm.recipe import ARCHITECTURES, Architecture
from tests.vm.steps import SHORT, WHOLE, pytest_step
from tests.vm.wheels import payload

LIMIT_SECONDS = {"x86_64": 1800, "arm64": 3600}


def spent() -> float:
    """Seconds of processor time of all that this process started. On a busy machine they tell more than the clock."""
    ended = resource.getrusage(resource.RUSAGE_CHILDREN)
    seconds = ended.ru_utime + ended.ru_stime
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            times = process.cpu_times()
            seconds += times.user + times.system
    return seconds


class Over(Exception):
    """The run ends here; the step that ended it has been told."""


class Steps:
    """What was done, how it ended and how long it took: a line each as it happens, and all of them at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.failed = False
        self._column = 0

    def run(self, name: str, do: Callable[[], str | None]) -> bool:
        print(f"== {name}", flush=True)
        started = (time.monotonic(), spent())
        try:
            said, word = do() or "", "ok"
        except (Failed, BuildError) as error:
            said, word = self.fail(error), "FAILED"
        except GuestError as error:  # with this guest, or in this time, nothing more can be done
            self.tell("FAILED", started, name, self.fail(error))
            raise Over from None
        self.tell(word, started, name, said)
        return word == "ok"

    def fail(self, error: Exception) -> str:
        said, _, details = str(error).partition("\n")
        self.failed = True
        if details:
            self.show(details + "\n")
        return said

    def tell(self, word: str, started: tuple[float, float], name: str, said: str) -> None:
        self.end_line()
        wall, cpu = time.monotonic() - started[0], spent() - started[1]
        line = f"{word:6} {wall:6.1f} s  CPU {cpu:6.1f} s  {name}{': ' if said else ''}{said}"
        print(line, flush=True)
        self.lines.append(line)

    def show(self, text: str) -> None:
        """The guest's output as it comes, set off from ours."""
        for piece in text.replace("\r", "").splitlines(keepends=True):
            sys.stdout.write(("" if self._column else "   | ") + piece)
            self._column = 0 if piece.endswith("\n") else 1
        sys.stdout.flush()

    def end_line(self) -> None:
        if self._column:
            print(flush=True)
            self._column = 0


@contextlib.contextmanager
def limited(seconds: int) -> Iterator[None]:
    def stop(number: int, _: object) -> None:
        late = f"the run took more than {seconds} s"
        raise GuestError(late if number == signal.SIGALRM else f"ended by signal {number}")

    for number in (signal.SIGALRM, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@contextlib.contextmanager
def exclusive(place: pathlib.Path) -> Iterator[None]:
    """One run of an architecture at a time: they share the image."""
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def test(architecture: Architecture, options: argparse.Namespace, steps: Steps, directory: pathlib.Path) -> None:
    place, disk = recipe.BUILD / architecture.machine, directory / "payload.img"
    prepared = (
        steps.run("packages of this machine", lambda: host_packages(architecture))
        and steps.run("the guest's root", lambda: f"Debian {recipe.SUITE}, {ensure(architecture)}")
        and steps.run("the project for it", lambda: payload(architecture, disk))
    )
    if not prepared:
        return
    kvm = accelerated(architecture, place)
    with Guest(architecture, place, disk, directory, kvm) as guest:
        if steps.run("boot", lambda: f"{'KVM' if kvm else 'emulated'}, boot {guest.await_ready()}"):
            every = (WHOLE if options.all else SHORT) + service.STEPS
            chosen = every if not options.pytest else [("pytest", pytest_step(*options.pytest))]
            for name, do in chosen:
                if options.only not in name:
                    continue
                if not steps.run(name, lambda do=do: do(guest, steps.show)) and options.stop:
                    break
            steps.run("power off", lambda: power_off(guest))
        if steps.failed:
            steps.show(guest.console_tail() + "\n")
            steps.end_line()


def power_off(guest: Guest) -> None:
    status = guest.power_off()
    if status != 0:
        raise Failed(f"QEMU ended with {status}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev test-vm", description="Tests on a booted Debian 12 with cgroup v2.")
    parser.add_argument("--arch", choices=sorted(ARCHITECTURES), default="x86_64")
    parser.add_argument("--keep", action="store_true", help="keep the disks and the console's text of this run")
    parser.add_argument("--all", action="store_true", help="every test of sandboxes and of the launcher, not a choice")
    parser.add_argument("--only", metavar="TEXT", default="", help="only steps whose name has this in it")
    parser.add_argument("--stop", action="store_true", help="stop at the first failure")
    parser.add_argument("pytest", nargs="*", help="after --: run pytest with these arguments, and no other step")
    options = parser.parse_args()
    architecture = ARCHITECTURES[options.arch]
    steps = Steps()
    recipe.BUILD.mkdir(parents=True, exist_ok=True)
    directory = pathlib.Path(tempfile.mkdtemp(prefix=f"run-{architecture.machine}-", dir=recipe.BUILD))
    started = time.monotonic()
    try:
        with limited(LIMIT_SECONDS[options.arch]), exclusive(recipe.BUILD / architecture.machine):
            test(architecture, options, steps, directory)
    except Over:
        pass
    except (GuestError, KeyboardInterrupt) as error:
        steps.failed = True
        steps.lines.append(f"FAILED {str(error) or 'interrupted'}")
    finally:
        if options.keep:
            print(f"kept: {directory}")
        else:
            remove(directory)
    print(f"\ntest-vm {options.arch}: {time.monotonic() - started:.0f} s, CPU {spent():.0f} s")
    for line in steps.lines:
        print(f"  {line}")
    print("test-vm: FAILED" if steps.failed else "test-vm: passed")
    return 1 if steps.failed else 0


if __name__ == "__main__":
    sys.exit(main())
