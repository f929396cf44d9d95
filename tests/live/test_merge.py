"""Points of a real guest are merged: what its newest point shows is the same before and after, and the next increment stands on it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.records import queue
from service.records.queue import NewJob
from service.repository.store import Repository
from tests.lab.guests import LabGuest
from tests.live.backups import HOST, BackupScene, are_identical, convert

pytestmark = pytest.mark.live


@pytest.fixture
def scene(lab: None, sqlite_database: Database, tmp_path: Path) -> Iterator[BackupScene]:
    scene = BackupScene(sqlite_database, tmp_path)
    yield scene
    scene.close()


def merge(scene: BackupScene, *point_ids: str, **request: Any) -> Job:
    asked = {"kind": "merge", "repository": scene.repository_id, "recovery_points": list(point_ids), **request}
    new = NewJob("merge", None, None, HOST, asked, {}, repository_id=scene.repository_id)
    with scene.database.write() as session:
        job_id = queue.enqueue(session, new).job_id
    scene.execute()
    return scene.job(job_id)


def test_a_full_point_and_increments_are_merged_away_and_the_newest_shows_the_same(
    scene: BackupScene, lab_guest: LabGuest, tmp_path: Path
) -> None:
    guest = lab_guest
    jobs = []
    for write in ("one", "two", "three", "four"):
        guest.exec("/bin/sh", "-c", f"dd if=/dev/urandom of=/data/{write} bs=1M count=2 2>/dev/null; rm -f /data/one; sync")
        jobs.append(scene.run(guest.name))
    assert [set(scene.levels(job).values()) for job in jobs] == [{"full"}, {"bitmap"}, {"bitmap"}, {"bitmap"}]
    full, second, third, newest = jobs
    images = {target: convert(scene.image(newest, target), tmp_path / f"{target}.raw") for target in scene.levels(newest)}

    job = merge(scene, scene.point(full).id, scene.point(second).id, remove=True)

    assert job.state == "succeeded", job.error
    assert {path.name for path in scene.image(newest).parents[1].iterdir()} == {scene.image(each).parent.name for each in (third, newest)}
    assert scene.point(third).parents == []
    assert all(are_identical(scene.image(newest, target), raw) for target, raw in images.items())
    with Repository(str(scene.path), scene.repository_id) as repository:
        folder = str(scene.point(newest).folder)
        seen = repository.call("verify_point", {"folder": folder, "checks": ["bytes", "structure", "filesystem"]})
    assert (seen["bytes"]["ok"], seen["structure"]["ok"]) == (True, True)
    assert all(filesystem["state"] != "errors" for disk in seen["filesystem"].values() for filesystem in disk)

    merge(scene, scene.point(third).id, remove=True)
    after = scene.run(guest.name)
    assert set(scene.levels(after).values()) == {"bitmap"}, "the bitmap of the newest point is still right"
    assert scene.point(after).parents == [scene.point(newest).id]
