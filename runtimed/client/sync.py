"""The SDK's blocking client."""

from __future__ import annotations

import random
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, Unpack

import grpc
from msgspec import UNSET, UnsetType

from runtimed.client import address as addresses
from runtimed.client import flows, requests, rpc
from runtimed.client.build import Progress, build
from runtimed.client.direct import Direct
from runtimed.client.errors import ClientError, TimedOut, Unreachable
from runtimed.client.flows import Build, Call, Flow, Given, Pause, Settings, Step
from runtimed.client.result import Result
from runtimed.client.scaling import Scaling
from runtimed.client.stream import ResultStream
from runtimed.model import concurrency, errors, function, invocation, log, node, queue, runtime
from runtimed.model import key as keys
from runtimed.model.shape import Shape

if TYPE_CHECKING:
    import os
    from collections.abc import Generator, Iterator
    from types import TracebackType

R = TypeVar("R", bound=Shape)
T = TypeVar("T")


class Client:
    """A connection to a daemon; may be shared by threads."""

    def __init__(
        self,
        address: str | None = None,
        *,
        key: str | None = None,
        key_file: str | os.PathLike[str] | None = None,
        timeout: float = 60.0,
    ) -> None:
        """Connects on first use. `address`: unix:/path or host:port; else RUNTIMED_ADDRESS, else the default socket.

        `timeout` bounds each call but invocations, which have their function's own.
        """
        self.address = addresses.find(address, key, key_file)
        self._timeout = timeout
        self._channel = grpc.insecure_channel(self.address.target, options=rpc.OPTIONS)
        self._metadata = rpc.metadata(self.address)
        self.scaling = Scaling(self._call)
        """Of provisioned concurrency."""
        self._direct = Direct(self.address)
        self._dispatcher: grpc.Channel | None = None
        if self._direct.address is not None:
            self._dispatcher = grpc.insecure_channel(self._direct.address.target, options=rpc.OPTIONS)

    def close(self) -> None:
        self._channel.close()
        if self._dispatcher is not None:
            self._dispatcher.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # ---- functions

    def deploy(
        self,
        name: str,
        code: bytes | str | os.PathLike[str],
        *,
        progress: Progress | None = None,
        wait: float | None = 300.0,
        **given: Unpack[Given],
    ) -> function.FunctionConfiguration:
        """Creates the function, or updates what differs, and waits until it can be invoked.

        `code`: a zip archive's bytes, or the path of a .zip, a .py file or a directory, whose requirements.txt is
        installed. Settings are given by name (`runtime`, `handler`, `memory_size` ...) or as one `Settings`.
        `progress` is told (stage, done, total).
        """
        source = code if isinstance(code, bytes) else Path(code)
        return self._run(flows.deploy(name, source, Settings(**given), progress, wait))

    def create_function(
        self, name: str, code: bytes, *, progress: Progress | None = None, **settings: Unpack[Given]
    ) -> function.FunctionConfiguration:
        created: function.FunctionConfiguration = self._do(flows.create(name, code, Settings(**settings), progress))
        return created

    def update_function_code(
        self, name: str, code: bytes, *, revision_id: str | UnsetType = UNSET, progress: Progress | None = None
    ) -> function.FunctionConfiguration:
        updated: function.FunctionConfiguration = self._do(flows.update_code(name, code, revision_id, progress))
        return updated

    def update_function_configuration(
        self, name: str, *, revision_id: str | UnsetType = UNSET, **settings: Unpack[Given]
    ) -> function.FunctionConfiguration:
        return self._call(
            rpc.UPDATE_CONFIGURATION, requests.update_configuration(name, revision_id, Settings(**settings))
        )

    def wait_until_active(self, name: str, timeout: float | None = 300.0) -> function.FunctionConfiguration:
        return self._run(flows.wait_until_active(name, timeout))

    def get_function(self, name: str) -> function.FunctionConfiguration:
        return self._call(rpc.GET_FUNCTION, function.GetFunctionRequest(function_name=name)).configuration

    def list_functions(self, prefix: str = "", *, limit: int | None = None) -> list[function.FunctionConfiguration]:
        """In the order of their names: all, or those whose names begin with `prefix`, at most `limit`."""
        return self._run(flows.list_functions(prefix, limit))

    def delete_function(self, name: str) -> None:
        self._call(rpc.DELETE_FUNCTION, function.DeleteFunctionRequest(function_name=name))

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

    # ---- calls

    def _run(self, flow: Flow[T]) -> T:
        """Does what a flow asks for until it returns."""
        try:
            step = next(flow)
            while True:
                try:
                    response = self._do(step)
                except Exception as error:
                    step = flow.throw(error)
                else:
                    step = flow.send(response)
        except StopIteration as end:
            result: T = end.value
            return result

    def _do(self, step: Step) -> Any:
        if isinstance(step, Pause):
            return time.sleep(step.seconds)
        if isinstance(step, Build):
            return build(step.path, step.runtime, step.progress)
        return self._call(step.rpc, step.request) if step.code is None else self._upload(step)

    def _invoke(self, request: invocation.InvokeRequest, timeout: float) -> invocation.InvokeResponse:
        if self._direct.due():
            self._direct.look()
        if self._direct.known and self._dispatcher is not None:
            try:
                return self._call(rpc.INVOKE, request, timeout, self._dispatcher)
            except (errors.ApiError, ClientError) as error:
                if not self._direct.refused(error):
                    raise self._direct.explain(error) from None
                try:
                    return self._call(rpc.INVOKE, request, timeout)
                except Unreachable:
                    raise error from None
        return self._call(rpc.INVOKE, request, timeout)

    def _invoke_stream(
        self, request: invocation.InvokeRequest, timeout: float
    ) -> Generator[invocation.InvokeStreamResponse, None, None]:
        if self._direct.due():
            self._direct.look()
        if self._direct.known and self._dispatcher is not None:
            begun = False
            try:
                for message in self._stream(rpc.INVOKE_STREAM, request, timeout, self._dispatcher):
                    begun = True
                    yield message
                return
            except (errors.ApiError, ClientError) as error:
                if begun or not self._direct.refused(error):
                    raise self._direct.explain(error) from None
        yield from self._stream(rpc.INVOKE_STREAM, request, timeout)

    def _call(
        self, called: rpc.Rpc[R], request: Shape, timeout: float | None = None, channel: grpc.Channel | None = None
    ) -> R:
        method = called.method
        message = rpc.encode(called, request)
        send = (channel or self._channel).unary_unary(
            method.path,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        pause = rpc.FIRST_PAUSE
        for left in reversed(range(rpc.ATTEMPTS)):
            try:
                return rpc.decode(called, send(message, metadata=self._metadata, timeout=timeout or self._timeout))
            except grpc.RpcError as error:
                translated = rpc.translate(error, self.address)
                if not left or not rpc.repeatable(called, error, translated, self.address):
                    raise translated from None
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause *= 2
        raise AssertionError("the last attempt returns or raises")

    def _stream(
        self, called: rpc.Rpc[R], request: Shape, timeout: float | None, channel: grpc.Channel | None = None
    ) -> Iterator[R]:
        method = called.method
        stream = (channel or self._channel).unary_stream(
            method.path,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        responses = stream(rpc.encode(called, request), metadata=self._metadata, timeout=timeout)
        try:
            for response in responses:
                yield rpc.decode(called, response)
        except grpc.RpcError as error:
            raise rpc.translate(error, self.address) from None
        finally:
            responses.cancel()

    def _upload(self, call: Call) -> Any:
        method = call.rpc.method
        request = rpc.encode(call.rpc, call.request)
        send = self._channel.stream_unary(
            method.path,
            request_serializer=method.input.SerializeToString,
            response_deserializer=method.output.FromString,
        )
        parts = rpc.upload(call.rpc, request, call.code or b"", call.progress)
        try:
            return rpc.decode(call.rpc, send(parts, metadata=self._metadata, timeout=requests.UPLOAD_SECONDS))
        except grpc.RpcError as error:
            raise rpc.translate(error, self.address) from None
