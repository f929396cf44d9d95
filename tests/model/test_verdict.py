"""One test for each rule of the verdict, named after it."""

from dataclasses import replace
from typing import Any

import pytest

from service.model.fuse import FuseReport, FuseState
from service.model.reasons import Effect
from service.model.timing import WindowInstants
from service.model.verdict import Evidence, HookState, Verdict, judge, no_point, satisfies
from service.model.window import FreezeOutcome, FreezeReply, ThawOutcome, ThawReply, WindowRecord

MS = 1_000_000


def held(**changes: Any) -> WindowRecord:
    """A window in which everything went as it should: three filesystems, held for 12 ms."""
    instants = WindowInstants(0, 40 * MS, 41 * MS, 51 * MS, 52 * MS, 60 * MS)
    record = WindowRecord(
        instants=instants,
        freeze=FreezeReply(FreezeOutcome.frozen, count=3),
        thaw=ThawReply(ThawOutcome.completed, count=3, attempts=1),
        point_was_requested=True,
        frozen_afterwards=False,
    )
    return replace(record, **changes)


def evidence(window: WindowRecord | None = None, **changes: Any) -> Evidence:
    whole = Evidence(
        domain_was_running=True,
        point_taken=True,
        window=window or held(),
        hold_limit_ms=30_000,
        hook=HookState.absent,
        expected_filesystems=3,
    )
    return replace(whole, **changes)


def codes(found: Evidence, effect: Effect = Effect.lowers) -> list[str]:
    return [reason.code for reason in judge(found).reasons if reason.effect is effect]


# --- none -----------------------------------------------------------------------------------------


def test_none_when_no_snapshot_was_taken_however_well_the_freeze_held() -> None:
    assert judge(evidence(point_taken=False)) == no_point()
    assert no_point().verdict is Verdict.none


# --- crash ----------------------------------------------------------------------------------------

NOT_FROZEN = [
    (FreezeOutcome.empty, "nothing_frozen"),
    (FreezeOutcome.refused, "freeze_refused"),
    (FreezeOutcome.absurd, "freeze_count_invalid"),
    (FreezeOutcome.blocked, "freeze_blocked"),
    (FreezeOutcome.hook_failed, "freeze_hook_failed"),
    (FreezeOutcome.unanswered, "freeze_unanswered"),
    (FreezeOutcome.not_possible, "freeze_not_possible"),
    (FreezeOutcome.not_requested, "freeze_off"),
    (FreezeOutcome.not_needed, "freeze_skipped"),
]


@pytest.mark.parametrize(("outcome", "code"), NOT_FROZEN)
def test_crash_when_the_freeze_failed_or_was_skipped(outcome: FreezeOutcome, code: str) -> None:
    found = evidence(held(freeze=FreezeReply(outcome, message="the agent's words")))
    assert judge(found).verdict is Verdict.crash
    assert codes(found) == [code]


def test_every_outcome_of_a_freeze_is_in_the_table() -> None:
    assert {outcome for outcome, _ in NOT_FROZEN} | {FreezeOutcome.frozen} == set(FreezeOutcome)


@pytest.mark.parametrize("count", [None, 0, -1])
def test_crash_when_the_count_of_frozen_filesystems_is_invalid(count: int | None) -> None:
    found = evidence(held(freeze=FreezeReply(FreezeOutcome.frozen, count=count)), expected_filesystems=None)
    assert judge(found).verdict is Verdict.crash
    assert "freeze_count_invalid" in codes(found)


OUTSIDE = {
    "snapshot sent before the freeze reply": {"point_sent": 39 * MS},
    "snapshot done after the thaw was sent": {"point_done": 53 * MS},
    "snapshot never came back": {"point_done": None},
    "snapshot never sent": {"point_sent": None},
    "freeze reply not recorded": {"freeze_reply": None},
    "thaw not recorded": {"thaw_sent": None},
}


@pytest.mark.parametrize("changes", OUTSIDE.values(), ids=OUTSIDE.keys())
def test_crash_when_the_snapshot_is_not_inside_the_hold(changes: dict[str, int | None]) -> None:
    found = evidence(held(instants=replace(held().instants, **changes)))
    assert judge(found).verdict is Verdict.crash
    assert "outside_the_hold" in codes(found)


