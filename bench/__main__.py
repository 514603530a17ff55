"""`python -m bench [name] [--json]`: one bench, or all; `./dev bench` runs it."""

from __future__ import annotations

import argparse
import sys

from bench import (
    burst,
    cold_start,
    cold_table,
    creation_rate,
    density,
    event_accept,
    event_drain,
    event_fairness,
    event_recover,
    fairness,
    freezer,
    limits,
    loops,
    measure,
    metrics,
    payload,
    restart,
    snap_start,
    throughput,
    turns,
    warm_grpc,
    warm_http,
    warm_invoke,
    warm_table,
)
from bench.callers import CALLERS

BENCHES = {
    "warm_invoke": warm_invoke.run,
    "warm_http": warm_http.run,
    "warm_grpc": warm_grpc.run,
    "warm_table": warm_table.run,
    "throughput": throughput.run,
    "payload": payload.run,
    "fairness": fairness.run,
    "turns": turns.run,
    "freezer": freezer.run,
    "loops": loops.run,
    "limits": limits.run,
    "restart": restart.run,
    "cold_start": cold_start.run,
    "cold_table": cold_table.run,
    "burst": burst.run,
    "snap_start": snap_start.run,
    "creation_rate": creation_rate.run,
    "density": density.run,
    "metrics": metrics.run,
    "event_accept": event_accept.run,
    "event_drain": event_drain.run,
    "event_fairness": event_fairness.run,
    "event_recover": event_recover.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Figures beside their floors.")
    parser.add_argument("name", nargs="?", choices=BENCHES, help="one bench; without it all of them")
    parser.add_argument(
        "--caller", choices=CALLERS, default="own", help="who calls in throughput; own: our load program"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a bench on standard output, last")
    chosen = parser.parse_args()
    if chosen.caller != "own" and chosen.name != "throughput":
        parser.error("--caller goes with throughput")
    for name in [chosen.name] if chosen.name else BENCHES:
        report = throughput.run(chosen.caller) if name == "throughput" else BENCHES[name]()
        measure.show(report, chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
