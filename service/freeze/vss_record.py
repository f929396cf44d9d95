"""The record of a Windows job: the ten steps, the outcome, the writers, auto-recovery; as columns and as evidence."""

from dataclasses import asdict, dataclass
from typing import Any

from service.freeze.passed import Passed, Terms
from service.freeze.windows_evidence import VssEvidence
from service.model.inventory import Survey
from service.model.verdict import Judgement, Verdict
from service.model.window import FreezeOutcome, WindowRecord
from service.model.windows import auto_recovery, vss_steps, writer_rules
from service.model.windows.auto_recovery import AutoRecovery
from service.model.windows.verdict import WindowsEvidence
from service.model.windows.volume_coverage import VolumeCoverage, VolumeFacts, judge_volumes
from service.model.windows.vss_outcome import VssOutcome, read_window
from service.model.windows.vss_steps import Clock, Retry, StepFacts
from service.model.windows.writer_changes import ChangeKind
from service.model.windows.writer_rules import WritersJudgement


def windows_evidence(passed: Passed, vss: VssEvidence, writers: WritersJudgement) -> WindowsEvidence:
    coverage = _coverage(passed.terms, vss, passed.window)
    return WindowsEvidence(
        reading=read_window(passed.window, vss.nt),
        writers=writers,
        uncovered_volumes=coverage.not_held if coverage else None,
        bare_disks=coverage.bare_disks if coverage else (),
        unproven_volumes=coverage.unproven if coverage else (),
        sql=vss.sql,
    )


def _coverage(terms: Terms, evidence: VssEvidence, window: WindowRecord) -> VolumeCoverage | None:
    """None: the agent did not list the volumes."""
    volumes = terms.survey.filesystems
    if volumes is None:
        return None
    removable = frozenset(disk.target for disk in terms.survey.disks if disk.removable)
    taken = [disk.target for disk in terms.taken]
    return judge_volumes(VolumeFacts(volumes, taken, evidence.drive_types, window.freeze.count, removable))


@dataclass(frozen=True)
class VssRecord:
    """The columns of a job about VSS."""

    vss: dict[str, Any]
    auto_recovery: dict[str, Any]
    vss_outcome: str | None = None
    writer_failed: bool | None = None

    def as_columns(self) -> dict[str, Any]:
        return asdict(self)


def record(passed: Passed, judgement: Judgement, *, is_tried_again: bool = False) -> VssRecord:
    if passed.vss is None:
        return VssRecord({"applicable": False}, _no_vss(passed.terms.survey).as_document())
    evidence = passed.vss
    reading = read_window(passed.window, evidence.nt)
    recovery = _recovery(passed, evidence)
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
        "steps": [step.as_document() for step in _steps(passed, evidence, recovery, _retry(judgement, is_tried_again))],
        "writers": writer_rules.as_documents(comparison),
        "writers_source": "vssadmin" if is_known else None,
        "writers_unavailable_reason": evidence.after.unavailable or (None if is_known else _problem(evidence)),
        "sql_server": evidence.sql.as_document() if evidence.sql else None,
        "drift": [change.as_document() for change in passed.writers.drift],
    }
    failed = any(change.after is not None and change.after.failed for change in comparison.changes)
    return VssRecord(document, recovery.as_document(), reading.outcome.value, failed if failed or is_known else None)


def newly_failed_classes(vss: VssEvidence | None) -> list[str]:
    """Class ids of the writers that failed during this freeze."""
    if vss is None:
        return []
    return [change.class_id for change in vss.comparison.of(ChangeKind.newly_failed)]


def was_lost(passed: Passed) -> bool:
    """The guest was frozen and the hold did not last until the thaw."""
    if passed.vss is None or passed.window.freeze.outcome is not FreezeOutcome.frozen:
        return False
    return read_window(passed.window, passed.vss.nt).outcome not in (VssOutcome.completed, VssOutcome.complete_failed)


def _problem(evidence: VssEvidence) -> str | None:
    report = evidence.after.report
    return report.problem.value if report is not None and report.problem is not None else None


def _no_vss(survey: Survey) -> AutoRecovery:
    return auto_recovery.derive(survey.agent.os, frozen_by_vss=False, is_windows=survey.is_windows)


def _recovery(passed: Passed, evidence: VssEvidence) -> AutoRecovery:
    report = evidence.after.report or evidence.before.report
    frozen = passed.window.freeze.outcome is FreezeOutcome.frozen
    writers = report.writers if report else ()
    return auto_recovery.derive(passed.terms.survey.agent.os, frozen_by_vss=frozen, writers=writers, is_windows=True)


def _steps(passed: Passed, evidence: VssEvidence, recovery: AutoRecovery, retry: Retry) -> list[vss_steps.Step]:
    return vss_steps.steps(
        StepFacts(
            window=passed.window,
            clock=Clock(passed.wall.monotonic_ns, passed.wall.wall),
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
