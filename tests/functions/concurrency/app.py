"""Threads, a thread pool and an event loop, the ways to do several things at once without other processes."""

import asyncio
import concurrent.futures
import queue
import threading
import time

pool = concurrent.futures.ThreadPoolExecutor(max_workers=8)
tasks = queue.Queue()
done = []


def consume():
    while True:
        number, answer = tasks.get()
        answer.append(number * number)
        done.append(number)
        tasks.task_done()


# Started during init, alive across invocations.
threading.Thread(target=consume, daemon=True).start()


async def nap(seconds):
    await asyncio.sleep(seconds)
    return seconds


async def naps(count, seconds):
    return sum(await asyncio.gather(*(nap(seconds) for _ in range(count))))


def handler(event, context):
    count = int(event.get("count", 8))
    start = time.monotonic()
    pooled = list(pool.map(lambda n: (time.sleep(0.05), n)[1], range(count)))
    threads_took = time.monotonic() - start

    answers = []
    for number in range(count):
        tasks.put((number, answers))
    tasks.join()

    start = time.monotonic()
    total = asyncio.run(naps(20, 0.05))
    loop_took = time.monotonic() - start
    return {
        "pooled": pooled,
        "squares": sorted(answers),
        "consumed": len(done),
        "naps": round(total, 3),
        "together": threads_took < 0.05 * count and loop_took < 0.5,
        "threads": threading.active_count(),
    }
