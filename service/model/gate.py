"""A gate: a hold in which the caller takes the point in time. It is judged like a snapshot between opening and release."""

from enum import StrEnum

from service.model.reasons import Effect, lowers
from service.model.verdict import Evidence, Judgement, Verdict, judge


class GateState(StrEnum):
    opening = "opening"
    """The guest is not frozen yet."""
    open = "open"
    """The guest is held, until its deadline."""
    releasing = "releasing"
    """The caller has finished, or gave up before the gate opened."""
    closed = "closed"


class GateTrouble(StrEnum):
    """Why a gate closed before its release and its deadline, or never opened. The fact `trouble` of the error."""

    emergency_thaw = "emergency_thaw"
    guard_died = "guard_died"
    worker_stops = "worker_stops"
    thawed_by_another = "thawed_by_another"
    caller_gave_up = "caller_gave_up"
    database_unavailable = "database_unavailable"


def judge_gate(evidence: Evidence, *, was_released: bool) -> Judgement:
    """`evidence.point_taken`: the gate was open. Without a release the copy may have ended after the deadline: `crash` at most."""
    if not evidence.point_taken:
        return never_opened()
    judged = judge(evidence)
    if was_released:
        return judged
    # Without a release the end of the copy is not known.
    reasons = [reason for reason in judged.reasons if reason.effect is not Effect.lifts and reason.code != "outside_the_hold"]
    return Judgement(Verdict.crash, [lowers("gate_not_released", "The gate was not released while it was open."), *reasons])


def never_opened() -> Judgement:
    return Judgement(Verdict.none, [lowers("gate_not_opened", "The gate was never open.")])


def worker_died(*, was_opened: bool) -> Judgement:
    """The judgement of a gate whose worker died."""
    if not was_opened:
        return never_opened()
    return Judgement(Verdict.crash, [lowers("worker_lost", "The worker died while the gate was open: nothing proves the hold.")])
