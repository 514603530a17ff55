"""A hostile function that tries to leave its sandbox, or to reach what is not its own. Each attempt runs where a
function would run, with raw system calls; numbers are x86_64's, looked up for the machine at hand."""

from __future__ import annotations

import ctypes
import os
import pathlib
import platform
import socket
import subprocess
import tomllib

import pytest

from tests.sandbox.jail import ROOT, SIGNAL, Jail

NUMBERS: dict[str, list[int]] = tomllib.loads((ROOT / "native/jail/seccomp/numbers.toml").read_text())["numbers"]
COLUMN = {"x86_64": 0, "aarch64": 1}[platform.machine()]
X86 = pytest.mark.only_where(platform.machine() == "x86_64", "machine code of x86_64")

EPERM, ENOSYS, EAFNOSUPPORT, ENOTTY = -1, -38, -97, -25


def number(call: str) -> int:
    return NUMBERS[call][COLUMN]


def attempt(jail: Jail, call: str, *arguments: str | int) -> int:
    """The raw call's result in a sandbox; arguments are Python expressions."""
    joined = ", ".join(str(argument) for argument in (number(call), *arguments))
    result: int = jail.see(f"show(call({joined}))")
    return result


# ---- namespaces, mounts, privilege -----------------------------------------------------------------------------------

NAMESPACE_FLAGS = {
    "user": 0x10000000, "mount": 0x00020000, "pid": 0x20000000, "net": 0x40000000, "ipc": 0x08000000,
    "uts": 0x04000000, "cgroup": 0x02000000, "parent": 0x00008000, "untraced": 0x00800000,
}  # fmt: skip


@pytest.mark.parametrize("flag", NAMESPACE_FLAGS.values(), ids=NAMESPACE_FLAGS.keys())
def test_clone_makes_neither_namespaces_nor_siblings(jail: Jail, flag: int) -> None:
    seen = jail.see(f"""
        for flags in ({flag} | 17, {flag}, {flag} | 17 | 1 << 32):
            result = call({number("clone")}, flags, 0, 0, 0, 0)
            if result == 0:
                os._exit(0)
            if result > 0:
                break
        show(result)
    """)
    assert seen == EPERM


def test_unshare_is_refused(jail: Jail) -> None:
    for flag in (0x10000000, 0x00020000, 0x10020000):
        assert attempt(jail, "unshare", flag) == EPERM


def test_clone3_answers_enosys(jail: Jail) -> None:
    """Also with flags that clone would be allowed: they lie in memory."""
    assert attempt(jail, "clone3", "ctypes.create_string_buffer(88)", 88) == ENOSYS


def test_setns_is_refused(jail: Jail) -> None:
    assert jail.see(f"fd = os.open('/proc/self/ns/net', os.O_RDONLY); show(call({number('setns')}, fd, 0))") == EPERM


def test_mounting_is_refused(jail: Jail) -> None:
    path = "b'/tmp'"
    assert attempt(jail, "mount", "b'none'", path, "b'tmpfs'", 0, 0) == EPERM
    assert attempt(jail, "umount2", "b'/proc'", 2) == EPERM
    assert attempt(jail, "pivot_root", path, path) == EPERM
    assert attempt(jail, "chroot", path) == EPERM
    assert attempt(jail, "fsopen", "b'tmpfs'", 0) == EPERM
    assert attempt(jail, "open_tree", -100, path, 1) == EPERM


def test_setuid_programs_gain_nothing(jail: Jail, tmp_path: pathlib.Path) -> None:
    """The host's su and a copy made by root itself: nosuid, no_new_privs and an unmapped owner each forbid it."""
    program = tmp_path / "id"
    program.write_bytes(pathlib.Path("/usr/bin/id").read_bytes())
    program.chmod(0o4755)
    tmp_path.chmod(0o755)
    done = jail.command("/opt/id", "-u", mounts=[{"source": str(program), "target": "/opt/id"}])
    assert done.stdout == "1000\n"


def test_setuid_bit_of_its_own_gains_nothing(jail: Jail) -> None:
    done = jail.command("/bin/sh", "-c", "cp /usr/bin/id /tmp/id && chmod 6777 /tmp/id && /tmp/id -u")
    assert done.stdout == "1000\n"


def test_device_nodes_cannot_be_made(jail: Jail) -> None:
    for kind in (0o060000, 0o020000):
        assert attempt(jail, "mknodat", -100, "b'/tmp/device'", kind | 0o666, os.makedev(7, 0)) == EPERM
    assert attempt(jail, "mknodat", -100, "b'/tmp/fifo'", 0o010666, 0) == 0


# ---- other processes and the kernel ----------------------------------------------------------------------------------

