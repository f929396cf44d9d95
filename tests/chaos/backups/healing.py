"""A round with a verify that heals: bits of a file flip, the fault strikes, and then the file is the damaged one or the good one.

A verify that nothing disturbs heals what can be healed: from other points, or from the disk of the running guest. What is not healed is
told as damaged, with all that stands on it, and nothing else is.
"""

import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.backups import invariants as of_backups
from tests.chaos.backups.asking import done
from tests.chaos.backups.backing_up import told, undisturbed
from tests.chaos.backups.pruning import enough_points, lost, with_needing
from tests.chaos.backups.repository import LaneRepository, repository_of
from tests.chaos.backups.struck import Struck, struck
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage

RATES = (None, 12_000_000, 40_000_000)
"""Bytes a second: a verify of these points is over before a fault can meet it, otherwise."""


def breaches(stage: Stage, chance: random.Random, outcome: Outcome) -> Iterator[Breach]:
    repository = repository_of(stage).ensure()
    before = enough_points(stage, repository)
    bad = chance.choice(before)
    affected = with_needing(repository, before, {bad["id"]})
    body = {"kind": "verify", "recovery_point": chance.choice(sorted(affected)), "heal": True, "checks": ["bytes"]}
    file, files = repository.flip_bits(bad, chance), stage.chain_files()
    try:
        damaged = file.read_bytes()
        healing = struck(stage, repository, chance, outcome, {**body, "rate_limit_bytes": chance.choice(RATES)})
        yield from healing.guest_hurt()
        yield from _another_file(repository, file, damaged)
        yield from _cancelled_unasked(healing)
        last = done(stage, body)
        yield from _another_file(repository, file, damaged)
        yield from _untrue(repository, before, affected, last)
    finally:
        is_healed = repository.is_mended()
        repository.mend()
    yield from of_backups.nobodys(repository)
    if not is_healed:
        yield from _not_good_again(stage, repository, affected)
    yield from lost(repository, before, set())
    yield from of_backups.unrestorable(repository, repository.points())
    yield from undisturbed(stage, repository, files)


def _another_file(repository: LaneRepository, file: Path, damaged: bytes) -> Iterator[Breach]:
    """A half of one is never in its place."""
    if not repository.is_mended() and (not file.is_file() or file.read_bytes() != damaged):
        yield Breach("points_unrestorable", f"{repository.damage}: the file is neither the damaged one nor the good one")


def _cancelled_unasked(healing: Struck) -> Iterator[Breach]:
    if healing.job["state"] == "cancelled" and not healing.strike.asks_to_cancel:
        yield Breach("stories_untrue", f"after {healing.fault} the job ended cancelled")


def _untrue(repository: LaneRepository, before: Sequence[dict[str, Any]], affected: set[str], job: dict[str, Any]) -> Iterator[Breach]:
    """After a verify that nothing disturbed."""
    is_healed = repository.is_mended()
    if is_healed != (job["state"] == "succeeded"):
        yield Breach("stories_untrue", f"{repository.damage}: the verify ended {told(job)}, and the file is healed: {is_healed}")
    for point in before:
        state, is_good = repository.point(point["id"])["state"], is_healed or point["id"] not in affected
        if (state == "sealed") != is_good:
            kind = "stories_untrue" if is_good else "points_unrestorable"
            yield Breach(kind, f"{repository.damage}: {point['folder']} is {state}, and it is good: {is_good}")


def _not_good_again(stage: Stage, repository: LaneRepository, affected: set[str]) -> Iterator[Breach]:
    """Somebody has brought the good file back."""
    for point_id in sorted(affected):
        job = done(stage, {"kind": "verify", "recovery_point": point_id, "checks": ["bytes"]})
        if job["state"] != "succeeded" or repository.point(point_id)["state"] != "sealed":
            yield Breach("stories_untrue", f"{point_id} was mended, and its verify ended {told(job)}: {job['error']}")
