"""The requests that both clients make from what their methods are given."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, TypedDict

import msgspec
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from runtimed.client import rpc
from runtimed.client.errors import TimedOut, Unreachable
from runtimed.client.flows import Settings, encode_event
from runtimed.model import concurrency, errors, quotas
from runtimed.model.function import UpdateFunctionConfigurationRequest
from runtimed.model.invocation import InvocationType, InvokeRequest, LogType
from runtimed.model.log import LogEvent, LogKind, TailLogsRequest
from runtimed.model.node import GetStatisticsRequest, StatisticsOrder, WatchStatisticsRequest
from runtimed.model.queue import PutFunctionEventInvokeConfigRequest

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from runtimed.client.address import Address

INVOKE_SECONDS = quotas.TIMEOUT_SECONDS_MAX + 60.0
"""Longer than any function may run, its init phase included."""
UPLOAD_SECONDS = 900.0
FOLLOW_PATIENCE_SECONDS = 30.0
"""How long a lost daemon is waited for by who follows a log: the time that a restart of the whole node takes."""
READ_PATIENCE_SECONDS = 2.0
LONGEST_PAUSE = 1.0


class Retrying(TypedDict, total=False):
    """How a function's events are retried."""

    retries: int | UnsetType
    """After the first attempt, 0 to 30; Lambda: 2 at most."""
    maximum_age: int | UnsetType
    """Seconds, 60 to 21600."""
    retry_delay_ms: int | UnsetType
    """Before the first retry; before the n-th n times that."""


def retrying(name: str, qualifier: str, rules: Retrying) -> PutFunctionEventInvokeConfigRequest:
    return PutFunctionEventInvokeConfigRequest(
        function_name=name,
        qualifier=qualifier,
        retry_attempts=rules.get("retries", UNSET),
        maximum_event_age_in_seconds=rules.get("maximum_age", UNSET),
        retry_delay_milliseconds=rules.get("retry_delay_ms", UNSET),
    )


def update_configuration(
    name: str, revision_id: str | UnsetType, settings: Settings
) -> UpdateFunctionConfigurationRequest:
    return UpdateFunctionConfigurationRequest(function_name=name, revision_id=revision_id, **settings.members())


def invoke(
    name: str,
    event: Any,
    payload: bytes | None,
    qualifier: str,
    log_tail: bool,
    client_context: dict[str, Any] | None,
    dry_run: bool,
    asynchronous: bool = False,
    event_id: str = "",
) -> InvokeRequest:
    data = encode_event(event, payload)
    most = quotas.EVENT_BYTES if asynchronous else quotas.PAYLOAD_BYTES
    if len(data) > most:
        raise errors.RequestTooLarge(
            f"Payload: {len(data)} bytes are more than the {most} that an invocation of this type takes. "
            "Pass a reference to the data instead."
        )
    return InvokeRequest(
        function_name=name,
        qualifier=qualifier,
        invocation_type=InvocationType.EVENT
        if asynchronous
        else InvocationType.DRY_RUN
        if dry_run
        else InvocationType.REQUEST_RESPONSE,
        log_type=LogType.TAIL if log_tail else LogType.NONE,
        client_context=base64.b64encode(msgspec.json.encode(client_context)).decode() if client_context else "",
        payload=data,
        event_id=event_id,
    )


class Wanted(TypedDict, total=False):
    """Which events of a log, as the clients' `logs` takes them; all together when several are given."""

    follow: bool
    """Go on with what is written from now on, over restarts of the daemon."""
    since: datetime | None
    until: datetime | None
    version: str
    """Of one version: its number, or $LATEST."""
    request_id: str
    """Of one invocation."""
    contains: Sequence[str]
    """Whose message contains each of these texts."""
    limit: int | None
    """The last so many; with `follow`: and then all that come."""


