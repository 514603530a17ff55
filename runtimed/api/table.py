"""The whole API: every operation by name, and how the performers are handed to the resources.

daemon.py makes `Performers`, calls `bind` once, and gives the result to the gateways.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec import Struct

from runtimed.api.aliases import Aliases, AliasKeeper
from runtimed.api.concurrency import Concurrency, Reserve
from runtimed.api.functions import Deployer, FunctionReader, Functions
from runtimed.api.invocations import Invocations, Invoker
from runtimed.api.keys import KeyRing, Keys
from runtimed.api.logs import LogReader, Logs
from runtimed.api.node import Node, NodeReader, StatisticsReader
from runtimed.api.operation import Bound, Operation, tabulate
from runtimed.api.queues import EventQueues, Queues
from runtimed.api.scaling import Scaler, Scaling
from runtimed.api.versions import Publisher, Versions
from runtimed.model.arn import Identity

if TYPE_CHECKING:
    from collections.abc import Mapping

_OPERATIONS = tabulate((Functions, Versions, Aliases, Invocations, Concurrency, Scaling, Queues, Logs, Keys, Node))

TABLE: Mapping[str, Operation] = MappingProxyType({name: entry for name, (_, entry) in _OPERATIONS.items()})


class Performers(Struct, frozen=True, kw_only=True):
    """Those who do the work that the operations ask for."""

    identity: Identity
    functions: FunctionReader
    deployer: Deployer
    publisher: Publisher
    aliases: AliasKeeper
    invoker: Invoker
    queues: EventQueues
    concurrency: Reserve
    scaling: Scaler
    logs: LogReader
    keys: KeyRing
    node: NodeReader
    statistics: StatisticsReader


def bind(performers: Performers) -> Mapping[str, Bound]:
    """The operations with methods that can be called."""
    p = performers
    resources: dict[type, object] = {
        Functions: Functions(p.identity, p.functions, p.deployer, p.node.runtimes, p.publisher),
        Versions: Versions(p.identity, p.functions, p.publisher),
        Aliases: Aliases(p.identity, p.functions, p.aliases),
        Invocations: Invocations(p.identity, p.invoker),
        Queues: Queues(p.identity, p.queues),
        Concurrency: Concurrency(p.identity, p.functions, p.concurrency),
        Scaling: Scaling(p.identity, p.functions, p.scaling),
        Logs: Logs(p.identity, p.functions, p.logs),
        Keys: Keys(p.keys),
        Node: Node(p.node, p.statistics),
    }
    return MappingProxyType(
        {
            name: Bound(entry, getattr(resources[resource], entry.method))
            for name, (resource, entry) in _OPERATIONS.items()
        }
    )
