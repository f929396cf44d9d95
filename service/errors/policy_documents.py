"""What is wrong in the document of a policy. A `PolicyInvalid` has all faults of one document."""

from collections.abc import Mapping, Sequence
from typing import Any

from service.errors.base import StillpointError

__all__ = [
    "BlackoutsLeaveNothing",
    "CopyNotKnown",
    "CronNeverDue",
    "CronUnreadable",
    "FieldMissing",
    "FieldRefused",
    "FieldRepeated",
    "FieldUnknown",
    "JitterTooLong",
    "PolicyFault",
    "PolicyInvalid",
    "PolicyTie",
    "RepositoryNotKnown",
    "RepositoryNotWritable",
    "SelectorEmpty",
    "SelectorNotAlone",
    "TextExpected",
    "TimeZoneUnknown",
]

MAX_FAULTS_NAMED = 20
"""Faults of a document that its sentence tells. The others are counted only."""
MAX_FAULTS_SHOWN = 200
"""Faults in the facts of an invalid policy. The others are counted only."""
MAX_TIES_NAMED = 3
"""Domains that the sentence about a tie names. Of the others only the number is told."""
MAX_TIES_SHOWN = 50
"""Domains in the facts of a tie. The others are left out."""


class PolicyFault(StillpointError):
    """Base of the faults. Facts: `path` of the field (`tracks[0].schedule.cron`), and what the templates name."""

    code = "policy_fault"


class FieldUnknown(PolicyFault):
    """`nearest`: the known field with the most similar name, or None."""

    code = "policy_field_unknown"
    title = "The policy has a field that does not exist"
    detail_template = "{path} is not a field of a policy. The fields there are: {known}."
    remedy_template = "Remove {path}, or write its name as in that list."

    @property
    def remedy(self) -> str:
        nearest = self.facts["nearest"]
        return f"Write {nearest} in its place, or remove it." if nearest else super().remedy


class FieldMissing(PolicyFault):
    code = "policy_field_missing"
    title = "The policy lacks a field"
    detail_template = "{path} is missing."
    remedy_template = "Add {path}: {allowed}."


class FieldRefused(PolicyFault):
    code = "policy_field_refused"
    title = "A field of the policy has a value that is not allowed"
    detail_template = "{path} is {value}. Allowed: {allowed}."
    remedy_template = "Correct {path}."


class TextExpected(PolicyFault):
    """YAML reads `off` as false, `18:00` as a number and `2026` as a number, where a text was meant."""

    code = "policy_text_expected"
    title = "A field of the policy has to be a text"
    detail_template = "{path} is {value}, which is not a text. Allowed: {allowed}."
    remedy_template = "Write {path} in quotation marks: without them YAML reads words such as off, and times such as 18:00, otherwise."


class FieldRepeated(PolicyFault):
    code = "policy_field_repeated"
    title = "The policy names the same thing twice"
    detail_template = "{path} is {value}, as is an earlier one."
    remedy_template = "Remove {path}, or give it another value."


class SelectorEmpty(PolicyFault):
    code = "policy_selector_empty"
    title = "The policy does not say which domains it is for"
    detail_template = "{path} names neither names nor labels nor hosts, and not all_the_rest."
    remedy_template = "Add one of them. For all domains that no other policy selects, write all_the_rest: true."


class SelectorNotAlone(PolicyFault):
    code = "policy_selector_not_alone"
    title = "The policy is for all the rest, and for named domains, too"
    detail_template = "{path} has all_the_rest: true beside {others}."
    remedy_template = "Remove all_the_rest, or everything else in {path}. Two policies can select both."


class CronUnreadable(PolicyFault):
    code = "policy_cron_unreadable"
    title = "A schedule of the policy cannot be read"
    detail_template = "{path} is {value}: {reason}."
    remedy_template = "Write five fields: minute, hour, day of the month, month, day of the week. Every night at 2: 0 2 * * *."


