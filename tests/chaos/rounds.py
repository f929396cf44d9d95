"""One round: a job, a fault in the middle of it, and what is true afterwards."""

import random
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain

from tests.chaos import invariants
from tests.chaos.backups import backing_up, copying, healing, merging, pruning, restoring, verifying
from tests.chaos.faults import FAULTS, Plays, Strike
from tests.chaos.gate_client import GateClient
from tests.chaos.invariants import Breach
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage
from tests.chaos.turns import Turns

HOLDS_MS = (800, 1_500, 5_000)
MAX_OVERLAYS = 6
JOB_TIMEOUT_S = 60.0
GATES = 0.12
"""How many of the rounds hold the guest for a caller's copy, instead of a snapshot."""


def fault_of(seed: int, number: int, only: Sequence[str] | None = None) -> str:
    """`only`: the names to draw from; None: all."""
    names = list(only or FAULTS)
    return random.Random(f"{seed} fault {number}").choices(names, [FAULTS[name].weight for name in names])[0]


def play(stage: Stage, seed: int, number: int, turns: Turns, only: Sequence[str] | None = None) -> Outcome:
    """Raises nothing that a fault may cause: a round that cannot be ended is a breach."""
    outcome = Outcome(number, fault_of(seed, number, only))
    with turns.alone() if FAULTS[outcome.fault].is_alone else turns.together():
        _play(stage, random.Random(f"{seed} round {number}"), outcome)
    return outcome


def _play(stage: Stage, chance: random.Random, outcome: Outcome) -> None:
    begun = time.monotonic()
    outcome.place, stage.chance = stage.state_dir.parent.name, chance
    stage.note(f"round {outcome.number}, {outcome.fault}")
    try:
        with _errors_are_breaches(stage, outcome, "the round could not be ended"):
            for breach in _PLAYS[FAULTS[outcome.fault].plays](stage, chance, outcome):
                outcome.breaches.append(breach)
    finally:
        with _errors_are_breaches(stage, outcome, "the fault could not be put back"):
            FAULTS[outcome.fault].put_back(stage)
    outcome.seconds = time.monotonic() - begun


@contextmanager
def _errors_are_breaches(stage: Stage, outcome: Outcome, what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        outcome.breaches.append(Breach("stories_untrue", f"{what}: {_with_those_before(error)}"))
        stage.note(f"{what}: {''.join(traceback.format_exception(error))}")


def _with_those_before(error: BaseException) -> str:
    """An error may come from the tidying after another one, which is the reason."""
    told = f"{type(error).__name__}: {error}"
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return told if before is None else f"{told}, after {_with_those_before(before)}"


def _of_snapshot(stage: Stage, chance: random.Random, outcome: Outcome) -> Iterator[Breach]:
    fault = FAULTS[outcome.fault]
    hold_limit_ms = chance.choice(HOLDS_MS)
    fault.prepare(stage)
    # The round before may have started a worker in its last moment.
    stage.wait_worker()
    before, mark, known = stage.guest.active_sources()["vda"], stage.guest.mark(), stage.guest.heartbeats()[-1:]
    freeze = {"timeout_ms": 5_000, "hold_limit_ms": hold_limit_ms, "preflush": chance.random() < 0.3}
    gate = _gate(stage, chance, hold_limit_ms)
    strike = Strike(stage, gate.job_id if gate else stage.api.create(stage.guest.name, freeze=freeze), chance)
    outcome.job, outcome.is_gate = strike.job_id, gate is not None
    try:
        fault.strike(strike)
        job = stage.api.wait(strike.job_id, JOB_TIMEOUT_S)
    finally:
        fault.clean_up(stage)
    if gate is not None:
        gate.end()
        yield from gate.breaches(job)
    if silent := list(invariants.no_heartbeat(stage)):
        yield from silent
        return
    stalls = None if strike.hits_guest else stage.guest.console.stalls(mark)
    if stalls is not None:
        outcome.longest_stall_ms = max((stall.ms for stall in stalls), default=0.0)
        # A gate is held for as long as its caller copies: nothing that a kill adds.
        outcome.was_killed_in_window = strike.kills_worker and gate is None
        yield from invariants.frozen_too_long(stalls, hold_limit_ms, strike.obstacle_s)
    stage.guest.wait_agent()
    yield from invariants.left_frozen(stage.guest.freeze_status())
    yield from invariants.story_untrue(stage, job, before, stalls, strike.pauses)
    beats = stage.guest.heartbeats(0 if strike.hits_guest else mark)
    yield from invariants.durable_writes_lost(stage, [*known, *beats])
    yield from chain(invariants.nameless_disk(stage, job), invariants.chain_broken(stage), invariants.strays(stage, job))
    if stage.written_file() != stage.guest.active_sources()["vda"]:
        yield from invariants.next_job_not_refused(stage.api.wait(stage.api.create(stage.guest.name), JOB_TIMEOUT_S))
        stage.merge_behind_libvirts_back()
    yield from invariants.next_job_failed(stage.api.wait(stage.api.create(stage.guest.name), JOB_TIMEOUT_S))
    if len(stage.chain_files()) > MAX_OVERLAYS:
        stage.merge_all()


def _gate(stage: Stage, chance: random.Random, deadline_ms: int) -> GateClient | None:
    is_one, copies_for_s = chance.random() < GATES, chance.uniform(0.0, 1.2)
    return GateClient(stage, deadline_ms, copies_for_s).begin() if is_one else None


_PLAYS: dict[Plays, Callable[[Stage, random.Random, Outcome], Iterator[Breach]]] = {
    "snapshot": _of_snapshot,
    "backup": backing_up.breaches,
    "restore": restoring.breaches,
    "verify": verifying.breaches,
    "prune": pruning.breaches,
    "merge": merging.breaches,
    "heal": healing.breaches,
    "copy": copying.breaches,
}
