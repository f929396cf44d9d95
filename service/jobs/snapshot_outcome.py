"""After the window: what the disks say, the verdict, the recovery point, and whether the job succeeded."""

import uuid
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service import bounded_io, metrics
from service.clock import rfc3339
from service.db.tables import RecoveryPoint
from service.disks import overlays
from service.errors import (
    DiscardFailed,
    DisksInDoubt,
    FreezeFailed,
    GuestAlreadyFrozen,
    GuestHookHangs,
    GuestStillFrozen,
    HoldSpent,
    NothingFrozen,
    OverlaysLeft,
    PointIsWritten,
    SnapshotFailed,
    StillpointError,
    StorageNotAnswering,
    ThawUnanswered,
    VerdictBelowRequired,
    VssFreezeFailed,
)
from service.freeze import hung_hook, windows_evidence
from service.freeze.survey import as_document as survey_document
from service.hypervisor.guest import Guest
from service.jobs import vss_record
from service.jobs.attempt import Attempt
from service.jobs.run import JobRun, Phase
from service.jobs.shortfall import Shortfall
from service.model.disk_coverage import left_out_with_data, uncovered_disks, unheld_filesystems
from service.model.foreign_freeze import by_another
from service.model.lifecycle import JobState, PhaseName
from service.model.policy import FreezeMode
from service.model.timing import Limits, Timing
from service.model.verdict import Evidence, Judgement, Verdict, judge, no_point, satisfies
from service.model.window import FreezeOutcome, ThawOutcome
from service.model.windows.vss_outcome import read_freeze_error
from service.model.windows.writer_rules import WriterRules, WritersJudgement
from service.records.raw_texts import Texts


def conclude(run: JobRun, guest: Guest, attempt: Attempt, rules: WriterRules) -> None:
    """Judge what stands, clean up what was not used, and finish the job."""
    with run.phase_that_cannot_be_cancelled(PhaseName.evaluate) as phase:
        if not attempt.point_was_taken and not attempt.is_in_doubt:
            _remove_unused(attempt, phase)
        writers = attempt.vss.judge_writers(rules) if attempt.vss else None
        judgement = _judgement(attempt, writers)
        point = _recovery_point(run, attempt, judgement) if attempt.point_was_taken and attempt.written is None else None
        error = _error(run, guest, attempt, judgement)
    shortfall = Shortfall(run, attempt, error)
    judged: dict[str, Any] = {
        "verdict": judgement.verdict.value,
        "verdict_reasons": judgement.as_documents(),
        "evidence": evidence_document(attempt),
        **vss_record.columns(attempt, judgement, is_tried_again=shortfall.next_try is not None),
    }
    if shortfall.is_discarded:
        run.write({"phase": PhaseName.discard.value, "intent": shortfall.discard_intent.as_document(), **judged}, raw_texts_of(attempt))
        with run.phase_that_cannot_be_cancelled(PhaseName.discard):
            error = shortfall.discard(guest)
        point = point if isinstance(error, DiscardFailed) else None
    metrics.observe_window(attempt.window)
    metrics.count_vss(vss_record.newly_failed_classes(attempt), hold_was_lost=vss_record.was_lost(attempt))
    recorded = {"recovery_point": point_document(point) if point else None, "error": error.as_document() if error else None}
    state = JobState.failed if error else JobState.succeeded
    run.finish(state, {"phase": None, **judged, **recorded}, point, shortfall.next_try, raw_texts_of(attempt))


def _judgement(attempt: Attempt, writers: WritersJudgement | None) -> Judgement:
    if attempt.is_in_doubt:
        return no_point("disks_in_doubt", "Not every disk is on its overlay: there is no one point in time.")
    if attempt.written is not None:
        return no_point("point_is_written", f"{attempt.written[1]} writes to {attempt.written[0]}, which should have been the point.")
    return judge(evidence(attempt, writers, was_taken=attempt.point_was_taken))


def _remove_unused(attempt: Attempt, phase: Phase) -> None:
    try:
        overlays.remove(attempt.overlays)
    except OverlaysLeft as error:
        attempt.left = error.detail
        phase.warn(error.detail)


