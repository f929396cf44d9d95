"""A file that somebody else writes to, or will, is not called a point: found before, and looked for again after the disks were switched."""

import fcntl
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import libvirt as _libvirt
import pytest

from service import bounded_io
from service.db.engine import Database
from service.db.tables import Job
from service.disks import image_users
from service.disks.image_lock import _FLOCK as FLOCK
from service.errors import StorageNotAnswering
from tests.fakes import FakeDomain
from tests.fakes.domain import MIGRATED, SAVING
from tests.scenes.host import FREEZE, Scene, error_of, qcow2_header

libvirt: Any = _libvirt


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path)


@contextmanager
def held_open(path: Path, mode: str, *arguments: str) -> Iterator[int]:
    """A process that has the file open."""
    program = f"import sys; file = open({str(path)!r}, {mode!r}); print('open', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        yield process.pid
        process.stdin.close()


def twin_of(scene: Scene, name: str = "twin", *, running: bool = True, **disk: Any) -> FakeDomain:
    """Another domain on the very image of db1."""
    twin = FakeDomain(name, [scene.disk("vda", "db1", **disk)])
    if not running:
        twin.shut_off()
    scene.host.domains.append(twin)
    return twin


def checks(job: Job) -> dict[str, str]:
    assert job.result is not None
    return {check["code"]: check["status"] for check in job.result["checks"]}


def assert_refused(scene: Scene, code: str) -> dict[str, Any]:
    """By the job, which changed nothing, and by preflight in the same words."""
    job, preflight = scene.run(), scene.run("preflight")
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", code)
    assert (scene.domain.points, scene.overlays()) == ([], [])
    assert FREEZE not in scene.domain.log
    assert preflight.result is not None
    assert (preflight.result["would_work"], checks(preflight)[code]) == (False, "fail")
    return dict(error_of(job)["facts"])


@pytest.mark.parametrize("is_off", [True, False])
def test_an_image_that_a_running_twin_writes_is_in_use(scene: Scene, is_off: bool) -> None:
    twin_of(scene)
    if is_off:
        scene.domain.shut_off()
    facts = assert_refused(scene, "image_in_use")
    assert facts["file"] == str(scene.images / "db1-vda.qcow2")
    assert "twin" in facts["holder"]


@pytest.mark.parametrize("is_off", [True, False])
def test_an_image_that_another_process_writes_is_in_use(scene: Scene, is_off: bool) -> None:
    if is_off:
        scene.domain.shut_off()
    with held_open(scene.images / "db1-vda.qcow2", "r+b") as pid:
        assert str(pid) in assert_refused(scene, "image_in_use")["holder"]


def test_an_image_under_another_name_is_the_same_image(scene: Scene, tmp_path: Path) -> None:
    scene.domain.shut_off()
    os.link(scene.images / "db1-vda.qcow2", tmp_path / "hard.qcow2")
    (tmp_path / "soft.qcow2").symlink_to(scene.images / "db1-vda.qcow2")
    for other in ("hard.qcow2", "soft.qcow2"):
        with held_open(tmp_path / other, "r+b"):
            assert error_of(scene.run())["code"] == "image_in_use"


def test_a_file_below_that_somebody_writes_is_in_use(scene: Scene) -> None:
    below = scene.images / "below.qcow2"
    below.write_bytes(qcow2_header())
    (scene.images / "db1-vda.qcow2").write_bytes(qcow2_header(below=str(below)))
    with held_open(below, "r+b"):
        job = scene.run()
    assert error_of(job)["code"] == "image_in_use"
    assert error_of(job)["facts"]["file"] == str(below)


def test_a_lock_for_writing_whose_holder_is_not_seen_is_enough(scene: Scene) -> None:
    """Of another host over NFS, or of another container: here it is of the worker itself, whose processes are not looked at."""
    scene.domain.shut_off()
    with (scene.images / "db1-vda.qcow2").open("r+b") as file:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, FLOCK.pack(fcntl.F_RDLCK, os.SEEK_SET, 101, 1, 0))
        assert "lock" in assert_refused(scene, "image_in_use")["holder"]


def test_who_only_reads_an_image_is_in_nobodys_way(scene: Scene) -> None:
    scene.domain.shut_off()
    with held_open(scene.images / "db1-vda.qcow2", "rb"):
        job = scene.run()
    assert (job.state, job.verdict) == ("succeeded", "offline")


def test_the_qemu_of_the_domain_itself_may_write(scene: Scene) -> None:
    with held_open(scene.images / "db1-vda.qcow2", "r+b", "-uuid", scene.domain.uuid()):
        assert scene.run().verdict == "filesystem"


def test_other_domains_of_the_host_are_in_nobodys_way(scene: Scene) -> None:
    scene.add("db2")
    twin_of(scene, "off", running=False)
    twin_of(scene, "reader", read_only=True)
    assert scene.run().state == "succeeded"


def test_a_domain_that_cannot_be_read_does_not_stop_the_points_of_others(scene: Scene) -> None:
    other = scene.add("db2")
    other.exists = False
    assert scene.run().state == "succeeded"


