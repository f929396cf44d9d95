"""What a backup did to its guest: the latency of its disks before, in the window, during the copy and after. Pure rules, no I/O.

Nothing here is a guess: what could not be measured is None, and null in the document.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

VERSION = 1
NS_PER_MS = 1e6


class ImpactStage(StrEnum):
    before = "before"
    """The guest on its own disks, before anything was done. The other stages are compared with it."""
    window = "window"
    """From just before the freeze to just after the thaw: the writes of this stage were held by the freeze."""
    copy = "copy"
    """The guest writes into overlays, and its bases are read."""
    after = "after"
    """The overlays are merged back."""


@dataclass(frozen=True)
class BlockTimes:
    """Counters of one disk since the domain was started. None: this libvirt or this QEMU has no such counter."""

    writes: int | None = None
    write_ns_total: int | None = None
    flushes: int | None = None
    flush_ns_total: int | None = None
    reads: int | None = None
    read_ns_total: int | None = None
    errors: int | None = None


@dataclass(frozen=True)
class Latency:
    """Requests that ended between two looks, and what they took together. `count` None: it could not be measured."""

    count: int | None = None
    total_ns: int = 0

    @property
    def mean_ms(self) -> float | None:
        """None: not measured, or no request has ended."""
        return None if not self.count else self.total_ns / self.count / NS_PER_MS

    def __add__(self, other: "Latency") -> "Latency":
        if self.count is None or other.count is None:
            return self if other.count is None else other
        return Latency(self.count + other.count, self.total_ns + other.total_ns)


@dataclass(frozen=True)
class Felt:
    """What the guest felt of one disk between two looks."""

    write: Latency = Latency()
    flush: Latency = Latency()

    @property
    def worst_ms(self) -> float | None:
        means = [mean for mean in (self.write.mean_ms, self.flush.mean_ms) if mean is not None]
        return max(means, default=None)

    def __add__(self, other: "Felt") -> "Felt":
        return Felt(self.write + other.write, self.flush + other.flush)


def felt_between(earlier: BlockTimes, later: BlockTimes) -> Felt:
    """Counters that went back belong to another QEMU: the domain was started again, and nothing was measured."""
    return Felt(
        _between(earlier.writes, earlier.write_ns_total, later.writes, later.write_ns_total),
        _between(earlier.flushes, earlier.flush_ns_total, later.flushes, later.flush_ns_total),
    )


def _between(count: int | None, total_ns: int | None, later_count: int | None, later_total_ns: int | None) -> Latency:
    if count is None or total_ns is None or later_count is None or later_total_ns is None:
        return Latency()
    if later_count < count or later_total_ns < total_ns:
        return Latency()
    return Latency(later_count - count, later_total_ns - total_ns)


@dataclass
class _DiskInStage:
    felt: Felt = field(default_factory=Felt)
    worst_write_ms: float | None = None
    worst_flush_ms: float | None = None

    def add(self, felt: Felt) -> None:
        self.felt += felt
        self.worst_write_ms = _worse(self.worst_write_ms, felt.write.mean_ms)
        self.worst_flush_ms = _worse(self.worst_flush_ms, felt.flush.mean_ms)

    def as_document(self) -> dict[str, Any]:
        return {
            "writes": self.felt.write.count,
            "write_ms": _rounded(self.felt.write.mean_ms),
            "worst_write_ms": _rounded(self.worst_write_ms),
            "flushes": self.felt.flush.count,
            "flush_ms": _rounded(self.felt.flush.mean_ms),
            "worst_flush_ms": _rounded(self.worst_flush_ms),
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "_DiskInStage":
        felt = Felt(_latency(document["writes"], document["write_ms"]), _latency(document["flushes"], document["flush_ms"]))
        return cls(felt, document["worst_write_ms"], document["worst_flush_ms"])


class ImpactRecord:
    """Adds up what was felt, by stage and disk. `earlier`: the document of the attempt before this one, whose figures are added to."""

    def __init__(self, limit_ms: float | None, earlier: Mapping[str, Any] | None = None) -> None:
        self._limit_ms = limit_ms
        self._stages: dict[ImpactStage, dict[str, _DiskInStage]] = {stage: {} for stage in ImpactStage}
        self.was_paused_by_error = False
        self.slowed_s = 0.0
        self.halted_s = 0.0
        self.least_free_bytes: int | None = None
        if earlier is not None:
            self._continue(earlier)

    def add(self, stage: ImpactStage, target: str, felt: Felt) -> None:
        self._stages[stage].setdefault(target, _DiskInStage()).add(felt)

    def note_free_bytes(self, free_bytes: int) -> None:
        self.least_free_bytes = free_bytes if self.least_free_bytes is None else min(free_bytes, self.least_free_bytes)

    def as_document(self) -> dict[str, Any]:
        """`stages`: null for a stage that was not measured. The worst figures are means of the worst half second or so."""
        return {
            "v": VERSION,
            "limit_ms": self._limit_ms,
            "paused_by_error": self.was_paused_by_error,
            "slowed_s": round(self.slowed_s, 1),
            "halted_s": round(self.halted_s, 1),
            "least_free_bytes": self.least_free_bytes,
            "stages": {stage.value: _stage_document(disks) for stage, disks in self._stages.items()},
        }

    def _continue(self, earlier: Mapping[str, Any]) -> None:
        self.was_paused_by_error = bool(earlier["paused_by_error"])
        self.slowed_s, self.halted_s = earlier["slowed_s"], earlier["halted_s"]
        self.least_free_bytes = earlier["least_free_bytes"]
        for stage, disks in earlier["stages"].items():
            for target, disk in (disks or {}).items():
                self._stages[ImpactStage(stage)][target] = _DiskInStage.from_document(disk)


def _stage_document(disks: Mapping[str, _DiskInStage]) -> dict[str, Any] | None:
    return {target: disk.as_document() for target, disk in disks.items()} or None


def _latency(count: int | None, mean_ms: float | None) -> Latency:
    return Latency(count, round((count or 0) * (mean_ms or 0.0) * NS_PER_MS))


def _worse(known: float | None, other: float | None) -> float | None:
    return max((value for value in (known, other) if value is not None), default=None)


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
