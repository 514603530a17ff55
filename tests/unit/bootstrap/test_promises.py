"""What a function finds when it starts: variables, working directory, builtins, clock, randomness; and the context."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from tests.unit.bootstrap.conftest import Make

ARN = "arn:aws:lambda:us-east-1:000000000000:function:f"
VARIABLES = "import os\nAT_IMPORT = dict(os.environ)\ndef handler(event, context):\n    return AT_IMPORT\n"
LOG_STREAM = "2026/11/21/[$LATEST]0123456789abcdef0123456789abcdef"


def evaluated(make: Make, *expressions: str, prelude: str = "", **configuration: Any) -> list[Any]:
    handler = "def handler(event, context):\n    return [eval(e, globals(), {'context': context}) for e in event]\n"
    source = f"{prelude}\n{handler}"
    with make(source) as environment:
        environment.start(**configuration)
        answer = environment.invoke(list(expressions))
        assert not answer.failed, answer.body
        return list(answer.json)


def test_variables(make: Make, python: str) -> None:
    with make(VARIABLES) as environment:
        environment.start(memory_mb=256, environment={"TABLE": "orders ü", "LANG": "de_DE.UTF-8"}, runtime="python3.99")
        variables = environment.invoke().json
    path = variables.pop("PATH")
    assert path.endswith("/usr/local/bin:/usr/bin/:/bin:/opt/bin")
    assert variables == {
        "TABLE": "orders ü",
        "LANG": "de_DE.UTF-8",
        "TZ": ":UTC",
        "_HANDLER": "app.handler",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EXECUTION_ENV": "AWS_Lambda_python3.99",
        "AWS_LAMBDA_FUNCTION_NAME": "f",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/f",
        "AWS_LAMBDA_LOG_STREAM_NAME": LOG_STREAM,
        "AWS_LAMBDA_LOG_FORMAT": "Text",
        "AWS_LAMBDA_RUNTIME_API": "127.0.0.1:9001",
        "AWS_XRAY_CONTEXT_MISSING": "LOG_ERROR",
        "HOME": "/tmp",
        "LOGNAME": "sbx_user1051",
        "LAMBDA_TASK_ROOT": str(environment.task),
        "LAMBDA_RUNTIME_DIR": "/var/runtime",
        "LD_LIBRARY_PATH": "/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
        "PYTHONPATH": "/var/runtime",
    }


def test_there_is_a_user_and_a_home(make: Make) -> None:
    with make(
        "import getpass, pathlib\n"
        "def handler(event, context):\n"
        "    return [getpass.getuser(), str(pathlib.Path.home())]\n"
    ) as environment:
        environment.start()
        assert environment.invoke().json == ["sbx_user1051", "/tmp"]


def test_reserved_variables_win_over_the_functions_own(make: Make) -> None:
    with make(VARIABLES) as environment:
        environment.start(environment={"AWS_REGION": "mars", "_HANDLER": "x.y"}, region="eu-central-1")
        variables = environment.invoke().json
    assert (variables["AWS_REGION"], variables["_HANDLER"]) == ("eu-central-1", "app.handler")


@pytest.mark.parametrize(("number", "name"), [(0, "on-demand"), (1, "provisioned-concurrency"), (2, "snap-start")])
def test_initialization_type(make: Make, number: int, name: str) -> None:
    with make(VARIABLES) as environment:
        environment.start(init_type=number)
        assert environment.invoke().json["AWS_LAMBDA_INITIALIZATION_TYPE"] == name


def test_trace_header_is_the_invocations(make: Make) -> None:
    with make(
        "import os\ndef handler(event, context):\n    return os.environ.get('_X_AMZN_TRACE_ID')\n"
    ) as environment:
        environment.start()
        assert environment.invoke(trace="Root=1-2-3").json == "Root=1-2-3"
        assert environment.invoke(trace="Root=4-5-6").json == "Root=4-5-6"
        assert environment.invoke().json is None


def test_programs_that_the_function_runs_inherit_variables_but_no_descriptors(make: Make) -> None:
    source = """\
        import os, subprocess

        def handler(event, context):
            return subprocess.check_output(["/bin/sh", "-c", "echo $TABLE; ls /proc/self/fd"], close_fds=False).decode()
        """
    with make(source) as environment:
        environment.start(environment={"TABLE": "orders"})
        table, *descriptors = environment.invoke().json.split()
    assert table == "orders"
    assert set(descriptors) <= {"0", "1", "2", "3"}  # 3: of ls itself


def test_place_and_builtins(make: Make) -> None:
    directory, task_root, quits, time_zone, offset, main_thread = evaluated(
        make,
        "os.getcwd()",
        "os.environ['LAMBDA_TASK_ROOT']",
        "[callable(value) for value in (exit, quit, help, copyright, credits, license)]",
        "time.tzname",
        "time.timezone",
        "threading.current_thread() is threading.main_thread()",
        prelude="import os, threading, time",
    )
    assert directory == task_root
    assert quits == [True] * 6
    assert time_zone[0] == "UTC"
    assert (offset, main_thread) == (0, True)


def test_time_zone_of_the_functions_own(make: Make) -> None:
    (hours,) = evaluated(make, "time.timezone // 3600", prelude="import time", environment={"TZ": "XYZ+5"})
    assert hours == 5


def test_randomness_differs_between_environments(make: Make, native: Any, python: str) -> None:
    drawn = [
        tuple(evaluated(make, "random.random()", "str(uuid.uuid4())", prelude="import random, uuid")) for _ in range(3)
    ]
    assert len(set(drawn)) == 3


def test_own_modules_are_out_of_the_way(make: Make) -> None:
    names, path = evaluated(make, "sorted(sys.modules)", "sys.path", prelude="import sys")
    own = {
        "environment",
        "logs",
        "context",
        "errors",
        "payload",
        "handlers",
        "warm",
        "zygote",
        "compile",
        "probe",
        "start",
    }
    assert not own & set(names)
    assert not any("bootstrap" in entry for entry in path)


def test_context(make: Make) -> None:
    expressions = [
        "function_name", "function_version", "invoked_function_arn", "memory_limit_in_mb", "log_group_name",
        "log_stream_name", "client_context", "tenant_id", "identity.cognito_identity_id",
        "identity.cognito_identity_pool_id", "w3c()",
    ]  # fmt: skip
    values = evaluated(make, *(f"context.{name}" for name in expressions), function_version="7")
    assert values == ["f", "7", ARN, "128", "/aws/lambda/f", LOG_STREAM, None, None, None, None, {}]


def test_context_of_each_invocation(make: Make) -> None:
    source = """\
        def handler(event, context):
            client = context.client_context
            return {
                "id": context.aws_request_id,
                "arn": context.invoked_function_arn,
                "tenant": context.tenant_id,
                "custom": client.custom,
                "env": client.env,
                "client": [client.client.app_title, client.client.installation_id],
                "identity": [context.identity.cognito_identity_id, context.identity.cognito_identity_pool_id],
                "w3c": context.w3c(),
                "repr": [repr(context.client_context), repr(context.identity)],
            }
        """
    given = {"custom": {"a": 1}, "client": {"app_title": "shop"}, "w3c": {"traceparent": "00-1", "other": "x"}}
    with make(source) as environment:
        environment.start()
        answer = environment.invoke(
            client_context=json.dumps(given).encode(),
            cognito_identity=b'{"cognitoIdentityId": "i", "cognitoIdentityPoolId": "p"}',
            tenant="blue",
            arn=ARN + ":live",
        )
    assert answer.json == {
        "id": answer.id,
        "arn": ARN + ":live",
        "tenant": "blue",
        "custom": {"a": 1},
        "env": None,
        "client": ["shop", None],
        "identity": ["i", "p"],
        "w3c": {"traceparent": "00-1"},
        "repr": [
            "ClientContext([client=Client([app_package_name=None,app_title=shop,app_version_code=None,"
            "app_version_name=None,installation_id=None]),custom={'a': 1},env=None])",
            "CognitoIdentity([cognito_identity_id=i,cognito_identity_pool_id=p])",
        ],
    }


@pytest.mark.parametrize(
    ("field", "what"), [("client_context", "Client Context"), ("cognito_identity", "Cognito Identity")]
)
@pytest.mark.parametrize(
    ("data", "reason"), [(b"x", "Expecting value: line 1 column 1 (char 0)"), (b"[]", "not an object")]
)
def test_context_that_is_not_json(make: Make, field: str, what: str, data: bytes, reason: str) -> None:
    with make("def handler(event, context):\n    return 1\n") as environment:
        environment.start()
        answer = environment.invoke(**{field: data})
        assert answer.error_type == "Runtime.LambdaContextUnmarshalError"
        assert answer.json["errorMessage"] == f"Unable to parse {what} JSON: {reason}"
        assert environment.invoke().json == 1


def test_remaining_time(make: Make) -> None:
    with make("def handler(event, context):\n    return context.get_remaining_time_in_millis()\n") as environment:
        environment.start()
        before = time.monotonic()
        remaining = environment.invoke(seconds=100).json
        assert 100_000 - (time.monotonic() - before) * 1000 - 2 <= remaining <= 100_000
        assert environment.invoke(seconds=-1).json == 0


def test_forks_of_the_functions_own(make: Make) -> None:
    """Hooks of modules that the zygote imported run for them: locks are usable and randomness differs."""
    source = """\
        import logging, os, random, signal, threading, warnings

        order = []
        os.register_at_fork(before=lambda: order.append("before"), after_in_parent=lambda: order.append("parent"),
                            after_in_child=lambda: order.append("child"))

        def child(out):
            signal.alarm(60)  # a lock that stayed held would hold it up for ever
            logging.warning("from a child")
            known = threading.main_thread() is threading.current_thread()
            os.write(out, repr((random.random(), known, order)).encode())

        def handler(event, context):
            given, out = os.pipe()
            held, done = threading.Event(), threading.Event()

            def hold():
                with logging.getLogger().handlers[0].lock:
                    held.set()
                    done.wait()

            holder = threading.Thread(target=hold)
            holder.start()
            held.wait()
            warnings.simplefilter("ignore")  # about forking with threads
            for _ in range(2):
                process = os.fork()
                if process == 0:
                    child(out)
                    os._exit(0)
                assert os.waitpid(process, 0)[1] == 0
                os.write(out, b"|")
            done.set()
            holder.join()
            return [os.read(given, 4096).decode().split("|")[:2], order]
        """
    with make(source) as environment:
        environment.start()
        answer = environment.invoke()
        assert not answer.failed, answer.body
        (first, second), order = answer.json
        assert environment.read_log().count("\tfrom a child\n") == 2
    assert first != second
    assert first.endswith("True, ['before', 'child'])")
    assert second.endswith("True, ['before', 'parent', 'before', 'child'])")
    assert order == ["before", "parent"] * 2


def test_zygote_is_lean(make: Make) -> None:
    """What is imported for every function costs every fork; a module more is a decision to take here."""
    (names,) = evaluated(make, "sorted(name for name in sys.modules if '.' not in name)", prelude="import sys")
    dear = {
        "asyncio",
        "datetime",
        "decimal",
        "email",
        "hashlib",
        "http",
        "inspect",
        "random",
        "socket",
        "ssl",
        "typing",
    }
    assert not dear & set(names)
    assert {"json", "logging", "traceback", "threading", "os", "time"} <= set(names)
