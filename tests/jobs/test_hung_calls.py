"""Calls that hang around a snapshot: the job ends with a true story, and the jobs of other domains go on."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from service import bounded_io
from service.db.engine import Database
from service.deadlines import HELPERS
from service.disks import overlay_file
from service.errors import LibvirtCallTimedOut, StorageNotAnswering
from service.freeze import frozen_pass
from service.hypervisor.bounded_domain import SNAPSHOT_CALL, Bounds
from service.records import queue
from tests.fakes import agent_silent
from tests.scenes.host import FREEZE, STATUS, THAW, Scene, error_of

SHORT = Bounds(read_s=0.2, query_s=0.2, agent_margin_s=1, snapshot_s=0.2, block_job_s=0.2)

LEFT_BY_OTHERS: list[int] = []
"""How many calls dead workers of other tests had left when the test began."""


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Iterator[Scene]:
    """Calls to libvirt have bounds of a fifth of a second; what hangs goes on at the end of the test."""
    built = Scene(sqlite_database, tmp_path)
    built.host.limits = SHORT
    LEFT_BY_OTHERS[:] = [HELPERS.left_behind()]
    yield built
    built.let_go()
    wait_for_hung_calls()


def wait_for_hung_calls() -> None:
    deadline = time.monotonic() + 10
    while HELPERS.left_behind() > sum(LEFT_BY_OTHERS):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_a_question_that_hangs_before_the_window_fails_the_job_and_touches_nothing(scene: Scene) -> None:
    scene.hang("block_capacity")
    error = error_of(scene.run())
    assert (error["code"], error["facts"]["call"]) == ("libvirt_call_timed_out", "virDomainGetBlockInfo")
    assert FREEZE not in scene.domain.log
    assert scene.overlays() == []


def test_a_domain_that_hangs_does_not_stop_the_next_domain(scene: Scene) -> None:
    other = scene.add("db2")
    for _ in range(4):
        scene.hang("state")
    for _ in range(5):
        assert error_of(scene.run())["code"] == "libvirt_call_timed_out"
    assert scene.run(domain=other).state == "succeeded"


def test_a_snapshot_that_hangs_is_thawed_and_left_to_recovery_which_waits_for_it(scene: Scene) -> None:
    """The call may still move the disks: what it would move them to must not be removed, and no story told before that."""
    gate = scene.hang("snapshot_create")
    job = scene.run()
    assert not scene.domain.agent.frozen
    assert (job.state, job.verdict) == ("running", None)
    assert len(scene.overlays()) == 1

    with scene.database.write() as session:
        assert queue.release_expired(session, "hv1") == [job.id]
    recovery = scene.recovery(thaw_patience_s=1)
    with pytest.raises(LibvirtCallTimedOut) as hung:
        recovery.recover(job.id)
    assert hung.value.facts["call"] == SNAPSHOT_CALL
    assert len(scene.overlays()) == 1

    gate.set()
    wait_for_hung_calls()
    recovery.recover(job.id)
    assert scene.job(job.id).recovery_point is not None
    assert scene.sources() == {"vda": f"db1-vda.{job.id[:8]}.qcow2"}


def test_disks_whose_reading_hangs_after_the_window_are_left_to_recovery(scene: Scene) -> None:
    scene.domain.when_next(THAW, lambda: scene.hang("xml"))
    job = scene.run()
    assert (job.state, job.recovery_point) == ("running", None)
    assert len(scene.overlays()) == 1
    assert not scene.domain.agent.frozen


def test_an_agent_that_somebody_else_took_after_the_preflight_is_seen_before_the_freeze(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frozen_pass, "AGENT_PATIENCE_MS", 100)
    scene.domain.when_next(STATUS, lambda: scene.hang(STATUS))
    began = time.monotonic()
    error = error_of(scene.run())
    assert (error["code"], error["facts"]["timeout_ms"]) == ("agent_busy", 100)
    assert time.monotonic() - began < 25
    assert FREEZE not in scene.domain.log
    assert THAW not in scene.domain.log
    assert scene.overlays() == []


def take_the_agent_after_the_preflight(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frozen_pass, "AGENT_PATIENCE_MS", 100)
    scene.domain.when_next(STATUS, lambda: scene.hang(STATUS))


def test_a_freeze_that_is_only_preferred_is_left_out_where_somebody_has_the_agent(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    take_the_agent_after_the_preflight(scene, monkeypatch)
    job = scene.run(freeze={"mode": "preferred"})
    assert (job.state, job.verdict, job.error) == ("succeeded", "crash", None)
    assert job.freeze is not None
    assert job.freeze["outcome"] == "not_possible"
    assert "100 ms" in job.freeze["message"]
    assert any("100 ms" in reason["detail"] for reason in job.verdict_reasons)
    assert FREEZE not in scene.domain.log
    assert THAW not in scene.domain.log
    assert scene.sources() == {"vda": f"db1-vda.{job.id[:8]}.qcow2"}


def test_an_agent_that_went_silent_after_the_preflight_costs_a_preferred_freeze_and_no_more(scene: Scene) -> None:
    scene.domain.when_next(STATUS, lambda: scene.domain.fail_next(STATUS, agent_silent()))
    assert (job := scene.run(freeze={"mode": "preferred"})).state == "succeeded", job.error
    assert (job.verdict, FREEZE in scene.domain.log) == ("crash", False)


def test_a_domain_that_libvirt_is_busy_with_is_no_reason_to_go_on_without_a_freeze(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    take_the_agent_after_the_preflight(scene, monkeypatch)
    scene.domain.when_next("block_capacity", lambda: setattr(scene.domain, "domain_job", libvirt.VIR_DOMAIN_JOB_UNBOUNDED))
    job = scene.run(freeze={"mode": "preferred"})
    assert (error_of(job)["code"], job.verdict, scene.domain.points) == ("domain_busy", "none", [])
    assert scene.overlays() == []


def test_a_guest_that_somebody_else_froze_is_not_taken_though_the_freeze_is_only_preferred(scene: Scene) -> None:
    scene.domain.when_next("block_capacity", scene.domain.agent.freeze_by_somebody_else)
    job = scene.run(freeze={"preflush": False, "mode": "preferred"})
    assert (error_of(job)["code"], scene.domain.points) == ("guest_already_frozen", [])


def test_a_guest_that_somebody_else_froze_after_the_preflight_is_seen_before_the_freeze(scene: Scene) -> None:
    scene.domain.when_next("block_capacity", scene.domain.agent.freeze_by_somebody_else)
    assert error_of(scene.run(freeze={"preflush": False}))["code"] == "guest_already_frozen"
    assert FREEZE not in scene.domain.log
    assert THAW not in scene.domain.log
    assert scene.overlays() == []


# --- storage --------------------------------------------------------------------------------------


@pytest.fixture
def dead_mount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A file whose opening blocks: a pipe that nobody writes to stands for a mount that does not answer."""
    monkeypatch.setattr(bounded_io, "PATIENCE_S", 0.1)
    pipe = tmp_path / "dead"
    os.mkfifo(pipe)
    yield pipe
    os.close(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
    wait_for_hung_calls()


def test_storage_that_does_not_answer_is_named_in_time(dead_mount: Path) -> None:
    began = time.monotonic()
    with pytest.raises(StorageNotAnswering) as hung:
        bounded_io.call("reading", dead_mount, dead_mount.read_bytes)
    facts = hung.value.facts
    assert (facts["what"], facts["path"], facts["timeout_ms"]) == ("reading", str(dead_mount), 100)
    assert time.monotonic() - began < 30


def test_a_qemu_img_that_never_ends_is_no_overlay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scene: Scene) -> None:
    stand_in = tmp_path / "bin" / "qemu-img"
    stand_in.parent.mkdir()
    stand_in.write_text("#!/bin/sh\nexec sleep 30\n")
    stand_in.chmod(0o755)
    monkeypatch.setenv("PATH", f"{stand_in.parent}:/usr/bin:/bin")
    monkeypatch.setattr(overlay_file, "QEMU_IMG_TIMEOUT_S", 0.2)
    error = error_of(scene.run())
    assert error["code"] == "overlay_preparation_failed"
    assert "qemu-img" in error["detail"]
    assert "0.2 s" in error["detail"]
    assert FREEZE not in scene.domain.log
