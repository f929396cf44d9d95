"""The run as one line of JSON, and what a reader needs to repeat a breach."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.chaos.rounds import Outcome

COUNTS = ("guests_left_frozen", "writes_lost", "chains_broken", "stories_untrue")


def as_document(seed: int, outcomes: Sequence[Outcome]) -> dict[str, Any]:
    breaches = Counter(breach.kind for outcome in outcomes for breach in outcome.breaches)
    extra = _stalls_after_kill(outcomes)
    return {
        "rounds": len(outcomes),
        "seed": seed,
        **{name: breaches[name] for name in COUNTS},
        "stall_after_kill_ms_median": round(statistics.median(extra), 1) if extra else None,
        "stall_after_kill_ms_max": round(max(extra), 1) if extra else None,
        "gates": sum(outcome.is_gate for outcome in outcomes),
        "by_fault": dict(sorted(Counter(outcome.fault for outcome in outcomes).items())),
    }


def is_clean(document: dict[str, Any]) -> bool:
    return not any(document[name] for name in COUNTS)


def _stalls_after_kill(outcomes: Sequence[Outcome]) -> list[float]:
    """What the death of the worker adds to the longest stall of a round."""
    usual = [
        outcome.longest_stall_ms
        for outcome in outcomes
        if outcome.fault == "nothing" and not outcome.is_gate and outcome.longest_stall_ms is not None
    ]
    if not usual:
        return []
    base = statistics.median(usual)
    killed = [outcome.longest_stall_ms for outcome in outcomes if outcome.was_killed_in_window and outcome.longest_stall_ms is not None]
    return [max(0.0, stall - base) for stall in killed]


def breach_lines(outcome: Outcome) -> list[str]:
    return [f"  round {outcome.number}, {outcome.fault}, job {outcome.job}: {breach.kind}: {breach.detail}" for breach in outcome.breaches]


def line(played: int, outcome: Outcome) -> str:
    """For whoever watches."""
    stall = f"{outcome.longest_stall_ms:6.0f} ms" if outcome.longest_stall_ms is not None else " " * 9
    return f"{played:5} {outcome.seconds:5.1f} s {stall}  {outcome.fault}{' (gate)' if outcome.is_gate else ''}"
