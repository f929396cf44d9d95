"""A gate: a hold in which somebody else takes the point in time. The verdict is that of a snapshot between opening and release."""

from enum import StrEnum

from service.model.reasons import Effect, lowers
from service.model.verdict import Evidence, Judgement, Verdict, judge


class GateState(StrEnum):
    opening = "opening"
    """The guest is not frozen yet."""
    open = "open"
    """The guest is held, until its deadline."""
    releasing = "releasing"
    """The caller is done, or gave up before it opened."""
    closed = "closed"


def judge_gate(evidence: Evidence, *, was_released: bool) -> Judgement:
    """`evidence.snapshot_taken`: the gate was open. What nobody released may have been copied past the deadline: `crash` at most."""
    if not evidence.snapshot_taken:
        return never_opened()
    judged = judge(evidence)
    if was_released:
        return judged
    # Where it lies is not known: it has no end.
    reasons = [reason for reason in judged.reasons if reason.effect is not Effect.lifts and reason.code != "outside_the_hold"]
    return Judgement(Verdict.crash, [lowers("gate_not_released", "Nobody released the gate while it was open."), *reasons])


def never_opened() -> Judgement:
    return Judgement(Verdict.none, [lowers("gate_not_opened", "The gate was never open.")])


def worker_died(*, was_opened: bool) -> Judgement:
    """Of a gate whose worker died."""
    if not was_opened:
        return never_opened()
    return Judgement(Verdict.crash, [lowers("worker_lost", "The worker died while the gate was open: nothing proves the hold.")])
