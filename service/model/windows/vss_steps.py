"""The ten steps of a shadow copy (F§5.1), each with what this job saw of the step.

The agent answers twice: the freeze within step 5, and the thaw after step 8. So a single step of 1 to 5, or of 7 and 8, has no
time of its own (F§6.3).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from service.model.timing import WindowInstants, ms_between
from service.model.window import FreezeOutcome, ThawOutcome, WindowRecord
from service.model.windows.auto_recovery import RecoveryMode
from service.model.windows.vss_outcome import BEFORE_VSS, VssDoubt, VssOutcome, VssReading, read_freeze_error, read_window
from service.model.windows.well_known_writers import APPLICATION_FREEZE_LIMIT_MS, EXCHANGE_FREEZE_LIMIT_MS

HOLD_LIMIT_MS = 10_000.0
"""volsnap ends IOCTL_VOLSNAP_FLUSH_AND_HOLD_WRITES by itself; it cannot be configured (F§5.1, Microsoft)."""


class Observation(StrEnum):
    observed = "observed"
    inferred = "inferred"
    """Not seen. Something that was seen is impossible without this step."""
    not_observable = "not_observable"
    did_not_happen = "did_not_happen"


class Retry(StrEnum):
    """Step 9: the decision of this service after an error."""

    not_needed = "not_needed"
    planned = "planned"
    given_up = "given_up"
    undecided = "undecided"


@dataclass(frozen=True)
class Clock:
    """Ties monotonic instants to the wall: both read at the same moment."""

    monotonic_ns: int
    wall: datetime

    def at(self, instant_ns: int) -> str:
        return (self.wall + timedelta(microseconds=(instant_ns - self.monotonic_ns) / 1000)).isoformat()


@dataclass(frozen=True)
class StepFacts:
    """`nt`: kernel version of the guest. `writer_limit_ms`: the shortest freeze limit among its writers."""

    window: WindowRecord
    clock: Clock
    nt: tuple[int, int] | None
    recovery: RecoveryMode
    retry: Retry = Retry.undecided
    writer_limit_ms: float = APPLICATION_FREEZE_LIMIT_MS


@dataclass(frozen=True)
class Step:
    step: int
    name: str
    who: str
    observation: Observation
    detail: str
    limit_ms: float | None = None
    limit_source: str | None = None
    started_at: str | None = None
    duration_ms: float | None = None

    def as_document(self) -> dict[str, Any]:
        return {**vars(self), "observation": self.observation.value}


def steps(facts: StepFacts) -> list[Step]:
    """Ten rows, in order, in every case."""
    seen = _Seen(facts, read_window(facts.window, facts.nt))
    findings = {**_freezing(seen), 6: _holding(seen), **_thawing(seen), 9: _retrying(seen), 10: _recovering(seen)}
    return [_row(number, findings[number], seen) for number in range(1, 11)]


# --- the rows -------------------------------------------------------------------------------------

_NAMES = {
    1: ("gather_metadata", "requester"),
    2: ("describe_components", "writers"),
    3: ("notify_writers", "vss"),
    4: ("prepare_data", "writers"),
    5: ("freeze", "vss"),
    6: ("create_shadow_copy", "provider"),
    7: ("release_file_system_writes", "vss"),
    8: ("thaw_applications", "vss"),
    9: ("retry_or_report", "requester"),
    10: ("return_location_and_auto_recover", "vss"),
}

_HOLD_SOURCE = "Windows: the kernel (volsnap) releases held writes after 10 s"
_WRITER_SOURCE = "Microsoft: writers time out 60 s after Freeze without a Thaw"
_EXCHANGE_SOURCE = "Microsoft: the Exchange writer times out 20 s after Freeze without a Thaw"


@dataclass(frozen=True)
class _Seen:
    facts: StepFacts
    reading: VssReading

    @property
    def window(self) -> WindowRecord:
        return self.facts.window

    @property
    def at(self) -> WindowInstants:
        return self.facts.window.instants


@dataclass(frozen=True)
class _Finding:
    """`started`: a monotonic instant that is known to be the step's own beginning."""

    observation: Observation
    detail: str
    started: int | None = None
    duration_ms: float | None = None


