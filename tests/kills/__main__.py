"""Kills at random instants of prune, merge, heal and copy: `python -m tests.kills --rounds 300 --seed S`.

Needs no guest. Each round runs one job and kills the worker, the process in the repository or at the copy, the programs of QEMU, or all
of them, with SIGKILL. The last line of the output is the result as JSON; the exit status is 0 only if nothing was breached. The seed
decides what is played and every delay, and not the scheduling of the machine.
"""

import argparse
import json
import queue
import random
import secrets
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from tests.kills import rounds
from tests.kills.bucket import bucket
from tests.kills.plays import PLAYS
from tests.kills.rounds import Outcome, Usual
from tests.kills.yard import Yard

STOPPING = threading.Event()
"""After a SIGTERM the rounds that are played come to their end, and no other one begins."""


def main() -> int:
    asked = _arguments()
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    signal.signal(signal.SIGTERM, lambda _number, _frame: STOPPING.set())
    folder, began = Path(tempfile.mkdtemp(prefix="stillpoint-kills-")), time.monotonic()
    outcomes = play(folder, seed, range(asked.first, asked.first + asked.rounds), asked.only, lanes=asked.lanes, is_in_bucket=asked.bucket)
    document = as_document(seed, outcomes, time.monotonic() - began)
    if document["breaches"]:
        print(f"Databases, logs and repositories are kept in {folder}.", file=sys.stderr)
    else:
        shutil.rmtree(folder)
    print(json.dumps(document))
    return 0 if not document["breaches"] and document["rounds"] == asked.rounds else 1


def play(
    folder: Path, seed: int, numbers: Sequence[int], kinds: Sequence[str] = tuple(PLAYS), *, lanes: int = 1, is_in_bucket: bool = False
) -> list[Outcome]:
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in numbers:
        waiting.put(number)
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=_lane, args=(folder / f"lane-{n}", seed, waiting, kinds, outcomes, is_in_bucket)) for n in range(lanes)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return outcomes


def _lane(
    folder: Path, seed: int, waiting: "queue.SimpleQueue[int]", kinds: Sequence[str], outcomes: list[Outcome], is_in_bucket: bool
) -> None:
    """A breach is the last round of its yard: the next round has a new one."""
    usual, life, is_done = Usual(), 0, False
    while not is_done:
        dice = random.Random(f"{seed} {folder.name} {life}")
        with ExitStack() as stack:
            place = stack.enter_context(bucket()) if is_in_bucket else None
            yard = stack.enter_context(Yard(folder / f"yard-{life}", dice, place))
            is_done = _until_breached(yard, seed, waiting, kinds, usual, outcomes)
        life += 1


def _until_breached(
    yard: Yard, seed: int, waiting: "queue.SimpleQueue[int]", kinds: Sequence[str], usual: Usual, outcomes: list[Outcome]
) -> bool:
    """Whether no rounds are left."""
    while True:
        try:
            number = waiting.get_nowait()
        except queue.Empty:
            return True
        if STOPPING.is_set():
            return True
        yard.dice.seed(f"{seed} round {number}")
        outcome = rounds.play(yard, yard.dice.choice(list(kinds)), usual)
        outcomes.append(outcome)
        _tell(number, yard, outcome, outcomes)
        if outcome.breaches:
            return False


def _tell(number: int, yard: Yard, outcome: Outcome, outcomes: Sequence[Outcome]) -> None:
    killed = ", ".join(f"{victim} in {phase}" for victim, phase in outcome.killed) or "nothing was met"
    line = f"{len(outcomes):5} {outcome.seconds:5.1f} s  {outcome.kind:5}  {outcome.ended:9}  {killed}"
    breaches = [f"  round {number}, {outcome.kind}, in {yard.state_dir.parent}: {breach}" for breach in outcome.breaches]
    print("\n".join([line, *breaches]), file=sys.stderr, flush=True)


def as_document(seed: int, outcomes: Sequence[Outcome], took_s: float) -> dict[str, Any]:
    killed = [(outcome.kind, victim, phase) for outcome in outcomes for victim, phase in outcome.killed]
    return {
        "seed": seed,
        "rounds": len(outcomes),
        "kills": len(killed),
        "processes": sum(outcome.processes for outcome in outcomes),
        "breaches": sum(len(outcome.breaches) for outcome in outcomes),
        "by_kind": dict(sorted(Counter(kind for kind, _, _ in killed).items())),
        "by_victim": dict(sorted(Counter(victim for _, victim, _ in killed).items())),
        "by_phase": dict(sorted(Counter(f"{kind} {phase}" for kind, _, phase in killed).items())),
        "ended": dict(sorted(Counter(f"{outcome.kind} {outcome.ended}" for outcome in outcomes).items())),
        "took_s": round(took_s),
    }


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.kills", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--first", type=int, default=0, help="the number of the first round, to go on where a run ended")
    parser.add_argument("--seed", type=int, help="printed at the end; default: a random one")
    parser.add_argument("--only", type=_kinds, default=tuple(PLAYS), help=f"some of {', '.join(PLAYS)}, with commas between")
    parser.add_argument("--lanes", type=int, default=2, help="rounds that are played at the same time, each in a yard of its own")
    parser.add_argument("--bucket", action="store_true", help="the copy is in a bucket of moto's S3 server, and not in a folder")
    return parser.parse_args()


def _kinds(text: str) -> tuple[str, ...]:
    if unknown := set(text.split(",")) - set(PLAYS):
        raise argparse.ArgumentTypeError(f"nothing is played that is called {', '.join(sorted(unknown))}; there are {', '.join(PLAYS)}")
    return tuple(text.split(","))


if __name__ == "__main__":
    sys.exit(main())
