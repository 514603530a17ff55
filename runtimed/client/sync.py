"""The SDK's blocking client."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from msgspec import UNSET, UnsetType

from runtimed.client import flows, releases, requests, rpc
from runtimed.client.build import Progress
from runtimed.client.connection import Connection
from runtimed.client.errors import TimedOut, Unreachable
from runtimed.client.flows import Given, Settings
from runtimed.client.result import Result
from runtimed.client.stream import ResultStream
from runtimed.model import alias as aliases
from runtimed.model import concurrency, errors, function, log, node, queue, runtime
from runtimed.model import key as keys

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator


class Client(Connection):
    """A connection to a daemon; may be shared by threads."""

    # ---- functions

    def deploy(
        self,
        name: str,
        code: bytes | str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        wait: float | None = 300.0,
        publish: bool = False,
        alias: str = "",
        **given: Unpack[Given],
    ) -> function.FunctionConfiguration:
        """Creates the function, or updates what differs, and waits until it can be invoked.

        `code`: a zip archive's bytes, or the path of a .zip, a .py file or a directory, whose requirements.txt is
        installed. Settings are given by name (`runtime`, `handler`, `memory_size` ...) or as one `Settings`.
        `progress` is told (stage, done, total). With `publish` what was deployed becomes a version, which is returned;
        `alias` is then led to it, or made.
        """
        source = code if isinstance(code, bytes) else Path(code)
        return self._run(releases.deploy(name, source, Settings(**given), progress, wait, publish, alias))

    def create_function(
        self,
        name: str,
        code: bytes,
        *,
        publish: bool = False,
        progress: Progress | None = None,
        **settings: Unpack[Given],
    ) -> function.FunctionConfiguration:
        created: function.FunctionConfiguration = self._do(
            flows.create(name, code, Settings(**settings), progress, publish)
        )
        return created

    def update_function_code(
        self,
        name: str,
        code: bytes,
        *,
        revision_id: str | UnsetType = UNSET,
        publish: bool = False,
        progress: Progress | None = None,
    ) -> function.FunctionConfiguration:
        updated: function.FunctionConfiguration = self._do(
            flows.update_code(name, code, revision_id, progress, publish)
        )
        return updated

    def update_function_configuration(
        self, name: str, *, revision_id: str | UnsetType = UNSET, **settings: Unpack[Given]
    ) -> function.FunctionConfiguration:
        return self._call(
            rpc.UPDATE_CONFIGURATION, requests.update_configuration(name, revision_id, Settings(**settings))
        )

    def wait_until_active(
        self, name: str, timeout: float | None = 300.0, qualifier: str = ""
    ) -> function.FunctionConfiguration:
        return self._run(flows.wait_until_active(name, timeout, qualifier))

    def get_function(self, name: str, qualifier: str = "") -> function.FunctionConfiguration:
        """`qualifier`: a version's number or an alias; `name:qualifier` says the same."""
        request = function.GetFunctionRequest(function_name=name, qualifier=qualifier)
        return self._call(rpc.GET_FUNCTION, request).configuration

    def list_functions(
        self, prefix: str = "", *, versions: bool = False, limit: int | None = None
    ) -> list[function.FunctionConfiguration]:
        """In the order of their names: all, or those whose names begin with `prefix`, at most `limit`. `versions`: the
        published ones too, each function's behind its $LATEST."""
        return self._run(flows.list_functions(prefix, versions, limit))

    def delete_function(self, name: str) -> None:
        self._call(rpc.DELETE_FUNCTION, function.DeleteFunctionRequest(function_name=name))

    # ---- versions and aliases

    def publish_version(self, name: str, **publication: Unpack[releases.Publication]) -> function.FunctionConfiguration:
        """Makes a version of the function as it is; unchanged since the last one, that one is returned.

        It may be Pending for a moment: see `wait_until_active`.
        """
        return self._call(rpc.PUBLISH_VERSION, releases.publish(name, publication))

    def list_versions(self, name: str, *, limit: int | None = None) -> list[function.FunctionConfiguration]:
        """$LATEST, then the published ones in the order of their numbers."""
        return self._run(releases.list_versions(name, limit))

    def delete_version(self, name: str, version: str | int) -> None:
        """Raises ResourceConflict while an alias leads to it."""
        request = function.DeleteFunctionRequest(function_name=name, qualifier=str(version))
        self._call(rpc.DELETE_FUNCTION, request)

    def create_alias(
        self,
        name: str,
        alias: str,
        version: str | int,
        *,
        weights: releases.Weights | UnsetType = UNSET,
        description: str = "",
    ) -> aliases.AliasConfiguration:
        """`weights`: another version, and the share of the invocations that go there: `{4: 0.1}`."""
        return self._call(rpc.CREATE_ALIAS, releases.create_alias(name, alias, version, weights, description))

    def get_alias(self, name: str, alias: str) -> aliases.AliasConfiguration:
        return self._call(rpc.GET_ALIAS, aliases.GetAliasRequest(function_name=name, name=alias))

    def update_alias(self, name: str, alias: str, **move: Unpack[releases.Move]) -> aliases.AliasConfiguration:
        """Changes what is given (`version`, `weights`, `description`). Invocations under way finish where they began;
        all that begin after it has returned go to the new version."""
        return self._call(rpc.UPDATE_ALIAS, releases.update_alias(name, alias, move))

    def list_aliases(
        self, name: str, version: str | int = "", *, limit: int | None = None
    ) -> list[aliases.AliasConfiguration]:
        """In the order of their names: all, or those that lead to `version`."""
        return self._run(releases.list_aliases(name, str(version), limit))

    def delete_alias(self, name: str, alias: str) -> None:
        self._call(rpc.DELETE_ALIAS, aliases.DeleteAliasRequest(function_name=name, name=alias))

    # ---- invocations and logs

    def invoke(
        self,
        name: str,
        event: Any = UNSET,
        *,
        payload: bytes | None = None,
        qualifier: str = "",
        log_tail: bool = False,
        client_context: dict[str, Any] | None = None,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Result:
        """Runs the function once with `event` (anything that JSON can say) or with `payload` (JSON's bytes);
        without either, with `{}`.

        Never repeated by itself: without an answer nobody knows whether the function ran.
        """
        request = requests.invoke(name, event, payload, qualifier, log_tail, client_context, dry_run)
        return Result(self._invoke(request, timeout or requests.INVOKE_SECONDS))

    def invoke_async(
        self,
        name: str,
        event: Any = UNSET,
        *,
        payload: bytes | None = None,
        qualifier: str = "",
        event_id: str = "",
    ) -> str:
        """Accepts the event, to be run later; returns its id (`context.aws_request_id`) once it is on the node's disk.

        `event_id`: a name of the caller's; what was accepted under it within five minutes is not accepted again, so
        that a call without an answer can be repeated.
        """
        request = requests.invoke(name, event, payload, qualifier, False, None, False, True, event_id)
        return (self._invoke(request, self._timeout)).request_id

    def invoke_stream(
        self,
        name: str,
        event: Any = UNSET,
        *,
        payload: bytes | None = None,
        qualifier: str = "",
        log_tail: bool = False,
        client_context: dict[str, Any] | None = None,
        timeout: float | None = None,
    ) -> ResultStream:
        """Runs the function once as `invoke` does; its result's parts are iterated over as they come.

        A reader that is slow holds the function up, within its timeout; one that takes nothing for 30 seconds is cut.
        """
        request = requests.invoke(name, event, payload, qualifier, log_tail, client_context, False)
        return ResultStream(self._invoke_stream(request, timeout or requests.INVOKE_SECONDS))

    def logs(self, name: str, **wanted: Unpack[requests.Wanted]) -> Iterator[log.LogEvent]:
        """The function's log, oldest first: all that is kept, or what `wanted` says (`follow`, `since`, `limit` ...).

        With `follow` it goes on until the iterator is closed, and goes on after a restart of the daemon without loss
        or repetition.
        """
        reading = requests.Reading(name, wanted, self.address)
        follow = reading.request.follow
        while True:
            try:
                for event in self._stream(rpc.TAIL_LOGS, reading.request, None if follow else self._timeout):
                    if reading.take(event):
                        yield event
                return
            except (Unreachable, TimedOut, errors.ServiceUnavailable) as error:
                time.sleep(reading.pause(error, time.monotonic()))

    # ---- queues of asynchronous invocation

    def list_queues(self, name: str = "") -> list[queue.QueueStatus]:
        """How many events wait for which function, and how many were given up."""
        return (self._call(rpc.LIST_QUEUES, queue.ListQueuesRequest(function_name=name))).queues

    def list_events(self, request: queue.ListEventsRequest) -> queue.ListEventsResponse:
        """A page of events that wait, run or were given up."""
        return self._call(rpc.LIST_EVENTS, request)

    def cancel_events(self, request: queue.CancelEventsRequest) -> queue.ChangedEvents:
        """Removes events for good; those that are being invoked are left."""
        return self._call(rpc.CANCEL_EVENTS, request)

    def redrive_events(self, name: str = "", event_id: str = "") -> queue.ChangedEvents:
        """Begins anew with events that were given up."""
        return self._call(rpc.REDRIVE_EVENTS, queue.RedriveEventsRequest(function_name=name, event_id=event_id))

    def pause_queue(self, name: str) -> None:
        """Nothing is taken from the function's queue until `resume_queue`; events are accepted as before."""
        self._call(rpc.PAUSE_QUEUE, queue.PauseQueueRequest(function_name=name))

    def resume_queue(self, name: str) -> None:
        self._call(rpc.RESUME_QUEUE, queue.ResumeQueueRequest(function_name=name))

    def put_event_config(
        self, name: str, qualifier: str = "", **rules: Unpack[requests.Retrying]
    ) -> queue.FunctionEventInvokeConfig:
        """How the events of $LATEST, a version or an alias are retried. What is not given is the node's default."""
        return self._call(rpc.PUT_EVENT_CONFIG, requests.retrying(name, qualifier, rules))

    def get_event_config(self, name: str, qualifier: str = "") -> queue.FunctionEventInvokeConfig:
        """Raises ResourceNotFound when the node's defaults hold."""
        request = queue.GetFunctionEventInvokeConfigRequest(function_name=name, qualifier=qualifier)
        return self._call(rpc.GET_EVENT_CONFIG, request)

    def delete_event_config(self, name: str, qualifier: str = "") -> None:
        """The node's defaults hold again."""
        request = queue.DeleteFunctionEventInvokeConfigRequest(function_name=name, qualifier=qualifier)
        self._call(rpc.DELETE_EVENT_CONFIG, request)

    # ---- concurrency

    def account(self) -> node.GetAccountSettingsResponse:
        """The account's limits, and how much of its concurrency nobody has reserved."""
        return self._call(rpc.GET_ACCOUNT, node.GetAccountSettingsRequest())

    def reserve(self, name: str, executions: int) -> None:
        """So many invocations of the function may run at a time, and nobody else has them; 0 stops it."""
        request = concurrency.PutFunctionConcurrencyRequest(
            function_name=name, reserved_concurrent_executions=executions
        )
        self._call(rpc.RESERVE, request)

    def reserved(self, name: str) -> int | None:
        """None: nothing is reserved for the function."""
        found = self._call(rpc.RESERVED, concurrency.GetFunctionConcurrencyRequest(function_name=name))
        reserved = found.reserved_concurrent_executions
        return None if reserved is UNSET else reserved

    def unreserve(self, name: str) -> None:
        self._call(rpc.UNRESERVE, concurrency.DeleteFunctionConcurrencyRequest(function_name=name))

    def provision(self, name: str, executions: int, qualifier: str = "$LATEST") -> concurrency.ProvisionedConcurrency:
        """Keeps so many environments ready. Returns when that is stored; `provisioned` tells how far it is."""
        return self._call(rpc.PROVISION, requests.provision(name, executions, qualifier))

    def provisioned(self, name: str) -> dict[str, concurrency.ProvisionedConcurrency]:
        """What is provisioned for a function's versions, by qualifier."""
        listed = self._call(rpc.PROVISIONED, requests.provisioned(name))
        return requests.by_qualifier(listed)

    def unprovision(self, name: str, qualifier: str = "$LATEST") -> None:
        """Keeps none ready any more."""
        self._call(rpc.UNPROVISION, requests.unprovision(name, qualifier))

    # ---- keys

    def create_key(self, description: str = "") -> keys.CreatedKey:
        """A key for callers over TCP. Its secret and token are in the result and can never be read again."""
        return self._call(rpc.CREATE_KEY, keys.CreateKeyRequest(description=description))

    def list_keys(self) -> list[keys.Key]:
        """All keys, the oldest first, without their secrets."""
        return self._call(rpc.LIST_KEYS, keys.ListKeysRequest()).keys

    def revoke_key(self, key_id: str) -> None:
        """When it returns, nobody can use the key any more."""
        self._call(rpc.REVOKE_KEY, keys.RevokeKeyRequest(key_id=key_id))

    # ---- node

    def status(self) -> node.NodeStatus:
        return self._call(rpc.GET_STATUS, node.GetStatusRequest())

    def statistics(self, name: str = "", *, order: str = "Invocations", limit: int = 100) -> node.Statistics:
        """What each function did since the dispatcher started, or since its last deployment.

        `name`: only this function. `order`: one of `StatisticsOrder`, the largest first. `limit`: 1 to 1000 functions.
        """
        return self._call(rpc.GET_STATISTICS, requests.get_statistics(name, order, limit))

    def watch_statistics(
        self, name: str = "", *, order: str = "Invocations", limit: int = 100, interval: float = 1.0
    ) -> Iterator[node.Statistics]:
        """The same for each `interval` (0.25 to 60 seconds) as it ends, until the iterator is closed."""
        request = requests.watch_statistics(name, order, limit, interval)
        yield from self._stream(rpc.WATCH_STATISTICS, request, None)

    def diagnose(self) -> node.Diagnosis:
        return self._call(rpc.DIAGNOSE, node.DiagnoseRequest())

    def runtimes(self) -> list[runtime.RuntimeStatus]:
        return self._call(rpc.LIST_RUNTIMES, node.ListRuntimesRequest()).runtimes
