"""Installs the node on a machine, upgrades it in place, and removes it again. Run as root by `./dev install` and
`./dev uninstall`, by the Python that the node shall run on; needs nothing beyond the standard library.

    PREFIX/BUILD/             a virtual environment for each build, and in BUILD/system/ what belongs elsewhere
    PREFIX/current            -> BUILD, the one in use
    /usr/local/...            unit, users, directories, commands, completions, man pages: copies of BUILD/system/
    /etc/runtimed/runtimed.toml   written once, never changed again

PREFIX is /opt/runtimed: sandboxes are shown /usr, and at /opt their own layers, so a function never sees the daemon's
code. A build is named by its version and the digest of what it consists of. Each step can be repeated: what is there
and whole is left alone, what an interrupted run left half done is done anew. An upgrade makes the new build beside the
old one, changes over, and goes back when the new one does not serve.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parent
PREFIX = Path("/opt/runtimed")
CONFIGURATION = Path("/etc/runtimed/runtimed.toml")
STATE, RUN = Path("/var/lib/runtimed"), Path("/run/runtimed")
UNIT = "runtimed.service"
USERS, GROUP = ("runtimed", "runtimed-dispatch"), "runtimed"
WHOLE = "installed"  # a file in a build's directory: written last
# Of this directory, and where each goes.
FILES = {
    "runtimed.service": "usr/local/lib/systemd/system/runtimed.service",
    "runtimed.sysusers": "usr/local/lib/sysusers.d/runtimed.conf",
    "runtimed.tmpfiles": "usr/local/lib/tmpfiles.d/runtimed.conf",
    "runtimed.modules-load": "usr/local/lib/modules-load.d/runtimed.conf",
}
COMMANDS = ("runtimed", "runtimectl")
COMPLETIONS = {
    "bash": "usr/local/share/bash-completion/completions/runtimectl",
    "zsh": "usr/local/share/zsh/site-functions/_runtimectl",
    "fish": "usr/local/share/fish/vendor_completions.d/runtimectl.fish",
}
SERVES_SECONDS = 30
WRITTEN_ON_INSTALLATION = (
    "# Written on installation, yours from then on. After a change: systemctl restart runtimed\n\n"
)


class InstallError(Exception):
    """What could not be done, and what to do about it."""


def say(text: str) -> None:
    print(text, flush=True)


def run(*command: str | Path, check: bool = True, timeout: float | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command; its output is part of the error."""
    environment = {**os.environ, "PIP_ROOT_USER_ACTION": "ignore", "PYTHONDONTWRITEBYTECODE": ""}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment, timeout=timeout
    )
    if check and done.returncode != 0:
        raise InstallError(f"{' '.join(map(str, command))} failed:\n{done.stderr.strip() or done.stdout.strip()}")
    return done


def has_systemd() -> bool:
    """Does systemd run here (not: is it installed)?"""
    return Path("/run/systemd/system").is_dir()


# ---- the build ---------------------------------------------------------------------------------------------------


def find_wheel(wheelhouse: Path) -> Path:
    found = sorted(wheelhouse.glob("runtimed-*.whl"))
    if len(found) != 1:
        raise InstallError(
            f"{wheelhouse} holds {len(found)} wheels of runtimed where one is needed; ./dev wheel makes it anew"
        )
    return found[0]


def name_build(wheel: Path) -> str:
    """Version and digest: of the wheel's contents, not of its archive, and of what else the build depends on."""
    version = wheel.name.split("-")[1]
    with zipfile.ZipFile(wheel) as archive:
        record = next(name for name in archive.namelist() if name.endswith(".dist-info/RECORD"))
        lines = sorted(archive.read(record).splitlines())
    parts = [*lines, sys.version.encode(), *((SOURCE / name).read_bytes() for name in sorted(FILES))]
    digest = hashlib.sha256(b"\n".join(parts)).hexdigest()
    return f"{version}-{digest[:12]}"


def make_environment(directory: Path) -> tuple[str | Path, ...]:
    """Makes an empty virtual environment; returns the command that is pip for it: this Python's own pip where it can
    install elsewhere (22.3 and later), otherwise one in the environment, which takes as long as all the rest."""
    try:
        own = tuple(int(part) for part in re.findall(r"[0-9]+", importlib.metadata.version("pip"))[:2]) >= (22, 3)
    except importlib.metadata.PackageNotFoundError:
        own = False
    try:
        venv.create(directory, with_pip=not own, symlinks=True)
    except subprocess.CalledProcessError as error:
        raise InstallError(f"cannot make a virtual environment: {error}; apt-get install python3-venv") from None
    python = directory / "bin/python"
    return (sys.executable, "-m", "pip", "--python", python) if own else (python, "-m", "pip")


