"""Real functions, deployed and invoked on a real node as their authors would."""

from __future__ import annotations

import json
import pathlib
import zipfile
from collections.abc import Iterator

import pytest

from bench.node import Node
from runtimed.client import Client, FunctionFailed
from tests.functions.catalogue import CATALOGUE, FAILURES, Function


def named(name: str) -> Function:
    return next(function for function in CATALOGUE if function.name == name)


@pytest.fixture(scope="module")
def client(shared_node: Node) -> Iterator[Client]:
    with Client(shared_node.address) as client:
        yield client


def deploy(node: Node, function: Function, *options: str) -> None:
    done = node.runtimectl(
        "deploy", function.name, function.path, "--handler", function.handler, "--memory", str(function.memory),
        "--timeout", str(function.timeout), *options, seconds=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def failures(shared_node: Node) -> Function:
    deploy(shared_node, FAILURES)
    return FAILURES


@pytest.mark.parametrize("function", CATALOGUE, ids=lambda function: function.name)
def test_function(node: Node, client: Client, function: Function) -> None:
    deploy(node, function)
    first = client.invoke(function.name, function.event)
    function.check(first.value)
    assert first.response.init_duration_us > 0
    assert first.executed_version == "$LATEST"
    second = client.invoke(function.name, function.event)
    function.check(second.value)
    assert second.response.init_duration_us == 0, "warm"


def test_invoke_by_command_line(node: Node) -> None:
    function = named("digest")
    deploy(node, function)
    done = node.runtimectl("invoke", function.name, "--payload", "-", input=json.dumps(function.event))
    assert done.returncode == 0, done.stderr
    function.check(json.loads(done.stdout))


def test_one_file(node: Node, client: Client, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "single.py"
    path.write_text("def handler(event, context):\n    return event['a'] + event['b']\n")
    done = node.runtimectl("deploy", "single", path, "--handler", "single.handler")
    assert done.returncode == 0, done.stderr
    assert client.invoke("single", {"a": 1, "b": 2}).value == 3


def test_zip(node: Node, client: Client, tmp_path: pathlib.Path) -> None:
    function = named("orders")
    path = tmp_path / "orders.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(function.path.rglob("*")):
            if "__pycache__" not in file.parts:
                archive.write(file, file.relative_to(function.path))
    done = node.runtimectl("deploy", "zipped", path, "--handler", function.handler)
    assert done.returncode == 0, done.stderr
    function.check(client.invoke("zipped", function.event).value)


def test_state_is_kept_while_warm(node: Node, client: Client) -> None:
    deploy(node, named("counter"))
    answers = [client.invoke("counter", {}).value for _ in range(4)]
    assert len({answer["environment"] for answer in answers}) == 1
    assert [answer["calls"] for answer in answers] == list(range(answers[0]["calls"], answers[0]["calls"] + 4))
    for answer in answers:
        named("counter").check(answer)


def test_every_kind_of_line_is_in_the_log(node: Node, client: Client) -> None:
    deploy(node, named("logs"))
    client.invoke("logs", {"word": "first"})
    tail = client.invoke("logs", {"word": "mackerel"}, log_tail=True)
    for text in (
        f"START RequestId: {tail.request_id} Version: $LATEST",
        "printed mackerel", "no line end", "error stream mackerel", "[INFO]", "information mackerel",
        "[WARNING]", "audited mackerel", "warned mackerel", "raw mackerel", "from a shell mackerel", "two", "lines",
        "ünïcode ☃ mackerel", "caught", "KeyError: 'mackerel'",
        f"END RequestId: {tail.request_id}", f"REPORT RequestId: {tail.request_id}\tDuration: ",
    ):  # fmt: skip
        assert text in tail.log_tail, text
    assert "not shown" not in tail.log_tail
    done = node.runtimectl("logs", "logs", "--request-id", tail.request_id)
    assert done.returncode == 0, done.stderr
    assert "printed mackerel" in done.stdout
    assert "printed first" not in done.stdout


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ({"kind": "raise"}, "OutOfStock", "no bolts left"),
        ({"kind": "chain"}, "RuntimeError", "could not order"),
        ({"kind": "unserialisable"}, "Runtime.MarshalError", "set"),
        ({"kind": "exit"}, "Runtime.ExitError", "exit status 3"),
        ({"kind": "leave", "status": 0}, "Runtime.ExitError", "without providing a reason"),
        ({"kind": "leave", "status": 9}, "Runtime.ExitError", "exit status 9"),
        ({"kind": "signal"}, "Runtime.ExitError", "signal: killed"),
        ({"kind": "crash"}, "Runtime.ExitError", "segmentation fault"),
        ({"kind": "sleep"}, "Sandbox.Timedout", "Task timed out after 3.00 seconds"),
        ({"kind": "spin"}, "Sandbox.Timedout", "Task timed out after 3.00 seconds"),
        ({"kind": "memory"}, "Runtime.OutOfMemory", "signal: killed"),
        ({"kind": "disk"}, "OSError", "No space left on device"),
        ({"kind": "descriptors"}, "OSError", "Too many open files"),
        ({"kind": "threads"}, "RuntimeError", "can't start new thread"),
        ({"kind": "large"}, "Function.ResponseSizeTooLarge", "6291556"),
        ({"kind": "deep"}, "RecursionError", "maximum recursion depth"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else None,
)
def test_failure(
    client: Client, node: Node, failures: Function, event: dict[str, str], kind: str, message: str
) -> None:
    result = client.invoke(failures.name, event)
    with pytest.raises(FunctionFailed):
        result.raise_for_error()
    error = json.loads(result.payload)
    assert error["errorType"] == kind
    assert message in error["errorMessage"]
    assert result.response.function_error == "Unhandled"
    after = client.invoke(failures.name, {"kind": "nothing"})
    assert after.value == {"kind": "nothing"}, "the function goes on in another environment"


def test_stack_trace(client: Client, node: Node, failures: Function) -> None:
    error = json.loads(client.invoke(failures.name, {"kind": "raise"}).payload)
    assert error["errorMessage"] == "no bolts left"
    assert [line for line in error["stackTrace"] if 'File "/var/task/app.py"' in line and "in reserve" in line]
    assert not [line for line in error["stackTrace"] if "/var/runtime" in line]
    done = node.runtimectl("invoke", failures.name, "--payload", '{"kind": "raise"}')
    assert done.returncode == 1
    assert done.stdout == ""
    assert "OutOfStock" in done.stderr
    assert "in reserve" in done.stderr


@pytest.mark.parametrize(
    ("source", "handler", "kind", "message"),
    [
        ("import nothing_of_the_kind\n", "app.handler", "Runtime.ImportModuleError", "nothing_of_the_kind"),
        ("def handler(event, context:\n", "app.handler", "Runtime.UserCodeSyntaxError", "app.py"),
        ("def other(event, context): pass\n", "app.handler", "Runtime.HandlerNotFound", "handler"),
        ("x = 1 / 0\n", "app.handler", "ZeroDivisionError", "division by zero"),
        ("import sys; sys.exit(4)\n", "app.handler", "Runtime.ExitError", "exit status 4"),
    ],
    ids=["import", "syntax", "missing", "exception", "exit"],
)
def test_init_failure(
    node: Node, client: Client, tmp_path: pathlib.Path, source: str, handler: str, kind: str, message: str
) -> None:
    (tmp_path / "app.py").write_text(source)
    done = node.runtimectl("deploy", "initfails", tmp_path, "--handler", handler)
    assert done.returncode == 0, done.stderr
    for _ in range(2):
        error = json.loads(client.invoke("initfails", {}).payload)
        assert error["errorType"] == kind
        assert message in error["errorMessage"]


def test_environment_variables(node: Node, client: Client) -> None:
    deploy(node, named("context"), "--env", "COLOUR=blåbær", "--env", "EMPTY=")
    environment = client.invoke("context", named("context").event).value["environment"]
    assert environment["COLOUR"] == "blåbær"
    assert environment["EMPTY"] == ""


def test_new_code_is_used(node: Node, client: Client, tmp_path: pathlib.Path) -> None:
    path = tmp_path / "changing.py"
    for word in ("one", "two", "three"):
        path.write_text(f"def handler(event, context):\n    return '{word}'\n")
        done = node.runtimectl("deploy", "changing", path, "--handler", "changing.handler")
        assert done.returncode == 0, done.stderr
        assert client.invoke("changing", {}).value == word
