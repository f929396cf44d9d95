"""What holds for every verdict, whatever the evidence."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from hypothesis import given, settings

from service.model.explain import explain
from service.model.reasons import Effect
from service.model.verdict import Evidence, HookState, Verdict, judge, satisfies
from service.model.window import FreezeOutcome, ThawOutcome
from tests.model.evidence_strategies import any_evidence

RANK = {
    verdict: rank
    for rank, verdict in enumerate([Verdict.none, Verdict.crash, Verdict.filesystem, Verdict.application_unverified, Verdict.application])
}
ALMOST = settings(max_examples=400)


@ALMOST
@given(any_evidence)
def test_every_evidence_has_a_verdict_with_at_least_one_reason(found: Evidence) -> None:
    judgement = judge(found)
    assert judgement.reasons
    assert judgement.verdict in Verdict


@ALMOST
@given(any_evidence)
def test_a_good_verdict_stands_on_a_freeze_a_thaw_and_a_hold(found: Evidence) -> None:
    if judge(found).verdict not in (Verdict.filesystem, Verdict.application):
        return
    window, at = found.window, found.window.instants
    assert found.point_taken
    assert found.domain_was_running
    assert window.freeze.outcome is FreezeOutcome.frozen
    assert (window.freeze.count or 0) > 0
    proven_by_status = window.thaw.outcome is ThawOutcome.hook_failed and window.frozen_before_thaw is True
    assert window.thaw.outcome is ThawOutcome.completed or proven_by_status
    instants = (at.freeze_reply, at.point_sent, at.point_done, at.thaw_sent)
    assert None not in instants
    assert list(instants) == sorted(instants, key=lambda instant: instant or 0)
    assert (at.hold_ms or 0) <= found.hold_limit_ms
    assert not window.watchdog_fired


@ALMOST
@given(any_evidence)
def test_application_needs_a_hook_that_reports_failures_and_no_failure(found: Evidence) -> None:
    if judge(found).verdict is Verdict.application:
        assert found.hook is HookState.truthful
        assert found.window.thaw.outcome is ThawOutcome.completed


def _losses(found: Evidence) -> Iterator[Evidence]:
    """The same evidence with one fact missing."""
    at = found.window.instants
    for name in ("freeze_reply", "point_sent", "point_done", "thaw_sent"):
        yield replace(found, window=replace(found.window, instants=replace(at, **{name: None})))
    yield replace(found, window=replace(found.window, freeze=replace(found.window.freeze, count=None)))
    yield replace(found, window=replace(found.window, frozen_before_thaw=None))
    yield replace(found, hook=HookState.not_inspected)
    yield replace(found, shut_off_cleanly=None)


def _is_as_good(one: Verdict, other: Verdict) -> bool:
    return one is other or (Verdict.offline not in (one, other) and RANK[one] >= RANK[other])


@ALMOST
@given(any_evidence)
def test_missing_evidence_never_gives_a_better_verdict(found: Evidence) -> None:
    for poorer in _losses(found):
        assert _is_as_good(judge(found).verdict, judge(poorer).verdict)


@ALMOST
@given(any_evidence)
def test_a_missing_number_of_filesystems_never_gives_a_better_verdict_than_a_number_that_was_reached(found: Evidence) -> None:
    reached = replace(found, expected_filesystems=found.window.freeze.count)
    assert _is_as_good(judge(reached).verdict, judge(replace(found, expected_filesystems=None)).verdict)


@ALMOST
@given(any_evidence)
def test_not_knowing_how_a_domain_was_shut_off_is_not_better_than_knowing_the_worst(found: Evidence) -> None:
    verdict = judge(found).verdict
    for required in RANK:
        assert satisfies(verdict, required, None) <= satisfies(verdict, required, True)
        assert satisfies(verdict, required, None) == satisfies(verdict, required, False)


@ALMOST
@given(any_evidence)
def test_every_fact_that_lowers_has_a_remedy(found: Evidence) -> None:
    judgement = judge(found)
    for reason in judgement.reasons:
        document = {"kind": "snapshot", "state": "succeeded", "verdict": judgement.verdict, "verdict_reasons": [reason.as_document()]}
        explained = explain(document)
        assert explained["because"] == [reason.detail]
        assert len(explained["would_lift"]) == (1 if reason.effect is Effect.lowers else 0), reason.code


@ALMOST
@given(any_evidence)
def test_a_judgement_is_a_plain_document(found: Evidence) -> None:
    as_text: Callable[[dict[str, str]], bool] = lambda row: all(isinstance(value, str) for value in row.values())  # noqa: E731
    assert all(as_text(row) for row in judge(found).as_documents())
