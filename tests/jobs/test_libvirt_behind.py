"""libvirtd was killed after QEMU had switched the disks: libvirt names the files below, and the overlays that QEMU writes to are kept."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.disks.merging import merge_back
from service.errors import LibvirtBehindQemu
from service.model.intent import Intent, Overlay
from service.worker import doctor_domains
from service.worker.finding import Health
from tests.fakes import libvirt_error
from tests.fakes.qemu import FakeQemu, guest_writes
from tests.scenes.deaths import die, recovered, story
from tests.scenes.host import FREEZE, Scene, error_of

BEHIND = "libvirt_behind_qemu"


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


@pytest.fixture(params=[True, False], ids=["process", "locks"])
def qemu(scene: Scene, request: pytest.FixtureRequest) -> Iterator[FakeQemu]:
    """Once as root sees it in /proc, and once only by the locks of its images."""
    with FakeQemu(scene.domain, is_seen=request.param) as qemu:
        yield qemu


def overlays_of(job: Job) -> list[Overlay]:
    return list(Intent.from_document(job.intent).overlays)


def assert_point_is_kept(scene: Scene, job: Job, verdict: str) -> None:
    assert (job.state, error_of(job)["code"], job.verdict) == ("failed", BEHIND, verdict)
    (point,) = scene.points()
    assert [disk["file"] for disk in point.disks] == [str(scene.images / "db1-vda.qcow2"), str(scene.images / "db1-vdb.qcow2")]
    assert sorted(Path(disk["overlay"]).name for disk in point.disks) == scene.overlays()
    facts = error_of(job)["facts"]
    assert (facts["domain"], facts["disk"]) == ("db1", "vda, vdb")
    assert facts["libvirt_file"] == ", ".join(disk["file"] for disk in point.disks)
    assert facts["qemu_file"] == ", ".join(disk["overlay"] for disk in point.disks)


def test_a_job_keeps_the_overlays_that_qemu_writes_to_and_tells_it(scene: Scene, qemu: FakeQemu) -> None:
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    assert_point_is_kept(scene, scene.run(), "filesystem")


def test_recovery_keeps_them_too(scene: Scene, qemu: FakeQemu) -> None:
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    scene.ask()
    # The guest is thawed by recovery, after the next libvirtd has come.
    job_id = die(scene, scene.domain.die_in("guest-fsfreeze-thaw"))
    job = recovered(scene, job_id)
    assert_point_is_kept(scene, job, "crash")
    assert error_of(job)["detail"] in story(job)


def test_no_merge_is_begun_where_libvirt_would_merge_the_wrong_file(scene: Scene, qemu: FakeQemu) -> None:
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    job = scene.run(freeze={"mode": "off"}, required_verdict="filesystem", on_shortfall="discard")
    assert_point_is_kept(scene, job, "crash")
    assert "block_commit_active" not in scene.domain.log


def test_a_discard_does_not_take_an_overlay_for_merged_that_qemu_writes_to(scene: Scene, qemu: FakeQemu) -> None:
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    overlays = overlays_of(scene.run())
    merge = merge_back(scene.host.guest("db1"), overlays, was_begun=True)
    assert {target: type(error) for target, error in merge.errors.items()} == {"vda": LibvirtBehindQemu, "vdb": LibvirtBehindQemu}
    assert len(scene.overlays()) == 2


def test_the_next_job_a_gate_and_preflight_are_refused_and_nothing_is_frozen(scene: Scene, qemu: FakeQemu) -> None:
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    before = overlays_of(scene.run())
    scene.domain.log.clear()

    job, preflight = scene.run(), scene.run("preflight")
    gate = scene.run_alone(scene.ask_for_a_gate())

    assert [(job.state, error_of(job)["code"]), (gate.state, error_of(gate)["code"])] == [("failed", BEHIND)] * 2
    assert preflight.result is not None
    assert preflight.result["would_work"] is False
    assert {check["code"] for check in preflight.result["checks"] if check["status"] == "fail"} == {BEHIND}
    assert FREEZE not in scene.domain.log
    assert scene.overlays() == sorted(Path(overlay.path).name for overlay in before)


def test_doctor_names_the_domain(scene: Scene, qemu: FakeQemu) -> None:
    assert [finding.health for finding in doctor_domains.look_at(scene.host.guests())] == [Health.ok]
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    scene.run()
    found = list(doctor_domains.look_at(scene.host.guests()))
    assert [finding.health for finding in found] == [Health.fail, Health.fail]
    assert all("db1" in finding.detail for finding in found)


def test_a_guest_that_was_shut_down_since_has_its_writes_in_the_overlay(scene: Scene, qemu: FakeQemu) -> None:
    """The definition names the files below: the next start would be without the writes of the guest."""
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    scene.ask()
    job_id = die(scene, scene.domain.die_in("guest-fsfreeze-thaw"))
    for overlay in overlays_of(scene.job(job_id)):
        guest_writes(overlay.path)
    qemu.ends()
    scene.domain.shut_off()
    assert_point_is_kept(scene, recovered(scene, job_id), "crash")


def test_writes_of_a_guest_that_was_started_on_the_file_below_stay_though_there_is_no_point(scene: Scene, qemu: FakeQemu) -> None:
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    scene.ask(max_attempts=1)
    job_id = die(scene, scene.domain.die_in("guest-fsfreeze-thaw"))
    overlays = overlays_of(scene.job(job_id))
    for overlay in overlays:
        guest_writes(overlay.path)
    qemu.has_open({overlay.base: True for overlay in overlays})
    scene.domain.power_cycle()
    job = recovered(scene, job_id)
    assert (job.state, job.verdict, scene.points()) == ("failed", "none", [])
    assert all(overlay.path in story(job) and Path(overlay.path).exists() for overlay in overlays)


def test_a_start_on_the_file_below_and_a_shutdown_leave_it_in_doubt_which_file_is_right(scene: Scene, qemu: FakeQemu) -> None:
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    scene.ask(max_attempts=1)
    job_id = die(scene, scene.domain.die_in("guest-fsfreeze-thaw"))
    for overlay in overlays_of(scene.job(job_id)):
        guest_writes(overlay.path)
        later = Path(overlay.path).stat().st_mtime_ns + 1
        os.utime(overlay.base, ns=(later, later))
    qemu.ends()
    scene.domain.shut_off()
    job = recovered(scene, job_id)
    assert (job.state, error_of(job)["code"], scene.points()) == ("failed", "disks_in_doubt", [])
    assert len(scene.overlays()) == 2


def test_an_overlay_that_qemu_opened_and_did_not_switch_to_is_no_point_and_stays(scene: Scene, qemu: FakeQemu) -> None:
    """libvirtd was killed before QEMU carried out the snapshot. The next job works."""

    def opened_only(moves: dict[str, str]) -> None:
        qemu.has_open({**{scene.domain.source(target): True for target in moves}, **dict.fromkeys(moves.values(), True)})

    scene.domain.libvirtd_dies_in_snapshot(opened_only)
    job = scene.run()
    assert (job.state, error_of(job)["code"], job.verdict, scene.points()) == ("failed", "snapshot_failed", "none", [])
    assert all(str(scene.images / name) in error_of(job)["detail"] for name in scene.overlays())
    assert len(scene.overlays()) == 2
    assert scene.run().state == "succeeded"


def test_while_an_overlay_is_merged_behind_libvirts_back_nothing_is_said_of_the_disks_and_no_job_begins(
    scene: Scene, qemu: FakeQemu
) -> None:
    scene.domain.libvirtd_dies_in_snapshot(qemu.switches)
    scene.ask()
    job_id = die(scene, scene.domain.die_in("guest-fsfreeze-thaw"))
    overlays = overlays_of(scene.job(job_id))
    for overlay in overlays:
        guest_writes(overlay.path)
    qemu.has_open({path: True for overlay in overlays for path in (overlay.base, overlay.path)})
    job = recovered(scene, job_id)
    assert (job.state, error_of(job)["code"], scene.points()) == ("failed", "disks_in_doubt", [])
    assert len(scene.overlays()) == 2


def test_a_snapshot_that_failed_leaves_no_overlay(scene: Scene, qemu: FakeQemu) -> None:
    """QEMU is seen, has the disks open, and not the overlays."""
    scene.domain.fail_next("snapshot_create", libvirt_error(1, "internal error: unable to execute QEMU command 'transaction'"))
    assert error_of(scene.run())["code"] == "snapshot_failed"
    assert scene.overlays() == []
