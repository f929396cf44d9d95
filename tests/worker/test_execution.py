"""However a job ends, its row says so, or recovery will."""

from pathlib import Path

import pytest
import structlog

from service.db.engine import Database
from service.records import queue
from tests.scenes.host import HOST, Scene, error_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path)


def test_an_error_of_a_snapshot_ends_it_without_a_point(scene: Scene) -> None:
    scene.host.is_away = True
    job = scene.run()
    assert (job.state, job.verdict, job.phase, error_of(job)["code"]) == ("failed", "none", None, "libvirt_unavailable")
    assert [reason["code"] for reason in job.verdict_reasons] == ["no_snapshot"]


@pytest.mark.parametrize("kind", ["preflight", "thaw"])
def test_an_error_of_another_kind_ends_it_without_a_verdict(scene: Scene, kind: str) -> None:
    scene.host.is_away = True
    job = scene.run(kind)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", None, "libvirt_unavailable")


def test_a_cancel_before_the_first_phase(scene: Scene) -> None:
    job_id = scene.ask()
    run = scene.claim()
    run.cancel_requested.set()
    scene.execution.execute(run)
    assert (scene.job(job_id).state, scene.domain.log) == ("cancelled", [])


def test_what_nobody_thought_of_is_left_to_recovery_with_the_lease_at_its_end(scene: Scene) -> None:
    scene.domain.fail_next("instance", ZeroDivisionError())
    job = scene.run()
    assert job.state == "running"
    with scene.database.write() as session:
        assert queue.release_expired(session, HOST) == [job.id]


def test_a_lost_lease_writes_nothing(scene: Scene) -> None:
    job_id = scene.ask()
    run = scene.claim()
    scene.die_in(run)
    scene.execution.execute(run)
    assert (scene.job(job_id).state, scene.job(job_id).error) == ("interrupted", None)


def test_the_log_lines_of_a_job_carry_its_id_and_the_next_ones_do_not(scene: Scene) -> None:
    seen: list[dict[str, object]] = []
    scene.domain.when_next("snapshot_create", lambda: seen.append(dict(structlog.contextvars.get_contextvars())))
    job = scene.run()
    assert (seen[0]["job_id"], seen[0]["domain"], seen[0]["attempt"]) == (job.id, "db1", 1)
    assert structlog.contextvars.get_contextvars() == {}
