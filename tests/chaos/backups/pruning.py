"""A round with a prune: the fault, then what is true of the points that stay and of the files, then a prune that nothing disturbs."""

import json
import random
from collections.abc import Iterator, Sequence
from typing import Any

from tests.chaos.backups import invariants as of_backups
from tests.chaos.backups.asking import done
from tests.chaos.backups.backing_up import back_up, told, undisturbed, write_something
from tests.chaos.backups.repository import LaneRepository, repository_of
from tests.chaos.backups.struck import struck
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage
from tests.lab.places import LabError

MIN_POINTS = 4
"""Points before the round: some can go, and some can stay."""


def breaches(stage: Stage, chance: random.Random, outcome: Outcome) -> Iterator[Breach]:
    repository = repository_of(stage).ensure()
    before = enough_points(stage, repository)
    chosen = {point["id"] for point in chance.sample(before, chance.randint(1, len(before) - 1))}
    going = with_needing(repository, before, chosen)
    is_short = chance.random() < 0.5
    body = {"kind": "prune", "recovery_points": sorted(chosen if is_short else going), "with_needing": is_short}
    stage.note(f"may go: {sorted(going)}")
    files = stage.chain_files()
    yield from struck(stage, repository, chance, outcome, body).breaches()
    yield from lost(repository, before, going)
    yield from _undisturbed_prune(stage, repository, going)
    yield from of_backups.unrestorable(repository, repository.points())
    yield from undisturbed(stage, repository, files)


def enough_points(stage: Stage, repository: LaneRepository) -> list[dict[str, Any]]:
    while len(repository.points()) < MIN_POINTS:
        write_something(stage, 1)
        if (job := back_up(stage, repository))["state"] != "succeeded":
            raise LabError(f"a backup that nothing disturbed ended {told(job)}: {job['error']}")
    return repository.points()


def with_needing(repository: LaneRepository, points: Sequence[dict[str, Any]], chosen: set[str]) -> set[str]:
    """And all that stand on them."""
    parents = {point["id"]: set(_parents(repository, point)) for point in points}
    going = set(chosen)
    while more := {point for point, below in parents.items() if below & going} - going:
        going |= more
    return going


def _parents(repository: LaneRepository, point: dict[str, Any]) -> list[str]:
    """By its own manifest, and not by the database."""
    return list(json.loads((repository.folder_of(point) / "manifest.json").read_text())["parents"])


def lost(repository: LaneRepository, before: Sequence[dict[str, Any]], going: set[str]) -> Iterator[Breach]:
    listed, published = {point["id"] for point in repository.points()}, repository.published()
    for point in before:
        if point["id"] not in going and (point["id"] not in listed or point["folder"] not in published):
            yield Breach(
                "points_unrestorable",
                f"{point['folder']} was to stay: listed {point['id'] in listed}, there {point['folder'] in published}",
            )


def _undisturbed_prune(stage: Stage, repository: LaneRepository, going: set[str]) -> Iterator[Breach]:
    """What the fault left is finished, and nothing is left of the points that went: neither on record nor in the folder."""
    if left := {point_id for point_id in going if repository.is_on_record(point_id)}:
        # A backup beside the prune may stand on one of them.
        going |= with_needing(repository, repository.points(), left)
        job = done(stage, {"kind": "prune", "recovery_points": sorted(left), "with_needing": True})
        if job["state"] != "succeeded":
            yield Breach("stories_untrue", f"the undisturbed prune ended {told(job)}: {job['error']}")
    yield from left_over(repository, going)


def left_over(repository: LaneRepository, going: set[str]) -> Iterator[Breach]:
    """Nothing is left of the points that went, and nothing that nobody owns. Once no job works there."""
    if stay := sorted(point_id for point_id in going if repository.is_on_record(point_id)):
        yield Breach("stories_untrue", f"{stay} are on record, although a job that nothing disturbed was to remove them")
    yield from of_backups.unlisted(repository)
    yield from of_backups.nobodys(repository)
