"""One scrape of /metrics on a node with thousands of functions that all ran, and what scrapes do to warm invocations.

Floor: the same bytes, made from the same names and numbers by a bare loop. RUNTIMED_BENCH_FUNCTIONS says how many
functions; calling each of them once takes most of the time.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator

from bench import calls, http, measure
from bench.measure import Report
from bench.populate import populate

FUNCTIONS = int(os.environ.get("RUNTIMED_BENCH_FUNCTIONS", "10000"))
MEMORY_MB = 1769  # one core
SECONDS = 2.0
APART_SECONDS = 1.0  # between scrapes; Prometheus has fifteen
ENVIRONMENTS = 64  # at most; all others ended after their call


def scrape(where: str) -> bytes:
    with urllib.request.urlopen(f"http://{where}/metrics", timeout=60) as answer:
        body: bytes = answer.read()
    return body


def timed(work: Callable[[], object]) -> dict[str, float]:
    began = time.perf_counter()
    work()
    return {"scrape": time.perf_counter() - began}


def bare(body: bytes) -> Callable[[], bytes]:
    """Renders what was scraped once more."""
    rows = []
    for line in body.decode().splitlines():
        name, _, value = line.rpartition(" ")
        try:
            rows.append((name, int(value)))
        except ValueError:
            rows.append((line, -1))
    return lambda: "".join([f"{name} {value}\n" for name, value in rows]).encode()


@contextlib.contextmanager
def scraped(where: str) -> Iterator[None]:
    """Meanwhile it is scraped again and again."""
    over = threading.Event()

    def again() -> None:
        while not over.wait(APART_SECONDS):
            scrape(where)

    thread = threading.Thread(target=again)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def run() -> Report:
    with contextlib.ExitStack() as stack:
        compiled = stack.enter_context(measure.Compiled())
        program = compiled.program("load")
        where = http.free_address()
        settings = {"RUNTIMED_METRICS_LISTEN": where, "RUNTIMED_POOLS_ENVIRONMENTS": str(ENVIRONMENTS)}
        served = stack.enter_context(http.served(settings))
        populate(served, FUNCTIONS)
        calls.deploy(served.client, "hello", calls.HELLO, MEMORY_MB)
        request = compiled.file("unix", http.post("hello", calls.EVENT))
        body = scrape(where)
        again = bare(body)

        def warm() -> dict[str, float]:
            return measure.latency(measure.load(program, "http", served.socket, request, 1, SECONDS))

        def disturbed() -> dict[str, float]:
            with scraped(where):
                return warm()

        results = measure.interleave(
            {
                "metrics": lambda: timed(lambda: scrape(where)),
                "bare loop": lambda: timed(again),
                "without scrapes": warm,
                "with scrapes": disturbed,
            }
        )
        environments = served.client.status().environments
    return Report(
        bench="metrics",
        figures=measure.figures("metrics", results["metrics"], {"scrape": "s"})
        + measure.figures("warm, with scrapes", results["with scrapes"], measure.LATENCY),
        floor=measure.figures("bare loop", results["bare loop"], {"scrape": "s"})
        + measure.figures("warm, without scrapes", results["without scrapes"], measure.LATENCY),
        ratio={
            "scrape / bare loop": measure.ratio(results, "metrics", "bare loop", "scrape"),
            "p99 with scrapes / without": measure.ratio(results, "with scrapes", "without scrapes", "p99"),
        },
        environments=environments.idle + environments.busy,
        memory_mb=MEMORY_MB,
        cpu_mode="weight",
        note=f"{FUNCTIONS} functions that all ran, {len(body) / 1e6:.1f} MB; scraped every {APART_SECONDS:g} s; "
        "client on the same cores; logging on",
        summary={
            "functions": FUNCTIONS,
            "scrape_s": measure.median(results["metrics"], "scrape"),
            "floor_s": measure.median(results["bare loop"], "scrape"),
            "p50_us": measure.median(results["without scrapes"], "p50"),
            "p99_us": measure.median(results["without scrapes"], "p99"),
            "p50_scraped_us": measure.median(results["with scrapes"], "p50"),
            "p99_scraped_us": measure.median(results["with scrapes"], "p99"),
        },
    )


if __name__ == "__main__":
    measure.show(run(), "--json" in sys.argv[1:])