def _row(number: int, finding: _Finding, seen: _Seen) -> Step:
    name, who = _NAMES[number]
    limit_ms, source = _limit(number, seen.facts)
    started = seen.facts.clock.at(finding.started) if finding.started is not None else None
    return Step(number, name, who, finding.observation, finding.detail, limit_ms, source, started, finding.duration_ms)


def _limit(number: int, facts: StepFacts) -> tuple[float | None, str | None]:
    if number == 5:
        is_short = facts.writer_limit_ms <= EXCHANGE_FREEZE_LIMIT_MS
        return facts.writer_limit_ms, _EXCHANGE_SOURCE if is_short else _WRITER_SOURCE
    return (HOLD_LIMIT_MS, _HOLD_SOURCE) if number == 6 else (None, None)


# --- 1 to 5: one call, one answer -----------------------------------------------------------------


def _freezing(seen: _Seen) -> Mapping[int, _Finding]:
    freeze, sent = seen.window.freeze, seen.at.freeze_sent
    match freeze.outcome:
        case FreezeOutcome.frozen if seen.reading.outcome is not VssOutcome.not_frozen:
            return _frozen(seen)
        case FreezeOutcome.refused | FreezeOutcome.hook_failed:
            return _refused(freeze.message or "", sent)
        case FreezeOutcome.unanswered:
            text = "The freeze was requested and not answered, so it is not known whether VSS reached this step."
            return _all(Observation.not_observable, text, sent)
        case FreezeOutcome.frozen | FreezeOutcome.empty:
            text = f"The agent answered a count of {freeze.count}, so it is not known which step VSS reached."
            return _all(Observation.not_observable, text, sent)
        case _:
            return _all(Observation.did_not_happen, "No freeze was requested.", None)


NOT_OF_EACH_WRITER = "The reply does not say of each writer whether it took part to the end."


def _all(observation: Observation, detail: str, sent: int | None) -> dict[int, _Finding]:
    return {number: _Finding(observation, detail, sent if number == 1 else None) for number in range(1, 6)}


def _frozen(seen: _Seen) -> dict[int, _Finding]:
    freeze_ms = ms_between(seen.at.freeze_sent, seen.at.freeze_reply) or 0.0
    together = f"Steps 1 to 5 took {freeze_ms:.1f} ms together."
    findings = _all(Observation.inferred, f"The freeze was answered, so this step was done before. {together}", seen.at.freeze_sent)
    begun = f"The step begins with the freeze request. {together}"
    findings[1] = _Finding(Observation.observed, begun, seen.at.freeze_sent)
    count = seen.window.freeze.count
    done = f"The step ends with the freeze reply, of {count} volume(s). {together} {NOT_OF_EACH_WRITER}"
    findings[5] = _Finding(Observation.observed, done)
    return findings


def _refused(message: str, sent: int | None) -> dict[int, _Finding]:
    failure = read_freeze_error(message)
    if failure.step is None:
        return _all(Observation.not_observable, f"{failure.detail} The step is not known. The agent said: {message.strip()}", sent)
    if failure.step == BEFORE_VSS:
        return _all(Observation.did_not_happen, f"{failure.detail} The agent said: {message.strip()}", None)
    findings = {}
    for number in range(1, 6):
        started = sent if number == 1 else None
        if number < failure.step:
            findings[number] = _Finding(Observation.inferred, f"VSS reached step {failure.step}, so this step was done.", started)
        elif number == failure.step:
            findings[number] = _Finding(
                Observation.observed, f"This step failed. {failure.detail} The agent said: {message.strip()}", started
            )
        else:
            findings[number] = _Finding(Observation.did_not_happen, f"Step {failure.step} failed.", started)
    return findings


# --- 6: the hold ----------------------------------------------------------------------------------


