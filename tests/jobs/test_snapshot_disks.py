"""Look before any retry: whatever the snapshot call said, the disks are read, and nothing that is in use is deleted."""

import errno
import os
import sqlite3
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import libvirt as _libvirt
import pytest
from sqlalchemy import event

from service.db.engine import Database, open_engine
from service.errors import LibvirtUnavailable
from service.jobs import point_taking
from service.jobs.run import JobRun
from service.records import queue
from service.records.raw_texts import Texts
from tests.fakes import libvirt_error
from tests.scenes.host import FREEZE, HOST, THAW, Scene, error_of, phases_of

libvirt: Any = _libvirt
NO_SPACE = "internal error: unable to execute QEMU command 'transaction': No space left on device"


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def no_space() -> Exception:
    return libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, NO_SPACE)


def snapshots(scene: Scene) -> int:
    return scene.domain.log.count("snapshot_create")


def test_a_snapshot_that_failed_leaves_the_disks_as_they_were_and_no_overlay(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    scene.domain.fail_next("snapshot_create", no_space())
    job = scene.run()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "snapshot_failed")
    assert NO_SPACE in error_of(job)["detail"]
    assert scene.sources() == {"vda": "db1-vda.qcow2", "vdb": "db1-vdb.qcow2"}
    assert scene.overlays() == []
    assert snapshots(scene) == 1
    assert ("point_in_time", "failed") in phases_of(job)
    assert job.evidence is not None
    assert job.evidence["disks_after"] == {"vda": "unchanged", "vdb": "unchanged"}


def test_an_unused_overlay_that_cannot_be_removed_is_named_and_the_others_are_removed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    unlink = Path.unlink

    def refuse(path: Path, missing_ok: bool = False) -> None:
        if path.match("db1-vda.*.qcow2"):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
        unlink(path, missing_ok=missing_ok)

    scene.domain.fail_next("snapshot_create", no_space())
    monkeypatch.setattr(Path, "unlink", refuse)
    job = scene.run()
    (left,) = scene.overlays()
    assert (job.state, error_of(job)["code"]) == ("failed", "snapshot_failed")
    assert str(scene.images / left) in error_of(job)["detail"]
    assert os.strerror(errno.EISDIR) in error_of(job)["detail"]
    assert ("evaluate", "warning") in phases_of(job)


def test_an_overlay_that_cannot_be_removed_before_the_window_does_not_hide_why_the_job_ended(scene: Scene) -> None:
    job_id = scene.ask()
    run = scene.claim()

    def cancel() -> None:
        make_irremovable(scene.images.glob("db1-vda.*.qcow2"))
        run.cancel_requested.set()

    scene.domain.when_next("instance", cancel)
    scene.execution.execute(run)
    job = scene.job(job_id)
    assert (job.state, error_of(job)["code"]) == ("cancelled", "job_cancelled")
    (left,) = scene.overlays()
    # A folder that got the number of the file counts as the file, another one as a stranger's.
    assert str(scene.images / left) in str(job.phases[-1]["detail"])


def make_irremovable(files: Iterable[Path]) -> None:
    """`unlink` fails on a folder, for root too."""
    for file in list(files):
        file.unlink()
        file.mkdir()


def test_a_snapshot_that_was_taken_though_the_call_failed_is_kept(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    scene.domain.fail_next("snapshot_create", no_space(), after=True)
    job = scene.run()
    assert (job.state, job.verdict, job.error) == ("succeeded", "filesystem", None)
    assert len(scene.points()) == 1
    assert snapshots(scene) == 1
    assert ("point_in_time", "failed") in phases_of(job)
    assert scene.sources() == {target: f"db1-{target}.{job.id[:8]}.qcow2" for target in ("vda", "vdb")}


@pytest.mark.parametrize("mode", ["required", "preferred", "off"])
def test_a_failed_snapshot_is_never_taken_a_second_time(scene: Scene, mode: str) -> None:
    scene.domain.fail_next("snapshot_create", no_space())
    assert error_of(scene.run(freeze={"mode": mode}))["code"] == "snapshot_failed"
    assert snapshots(scene) == 1


def test_disks_of_which_some_moved_are_in_doubt_and_nothing_is_deleted(scene: Scene) -> None:
    scene.domain.move_only("vda")
    job = scene.run()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "disks_in_doubt")
    assert error_of(job)["facts"] == {"domain": "db1", "switched": "vda", "unswitched": "vdb"}
    assert "virsh blockcommit db1 DISK --active --pivot" in error_of(job)["remedy"]
    assert scene.overlays() == [f"db1-vda.{job.id[:8]}.qcow2", f"db1-vdb.{job.id[:8]}.qcow2"]
    assert not scene.domain.agent.frozen
    assert scene.points() == []


