"""Rounds in which every contestant has one turn, in another order each time, so that a slow minute hurts all alike."""

import random
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

Numbers = dict[str, float]
Turn = Callable[[], Numbers]


@dataclass(frozen=True)
class Plan:
    rounds: int
    seed: int


@dataclass(frozen=True)
class Round:
    """`measured`: contestant to its numbers, in the order in which they had their turns."""

    number: int
    measured: dict[str, Numbers]


@dataclass
class Course:
    """The rounds of one set of contestants, and their medians."""

    title: str
    rounds: list[Round] = field(default_factory=list)

    def median(self, contestant: str, number: str) -> float:
        return statistics.median(self.all(contestant, number))

    def all(self, contestant: str, number: str) -> list[float]:
        return [turn.measured[contestant][number] for turn in self.rounds]

    def medians(self) -> dict[str, Numbers]:
        contestants = sorted(self.rounds[0].measured)
        return {name: {number: self.median(name, number) for number in self.rounds[0].measured[name]} for name in contestants}


def run(title: str, contestants: Mapping[str, Turn], plan: Plan, *, warm_up: bool = True) -> Course:
    """One round that does not count (first calls pay for what later ones find ready), then the rounds of the plan."""
    order = random.Random(f"{plan.seed} {title}")
    course = Course(title)
    started = time.monotonic()
    for number in range(0 if warm_up else 1, plan.rounds + 1):
        names = order.sample(sorted(contestants), len(contestants))
        _progress(f"{title}: round {number} of {plan.rounds}, {time.monotonic() - started:.0f} s")
        measured = {name: contestants[name]() for name in names}
        if number:
            course.rounds.append(Round(number, measured))
    _progress("")
    return course


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
    elif text:
        print(text, file=sys.stderr, flush=True)
