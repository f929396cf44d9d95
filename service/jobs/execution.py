"""One claimed job from its claim to its end: which function runs it, and what its errors become."""

import time
from typing import Any

from service import log
from service.config import Settings
from service.errors import HostOutOfDescriptors, JobCancelled, LeaseLost, SettingInvalid, StillpointError
from service.hypervisor.connection import HostConnection
from service.jobs import gates
from service.jobs.emergency import run_thaw
from service.jobs.gate import columns_of_none, run_gate
from service.jobs.guard import GuardSource
from service.jobs.preflight import run_preflight
from service.jobs.run import JobRun, MustRecover
from service.jobs.snapshot import SnapshotSettings, run_snapshot
from service.model.lifecycle import JobKind, JobState, PhaseName
from service.model.verdict import no_point
from service.model.well_known_writers import WriterEffect
from service.model.writer_rules import WriterRules

DESCRIPTORS_PATIENCE_S = 300.0
"""How long a job waits, with nothing made and nothing frozen, for a host on which too many files are open."""
DESCRIPTORS_PAUSE_S = 1.0

_logger = log.get(__name__)


class Execution:
    def __init__(self, settings: Settings, connection: HostConnection, guards: GuardSource) -> None:
        """Raises SettingInvalid."""
        self._settings = settings
        self._connection = connection
        self.descriptors_patience_s = DESCRIPTORS_PATIENCE_S
        self._snapshot_settings = SnapshotSettings(
            settings.overlay_dir,
            settings.overlay_reserve_bytes,
            writers_settle_s=settings.writers_settle_seconds,
            writer_rules=writer_rules(settings),
            guards=guards,
            guests_of_host=connection.guests,
        )

    def execute(self, run: JobRun) -> None:
        """Run the job; every way in which it can end is in its row afterwards, or recovery will write it."""
        claim = run.claim
        log.bind(job_id=claim.job_id, domain=claim.domain_name, kind=claim.kind, attempt=claim.attempt)
        try:
            self._dispatch_when_files_can_be_opened(run)
        except LeaseLost as error:
            _logger.warning("lease_lost", detail=error.detail)
        except StillpointError as error:
            _end_by(run, error)
        except Exception as error:
            # The edge of the thread: whatever this is, the guest and its disks must be looked at before the job ends.
            _logger.exception("job_crashed")
            _leave(run, MustRecover(what=f"the job crashed ({type(error).__name__})"))
        finally:
            log.unbind_all()

    def _dispatch_when_files_can_be_opened(self, run: JobRun) -> None:
        """A host that has no descriptor to spare has one again in a moment, as a rule: that costs the job no attempt."""
        until = time.monotonic() + self.descriptors_patience_s
        while True:
            try:
                self._dispatch(run)
            except HostOutOfDescriptors as error:
                if not self._may_wait(run) or time.monotonic() > until:
                    raise
                _logger.warning("host_out_of_descriptors", detail=error.detail, again_in_s=DESCRIPTORS_PAUSE_S)
                # Nothing was frozen and nothing is left: the story of the job begins anew.
                run.phases[:] = run.claim.phases
            else:
                return
            run.cancel_requested.wait(DESCRIPTORS_PAUSE_S)
            # Here, and not only in what is tried again: that may find no descriptor before its own first one.
            run.safe_point(PhaseName.preflight)

    @staticmethod
    def _may_wait(run: JobRun) -> bool:
        """Not a gate or a thaw, for which somebody waits now."""
        return run.claim.kind in (JobKind.snapshot, JobKind.preflight) and not run.may_have_point and run.ends_at is None

    def _dispatch(self, run: JobRun) -> None:
        guest = self._connection.guest(run.claim.domain_id)
        match JobKind(run.claim.kind):
            case JobKind.snapshot:
                run_snapshot(run, guest, self._snapshot_settings)
            case JobKind.quiesce:
                run_gate(run, guest, self._snapshot_settings)
            case JobKind.preflight:
                run_preflight(run, guest, self._snapshot_settings, self._settings.max_chain_depth)
            case JobKind.thaw:
                run_thaw(run, guest)


def writer_rules(settings: Settings) -> WriterRules:
    """Raises SettingInvalid."""
    try:
        return WriterRules.from_settings(settings.writer_rules)
    except ValueError as error:
        reason = f"{error}; an effect is one of {', '.join(WriterEffect)}"
        raise SettingInvalid(setting="STILLPOINT_WRITER_RULES", reason=reason) from error


def _end_by(run: JobRun, error: StillpointError) -> None:
    if isinstance(error, MustRecover):
        _leave(run, error)
    elif run.may_have_point or run.ended.is_set():
        # Whatever went wrong after the window began, it does not tell what became of the disks: libvirt does.
        _leave(run, MustRecover(what=f"{error.title}: {error.detail}"))
    else:
        _end(run, JobState.cancelled if isinstance(error, JobCancelled) else JobState.failed, error)


def _leave(run: JobRun, why: MustRecover) -> None:
    if run.ended.is_set():
        # The row says how it ended, and a final state never changes.
        _logger.error("error_after_the_end", detail=why.detail)
        return
    _logger.warning("left_to_recovery", detail=why.detail)
    run.leave_to_recovery(why)


def _end(run: JobRun, state: JobState, error: StillpointError) -> None:
    values: dict[str, Any] = {"phase": None, "error": error.as_document()}
    if run.claim.kind == JobKind.snapshot:
        judgement = no_point()
        values |= {"verdict": judgement.verdict.value, "verdict_reasons": judgement.as_documents()}
    elif run.claim.kind == JobKind.quiesce:
        run.write_beside(lambda session: gates.close(session, run.claim.job_id))
        values |= columns_of_none(run)
    run.finish(state, values)
