"""What a probe's answer means, and which of several interpreters is offered."""

from __future__ import annotations

import pytest

from runtimed.sandbox.runtimes import Candidate, Node, Probed, choose, choose_nodes, judge, judge_nodes

CANDIDATE = Candidate(0, "/usr/bin/python3.11")


@pytest.mark.parametrize(
    ("answer", "name", "version"),
    [
        (b'{"version": "3.11.2", "implementation": "cpython", "gil": true}', "python3.11", (3, 11, 2)),
        (b'{"version": "3.9.0", "implementation": "cpython"}\n', "python3.9", (3, 9, 0)),
        (b'{"version": "3.14.0rc1", "implementation": "cpython", "new": []}', "python3.14", (3, 14, 0)),
        (b'{"version": "3.15.0a1+", "implementation": "cpython"}', "python3.15", (3, 15, 0)),
    ],
)
def test_offered(answer: bytes, name: str, version: tuple[int, int, int]) -> None:
    probed = judge(CANDIDATE, "python3.11", answer)
    assert (probed.name, probed.version, probed.reason) == (name, version, "")


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (b"", "makes no sense"),
        (b"hello", "makes no sense"),
        (b'{"version": 3}', "makes no sense"),
        (b'{"version": "three", "implementation": "cpython"}', "makes no sense"),
        (b'{"version": "3.8.18", "implementation": "cpython"}', "older than 3.9"),
        (b'{"version": "2.7.18", "implementation": "cpython"}', "older than 3.9"),
        (b'{"version": "4.0.0", "implementation": "cpython"}', "not Python 3"),
        (b'{"version": "3.10.14", "implementation": "pypy"}', "not CPython"),
        (b'{"version": "3.13.0", "implementation": "cpython", "gil": false}', "without the GIL"),
    ],
)
def test_not_offered(answer: bytes, reason: str) -> None:
    assert reason in judge(CANDIDATE, "python3.11", answer).reason


def test_the_newest_patch_wins_then_the_first() -> None:
    def made(number: int, version: tuple[int, int, int], reason: str = "") -> Probed:
        return Probed(candidate=Candidate(number, ""), name=f"python3.{version[1]}", version=version, reason=reason)

    chosen = choose(
        [
            made(0, (3, 11, 2)), made(1, (3, 11, 7)), made(2, (3, 11, 7)), made(3, (3, 11, 9), "broken"),
            made(4, (3, 9, 18)),
        ]
    )  # fmt: skip
    assert {name: probed.candidate.number for name, probed in chosen.items()} == {"python3.11": 1, "python3.9": 4}


@pytest.mark.parametrize(
    ("path", "told", "version"),
    [
        ("/usr/bin/node", "v20.20.2", (20, 20, 2)),
        ("/usr/local/bin/node", "v18.0.0", (18, 0, 0)),
        ("/usr/bin/node22", "v22.1.0", (22, 1, 0)),
        ("/usr/bin/node", "v16.20.0", None),
        ("/usr/bin/node", "20.20.2", None),
        ("/usr/bin/node", "v20.20.2-nightly", None),
        ("/usr/bin/node", "", None),
        ("/usr/bin/../../tmp/node", "v20.20.2", None),
        ("/usr/bin/node --inspect", "v20.20.2", None),
        ("/tmp/node", "v20.20.2", None),
    ],
)
def test_nodes(path: str, told: str, version: tuple[int, int, int] | None) -> None:
    assert judge_nodes({path: told}) == (() if version is None else (Node(path, version),))


def test_of_nodes_the_newest_wins_among_those_that_the_newest_python_sees() -> None:
    old, new = Node("/usr/bin/node18", (18, 1, 0)), Node("/usr/bin/node", (18, 20, 0))
    other = Node("/usr/local/bin/node", (22, 0, 0))
    probed = [
        Probed(candidate=Candidate(0, ""), name="python3.11", version=(3, 11, 2), nodes=(old, new, other)),
        Probed(candidate=Candidate(1, ""), name="python3.9", version=(3, 9, 2), nodes=(Node("/x", (24, 0, 0)),)),
    ]
    assert choose_nodes(probed) == {"nodejs18.x": new, "nodejs22.x": other}
    assert choose_nodes([]) == {}
