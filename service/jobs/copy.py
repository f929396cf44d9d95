"""The job kind `copy`: carries sealed points to a copy of their repository and back, and finds out whether its store keeps locks.

Only the courier, a process of its own, touches the repository and the store. What was sent stays sent, so a lost job is tried again and
continues where it was lost.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service.clock import rfc3339
from service.copies.courier import SILENCE_S, Courier, Proven
from service.copies.objects import Lock
from service.db.engine import database_now
from service.db.tables import CopiedPoint
from service.db.tables import Copy as CopyRow
from service.errors import CopyArrivedWrong, CopyDamaged, CopyIncomplete, CopyLocked, PointDamaged, StillpointError
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.run import JobRun, MustRecover, Phase
from service.model.copied import CopiedState, CopyAction
from service.model.copy_target import LockMode, target_of
from service.model.immutability import Immutability, locked_until, may_lengthen, to_lengthen
from service.model.lifecycle import PhaseName
from service.model.requests import CopyRequest
from service.records import copied_points, copies, copy_removal, repositories
from service.records.copied_points import Arrived, ToSend
from service.records.copies import NewProof
from service.records.copy_removal import Leaving
from service.repository.hand import Progress
from service.repository.keys import Key
from service.repository.signing import SigningKey

OF_THE_POINT = (PointDamaged, CopyArrivedWrong, CopyDamaged, CopyIncomplete)
"""Errors that say something of one point: the job continues with the next one. Any other error ends it."""


@dataclass(frozen=True)
class Copy:
    """The handler of the kind. `state_dir`: of the service, whose signing key tells whose an unfinished fetch is."""

    state_dir: Path
    silence_s: float = SILENCE_S
    open_courier: Callable[..., Courier] = Courier

    def run(self, run: JobRun, host: Host) -> Ending:  # noqa: ARG002 - as every handler has it
        return _CopyRun(self, run).run()

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        return Resolution(is_tried_again=True)

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error)


@dataclass
class _Tally:
    """`done`: what became of each point. `left`: why others were left as they are."""

    action: CopyAction
    done: list[dict[str, Any]] = field(default_factory=list)
    left: list[dict[str, Any]] = field(default_factory=list)
    more: dict[str, Any] = field(default_factory=dict)
    first_error: StillpointError | None = None

    def leave(self, point_id: str, error: StillpointError) -> None:
        self.left.append({"id": point_id, "code": error.code, "detail": error.detail})
        self.first_error = self.first_error or error

    def as_document(self) -> dict[str, Any]:
        return {"copy": {"action": self.action.value, "points": self.done, "left": self.left, **self.more}}


class _CopyRun:
    """One attempt of one job."""

    def __init__(self, kind: Copy, run: JobRun) -> None:
        self._kind = kind
        self._run = run
        self._request = run.request(CopyRequest)
        self._copy, self._repository_id, self._path = run.in_transaction(self._on_record)
        self._phase = PhaseName.transfer
        self._tally = _Tally(self._request.action)

    def run(self) -> Ending:
        steps = {
            CopyAction.send: self._send,
            CopyAction.fetch: self._fetch,
            CopyAction.check: self._check,
            CopyAction.remove: self._remove,
            CopyAction.prove: self._prove,
        }
        with self._opened() as courier:
            steps[self._request.action](courier)
        return Ending(self._tally.first_error, result=self._tally.as_document())

    def _on_record(self, session: Session) -> tuple[CopyRow, str, str]:
        """Raises RepositoryUnknown, CopyUnknown."""
        repository = repositories.get(session, self._request.repository)
        copy = copies.get(session, repository.id, self._request.copy)
        session.expunge(copy)
        return copy, repository.id, repository.path

    @contextmanager
    def _opened(self) -> Iterator[Courier]:
        copy = self._copy
        key = Key(copy.key_reference) if copy.key_reference is not None else None
        pace = self._request.rate_limit_bytes or copy.rate_limit_bytes
        options = {"pace": pace, "silence_s": self._kind.silence_s, "safe_point": self._safe_point}
        with self._kind.open_courier(self._path, self._repository_id, target_of(copy.target), key, **options) as courier:
            courier.open(is_known=copy.opened_at is not None)
            self._run.in_transaction(lambda session: copies.note_opened(session, copy, database_now(session)))
            yield courier

    def _safe_point(self) -> None:
        self._run.safe_point(self._phase)
        if self._run.ends_at is not None:
            # It may carry for days, and the service is told to stop: the next worker continues.
            raise MustRecover(what="The service was told to stop")

    @contextmanager
    def _in_phase(self, name: PhaseName) -> Iterator[Phase]:
        self._phase = name
        with self._run.phase(name) as phase:
            yield phase
            if self._tally.first_error is not None:
                phase.warn(self._tally.first_error.detail)

    def _progress(self, progress: Progress) -> None:
        self._run.progress(self._phase, progress.done_bytes, progress.total_bytes, progress.rate_bytes_s)

    # --- there ------------------------------------------------------------------------------------

    def _send(self, courier: Courier) -> None:
        if self._copy.retain_days is not None and self._copy.immutability == Immutability.unknown:
            # What a store answers to a lock is known before a point is locked.
            self._prove(courier)
        wanted = self._run.in_transaction(self._missing)
        with self._in_phase(PhaseName.transfer):
            for each in wanted:
                self._safe_point()
                if each.why_not is not None:
                    self._tally.left.append({"id": each.point_id, "code": None, "detail": each.why_not})
                else:
                    self._send_one(courier, each)

    def _missing(self, session: Session) -> list[ToSend]:
        return copied_points.to_send(session, self._copy, self._request.recovery_points)

    def _send_one(self, courier: Courier, each: ToSend) -> None:
        job_id = self._run.claim.job_id
        began = self._run.in_transaction(lambda session: _begun(session, self._copy, each.point_id, job_id))
        if began is None:
            return
        digest, now = began
        lock = self._lock(now)
        may = may_lengthen(self._copy.answers)
        try:
            if lock is not None and may:
                self._lengthen_below(courier, each.point_id, lock)
            sent = courier.send(each.folder, digest, lock, may_lengthen=may, on_progress=self._progress)
        except OF_THE_POINT as error:
            self._run.in_transaction(lambda session: copied_points.note_not_sent(session, self._copy, each.point_id))
            self._tally.leave(each.point_id, error)
            return
        until = sent.lock.until if sent.lock is not None else None
        arrived = Arrived(each.point_id, sent.bytes, sent.verified_by, until)
        self._run.in_transaction(lambda session: copied_points.note_sent(session, self._copy, arrived, database_now(session)))
        facts = {"bytes": sent.bytes, "sent_bytes": sent.sent_bytes, "checked_by": sent.verified_by}
        self._done(each.point_id, **facts, locked_until=rfc3339(until) if until is not None else None)

    def _done(self, point_id: str, **facts: Any) -> None:
        """On record at once: an attempt that is lost later tells what it did."""
        self._tally.done.append({"id": point_id, **facts})
        self._run.write({"result": self._tally.as_document()})

    def _lock(self, now: datetime) -> Lock | None:
        """None: no lock is asked for, or the store offers none."""
        copy = self._copy
        if copy.retain_days is None or copy.immutability not in (Immutability.immutable, Immutability.claims_only):
            return None
        return Lock(LockMode(copy.lock_mode), locked_until(now, copy.retain_days).replace(microsecond=0))

    def _lengthen_below(self, courier: Courier, point_id: str, lock: Lock) -> None:
        """What an increment stands on stays as long as the increment: locked before anything stands on it."""
        rows = {row.point_id: row for row in self._run.in_transaction(lambda session: list(copied_points.of_copy(session, self._copy.id)))}
        parents = {each: row.parents for each, row in rows.items()}
        for each in to_lengthen(point_id, lock.until, parents, {each: row.locked_until for each, row in rows.items()}):
            courier.lengthen(rows[each].folder, lock)
            self._run.in_transaction(_lengthened(self._copy, each, lock.until))
            self._tally.more["lengthened"] = self._tally.more.get("lengthened", 0) + 1

    # --- back -------------------------------------------------------------------------------------

    def _fetch(self, courier: Courier) -> None:
        rows = self._wanted_there()
        owner = SigningKey.of_service(self._kind.state_dir).id
        with self._in_phase(PhaseName.write):
            for row in rows:
                self._safe_point()
                try:
                    fetched = courier.fetch(row.folder, row.manifest_digest, owner, on_progress=self._progress)
                except (CopyDamaged, CopyIncomplete) as error:
                    # Nothing that stands on it can be used without it.
                    self._run.in_transaction(_checked(self._copy, row.point_id, is_good=False))
                    self._tally.leave(row.point_id, error)
                    break
                self._done(row.point_id, is_there=fetched["is_there"], bytes=fetched["bytes"], fetched_bytes=fetched["fetched_bytes"])
        # The worker of the repository puts what is there on record.
        self._run.in_transaction(lambda session: repositories.ask_import(session, self._repository_id, database_now(session)))

    def _wanted_there(self) -> list[CopiedPoint]:
        """Bases first. Raises CopyIncomplete."""
        asked = self._request.recovery_points or ()
        rows, missing = self._run.in_transaction(lambda session: copied_points.whole_with_all_below(session, self._copy.id, asked))
        if missing:
            raise CopyIncomplete(copy=self._copy.name, point=missing[0])
        return rows

    # --- what is there ----------------------------------------------------------------------------

    def _check(self, courier: Courier) -> None:
        there = self._run.in_transaction(lambda session: list(copied_points.of_copy(session, self._copy.id)))
        asked = self._request.recovery_points
        with self._in_phase(PhaseName.checksums):
            for row in there:
                is_there = row.sent_at is not None and row.state != CopiedState.removing
                if not is_there or (asked is not None and row.point_id not in asked):
                    continue
                self._safe_point()
                try:
                    read = courier.check(row.folder, row.manifest_digest, on_progress=self._progress)
                except OF_THE_POINT as error:
                    self._run.in_transaction(_checked(self._copy, row.point_id, is_good=False))
                    self._tally.leave(row.point_id, error)
                    continue
                self._run.in_transaction(_checked(self._copy, row.point_id, is_good=True))
                self._done(row.point_id, bytes=read)

    def _remove(self, courier: Courier) -> None:
        """First it does not count as being there any more, then its objects go, the manifest first. A lost job continues with the rest."""
        asked = self._request.recovery_points
        wanted = self._run.in_transaction(lambda session: self._to_remove(session, asked))
        with self._in_phase(PhaseName.remove):
            for point_id in wanted:
                self._safe_point()
                self._remove_one(courier, point_id, by_rule=asked is None)

    def _to_remove(self, session: Session, asked: tuple[str, ...] | None) -> list[str]:
        now = database_now(session)
        if asked is None:
            return copy_removal.going(session, self._copy, now)
        # What an earlier attempt has removed is gone.
        left = [each for each in asked if copied_points.is_on(session, self._copy, each)]
        return copy_removal.asked_for(session, self._copy, left, now)

    def _remove_one(self, courier: Courier, point_id: str, *, by_rule: bool) -> None:
        copy, job_id = self._copy, self._run.claim.job_id
        if by_rule and self._is_whole_after_all(courier, point_id):
            return
        leaving = self._run.in_transaction(lambda session: copy_removal.begin(session, copy, point_id, job_id, by_rule=by_rule))
        if leaving is None:
            return
        if isinstance(leaving, StillpointError):
            self._tally.leave(point_id, leaving)
            return
        try:
            removed = courier.remove(leaving.folder)
        except CopyLocked as error:
            self._run.in_transaction(_kept(copy, point_id, leaving, datetime.fromisoformat(error.facts["until"])))
            self._tally.leave(point_id, error)
            return
        self._run.in_transaction(lambda session: copy_removal.forget(session, copy, point_id))
        self._done(point_id, objects=removed["removed"], left=removed["left"])

    def _is_whole_after_all(self, courier: Courier, point_id: str) -> bool:
        """A job may have died after the last byte arrived and before that was on record. The rules of the copy decide on such a point."""
        row = self._run.in_transaction(lambda session: session.get(CopiedPoint, (self._copy.id, point_id)))
        if row is None or row.state != CopiedState.sending:
            return False
        try:
            courier.check(row.folder, row.manifest_digest, on_progress=self._progress)
        except OF_THE_POINT:
            return False
        self._run.in_transaction(_checked(self._copy, point_id, is_good=True))
        return True

    def _prove(self, courier: Courier) -> None:
        mode = LockMode(self._copy.lock_mode)
        with self._in_phase(PhaseName.attack) as phase:
            proven = courier.prove_lock(mode)
            self._run.in_transaction(lambda session: self._note(session, proven))
            self._copy = self._run.in_transaction(self._on_record)[0]
            self._tally.more["immutability"] = proven.immutability.value
            self._tally.more["answers"] = [dict(answer) for answer in proven.answers]
            self._tally.more["why_not"] = proven.why_not
            if proven.immutability is Immutability.claims_only:
                broken = ", ".join(answer["attack"] for answer in proven.answers if not answer["holds"])
                phase.warn(f"the store takes locks, and does not keep them: {broken}")
            elif proven.why_not is not None:
                phase.warn(proven.why_not)

    def _note(self, session: Session, proven: Proven) -> None:
        proof = NewProof(proven.immutability, proven.answers, proven.why_not, self._run.claim.job_id)
        copies.note_proof(session, self._copy, proof, database_now(session))
        copied_points.tell_retained(session, [row.point_id for row in copied_points.of_copy(session, self._copy.id)])


def _begun(session: Session, copy: CopyRow, point_id: str, job_id: str) -> tuple[str | None, datetime] | None:
    """The digest of its manifest, and the time of the database. None: it is not there to be sent any more."""
    point = copied_points.begin(session, copy, point_id, job_id)
    return None if point is None else (point.manifest_digest, database_now(session))


def _lengthened(copy: CopyRow, point_id: str, until: datetime) -> Callable[[Session], None]:
    return lambda session: copied_points.note_lengthened(session, copy, point_id, until)


def _kept(copy: CopyRow, point_id: str, leaving: Leaving, until: datetime) -> Callable[[Session], None]:
    return lambda session: copy_removal.keep_after_all(session, copy, point_id, leaving, until)


def _checked(copy: CopyRow, point_id: str, *, is_good: bool) -> Callable[[Session], None]:
    return lambda session: copied_points.note_checked(session, copy, point_id, is_good=is_good, now=database_now(session))
