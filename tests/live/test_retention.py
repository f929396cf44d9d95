"""Retention with a real guest: of four backups of a track the last two stay, prune takes the others, and what stays verifies."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from service.db.engine import Database, database_now
from service.db.tables import Job, RecoveryPoint
from service.model.lifecycle import JobState
from service.model.repository import RepositoryState
from service.model.requests import PruneRequest, VerifyRequest
from service.records import queue, repositories
from service.records.queue import NewJob
from service.records.repositories import Look
from service.scheduler.retention import RetentionLooks
from tests.api.world import add_host
from tests.lab.guests import LabGuest
from tests.live.backups import HOST, BackupScene
from tests.live.test_backup import write
from tests.scenes.retained import NIGHTLY, add_policy

pytestmark = pytest.mark.live

CHAIN = {"max_depth": 1, "max_ratio": None}
"""A full, an increment, a full, an increment."""


@pytest.fixture
def scene(lab: None, sqlite_database: Database, tmp_path: Path) -> Iterator[BackupScene]:
    scene = BackupScene(sqlite_database, tmp_path)
    with sqlite_database.write() as session:
        add_host(session, HOST)
        now = database_now(session)
        repositories.note_look(session, scene.repository_id, Look(RepositoryState.ready, format_version=1), now, asked_at=now)
        add_policy(session, retention={"keep_last": 2, "new_full": CHAIN})
    yield scene
    scene.close()


def back_up(scene: BackupScene, guest: LabGuest, text: str) -> tuple[str, Path]:
    """As the schedule of the track asks for it. Returns the id of the point and its folder."""
    write(guest, text)
    job = scene.run(guest.name, labels=NIGHTLY.as_labels(), new_full=CHAIN)
    assert job.state == JobState.succeeded, job.error
    point = scene.point(job)
    return point.id, scene.path / (point.folder or "")


def verify(scene: BackupScene, point_id: str) -> str:
    request = VerifyRequest(point_id)
    new = NewJob(request.kind.value, None, None, HOST, request.as_document(), {}, point_id=point_id, repository_id=scene.repository_id)
    with scene.database.write() as session:
        job_id = queue.enqueue(session, new).job_id
    scene.execute()
    return scene.job(job_id).state


def test_the_last_two_of_four_backups_stay_and_verify(scene: BackupScene, lab_guest: LabGuest) -> None:
    points = [back_up(scene, lab_guest, text) for text in ("one", "two", "three", "four")]
    assert RetentionLooks(scene.database, lambda: None).look() == 1
    scene.execute()
    with scene.database.read() as session:
        prune = session.scalars(select(Job).where(Job.kind == PruneRequest.kind.value)).one()
        left = set(session.scalars(select(RecoveryPoint.id)))
    assert (prune.state, left) == ("succeeded", {point_id for point_id, _ in points[2:]}), prune.error
    assert [folder.exists() for _, folder in points] == [False, False, True, True]
    assert [verify(scene, point_id) for point_id, _ in points[2:]] == ["succeeded", "succeeded"]
    back_up(scene, lab_guest, "five")
    assert RetentionLooks(scene.database, lambda: None).look() == 0, "the increment that is kept needs the third point"
