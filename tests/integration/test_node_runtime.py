"""Node.js functions on a real node: handlers of every form, errors, logs, context, modules and layers' places."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bench.node import Node, await_true
from runtimed.client import Client, FunctionFailed
from runtimed.model.function import LogFormat, LoggingConfig
from runtimed.model.runtime import node_major

SECONDS = 300
JSON = LoggingConfig(log_format=LogFormat.JSON)

HANDLERS = """
import { readFileSync } from 'node:fs';
import { helper } from './lib/helper.mjs';
import legacy from './legacy.cjs';

let calls = 0;

export const handler = async (event, context) => {
  calls += 1;
  console.log('handling %s', JSON.stringify(event));
  if (event.log) for (const level of ['debug', 'info', 'warn', 'error']) console[level](`at ${level}`);
  if (event.lines) console.log('two\\nlines');
  if (event.object) console.log({ an: 'object' });
  if (event.throw) throw new TypeError('as asked');
  if (event.text) throw 'a text';
  if (event.own) throw Object.assign(new Error('with members'), { name: 'Mine', code: 7 });
  if (event.exit !== undefined) process.exit(event.exit);
  if (event.reject) Promise.reject(new Error('nobody looks'));
  if (event.uncaught) setTimeout(() => { throw new RangeError('later'); }, 1);
  if (event.reject || event.uncaught) await new Promise((done) => setTimeout(done, 5000));
  if (event.circle) { const a = {}; a.a = a; return a; }
  if (event.nothing) return undefined;
  if (event.big) return 'x'.repeat(7 << 20);
  if (event.sleep) await new Promise((done) => setTimeout(done, event.sleep));
  return {
    place: process.env.AWS_LAMBDA_LOG_STREAM_NAME,
    event, calls, helper: helper(), legacy: legacy.value,
    left: context.getRemainingTimeInMillis() > 0 && context.getRemainingTimeInMillis() <= 30000,
    id: context.awsRequestId, arn: context.invokedFunctionArn, memory: context.memoryLimitInMB,
    name: context.functionName, version: context.functionVersion, client: context.clientContext,
    execution: process.env.AWS_EXECUTION_ENV, paths: process.env.NODE_PATH, cwd: process.cwd(),
    python: process.env.PYTHONPATH, own: process.env.OWN, major: process.versions.node.split('.')[0],
    trace: process.env._X_AMZN_TRACE_ID,
    heap: (await import('node:v8')).getHeapStatistics().heap_size_limit,
    size: (event.pad ?? '').length,
  };
};

