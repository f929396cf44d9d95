"""Bits of a repository flip at random, round after round: `python -m tests.repository.bit_flips --rounds 1000 --seed 1`.

Each round flips bits in files of sealed points, lets verifies that may heal read the newest point of each chain, and judges what is on
record by the files themselves. The last line of the output is the result as JSON; the exit status is 0 only if nothing was breached.
"""

import argparse
import hashlib
import json
import logging
import random
import secrets
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import structlog
from sqlalchemy import update

from service.db.engine import Database, open_engine
from service.db.tables import RecoveryPoint
from service.model import chains
from service.model.lifecycle import PointState
from service.repository.signing import SigningKey
from service.repository.store import Repository
from tests.databases import migrate, sqlite_url
from tests.repository.damages import flips_a_bit
from tests.repository.disks import named, qemu
from tests.scenes.sealed import Sealed
from tests.scenes.verified import Verifying

KIB = 1 << 10
MOST_FLIPS = 4
"""Bits of one round. Three rounds of four flip one."""


@dataclass
class Result:
    """`breaches`: what must never be. All else is counted."""

    rounds: int = 0
    flips: int = 0
    found: int = 0
    healed: int = 0
    damaged: int = 0
    by_file: Counter[str] = field(default_factory=Counter)
    damaged_by_file: Counter[str] = field(default_factory=Counter)
    breaches: list[str] = field(default_factory=list)

    def as_document(self, seed: int, took_s: float) -> dict[str, Any]:
        plain = {name: value for name, value in vars(self).items() if not isinstance(value, Counter)}
        return {
            "seed": seed,
            **plain,
            "by_file": dict(self.by_file),
            "damaged_by_file": dict(self.damaged_by_file),
            "took_s": round(took_s),
        }


class _OneHand(Repository):
    """The same process for the verifies of all rounds: its start would take most of the time."""

    def opened(self, *_: object, **options: Any) -> "_OneHand":
        self.safe_point = options["safe_point"]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        """It goes on."""


