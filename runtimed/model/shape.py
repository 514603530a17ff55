"""The base of every public shape: a frozen msgspec Struct whose members are spelled as the Lambda API spells them.

A member that may be absent has the default `UNSET`, which is not the same as null. `explain` turns msgspec's complaint
about a value into a sentence that says what would be accepted.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError

__all__ = ["UNSET", "Shape", "UnsetType", "explain"]

_AT = re.compile(r" - at `(?P<key>key` in `)?\$(?P<path>[^`]*)`$")
_MISSING = re.compile(r"^Object missing required field `(?P<field>[^`]+)`")
_UNKNOWN = re.compile(r"^Object contains unknown field `(?P<field>[^`]+)`")


class Shape(Struct, frozen=True, kw_only=True, rename="pascal"):
    """A request, a response, or a part of one."""


def explain(shape: type[Struct], error: ValidationError) -> str:
    """What is wrong with a value that msgspec refused, as a sentence about the member in question.

    The sentence is the `description` of the nearest limit on the way to the member, when it has one.
    """
    text = str(error)
    missing, unknown = _MISSING.match(text), _UNKNOWN.match(text)
    at = _AT.search(text)
    names = [name for name in re.split(r"\.|\[[^\]]*\]", at["path"]) if name] if at else []
    if missing:
        return f"{'.'.join([*names, missing['field']])} is missing."
    if unknown:
        return f"{'.'.join([*names, unknown['field']])} is not a member of this request."
    complaint = _AT.sub("", text)
    where = ".".join(names) or "The request"
    description = _describe(shape, names, key=bool(at and at["key"]))
    return f"{where}: {description}" if description else f"{where}: {complaint[:1].lower()}{complaint[1:]}."


def _describe(shape: Any, names: list[str], *, key: bool) -> str:
    """The description on the last limit met while walking `names` from `shape`; empty when there is none."""
    found = ""
    kind: Any = shape
    for name in names:
        struct = _struct_of(kind)
        if struct is None or name == "...":
            continue
        members = dict(zip(struct.__struct_encode_fields__, struct.__struct_fields__, strict=True))
        if name not in members:
            continue
        kind = get_type_hints(struct, include_extras=True)[members[name]]
        found = _description(kind) or found
    if names and _struct_of(kind) is None:
        found = _inner(kind, key=key) or _choices(kind) or found
    return found


def _options(kind: Any) -> tuple[Any, ...]:
    """The alternatives of a union, else the type itself."""
    arguments = get_args(kind)
    return arguments if arguments and get_origin(kind) not in (Annotated, list, dict, tuple) else (kind,)


def _struct_of(kind: Any) -> type[Struct] | None:
    for option in _options(kind):
        bare = get_args(option)[0] if get_origin(option) is Annotated else option
        if isinstance(bare, type) and issubclass(bare, Struct):
            return bare
    return None


def _description(kind: Any) -> str:
    for option in _options(kind):
        if get_origin(option) is Annotated:
            for extra in get_args(option)[1:]:
                if isinstance(extra, Meta) and extra.description:
                    return extra.description
    return ""


def _choices(kind: Any) -> str:
    """The values of an enumeration."""
    for option in _options(kind):
        if isinstance(option, type) and issubclass(option, Enum):
            return f"one of {', '.join(str(member.value) for member in option)}."
    return ""


def _inner(kind: Any, *, key: bool) -> str:
    """The description of a mapping's keys or values, or of a list's items."""
    for option in _options(kind):
        bare = get_args(option)[0] if get_origin(option) is Annotated else option
        if get_origin(bare) in (dict, list):
            return _description(get_args(bare)[0 if key or get_origin(bare) is list else 1])
    return ""