def provision(name: str, executions: int, qualifier: str) -> concurrency.PutProvisionedConcurrencyConfigRequest:
    return concurrency.PutProvisionedConcurrencyConfigRequest(
        function_name=name, qualifier=qualifier, provisioned_concurrent_executions=executions
    )


def provisioned(name: str) -> concurrency.ListProvisionedConcurrencyConfigsRequest:
    """A page holds more than a function has versions with anything provisioned."""
    return concurrency.ListProvisionedConcurrencyConfigsRequest(function_name=name)


def unprovision(name: str, qualifier: str) -> concurrency.DeleteProvisionedConcurrencyConfigRequest:
    return concurrency.DeleteProvisionedConcurrencyConfigRequest(function_name=name, qualifier=qualifier)


def by_qualifier(
    listed: concurrency.ListProvisionedConcurrencyConfigsResponse,
) -> dict[str, concurrency.ProvisionedConcurrency]:
    return {
        item.function_arn.rpartition(":")[2]: concurrency.ProvisionedConcurrency(
            **{member: getattr(item, member) for member in concurrency.ProvisionedConcurrency.__struct_fields__}
        )
        for item in listed.provisioned_concurrency_configs
    }


def tail_logs(name: str, wanted: Wanted) -> TailLogsRequest:
    since, until, limit = wanted.get("since"), wanted.get("until"), wanted.get("limit")
    follow = wanted.get("follow", False)
    return TailLogsRequest(
        function_name=name,
        follow=follow,
        since=UNSET if since is None else since.astimezone(),
        until=UNSET if until is None else until.astimezone(),
        version=wanted.get("version", ""),
        request_id=wanted.get("request_id", "").lower(),
        contains=list(wanted.get("contains", ())),
        limit=UNSET if limit is None else limit,
        positions=True,
    )


def get_statistics(name: str, order: str, limit: int) -> GetStatisticsRequest:
    return GetStatisticsRequest(function_name=name, order=_order(order), max_items=limit)


def watch_statistics(name: str, order: str, limit: int, interval: float) -> WatchStatisticsRequest:
    return WatchStatisticsRequest(
        function_name=name, order=_order(order), max_items=limit, interval_ms=round(interval * 1000)
    )


def _order(text: str) -> StatisticsOrder:
    try:
        return StatisticsOrder(text)
    except ValueError:
        known = ", ".join(order.value for order in StatisticsOrder)
        raise errors.InvalidParameterValue(f"Order: {text} is not one of {known}.") from None


class Reading:
    """A log as it is read, over as many streams as it takes: each begins behind what the one before it told."""

    def __init__(self, name: str, wanted: Wanted, address: Address) -> None:
        self.request = tail_logs(name, wanted)
        self._address = address
        self._progress = False
        self._failures = 0
        self._lost_at: float | None = None

    def take(self, event: LogEvent) -> bool:
        """Notes how far the log was read. Whether the event is one for the caller."""
        if event.cursor:
            # From here on it is the cursor that says where to go on, and no limit.
            self.request = replace(self.request, after=event.cursor, limit=UNSET)
            self._progress = True
        self._failures, self._lost_at = 0, None
        return event.kind is not LogKind.POSITION

    def pause(self, error: Exception, now: float) -> float:
        """The seconds after which to ask again; raises `error` when that would not help, or too much time has gone by.

        `now`: of a monotonic clock.
        """
        # Its socket goes with a daemon and comes back with the next: who follows waits for that too.
        passing = rpc.passing(error, self._address) or (self.request.follow and isinstance(error, Unreachable))
        passing = passing or (isinstance(error, TimedOut) and self._lost_at is None)
        if self._lost_at is None:
            self._lost_at = now
        patience = FOLLOW_PATIENCE_SECONDS if self.request.follow else READ_PATIENCE_SECONDS
        if not self._progress or not passing or now - self._lost_at > patience:
            raise error from None
        self._failures += 1
        return float(min(LONGEST_PAUSE, rpc.FIRST_PAUSE * 2**self._failures))
