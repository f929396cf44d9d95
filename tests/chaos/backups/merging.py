"""A round with a merge: the fault, then what is true of all points and of the files, then a merge that nothing disturbs.

What the guest saw of a point before is what it sees of the point afterwards, or the merge has replaced nothing.
"""

import json
import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tests.chaos.backups import invariants as of_backups
from tests.chaos.backups.asking import done
from tests.chaos.backups.backing_up import told, undisturbed
from tests.chaos.backups.pruning import enough_points, left_over, lost
from tests.chaos.backups.repository import LaneRepository, repository_of
from tests.chaos.backups.struck import struck
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage

RATES = (None, 12_000_000, 40_000_000)
"""Bytes a second: a merge of these disks is over before a fault can meet it, otherwise."""


def breaches(stage: Stage, chance: random.Random, outcome: Outcome) -> Iterator[Breach]:
    repository = repository_of(stage).ensure()
    before = enough_points(stage, repository)
    going = {point["id"] for point in chance.sample(before[:-1], chance.randint(1, min(2, len(before) - 1)))}
    seen = _contents(repository, before)
    body = {"kind": "merge", "recovery_points": sorted(going), "remove": True, "rate_limit_bytes": chance.choice(RATES)}
    files = stage.chain_files()
    yield from struck(stage, repository, chance, outcome, body).breaches()
    yield from lost(repository, before, going)
    yield from of_backups.unrestorable(repository, repository.points())
    yield from _another_content(repository, seen)
    yield from _undisturbed_merge(stage, repository, body, going)
    yield from _another_content(repository, seen)
    yield from of_backups.unrestorable(repository, repository.points())
    yield from undisturbed(stage, repository, files)


def _contents(repository: LaneRepository, points: Sequence[dict[str, Any]]) -> dict[str, Mapping[str, str]]:
    """By point: the digest of what the guest saw of each disk, as its manifest tells it."""
    contents: dict[str, Mapping[str, str]] = {}
    for point in points:
        manifest = json.loads((repository.folder_of(point) / "manifest.json").read_text())
        contents[str(point["id"])] = {disk["target"]: disk["content"] for disk in manifest["disks"]}
    return contents


def _another_content(repository: LaneRepository, seen: Mapping[str, Mapping[str, str]]) -> Iterator[Breach]:
    """The digest of a manifest is compared with the disk itself by `unrestorable`."""
    for point_id, content in _contents(repository, repository.points()).items():
        if point_id in seen and content != seen[point_id]:
            yield Breach("points_unrestorable", f"{point_id}: the guest sees {content}, and saw {seen[point_id]}")


def _undisturbed_merge(stage: Stage, repository: LaneRepository, body: dict[str, Any], going: set[str]) -> Iterator[Breach]:
    if left := sorted(point_id for point_id in going if repository.is_on_record(point_id)):
        job = done(stage, {**body, "recovery_points": left, "rate_limit_bytes": None})
        if job["state"] != "succeeded":
            yield Breach("stories_untrue", f"the undisturbed merge ended {told(job)}: {job['error']}")
    yield from left_over(repository, going)
