from . import functions_pb2 as _functions_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PublishVersionRequest(_message.Message):
    __slots__ = ("function_name", "code_sha256", "description", "revision_id")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    CODE_SHA256_FIELD_NUMBER: _ClassVar[int]
    DESCRIPTION_FIELD_NUMBER: _ClassVar[int]
    REVISION_ID_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    code_sha256: str
    description: str
    revision_id: str
    def __init__(self, function_name: _Optional[str] = ..., code_sha256: _Optional[str] = ..., description: _Optional[str] = ..., revision_id: _Optional[str] = ...) -> None: ...

class ListVersionsByFunctionRequest(_message.Message):
    __slots__ = ("function_name", "marker", "max_items")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    MARKER_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    marker: str
    max_items: int
    def __init__(self, function_name: _Optional[str] = ..., marker: _Optional[str] = ..., max_items: _Optional[int] = ...) -> None: ...

class ListVersionsByFunctionResponse(_message.Message):
    __slots__ = ("versions", "next_marker")
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NEXT_MARKER_FIELD_NUMBER: _ClassVar[int]
    versions: _containers.RepeatedCompositeFieldContainer[_functions_pb2.FunctionConfiguration]
    next_marker: str
    def __init__(self, versions: _Optional[_Iterable[_Union[_functions_pb2.FunctionConfiguration, _Mapping]]] = ..., next_marker: _Optional[str] = ...) -> None: ...
