"""The ten steps: what was observed, inferred, cannot be observed or did not happen, and no time that nobody measured."""

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.timing import WindowInstants
from service.model.window import FreezeOutcome, FreezeReply, ThawOutcome, ThawReply, WindowRecord
from service.model.windows.auto_recovery import RecoveryMode
from service.model.windows.vss_outcome import read_freeze_error, read_thaw_error
from service.model.windows.vss_steps import NOT_OF_EACH_WRITER, Clock, Observation, Retry, Step, StepFacts, steps
from service.model.windows.well_known_writers import EXCHANGE_FREEZE_LIMIT_MS
from tests.model.evidence_strategies import windows

pytestmark = pytest.mark.windows

MS = 1_000_000
OBSERVED, INFERRED = Observation.observed, Observation.inferred
UNSEEN, NOT = Observation.not_observable, Observation.did_not_happen

CLOCK = Clock(0, datetime(2026, 3, 1, 10, 0, 0, tzinfo=UTC))
HELD = WindowInstants(0, 4_000 * MS, 4_001 * MS, 4_011 * MS, 4_012 * MS, 4_100 * MS)


def window(freeze: FreezeReply | None = None, thaw: ThawReply | None = None) -> WindowRecord:
    return WindowRecord(
        instants=HELD,
        freeze=freeze or FreezeReply(FreezeOutcome.frozen, count=3),
        thaw=thaw or ThawReply(ThawOutcome.completed, count=3),
        point_was_requested=True,
    )


def rows(record: WindowRecord | None = None, **changes: Any) -> list[Step]:
    facts = {"window": record or window(), "clock": CLOCK, "nt": (10, 0), "recovery": RecoveryMode.disabled_by_requester, **changes}
    return steps(StepFacts(**facts))


def observations(found: list[Step]) -> list[Observation]:
    return [row.observation for row in found]


def refused(text: str) -> WindowRecord:
    return window(FreezeReply(FreezeOutcome.refused, message=text), ThawReply(ThawOutcome.lost, count=0))


# --- F§6.3 ----------------------------------------------------------------------------------------


def test_a_freeze_that_held() -> None:
    found = rows(retry=Retry.not_needed)
    assert [row.step for row in found] == list(range(1, 11))
    assert observations(found) == [OBSERVED, INFERRED, INFERRED, INFERRED, OBSERVED, OBSERVED, INFERRED, INFERRED, NOT, NOT]


def test_trap_5_no_step_inside_1_to_5_or_7_to_8_has_a_time_of_its_own() -> None:
    timed = {row.step: (row.started_at, row.duration_ms) for row in rows() if row.started_at or row.duration_ms is not None}
    assert timed == {
        1: ("2026-03-01T10:00:00+00:00", None),
        6: ("2026-03-01T10:00:04+00:00", 12.0),
        7: ("2026-03-01T10:00:04.012000+00:00", None),
    }
    assert "4000.0 ms" in rows()[4].detail
    assert "88.0 ms" in rows()[6].detail


def test_the_limits_and_where_they_come_from() -> None:
    limits = {row.step: row.limit_ms for row in rows() if row.limit_ms is not None}
    assert limits == {5: 60_000, 6: 10_000}
    assert [row.step for row in rows() if (row.limit_ms is None) != (row.limit_source is None)] == []


def test_trap_22_exchange_has_20_seconds() -> None:
    step = rows(writer_limit_ms=EXCHANGE_FREEZE_LIMIT_MS)[4]
    assert step.limit_ms == 20_000
    assert "Exchange" in str(step.limit_source)


def test_that_each_writer_agreed_is_never_claimed() -> None:
    found = rows()
    assert NOT_OF_EACH_WRITER in found[4].detail
    assert NOT_OF_EACH_WRITER in found[7].detail


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("failed to gather writer metadata: ", [OBSERVED, NOT, NOT, NOT, NOT]),
        ("failed to start snapshot set: ", [INFERRED, OBSERVED, NOT, NOT, NOT]),
        ("failed to prepare for backup: ", [INFERRED, INFERRED, OBSERVED, NOT, NOT]),
        ("failed to gather writer status: ", [INFERRED, INFERRED, INFERRED, OBSERVED, NOT]),
        ("DoSnapshotSet exited without Frozen event: ", [INFERRED, INFERRED, INFERRED, INFERRED, OBSERVED]),
        ("fsfreeze not possible as VSS failed to initialize", [NOT] * 5),
        ("something new", [UNSEEN] * 5),
    ],
)
def test_a_freeze_that_fails_ends_at_its_step(text: str, expected: list[Observation]) -> None:
    found = rows(refused(text))
    assert observations(found)[:5] == expected
    assert observations(found)[5:8] == [NOT] * 3
    assert observations(found)[9] is NOT


