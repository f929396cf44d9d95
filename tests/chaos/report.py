"""The run as one line of JSON, and what a reader needs to repeat a breach."""

import statistics
from collections import Counter
from collections.abc import Sequence
from typing import Any

from tests.chaos.outcome import Outcome

COUNTS = ("guests_left_frozen", "writes_lost", "chains_broken", "stories_untrue", "points_unrestorable", "guests_hurt", "files_of_nobody")


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
    job = f"job {outcome.job}" if outcome.job else "no job was created"
    where = f"  round {outcome.number}, {outcome.fault}, {job}, in {outcome.place}"
    return [f"{where}: {breach.kind}: {breach.detail}" for breach in outcome.breaches]


def line(outcomes: Sequence[Outcome]) -> str:
    """For whoever watches: the newest round, and how many breaches there were until now."""
    outcome = outcomes[-1]
    stall = f"{outcome.longest_stall_ms:6.0f} ms" if outcome.longest_stall_ms is not None else " " * 9
    told = f"{' (gate)' if outcome.is_gate else ''}  {outcome.ended}".rstrip()
    played = f"{len(outcomes):5} {outcome.seconds:5.1f} s {stall}  {outcome.fault}{told}"
    breached = [len(each.breaches) for each in outcomes if each.breaches]
    return f"{played}  *** {sum(breached)} BREACHES in {len(breached)} rounds so far" if breached else played
