"""An interpreter of classic BPF as seccomp uses it, so that a filter for any architecture can be run anywhere."""

from __future__ import annotations

import struct
from collections.abc import Sequence

Instruction = tuple[int, int, int, int]  # code, jt, jf, k

# include/uapi/linux/bpf_common.h
LD_W_ABS, LD_IMM, RET_K, ALU_AND_K, JA = 0x20, 0x00, 0x06, 0x54, 0x05
JEQ, JGT, JGE, JSET = 0x15, 0x25, 0x35, 0x45


def run(program: Sequence[Instruction], architecture: int, number: int, arguments: Sequence[int] = ()) -> int:
    """The filter's answer to one system call."""
    padded = (list(arguments) + [0] * 6)[:6]
    data = struct.pack("<IIQ6Q", number, architecture, 0, *padded)
    accumulator = at = 0
    while True:
        code, jt, jf, k = program[at]
        at += 1
        if code == LD_W_ABS:
            (accumulator,) = struct.unpack_from("<I", data, k)
        elif code == LD_IMM:
            accumulator = k
        elif code == ALU_AND_K:
            accumulator &= k
        elif code == RET_K:
            return k
        elif code == JA:
            at += k
        else:
            taken = {
                JEQ: accumulator == k,
                JGT: accumulator > k,
                JGE: accumulator >= k,
                JSET: bool(accumulator & k),
            }[code]
            at += jt if taken else jf


def check(program: Sequence[Instruction]) -> None:
    """What the kernel's checker demands: jumps stay inside and forward, every path returns."""
    assert 0 < len(program) <= 4096
    for at, (code, jt, jf, k) in enumerate(program):
        if code == JA:
            assert at + 1 + k < len(program)
        elif code & 0x07 == 0x05:
            assert at + 1 + max(jt, jf) < len(program)
    assert program[-1][0] == RET_K
