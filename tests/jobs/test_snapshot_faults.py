"""Bad input and faults before the window: a clear error, nothing frozen, nothing moved, nothing left behind."""

from collections.abc import Callable
from itertools import product
from pathlib import Path
from typing import Any

import libvirt as _libvirt
import pytest

from service.db.engine import Database
from service.db.tables import Job
from tests.fakes import FakeDisk, agent_error, agent_silent, libvirt_error
from tests.fakes.domain import FakeDomain
from tests.scenes.host import FREEZE, THAW, Scene, error_of, phases_of

libvirt: Any = _libvirt
Break = Callable[[Scene], None]


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> Scene:
    return Scene(sqlite_database, tmp_path, ("vda", "vdb"))


def untouched(scene: Scene) -> None:
    assert scene.domain.points == []
    assert scene.overlays() == []
    assert scene.sources() == {"vda": "db1-vda.qcow2", "vdb": "db1-vdb.qcow2"}
    assert scene.points() == []


def failed_with(job: Job, code: str) -> dict[str, Any]:
    assert (job.state, job.verdict, job.recovery_point) == ("failed", "none", None)
    assert error_of(job)["code"] == code
    assert job.finished_at is not None
    return error_of(job)


FAULTS: dict[str, tuple[Break, str, str]] = {
    "no agent channel": (lambda scene: setattr(scene.domain, "channel", False), "no_agent_channel", "org.qemu.guest_agent.0"),
    "agent not connected": (lambda scene: setattr(scene.domain.agent, "connected", False), "agent_not_answering", "not connected"),
    "agent silent": (lambda scene: setattr(scene.domain.agent, "answers", False), "agent_not_answering", "guest-ping"),
    "freeze blocked": (lambda scene: scene.domain.agent.blocked.add(FREEZE), "agent_command_blocked", FREEZE),
    "thaw blocked": (lambda scene: scene.domain.agent.blocked.add(THAW), "agent_command_blocked", THAW),
    "already frozen": (lambda scene: scene.domain.agent.freeze_by_somebody_else(), "guest_already_frozen", "db1"),
    "a block job runs": (lambda scene: scene.domain.block_jobs.update(vdb={"type": 3}), "domain_busy", "vdb: block job (commit)"),
    "a backup runs": (lambda scene: setattr(scene.domain, "domain_job", libvirt.VIR_DOMAIN_JOB_UNBOUNDED), "domain_busy", "backup"),
    "libvirtd dies": (lambda scene: scene.domain.libvirtd_goes_away(1), "libvirt_unavailable", "End of file while reading data"),
    "libvirt refuses": (
        lambda scene: scene.domain.fail_next("xml", libvirt_error(libvirt.VIR_ERR_OPERATION_FAILED, "monitor is gone")),
        "libvirt_call_failed",
        "monitor is gone",
    ),
}


@pytest.mark.parametrize(("break_it", "code", "found"), FAULTS.values(), ids=FAULTS.keys())
def test_a_fault_that_is_found_before_fails_the_job_and_touches_nothing(scene: Scene, break_it: Break, code: str, found: str) -> None:
    break_it(scene)
    job = scene.run()
    assert found in failed_with(job, code)["detail"]
    assert phases_of(job) == [("preflight", "failed")]
    assert FREEZE not in scene.domain.log
    untouched(scene)


@pytest.mark.parametrize("mode", ["required", "preferred"])
def test_a_guest_that_somebody_else_froze_is_neither_inherited_nor_thawed(scene: Scene, mode: str) -> None:
    scene.domain.agent.freeze_by_somebody_else()
    failed_with(scene.run(freeze={"mode": mode}), "guest_already_frozen")
    assert scene.domain.agent.frozen
    assert THAW not in scene.domain.log
    untouched(scene)


def test_a_blocked_freeze_reads_the_same_from_an_agent_of_9_1(scene: Scene) -> None:
    scene.domain.agent.version = "9.1.0"
    scene.domain.agent.blocked.add(FREEZE)
    failed_with(scene.run(), "agent_command_blocked")


def test_a_domain_that_is_gone_is_named(scene: Scene) -> None:
    scene.domain.exists = False
    facts = failed_with(scene.run(), "domain_gone")["facts"]
    assert facts == {"uri": "fake:///system", "domain": scene.domain.uuid()}


