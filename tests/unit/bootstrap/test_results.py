"""How values become JSON: what AWS's Python runtime (simplejson) does where the standard library does otherwise."""

from __future__ import annotations

import pytest

from tests.unit.bootstrap.conftest import Make

PRELUDE = """\
import collections, dataclasses, decimal, enum
from decimal import Decimal
Point = collections.namedtuple("Point", "x y")

class Colour(enum.IntEnum):
    RED = 1

class Name(str, enum.Enum):
    A = "a"

def handler(event, context):
    return eval(event)
"""


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("None", "null"),
        ("{'a': [1, 2.5, True, None, 'x']}", '{"a": [1, 2.5, true, null, "x"]}'),
        ("(1, (2,))", "[1, [2]]"),
        ("{1: 'a', None: 'b', True: 'c', 2.5: 'd'}", '{"1": "c", "null": "b", "2.5": "d"}'),
        ("float('nan')", "NaN"),
        ("[float('inf'), -float('inf')]", "[Infinity, -Infinity]"),
        ("Decimal('3.14159')", "3.14159"),
        ("{'price': Decimal('10'), 'n': 1}", '{"price": 10, "n": 1}'),
        ("[Decimal('1E+5'), Decimal('-0.10')]", "[1E+5, -0.10]"),
        ("[Decimal('nan'), Decimal('-nan')]", "[NaN, NaN]"),
        ("Point(1, Decimal('2'))", '{"x": 1, "y": 2}'),
        ("{'p': [Point(1, Point(2, 3))]}", '{"p": [{"x": 1, "y": {"x": 2, "y": 3}}]}'),
        ("[[Decimal('1')]] * 2", "[[1], [1]]"),
        ("{'a': b'bytes'}", '{"a": "bytes"}'),
        ("{b'key': 1}", '{"key": 1}'),
        ("[Colour.RED, Name.A]", '[1, "a"]'),
        ("collections.OrderedDict(b=1, a=2)", '{"b": 1, "a": 2}'),
        ("[[]] * 3", "[[], [], []]"),
        ("'quote \" backslash \\\\ tab \\t'", '"quote \\" backslash \\\\ tab \\t"'),
    ],
)
def test_values(make: Make, expression: str, text: str) -> None:
    with make(PRELUDE) as environment:
        environment.start()
        answer = environment.invoke(expression)
        assert not answer.failed, answer.body
        assert answer.body.decode() == text


def test_bytes_go_out_as_they_are(make: Make) -> None:
    with make(PRELUDE) as environment:
        environment.start()
        assert environment.invoke("b'\\x89PNG'").body == b"\x89PNG"


def test_bytes_that_are_not_text(make: Make) -> None:
    with make(PRELUDE) as environment:
        environment.start()
        answer = environment.invoke("{'a': b'\\xff'}")
        assert answer.error_type == "Runtime.MarshalError"


def test_characters_outside_ascii(make: Make, python: str) -> None:
    """Escaped until 3.11, as they are from 3.12, as in AWS's managed runtimes."""
    with make(PRELUDE) as environment:
        environment.start()
        answer = environment.invoke("{'price': '\\u00a31', 'd': Decimal('1')}")
        assert answer.json == {"price": "£1", "d": 1}
        escaped = b"\\u00a3" in answer.body
        assert escaped == (environment.invoke("__import__('sys').version_info < (3, 12)").json)


def test_half_a_surrogate_pair_is_escaped(make: Make) -> None:
    with make(PRELUDE) as environment:
        environment.start()
        assert environment.invoke("{'\\ud800': '\\udfff \\u00e9'}").json == {"\ud800": "\udfff é"}


def test_error_message_with_half_a_surrogate_pair(make: Make) -> None:
    with make("def handler(event, context):\n    raise ValueError('\\ud800')\n") as environment:
        environment.start()
        assert environment.invoke().json["errorMessage"] == "\ud800"
        assert environment.read_log().startswith("[ERROR] ValueError: \\ud800\n")


def test_encoder_is_usable_after_a_failure(make: Make) -> None:
    with make(PRELUDE + "value = [[object()]]\n") as environment:
        environment.start()
        assert environment.invoke("value").failed
        assert environment.invoke("value[0].clear() or [value, value]").body == b"[[[]], [[]]]"


def test_deep_values(make: Make) -> None:
    source = """\
        def handler(event, context):
            value = 1
            for _ in range(event):
                value = [value]
            return value
        """
    with make(source) as environment:
        environment.start()
        assert environment.invoke(100).body == b"[" * 100 + b"1" + b"]" * 100
        assert environment.invoke(100_000).error_type == "Runtime.MarshalError"
        assert environment.invoke(1).json == [1]
