"""A worker that died while it took a point back: the merge is finished or stopped, and what it wrote to is no point."""

import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.disks import merging
from service.errors import LibvirtUnavailable
from service.errors.jobs import PointFate
from service.jobs.point_outcome import ON_OVERLAY
from service.model.story import DISCARD_BEGUN, DISCARD_FINISHED, PHASE, WORKER_GAVE_UP, WORKER_LOST
from tests.fakes import libvirt_error
from tests.fakes.libvirt_errors import not_running
from tests.scenes.deaths import die, doomed, recovered
from tests.scenes.host import Scene, error_of, phases_of
from tests.scenes.told import pattern, tells

FALLS_SHORT: dict[str, Any] = {"freeze": {"mode": "off"}, "required_verdict": "filesystem", "on_shortfall": "discard"}
DISKS = {"vda": "db1-vda.qcow2", "vdb": "db1-vdb.qcow2"}


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def dead_in(scene: Scene, call: str, *, after: bool = False, skip: int = 0) -> str:
    scene.ask(**FALLS_SHORT)
    return die(scene, scene.domain.die_in(call, after=after, skip=skip))


def unfinished(scene: Scene, job: Job) -> dict[str, Any]:
    """The facts of a discard that could not be finished, and what holds for each."""
    assert (job.state, error_of(job)["code"], job.verdict) == ("failed", "discard_unfinished", "crash")
    assert (job.recovery_point, scene.points()) == (None, [])
    facts: dict[str, Any] = error_of(job)["facts"]
    return facts


MOMENTS: dict[str, tuple[str, bool, int]] = {
    "before the first merge": ("block_commit_active", False, 0),
    "in the first merge": ("block_commit_active", True, 0),
    "before the first pivot": ("block_pivot", False, 0),
    "after the first pivot": ("block_pivot", True, 0),
    "before the second merge": ("block_commit_active", False, 1),
    "in the second merge": ("block_commit_active", True, 1),
    "before the second pivot": ("block_pivot", False, 1),
    "after the second pivot": ("block_pivot", True, 1),
}


@pytest.mark.parametrize("moment", MOMENTS.values(), ids=MOMENTS.keys())
def test_wherever_the_worker_dies_the_discard_is_finished(scene: Scene, moment: tuple[str, bool, int]) -> None:
    call, after, skip = moment
    job = recovered(scene, dead_in(scene, call, after=after, skip=skip))
    assert scene.sources() == DISKS
    assert (scene.overlays(), scene.points(), job.recovery_point) == ([], [], None)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "verdict_below_required")
    assert error_of(job)["facts"]["point"] == PointFate.removed
    assert tells(job, f"{WORKER_LOST} {DISCARD_BEGUN} {DISCARD_FINISHED}", place=PHASE.format(phase="discard"), attempt=1)
    assert scene.run().state == "succeeded"