export const callback = (event, context, done) => {
  if (event.atOnce) context.callbackWaitsForEmptyEventLoop = false;
  if (event.throw) throw new Error('before the callback');
  globalThis.marks ??= [];
  setTimeout(() => globalThis.marks.push('timer'), event.atOnce ? 60000 : 50);
  if (event.error) done(new Error('by callback'));
  else if (event.failText) done('a text by callback');
  else if (!event.silent) done(null, { marks: globalThis.marks });
};
export const nested = { deeper: { handler: async () => 'from below' } };
export const notFunction = 5;
export const streaming = awslambda.streamifyResponse(async (event, stream, context) => {
  if (event.early) throw new Error('before anything');
  if (event.status) {
    stream = awslambda.HttpResponseStream.from(stream, { statusCode: 201, headers: { 'x-own': context.awsRequestId } });
  }
  for (let n = 0; n < (event.times ?? 2); n++) {
    if (!stream.write((event.piece ?? 'piece ').repeat(event.repeat ?? 1))) {
      await new Promise((go) => stream.once('drain', go));
    }
  }
  if (event.late) throw new TypeError('after the beginning');
  stream.end('last');
});
"""

FILES = {
    "index.mjs": HANDLERS,
    "lib/helper.mjs": "export const helper = () => 'helped';\n",
    "legacy.cjs": "module.exports = { value: require('./data.json').value, handler: async () => 'from cjs' };\n",
    "data.json": '{"value": 42}\n',
    "wrong.mjs": "export const handler = async ( => {};\n",
    "missing.mjs": "import 'not-there-at-all';\nexport const handler = async () => 1;\n",
    "raising.mjs": "throw new Error('while importing');\n",
    "leaving.mjs": "process.exit(3);\n",
    "slow.mjs": "await new Promise((done) => setTimeout(done, 50));\nexport const handler = async () => 'awaited';\n",
    "plain.js": "exports.handler = async (event) => ({ plain: event });\n",
    "sub/dir/app.mjs": "export const handler = async () => 'from a directory';\n",
    "pack/package.json": '{"main": "entry.js"}\n',
    "pack/entry.js": "exports.handler = async () => 'from a package';\n",
}


@pytest.fixture(scope="module")
def client(shared_node: Node) -> Iterator[Client]:
    with Client(shared_node.address) as client:
        yield client


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("node-function")
    for name, text in FILES.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_text(text)
    return directory


@pytest.fixture(scope="module")
def runtime(client: Client) -> str:
    offered = [one.name for one in client.status().runtimes if node_major(one.name) is not None]
    assert offered, "Node.js 18 or newer is on machines that run these tests"
    return offered[0]


def deployed(client: Client, code: Path, runtime: str, handler: str, **settings: Any) -> str:
    name = "node-" + handler.replace(".", "-").replace("/", "-")
    client.deploy(name, code, runtime=runtime, handler=handler, **({"timeout": 30} | settings))
    return name


@pytest.fixture(scope="module")
def function(client: Client, code: Path, runtime: str) -> str:
    return deployed(client, code, runtime, "index.handler", environment={"OWN": "mine"}, memory_size=256)


def failure(client: Client, name: str, event: Any) -> dict[str, Any]:
    result = client.invoke(name, event)
    with pytest.raises(FunctionFailed):
        assert result.value
    told: dict[str, Any] = json.loads(result.payload)
    return told


def used_again(client: Client, function: str, calls: int, between: Callable[[], object]) -> None:
    """The environment of one call takes `calls` from then on, all but the last of them in `between`. One that is not
    ready when the next call comes (it says so after its answer) may be passed over for another: again, then."""

    def same() -> bool:
        first = client.invoke(function, {}).value
        between()
        last = client.invoke(function, {}).value
        return bool((last["place"], last["calls"]) == (first["place"], first["calls"] + calls))

    await_true(same, 60, "calls in one environment")


def test_what_a_handler_sees(client: Client, function: str, runtime: str) -> None:
    result = client.invoke(function, {"n": 1})
    told = result.value
    assert told["event"] == {"n": 1}
    assert (told["helper"], told["legacy"], told["left"], told["version"]) == ("helped", 42, True, "$LATEST")
    assert (told["id"], told["memory"], told["name"]) == (result.request_id, "256", function)
    assert told["arn"].endswith(f":function:{function}")
    assert (told["execution"], told["cwd"], told["own"]) == (f"AWS_Lambda_{runtime}", "/var/task", "mine")
    assert "/opt/nodejs/node_modules" in told["paths"].split(":")
    assert "python" not in told
    assert f"nodejs{told['major']}.x" == runtime
    assert told["heap"] < 256 << 20
    used_again(client, function, 1, lambda: None)


def test_what_a_handler_logs(client: Client, function: str) -> None:
    result = client.invoke(function, {"log": 1, "lines": 1, "object": 1}, log_tail=True)
    for level, name in (("DEBUG", "debug"), ("INFO", "info"), ("WARN", "warn"), ("ERROR", "error")):
        assert f"\t{result.request_id}\t{level}\tat {name}\n" in result.log_tail
    assert f'\t{result.request_id}\tINFO\thandling {{"log":1,"lines":1,"object":1}}\n' in result.log_tail
    assert "two\nlines\n" in result.log_tail
    assert "{ an: 'object' }" in result.log_tail


@pytest.mark.parametrize(
    ("event", "kind", "message"),
    [
        ({"throw": 1}, "TypeError", "as asked"),
        ({"text": 1}, "string", "a text"),
        ({"own": 1}, "Mine", "with members"),
        ({"reject": 1}, "Runtime.UnhandledPromiseRejection", "Error: nobody looks"),
        ({"uncaught": 1}, "RangeError", "later"),
        ({"circle": 1}, "Runtime.MarshalError", "Unable to stringify the response: Converting circular structure"),
        ({"exit": 4}, "Runtime.ExitError", "exit status 4"),
    ],
)
def test_failures(client: Client, function: str, event: Any, kind: str, message: str) -> None:
    told = failure(client, function, event)
    assert told["errorType"] == kind
    assert message in told["errorMessage"]
    assert client.invoke(function, {"n": 3}).value["event"] == {"n": 3}


def test_time_out(client: Client, code: Path, runtime: str) -> None:
    client.deploy("node-brief", code, runtime=runtime, handler="index.handler", timeout=2)
    told = failure(client, "node-brief", {"sleep": 60_000})
    assert (told["errorType"], "timed out after 2.00 seconds" in told["errorMessage"]) == ("Sandbox.Timedout", True)


def test_errors_have_a_trace_and_are_logged(client: Client, function: str) -> None:
    result = client.invoke(function, {"own": 1}, log_tail=True)
    told = json.loads(result.payload)
    assert told["trace"][0] == "Error: with members" or told["trace"][0] == "Mine: with members"
    assert any("index.mjs" in line for line in told["trace"])
    line = next(line for line in result.log_tail.splitlines() if "Invoke Error" in line)
    assert json.loads(line.rpartition("\t")[2].removeprefix("Invoke Error "))["code"] == 7


def test_what_is_no_value_is_null(client: Client, function: str) -> None:
    assert client.invoke(function, {"nothing": 1}).value is None


@pytest.mark.parametrize("size", [1, 70_000, 1 << 20, 5 << 20])
def test_sizes(client: Client, function: str, size: int) -> None:
    assert client.invoke(function, {"pad": "x" * size}).value["size"] == size


def test_an_answer_that_is_too_large_is_told_and_the_environment_serves_on(client: Client, function: str) -> None:
    def too_large() -> None:
        assert failure(client, function, {"big": 1})["errorType"] == "Function.ResponseSizeTooLarge"

    used_again(client, function, 2, too_large)


@pytest.mark.parametrize(
    ("handler", "value"),
    [
        ("index.nested.deeper.handler", "from below"),
        ("legacy.handler", "from cjs"),
        ("plain.handler", {"plain": 1}),
        ("sub/dir/app.handler", "from a directory"),
        ("pack.handler", "from a package"),
        ("slow.handler", "awaited"),
    ],
)
def test_where_handlers_are(client: Client, code: Path, runtime: str, handler: str, value: Any) -> None:
    assert client.invoke(deployed(client, code, runtime, handler), 1).value == value


@pytest.mark.parametrize(
    ("handler", "kind", "message"),
    [
        ("absent.handler", "Runtime.ImportModuleError", "Cannot find module 'absent'"),
        ("missing.handler", "Runtime.ImportModuleError", "not-there-at-all"),
        ("wrong.handler", "Runtime.UserCodeSyntaxError", "SyntaxError"),
        ("raising.handler", "Error", "while importing"),
        ("leaving.handler", "Runtime.ExitError", "exit status 3"),
        ("index.absent", "Runtime.HandlerNotFound", "index.absent is undefined or not exported"),
        ("index.notFunction", "Runtime.HandlerNotFound", "index.notFunction is not a function"),
        ("nodots", "Runtime.MalformedHandlerName", "Bad handler"),
    ],
)
def test_init_failures(client: Client, code: Path, runtime: str, handler: str, kind: str, message: str) -> None:
    told = failure(client, deployed(client, code, runtime, handler), 1)
    assert told["errorType"] == kind
    assert message in told["errorMessage"]


def test_callbacks(client: Client, code: Path, runtime: str) -> None:
    name = deployed(client, code, runtime, "index.callback")
    assert client.invoke(name, {}).value == {"marks": ["timer"]}, "the answer waits for what was begun"
    assert client.invoke(name, {"silent": 1}).value is None, "the end of all is an answer"
    assert failure(client, name, {"error": 1})["errorMessage"] == "by callback"
    told = failure(client, name, {"failText": 1})
    assert (told["errorType"], told["errorMessage"]) == ("string", "a text by callback")
    assert failure(client, name, {"throw": 1})["errorMessage"] == "before the callback"

    def answered_at_once() -> bool:
        """Before its time is over, not after a minute; by the environment that has just rung."""
        client.invoke(name, {})
        return "timer" in client.invoke(name, {"atOnce": 1}).value["marks"]

    await_true(answered_at_once, 60, "an answer that waits for nothing")


def test_response_streaming(client: Client, code: Path, runtime: str) -> None:
    name = deployed(client, code, runtime, "index.streaming")
    assert b"".join(client.invoke_stream(name, {})) == b"piece piece last"
    assert client.invoke(name, {}).payload == b"piece piece last", "who does not want a stream gets it whole"
    size = sum(map(len, client.invoke_stream(name, {"times": 300, "repeat": 5_000})))
    assert size == 300 * 5_000 * len("piece ") + len("last")
    prelude, _, body = b"".join(client.invoke_stream(name, {"status": 1})).partition(b"\0" * 8)
    assert json.loads(prelude)["statusCode"] == 201
    assert body == b"piece piece last"
    assert failure(client, name, {"early": 1})["errorMessage"] == "before anything"
    pieces = []
    with pytest.raises(FunctionFailed, match="after the beginning"):
        pieces.extend(client.invoke_stream(name, {"late": 1}))
    assert b"".join(pieces) in (b"", b"piece ", b"piece piece ")
    assert b"".join(client.invoke_stream(name, {})) == b"piece piece last"


def test_lines_of_json(client: Client, code: Path, runtime: str) -> None:
    name = "node-json"
    client.deploy(name, code, runtime=runtime, handler="index.handler", timeout=30, logging_config=JSON)
    result = client.invoke(name, {"log": 1, "object": 1, "throw": 1}, log_tail=True)
    records = [json.loads(line) for line in result.log_tail.splitlines() if '"requestId"' in line and '"level"' in line]
    assert [one["level"] for one in records if str(one["message"]).startswith("at ")] == ["INFO", "WARN", "ERROR"]
    assert {"an": "object"} in [one["message"] for one in records]
    assert all(one["requestId"] == result.request_id for one in records)


def test_the_command_line_knows_javascript(shared_node: Node, client: Client, tmp_path: Path, runtime: str) -> None:
    path = tmp_path / "greet.mjs"
    path.write_text("export const handler = async (event) => `hello ${event}`;\n")
    done = shared_node.runtimectl("deploy", "node-greet", path, seconds=SECONDS)
    assert done.returncode == 0, done.stderr
    assert f"{runtime}, greet.handler" in done.stdout + done.stderr
    assert client.invoke("node-greet", "you").value == "hello you"
