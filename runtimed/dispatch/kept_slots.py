"""Reads the counters page again and again: what has not changed since the last time is not read once more.

Most functions are not called between two scrapes. A slot whose counters stand where they stood the last time and the
time before is taken from there, without its histograms: whoever made something of them knows it by its revision. (Once
would not do: the dispatcher counts a call before it sorts its duration in.) Kept are counters, no histograms.
"""

from __future__ import annotations

from msgspec import Struct

from runtimed.dispatch.counters import CounterPage, Slot, add_slots


class _Kept(Struct):
    """What lay at one place."""

    raw: bytes
    slot: Slot
    """Without its histograms."""
    settled: bool = False
    """Read twice with these counters."""


class SlotReader:
    """For one reader, from one thread at a time."""

    def __init__(self) -> None:
        self._page: CounterPage | None = None
        self._kept: dict[int, _Kept] = {}
        self._sums: dict[int, tuple[tuple[int, ...], Slot]] = {}
        """By target, of several loops: the parts' revisions, and their sum without its histograms."""
        self._places: dict[int, list[int]] = {}
        """Of each target."""
        self._revision = 0

    def read(self, page: CounterPage) -> list[Slot]:
        """All targets with a slot of their own. ValueError when the page is closed meanwhile."""
        if page is not self._page:
            self._page, self._kept, self._sums = page, {}, {}
        found: dict[int, list[Slot]] = {}
        places: dict[int, list[int]] = {}
        kept: dict[int, _Kept] = {}
        for region in page.places():
            for at in region:
                slot = self._read(page, at, kept)
                if slot is not None:
                    found.setdefault(slot.target, []).append(slot)
                    places.setdefault(slot.target, []).append(at)
        self._kept, self._places = kept, places
        sums, self._sums = self._sums, {}
        return [parts[0] if len(parts) == 1 else self._sum(parts, sums) for parts in found.values()]

    def whole(self, slot: Slot) -> Slot:
        """The same with its histograms, as they are now; its counters may be newer then."""
        page = self._page
        parts = [page.slot(at, page.raw(at)) for at in self._places.get(slot.target, ())] if page is not None else []
        still = [part for part in parts if part is not None and part.target == slot.target]
        return add_slots(still, slot.revision) if still else slot

    def _read(self, page: CounterPage, at: int, kept: dict[int, _Kept]) -> Slot | None:
        raw, before = page.raw(at), self._kept.get(at)
        same = before is not None and before.raw == raw
        if before is not None and same and before.settled:
            kept[at] = before
            return before.slot
        self._revision += 1
        slot = page.slot(at, raw, revision=self._revision)
        if slot is not None:
            kept[at] = _Kept(raw, bare(slot), same)
        return slot

    def _sum(self, parts: list[Slot], sums: dict[int, tuple[tuple[int, ...], Slot]]) -> Slot:
        """Of parts that all stand still, the sum does."""
        revisions, target = tuple([part.revision for part in parts]), parts[0].target
        before = sums.get(target)
        if before is not None and before[0] == revisions:
            self._sums[target] = before
            return before[1]
        self._revision += 1
        total = add_slots(parts, self._revision)
        self._sums[target] = revisions, bare(total)
        return total if total.whole else self.whole(total)


def bare(slot: Slot) -> Slot:
    """Without its histograms."""
    return Slot(
        target=slot.target, function_uid=slot.function_uid, counts=slot.counts, durations=b"",
        revision=slot.revision, whole=False,
    )  # fmt: skip