def _holding(seen: _Seen) -> _Finding:
    if seen.window.freeze.outcome is FreezeOutcome.unanswered:
        return _Finding(Observation.not_observable, "Without a freeze reply it is not known whether writes were held.")
    if seen.reading.outcome is VssOutcome.not_frozen:
        return _Finding(Observation.did_not_happen, "Writes were not held.")
    hold_ms, began = seen.at.hold_ms, seen.at.freeze_reply
    span = f"{hold_ms or 0.0:.1f} ms from the freeze reply to the thaw request. Windows held the writes from a little before."
    match seen.reading.hold_held:
        case True:
            where = _point(seen)
            return _Finding(Observation.observed, f"The hold lasted {span} {where}", began, hold_ms)
        case False:
            return _Finding(Observation.observed, f"{seen.reading.detail} It was {span} The time of the release is not known.", began)
        case None:
            return _Finding(
                Observation.inferred, f"The hold began before the freeze reply. Nothing proves how long it lasted. It was {span}", began
            )


def _point(seen: _Seen) -> str:
    if not seen.window.point_was_requested:
        return "No snapshot was taken in it."
    if seen.at.point_in_time_was_inside_the_hold:
        return "The host's snapshot is this step, and was taken inside the hold."
    return "The host's snapshot was not taken inside the hold."


# --- 7 and 8: one call, one answer ----------------------------------------------------------------


def _thawing(seen: _Seen) -> Mapping[int, _Finding]:
    release, thaw = _release_and_thaw(seen)
    return {7: release, 8: thaw}


def _release_and_thaw(seen: _Seen) -> tuple[_Finding, _Finding]:
    outcome, at = seen.reading.outcome, seen.at
    if outcome is VssOutcome.not_frozen:
        nothing = _Finding(Observation.did_not_happen, "Nothing was frozen.")
        return nothing, nothing
    if seen.window.freeze.outcome is FreezeOutcome.unanswered or seen.window.thaw.outcome is ThawOutcome.unanswered:
        unseen = _Finding(Observation.not_observable, "The agent did not answer, so the time of this step is not known.")
        return unseen, unseen
    took = f"Steps 7 and 8 took {ms_between(at.thaw_sent, at.thaw_reply) or 0.0:.1f} ms together. Their single times are not known."
    thawed = _Finding(Observation.inferred, _thaw_detail(seen, took))
    if seen.reading.hold_held is True:
        return _Finding(Observation.inferred, f"The thaw was answered. {took}", at.thaw_sent), thawed
    unseen = _Finding(Observation.not_observable, "Windows or the agent released the writes at an unknown time. The guest is thawed now.")
    return unseen, thawed if outcome is not VssOutcome.lost else unseen


def _thaw_detail(seen: _Seen, took: str) -> str:
    if seen.reading.doubt is VssDoubt.aborted_and_ignored:
        return f"{seen.reading.detail} {took}"
    if seen.reading.outcome is VssOutcome.completed:
        return f"The thaw was answered. {took} {NOT_OF_EACH_WRITER}"
    return f"{seen.reading.detail} VSS tells its writers that the backup was aborted. {took}"


# --- 9 and 10 -------------------------------------------------------------------------------------

_RETRIES = {
    Retry.not_needed: "No failure needs a retry.",
    Retry.planned: "VSS failed. This service tries again after a pause, in a new freeze window.",
    Retry.given_up: "VSS failed. This service reports the failure and does not try again.",
    Retry.undecided: "The decision is not made yet.",
}


def _retrying(seen: _Seen) -> _Finding:
    retry = seen.facts.retry
    happened = retry in (Retry.planned, Retry.given_up)
    return _Finding(Observation.observed if happened else Observation.did_not_happen, _RETRIES[retry])


def _recovering(seen: _Seen) -> _Finding:
    if seen.reading.outcome is VssOutcome.not_frozen:
        return _Finding(Observation.did_not_happen, "No shadow copy was made, so nothing could be recovered.")
    never = "The agent's provider has no writable copy, so auto-recovery cannot run."
    match seen.facts.recovery:
        case RecoveryMode.disabled_by_requester | RecoveryMode.unsupported_flag_final_commit_aborted:
            return _Finding(
                Observation.did_not_happen, f"{never} The agent asks for a copy without auto-recovery. This is derived, not seen."
            )
        case RecoveryMode.disabled_requested_support_uncertain:
            return _Finding(Observation.did_not_happen, f"{never} It is not known whether this Windows supports the agent's request.")
        case _:
            return _Finding(Observation.not_observable, f"{never} The Windows version could not be read.")
