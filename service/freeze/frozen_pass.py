"""One frozen pass: everything around one freeze window, for every kind of job that has one.

The order of calls: `look`; then the functions of FrozenPass: `read_writers`, `begin_flush`, `end_flush`, `announce`, `window`, `record`,
`read_writers_again`. The result is a Passed.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Protocol

from service.clock import WallClock
from service.errors import (
    AgentAnswerUnreadable,
    AgentBusy,
    AgentCommandBlocked,
    AgentCommandFailed,
    AgentNotAnswering,
    DomainBusy,
    DomainPaused,
    DomainStateUnsuitable,
    StillpointError,
)
from service.freeze import fuse, lost_agent, windows_evidence
from service.freeze import window as freeze_window
from service.freeze.documents import freeze_document, phase_outcomes, timing_document
from service.freeze.fuse import Fuse
from service.freeze.passed import NO_WRITERS, Passed, Terms, Writers
from service.freeze.preflush import Flush
from service.freeze.survey import begin, seen_from_outside
from service.freeze.window import THAW_PATIENCE_S, Take, WindowGuard, WindowPlan
from service.freeze.windows_evidence import SETTLE_BUDGET_S, VssEvidence
from service.hypervisor.guest import Guest
from service.model.foreign_freeze import ForeignFreeze
from service.model.intent import Intent, WindowIntent
from service.model.inventory import DomainState, OsFamily, Survey
from service.model.lifecycle import PhaseName, PhaseOutcome
from service.model.policy import FreezeMode, FreezePolicy
from service.model.timing import WindowInstants
from service.model.verdict import HookState
from service.model.window import FreezeOutcome, FreezeReply, ThawOutcome, WindowRecord
from service.model.windows.drift import Change
from service.model.windows.vss_outcome import MAX_VOLUMES
from service.model.windows.writer_rules import DEFAULT_RULES, WriterRules

AGENT_PATIENCE_MS = 2_000
"""Milliseconds to wait for an agent command of another client. Then the job fails, or continues without a freeze in mode `preferred`."""
BEFORE_THE_WINDOW = "what comes before the freeze, with"
_AGENT_FAULTS = (AgentBusy, AgentNotAnswering, AgentCommandBlocked, AgentCommandFailed, AgentAnswerUnreadable)
"""Errors that come from the agent alone."""


class PhaseNotes(Protocol):
    def warn(self, detail: str) -> None: ...


class JobOfPass(Protocol):
    """The functions of a job that a pass needs. A write is committed when it returns. See the docstrings of JobRun."""

    def phase(self, name: PhaseName) -> AbstractContextManager[PhaseNotes]: ...

    def phase_that_cannot_be_cancelled(self, name: PhaseName) -> AbstractContextManager[PhaseNotes]: ...

    def safe_point(self, name: PhaseName) -> None: ...

    def point_is_pending(self) -> None: ...

    def write(self, values: dict[str, Any]) -> None: ...

    def write_now(self, values: Callable[[datetime], dict[str, Any]]) -> None: ...

    def add_window_phases(
        self, instants: WindowInstants, outcomes: dict[PhaseName, tuple[PhaseOutcome, str | None]], wall: WallClock
    ) -> None: ...

    def remember(self, survey: Survey, evidence: VssEvidence) -> list[Change]: ...

    def foreign_freeze(self) -> ForeignFreeze: ...


@dataclass(frozen=True)
class PassSettings:
    thaw_patience_s: float = THAW_PATIENCE_S
    writers_settle_s: float = SETTLE_BUDGET_S
    writer_rules: WriterRules = field(default_factory=lambda: DEFAULT_RULES)


def look(run: JobOfPass, guest: Guest, policy: FreezePolicy) -> Survey:
    """Survey the guest. Raises as `Look`."""
    return Look(run, guest, policy).finish()


class Look:
    """A survey of the guest that is under way, for a job that takes a point."""

    def __init__(self, run: JobOfPass, guest: Guest, policy: FreezePolicy) -> None:
        """Raises DomainPaused, DomainStateUnsuitable, DomainBusy if no point can be taken now. Then the agent is not asked."""
        self._run = run
        survey = seen_from_outside(guest)
        if survey.state is DomainState.paused and policy.mode is not FreezeMode.off:
            raise DomainPaused(domain=survey.domain, state="paused")
        if survey.state is DomainState.other:
            raise DomainStateUnsuitable(domain=survey.domain, state="neither running nor shut off")
        if survey.busy:
            raise DomainBusy(domain=survey.domain, what="; ".join(f"{target or 'domain'}: {job}" for target, job in survey.busy.items()))
        self._under_way = begin(guest, survey)

    @property
    def survey(self) -> Survey:
        """What is known so far: the state of the domain and its disks."""
        return self._under_way.survey

    def finish(self) -> Survey:
        """Wait for the programs in the guest."""
        survey = self._under_way.finish()
        if survey.agent.frozen:
            survey.foreign_freeze = self._run.foreign_freeze()
        return survey

    def give_up(self) -> None:
        """The job ends here. Raises nothing."""
        self._under_way.give_up()


class FrozenPass:
    """The frozen pass of one attempt of one job. `terms` change once: if the agent is busy and the job may continue without a freeze."""

    def __init__(self, run: JobOfPass, guest: Guest, terms: Terms, settings: PassSettings) -> None:
        self.terms = terms
        self._run = run
        self._guest = guest
        self._settings = settings
        self._wall = WallClock()
        self._writers = NO_WRITERS
        self._flush: Flush | None = None
        self._preflush: dict[str, Any] | None = None
        #: The intent that was committed before the window.
        self._intent = Intent()

    # --- before the window ------------------------------------------------------------------------

    def read_writers(self) -> None:
        """Read the VSS writers of a Windows guest that will be frozen. Other guests have no writers."""
        survey = self.terms.survey
        if not (self.terms.will_freeze and survey.is_windows):
            return
        with self._run.phase(PhaseName.writers_before) as phase:
            vss = windows_evidence.read_before(self._guest, survey)
            self._writers = Writers(vss, self._run.remember(survey, vss))
            if vss.before.unavailable:
                phase.warn(vss.before.unavailable)

    def begin_flush(self) -> None:
        """Begin to write the dirty pages of a guest that will be frozen, if that is wanted and possible."""
        agent, policy = self.terms.survey.agent, self.terms.policy
        if self.terms.will_freeze and policy.preflush and agent.os_family is OsFamily.linux and agent.allows("guest-exec"):
            self._flush = Flush(self._guest)

    def end_flush(self, phase: PhaseNotes) -> None:
        """Wait until the dirty pages are written. A failure is a warning."""
        if self._flush is not None:
            flushed = self._flush.finish()
            self._preflush = flushed.as_document()
            if flushed.message:
                phase.warn(f"pre-flush: {flushed.message}")

    def announce(self, intended: Intent) -> None:
        """The last safe point, and the last write before the freeze. `intended`: what the job will do to the disks."""
        instance = self._guest.instance() if self.terms.will_freeze else None
        if self.terms.will_freeze:
            self._require_agent()
        self._run.safe_point(PhaseName.freeze)

        def announced(now: datetime) -> dict[str, Any]:
            self._intent = self._with_window(intended, instance, now)
            return {"phase": PhaseName.freeze.value, "intent": self._intent.as_document()}

        self._run.write_now(announced)
        self._run.point_is_pending()

    def _with_window(self, intended: Intent, instance: int | None, now: datetime) -> Intent:
        """From now on the job's row says that the guest may be frozen, since when and for how long, also if this worker dies."""
        if not self.terms.will_freeze:
            return intended
        limit_ms = self.terms.policy.timeout_ms + self.terms.hold_limits.hard_ms
        return replace(intended, will_freeze=True, instance=instance, window=WindowIntent(now, limit_ms))

    def _require_agent(self) -> None:
        """In mode `preferred`, treat a busy or blocked agent like a silent one: continue without a freeze."""
        guest = self._guest
        try:
            guest.require_idle_agent(AGENT_PATIENCE_MS)
        except _AGENT_FAULTS as fault:
            if self.terms.policy.mode is not FreezeMode.preferred:
                raise
            if guest.running_libvirt_job():
                raise DomainBusy(domain=guest.name, what="a backup, migration or save began after it was looked at") from fault
            # The writers were read for a freeze that is not sent now.
            self._writers = NO_WRITERS
            self.go_on_without_freeze(fault)

    def go_on_without_freeze(self, fault: StillpointError) -> None:
        """For a job that only prefers a freeze: write into the job at once why there is no freeze."""
        self.terms = replace(self.terms, unfrozen=FreezeReply(FreezeOutcome.not_possible, message=fault.detail))
        self._run.write({"freeze": freeze_document(self.without_window())})

    # --- the window -------------------------------------------------------------------------------

    def window(self, take: Take, guard: WindowGuard) -> Passed:
        """Freeze, `take`, thaw."""
        terms = self.terms
        # After the last write to the database, because a database that is away would delay the job while the fuse runs.
        armed = fuse.arm_for(self._guest, terms.survey, terms.policy)
        record = freeze_window.run(self._guest, take, self._plan(), guard)
        return self._passed(record, self._after_the_thaw(record, armed))

    def without_window(self) -> Passed:
        """Nothing is frozen."""
        return self._passed(WindowRecord(freeze=self.terms.unfrozen or FreezeReply(FreezeOutcome.not_requested)), None)

    def _passed(self, record: WindowRecord, fuse: Fuse | None) -> Passed:
        return Passed(self.terms, self._wall, record, fuse, self._writers, self._preflush)

    def _plan(self) -> WindowPlan:
        terms, survey = self.terms, self.terms.survey
        has_no_hook = not survey.is_windows and survey.hook is HookState.absent
        return WindowPlan(
            mountpoints=terms.scope.mountpoints if terms.scope is not None else None,
            freeze_timeout_ms=terms.policy.timeout_ms,
            hold_limit_ms=terms.hold_limits.hard_ms,
            hold_soft_ms=terms.hold_limits.soft_ms,
            max_filesystems=MAX_VOLUMES if survey.is_windows else None,
            confirm_before_thaw=not survey.is_windows and not has_no_hook,
            # Only the thaw tells a hook that the hold has ended.
            spares_foreign_freeze=has_no_hook,
            thaw_patience_s=self._settings.thaw_patience_s,
        )

    def _after_the_thaw(self, record: WindowRecord, armed: Fuse | None) -> Fuse | None:
        if record.thaw.agent_is_lost:
            return lost_agent.look_from_outside(self._guest, self.terms.survey, record, armed)
        if armed is not None and record.thaw.outcome is not ThawOutcome.unanswered:
            return Fuse(None, fuse.disarm(self._guest, armed))
        return armed

    # --- after the window -------------------------------------------------------------------------

    def record(self, passed: Passed) -> None:
        self._run.add_window_phases(passed.window.instants, phase_outcomes(passed.window), self._wall)
        self._run.write(
            {
                "phase": PhaseName.writers_after.value if passed.vss else PhaseName.evaluate.value,
                "intent": replace(self._intent, will_freeze=passed.may_be_frozen).as_document(),
                "freeze": freeze_document(passed),
                "timing": timing_document(passed),
            }
        )

    def read_writers_again(self, passed: Passed) -> None:
        if passed.vss is None:
            return
        with self._run.phase_that_cannot_be_cancelled(PhaseName.writers_after) as phase:
            windows_evidence.read_after(self._guest, passed.terms.survey, passed.vss, self._settings.writers_settle_s)
            if passed.vss.after.unavailable:
                phase.warn(passed.vss.after.unavailable)
