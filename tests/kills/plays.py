"""What is played: one job of each kind that is killed, and what must come of it in the end.

`ask` asks for the job that is disturbed. `at_once` is judged while what was killed is dead. `finish` runs the job again, undisturbed, until
nothing is left to do. `judge` is what must be true then, beside what must be true of every round.
"""

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from service.db.tables import Job
from service.model import chains
from tests.kills.yard import Yard
from tests.repository.damages import flips_a_bit

RATES = (None, None, 4_000_000, 16_000_000)
"""Bytes a second: some jobs last long enough for a kill in the middle of a file."""
FLIPS = (0, 1, 1, 1, 2, 3)
"""Bits of a file that flip before a heal."""
TWICE_THERE = 0.7
"""How many of the heals find most blocks in another point too."""


class Play(Protocol):
    def ask(self) -> str: ...

    def at_once(self) -> Iterator[str]: ...

    def kept(self) -> Collection[str]:
        """The points that nothing may take away."""
        ...

    def finish(self) -> Iterator[str]: ...

    def judge(self) -> Iterator[str]: ...


class _Removal:
    """Points go: by a prune, or by a merge into those that stand on them."""

    def __init__(self, yard: Yard, kind: str, going: Collection[str], request: Mapping[str, Any]) -> None:
        self.yard, self.kind, self.going, self.request = yard, kind, set(going), dict(request)
        self._there = list(yard.on_record())

    def ask(self) -> str:
        return self.yard.ask(self.kind, {"repository": self.yard.sealed.id, "recovery_points": sorted(self.going), **self.request})

    def kept(self) -> Collection[str]:
        return [point_id for point_id in self._there if point_id not in self.going]

    def at_once(self) -> Iterator[str]:
        for point_id in self.kept():
            if not (self.yard.folder(point_id) / "manifest.json").exists():
                yield f"{self.yard.folder(point_id).name} was to stay, and is away"

    def finish(self) -> Iterator[str]:
        if self.going & set(self.yard.on_record()):
            yield from _must_succeed(self.yard.wait(self.ask()))

    def judge(self) -> Iterator[str]:
        on_record = self.yard.on_record()
        for point_id in self.going:
            if point_id in on_record or self.yard.folder(point_id).exists():
                yield f"{self.yard.folder(point_id).name} was to go, and is still there"


def prune(yard: Yard) -> Play:
    there, parents = yard.fill(), yard.parents()
    chosen = set(yard.dice.sample(there, yard.dice.randint(1, 2)))
    going = {each for each in there if chains.with_all_below(each, parents) & chosen}
    return _Removal(yard, "prune", going, {})


def merge(yard: Yard) -> Play:
    there, parents = yard.fill(), yard.parents()
    below = [each for each in there if any(each in above for above in parents.values())]
    if not below:
        newest = yard.seal(is_full=False)
        below = [str(parent) for parent in yard.parents()[newest]]
    going = yard.dice.sample(below, yard.dice.randint(1, min(2, len(below))))
    return _Removal(yard, "merge", going, {"remove": True, "rate_limit_bytes": yard.dice.choice(RATES)})


