"""Reads the counters page that the dispatcher shares: layout and meanings stand in native/dispatch/.../counters.h.

Counters are appended in later versions and never moved, so that a page may have more or fewer than are named here; what
the page has not is 0. Reading asks nobody and stops nobody: the dispatcher does not notice.
"""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Iterator, Sequence

from msgspec import Struct

MAGIC = 0x50435452
VERSION = 1
HEAD = struct.Struct("<10IQQ7I")
NODE_OFFSET = 256
_SLOT_HEAD = struct.Struct("<Q16s")
HISTOGRAMS_OFFSET = 1024
SLOT_COUNTERS_OFFSET = 32
SLOT_HISTOGRAMS_OFFSET = 256  # durations, and init phases right behind them
SHARED_SLOT = 0  # of all targets that found no slot of their own

NODE = (
    "calls answers_success answers_function_error answers_refused abandoned cancelled calls_open throttled_account "
    "throttled_function throttled_target refused_not_found refused_too_large refused_malformed refused_memory "
    "refused_draining invocations invocations_in_flight waiting waited_too_long launches launch_failures cold_starts "
    "environments environments_idle environments_frozen environments_ended init_errors init_timeouts timeouts exits "
    "out_of_memory violations responses_too_large logic_errors payload_bytes connections connections_refused "
    "connections_dropped log_lines log_bytes log_records_dropped log_bytes_written log_throttled log_write_errors "
    "control_messages control_refused loop_turns loop_spins http_requests http_malformed http_slow http_denied "
    "arenas arena_payloads streams forwarded forwards_refused environment_rests "
    "events_accepted events_duplicate events_refused "
    "events_attempts events_succeeded events_failed events_throttled events_retried events_dead events_dropped "
    "events_chains_cut events_waiting events_full event_groups event_bytes events_unreadable events_damaged_files "
    "environments_reclaimed environments_parked environments_provisioned provisioned_in_use throttled_burst "
    "connections_moved"
).split()
HISTOGRAMS = ("call_us", "overhead_us", "wait_us", "launch_us", "init_us", "duration_us")
SLOT = (
    "calls success function_errors timeouts exits throttles cold_starts init_errors waited request_bytes "
    "response_bytes billed_ms log_lines log_bytes peak_kb environments_frozen failures wait_us waits_1ms "
    "waits_10ms waits_100ms waits_1s waits_longer provisioned spillover environments_parked provisioned_in_use"
).split()


class Slot(Struct, frozen=True, kw_only=True):
    """One target's counters at one moment."""

    target: int
    function_uid: bytes
    counts: dict[str, int]
    durations: bytes
    """Its histogram of durations, as `buckets` reads it: most are never looked at."""
    inits: bytes = b""
    """Of its init phases; empty: none in this page."""
    revision: int = 0
    """Of who keeps slots (kept_slots.py): two with the same one say the same. 0: nobody did."""
    whole: bool = True
    """False: its histograms were not read."""


class Gaps(Struct, frozen=True, kw_only=True):
    """How long a target's environments were idle before they were used again (idle_times.h), since it has its slot."""

    total: int
    bins: dict[int, int]
    """Those that are not empty, of the first environment; machines/keep_alive.py says what they mean. Modulo 2^32."""
    others: dict[int, int] = {}
    """The same of the other environments."""

    def __add__(self, other: Gaps) -> Gaps:
        bins, others = _sum(self.bins, other.bins), _sum(self.others, other.others)
        return Gaps(total=self.total + other.total, bins=bins, others=others)


def _sum(one: dict[int, int], other: dict[int, int]) -> dict[int, int]:
    return {number: one.get(number, 0) + other.get(number, 0) for number in {*one, *other}}