def test_what_had_been_seen_of_the_point_stays_on_record(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    job = recovered(scene, dead_in(scene, "block_pivot"))
    assert job.evidence is not None
    assert job.evidence["disks_after"] == {"vda": ON_OVERLAY, "vdb": ON_OVERLAY}
    assert job.timing is not None
    assert [reason["code"] for reason in job.verdict_reasons] == ["freeze_off"]
    assert [name for name, _ in phases_of(job)][-2:] == ["evaluate", "recover"]


def test_a_worker_that_died_after_the_discard_and_before_its_last_write(scene: Scene) -> None:
    scene.ask(**FALLS_SHORT)
    run = doomed(scene)
    job = recovered(scene, die(scene, run.at_the_end, run))
    assert (job.state, error_of(job)["code"], scene.points()) == ("failed", "verdict_below_required", [])
    assert scene.sources() == DISKS


def test_a_disk_that_was_being_merged_is_no_recovery_point(scene: Scene) -> None:
    job_id = dead_in(scene, "block_commit_active", after=True)
    scene.domain.fail_next("block_pivot", libvirt_error(1, "no"))
    scene.domain.fail_next("block_commit_active", libvirt_error(1, "no room"))
    facts = unfinished(scene, recovered(scene, job_id))
    assert scene.domain.committed_into
    assert (facts["merged"], facts["unmerged"]) == ("none", "vda, vdb")


def test_half_of_the_disks_merged_is_told_and_nothing_in_use_is_deleted(scene: Scene) -> None:
    job_id = dead_in(scene, "block_commit_active", skip=1)
    scene.domain.fail_next("block_commit_active", libvirt_error(1, "no room at all"))
    job = recovered(scene, job_id)
    facts = unfinished(scene, job)
    assert (facts["merged"], facts["unmerged"]) == ("vda", "vdb")
    assert "no room at all" in error_of(job)["detail"]
    assert scene.overlays() == [scene.sources()["vdb"]]
    assert "virsh blockcommit db1 DISK" in error_of(job)["remedy"]


def put_on_a_newer_snapshot(scene: Scene) -> None:
    scene.domain.put_on("vdb", scene.images / "newer-vdb.qcow2")


def mirror_somewhere_else(scene: Scene) -> None:
    scene.domain.mirrors["vdb"] = {"job": "copy", "ready": "yes"}
    scene.domain.mirrored_into["vdb"] = "/elsewhere/vdb.raw"


def leave_the_definition_behind(scene: Scene) -> None:
    overlay = scene.domain.source("vdb")
    scene.domain.when_next("block_pivot", lambda: None)
    scene.domain.when_next("block_pivot", lambda: scene.domain.put_on("vdb", overlay, live=False))


IN_THE_WAY: dict[str, tuple[Callable[[Scene], None], str]] = {
    "a newer snapshot of somebody else lies on top": (put_on_a_newer_snapshot, "newer-vdb.qcow2"),
    "a copy of somebody else runs on the disk": (mirror_somewhere_else, r"\(copy\).*/elsewhere/vdb\.raw"),
    "the definition of the next start still names the overlay": (leave_the_definition_behind, pattern(merging.DEFINITION_BEHIND)),
}


@pytest.mark.parametrize(("put", "told"), IN_THE_WAY.values(), ids=IN_THE_WAY.keys())
def test_what_stands_in_the_way_is_named_and_the_overlay_stays(scene: Scene, put: Callable[[Scene], None], told: str) -> None:
    job_id = dead_in(scene, "block_commit_active")
    overlay = scene.sources()["vdb"]
    put(scene)
    job = recovered(scene, job_id)
    assert (unfinished(scene, job)["merged"], unfinished(scene, job)["unmerged"]) == ("vda", "vdb")
    assert re.search(told, error_of(job)["detail"])
    assert overlay in scene.overlays()
    assert scene.sources()["vda"] == "db1-vda.qcow2"


def test_a_domain_that_was_shut_off_keeps_its_overlays_and_the_job_says_what_to_do(scene: Scene) -> None:
    job_id = dead_in(scene, "block_commit_active", after=True)
    scene.domain.shut_off(cleanly=False)
    job = recovered(scene, job_id)
    assert unfinished(scene, job)["unmerged"] == "vda, vdb"
    assert str(not_running()) in error_of(job)["detail"]
    assert scene.overlays() == sorted(scene.sources().values())


def test_a_merge_that_ended_by_itself_is_begun_again_by_recovery(scene: Scene) -> None:
    job_id = dead_in(scene, "block_commit_active", after=True)
    scene.domain.mirrors.clear()
    assert error_of(recovered(scene, job_id))["code"] == "verdict_below_required"
    assert scene.sources() == DISKS


def test_a_merge_that_ends_by_itself_while_it_is_waited_for_is_told(scene: Scene) -> None:
    job_id = dead_in(scene, "block_commit_active")
    scene.domain.mirrors["vda"] = {"job": "active-commit"}
    threading.Timer(0.2, scene.domain.mirrors.clear).start()
    job = recovered(scene, job_id)
    assert unfinished(scene, job)["unmerged"] == "vda"
    assert merging.ENDED_EARLY in error_of(job)["detail"]


def test_a_libvirt_that_goes_away_in_the_middle_leaves_the_rest_to_the_next_look(scene: Scene) -> None:
    job_id = dead_in(scene, "block_pivot")
    scene.domain.when_next("block_pivot", lambda: scene.domain.libvirtd_goes_away(1))
    with pytest.raises(LibvirtUnavailable):
        recovered(scene, job_id)
    assert scene.job(job_id).state == "interrupted"
    assert error_of(recovered(scene, job_id))["code"] == "verdict_below_required"
    assert scene.sources() == DISKS


# --- the same while the worker lives --------------------------------------------------------------


def test_a_merge_that_fails_half_way_leaves_no_point(scene: Scene) -> None:
    scene.domain.fail_next("block_pivot", libvirt_error(1, "no"))
    job = scene.run(**FALLS_SHORT)
    assert unfinished(scene, job)["unmerged"] == "vda"
    assert scene.sources()["vdb"] == "db1-vdb.qcow2"


def test_a_merge_that_began_although_libvirt_answered_an_error_goes_on(scene: Scene) -> None:
    scene.domain.fail_next("block_commit_active", libvirt_error(1, "cut short"), after=True)
    job = scene.run(**FALLS_SHORT)
    assert (error_of(job)["code"], scene.sources()) == ("verdict_below_required", DISKS)


def test_a_libvirt_that_goes_away_hands_the_discard_to_recovery(scene: Scene) -> None:
    scene.ask(**FALLS_SHORT)
    run = scene.claim()
    away = LibvirtUnavailable(uri="fake:///", reason="gone")
    scene.domain.fail_next("block_pivot", away)
    scene.execution.execute(run)
    scene.die_in(run)
    job = recovered(scene, run.claim.job_id)
    assert tells(job, WORKER_GAVE_UP, place=PHASE.format(phase="discard"), attempt=1, why=away.detail.rstrip("."))
    assert (error_of(job)["code"], scene.sources(), scene.points()) == ("verdict_below_required", DISKS, [])