def test_a_disk_on_a_file_that_is_not_of_this_job_is_in_doubt_because_its_overlay_may_lie_below(scene: Scene) -> None:
    def somebody_takes_another_snapshot() -> None:
        for target in ("vda", "vdb"):
            scene.domain.put_on(target, f"/elsewhere/{target}.qcow2")

    scene.domain.when_next(THAW, somebody_takes_another_snapshot)
    job = scene.run()
    assert job.state == "failed"
    assert error_of(job)["code"] == "disks_in_doubt"
    assert scene.overlays() == [f"db1-vda.{job.id[:8]}.qcow2", f"db1-vdb.{job.id[:8]}.qcow2"]


@pytest.mark.parametrize("taken", [True, False])
def test_a_libvirtd_that_dies_under_the_snapshot_is_waited_for_and_then_asked(
    scene: Scene, taken: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(point_taking, "LOOK_PAUSE_S", 0.01)
    gone = libvirt_error(libvirt.VIR_ERR_SYSTEM_ERROR, "End of file while reading data: Input/output error", libvirt.VIR_FROM_RPC)
    scene.domain.fail_next("snapshot_create", gone, after=taken)
    for _ in range(2):  # in the preflight, and right before the freeze
        scene.domain.when_next("guest-fsfreeze-status", lambda: None)
    scene.domain.when_next("guest-fsfreeze-status", lambda: scene.domain.libvirtd_goes_away(3))  # after the thaw
    job = scene.run()
    assert not scene.domain.agent.frozen
    assert snapshots(scene) == 1
    assert scene.domain.log.count("xml") >= 3
    assert (job.state, job.verdict) == (("succeeded", "filesystem") if taken else ("failed", "none"))
    assert len(scene.overlays()) == (2 if taken else 0)


def test_a_libvirtd_that_stays_away_leaves_the_job_to_recovery_and_deletes_nothing(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(point_taking, "LOOK_PAUSE_S", 0.01)
    monkeypatch.setattr(point_taking, "LOOK_PATIENCE_S", 0.1)
    for _ in range(2):  # in the preflight, and right before the freeze
        scene.domain.when_next("guest-fsfreeze-status", lambda: None)
    scene.domain.when_next("guest-fsfreeze-status", lambda: scene.domain.libvirtd_goes_away(10_000))
    job = scene.run()
    assert (job.state, job.verdict) == ("running", None)
    with scene.database.write() as session:
        assert queue.release_expired(session, HOST) == [job.id]
    assert len(scene.overlays()) == 2


def test_disks_that_cannot_be_read_after_the_window_leave_the_job_to_recovery(scene: Scene) -> None:
    scene.domain.when_next(
        THAW, lambda: scene.domain.fail_next("xml", libvirt_error(libvirt.VIR_ERR_OPERATION_FAILED, "cannot get the monitor"))
    )
    job = scene.run()
    assert job.state == "running"
    assert len(scene.overlays()) == 2


# --- cancelling, losing the lease, losing the database ---------------------------------------------


@pytest.mark.parametrize(("call", "before"), [("guest-ping", "prepare"), ("block_capacity", "freeze")])
def test_a_cancel_is_obeyed_at_the_next_safe_point(scene: Scene, call: str, before: str) -> None:
    job_id = scene.ask()
    run = scene.claim()
    scene.domain.when_next(call, run.cancel_requested.set)
    scene.execution.execute(run)
    job = scene.job(job_id)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("cancelled", "none", "job_cancelled")
    assert error_of(job)["facts"] == {"phase": before}
    assert FREEZE not in scene.domain.log
    assert scene.overlays() == []


@pytest.mark.parametrize("call", [FREEZE, "snapshot_create", THAW])
def test_a_cancel_in_the_window_is_too_late(scene: Scene, call: str) -> None:
    job_id = scene.ask()
    run = scene.claim()
    scene.domain.when_next(call, run.cancel_requested.set)
    scene.execution.execute(run)
    assert (scene.job(job_id).state, scene.job(job_id).verdict) == ("succeeded", "filesystem")
    assert not scene.domain.agent.frozen


def test_a_lease_that_was_lost_before_the_window_freezes_nothing_and_leaves_no_overlay(scene: Scene) -> None:
    job_id = scene.ask()
    run = scene.claim()
    scene.domain.when_next("block_capacity", lambda: scene.die_in(run))
    scene.execution.execute(run)
    assert FREEZE not in scene.domain.log
    assert scene.overlays() == []
    assert scene.job(job_id).state == "interrupted"


def test_a_lease_that_the_renewal_found_lost_stops_at_the_next_safe_point(scene: Scene) -> None:
    job_id = scene.ask()
    run = scene.claim()
    scene.domain.when_next("guest-ping", run.lease_lost.set)
    scene.execution.execute(run)
    assert FREEZE not in scene.domain.log
    assert scene.job(job_id).state == "running"


def test_a_lease_that_was_lost_in_the_window_still_thaws_and_leaves_the_outcome_to_recovery(scene: Scene) -> None:
    job_id = scene.ask()
    run = scene.claim()
    scene.domain.when_next("snapshot_create", lambda: scene.die_in(run))
    scene.execution.execute(run)
    assert not scene.domain.agent.frozen
    assert scene.job(job_id).state == "interrupted"
    assert len(scene.overlays()) == 2


def test_a_database_that_is_locked_after_the_freeze_holds_up_neither_the_thaw_nor_the_result(new_sqlite_url: str, tmp_path: Path) -> None:
    engine = open_engine(new_sqlite_url)

    @event.listens_for(engine, "connect")
    def _impatient(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA busy_timeout=20")

    database = Database(engine)
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    intruder = sqlite3.connect(new_sqlite_url.removeprefix("sqlite:///"), isolation_level=None, check_same_thread=False)
    released: list[bool] = []

    def lock() -> None:
        intruder.execute("BEGIN IMMEDIATE")
        threading.Timer(0.4, release).start()

    def release() -> None:
        released.append(True)
        intruder.execute("ROLLBACK")

    thawed_while_locked: list[bool] = []
    scene.domain.when_next("snapshot_create", lock)
    scene.domain.when_next(THAW, lambda: thawed_while_locked.append(not released))
    job = scene.run()
    assert thawed_while_locked == [True]
    assert (job.state, job.verdict) == ("succeeded", "filesystem")
    assert len(scene.points()) == 1
    intruder.close()
    database.dispose()


def test_a_programming_error_is_left_to_recovery_which_looks_at_the_guest(scene: Scene) -> None:
    def explode() -> None:
        raise ZeroDivisionError

    scene.domain.when_next("snapshot_create", explode)
    job = scene.run()
    assert job.state == "running"
    assert not scene.domain.agent.frozen
    with scene.database.write() as session:
        assert queue.release_expired(session, HOST) == [job.id]


def test_the_row_says_what_is_intended_before_the_freeze_is_sent(scene: Scene) -> None:
    job_id = scene.ask()
    seen: list[Any] = []
    scene.domain.when_next(FREEZE, lambda: seen.append((scene.job(job_id).phase, scene.job(job_id).intent)))
    scene.execution.execute(scene.claim())
    ((phase, intent),) = seen
    assert phase == "freeze"
    assert intent["will_freeze"] is True
    assert [Path(overlay["overlay"]).name for overlay in intent["overlays"]] == scene.overlays()


def test_the_row_names_the_overlays_before_the_first_is_made(scene: Scene) -> None:
    job_id = scene.ask()
    seen: list[tuple[dict[str, Any], list[str]]] = []

    class WatchedRun(JobRun):
        def write(self, values: dict[str, Any], texts: Texts | None = None) -> None:
            super().write(values, texts)
            if "intent" in values:
                seen.append((scene.job(job_id).intent or {}, scene.overlays()))

    scene.execution.execute(WatchedRun(scene.claim().claim, scene.database, scene.abandoned))
    first_intent, files_then = seen[0]
    assert len(first_intent["overlays"]) == 2
    assert first_intent["will_freeze"] is False
    assert files_then == []


def test_a_libvirt_that_cannot_be_reached_anew_is_the_error_of_the_job(scene: Scene) -> None:
    scene.domain.fail_next("state", LibvirtUnavailable(uri="fake:///system", reason="no socket"))
    assert error_of(scene.run())["code"] == "libvirt_unavailable"
