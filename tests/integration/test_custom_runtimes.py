"""Custom runtimes on a real node: packages with a `bootstrap` of their own, from a shell script to AWS's client."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.node import Node
from runtimed.client import Client, FunctionFailed

RUNTIME = "provided.al2023"
SECONDS = 300

SHELL = r"""#!/bin/bash
set -euo pipefail
api=http://$AWS_LAMBDA_RUNTIME_API/2018-06-01/runtime
echo "started for $_HANDLER in $PWD"
if [ "$_HANDLER" = fail.init ]; then
    curl -sS -X POST -H 'Lambda-Runtime-Function-Error-Type: Runtime.NoSuchHandler' \
        -d '{"errorType":"Runtime.NoSuchHandler","errorMessage":"no such handler"}' "$api/init/error" >/dev/null
    exit 1
fi
[ "$_HANDLER" != fail.exit ] || exit 7
headers=/tmp/headers
while true; do
    event=$(curl -sS -D $headers "$api/invocation/next")
    id=$(tr -d '\r' <$headers | sed -n 's/^lambda-runtime-aws-request-id: //Ip')
    echo "handling $event"
    case $event in
    *exit*) exit 9 ;;
    *sleep*) sleep 60 ;;
    *error*) curl -sS -X POST -H 'Lambda-Runtime-Function-Error-Type: Function.Mine' \
        -d '{"errorType":"Mine","errorMessage":"as told"}' "$api/invocation/$id/error" ;;
    *) curl -sS -X POST -d "{\"event\":$event,\"shell\":true}" "$api/invocation/$id/response" ;;
    esac
done
"""

BASH_ALONE = r"""#!/bin/bash
# No other program: the shell's own connection, kept open.
set -euo pipefail
LC_ALL=C
exec 3<>"/dev/tcp/${AWS_LAMBDA_RUNTIME_API/://}"

ask() { # method, path, body: sets id and answer
    printf '%s /2018-06-01/runtime/invocation/%s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s' \
        "$1" "$2" "${#3}" "$3" >&3
    local line length=0
    answer=
    while read -r -u 3 line; do
        line=${line%$'\r'}
        [ -n "$line" ] || break
        case ${line,,} in
        lambda-runtime-aws-request-id:*) id=${line#*: } ;;
        content-length:*) length=${line#*: } ;;
        esac
    done
    [ "$length" = 0 ] || IFS= read -r -u 3 -N "$length" answer
}

while true; do
    ask GET next ''
    ask POST "$id/response" "{\"bash\":$answer}"
done
"""

C = r"""
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char buffer[65536];

/* One request, one connection; returns the whole answer. */
static char *ask(const char *request) {
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9001), .sin_addr.s_addr = htonl(0x7f000001)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t size = 0;
    ssize_t n;
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 || write(fd, request, strlen(request)) < 0)
        exit(2);
    while ((n = read(fd, buffer + size, sizeof(buffer) - 1 - size)) > 0)
        size += (size_t)n;
    buffer[size] = 0;
    close(fd);
    return buffer;
}