class CounterPage:
    """Maps the page read-only; owns and closes the descriptor. ValueError when it is not what it should be.

    Each loop of the dispatcher counts in a region of its own, and one more has what the dispatchers before it counted;
    what is told here is the sum of them.
    """

    def __init__(self, descriptor: int) -> None:
        try:
            size = os.fstat(descriptor).st_size
            if size < HISTOGRAMS_OFFSET:
                raise ValueError("a counters page of a wrong size")
            self._page = mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
        finally:
            os.close(descriptor)
        head = HEAD.unpack_from(self._page)
        magic, version, length, self._slots, self._slot_size, self._buckets = head[:6]
        self._n_node, self._n_histograms, self._n_slot, self._slots_offset, self.started_us = head[6:11]
        regions: int = max(1, head[12])
        self.loops: int = head[14] or regions
        """Event loops of the dispatcher."""
        self._idle_offset, self._idle_size, self._idle_bins = head[15:18]
        self._idle_kinds = head[18] or 1
        if magic != MAGIC or version != VERSION or length * regions != size:
            self._page.close()
            raise ValueError(f"a counters page of version {version}; this reader knows {VERSION}")
        self._regions = range(0, size, length)

    def close(self) -> None:
        self._page.close()

    def node(self) -> dict[str, int]:
        """All counters of the node by name."""
        return add([self._counters(NODE, base + NODE_OFFSET, self._n_node) for base in self._regions])

    def loop(self, number: int) -> dict[str, int]:
        """The same of one loop alone; its levels may be below 0, modulo 2^64."""
        return self._counters(NODE, self._regions[number] + NODE_OFFSET, self._n_node)

    def quantile(self, histogram: str, per_mille: int) -> int:
        """Of a node histogram, in microseconds; 0 when it is empty."""
        return quantile(buckets(self.histogram(histogram)), per_mille)

    def target(self, target: int) -> dict[str, int] | None:
        """A target's counters; None when it has no slot of its own."""
        return next((slot.counts for slot in self.targets() if slot.target == target), None)

    def targets(self) -> Iterator[Slot]:
        """All targets with a slot of their own. ValueError when the page is closed meanwhile."""
        found: dict[int, list[Slot]] = {}
        for places in self.places():
            for at in places:
                slot = self.slot(at, self.raw(at))
                if slot is not None:
                    found.setdefault(slot.target, []).append(slot)
        for slots in found.values():
            yield slots[0] if len(slots) == 1 else add_slots(slots)

    def places(self) -> Iterator[range]:
        """Of each region, where its slots lie, used or not. ValueError when the page is closed meanwhile."""
        for base in self._regions:
            high = min(HEAD.unpack_from(self._page, base)[11], self._slots - 1)
            first = base + self._slots_offset + (SHARED_SLOT + 1) * self._slot_size
            yield range(first, base + self._slots_offset + (high + 1) * self._slot_size, self._slot_size)

    def raw(self, at: int) -> bytes:
        """Whose slot lies there, and its counters, as they stand."""
        return self._page[at : at + SLOT_COUNTERS_OFFSET + 8 * min(self._n_slot, len(SLOT))]

    def slot(self, at: int, raw: bytes, *, whole: bool = True, revision: int = 0) -> Slot | None:
        """What `raw` said, with its histograms where they are wanted. None: nobody's, or another's by now."""
        target, uid = _SLOT_HEAD.unpack_from(raw)
        if target == 0:
            return None
        values = struct.unpack_from(f"<{(len(raw) - SLOT_COUNTERS_OFFSET) // 8}Q", raw, SLOT_COUNTERS_OFFSET)
        counts = dict(zip(SLOT, values, strict=True)) if len(values) == len(SLOT) else _named(SLOT, values)
        durations = inits = b""
        if whole:
            start, size = at + SLOT_HISTOGRAMS_OFFSET, self._buckets * 8
            durations = self._page[start : start + size]
            inits = self._page[start + size : start + 2 * size]
            if _SLOT_HEAD.unpack_from(self._page, at)[0] != target:
                return None
        return Slot(
            target=target, function_uid=uid, counts=counts, durations=durations, inits=inits,
            revision=revision, whole=whole,
        )  # fmt: skip

    def gaps(self, region: int) -> Iterator[tuple[int, Gaps]]:
        """One loop's, of all targets that have any. ValueError when the page is closed meanwhile."""
        if not self._idle_bins:
            return
        base = self._regions[region]
        high = min(HEAD.unpack_from(self._page, base)[11], self._slots - 1)
        for slot in range(SHARED_SLOT + 1, high + 1):
            at = base + self._idle_offset + slot * self._idle_size
            (total,) = struct.unpack_from("<Q", self._page, at)
            (target,) = struct.unpack_from("<Q", self._page, base + self._slots_offset + slot * self._slot_size)
            if target == 0 or total == 0:
                continue
            width = f"<{self._idle_bins}I"
            kinds = [
                struct.unpack_from(width, self._page, at + 8 + kind * 4 * self._idle_bins)
                for kind in range(min(self._idle_kinds, 2))
            ]
            found = [{number: count for number, count in enumerate(counts) if count} for counts in kinds]
            yield target, Gaps(total=total, bins=found[0], others=found[1] if len(found) > 1 else {})

    def _counters(self, names: Sequence[str], offset: int, present: int) -> dict[str, int]:
        return _named(names, struct.unpack_from(f"<{min(present, len(names))}Q", self._page, offset))

    def histogram(self, name: str) -> bytes:
        """A node histogram as `buckets` reads it."""
        index, size = HISTOGRAMS.index(name), self._buckets * 8
        if index >= self._n_histograms:
            return b""
        starts = [base + HISTOGRAMS_OFFSET + index * size for base in self._regions]
        return add_histograms([self._page[at : at + size] for at in starts])