def test_a_loop_device_on_storage_that_hangs_stops_no_point_of_others(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "hangs" / "image"
    backing = tmp_path / "block" / "loop7" / "loop" / "backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text(f"{elsewhere}\n")
    monkeypatch.setattr(image_users, "BLOCK_DEVICES", tmp_path / "block")
    call = bounded_io.call

    def hangs(what: str, path: str | Path, function: Callable[[], Any], limit_s: float | None = None) -> Any:
        if str(path) == str(elsewhere):
            raise StorageNotAnswering(what=what, path=str(path), timeout_ms=0.0, why="it hangs")
        return call(what, path, function, limit_s)

    monkeypatch.setattr(bounded_io, "call", hangs)
    assert scene.run().state == "succeeded"


def test_a_domain_that_was_saved_goes_on_with_that_very_file(scene: Scene) -> None:
    scene.domain.shut_off()
    scene.domain.managed_save = True
    assert_refused(scene, "saved_state_waits")


def test_checkpoints_are_in_the_way_of_a_domain_that_is_off_only(scene: Scene) -> None:
    scene.domain.checkpoints = ["daily"]
    assert scene.run().verdict == "filesystem"
    scene.domain.shut_off()
    assert error_of(scene.run())["code"] == "checkpoints_in_the_way"
    assert len(scene.domain.points) == 1


def test_a_domain_that_runs_on_another_host_is_not_offline(scene: Scene) -> None:
    scene.domain.state_now = MIGRATED
    assert_refused(scene, "domain_state_unsuitable")


@pytest.mark.parametrize("mode", ["required", "off"])
def test_a_domain_that_is_being_saved_or_migrated_is_left_alone(scene: Scene, mode: str) -> None:
    migrating = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
    from_elsewhere = (libvirt.VIR_DOMAIN_RUNNING, libvirt.VIR_DOMAIN_RUNNING_POSTCOPY)
    for state in (SAVING, migrating, from_elsewhere):
        scene.domain.state_now = state
        job = scene.run(freeze={"mode": mode})
        assert job.state == "failed", state
        assert scene.domain.points == []


# --- between the look and the switch ---------------------------------------------------------------


def test_a_domain_that_is_started_while_the_point_is_prepared_is_refused(scene: Scene) -> None:
    scene.domain.shut_off()
    scene.domain.when_next("block_capacity", scene.domain.resume)
    job = scene.run()
    assert (job.state, error_of(job)["code"]) == ("failed", "domain_state_unsuitable")
    assert (scene.domain.points, scene.overlays()) == ([], [])


def test_a_twin_that_is_started_while_the_point_is_prepared_is_refused(scene: Scene) -> None:
    scene.domain.shut_off()
    scene.domain.when_next("block_capacity", lambda: twin_of(scene))
    job = scene.run()
    assert (job.state, error_of(job)["code"]) == ("failed", "image_in_use")
    assert (scene.domain.points, scene.overlays()) == ([], [])


@pytest.mark.parametrize(("mode", "state", "error"), [("required", "failed", "verdict_below_required"), ("preferred", "succeeded", None)])
def test_a_domain_that_is_started_in_the_last_moment_gives_no_offline_point(scene: Scene, mode: str, state: str, error: str | None) -> None:
    scene.domain.shut_off()
    scene.domain.when_next("snapshot_create", scene.domain.resume)
    job = scene.run(freeze={"mode": mode})
    assert (job.state, job.verdict) == (state, "crash")
    assert (job.error["code"] if job.error else None) == error
    assert "freeze_skipped" in [reason["code"] for reason in job.verdict_reasons]
    assert [point.verdict for point in scene.points()] == ["crash"]


def test_files_that_a_twin_writes_after_the_switch_are_no_point_and_the_job_says_where_the_disks_are(scene: Scene) -> None:
    scene.domain.shut_off()
    scene.domain.when_next("snapshot_create", lambda: twin_of(scene))
    job = scene.run()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "point_is_written")
    assert [reason["code"] for reason in job.verdict_reasons] == ["point_is_written"]
    (overlay,) = scene.overlays()
    assert scene.sources() == {"vda": overlay}
    assert error_of(job)["facts"]["overlays"] == str(scene.images / overlay)
    assert error_of(job)["facts"]["file"] == str(scene.images / "db1-vda.qcow2")
    assert scene.points() == []


# --- what libvirt keeps itself ---------------------------------------------------------------------


def test_snapshots_of_libvirts_own_are_warned_of(scene: Scene) -> None:
    assert checks(scene.run("preflight"))["libvirt_snapshots"] == "pass"
    scene.domain.libvirt_snapshots = ["before-upgrade"]
    assert checks(scene.run("preflight"))["libvirt_snapshots"] == "warn"


def test_snapshots_inside_of_an_image_are_warned_of(scene: Scene) -> None:
    (scene.images / "db1-vda.qcow2").write_bytes(qcow2_header(snapshots=2))
    preflight = scene.run("preflight")
    assert checks(preflight)["libvirt_snapshots"] == "warn"
    assert scene.run().state == "succeeded"