def test_crash_when_writes_were_held_longer_than_the_limit() -> None:
    assert judge(evidence(hold_limit_ms=12.0)).verdict is Verdict.filesystem
    assert judge(evidence(hold_limit_ms=11.9)).verdict is Verdict.crash
    assert codes(evidence(hold_limit_ms=11.9)) == ["hold_limit_exceeded"]


def test_crash_when_the_watchdog_had_to_thaw_even_if_the_clock_looks_good() -> None:
    found = evidence(held(watchdog_fired=True))
    assert judge(found).verdict is Verdict.crash
    assert codes(found) == ["hold_limit_exceeded"]


THAWS = [
    (ThawReply(ThawOutcome.count_differs, count=2), "thaw_count_differs"),
    (ThawReply(ThawOutcome.lost, count=0), "thaw_lost"),
    (ThawReply(ThawOutcome.refused, message="couldn't hold writes"), "thaw_refused"),
    (ThawReply(ThawOutcome.unanswered, message="silence"), "thaw_unanswered"),
    (ThawReply(ThawOutcome.not_needed), "thaw_not_sent"),
    (ThawReply(ThawOutcome.hook_failed, message="fsfreeze hook has failed with status 1"), "hold_not_proven"),
]


@pytest.mark.parametrize(("thaw", "code"), THAWS)
def test_crash_when_the_thaw_does_not_prove_the_hold(thaw: ThawReply, code: str) -> None:
    found = evidence(held(thaw=thaw))
    assert judge(found).verdict is Verdict.crash
    assert codes(found) == [code]


def test_every_outcome_of_a_thaw_is_in_the_table() -> None:
    assert {thaw.outcome for thaw, _ in THAWS} | {ThawOutcome.completed} == set(ThawOutcome)


def test_crash_when_fewer_filesystems_were_frozen_than_can_be() -> None:
    found = evidence(expected_filesystems=4)
    assert judge(found).verdict is Verdict.crash
    assert codes(found) == ["fewer_frozen_than_mounted"]


def test_more_frozen_than_expected_lowers_nothing() -> None:
    assert judge(evidence(expected_filesystems=2)).verdict is Verdict.filesystem


def test_crash_names_every_reason_and_not_only_the_first() -> None:
    window = held(watchdog_fired=True, thaw=ThawReply(ThawOutcome.lost, count=0))
    assert codes(evidence(window, expected_filesystems=9)) == ["hold_limit_exceeded", "thaw_lost", "fewer_frozen_than_mounted"]


# --- filesystem -----------------------------------------------------------------------------------

BELOW_APPLICATION = [
    (HookState.absent, "no_hook"),
    (HookState.swallowing, "hook_swallows_failures"),
    (HookState.unknown, "hook_truth_unknown"),
    (HookState.not_inspected, "hook_not_inspected"),
]


@pytest.mark.parametrize(("hook", "code"), BELOW_APPLICATION)
def test_filesystem_when_nothing_proves_that_the_applications_were_told(hook: HookState, code: str) -> None:
    found = evidence(hook=hook)
    assert judge(found).verdict is Verdict.filesystem
    assert codes(found) == [code]
    assert codes(found, Effect.lifts) == ["held"]


def test_every_state_of_a_hook_is_in_the_table() -> None:
    assert {hook for hook, _ in BELOW_APPLICATION} | {HookState.truthful} == set(HookState)


@pytest.mark.parametrize("hook", HookState)
def test_filesystem_when_the_hook_failed_on_thaw_but_the_guest_was_still_frozen_just_before(hook: HookState) -> None:
    thaw = ThawReply(ThawOutcome.hook_failed, message="fsfreeze hook has failed with status 3")
    found = evidence(held(thaw=thaw, frozen_before_thaw=True), hook=hook)
    assert judge(found).verdict is Verdict.filesystem
    assert codes(found)[0] == "thaw_hook_failed"


