"""The step of the courier that finds out whether a store keeps its locks: it attacks objects that it has made for that."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from service.clock import rfc3339
from service.copies.objects import Lock, ObjectStore, Source, StoredObject, refusal_of, sha256_of
from service.copies.stores import opened
from service.errors import CopyNotAnswering, LockNotOffered, StillpointError
from service.model.copy_target import LockMode
from service.model.immutability import SENTINEL_DAYS, Answer, Attack, judged
from service.repository.report import Report

SENTINELS = "sentinels"
"""The folder of these objects. An import of a repository looks at `domains` only."""
CONTENT_BYTES = 4096
"""Bytes of a sentinel."""
SOONER_S = 60
"""Seconds after which a lock would end if the store let it be shortened."""


def prove_lock(arguments: dict[str, Any], report: Report) -> dict[str, Any]:
    """`mode`: of the locks that the copy gets. Returns `immutability`, `answers`, and `why_not` where the store offers no lock.

    Raises CopyNotAnswering: then nothing is proven. CopyRefused: a sentinel could not be put.
    """
    mode = LockMode(arguments["mode"])
    with opened(arguments["target"], report) as store:
        _remove_old(store, report)
        answers, lock, why_not = [], None, None
        for attack in Attack:
            try:
                sentinel = _Sentinel.put(store, mode, attack, report)
            except LockNotOffered as error:
                why_not = error.detail
                break
            if sentinel.there.lock is None:
                why_not = "the store took the lock, and shows none"
                break
            lock = sentinel.there.lock
            answers.append(sentinel.attacked(attack))
    return {
        "immutability": judged(lock is not None and why_not is None, answers).value,
        "answers": [answer.as_document() for answer in answers],
        "mode": mode.value,
        "why_not": why_not,
    }


@dataclass
class _Sentinel:
    """One object, for one attack: what one attack destroys is not there for the next."""

    store: ObjectStore
    there: StoredObject
    content: Source
    report: Report

    @classmethod
    def put(cls, store: ObjectStore, mode: LockMode, attack: Attack, report: Report) -> "_Sentinel":
        content = Source.of_text(os.urandom(CONTENT_BYTES), report)
        name = f"{SENTINELS}/{datetime.now(UTC):%Y%m%dT%H%M%SZ}-{os.urandom(4).hex()}-{attack.value}"
        store.put(name, content, Lock(mode, _whole_second(datetime.now(UTC) + timedelta(days=SENTINEL_DAYS))))
        there = store.head(name)
        if there is None:
            raise CopyNotAnswering(copy=store.shown, what=f"looking at {name}", reason="it is not there after it was put")
        return cls(store, there, content, report)

    def attacked(self, attack: Attack) -> Answer:
        tries: dict[Attack, list[Callable[[], None]]] = {
            Attack.delete: [self._delete, lambda: self._delete(version=True)],
            Attack.overwrite: [self._overwrite],
            Attack.shorten: [self._shorten, lambda: self._shorten(bypass=True)],
            Attack.bypass: [lambda: self._delete(version=True, bypass=True)],
            Attack.lengthen: [self._lengthen],
        }
        accepted, code = False, None
        try:
            for each in tries[attack]:
                try:
                    each()
                    accepted = True
                except (FileNotFoundError, StillpointError) as error:
                    if isinstance(error, CopyNotAnswering):
                        raise
                    code = refusal_of(error) if isinstance(error, StillpointError) else "not_found"
            holds, what = self._state(self._longer() if attack is Attack.lengthen else self.there.lock)
        finally:
            self.content.close()
        return Answer(attack, accepted, code, holds, what)

    def _state(self, least: Lock | None) -> tuple[bool, str]:
        """Whether the object is as it was, and locked at least so long, by what the store gives back; and what was found in words."""
        name, version = self.there.name, self.there.version
        now = self.store.head(name, version)
        sha256 = sha256_of(self.store, name, self.report, version)
        if now is None or sha256 is None:
            return False, "the object is gone"
        if sha256 != self.content.sha256:
            return False, "the object has another content"
        if now.lock is None:
            return False, "the object has no lock any more"
        if least is None or now.lock.until < least.until or now.lock.mode is not least.mode:
            return False, f"the lock ends {rfc3339(now.lock.until)}, and {rfc3339(least.until) if least else 'never'} is expected"
        return True, f"the object is as it was, and locked until {rfc3339(now.lock.until)}"

    def _delete(self, *, version: bool = False, bypass: bool = False) -> None:
        self.store.delete(self.there.name, self.there.version if version else None, bypass=bypass)

    def _overwrite(self) -> None:
        other = Source.of_text(os.urandom(CONTENT_BYTES), self.report)
        try:
            self.store.put(self.there.name, other)
        finally:
            other.close()

    def _longer(self) -> Lock:
        assert self.there.lock is not None
        return Lock(self.there.lock.mode, self.there.lock.until + timedelta(seconds=SOONER_S))

    def _lengthen(self) -> None:
        self.store.lock(self.there.name, self._longer(), self.there.version)

    def _shorten(self, *, bypass: bool = False) -> None:
        assert self.there.lock is not None
        sooner = Lock(self.there.lock.mode, _whole_second(datetime.now(UTC) + timedelta(seconds=SOONER_S)))
        self.store.lock(self.there.name, sooner, self.there.version, bypass=bypass)


def _whole_second(at: datetime) -> datetime:
    # What a store shows has whole seconds, or thousandths.
    return at.replace(microsecond=0)


def _remove_old(store: ObjectStore, report: Report) -> None:
    """Remove the sentinels of earlier proofs whose locks are over. A store that refuses does what it should."""
    for name in list(store.names(f"{SENTINELS}/")):
        try:
            there = store.head(name)
            if there is not None and (there.lock is None or there.lock.until <= datetime.now(UTC)):
                store.delete(name, there.version)
        except CopyNotAnswering:
            raise
        except StillpointError:
            continue
        report.alive()


STEPS = {"prove_lock": prove_lock}