class BitFlips:
    """A repository with two chains of one disk. Of the blocks of the first chain some are in the second as well."""

    def __init__(self, database: Database, folder: Path, *, compress: bool = False) -> None:
        self.sealed = _two_chains(folder, compress=compress)
        repository = _OneHand(str(self.sealed.path), self.sealed.id)
        self.hand = repository.hand
        self.verifying = Verifying(database, folder, self.sealed, open_repository=repository.opened, state_dir=folder / "state")
        self.database = database
        self.sealed.register(database)
        self.sealed.list_all(database)
        self.good = self.sealed.contents()
        self.seen = {point_id: self.guest_sees(point_id) for point_id in self.sealed.points}
        self.parents = {point_id: self.sealed.manifests[point_id].parents for point_id in self.sealed.points}
        below = {parent for parents in self.parents.values() for parent in parents}
        self.tips = [point_id for point_id in self.sealed.points if point_id not in below]

    def play(self, dice: random.Random, result: Result) -> None:
        flipped = [self._flip(dice) for _ in range(1 if dice.random() < 0.75 else dice.randint(2, MOST_FLIPS))]
        expected = self._bad()
        for tip in self.tips:
            self.verifying.verify(tip, checks=["bytes"], heal=True)
        self._judge(flipped, expected, result)
        self._begin_again()

    def _flip(self, dice: random.Random) -> str:
        """Half of them by the bytes: nearly all of these are the guest's. The others by the files."""
        names = list(self.good)
        weights = [len(content) for content in self.good.values()] if dice.random() < 0.5 else None
        (name,) = dice.choices(names, weights)
        file = self.sealed.path / name
        flips_a_bit(file, dice.randrange(len(self.good[name])), dice.randrange(8))
        return name

    def _bad(self) -> set[str]:
        """The points that have a bad file, or stand on one that has."""
        now = self.sealed.contents()
        bad = {point_id for point_id in self.sealed.points if self._files(point_id, now) != self._files(point_id, self.good)}
        return {point_id for point_id in self.sealed.points if chains.with_all_below(point_id, self.parents) & bad}

    def _files(self, point_id: str, contents: dict[str, bytes]) -> dict[str, bytes]:
        folder = self.sealed.manifests[point_id].folder
        return {name: content for name, content in contents.items() if name.startswith(f"{folder}/")}

    def _judge(self, flipped: list[str], expected: set[str], result: Result) -> None:
        rows = {point_id: self.sealed.row(self.database, point_id) for point_id in self.sealed.points}
        still = self._bad()
        result.rounds += 1
        result.flips += len(flipped)
        for name in flipped:
            result.by_file[Path(name).name] += 1
            result.damaged_by_file[Path(name).name] += bool(still)
        was_found = {point_id for point_id, row in rows.items() if any(proof["ok"] is False for proof in row.proofs or ())}
        tips = {point_id for point_id in self.tips if point_id in expected}
        result.found += tips <= was_found
        result.healed += not still
        result.damaged += bool(still)
        breaches = [f"damage below {point_id} was not found" for point_id in tips - was_found]
        for point_id, row in rows.items():
            if (row.state == PointState.sealed) is (point_id in still):
                breaches.append(f"{point_id} is {row.state}, and its files are {'bad' if point_id in still else 'as they were sealed'}")
            if row.state == PointState.sealed and point_id in expected and self.guest_sees(point_id) != self.seen[point_id]:
                breaches.append(f"{point_id} was healed, and its guest saw something else")
        if left := set(self.sealed.contents()) ^ set(self.good):
            breaches.append(f"files came or went: {sorted(left)}")
        result.breaches += [f"round {result.rounds - 1}: {breach}; flipped: {flipped}" for breach in breaches]

    def guest_sees(self, point_id: str) -> str:
        """As QEMU shows it."""
        raw = self.sealed.path.parent / "seen.raw"
        qemu("qemu-img", "convert", "-O", "raw", named(self.sealed.folder(point_id) / "vda.qcow2"), raw)
        return hashlib.sha256(raw.read_bytes()).hexdigest()

    def _begin_again(self) -> None:
        for name, content in self.sealed.contents().items():
            if self.good.get(name) != content:
                (self.sealed.path / name).write_bytes(self.good[name]) if name in self.good else (self.sealed.path / name).unlink()
        with self.database.write() as session:
            session.execute(update(RecoveryPoint).values(state=PointState.sealed.value, proofs=[]))


def _two_chains(folder: Path, *, compress: bool) -> Sealed:
    sealed = Sealed(folder / "repository", compress=compress)
    sealed.signing_key = SigningKey.of_service(folder / "state")
    blocks = [(n + 1, n * 256 * KIB, 192 * KIB) for n in range(12)]
    sealed.seal(*blocks)
    sealed.seal((21, 64 * KIB, 128 * KIB), (22, 3072 * KIB, 512 * KIB))
    sealed.seal((0, 512 * KIB, 64 * KIB), (23, 1024 * KIB, 64 * KIB))
    sealed.seal((24, 2048 * KIB, 64 * KIB), is_full=True)
    sealed.seal((25, 2304 * KIB, 64 * KIB))
    return sealed


@contextmanager
def scene(folder: Path, *, compress: bool = False) -> Iterator[BitFlips]:
    url = sqlite_url(folder / "bits.db")
    migrate(url)
    database = Database(open_engine(url))
    flips = BitFlips(database, folder, compress=compress)
    try:
        yield flips
    finally:
        flips.hand.close()
        database.dispose()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int)
    parser.add_argument("--compress", action="store_true", help="The disks are stored compressed.")
    asked = parser.parse_args()
    # Only what is wrong.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    seed = secrets.randbelow(1_000_000) if asked.seed is None else asked.seed
    result, dice, began = Result(), random.Random(seed), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="stillpoint-bits-") as folder, scene(Path(folder), compress=asked.compress) as flips:
        for _ in range(asked.rounds):
            known = len(result.breaches)
            flips.play(dice, result)
            for breach in result.breaches[known:]:
                print(f"\n{breach}", file=sys.stderr, flush=True)
            print(f"\r{result.rounds} rounds, {len(result.breaches)} breaches", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    print(json.dumps(result.as_document(seed, time.monotonic() - began)))
    return 0 if not result.breaches and result.found == result.rounds else 1


if __name__ == "__main__":
    sys.exit(main())
