"""The snapshot job from its claim to its end: what stands in the row, where the disks are, what the guest went through."""

from pathlib import Path

import pytest

from service.db.engine import Database
from service.db.tables import Job
from service.freeze.frozen_pass import PassSettings
from service.jobs.snapshot import Snapshot
from service.model.explain import REMEDIES, explain
from tests.fakes import agent_error, agent_silent
from tests.fakes.agent import HONEST_HOOK
from tests.fakes.domain import DESTROYED, SAVING
from tests.scenes.host import FREEZE, THAW, Scene, error_of, phases_of


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path)


@pytest.fixture
def two_disks(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def test_a_guest_is_frozen_snapshotted_and_thawed_and_the_job_tells_it(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path, ("vda", "vdb"))
    job = scene.run()

    assert (job.state, job.verdict, job.error, job.phase, job.attempt) == ("succeeded", "filesystem", None, None, 1)
    assert phases_of(job) == [(name, "ok") for name in ("preflight", "prepare", "freeze", "point_in_time", "thaw", "evaluate")]
    assert scene.domain.points[0].frozen == {"vda", "vdb"}
    assert not scene.domain.agent.frozen
    assert job.freeze is not None
    assert job.freeze["outcome"] == "frozen"
    assert job.freeze["filesystems_frozen"] == job.freeze["filesystems_thawed"] == 2
    assert job.timing is not None
    assert 0 < job.timing["hold_ms"] < job.timing["window_ms"]
    assert [reason["code"] for reason in job.verdict_reasons] == ["held", "no_hook"]
    assert job.lease_token is None


def test_the_recovery_point_names_the_files_that_hold_it(database: Database, tmp_path: Path) -> None:
    scene = Scene(database, tmp_path)
    job = scene.run()
    (point,) = scene.points()
    mark = job.id[:8]
    assert job.recovery_point is not None
    assert job.recovery_point["id"] == point.id
    assert job.recovery_point["disks"] == point.disks
    assert [(disk["target"], Path(disk["file"]).name, Path(disk["overlay"]).name) for disk in point.disks] == [
        ("vda", "db1-vda.qcow2", f"db1-vda.{mark}.qcow2")
    ]
    assert (point.job_id, point.domain_name, point.host_id, point.verdict, point.labels) == (
        job.id,
        "db1",
        "hv1",
        "filesystem",
        {"by": "test"},
    )
    assert job.started_at is not None
    assert job.finished_at is not None
    assert job.started_at <= point.point_in_time_at <= job.finished_at


def test_the_domain_writes_to_the_overlays_now_and_after_its_next_start(two_disks: Scene) -> None:
    job = two_disks.run()
    expected = {target: f"db1-{target}.{job.id[:8]}.qcow2" for target in ("vda", "vdb")}
    assert two_disks.sources() == expected
    assert sorted(expected.values()) == two_disks.overlays()
    saved = two_disks.host.guest("db1").persistent_sources()
    assert {target: Path(source or "").name for target, source in saved.items()} == expected


def test_a_second_snapshot_goes_on_top_of_the_first_and_names_do_not_grow(scene: Scene) -> None:
    first, second = scene.run(), scene.run()
    assert scene.sources() == {"vda": f"db1-vda.{second.id[:8]}.qcow2"}
    assert second.recovery_point is not None
    assert second.recovery_point["disks"][0]["file"].endswith(f"db1-vda.{first.id[:8]}.qcow2")


def test_the_guest_is_flushed_before_it_is_frozen(scene: Scene) -> None:
    job = scene.run()
    assert "/bin/sync" in scene.domain.agent.executed
    assert scene.domain.log.index("guest-exec") < scene.domain.log.index(FREEZE)
    assert job.freeze is not None
    assert job.freeze["preflush"]["rounds"] == 1
    assert job.freeze["preflush"]["message"] is None


def test_a_flush_that_fails_is_a_warning_and_no_more(scene: Scene) -> None:
    scene.domain.agent.programs["/bin/sync"] = lambda _arguments: (1, b"", b"sync: I/O error")
    job = scene.run()
    assert job.state == "succeeded"
    assert phases_of(job)[1] == ("prepare", "warning")
    assert job.freeze is not None
    assert job.freeze["preflush"]["message"] in job.phases[1]["detail"]
    assert "1" in job.freeze["preflush"]["message"]


def test_a_job_may_ask_for_no_flush(scene: Scene) -> None:
    assert scene.run(freeze={"preflush": False}).verdict == "filesystem"
    assert "/bin/sync" not in scene.domain.agent.executed


def test_nothing_but_the_snapshot_happens_between_freeze_and_thaw(scene: Scene) -> None:
    scene.run()
    log = scene.domain.log
    assert log[log.index(FREEZE) : log.index(THAW) + 1] == [FREEZE, "snapshot_create", THAW]


# --- how the guest is frozen ----------------------------------------------------------------------


def test_a_hook_that_reports_failures_lifts_to_application(scene: Scene) -> None:
    scene.domain.agent.hook, scene.domain.agent.hook_text = "ok", HONEST_HOOK
    assert scene.run(required_verdict="application").verdict == "application"
    assert scene.domain.agent.hook_calls == ["freeze", "thaw"]


def test_a_hook_that_fails_on_freeze_fails_a_job_that_needs_the_freeze(scene: Scene) -> None:
    scene.domain.agent.hook = "fail"
    job = scene.run()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "freeze_failed")
    assert "fsfreeze hook has failed with status 3" in error_of(job)["detail"]
    assert phases_of(job)[2] == ("freeze", "failed")
    assert scene.overlays() == []


