#!/usr/bin/env python3
"""Compiles policy.toml into seccomp filters: C arrays for every architecture, searched as a binary tree.

Run by CMake: `compile.py OUTPUT.c`. The tests import it. Equal neighbours are merged into intervals first, so a filter
is about two instructions an interval and its depth the logarithm of their number: the fastest shape to load and to run.
"""

from __future__ import annotations

import errno
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent

# include/uapi/linux/audit.h: AUDIT_ARCH_X86_64 and AUDIT_ARCH_AARCH64; the value is also the column in numbers.toml.
ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}

# include/uapi/linux/seccomp.h
RET_KILL_PROCESS = 0x80000000
RET_ERRNO = 0x00050000
RET_ALLOW = 0x7FFF0000

# include/uapi/linux/bpf_common.h: LD|W|ABS, JMP|JA, JMP|JEQ|K, JMP|JGE|K, ALU|AND|K, RET|K
LD, JA, JEQ, JGE, AND, RET = 0x20, 0x05, 0x15, 0x35, 0x54, 0x06

# struct seccomp_data: nr, arch, instruction_pointer, args[6]; both architectures are little-endian.
OFFSET_NUMBER, OFFSET_ARCHITECTURE, OFFSET_ARGUMENTS = 0, 4, 16
JUMP_MAX = 255  # jt and jf are bytes


@dataclass(frozen=True)
class Condition:
    argument: int
    word: int  # 0: its low 32 bits, 1: its high ones
    mask: int
    values: tuple[int, ...]


@dataclass(frozen=True)
class Judged:
    """Allowed when all conditions of one rule hold, otherwise answered with an errno."""

    rules: tuple[tuple[Condition, ...], ...]
    error: int


@dataclass(frozen=True)
class Plain:
    action: int


Action = Judged | Plain
Instruction = tuple[int, int, int, int]  # code, jt, jf, k


@dataclass(frozen=True)
class Filter:
    calls: dict[int, Action]
    otherwise: Plain
    newer: Plain
    last: int  # the highest number known


def _error(name: str) -> int:
    return int(name) if name.isdigit() else int(getattr(errno, name))


def load_policy(path: Path = HERE / "policy.toml") -> dict[str, Any]:
    return tomllib.loads(path.read_text())


def load_numbers(path: Path = HERE / "numbers.toml") -> dict[str, list[int]]:
    numbers: dict[str, list[int]] = tomllib.loads(path.read_text())["numbers"]
    return numbers


def decide(policy: dict[str, Any], numbers: dict[str, list[int]], name: str, architecture: str) -> Filter:
    """What each system call number answers; refuses names that do not exist and calls that stand in two places."""
    part = policy["filter"][name]
    column = ARCHITECTURES[architecture][1]
    constants: dict[str, int] = policy["constants"]
    calls: dict[int, Action] = {}
    seen: set[str] = set()

    def value(item: int | str) -> int:
        return item if isinstance(item, int) else constants[item]

    def put(call: str, action: Action) -> None:
        if call in seen:
            raise ValueError(f"{name}: {call} stands in two places")
        seen.add(call)
        if numbers[call][column] >= 0:
            calls[numbers[call][column]] = action

    def condition(item: dict[str, Any]) -> Condition:
        mask = 0
        for bit in item.get("mask", [0xFFFFFFFF]):
            mask |= value(bit)
        return Condition(
            item["argument"], int(item.get("high", False)), mask, tuple(sorted({value(v) for v in item["in"]}))
        )

    for call in part["allow"]:
        put(call, Plain(RET_ALLOW))
    for error, answered in part.get("answer", {}).items():
        for call in answered:
            put(call, Plain(RET_ERRNO | _error(error)))
    for judged in part.get("judge", []):
        rules = tuple(tuple(condition(item) for item in rule) for rule in judged["rules"])
        for call in judged["calls"]:
            put(call, Judged(rules, _error(judged["errno"])))
    last = max(pair[column] for pair in numbers.values())
    return Filter(calls, Plain(RET_ERRNO | _error(part["otherwise"])), Plain(RET_ERRNO | errno.ENOSYS), last)