def make_build(directory: Path, wheel: Path, *, offline: bool) -> None:
    """A virtual environment with the wheel and what it depends on. Nothing is compiled."""
    if (directory / WHOLE).exists():
        say(f"{directory} is there already")
        return
    shutil.rmtree(directory, ignore_errors=True)
    say(f"making {directory} with Python {sys.version.split()[0]}")
    pip = make_environment(directory)
    source = ("--only-binary", ":all:", "--find-links", str(wheel.parent), *(["--no-index"] if offline else []))
    run(*pip, "--disable-pip-version-check", "install", "--quiet", "--no-compile", *source, wheel)
    # On all processors, where pip takes one; what a package has for other versions of Python may not compile.
    run(directory / "bin/python", "-m", "compileall", "-q", "-j", "0", directory / "lib", check=False)
    make_system(directory)
    (directory / WHOLE).touch()


def make_system(directory: Path) -> None:
    """Everything that lies outside PREFIX, as a tree below BUILD/system."""
    prefix, system = directory.parent, directory / "system"
    texts = {
        target: (SOURCE / name).read_text().replace(f"{PREFIX}/current", f"{prefix}/current")
        for name, target in FILES.items()
    }
    control = directory / "bin/runtimectl"
    for shell, target in COMPLETIONS.items():
        texts[target] = run(control, "completion", shell).stdout
    for target, text in texts.items():
        (system / target).parent.mkdir(parents=True, exist_ok=True)
        (system / target).write_text(text)
    run(control, "man", "--directory", system / "usr/local/share/man")
    for name in COMMANDS:
        link = system / "usr/local/bin" / name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(prefix / "current/bin" / name)
    default = run(directory / "bin/runtimed", "--print-config").stdout
    (directory / CONFIGURATION.name).write_text(WRITTEN_ON_INSTALLATION + default)


# ---- changing over -----------------------------------------------------------------------------------------------


def system_files(directory: Path) -> set[Path]:
    """Relative to the root."""
    system = directory / "system"
    return {path.relative_to(system) for path in system.rglob("*") if path.is_symlink() or path.is_file()}


def current_build(prefix: Path) -> Path | None:
    """The build in use."""
    link = prefix / "current"
    return link.resolve() if link.is_symlink() and link.resolve().is_dir() else None


def replace_link(link: Path, target: str | Path) -> None:
    """Atomically."""
    new = link.with_name(f".{link.name}.new")
    new.unlink(missing_ok=True)
    new.symlink_to(target)
    new.replace(link)


def change_over(directory: Path, before: Path | None) -> None:
    """`current` and the files elsewhere become those of this build; what only the one before had goes."""
    new = system_files(directory)
    for name in sorted(new):
        source, target = directory / "system" / name, Path("/") / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink():
            if target.is_dir() or (target.exists() and not target.is_symlink()):
                raise InstallError(f"{target} is there and not ours: move it out of the way")
            replace_link(target, source.readlink())
        else:
            copy = target.with_name(f".{target.name}.new")
            shutil.copyfile(source, copy)
            copy.chmod(0o644)
            copy.replace(target)
    replace_link(directory.parent / "current", directory.name)
    remove_files(system_files(before) - new if before is not None else set())


def remove_files(names: set[Path]) -> None:
    """And the directories that are empty then, as far as they are ours."""
    for name in names:
        (Path("/") / name).unlink(missing_ok=True)


def make_users() -> None:
    if shutil.which("systemd-sysusers"):
        run("systemd-sysusers", Path("/") / FILES["runtimed.sysusers"])
        return
    if run("getent", "group", GROUP, check=False).returncode != 0:
        run("groupadd", "--system", GROUP)
    for user in USERS:
        if run("getent", "passwd", user, check=False).returncode != 0:
            group = ("--gid", GROUP) if user == GROUP else ("--user-group",)
            shell = ("--shell", "/usr/sbin/nologin")
            run("useradd", "--system", *group, "--no-create-home", "--home-dir", "/", *shell, user)


