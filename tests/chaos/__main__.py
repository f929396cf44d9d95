"""Faults of every kind, one a round, against a real service and real guests: `python -m tests.chaos --rounds N --seed S`.

The last line of the output is the result as JSON; the exit status is 0 only if nothing was breached. The seed decides the
fault and every delay of each round: `--round K` with the same seed plays one again.
"""

import argparse
import json
import os
import queue
import secrets
import shutil
import sys
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

from tests.chaos import remains, report, rounds
from tests.chaos.faults import FAULTS
from tests.chaos.outcome import Outcome
from tests.chaos.stage import Stage
from tests.chaos.turns import Turns
from tests.lab import images
from tests.lab.daemon import Daemon


def main() -> int:
    asked = _arguments()
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    numbers = [asked.round] if asked.round is not None else list(range(asked.first, asked.first + asked.rounds))
    print(f"{len(numbers)} rounds with seed {seed}, {asked.lanes} at a time", file=sys.stderr, flush=True)
    with ExitStack() as stack:
        images.build()
        daemon = Daemon()
        daemon.ensure()
        stack.callback(daemon.stop)
        for left in remains.clear_up():
            print(f"A run was killed before; what it left is cleared up: {left}", file=sys.stderr, flush=True)
        folder = remains.new_folder()
        stack.callback(remains.has_ended, folder)
        outcomes = _run_lanes(folder, seed, numbers, asked)
    document = report.as_document(seed, outcomes)
    is_clean = report.is_clean(document) and len(outcomes) == len(numbers)
    if is_clean:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        print(f"Databases and logs are kept in {folder}.", file=sys.stderr)
    print(json.dumps(document))
    return 0 if is_clean else 1


def _run_lanes(folder: Path, seed: int, numbers: list[int], asked: argparse.Namespace) -> list[Outcome]:
    run = _Run(folder, seed, asked.only or ([asked.fault] if asked.fault else None))
    for number in numbers:
        run.waiting.put(number)
    lanes = [threading.Thread(target=run.lane, args=(lane,)) for lane in range(min(asked.lanes, len(numbers)))]
    for lane in lanes:
        lane.start()
    for lane in lanes:
        lane.join()
    return sorted(run.outcomes, key=lambda outcome: outcome.number)


@dataclass
class _Run:
    """What the lanes share. `only`: the faults that may be drawn; None: all."""

    folder: Path
    seed: int
    only: list[str] | None
    waiting: "queue.SimpleQueue[int]" = field(default_factory=queue.SimpleQueue)
    outcomes: list[Outcome] = field(default_factory=list)
    turns: Turns = field(default_factory=Turns)
    telling: threading.Lock = field(default_factory=threading.Lock)

    def lane(self, lane: int) -> None:
        for life in count():
            with self.turns.together():
                stage = Stage(self.folder / f"{lane}-{life}", lane, os.getpid()).start()
            try:
                if not self._play_until_broken(stage):
                    return
            finally:
                with self.turns.together():
                    stage.close()

    def _play_until_broken(self, stage: Stage) -> bool:
        """False: no rounds are left. True: a round left the stage in a state that would spoil the next, so a new one is wanted."""
        while True:
            try:
                number = self.waiting.get_nowait()
            except queue.Empty:
                return False
            outcome = rounds.play(stage, self.seed, number, self.turns, self.only)
            self._tell(outcome)
            if outcome.breaches:
                return True

    def _tell(self, outcome: Outcome) -> None:
        with self.telling:
            self.outcomes.append(outcome)
            print("\n".join([report.line(self.outcomes), *report.breach_lines(outcome)]), file=sys.stderr, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.chaos", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the number of the first round, to go on where a run ended")
    parser.add_argument("--seed", type=int, help="printed, so that a run can be repeated; default: a random one")
    parser.add_argument("--round", type=int, help="this one alone")
    parser.add_argument("--fault", choices=list(FAULTS), help="this fault in every round")
    parser.add_argument("--only", type=_named, help="the faults whose names begin so, with commas between: backup_,restore_,verify_")
    parser.add_argument("--lanes", type=int, default=2, help="rounds that are played at the same time, each with its own guest")
    return parser.parse_args()


def _named(text: str) -> list[str]:
    beginnings = tuple(text.split(","))
    found = [name for name in FAULTS if name.startswith(beginnings)]
    if not found:
        raise argparse.ArgumentTypeError(f"no fault has a name that begins with {text}; there are {', '.join(FAULTS)}")
    return found


if __name__ == "__main__":
    started = time.monotonic()
    status = main()
    print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    sys.exit(status)
