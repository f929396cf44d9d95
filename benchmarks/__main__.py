"""The benchmarks: `python -m benchmarks [--only NAME] [--rounds N] [--seed N]`. Results go to build/bench/."""

import argparse
import secrets
import sys
from collections.abc import Callable

from benchmarks import ageing, api, backup, creating, flood, guard, lists, pickup, policies, stall, windows
from benchmarks.interleaving import Plan
from benchmarks.report import Report, save, show
from tests.lab.places import LabError

BENCHMARKS: dict[str, Callable[[Plan], Report]] = {
    "stall": stall.measure,
    "api": api.measure,
    "list": lists.measure,
    "pickup": pickup.measure,
    "windows": windows.measure,
    "guard": guard.measure,
    "flood": flood.measure,
    "create": creating.report,
    "ageing": ageing.measure,
    "backup": backup.measure,
    "policies": policies.measure,
}
OF_ANOTHER = frozenset({"create"})
"""Part of another one, and run by itself only where it is named."""


def main() -> int:
    arguments = _arguments()
    names = arguments.only or [name for name in BENCHMARKS if name not in OF_ANOTHER]
    seed = secrets.randbelow(1_000_000) if arguments.seed is None else arguments.seed
    print(f"{arguments.rounds} rounds of {', '.join(names)}; the order within each round is shuffled with seed {seed}")
    for name in names:
        try:
            report = BENCHMARKS[name](Plan(arguments.rounds, seed))
        except LabError as error:
            print(f"{name} could not be measured: {error}", file=sys.stderr)
            return 1
        show(report)
        print(f"  every round is in {save(report)}\n", flush=True)
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=_names, help=f"one or more of {', '.join(BENCHMARKS)}, with commas between")
    parser.add_argument("--rounds", type=_positive, default=15, help="rounds that count; one more is run first to warm up")
    parser.add_argument("--seed", type=int, help="of the order of contestants; printed, and kept in the results")
    return parser.parse_args()


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",")]
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        raise argparse.ArgumentTypeError(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(BENCHMARKS)}")
    return names


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least one round")
    return number


if __name__ == "__main__":
    sys.exit(main())
