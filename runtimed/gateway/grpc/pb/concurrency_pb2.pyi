from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ProvisionedConcurrencyStatus(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PROVISIONED_CONCURRENCY_STATUS_UNSPECIFIED: _ClassVar[ProvisionedConcurrencyStatus]
    PROVISIONED_CONCURRENCY_STATUS_IN_PROGRESS: _ClassVar[ProvisionedConcurrencyStatus]
    PROVISIONED_CONCURRENCY_STATUS_READY: _ClassVar[ProvisionedConcurrencyStatus]
    PROVISIONED_CONCURRENCY_STATUS_FAILED: _ClassVar[ProvisionedConcurrencyStatus]
PROVISIONED_CONCURRENCY_STATUS_UNSPECIFIED: ProvisionedConcurrencyStatus
PROVISIONED_CONCURRENCY_STATUS_IN_PROGRESS: ProvisionedConcurrencyStatus
PROVISIONED_CONCURRENCY_STATUS_READY: ProvisionedConcurrencyStatus
PROVISIONED_CONCURRENCY_STATUS_FAILED: ProvisionedConcurrencyStatus

class PutFunctionConcurrencyRequest(_message.Message):
    __slots__ = ("function_name", "reserved_concurrent_executions")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    RESERVED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    reserved_concurrent_executions: int
    def __init__(self, function_name: _Optional[str] = ..., reserved_concurrent_executions: _Optional[int] = ...) -> None: ...

class FunctionConcurrency(_message.Message):
    __slots__ = ("reserved_concurrent_executions",)
    RESERVED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    reserved_concurrent_executions: int
    def __init__(self, reserved_concurrent_executions: _Optional[int] = ...) -> None: ...

class GetFunctionConcurrencyRequest(_message.Message):
    __slots__ = ("function_name",)
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    def __init__(self, function_name: _Optional[str] = ...) -> None: ...

class DeleteFunctionConcurrencyRequest(_message.Message):
    __slots__ = ("function_name",)
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    def __init__(self, function_name: _Optional[str] = ...) -> None: ...

class DeleteFunctionConcurrencyResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class PutProvisionedConcurrencyConfigRequest(_message.Message):
    __slots__ = ("function_name", "qualifier", "provisioned_concurrent_executions")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    PROVISIONED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    provisioned_concurrent_executions: int
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ..., provisioned_concurrent_executions: _Optional[int] = ...) -> None: ...

class ProvisionedConcurrency(_message.Message):
    __slots__ = ("requested_provisioned_concurrent_executions", "available_provisioned_concurrent_executions", "allocated_provisioned_concurrent_executions", "status", "status_reason", "last_modified")
    REQUESTED_PROVISIONED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_PROVISIONED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_PROVISIONED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    requested_provisioned_concurrent_executions: int
    available_provisioned_concurrent_executions: int
    allocated_provisioned_concurrent_executions: int
    status: ProvisionedConcurrencyStatus
    status_reason: str
    last_modified: str
    def __init__(self, requested_provisioned_concurrent_executions: _Optional[int] = ..., available_provisioned_concurrent_executions: _Optional[int] = ..., allocated_provisioned_concurrent_executions: _Optional[int] = ..., status: _Optional[_Union[ProvisionedConcurrencyStatus, str]] = ..., status_reason: _Optional[str] = ..., last_modified: _Optional[str] = ...) -> None: ...

class GetProvisionedConcurrencyConfigRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class DeleteProvisionedConcurrencyConfigRequest(_message.Message):
    __slots__ = ("function_name", "qualifier")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    QUALIFIER_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    qualifier: str
    def __init__(self, function_name: _Optional[str] = ..., qualifier: _Optional[str] = ...) -> None: ...

class DeleteProvisionedConcurrencyConfigResponse(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ListProvisionedConcurrencyConfigsRequest(_message.Message):
    __slots__ = ("function_name", "marker", "max_items")
    FUNCTION_NAME_FIELD_NUMBER: _ClassVar[int]
    MARKER_FIELD_NUMBER: _ClassVar[int]
    MAX_ITEMS_FIELD_NUMBER: _ClassVar[int]
    function_name: str
    marker: str
    max_items: int
    def __init__(self, function_name: _Optional[str] = ..., marker: _Optional[str] = ..., max_items: _Optional[int] = ...) -> None: ...

class ProvisionedConcurrencyItem(_message.Message):
    __slots__ = ("function_arn", "requested_provisioned_concurrent_executions", "available_provisioned_concurrent_executions", "allocated_provisioned_concurrent_executions", "status", "status_reason", "last_modified")
    FUNCTION_ARN_FIELD_NUMBER: _ClassVar[int]
    REQUESTED_PROVISIONED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    AVAILABLE_PROVISIONED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    ALLOCATED_PROVISIONED_CONCURRENT_EXECUTIONS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    STATUS_REASON_FIELD_NUMBER: _ClassVar[int]
    LAST_MODIFIED_FIELD_NUMBER: _ClassVar[int]
    function_arn: str
    requested_provisioned_concurrent_executions: int
    available_provisioned_concurrent_executions: int
    allocated_provisioned_concurrent_executions: int
    status: ProvisionedConcurrencyStatus
    status_reason: str
    last_modified: str
    def __init__(self, function_arn: _Optional[str] = ..., requested_provisioned_concurrent_executions: _Optional[int] = ..., available_provisioned_concurrent_executions: _Optional[int] = ..., allocated_provisioned_concurrent_executions: _Optional[int] = ..., status: _Optional[_Union[ProvisionedConcurrencyStatus, str]] = ..., status_reason: _Optional[str] = ..., last_modified: _Optional[str] = ...) -> None: ...

class ListProvisionedConcurrencyConfigsResponse(_message.Message):
    __slots__ = ("provisioned_concurrency_configs", "next_marker")
    PROVISIONED_CONCURRENCY_CONFIGS_FIELD_NUMBER: _ClassVar[int]
    NEXT_MARKER_FIELD_NUMBER: _ClassVar[int]
    provisioned_concurrency_configs: _containers.RepeatedCompositeFieldContainer[ProvisionedConcurrencyItem]
    next_marker: str
    def __init__(self, provisioned_concurrency_configs: _Optional[_Iterable[_Union[ProvisionedConcurrencyItem, _Mapping]]] = ..., next_marker: _Optional[str] = ...) -> None: ...
