"""Every class of stress-ng's stressors inside an environment, each in turn; the node and its neighbour go on."""

from __future__ import annotations

import pytest

from tests.security.abuse.stage import Stage, kernel_complaints
from tests.security.abuse.test_stress import stressed, told

CLASSES = (
    "cpu", "cpu-cache", "device", "filesystem", "interrupt", "io", "memory", "network", "os", "pipe", "scheduler",
    "security", "vm",
)  # fmt: skip
ROUND = 2  # seconds each


@pytest.mark.soak
@pytest.mark.parametrize("name", CLASSES)
def test_class(stage: Stage, name: str) -> None:
    before = kernel_complaints()
    arguments = ["--class", name, "--sequential", "2", "--timeout", f"{ROUND}s"]
    result, (alone, beside) = stressed(stage, arguments, 900)
    print(f"{name}: {told(result)}; neighbour {alone} -> {beside} ms, worst {beside.worst:.0f} ms")
    new = [line for line in kernel_complaints() if line not in before]
    assert not new, new