class CronNeverDue(PolicyFault):
    code = "policy_cron_never_due"
    title = "A schedule of the policy is never due"
    detail_template = "{path} is {value}. No such day comes within {years} years."
    remedy_template = "Correct the day or the month of {path}."


class TimeZoneUnknown(PolicyFault):
    """`nearest`: the known zone with the most similar name, or None."""

    code = "policy_time_zone_unknown"
    title = "The policy names a time zone that is not known"
    detail_template = "{path} is {value}."
    remedy_template = "Write the IANA name of a zone, such as Europe/Berlin, or UTC."

    @property
    def remedy(self) -> str:
        nearest = self.facts["nearest"]
        return f"Write {nearest} if that is meant. {super().remedy}" if nearest else super().remedy


class JitterTooLong(PolicyFault):
    """Then a run could be due while the run before it still waits for its jitter."""

    code = "policy_jitter_too_long"
    title = "The jitter is longer than the time between two runs"
    detail_template = "{path} is {jitter_s} s, and two runs are {gap_s} s apart."
    remedy_template = "Write a jitter_s below {gap_s}, or a schedule with fewer runs."


class BlackoutsLeaveNothing(PolicyFault):
    code = "policy_blackouts_leave_nothing"
    title = "The blackouts leave no time for a run"
    detail_template = "{path} cover every hour from {begin} to {until}."
    remedy_template = "Shorten one of the blackouts. To stop a policy for a while, write paused: true."


class RepositoryNotKnown(PolicyFault):
    code = "policy_repository_unknown"
    title = "The policy names a repository that is not registered"
    detail_template = "{path} is {value}. The repositories there are: {known}."
    remedy_template = "Correct {path}, or register the repository with `stillpoint repository add` before."


class CopyNotKnown(PolicyFault):
    code = "policy_copy_unknown"
    title = "The policy names a copy that is not registered"
    detail_template = "{path} is {value}. The copies of {repository} are: {known}."
    remedy_template = "Correct {path}, or register the copy with `stillpoint copy add` before."


class RepositoryNotWritable(PolicyFault):
    code = "policy_repository_unwritable"
    title = "The policy names a repository that nothing can be written to"
    detail_template = "{path} is {value}. At its last look the worker saw the state {state}."
    remedy_template = "Mend the repository and let the worker look with `stillpoint repository check`, or name another one for {path}."


class PolicyInvalid(StillpointError):
    """`faults`: all that is wrong, each of its own type. The facts have the documents of the first ones, and the number of all."""

    code = "policy_invalid"
    title = "The policy is not valid"
    detail_template = "{count} fault(s) in {policy}: {summary}"
    remedy_template = "{remedies}"

    def __init__(self, policy: str, faults: Sequence[PolicyFault]) -> None:
        self.faults = tuple(faults)
        super().__init__(
            policy=policy,
            count=len(faults),
            summary=" ".join(fault.detail for fault in faults[:MAX_FAULTS_NAMED]),
            remedies=" ".join(dict.fromkeys(fault.remedy for fault in faults[:MAX_FAULTS_NAMED])),
            faults=[fault.as_document() for fault in faults[:MAX_FAULTS_SHOWN]],
        )


class PolicyTie(StillpointError):
    """Facts: `count` of the domains, and the first of them as `domains`, each with its `policies`."""

    code = "policy_tie"
    title = "Two policies select a domain equally well"
    detail_template = "{count} domain(s) would have no policy, because none of those that select it is more specific: {summary}."
    remedy_template = "Name the domain in the selector of the policy that is meant, or take the domain out of the others."

    def __init__(self, ties: Sequence[Mapping[str, Any]]) -> None:
        named = [f"{tie['name']} ({' and '.join(tie['policies'])})" for tie in ties[:MAX_TIES_NAMED]]
        rest = [f"{len(ties) - len(named)} more"] if len(ties) > len(named) else []
        super().__init__(count=len(ties), summary=", ".join([*named, *rest]), domains=[dict(tie) for tie in ties[:MAX_TIES_SHOWN]])