def test_a_libvirtd_that_is_away_fails_the_job(scene: Scene) -> None:
    scene.host.is_away = True
    failed_with(scene.run(), "libvirt_unavailable")


def test_an_unknown_disk_is_answered_with_the_known_ones(scene: Scene) -> None:
    error = failed_with(scene.run(disks=["vda", "sdz"]), "disk_unknown")
    assert error["facts"] == {"domain": "db1", "disks": "sdz", "known": "vda, vdb"}
    untouched(scene)


def test_a_disk_that_is_asked_for_and_cannot_take_part_is_an_error(scene: Scene) -> None:
    scene.replace([scene.disk("vda"), FakeDisk("hda", None, device="cdrom", read_only=True)])
    assert list(failed_with(scene.run(disks=["vda", "hda"]), "disks_cannot_take_part")["facts"]["reasons"]) == ["hda"]
    assert scene.domain.points == []


def test_a_domain_without_any_disk_that_can_take_part(scene: Scene) -> None:
    scene.replace([FakeDisk("hda", None, device="cdrom", read_only=True)])
    failed_with(scene.run(), "no_disk_can_take_part")


def test_space_is_checked_before_anything_is_made(sqlite_database: Database, tmp_path: Path) -> None:
    scene = Scene(sqlite_database, tmp_path, ("vda", "vdb"), overlay_reserve_bytes=1 << 50)
    error = failed_with(scene.run(), "space_insufficient")
    assert error["facts"]["needed_bytes"] == 2 << 50
    assert str(scene.images) in error["detail"]
    untouched(scene)


def test_a_folder_for_overlays_that_is_missing_is_named(sqlite_database: Database, tmp_path: Path) -> None:
    scene = Scene(sqlite_database, tmp_path, ("vda", "vdb"), overlay_dir=tmp_path / "nowhere")
    assert "nowhere" in failed_with(scene.run(), "overlay_preparation_failed")["detail"]
    untouched(scene)


def test_a_file_that_has_the_name_of_an_overlay_is_never_deleted(scene: Scene) -> None:
    job_id = scene.ask()
    precious = scene.images / f"db1-vdb.{job_id[:8]}.qcow2"
    precious.write_text("somebody's data")
    scene.execution.execute(scene.claim())
    assert str(precious) in failed_with(scene.job(job_id), "overlay_preparation_failed")["detail"]
    assert precious.read_text() == "somebody's data"
    assert scene.overlays() == [precious.name]
    assert FREEZE not in scene.domain.log


def test_a_flush_that_falls_silent_does_not_stop_the_job(scene: Scene) -> None:
    scene.domain.fail_next("guest-exec-status", agent_silent())
    scene.domain.fail_next("guest-exec-status", agent_silent())
    job = scene.run()
    assert job.state == "succeeded"


def test_facts_that_the_guest_does_not_give_lower_the_verdict_and_stop_nothing(scene: Scene) -> None:
    scene.domain.agent.blocked |= {"guest-exec", "guest-get-fsinfo", "guest-get-osinfo"}
    job = scene.run(required_verdict="crash")
    assert (job.state, job.verdict) == ("succeeded", "crash")
    assert [reason["code"] for reason in job.verdict_reasons] == ["disk_not_covered", "disk_not_covered", "coverage_unknown"]


QUESTIONS = ("guest-ping", "guest-info", "guest-get-osinfo", "guest-get-fsinfo", "guest-get-disks", "guest-exec", "guest-exec-status")


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_that_the_agent_answers_with_an_error_costs_what_it_would_have_told(scene: Scene, question: str) -> None:
    scene.domain.fail_next(question, agent_error(question, "Input/output error"), times=50)
    job = scene.run()
    assert (job.state, job.verdict) == ("succeeded", "filesystem"), job.error


NONSENSE: tuple[Any, ...] = ({"return": []}, {"return": None}, {"return": {"disk": 7}}, {"return": "debian"}, {}, [], 7)
NO_FILESYSTEMS: tuple[str, Any] = ("guest-get-fsinfo", {"return": []})
"""That is an answer: nothing is mounted."""


