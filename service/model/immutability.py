"""What attacks on a sentinel object say of a store: whether it keeps its locks. Pure rules."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

PROOF_DAYS = 30
"""Days for which a proof counts. After that the sentinel is attacked again."""
SENTINEL_DAYS = 1
"""Days for which a sentinel is locked: as short as S3 allows, so that few of them are there at a time."""


class Immutability(StrEnum):
    unknown = "unknown"
    """No attack has been made yet, or the last one could not be finished."""
    immutable = "immutable"
    """Every attack was tried, and the object was there afterwards, with its content and its lock."""
    claims_only = "claims_only"
    """The store takes a lock, and an attack went through."""
    none = "none"
    """The store offers no lock, or none is asked for."""


class Attack(StrEnum):
    """What is tried, each on an object of its own."""

    delete = "delete"
    """Remove the object, and each of its versions."""
    overwrite = "overwrite"
    """Put another content under its name."""
    shorten = "shorten"
    """Let the lock end in a moment."""
    bypass = "bypass"
    """Remove it with the right to pass over a lock of mode governance, as stolen credentials may have that right."""
    lengthen = "lengthen"
    """Not an attack: what the service does to the base of an increment. A store may answer it by putting another content there."""


@dataclass(frozen=True)
class Answer:
    """`accepted`: the store said yes. `code`: with which it refused. `holds`: object, content and lock were as before afterwards; that
    alone counts, whatever the store said."""

    attack: Attack
    accepted: bool
    code: str | None
    holds: bool
    what: str

    def as_document(self) -> dict[str, Any]:
        return {**vars(self), "attack": self.attack.value}


def judged(is_locked: bool, answers: Sequence[Answer]) -> Immutability:
    """`is_locked`: the store took the lock of the sentinel, and shows it."""
    if not is_locked:
        return Immutability.none
    if {answer.attack for answer in answers} != set(Attack):
        return Immutability.unknown
    return Immutability.immutable if all(answer.holds for answer in answers) else Immutability.claims_only


def may_lengthen(answers: Sequence[Mapping[str, Any]] | None) -> bool:
    """By the answers on record: the store lengthens a lock and leaves the object as it is."""
    return any(answer["attack"] == Attack.lengthen and answer["holds"] for answer in answers or ())


def next_proof_at(proven_at: datetime | None, now: datetime) -> datetime:
    """When the sentinel is attacked next. At once where it never was."""
    return now if proven_at is None else proven_at + timedelta(days=PROOF_DAYS)


def locked_until(now: datetime, retain_days: int) -> datetime:
    """Until when a point is locked that is sent now."""
    return now + timedelta(days=retain_days)


def to_lengthen(point_id: str, until: datetime, parents: Mapping[str, Sequence[str]], locked: Mapping[str, datetime | None]) -> list[str]:
    """The points on the copy from which this one inherits, whose locks end before its own: those next to it last.

    `parents`: of the points on the copy. `locked`: until when, by what is on record.
    """
    below: dict[str, None] = {}
    waiting = list(parents.get(point_id, ()))
    while waiting:
        each = waiting.pop()
        if each in below or each == point_id or each not in parents:
            continue
        below[each] = None
        waiting.extend(parents[each])
    short = [each for each in below if (kept := locked.get(each)) is None or kept < until]
    return short[::-1]
