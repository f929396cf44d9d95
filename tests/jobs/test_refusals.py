"""Whatever the host denies on the way to the window ends the job at once, with the file and the reason; nothing is frozen or left."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.disks import images, overlay_file, overlays, rehearsal
from service.errors import HostOutOfDescriptors
from service.jobs.snapshot import Snapshot
from service.model.intent import Overlay
from service.worker import execution
from tests.scenes.host import FREEZE, Scene, error_of

ERRORS = [
    errno.EACCES,
    errno.EPERM,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.ENAMETOOLONG,
    errno.ENOTDIR,
    errno.ELOOP,
    errno.ESTALE,
    errno.EIO,
]


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def denied(number: int, times: int = 1 << 30) -> Callable[..., Any]:
    left = [times]

    def deny(*_arguments: object, **_options: object) -> None:
        if left[0] == 0:
            raise AssertionError("asked once more")
        left[0] -= 1
        raise OSError(number, os.strerror(number))

    return deny


def refused(scene: Scene, number: int) -> dict[str, Any]:
    """The error of a snapshot, which preflight foresaw."""
    preflight = scene.run("preflight")
    job = scene.run()
    assert (preflight.state, (preflight.result or {})["would_work"]) == ("succeeded", False)
    assert (job.state, job.attempt, job.freeze) == ("failed", 1, None)
    assert FREEZE not in scene.domain.log
    assert scene.overlays() == []
    error = error_of(job)
    assert error["facts"]["errno"] == errno.errorcode[number]
    assert os.strerror(number) in error["detail"]
    return error


@pytest.mark.parametrize("number", ERRORS)
def test_an_overlay_that_cannot_be_made_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(overlay_file, "make", denied(number))
    assert refused(scene, number)["facts"]["path"].startswith(str(scene.images / "db1-vda."))


@pytest.mark.parametrize("number", ERRORS)
def test_a_folder_whose_space_cannot_be_asked_is_named(scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", denied(number))
    assert refused(scene, number)["facts"]["path"] == str(scene.images)


@pytest.mark.parametrize("number", [errno.ENOENT, *ERRORS])
def test_an_image_that_cannot_be_looked_at_is_named_and_not_its_overlay(scene: Scene, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    monkeypatch.setattr(images, "Path", lambda _: type("Denied", (), {"stat": staticmethod(denied(number))}))
    error = refused(scene, number)
    assert (error["code"], error["facts"]["path"]) == ("disk_image_missing", str(scene.images / "db1-vda.qcow2"))


def test_an_image_that_was_deleted_is_named_and_not_its_overlay(scene: Scene) -> None:
    (scene.images / "db1-vdb.qcow2").unlink()
    error = refused(scene, errno.ENOENT)
    assert (error["code"], error["facts"]["path"]) == ("disk_image_missing", str(scene.images / "db1-vdb.qcow2"))


def test_a_job_that_is_refused_leaves_no_output_in_the_memory_of_the_agent(scene: Scene) -> None:
    (scene.images / "db1-vdb.qcow2").unlink()
    refused(scene, errno.ENOENT)
    # One program of the preflight, and one of the snapshot.
    assert (scene.domain.agent.executed, scene.domain.agent.unread_programs()) == (["/bin/sh"] * 2, 0)


def test_files_that_libvirt_does_not_see_are_refused(scene: Scene) -> None:
    scene.domain.hidden = scene.images
    preflight, job = scene.run("preflight"), scene.run()
    assert [check["code"] for check in (preflight.result or {})["checks"] if check["status"] == "fail"] == ["libvirt_files"]
    assert (error_of(job)["code"], scene.overlays()) == ("libvirt_sees_other_files", [])
    assert FREEZE not in scene.domain.log


def test_a_host_without_descriptors_costs_a_job_no_attempt(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "DESCRIPTORS_PAUSE_S", 0.0)
    real, left = rehearsal.opened, [3]

    def out_of_them(*arguments: Any) -> dict[str, Any]:
        if left[0] == 0:
            return real(*arguments)
        left[0] -= 1
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(rehearsal, "opened", out_of_them)
    job = scene.run()
    assert (job.state, job.attempt, left) == ("succeeded", 1, [0])
    assert [phase["outcome"] for phase in job.phases] == ["ok"] * len(job.phases)
    assert len(scene.overlays()) == 2


@pytest.mark.parametrize(("what", "state"), [("cancel_requested", "cancelled"), ("lease_lost", "running")])
def test_a_job_that_waits_for_descriptors_ends_when_it_is_cancelled_or_has_lost_its_lease(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, what: str, state: str
) -> None:
    monkeypatch.setattr(execution, "DESCRIPTORS_PAUSE_S", 0.01)
    job_id, tries = scene.ask(), []
    run = scene.claim()

    def out_of_them(*_: object) -> None:
        """Before the first safe point of the job."""
        tries.append(1)
        if len(tries) == 3:
            getattr(run, what).set()
        raise HostOutOfDescriptors(what="asking", reason="too many open files")

    monkeypatch.setattr(Snapshot, "run", out_of_them)
    scene.execution.execute(run)
    assert (scene.job(job_id).state, len(tries), FREEZE in scene.domain.log) == (state, 3, False)


def test_a_host_that_never_has_descriptors_again_is_named_in_the_end(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overlay_file, "make", denied(errno.EMFILE))
    scene.execution.descriptors_patience_s = 0.0
    job = scene.run()
    assert (job.state, job.attempt, error_of(job)["code"]) == ("failed", 1, "host_out_of_descriptors")
    assert (FREEZE in scene.domain.log, scene.overlays()) == (False, [])


def test_what_was_never_made_is_not_told_as_left_behind(tmp_path: Path) -> None:
    file = tmp_path / "a-file"
    file.touch()
    below_a_file = Overlay("vda", "/base", "raw", str(file / "overlay"), 1)
    too_long = Overlay("vdb", "/base", "raw", str(tmp_path / ("x" * 300)), 1)
    overlays.remove([below_a_file, too_long])
