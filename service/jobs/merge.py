"""The job kind `merge`: moves what points hold into the points that stand on them, so that nothing needs them any more.

Each point that takes over gets new files beside its old ones. They are read back and sealed, and only then take their place, in one
rename. So a worker that dies leaves either the old files or the new ones, and the guest sees the same in both.
"""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import log
from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import Job, RecoveryPoint
from service.errors import (
    ForeignEntry,
    LeaseLost,
    PointDamaged,
    PointIncomplete,
    PointInUse,
    RepositoryNotAnswering,
    RepositoryUnusable,
    SignatureWrong,
    StillpointError,
)
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.merge_chain import ChainMerge
from service.jobs.point_removal import STAYS_BY_RULE, PointRemoval, judged_again, stop_point
from service.jobs.run import JobRun, MustRecover
from service.model import merged_point
from service.model.lifecycle import PhaseName, PointState
from service.model.manifest import Manifest
from service.model.merged_point import JoinedDisk
from service.model.proofs import Proof
from service.model.repository import ProofKind
from service.model.requests import MergeRequest
from service.records import damage, merging, points, queue, repositories
from service.repository import signing
from service.repository.hand import SILENCE_S, Progress
from service.repository.keys import Key
from service.repository.signing import SigningKey
from service.repository.store import Repository

T = TypeVar("T")

PATIENCE_S = 600.0
"""Seconds that a merge waits for jobs that read the point whose files it replaces. After that it fails, and nothing was replaced."""
TICK_S = 0.2
"""Seconds between two looks at them."""

DAMAGE = (PointDamaged, PointIncomplete, ForeignEntry)
MAY_COME_LATE = (RepositoryNotAnswering, RepositoryUnusable)
"""After these nobody knows whether the step still takes effect."""

_logger = log.get(__name__)


@dataclass(frozen=True)
class Merge:
    """The handler of the kind. What was replaced stays so, and a lost job is tried again from what is left to do."""

    state_dir: Path
    silence_s: float = SILENCE_S
    patience_s: float = PATIENCE_S
    open_repository: Callable[..., Repository] = Repository

    def run(self, run: JobRun, host: Host) -> Ending:
        is_chain_merge = not run.request(MergeRequest).repository
        return ChainMerge(run, host).run() if is_chain_merge else _MergeRun(self, run).run()

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        return Resolution(is_tried_again=True, continues_with=lost.intent if lost.intent.own is not None else None)

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error)


@dataclass
class _Heir:
    """A point that takes over. `digest`: of its manifest as it is. `stamp`: of its files as they are."""

    row: RecoveryPoint
    manifest: Manifest
    digest: str
    partial: str = ""
    stamp: str = ""
    joined: dict[str, JoinedDisk] = field(default_factory=dict)
    #: The ids of the points whose clusters it took.
    taken: list[str] = field(default_factory=list)


