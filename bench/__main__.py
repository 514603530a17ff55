"""`python -m bench [name] [--json]`: one bench, or all; `./dev bench` runs it."""

from __future__ import annotations

import argparse
import sys

from bench import (
    cold_start,
    creation_rate,
    density,
    fairness,
    measure,
    metrics,
    payload,
    restart,
    throughput,
    warm_grpc,
    warm_http,
    warm_invoke,
)

BENCHES = {
    "warm_invoke": warm_invoke.run,
    "warm_http": warm_http.run,
    "warm_grpc": warm_grpc.run,
    "throughput": throughput.run,
    "payload": payload.run,
    "fairness": fairness.run,
    "restart": restart.run,
    "cold_start": cold_start.run,
    "creation_rate": creation_rate.run,
    "density": density.run,
    "metrics": metrics.run,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev bench", description="Figures beside their floors.")
    parser.add_argument("name", nargs="?", choices=BENCHES, help="one bench; without it all of them")
    parser.add_argument("--json", action="store_true", help="one JSON object a bench on standard output, last")
    chosen = parser.parse_args()
    for name in [chosen.name] if chosen.name else BENCHES:
        measure.show(BENCHES[name](), chosen.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
