"""The job kind preflight: it reads, judges, and changes nothing."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from tests.fakes import FakeDisk
from tests.scenes.host import FREEZE, Scene, error_of, phases_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def result(job: Job) -> dict[str, Any]:
    assert job.state == "succeeded"
    assert job.result is not None
    return job.result


def failing(job: Job) -> list[str]:
    return [check["code"] for check in result(job)["checks"] if check["status"] == "fail"]


def test_a_healthy_guest_would_work(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path)
    job = scene.run("preflight")
    assert (result(job)["would_work"], result(job)["expected_verdict"], job.verdict) == (True, "filesystem", None)
    assert phases_of(job) == [("preflight", "ok")]
    assert (scene.overlays(), scene.domain.points) == ([], [])
    assert FREEZE not in scene.domain.log


def test_what_it_expects_is_what_the_snapshot_then_gets(scene: Scene) -> None:
    assert result(scene.run("preflight"))["expected_verdict"] == scene.run().verdict


def test_a_paused_domain_is_a_failed_check_and_no_failed_job(scene: Scene) -> None:
    scene.domain.pause()
    job = scene.run("preflight")
    assert (failing(job), result(job)["would_work"], result(job)["expected_verdict"]) == (["domain_state"], False, "none")


def test_an_agent_that_is_blocked_is_named(scene: Scene) -> None:
    scene.domain.agent.blocked.add(FREEZE)
    assert failing(scene.run("preflight")) == ["agent_command_blocked"]
    preferred = scene.run("preflight", freeze={"mode": "preferred"})
    assert (failing(preferred), result(preferred)["expected_verdict"]) == ([], "crash")


@pytest.mark.parametrize("request_of", [{"disks": ["vdz"]}, {"disks": ["hda"]}])
def test_disks_that_cannot_be_taken_are_a_failed_check(scene: Scene, request_of: dict[str, Any]) -> None:
    scene.replace([scene.disk("vda"), FakeDisk("hda", None, device="cdrom", read_only=True)])
    assert failing(scene.run("preflight", **request_of)) == ["disks"]


def test_space_that_does_not_suffice_is_a_failed_check(sqlite_database: Database, tmp_path: Path) -> None:
    scene = Scene(sqlite_database, tmp_path, overlay_reserve_bytes=1 << 50)
    assert failing(scene.run("preflight")) == ["space"]


def test_a_guest_that_answers_one_question_with_nonsense_can_still_be_backed_up(scene: Scene) -> None:
    scene.domain.answer_next("guest-info", {"return": None})
    assert failing(scene.run("preflight")) == []


def test_a_libvirt_that_is_away_fails_the_job_itself(scene: Scene) -> None:
    scene.host.is_away = True
    job = scene.run("preflight")
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", None, "libvirt_unavailable")
