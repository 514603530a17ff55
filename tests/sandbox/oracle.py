"""libseccomp as the oracle of our compiler: the same policy through its API, exported as BPF."""

from __future__ import annotations

import ctypes
import ctypes.util
import itertools
import os
import struct
import tempfile
from types import ModuleType
from typing import Any

import pytest

from tests.sandbox.bpf import Instruction

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}  # AUDIT_ARCH_*, which libseccomp uses as its tokens too
ACT_ALLOW = 0x7FFF0000
CMP_MASKED_EQ = 7
NO_SUCH_CALL = -1


class Comparison(ctypes.Structure):
    _fields_ = [
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("mask", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
    ]


def load() -> ctypes.CDLL:
    name = ctypes.util.find_library("seccomp")
    if name is None:
        pytest.skip("libseccomp is missing")
    library = ctypes.CDLL(name)
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    for function in ("seccomp_arch_add", "seccomp_arch_remove", "seccomp_arch_exist"):
        getattr(library, function).argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_rule_add_array.argtypes = [
        ctypes.c_void_p,
        ctypes.c_uint32,
        ctypes.c_int,
        ctypes.c_uint,
        ctypes.POINTER(Comparison),
    ]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_syscall_resolve_name_arch.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    return library


def number_of(library: ctypes.CDLL, architecture: str, call: str) -> int:
    """libseccomp's number for a call; NO_SUCH_CALL where it knows none (its pseudo numbers are negative)."""
    number: int = library.seccomp_syscall_resolve_name_arch(ARCHITECTURES[architecture], call.encode())
    return number if number >= 0 else NO_SUCH_CALL


def product(rule: tuple[Any, ...]) -> list[list[Comparison]]:
    """libseccomp knows no `one of`: a rule becomes one for each combination of its values. Nor does it take an argument
    twice: conditions on both halves become one."""
    choices = [[(c.argument, c.mask << 32 * c.word, value << 32 * c.word) for value in c.values] for c in rule]
    found = []
    for chosen in itertools.product(*choices):
        merged: dict[int, tuple[int, int]] = {}
        for argument, mask, value in chosen:
            before = merged.get(argument, (0, 0))
            merged[argument] = (before[0] | mask, before[1] | value)
        found.append([Comparison(argument, CMP_MASKED_EQ, *both) for argument, both in merged.items()])
    return found


def compile_filter(
    library: ctypes.CDLL, compiler: ModuleType, policy: dict[str, Any], name: str, architecture: str
) -> list[Instruction]:
    numbers = compiler.load_numbers()
    spec = compiler.decide(policy, numbers, name, architecture)
    column = compiler.ARCHITECTURES[architecture][1]
    names = {pair[column]: call for call, pair in numbers.items() if pair[column] >= 0}
    context = library.seccomp_init(spec.otherwise.action)
    token = ARCHITECTURES[architecture]
    if library.seccomp_arch_exist(context, token) != 0:
        native = library.seccomp_arch_native()
        assert library.seccomp_arch_add(context, token) == 0
        assert library.seccomp_arch_remove(context, native) == 0

    def add(number: int, action: int, comparisons: list[Comparison]) -> None:
        # Rules take the native number (or libseccomp's pseudo number) of the name.
        resolved = library.seccomp_syscall_resolve_name(names[number].encode())
        array = (Comparison * max(len(comparisons), 1))(*comparisons)
        result = library.seccomp_rule_add_array(context, action, resolved, len(comparisons), array)
        assert result == 0, (names[number], os.strerror(-result))

    for number, action in spec.calls.items():
        if number_of(library, architecture, names[number]) == NO_SUCH_CALL:
            continue
        if isinstance(action, compiler.Judged):
            for rule in action.rules:
                for comparisons in product(rule):
                    add(number, ACT_ALLOW, comparisons)
        elif action.action != spec.otherwise.action:
            add(number, action.action, [])
    with tempfile.TemporaryFile() as file:
        assert library.seccomp_export_bpf(context, file.fileno()) == 0
        file.seek(0)
        program = list(struct.iter_unpack("<HBBI", file.read()))
    library.seccomp_release(context)
    return program