def freeze_document(attempt: Attempt) -> dict[str, Any]:
    """The freeze as the job shows it: what was asked, what came of it."""
    reply, thaw, scope = attempt.window.freeze, attempt.window.thaw, attempt.scope
    return {
        "mode": attempt.policy.mode.value,
        "outcome": reply.outcome.value,
        "filesystems_frozen": reply.count,
        "message": reply.message,
        "scope": scope.why if scope else None,
        "mountpoints": list(scope.mountpoints) if scope and scope.mountpoints is not None else None,
        "thaw_outcome": thaw.outcome.value,
        "filesystems_thawed": thaw.count,
        "thaw_message": thaw.message,
        "thaw_attempts": thaw.attempts,
        "watchdog_fired": attempt.window.watchdog_fired,
        "guard_died": attempt.window.guard_died,
        "guard": attempt.window.guard.as_document() if attempt.window.guard else None,
        "frozen_afterwards": attempt.window.frozen_afterwards,
        "preflush": attempt.preflush,
        "fuse": attempt.fuse.report.as_document() if attempt.fuse else None,
    }


def timing_document(attempt: Attempt) -> dict[str, Any]:
    application_ms = attempt.vss.writer_limit_ms if attempt.vss else None
    limits = Limits(attempt.policy.timeout_ms, attempt.hold_limits.hard_ms, application_ms)
    return Timing(attempt.window.instants, limits, froze=attempt.window.freeze.outcome is FreezeOutcome.frozen).as_document()


def evidence(attempt: Attempt, writers: WritersJudgement | None, *, was_taken: bool) -> Evidence:
    scope, found = attempt.scope, attempt.found
    selection = attempt.selection
    left_out = left_out_with_data(found, selection.left_out, by_name=selection.is_by_name) if selection else ()
    is_linux = writers is None
    return Evidence(
        domain_was_running=attempt.was_running,
        snapshot_taken=was_taken,
        window=attempt.window,
        hold_limit_ms=float(attempt.hold_limits.hard_ms),
        hook=found.hook,
        shut_off_cleanly=found.shut_off_cleanly,
        expected_filesystems=scope.expected if scope else None,
        unfreezable_filesystems=scope.unfreezable if scope else (),
        unheld_filesystems=unheld_filesystems(found, attempt.taken) if is_linux else (),
        uncovered_disks=uncovered_disks(found, attempt.taken) if is_linux else (),
        left_out=left_out,
        windows=vss_record.windows_evidence(attempt, writers) if writers else None,
        fuse=attempt.fuse.report if attempt.fuse else None,
    )


def _error(run: JobRun, guest: Guest, attempt: Attempt, judgement: Judgement) -> StillpointError | None:
    """The worst that is true of the job; None: it succeeded."""
    window = attempt.window
    if window.thaw.outcome is ThawOutcome.unanswered:
        return still_frozen(guest, attempt)
    if attempt.is_in_doubt:
        return DisksInDoubt(
            domain=guest.name,
            switched=", ".join(target for target, is_on in attempt.switched.items() if is_on),
            unswitched=", ".join(target for target, is_on in attempt.switched.items() if not is_on),
        )
    if attempt.written is not None:
        file, holder = attempt.written
        moved = ", ".join(overlay.path for overlay in attempt.overlays)
        return PointIsWritten(domain=guest.name, file=file, holder=holder, overlays=moved)
    if not attempt.point_was_taken:
        return why_no_point(guest, attempt)
    required = required_verdict(run, attempt)
    if not satisfies(judgement.verdict, required, attempt.found.shut_off_cleanly):
        return VerdictBelowRequired(verdict=judgement.verdict.value, required=required.value, kept="is kept with its true verdict")
    return None


def why_no_point(guest: Guest, attempt: Attempt) -> StillpointError:
    window = attempt.window
    if window.freeze.outcome is FreezeOutcome.blocked and window.frozen_afterwards:
        seen = window.instants.freeze_reply
        since = rfc3339(attempt.wall.at(seen)) if seen is not None else None
        # It was thawed when this job looked, and this job froze nothing.
        return GuestAlreadyFrozen(domain=guest.name, frozen_by=by_another(), frozen_since=since)
    if attempt.vss is not None and window.freeze.outcome is FreezeOutcome.refused:
        failure = read_freeze_error(window.freeze.message or "")
        return VssFreezeFailed(
            domain=guest.name,
            what=failure.detail,
            message=(window.freeze.message or "").strip(),
            advice=failure.remedy,
            vss_code=failure.code,
            step=failure.step,
            transient=failure.is_transient,
        )
    if window.was_too_late:
        spent = "the time for it had passed before it could be asked for"
        why = "its thaw guard died" if window.guard_died else spent
        return HoldSpent(domain=guest.name, why=why)
    expected = attempt.scope.expected if attempt.scope else None
    if window.freeze.outcome is FreezeOutcome.empty and expected:
        return NothingFrozen(domain=guest.name, expected=expected)
    if not window.snapshot_was_called:
        return FreezeFailed(domain=guest.name, outcome=window.freeze.outcome.value, message=window.freeze.message or "nothing was frozen")
    state = "every disk is on the file it was on before"
    state += f". {attempt.left.rstrip('.')}" if attempt.left else ", and the unused overlays were removed"
    return SnapshotFailed(domain=guest.name, message=window.snapshot_error or "the call returned, but no disk moved", disks_state=state)


