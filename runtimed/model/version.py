"""Published versions: what a function was at one moment, under a number that never comes back."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from runtimed.model import quotas
from runtimed.model.function import Description, FunctionConfiguration, FunctionName, Sha256
from runtimed.model.shape import UNSET, Shape, UnsetType

NUMBER_DIGITS = 15
"""Of a version's number: nobody publishes so many. Lambda's pattern allows 1,024."""

PageSize = Annotated[
    int, Meta(ge=1, le=quotas.LIST_ITEMS_MAX, description=f"a whole number from 1 to {quotas.LIST_ITEMS_MAX}.")
]


class PublishVersionRequest(Shape, frozen=True, kw_only=True):
    """The function's code and configuration become a version. Unchanged since the last one: that one is answered."""

    function_name: FunctionName
    code_sha256: Sha256 | UnsetType = UNSET
    """When given: only code with this digest is published."""
    description: Description | UnsetType = UNSET
    """The version's own; absent: the function's."""
    revision_id: str | UnsetType = UNSET
    """When given: published only if this is the function's current revision."""


class ListVersionsByFunctionRequest(Shape, frozen=True, kw_only=True):
    """One page of a function's versions: $LATEST, then the published ones in the order of their numbers."""

    function_name: FunctionName
    marker: str = ""
    """`next_marker` of the page before; empty: the first page."""
    max_items: PageSize = quotas.LIST_PAGE_ITEMS
    """A page holds at most 50, whatever is asked for."""


class ListVersionsByFunctionResponse(Shape, frozen=True, kw_only=True):
    versions: list[FunctionConfiguration]
    next_marker: str | UnsetType = UNSET
    """Where the next page begins; absent on the last."""


def is_number(qualifier: str) -> bool:
    """Whether it stands for a published version: an alias' name has something else than digits."""
    return qualifier.isascii() and qualifier.isdigit()


def number_of(qualifier: str) -> int:
    """Of a qualifier of digits; 0, which no version has, for one that is no number's usual spelling."""
    usual = is_number(qualifier) and qualifier[0] != "0" and len(qualifier) <= NUMBER_DIGITS
    return int(qualifier) if usual else 0
