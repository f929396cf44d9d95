"""What follows if a point is worse than the request requires: `on_shortfall` of the request."""

from collections.abc import Sequence

from service.disks.merging import Merge, merge_back
from service.errors import DiscardFailed, DiscardUnfinished, LibvirtUnavailable, StillpointError, VerdictBelowRequired, VssFreezeFailed
from service.errors.jobs import PointFate
from service.hypervisor.guest import Guest
from service.jobs.run import JobRun, MustRecover
from service.model.intent import DiscardIntent, Intent, Overlay
from service.model.policy import OnShortfall
from service.model.requests import SnapshotRequest
from service.model.windows.vss_outcome import RETRIES
from service.records.queue import NewJob


class Shortfall:
    """Microsoft's advice for transient errors: try again ten minutes later, up to three times, never in the same window (F§5.2)."""

    def __init__(self, run: JobRun, merging: Sequence[Overlay], error: StillpointError | None) -> None:
        """`merging`: overlays that can be merged back now. Empty if there is no point, or if the domain is shut off: no block jobs then."""
        self._run = run
        self._merging = merging
        self._error = error
        self._on_shortfall = run.request(SnapshotRequest).on_shortfall

    @property
    def is_discarded(self) -> bool:
        """Whether the point is to be discarded. A point that cannot be merged back is kept, and the error names its verdict."""
        fell_short = isinstance(self._error, VerdictBelowRequired) and bool(self._merging)
        return fell_short and self._on_shortfall is OnShortfall.discard

    @property
    def discard_intent(self) -> Intent:
        """Must be committed before the first merge, because after that there is no point that recovery could keep."""
        return Intent(will_freeze=False, overlays=self._merging, discard=self._discard)

    @property
    def _discard(self) -> DiscardIntent:
        assert self._error is not None
        return DiscardIntent(self._error.facts["verdict"], self._error.facts["required"])

    def discard(self, guest: Guest) -> StillpointError:
        """Merge the overlays back, and return the error of the job. Raises MustRecover if libvirt went away: recovery then continues."""
        try:
            merge = merge_back(guest, self._merging)
        except LibvirtUnavailable as error:
            raise MustRecover(what=error.detail) from error
        if not merge.errors:
            return removed_again(self._discard, merge)
        if not merge.was_begun:
            intent = self._discard
            return DiscardFailed(verdict=intent.verdict, required=intent.required, message=merge.message, domain=guest.name)
        return unfinished(guest, self._discard, merge)

    @property
    def next_try(self) -> NewJob | None:
        """A new job that tries again after a pause. It is a new job because a final state never changes."""
        is_transient = isinstance(self._error, VssFreezeFailed) and bool(self._error.facts["transient"])
        claim = self._run.claim
        if self._run.cancel_requested.is_set():
            return None
        may_pass = is_transient or isinstance(self._error, VerdictBelowRequired)
        if self._on_shortfall is not OnShortfall.retry or not may_pass or claim.shortfall_try >= RETRIES:
            return None
        return NewJob(
            kind=claim.kind,
            domain_id=claim.domain_id,
            domain_name=claim.domain_name,
            host_id=claim.host_id,
            request=claim.request.as_document(),
            shortfall_try=claim.shortfall_try + 1,
            labels=dict(claim.labels),
            pause_s=self._run.shortfall_pause_s,
            retry_of=claim.job_id,
        )


def removed_again(discard: DiscardIntent, merge: Merge) -> VerdictBelowRequired:
    left = "".join(f". {error.detail.rstrip('.')}" for error in merge.left)
    return VerdictBelowRequired(verdict=discard.verdict, required=discard.required, point=PointFate.removed, left=left)


def unfinished(guest: Guest, discard: DiscardIntent, merge: Merge) -> DiscardUnfinished:
    return DiscardUnfinished(
        domain=guest.name,
        verdict=discard.verdict,
        required=discard.required,
        merged=", ".join(merge.merged) or "none",
        unmerged=", ".join(merge.errors) or "none",
        message=merge.message,
    )
