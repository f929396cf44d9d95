"""The rules that the verdict has for Windows alone: the most pessimistic one that matches wins."""

from dataclasses import replace
from typing import Any

import pytest

from service.model.reasons import Effect
from service.model.timing import WindowInstants
from service.model.verdict import Evidence, HookState, judge
from service.model.window import FreezeOutcome, FreezeReply, ThawOutcome, ThawReply, WindowRecord
from service.model.windows.sql_evidence import SqlEvent, SqlEvidence, SqlProblem
from service.model.windows.verdict import WindowsEvidence
from service.model.windows.vss_outcome import VssDoubt, VssOutcome, VssReading
from service.model.windows.writer_rules import Finding, WriterCeiling, WritersJudgement

pytestmark = pytest.mark.windows

MS = 1_000_000
HEALTHY = WritersJudgement(WriterCeiling.application, (Finding("writers_healthy", "lifts", "All are stable."),))


def writers(code: str, effect: str, ceiling: WriterCeiling) -> WritersJudgement:
    return WritersJudgement(ceiling, (Finding(code, effect, "A fact.", ceiling),))


def evidence(reading: VssReading | None = None, *, judged: WritersJudgement = HEALTHY, **changes: Any) -> Evidence:
    """A window in which everything went as it should, and writers that are all well."""
    completed = VssReading(VssOutcome.completed, guest_thawed=True, hold_held=True, detail="VSS completed.")
    window = WindowRecord(
        instants=WindowInstants(0, 40 * MS, 41 * MS, 51 * MS, 52 * MS, 60 * MS),
        freeze=FreezeReply(FreezeOutcome.frozen, count=3),
        thaw=ThawReply(ThawOutcome.completed, count=3, attempts=1),
        point_was_requested=True,
        frozen_afterwards=False,
    )
    windows = replace(WindowsEvidence(reading or completed, judged), **changes)
    return Evidence(
        domain_was_running=True,
        point_taken=True,
        window=window,
        hold_limit_ms=8_000,
        hook=HookState.not_inspected,
        expected_filesystems=None,
        windows=windows,
    )


def read(outcome: VssOutcome, doubt: VssDoubt | None = None) -> VssReading:
    return VssReading(outcome, guest_thawed=True, hold_held=outcome is VssOutcome.completed, detail=f"It was {outcome}.", doubt=doubt)


def lowering(found: Evidence) -> list[str]:
    return [reason.code for reason in judge(found).reasons if reason.effect is Effect.lowers]


def test_application_when_vss_completed_and_every_writer_is_well() -> None:
    judged = judge(evidence())
    assert (judged.verdict, [reason.code for reason in judged.reasons]) == ("application", ["held", "vss_completed", "writers_healthy"])


@pytest.mark.parametrize("outcome", sorted(set(VssOutcome) - {VssOutcome.completed, VssOutcome.complete_failed}))
def test_crash_for_every_thaw_that_does_not_prove_the_hold(outcome: VssOutcome) -> None:
    found = evidence(read(outcome))
    assert judge(found).verdict == "crash"
    assert f"vss_{outcome}" in lowering(found)


def test_filesystem_when_only_the_completion_failed_after_a_good_hold() -> None:
    found = evidence(read(VssOutcome.complete_failed))
    assert (judge(found).verdict, lowering(found)) == ("filesystem", ["vss_complete_failed"])


def test_filesystem_when_volumes_are_outside_the_set_and_they_are_named() -> None:
    judged = judge(evidence(uncovered_volumes=("E:\\",)))
    assert judged.verdict == "filesystem"
    assert any("E:\\" in reason.detail for reason in judged.reasons)


@pytest.mark.parametrize("ceiling", [WriterCeiling.filesystem, WriterCeiling.application_unverified])
def test_a_writer_lowers_the_verdict_to_its_own_ceiling(ceiling: WriterCeiling) -> None:
    found = evidence(judged=writers("writer_fact", "lowers", ceiling))
    assert (ceiling.value, ["writer_fact"]) == (judge(found).verdict.value, lowering(found))


@pytest.mark.parametrize(
    ("doubt", "code"),
    [
        (VssDoubt.aborted_and_ignored, "vss_abort_may_be_hidden"),
        (VssDoubt.windows_version_unknown, "windows_version_unknown"),
    ],
)
def test_unverified_where_this_windows_may_hide_an_abort(doubt: VssDoubt, code: str) -> None:
    found = evidence(read(VssOutcome.completed, doubt))
    assert ("application_unverified", [code]) == (judge(found).verdict, lowering(found))


def test_unverified_when_it_is_not_known_which_volumes_there_are() -> None:
    found = evidence(uncovered_volumes=None)
    assert (judge(found).verdict, lowering(found)) == ("application_unverified", ["volumes_unknown"])


def test_the_worst_of_several_facts_decides() -> None:
    failed = writers("writer_newly_failed", "lowers", WriterCeiling.filesystem)
    assert judge(evidence(read(VssOutcome.completed, VssDoubt.aborted_and_ignored), judged=failed)).verdict == "filesystem"
    assert judge(evidence(read(VssOutcome.lost), judged=failed)).verdict == "crash"


@pytest.mark.parametrize(
    ("sql", "effect"),
    [
        (SqlEvidence((), SqlProblem.no_events), Effect.notes),
        (SqlEvidence((SqlEvent(7, 3197, "MSSQLSERVER", "crm"), SqlEvent(8, 3198, "MSSQLSERVER", "crm")), None), Effect.lifts),
    ],
)
def test_the_events_of_sql_server_lift_and_their_absence_is_only_noted(sql: SqlEvidence, effect: Effect) -> None:
    judged = judge(evidence(sql=sql))
    assert judged.verdict == "application"
    assert [effect] == [reason.effect for reason in judged.reasons if reason.code == "sql_server_events"]
