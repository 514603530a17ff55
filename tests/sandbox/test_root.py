"""What a sandboxed process sees of files: a root of its own, read-only, with nothing of the host but what it needs."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pathlib
import struct
import subprocess
import tempfile
import time

import pytest

from tests.sandbox.jail import PYTHON, REFUSED, Jail

F_OFD_SETLK = 37  # include/uapi/asm-generic/fcntl.h

MOUNTS = """
mounts = {}
for line in open('/proc/self/mountinfo'):
    left, right = line.split(' - ')
    fields = left.split()
    mounts[fields[4]] = {'options': fields[5].split(','), 'type': right.split()[0], 'shared': 'shared:' in left}
"""


@pytest.fixture
def tree(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "file").write_text("text")
    tmp_path.chmod(0o755)
    return tmp_path


def test_root_has_only_what_is_needed(jail: Jail) -> None:
    seen = set(jail.see("show(os.listdir('/'))"))
    assert {"usr", "proc", "dev", "etc", "tmp", "var", "opt"} <= seen
    assert seen <= {"usr", "bin", "sbin", "lib", "lib32", "lib64", "libx32", "proc", "dev", "etc", "tmp", "var", "opt"}


def test_var_has_only_the_places_of_a_function(jail: Jail) -> None:
    assert sorted(jail.see("show(os.listdir('/var'))")) == ["runtime", "task"]


def test_etc_is_minimal(jail: Jail) -> None:
    seen = set(jail.see("show(os.listdir('/etc'))"))
    assert seen <= {
        "alternatives", "crypto-policies", "group", "hostname", "hosts", "ld.so.cache", "localtime", "mime.types",
        "nsswitch.conf", "passwd", "pki", "protocols", "resolv.conf", "services", "ssl",
    }  # fmt: skip
    assert jail.command("/bin/cat", "/etc/passwd").stdout.count("\n") == 2


def test_dev_is_minimal(jail: Jail) -> None:
    seen = set(jail.see("show(os.listdir('/dev'))"))
    assert seen == {"null", "zero", "full", "random", "urandom", "fd", "stdin", "stdout", "stderr"}


def test_devices_work(jail: Jail) -> None:
    seen = jail.see("""
        open('/dev/null', 'w').write('x')
        open('/dev/null', 'a').close()
        show([open('/dev/zero', 'rb').read(2) == bytes(2), len(open('/dev/urandom', 'rb').read(8))])
    """)
    assert seen == [True, 8]


WRITES = """
import errno
def attempt(operation, *arguments):
    try:
        operation(*arguments)
    except OSError as error:
        return errno.errorcode[error.errno]
    return 'done'
"""


def test_everything_but_tmp_is_read_only(jail: Jail) -> None:
    places = ["/", "/usr", "/usr/bin", "/etc", "/dev", "/var", "/var/task", "/var/runtime", "/opt", "/etc/ssl"]
    code = f"show({{p: [attempt(os.mkdir, p + '/x'), attempt(os.chmod, p, 0o777)] for p in {places}}})"
    seen = jail.see(WRITES + code)
    for place, (made, changed) in seen.items():
        assert made in ("EACCES", "EROFS"), place
        assert changed in ("EPERM", "EROFS", "EACCES"), place
    assert jail.see(WRITES + "show([attempt(os.mkdir, '/tmp/x'), attempt(open, '/etc/passwd', 'w')])")[0] == "done"


def test_every_mount_but_tmp_and_proc_is_read_only(jail: Jail) -> None:
    seen = jail.see(MOUNTS + "show(mounts)")
    for place, mount in seen.items():
        writable = place == "/tmp" or mount["type"] == "proc"
        assert ("rw" if writable else "ro") in mount["options"], place


def test_every_mount_is_nosuid_and_but_dev_nodev(jail: Jail, tree: pathlib.Path) -> None:
    mounts = [
        {"source": str(tree), "target": "/var/task"},
        {"source": str(tree), "target": "/opt", "writable": True},
    ]
    seen = jail.see(MOUNTS + "show(mounts)", mounts=mounts)
    assert {"/var/task", "/opt"} <= seen.keys()
    for place, mount in seen.items():
        assert "nosuid" in mount["options"], place
        assert "nodev" in mount["options"] or place == "/dev" or place.startswith("/proc/"), place
        assert not mount["shared"], place


def test_no_mount_of_the_host_remains(jail: Jail) -> None:
    """The old root is gone; what is mounted is ours to the last line."""
    places = set(jail.see(MOUNTS + "show(list(mounts))"))
    expected = {"/", "/dev", "/proc", "/usr", "/tmp", "/etc/ssl/certs", "/etc/pki", "/etc/alternatives",
                "/etc/crypto-policies", "/proc/cmdline", "/proc/kallsyms", "/proc/locks"}  # fmt: skip
    expected |= {f"/{name}" for name in ("bin", "sbin", "lib", "lib32", "lib64", "libx32")}
    assert places <= expected


def test_mount_is_shown_read_only(jail: Jail, tree: pathlib.Path) -> None:
    mounts = [{"source": str(tree), "target": "/var/task"}]
    code = """
