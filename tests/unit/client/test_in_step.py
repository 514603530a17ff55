"""Both clients offer the same: the same methods with the same parameters; and all that the API has is offered."""

from __future__ import annotations

import inspect

import pytest

from runtimed.api.table import TABLE
from runtimed.client import AsyncClient, Client, rpc
from runtimed.client.scaling import AsyncScaling, Scaling

ELSEWHERE = {
    "GetFunctionConfiguration",  # GetFunction says as much
    "GetProvisionedConcurrencyConfig",  # so does the list
    "ListFunctionEventInvokeConfigs",
    "UpdateFunctionEventInvokeConfig",
}
"""Operations that the clients do without."""


def methods(kind: type) -> dict[str, list[str]]:
    """The public ones with their parameters."""
    found = inspect.getmembers(kind, inspect.isfunction)
    return {name: [str(one) for one in inspect.signature(made).parameters.values()] for name, made in found
            if not name.startswith("_")}  # fmt: skip


@pytest.mark.parametrize(("blocking", "awaited"), [(Client, AsyncClient), (Scaling, AsyncScaling)])
def test_the_clients_are_in_step(blocking: type, awaited: type) -> None:
    assert len(methods(blocking)) > 4
    assert methods(blocking) == methods(awaited)


def test_every_operation_is_called() -> None:
    called = {made.name for made in vars(rpc).values() if isinstance(made, rpc.Rpc)}
    assert set(TABLE) - called == ELSEWHERE
    assert {made.name for made in vars(rpc).values() if isinstance(made, rpc.Rpc) and made.safe} <= {
        name for name, operation in TABLE.items() if operation.safe
    }
