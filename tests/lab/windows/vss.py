"""Freeze, hold and thaw as a Windows agent and volsnap do them: the state machine."""

import random
from dataclasses import dataclass, field
from typing import Literal

from tests.lab.windows.language import LANGUAGES
from tests.lab.windows.replies import AgentError, Outcome
from tests.lab.windows.scenario import Freeze, Scenario, Thaw, nth
from tests.lab.windows.storage import GuestVolume
from tests.lab.windows.systems import SYSTEMS
from tests.lab.windows.versions import AgentVersion

E_FAIL = 0x80004005
OBJECT_NOT_FOUND = 0x80042308
HOLD_WRITES_TIMEOUT = 0x80042314
UNEXPECTED_PROVIDER_ERROR = 0x8004230F
PROVIDER_GIVES_UP_S = 60.0
USUAL_FREEZE_S = 0.3
USUAL_FAILURE_S = 0.2

_FREEZE_FAILURES = {
    "exited_without_frozen_event": ("DoSnapshotSet exited without Frozen event", E_FAIL),
    "gather_writer_metadata": ("failed to gather writer metadata", 0x80042318),
    "start_snapshot_set": ("failed to start snapshot set", 0x80042316),
    "add_to_snapshot_set": ("failed to add {volume} to snapshot set", 0x8004230E),
    "prepare_for_backup": ("failed to prepare for backup", 0x80042301),
    "gather_writer_status": ("failed to gather writer status", 0x80042301),
    "do_snapshot_set": ("failed to do snapshot set", 0x80042315),
}
_THAW_FAILURES = {
    "unexpected_error_in_provider": ("unexpected error in VSS provider", UNEXPECTED_PROVIDER_ERROR),
    "do_snapshot_set": ("failed to do snapshot set", 0x80042315),
    "complete_backup": ("failed to complete backup", 0x80042301),
}
# The writers have been told to prepare by then, so they show what they made of it.
_REACHES_WRITERS = frozenset({"exited_without_frozen_event", "frozen_event_timeout", "prepare_for_backup", "do_snapshot_set"})


@dataclass
class Session:
    """One freeze that held writes: the truth of it, which no command of the agent tells. Times are the guest's."""

    began_s: float
    limit_s: float
    count: int
    thawed_s: float | None = None
    ended_by: Literal["thaw", "volsnap", "restart"] | None = None
    #: VSS gave the session up although the agent called it a success (Windows before 2008 R2).
    is_aborted: bool = False

    @property
    def writes_released_s(self) -> float:
        """When writes went on, or will if nobody thaws."""
        last = self.began_s + self.limit_s
        return last if self.thawed_s is None else min(last, self.thawed_s)