int main(void) {
    for (;;) {
        char id[37] = "", body[4096], request[8192];
        char *answer = ask("GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        sscanf(strstr(answer, "Request-Id: ") + 12, "%36s", id);
        snprintf(body, sizeof(body), "{\"c\":%s}", strstr(answer, "\r\n\r\n") + 4);
        snprintf(request, sizeof(request),
            "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
            "Content-Length: %zu\r\n\r\n%s", id, strlen(body), body);
        ask(request);
    }
}
"""

HANDLER = """
import os

def handler(event, context):
    if "raise" in event:
        raise ValueError("as asked")
    return {
        "event": event,
        "id": context.aws_request_id,
        "left": context.get_remaining_time_in_millis(),
        "name": context.function_name,
        "execution": os.environ.get("AWS_EXECUTION_ENV"),
        "size": len(event.get("pad", "")),
    }
"""


@pytest.fixture(scope="module")
def client(shared_node: Node) -> Iterator[Client]:
    with Client(shared_node.address) as client:
        yield client


def package(directory: Path, bootstrap: str | bytes, mode: int = 0o755) -> Path:
    directory.mkdir(exist_ok=True)
    path = directory / "bootstrap"
    path.write_bytes(bootstrap.encode() if isinstance(bootstrap, str) else bootstrap)
    path.chmod(mode)
    return directory


def deploy(node: Node, name: str, path: Path, handler: str = "app.handler", *more: str) -> Any:
    return node.runtimectl(
        "deploy", name, path, "--runtime", RUNTIME, "--handler", handler, "--timeout", "3", *more, seconds=SECONDS
    )


def deployed(node: Node, name: str, path: Path, handler: str = "app.handler", *more: str) -> None:
    done = deploy(node, name, path, handler, *more)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def shell(shared_node: Node, tmp_path_factory: pytest.TempPathFactory) -> str:
    deployed(shared_node, "custom-shell", package(tmp_path_factory.mktemp("shell"), SHELL))
    return "custom-shell"


def failure(client: Client, name: str, event: Any) -> dict[str, Any]:
    result = client.invoke(name, event)
    with pytest.raises(FunctionFailed):
        assert result.value
    told: dict[str, Any] = json.loads(result.payload)
    return told


def test_shell(node: Node, client: Client, shell: str) -> None:
    first = client.invoke(shell, {"n": 1}, log_tail=True)
    assert first.value == {"event": {"n": 1}, "shell": True}
    assert "started for app.handler in /var/task" in first.log_tail
    assert 'handling {"n":1}' in first.log_tail
    for n in range(3):
        assert client.invoke(shell, {"n": n}).value == {"event": {"n": n}, "shell": True}


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ("error", "Mine", "as told"),
        ("exit", "Runtime.ExitError", "exit status 9"),
        ("sleep", "Sandbox.Timedout", "timed out after 3.00 seconds"),
    ],
)
def test_failures(node: Node, client: Client, shell: str, event: str, kind: str, message: str) -> None:
    told = failure(client, shell, event)
    assert told["errorType"] == kind
    assert message in told["errorMessage"]
    assert client.invoke(shell, {}).value == {"event": {}, "shell": True}, "the next one is well"


@pytest.mark.parametrize(
    ("bootstrap", "handler", "kind"),
    [
        (SHELL, "fail.init", "Runtime.NoSuchHandler"),
        (SHELL, "fail.exit", "Runtime.ExitError"),
        ("#!/no/such/interpreter\n", "app.handler", "Runtime.InvalidEntrypoint"),
        ("not a program", "app.handler", "Runtime.InvalidEntrypoint"),
    ],
    ids=["error", "exit", "interpreter", "format"],
)
def test_init_failures(node: Node, client: Client, tmp_path: Path, bootstrap: str, handler: str, kind: str) -> None:
    deployed(node, f"custom-{abs(hash((bootstrap, handler)))}", package(tmp_path / "code", bootstrap), handler)
    assert failure(client, f"custom-{abs(hash((bootstrap, handler)))}", {})["errorType"] == kind


def test_bash_alone(node: Node, client: Client, tmp_path: Path) -> None:
    deployed(node, "custom-bash", package(tmp_path / "code", BASH_ALONE))
    events: list[Any] = [{"n": 1}, {"text": "\u00e4\u2028 two\nlines"}, {"pad": "p" * 200_000}]
    for event in events:
        assert client.invoke("custom-bash", event).value == {"bash": event}


@pytest.mark.parametrize("linked", ["-static", "-pie"])
def test_compiled(node: Node, client: Client, tmp_path: Path, linked: str) -> None:
    source = tmp_path / "bootstrap.c"
    source.write_text(C)
    code = tmp_path / "code"
    code.mkdir()
    subprocess.run(["cc", "-O1", linked, "-o", code / "bootstrap", source], check=True)
    name = f"custom-c{linked}"
    deployed(node, name, code)
    assert [client.invoke(name, {"n": n}).value for n in range(3)] == [{"c": {"n": n}} for n in range(3)]


def test_lambda_runtime_interface_client(node: Node, client: Client, tmp_path: Path) -> None:
    """awslambdaric as AWS publishes it."""
    code = package(tmp_path / "code", f"#!/bin/sh\nexec {sys.base_prefix}/bin/python3 -m awslambdaric $_HANDLER\n")
    (code / "app.py").write_text(HANDLER)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-q", "--only-binary=:all:")
    subprocess.run([*pip, "--target", str(code), "awslambdaric==4.0.2"], check=True, timeout=SECONDS)
    deployed(node, "custom-ric", code, "app.handler", "--memory", "256")
    for n in range(3):
        result = client.invoke("custom-ric", {"n": n})
        assert result.value["event"] == {"n": n}
        assert result.value["id"] == result.request_id
        assert result.value["name"] == "custom-ric"
        assert result.value["execution"] is None
        assert 0 < result.value["left"] <= 3000
    assert client.invoke("custom-ric", {"pad": "p" * (1 << 20)}).value["size"] == 1 << 20
    told = failure(client, "custom-ric", {"raise": 1})
    assert (told["errorType"], told["errorMessage"]) == ("ValueError", "as asked")


def test_package_without_entrypoint(node: Node, tmp_path: Path) -> None:
    code = tmp_path / "code"
    code.mkdir()
    (code / "app.py").write_text(HANDLER)
    done = deploy(node, "custom-none", code)
    assert done.returncode != 0
    assert "Runtime.InvalidEntrypoint" in done.stderr
    package(code, SHELL, mode=0o644)
    done = deploy(node, "custom-none", code)
    assert done.returncode != 0
    assert "not executable" in done.stderr


def test_status_names_it(node: Node) -> None:
    status = node.runtimectl("status")
    assert RUNTIME in status.stdout
