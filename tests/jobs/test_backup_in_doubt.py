"""The repository goes away while a point is published, so that the answer is lost. The point is on the list if it is there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.errors import RepositoryGone, RepositoryNotAnswering
from service.repository.store import Repository
from tests.scenes.backups import BackupScene, Steps
from tests.scenes.host import error_of
from tests.scenes.plant import wait_for
from tests.scenes.watched import Watched


class Share:
    """The folder of the repository, which can be away."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.away = path.with_name("away")

    def go(self, _: Repository) -> None:
        self.path.rename(self.away)
        raise RepositoryGone(path=str(self.path), reason="it was unmounted")

    def come_back(self) -> None:
        self.away.rename(self.path)


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> BackupScene:
    return BackupScene(sqlite_database, tmp_path)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


@pytest.fixture
def watched(scene: BackupScene, tmp_path: Path) -> Iterator[Watched]:
    made = Watched(scene.database, tmp_path)
    # Only a repository that was never seen is made in a folder that is not there.
    made.look("main")
    yield made
    made.stopping.set()
    have_ended = [watch.stop(20) for watch in made.watches]
    assert all(have_ended)


def settled(scene: BackupScene, watched: Watched, job: Job) -> bool:
    """What the job says of its point after the watch has looked at the repository."""

    def backup() -> dict[str, object]:
        result = scene.job(job.id).result
        assert result is not None
        return dict(result["backup"])

    watched.watch().look_at_due()
    wait_for(lambda: "may_be_sealed" not in backup(), "the watch over the repository")
    return backup()["was_sealed"] is True


def test_a_point_whose_answer_was_lost_is_found_by_the_job_itself(scene: BackupScene, steps: Steps) -> None:
    def lose(_: Repository) -> None:
        raise RepositoryNotAnswering(path=str(scene.path), step="publish", silent_s=60.0)

    steps.after("publish", lose)
    job = scene.run()
    assert (job.state, [point.id for point in scene.sealed()]) == ("succeeded", [scene.manifests()[0].point_id]), job.error
    assert (scene.is_as_before(), scene.our_checkpoints()) == (True, [scene.manifests()[0].disks[0].checkpoint])


def test_a_point_whose_repository_stays_away_is_on_the_list_when_it_is_back(scene: BackupScene, steps: Steps, watched: Watched) -> None:
    share = Share(scene.path)
    steps.after("publish", share.go)
    job = scene.run()
    assert (job.state, error_of(job)["code"], scene.sealed()) == ("failed", "point_may_be_sealed", [])
    assert (scene.is_as_before(), scene.our_checkpoints()) == (True, [])
    share.come_back()
    assert settled(scene, watched, job)
    (manifest,), (point,) = scene.manifests(), scene.sealed()
    assert manifest.folder == error_of(job)["facts"]["folder"]
    assert (point.id, point.job_id) == (manifest.point_id, job.id)
    assert scene.run().state == "succeeded"


def test_a_point_that_was_not_published_leaves_nothing_when_the_repository_is_back(
    scene: BackupScene, steps: Steps, watched: Watched
) -> None:
    share = Share(scene.path)
    steps.before("publish", share.go)
    job = scene.run()
    assert error_of(job)["code"] == "point_may_be_sealed"
    share.come_back()
    assert not settled(scene, watched, job)
    assert (scene.sealed(), scene.manifests(), scene.partial_folders()) == ([], [], [])


def test_a_repository_that_is_still_away_settles_nothing(scene: BackupScene, steps: Steps, watched: Watched) -> None:
    share = Share(scene.path)
    steps.after("publish", share.go)
    job = scene.run()
    watched.look("main")
    result = scene.job(job.id).result
    assert result is not None
    assert result["backup"]["may_be_sealed"] is True
    share.come_back()
    assert settled(scene, watched, job)