def test_an_agent_that_does_not_even_ask_vss_fails_in_no_step() -> None:
    found = rows(refused("Command guest-fsfreeze-freeze has been disabled"))
    assert [row.started_at for row in found[:5]] == [None] * 5
    assert {row.detail for row in found[:5]} == {found[0].detail}
    assert read_freeze_error("has been disabled").detail in found[0].detail


def test_trap_6_a_freeze_that_is_not_answered_shows_nothing() -> None:
    found = rows(window(FreezeReply(FreezeOutcome.unanswered), ThawReply(ThawOutcome.count_differs, count=3)))
    assert observations(found)[:8] == [UNSEEN] * 8
    assert found[5].duration_ms is None


def test_a_count_that_is_absurd_shows_nothing_of_the_freeze() -> None:
    found = rows(window(FreezeReply(FreezeOutcome.frozen, count=32_764), ThawReply(ThawOutcome.lost, count=0)))
    assert observations(found)[:8] == [UNSEEN] * 5 + [NOT] * 3


def test_trap_1_a_hold_that_was_lost_claims_no_length() -> None:
    text = "couldn't hold writes: fsfreeze is limited up to 10 seconds: "
    found = rows(window(thaw=ThawReply(ThawOutcome.refused, message=text)))
    assert observations(found)[4:8] == [OBSERVED, OBSERVED, UNSEEN, INFERRED]
    assert found[5].duration_ms is None
    assert read_thaw_error(text).detail in found[5].detail
    assert read_thaw_error(text).detail in found[7].detail


@pytest.mark.parametrize("thaw", [ThawReply(ThawOutcome.lost, count=0), ThawReply(ThawOutcome.count_differs, count=1)])
def test_a_thaw_that_found_nothing_proves_no_hold(thaw: ThawReply) -> None:
    assert observations(rows(window(thaw=thaw)))[5:8] == [INFERRED, UNSEEN, UNSEEN]


def test_a_thaw_that_is_not_answered_shows_no_release() -> None:
    assert observations(rows(window(thaw=ThawReply(ThawOutcome.unanswered))))[5:8] == [INFERRED, UNSEEN, UNSEEN]


def test_a_backup_that_could_not_complete_was_held_all_the_same() -> None:
    found = rows(window(thaw=ThawReply(ThawOutcome.refused, message="failed to complete backup: ")))
    assert observations(found)[5:8] == [OBSERVED, INFERRED, INFERRED]
    assert found[5].duration_ms == 12.0


@pytest.mark.parametrize("outcome", [FreezeOutcome.not_requested, FreezeOutcome.not_possible, FreezeOutcome.not_needed])
def test_without_a_freeze_nothing_happened(outcome: FreezeOutcome) -> None:
    found = steps(StepFacts(WindowRecord(freeze=FreezeReply(outcome)), CLOCK, None, RecoveryMode.unknown))
    assert observations(found) == [NOT] * 10


def test_a_snapshot_outside_the_hold_is_not_called_step_6() -> None:
    record = window()
    record.instants = WindowInstants(0, 40 * MS, 41 * MS, 60 * MS, 52 * MS, 61 * MS)
    outside, inside = rows(record)[5], rows()[5]
    assert (outside.duration_ms, inside.duration_ms) == (12.0, 12.0)
    assert outside.detail != inside.detail


# --- 9 and 10 -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("retry", "expected"), [(Retry.planned, OBSERVED), (Retry.given_up, OBSERVED), (Retry.not_needed, NOT)])
def test_step_9_is_this_services_own_decision(retry: Retry, expected: Observation) -> None:
    assert rows(retry=retry)[8].observation is expected


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (RecoveryMode.disabled_by_requester, NOT),
        (RecoveryMode.unsupported_flag_final_commit_aborted, NOT),
        (RecoveryMode.disabled_requested_support_uncertain, NOT),
        (RecoveryMode.unknown, UNSEEN),
    ],
)
def test_step_10_is_never_observed(mode: RecoveryMode, expected: Observation) -> None:
    assert rows(recovery=mode)[9].observation is expected


# --- fuzzed ---------------------------------------------------------------------------------------


@given(windows, st.sampled_from(RecoveryMode), st.sampled_from(Retry), st.none() | st.just((10, 0)) | st.just((6, 0)))
def test_every_window_has_ten_rows_and_only_the_hold_has_a_length(
    record: WindowRecord, mode: RecoveryMode, retry: Retry, nt: tuple[int, int] | None
) -> None:
    found = steps(StepFacts(record, CLOCK, nt, mode, retry))
    assert [row.step for row in found] == list(range(1, 11))
    assert {row.step for row in found if row.duration_ms is not None} <= {6}
    assert [row.as_document() for row in found if not row.detail] == []
    assert [row.step for row in found if row.started_at and row.observation in (NOT, UNSEEN) and row.step != 1] == []