@pytest.mark.parametrize(("question", "reply"), [pair for pair in product(QUESTIONS, NONSENSE) if pair != NO_FILESYSTEMS])
def test_a_question_that_the_agent_answers_with_nonsense_costs_what_it_would_have_told(scene: Scene, question: str, reply: Any) -> None:
    scene.domain.answer_next(question, reply, times=50)
    job = scene.run()
    assert (job.state, job.verdict) == ("succeeded", "filesystem"), job.error


@pytest.mark.parametrize("commands", [{"guest-ping": True}, None, ["guest-ping"], [{"name": "guest-ping"}], "all"])
def test_commands_that_are_listed_wrongly_are_tried(scene: Scene, commands: Any) -> None:
    scene.domain.answer_next("guest-info", {"return": {"version": "7.2.22", "supported_commands": commands}}, times=50)
    job = scene.run()
    assert (job.state, job.verdict) == ("succeeded", "filesystem"), job.error


@pytest.mark.parametrize(
    "text",
    ["@mtab\na    b\n\n@uptime\nnan nan\n", "@uptime\ninf\n@mtab\n/dev/vda /data ext4 rw 0 0\n", "", "\x00\x01@mtab"],
)
def test_whatever_the_guest_prints_the_job_goes_on(scene: Scene, text: str) -> None:
    scene.domain.agent.programs["/bin/sh"] = lambda _arguments: (0, text.encode(), b"")
    job = scene.run()
    assert (job.state, job.verdict) == ("succeeded", "filesystem")
    assert job.evidence is not None
    assert job.evidence["survey"]["uptime_s"] is None


def test_libvirt_that_fails_just_before_the_freeze_leaves_no_overlay(scene: Scene) -> None:
    def the_next_look_fails() -> None:
        scene.domain.fail_next("xml", libvirt_error(libvirt.VIR_ERR_OPERATION_FAILED, "monitor is gone"))

    scene.domain.when_next("guest-exec-status", lambda: None)
    scene.domain.when_next("guest-exec-status", the_next_look_fails)  # the second program is the flush
    failed_with(scene.run(), "libvirt_call_failed")
    assert FREEZE not in scene.domain.log
    untouched(scene)


def test_a_capacity_that_cannot_be_read_leaves_no_overlay(scene: Scene) -> None:
    scene.domain.fail_next("block_capacity", libvirt_error(libvirt.VIR_ERR_OPERATION_FAILED, "no such node"))
    failed_with(scene.run(), "libvirt_call_failed")
    untouched(scene)


def test_the_agent_being_frozen_by_another_tool_in_the_last_moment_takes_nothing(scene: Scene) -> None:
    scene.domain.when_next(FREEZE, scene.domain.agent.freeze_by_somebody_else)
    failed_with(scene.run(), "guest_already_frozen")
    assert scene.domain.agent.is_frozen_flag
    scene.domain.agent.thaw_by_somebody_else()
    untouched(scene)


def test_preferred_takes_no_point_of_a_guest_that_somebody_else_froze_in_the_last_moment(scene: Scene) -> None:
    scene.domain.when_next(FREEZE, scene.domain.agent.freeze_by_somebody_else)
    failed_with(scene.run(freeze={"mode": "preferred"}), "guest_already_frozen")
    scene.domain.agent.thaw_by_somebody_else()
    untouched(scene)


def test_every_text_of_a_refused_thaw_is_in_the_row(scene: Scene) -> None:
    scene.domain.fail_next(THAW, agent_error(THAW, "unexpected error in VSS provider"), after=True)
    job = scene.run()
    assert (job.state, job.verdict, error_of(job)["code"]) == ("failed", "crash", "verdict_below_required")
    assert job.freeze is not None
    assert (job.freeze["thaw_outcome"], job.freeze["thaw_message"]) == ("refused", "unexpected error in VSS provider")
    assert job.evidence is not None
    assert job.evidence["window"]["thaw"]["message"] == "unexpected error in VSS provider"


def test_a_second_domain_is_not_touched_by_the_fault_of_the_first(scene: Scene) -> None:
    other: FakeDomain = scene.add("db2")
    scene.domain.agent.answers = False
    assert scene.run().state == "failed"
    assert scene.run(domain=other).state == "succeeded"
