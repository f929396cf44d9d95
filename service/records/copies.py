"""The copies of repositories as they are registered, and what proofs of their stores came to. Callers commit."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import uuid4

from sqlalchemy import delete, func, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from service.db.tables import CopiedPoint, Copy, CopyProof, Job, Repository
from service.errors import CopyInUse, CopyTaken, CopyUnknown
from service.model.copied import CopiedState
from service.model.copy_target import CopyTarget, LockMode
from service.model.immutability import PROOF_DAYS, Immutability
from service.model.lifecycle import FINAL_STATES, JobState
from service.records import policies
from service.records.locks import copy_key

_UNFINISHED = tuple(state.value for state in JobState if state not in FINAL_STATES)
AGAIN_AFTER = timedelta(days=1)
"""After a proof that was asked for and could not be finished, the next one is asked for."""


@dataclass(frozen=True)
class CopyRegistration:
    """`retain_days` None: no lock is asked for. `key_reference`: where the credentials are, and never the credentials."""

    name: str
    target: CopyTarget
    key_reference: str | None = None
    retain_days: int | None = None
    lock_mode: LockMode = LockMode.compliance
    rate_limit_bytes: int | None = None
    #: The rules that keep points which the repository has removed. None: all of them stay.
    retention: Mapping[str, int] | None = None


def add(session: Session, repository_id: str, wanted: CopyRegistration, now: datetime) -> Copy:
    """Raises CopyTaken."""
    copy = Copy(
        id=str(uuid4()),
        repository_id=repository_id,
        name=wanted.name,
        target=wanted.target.as_document(),
        place=str(wanted.target),
        key_reference=wanted.key_reference,
        retain_days=wanted.retain_days,
        lock_mode=wanted.lock_mode.value,
        rate_limit_bytes=wanted.rate_limit_bytes,
        retention=dict(wanted.retention) if wanted.retention is not None else None,
        created_at=now,
        immutability=_before_any_proof(wanted.retain_days),
        proof_due_at=now if wanted.retain_days is not None else None,
    )
    _must_be_free(session, copy)
    try:
        with session.begin_nested():
            session.add(copy)
    except IntegrityError:
        # Another request has registered it at the same time.
        _must_be_free(session, copy)
        raise
    return copy


def get(session: Session, repository_id: str, id_or_name: str) -> Copy:
    """Raises CopyUnknown."""
    named = select(Copy).where(Copy.repository_id == repository_id, or_(Copy.id == id_or_name, Copy.name == id_or_name))
    copies = list(session.scalars(named.execution_options(populate_existing=True)))
    if not copies:
        raise CopyUnknown(repository=repository_id, copy=id_or_name)
    # A copy may have the id of another one as its name.
    return next((copy for copy in copies if copy.id == id_or_name), copies[0])


def of_repository(session: Session, repository_id: str) -> Sequence[Copy]:
    """By name."""
    return session.scalars(select(Copy).where(Copy.repository_id == repository_id).order_by(Copy.name)).all()


def change(session: Session, copy: Copy, values: Mapping[str, Any], now: datetime) -> Copy:
    """What was proven holds for a mode of locks: with another mode, or a lock that was not asked for before, the proof is due at once.

    Raises CopyTaken, CopyInUse: policies know it by the name that it would lose.
    """
    changed = dict(values)
    if changed.get("name", copy.name) != copy.name:
        if named_by := _named_by(session, copy, (copy.name,)):
            raise CopyInUse(copy=copy.name, jobs=[], policies=named_by)
        _must_be_free(session, Copy(id=copy.id, repository_id=copy.repository_id, name=changed["name"], place=copy.place))
    retain_days, mode = changed.get("retain_days", copy.retain_days), changed.get("lock_mode", copy.lock_mode)
    if mode != copy.lock_mode or (retain_days is None) is not (copy.retain_days is None):
        changed |= {"immutability": _before_any_proof(retain_days), "answers": None, "proven_at": None}
        changed |= {"proof_due_at": now if retain_days is not None else None}
    if changed:
        session.execute(update(Copy).where(Copy.id == copy.id).values(changed))
    return get(session, copy.repository_id, copy.id)


def forget(session: Session, repository_id: str, id_or_name: str) -> Copy:
    """Take it off the list, with what is on record of its points. Nothing there is touched. Raises CopyUnknown, CopyInUse."""
    copy = get(session, repository_id, id_or_name)
    jobs, named_by = jobs_at_work(session, copy.id), _named_by(session, copy, (copy.name, copy.id))
    if jobs or named_by:
        raise CopyInUse(copy=copy.name, jobs=jobs, policies=named_by)
    for table in (CopiedPoint, CopyProof):
        session.execute(delete(table).where(table.copy_id == copy.id))
    session.execute(delete(Copy).where(Copy.id == copy.id))
    return copy


def _named_by(session: Session, copy: Copy, names: Sequence[str]) -> list[str]:
    repository = session.get_one(Repository, copy.repository_id)
    return policies.naming_copy(session, (repository.id, repository.registered_id, repository.name), names)


def jobs_at_work(session: Session, copy_id: str) -> list[str]:
    """The ids of its jobs that have not ended."""
    return list(session.scalars(select(Job.id).where(Job.lock_key == copy_key(copy_id), Job.state.in_(_UNFINISHED)).order_by(Job.id)))


def note_opened(session: Session, copy: Copy, now: datetime) -> None:
    """A job has seen that the place is the copy of its repository, or has made it that."""
    session.execute(update(Copy).where(Copy.id == copy.id, Copy.opened_at.is_(None)).values(opened_at=now))


def counts_of(session: Session, copy_ids: Sequence[str]) -> dict[str, dict[str, int]]:
    """By copy and state, how many points are on record there."""
    counted = select(CopiedPoint.copy_id, CopiedPoint.state, func.count()).where(CopiedPoint.copy_id.in_(copy_ids))
    counts: dict[str, dict[str, int]] = {copy_id: dict.fromkeys(CopiedState, 0) for copy_id in copy_ids}
    for copy_id, state, count in session.execute(counted.group_by(CopiedPoint.copy_id, CopiedPoint.state)):
        counts[copy_id][state] = count
    return counts


# --- proofs ---------------------------------------------------------------------------------------


def due(session: Session, now: datetime) -> Sequence[Copy]:
    """The copies whose sentinel is to be attacked, those that wait longest first."""
    return session.scalars(select(Copy).where(Copy.proof_due_at <= now).order_by(Copy.proof_due_at, Copy.id)).all()


def take_turn(session: Session, copy: Copy, now: datetime) -> bool:
    """Take the turn to ask for its proof. False: another process has taken it. If the job comes to nothing, the next day asks again."""
    mine = update(Copy).where(Copy.id == copy.id, Copy.proof_due_at == copy.proof_due_at).values(proof_due_at=now + AGAIN_AFTER)
    return session.scalar(mine.returning(Copy.id)) is not None


@dataclass(frozen=True)
class NewProof:
    """What attacks came to. `why_not`: why there was no lock to attack."""

    immutability: Immutability
    answers: Sequence[Mapping[str, Any]]
    why_not: str | None
    job_id: str


def note_proof(session: Session, copy: Copy, proof: NewProof, now: datetime) -> None:
    """The answers of every proof stay on record."""
    answers, immutability = [dict(answer) for answer in proof.answers], proof.immutability
    session.add(
        CopyProof(
            id=str(uuid4()),
            copy_id=copy.id,
            at=now,
            job_id=proof.job_id,
            immutability=immutability.value,
            lock_mode=copy.lock_mode,
            answers=answers,
            why_not=proof.why_not,
        )
    )
    values = {"immutability": immutability.value, "answers": answers, "proven_at": now}
    next_at = now + (AGAIN_AFTER if immutability is Immutability.unknown else timedelta(days=PROOF_DAYS))
    session.execute(update(Copy).where(Copy.id == copy.id).values({**values, "proof_due_at": next_at}))


def proofs_of(session: Session, copy_id: str, limit: int) -> Sequence[CopyProof]:
    """Newest first."""
    return session.scalars(
        select(CopyProof).where(CopyProof.copy_id == copy_id).order_by(CopyProof.at.desc(), CopyProof.id).limit(limit)
    ).all()


def _before_any_proof(retain_days: int | None) -> str:
    return (Immutability.none if retain_days is None else Immutability.unknown).value


def _must_be_free(session: Session, copy: Copy) -> None:
    same = or_(Copy.name == copy.name, Copy.place == copy.place)
    taken = session.scalars(select(Copy).where(Copy.repository_id == copy.repository_id, Copy.id != copy.id, same)).first()
    if taken is not None:
        raise CopyTaken(copy=f"{copy.name} ({copy.place})", taken_by=f"{taken.name} ({taken.place})")
