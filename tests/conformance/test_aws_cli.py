"""The AWS CLI against a real node, unchanged."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from runtimed.model.key import CreatedKey
from tests.conformance.test_boto3 import ROLE, zipped

COMMAND = (sys.executable, "-W", "ignore", "-m", "awscli")


class Cli:
    """Knows the key and the endpoint from the environment, as a user has them."""

    def __init__(self, key: CreatedKey, directory: Path) -> None:
        self.directory = directory
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
            "AWS_ACCESS_KEY_ID": key.key.key_id,
            "AWS_SECRET_ACCESS_KEY": key.secret,
            "AWS_DEFAULT_REGION": key.region,
            "AWS_ENDPOINT_URL": key.endpoint,
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_PAGER": "",
            "HOME": str(directory),
        }

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*COMMAND, "lambda", *arguments], env=self._environment, cwd=self.directory, capture_output=True, text=True,
            stdin=subprocess.DEVNULL, timeout=120, check=False,
        )  # fmt: skip

    def __call__(self, *arguments: str) -> Any:
        done = self.run(*arguments)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout) if done.stdout.strip() else None


@pytest.fixture
def aws(key: CreatedKey, tmp_path: Path) -> Cli:
    return Cli(key, tmp_path)


def test_a_life(aws: Cli) -> None:
    (aws.directory / "code.zip").write_bytes(zipped())
    made = aws(
        "create-function", "--function-name", "by-cli", "--runtime", "python3.11", "--role", ROLE, "--handler",
        "app.handler", "--zip-file", "fileb://code.zip", "--timeout", "30",
    )  # fmt: skip
    assert made["Timeout"] == 30
    aws("wait", "function-active-v2", "--function-name", "by-cli")
    said = aws("invoke", "--function-name", "by-cli", "--payload", '{"a": 1}', "out.json")
    assert said["StatusCode"] == 200
    assert json.loads((aws.directory / "out.json").read_text()) == {"was": {"a": 1}, "version": 1}
    aws("delete-function", "--function-name", "by-cli")
    done = aws.run("list-layers")
    assert done.returncode != 0
    assert "(NotImplementedException)" in done.stderr
    assert "ListLayers: this node does not have this operation" in done.stderr
