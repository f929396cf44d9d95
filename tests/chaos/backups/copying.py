"""A round with a copy of the repository in another folder: points are sent there, or come back from there, and the fault strikes meanwhile.

Afterwards what is listed as whole there has the bytes that the repository has, and a job that nothing disturbs finishes what was begun.
"""

import hashlib
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests import nobodys_files
from tests.chaos.backups import invariants as of_backups
from tests.chaos.backups.asking import done
from tests.chaos.backups.backing_up import back_up, told, undisturbed, write_something
from tests.chaos.backups.pruning import enough_points
from tests.chaos.backups.repository import LaneRepository, repository_of
from tests.chaos.backups.struck import struck
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage
from tests.lab.places import LabError

RATES = (None, 12_000_000, 40_000_000)
"""Bytes a second: the way of these points is over before a fault can meet it, otherwise."""
FETCHES = 0.4
"""How many of the rounds bring points back. The others send."""
MAX_BYTES = 1 << 30
"""Of a copy, from which nothing is ever removed. A larger one is replaced by a new one."""


def breaches(stage: Stage, chance: random.Random, outcome: Outcome) -> Iterator[Breach]:
    repository = repository_of(stage).ensure()
    enough_points(stage, repository)
    copy, files = _Copy(stage, repository), stage.chain_files()
    body = {**copy.body("send"), "rate_limit_bytes": chance.choice(RATES)}
    if chance.random() < FETCHES:
        body |= {"action": "fetch", "recovery_points": [_removed_here(stage, repository, copy)]}
    before = _contents(repository.path)
    yield from struck(stage, repository, chance, outcome, body).breaches()
    yield from copy.another_content(repository)
    job = done(stage, {**body, "rate_limit_bytes": None})
    if job["state"] != "succeeded":
        yield Breach("stories_untrue", f"the undisturbed job at the copy ended {told(job)}: {job['error']}")
    repository.wait_imported()
    yield from _changed_here(repository, before)
    yield from copy.incomplete(body, repository.points())
    yield from copy.another_content(repository)
    yield from copy.nobodys()
    yield from of_backups.nobodys(repository)
    yield from of_backups.unlisted(repository)
    yield from of_backups.unrestorable(repository, repository.points())
    yield from undisturbed(stage, repository, files)


def _removed_here(stage: Stage, repository: LaneRepository, copy: "_Copy") -> str:
    """A point that the copy has, and the repository no longer: nothing stands on the newest one."""
    write_something(stage, 1)
    job = back_up(stage, repository)
    newest = [point["id"] for point in repository.points() if point["job_id"] == job["id"]]
    if not newest:
        raise LabError(f"a backup that nothing disturbed ended {told(job)}: {job['error']}")
    point_id = str(newest[0])
    for body in (copy.body("send"), {"kind": "prune", "recovery_points": [point_id]}):
        if (job := done(stage, body))["state"] != "succeeded":
            raise LabError(f"a {body['kind']} that nothing disturbed ended {told(job)}: {job['error']}")
    return point_id


def _changed_here(repository: LaneRepository, before: dict[str, str]) -> Iterator[Breach]:
    """Points come, by a fetch or by a backup beside it. Nothing that was there is another one."""
    now = _contents(repository.path)
    if changed := sorted(name for name, digest in before.items() if now.get(name) != digest):
        yield Breach("points_unrestorable", f"the job at the copy has changed or removed {changed} in the repository")


class _Copy:
    """Registered for the repository of the lane, in the folder of the guest."""

    def __init__(self, stage: Stage, repository: LaneRepository) -> None:
        self._stage, self._repository = stage, repository
        self.path = stage.guest.folder / f"copy-{repository.id}"
        if self.path.exists() and _bytes_of(self.path) > MAX_BYTES:
            self._call("DELETE", "/copy", 200)
            shutil.rmtree(self.path)
        if not self.path.exists():
            self.path.mkdir()
            self._call("POST", "", 201, json={"name": "copy", "target": {"kind": "folder", "path": str(self.path)}})

    def body(self, action: str) -> dict[str, Any]:
        return {"kind": "copy", "repository": self._repository.id, "copy": "copy", "action": action}

    def whole(self) -> list[dict[str, Any]]:
        listed = self._call("GET", "/copy/points?limit=200", 200)["items"]
        return [point for point in listed if point["state"] == "whole"]

    def incomplete(self, body: dict[str, Any], points: Sequence[dict[str, Any]]) -> Iterator[Breach]:
        """After a job that nothing disturbed: all that is in the repository is there, or what was asked for is here again."""
        wanted = {point["id"] for point in points} if body["action"] == "send" else set(body["recovery_points"])
        there = {point["recovery_point"] for point in self.whole()} if body["action"] == "send" else {point["id"] for point in points}
        if missing := sorted(wanted - there):
            yield Breach("points_unrestorable", f"{missing} did not arrive, although nothing disturbed the last {body['action']}")

    def another_content(self, repository: LaneRepository) -> Iterator[Breach]:
        for point in self.whole():
            there, here = self.path / point["folder"], repository.path / point["folder"]
            for problem in _not_as_sealed(there):
                yield Breach("points_unrestorable", f"{point['folder']} is listed as whole on the copy: {problem}")
            if (here / "manifest.json").is_file() and not _is_same(here / "manifest.json", there / "manifest.json"):
                # A merge has given the point other files here.
                continue
            if here.is_dir() and _contents(here) != _contents(there):
                yield Breach("points_unrestorable", f"{point['folder']} is another one on the copy than in the repository")

    def nobodys(self) -> Iterator[Breach]:
        if left := nobodys_files.in_repository(self.path):
            yield Breach("files_of_nobody", f"nobody owns {left} on the copy")

    def _call(self, method: str, path: str, expected: int, **options: Any) -> dict[str, Any]:
        answer = self._stage.api.request(method, f"/api/v1/repositories/{self._repository.id}/copies{path}", **options)
        if answer.status_code != expected:
            raise LabError(f"{method} of the copy{path} was answered with {answer.status_code}: {answer.text}")
        return dict(answer.json())


def _not_as_sealed(folder: Path) -> Iterator[str]:
    try:
        files = json.loads((folder / "manifest.json").read_text())["files"]
        yield from (f"{file['name']} is not what was sealed" for file in files if _sha256(folder / file["name"]) != file["sha256"])
    except OSError as error:
        yield str(error)


def _contents(folder: Path) -> dict[str, str]:
    """Of the points that are published below the folder, or of the point in it: SHA-256 by the name of each file."""
    files = [
        file for file in folder.rglob("*") if file.is_file() and not any(part.startswith(".") for part in file.relative_to(folder).parts)
    ]
    return {str(file.relative_to(folder)): _sha256(file) for file in files}


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _is_same(one: Path, other: Path) -> bool:
    return one.read_bytes() == other.read_bytes()


def _bytes_of(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
