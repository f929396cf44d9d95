"""The job kind `quiesce`: a guest held frozen while the caller takes the point in time with means of its own."""

from dataclasses import dataclass
from typing import Any

from service import bounded_io, metrics
from service.db.tables import Gate
from service.errors import DomainStateUnsuitable, StillpointError, VerdictBelowRequired
from service.freeze.window import WindowGuard
from service.hypervisor.guest import Guest
from service.jobs import snapshot_outcome, vss_record
from service.jobs.attempt import Attempt
from service.jobs.gate_hold import GateHold
from service.jobs.run import JobRun
from service.jobs.snapshot import (
    BEFORE_THE_WINDOW,
    SnapshotSettings,
    announce_window,
    flush,
    freeze_policy,
    look,
    pass_window,
    read_writers_after,
    read_writers_before,
    record_window,
)
from service.model.checks import why_not_freezable
from service.model.gate import judge_gate, never_opened
from service.model.inventory import DomainState
from service.model.lifecycle import JobState, PhaseName
from service.model.scope import freeze_scope
from service.model.verdict import Judgement, Verdict, satisfies
from service.model.window import ThawOutcome
from service.model.windows.writer_rules import WriterRules
from service.records import gates


def run_gate(run: JobRun, guest: Guest, settings: SnapshotSettings) -> None:
    """Every phase of the job, in order; finishes the job. Raises StillpointError where it ended before the window."""
    attempt = Attempt(freeze_policy(run))
    with bounded_io.refusals(BEFORE_THE_WINDOW):
        with run.phase(PhaseName.preflight):
            _preflight(run, guest, attempt)
        read_writers_before(run, guest, attempt)
        appointed = settings.guards.start_guard(run.claim.job_id, run.claim.domain_id, guest.name)
    with appointed as guard:
        with bounded_io.refusals(BEFORE_THE_WINDOW):
            with run.phase(PhaseName.prepare) as phase:
                flush(guest, attempt, phase)
                guard.wait_until_ready()
            announce_window(run, guest, attempt)
        held = _hold(run, guest, attempt, guard, settings.thaw_patience_s)
    read_writers_after(run, guest, attempt, settings.writers_settle_s)
    _conclude(run, guest, attempt, held, settings.writer_rules)
    settings.guards.discard_report(run.claim.job_id)


def columns_of_none(run: JobRun) -> dict[str, Any]:
    """Of a job that ended before its gate could open."""
    judgement = never_opened()
    return {
        "verdict": judgement.verdict.value,
        "verdict_reasons": judgement.as_documents(),
        "result": gates.result_document(None, int(run.claim.request["freeze"]["hold_limit_ms"]), held=False),
    }


def _preflight(run: JobRun, guest: Guest, attempt: Attempt) -> None:
    found = look(run, guest, attempt)
    if found.state is not DomainState.running:
        raise DomainStateUnsuitable(domain=found.domain, state="not running, so there is nothing to freeze")
    attempt.policy.hold_limits(is_windows=found.is_windows)
    # Whatever the caller copies, it is frozen: which disks that will be is not known here.
    attempt.scope = freeze_scope(found, found.disks)
    fault = why_not_freezable(found, attempt.scope)
    if fault is not None:
        raise fault


@dataclass(frozen=True)
class _Held:
    """`gate`: the row after the window, which knows what the caller was told."""

    gate: Gate | None
    was_released: bool
    error: StillpointError | None

    @property
    def was_opened(self) -> bool:
        return self.gate is not None and self.gate.opened_at is not None


def _hold(run: JobRun, guest: Guest, attempt: Attempt, guard: WindowGuard, thaw_patience_s: float) -> _Held:
    hold = GateHold(run.database, run.claim.job_id, guest.name, guard, is_frozen=guest.is_frozen, ends_at=lambda: run.ends_at)
    pass_window(guest, attempt, hold.hold, thaw_patience_s=thaw_patience_s, guard=hold)
    closed: list[Gate | None] = []
    run.write_beside(lambda session: closed.append(gates.close(session, run.claim.job_id)))
    record_window(run, attempt)
    return _Held(closed[-1], hold.was_released, hold.error)


# --- after the window -----------------------------------------------------------------------------


def _conclude(run: JobRun, guest: Guest, attempt: Attempt, held: _Held, rules: WriterRules) -> None:
    with run.phase_that_cannot_be_cancelled(PhaseName.evaluate):
        writers = attempt.vss.judge_writers(rules) if attempt.vss else None
        evidence = snapshot_outcome.evidence(attempt, writers, was_taken=held.was_opened)
        judgement = judge_gate(evidence, was_released=held.was_released)
        error = _error(run, guest, attempt, held, judgement)
    metrics.observe_window(attempt.window)
    metrics.count_vss(vss_record.newly_failed_classes(attempt), hold_was_lost=vss_record.was_lost(attempt))
    lasted = held.was_released and judgement.verdict not in (Verdict.none, Verdict.crash)
    run.finish(
        JobState.failed if error else JobState.succeeded,
        {
            "phase": None,
            "verdict": judgement.verdict.value,
            "verdict_reasons": judgement.as_documents(),
            "evidence": snapshot_outcome.evidence_document(attempt),
            "result": gates.result_document(held.gate, attempt.hold_limits.hard_ms, held=lasted),
            "error": error.as_document() if error else None,
            **vss_record.columns(attempt, judgement),
        },
        texts=snapshot_outcome.raw_texts_of(attempt),
    )


def _error(run: JobRun, guest: Guest, attempt: Attempt, held: _Held, judgement: Judgement) -> StillpointError | None:
    """The worst that is true of the job; None: it succeeded."""
    if attempt.window.thaw.outcome is ThawOutcome.unanswered:
        return snapshot_outcome.still_frozen(guest, attempt)
    if not attempt.window.snapshot_was_called:
        return snapshot_outcome.why_no_point(guest, attempt)
    if held.error is not None:
        return held.error
    required = snapshot_outcome.required_verdict(run, attempt)
    if not satisfies(judgement.verdict, required, shut_off_cleanly=None):
        kept = "is in the caller's hands, and no better than that"
        return VerdictBelowRequired(verdict=judgement.verdict.value, required=required.value, kept=kept)
    return None
