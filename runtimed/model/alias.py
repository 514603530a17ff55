"""Aliases: names for versions of a function, which can be moved from one to another."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, field

from runtimed.model import quotas
from runtimed.model.function import Description, FunctionName
from runtimed.model.shape import UNSET, Shape, UnsetType

AliasName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=quotas.ALIAS_CHARACTERS,
        pattern=r"^(?![0-9]+$)[a-zA-Z0-9-_]+$",
        description="1 to 128 letters, digits, hyphens and underscores, and not digits alone.",
    ),
]
VersionName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=quotas.QUALIFIER_CHARACTERS,
        pattern=r"^(\$LATEST|[0-9]+)$",
        description="$LATEST, or the number of a published version.",
    ),
]
Number = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=quotas.QUALIFIER_CHARACTERS,
        pattern=r"^[0-9]+$",
        description="the number of a published version.",
    ),
]
Weight = Annotated[float, Meta(ge=0.0, le=1.0, description="a share of the invocations, from 0.0 to 1.0.")]


class AliasRoutingConfiguration(Shape, frozen=True, kw_only=True):
    """At most one other version, and the share of the invocations that go to it."""

    additional_version_weights: Annotated[
        dict[Number, Weight], Meta(max_length=1, description="one additional version at most.")
    ] = field(default_factory=dict)


class AliasConfiguration(Shape, frozen=True, kw_only=True):
    """An alias as it is."""

    alias_arn: str
    name: str
    function_version: str
    description: str
    routing_config: AliasRoutingConfiguration | UnsetType = UNSET
    """Absent: all invocations go to `function_version`."""
    revision_id: str


class CreateAliasRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    name: AliasName
    function_version: VersionName
    description: Description = ""
    routing_config: AliasRoutingConfiguration | UnsetType = UNSET


class UpdateAliasRequest(Shape, frozen=True, kw_only=True):
    """What is absent stays as it is."""

    function_name: FunctionName
    name: AliasName
    function_version: VersionName | UnsetType = UNSET
    description: Description | UnsetType = UNSET
    routing_config: AliasRoutingConfiguration | UnsetType = UNSET
    """Without weights: all invocations go to `function_version` again."""
    revision_id: str | UnsetType = UNSET
    """When given: the change is made only if this is the current revision."""


class GetAliasRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    name: AliasName


class DeleteAliasRequest(Shape, frozen=True, kw_only=True):
    function_name: FunctionName
    name: AliasName


class DeleteAliasResponse(Shape, frozen=True, kw_only=True):
    """Empty: the alias is gone."""


class ListAliasesRequest(Shape, frozen=True, kw_only=True):
    """One page of a function's aliases in the order of their names."""

    function_name: FunctionName
    function_version: str = ""
    """Only those that lead to this version."""
    marker: str = ""
    """`next_marker` of the page before; empty: the first page."""
    max_items: Annotated[int, Meta(ge=1, le=quotas.LIST_ITEMS_MAX, description="a whole number from 1 to 10000.")] = (
        quotas.LIST_PAGE_ITEMS
    )
    """A page holds at most 50, whatever is asked for."""


class ListAliasesResponse(Shape, frozen=True, kw_only=True):
    aliases: list[AliasConfiguration]
    next_marker: str | UnsetType = UNSET
    """Where the next page begins; absent on the last."""