REFUSED = {
    "ptrace": (16, 1), "process_vm_readv": (1,), "process_vm_writev": (1,), "bpf": (0,), "perf_event_open": (0,),
    "keyctl": (0,), "add_key": (0,), "request_key": (0,), "userfaultfd": (0,), "io_uring_setup": (1,),
    "open_by_handle_at": (-100,), "name_to_handle_at": (-100,), "init_module": (0,), "finit_module": (0,),
    "kexec_load": (0,), "reboot": (0,), "swapon": (0,), "sethostname": (0,), "settimeofday": (0,),
    "clock_settime": (0,), "syslog": (3,), "quotactl": (0,), "fanotify_init": (0,), "kcmp": (1, 2),
    "pidfd_getfd": (0,), "memfd_secret": (0,), "mbind": (0,), "acct": (0,), "process_madvise": (0,),
}  # fmt: skip


@pytest.mark.parametrize("call", REFUSED)
def test_call_is_refused(jail: Jail, call: str) -> None:
    assert attempt(jail, call, *REFUSED[call]) in (EPERM, ENOSYS)


def test_anchor_cannot_be_signalled(jail: Jail) -> None:
    assert jail.see(f"show([call({number('kill')}, 1, s) for s in (0, 9, 15)])") == [EPERM] * 3


def test_processes_of_the_host_do_not_exist(jail: Jail) -> None:
    """Not even by a number that exists outside."""
    assert jail.see(f"show(call({number('kill')}, {os.getpid()}, 0))") == -3
    assert jail.see(f"show(call({number('pidfd_open')}, {os.getpid()}, 0))") == -3


def test_sync_does_not_reach_the_hosts_disks(jail: Jail) -> None:
    """It answers success without having written back: the whole host's dirty pages are not its to flush."""
    assert attempt(jail, "sync") == 0
    assert attempt(jail, "syncfs", -1) == 0  # a real one would answer EBADF


@X86
def test_32_bit_calls_kill(jail: Jail) -> None:
    """int 0x80 reaches another table of calls, where numbers mean other things."""
    code = r"b'\xb8\x14\x00\x00\x00\xcd\x80\xc3'"  # mov eax, 20 (getpid); int 0x80; ret
    done = jail.python(f"""
        import mmap
        page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        page.write({code})
        ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()
        print('alive')
    """)
    assert (done.returncode, done.stdout) == (SIGNAL + 31, "")  # SIGSYS


@X86
def test_x32_calls_are_refused(jail: Jail) -> None:
    assert jail.see("show(call(0x40000000 + 39))") == ENOSYS


def test_terminal_injection_is_refused(jail: Jail) -> None:
    for request in (0x5412, 0x541C, 0x5412 | 1 << 32):  # TIOCSTI, TIOCLINUX
        assert attempt(jail, "ioctl", 0, request, "b'x'") == ENOTTY


def test_file_attributes_are_refused(jail: Jail) -> None:
    """Project quotas and immutable bits: FS_IOC_FSSETXATTR, FS_IOC_SETFLAGS."""
    for request in (0x401C5820, 0x40086602):
        seen = jail.see(f"fd = os.open('/tmp', os.O_RDONLY); show(call({number('ioctl')}, fd, {request}, bytes(28)))")
        assert seen == ENOTTY


def test_seccomp_notifier_is_refused(jail: Jail) -> None:
    assert attempt(jail, "seccomp", 1, 8, 0) == EPERM
    assert attempt(jail, "seccomp", 1, 0, 0) == -14  # a filter without a notifier is looked at


def test_personality_cannot_be_changed(jail: Jail) -> None:
    assert attempt(jail, "personality", 0xFFFFFFFF) == 0
    assert attempt(jail, "personality", 0x0400000) == EPERM


# ---- network ---------------------------------------------------------------------------------------------------------

FAMILIES = {
    "packet": (17, 3), "raw": (2, 3), "netfilter": (16, 3, 12), "alg": (38, 5), "vsock": (40, 1), "tipc": (30, 1),
    "bluetooth": (31, 3), "xdp": (44, 3), "sctp": (2, 1, 132), "mptcp": (2, 1, 262), "can": (29, 3), "key": (15, 3, 2),
}  # fmt: skip


@pytest.mark.parametrize("family", FAMILIES)
def test_socket_family_is_refused(jail: Jail, family: str) -> None:
    assert attempt(jail, "socket", *FAMILIES[family]) == EAFNOSUPPORT


def test_sockets_that_programs_use_are_allowed(jail: Jail) -> None:
    for arguments in ((1, 1), (1, 2), (1, 5), (2, 1), (2, 2), (10, 1), (10, 2), (2, 1, 6), (2, 2, 17), (16, 3, 0)):
        assert attempt(jail, "socket", *arguments) >= 3, arguments