class Heal:
    """Bits of a file flip, or none, and a verify that may heal reads a point that stands on it, or the point itself."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        self._points = yard.fill()
        if yard.dice.random() < TWICE_THERE or sum(not parents for parents in yard.parents().values()) == 1:
            # What the newest points hold is in this one as well.
            self._points = [*self._points, yard.seal(is_full=True)]
        bad = yard.dice.choice(self._points[-3:] if yard.dice.random() < TWICE_THERE else self._points)
        parents = yard.parents()
        self._reads = yard.dice.choice([each for each in self._points if bad in chains.with_all_below(each, parents)])
        self._file = self._to_damage(yard.folder(bad))
        self._good = self._file.read_bytes()
        for _ in range(yard.dice.choice(FLIPS)):
            flips_a_bit(self._file, yard.dice.randrange(len(self._good)), yard.dice.randrange(8))
        self._damaged = self._file.read_bytes()
        self._affected = {each for each in self._points if bad in chains.with_all_below(each, parents) and self._damaged != self._good}

    def _to_damage(self, folder: Path) -> Path:
        """Two times of three the disk."""
        files = sorted(file for file in folder.iterdir() if file.is_file())
        return folder / "vda.qcow2" if self.yard.dice.random() < 0.67 else self.yard.dice.choice(files)

    def ask(self) -> str:
        return self._ask(self._reads, heal=True, rate_limit_bytes=self.yard.dice.choice(RATES))

    def _ask(self, point_id: str, **more: Any) -> str:
        return self.yard.ask("verify", {"recovery_point": point_id, "checks": ["bytes"], **more}, point_id=point_id)

    def kept(self) -> Collection[str]:
        return self._points

    def at_once(self) -> Iterator[str]:
        now = self._file.read_bytes() if self._file.is_file() else None
        if now not in (self._damaged, self._good):
            yield f"{self._file.name} is neither the damaged file nor the healed one: {None if now is None else len(now)} bytes"

    def finish(self) -> Iterator[str]:
        yield from self.at_once()
        for point_id, row in self.yard.on_record().items():
            if row.state != "sealed" and point_id not in self._affected:
                yield f"{row.folder} is {row.state}, and nothing was wrong with it but that a process was killed"
        job = self.yard.wait(self._ask(self._reads, heal=True))
        yield from self._told(job)

    def _told(self, job: Job) -> Iterator[str]:
        """What is healed is good, what is not is damaged, and nothing else is."""
        is_healed = self._file.read_bytes() == self._good
        if is_healed != (job.state == "succeeded"):
            yield f"the verify ended {job.state} ({job.error}), and the file is {'healed' if is_healed else 'not healed'}"
        for point_id, row in self.yard.on_record().items():
            needs_it = point_id in self._affected
            if (row.state == "sealed") != (is_healed or not needs_it):
                yield f"{row.folder} is {row.state}; it needs the bad file: {needs_it}, which is healed: {is_healed}"

    def judge(self) -> Iterator[str]:
        """The good file is brought back by hand, where it could not be healed. Then every point is good again."""
        yield from self.at_once()
        if self._file.read_bytes() == self._good:
            return
        self._file.write_bytes(self._good)
        for point_id in sorted(self._affected):
            yield from _must_succeed(self.yard.wait(self._ask(point_id)))
        yield from (f"{row.folder} is {row.state} although it is mended" for row in self.yard.on_record().values() if row.state != "sealed")


class Send:
    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        yard.fill()
        for _ in range(yard.dice.randint(1, 2)):
            yard.seal()
        self._points = list(yard.on_record())

    def ask(self) -> str:
        return self._ask(rate_limit_bytes=self.yard.dice.choice(RATES))

    def _ask(self, **more: Any) -> str:
        return ask_copy(self.yard, "send", None, **more)

    def kept(self) -> Collection[str]:
        return self._points

    def at_once(self) -> Iterator[str]:
        yield from ()

    def finish(self) -> Iterator[str]:
        yield from _must_succeed(self.yard.wait(self._ask()))

    def judge(self) -> Iterator[str]:
        there = self.yard.on_copy()
        for point_id in self._points:
            state = there[point_id].state if point_id in there else "not there"
            if state != "whole":
                yield f"{self.yard.folder(point_id).name} was to be sent, and is {state}"


class Fetch:
    """A point that was pruned here comes back from the copy, with what it stands on and was pruned as well."""

    def __init__(self, yard: Yard) -> None:
        self.yard = yard
        yard.fill()
        full = yard.seal(is_full=True)
        self._top = yard.seal(is_full=False)
        self._points = list(yard.on_record())
        self._went = [full, self._top] if yard.dice.random() < 0.7 else [self._top]
        self._before = {each: contents(yard.folder(each)) for each in self._went}
        must(yard.wait(ask_copy(yard, "send", None)))
        must(yard.wait(yard.ask("prune", {"repository": yard.sealed.id, "recovery_points": self._went})))

    def ask(self) -> str:
        return self._ask(rate_limit_bytes=self.yard.dice.choice(RATES))

    def _ask(self, **more: Any) -> str:
        return ask_copy(self.yard, "fetch", [self._top], **more)

    def kept(self) -> Collection[str]:
        return self._points

    def at_once(self) -> Iterator[str]:
        for point_id in self._went:
            folder = self.yard.folder(point_id)
            if (folder / "manifest.json").exists() and contents(folder) != self._before[point_id]:
                yield f"{folder.name} was published, and is not what was sent"

    def finish(self) -> Iterator[str]:
        yield from _must_succeed(self.yard.wait(self._ask()))
        self.yard.until(self.yard.repository_is_imported, "the import of what was fetched")

    def judge(self) -> Iterator[str]:
        for point_id in self._went:
            if contents(self.yard.folder(point_id)) != self._before[point_id]:
                yield f"{self.yard.folder(point_id).name} came back as something else"


def copy(yard: Yard) -> Play:
    return Send(yard) if yard.dice.random() < 0.6 else Fetch(yard)


def ask_copy(yard: Yard, action: str, points: list[str] | None, **more: Any) -> str:
    request = {"repository": yard.sealed.id, "copy": yard.copy_id, "action": action, "recovery_points": points, **more}
    return yard.ask("copy", request, copy_id=yard.copy_id)


def contents(folder: Path) -> dict[str, str]:
    """SHA-256 of each file, by its name. Empty: there is no such folder."""
    files = [file for file in sorted(folder.rglob("*")) if file.is_file()]
    return {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def must(job: Job) -> None:
    for problem in _must_succeed(job):
        raise AssertionError(problem)


def _must_succeed(job: Job) -> Iterator[str]:
    if job.state != "succeeded":
        yield f"an undisturbed {job.kind} ended {job.state}: {job.error}"


PLAYS: Mapping[str, Callable[[Yard], Play]] = {"prune": prune, "merge": merge, "heal": Heal, "copy": copy}
