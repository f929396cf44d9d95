"""After the window: the state of the disks, the verdict, and the error of the job. The kinds `snapshot` and `backup` share it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.disks import overlays, two_views
from service.errors import DisksInDoubt, OverlaysLeft, PointIsWritten, SnapshotFailed, StillpointError, VerdictBelowRequired
from service.errors.jobs import PointFate
from service.freeze import faults
from service.freeze.documents import evidence, evidence_document
from service.freeze.passed import Passed
from service.hypervisor.guest import Guest
from service.jobs.run import JobRun, Phase
from service.model.intent import Overlay
from service.model.requests import SnapshotRequest
from service.model.verdict import Judgement, disks_in_doubt, judge, no_point, required_verdict, satisfies
from service.model.window import ThawOutcome
from service.model.windows.writer_rules import WriterRules


@dataclass(frozen=True)
class Taken:
    """The state of the disks after the window."""

    overlays: Sequence[Overlay]
    #: By target: whether the disk is on its overlay after the window. None: the disk is on a file that does not belong to this job.
    switched: Mapping[str, bool | None]
    #: The disks on their overlays of which libvirt still names the file below.
    behind: Sequence[Overlay] = ()
    #: The domain was shut off at the survey, and runs after its disks were switched.
    was_started: bool = False
    #: A file below that another program writes to after the switch, and that program. Such a file is not a point in time.
    written: tuple[str, str] | None = None

    @property
    def is_point(self) -> bool:
        return bool(self.switched) and all(self.switched.values())

    @property
    def is_in_doubt(self) -> bool:
        return not self.is_point and any(is_on is not False for is_on in self.switched.values())

    def on(self, *, overlay: bool) -> str:
        """The targets on their overlay, or with `overlay=False` all others."""
        return ", ".join(target for target, is_on in self.switched.items() if bool(is_on) is overlay)


@dataclass(frozen=True)
class Outcome:
    """`error`: the most serious error of the job. None: there is a point, and its verdict satisfies the request."""

    judgement: Judgement
    error: StillpointError | None
    is_point: bool


def judge_point(run: JobRun, guest: Guest, passed: Passed, taken: Taken, *, rules: WriterRules, phase: Phase) -> Outcome:
    """Judge the point, and remove overlays that are not used."""
    left = _remove_unused(taken, phase) if not taken.is_point and not taken.is_in_doubt else None
    judgement = _judgement(passed, taken, rules)
    error = _error(run, guest, passed, taken, judgement=judgement, left=left)
    return Outcome(judgement, error, taken.is_point and taken.written is None)


def _was_running(passed: Passed, taken: Taken) -> bool:
    """Whether the domain ran while the point was taken, as far as the service can know."""
    return passed.terms.is_running or taken.was_started


def _judgement(passed: Passed, taken: Taken, rules: WriterRules) -> Judgement:
    if taken.is_in_doubt:
        return disks_in_doubt()
    if taken.written is not None:
        return no_point("point_is_written", f"{taken.written[1]} writes to {taken.written[0]}, which should have been the point.")
    return judge(evidence(passed, rules, point_was_taken=taken.is_point, was_running=_was_running(passed, taken)))


def _remove_unused(taken: Taken, phase: Phase) -> str | None:
    """Remove overlays that no disk uses. Returns the error text about overlays that could not be removed."""
    try:
        overlays.remove(taken.overlays)
    except OverlaysLeft as error:
        phase.warn(error.detail)
        return error.detail
    return None


def _error(run: JobRun, guest: Guest, passed: Passed, taken: Taken, *, judgement: Judgement, left: str | None) -> StillpointError | None:
    """The most serious error of the job. None: the job succeeded."""
    if passed.window.thaw.outcome is ThawOutcome.unanswered:
        return faults.still_frozen(guest, passed)
    if taken.is_in_doubt:
        return DisksInDoubt(domain=guest.name, switched=taken.on(overlay=True), unswitched=taken.on(overlay=False))
    if taken.written is not None:
        file, holder = taken.written
        moved = ", ".join(overlay.path for overlay in taken.overlays)
        return PointIsWritten(domain=guest.name, file=file, holder=holder, overlays=moved)
    if not taken.is_point:
        return faults.why_not_held(guest, passed) or _snapshot_failed(guest, passed, left)
    if taken.behind:
        return two_views.error_of(guest, taken.behind)
    asked = run.request(SnapshotRequest).required_verdict
    required = required_verdict(asked, passed.terms.policy.mode, was_running=_was_running(passed, taken))
    if not satisfies(judgement.verdict, required, passed.terms.survey.shut_off_cleanly):
        return VerdictBelowRequired(verdict=judgement.verdict.value, required=required.value, point=PointFate.kept)
    return None


def _snapshot_failed(guest: Guest, passed: Passed, left: str | None) -> SnapshotFailed:
    state = "every disk is on the file that it was on before the job"
    state += f". {left.rstrip('.')}" if left else ", and the unused overlays were removed"
    return SnapshotFailed(domain=guest.name, message=passed.window.point_error or "the call returned, but no disk moved", disks_state=state)


ON_OVERLAY = "on the overlay"
_DISK_AFTER = {True: ON_OVERLAY, False: "unchanged", None: "on a file that is not of this job"}
"""The values are a part of the stored evidence."""


def points_evidence(passed: Passed, taken: Taken) -> dict[str, Any]:
    return evidence_document(passed, {target: _DISK_AFTER[is_on] for target, is_on in taken.switched.items()})
