"""Functions that turn on the runtime inside their own process. It is theirs to break; the caller gets Lambda's error,
and the node and its other functions go on."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runtimed.model.errors import InvalidRequestContent
from tests.outcomes import Outcome
from tests.security.escape.arena import Arena

MB = 1 << 20
RESPONSE_MAX = 6 * MB + 100

# What the handler does, and what becomes of the call: the result, or ("type of the error", part of its message).
DEEDS: dict[str, tuple[str, Any]] = {
    "os._exit": ("os._exit(0)", ("Runtime.ExitError", "exited without providing a reason")),
    "sys.exit": ("sys.exit(7)", ("Runtime.ExitError", "exit status 7")),
    "KeyboardInterrupt": ("raise KeyboardInterrupt", ("Runtime.ExitError", "")),
    "GeneratorExit": ("raise GeneratorExit", ("Runtime.ExitError", "")),
    "BaseException of its own": (
        "class E(BaseException): pass\n    raise E('x')",
        ("Runtime.ExitError", "exit status 1"),
    ),
    "BaseException with a hostile text": (
        "class E(BaseException):\n        def __str__(self): os._exit(9)\n    raise E",
        ("Runtime.ExitError", "exit status 9"),
    ),
    "exception whose text raises": (
        "class E(Exception):\n        def __str__(self): raise ValueError\n    raise E",
        ("E", "<exception str() failed>"),
    ),
    "exception whose text is no text": (
        "class E(Exception):\n        def __str__(self): return 7\n    raise E",
        ("E", "<exception str() failed>"),
    ),
    "exception whose text exits": (
        "class E(Exception):\n        def __str__(self): raise SystemExit(5)\n    raise E",
        ("Runtime.ExitError", "exit status 5"),
    ),
    "exception of 10 MB": ("raise ValueError('x' * (10 << 20))", ("ValueError", "xxx")),
    "exception type of 1 MB": ("raise type('N' * (1 << 20), (Exception,), {})('x')", ("NNN", "x")),
    "exception type without a name": (
        "class M(type):\n        @property\n        def __name__(self): raise RuntimeError('no name')\n"
        "    class E(Exception, metaclass=M): pass\n    raise E",
        ("", ""),
    ),
    "exception type whose name is a number": (
        "class M(type):\n        __name__ = 7\n    class E(Exception, metaclass=M): pass\n    raise E",
        ("", ""),
    ),
    "lone surrogates in an error": ("raise ValueError('\\ud800\\udfff')", ("ValueError", "\U000103ff")),
    "a trace made of lies": (
        "code = compile('1/0', '/var/task/../../etc/shadow', 'exec')\n    exec(code)",
        ("ZeroDivisionError", "division"),
    ),
    "a trace of its own": (
        "try:\n        1 / 0\n    except ZeroDivisionError as e:\n        trace = e.__traceback__\n"
        "    raise ValueError('borrowed').with_traceback(trace)",
        ("ValueError", "borrowed"),
    ),
    "a circle of causes": (
        "a, b = ValueError('a'), ValueError('b')\n    a.__cause__, b.__cause__ = b, a\n    raise a",
        ("ValueError", "a"),
    ),
    "deep recursion": ("def f(): f()\n    f()", ("RecursionError", "recursion")),
    "no limit to recursion": (
        "sys.setrecursionlimit(1 << 30)\n    def f(): f()\n    f()",
        ("Runtime.", "signal"),
    ),
    "result deeper than the encoder": (
        "a = []\n    for _ in range(100000): a = [a]\n    return a",
        ("Runtime.MarshalError", ""),
    ),
    "result that contains itself": ("a = []\n    a.append(a)\n    return a", ("Runtime.MarshalError", "Circular")),
    "result with a hostile list": (
        "class L(list):\n        def __iter__(self): raise SystemExit(3)\n    return L([1])",
        None,
    ),
    "result with hostile keys": (
        "class K(str):\n        def __str__(self): os._exit(4)\n        __repr__ = __str__\n    return {K('a'): 1}",
        {"a": 1},
    ),
    "result with a hostile number": (
        "class N(int):\n        def __repr__(self): return '1, \"forged\": 2'\n    return {'n': N(5)}",
        {"n": 5},
    ),
    "result with a hostile float": (
        "class F(float):\n        def __repr__(self): return '0}{'\n    return {'n': F(0.5)}",
        {"n": 0.5},
    ),
    "result with a hostile text": (
        "class S(str):\n        def encode(self, *_): os._exit(6)\n    return S('\\ud800')",
        "\ud800",
    ),
    "result of lone surrogates": ("return ['\\ud800', '\\udfff\\ud800']", ["\ud800", "\udfff\ud800"]),
    "bytes that are no JSON": ("return b'\\xff{\"'", None),
    "largest result": (f"return 'x' * ({RESPONSE_MAX} - 2)", "x" * (RESPONSE_MAX - 2)),
    "result one byte too large": (f"return 'x' * ({RESPONSE_MAX} - 1)", ("Function.ResponseSizeTooLarge", "6291556")),
    "json replaced": ("json.dumps = json.loads = json.JSONEncoder.encode = None\n    return 1", 1),
    "json's encoder replaced": ("json.encoder.c_make_encoder = None\n    json.encoder = None\n    return 1", 1),
    "every module forgotten": ("sys.modules.clear()\n    return 1", None),
    "builtins emptied": ("import builtins\n    vars(builtins).clear()", None),
    "the runtime's own modules replaced": (
        "sys.modules['_runtimed.payload'].write_result = lambda *_: b'\"replaced\"'\n    return 1",
        1,  # from the next call on
    ),
    "the channel's object found and used": (
        "import gc\n    c = [o for o in gc.get_objects() if type(o).__name__ == 'Channel']\n    return len(c)",
        None,
    ),
    "everything collected": (
        "import gc\n    gc.unfreeze()\n    gc.set_threshold(1)\n    gc.collect()\n    return 1",
        1,
    ),
    "sys.settrace": ("def t(*a): os._exit(8)\n    sys.settrace(t)\n    return 1", None),
    "sys.setprofile that raises": ("def t(*a): raise SystemExit(8)\n    sys.setprofile(t)\n    return 1", None),
    "signal handlers": (
        "import signal\n    for s in range(1, 32):\n        try: signal.signal(s, signal.SIG_IGN)\n"
        "        except OSError: pass\n    return 1",
        1,
    ),
    "a timer that interrupts the wait": (
        "import signal\n    signal.signal(signal.SIGALRM, lambda *_: None)\n"
        "    signal.setitimer(signal.ITIMER_REAL, .001, .001)\n"
        "    return 1",
        1,
    ),
    "standard streams replaced": (
        "sys.stdout = sys.__stdout__ = sys.stderr = sys.__stderr__ = None\n    return 1",
        None,
    ),
    "a crash": ("import ctypes\n    ctypes.string_at(0)", ("Runtime.ExitError", "signal: segmentation fault")),
    "an abort": ("os.abort()", ("Runtime.ExitError", "signal: aborted")),
    "exit handlers that hang": (
        "import atexit, time\n    atexit.register(time.sleep, 9)\n    os._exit(1)",
        ("Runtime.ExitError", ""),
    ),
    "threads without an end": (
        "import threading, time\n"
        "    for _ in range(50): threading.Thread(target=time.sleep, args=(99,)).start()\n    return 1",
        1,
    ),
}


@pytest.mark.case("escape", "the runtime in its own process: monkeypatches, exits, hostile exceptions, results, traces")
def test_deeds(arena: Arena, outcome: Outcome) -> None:
    """After each deed a plain call, which meets the environment that the deed left, or the next one."""
    name = arena.fresh(
        "import json, os, sys\ndef handler(event, context):\n    space = {'json': json, 'os': os, 'sys': sys}\n"
        "    exec(event, space)\n    return space['deed']()"
    )
    for what, (deed, expected) in DEEDS.items():
        called = arena.call(name, f"def deed():\n    {deed}")
        if isinstance(expected, tuple):
            error = called.error()
            assert error is not None, (what, called.payload[:200])
            assert error.error_type.startswith(expected[0]), (what, str(error)[:200])
            assert expected[1] in error.error_message, (what, str(error)[:200])
            assert len(called.payload) <= RESPONSE_MAX
        elif expected is not None:
            assert not called.failed and json.loads(called.payload) == expected, (what, called.payload[:200])
        # Whatever is left of that environment, or the next one, may fail one call more, and then answers.
        again = arena.call(name, "deed = lambda: 'well'")
        if again.failed:
            again = arena.call(name, "deed = lambda: 'well'")
        assert again.payload in (b'"well"', b'"replaced"'), (what, again.payload[:200])
        arena.call(name, "import os; os._exit(0)")
    outcome(f"{len(DEEDS)} deeds: a result, or Lambda's error for it; the call after next is answered rightly")


@pytest.mark.case("escape", "events of 6 MB, one byte more, and what is no JSON")
def test_payloads(arena: Arena, outcome: Outcome) -> None:
    name = arena.fresh("def handler(event, context):\n    return len(event)")
    assert arena.client.invoke(name, payload=b'"' + b"x" * (6 * MB - 2) + b'"').value == 6 * MB - 2
    with pytest.raises(Exception, match=r"6291456|too large|RequestEntityTooLarge"):
        arena.client.invoke(name, payload=b'"' + b"x" * (6 * MB - 1) + b'"')
    for payload in (b"[" * 100000, b"{", b"\xff", b'"\xed\xa0\x80"'):
        with pytest.raises(InvalidRequestContent):
            arena.client.invoke(name, payload=payload)
    outcome("6 MB come through, a byte more is refused with the limit, what is no JSON is refused before the function")


def test_memory_holds_no_other_functions_invocations(arena: Arena) -> None:
    """A process serves one function: what another was sent is in none of its pages, though both are copies of one."""
    event = "a secret event 9f" + "e1"
    arena.call(arena.fresh("def handler(event, context):\n    return event"), event)
    seen = arena.see("""
        import re
        pattern, found = re.compile(b"a secret event 9f[e]1"), 0
        memory = os.open("/proc/self/mem", os.O_RDONLY)
        with open("/proc/self/maps") as maps:
            for line in maps:
                begin, end = (int(part, 16) for part in line.split()[0].split("-"))
                if line.split()[1].startswith("r") and begin < 1 << 47:
                    try:
                        found += bool(pattern.search(os.pread(memory, end - begin, begin)))
                    except OSError:
                        pass
        show(found)
    """)
    assert seen == 0
