"""What a track wants to be kept, and when its next backup has to be full. Plain values, read from a document and checked."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

from service.errors import RetentionInvalid

MAX_KEPT = 1_000_000
"""Periods that a rule may name. A document with a larger number is refused, as it is a mistake."""
MAX_AGE_S = 100 * 366 * 86_400
"""Seconds, a hundred years. A document with a larger minimum age is refused, as it is a mistake."""
MAX_MERGE_AT = 20
"""Points of a chain. A larger number is refused: a chain that `new_full` keeps short would never have so many."""
MAX_DEPTH = 20
"""Increments above a full, where the document does not say. The next backup is then full."""


class Rule(StrEnum):
    """In the order in which they choose: the finest first."""

    last = "last"
    hourly = "hourly"
    daily = "daily"
    weekly = "weekly"
    monthly = "monthly"
    yearly = "yearly"


@dataclass(frozen=True)
class NewFull:
    """`max_depth`: increments above a full. `max_ratio`: bytes of all increments, in multiples of the full. None: no limit."""

    max_depth: int | None = MAX_DEPTH
    max_ratio: float | None = None

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> "NewFull":
        """A field that is missing gets its default; null stands for "no limit". Raises RetentionInvalid."""
        given = _fields(document, ("max_depth", "max_ratio"), "new_full.")
        depth, ratio = given.get("max_depth", MAX_DEPTH), given.get("max_ratio")
        if depth is not None:
            depth = _whole("new_full.max_depth", depth, 1, MAX_KEPT)
        return cls(depth, _ratio(ratio) if ratio is not None else None)


@dataclass(frozen=True)
class Rules:
    """How many periods each rule keeps; 0: the rule does not count. `minimum_age_s`: a younger point stays in any case.

    `merge_at`: when a chain has so many points that stay only because others stand on them, these are merged. None: they wait.
    """

    keep_last: int = 0
    keep_hourly: int = 0
    keep_daily: int = 0
    keep_weekly: int = 0
    keep_monthly: int = 0
    keep_yearly: int = 0
    minimum_age_s: int = 0
    merge_at: int | None = None
    new_full: NewFull = field(default_factory=NewFull)

    @classmethod
    def from_document(cls, document: Mapping[str, Any] | None) -> "Rules":
        """A field that is missing or null gets its default. Raises RetentionInvalid, also for a field that is not known."""
        given = _fields(document, tuple(cls.__dataclass_fields__))
        limits = {f"keep_{rule}": MAX_KEPT for rule in Rule} | {"minimum_age_s": MAX_AGE_S}
        numbers = {name: _whole(name, given[name], 0, limit) for name, limit in limits.items() if given.get(name) is not None}
        merge_at = given.get("merge_at")
        if merge_at is not None:
            merge_at = _whole("merge_at", merge_at, 1, MAX_MERGE_AT)
        return cls(**numbers, merge_at=merge_at, new_full=NewFull.from_document(given.get("new_full")))

    def as_document(self) -> dict[str, Any]:
        return asdict(self)

    def wanted(self, rule: Rule) -> int:
        return int(getattr(self, f"keep_{rule}"))

    @property
    def keeps_everything(self) -> bool:
        """No rule names a number. As in Proxmox Backup, such rules remove nothing (`keeps_something` in `pbs-datastore/src/prune.rs`)."""
        return not any(self.wanted(rule) for rule in Rule)


class FullDue(StrEnum):
    """Why the next backup has to be full."""

    chain_deep = "chain_deep"
    chain_large = "chain_large"


def full_is_due(sizes: Sequence[int], limits: NewFull) -> FullDue | None:
    """Whether a chain is so deep or so large that the next backup has to be full. None: another increment is right.

    `sizes`: bytes of the full, and of each increment above that full. A chain never gets more increments than `max_depth`:
    the backup after the last of them is full. Increments may be exactly as large as `max_ratio` allows. No chain, nothing is due.
    """
    if not sizes:
        return None
    full, increments = sizes[0], sizes[1:]
    if limits.max_depth is not None and len(increments) >= limits.max_depth:
        return FullDue.chain_deep
    if limits.max_ratio is not None and sum(increments) > limits.max_ratio * full:
        return FullDue.chain_large
    return None


def _fields(document: Any, known: Sequence[str], prefix: str = "") -> Mapping[str, Any]:
    if document is None:
        return {}
    if not isinstance(document, Mapping):
        raise RetentionInvalid(field=prefix.rstrip(".") or "retention", value=document, allowed="an object")
    for name in document:
        if name not in known:
            raise RetentionInvalid(field=f"{prefix}{name}", value=document[name], allowed=f"the fields {', '.join(known)}")
    return document


def _whole(name: str, value: Any, lowest: int, highest: int) -> int:
    # 5.0 is an integer in JSON.
    whole = int(value) if isinstance(value, float) and value.is_integer() else value
    if isinstance(whole, bool) or not isinstance(whole, int) or not lowest <= whole <= highest:
        raise RetentionInvalid(field=name, value=value, allowed=f"a whole number from {lowest} to {highest}")
    return whole


def _ratio(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise RetentionInvalid(field="new_full.max_ratio", value=value, allowed="a number above 0, or null")
    return float(value)
