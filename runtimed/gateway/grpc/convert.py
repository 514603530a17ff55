"""Messages to Structs and back, by their descriptors.

A field of the message and a field of the Struct belong together when they have the same name. A `Codec` is made once
for each pair of types and checks then that nothing is left over on either side. How the kinds correspond:

    field with presence (`optional`, messages)   left out when absent: the Struct's default, or UNSET
    enum                                         a Python Enum with the same member names; X_UNSPECIFIED: left out
    google.protobuf.Timestamp                    datetime in UTC
    map<string, string>, repeated, scalars       dict, list, the same scalar
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Generic, TypeVar, get_args, get_origin, get_type_hints

import msgspec
from google.protobuf.message_factory import GetMessageClass
from msgspec import UNSET, Struct

if TYPE_CHECKING:
    from enum import Enum

    from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor

S = TypeVar("S", bound=Struct)

_TIMESTAMP = "google.protobuf.Timestamp"
_ABSENT = object()


class _Field(Struct, frozen=True):
    name: str
    member: str
    """The field's name in the Struct's encoded form."""
    presence: bool
    read: Callable[[Any], Any]
    """From the message's value to what msgspec converts."""
    write: Callable[[Any], Any]


class Codec(Generic[S]):
    """Converts between one Struct and one message."""

    def __init__(self, shape: type[S], descriptor: Descriptor) -> None:
        """TypeError when the two do not have the same fields."""
        names = set(shape.__struct_fields__)
        if names != set(descriptor.fields_by_name):
            different = names ^ set(descriptor.fields_by_name)
            raise TypeError(f"{shape.__name__} and {descriptor.full_name} differ in: {', '.join(sorted(different))}")
        hints = get_type_hints(shape, include_extras=True)
        members = zip(shape.__struct_fields__, shape.__struct_encode_fields__, strict=True)
        self.shape = shape
        self._message = GetMessageClass(descriptor)
        self._fields = tuple(
            _field(name, member, hints[name], descriptor.fields_by_name[name]) for name, member in members
        )

    def decode(self, message: Any) -> S:
        """The Struct; msgspec.ValidationError when a value is outside of its limits."""
        return msgspec.convert(self.members(message), self.shape, builtin_types=(bytes, datetime))

    def members(self, message: Any) -> dict[str, Any]:
        """What the message holds, by the Struct's encoded names."""
        found = {}
        for field in self._fields:
            if field.presence and not message.HasField(field.name):
                continue
            value = field.read(getattr(message, field.name))
            if value is not _ABSENT:
                found[field.member] = value
        return found

    def encode(self, value: S) -> Any:
        """The message; ValueError or TypeError when it cannot hold a value (range of integers, text not UTF-8)."""
        return self._message(
            **{
                field.name: field.write(member)
                for field in self._fields
                if (member := getattr(value, field.name)) is not UNSET
            }
        )


def _field(name: str, member: str, hint: Any, field: FieldDescriptor) -> _Field:
    read: Callable[[Any], Any] = _same
    write: Callable[[Any], Any] = _same
    message = field.message_type
    if message is not None and message.GetOptions().map_entry:
        read = write = dict
    elif message is not None and message.full_name == _TIMESTAMP:
        read, write = _read_timestamp, _write_timestamp
    elif message is not None:
        codec = Codec(_bare(hint), message)
        read, write = codec.members, codec.encode
    elif field.enum_type is not None:
        read, write = _enum(_bare(hint), field.enum_type)
    if _repeated(field):
        read, write = _each(read), _each(write)
    return _Field(name, member, field.has_presence, read, write)


def _repeated(field: FieldDescriptor) -> bool:
    is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
    return bool(field.is_repeated) and not is_map


def _bare(hint: Any) -> Any:
    """The class inside of Annotated, list and unions with UNSET."""
    while get_origin(hint) is not None:
        hint = get_args(hint)[0]
    arguments = [argument for argument in get_args(hint) if argument is not msgspec.UnsetType]
    return _bare(arguments[0]) if arguments else hint


def _same(value: Any) -> Any:
    return value


def _each(convert: Callable[[Any], Any]) -> Callable[[Any], list[Any]]:
    return list if convert is _same else lambda values: [convert(value) for value in values]


def _enum(kind: type[Enum], descriptor: EnumDescriptor) -> tuple[Callable[[int], Any], Callable[[Enum], int]]:
    """Members correspond by name: LogFormat.JSON is LOG_FORMAT_JSON."""
    prefix = "".join(f"_{c}" if c.isupper() and i else c for i, c in enumerate(descriptor.name)).upper() + "_"
    numbers = {value.name.removeprefix(prefix): value.number for value in descriptor.values if value.number}
    if numbers.keys() != kind.__members__.keys():
        raise TypeError(f"{kind.__name__} and {descriptor.full_name} differ in their members")
    spellings = {0: _ABSENT} | {number: kind[name].value for name, number in numbers.items()}
    by_member: Mapping[Enum, int] = {kind[name]: number for name, number in numbers.items()}
    return lambda number: spellings.get(number, str(number)), by_member.__getitem__


def _read_timestamp(value: Any) -> datetime:
    moment: datetime = value.ToDatetime(tzinfo=UTC)
    return moment


def _write_timestamp(moment: datetime) -> Any:
    from google.protobuf.timestamp_pb2 import Timestamp

    value = Timestamp()
    value.FromDatetime(moment.astimezone(UTC))
    return value
