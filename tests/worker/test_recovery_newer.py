"""Lost jobs of a newer version, or that cannot be read: the guest is thawed, and nothing else that they had intended is touched."""

from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from service.db.engine import Database
from service.db.tables import Job
from service.model import intent, requests
from tests.scenes.host import Scene, error_of
from tests.worker.test_recovery import Corpse

NEWER: dict[str, dict[str, Any]] = {
    "kind_unknown": {"kind": "defrost"},
    "version_unknown": {"request_version": requests.VERSION + 1},
    "record_unreadable": {"request": {"domain": "db1", "freeze": {"mode": "gently"}}},
}


@pytest.fixture
def corpse(sqlite_database: Database, tmp_path: Path) -> Corpse:
    corpse = Corpse(Scene(sqlite_database, tmp_path, ("vda", "vdb")))
    corpse.left(will_freeze=True)
    corpse.scene.domain.agent.freeze_by_somebody_else()
    return corpse


def assert_only_thawed(corpse: Corpse, code: str) -> None:
    job = corpse.recover()
    assert (job.state, error_of(job)["code"]) == ("interrupted", code)
    assert not corpse.scene.domain.agent.frozen
    assert set(corpse.overlays) <= set(corpse.scene.overlays())


@pytest.mark.parametrize("code", NEWER)
def test_the_guest_of_a_newer_job_is_thawed_and_the_job_waits(corpse: Corpse, code: str) -> None:
    with corpse.scene.database.write() as session:
        session.execute(update(Job).values(NEWER[code]))
    assert_only_thawed(corpse, code)


def test_an_intent_in_a_newer_form_is_not_guessed_at(corpse: Corpse) -> None:
    written = corpse.scene.job(corpse.job_id).intent
    assert written is not None
    corpse.run.write({"intent": {**written, "v": intent.VERSION + 1, "overlays": "elsewhere"}})
    assert_only_thawed(corpse, "version_unknown")


def test_the_guest_of_an_intent_that_makes_no_sense_is_thawed(corpse: Corpse) -> None:
    written = corpse.scene.job(corpse.job_id).intent
    assert written is not None
    corpse.run.write({"intent": {**written, "overlays": [{"target": "vda"}]}})
    assert_only_thawed(corpse, "record_unreadable")