path = '/var/task/sub/file'
tried = [attempt(open, path, 'w'), attempt(os.mkdir, '/var/task/x'), attempt(os.unlink, path)]
show([open(path).read(), *tried])
"""
    seen = jail.see(WRITES + code, mounts=mounts)
    assert seen[0] == "text"
    assert set(seen[1:]) <= {"EROFS", "EACCES"}
    assert (tree / "sub" / "file").read_text() == "text"


def test_writable_mount_is_landlocked_all_the_same(jail: Jail, tree: pathlib.Path) -> None:
    """A mount that is writable by mistake cannot be written, where the kernel has landlock."""
    tree.chmod(0o777)
    mounts = [{"source": str(tree), "target": "/var/task", "writable": True}]
    assert jail.see(WRITES + "show(attempt(os.mkdir, '/var/task/x'))", mounts=mounts) == "EACCES"


def test_mounted_file_and_its_parents_appear(jail: Jail, tree: pathlib.Path) -> None:
    mounts = [{"source": str(tree / "sub" / "file"), "target": "/srv/a/b/file"}]
    assert jail.see("show([open('/srv/a/b/file').read(), os.listdir('/srv')])", mounts=mounts) == ["text", ["a"]]


def test_prefix_below_a_closed_directory_can_be_shown(jail: Jail, tree: pathlib.Path) -> None:
    """An interpreter may live below a directory that only root may enter."""
    (tree / "sub").chmod(0o755)
    tree.chmod(0o700)
    mounts = [{"source": str(tree / "sub"), "target": "/root/closed/sub"}]
    assert jail.see("show(os.listdir('/root/closed/sub'))", mounts=mounts) == ["file"]


def test_missing_source_is_a_failed_step(jail: Jail) -> None:
    done = jail.command(PYTHON, mounts=[{"source": "/no/such/place", "target": "/opt"}])
    assert done.returncode == REFUSED
    assert done.stderr == "runtimed-jail: clone mounts: No such file or directory\n"


def test_missing_command_is_a_failed_step(jail: Jail) -> None:
    done = jail.command("/no/such/program")
    assert (done.returncode, done.stderr) == (REFUSED, "runtimed-jail: exec: No such file or directory\n")


def test_missing_working_directory_is_a_failed_step(jail: Jail) -> None:
    done = jail.command(PYTHON, working_directory="/nowhere")
    assert (done.returncode, done.stderr) == (REFUSED, "runtimed-jail: chdir: No such file or directory\n")


def test_refused_plan_says_why(jail: Jail) -> None:
    done = jail.plan('{"command": ["/bin/true"], "memory": 5}')
    assert (done.returncode, done.stderr) == (REFUSED, "runtimed-jail: plan: memory: unknown\n")


def backing_files() -> list[str]:
    """Of all loop devices; one may go while they are listed."""
    found = []
    for path in pathlib.Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            found.append(path.read_text())
    return found


def test_nothing_is_left_mounted_or_attached(jail: Jail, tmp_path: pathlib.Path) -> None:
    def loops() -> list[str]:
        return [file for file in backing_files() if file.startswith(f"{tmp_path}/")]

    # In a mount namespace of the test's own, in which nobody else mounts anything.
    script = """
        set -e
        cat /proc/self/mounts >"$3/before"
        for _ in 1 2 3; do "$1" --images "$2" <"$3/plan"; done
        cat /proc/self/mounts >"$3/after"
    """
    images, told = tmp_path / "images", tmp_path / "told"
    images.mkdir()
    told.mkdir()
    (told / "plan").write_text(jail.complete("/bin/true"))
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh", jail.path, images, told]
    subprocess.run(command, check=True, timeout=120)
    # The last mount namespace is torn down after its last process was reaped.
    deadline = time.monotonic() + 30
    while loops() and time.monotonic() < deadline:
        os.sched_yield()
    assert loops() == []
    assert list(images.iterdir()) == []
    assert (told / "after").read_text() == (told / "before").read_text()


# ---- /proc: rule 9 ---------------------------------------------------------------------------------------------------


def test_rule_9_proc_shows_only_the_sandbox(jail: Jail) -> None:
    assert jail.see("show([p for p in os.listdir('/proc') if p.isdigit()])") == ["2"]


def test_rule_9_anchor_is_hidden(jail: Jail) -> None:
    """pid 1 is a copy of a privileged process: neither its arguments nor its root may be seen."""
    seen = jail.see(WRITES + "show([attempt(os.stat, '/proc/1'), attempt(os.readlink, '/proc/1/root')])")
    assert seen == ["ENOENT", "ENOENT"]


def test_rule_9_masked_files_are_empty(jail: Jail) -> None:
    with tempfile.TemporaryFile() as locked:  # by open file description, which every pid namespace would list
        fcntl.fcntl(locked, F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
        for name in ("cmdline", "kallsyms", "locks"):
            assert pathlib.Path("/proc", name).read_bytes() != b""
            assert jail.see(f"show(len(open('/proc/{name}').read()))") == 0


def test_rule_9_nothing_of_the_host_can_be_written(jail: Jail) -> None:
    """By the sandbox's user; what is guarded by file modes is found by walking."""
    seen = jail.see("""
        found = []
        for directory, names, files in os.walk('/proc'):
            if directory == '/proc':
                names[:] = [n for n in names if not n.isdigit() and n not in ('self', 'thread-self')]
            for name in files:
                path = os.path.join(directory, name)
                try:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    found.append(path)
                except OSError:
                    pass
        show(found)
    """)
    assert seen == []


def test_rule_9_kernel_memory_and_keys_are_closed(jail: Jail) -> None:
    names = ["kcore", "kmsg", "kpagecount", "kpageflags", "sysrq-trigger", "timer_list", "vmallocinfo", "slabinfo"]
    names = [name for name in names if pathlib.Path("/proc", name).exists()]
    seen = jail.see(WRITES + f"show({{n: attempt(open, '/proc/' + n, 'rb') for n in {names}}})")
    assert set(seen.values()) <= {"EACCES", "EPERM"}, seen


def test_cgroup_namespace_hides_the_hosts_tree(jail: Jail) -> None:
    text = jail.command("/bin/cat", "/proc/self/cgroup").stdout
    for line in text.splitlines():
        _, controllers, path = line.split(":")
        assert "jail" not in path, controllers
