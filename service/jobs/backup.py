"""The job kind `backup`: copies a point in time of a domain's disks into a repository.

The point is taken as a snapshot's is. Then the guest writes to overlays, the files below are still, and a process of its own copies them.
At the end the overlays are merged back. Neither QEMU nor this process ever opens a file of the repository.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service import log
from service.clock import rfc3339
from service.db.engine import database_now
from service.db.tables import RecoveryPoint
from service.disks.merging import Merge
from service.errors import (
    BackupNotUndone,
    LeaseLost,
    MergeUnfinished,
    PointMayBeSealed,
    StillpointError,
    VerdictBelowRequired,
)
from service.errors.jobs import PointFate
from service.freeze.documents import count
from service.freeze.frozen_pass import PassSettings
from service.freeze.passed import Passed
from service.jobs import backup_end, backup_recovery, backup_result
from service.jobs.backup_copy import CopySettings, Fate, PointCopy
from service.jobs.backup_folder import BackupFolder
from service.jobs.backup_manifest import manifest_of
from service.jobs.backup_plan import BackupPlan, Registered
from service.jobs.backup_recovery import NOT_COPIED
from service.jobs.backup_watching import GUEST_IN_NEED, Watching, after_the_pause
from service.jobs.ending import Ending, point_document
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.merge_progress import MergeProgress
from service.jobs.point_outcome import Outcome, Taken, judge_point
from service.jobs.point_taking import PointSettings, PointTaking
from service.jobs.run import JobRun, MustRecover, nothing
from service.jobs.shortfall import Shortfall
from service.jobs.still_disks import StillDisks
from service.model.backup_intent import BackupIntent, Stage
from service.model.impact import ImpactStage
from service.model.intent import Intent, Overlay
from service.model.lifecycle import PhaseName
from service.model.manifest import Manifest
from service.model.proofs import Proof
from service.model.repository import Compare, ProofKind
from service.model.requests import BackupRequest
from service.model.verdict import no_point
from service.records import points, queue, sealed_points
from service.repository.hand import SILENCE_S
from service.repository.keys import Key
from service.repository.signing import SigningKey
from service.repository.store import Repository

_logger = log.get(__name__)


@dataclass(frozen=True)
class Backup:
    """The handler of the kind. `state_dir`: where the key is that signs the manifests."""

    state_dir: Path
    passes: PassSettings = field(default_factory=PassSettings)
    overlay_dir: Path | None = None
    overlay_reserve_bytes: int = 0
    silence_s: float = SILENCE_S
    copying: CopySettings = field(default_factory=CopySettings)

    def run(self, run: JobRun, host: Host) -> Ending:
        own = BackupIntent.of(Intent.from_document(run.claim.intent))
        if own is not None:
            # There is a point already, so only recovery may end the job after an error.
            run.point_is_pending()
        return _BackupRun(self, run, host).run(own)

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        return backup_recovery.settle(lost, BackupFolder(self.state_dir, lost.job.id))

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error, no_point())


class _BackupRun:
    """One attempt of one job."""

    def __init__(self, kind: Backup, run: JobRun, host: Host) -> None:
        self._kind = kind
        self._run = run
        self._host = host
        self._request = run.request(BackupRequest)
        self._guest = host.guest(run.claim.guest_id)
        self._registered = run.in_transaction(lambda session: Registered.of(session, self._request.repository))
        key = Key(self._registered.key_reference) if self._registered.key_reference is not None else None
        self._repository = Repository(self._registered.path, self._registered.id, key, silence_s=kind.silence_s)
        self._key = SigningKey.of_service(kind.state_dir)
        self._folder = BackupFolder(kind.state_dir, run.claim.job_id)
        self._watching = Watching(kind.overlay_dir, kind.overlay_reserve_bytes)
        self._overlays: tuple[Overlay, ...] = tuple(Intent.from_document(run.claim.intent).overlays)

    def run(self, own: BackupIntent | None) -> Ending:
        with self._repository, self._watching, self._guest_before_database():
            # Ready when the preflight needs it, after the guest was asked.
            self._repository.hand.begin()
            ending = self._from_the_beginning() if own is None else self._continued(own)
        self._folder.remove()
        return ending

    @contextmanager
    def _guest_before_database(self) -> Iterator[None]:
        """A write that waits for the database ends when the guest needs its overlays merged."""
        self._run.while_waiting = self._watching.check
        try:
            yield
        finally:
            self._run.while_waiting = nothing

    def _continued(self, own: BackupIntent) -> Ending:
        if own.stage is Stage.transfer and own.was_running:
            self._watching.continue_with(self._guest, self._overlays, self._request.impact_limit_ms, own.impact)
        return self._onwards(own, None)

    # --- the point --------------------------------------------------------------------------------

    def _from_the_beginning(self) -> Ending:
        run, guest = self._run, self._guest
        backup_end.merge_what_was_left(run, guest)
        plan = BackupPlan(run, guest, self._repository, self._registered, self._watching, folder=self._folder, owner=self._key.id)
        try:
            return self._taken(plan)
        except GUEST_IN_NEED as error:
            # The database is away, and the guest cannot wait until the point is judged.
            self._overlays = plan.overlays
            return self._give_up(plan.own, error, None)

    def _taken(self, plan: BackupPlan) -> Ending:
        run, guest, kind = self._run, self._guest, self._kind
        settings = PointSettings(kind.passes, kind.overlay_dir, kind.overlay_reserve_bytes)
        passed, taken = PointTaking(settings, run, self._host, guest, plan).take()
        self._overlays = tuple(taken.overlays)
        with run.phase_that_cannot_be_cancelled(PhaseName.evaluate) as phase:
            outcome = judge_point(run, guest, passed, taken, rules=kind.passes.writer_rules, phase=phase)
        count(passed)
        return self._judged(plan, passed, taken, outcome)

    def _judged(self, plan: BackupPlan, passed: Passed, taken: Taken, outcome: Outcome) -> Ending:
        shortfall = Shortfall(self._run, taken.overlays if outcome.is_point else (), outcome.error)
        ending = backup_result.ending_of(passed, taken, outcome, next_try=shortfall.next_try)
        fell_short = outcome.error if isinstance(outcome.error, VerdictBelowRequired) else None
        if not outcome.is_point or (outcome.error is not None and (fell_short is None or shortfall.is_discarded)):
            return self._without_point(plan.own, ending, taken, outcome)
        instant = passed.window.instants.point_done
        own = replace(
            plan.own,
            stage=Stage.transfer,
            point_in_time_at=rfc3339(passed.wall.at(instant)) if instant else None,
            impact=self._watching.as_document(),
            fell_short={name: str(fell_short.facts[name]) for name in ("verdict", "required")} if fell_short else None,
        )
        self._write(own, {"phase": PhaseName.transfer.value, **ending.judged()}, ending.texts)
        return self._onwards(own, ending, plan)

    def _without_point(self, own: BackupIntent, ending: Ending, taken: Taken, outcome: Outcome) -> Ending:
        """The point is not kept. `taken.is_point`: the disks are on their overlays anyway."""
        if taken.is_point and not taken.behind:
            self._note_undo(own, ending.judged(), ending.texts)
            error = outcome.error
            assert error is not None
            if isinstance(error, VerdictBelowRequired):
                error = VerdictBelowRequired(verdict=error.facts["verdict"], required=error.facts["required"], point=PointFate.removed)
            return self._undone(own, error, ending)
        if not taken.is_in_doubt:
            backup_end.delete_checkpoint(self._guest, own.checkpoint)
        return ending

    # --- the copy ---------------------------------------------------------------------------------

    def _onwards(self, own: BackupIntent, ending: Ending | None, plan: BackupPlan | None = None) -> Ending:
        """From the point that is judged to the end, or from where an earlier attempt was lost."""
        if own.stage is Stage.merge:
            return self._merge(own, ending)
        copy: PointCopy | None = None
        try:
            copy = PointCopy(
                self._run,
                self._repository,
                own,
                self._overlays,
                watch=self._watching,
                disks=StillDisks(self._guest, self._overlays),
                folder=self._folder,
                settings=self._kind.copying,
                owner=self._key.id,
            )
            if plan is not None:
                copy.decide(lambda: plan.decide_again(self._overlays))
            manifest, digest = self._copied(copy)
        except (LeaseLost, MustRecover):
            raise
        except StillpointError as error:
            if copy is None:
                return self._give_up(own, error, ending)
            self._put_back_before_asking(copy)
            if (fate := copy.fate()) is not Fate.sealed:
                return self._give_up(*self._in_doubt(copy.own, error, fate), ending)
            assert copy.published is not None
            manifest, digest = copy.published
        return self._merge(self._record(copy.own, manifest, digest), ending)

    def _put_back_before_asking(self, copy: PointCopy) -> None:
        """The repository may be silent for long. The guest does not wait for what it says of the point."""
        if copy.published is not None:
            self._note_undo(copy.own, {})
            self._watching.mark(ImpactStage.after)
            self._put_back(self._overlays, PhaseName.merge)

    def _in_doubt(self, own: BackupIntent, error: StillpointError, fate: Fate) -> tuple[BackupIntent, StillpointError]:
        """The repository went away while the point was published: the worker's watch over it looks again when it is back."""
        if fate is not Fate.unknown:
            return own, error
        facts = {"point": own.point_id, "path": self._repository.path, "folder": own.folder}
        return replace(own, may_be_sealed=True), PointMayBeSealed(**facts, after=error.detail)

    def _copied(self, copy: PointCopy) -> tuple[Manifest, str]:
        published = copy.transfer(is_encrypted=self._registered.is_encrypted)
        if published is not None:
            return published, copy.digest_of(published)
        copy.compare(is_encrypted=self._registered.is_encrypted)
        key = self._key

        def make(own: BackupIntent, files: Sequence[Any]) -> Manifest:
            return manifest_of(self._run, own, files, key_id=key.id, is_encrypted=self._registered.is_encrypted)

        return copy.seal(make, key, is_encrypted=self._registered.is_encrypted)

    def _record(self, own: BackupIntent, manifest: Manifest, digest: str) -> BackupIntent:
        """The point is sealed: from here on it is on the list, whatever becomes of the overlays."""
        own = replace(own, stage=Stage.merge, impact=self._watching.as_document())
        claim = self._run.claim

        def write(session: Session) -> None:
            point = sealed_points.row_of(manifest, digest, job_id=claim.job_id)
            values = {
                "phase": PhaseName.merge.value,
                "progress": None,
                "intent": self._intent(own),
                "recovery_point": point_document(point),
                "phases": list(self._run.phases),
            }
            queue.write(session, claim.job_id, claim.lease_token, values)
            if session.get(RecoveryPoint, point.id) is None:
                now = database_now(session)
                points.add(session, point, now)
                points.add_proofs(session, point.id, self._proofs_of_seal(manifest), now)

        try:
            self._run.in_transaction(write)
        except GUEST_IN_NEED:
            # The database is away. The point is in the repository, and the guest comes first.
            self._watching.mark(ImpactStage.after)
            self._put_back(self._overlays, PhaseName.merge)
            self._run.in_transaction(write)
        return own

    def _proofs_of_seal(self, manifest: Manifest) -> list[Proof]:
        """All that was copied was read back and compared, so the seal is a proof of the bytes. Not after a death, which lost the stamp."""
        stamp = self._repository.stamps.get(manifest.folder)
        if stamp is None or self._request.compare is Compare.nothing:
            return []
        return [Proof(ProofKind.bytes, True, {"by": "seal", "stamps": {manifest.folder: stamp}}, self._run.claim.job_id)]

    # --- the end ----------------------------------------------------------------------------------

    def _merge(self, own: BackupIntent, ending: Ending | None) -> Ending:
        error: StillpointError | None = None
        self._watching.mark(ImpactStage.after)
        with self._run.phase_that_cannot_be_cancelled(PhaseName.merge) as phase:
            merge = self._put_back(self._overlays, PhaseName.merge)
            left = backup_end.remarks(merge)
            if merge.errors:
                error = MergeUnfinished(domain=self._guest.name, disks=", ".join(merge.errors), why=merge.message)
                phase.fail(error.detail)
            else:
                left += backup_end.delete_older_checkpoints(self._guest, own.repository_id, own.checkpoint)
            if left and error is None:
                phase.warn("; ".join(left))
        own = replace(own, impact=self._watching.as_document() or own.impact)
        if error is None and own.fell_short is not None:
            error = VerdictBelowRequired(**own.fell_short, point=PointFate.kept)
        base = ending or Ending()
        return replace(base, error=error, result={"backup": backup_result.document(own)}, is_undone=not merge.errors, keeps_point=True)

    def _give_up(self, own: BackupIntent, error: StillpointError, ending: Ending | None) -> Ending:
        self._note_undo(own, {"phase": PhaseName.discard.value, "progress": None})
        return self._undone(own, error, replace(ending or Ending(), judgement=no_point("copy_failed", NOT_COPIED)))

    def _undone(self, own: BackupIntent, error: StillpointError, ending: Ending) -> Ending:
        """Nothing of the backup is left: neither in the repository nor on the guest's disks. Otherwise the error says what is left."""
        self._watching.mark(ImpactStage.after)
        with self._run.phase_that_cannot_be_cancelled(PhaseName.discard) as phase:
            backup_end.delete_checkpoint(self._guest, own.checkpoint)
            merge = self._put_back(self._overlays, PhaseName.discard)
            error = after_the_pause(self._guest, error)
            left = [*backup_end.remarks(merge), *self._drop_partial(own)]
            if not merge.errors:
                left += backup_end.remove_bitmaps(self._guest, self._overlays, own.checkpoint)
            if merge.errors:
                facts = {"domain": self._guest.name, "disks": ", ".join(merge.errors), "why": merge.message}
                error = BackupNotUndone(**facts, after=error.detail)
                phase.fail(error.detail)
            elif left:
                phase.warn("; ".join(left))
        result = {"backup": backup_result.document(replace(own, impact=self._watching.as_document() or own.impact))}
        return replace(ending, error=error, result=result, is_undone=not merge.errors)

    def _drop_partial(self, own: BackupIntent) -> list[str]:
        """A repository that is away keeps the unfinished folder. A later sweep removes it, and no reader takes it for a point."""
        if own.partial is None:
            return []
        self._repository.safe_point = None
        try:
            self._repository.drop_partial(own.partial)
        except StillpointError as error:
            return [f"the unfinished folder {own.partial} stays: {error.detail}"]
        return []

    def _put_back(self, overlays: Sequence[Overlay], phase: PhaseName) -> Merge:
        merge = backup_end.merge_all(self._guest, overlays, MergeProgress(self._run, phase))
        self._watching.look()
        return merge

    def _note_undo(self, own: BackupIntent, values: dict[str, Any], texts: Any = None) -> None:
        """Before the first merge, which writes into the files below. A database that is away is not waited for."""
        try:
            self._folder.give_up()
        except StillpointError as error:
            _logger.warning("end_of_copy_not_noted", reason=error.detail)
        self._run.write_if_possible({**values, "intent": self._intent(replace(own, stage=Stage.undo))}, texts)

    def _write(self, own: BackupIntent, values: dict[str, Any] | None = None, texts: Any = None) -> None:
        self._run.write({**(values or {}), "intent": self._intent(own)}, texts)

    def _intent(self, own: BackupIntent) -> dict[str, Any]:
        return Intent(overlays=self._overlays, own=own.as_document()).as_document()
