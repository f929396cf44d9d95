"""The record of a Windows job: the ten steps, the outcome, the writers, auto-recovery; as columns and as evidence."""

from typing import Any

from service.freeze.windows_evidence import VssEvidence
from service.jobs.attempt import Attempt
from service.model.verdict import Judgement, Verdict
from service.model.window import FreezeOutcome
from service.model.windows import auto_recovery, vss_steps, writer_rules
from service.model.windows.auto_recovery import AutoRecovery
from service.model.windows.verdict import WindowsEvidence
from service.model.windows.volume_coverage import VolumeCoverage, VolumeFacts, judge_volumes
from service.model.windows.vss_outcome import VssOutcome, read_window
from service.model.windows.vss_steps import Clock, Retry, StepFacts
from service.model.windows.writer_changes import ChangeKind
from service.model.windows.writer_rules import WritersJudgement


def windows_evidence(attempt: Attempt, writers: WritersJudgement) -> WindowsEvidence:
    assert attempt.vss is not None
    coverage = _coverage(attempt, attempt.vss)
    return WindowsEvidence(
        reading=read_window(attempt.window, attempt.vss.nt),
        writers=writers,
        uncovered_volumes=coverage.not_held if coverage else None,
        bare_disks=coverage.bare_disks if coverage else (),
        unproven_volumes=coverage.unproven if coverage else (),
        sql=attempt.vss.sql,
    )


def _coverage(attempt: Attempt, evidence: VssEvidence) -> VolumeCoverage | None:
    """None: the agent did not list the volumes."""
    volumes = attempt.found.filesystems
    if volumes is None:
        return None
    removable = frozenset(disk.target for disk in attempt.found.disks if disk.removable)
    taken = [disk.target for disk in attempt.taken]
    return judge_volumes(VolumeFacts(volumes, taken, evidence.drive_types, attempt.window.freeze.count, removable))


def columns(attempt: Attempt, judgement: Judgement, *, is_tried_again: bool = False) -> dict[str, Any]:
    """The columns `vss`, `vss_outcome`, `writer_failed` and `auto_recovery` of the job."""
    if attempt.vss is None:
        return {"vss": {"applicable": False}, "vss_outcome": None, "writer_failed": None, "auto_recovery": _no_vss(attempt).as_document()}
    evidence = attempt.vss
    reading = read_window(attempt.window, evidence.nt)
    recovery = _recovery(attempt, evidence)
    comparison = evidence.comparison
    is_known = evidence.after.report is not None and evidence.after.report.problem is None
    document = {
        "applicable": True,
        "outcome": reading.outcome.value,
        "detail": reading.detail,
        "doubt": reading.doubt,
        "hresult": f"0x{reading.hresult:08X}" if reading.hresult is not None else None,
        "backup_type": auto_recovery.backup_type(evidence.generation, evidence.option).value,
        "context": recovery.context,
        "steps": [step.as_document() for step in _steps(attempt, evidence, recovery, _retry(judgement, is_tried_again))],
        "writers": writer_rules.as_documents(comparison),
        "writers_source": "vssadmin" if is_known else None,
        "writers_unavailable_reason": evidence.after.unavailable or (None if is_known else _problem(evidence)),
        "sql_server": evidence.sql.as_document() if evidence.sql else None,
        "drift": [change.as_document() for change in attempt.drift],
    }
    failed = any(change.after is not None and change.after.failed for change in comparison.changes)
    return {
        "vss": document,
        "vss_outcome": reading.outcome.value,
        "writer_failed": failed if failed or is_known else None,
        "auto_recovery": recovery.as_document(),
    }


def newly_failed_classes(attempt: Attempt) -> list[str]:
    """Class ids of the writers that this freeze saw fail."""
    if attempt.vss is None:
        return []
    return [change.class_id for change in attempt.vss.comparison.of(ChangeKind.newly_failed)]


def was_lost(attempt: Attempt) -> bool:
    """The guest was frozen and the hold did not last until the thaw."""
    if attempt.vss is None or attempt.window.freeze.outcome is not FreezeOutcome.frozen:
        return False
    return read_window(attempt.window, attempt.vss.nt).outcome not in (VssOutcome.completed, VssOutcome.complete_failed)


def _problem(evidence: VssEvidence) -> str | None:
    report = evidence.after.report
    return report.problem.value if report is not None and report.problem is not None else None


def _no_vss(attempt: Attempt) -> AutoRecovery:
    return auto_recovery.derive(attempt.found.agent.os, frozen_by_vss=False, is_windows=attempt.found.is_windows)


def _recovery(attempt: Attempt, evidence: VssEvidence) -> AutoRecovery:
    report = evidence.after.report or evidence.before.report
    frozen = attempt.window.freeze.outcome is FreezeOutcome.frozen
    writers = report.writers if report else ()
    return auto_recovery.derive(attempt.found.agent.os, frozen_by_vss=frozen, writers=writers, is_windows=True)


def _steps(attempt: Attempt, evidence: VssEvidence, recovery: AutoRecovery, retry: Retry) -> list[vss_steps.Step]:
    return vss_steps.steps(
        StepFacts(
            window=attempt.window,
            clock=Clock(attempt.wall.monotonic_ns, attempt.wall.wall),
            nt=evidence.nt,
            recovery=recovery.mode,
            retry=retry,
            writer_limit_ms=evidence.writer_limit_ms,
        )
    )


def _retry(judgement: Judgement, is_tried_again: bool) -> Retry:
    if is_tried_again:
        return Retry.planned
    good = (Verdict.application, Verdict.application_unverified, Verdict.filesystem)
    return Retry.not_needed if judgement.verdict in good else Retry.given_up
