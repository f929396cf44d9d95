"""Retention that merges: what no rule keeps moves into the points that need it, and goes. Real files, and the rules are asked again."""

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from service.db.engine import Database, database_now
from service.db.tables import Job, Repository, RetentionLook
from service.model.kinds import MERGES_POINTS, REMOVES_POINTS
from service.model.lifecycle import JobState
from service.model.repository import RepositoryState
from service.records import points, policies, queue, retention_looks
from service.repository.removing import REMOVED_PREFIX
from service.scheduler.retention import RetentionLooks
from tests.api.world import add_host
from tests.jobs.test_merge import World as Merging
from tests.jobs.test_merge import dying, make
from tests.scenes.host import HOST, error_of
from tests.scenes.retained import NIGHTLY, a_policy, add_policy
from tests.scenes.sealed import Sealed

MIB = 1 << 20
RULES = {"keep_last": 2, "merge_at": 1}


class World(Merging):
    """A full point and three increments of a track that keeps the last two, and merges."""

    def __init__(self, database: Database, folder: Path, made: Sealed) -> None:
        super().__init__(database, folder, made)
        with database.write() as session:
            add_host(session, HOST)
            add_policy(session, retention=RULES)

    def look(self) -> int:
        return RetentionLooks(self.database, lambda: None).look()

    def look_again(self) -> int:
        """As on the next day."""
        with self.database.write() as session:
            session.execute(update(RetentionLook).values(due_at=database_now(session)))
        return self.look()

    def run(self) -> Job:
        run = self.scene.claim()
        self.scene.execution.execute(run)
        return self.scene.job(run.claim.job_id)

    def kinds(self) -> list[str]:
        with self.database.read() as session:
            return list(session.scalars(select(Job.kind).order_by(Job.created_at, Job.id)))

    def rules(self, **retention: Any) -> None:
        with self.database.write() as session:
            row = policies.get(session, "production")
            policies.change(session, row, a_policy(retention=retention), database_now(session))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return make(tmp_path_factory.mktemp("made"), labels=NIGHTLY.as_labels())


@pytest.fixture
def world(made: Sealed, sqlite_database: Database, tmp_path: Path) -> World:
    return World(sqlite_database, tmp_path, made)


def test_what_only_others_need_is_merged_into_them_and_goes(world: World) -> None:
    assert (world.look(), world.kinds()) == (1, [MERGES_POINTS])
    job = world.run()
    assert job.result is not None
    assert {point["id"]: point["points"] for point in job.result["merge"]["merged"]} == {world.high: [world.low, world.full]}
    assert [point["id"] for point in job.result["prune"]["removed"]] == [world.low, world.full]
    assert world.only(world.high, world.top)
    assert world.are_all_good()
    assert world.look_again() == 0


def test_the_request_and_the_result_say_by_which_rule(world: World) -> None:
    world.look()
    job = world.run()
    asked = job.request["retention"]
    assert asked[world.low]["reasons"] == [{"code": "merged", "facts": {"points": [world.high]}}]
    assert job.result is not None
    removed = [point["retention"] for point in job.result["prune"]["removed"]]
    assert [(each["track"], each["reasons"][0]["code"]) for each in removed] == [("nightly", "too_old")] * 2


def test_what_simply_goes_is_removed_before_anything_is_merged(world: World) -> None:
    """Otherwise the merge would write points anew that go in the same night."""
    world.sealed.points = [world.full]
    other = world.sealed.seal((9, 3 * MIB, MIB), database=world.database)
    with world.database.write() as session:
        points.set_pinned(session, world.high, pinned=True)
    world.rules(keep_last=1, merge_at=1)
    assert (world.look(), world.kinds()) == (1, [REMOVES_POINTS])
    job = world.run()
    assert job.result is not None
    assert [point["id"] for point in job.result["prune"]["removed"]] == [other]
    assert (world.look_again(), world.kinds()[-1]) == (1, MERGES_POINTS)
    assert world.run().state == "succeeded"
    assert world.only(world.high, world.top)
    assert world.are_all_good()


# --- the rules are asked again ----------------------------------------------------------------------


def _stop_merging(world: World) -> None:
    world.rules(keep_last=2)


def _keep_more(world: World) -> None:
    world.rules(keep_last=4, merge_at=1)


def _remove_policy(world: World) -> None:
    with world.database.write() as session:
        policies.remove(session, "production")


@pytest.mark.parametrize("meanwhile", [_stop_merging, _keep_more, _remove_policy])
def test_what_the_rules_keep_since_the_job_was_made_is_neither_merged_nor_an_error(world: World, meanwhile: Any) -> None:
    world.look()
    meanwhile(world)
    job = world.run()
    assert job.result is not None
    stayed = {point["id"]: point["reason"]["code"] for point in job.result["prune"]["stayed"]}
    assert (job.state, stayed) == ("succeeded", {world.full: "point_kept", world.low: "point_kept"})
    assert (job.result["merge"]["merged"], world.parents(world.high)) == ([], [world.low])
    assert world.only(world.full, world.low, world.high, world.top)


def test_a_point_that_was_pinned_meanwhile_stays_and_takes_over_what_it_needs(world: World) -> None:
    world.look()
    with world.database.write() as session:
        points.set_pinned(session, world.low, pinned=True)
    assert world.run().state == "succeeded"
    assert world.only(world.low, world.high, world.top)
    assert world.parents(world.low) == []
    assert world.are_all_good()


# --- what fails, and what dies ----------------------------------------------------------------------


@pytest.mark.parametrize("state", [JobState.failed, JobState.cancelled])
def test_a_merge_that_failed_is_not_asked_for_again_before_a_day_has_passed(
    world: World, state: JobState, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.look()
    claim = world.scene.claim().claim
    with world.database.write() as session:
        queue.finish(session, claim.job_id, claim.lease_token, state, {})
    assert world.look_again() == 0
    monkeypatch.setattr(retention_looks, "EVERY", timedelta(0))
    assert world.look_again() == 1


def test_damage_that_the_merge_finds_is_not_merged_on_the_next_day(world: World) -> None:
    world.sealed.damage(world.full)
    world.look()
    assert error_of(world.run())["code"] == "point_damaged"
    assert world.look_again() == 0
    assert world.only(world.full, world.low, world.high, world.top)


def test_nothing_is_merged_in_a_repository_that_is_full(world: World) -> None:
    with world.database.write() as session:
        session.execute(update(Repository).values(state=RepositoryState.full.value))
    assert world.look() == 0


@pytest.mark.parametrize("step", ["put_in_place", "remove_point"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_after_a_death_the_next_attempt_finishes(world: World, step: str, when: str) -> None:
    world.look()
    run = world.scene.claim()
    with pytest.raises(SystemExit):
        world.handler(dying(step, when=when)).run(run, world.scene.ours)
    run.finish(world.handler().run(run, world.scene.ours))
    assert world.scene.job(run.claim.job_id).state == "succeeded"
    assert world.only(world.high, world.top)
    assert not any(name.startswith(REMOVED_PREFIX) for name in world.folders())
    assert world.are_all_good()