@pytest.mark.parametrize("asked", [None, False])
def test_crash_when_the_hook_failed_on_thaw_and_nothing_shows_that_the_guest_was_frozen(asked: bool | None) -> None:
    thaw = ThawReply(ThawOutcome.hook_failed, message="fsfreeze hook has failed with status 3")
    assert judge(evidence(held(thaw=thaw, frozen_before_thaw=asked), hook=HookState.truthful)).verdict is Verdict.crash


FUSES = [(FuseState.fired, "fuse_fired"), (FuseState.unknown, "fuse_unknown")]


@pytest.mark.parametrize(("state", "code"), FUSES)
def test_crash_when_the_fuse_may_have_ended_the_hold_and_no_count_shows_that_it_did_not(state: FuseState, code: str) -> None:
    thaw = ThawReply(ThawOutcome.hook_failed, message="fsfreeze hook has failed with status 3")
    found = evidence(held(thaw=thaw, frozen_before_thaw=True), fuse=FuseReport(state, 155, "nobody knows"))
    assert judge(found).verdict is Verdict.crash
    assert codes(found) == [code]


@pytest.mark.parametrize("state", FuseState)
def test_a_fuse_takes_nothing_from_a_hold_that_the_count_of_the_thaw_shows(state: FuseState) -> None:
    assert codes(evidence(fuse=FuseReport(state, 155))) == ["no_hook"]


# --- application ----------------------------------------------------------------------------------


def test_application_when_a_hook_that_reports_failures_reported_none() -> None:
    found = evidence(hook=HookState.truthful)
    assert judge(found).verdict is Verdict.application
    assert codes(found, Effect.lifts) == ["held", "hook_truthful"]
    assert codes(found) == []


# --- offline --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cleanly", "code", "effect"),
    [
        (True, "shut_down_cleanly", Effect.lifts),
        (False, "shut_off_by_force", Effect.lowers),
        (None, "shut_off_unknown", Effect.lowers),
    ],
)
def test_offline_when_the_domain_was_shut_off(cleanly: bool | None, code: str, effect: Effect) -> None:
    found = evidence(WindowRecord(), domain_was_running=False, shut_off_cleanly=cleanly)
    assert judge(found).verdict is Verdict.offline
    assert [(reason.code, reason.effect) for reason in judge(found).reasons] == [(code, effect)]


# --- notes ----------------------------------------------------------------------------------------


def test_a_guest_that_says_frozen_after_the_thaw_is_noted() -> None:
    assert codes(evidence(held(frozen_afterwards=True)), Effect.notes) == ["frozen_afterwards"]


def test_filesystems_of_a_type_that_cannot_be_frozen_are_noted_by_name() -> None:
    (note,) = [each for each in judge(evidence(unfreezable_filesystems=("/boot/efi",))).reasons if each.code == "filesystems_not_freezable"]
    assert (note.effect, "/boot/efi" in note.detail) == (Effect.notes, True)


def test_an_unknown_number_of_filesystems_is_noted_because_then_all_of_them_were_frozen() -> None:
    found = evidence(expected_filesystems=None)
    assert judge(found).verdict is Verdict.filesystem
    assert codes(found, Effect.notes) == ["coverage_unknown"]


# --- what counts as success -----------------------------------------------------------------------

ORDER = [Verdict.none, Verdict.crash, Verdict.filesystem, Verdict.application_unverified, Verdict.application]


def test_a_verdict_satisfies_itself_and_everything_below_it() -> None:
    for place, verdict in enumerate(ORDER):
        for other_place, required in enumerate(ORDER):
            assert satisfies(verdict, required, None) is (place >= other_place), (verdict, required)


@pytest.mark.parametrize("required", ORDER[1:])
def test_a_cleanly_shut_down_domain_satisfies_everything(required: Verdict) -> None:
    assert satisfies(Verdict.offline, required, shut_off_cleanly=True)


@pytest.mark.parametrize("cleanly", [False, None])
def test_a_domain_that_was_not_shut_down_cleanly_satisfies_crash_alone(cleanly: bool | None) -> None:
    assert [verdict for verdict in ORDER[1:] if satisfies(Verdict.offline, verdict, cleanly)] == [Verdict.crash]
