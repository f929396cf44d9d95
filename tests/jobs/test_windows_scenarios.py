"""Every observation that the simulator knows, run through a whole job: each rule of F§6.4, F§6.5 and F§6.6 by its own name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from service.db.tables import Job
from tests.lab.windows import scenario
from tests.scenes.host import error_of
from tests.scenes.windows import WindowsScene, reasons_of

pytestmark = pytest.mark.windows

_IMPATIENT = frozenset({"thaw-hangs", "writers-never-settle"})
_played: set[str] = set()


@dataclass(frozen=True)
class Outcome:
    """What a snapshot job comes to. `reasons`: codes that are among those of the verdict."""

    verdict: str
    vss: str | None
    error: str | None = None
    reasons: tuple[str, ...] = ()


APPLICATION = Outcome("application", "completed", reasons=("held", "vss_completed", "writers_healthy"))
FAILED_WRITER = Outcome("filesystem", "completed", reasons=("held", "writer_newly_failed"))
NO_WRITER_LIST = Outcome("application_unverified", "completed", reasons=("vss_completed", "writers_unavailable"))
NOT_FROZEN = Outcome("none", "not_frozen", "vss_freeze_failed", ("no_snapshot",))


def lost(vss: str, error: str = "verdict_below_required") -> Outcome:
    return Outcome("crash", vss, error, (f"vss_{vss}",))


def unverified(*reasons: str) -> Outcome:
    return Outcome("application_unverified", "completed", reasons=("vss_completed", *reasons))


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> WindowsScene:
    return WindowsScene(sqlite_database, tmp_path)


def plays(outcome: Outcome, *names: str) -> Callable[[Any], Any]:
    """These scenarios, one test each, that all end alike."""
    _played.update(names)
    return pytest.mark.parametrize(("name", "expected"), [pytest.param(name, outcome, id=name) for name in names])


def prove(scene: WindowsScene, name: str, expected: Outcome) -> Job:
    windows = scene.play(name)
    job = scene.take_impatiently() if name in _IMPATIENT else scene.take()
    assert (expected.verdict, expected.vss) == (job.verdict, job.vss_outcome)
    assert ("failed" if expected.error else "succeeded") == job.state
    assert expected.error == (error_of(job)["code"] if job.error else None)
    assert set(expected.reasons) <= set(reasons_of(job))
    if name != "thaw-hangs":
        assert not windows.windows.says_frozen()
        assert not windows.windows.holds_writes()
    return job


def test_every_scenario_is_in_this_table() -> None:
    assert sorted(scenario.scenario_names()) == sorted(_played)


# --- F§6.4: what the thaw reply says ----------------------------------------------------------------


@plays(APPLICATION, "healthy-2022", "healthy-2025", "healthy-windows-11", "polish-healthy", "server-2012r2", "thaw-slow")
def test_a_thaw_that_answers_the_freeze_count_completed(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(lost("lost"), "agent-restart", "thawed-by-another")
def test_a_thaw_that_answers_0_after_a_freeze_means_that_the_window_was_lost(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(lost("hold_writes_timeout"), "hold-lost", "hold-lost-hex", "hold-lost-once")
def test_writes_that_could_not_be_held_cost_the_verdict_and_leave_the_guest_thawed(
    scene: WindowsScene, name: str, expected: Outcome
) -> None:
    job = prove(scene, name, expected)
    assert (job.freeze or {})["frozen_afterwards"] is False
    assert job.recovery_point is not None


@plays(lost("provider_error"), "thaw-provider-error")
def test_an_unexpected_error_in_the_provider_is_a_lost_window(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(lost("failed"), "thaw-snapshot-set-failed")
def test_a_snapshot_set_that_failed_at_the_thaw_is_a_lost_window(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(Outcome("filesystem", "complete_failed", reasons=("held", "vss_complete_failed")), "thaw-complete-failed")
def test_a_backup_that_could_not_be_completed_was_held_all_the_same(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(lost("unknown", "guest_still_frozen"), "thaw-hangs")
def test_a_thaw_without_an_answer_is_unknown_and_the_guest_may_still_be_frozen(scene: WindowsScene, name: str, expected: Outcome) -> None:
    assert (prove(scene, name, expected).freeze or {})["frozen_afterwards"] is not False


# --- F§6.5: none ----------------------------------------------------------------------------------


@plays(
    NOT_FROZEN,
    *("freeze-exited", "freeze-exited-hex", "heavy-io", "heavy-io-old", "other-requester", "volume-refused", "writer-infrastructure"),
)
def test_a_refused_freeze_takes_nothing_and_the_error_is_the_agents(scene: WindowsScene, name: str, expected: Outcome) -> None:
    job = prove(scene, name, expected)
    assert error_of(job)["facts"]["message"] == ((job.freeze or {})["message"]).strip() != ""
    assert (scene.windows.points, scene.overlays()) == ([], [])


@plays(Outcome("none", "not_frozen", "freeze_failed", ("no_snapshot",)), "count-zero", "count-negative", "count-uninitialised")
def test_a_count_that_is_nothing_or_absurd_is_refused_and_thawed(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)
    assert "guest-fsfreeze-thaw" in scene.windows.windows.commands
    assert scene.windows.points == []


@plays(Outcome("none", None, "vss_not_usable"), "vss-dead-old")
def test_an_old_agent_without_vss_has_no_freeze_to_ask_for(scene: WindowsScene, name: str, expected: Outcome) -> None:
    error = error_of(prove(scene, name, expected))
    assert "107.0.1" in error["detail"]
    assert "virtio-win-guest-tools.exe" in error["remedy"]
    assert "guest-fsfreeze-freeze" not in scene.windows.windows.commands


@plays(Outcome("none", None, "vss_not_usable"), "vss-dead-new")
def test_a_new_agent_without_vss_says_so_before_anything_is_frozen(scene: WindowsScene, name: str, expected: Outcome) -> None:
    error = error_of(prove(scene, name, expected))
    assert "guest-fsfreeze-status" in error["detail"]
    assert "virtio-win-guest-tools.exe" in error["remedy"]
    assert "guest-fsfreeze-freeze" not in scene.windows.windows.commands


# --- F§6.5: filesystem ------------------------------------------------------------------------------


@plays(
    FAILED_WRITER,
    *("sql-writer-failed", "two-instances", "writer-failed-at-identify", "writer-failed-at-prepare-backup"),
    *("writer-failed-at-prepare-snapshot", "writer-failed-at-post-snapshot", "writer-failed-at-backup-complete"),
)
def test_a_writer_that_newly_failed_leaves_only_the_filesystem(scene: WindowsScene, name: str, expected: Outcome) -> None:
    assert prove(scene, name, expected).writer_failed is True


@plays(FAILED_WRITER, "german-retryable", "french-timed-out", "japanese-timed-out")
def test_a_failed_writer_is_found_by_number_in_any_language_and_code_page(scene: WindowsScene, name: str, expected: Outcome) -> None:
    assert prove(scene, name, expected).writer_failed is True


@plays(FAILED_WRITER, "stable-with-error")
def test_a_writer_that_is_stable_with_an_error_has_failed(scene: WindowsScene, name: str, expected: Outcome) -> None:
    assert prove(scene, name, expected).writer_failed is True


@plays(Outcome("filesystem", "completed", reasons=("held", "volumes_not_frozen")), "volumes-not-frozen")
def test_a_volume_of_the_disks_outside_the_shadow_copy_set_leaves_only_the_filesystem(
    scene: WindowsScene, name: str, expected: Outcome
) -> None:
    prove(scene, name, expected)


# --- F§6.5: application_unverified ------------------------------------------------------------------


@plays(
    NO_WRITER_LIST,
    *("exec-blocked", "exec-blocked-new", "cut-off-output", "cut-off-output-fixed"),
    *("vssadmin-error", "vssadmin-garbage-after", "vssadmin-no-writers"),
)
def test_writers_that_cannot_be_read_leave_the_applications_unverified(scene: WindowsScene, name: str, expected: Outcome) -> None:
    assert prove(scene, name, expected).writer_failed is None


@plays(unverified("writers_not_settled"), "writers-never-settle")
def test_writers_that_never_settle_leave_the_applications_unverified(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(unverified("writer_restarted"), "writer-restarted")
def test_a_writer_that_is_another_instance_afterwards_proves_nothing(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(unverified("writer_vanished"), "writer-vanishes")
def test_a_writer_that_is_gone_afterwards_proves_nothing(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(unverified("writer_failure_pre_existing"), "writer-failed-before")
def test_a_writer_that_failed_before_and_after_alike_proves_nothing(scene: WindowsScene, name: str, expected: Outcome) -> None:
    assert "writers_healthy" not in reasons_of(prove(scene, name, expected))


@plays(unverified("vss_abort_may_be_hidden"), "server-2008", "server-2008r2", "win7-client")
def test_an_old_windows_may_have_aborted_the_set_behind_the_agents_back(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(unverified("windows_version_unknown"), "rhev-agent")
def test_a_windows_of_unknown_version_is_not_taken_for_a_new_one(scene: WindowsScene, name: str, expected: Outcome) -> None:
    assert (prove(scene, name, expected).auto_recovery or {})["mode"] == "unknown"


# --- F§6.5: application -----------------------------------------------------------------------------


@plays(Outcome("application", "completed", reasons=("writers_healthy", "writer_recovered")), "writer-recovers")
def test_a_writer_that_recovered_is_only_noted(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(APPLICATION, "writers-settle", "vssadmin-slow")
def test_writers_are_asked_again_until_they_are_settled(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(Outcome("application", "completed", reasons=("writer_failure_outweighed", "sql_server_events")), "sql-failed-though-frozen")
def test_the_events_of_sql_server_outweigh_a_writer_that_failed_after_a_good_freeze(
    scene: WindowsScene, name: str, expected: Outcome
) -> None:
    assert prove(scene, name, expected).writer_failed is True


@plays(
    Outcome("application", "completed", reasons=("writers_healthy", "sql_server_events")),
    *("sql-silent", "sql-not-resumed", "event-log-closed", "event-log-cleared", "full-backup-with-sql"),
)
def test_what_sql_server_said_or_did_not_say_is_among_the_reasons(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(Outcome("application", "completed", reasons=("writers_healthy", "writers_not_comparable")), "exec-reply-lost")
def test_a_list_from_before_that_was_lost_is_not_asked_for_twice(scene: WindowsScene, name: str, expected: Outcome) -> None:
    job = prove(scene, name, expected)
    assert scene.texts_of(job)["writers_before"] is None
    why = scene.texts_of(job)["writers_before_unavailable"]
    (note,) = [reason for reason in job.verdict_reasons if reason["code"] == "writers_not_comparable"]
    assert why.startswith("agent_not_answering: ")
    assert why.rstrip(".") in note["detail"]


@plays(APPLICATION, "freeze-slow", "orphan-freeze")
def test_a_freeze_that_takes_long_is_given_its_time(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(APPLICATION, "exchange", "disks-without-serials", "vss-option-absent", "vss-option-garbage")
def test_what_is_only_a_warning_does_not_lower_the_verdict(scene: WindowsScene, name: str, expected: Outcome) -> None:
    prove(scene, name, expected)


@plays(unverified("volume_not_proven"), "disks-unknown")
def test_volumes_whose_disks_are_not_known_vouch_for_no_disk(scene: WindowsScene, name: str, expected: Outcome) -> None:
    """libvirt cannot match these disks either: the agent does not know where they are."""
    prove(scene, name, expected)


# --- F§6.6: auto-recovery ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "mode", "context"),
    [
        ("healthy-2022", "disabled_by_requester", "0x0200002B"),
        ("healthy-windows-11", "disabled_by_requester", "0x0200000B"),
        ("server-2008r2", "disabled_by_requester", "0x0200002B"),
        ("win7-client", "disabled_requested_support_uncertain", "0x0200000B"),
        ("server-2008", "disabled_requested_support_uncertain", "0x0200002B"),
        ("rhev-agent", "unknown", None),
        ("other-requester", "unknown", None),
    ],
)
def test_auto_recovery_is_derived_from_the_kernel_version_and_the_variant(
    scene: WindowsScene, name: str, mode: str, context: str | None
) -> None:
    scene.play(name)
    recovery = scene.take().auto_recovery or {}
    assert (mode, context) == (recovery["mode"], recovery["context"])
    assert (recovery["source"], recovery["on_restore"]) == ("derived", "recovery_required_at_first_start")
