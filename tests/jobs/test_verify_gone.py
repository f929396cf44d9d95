"""A repository that goes away while it is read makes no point a damaged one."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.jobs.verify import Verify
from tests.jobs.test_verify import Answers, World
from tests.scenes.host import error_of, phases_of
from tests.scenes.killed_hands import KilledHands
from tests.scenes.sealed import Sealed


@pytest.fixture
def world(three_points: Sealed, sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path, three_points)


class GoesAway(Answers):
    """Its files are missing when they are read, because the whole folder is."""

    def __init__(self, sealed: Sealed) -> None:
        fault = {"folder": "domains/x/y", "file": "vda.qcow2", "reason": "it is missing"}
        super().__init__(sealed, bytes={"ok": False, "faults": [fault]})

    def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
        if step == "verify_point":
            folder = Path(self.path)
            folder.rename(folder.with_name("unmounted"))
        return super().call(step, arguments, **options)


def test_a_repository_that_goes_away_in_the_middle_proves_nothing(world: World) -> None:
    world.use(Verify(open_repository=GoesAway(world.sealed).opened))
    top = world.sealed.points[-1]
    assert error_of(world.verify(top))["code"] == "repository_gone"
    assert (world.state(top), world.proofs(top)) == ("sealed", [])


class Flaps(Answers):
    """In the first reads of one check something is wrong that is not wrong at the next read."""

    def __init__(self, sealed: Sealed, check: str, *documents: dict[str, Any]) -> None:
        super().__init__(sealed)
        self.answers |= {name: {"ok": True, "faults": []} for name in ("structure", "filesystem")}
        self.check, self.documents = check, list(documents)

    def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
        if step == "verify_point" and arguments["checks"] == [self.check] and self.documents:
            self.answers[self.check] = self.documents.pop(0)
        return super().call(step, arguments, **options)


def wrong(file: str) -> dict[str, Any]:
    return {"ok": False, "faults": [{"folder": "domains/x/y", "file": file, "reason": "it is missing"}]}


GOOD: dict[str, Any] = {"ok": True, "faults": []}


@pytest.mark.parametrize("check", ["bytes", "structure"])
def test_what_is_wrong_at_one_read_only_is_no_damage(world: World, check: str) -> None:
    """The repository went and came back within the read, so that it was there at every look."""
    world.use(Verify(open_repository=Flaps(world.sealed, check, wrong("vda.qcow2"), GOOD).opened))
    top = world.sealed.points[-1]
    job = world.verify(top, checks=["bytes", "structure"])
    assert (job.state, world.state(top), world.proofs(top)) == ("succeeded", "sealed", [("bytes", True), ("structure", True)])
    assert sorted(outcome for _, outcome in phases_of(job)) == ["ok", "warning"]


def test_what_is_wrong_each_time_at_another_place_proves_nothing(world: World) -> None:
    world.use(Verify(open_repository=Flaps(world.sealed, "bytes", wrong("vda.qcow2"), wrong("domain.xml")).opened))
    top = world.sealed.points[-1]
    assert error_of(world.verify(top))["code"] == "repository_refused"
    assert (world.state(top), world.proofs(top)) == ("sealed", [])


def test_a_repository_that_was_mounted_anew_during_the_read_proves_nothing(world: World) -> None:
    class MountedAnew(Answers):
        """The same content, in another place."""

        def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
            if step == "verify_point":
                earlier = Path(self.path).rename(Path(self.path).with_name("earlier"))
                shutil.copytree(earlier, self.path)
                shutil.rmtree(earlier)
            return super().call(step, arguments, **options)

    world.use(Verify(open_repository=MountedAnew(world.sealed, bytes=wrong("vda.qcow2")).opened))
    top = world.sealed.points[-1]
    assert error_of(world.verify(top))["code"] == "repository_gone"
    assert (world.state(top), world.proofs(top)) == ("sealed", [])


@pytest.mark.parametrize("step", ["read_point", "verify_point"])
def test_a_process_that_is_killed_from_outside_costs_a_verify_only_time(world: World, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    hands = KilledHands(monkeypatch, **{step: 1})
    top = world.sealed.points[-1]
    job = world.verify(top)
    assert (job.state, world.state(top), hands.left) == ("succeeded", "sealed", {step: 0}), job.error
