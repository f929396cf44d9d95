"""A sealed point as a restore reads it: through the hand, which alone touches the repository."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from sqlalchemy.orm import Session

from service import log
from service.db.engine import database_now
from service.db.tables import RecoveryPoint, Repository
from service.errors import ForeignEntry, PointDamaged, PointIncomplete, RecordUnreadable, RestoreRefused, SignatureWrong, StillpointError
from service.jobs.replaced_points import wait_until_in_place
from service.jobs.run import JobRun, MustRecover
from service.model.lifecycle import PhaseName
from service.model.manifest import Manifest
from service.model.proofs import Proof
from service.model.repository import ProofKind
from service.records import damage, merging, points, repositories, stamps
from service.repository import signing
from service.repository.hand import Progress
from service.repository.keys import Key
from service.repository.store import Repository as StoredRepository

T = TypeVar("T")

_logger = log.get(__name__)


@dataclass(frozen=True)
class Source:
    """`chain`: by id, the manifests of the points from which the point inherits, directly or not."""

    manifest: Manifest
    chain: Mapping[str, Manifest]
    definition: str


def rows(run: JobRun, point_id: str) -> tuple[RecoveryPoint, Repository]:
    """Raises RecoveryPointNotFound, RepositoryUnknown, RestoreRefused."""
    point = run.in_transaction(lambda session: points.get(session, point_id))
    if point.repository_id is None or point.folder is None:
        raise RestoreRefused(
            domain=point.domain_name,
            reason="the point is not in a repository; it is the files beside the disks of the domain",
            instead="Use those files with qemu-img, or restore a point of the kind backup.",
        )
    repository_id = point.repository_id
    wait_until_in_place(run, PhaseName.plan, repository_id, point.domain_id, [point.id])
    point = run.in_transaction(lambda session: points.get(session, point_id))
    return point, run.in_transaction(lambda session: repositories.get(session, repository_id))


class Archive:
    """The repository of one restore. Each call is a safe point of the job, in the phase that runs."""

    def __init__(self, run: JobRun, row: Repository, silence_s: float) -> None:
        key = Key(row.key_reference) if row.key_reference is not None else None
        self._run = run
        self.phase = PhaseName.plan
        self.id, self.path = row.id, row.path
        self.stored = StoredRepository(row.path, row.id, key, silence_s=silence_s, safe_point=self._safe_point)

    def __enter__(self) -> "Archive":
        return self

    def __exit__(self, *_: object) -> None:
        self.stored.hand.close()

    def call(self, step: str, *, disk: str | None = None, **arguments: Any) -> dict[str, Any]:
        """Raises what the step raises, JobCancelled, LeaseLost. `disk`: what the progress is about."""
        answer = self.stored.call(step, arguments, on_progress=self.teller(disk))
        if changed := answer.get("changed"):
            # The access list of a file was changed, and nothing else: what was read of the file before still stands.
            self._run.in_transaction(lambda session: stamps.take_over(session, self.id, changed))
        return answer

    def teller(self, disk: str | None) -> Callable[[Progress], None]:
        return lambda progress: self._run.progress(self.phase, progress.done_bytes, progress.total_bytes, progress.rate_bytes_s, disk=disk)

    def _safe_point(self) -> None:
        self._run.safe_point(self.phase)
        refuse_to_stay(self._run)


def refuse_to_stay(run: JobRun) -> None:
    """Raises MustRecover: the service is told to stop, and a restore may take hours. The next worker continues, or begins again."""
    if run.ends_at is not None:
        raise MustRecover(what="The service was told to stop")


def read(run: JobRun, archive: Archive, point: RecoveryPoint) -> Source:
    """Raises PointDamaged, PointIncomplete, SignatureWrong, the errors of a repository."""
    archive.stored.look()
    folder = str(point.folder)
    manifest = archive.stored.point(folder)
    digest = signing.digest(signing.canonical(manifest))
    if not run.in_transaction(lambda session: merging.settled(session, point.id, manifest, digest)):
        raise SignatureWrong(path=folder, reason="its manifest is not the one that was sealed")
    chain: dict[str, Manifest] = {}
    _add_parents(archive, manifest, chain)
    return Source(manifest, chain, archive.stored.definition(folder))


def _add_parents(archive: Archive, manifest: Manifest, chain: dict[str, Manifest]) -> None:
    for disk in manifest.disks:
        if disk.parent is None or disk.parent in chain:
            continue
        if disk.parent_folder is None:
            raise PointIncomplete(point=manifest.point_id, missing=disk.parent, next_good=None)
        chain[disk.parent] = archive.stored.point(disk.parent_folder)
        _add_parents(archive, chain[disk.parent], chain)


DAMAGE = (PointDamaged, PointIncomplete, SignatureWrong, ForeignEntry, RecordUnreadable)


def judged(run: JobRun, point: RecoveryPoint, archive: Archive, work: Callable[[], T], again: Callable[[], T] | None = None) -> T:
    """Do `work`. If it finds the point damaged twice, that is put on record, and the error names the next good point.

    A file may be missing only because its whole repository was away for a moment. So the second time counts: of `again`, which reads
    what `work` read where `work` cannot be repeated. Raises RepositoryGone if the repository was not there all the time.
    """
    try:
        return _in_one_place(archive, work)
    except DAMAGE as error:
        _logger.warning("damage_seen_once", job_id=run.claim.job_id, point=point.id, reason=error.detail)
    try:
        return _in_one_place(archive, again or work)
    except DAMAGE as error:
        raise _on_record(run, point, error) from error


def _in_one_place(archive: Archive, work: Callable[[], T]) -> T:
    before = archive.stored.look()
    try:
        return work()
    except DAMAGE:
        archive.stored.must_have_stayed(before)
        raise


def _on_record(run: JobRun, point: RecoveryPoint, error: StillpointError) -> StillpointError:
    """`error` with the next good point. A point is not good if a point below it is not."""
    proof = Proof(ProofKind.bytes, ok=False, facts={"reason": error.detail}, job_id=run.claim.job_id)

    def note(session: Session) -> str | None:
        now = database_now(session)
        damage.put_on_record(session, point, [damage.place_in(error)], proof, now=now, facts={"job_id": run.claim.job_id})
        return points.next_good(session, point)

    next_good, facts = run.in_transaction(note), error.facts
    if isinstance(error, PointIncomplete):
        return PointIncomplete(point=point.id, missing=facts["missing"], next_good=next_good)
    return PointDamaged(point=point.id, path=facts.get("path", point.folder), reason=facts["reason"], next_good=next_good)
