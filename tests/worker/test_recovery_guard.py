"""The thaw guard acted before recovery came: the job says what it did, and recovery looks for itself all the same."""

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.freeze import after_death, guard_report
from tests.freeze.test_guard_report import NO_PROCESS, THAWED
from tests.scenes.deaths import die, recovered, story
from tests.scenes.host import FREEZE, THAW, Scene


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    (tmp_path / "state" / "guards").mkdir(parents=True)
    return tmp_path / "state"


def left_with_guard(scene: Scene, state_dir: Path, **said: Any) -> str:
    scene.ask()
    job_id = die(scene, scene.domain.die_in(FREEZE, after=True))
    guard_report.path_of(state_dir, job_id).write_text(json.dumps({**THAWED, "job_id": job_id, **said}))
    return job_id


def sentence_of(state_dir: Path, job_id: str) -> str:
    report = guard_report.read(state_dir, job_id)
    assert report is not None
    return guard_report.as_sentence(report)


def test_what_the_guard_did_is_told_and_kept_as_evidence_and_its_file_is_removed(scene: Scene, state_dir: Path) -> None:
    job_id = left_with_guard(scene, state_dir)
    scene.domain.agent.restart()
    told = sentence_of(state_dir, job_id)
    job = recovered(scene, job_id, state_dir)
    assert f"{told} {after_death.NOT_FROZEN}" in story(job)
    assert job.evidence is not None
    assert (job.evidence["guard"]["state"], job.evidence["guard"]["pid"]) == ("thawed", NO_PROCESS)
    assert THAW not in scene.domain.log
    assert guard_report.read(state_dir, job_id) is None


def test_while_the_guard_still_tries_recovery_thaws_as_well(scene: Scene, state_dir: Path) -> None:
    job_id = left_with_guard(scene, state_dir, state="thawing", thawed_at=None, count=None)
    with guard_report.path_of(state_dir, job_id).open("rb") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        told = sentence_of(state_dir, job_id)
        job = recovered(scene, job_id, state_dir)
    assert f"{told} {after_death.THAWED.format(count=2)}" in story(job)
    assert not scene.domain.agent.frozen


def test_a_guard_that_says_it_thawed_is_not_believed_blindly(scene: Scene, state_dir: Path) -> None:
    job_id = left_with_guard(scene, state_dir)
    assert scene.domain.agent.frozen
    recovered(scene, job_id, state_dir)
    assert not scene.domain.agent.frozen


def test_a_report_that_makes_no_sense_changes_nothing_but_the_story(scene: Scene, state_dir: Path) -> None:
    job_id = left_with_guard(scene, state_dir)
    guard_report.path_of(state_dir, job_id).write_bytes(b'{"job_id": "')
    told = sentence_of(state_dir, job_id)
    job = recovered(scene, job_id, state_dir)
    assert told in story(job)
    assert (job.state, scene.domain.agent.frozen) == ("queued", set())


def test_the_report_is_kept_while_the_job_waits(scene: Scene, state_dir: Path) -> None:
    job_id = left_with_guard(scene, state_dir, state="thawing", message="paused")
    scene.domain.pause()
    assert recovered(scene, job_id, state_dir).state == "interrupted"
    assert guard_report.read(state_dir, job_id) is not None
    scene.domain.resume()
    told = sentence_of(state_dir, job_id)
    assert told in story(recovered(scene, job_id, state_dir))
    assert guard_report.read(state_dir, job_id) is None
