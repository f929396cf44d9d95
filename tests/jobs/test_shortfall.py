"""A point that is worse than what was required is kept, taken back, or tried again after a pause."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from service.db.engine import Database
from service.db.tables import Job, RecoveryPoint
from service.errors.jobs import PointFate
from service.model.kinds import JobKind
from service.model.requests import read
from service.records import queue
from tests.fakes import libvirt_error
from tests.lab.windows import scenario
from tests.lab.windows.clock import ScaledClock
from tests.lab.windows.domain import WindowsDomain
from tests.scenes.host import FREEZE, THAW, Scene

CRASH_IS_TOO_LITTLE: dict[str, Any] = {"freeze": {"mode": "off"}, "required_verdict": "filesystem"}


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, disks=("vda", "vdb"))


def points(scene: Scene) -> list[RecoveryPoint]:
    with scene.database.read() as session:
        return list(session.scalars(select(RecoveryPoint)))


def waiting(scene: Scene) -> list[Job]:
    with scene.database.read() as session:
        return list(session.scalars(select(Job).where(Job.state == "queued")))


def test_kept_unless_something_else_is_asked_for(scene: Scene) -> None:
    job = scene.run(**CRASH_IS_TOO_LITTLE)
    assert (job.state, (job.error or {})["code"]) == ("failed", "verdict_below_required")
    assert [point.verdict for point in points(scene)] == ["crash"]
    assert waiting(scene) == []


def test_discarded_the_disks_are_back_on_their_files_and_no_point_is_listed(scene: Scene) -> None:
    before = {target: scene.domain.source(target) for target in ("vda", "vdb")}
    job = scene.run(**CRASH_IS_TOO_LITTLE, on_shortfall="discard")
    assert (job.state, (job.error or {})["code"]) == ("failed", "verdict_below_required")
    assert (job.error or {})["facts"]["point"] == PointFate.removed
    assert {target: scene.domain.source(target) for target in ("vda", "vdb")} == before
    assert (points(scene), job.recovery_point) == ([], None)
    assert sorted(path.name for path in scene.images.iterdir()) == ["db1-vda.qcow2", "db1-vdb.qcow2"]
    assert [phase["name"] for phase in job.phases][-1] == "discard"


def test_a_point_that_cannot_be_taken_back_is_kept_and_named(scene: Scene) -> None:
    scene.domain.fail_next("block_commit_active", libvirt_error(1, "no room"))
    job = scene.run(**CRASH_IS_TOO_LITTLE, on_shortfall="discard")
    assert (job.error or {})["code"] == "discard_failed"
    assert "no room" in (job.error or {})["detail"]
    assert [point.verdict for point in points(scene)] == ["crash"]
    assert scene.domain.source("vda") != str(scene.images / "db1-vda.qcow2")


def test_a_good_point_is_never_discarded(scene: Scene) -> None:
    job = scene.run(on_shortfall="discard")
    assert (job.state, job.verdict, len(points(scene))) == ("succeeded", "filesystem", 1)


def test_retry_makes_a_job_of_its_own_after_the_pause(scene: Scene) -> None:
    job = scene.run(**CRASH_IS_TOO_LITTLE, on_shortfall="retry")
    (follower,) = waiting(scene)
    assert (follower.retry_of, follower.shortfall_try) == (job.id, 1)
    assert read(JobKind.snapshot, follower.request) == read(JobKind.snapshot, job.request)
    assert "shortfall_try" not in follower.request
    assert timedelta(minutes=9) < follower.run_after - datetime.now(UTC) < timedelta(minutes=11)
    assert (job.result or {})["next_try"]["job_id"] == follower.id
    assert job.state == "failed"


def test_the_third_retry_is_the_last(scene: Scene) -> None:
    scene.ask(**CRASH_IS_TOO_LITTLE, on_shortfall="retry")
    with scene.database.write() as session:
        session.execute(update(Job).values(shortfall_try=3))
    scene.execution.execute(scene.claim())
    assert waiting(scene) == []


def test_a_job_that_succeeded_or_failed_for_another_reason_is_not_tried_again(scene: Scene) -> None:
    scene.run(on_shortfall="retry")
    scene.run(disks=["nope"], on_shortfall="retry")
    scene.domain.fail_next("snapshot_create", libvirt_error(1, "no"))
    scene.run(on_shortfall="retry")
    assert waiting(scene) == []
    assert {FREEZE, THAW} <= set(scene.domain.log)


def test_a_job_that_somebody_cancelled_after_its_freeze_is_not_tried_again(scene: Scene) -> None:
    def cancel() -> None:
        with scene.database.write() as session:
            (running,) = session.scalars(select(Job).where(Job.state == "running"))
            queue.request_cancel(session, running.id)

    scene.domain.when_next("snapshot_create", cancel)
    job = scene.run(**CRASH_IS_TOO_LITTLE, on_shortfall="retry")
    assert (job.state, job.cancel_requested, job.result) == ("failed", True, None)
    assert waiting(scene) == []


def windows(scene: Scene, name: str) -> WindowsDomain:
    domain = WindowsDomain(f"win-{name}", [scene.disk("vda", f"win-{name}")], scenario.load(name), clock=ScaledClock(200))
    scene.host.domains.append(domain)
    return domain


@pytest.mark.windows
def test_a_vss_failure_that_passes_by_itself_is_tried_again_and_one_that_does_not_is_not(scene: Scene) -> None:
    busy = scene.run(domain=windows(scene, "other-requester"), on_shortfall="retry")
    refused = scene.run(domain=windows(scene, "volume-refused"), on_shortfall="retry")
    assert [(busy.error or {})["code"], (refused.error or {})["code"]] == ["vss_freeze_failed", "vss_freeze_failed"]
    assert [job.retry_of for job in waiting(scene)] == [busy.id]
    assert [(job.error or {})["facts"]["transient"] for job in (busy, refused)] == [True, False]


@pytest.mark.windows
def test_a_lost_hold_that_is_tried_again_is_step_nine_as_planned(scene: Scene) -> None:
    job = scene.run(domain=windows(scene, "hold-lost-once"), on_shortfall="retry")
    assert job.vss is not None
    assert (job.vss_outcome, job.vss["steps"][8]["observation"]) == ("hold_writes_timeout", "observed")
    assert [follower.retry_of for follower in waiting(scene)] == [job.id]
