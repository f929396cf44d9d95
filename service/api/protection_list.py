"""The list of protection as the API answers it: the most urgent domains first."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from service.api.paging import decode_cursor, encode_cursor
from service.api.schemas.protection import ProtectionFilter
from service.clock import rfc3339
from service.errors import CursorInvalid
from service.model.copy_standing import CopyStanding
from service.model.protection import URGENCY, Protection, ProtectionState
from service.model.protection_facts import JobFacts, Known, PolicyFacts, RepositoryFacts
from service.model.repository import RepositoryState
from service.records import copy_standings, policies, protected_domain, protection, repositories
from service.records.protection import Landscape

_RANK = {state: rank for rank, state in enumerate(URGENCY)}
_WELL = (RepositoryState.ready, RepositoryState.unknown)
Judged = tuple[Known, Protection]
Key = tuple[int, str, str]


def page_of_protection(session: Session, wanted: ProtectionFilter) -> dict[str, Any]:
    """Raises PolicyUnknown, RepositoryUnknown, CursorInvalid."""
    policy = policies.get(session, wanted.policy).name if wanted.policy is not None else None
    repository_id = repositories.get(session, wanted.repository).id if wanted.repository is not None else None
    begin = _key_in(wanted.cursor) if wanted.cursor is not None else None
    landscape = protection.read(session)
    judged = [
        (known, answer)
        for known, answer in zip(landscape.known, landscape.protections, strict=True)
        if (wanted.host is None or known.domain.host.id == wanted.host)
        and (policy is None or answer.policy == policy)
        and (repository_id is None or repository_id in _repositories_of(known))
    ]
    asked = sorted((one for one in judged if wanted.has(one[1].state, _is_proof_too_old(one[1], landscape.now))), key=_key)
    rest = [one for one in asked if begin is None or _key(one) > begin]
    shown = rest[: wanted.limit]
    return {
        "as_of": rfc3339(landscape.now),
        "summary": _summary(judged, landscape),
        "repositories": [_repository(one) for one in landscape.repositories if one.full_at is not None or one.state not in _WELL],
        "copies": [_copy(one, landscape.now) for one in copy_standings.read(session) if one.faults(landscape.now)],
        "items": [_item(known, answer) for known, answer in shown],
        "next_cursor": _cursor(shown[-1]) if len(rest) > len(shown) else None,
    }


def protection_of(session: Session, named: str, host: str | None) -> dict[str, Any]:
    """Raises DomainUnknown, DomainAmbiguous."""
    landscape = protection.read(session, protected_domain.find(session, named, host))
    ((known, answer),) = zip(landscape.known, landscape.protections, strict=True)
    policy = known.policy if isinstance(known.policy, PolicyFacts) else None
    return {
        "as_of": rfc3339(landscape.now),
        **_item(known, answer),
        "promise": policy.promise.as_document() if policy is not None else None,
        "covered_since": rfc3339(known.covered_since) if policy is not None else None,
        "usually_takes_s": known.takes_s or None,
        "last_jobs": [_job(job) for job in known.jobs],
        "repositories": [_repository(one) for one in landscape.repositories if one.id in _repositories_of(known)],
    }


def _repositories_of(known: Known) -> tuple[str, ...]:
    return known.policy.repositories if isinstance(known.policy, PolicyFacts) else ()


def _is_proof_too_old(answer: Protection, now: datetime) -> bool:
    return answer.proof is not None and answer.proof.too_old_at <= now


# --- pages ----------------------------------------------------------------------------------------


def _key(one: Judged) -> Key:
    known, answer = one
    return _RANK[answer.state], known.domain.name, known.domain.id


def _cursor(one: Judged) -> str:
    rank, name, domain_id = _key(one)
    return encode_cursor(str(rank), name, domain_id)


def _key_in(cursor: str) -> Key:
    """Raises CursorInvalid."""
    try:
        rank, name, domain_id = decode_cursor(cursor)
        return int(rank), name, domain_id
    except ValueError as error:
        raise CursorInvalid(cursor=cursor) from error


# --- documents ------------------------------------------------------------------------------------


def _summary(judged: Sequence[Judged], landscape: Landscape) -> dict[str, Any]:
    counts = Counter(answer.state for _, answer in judged)
    return {
        "domains": len(judged),
        **{state.value: counts[state] for state in ProtectionState},
        "proofs_too_old": sum(_is_proof_too_old(answer, landscape.now) for _, answer in judged),
        "repositories_that_fill_up": sum(one.full_at is not None for one in landscape.repositories),
    }


def _item(known: Known, answer: Protection) -> dict[str, Any]:
    domain_id = known.domain.id
    links = {"domain": f"/api/v1/domains/{domain_id}", "recovery_points": f"/api/v1/recovery-points?domain={domain_id}"}
    return {**answer.as_document(), "links": {"self": f"/api/v1/protection/{domain_id}", **links}}


def _repository(repository: RepositoryFacts) -> dict[str, Any]:
    return {
        "id": repository.id,
        "name": repository.name,
        "state": repository.state,
        "free_bytes": repository.free_bytes,
        "full_at": _time(repository.full_at),
    }


def _copy(copy: CopyStanding, now: datetime) -> dict[str, Any]:
    return {
        "id": copy.id,
        "name": copy.name,
        "repository": {"id": copy.repository_id, "name": copy.repository},
        "faults": [fault.value for fault in copy.faults(now)],
        "newest_point_at": _time(copy.newest_at),
        "waiting": copy.waiting,
        "waiting_since": _time(copy.waiting_since),
        "damaged": copy.damaged,
        "immutability": copy.immutability.value,
        "proven_at": _time(copy.proven_at),
        "locked_until": _time(copy.locked_until),
    }


def _job(job: JobFacts) -> dict[str, Any]:
    return {
        "job_id": job.id,
        "kind": job.kind,
        "state": job.state,
        "at": rfc3339(job.at),
        "error_code": (job.error or {}).get("code"),
        "in_a_row": job.in_a_row,
        "since": _time(job.since),
    }


def _time(instant: datetime | None) -> str | None:
    return rfc3339(instant) if instant is not None else None
