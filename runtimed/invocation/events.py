"""Asynchronous invocation as the control plane sees it: the rules that the dispatcher follows."""

from __future__ import annotations

from runtimed.model import quotas, wire


def node_rule(*, delay_ms: int, chain: int, dead: int) -> wire.PutAsync:
    """Of all functions that have none of their own: Lambda's, with the node's delay."""
    return wire.PutAsync(
        retries=quotas.EVENT_RETRIES,
        base_delay_ms=delay_ms,
        max_age_ms=quotas.EVENT_AGE_SECONDS * 1000,
        chain_max=chain,
        dead_max=dead,
    )