def test_only_the_loopback_interface_exists(jail: Jail) -> None:
    lines = jail.command("/bin/cat", "/proc/net/dev").stdout.splitlines()[2:]
    assert [line.split(":")[0].strip() for line in lines] == ["lo"]
    assert jail.command("/bin/cat", "/proc/net/route").stdout.count("\n") == 1


def test_loopback_works_and_is_its_own(jail: Jail) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        seen = jail.see(f"""
            import socket
            with socket.create_server(('127.0.0.1', 0)) as server:
                client = socket.create_connection(server.getsockname())
                own = client.getpeername()[0]
            try:
                socket.create_connection(('127.0.0.1', {port}))
                show([own, 'reached the host'])
            except ConnectionRefusedError:
                show([own, 'refused'])
        """)
    assert seen == ["127.0.0.1", "refused"]


def test_abstract_sockets_of_the_host_are_out_of_reach(jail: Jail) -> None:
    name = f"\0runtimed-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(name)
        listener.listen()
        seen = jail.see(f"""
            import socket
            client = socket.socket(socket.AF_UNIX)
            try:
                client.connect({name!r})
                show('reached the host')
            except OSError as error:
                show(errno.errorcode[error.errno])
        """)
    assert seen in ("ECONNREFUSED", "EPERM")


# ---- sandboxes beside each other -------------------------------------------------------------------------------------


def test_two_sandboxes_do_not_see_each_other(jail: Jail) -> None:
    """Same ids, and yet: neither processes, files, System V memory nor sockets."""
    script = (
        "import ctypes, socket, time; ctypes.CDLL(None).shmget(4711, 4096, 0o1666);"
        "s = socket.create_server(('127.0.0.1', 4711)); open('/tmp/mine', 'w');"
        "print('started', flush=True); time.sleep(60)"
    )
    with jail.started("/usr/bin/python3", "-I", "-c", script):
        seen = jail.see("""
            import socket
            try:
                reached = bool(socket.create_connection(('127.0.0.1', 4711)))
            except OSError:
                reached = False
            processes = [p for p in os.listdir('/proc') if p.isdigit()]
            show([processes, os.listdir('/tmp'), libc.shmget(4711, 4096, 0o666), reached])
        """)
    assert seen == [["2"], [], -1, False]


def test_no_file_of_the_host_is_reachable_by_a_descriptor(jail: Jail) -> None:
    """Standard streams are pipes; nothing else is open, and no directory leads out."""
    seen = jail.see("""
        found = {}
        for fd in os.listdir('/proc/self/fd'):
            try:
                found[fd] = os.readlink('/proc/self/fd/' + fd).split(':')[0]
            except FileNotFoundError:
                pass
        show([found, os.path.realpath('/../../..'), os.listdir('/..') == os.listdir('/')])
    """)
    assert seen == [{"0": "/dev/null", "1": "pipe", "2": "pipe"}, "/", True]


def test_only_root_may_make_a_jail(jail: Jail) -> None:
    program = os.open(jail.path, os.O_RDONLY)
    try:
        done = subprocess.run(
            [f"/proc/self/fd/{program}"],
            input='{"command": ["/usr/bin/id"]}',
            capture_output=True,
            text=True,
            check=False,
            pass_fds=[program],
            user=65534,
            group=65534,
            extra_groups=[],
        )
    finally:
        os.close(program)
    assert (done.returncode, done.stdout) == (125, "")


# ---- what the kernel counts for the whole host ----------------------------------------------------------------------


def test_asynchronous_io_of_the_host_is_not_drawn_on(jail: Jail) -> None:
    """fs.aio-max-nr is one number for all of the machine."""
    assert attempt(jail, "io_setup", 60000, "ctypes.byref(ctypes.c_ulong())") == ENOSYS


def test_inotify_instances_and_signals_of_root_are_left_alone(jail: Jail) -> None:
    """What a user namespace's users hold is counted for its maker, too: that is not the host's root."""
    script = (
        "import ctypes, os, signal, time; libc = ctypes.CDLL(None); signal.pthread_sigmask(0, [40]);"
        "n = sum(libc.inotify_init() >= 0 for _ in range(1000));"
        "m = 0\nwhile libc.sigqueue(os.getpid(), 40, None) == 0: m += 1\n"
        "print('started', flush=True); print(n, m, flush=True); time.sleep(60)"
    )
    with jail.started("/usr/bin/python3", "-I", "-c", script, descriptors=2048) as process:
        assert process.stdout is not None
        instances, signals = process.stdout.readline().split()
        with open(f"/proc/{os.getpid()}/status") as status:
            queued = next(int(line.split()[1].split("/")[0]) for line in status if line.startswith("SigQ:"))
        descriptor = ctypes.CDLL(None).inotify_init()
    assert descriptor >= 0
    os.close(descriptor)
    assert (int(instances), int(signals)) == (8, 1024)
    assert queued < 1024
