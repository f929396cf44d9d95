"""The job kind `restore`: brings a sealed point back, as files, as a new domain, below the domain that was backed up, or at once.

New files are written beside everything that is there, while a domain in place still runs. Only complete files that were checked block by
block take the place of disks. The old disks stay until the domain has run on the new ones.
"""

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from service import bounded_io, log
from service.db.engine import database_now
from service.db.tables import Job, RecoveryPoint
from service.disks import old_disks
from service.errors import (
    JobCancelled,
    LeaseLost,
    PointDamaged,
    PointIncomplete,
    RepositoryGone,
    RepositoryNotAnswering,
    RepositoryRefused,
    RepositoryUnusable,
    RestoredPointDamaged,
    StillpointError,
)
from service.hypervisor.guest import Guest
from service.jobs import restore_checks, restore_domain, restore_files, restore_host, restore_recovery, restore_source
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.restore_flatten import Flattening
from service.jobs.restore_intent import RestoreIntent, Stage
from service.jobs.restore_source import Archive, Source
from service.jobs.restore_writing import Writing
from service.jobs.run import JobRun, MustRecover
from service.model.intent import Intent
from service.model.lifecycle import PhaseName
from service.model.proofs import Proof
from service.model.repository import ProofKind, RestoreMode, VerifyWhen
from service.model.requests import RestoreRequest
from service.model.restore_plan import RestorePlan
from service.records import points

STOP_PATIENCE_S = 120.0
"""Seconds for a guest to shut itself down. After that it is switched off: its disks are replaced anyway."""
BOOT_PATIENCE_S = 300.0
"""Seconds for the agent of a restored guest to answer. After that nothing shows that the guest has run, and no old disk is removed."""


_logger = log.get(__name__)


@dataclass(frozen=True)
class Restore:
    """The handler of the kind."""

    silence_s: float = 60.0
    stop_patience_s: float = STOP_PATIENCE_S
    boot_patience_s: float = BOOT_PATIENCE_S
    proof_days: float = 7.0

    def run(self, run: JobRun, host: Host) -> Ending:
        begun = RestoreIntent.of(Intent.from_document(run.claim.intent))
        with bounded_io.refusals("restoring"):
            if begun is not None and begun.stage is not Stage.again:
                return _RestoreRun(self, run, host).continued(begun)
            return _RestoreRun(self, run, host, had_run=begun is not None and begun.was_running).run()

    def recover(self, lost: LostJob, host: Host) -> Resolution:
        return restore_recovery.recover(lost, host)

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        """An error before the domain was touched. Nothing of the restore is left."""
        return Ending(error, is_undone=True)