def make_directories() -> None:
    for path in (STATE, RUN):
        if not path.exists():
            path.mkdir(parents=True, mode=0o750)
            shutil.chown(path, USERS[0], GROUP)


def write_configuration(directory: Path) -> None:
    if CONFIGURATION.exists():
        return
    CONFIGURATION.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(directory / CONFIGURATION.name, CONFIGURATION)
    CONFIGURATION.chmod(0o644)


def running_from(prefix: Path) -> dict[int, Path]:
    """Processes whose program lies below the prefix: pid to program."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                program = Path(os.readlink(entry / "exe"))
                if program.is_relative_to(prefix):
                    found[int(entry.name)] = program
    return found


def remove_others(prefix: Path, keep: Path) -> None:
    """Builds that nobody uses any more."""
    used = set(running_from(prefix).values())
    for path in prefix.iterdir():
        ours = (path / "pyvenv.cfg").exists() and path.is_dir() and not path.is_symlink()
        if ours and path != keep and not any(program.is_relative_to(path) for program in used):
            shutil.rmtree(path)


# ---- the service -------------------------------------------------------------------------------------------------


def start(directory: Path) -> str:
    """Starts or restarts; returns why it does not serve, or nothing."""
    run("systemctl", "daemon-reload")
    run("systemctl", "reset-failed", UNIT, check=False)
    since = f"@{time.time():.6f}"
    done = run("systemctl", "restart", UNIT, check=False)  # returns after READY=1
    if done.returncode == 0:
        try:
            done = run(directory / "bin/runtimectl", "status", check=False, timeout=SERVES_SECONDS)
        except subprocess.TimeoutExpired:
            return f"runtimectl status did not answer within {SERVES_SECONDS} s"
        if done.returncode == 0:
            return ""
    journal = run("journalctl", "--unit", UNIT, "--since", since, "--no-pager", "--output", "cat", check=False)
    return f"{done.stderr.strip()}\n{journal.stdout.strip()}"


def begin(directory: Path, before: Path | None) -> None:
    """Starts this build, or goes back to the one before."""
    why = start(directory)
    if not why:
        say(f"{UNIT} serves ({directory.name})")
        return
    if before is None or before == directory:
        raise InstallError(f"{UNIT} does not serve:\n{why}\nMend that, then: systemctl restart runtimed")
    say(f"{directory.name} does not serve; going back to {before.name}")
    change_over(before, directory)
    again = start(before)
    end = f"{before.name} does not serve any more either:\n{again}" if again else f"{before.name} serves again."
    raise InstallError(f"{directory.name} does not serve:\n{why}\n{end}\n{directory} is kept to look into.")


def next_steps(started: bool) -> None:
    if not started:
        say(f"Installed, not started. With systemd: systemctl enable --now {UNIT}; without: runtimed, as root.")
    say(
        f"Settings: {CONFIGURATION}. Who may call it: members of the group {GROUP} (usermod -aG {GROUP} USER).\n"
        "Next:\n"
        "    runtimectl doctor\n"
        "    runtimectl deploy hello hello.py --handler hello.handler\n"
        "    runtimectl invoke hello --payload '{}'\n"
        "    journalctl -u runtimed"
    )


def install(options: argparse.Namespace) -> None:
    wheel = find_wheel(options.wheelhouse)
    directory = options.prefix / name_build(wheel)
    options.prefix.mkdir(parents=True, exist_ok=True)
    before = current_build(options.prefix)
    make_build(directory, wheel, offline=options.offline)
    change_over(directory, before)
    make_users()
    make_directories()
    write_configuration(directory)
    if shutil.which("systemctl"):  # without systemd running too: it makes the link
        run("systemctl", "enable", UNIT)
    starting = has_systemd() and not options.no_start
    if starting:
        begin(directory, before)
    elif not options.no_start:
        say("systemd does not run here: the service is not started")
    remove_others(options.prefix, keep=directory)
    next_steps(starting)


def uninstall(options: argparse.Namespace) -> None:
    if has_systemd():
        run("systemctl", "stop", UNIT, check=False)
    if shutil.which("systemctl"):
        run("systemctl", "disable", UNIT, check=False)
    left = running_from(options.prefix)
    if left:
        pids = ", ".join(f"{pid} ({path.name})" for pid, path in sorted(left.items()))
        raise InstallError(f"the node still runs: end it first (SIGTERM to its launcher): {pids}")
    now = current_build(options.prefix)
    if now is not None:
        remove_files(system_files(now))
    if (options.prefix / "current").is_symlink() or now is not None:
        shutil.rmtree(options.prefix)
    elif options.prefix.exists():
        raise InstallError(f"{options.prefix} is not an installation of ours (no link `current`)")
    if has_systemd():
        run("systemctl", "daemon-reload")
        run("systemctl", "reset-failed", UNIT, check=False)
    shutil.rmtree(RUN, ignore_errors=True)
    if not options.purge:
        say(f"removed; {STATE} and {CONFIGURATION.parent} are kept (--purge removes them)")
        return
    for path in (STATE, CONFIGURATION.parent, Path("/etc/systemd/system/runtimed.service.d")):
        shutil.rmtree(path, ignore_errors=True)
    for user in USERS:
        run("userdel", user, check=False)
    for group in (GROUP, *USERS):
        run("groupdel", group, check=False)
    say("removed, with state, settings and users")


# ---- an image ----------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lent(root: Path, options: argparse.Namespace) -> Iterator[Path]:
    """This directory and the wheelhouse, lent to an image below ROOT/tmp."""
    (root / "tmp").mkdir(exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="runtimed-install-", dir=root / "tmp"))
    try:
        shutil.copytree(SOURCE, folder / "systemd", ignore=shutil.ignore_patterns("__pycache__"))
        if options.verb == "install":
            shutil.copytree(options.wheelhouse, folder / "wheelhouse")
        yield folder
    finally:
        shutil.rmtree(folder)


def in_image(root: Path, options: argparse.Namespace) -> int:
    """The same, by the image's own Python, in a mount namespace with proc and devices that ends with it."""
    if not (root / "usr/bin/python3").exists():
        raise InstallError(f"{root} has no /usr/bin/python3: install python3 and python3-venv in it first")
    with lent(root, options) as folder:
        inside = Path("/") / folder.relative_to(root)
        command = [str(inside / "systemd" / Path(__file__).name), options.verb, "--prefix", str(options.prefix)]
        if options.verb == "install":
            command += ["--no-start", "--wheelhouse", str(inside / "wheelhouse")]
            command += ["--offline"] if options.offline else []
        elif options.purge:
            command.append("--purge")
        script = (
            'mount --rbind /proc "$0/proc" && mount --rbind /dev "$0/dev" && mount -t tmpfs run "$0/run" && '
            'exec chroot "$0" /usr/bin/python3 -B "$@"'
        )
        line = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(root), *command]
        return subprocess.run(line, stdin=subprocess.DEVNULL, check=False).returncode


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="dev", description="Installs, upgrades or removes the node.")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb in ("install", "uninstall"):
        one = verbs.add_parser(verb)
        one.add_argument("--prefix", type=Path, default=PREFIX, metavar="DIR", help="default: %(default)s")
        one.add_argument("--root", type=Path, metavar="DIR", help="an image's root directory instead of this machine")
        if verb == "install":
            one.add_argument("--no-start", action="store_true", help="only install")
            one.add_argument("--wheelhouse", type=Path, required=True, metavar="DIR", help="where the wheels are")
            one.add_argument("--offline", action="store_true", help="everything comes from the wheelhouse")
        else:
            one.add_argument("--purge", action="store_true", help="state, settings and users too")
    options = parser.parse_args(arguments)
    # Into unit files and shebangs it goes as it is.
    if not re.fullmatch(r"(/[A-Za-z0-9._+-]+)+", str(options.prefix)) or ".." in options.prefix.parts:
        parser.error("--prefix: an absolute path of plain characters is needed")
    return options


def main() -> int:
    options = parse()
    try:
        if os.geteuid() != 0:
            raise InstallError(f"{options.verb} needs root: sudo ./dev {options.verb}")
        if options.verb == "install":
            options.wheelhouse = options.wheelhouse.resolve()
        if options.root is not None and options.root.resolve() != Path("/"):
            return in_image(options.root.resolve(), options)
        (install if options.verb == "install" else uninstall)(options)
    except InstallError as error:
        return refuse(str(error))
    return 0


def refuse(why: str) -> int:
    print(f"dev: {why}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
