"""Runs one claimed job: chooses its handler, and decides what an error does to the job."""

import time

from service import log
from service.errors import HostOutOfDescriptors, LeaseLost, StillpointError
from service.jobs.ending import Ending
from service.jobs.kind import Handler, Handlers, Host
from service.jobs.run import JobRun, MustRecover
from service.model.kinds import kind_of
from service.model.lifecycle import PhaseName

DESCRIPTORS_PATIENCE_S = 300.0
"""Seconds that a job waits, with nothing made and nothing frozen, while the host has too many open files. After that the job fails."""
DESCRIPTORS_PAUSE_S = 1.0
"""Seconds between two tries."""

_logger = log.get(__name__)


class Execution:
    def __init__(self, host: Host, handlers: Handlers) -> None:
        self._host = host
        self._handlers = handlers
        self.descriptors_patience_s = DESCRIPTORS_PATIENCE_S

    def execute(self, run: JobRun) -> None:
        """Run the job. Afterwards the job's row has the end of the job, or recovery will write it."""
        claim = run.claim
        log.bind(job_id=claim.job_id, domain=claim.domain_name, kind=claim.kind, attempt=claim.attempt)
        try:
            self._carry_out(run)
        except LeaseLost as error:
            # This can also come after the last write of the job.
            _logger.warning("lease_lost", detail=error.detail)
        finally:
            log.unbind_all()

    def _carry_out(self, run: JobRun) -> None:
        try:
            run.finish(self._run_when_files_can_be_opened(run))
            self._host.guards.discard_report(run.claim.job_id)
        except LeaseLost:
            raise
        except StillpointError as error:
            self._end_by(run, error)
        except Exception as error:
            # The edge of the thread: after any error, recovery must look at the guest and its disks before the job ends.
            _logger.exception("job_crashed")
            _leave(run, MustRecover(what=f"the job crashed ({type(error).__name__})"))

    def _run_when_files_can_be_opened(self, run: JobRun) -> Ending:
        """Run the handler again while the host has too many open files. Such a state is usually short, so it costs the job no attempt."""
        until = time.monotonic() + self.descriptors_patience_s
        while True:
            try:
                return self._handler(run).run(run, self._host)
            except HostOutOfDescriptors as error:
                if not self._may_wait(run) or time.monotonic() > until:
                    raise
                _logger.warning("host_out_of_descriptors", detail=error.detail, again_in_s=DESCRIPTORS_PAUSE_S)
                # Nothing was frozen and no file is left, so the phases of this try are dropped.
                run.phases[:] = run.claim.phases
            run.cancel_requested.wait(DESCRIPTORS_PAUSE_S)
            # Here, because the next try may fail again before its own first safe point.
            run.safe_point(PhaseName.preflight)

    @staticmethod
    def _may_wait(run: JobRun) -> bool:
        return not (kind_of(run.claim.kind).is_awaited or run.may_have_point or run.ends_at is not None)

    def _handler(self, run: JobRun) -> Handler:
        return self._handlers[run.claim.kind]

    def _end_by(self, run: JobRun, error: StillpointError) -> None:
        if isinstance(error, MustRecover):
            _leave(run, error)
        elif run.may_have_point or run.ended.is_set():
            # An error after the window began does not show the state of the disks. Recovery asks libvirt.
            _leave(run, MustRecover(what=f"{error.title}: {error.detail}"))
        else:
            run.finish(self._handler(run).ended_early(run, error))


def _leave(run: JobRun, why: MustRecover) -> None:
    if run.ended.is_set():
        # The job's row has its end already, and a final state never changes.
        _logger.error("error_after_the_end", detail=why.detail)
        return
    _logger.warning("left_to_recovery", detail=why.detail)
    run.leave_to_recovery(why)
