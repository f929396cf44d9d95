"""The results of a frozen pass: the evidence for its verdict, and the documents that its job shows."""

from typing import Any

from service import metrics
from service.freeze import vss_record, windows_evidence
from service.freeze.passed import Passed
from service.freeze.survey import as_document as survey_document
from service.model.disk_coverage import left_out_with_data, uncovered_disks, unheld_filesystems
from service.model.lifecycle import PhaseName, PhaseOutcome
from service.model.timing import Limits, Timing
from service.model.verdict import Evidence
from service.model.window import FreezeOutcome, ThawOutcome, WindowRecord
from service.model.windows.writer_rules import WriterRules


def evidence(passed: Passed, rules: WriterRules, *, point_was_taken: bool, was_running: bool = True) -> Evidence:
    terms, survey, scope = passed.terms, passed.terms.survey, passed.terms.scope
    writers = passed.vss.judge_writers(rules) if passed.vss is not None else None
    selection, is_linux = terms.selection, writers is None
    return Evidence(
        domain_was_running=was_running,
        point_taken=point_was_taken,
        window=passed.window,
        hold_limit_ms=float(terms.hold_limits.hard_ms),
        hook=survey.hook,
        shut_off_cleanly=survey.shut_off_cleanly,
        expected_filesystems=scope.expected if scope else None,
        unfreezable_filesystems=scope.unfreezable if scope else (),
        unheld_filesystems=unheld_filesystems(survey, terms.taken) if is_linux else (),
        uncovered_disks=uncovered_disks(survey, terms.taken) if is_linux else (),
        left_out=left_out_with_data(survey, selection.left_out, by_name=selection.is_by_name) if selection else (),
        windows=vss_record.windows_evidence(passed, passed.vss, writers) if passed.vss is not None and writers is not None else None,
        fuse=passed.fuse.report if passed.fuse else None,
    )


def count(passed: Passed) -> None:
    """Count the pass in the metrics of this process."""
    metrics.observe_window(passed.window)
    metrics.count_vss(vss_record.newly_failed_classes(passed.vss), hold_was_lost=vss_record.was_lost(passed))


# --- documents --------------------------------------------------------------------------------------


def freeze_document(passed: Passed) -> dict[str, Any]:
    """The `freeze` of the job: the request, and its result."""
    window, scope = passed.window, passed.terms.scope
    reply, thaw = window.freeze, window.thaw
    return {
        "mode": passed.terms.policy.mode.value,
        "outcome": reply.outcome.value,
        "filesystems_frozen": reply.count,
        "message": reply.message,
        "scope": scope.why if scope else None,
        "mountpoints": list(scope.mountpoints) if scope and scope.mountpoints is not None else None,
        "thaw_outcome": thaw.outcome.value,
        "filesystems_thawed": thaw.count,
        "thaw_message": thaw.message,
        "thaw_attempts": thaw.attempts,
        "watchdog_fired": window.watchdog_fired,
        "guard_died": window.guard_died,
        "guard": window.guard.thaw_document() if window.guard else None,
        "frozen_afterwards": window.frozen_afterwards,
        "preflush": passed.preflush,
        "fuse": passed.fuse.report.as_document() if passed.fuse else None,
    }


def timing_document(passed: Passed) -> dict[str, Any]:
    application_ms = passed.vss.writer_limit_ms if passed.vss else None
    limits = Limits(passed.terms.policy.timeout_ms, passed.terms.hold_limits.hard_ms, application_ms)
    return Timing(passed.window.instants, limits, froze=passed.window.freeze.outcome is FreezeOutcome.frozen).as_document()


def evidence_document(passed: Passed, disks_after: dict[str, str]) -> dict[str, Any]:
    """The facts that the verdict rests on. They stay as long as the job. The output of programs is in `raw_texts`.

    `disks_after`: by target, where the disk was after the window. Empty: the service did not look.
    """
    selection = passed.terms.selection
    document: dict[str, Any] = {
        "survey": survey_document(passed.terms.survey),
        "window": passed.window.as_document(),
        "disks_after": disks_after,
        "left_out": selection.left_out if selection else {},
    }
    return document if passed.vss is not None else {**document, "windows": None}


def raw_texts(passed: Passed) -> dict[str, dict[str, Any]]:
    """The raw texts, by their key in the evidence."""
    return {"windows": windows_evidence.raw_document(passed.vss)} if passed.vss is not None else {}


def phase_outcomes(window: WindowRecord) -> dict[PhaseName, tuple[PhaseOutcome, str | None]]:
    froze = window.freeze.outcome is FreezeOutcome.frozen
    thawed = window.thaw.outcome in (ThawOutcome.completed, ThawOutcome.not_needed) or not froze
    return {
        PhaseName.freeze: (PhaseOutcome.ok if froze else PhaseOutcome.failed, window.freeze.message),
        PhaseName.point_in_time: (PhaseOutcome.failed if window.point_error else PhaseOutcome.ok, window.point_error),
        PhaseName.thaw: (PhaseOutcome.ok if thawed else PhaseOutcome.warning, window.thaw.message),
    }
