"""Finding the handler: every way a name may be written, and every way that it may fail."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from runtimed.model import wire
from tests.unit.bootstrap.conftest import Make
from tests.unit.bootstrap.dispatcher import Environment
from tests.unit.bootstrap.programs import compiled

RETURNS_NAME = "def handler(event, context):\n    return __name__\n"


def init_error(message: wire.Message) -> dict[str, Any]:
    assert isinstance(message, wire.InitError)
    described: dict[str, Any] = json.loads(message.body)
    assert described["errorType"] == message.error_type
    assert described["requestId"] == ""
    return described


@pytest.mark.parametrize(
    ("name", "file", "module"),
    [
        ("app.handler", "task/app.py", "app"),
        ("orders.take.handler", "task/orders/take.py", "orders.take"),
        ("orders/take.handler", "task/orders/take.py", "orders.take"),
        ("environment.handler", "task/environment.py", "environment"),
        ("zygote.handler", "task/zygote.py", "zygote"),
        ("pkg/sys.handler", "task/pkg/sys.py", "pkg.sys"),
        ("shared.handler", "opt/python/shared.py", "shared"),
    ],
)
def test_found(make: Make, name: str, file: str, module: str) -> None:
    with make(files={file: RETURNS_NAME}) as environment:
        assert isinstance(environment.start(name), wire.InitDone)
        assert environment.invoke().json == module


def test_layers_packages_come_after_the_functions_own(make: Make, python: str) -> None:
    version = "python3." + python.rpartition(".")[2] if python[-1].isdigit() else ""
    source = "import sys, mine\ndef handler(event, context): return [mine.__file__, sys.path]"
    files = {"task/mine.py": "", "opt/python/mine.py": "", f"opt/python/lib/{version}/site-packages/mine.py": ""}
    with make(source, files) as environment:
        environment.start(environment={"PYTHONPATH": "/elsewhere:/there"})
        file, path = environment.invoke().json
    task, layers = str(environment.task), str(environment.layers)
    assert file == f"{task}/mine.py"
    assert path[0] == task
    assert path[1].startswith(f"{layers}/python/lib/python3.")
    assert path[1].endswith("/site-packages")
    assert path[2:5] == [f"{layers}/python", "/elsewhere", "/there"]
    assert not any("site-packages" in entry or "bootstrap" in entry for entry in path[5:])


@pytest.mark.parametrize(
    ("name", "source", "error_type", "message"),
    [
        (
            "missing.handler",
            "",
            "Runtime.ImportModuleError",
            "Unable to import module 'missing': No module named 'missing'",
        ),
        (
            "app.handler",
            "import absent",
            "Runtime.ImportModuleError",
            "Unable to import module 'app': No module named 'absent'",
        ),
        ("a/b.handler", "", "Runtime.ImportModuleError", "Unable to import module 'a/b': No module named 'a'"),
        ("app.absent", "", "Runtime.HandlerNotFound", "Handler 'absent' missing on module 'app'"),
        (
            "app",
            "",
            "Runtime.MalformedHandlerName",
            "Bad handler 'app': not enough values to unpack (expected 2, got 1)",
        ),
        (
            "sys.exit",
            "",
            "Runtime.BuiltInModuleConflict",
            "Cannot use built-in module sys as a handler module",
        ),
    ],
)
def test_faults(make: Make, name: str, source: str, error_type: str, message: str) -> None:
    with make(source) as environment:
        described = init_error(environment.start(name))
        assert described == {"errorMessage": message, "errorType": error_type, "requestId": "", "stackTrace": []}
        assert environment.leave() == 1
        assert environment.read_log() == f"[ERROR] {error_type}: {message}\nTraceback (most recent call last):\n"


def test_syntax_error(make: Make) -> None:
    with make("x = 1\ndef handler(event context):\n    pass\n") as environment:
        described = init_error(environment.start())
    assert described["errorType"] == "Runtime.UserCodeSyntaxError"
    assert described["errorMessage"].startswith("Syntax error in module 'app': ")
    assert described["errorMessage"].endswith("(app.py, line 2)")
    (where,) = described["stackTrace"]
    assert where.startswith(f'  File "{environment.task}/app.py" Line 2\n    def handler')


def test_exception_while_importing(make: Make) -> None:
    with make("def load():\n    raise ValueError('no bolts')\n\nload()\n") as environment:
        described = init_error(environment.start())
        environment.leave()
        log = environment.read_log()
    assert (described["errorType"], described["errorMessage"]) == ("ValueError", "no bolts")
    trace = described["stackTrace"]
    assert trace[-1] == f"  File \"{environment.task}/app.py\", line 2, in load\n    raise ValueError('no bolts')\n"
    assert trace[-2] == f'  File "{environment.task}/app.py", line 4, in <module>\n    load()\n'
    assert not any("bootstrap/" in frame for frame in trace)
    assert log.startswith("[ERROR] ValueError: no bolts\nTraceback (most recent call last):\n")
    assert log.endswith(f"  File \"{environment.task}/app.py\", line 2, in load\n    raise ValueError('no bolts')\n")


def test_error_too_large_for_a_packet_is_cut(make: Make) -> None:
    with make("raise ValueError('\\u00e9' * 1_000_000)") as environment:
        message = environment.start()
        assert isinstance(message, wire.InitError)
        described = init_error(message)
    assert described["errorType"] == "ValueError"
    assert set(described["errorMessage"]) == {"é"}


@pytest.mark.parametrize(
    ("statement", "status"), [("sys.exit(3)", 3), ("sys.exit()", 0), ("os._exit(4)", 4), ("exit(5)", 5)]
)
def test_leaving_while_importing(make: Make, statement: str, status: int) -> None:
    with make(f"import os, sys\nprint('half', end='')\nsys.stdout.flush()\n{statement}\n") as environment:
        with pytest.raises(EOFError):
            environment.start()
        assert environment.leave() == status
        assert environment.read_log() == "half"


MARKED = (
    "VALUE = %r\ndef handler(event, context):\n    return [VALUE, __file__, __cached__, __package__, repr(__spec__)]\n"
)


def compile_package(python: str, root: pathlib.Path) -> None:
    """As deployment does."""
    for name, data in compiled(python, root)[0].items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(data)


def compiled_environment(make: Make, python: str, files: dict[str, str]) -> Environment:
    environment = make(files=files)
    compile_package(python, environment.task)
    return environment


def test_bytecode_made_at_deployment_is_used(make: Make, python: str) -> None:
    with compiled_environment(make, python, {"task/app.py": MARKED % "compiled"}) as environment:
        (environment.task / "app.py").write_text(MARKED % "source")
        environment.start()
        task = environment.task
        value, file, cached, package, spec = environment.invoke().json
        (expected,) = (task / "__pycache__").glob("app.*")
    assert (value, file, cached, package) == ("compiled", f"{task}/app.py", str(expected), "")
    assert re.fullmatch(
        rf"ModuleSpec\(name='app', loader=<.*SourceFileLoader object at .*>, origin='{task}/app.py'\)", spec
    )


def test_compiled_module_is_as_importlib_makes_it(make: Make, python: str) -> None:
    """But for what cannot be the same: another module of the same package is imported the usual way and compared."""
    source = """\
        import inspect, pkgutil, sys, other

        def facts(module):
            spec = module.__spec__
            return [
                sorted(set(vars(module)) - {"facts", "handler", "inspect", "pkgutil", "sys", "other"}),
                spec.parent, spec.has_location, spec.submodule_search_locations, spec.loader is module.__loader__,
                spec.loader.path == module.__file__ == spec.origin, spec.cached == module.__cached__,
                module.__name__ == spec.name == spec.loader.name, spec._initializing,
                inspect.getsource(module) == open(module.__file__).read(),
                type(spec.loader.get_data(module.__file__)).__name__,
                sys.modules[module.__name__] is module,
            ]

        def handler(event, context):
            return [facts(sys.modules[__name__]), facts(other)]
        """
    with compiled_environment(make, python, {"task/app.py": source, "task/other.py": "x = 1\n"}) as environment:
        environment.start()
        answer = environment.invoke()
        assert not answer.failed, answer.body
        quick, usual = answer.json
    usual[0].remove("x")
    assert quick == usual


@pytest.mark.parametrize("preferred", ["task/app/__init__.py", "task/app.abi3.so"])
def test_what_goes_before_a_source_still_does(make: Make, python: str, preferred: str) -> None:
    with compiled_environment(make, python, {"task/app.py": MARKED % "py", preferred: MARKED % "other"}) as environment:
        message = environment.start()
        if preferred.endswith(".so"):
            assert init_error(message)["errorType"] == "Runtime.ImportModuleError"
        else:
            assert environment.invoke().json[0] == "other"


@pytest.mark.parametrize("damage", ["timestamp", "magic", "short", "source gone"])
def test_bytecode_not_made_at_deployment_is_importlibs_business(make: Make, python: str, damage: str) -> None:
    with compiled_environment(make, python, {"task/app.py": MARKED % "compiled"}) as environment:
        (file,) = (environment.task / "__pycache__").glob("app.*")
        data = file.read_bytes()
        (environment.task / "app.py").write_text(MARKED % "source")
        if damage == "timestamp":
            file.write_bytes(data[:4] + bytes(4) + data[8:])
        elif damage == "magic":
            file.write_bytes(b"abcd" + data[4:])
        elif damage == "short":
            file.write_bytes(data[:4])
        else:
            (environment.task / "app.py").unlink()
            assert init_error(environment.start())["errorType"] == "Runtime.ImportModuleError"
            return
        environment.start()
        assert environment.invoke().json[0] == "source"


def test_failure_of_a_compiled_module(make: Make, python: str) -> None:
    source = "import sys\nprint('app' in sys.modules, __spec__._initializing)\nraise ValueError('no bolts')\n"
    with compiled_environment(make, python, {"task/app.py": source}) as environment:
        described = init_error(environment.start())
        environment.leave()
        assert environment.read_log().startswith("True True\n")
    assert described["stackTrace"] == [
        f"  File \"{environment.task}/app.py\", line 3, in <module>\n    raise ValueError('no bolts')\n"
    ]


def test_circular_import_of_a_compiled_module(make: Make, python: str) -> None:
    files = {
        "task/app.py": "import other\ndef handler(event, context):\n    return other.app is __import__('app')\n",
        "task/other.py": "import app\n",
    }
    with compiled_environment(make, python, files) as environment:
        environment.start()
        assert environment.invoke().json is True


def test_module_that_the_runtime_has_imported_is_that_one(make: Make, python: str) -> None:
    """As with AWS's runtime: a file of the package cannot replace it."""
    with compiled_environment(make, python, {"task/json.py": MARKED % "own"}) as environment:
        assert init_error(environment.start("json.handler"))["errorType"] == "Runtime.HandlerNotFound"
