"""What is known of a round when it has ended."""

from dataclasses import dataclass, field

from tests.chaos.invariants import Breach


@dataclass
class Outcome:
    number: int
    fault: str
    seconds: float = 0.0
    longest_stall_ms: float | None = None
    was_killed_in_window: bool = False
    breaches: list[Breach] = field(default_factory=list)
    job: str = ""
    is_gate: bool = False
    #: The folder of the stage that it was played on, among those that are kept. A breach is the last round of its stage.
    place: str = ""
    #: How its own job ended; a round may have other jobs besides.
    ended: str = ""