def _named(names: Sequence[str], values: Sequence[int]) -> dict[str, int]:
    return {name: values[index] if index < len(values) else 0 for index, name in enumerate(names)}


def add(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    """The same counters of several loops, added modulo 2^64; `peak_kb` is the highest."""
    if len(counts) == 1:
        return counts[0]
    total = {name: sum(each[name] for each in counts) % 2**64 for name in counts[0]}
    if "peak_kb" in total:
        total["peak_kb"] = max(each["peak_kb"] for each in counts)
    return total


def add_histograms(parts: Sequence[bytes]) -> bytes:
    """Histograms of the same width as one. No count comes near 2^64: they are added as one long number."""
    if len(parts) == 1:
        return parts[0]
    total = sum(int.from_bytes(part, "little") for part in parts)
    return (total % 2 ** (8 * len(parts[0]))).to_bytes(len(parts[0]), "little")


def add_slots(slots: Sequence[Slot], revision: int = 0) -> Slot:
    """One target's, of several loops. Whole when all of them are."""
    whole = all(slot.whole for slot in slots)
    return Slot(
        target=slots[0].target,
        function_uid=slots[0].function_uid,
        counts=add([slot.counts for slot in slots]),
        durations=add_histograms([slot.durations for slot in slots]) if whole else b"",
        inits=add_histograms([slot.inits for slot in slots]) if whole else b"",
        revision=revision,
        whole=whole,
    )


def buckets(data: bytes) -> tuple[int, ...]:
    """A histogram's counts."""
    return struct.unpack(f"<{len(data) // 8}Q", data)


def bucket_floor(bucket: int) -> int:
    """The smallest value that falls into a bucket: one each below 8, then every power of two in eight."""
    if bucket < 8:
        return bucket
    power, part = divmod(bucket - 8, 8)
    return (8 + part) << power


def quantile(counts: Sequence[int], per_mille: int) -> int:
    """The value below which `per_mille` of all lie, to the middle of its bucket."""
    total = sum(counts)
    if total == 0:
        return 0
    wanted, seen = max(1, -(-total * per_mille // 1000)), 0
    for bucket, count in enumerate(counts):
        seen += count
        if seen >= wanted:
            return (bucket_floor(bucket) + bucket_floor(bucket + 1)) // 2
    return bucket_floor(len(counts))