@dataclass
class Vss:
    """Calls come in the order of their times. `at` is when the agent begins with the command."""

    scenario: Scenario
    version: AgentVersion
    volumes: list[GuestVolume]
    sessions: list[Session] = field(default_factory=list)
    #: Freezes that the writers took part in and that are over.
    rounds: int = 0
    is_frozen: bool = False
    restarted_s: float | None = None
    _session: Session | None = None
    _freezes: int = 0
    _thaws: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.scenario.seed)

    def freeze(self, at: float, mountpoints: list[str] | None) -> Outcome:
        self._freezes += 1
        plan = nth(self.scenario.freeze, self._freezes)
        if plan.fails is not None:
            return self._failed_freeze(plan)
        chosen = self._chosen(mountpoints)
        if isinstance(chosen, Outcome):
            return chosen
        count = len(chosen) if plan.count is None else plan.count
        delay_s = USUAL_FREEZE_S if plan.delay_s is None else plan.delay_s
        self.is_frozen = True
        if plan.holds and chosen:
            self._begin(at + max(0.0, delay_s - self.scenario.hold.before_reply_s), count, plan)
        return Outcome(delay_s, count)

    def thaw(self, at: float) -> Outcome:
        session, self._session, self.is_frozen = self._session, None, False
        if session is None:
            return Outcome(self.scenario.agent.latency_s, 0)
        self._thaws += 1
        self.rounds += 1
        plan = nth(self.scenario.thaw, self._thaws)
        held_s = at - session.began_s
        session.thawed_s = at
        session.ended_by = "thaw" if held_s < session.limit_s else "volsnap"
        error = self._thaw_error(plan, session, held_s)
        if error is not None:
            return Outcome(plan.delay_s, error=error)
        session.is_aborted = SYSTEMS[self.scenario.system.name].kernel_version <= (6, 0)
        return Outcome(plan.delay_s, session.count if plan.count is None else plan.count)

    def restart_if_due(self, at: float) -> bool:
        """Stopping the service thaws. True when that has just happened."""
        restart, session = self.scenario.restart, self._session
        if restart is None or session is None or self._freezes not in restart.freezes:
            return False
        due_s = session.began_s + restart.after_freeze_s
        if at < due_s:
            return False
        session.thawed_s, session.ended_by = due_s, "restart" if restart.after_freeze_s < session.limit_s else "volsnap"
        self._session, self.is_frozen, self.restarted_s = None, False, due_s
        self.rounds += 1
        return True

    def is_away(self, at: float) -> bool:
        restart = self.scenario.restart
        return restart is not None and self.restarted_s is not None and at < self.restarted_s + restart.away_s

    def holds_writes(self, at: float) -> bool:
        """What volsnap knows and the agent does not."""
        return any(session.began_s <= at < session.writes_released_s for session in self.sessions)

    def _begin(self, began_s: float, count: int, plan: Freeze) -> None:
        hold = self.scenario.hold
        limit_s = hold.limit_s - self._random.uniform(0, hold.jitter_s) if plan.hold_limit_s is None else plan.hold_limit_s
        self._session = Session(began_s, limit_s, count)
        self.sessions.append(self._session)

    def _chosen(self, mountpoints: list[str] | None) -> "list[GuestVolume] | Outcome":
        fixed = [volume for volume in self.volumes if volume.fixed]
        if not mountpoints:  # an empty list means all on Windows
            return fixed
        chosen = []
        for name in mountpoints:
            found = [volume for volume in fixed if volume.is_called(name)]
            if not found:
                return Outcome(USUAL_FAILURE_S, error=self._error(f"failed to add {name} to snapshot set", OBJECT_NOT_FOUND))
            chosen += found
        return chosen

    def _failed_freeze(self, plan: Freeze) -> Outcome:
        if plan.fails in _REACHES_WRITERS:
            self.rounds += 1
        if plan.fails == "frozen_event_timeout":
            delay_s = self.version.freeze_limit_s if plan.delay_s is None else plan.delay_s
            return Outcome(delay_s, error=self._error(self.version.frozen_event_timeout(), plan.hresult or E_FAIL))
        assert plan.fails is not None
        text, hresult = _FREEZE_FAILURES[plan.fails]
        delay_s = USUAL_FAILURE_S if plan.delay_s is None else plan.delay_s
        return Outcome(delay_s, error=self._error(text.format(volume=plan.volume), plan.hresult or hresult))

    def _thaw_error(self, plan: Thaw, session: Session, held_s: float) -> AgentError | None:
        if held_s >= session.limit_s:
            hresult = HOLD_WRITES_TIMEOUT if held_s < PROVIDER_GIVES_UP_S else UNEXPECTED_PROVIDER_ERROR
            return self._error("couldn't hold writes: fsfreeze is limited up to 10 seconds", hresult)
        if plan.fails is None:
            return None
        text, hresult = _THAW_FAILURES[plan.fails]
        return self._error(text, plan.hresult or hresult)

    def _error(self, text: str, hresult: int) -> AgentError:
        # FormatMessage knows nothing of VSS: its codes leave an empty text, and so a colon at the end.
        words = LANGUAGES[self.scenario.system.language].unspecified_error if hresult == E_FAIL else ""
        number = f"Windows error 0x{hresult:08x}: " if self.version.says_hresult else ""
        return AgentError("GenericError", f"{text}: {number}{words}")
