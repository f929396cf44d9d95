"""One round: a job, one or two kills at random instants of it, and what is true afterwards."""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from service.model.lifecycle import FINAL_STATES
from tests.kills import judges, victims
from tests.kills.plays import PLAYS, Play
from tests.kills.victims import VICTIMS
from tests.kills.yard import Yard

WEIGHTS = (3, 3, 2, 1)
"""How often each of `VICTIMS` is killed."""
AGAIN = 0.5
"""How many of the rounds kill once more, while the job is recovered or tried again."""
AT_A_PHASE = 0.5
"""How many of the kills wait for a phase of the job. The others strike anywhere between its begin and its usual end."""
FIRST_GUESS_S = 0.5
AFTER_PHASE_S = 0.25
LEAST_S = 0.1
PATIENCE_S = 30.0


@dataclass
class Outcome:
    """`killed`: the victims that were met before the job had ended, each with the phase in which it was, or its state between two."""

    kind: str
    killed: list[tuple[str, str]] = field(default_factory=list)
    processes: int = 0
    ended: str = ""
    seconds: float = 0.0
    breaches: list[str] = field(default_factory=list)


@dataclass
class Usual:
    """How long a job of each kind takes here, and which phases it has: learned from round to round."""

    took_s: dict[str, float] = field(default_factory=dict)
    phases: dict[str, list[str]] = field(default_factory=dict)

    def note(self, kind: str, *, is_early: bool) -> None:
        """Whether a kill came before the end of its job."""
        self.took_s[kind] = max(LEAST_S, self.took_s.get(kind, FIRST_GUESS_S) * (1.05 if is_early else 0.7))


def play(yard: Yard, kind: str, usual: Usual) -> Outcome:
    """Raises nothing: a round that cannot be ended is a breach."""
    outcome, began = Outcome(kind), time.monotonic()
    try:
        for breach in _play(yard, kind, usual, outcome):
            outcome.breaches.append(breach)
    except Exception as error:  # whatever it is, it is of this round
        outcome.breaches.append(f"the round could not be ended: {type(error).__name__}: {error}")
    outcome.seconds = time.monotonic() - began
    return outcome


def _play(yard: Yard, kind: str, usual: Usual, outcome: Outcome) -> Iterator[str]:
    played = PLAYS[kind](yard)
    job_id = played.ask()
    yard.wait_for_claim(job_id)
    for _ in range(2 if yard.dice.random() < AGAIN else 1):
        yield from _strike(yard, played, job_id, usual, outcome)
    job = yard.wait(job_id)
    outcome.ended = str(job.state)
    if job.state not in ("succeeded", "failed"):
        yield f"nobody cancelled the job, and it is {job.state}"
    usual.phases[kind] = sorted({*usual.phases.get(kind, ()), *(phase["name"] for phase in job.phases)} - {"recover"})
    yield from played.at_once()
    yield from played.finish()
    yield from played.judge()
    yard.show_copy()
    yield from judges.lost(yard, played.kept())
    yield from judges.listed_as_good_and_is_not(yard)
    yield from judges.unlisted(yard)
    yield from judges.whole_on_the_copy_and_is_not(yard)
    yield from judges.nobodys(yard)


def _strike(yard: Yard, played: Play, job_id: str, usual: Usual, outcome: Outcome) -> Iterator[str]:
    (victim,) = yard.dice.choices(VICTIMS, WEIGHTS)
    _wait_for_the_instant(yard, job_id, usual, outcome.kind)
    job = yard.job(job_id)
    usual.note(outcome.kind, is_early=job.state not in FINAL_STATES)
    deadline = time.monotonic() + PATIENCE_S
    while not (killed := yard.kill(victim)) and not yard.has_ended(job_id) and time.monotonic() < deadline:
        time.sleep(0.001)
    if killed and job.state not in FINAL_STATES:
        outcome.killed.append((victim, str(job.phase or job.state)))
        outcome.processes += killed
    if victim in (victims.WORKER, victims.ALL):
        yield from played.at_once()
        yard.start_worker()


def _wait_for_the_instant(yard: Yard, job_id: str, usual: Usual, kind: str) -> None:
    phases = usual.phases.get(kind)
    if phases and yard.dice.random() < AT_A_PHASE:
        wanted = yard.dice.choice(phases)
        yard.until(lambda: yard.has_ended(job_id) or _has_come_to(yard, job_id, wanted), f"the phase {wanted}", 0.002)
        most_s = min(AFTER_PHASE_S, usual.took_s.get(kind, FIRST_GUESS_S) / 2)
    else:
        most_s = usual.took_s.get(kind, FIRST_GUESS_S)
    time.sleep(yard.dice.uniform(0.0, most_s))


def _has_come_to(yard: Yard, job_id: str, phase: str) -> bool:
    job = yard.job(job_id)
    return phase in (job.phase, *(each["name"] for each in job.phases))
