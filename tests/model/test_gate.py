"""The verdict of a gate: that of a snapshot between opening and release, and never more than what the release proves."""

from service.model.gate import judge_gate, worker_died
from service.model.timing import WindowInstants
from service.model.verdict import Evidence, HookState, Verdict, judge
from service.model.window import FreezeOutcome, FreezeReply, ThawOutcome, ThawReply, WindowRecord


def perfect(*, was_opened: bool = True) -> Evidence:
    """Everything held, and the hook is truthful."""
    window = WindowRecord(
        instants=WindowInstants(1, 2, 3, 4, 5, 6),
        freeze=FreezeReply(FreezeOutcome.frozen, count=2),
        thaw=ThawReply(ThawOutcome.completed, count=2),
        point_was_requested=True,
    )
    return Evidence(True, was_opened, window, 5_000.0, HookState.truthful, expected_filesystems=2)


def test_a_gate_that_was_released_is_judged_as_a_snapshot_is() -> None:
    assert judge_gate(perfect(), was_released=True) == judge(perfect())
    assert judge(perfect()).verdict is Verdict.application


def test_a_gate_that_nobody_released_is_crash_however_good_the_rest_looks() -> None:
    judgement = judge_gate(perfect(), was_released=False)
    assert judgement.verdict is Verdict.crash
    assert [reason.code for reason in judgement.reasons] == ["gate_not_released"]


def test_a_gate_that_never_opened_has_no_point_in_time() -> None:
    judgement = judge_gate(perfect(was_opened=False), was_released=True)
    assert (judgement.verdict, [reason.code for reason in judgement.reasons]) == (Verdict.none, ["gate_not_opened"])


def test_a_worker_that_died_leaves_a_crash_point_where_the_gate_was_open() -> None:
    assert worker_died(was_opened=True).verdict is Verdict.crash
    assert worker_died(was_opened=False).verdict is Verdict.none
