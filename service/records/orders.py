"""What becomes of a request: where its job runs, and what it locks. Everything is found in rows, as the API reaches no host."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from uuid import uuid4

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.db.tables import Host, Job, RecoveryPoint, Repository
from service.errors import (
    CopyIncomplete,
    CopyLocked,
    CopyPointNeeded,
    CopyUnknown,
    DiskUnknown,
    DomainAmbiguous,
    DomainUnknown,
    HostUnknown,
    PointBelowOverlay,
    PointDamaged,
    PointIncomplete,
    PointInUse,
    PointLeaving,
    PointNeeded,
    PointNotSealed,
    PointPinned,
    PointsApart,
    PointUnsigned,
    RecoveryPointNotFound,
    RepositoryUnknown,
    RestoreRefused,
    StillpointError,
)
from service.model import restore_plan
from service.model.copied import CopyAction
from service.model.lifecycle import PointState
from service.model.proofs import what_is_bad
from service.model.repository import IdentityChoice, ProofKind, RestoreMode
from service.model.requests import BackupRequest, CopyRequest, JobRequest, MergeRequest, PruneRequest, RestoreRequest, VerifyRequest
from service.model.restore_facts import PointFacts
from service.records import chain_points, copied_points, copies, copy_removal, known_domains, merging, points, removal, repositories
from service.records.locks import point_in
from service.records.new_job import NewJob
from service.records.placement import DomainLocation, HostLocation, JobLocation, place_of

NOT_PLACED: tuple[type[StillpointError], ...] = (
    DomainUnknown,
    DomainAmbiguous,
    RepositoryUnknown,
    RecoveryPointNotFound,
    PointNotSealed,
    PointDamaged,
    PointIncomplete,
    PointUnsigned,
    PointNeeded,
    PointPinned,
    PointInUse,
    PointLeaving,
    PointsApart,
    PointBelowOverlay,
    HostUnknown,
    RestoreRefused,
    DiskUnknown,
    CopyUnknown,
    CopyIncomplete,
    CopyLocked,
    CopyPointNeeded,
)
"""The errors of a request whose job has no place, or nothing to work on."""


@dataclass(frozen=True)
class JobOrder:
    """A job to create, and where the job runs. `point_id`, `repository_id`: what its kind locks, or where the job works."""

    request: JobRequest
    place: JobLocation
    labels: dict[str, str] = field(default_factory=dict)
    retry_of: str | None = None
    point_id: str | None = None
    repository_id: str | None = None
    copy_id: str | None = None
    #: Called with the id of the new job, to insert further rows in the same transaction.
    also_insert: Callable[[Session, str], None] | None = None

    def as_new_job(self) -> NewJob:
        """Without the key of a caller."""
        return NewJob(
            kind=self.request.kind.value,
            domain_id=self.place.domain_id,
            domain_name=self.place.domain_name,
            host_id=self.place.host_id,
            request=self.request.as_document(),
            labels=self.labels,
            retry_of=self.retry_of,
            point_id=self.point_id,
            repository_id=self.repository_id,
            copy_id=self.copy_id,
        )


def order_of(session: Session, request: JobRequest, labels: dict[str, str], *, retry_of: str | None = None) -> JobOrder:
    """Raises what is in NOT_PLACED."""
    match request:
        case BackupRequest():
            repository = repositories.get(session, request.repository)
            named = replace(request, repository=repository.id)
            place = place_of(session, request.domain, request.host)
            return JobOrder(named, place, labels, retry_of=retry_of, repository_id=repository.id)
        case RestoreRequest():
            return _restore(session, request, labels, retry_of)
        case VerifyRequest():
            return _verify(session, request, labels, retry_of)
        case PruneRequest():
            return _prune(session, request, labels, retry_of)
        case CopyRequest():
            return _copy(session, request, labels, retry_of)
        case MergeRequest():
            return _merge(session, request, labels, retry_of)
        case _:
            return JobOrder(request, place_of(session, request.domain, request.host), labels, retry_of=retry_of)


def order_again(session: Session, job: Job, request: JobRequest) -> JobOrder:
    """The same once more. A domain is found by its id, as it may have another name meanwhile. Raises what is in NOT_PLACED."""
    labels = dict(job.labels)
    if isinstance(request, PruneRequest | MergeRequest):
        # What the job has removed is not asked for again.
        left = tuple(each for each in request.recovery_points if session.get(RecoveryPoint, each) is not None)
        return order_of(session, replace(request, recovery_points=left or request.recovery_points), labels, retry_of=job.id)
    if isinstance(request, VerifyRequest):
        # A caller asks for it now.
        return order_of(session, replace(request, by_plan=False), labels, retry_of=job.id)
    if isinstance(request, RestoreRequest):
        return order_of(session, request, labels, retry_of=job.id)
    repository_id = repositories.get(session, request.repository).id if isinstance(request, BackupRequest) else job.repository_id
    place: JobLocation = HostLocation(job.host_id)
    if job.domain_id is not None:
        place = place_of(session, job.domain_id, request.host)
    return JobOrder(request, place, labels, retry_of=job.id, point_id=point_in(job.lock_key), repository_id=repository_id)


def sealed_point(session: Session, point_id: str) -> tuple[RecoveryPoint, Repository]:
    """A point in a repository, in whatever state. Raises RecoveryPointNotFound, PointNotSealed."""
    point = points.get(session, point_id)
    if point.repository_id is None:
        raise PointNotSealed(point=point.id)
    return point, repositories.get(session, point.repository_id)


def usable_point(session: Session, point_id: str) -> tuple[RecoveryPoint, Repository]:
    """A point that a job of this transaction may read: nothing gives it up before the job is on record.

    Raises RecoveryPointNotFound, PointNotSealed, PointLeaving.
    """
    point, repository = sealed_point(session, point_id)
    removal.turn_of(session, repository.id)
    point = points.get(session, point_id)
    if point.state == PointState.leaving:
        raise PointLeaving(point=point.id)
    return point, repository


def restorable_point(session: Session, asked: RestoreRequest) -> tuple[RecoveryPoint, Repository]:
    """Raises RecoveryPointNotFound, PointNotSealed, PointDamaged, PointIncomplete, PointUnsigned."""
    point, repository = usable_point(session, asked.recovery_point)
    is_only_unsigned = what_is_bad(point.proofs) == {ProofKind.signature}
    if is_only_unsigned and not asked.accept_unsigned:
        raise PointUnsigned(point=point.id, folder=point.folder, next_good=points.next_good(session, point))
    if point.state == PointState.damaged and not is_only_unsigned:
        reason = "its bytes are not what was sealed, as they were read last"
        raise PointDamaged(point=point.id, path=point.folder, reason=reason, next_good=points.next_good(session, point))
    if point.state == PointState.missing:
        raise PointIncomplete(point=point.id, missing=point.id, next_good=points.next_good(session, point))
    return point, repository


def host_of_restore(session: Session, request: RestoreRequest, point: RecoveryPoint, repository: Repository) -> str:
    """The host that the request names, or else the host of the point, or of its repository. Raises HostUnknown."""
    return _known_host(session, [request.host] if request.host is not None else [point.host_id, repository.host_id])


def with_identity(session: Session, request: RestoreRequest, point: RecoveryPoint) -> RestoreRequest:
    """The request with the UUID that the restored domain gets where it does not keep that of the point: it is what the job locks."""
    makes_domain = request.mode in (RestoreMode.new, RestoreMode.instant)
    is_taken = known_domains.is_anywhere(session, point.domain_id)
    is_new = request.identity is IdentityChoice.new or (request.identity is IdentityChoice.auto and is_taken)
    return replace(request, domain=point.domain_name, new_uuid=str(uuid4()) if makes_domain and is_new else None)


def _restore(session: Session, asked: RestoreRequest, labels: dict[str, str], retry_of: str | None) -> JobOrder:
    point, repository = restorable_point(session, asked)
    restore_plan.possible(PointFacts.of_row(point, None), asked)
    host_id = host_of_restore(session, asked, point, repository)
    request = with_identity(session, asked, point)
    name = request.name if request.new_uuid is not None and request.name is not None else point.domain_name
    place = DomainLocation(request.new_uuid or point.domain_id, name, host_id)
    return JobOrder(request, place, labels, retry_of=retry_of, point_id=point.id, repository_id=repository.id)


def _verify(session: Session, asked: VerifyRequest, labels: dict[str, str], retry_of: str | None) -> JobOrder:
    point, repository = usable_point(session, asked.recovery_point)
    place = HostLocation(_known_host(session, [asked.host or repository.host_id]))
    request = replace(asked, domain=point.domain_name, domain_id=point.domain_id)
    return JobOrder(request, place, labels, retry_of=retry_of, point_id=point.id, repository_id=repository.id)


def _prune(session: Session, asked: PruneRequest, labels: dict[str, str], retry_of: str | None) -> JobOrder:
    """Whether each of them may go is told at once, and looked at again when the job runs."""
    asked_for, repository = _in_one_repository(session, asked)
    removal.must_go(session, repository.id, asked_for, with_needing=asked.with_needing)
    return _of_points(session, asked, asked_for, repository, labels, retry_of)


def _merge(session: Session, asked: MergeRequest, labels: dict[str, str], retry_of: str | None) -> JobOrder:
    """As for a prune. Who reads the points now may have ended when their files are replaced."""
    there = [points.get(session, each) for each in asked.recovery_points]
    if any(point.repository_id is None for point in there):
        return _merge_chain(session, asked, there, labels, retry_of)
    asked_for, repository = _in_one_repository(session, asked)
    merging.must_be_possible(session, repository.id, asked_for, remove=asked.remove)
    return _of_points(session, asked, asked_for, repository, labels, retry_of)


def _merge_chain(
    session: Session, asked: MergeRequest, there: list[RecoveryPoint], labels: dict[str, str], retry_of: str | None
) -> JobOrder:
    """On the host that has the domain, as its libvirt or its qemu-img merges. Whether the disks stand on the points is seen there."""
    domain_id = chain_points.must_be_one_domain(there, remove=asked.remove)
    place = place_of(session, domain_id, asked.host)
    return JobOrder(replace(asked, repository="", domain=place.domain_name), place, labels, retry_of=retry_of)


def _in_one_repository(session: Session, asked: PruneRequest | MergeRequest) -> tuple[list[RecoveryPoint], Repository]:
    for each in asked.recovery_points:
        if points.get(session, each).repository_id is None:
            raise PointBelowOverlay(point=each)
    rows = [sealed_point(session, each) for each in asked.recovery_points]
    if len({repository.id for _, repository in rows}) > 1:
        raise PointsApart(points=sorted(point.id for point, _ in rows))
    return [point for point, _ in rows], rows[0][1] if rows else repositories.get(session, asked.repository)


def _of_points(  # noqa: PLR0917 - what both have found
    session: Session,
    asked: PruneRequest | MergeRequest,
    asked_for: list[RecoveryPoint],
    repository: Repository,
    labels: dict[str, str],
    retry_of: str | None,
) -> JobOrder:
    names = {point.domain_name for point in asked_for}
    place = HostLocation(_known_host(session, [asked.host or repository.host_id]))
    request = replace(asked, repository=repository.id, domain=names.pop() if len(names) == 1 else "")
    return JobOrder(request, place, labels, retry_of=retry_of, repository_id=repository.id)


def _copy(session: Session, asked: CopyRequest, labels: dict[str, str], retry_of: str | None) -> JobOrder:
    """On the host of the repository, where its folder is."""
    repository = repositories.get(session, asked.repository)
    copy = copies.get(session, repository.id, asked.copy)
    if asked.action is CopyAction.fetch:
        _, missing = copied_points.whole_with_all_below(session, copy.id, asked.recovery_points or ())
        if missing:
            raise CopyIncomplete(copy=copy.name, point=missing[0])
    if asked.action is CopyAction.remove and asked.recovery_points is not None:
        copy_removal.asked_for(session, copy, asked.recovery_points, database_now(session))
    place = HostLocation(_known_host(session, [asked.host or repository.host_id]))
    request = replace(asked, repository=repository.id, copy=copy.id)
    return JobOrder(request, place, labels, retry_of=retry_of, repository_id=repository.id, copy_id=copy.id)


def _known_host(session: Session, wanted: list[str]) -> str:
    known = set(session.scalars(select(Host.id).where(Host.id.in_(wanted))))
    host_id = next((each for each in wanted if each in known), None)
    if host_id is None:
        raise HostUnknown(host=wanted[0])
    return host_id
