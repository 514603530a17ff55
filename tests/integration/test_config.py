"""Settings from file, environment and command line; each mistake named with its key and its source."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtimed.config import Boot, Settings, SettingsError, boot_decoder, boot_encoder, build_id, load


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "runtimed.toml"
    path.write_text(text)
    return path


def test_later_sources_win(tmp_path: Path) -> None:
    path = write(
        tmp_path, '[node]\nregion = "eu-west-1"\nstate_dir = "/file"\nrun_dir = "/file"\n[pools]\novercommit = 2\n'
    )
    environment = {"RUNTIMED_NODE_STATE_DIR": "/environment", "RUNTIMED_NODE_RUN_DIR": "/environment", "PATH": "/bin"}
    settings = load(path, environment, {"node.run_dir": "/flag"})
    node = settings.node
    assert (node.region, node.state_dir, node.run_dir) == ("eu-west-1", "/environment", "/flag")
    assert settings.pools.overcommit == 2.0
    assert settings.api == Settings().api


def test_kinds_of_values_in_the_environment() -> None:
    settings = load(
        None,
        {
            "RUNTIMED_POOLS_OVERCOMMIT": "1.5",
            "RUNTIMED_POOLS_KEEP_ALIVE_SECONDS": "0",
            "RUNTIMED_API_LISTEN": "",
            "RUNTIMED_SANDBOX_INTERPRETERS": "/opt/a/bin/python3.11, /opt/b/bin/python3.12",
            "RUNTIMED_ADDRESS": "unix:/somewhere",
            "RUNTIMED_MUST_WORK": "1",
        },
        {},
    )
    assert (settings.pools.overcommit, settings.pools.keep_alive_seconds, settings.api.listen) == (1.5, 0, "")
    assert settings.sandbox.interpreters == ["/opt/a/bin/python3.11", "/opt/b/bin/python3.12"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[node", "is not TOML"),
        ("[nodes]\n", "nodes: no such setting"),
        ('[node]\nregoin = "x"', "node.regoin: no such setting"),
        ('[node]\nregion = "x"', "node.region: must be such as us-east-1"),
        ("[node]\nregion = 5", "node.region: must be"),
        ('[node]\nstate_dir = "relative"', "node.state_dir: must be an absolute path"),
        (f'[node]\nrun_dir = "/{"r" * 100}"', "at most 90 characters"),
        ("node = 3", "node: "),
        ("[sandbox]\nuid_base = 1000", "sandbox.uid_base: must be"),
        ('[sandbox]\ncpu = "fast"', "sandbox.cpu: must be weight or hard"),
        ('[sandbox]\ninterpreters = ["python"]', "sandbox.interpreters"),
        ('[api]\nlisten = "everywhere"', "api.listen: must be HOST:PORT"),
        ("[limits]\nconcurrency = 0", "limits.concurrency: must be a whole number"),
        ("[pools]\novercommit = 0.5", "pools.overcommit: must be a number from 1"),
    ],
)
def test_mistakes_in_the_file(tmp_path: Path, text: str, sentence: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(SettingsError) as caught:
        load(path, {}, {})
    assert sentence in str(caught.value)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("variable", "text", "sentence"),
    [
        ("RUNTIMED_POOLS_OVERCOMIT", "2", "no such setting; there are RUNTIMED_POOLS_MEMORY_PERCENT"),
        ("RUNTIMED_POOLS_OVERCOMMIT", "much", "RUNTIMED_POOLS_OVERCOMMIT='much': must be a number from 1 to 100"),
        ("RUNTIMED_NODE_ACCOUNT_ID", "12", "must be twelve digits"),
    ],
)
def test_mistakes_in_the_environment(variable: str, text: str, sentence: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load(None, {variable: text}, {})
    assert sentence in str(caught.value)
    assert variable in str(caught.value)


def test_a_file_that_was_asked_for_must_exist(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        load(tmp_path / "absent.toml", {}, {})
    with pytest.raises(SettingsError, match="cannot read"):
        load(tmp_path, {}, {})


def test_what_is_handed_over_arrives() -> None:
    boot = Boot(build=build_id(), settings=Settings(), interpreters=[], socket_gid=5)
    assert boot_decoder.decode(boot_encoder.encode(boot)) == boot
