"""Where the daemon is."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimed.client.address import DEFAULT, find
from runtimed.client.errors import ClientError


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIMED_ADDRESS", raising=False)
    monkeypatch.delenv("RUNTIMED_KEY", raising=False)


@pytest.mark.parametrize(
    ("text", "target"),
    [
        (None, DEFAULT),
        ("unix:/run/x.sock", "unix:/run/x.sock"),
        ("unix:///run/x.sock", "unix:/run/x.sock"),
        ("/run/x.sock", "unix:/run/x.sock"),
        ("127.0.0.1:7401", "127.0.0.1:7401"),
        ("node.example:7401", "node.example:7401"),
        ("[::1]:7401", "[::1]:7401"),
    ],
)
def test_addresses(text: str | None, target: str) -> None:
    assert find(text).target == target


@pytest.mark.parametrize(
    "text", ["nonsense", "unix:", "host:", ":7401", "host:0", "host:65536", "http://host:1", "a b:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ClientError, match="use unix:/path"):
        find(text)


def test_what_is_said_comes_before_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("RUNTIMED_ADDRESS", "unix:/elsewhere")
    monkeypatch.setenv("RUNTIMED_KEY", "environment")
    file = tmp_path / "key"
    file.write_text("file\n")
    assert find() == find("unix:/elsewhere", "environment")
    assert find("unix:/here").target == "unix:/here"
    assert find(key_file=file).key == "file"
    assert find(key="said", key_file=file).key == "said"


def test_a_relative_socket_is_made_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert find("unix:control.sock").socket == tmp_path / "control.sock"


def test_keys_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(ClientError, match="cannot read"):
        find(key_file=tmp_path / "missing")
    with pytest.raises(ClientError, match="characters"):
        find(key="a\nb")
