"""Verification by plan on record: the budget of each repository, and what was read of it. Callers commit.

A read by plan is a job of its own, with a row here. The row has a number, so that of any number of processes that plan one makes it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from sqlalchemy import delete, func, insert, select, update
from sqlalchemy.orm import Session

from service.db.base import table_of
from service.db.engine import database_now, take_turn
from service.db.tables import Domain, Job, Policy, RecoveryPoint, Repository, VerificationRun
from service.errors import StillpointError
from service.model.backup_policy import BackupPolicy
from service.model.lifecycle import FINAL_STATES
from service.model.proofs import is_known_bad, newest
from service.model.repository import ProofKind
from service.model.requests import VerifyRequest
from service.model.selectors import Domain as SelectedDomain
from service.model.selectors import Selected, policy_of
from service.model.verification_budget import LOOK_BACK, Budget, Spent
from service.model.verification_plan import Planned, PromisedProof, StoredPoint
from service.records import policies, queue, repositories
from service.records.orders import NOT_PLACED, order_of

_RUNS = table_of(VerificationRun)


class Outcome(StrEnum):
    """What came of a read by plan."""

    good = "good"
    healed = "healed"
    """It was damaged, and is good now."""
    damaged = "damaged"
    failed = "failed"
    """The point could not be read. That says nothing of it."""
    refused = "refused"
    """No job was made: the point is being removed, for example."""


# --- the budget -----------------------------------------------------------------------------------


def set_budget(session: Session, id_or_name: str, budget: Budget | None) -> Repository:
    """None: nothing is verified by plan any more. Raises RepositoryUnknown."""
    repository = repositories.get(session, id_or_name)
    values = {"verification": budget.as_document() if budget is not None else None}
    session.execute(update(Repository).where(Repository.id == repository.id).values(values))
    return repositories.get(session, repository.id)


def budget_of(repository: Repository) -> Budget | None:
    return Budget.from_document(repository.verification) if repository.verification is not None else None


def with_budget(session: Session) -> Sequence[str]:
    """The ids of the repositories that have one."""
    return session.scalars(select(Repository.id).where(Repository.verification.is_not(None)).order_by(Repository.id)).all()


# --- what was read --------------------------------------------------------------------------------


def last_run(session: Session, repository_id: str) -> VerificationRun | None:
    runs = select(VerificationRun).where(VerificationRun.repository_id == repository_id).order_by(VerificationRun.number.desc())
    return session.scalars(runs.limit(1).execution_options(populate_existing=True)).first()


def runs_since(session: Session, repository_id: str, since: datetime, *, limit: int | None = None) -> Sequence[VerificationRun]:
    """Newest first."""
    runs = select(VerificationRun).where(VerificationRun.repository_id == repository_id, VerificationRun.begun_at >= since)
    return session.scalars(runs.order_by(VerificationRun.number.desc()).limit(limit)).all()


def spent_of(runs: Sequence[VerificationRun]) -> list[Spent]:
    """A read that has not ended counts as what it is expected to read."""
    return [
        Spent(
            run.begun_at,
            run.read_bytes if run.read_bytes is not None else run.cost_bytes,
            run.took_ms / 1000 if run.took_ms is not None and run.outcome == Outcome.good else None,
        )
        for run in runs
    ]


def has_ended(session: Session, run: VerificationRun) -> bool:
    if run.outcome is not None:
        return True
    state = session.scalar(select(Job.state).where(Job.id == run.job_id))
    return state is None or state in FINAL_STATES


def settle(session: Session, run: VerificationRun) -> None:
    """Put on record what came of a read whose job has ended."""
    job = session.get(Job, run.job_id, populate_existing=True) if run.job_id is not None else None
    values: dict[str, Any] = {"outcome": Outcome.failed.value}
    if job is not None:
        verified = (job.result or {}).get("verify") or {}
        outcome = _outcome(verified.get("proofs") or ())
        values = {"outcome": outcome.value, "read_bytes": verified.get("read_bytes") if verified else 0}
        if job.started_at is not None and job.finished_at is not None:
            values["took_ms"] = round((job.finished_at - job.started_at).total_seconds() * 1000)
    is_it = (VerificationRun.repository_id == run.repository_id, VerificationRun.number == run.number, VerificationRun.outcome.is_(None))
    session.execute(update(VerificationRun).where(*is_it).values(values))


def _outcome(proofs: Sequence[Mapping[str, Any]]) -> Outcome:
    judged = [proof for proof in proofs if proof["ok"] is not None and proof["kind"] != ProofKind.filesystem]
    if not judged:
        return Outcome.failed
    if is_known_bad(judged):
        return Outcome.damaged
    return Outcome.good if all(proof["ok"] for proof in judged) else Outcome.healed


def turn_of(session: Session, repository_id: str, last: VerificationRun | None) -> bool:
    """Wait for the turn to begin the next read there. False: another process has begun one after `last`."""
    take_turn(session, f"verification:{repository_id}")
    newest_number = session.scalar(select(func.max(VerificationRun.number)).where(VerificationRun.repository_id == repository_id))
    return newest_number == (last.number if last is not None else None)


def begin(session: Session, repository_id: str, planned: Planned, budget: Budget, last: VerificationRun | None) -> VerificationRun:
    """Make the job of one read. Only for the holder of the turn. Where the point cannot be read any more, the row says `refused`."""
    now = database_now(session)
    asked = VerifyRequest(planned.point_id, checks=_checks(budget), rate_limit_bytes=budget.rate_limit_bytes, by_plan=True, heal=True)
    job_id: str | None = None
    try:
        with session.begin_nested():
            order = order_of(session, asked, {})
            job_id = queue.enqueue(session, order.as_new_job()).job_id
    except NOT_PLACED:
        job_id = None
    values = {
        "repository_id": repository_id,
        "number": last.number + 1 if last is not None else 1,
        "point_id": planned.point_id,
        "domain_id": planned.domain_id,
        "job_id": job_id,
        "why": planned.why.value,
        "begun_at": now,
        "cost_bytes": planned.cost_bytes if job_id is not None else 0,
        "outcome": None if job_id is not None else Outcome.refused.value,
    }
    session.execute(insert(_RUNS).values(values))
    # The budget looks no further back.
    session.execute(delete(_RUNS).where(_RUNS.c.repository_id == repository_id, _RUNS.c.begun_at < now - 2 * LOOK_BACK))
    run = last_run(session, repository_id)
    assert run is not None
    return run


def _checks(budget: Budget) -> tuple[ProofKind, ...]:
    return tuple(kind for kind in VerifyRequest.checks if kind is ProofKind.bytes or kind in budget.checks)


# --- what there is to read ------------------------------------------------------------------------


def stored_points(session: Session, repository_id: str) -> list[StoredPoint]:
    columns = (
        RecoveryPoint.id,
        RecoveryPoint.domain_id,
        RecoveryPoint.created_at,
        RecoveryPoint.parents,
        RecoveryPoint.size_bytes,
        RecoveryPoint.state,
        RecoveryPoint.proofs,
    )
    tried, last = _tried_at(session, repository_id), last_run(session, repository_id)
    being_read = last.point_id if last is not None and not has_ended(session, last) else None
    return [
        StoredPoint(
            id=row.id,
            domain_id=row.domain_id,
            at=row.created_at,
            parents=tuple(row.parents or ()),
            stored_bytes=row.size_bytes or 0,
            state=row.state,
            proven=_proven(row.proofs),
            blamed=tuple((newest(row.proofs, ProofKind.bytes) or {"facts": {}})["facts"].get("damaged_below") or ()),
            healed_at=_healed_at(row.proofs),
            tried_at=tried.get(row.id),
            is_being_read=row.id == being_read,
        )
        for row in session.execute(select(*columns).where(RecoveryPoint.repository_id == repository_id))
    ]


def _proven(proofs: Any) -> dict[str, datetime]:
    if is_known_bad(proofs):
        return {}
    good = {proof["kind"]: datetime.fromisoformat(proof["at"]) for proof in proofs or () if proof["ok"]}
    # A guest's own errors say nothing of the point, and the test itself was made.
    return good | {proof["kind"]: datetime.fromisoformat(proof["at"]) for proof in proofs or () if _is_of_the_guest(proof)}


def _healed_at(proofs: Any) -> datetime | None:
    healed = (datetime.fromisoformat(proof["at"]) for proof in proofs or () if "healed" in proof["facts"])
    return max(healed, default=None)


def _is_of_the_guest(proof: Any) -> bool:
    return proof["kind"] == ProofKind.filesystem and proof["ok"] is not None


def _tried_at(session: Session, repository_id: str) -> dict[str, datetime]:
    last = select(VerificationRun.point_id, func.max(VerificationRun.begun_at))
    return {row[0]: row[1] for row in session.execute(last.where(VerificationRun.repository_id == repository_id).group_by("point_id"))}


def promised_proofs(session: Session) -> dict[str, PromisedProof]:
    """By the id of the domain: what its policy promises of proofs that a verify can make. A paused policy promises nothing."""
    with_promise = _Policies.of(session)
    if not any(policy.promise.proof is not None for policy in with_promise.all):
        return {}
    labels = policies.all_labels(session)
    promised: dict[str, PromisedProof] = {}
    for row in session.execute(select(Domain.id, Domain.name, Domain.host_id)):
        selected = policy_of(SelectedDomain(row.id, row.name, row.host_id, labels.get(row.id, {})), with_promise.all)
        proof = with_promise.promise_of(selected.policy) if isinstance(selected, Selected) else None
        if proof is not None:
            promised[row.id] = proof
    return promised


@dataclass(frozen=True)
class _Policies:
    all: Sequence[BackupPolicy]
    since: dict[str, datetime]

    @classmethod
    def of(cls, session: Session) -> "_Policies":
        read: list[BackupPolicy] = []
        since: dict[str, datetime] = {}
        for row in session.scalars(select(Policy)):
            try:
                read.append(BackupPolicy.from_document(row.document))
            except StillpointError:
                # A newer version wrote it. Its promise is not known here.
                continue
            since[row.name] = row.created_at
        return cls(read, since)

    def promise_of(self, name: str) -> PromisedProof | None:
        policy = next(each for each in self.all if each.name == name)
        proof = policy.promise.proof
        if proof is None or policy.paused or proof.kind not in VerifyRequest.checks:
            return None
        return PromisedProof(proof.kind, timedelta(seconds=proof.max_age_s), self.since[name])