class _MergeRun:
    """One attempt of one job."""

    def __init__(self, kind: Merge, run: JobRun) -> None:
        self._kind = kind
        self._run = run
        self._request = run.request(MergeRequest)
        self._repository_row = run.in_transaction(lambda session: repositories.get(session, self._request.repository))
        self._phase = PhaseName.plan
        self._pause = threading.Event()
        earlier = run.in_transaction(lambda session: session.scalar(select(Job.result).where(Job.id == run.claim.job_id))) or {}
        self._merged: list[dict[str, Any]] = list((earlier.get("merge") or {}).get("merged", ()))
        self._removal = PointRemoval(run, self._repository_row.id, self._request.retention, also=self._shown)
        #: The points that are still asked for, when the rules were asked again.
        self._wanted: tuple[str, ...] = self._request.recovery_points

    def run(self) -> Ending:
        error: StillpointError | None = None
        with self._opened() as repository:
            if (why_not := repository.look().why_not) is not None:
                raise why_not
            going, heirs = self._run.in_transaction(self._asked)
            for heir in heirs:
                self._merge(repository, heir, going)
            if self._request.remove:
                # A removal that was begun is not cancelled: half of a point is of use to nobody.
                repository.safe_point = lambda: stop_point(self._run, PhaseName.remove)
                error = self._removal.remove(repository, self._wanted)
        if self._request.retention is not None and isinstance(error, STAYS_BY_RULE):
            error = None
        return Ending(error, result=self._removal.result() if self._request.remove else self._shown())

    def _opened(self) -> Repository:
        row, kind = self._repository_row, self._kind
        key = Key(row.key_reference) if row.key_reference is not None else None
        repository = kind.open_repository(row.path, row.id, key, silence_s=kind.silence_s, safe_point=self._safe_point)
        repository.hand.set_pace(self._request.rate_limit_bytes)
        return repository

    def _asked(self, session: Session) -> tuple[dict[str, str], list[RecoveryPoint]]:
        """By folder, the ids of the points whose clusters move, and the points that take them. What an earlier attempt removed is gone."""
        repository_id = self._repository_row.id
        there = [point for point in points.of_repository(session, repository_id) if point.id in self._request.recovery_points]
        if self._request.retention is not None:
            there = self._by_rule(session, there)
        merging.must_be_possible(session, repository_id, there, remove=self._request.remove)
        return {str(point.folder): point.id for point in there}, merging.heirs(session, repository_id, {point.id for point in there})

    def _by_rule(self, session: Session, there: list[RecoveryPoint]) -> list[RecoveryPoint]:
        """The points that the rules still let go. Hours may have passed since retention asked."""
        now, going = database_now(session), []
        for point in there:
            _, kept = (None, None) if point.state == PointState.leaving else judged_again(session, point, now)
            if kept is None:
                going.append(point)
            else:
                self._removal.stayed.append({"id": point.id, "reason": kept.as_document()})
        self._wanted = tuple(point.id for point in going)
        return going

    def _shown(self) -> dict[str, Any]:
        return {"merge": {"merged": self._merged}}

    def _safe_point(self) -> None:
        self._run.safe_point(self._phase)
        stop_point(self._run, self._phase)

    def _in(self, name: PhaseName) -> Any:
        self._phase = name
        return self._run.phase(name)

    # --- one point --------------------------------------------------------------------------------

    def _merge(self, repository: Repository, row: RecoveryPoint, going: Mapping[str, str]) -> None:
        heir = self._judged(repository, row, lambda: self._read(repository, row))
        if heir.digest == row.next_manifest_digest:
            # An earlier attempt died before it could say that the new files are in place.
            self._on_record(heir.manifest, row, None)
            return
        try:
            with self._in(PhaseName.plan):
                files = self._measured(repository, heir, going)
            with self._in(PhaseName.transfer):
                self._written(repository, heir, going, files)
            with self._in(PhaseName.seal):
                new = self._judged(repository, row, lambda: self._sealed(repository, heir, files))
            with self._in(PhaseName.merge):
                self._in_place(repository, heir, new)
        except (MustRecover, LeaseLost):
            raise
        except StillpointError:
            self._dropped(repository, heir)
            raise

    def _read(self, repository: Repository, row: RecoveryPoint) -> _Heir:
        manifest = repository.point(str(row.folder))
        digest = signing.digest(signing.canonical(manifest))
        if row.manifest_digest is not None and digest not in (row.manifest_digest, row.next_manifest_digest):
            raise SignatureWrong(path=str(row.folder), reason="its manifest is not the one that was sealed")
        return _Heir(row, manifest, digest)

    def _measured(self, repository: Repository, heir: _Heir, going: Mapping[str, str]) -> list[str]:
        """The files of the disks that stand on what goes. Raises RepositoryFull before anything is written."""
        disks = [self._disk(heir, disk.file) for disk in heir.manifest.disks]
        arguments = {"folder": heir.manifest.folder, "going": sorted(going), "disks": disks}
        answer = self._judged(repository, heir.row, lambda: repository.call("measure_merge", arguments))
        needed = answer["needed_bytes"] + self._repository_row.reserve_bytes
        repository.look().require_space(repository.path, needed)
        return [file for file, is_joined in answer["joins"].items() if is_joined]

    def _written(self, repository: Repository, heir: _Heir, going: Mapping[str, str], files: list[str]) -> None:
        folder = heir.manifest.folder
        plan = {"going": sorted(going), "replaces": heir.digest}
        owner = SigningKey.of_service(self._kind.state_dir).id
        begun = repository.call("begin_merge", {"id": repository.id, "folder": folder, "plan": plan, "owner": owner})
        heir.partial, heir.stamp = begun["partial"], begun["stamp"]
        for disk in (disk for disk in heir.manifest.disks if disk.file in files):
            arguments = {**self._disk(heir, disk.file), "folder": folder, "partial": heir.partial, "going": sorted(going)}
            tell = self._teller(disk.target)
            answer = self._judged(repository, heir.row, lambda: repository.call("merge_disk", arguments, on_progress=tell))  # noqa: B023
            base = repository.point(answer["base_folder"]).point_id if answer["base_folder"] is not None else None
            heir.joined[disk.target] = JoinedDisk(disk.target, answer["copied_bytes"], base, answer["base_folder"])
            heir.taken += [going[each] for each in answer["joined"] if going[each] not in heir.taken]
        made = _made_of(heir, files)
        others = [file.name for file in heir.manifest.files if file.name not in made]
        repository.call("take_over", {"folder": folder, "partial": heir.partial, "names": others})

    def _sealed(self, repository: Repository, heir: _Heir, files: list[str]) -> Manifest:
        """Every stored byte is read back. What was only taken over must still be what was sealed."""
        names = [file.name for file in heir.manifest.files]
        sealed = repository.seal(heir.partial, names, on_progress=self._teller(None))
        if wrong := merged_point.changed_by_others(heir.manifest, sealed, _made_of(heir, files)):
            path = f"{heir.manifest.folder}/{wrong[0]}"
            raise PointDamaged(point=heir.row.id, path=path, reason="its bytes are not those that were sealed", next_good=None)
        merge = merged_point.Merge(rfc3339(datetime.now(UTC)), self._run.claim.job_id, heir.taken, heir.digest)
        return merged_point.merged(heir.manifest, heir.joined, sealed, merge, key_id=SigningKey.of_service(self._kind.state_dir).id)

    @staticmethod
    def _disk(heir: _Heir, file: str) -> dict[str, Any]:
        disk = next(disk for disk in heir.manifest.disks if disk.file == file)
        plain = {name: getattr(disk, name) for name in ("file", "blocks_file", "content", "virtual_size")}
        return {**plain, "encrypted": disk.is_encrypted, "compress": disk.is_compressed}

    def _teller(self, disk: str | None) -> Callable[[Progress], None]:
        return lambda progress: self._run.progress(self._phase, progress.done_bytes, progress.total_bytes, progress.rate_bytes_s, disk=disk)

    def _dropped(self, repository: Repository, heir: _Heir) -> None:
        """What was written is of no use. Where the repository is away, a later sweep removes it."""
        if not heir.partial:
            return
        repository.safe_point = None
        try:
            repository.drop_partial(heir.partial)
        except StillpointError as error:
            _logger.warning("merge_not_dropped", partial=heir.partial, code=error.code, detail=error.detail)

    # --- the moment -------------------------------------------------------------------------------

    def _in_place(self, repository: Repository, heir: _Heir, new: Manifest) -> None:
        """From the mark on record until the record of the new files, no error may end the job as if nothing had happened."""
        digest = signing.digest(signing.canonical(new))
        self._wait_for_turn(heir.row.id, digest)
        repository.safe_point = None
        try:
            stamp = repository.put_in_place(heir.partial, new, SigningKey.of_service(self._kind.state_dir), replaces=heir.digest)
        except MAY_COME_LATE as error:
            raise MustRecover(what=error.detail) from error
        except StillpointError as error:
            self._stays_or_must_recover(repository, heir, error)
            raise
        self._on_record(new, heir.row, {new.folder: (heir.stamp, stamp)})
        repository.safe_point = self._safe_point

    def _wait_for_turn(self, point_id: str, digest: str) -> None:
        """Until nobody who has begun reads the point. Raises PointInUse after PATIENCE_S, JobCancelled and others."""
        since, until = datetime.now(UTC), time.monotonic() + self._kind.patience_s
        while True:
            try:
                self._run.in_transaction(lambda session: merging.begin_to_replace(session, point_id, digest))
                return
            except PointInUse as error:
                if time.monotonic() > until:
                    raise
                self._run.waits(self._phase, error, since, since + timedelta(seconds=self._kind.patience_s))
            self._safe_point()
            self._pause.wait(TICK_S)

    def _stays_or_must_recover(self, repository: Repository, heir: _Heir, error: StillpointError) -> None:
        """The step was refused. Only the repository says what that means. Returns if the old files are in place."""
        try:
            there = signing.digest(signing.canonical(repository.point(heir.manifest.folder)))
        except StillpointError as unreadable:
            raise MustRecover(what=unreadable.detail) from error
        if there != heir.digest:
            raise MustRecover(what=error.detail) from error
        self._run.in_transaction(lambda session: points.change(session, heir.row.id, next_manifest_digest=None))

    def _on_record(self, new: Manifest, row: RecoveryPoint, changed: Mapping[str, tuple[str, str]] | None) -> None:
        digest = signing.digest(signing.canonical(new))
        sizes = {"bytes_before": row.size_bytes, "bytes": sum(file.bytes for file in new.files)}
        self._merged.append({**merging.facts_of(new), **sizes})

        def note(session: Session) -> None:
            merging.replaced(session, new, digest, changed)
            queue.write(session, self._run.claim.job_id, self._run.claim.lease_token, {"result": self._shown()})

        self._run.in_transaction(note)

    # --- damage -----------------------------------------------------------------------------------

    def _judged(self, repository: Repository, row: RecoveryPoint, work: Callable[[], T]) -> T:
        """What looks like damage is looked at twice, in one repository that stays. Then it is on record, and nothing is replaced."""
        try:
            return self._in_one_place(repository, work)
        except DAMAGE as error:
            _logger.warning("damage_seen_once", job_id=self._run.claim.job_id, point=row.id, reason=error.detail)
        try:
            return self._in_one_place(repository, work)
        except DAMAGE as error:
            raise self._noted(row, error) from error

    @staticmethod
    def _in_one_place(repository: Repository, work: Callable[[], T]) -> T:
        before = repository.look()
        try:
            return work()
        except DAMAGE:
            repository.must_have_stayed(before)
            raise

    def _noted(self, row: RecoveryPoint, error: StillpointError) -> StillpointError:
        proof = Proof(ProofKind.bytes, ok=False, facts={"reason": error.detail}, job_id=self._run.claim.job_id)

        def note(session: Session) -> str | None:
            now, facts = database_now(session), {"job_id": self._run.claim.job_id}
            damage.put_on_record(session, row, [damage.place_in(error)], proof, now=now, facts=facts)
            return points.next_good(session, row)

        next_good, facts = self._run.in_transaction(note), error.facts
        if isinstance(error, PointIncomplete):
            return PointIncomplete(point=row.id, missing=facts["missing"], next_good=next_good)
        return PointDamaged(point=row.id, path=facts.get("path", row.folder), reason=facts["reason"], next_good=next_good)


def _made_of(heir: _Heir, files: list[str]) -> set[str]:
    """The names of the files that the merge writes: images, and their digests."""
    return {name for disk in heir.manifest.disks if disk.file in files for name in (disk.file, disk.blocks_file)}