class _RestoreRun:
    """One attempt of one job."""

    def __init__(self, kind: Restore, run: JobRun, host: Host, *, had_run: bool = False) -> None:
        self._kind = kind
        self._run = run
        self._host = host
        self._had_run = had_run
        self._request = run.request(RestoreRequest)
        self._result: dict[str, Any] = {}

    def run(self) -> Ending:
        """Every phase of the job, in order."""
        try:
            return self._in_order()
        except (LeaseLost, MustRecover):
            raise
        except StillpointError:
            if self._had_run:
                self._start_again()
            raise

    def _start_again(self) -> None:
        """An earlier attempt told the domain to shut down, and this one ends with the old disks in place."""
        try:
            self._host.guest(self._domain_id()).start()
        except StillpointError as error:
            _logger.error("domain_not_started_again", job_id=self._run.claim.job_id, reason=error.detail)

    def _domain_id(self) -> str:
        return self._run.in_transaction(lambda session: points.get(session, self._request.recovery_point)).domain_id

    def _in_order(self) -> Ending:
        run = self._run
        point, repository = restore_source.rows(run, self._request.recovery_point)
        with Archive(run, repository, self._kind.silence_s) as archive:
            if self._request.mode is not RestoreMode.instant:
                # The limit of an instant restore is for the copy behind the guest: a limit before its start would only delay the guest.
                archive.stored.hand.set_pace(self._request.rate_limit_bytes)
            with run.phase(PhaseName.plan):
                source = restore_source.judged(run, point, archive, lambda: restore_source.read(run, archive, point))
                definition, adaptations = restore_host.adapted(self._host, source, self._request)
                plan = restore_host.planned(run, self._host, source, self._request, adaptations)
                writing = Writing(run, self._host, archive, source=source, plan=plan, definition=definition, note=self._note)
                if self._request.plan_only:
                    reading = restore_source.judged(run, point, archive, lambda: self._reading(archive, source, point))
                    self._tell(plan={**plan.as_preview(), **writing.foreseen(), **reading})
                    return Ending(result=self._result_document(), is_undone=True)
                self._tell(plan=plan.as_document())
            with run.phase(PhaseName.checksums):
                archive.phase = PhaseName.checksums
                is_read = restore_source.judged(run, point, archive, lambda: self._is_read(archive, source, point))
            writing = Writing(
                run, self._host, archive, source=source, plan=plan, definition=definition, note=self._note, had_run=self._had_run
            )
            with run.phase(PhaseName.write):
                archive.phase = PhaseName.write
                written = restore_source.judged(
                    run, point, archive, writing.run, again=lambda: restore_checks.confirm(run, archive, source)
                )
                intent = replace(written, is_verified=is_read or plan.mode is not RestoreMode.instant)
            self._tell(**writing.facts)
            if plan.mode is RestoreMode.files:
                return Ending(result=self._result_document(), is_undone=True)
            intent, guest = self._bring_up(intent, plan)
            if plan.mode is RestoreMode.instant:
                return self._flatten(archive, intent, point)
        return self._conclude(intent, guest)

    def _is_read(self, archive: Archive, source: Source, point: RecoveryPoint) -> bool:
        """Whether every byte was read. False: a proof still stands for that, and the bytes are compared while they are used."""
        reading = self._reading(archive, source, point)
        self._tell(**reading)
        if reading["relies_on"] is not None:
            return False
        restore_checks.read_all(self._run, archive, source)
        return True

    def _reading(self, archive: Archive, source: Source, point: RecoveryPoint) -> dict[str, Any]:
        """When every byte is read, and which earlier read stands for that until then. The plan and the job say it alike."""
        relied_on = None
        if self._request.verify is not VerifyWhen.before:
            relied_on = restore_checks.standing_proof(self._run, archive, source, point, timedelta(days=self._kind.proof_days))
        return {"bytes_read": "after" if relied_on else "before", "relies_on": relied_on}

    def continued(self, intent: RestoreIntent) -> Ending:
        """An earlier attempt has switched the domain to its restored disks."""
        self._result = dict((self._run.in_transaction(self._stored_result) or {}).get("restore") or {})
        if intent.stage is Stage.conclude:
            return self._conclude(intent, self._host.guest(intent.uuid))
        point, repository = restore_source.rows(self._run, intent.point_id)
        with Archive(self._run, repository, self._kind.silence_s) as archive:
            return self._flatten(archive, intent, point)

    def _stored_result(self, session: Session) -> dict[str, Any] | None:
        return session.get_one(Job, self._run.claim.job_id).result

    def _tell(self, **facts: Any) -> None:
        self._result |= facts
        self._run.write({"result": self._result_document()})

    def _result_document(self) -> dict[str, Any]:
        return {"restore": dict(self._result)}

    # --- the domain -------------------------------------------------------------------------------

    def _bring_up(self, intent: RestoreIntent, plan: RestorePlan) -> tuple[RestoreIntent, Guest]:
        """Stop, define, start. From the stop on, an error means that all is taken back, or that recovery looks."""
        if plan.mode is RestoreMode.in_place:
            intent = self._stopped(intent)
        with self._run.phase_that_cannot_be_cancelled(PhaseName.define):
            intent = self._note(intent.at(Stage.define))
            self._run.point_is_pending()
            with self._left_to_recovery():
                guest, error = restore_domain.bring_up_or_take_back(intent, self._host)
        if guest is None:
            assert error is not None
            # Nothing is left: the error may end the job.
            self._run.may_have_point = False
            raise error
        self._tell(domain={"id": guest.uuid, "name": guest.name}, is_started=intent.will_start)
        return intent, guest

    def _stopped(self, intent: RestoreIntent) -> RestoreIntent:
        """The domain in place is off. A cancel before it is off leaves it as it was."""
        run = self._run
        guest = self._host.guest(intent.uuid)
        is_running = not guest.is_shut_off()
        was_running = is_running or intent.was_running
        try:
            with run.phase(PhaseName.stop):
                intent = self._note(replace(intent, was_running=was_running, aside=guest.checkpoints.of_ours()).at(Stage.stop))
        except StillpointError as error:
            if not isinstance(error, LeaseLost):
                restore_files.remove_all(intent)
            raise
        if is_running:
            # A guest that was told to shut down cannot be told otherwise, so this is not a safe point.
            with run.phase_that_cannot_be_cancelled(PhaseName.stop), self._left_to_recovery():
                guest.stop(self._kind.stop_patience_s)
        return intent

    @contextmanager
    def _left_to_recovery(self) -> Iterator[None]:
        try:
            yield
        except LeaseLost:
            raise
        except StillpointError as error:
            raise MustRecover(what=error.detail) from error

    def _flatten(self, archive: Archive, intent: RestoreIntent, point: RecoveryPoint) -> Ending:
        self._run.may_have_point = False
        intent = self._note(intent.at(Stage.flatten))
        files = {file.what: file.path for file in intent.files}
        self._tell(domain={"id": intent.uuid, "name": intent.name}, files=files, reads_repository=intent.targets)
        try:
            guest = self._made_whole(archive, intent, point)
        except JobCancelled as error:
            # The guest runs, and may have written what nobody else has: it is neither stopped nor taken back.
            if self._result["reads_repository"]:
                self._tell(warnings=[_stays_on_repository(intent, self._result["reads_repository"])])
            raise JobCancelled(phase=PhaseName.flatten.value) from error
        return self._conclude(intent, guest)

    def _made_whole(self, archive: Archive, intent: RestoreIntent, point: RecoveryPoint) -> Guest:
        run = self._run
        flattening = Flattening(run, self._host, archive, intent, note=self._note, bytes_s=self._request.rate_limit_bytes)
        is_verified = intent.is_verified or self._is_verified(archive, intent, point)
        with run.phase(PhaseName.flatten) as phase:
            archive.phase = PhaseName.flatten
            try:
                guest = flattening.run()
            finally:
                self._result["reads_repository"] = sorted(flattening.remaining)
                run.write({"result": self._result_document()})
            if flattening.unproven:
                phase.warn(f"No flush of the guest was seen after the copy of {', '.join(flattening.unproven)}.")
        self._result["bytes_verified"] = is_verified or self._is_verified(archive, intent, point)
        return guest

    def _is_verified(self, archive: Archive, intent: RestoreIntent, point: RecoveryPoint) -> bool:
        """Read what a proof stood for. A repository that hangs or is gone now only puts that off. Raises RestoredPointDamaged."""
        with self._run.phase(PhaseName.checksums) as phase:
            archive.phase = PhaseName.checksums
            try:
                restore_source.judged(self._run, point, archive, lambda: self._read_now(archive, point))
            except (PointDamaged, PointIncomplete) as error:
                raise self._stands_on_damage(intent, error) from error
            except (RepositoryGone, RepositoryNotAnswering, RepositoryRefused, RepositoryUnusable) as error:
                phase.warn(error.detail)
                return False
        return True

    def _read_now(self, archive: Archive, point: RecoveryPoint) -> None:
        restore_checks.read_all(self._run, archive, restore_source.read(self._run, archive, point))

    def _stands_on_damage(self, intent: RestoreIntent, error: StillpointError) -> StillpointError:
        """The guest is not stopped: a person decides what of its work is worth to be kept."""
        self._tell(bytes_verified=False)
        next_good = error.facts["next_good"]
        return RestoredPointDamaged(domain=intent.name, point=intent.point_id, why=error.detail, next_good=next_good)

    # --- the end ----------------------------------------------------------------------------------

    def _conclude(self, intent: RestoreIntent, guest: Guest) -> Ending:
        """Wait until the guest has run, and only then let go of the old disks."""
        run, has_run, cancelled = self._run, False if not intent.will_start else None, None
        if intent.will_start:
            with run.phase_that_cannot_be_cancelled(PhaseName.start) as phase:
                try:
                    has_run = self._has_run(guest)
                except JobCancelled as error:
                    # The restore itself is complete, so the domain stays.
                    cancelled = error
                if has_run is not True:
                    phase.warn(self._warn_of_old_disks(intent, guest, has_run))
        proof = Proof(ProofKind.restored, ok=True if has_run else None, facts={"mode": intent.mode.value}, job_id=run.claim.job_id)
        run.in_transaction(lambda session: points.add_proofs(session, intent.point_id, [proof], database_now(session)))
        old = list(intent.old_files)
        removed = old_disks.remove(old, self._host.guests) if has_run and self._request.remove_old_disks else []
        self._result |= {"has_run": has_run, "old_disks": [path for path in old if path not in removed], "old_disks_removed": removed}
        return Ending(cancelled, result=self._result_document(), is_undone=True)

    def _has_run(self, guest: Guest) -> bool | None:
        """None: not known. Raises JobCancelled, LeaseLost."""
        try:
            return restore_domain.wait_until_it_ran(guest, self._kind.boot_patience_s, lambda: self._run.safe_point(PhaseName.start))
        except (JobCancelled, LeaseLost):
            raise
        except StillpointError:
            return None

    def _warn_of_old_disks(self, intent: RestoreIntent, guest: Guest, has_run: bool | None) -> str:
        warning = restore_domain.not_seen_running(guest.name, intent.old_files, is_off=has_run is False)
        self._result["warnings"] = [{"code": warning.code, "detail": warning.detail}]
        return warning.detail

    def _note(self, intent: RestoreIntent) -> RestoreIntent:
        self._run.write({"intent": intent.as_intent().as_document()})
        return intent


def _stays_on_repository(intent: RestoreIntent, targets: Sequence[str]) -> dict[str, str]:
    """What a cancelled job leaves to a person."""
    pulls = "; ".join(f"virsh blockpull {shlex.quote(intent.name)} {target}" for target in targets)
    detail = (
        f"{intent.name} runs on, and reads from the repository until its disks stand alone: {pulls}. Without it: destroy and undefine it."
    )
    return {"code": "stays_on_repository", "detail": detail}