def test_a_hook_that_fails_on_thaw_leaves_a_point_that_is_consistent_on_disk(scene: Scene) -> None:
    scene.domain.agent.hook, scene.domain.agent.hook_text = "fail_thaw", HONEST_HOOK
    job = scene.run()
    assert (job.state, job.verdict) == ("succeeded", "filesystem")
    assert "thaw_hook_failed" in [reason["code"] for reason in job.verdict_reasons]
    assert phases_of(job)[4] == ("thaw", "warning")


def test_required_and_refused_takes_nothing(scene: Scene) -> None:
    scene.domain.fail_next(FREEZE, agent_error(FREEZE, "failed to freeze /data: Input/output error"))
    job = scene.run()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "freeze_failed")
    assert scene.domain.points == []
    assert scene.overlays() == []
    assert scene.sources() == {"vda": "db1-vda.qcow2"}
    assert job.freeze is not None
    assert job.freeze["outcome"] == "refused"


def test_preferred_and_refused_takes_the_point_after_the_thaw_and_calls_it_crash(scene: Scene) -> None:
    scene.domain.fail_next(FREEZE, agent_error(FREEZE, "failed to freeze /data: Input/output error"))
    job = scene.run(freeze={"mode": "preferred"})
    assert (job.state, job.verdict) == ("succeeded", "crash")
    assert [call for call in scene.domain.log if call in (FREEZE, THAW, "snapshot_create")] == [FREEZE, THAW, "snapshot_create"]
    assert job.verdict_reasons[0]["code"] == "freeze_refused"


def test_preferred_with_a_freeze_that_timed_out_is_thawed_before_the_point_is_taken(scene: Scene) -> None:
    scene.domain.fail_next(FREEZE, agent_silent(), after=True)
    job = scene.run(freeze={"mode": "preferred"})
    assert job.verdict == "crash"
    assert scene.domain.points[0].frozen == set()


def test_preferred_tells_that_no_freeze_is_possible_before_the_point_is_taken(scene: Scene) -> None:
    scene.domain.agent.blocked.add(FREEZE)
    job_id = scene.ask(freeze={"mode": "preferred"})
    seen: list[Job] = []
    scene.domain.when_next("snapshot_create", lambda: seen.append(scene.job(job_id)))
    scene.execution.execute(scene.claim())
    assert seen[0].freeze is not None
    assert seen[0].freeze["outcome"] == "not_possible"
    assert (scene.job(job_id).state, scene.job(job_id).verdict) == ("succeeded", "crash")
    assert FREEZE not in scene.domain.log


def test_preferred_takes_nothing_from_a_guest_that_may_still_be_frozen(scene: Scene) -> None:
    job_id = scene.ask(freeze={"mode": "preferred"})
    scene.domain.fail_next(FREEZE, agent_silent(), after=True)
    scene.domain.fail_next(THAW, agent_silent(), times=1000)
    scene.run_by(Snapshot(PassSettings(thaw_patience_s=0.2)))
    job = scene.job(job_id)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "guest_still_frozen")
    assert scene.domain.points == []
    assert scene.overlays() == []


def test_off_freezes_nothing_and_is_crash(scene: Scene) -> None:
    job = scene.run(freeze={"mode": "off"})
    assert (job.state, job.verdict) == ("succeeded", "crash")
    assert not {FREEZE, THAW, "guest-fsfreeze-freeze-list"} & set(scene.domain.log)
    assert [name for name, _ in phases_of(job)] == ["preflight", "prepare", "point_in_time", "evaluate"]
    assert job.timing is not None
    assert job.timing["hold_ms"] is None


def test_a_guest_without_anything_to_freeze_fails_before_anything_is_made(scene: Scene) -> None:
    scene.domain.agent.filesystems = []
    job = scene.run()
    assert error_of(job)["code"] == "nothing_to_freeze"
    assert FREEZE not in scene.domain.log


# --- what counts as success -----------------------------------------------------------------------


def test_a_verdict_below_the_required_one_fails_the_job_and_keeps_the_point(scene: Scene) -> None:
    job = scene.run(required_verdict="application")
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "filesystem", "verdict_below_required")
    assert job.recovery_point is not None
    assert len(scene.points()) == 1
    assert scene.sources() == {"vda": f"db1-vda.{job.id[:8]}.qcow2"}