def required_verdict(run: JobRun, attempt: Attempt) -> Verdict:
    """What the caller demands; without a word of theirs, what the freeze mode promises."""
    asked = run.claim.request.get("required_verdict")
    if asked is not None:
        return Verdict(asked)
    if attempt.policy.mode is FreezeMode.required and attempt.was_running:
        return Verdict.filesystem
    return Verdict.crash


def still_frozen(guest: Guest, attempt: Attempt) -> StillpointError:
    """No thaw was answered. What the guest writes to its disks tells whether it is frozen."""
    message = (attempt.window.thaw.message or "no answer").rstrip(".")
    if attempt.window.writes_afterwards:
        return ThawUnanswered(domain=guest.name, message=message)
    tried_ms = timing_document(attempt)["thaw_ms"]
    disks = () if attempt.window.thaw.agent_is_lost else hung_hook.disks_that_go_on(guest, attempt.found)
    if not disks:
        left_s = attempt.fuse.seconds_left() if attempt.fuse is not None else None
        fuse = f". The fuse in the guest thaws it in {left_s:.0f} s at the latest" if left_s is not None else ""
        return GuestStillFrozen(domain=guest.name, tried_ms=tried_ms, message=message + fuse)
    linux, was_frozen = attempt.found.linux, attempt.window.freeze.outcome is FreezeOutcome.frozen
    return GuestHookHangs(
        domain=guest.name,
        command="its thaw" if was_frozen else "its freeze and then a thaw",
        tried_ms=tried_ms,
        disks=", ".join(disks),
        hook=(linux.hook_path if linux else None) or "one that could not be read",
    )


def _recovery_point(run: JobRun, attempt: Attempt, judgement: Judgement) -> RecoveryPoint:
    instant = attempt.window.instants.snapshot_done
    return RecoveryPoint(
        id=str(uuid.uuid4()),
        job_id=run.claim.job_id,
        kind="snapshot",
        domain_id=run.claim.domain_id,
        domain_name=run.claim.domain_name,
        host_id=run.claim.host_id,
        created_at=datetime.now(UTC),
        point_in_time_at=attempt.wall.at(instant) if instant else datetime.now(UTC),
        verdict=judgement.verdict.value,
        labels=run.claim.labels,
        disks=[disk_document(overlay) for overlay in attempt.overlays],
        size_bytes=sum(_allocated(overlay.base) or 0 for overlay in attempt.overlays),
    )


def disk_document(overlay: overlays.Overlay) -> dict[str, Any]:
    return {
        "target": overlay.target,
        "file": overlay.base,
        "format": overlay.base_format,
        "virtual_size": overlay.virtual_size,
        "allocated": _allocated(overlay.base),
        "overlay": overlay.path,
    }


def _allocated(path: str) -> int | None:
    try:
        return bounded_io.answered("looking at", path, Path(path).stat).st_blocks * 512
    except (OSError, StorageNotAnswering):
        return None


def point_document(point: RecoveryPoint) -> dict[str, Any]:
    return {"id": point.id, "point_in_time_at": rfc3339(point.point_in_time_at), "verdict": point.verdict, "disks": point.disks}


_DISK_AFTER = {True: "on the overlay", False: "unchanged", None: "on a file that is not of this job"}


def evidence_document(attempt: Attempt) -> dict[str, Any]:
    """The facts that the verdict rests on: they stay as long as the job. What programs printed is in `raw_texts_of`."""
    document: dict[str, Any] = {
        "survey": survey_document(attempt.found),
        "window": attempt.window.as_document(),
        "disks_after": {target: _DISK_AFTER[is_on] for target, is_on in attempt.switched.items()},
        "left_out": attempt.selection.left_out if attempt.selection else {},
    }
    return document if attempt.vss is not None else {**document, "windows": None}


def raw_texts_of(attempt: Attempt) -> Texts:
    return {"windows": windows_evidence.raw_document(attempt.vss)} if attempt.vss is not None else {}
