"""Threads, a thread pool and an event loop, the ways to do several things at once without other processes."""

import asyncio
import concurrent.futures
import queue
import threading

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


async def nap(seconds, others):
    others.append(seconds)
    await asyncio.sleep(seconds)
    return len(others)


async def naps(count, seconds):
    """How many had fallen asleep when each of them woke up."""
    others = []
    return await asyncio.gather(*(nap(seconds, others) for _ in range(count)))


def handler(event, context):
    count = int(event.get("count", 8))
    meeting = threading.Barrier(count)  # nobody goes on before all are there
    pooled = list(pool.map(lambda n: (meeting.wait(20), n)[1], range(count)))

    answers = []
    for number in range(count):
        tasks.put((number, answers))
    tasks.join()

    together = asyncio.run(naps(20, 0.05))
    return {
        "pooled": pooled,
        "squares": sorted(answers),
        "consumed": len(done),
        "naps": len(together),
        "together": set(together) == {20},
        "threads": threading.active_count(),
    }