def test_a_freeze_that_did_not_hold_is_no_green_success(scene: Scene) -> None:
    scene.domain.when_next(THAW, scene.domain.agent.thaw_by_somebody_else)
    job = scene.run()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "verdict_below_required")
    assert len(scene.points()) == 1


def test_a_caller_who_asks_for_crash_alone_is_content_with_a_freeze_that_did_not_hold(scene: Scene) -> None:
    scene.domain.when_next(THAW, scene.domain.agent.thaw_by_somebody_else)
    job = scene.run(required_verdict="crash")
    assert (job.state, job.verdict) == ("succeeded", "crash")


def test_a_hold_limit_that_passes_makes_the_point_crash(scene: Scene) -> None:
    scene.domain.delay_next("snapshot_create", 0.15)
    job = scene.run(freeze={"hold_limit_ms": 50})
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "verdict_below_required")
    assert job.freeze is not None
    assert job.freeze["watchdog_fired"] is True
    assert job.timing is not None
    assert job.timing["hold_ms"] > 50
    assert job.timing["within_limits"] is False


@pytest.mark.parametrize(("mode", "state"), [("required", "failed"), ("preferred", "succeeded")])
def test_filesystems_that_are_frozen_from_inside_stay_so_and_nobody_is_told_to_mount_them(scene: Scene, mode: str, state: str) -> None:
    scene.domain.agent.frozen_inside = {"vda", "vdb"}
    job = scene.run(freeze={"mode": mode})
    assert (job.state, scene.domain.agent.frozen_inside) == (state, {"vda", "vdb"})
    told = error_of(job)["code"] if job.error else [reason["code"] for reason in job.verdict_reasons]
    assert told == ("nothing_frozen" if mode == "required" else ["nothing_frozen"])
    told_of = ("kind", "state", "verdict", "verdict_reasons", "error", "evidence")
    document = {name: getattr(job, name) for name in told_of}
    assert any("`fsfreeze --unfreeze MOUNTPOINT`" in remedy for remedy in explain(document)["would_lift"])
    assert REMEDIES["nothing_frozen"] not in explain(document)["would_lift"]


def test_a_hook_that_prepared_its_applications_is_told_of_the_end_although_nothing_was_frozen(scene: Scene) -> None:
    scene.domain.agent.frozen_inside = {"vda", "vdb"}
    scene.domain.agent.hook = "ok"
    scene.run()
    assert scene.domain.agent.hook_calls == ["freeze", "thaw"]


def test_a_guest_that_cannot_be_thawed_is_the_error_of_the_job_and_its_point_is_kept(scene: Scene) -> None:
    job_id = scene.ask()
    scene.domain.when_next("snapshot_create", lambda: setattr(scene.domain.agent, "answers", False))
    scene.run_by(Snapshot(PassSettings(thaw_patience_s=0.2)))
    job = scene.job(job_id)
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "guest_still_frozen")
    assert "stillpoint thaw db1" in error_of(job)["remedy"]
    assert len(scene.points()) == 1


# --- domains that do not run ----------------------------------------------------------------------


def test_a_domain_that_was_shut_down_is_taken_without_a_freeze_and_satisfies_every_wish(scene: Scene) -> None:
    scene.domain.shut_off()
    job = scene.run(required_verdict="application")
    assert (job.state, job.verdict) == ("succeeded", "offline")
    assert not [call for call in scene.domain.log if call.startswith("guest-")]
    assert job.freeze is not None
    assert job.freeze["outcome"] == "not_needed"
    assert scene.sources() == {"vda": f"db1-vda.{job.id[:8]}.qcow2"}


def test_a_domain_that_was_destroyed_satisfies_crash_alone(scene: Scene) -> None:
    scene.domain.state_now = DESTROYED
    assert (scene.run().state, scene.run(required_verdict="filesystem").state) == ("succeeded", "failed")


def test_a_paused_domain_is_refused_with_the_remedy(scene: Scene) -> None:
    scene.domain.pause()
    job = scene.run()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "none", "domain_paused")
    assert "virsh resume db1" in error_of(job)["remedy"]
    assert scene.overlays() == []


def test_a_paused_domain_is_taken_when_no_freeze_is_asked_for(scene: Scene) -> None:
    scene.domain.pause()
    job = scene.run(freeze={"mode": "off"})
    assert (job.state, job.verdict) == ("succeeded", "crash")


def test_a_domain_that_is_shutting_down_is_refused(scene: Scene) -> None:
    scene.domain.state_now = SAVING
    assert error_of(scene.run())["code"] == "domain_state_unsuitable"


def test_a_domain_that_dies_in_the_window_is_crash_and_its_point_is_kept(scene: Scene) -> None:
    scene.domain.when_next(THAW, lambda: scene.domain.shut_off(cleanly=False))
    job = scene.run()
    assert (job.state, job.verdict) == ("failed", "crash")
    assert len(scene.points()) == 1
