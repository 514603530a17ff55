"""Reserved and provisioned concurrency: what a function is sure to get, and what is kept ready for it."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

from msgspec import Meta, field

from runtimed.model import quotas
from runtimed.model.function import FunctionName, Qualifier
from runtimed.model.shape import UNSET, Shape, UnsetType

Reservation = Annotated[int, Meta(ge=0, le=2**31 - 1, description="a whole number from 0 up; 0 stops the function.")]
Provision = Annotated[int, Meta(ge=1, le=2**31 - 1, description="a whole number from 1 up.")]
PageSize = Annotated[
    int,
    Meta(ge=1, le=quotas.LIST_PAGE_ITEMS, description=f"a whole number from 1 to {quotas.LIST_PAGE_ITEMS}."),
]


class ProvisionedConcurrencyStatus(Enum):
    IN_PROGRESS = "IN_PROGRESS"
    READY = "READY"
    FAILED = "FAILED"
    """Not all that was asked for can be made; StatusReason says why. It is tried again, less and less often."""


class PutFunctionConcurrencyRequest(Shape, frozen=True, kw_only=True):
    """So many invocations of the function may run at a time, and nobody else has them."""

    function_name: FunctionName
    reserved_concurrent_executions: Reservation


class FunctionConcurrency(Shape, frozen=True, kw_only=True):
    reserved_concurrent_executions: int | UnsetType = UNSET
    """Absent: nothing is reserved."""


class GetFunctionConcurrencyRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName


class DeleteFunctionConcurrencyRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName


class DeleteFunctionConcurrencyResponse(Shape, frozen=True, kw_only=True):
    """No members."""


class PutProvisionedConcurrencyConfigRequest(Shape, frozen=True, kw_only=True):
    """So many environments of a version are kept ready."""

    function_name: FunctionName
    qualifier: Qualifier
    provisioned_concurrent_executions: Provision


class ProvisionedConcurrency(Shape, frozen=True, kw_only=True):
    """What was asked for, and what there is."""

    requested_provisioned_concurrent_executions: int
    available_provisioned_concurrent_executions: int
    """Environments that are initialized, at work or not."""
    allocated_provisioned_concurrent_executions: int
    """The same: an environment is allocated when it is ready."""
    status: ProvisionedConcurrencyStatus
    status_reason: str | UnsetType = UNSET
    last_modified: str
    """As Lambda writes it: 2026-01-31T12:00:00+0000."""


class GetProvisionedConcurrencyConfigRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    qualifier: Qualifier


class DeleteProvisionedConcurrencyConfigRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    qualifier: Qualifier


class DeleteProvisionedConcurrencyConfigResponse(Shape, frozen=True, kw_only=True):
    """No members."""


class ListProvisionedConcurrencyConfigsRequest(Shape, frozen=True, kw_only=True):
    """All of a function, by pages."""

    function_name: FunctionName
    marker: str = ""
    max_items: PageSize = quotas.LIST_PAGE_ITEMS


class ProvisionedConcurrencyItem(Shape, frozen=True, kw_only=True):
    """One of a list."""

    function_arn: str
    """With the qualifier."""
    requested_provisioned_concurrent_executions: int
    available_provisioned_concurrent_executions: int
    allocated_provisioned_concurrent_executions: int
    status: ProvisionedConcurrencyStatus
    status_reason: str | UnsetType = UNSET
    last_modified: str


class ListProvisionedConcurrencyConfigsResponse(Shape, frozen=True, kw_only=True):
    provisioned_concurrency_configs: list[ProvisionedConcurrencyItem] = field(default_factory=list)
    next_marker: str | UnsetType = UNSET
