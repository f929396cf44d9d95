"""By which rules the points of a track are kept: those of the policy and of the track whose names the points have.

Whatever is not clear keeps every point: a policy that was deleted, a track that has another name now, a policy that is paused. A name
that comes back brings its rules back.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from service.model.backup_policy import BackupPolicy
from service.model.origin import Origin
from service.model.retention import Ground, Stays, Terms
from service.model.retention_rules import Rules
from service.model.time_zones import zone_of
from service.model.track import Track
from service.model.verdict import Verdict, required_verdict

Policies = Mapping[str, BackupPolicy | None]
"""By name. None: the document of the policy cannot be read by this version."""


@dataclass(frozen=True)
class Trial:
    """Rules that are tried out in the place of those on record, also of a policy that is paused. `policy`, `track`: only for these."""

    rules: Rules
    policy: str | None = None
    track: str | None = None

    def is_for(self, origin: Origin) -> bool:
        return self.policy in (None, origin.policy) and self.track in (None, origin.track)


def terms_of(origin: Origin | None, policies: Policies, trial: Trial | None = None) -> Terms | Ground:
    """A ground: every point of the track stays, for this reason."""
    if origin is None:
        return Ground(Stays.not_of_policy)
    if origin.policy not in policies:
        return Ground(Stays.policy_gone, {"policy": origin.policy})
    policy = policies[origin.policy]
    if policy is None:
        return Ground(Stays.policy_unreadable, {"policy": origin.policy})
    track = policy.track(origin.track)
    if track is None:
        return Ground(Stays.track_gone, {"policy": origin.policy, "track": origin.track})
    is_tried = trial is not None and trial.is_for(origin)
    if policy.paused and not is_tried:
        return Ground(Stays.policy_paused, {"policy": origin.policy})
    rules = trial.rules if trial is not None and is_tried else track.retention
    return Terms(rules or Rules(), zone_of(track.schedule.time_zone), _wanted(policy, track))


def _wanted(policy: BackupPolicy, track: Track) -> Verdict:
    """The verdict that is promised, or else the verdict below which a job of the track fails."""
    return policy.promise.verdict or required_verdict(track.job.required_verdict, track.job.freeze.mode)
