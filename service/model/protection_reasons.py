"""Why a domain is not protected as promised: one row for each cause, the deepest cause first. The first row that applies is the reason."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from service.clock import rfc3339
from service.model import protection_causes as causes
from service.model.protection_causes import Finding
from service.model.protection_view import Part, View
from service.model.protection_words import in_words
from service.model.repository import RepositoryState

NEVER = frozenset[Part]()
AGE = frozenset({Part.rpo})
POINTS = frozenset({Part.rpo, Part.verdict})
VERDICT = frozenset({Part.verdict})
PROOF = frozenset({Part.proof})
WORK = frozenset({Part.rpo, Part.proof})

READ_THE_JOB = "GET /api/v1/jobs/{id} has the error of the job, and what to do about it."
"""The remedy where the error of a job brings none."""


@dataclass(slots=True)
class Reason:
    """Its sentence is written when a caller reads it: of thousands of domains with a reason, a page shows some."""

    code: str
    template: str
    remedy: str
    values: Mapping[str, Any]
    now: datetime

    @property
    def sentence(self) -> str:
        """For a person, with times in words."""
        return in_words(self.template, self.values, self.now)

    @property
    def facts(self) -> dict[str, Any]:
        """As JSON has them."""
        return {name: rfc3339(value) if isinstance(value, datetime) else value for name, value in self.values.items()}

    def as_document(self) -> dict[str, Any]:
        return {"code": self.code, "sentence": self.sentence, "remedy": self.remedy, "facts": self.facts}


class Cause(NamedTuple):
    code: str
    #: The parts of the promise that it can break.
    breaks: frozenset[Part]
    #: It alone is enough that the domain is at risk, while the promise still holds.
    endangers: bool
    find: Callable[[View], Finding | None]
    sentence: str
    remedy: str


CAUSES = (
    Cause(
        "domain_gone",
        WORK,
        True,
        causes.domain_gone,
        "Host {host} has not listed the domain {since:since}.",
        "If the domain was moved, its new host must run a worker. If it was deleted on purpose, take it out of the policy.",
    ),
    Cause(
        "host_silent",
        WORK,
        True,
        causes.host_silent,
        "The worker of host {host} has not answered {since:since}, so no job of the domain runs.",
        "Start the worker of the host (`systemctl status 'stillpoint*'` there). It first recovers the jobs that it left.",
    ),
    Cause(
        "libvirt_away",
        WORK,
        True,
        causes.libvirt_away,
        "The worker of host {host} cannot reach libvirt: {error}.",
        "Run `stillpoint doctor` on the host, then look at libvirtd or virtqemud there.",
    ),
    Cause(
        "repository_gone",
        WORK,
        True,
        causes.repository_is(RepositoryState.gone),
        "Repository {repository} is not at its path.",
        "Mount the share of the repository, or correct its path.",
    ),
    Cause(
        "repository_bad",
        WORK,
        True,
        causes.repository_is(RepositoryState.bad),
        "Another thing lies at the path of repository {repository}.",
        "Look at the folder of the repository and at its repository.json.",
    ),
    Cause(
        "repository_not_answering",
        WORK,
        True,
        causes.repository_is(RepositoryState.not_answering),
        "The storage of repository {repository} does not answer.",
        "Look at the mount of the repository, and at the server behind it.",
    ),
    Cause(
        "repository_read_only",
        AGE,
        True,
        causes.repository_is(RepositoryState.read_only),
        "Repository {repository} cannot be written.",
        "Give the service's user write access to the repository, or mount its filesystem for writing.",
    ),
    Cause(
        "repository_full",
        AGE,
        True,
        causes.repository_is(RepositoryState.full),
        "Repository {repository} is full.",
        "Free space in the repository, or let the retention of the policies remove points.",
    ),
    # The code, the sentence and the remedy of the next three come from the error (`service.model.protection_errors`).
    Cause("verify_fails", PROOF, True, causes.verify_failed, "{jobs:jobs} failed {since:since}.", READ_THE_JOB),
    Cause("job_fails", POINTS, True, causes.point_job_failed, "{jobs:jobs} failed {since:since}.", READ_THE_JOB),
    Cause("run_refused", POINTS, True, causes.run_refused, "The run that was due {due_at:ago} was refused.", READ_THE_JOB),
    Cause(
        "point_lost",
        POINTS,
        True,
        causes.point_lost,
        "The point that was taken {point_in_time_at:ago} is {point_state}.",
        "Take a new full backup of the domain. GET /api/v1/recovery-points/{id} has the proof of what is wrong with the point.",
    ),
    Cause(
        "run_missed",
        POINTS,
        True,
        causes.run_is("missed", None),
        "The run of track {track} that was due {due_at:ago} was missed, because the service was away.",
        "Keep the service and its database running at the times of the policy, or let the track catch up (`catch_up: run`).",
    ),
    Cause(
        "run_overdue",
        AGE,
        True,
        causes.run_overdue,
        "The run that was due {due_at:ago} was not started.",
        "Start the scheduler of the service (`stillpoint all` has one), and see whether it can reach the database.",
    ),
    Cause(
        "schedule_too_slow",
        AGE,
        True,
        causes.schedule_too_slow,
        "Policy {policy} takes a point every {gap_s:span}, and promises one every {rpo_s:span}.",
        "Let a track of the policy run more often, or promise a longer rpo.",
    ),
    Cause(
        "blackout_too_long",
        AGE,
        True,
        causes.blackout_too_long,
        "The blackouts of policy {policy} leave {gap_s:span} between two points, and one every {rpo_s:span} is promised.",
        "Shorten the blackouts of the policy, or promise a longer rpo.",
    ),
    Cause(
        "no_run_to_come",
        AGE,
        True,
        causes.no_run_to_come,
        "Policy {policy} has no further run that takes a point.",
        "Give the policy a track of kind backup or snapshot, with a schedule that names further instants.",
    ),
    Cause(
        "run_still_busy",
        POINTS,
        False,
        causes.run_is("skipped", "still_running"),
        "The run of track {track} that was due {due_at:ago} was skipped, because the run before it had not ended.",
        "Let the track run less often, or make its jobs shorter: fewer disks, a faster repository, level `auto`.",
    ),
    Cause(
        "run_in_blackout",
        POINTS,
        False,
        causes.run_is("skipped", "blackout"),
        "The run of track {track} that was due {due_at:ago} was skipped, because it fell into a blackout.",
        "Move the run or the blackout, or let the track catch up (`catch_up: run`).",
    ),
    Cause(
        "run_skipped",
        POINTS,
        False,
        causes.run_is("skipped", None),
        "The run of track {track} that was due {due_at:ago} was skipped ({run_reason}).",
        "The next run takes a point. To take one now: POST /api/v1/jobs.",
    ),
    Cause(
        "verdict_too_low",
        VERDICT,
        False,
        causes.verdict_too_low,
        "The newest point is only {verdict}, and {promised} is promised.",
        "GET /api/v1/jobs/{id}/explain says what lowered the verdict of the point. Or promise less in the policy.",
    ),
    Cause(
        "domain_paused",
        AGE,
        False,
        causes.is_paused,
        "The domain is paused, so its guest cannot be frozen.",
        "Resume the domain (`virsh resume`), or let the policy accept points that are only crash-consistent.",
    ),
    Cause(
        "domain_not_defined",
        AGE,
        False,
        causes.is_transient,
        "libvirt has no persistent definition of the domain, and forgets the domain when it is shut off.",
        "Define the domain: `virsh dumpxml --inactive DOMAIN > domain.xml`, then `virsh define domain.xml`.",
    ),
    Cause(
        "point_in_future",
        AGE,
        False,
        causes.point_in_future,
        "The newest point is dated in the future ({point_in_time_at}), so it does not count.",
        "Correct the clock of the host or of the service.",
    ),
    Cause(
        "next_point_is_made",
        POINTS,
        False,
        causes.job_runs,
        "The job that makes the next point is {job_state} {since:since}, and has not ended.",
        "Wait for the job. GET /api/v1/jobs/{id} shows its progress.",
    ),
    Cause(
        "repository_fills",
        NEVER,
        True,
        causes.repository_fills,
        "Repository {repository} is full {full_at:coming}, if it fills up as it did lately.",
        "Give the repository more space, or keep fewer points.",
    ),
    Cause(
        "next_run_too_late",
        NEVER,
        True,
        causes.next_run_too_late,
        "The promise breaks {breaks_at:coming}, before the next run has made a point.",
        "Take a point now: POST /api/v1/jobs. If this comes back, let the policy run more often, or promise a longer rpo.",
    ),
    Cause(
        "next_verify_too_late",
        NEVER,
        True,
        causes.next_verify_too_late,
        "The newest proof is too old {breaks_at:coming}, and the next verify begins later.",
        "Verify a point of the domain now: POST /api/v1/jobs with kind verify. Or let the policy verify more often.",
    ),
    Cause(
        "proof_too_old",
        PROOF,
        False,
        causes.proof_too_old,
        "The newest proof of {proof} was made {proven_at:ago}, and one every {max_age_s:span} is promised.",
        "Verify a point of the domain now: POST /api/v1/jobs with kind verify. Or let the policy verify more often.",
    ),
    Cause(
        "proof_missing",
        PROOF,
        False,
        causes.proof_missing,
        "No point that is good enough has a proof of {proof}, and one every {max_age_s:span} is promised.",
        "Verify a point of the domain: POST /api/v1/jobs with kind verify.",
    ),
    Cause(
        "no_new_point",
        POINTS,
        False,
        causes.always,
        "No good point was taken {since:since}, and nothing is on record that says why.",
        "Take a point now: POST /api/v1/jobs. GET /api/v1/jobs?domain= lists what ran.",
    ),
)


_ROWS = {
    (part, or_endangers): tuple((cause.find, cause) for cause in CAUSES if part in cause.breaks or (or_endangers and cause.endangers))
    for part in (None, *Part)
    for or_endangers in (True, False)
}
"""The rows to look at, so that no domain looks at the others."""


def first_cause(view: View, part: Part | None, *, or_endangers: bool) -> Reason | None:
    """The reason: the first row that can break the part, or, if asked, that endangers the domain. None: no row applies."""
    for find, cause in _ROWS[part, or_endangers]:
        finding = find(view)
        if finding is not None:
            sentence, remedy = finding.sentence or cause.sentence, finding.remedy or cause.remedy
            return Reason(finding.code or cause.code, sentence, remedy, finding.facts, view.now)
    return None
