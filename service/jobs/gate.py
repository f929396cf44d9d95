"""The job kind `quiesce`: holds a guest frozen while the caller takes the point in time with the caller's own tools."""

from dataclasses import dataclass, field

from service import bounded_io
from service.db.tables import Gate
from service.disks import two_views
from service.disks.disk_user import disk_user_of
from service.errors import DomainStateUnsuitable, StillpointError, VerdictBelowRequired
from service.errors.jobs import PointFate
from service.freeze import faults, vss_record
from service.freeze.documents import count, evidence, evidence_document, raw_texts
from service.freeze.frozen_pass import BEFORE_THE_WINDOW, FrozenPass, PassSettings, look
from service.freeze.passed import Passed, Terms
from service.freeze.window import WindowGuard
from service.hypervisor.guest import Guest
from service.jobs.ending import Ending
from service.jobs.gate_hold import GateHold
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.run import JobRun
from service.model.checks import why_not_freezable
from service.model.gate import judge_gate, never_opened, worker_died
from service.model.intent import Intent
from service.model.inventory import DomainState
from service.model.lifecycle import PhaseName
from service.model.policy import FreezePolicy
from service.model.requests import QuiesceRequest
from service.model.scope import freeze_scope
from service.model.verdict import Judgement, Verdict, required_verdict, satisfies
from service.model.window import ThawOutcome
from service.model.windows.writer_rules import WriterRules
from service.records import gates


@dataclass(frozen=True)
class Quiesce:
    """The handler of the kind."""

    passes: PassSettings = field(default_factory=PassSettings)

    def run(self, run: JobRun, host: Host) -> Ending:
        """Every phase of the job, in order."""
        guest = host.guest(run.claim.guest_id)
        with bounded_io.refusals(BEFORE_THE_WINDOW):
            with run.phase(PhaseName.preflight):
                terms = _preflight(run, guest, run.request(QuiesceRequest).freeze)
            frozen = FrozenPass(run, guest, terms, self.passes)
            frozen.read_writers()
            started = host.guards.start_guard(run.claim.job_id, run.claim.guest_id, guest.name)
        with started as guard:
            with bounded_io.refusals(BEFORE_THE_WINDOW):
                with run.phase(PhaseName.prepare) as phase:
                    frozen.begin_flush()
                    guard.wait_until_ready()
                    frozen.end_flush(phase)
                frozen.announce(Intent())
            held = _hold(run, guest, frozen, guard)
        frozen.read_writers_again(held.passed)
        return _conclude(run, guest, held, self.passes.writer_rules)

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        """The job is not tried again: a caller whose gate was lost does not wait for a second attempt."""
        gate = lost.in_transaction(lambda session: gates.close(session, lost.job.id))
        judgement = worker_died(was_opened=gate is not None and gate.opened_at is not None)
        return Resolution(
            judgement=judgement,
            result=gates.result_document(gate, gate.hold_budget_ms if gate is not None else None, held=False),
        )

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:
        run.in_transaction(lambda session: gates.close(session, run.claim.job_id))
        asked_ms = run.request(QuiesceRequest).freeze.hold_limit_ms
        return Ending(error, never_opened(), result=gates.result_document(None, asked_ms, held=False))


def _preflight(run: JobRun, guest: Guest, policy: FreezePolicy) -> Terms:
    survey = look(run, guest, policy)
    if survey.state is not DomainState.running:
        raise DomainStateUnsuitable(domain=survey.domain, state="not running, so there is nothing to freeze")
    policy.hold_limits(is_windows=survey.is_windows)
    # If QEMU writes to other files than libvirt names, a caller who copies the files that libvirt names copies old data.
    two_views.must_agree(guest.name, survey.disks, disk_user_of(guest, survey.state))
    # All disks are frozen, because the service does not know which of them the caller will copy.
    scope = freeze_scope(survey, survey.disks)
    fault = why_not_freezable(survey, scope)
    if fault is not None:
        raise fault
    return Terms(policy, survey, selection=None, scope=scope)


@dataclass(frozen=True)
class _Held:
    """The result of the window. `gate`: the row of the gate after the window, from which the caller was answered."""

    passed: Passed
    gate: Gate | None
    was_released: bool
    error: StillpointError | None

    @property
    def was_opened(self) -> bool:
        return self.gate is not None and self.gate.opened_at is not None


def _hold(run: JobRun, guest: Guest, frozen: FrozenPass, guard: WindowGuard) -> _Held:
    budget_ms = frozen.terms.hold_limits.hard_ms
    hold = GateHold(run.database, run.claim.job_id, guest.name, budget_ms, is_frozen=guest.is_frozen, ends_at=lambda: run.ends_at)
    passed = frozen.window(hold.take, guard)
    gate = run.in_transaction(lambda session: gates.close(session, run.claim.job_id))
    frozen.record(passed)
    return _Held(passed, gate, hold.was_released, hold.error)


# --- after the window -----------------------------------------------------------------------------


def _conclude(run: JobRun, guest: Guest, held: _Held, rules: WriterRules) -> Ending:
    passed = held.passed
    with run.phase_that_cannot_be_cancelled(PhaseName.evaluate):
        judgement = judge_gate(evidence(passed, rules, point_was_taken=held.was_opened), was_released=held.was_released)
        error = _error(run, guest, held, judgement)
    count(passed)
    lasted = held.was_released and judgement.verdict not in (Verdict.none, Verdict.crash)
    result = gates.result_document(held.gate, passed.terms.hold_limits.hard_ms, held=lasted)
    vss = vss_record.record(passed, judgement)
    return Ending(error, judgement, evidence_document(passed, {}), raw_texts(passed), result, vss)


def _error(run: JobRun, guest: Guest, held: _Held, judgement: Judgement) -> StillpointError | None:
    """The most serious error of the job. None: the job succeeded."""
    passed = held.passed
    if passed.window.thaw.outcome is ThawOutcome.unanswered:
        return faults.still_frozen(guest, passed)
    if not passed.window.point_was_requested:
        return faults.why_not_held(guest, passed)
    if held.error is not None:
        return held.error
    required = required_verdict(run.request(QuiesceRequest).required_verdict, passed.terms.policy.mode)
    if not satisfies(judgement.verdict, required, shut_off_cleanly=None):
        return VerdictBelowRequired(verdict=judgement.verdict.value, required=required.value, point=PointFate.with_the_caller)
    return None
