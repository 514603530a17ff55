"""The rpcs of the package runtimed.v1, read from the generated descriptors."""

from __future__ import annotations

import importlib
import pkgutil
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from google.protobuf.descriptor import Descriptor, FileDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from msgspec import Struct

from runtimed.gateway.grpc import pb

if TYPE_CHECKING:
    from collections.abc import Mapping

UPLOAD_REQUEST = "request"
UPLOAD_CHUNK = "chunk"
"""The two parts of an upload's messages: `request` in the first one, `chunk` in all others."""


class Method(Struct, frozen=True, kw_only=True):
    """One rpc."""

    name: str
    service: str
    """The full name, as in runtimed.v1.Functions."""
    path: str
    input: type[Any]
    """The class of the messages that the client sends."""
    output: type[Any]
    request: Descriptor
    """The request itself: `input`, or for an upload the part of it."""
    response: Descriptor
    client_streaming: bool
    server_streaming: bool


def _files() -> list[FileDescriptor]:
    names = sorted(module.name for module in pkgutil.iter_modules(pb.__path__))
    return [importlib.import_module(f"{pb.__name__}.{name}").DESCRIPTOR for name in names]


def _method(method: MethodDescriptor) -> Method:
    request = method.input_type
    if method.client_streaming:
        part = request.fields_by_name[UPLOAD_REQUEST].message_type
        assert part is not None
        request = part
    service = method.containing_service.full_name
    return Method(
        name=method.name,
        service=service,
        path=f"/{service}/{method.name}",
        input=GetMessageClass(method.input_type),
        output=GetMessageClass(method.output_type),
        request=request,
        response=method.output_type,
        client_streaming=method.client_streaming,
        server_streaming=method.server_streaming,
    )


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        method.name: _method(method)
        for file in _files()
        for service in file.services_by_name.values()
        for method in service.methods
    }
)
