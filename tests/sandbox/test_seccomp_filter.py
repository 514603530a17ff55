"""The seccomp compiler: every filter, for every architecture, call by call, against libseccomp and against the policy
read naively. Nothing here needs root."""

from __future__ import annotations

import ctypes
import importlib.util
import itertools
import sys
from types import ModuleType
from typing import Any

import pytest

from tests.sandbox import bpf, oracle

ALLOW, ERRNO, KILL = 0x7FFF0000, 0x00050000, 0x80000000
ENOSYS, EPERM, ENOTTY, EAFNOSUPPORT = 38, 1, 25, 97
FILTERS = ["function", "dispatch"]
ARCHITECTURES = ["x86_64", "aarch64"]
EVERY = list(itertools.product(FILTERS, ARCHITECTURES))


@pytest.fixture(scope="module")
def compiler(request: pytest.FixtureRequest) -> ModuleType:
    path = request.config.rootpath / "native" / "jail" / "seccomp" / "compile.py"
    spec = importlib.util.spec_from_file_location("seccomp_compile", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def compiled(compiler: ModuleType, name: str, architecture: str) -> tuple[Any, list[bpf.Instruction]]:
    spec = compiler.decide(compiler.load_policy(), compiler.load_numbers(), name, architecture)
    return spec, compiler.compile_filter(spec, architecture)


def samples(action: Any) -> list[list[int]]:
    """Arguments on both sides of each condition: every value, its neighbours, and all of that in the high words too."""
    per_argument: list[set[int]] = [set() for _ in range(6)]
    for rule in action.rules:
        for condition in rule:
            for value in condition.values:
                for near in (value, value + 1, value ^ 0x80000000, value ^ 0x400, value | ~condition.mask & 0xFFFFFFFF):
                    per_argument[condition.argument] |= {near & 0xFFFFFFFF, (near & 0xFFFFFFFF) | 1 << 32}
            per_argument[condition.argument] |= {0, condition.mask & -condition.mask, 0xFFFFFFFFFFFFFFFF}
    chosen = [sorted(values) or [0] for values in per_argument]
    return [list(arguments) for arguments in itertools.product(*chosen)]


def naive(compiler: ModuleType, action: Any, arguments: list[int]) -> int:
    if isinstance(action, compiler.Plain):
        return int(action.action)
    for rule in action.rules:
        if all(arguments[c.argument] >> 32 * c.word & 0xFFFFFFFF & c.mask in c.values for c in rule):
            return ALLOW
    return ERRNO | int(action.error)


@pytest.mark.parametrize(("name", "architecture"), EVERY)
def test_filter_is_well_formed(compiler: ModuleType, name: str, architecture: str) -> None:
    bpf.check(compiled(compiler, name, architecture)[1])


@pytest.mark.parametrize(("name", "architecture"), EVERY)
def test_filter_says_what_the_policy_says(compiler: ModuleType, name: str, architecture: str) -> None:
    spec, program = compiled(compiler, name, architecture)
    token = oracle.ARCHITECTURES[architecture]
    for number in range(spec.last + 20):
        action = spec.calls.get(number, spec.otherwise if number <= spec.last else spec.newer)
        for arguments in samples(action) if isinstance(action, compiler.Judged) else [[0] * 6, [2**64 - 1] * 6]:
            assert bpf.run(program, token, number, arguments) == naive(compiler, action, arguments), (number, arguments)


@pytest.mark.parametrize(("name", "architecture"), EVERY)
def test_filter_agrees_with_libseccomp(compiler: ModuleType, name: str, architecture: str) -> None:
    library = oracle.load()
    policy, numbers = compiler.load_policy(), compiler.load_numbers()
    spec, program = compiled(compiler, name, architecture)
    reference = oracle.compile_filter(library, compiler, policy, name, architecture)
    token, column = oracle.ARCHITECTURES[architecture], compiler.ARCHITECTURES[architecture][1]
    compared = 0
    for call, pair in numbers.items():
        number = pair[column]
        if number < 0 or oracle.number_of(library, architecture, call) == oracle.NO_SUCH_CALL:
            continue
        action = spec.calls.get(number, spec.otherwise)
        judged = isinstance(action, compiler.Judged)
        for arguments in samples(action) if judged else [[0] * 6]:
            ours = bpf.run(program, token, number, arguments)
            theirs = bpf.run(reference, token, number, arguments)
            # libseccomp has one answer for all that no rule allows; ours differ from call to call.
            assert ((ours == ALLOW) == (theirs == ALLOW)) if judged else ours == theirs, (call, arguments)
            compared += 1
    assert compared > 300


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_numbers_are_libseccomps(compiler: ModuleType, architecture: str) -> None:
    library = oracle.load()
    column = compiler.ARCHITECTURES[architecture][1]
    known = 0
    for call, pair in compiler.load_numbers().items():
        number = oracle.number_of(library, architecture, call)
        if number != oracle.NO_SUCH_CALL:
            assert pair[column] == number, call
            known += 1
    assert known > 250


@pytest.mark.parametrize(("name", "architecture"), EVERY)
def test_other_architectures_are_killed(compiler: ModuleType, name: str, architecture: str) -> None:
    """A 32-bit call would be another call under the same number."""
    _, program = compiled(compiler, name, architecture)
    for token in (0x40000003, 0x40000028, *(set(oracle.ARCHITECTURES.values()) - {oracle.ARCHITECTURES[architecture]})):
        for number in (0, 1, 59, 231):
            assert bpf.run(program, token, number) == KILL


@pytest.mark.parametrize("name", FILTERS)
def test_x32_numbers_are_refused(compiler: ModuleType, name: str) -> None:
    _, program = compiled(compiler, name, "x86_64")
    for number in range(0x40000000, 0x40000000 + 600):
        assert bpf.run(program, oracle.ARCHITECTURES["x86_64"], number) == ERRNO | ENOSYS


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_calls_of_the_rule_are_allowed(compiler: ModuleType, architecture: str) -> None:
    """What running code needs although it looks unusual: without restart_syscall a sleep fails after a thaw."""
    numbers, column = compiler.load_numbers(), compiler.ARCHITECTURES[architecture][1]
    _, program = compiled(compiler, "function", architecture)
    needed = (
        "restart_syscall futex rseq set_robust_list get_robust_list membarrier memfd_create sched_getaffinity"
        " pidfd_open pidfd_send_signal get_mempolicy eventfd2 inotify_init1 inotify_add_watch"
        " close_range vfork execve mmap mprotect"
    )
    for call in needed.split():
        if numbers[call][column] >= 0:
            assert bpf.run(program, oracle.ARCHITECTURES[architecture], numbers[call][column]) == ALLOW, call


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_calls_with_arguments_in_memory_answer_enosys(compiler: ModuleType, architecture: str) -> None:
    numbers, column = compiler.load_numbers(), compiler.ARCHITECTURES[architecture][1]
    _, program = compiled(compiler, "function", architecture)
    for call in "clone3 io_uring_setup io_uring_enter io_uring_register process_vm_readv process_vm_writev".split():
        answer = bpf.run(program, oracle.ARCHITECTURES[architecture], numbers[call][column])
        assert answer == ERRNO | ENOSYS, call


DANGEROUS = (
    "ptrace mount umount2 pivot_root chroot setns unshare bpf perf_event_open keyctl add_key request_key userfaultfd"
    " open_by_handle_at name_to_handle_at init_module finit_module delete_module kexec_load kexec_file_load reboot"
    " swapon swapoff sethostname setdomainname settimeofday clock_settime clock_adjtime adjtimex syslog acct quotactl"
    " fanotify_init fsopen fsconfig fsmount fspick open_tree move_mount mount_setattr iopl ioperm modify_ldt nfsservctl"
    " vhangup lookup_dcookie kcmp pidfd_getfd process_madvise mbind set_mempolicy migrate_pages move_pages memfd_secret"
)


@pytest.mark.parametrize(("name", "architecture"), EVERY)
def test_dangerous_calls_are_refused(compiler: ModuleType, name: str, architecture: str) -> None:
    numbers, column = compiler.load_numbers(), compiler.ARCHITECTURES[architecture][1]
    _, program = compiled(compiler, name, architecture)
    for call in DANGEROUS.split():
        number = numbers[call][column]
        if number >= 0:
            answer = bpf.run(program, oracle.ARCHITECTURES[architecture], number)
            assert answer in (ERRNO | EPERM, ERRNO | ENOSYS), call


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_dispatcher_makes_no_sockets_and_no_processes(compiler: ModuleType, architecture: str) -> None:
    numbers, column = compiler.load_numbers(), compiler.ARCHITECTURES[architecture][1]
    _, program = compiled(compiler, "dispatch", architecture)
    refused = "socket socketpair bind connect listen fork vfork clone clone3 execve execveat kill link symlink"
    for call in refused.split():
        number = numbers[call][column]
        if number >= 0:
            answer = bpf.run(program, oracle.ARCHITECTURES[architecture], number)
            assert answer & 0xFFFF0000 == ERRNO, call


def test_policy_with_a_call_in_two_places_is_refused(compiler: ModuleType) -> None:
    policy = compiler.load_policy()
    policy["filter"]["function"]["allow"].append("clone3")
    with pytest.raises(ValueError, match="two places"):
        compiler.decide(policy, compiler.load_numbers(), "function", "x86_64")


def test_policy_with_an_unknown_call_is_refused(compiler: ModuleType) -> None:
    policy = compiler.load_policy()
    policy["filter"]["function"]["allow"].append("no_such_call")
    with pytest.raises(KeyError):
        compiler.decide(policy, compiler.load_numbers(), "function", "x86_64")


def test_comparison_layout() -> None:
    """struct scmp_arg_cmp of libseccomp."""
    assert ctypes.sizeof(oracle.Comparison) == 24
