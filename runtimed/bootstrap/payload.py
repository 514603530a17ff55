"""Events and results: JSON as AWS's Python runtime reads and writes it.

That runtime uses simplejson, which differs from the standard library in what functions rely on: a Decimal is written as
a number, a namedtuple as an object, bytes as text; Python 3.12 and later write characters outside ASCII as they are.
The standard encoder does the common case; what it cannot say goes through `_simplify` first.
"""

import json
import math
import sys
from json import encoder as _json

from .errors import MARSHAL, UNMARSHAL, Fault, shorten, text_of

ENSURE_ASCII = sys.version_info < (3, 12)

_decoder = json.JSONDecoder()
_escape_ascii = _json.encode_basestring_ascii
_escape = _escape_ascii if ENSURE_ASCII else _json.encode_basestring


class _Unplain(Exception):
    """The encoder met a value that has to be simplified first."""


class _Number(str):
    """Text that stands in JSON without quotes."""

    __slots__ = ()


def _is_decimal(value):
    decimal = sys.modules.get("decimal")
    return decimal is not None and isinstance(value, decimal.Decimal)


def _default(value):
    if isinstance(value, bytes) or _is_decimal(value):
        raise _Unplain
    raise TypeError("Object of type %s is not JSON serializable" % value.__class__.__name__)


def _escape_or_number(text):
    return text if type(text) is _Number else _escape(text)


def _escape_ascii_or_number(text):
    return text if type(text) is _Number else _escape_ascii(text)


class _Encoder:
    """One reusable encoder: making the standard one anew for each result would cost more than most results."""

    def __init__(self, escape):
        self.seen = {}  # containers on the way to where the encoder stands: finds circles
        self.chunks = _json.c_make_encoder(self.seen, _default, escape, None, ": ", ", ", False, False, True)

    def encode(self, value):
        try:
            return "".join(self.chunks(value, 0))
        except BaseException:
            self.seen.clear()
            raise


_plain = _Encoder(_escape)
_simplified = _Encoder(_escape_or_number)
_simplified_ascii = _Encoder(_escape_ascii_or_number)


def _simplify_key(key):
    return key.decode("utf-8") if isinstance(key, bytes) else key


def _simplify(value, seen):
    """A copy in which every value is one that the encoder writes as it should."""
    if isinstance(value, (list, tuple, dict)):
        if id(value) in seen:
            raise ValueError("Circular reference detected")
        seen.add(id(value))
        if isinstance(value, tuple) and callable(getattr(value, "_asdict", None)):
            result = {key: _simplify(item, seen) for key, item in value._asdict().items()}
        elif isinstance(value, dict):
            result = {_simplify_key(key): _simplify(item, seen) for key, item in value.items()}
        else:
            result = [_simplify(item, seen) for item in value]
        seen.discard(id(value))
        return result
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if _is_decimal(value):
        return math.nan if value.is_nan() else _Number(value)
    return value


def to_json(value, has_records=None):
    """UTF-8. `has_records(value)`: may there be namedtuples in it? Without it they are looked for."""
    try:
        if has_records is None or has_records(value):
            raise _Unplain
        text = _plain.encode(value)
    except (_Unplain, TypeError):
        value = _simplify(value, set())
        text = _simplified.encode(value)
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # Half a surrogate pair can only be written escaped.
        return _simplified_ascii.encode(_simplify(value, set())).encode("utf-8")


def read_json(body):
    """The value of UTF-8 bytes. The bare scanner does what is JSON and nothing else; the decoder around it deals with
    spaces and says what is wrong."""
    text = str(body, "utf-8")
    try:
        value, end = _decoder.scan_once(text, 0)
        if end == len(text):
            return value
    except StopIteration:
        pass
    return _decoder.decode(text)


def read_event(body):
    """The event of an invocation's bytes; none at all is an empty object, as Lambda's own API makes it."""
    if not body:
        return {}
    try:
        return read_json(body)
    except Exception as error:
        raise Fault(UNMARSHAL, "Unable to unmarshal input: " + text_of(error)) from None


def write_result(result, has_records=None):
    """The bytes of a result; bytes go out as they are."""
    if isinstance(result, bytes):
        return result
    try:
        return to_json(result, has_records)
    except Exception as error:
        raise Fault(MARSHAL, "Unable to marshal response: " + text_of(error)) from None


def error_json(described, limit):
    """An error object's bytes, cut down in steps when they are more than can be sent."""
    body = to_json(described)
    for frames, characters in ((100, 65536), (40, 256), (4, 128)):
        if len(body) <= limit:
            break
        body = to_json(shorten(described, frames, characters))
    return body
