"""The fuse around the window: armed before, disarmed after, whatever happens; and what it means for the verdict that it fired."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from service.db.engine import Database
from service.db.tables import Job
from service.freeze import fuse
from service.freeze.frozen_pass import PassSettings
from service.hypervisor.guest import Guest
from service.jobs.snapshot import Snapshot
from service.model.fuse import FuseState
from tests.fakes import FakeDisk, FakeDomain, agent_silent
from tests.fakes.agent import HONEST_HOOK
from tests.scenes.host import FREEZE, THAW, Scene, error_of
from tests.scenes.windows import WindowsScene

EXEC, EXEC_STATUS = "guest-exec", "guest-exec-status"


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path)


@pytest.fixture
def domain(tmp_path: Path) -> FakeDomain:
    return FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2")])


def fuse_of(job: Job) -> dict[str, Any]:
    assert job.freeze is not None
    found: dict[str, Any] = job.freeze["fuse"]
    return found


def reasons(job: Job) -> list[str]:
    return [reason["code"] for reason in job.verdict_reasons]


def fired() -> float:
    return REGISTRY.get_sample_value("stillpoint_fuses_fired_total") or 0.0


# --- alone ----------------------------------------------------------------------------------------


def test_armed_and_disarmed(domain: FakeDomain) -> None:
    guest = Guest(domain, "fake:///")
    armed = fuse.arm(guest, 7)
    assert (armed.report.state, armed.report.after_s, armed.report.reason) == (FuseState.armed, 7, None)
    assert domain.agent.fuse == (armed.token, "")

    ended = fuse.disarm(guest, armed)

    assert (ended.state, ended.reason) == (FuseState.disarmed, None)
    assert domain.agent.fuse is None
    assert (ended.arm_ms, ended.disarm_ms) != (None, None)


def test_two_fuses_are_never_taken_for_one_another(domain: FakeDomain) -> None:
    guest = Guest(domain, "fake:///")
    left, own = fuse.arm(guest, 7), fuse.arm(guest, 7)
    assert fuse.disarm(guest, left).state is FuseState.unknown
    assert fuse.disarm(guest, own).state is FuseState.disarmed


def test_a_fuse_whose_arming_was_not_answered_is_disarmed_all_the_same(domain: FakeDomain) -> None:
    guest = Guest(domain, "fake:///")
    domain.fail_next(EXEC_STATUS, agent_silent())
    armed = fuse.arm(guest, 7)
    assert armed.report.state is FuseState.unknown
    assert fuse.disarm(guest, armed).state is FuseState.disarmed


def test_a_guest_that_is_frozen_again_keeps_its_fuse(domain: FakeDomain) -> None:
    guest = Guest(domain, "fake:///")
    armed = fuse.arm(guest, 7)
    domain.agent.freeze_by_somebody_else()

    ended = fuse.disarm(guest, armed, foreign_hold_s=0)

    assert ended.state is FuseState.armed
    assert ended.reason
    assert domain.agent.fuse == (armed.token, "")


def test_a_short_hold_of_somebody_else_is_waited_for_and_not_ended_by_the_fuse(domain: FakeDomain) -> None:
    guest = Guest(domain, "fake:///")
    armed = fuse.arm(guest, 7)
    domain.agent.freeze_by_somebody_else()
    domain.when_next(EXEC, lambda: None)
    domain.when_next(EXEC, domain.agent.thaw_by_somebody_else)
    assert fuse.disarm(guest, armed).state is FuseState.disarmed


def test_a_fuse_of_a_worker_that_died_can_be_put_out(domain: FakeDomain) -> None:
    guest = Guest(domain, "fake:///")
    fuse.arm(guest, 7)
    assert fuse.disarm_left_fuse(guest) is FuseState.disarmed
    assert fuse.disarm_left_fuse(guest) is FuseState.unknown


# --- around a job ---------------------------------------------------------------------------------


def test_a_job_arms_before_the_freeze_and_disarms_after_the_thaw(scene: Scene) -> None:
    job = scene.run()
    assert (job.state, job.verdict) == ("succeeded", "filesystem")
    assert fuse_of(job) == {**fuse_of(job), "state": "disarmed", "after_s": 155, "reason": None}
    log = scene.domain.log
    before, inside, after = log[: log.index(FREEZE)], log[log.index(FREEZE) : log.index(THAW) + 1], log[log.index(THAW) :]
    assert inside == [FREEZE, "snapshot_create", THAW]
    assert before[-2:] == [EXEC, EXEC_STATUS]
    assert EXEC in after
    assert scene.domain.agent.fuse is None


def test_the_fuse_burns_after_everybody_on_the_host_had_his_turn(scene: Scene) -> None:
    assert fuse_of(scene.run(freeze={"timeout_ms": 2_000, "hold_limit_ms": 1_500}))["after_s"] == 9


def test_a_job_may_ask_for_no_fuse(scene: Scene) -> None:
    seen: list[object] = []
    scene.domain.when_next(FREEZE, lambda: seen.append(scene.domain.agent.fuse))
    job = scene.run(freeze={"fuse": False})
    assert job.freeze is not None
    assert (job.freeze["fuse"], seen) == (None, [None])


def test_a_fuse_that_ended_the_hold_makes_the_point_crash_and_is_counted(scene: Scene) -> None:
    before = fired()
    scene.domain.when_next("snapshot_create", scene.domain.agent.burn_fuse)
    job = scene.run()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "verdict_below_required")
    assert reasons(job) == ["thaw_lost", "fuse_fired"]
    assert fuse_of(job)["state"] == "fired"
    assert fired() == before + 1


def test_a_hook_that_fails_on_thaw_does_not_hide_that_the_fuse_ended_the_hold(scene: Scene) -> None:
    scene.domain.agent.hook, scene.domain.agent.hook_text = "fail_thaw", HONEST_HOOK
    scene.domain.when_next("snapshot_create", scene.domain.agent.burn_fuse)
    job = scene.run()
    assert (job.state, job.verdict) == ("failed", "crash")
    assert reasons(job) == ["fuse_fired"]


def test_a_fuse_that_fired_after_a_complete_thaw_takes_nothing_from_the_point(scene: Scene) -> None:
    scene.domain.when_next(THAW, lambda: scene.domain.when_next(EXEC, scene.domain.agent.burn_fuse))
    job = scene.run()
    assert (job.state, job.verdict, fuse_of(job)["state"]) == ("succeeded", "filesystem", "fired")


@pytest.mark.parametrize("why", ["sysrq", "exec", "other_system"])
def test_a_guest_that_cannot_have_a_fuse_is_frozen_without_and_the_job_says_why(scene: Scene, why: str) -> None:
    match why:
        case "sysrq":
            scene.domain.agent.sysrq = False
        case "exec":
            scene.domain.agent.blocked.add(EXEC)
        case _:
            scene.domain.agent.os = {}
            scene.domain.agent.programs["/bin/sh"] = lambda _arguments: (127, b"", b"sh: not found")
    job = scene.run()
    assert (job.state, job.verdict) == ("succeeded", "filesystem")
    assert (fuse_of(job)["state"], bool(fuse_of(job)["reason"])) == ("unavailable", True)


@pytest.mark.windows
def test_a_windows_guest_needs_none(sqlite_database: Database, tmp_path: Path) -> None:
    windows = WindowsScene(sqlite_database, tmp_path)
    windows.play("healthy-2022")
    job = windows.take()
    assert fuse_of(job) == {**fuse_of(job), "state": "unavailable"}


def test_a_job_that_ends_before_its_window_arms_nothing(scene: Scene) -> None:
    scene.ask()
    run = scene.claim()
    scene.domain.when_next("block_capacity", run.cancel_requested.set)
    scene.execution.execute(run)
    assert scene.job(run.claim.job_id).state == "cancelled"
    assert scene.domain.agent.fuse is None


def test_a_freeze_that_failed_leaves_no_fuse(scene: Scene) -> None:
    scene.domain.agent.hook = "fail"
    job = scene.run()
    assert (job.state, fuse_of(job)["state"]) == ("failed", "disarmed")
    assert scene.domain.agent.fuse is None


def test_a_guest_that_never_answered_its_thaw_keeps_its_fuse_whatever_its_agent_says(scene: Scene) -> None:
    # An agent that was started anew may have forgotten the freeze: it would run the program that disarms.
    scene.domain.when_next("snapshot_create", lambda: setattr(scene.domain.agent, "is_frozen_flag", False))
    scene.domain.fail_next(THAW, agent_silent(), times=100)
    scene.ask()
    run = scene.claim()
    scene.run_by(Snapshot(PassSettings(thaw_patience_s=0.1)), run)
    job = scene.job(run.claim.job_id)
    assert error_of(job)["code"] == "guest_still_frozen"
    assert fuse_of(job)["state"] == "armed"
    assert scene.domain.agent.fuse is not None
