"""The freeze window: what is sent in which order, and that a thaw is always answered."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from service.freeze import window as freeze_window
from service.freeze.guard import Unguarded
from service.freeze.window import WindowGuard, WindowPlan, thaw_until_answered
from service.hypervisor.guest import Guest
from service.model.verdict import Evidence, HookState, Verdict, judge
from service.model.window import FreezeOutcome, GuardReason, GuardReport, GuardState, ThawOutcome, WindowRecord
from tests.fakes import FakeAgent, FakeDisk, FakeDomain, FakeFilesystem, agent_error, agent_silent, libvirt_error
from tests.fakes.libvirt_errors import agent_busy, agent_refused

INTERNAL_ERROR = 1
UNGUARDED = Unguarded()
FREEZE, THAW, STATUS = "guest-fsfreeze-freeze", "guest-fsfreeze-thaw", "guest-fsfreeze-status"


class Window:
    """A domain with two disks, an overlay for each, and the window between freeze and thaw."""

    def __init__(self, folder: Path) -> None:
        disks = [FakeDisk(target, folder / f"{target}.qcow2") for target in ("vda", "vdb")]
        self.domain = FakeDomain("db1", disks)
        self.guest = Guest(self.domain, "fake:///")
        self.overlays = {disk.target: str(folder / f"{disk.target}.overlay.qcow2") for disk in disks}
        for path in self.overlays.values():
            Path(path).touch()
        self.take = self.guest.prepare_snapshot(self.overlays)
        self.domain.log.clear()

    def run(self, take: Callable[[], None] | None = None, guard: WindowGuard = UNGUARDED, **plan: Any) -> WindowRecord:
        defaults: dict[str, Any] = {"mountpoints": None, "freeze_timeout_ms": 5_000, "hold_limit_ms": 5_000, "thaw_patience_s": 0.5}
        return freeze_window.run(self.guest, lambda _hold: (take or self.take)(), WindowPlan(**(defaults | plan)), guard)

    @property
    def is_frozen(self) -> bool:
        return bool(self.domain.agent.frozen)


@pytest.fixture
def scene(tmp_path: Path) -> Window:
    return Window(tmp_path)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freeze_window, "THAW_PAUSE_S", 0.005)
    monkeypatch.setattr(freeze_window, "THAW_PAUSE_MAX_S", 0.02)


def verdict(record: WindowRecord, hold_limit_ms: float = 5_000) -> Verdict:
    return judge(Evidence(True, True, record, hold_limit_ms, HookState.absent)).verdict


# --- when all goes well ---------------------------------------------------------------------------


def test_freeze_then_snapshot_then_thaw_and_nothing_else_in_between(scene: Window) -> None:
    record = scene.run()
    assert scene.domain.log == [FREEZE, "snapshot_create", THAW, STATUS]
    assert scene.domain.points[0].frozen == {"vda", "vdb"}
    assert not scene.is_frozen
    assert (record.freeze.outcome, record.freeze.count) == (FreezeOutcome.frozen, 2)
    assert (record.thaw.outcome, record.thaw.count, record.thaw.attempts) == (ThawOutcome.completed, 2, 1)
    assert record.frozen_afterwards is False
    assert verdict(record) is Verdict.filesystem


def test_the_instants_follow_each_other(scene: Window) -> None:
    at = scene.run().instants
    order = [at.freeze_sent, at.freeze_reply, at.point_sent, at.point_done, at.thaw_sent, at.thaw_reply]
    assert order == sorted(order, key=lambda instant: instant or 0)


def test_a_list_of_mountpoints_freezes_only_those(scene: Window) -> None:
    record = scene.run(mountpoints=("/data-vdb",))
    assert scene.domain.log[0] == "guest-fsfreeze-freeze-list"
    assert scene.domain.points[0].frozen == {"vdb"}
    assert record.freeze.count == 1


def test_the_agent_is_asked_once_more_before_the_thaw_where_a_hook_may_hide_the_count(scene: Window) -> None:
    scene.domain.agent.hook = "fail_thaw"
    record = scene.run(confirm_before_thaw=True)
    assert scene.domain.log == [FREEZE, "snapshot_create", STATUS, THAW, STATUS]
    assert record.frozen_before_thaw is True
    assert record.thaw.outcome is ThawOutcome.hook_failed
    assert record.thaw.attempts == 1
    assert verdict(record) is Verdict.filesystem


def test_without_that_question_a_failed_thaw_hook_leaves_nothing_proven(scene: Window) -> None:
    scene.domain.agent.hook = "fail_thaw"
    assert verdict(scene.run()) is Verdict.crash


# --- a freeze that does not hold ------------------------------------------------------------------

Break = Callable[[FakeDomain], None]


def _nothing_to_freeze(domain: FakeDomain) -> None:
    domain.agent.filesystems = [FakeFilesystem("/efi", "vda1", "vfat")]


FAILED_FREEZES: dict[str, tuple[Break, FreezeOutcome]] = {
    "an error of the agent": (
        lambda domain: domain.fail_next(FREEZE, agent_error(FREEZE, "failed to freeze /data: Input/output error")),
        FreezeOutcome.refused,
    ),
    "the hook fails": (lambda domain: setattr(domain.agent, "hook", "fail"), FreezeOutcome.hook_failed),
    "no answer": (lambda domain: domain.fail_next(FREEZE, agent_silent()), FreezeOutcome.unanswered),
    "no answer though it froze": (lambda domain: domain.fail_next(FREEZE, agent_silent(), after=True), FreezeOutcome.unanswered),
    "libvirtd dies under it": (lambda domain: domain.libvirtd_goes_away(1), FreezeOutcome.unanswered),
    "a count of zero": (_nothing_to_freeze, FreezeOutcome.empty),
    "a negative count": (lambda domain: domain.answer_next(FREEZE, {"return": -3}), FreezeOutcome.empty),
    "an answer that is no number": (lambda domain: domain.answer_next(FREEZE, {"return": {"frozen": 2}}), FreezeOutcome.unanswered),
    "an answer without a return": (lambda domain: domain.answer_next(FREEZE, {"ok": True}), FreezeOutcome.unanswered),
}


@pytest.mark.parametrize(("break_it", "outcome"), FAILED_FREEZES.values(), ids=FAILED_FREEZES.keys())
def test_no_snapshot_outside_a_freeze_and_always_a_thaw(scene: Window, break_it: Break, outcome: FreezeOutcome) -> None:
    break_it(scene.domain)
    record = scene.run()
    assert record.freeze.outcome is outcome
    assert "snapshot_create" not in scene.domain.log
    assert not record.point_was_requested
    assert THAW in scene.domain.log
    assert record.thaw.outcome is not ThawOutcome.unanswered
    assert not scene.is_frozen


def test_a_freeze_from_inside_the_guest_is_not_ended_where_the_agent_froze_nothing(scene: Window) -> None:
    scene.domain.agent.frozen_inside = {"vda", "vdb"}
    record = scene.run(spares_foreign_freeze=True)
    assert (record.freeze.outcome, record.thaw.outcome, record.frozen_afterwards) == (FreezeOutcome.empty, ThawOutcome.not_needed, False)
    assert THAW not in scene.domain.log
    assert scene.domain.agent.frozen_inside == {"vda", "vdb"}


@pytest.mark.parametrize("answer", [0, -3])
def test_a_guest_that_may_be_frozen_is_thawed_whatever_the_count_says(scene: Window, answer: int) -> None:
    """Agents of old keep their flag after a freeze of nothing, and a negative count is none at all."""
    scene.domain.answer_next(FREEZE, {"return": answer})
    scene.domain.answer_next(STATUS, {"return": "frozen" if answer == 0 else "thawed"})
    assert scene.run(spares_foreign_freeze=True).thaw.outcome is not ThawOutcome.not_needed
    assert THAW in scene.domain.log


def test_a_freeze_that_libvirt_never_got_to_the_agent_froze_nothing_and_is_not_thawed(scene: Window) -> None:
    """Another client holds the agent, and perhaps the guest: our thaw would end its hold."""
    scene.domain.fail_next(FREEZE, agent_busy())
    record = scene.run()
    assert record.freeze.outcome is FreezeOutcome.blocked
    assert "remoteDispatch" in (record.freeze.message or "")
    assert THAW not in scene.domain.log
    assert "snapshot_create" not in scene.domain.log


def test_a_freeze_that_the_agent_does_not_take_is_not_ours_to_thaw(scene: Window) -> None:
    """Another tool froze the guest in the last moment: our thaw would end its hold."""
    scene.domain.when_next(FREEZE, scene.domain.agent.freeze_by_somebody_else)
    record = scene.run()
    assert record.freeze.outcome is FreezeOutcome.blocked
    assert THAW not in scene.domain.log
    assert "snapshot_create" not in scene.domain.log
    assert record.frozen_afterwards is True
    assert record.thaw.outcome is ThawOutcome.not_needed


def test_an_orphan_freeze_that_comes_late_is_thawed(scene: Window) -> None:
    scene.domain.agent.freeze_late(0.05)
    scene.domain.fail_next(THAW, agent_silent(), times=6)  # busy with the freeze, the agent answers nobody
    record = scene.run(thaw_patience_s=5)
    time.sleep(0.1)
    assert record.freeze.outcome is FreezeOutcome.unanswered
    assert record.thaw.attempts == 7
    assert not scene.is_frozen


# --- the snapshot call ----------------------------------------------------------------------------


def test_a_snapshot_that_fails_is_followed_by_the_thaw_and_its_error_is_kept(scene: Window) -> None:
    scene.domain.fail_next("snapshot_create", libvirt_error(INTERNAL_ERROR, "No space left on device"))
    record = scene.run()
    assert scene.domain.log == [FREEZE, "snapshot_create", THAW, STATUS]
    assert record.point_error == "virDomainSnapshotCreateXML failed with libvirt error 1: No space left on device."
    assert not scene.is_frozen


def test_a_programming_error_in_the_snapshot_call_thaws_and_is_not_swallowed(scene: Window) -> None:
    def explode() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        scene.run(explode)
    assert THAW in scene.domain.log
    assert not scene.is_frozen


def test_the_watchdog_thaws_while_the_snapshot_call_hangs(scene: Window) -> None:
    gate = scene.domain.hang_next("snapshot_create")
    seen: list[bool] = []

    def look_then_let_go() -> None:
        while THAW not in scene.domain.log:
            time.sleep(0.005)
        time.sleep(0.05)
        seen.append(scene.is_frozen)
        gate.set()

    threading.Thread(target=look_then_let_go).start()
    record = scene.run(hold_limit_ms=80)
    assert seen == [False]
    assert record.watchdog_fired
    assert scene.domain.log.count(THAW) == 1
    assert scene.domain.points[0].frozen == set()
    assert record.thaw.outcome is ThawOutcome.completed
    assert 80 <= (record.instants.hold_ms or 0) < 5_000
    assert verdict(record, 80) is Verdict.crash


def test_a_snapshot_within_the_hold_limit_does_not_wake_the_watchdog(scene: Window) -> None:
    scene.domain.delay_next("snapshot_create", 0.05)
    record = scene.run(hold_limit_ms=20_000)
    assert not record.watchdog_fired
    assert 50 <= (record.instants.hold_ms or 0) < 10_000


def test_the_hold_limit_counts_from_the_freeze_reply_and_not_from_the_request(scene: Window) -> None:
    scene.domain.delay_next(FREEZE, 0.15)
    record = scene.run(hold_limit_ms=100)
    assert not record.watchdog_fired
    assert verdict(record, 100) is Verdict.filesystem


# --- the thaw -------------------------------------------------------------------------------------


def test_the_thaw_is_repeated_until_it_is_answered(scene: Window) -> None:
    scene.domain.fail_next(THAW, agent_silent(), times=2)
    scene.domain.fail_next(THAW, agent_busy(), times=2)
    record = scene.run()
    assert record.thaw.attempts == 5
    assert record.thaw.outcome is ThawOutcome.completed
    assert not scene.is_frozen


def test_an_error_that_the_agent_answers_to_a_thaw_is_an_answer(scene: Window) -> None:
    scene.domain.fail_next(THAW, agent_error(THAW, "couldn't hold writes: fsfreeze is limited up to 10 seconds: "), after=True)
    record = scene.run()
    assert (record.thaw.outcome, record.thaw.attempts) == (ThawOutcome.refused, 1)
    assert record.thaw.message == "couldn't hold writes: fsfreeze is limited up to 10 seconds:"
    assert verdict(record) is Verdict.crash


def test_a_thaw_that_answers_nonsense_is_repeated(scene: Window) -> None:
    scene.domain.answer_next(THAW, {"return": "all of them"})
    record = scene.run()
    assert record.thaw.attempts == 2
    assert record.thaw.outcome is ThawOutcome.lost
    assert not scene.is_frozen


def test_a_guest_that_somebody_else_thawed_is_a_lost_window(scene: Window) -> None:
    def take_late() -> None:
        scene.domain.agent.thaw_by_somebody_else()
        scene.take()

    record = scene.run(take_late)
    assert record.thaw.outcome is ThawOutcome.lost
    assert verdict(record) is Verdict.crash


def test_a_guest_of_which_a_part_was_thawed_meanwhile_is_not_whole(scene: Window) -> None:
    def take_late() -> None:
        scene.domain.agent.frozen.discard("vdb")
        scene.take()

    record = scene.run(take_late)
    assert record.thaw.outcome is ThawOutcome.count_differs
    assert verdict(record) is Verdict.crash


def test_a_domain_that_is_shut_off_in_the_window_has_nothing_left_to_thaw(scene: Window) -> None:
    def take_then_die() -> None:
        scene.take()
        scene.domain.shut_off(cleanly=False)

    record = scene.run(take_then_die)
    assert record.thaw.outcome is ThawOutcome.lost
    assert record.thaw.attempts == 1
    assert verdict(record) is Verdict.crash


def test_a_domain_that_is_gone_is_not_thawed_for_minutes(scene: Window) -> None:
    def take_then_vanish() -> None:
        scene.take()
        scene.domain.exists = False

    record = scene.run(take_then_vanish, thaw_patience_s=60)
    assert record.thaw.outcome is ThawOutcome.lost
    assert record.thaw.attempts == 1


def test_a_domain_that_is_paused_in_the_window_is_thawed_when_it_runs_again(scene: Window) -> None:
    def take_then_pause() -> None:
        scene.take()
        scene.domain.pause()
        threading.Timer(0.05, scene.domain.resume).start()

    record = scene.run(take_then_pause, thaw_patience_s=5)
    assert record.thaw.attempts > 1
    assert record.thaw.outcome is ThawOutcome.completed
    assert not scene.is_frozen


def test_a_libvirtd_that_restarts_in_the_window_is_waited_for(scene: Window) -> None:
    def take_then_lose_libvirt() -> None:
        scene.take()
        scene.domain.libvirtd_goes_away(4)

    record = scene.run(take_then_lose_libvirt, thaw_patience_s=5)
    assert record.thaw.outcome is ThawOutcome.completed
    assert record.thaw.attempts == 3  # each failed attempt asks once more whether the domain is shut off
    assert not scene.is_frozen


def test_a_guest_that_never_answers_the_thaw_is_reported_as_such(scene: Window) -> None:
    def take_then_fall_silent() -> None:
        scene.take()
        scene.domain.agent.answers = False

    started = time.monotonic()
    record = scene.run(take_then_fall_silent, thaw_patience_s=1.0)
    assert time.monotonic() - started >= 1.0
    assert record.thaw.outcome is ThawOutcome.unanswered
    assert record.thaw.attempts > 2
    assert record.frozen_afterwards is None
    assert verdict(record) is Verdict.crash


def test_an_agent_that_libvirt_has_lost_is_not_waited_for_as_long_as_one_that_is_silent(
    scene: Window, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freeze_window, "LOST_AGENT_PATIENCE_S", 0.3)

    def take_then_lose_the_agent() -> None:
        scene.take()
        scene.domain.agent.is_lost = True

    record = scene.run(take_then_lose_the_agent, thaw_patience_s=600)
    assert record.thaw.outcome is ThawOutcome.unanswered
    assert record.thaw.attempts > 1
    assert record.thaw.agent_is_lost


def test_an_agent_that_was_lost_and_is_restarted_meanwhile_answers_the_thaw(scene: Window) -> None:
    def take_then_lose_the_agent_for_a_while() -> None:
        scene.take()
        scene.domain.agent.is_lost = True
        scene.domain.fail_next("guest-ping", agent_refused())
        scene.domain.when_next("guest-ping", lambda: setattr(scene.domain.agent, "is_lost", False))

    record = scene.run(take_then_lose_the_agent_for_a_while, thaw_patience_s=600)
    assert record.thaw.outcome is ThawOutcome.completed
    assert not scene.is_frozen


def test_a_watchdog_whose_thaw_is_not_answered_at_once_keeps_trying_and_the_window_waits_for_it(scene: Window) -> None:
    scene.domain.delay_next("snapshot_create", 0.1)
    scene.domain.fail_next(THAW, agent_silent(), times=3)
    record = scene.run(hold_limit_ms=30)
    assert record.watchdog_fired
    assert record.thaw.attempts == 4
    assert not scene.is_frozen


def test_a_thaw_alone_tells_what_it_found(tmp_path: Path) -> None:
    domain = FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2")], agent=FakeAgent([FakeFilesystem("/", "vda1")]))
    guest = Guest(domain, "fake:///")
    assert thaw_until_answered(guest, None, 1).outcome is ThawOutcome.lost
    domain.agent.freeze_by_somebody_else()
    assert thaw_until_answered(guest, 1, 1).outcome is ThawOutcome.completed


# --- the guard ------------------------------------------------------------------------------------


class FakeGuard(Unguarded):
    """Tells its window that it is there until it is killed; `report` is what it answers when it is dismissed."""

    def __init__(self, report: GuardReport | None = None) -> None:
        self._end, self._other = socket.socketpair()
        self.report = report
        self.told: list[str] = []

    def fileno(self) -> int | None:
        return self._end.fileno()

    def die(self) -> None:
        self._other.close()

    def is_gone(self) -> bool:
        return not self._end.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)

    def freezing(self, over_by_ns: int, hold_ns: int) -> None:
        self.told.append(f"freezing for {hold_ns // 1_000_000} ms")

    def frozen(self, count: int, thaw_by_ns: int) -> None:
        self.told.append(f"{count} frozen")

    def dismiss(self) -> GuardReport | None:
        self.told.append("dismissed")
        return self.report

    def close(self) -> None:
        self._end.close()
        self._other.close()


def a_thaw_in_a_minute(outcome: ThawOutcome, count: int) -> GuardReport:
    """Sent after the thaw of the window."""
    sent = time.monotonic_ns() + 60_000_000_000
    report = GuardReport("j1", state=GuardState.thawed, reason=GuardReason.deadline, outcome=outcome, count=count)
    report.thaw_sent_ns = report.thaw_reply_ns = sent
    return report


@pytest.fixture
def guard() -> Iterator[FakeGuard]:
    guard = FakeGuard()
    yield guard
    guard.close()


def test_the_guard_knows_of_the_freeze_before_it_is_sent_and_is_dismissed_after_the_thaw(scene: Window, guard: FakeGuard) -> None:
    scene.run(guard=guard, hold_limit_ms=700)
    assert guard.told == ["freezing for 700 ms", "2 frozen", "dismissed"]


def test_a_guard_that_dies_in_the_hold_ends_it_at_once(scene: Window, guard: FakeGuard) -> None:
    def take_slowly() -> None:
        guard.die()
        while THAW not in scene.domain.log:
            time.sleep(0.005)
        scene.take()

    record = scene.run(take_slowly, guard=guard)
    assert (record.guard_died, record.thaw.outcome, scene.is_frozen) == (True, ThawOutcome.completed, False)
    assert verdict(record) is Verdict.crash


def test_a_guard_that_dies_before_the_freeze_is_answered_leaves_nothing_frozen_and_nothing_is_taken(
    scene: Window, guard: FakeGuard
) -> None:
    guard.die()
    scene.domain.delay_next(FREEZE, 0.1)
    record = scene.run(guard=guard, hold_limit_ms=60_000)
    assert scene.domain.log[:2] == [FREEZE, THAW]
    assert not scene.is_frozen
    assert not (record.point_was_requested and record.instants.point_in_time_was_inside_the_hold)


def test_the_reply_to_a_guard_that_was_first_is_the_evidence(scene: Window, guard: FakeGuard) -> None:
    def let_the_guard_thaw() -> None:
        sent = time.monotonic_ns()
        count = scene.guest.thaw(1_000)
        guard.report = GuardReport("j1", state=GuardState.thawed, reason=GuardReason.deadline, outcome=ThawOutcome.completed, count=count)
        guard.report.thaw_sent_ns, guard.report.thaw_reply_ns = sent, time.monotonic_ns()

    record = scene.run(let_the_guard_thaw, guard=guard)
    assert (record.thaw.outcome, record.thaw.count) == (ThawOutcome.completed, 2)
    assert record.instants.thaw_sent == record.guard.thaw_sent_ns if record.guard else False
    assert not record.instants.point_in_time_was_inside_the_hold
    assert verdict(record) is Verdict.crash


def test_a_guard_whose_thaw_was_behind_ours_has_not_ended_the_hold(scene: Window, guard: FakeGuard) -> None:
    """Its deadline passed while our thaw was on its way: a Windows that answers late was frozen until our thaw all the same."""
    guard.report = a_thaw_in_a_minute(ThawOutcome.lost, 0)

    record = scene.run(guard=guard)

    assert (record.guard is not None, record.guard_ended_the_hold) == (True, False)
    assert (record.thaw.outcome, verdict(record)) == (ThawOutcome.completed, Verdict.filesystem)


def test_a_guard_whose_thaw_left_nothing_for_ours_has_ended_the_hold(scene: Window, guard: FakeGuard) -> None:
    """Ours was sent first, and hung."""
    guard.report = a_thaw_in_a_minute(ThawOutcome.completed, 2)

    def take_then_be_thawed() -> None:
        scene.take()
        scene.domain.agent.thaw_by_somebody_else()

    record = scene.run(take_then_be_thawed, guard=guard)

    assert record.guard_ended_the_hold
    assert verdict(record) is Verdict.crash


def test_a_guest_that_answers_no_thaw_keeps_its_guard(scene: Window, guard: FakeGuard) -> None:
    def take_then_fall_silent() -> None:
        scene.take()
        scene.domain.agent.answers = False

    scene.run(take_then_fall_silent, guard=guard, thaw_patience_s=0.1)
    assert "dismissed" not in guard.told


def test_too_late_is_no_snapshot_and_not_a_bad_one(scene: Window) -> None:
    """A worker that was stopped between the freeze and the snapshot finds its time gone."""
    record = scene.run(hold_limit_ms=0)
    assert (record.was_too_late, record.point_was_requested) == (True, False)
    assert "snapshot_create" not in scene.domain.log
    assert not scene.is_frozen