def _emit_judged(action: Judged) -> list[Instruction]:
    """Rules one after the other; a failed condition goes on with the next rule, a completed rule allows."""
    blocks: list[list[Instruction]] = [[(RET, 0, 0, RET_ERRNO | action.error)]]
    for rule in reversed(action.rules):
        after = sum(len(block) for block in blocks)  # instructions between the end of this rule and the program's end
        total = sum(len(c.values) + (1 if c.mask == 0xFFFFFFFF else 2) for c in rule) + 1
        block: list[Instruction] = []
        for condition in rule:
            block.append((LD, 0, 0, OFFSET_ARGUMENTS + 8 * condition.argument + 4 * condition.word))
            if condition.mask != 0xFFFFFFFF:
                block.append((AND, 0, 0, condition.mask))
            for index, number in enumerate(condition.values):
                left = len(condition.values) - index - 1
                miss = 0 if left else total - len(block) - 1
                block.append((JEQ, left, miss, number))
        block.append((RET, 0, 0, RET_ALLOW))
        assert len(block) == total and after >= 1
        blocks.insert(0, block)
    return [instruction for block in blocks for instruction in block]


def _intervals(spec: Filter) -> list[tuple[int, Action]]:
    """(first number, action), ascending; equal neighbours merged."""
    rows: list[tuple[int, Action]] = []
    for number in range(spec.last + 1):
        action = spec.calls.get(number, spec.otherwise)
        if not rows or rows[-1][1] != action:
            rows.append((number, action))
    rows.append((spec.last + 1, spec.newer))
    return rows


def _emit_tree(rows: list[tuple[int, Action]]) -> list[Instruction]:
    if len(rows) == 1:
        action = rows[0][1]
        return _emit_judged(action) if isinstance(action, Judged) else [(RET, 0, 0, action.action)]
    middle = len(rows) // 2
    left, right = _emit_tree(rows[:middle]), _emit_tree(rows[middle:])
    if len(left) <= JUMP_MAX:
        return [(JGE, len(left), 0, rows[middle][0]), *left, *right]
    return [(JGE, 0, 1, rows[middle][0]), (JA, 0, 0, len(left)), *left, *right]


def compile_filter(spec: Filter, architecture: str) -> list[Instruction]:
    return [
        (LD, 0, 0, OFFSET_ARCHITECTURE),
        (JEQ, 1, 0, ARCHITECTURES[architecture][0]),
        (RET, 0, 0, RET_KILL_PROCESS),
        (LD, 0, 0, OFFSET_NUMBER),
        *_emit_tree(_intervals(spec)),
    ]


def render(policy: dict[str, Any], numbers: dict[str, list[int]]) -> str:
    lines = ["/* Generated by seccomp/compile.py from seccomp/policy.toml. */", '#include "jail/seccomp.h"', ""]
    table = []
    for name in policy["filter"]:
        for architecture in ARCHITECTURES:
            program = compile_filter(decide(policy, numbers, name, architecture), architecture)
            symbol = f"{name}_{architecture}"
            lines.append(f"static const struct sock_filter {symbol}[] = {{")
            lines += [f"    {{0x{code:02x}, {jt}, {jf}, 0x{k:08x}}}," for code, jt, jf, k in program]
            lines += ["};", ""]
            table.append(f'    {{"{name}", "{architecture}", {len(program)}, {symbol}}},')
    lines += ["const struct seccomp_filter seccomp_filters[] = {", *table, "    {NULL, NULL, 0, NULL},", "};", ""]
    for index, architecture in enumerate(ARCHITECTURES):
        lines.append(f"#{'el' if index else ''}if defined(__{architecture}__)")
        for position, name in enumerate(policy["filter"]):
            at = position * len(ARCHITECTURES) + index
            lines.append(f"const struct seccomp_filter *const seccomp_{name} = &seccomp_filters[{at}];")
    lines += ["#else", '#error "no system call table for this architecture"', "#endif", ""]
    return "\n".join(lines)


def main() -> None:
    Path(sys.argv[1]).write_text(render(load_policy(), load_numbers()))


if __name__ == "__main__":
    main()
