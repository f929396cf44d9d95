"""The traps of F§7 that wait for the host, each in a whole job of a Windows guest. Those of parsing are tested in tests/model/windows."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import select

from service.db.engine import Database
from service.db.tables import Job
from tests.fakes.domain import DESTROYED, PAUSED, FakeDisk, libvirt
from tests.lab.windows import scenario
from tests.lab.windows.clock import ManualClock
from tests.lab.windows.domain import WindowsDomain
from tests.lab.windows.scenario import Scenario
from tests.scenes.host import FREEZE, THAW, error_of
from tests.scenes.windows import WindowsScene, reasons_of, vss_of

pytestmark = pytest.mark.windows


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> WindowsScene:
    return WindowsScene(sqlite_database, tmp_path)


def test_trap_1_the_flag_that_says_frozen_after_10_s_is_not_believed(scene: WindowsScene) -> None:
    windows = scene.play("hold-lost")
    seen: list[tuple[bool, bool]] = []
    windows.when_next(THAW, lambda: seen.append((windows.windows.says_frozen(), windows.windows.holds_writes())))

    job = scene.take()

    assert seen == [(True, False)]
    assert (job.verdict, job.vss_outcome) == ("crash", "hold_writes_timeout")


def test_trap_2_an_error_to_a_thaw_is_neither_an_alarm_nor_asked_again(scene: WindowsScene) -> None:
    windows = scene.play("thaw-snapshot-set-failed")
    job = scene.take()
    assert error_of(job)["code"] == "verdict_below_required"
    assert windows.windows.commands.count(THAW) == 1


def test_trap_2_a_thaw_that_answers_the_count_does_not_vouch_for_the_writers(scene: WindowsScene) -> None:
    scene.play("sql-writer-failed")
    job = scene.take()
    assert (job.freeze or {})["filesystems_thawed"] == (job.freeze or {})["filesystems_frozen"]
    assert job.verdict == "filesystem"


@pytest.mark.parametrize("name", ["hold-lost", "hold-lost-hex"])
def test_trap_3_old_and_new_words_mean_the_same(scene: WindowsScene, name: str) -> None:
    scene.play(name)
    assert scene.take().vss_outcome == "hold_writes_timeout"


def test_trap_5_the_hold_is_not_timed_by_the_freeze_request_nor_by_the_thaw_reply(scene: WindowsScene) -> None:
    windows = scene.play("healthy-2022")
    windows.delay_next(FREEZE, 0.4)
    windows.delay_next(THAW, 0.4)

    timing = scene.take().timing or {}

    assert (timing["freeze_ms"] >= 400, timing["thaw_ms"] >= 400, timing["hold_ms"] < 400) == (True, True, True)


def test_trap_6_a_freeze_that_the_host_gave_up_is_followed_by_a_thaw_that_is_answered(scene: WindowsScene) -> None:
    windows = scene.play("orphan-freeze")

    job = scene.take(freeze={"timeout_ms": 2000})

    assert (job.verdict, (job.freeze or {})["outcome"]) == ("none", "unanswered")
    assert [session.ended_by for session in windows.windows.sessions] == ["thaw"]
    assert windows.points == []


def test_trap_7_an_agent_that_hangs_does_not_hang_the_job(scene: WindowsScene) -> None:
    scene.play("thaw-hangs")
    assert error_of(scene.take_impatiently())["code"] == "guest_still_frozen"


class _Listening(WindowsDomain):
    """Keeps the time limit of each agent command, in seconds."""

    def __init__(self, disks: Sequence[FakeDisk], played: Scenario) -> None:
        super().__init__("win", disks, played, clock=ManualClock())
        self.limits: list[int] = []

    def agent_command(self, command: str, timeout_s: int) -> str:
        self.limits.append(timeout_s)
        return super().agent_command(command, timeout_s)


def test_traps_7_and_8_every_command_has_a_limit_of_its_own_that_is_neither_never_nor_at_once(scene: WindowsScene) -> None:
    """0 means "fail at once" to libvirt, and less than 0 "wait for ever" or a limit that all clients of the domain share."""
    listening = _Listening([scene.disk("vda", "win")], scenario.load("healthy-2022"))
    scene.host.domains.append(listening)

    job = scene.run(domain=listening)

    assert job.state == "succeeded"
    assert (min(listening.limits) >= 1, max(listening.limits) <= 120) == (True, True)


def test_trap_9_a_thaw_that_fails_hides_no_disk_that_has_moved(scene: WindowsScene) -> None:
    scene.play("thaw-provider-error")

    job = scene.take()

    recorded = {disk["target"]: Path(disk["overlay"]).name for disk in (job.recovery_point or {})["disks"]}
    assert recorded == scene.sources(scene.windows)


def test_trap_10_overlays_are_made_before_the_freeze(scene: WindowsScene) -> None:
    windows = scene.play("healthy-2022")
    made: list[str] = []
    windows.when_next(FREEZE, lambda: made.extend(scene.overlays()))

    scene.take()

    assert len(made) == 2


def test_trap_11_a_backup_that_libvirt_runs_is_seen_before_the_freeze(scene: WindowsScene) -> None:
    windows = scene.play("healthy-2022")
    windows.domain_job = libvirt.VIR_DOMAIN_JOB_BOUNDED

    assert error_of(scene.take())["code"] == "domain_busy"
    assert FREEZE not in windows.windows.commands


def test_trap_12_a_paused_guest_is_refused_before_the_freeze(scene: WindowsScene) -> None:
    windows = scene.play("healthy-2022")
    windows.state_now = PAUSED

    assert error_of(scene.take())["code"] == "domain_paused"
    assert windows.windows.commands == []


def test_trap_13_and_29_nothing_is_executed_and_no_list_of_commands_is_read_while_frozen(scene: WindowsScene) -> None:
    windows = scene.play("healthy-2022")

    scene.take()

    commands = windows.windows.commands
    inside = commands[commands.index(FREEZE) : commands.index(THAW)]
    assert inside == [FREEZE]
    assert "guest-info" in commands[: commands.index(FREEZE)]


def test_trap_14_a_status_that_was_read_and_lost_is_not_read_again(scene: WindowsScene) -> None:
    windows = scene.play("exec-reply-lost")

    scene.take()

    # After an answer that did not come the agent may be asked whether it is there at all.
    commands = [command for command in windows.windows.commands if command not in ("guest-sync", "guest-ping")]
    first, second = [place for place, command in enumerate(commands) if command == "guest-exec"][:2]
    assert commands[first:second] == ["guest-exec", "guest-exec-status"]


def test_trap_16_a_failure_from_before_is_not_charged_to_this_freeze(scene: WindowsScene) -> None:
    scene.play("writer-failed-before")
    job = scene.take()
    assert (job.verdict, job.writer_failed) == ("application_unverified", True)
    assert "writer_failure_pre_existing" in reasons_of(job)
    assert not {"writer_newly_failed", "writers_healthy"} & set(reasons_of(job))


def test_trap_17_another_requester_is_waited_for_and_never_in_the_same_window(scene: WindowsScene) -> None:
    windows = scene.play("other-requester")
    before = datetime.now(UTC)

    job = scene.take(on_shortfall="retry")

    assert (error_of(job)["code"], windows.windows.commands.count(FREEZE)) == ("vss_freeze_failed", 1)
    with scene.database.read() as session:
        (follow_up,) = session.scalars(select(Job).where(Job.retry_of == job.id))
    assert follow_up.run_after is not None
    assert follow_up.run_after >= before + timedelta(minutes=10)


def test_trap_21_full_beside_sql_server_is_recorded_in_the_job_too(scene: WindowsScene) -> None:
    scene.play("full-backup-with-sql")
    assert vss_of(scene.take())["backup_type"] == "full"


def test_trap_24_a_guest_that_is_reset_before_the_thaw_has_lost_the_window(scene: WindowsScene) -> None:
    windows = scene.play("healthy-2022")

    def reset() -> None:
        windows.state_now = DESTROYED

    windows.when_next(THAW, reset)

    job = scene.take()

    assert (job.verdict, job.vss_outcome) == ("crash", "lost")


def test_trap_26_a_second_tool_that_thaws_is_known_by_our_thaw_that_answers_0(scene: WindowsScene) -> None:
    scene.play("thawed-by-another")
    job = scene.take()
    assert ((job.freeze or {})["filesystems_thawed"], job.vss_outcome) == (0, "lost")
