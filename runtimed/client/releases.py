"""Versions and aliases, as `flows` has functions: what takes more than one call, and the requests of both clients."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from msgspec import UNSET, UnsetType

from runtimed.client import flows, rpc
from runtimed.client.build import Progress
from runtimed.client.errors import ClientError
from runtimed.client.flows import Call, Flow, Settings
from runtimed.model import errors
from runtimed.model.alias import (
    AliasConfiguration,
    AliasRoutingConfiguration,
    CreateAliasRequest,
    ListAliasesRequest,
    ListAliasesResponse,
    UpdateAliasRequest,
)
from runtimed.model.function import FunctionConfiguration
from runtimed.model.version import (
    ListVersionsByFunctionRequest,
    ListVersionsByFunctionResponse,
    PublishVersionRequest,
)

Weights = Mapping[str, float] | Mapping[int, float]
"""Another version's number and its share of an alias' invocations, from 0.0 to 1.0; at most one. Empty: none."""


class Publication(TypedDict, total=False):
    """Of a version, besides what it is made of."""

    description: str | UnsetType
    """The version's own; without one, the function's."""
    code_sha256: str | UnsetType
    """Publish only code with this digest."""
    revision_id: str | UnsetType
    """Publish only this revision of the function."""


class Move(TypedDict, total=False):
    """What of an alias shall be different."""

    version: str | int | UnsetType
    weights: Weights | UnsetType
    description: str | UnsetType
    revision_id: str | UnsetType
    """Only if this is its current revision."""


def deploy(
    name: str,
    code: bytes | Path,
    settings: Settings,
    progress: Progress | None,
    wait: float | None,
    publish: bool,
    alias: str,
) -> Flow[FunctionConfiguration]:
    """`flows.deploy`; with `publish` what was deployed becomes a version, which is then returned, and `alias` leads
    to it."""
    if alias and not publish:
        raise ClientError("an alias leads to a version: deploy with publish=True as well")
    if not publish:
        return (yield from flows.deploy(name, code, settings, progress, wait))
    if wait is None:
        raise ClientError("a version is published of what is Active: give the seconds to wait for that")
    if alias:
        rpc.encode(rpc.UPDATE_ALIAS, _all_of(name, alias, "1"))  # a bad name is told before anything is packed
    deployed = yield from flows.deploy(name, code, settings, progress, wait)
    _tell(progress, "publishing")
    version = yield Call(
        rpc.PUBLISH_VERSION, PublishVersionRequest(function_name=name, revision_id=deployed.revision_id)
    )
    made = yield from flows.wait_until_active(name, wait, version.version)
    if alias:
        _tell(progress, "moving")
        yield from lead(name, alias, made.version)
    return made


def lead(name: str, alias: str, version: str) -> Flow[AliasConfiguration]:
    """The alias, which is made if there is none, leads to the version with all of its invocations."""
    moved: AliasConfiguration
    try:
        moved = yield Call(rpc.UPDATE_ALIAS, _all_of(name, alias, version))
    except errors.ResourceNotFound:
        moved = yield Call(
            rpc.CREATE_ALIAS, CreateAliasRequest(function_name=name, name=alias, function_version=version)
        )
    return moved


def list_versions(name: str, limit: int | None) -> Flow[list[FunctionConfiguration]]:
    def page(marker: str) -> Call:
        return Call(rpc.LIST_VERSIONS, ListVersionsByFunctionRequest(function_name=name, marker=marker))

    return (yield from flows.pages(page, _versions, limit))


def list_aliases(name: str, version: str, limit: int | None) -> Flow[list[AliasConfiguration]]:
    def page(marker: str) -> Call:
        request = ListAliasesRequest(function_name=name, function_version=version, marker=marker)
        return Call(rpc.LIST_ALIASES, request)

    return (yield from flows.pages(page, _aliases, limit))


def _versions(response: ListVersionsByFunctionResponse) -> list[FunctionConfiguration]:
    return response.versions


def _aliases(response: ListAliasesResponse) -> list[AliasConfiguration]:
    return response.aliases


def publish(name: str, publication: Publication) -> PublishVersionRequest:
    return PublishVersionRequest(function_name=name, **publication)


def create_alias(
    name: str, alias: str, version: str | int, weights: Weights | UnsetType, description: str
) -> CreateAliasRequest:
    return CreateAliasRequest(
        function_name=name,
        name=alias,
        function_version=str(version),
        description=description,
        routing_config=_routing(weights),
    )


def update_alias(name: str, alias: str, move: Move) -> UpdateAliasRequest:
    version = move.get("version", UNSET)
    return UpdateAliasRequest(
        function_name=name,
        name=alias,
        function_version=UNSET if version is UNSET else str(version),
        description=move.get("description", UNSET),
        routing_config=_routing(move.get("weights", UNSET)),
        revision_id=move.get("revision_id", UNSET),
    )


def _routing(weights: Weights | UnsetType) -> AliasRoutingConfiguration | UnsetType:
    if weights is UNSET:
        return UNSET
    return AliasRoutingConfiguration(additional_version_weights={str(one): share for one, share in weights.items()})


def _all_of(name: str, alias: str, version: str) -> UpdateAliasRequest:
    return UpdateAliasRequest(
        function_name=name, name=alias, function_version=version, routing_config=AliasRoutingConfiguration()
    )


def _tell(progress: Progress | None, stage: str) -> None:
    if progress is not None:
        progress(stage, 0, 0)
