"""What the Windows agent's replies to freeze and thaw mean."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.model.timing import WindowInstants
from service.model.window import FreezeOutcome, FreezeReply, ThawOutcome, ThawReply, WindowRecord
from service.model.windows.vss_outcome import (
    BEFORE_VSS,
    VssDoubt,
    VssOutcome,
    count_is_absurd,
    hresult_in,
    read_freeze_error,
    read_thaw_error,
    read_window,
)
from tests.model.evidence_strategies import windows

pytestmark = pytest.mark.windows

MS = 1_000_000
LIBVIRT = "internal error: unable to execute QEMU agent command 'guest-fsfreeze-thaw': "


def window(freeze: FreezeReply | None = None, thaw: ThawReply | None = None) -> WindowRecord:
    return WindowRecord(
        instants=WindowInstants(0, 40 * MS, 41 * MS, 51 * MS, 52 * MS, 60 * MS),
        freeze=freeze or FreezeReply(FreezeOutcome.frozen, count=3),
        thaw=thaw or ThawReply(ThawOutcome.completed, count=3),
    )


# --- F§6.4, row by row ----------------------------------------------------------------------------


def test_rule_thaw_answers_the_freeze_count_completed() -> None:
    reading = read_window(window(), (10, 0))
    assert (reading.outcome, reading.guest_thawed, reading.hold_held, reading.doubt) == (VssOutcome.completed, True, True, None)


@pytest.mark.parametrize("nt", [(6, 1), (6, 0), (5, 2)])
def test_rule_completed_is_in_doubt_up_to_nt_6_1(nt: tuple[int, int]) -> None:
    reading = read_window(window(), nt)
    assert (reading.outcome, reading.doubt) == (VssOutcome.completed, VssDoubt.aborted_and_ignored)


@pytest.mark.parametrize("nt", [(6, 2), (6, 3), (10, 0)])
def test_completed_is_in_no_doubt_from_nt_6_2(nt: tuple[int, int]) -> None:
    assert read_window(window(), nt).doubt is None


def test_completed_is_in_doubt_when_nobody_knows_which_windows() -> None:
    assert read_window(window(), None).doubt is VssDoubt.windows_version_unknown


def test_rule_thaw_answers_0_lost() -> None:
    reading = read_window(window(thaw=ThawReply(ThawOutcome.lost, count=0)), (10, 0))
    assert (reading.outcome, reading.guest_thawed, reading.hold_held) == (VssOutcome.lost, True, None)


def test_trap_26_a_thaw_of_another_count_is_lost() -> None:
    reading = read_window(window(thaw=ThawReply(ThawOutcome.count_differs, count=2)), (10, 0))
    assert reading.outcome is VssOutcome.lost


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("couldn't hold writes: fsfreeze is limited up to 10 seconds: ", None),
        ("couldn't hold writes: fsfreeze is limited up to 10 seconds: Windows error 0x80042314: ", 0x80042314),
        ("couldn't hold writes: fsfreeze is limited up to 10 seconds: Windows error 0x8004230f: ", 0x8004230F),
        (f"{LIBVIRT}couldn't hold writes: fsfreeze is limited up to 10 seconds: ", None),
        ("some text of a later agent: Windows error 0x80042314: ", 0x80042314),
    ],
)
def test_rule_and_trap_2_a_thaw_that_could_not_hold_writes_has_thawed(text: str, code: int | None) -> None:
    reading = read_window(window(thaw=ThawReply(ThawOutcome.refused, message=text)), (10, 0))
    assert (reading.outcome, reading.guest_thawed, reading.hold_held) == (VssOutcome.hold_writes_timeout, True, False)
    assert (reading.hresult, reading.is_transient) == (code, True)


@pytest.mark.parametrize("suffix", ["", ": ", ": Unspecified error", ": Nicht näher bezeichneter Fehler", ": Windows error 0x80004005: E"])
@pytest.mark.parametrize(
    ("text", "outcome", "held"),
    [
        ("unexpected error in VSS provider", VssOutcome.provider_error, None),
        ("failed to do snapshot set", VssOutcome.failed, None),
        ("failed to complete backup", VssOutcome.complete_failed, True),
        ("couldn't hold writes: fsfreeze is limited up to 10 seconds", VssOutcome.hold_writes_timeout, False),
        ("AsyncSnapshot set is missing. Did you freeze the volumes?", VssOutcome.lost, False),
        ("a text that nobody knows", VssOutcome.failed, None),
    ],
)
def test_rule_and_trap_3_thaw_errors_are_known_by_a_part_of_their_text(
    text: str, suffix: str, outcome: VssOutcome, held: bool | None
) -> None:
    reading = read_thaw_error(LIBVIRT + text + suffix)
    assert (reading.outcome, reading.guest_thawed, reading.hold_held) == (outcome, True, held)


def test_rule_an_unanswered_thaw_is_unknown_and_maybe_frozen() -> None:
    reading = read_window(window(thaw=ThawReply(ThawOutcome.unanswered, message="Guest agent is not responding")), (10, 0))
    assert (reading.outcome, reading.guest_thawed) == (VssOutcome.unknown, None)


def test_an_unanswered_freeze_stays_unknown_when_the_thaw_is_answered() -> None:
    reading = read_window(window(FreezeReply(FreezeOutcome.unanswered), ThawReply(ThawOutcome.count_differs, count=3)), (10, 0))
    assert (reading.outcome, reading.guest_thawed) == (VssOutcome.unknown, True)


@pytest.mark.parametrize("outcome", [each for each in FreezeOutcome if each not in (FreezeOutcome.frozen, FreezeOutcome.unanswered)])
def test_what_did_not_freeze_was_not_frozen(outcome: FreezeOutcome) -> None:
    reading = read_window(window(FreezeReply(outcome), ThawReply(ThawOutcome.lost, count=0)), (10, 0))
    assert reading.outcome is VssOutcome.not_frozen


@pytest.mark.parametrize("count", [None, -1, 0, 65, 32_764, -2_147_483_648])
def test_a_freeze_count_that_is_absurd_is_refused(count: int | None) -> None:
    assert count_is_absurd(count)
    reading = read_window(window(FreezeReply(FreezeOutcome.frozen, count=count), ThawReply(ThawOutcome.completed, count=count)), (10, 0))
    assert reading.outcome is VssOutcome.not_frozen


@pytest.mark.parametrize("count", [1, 3, 64])
def test_a_freeze_count_that_can_be_is_taken(count: int) -> None:
    assert not count_is_absurd(count)


# --- freeze errors --------------------------------------------------------------------------------

FREEZE_ERRORS = [
    ("DoSnapshotSet exited without Frozen event: Unspecified error", "vss_freeze_aborted", 5, True),
    ("DoSnapshotSet exited without Frozen event: Windows error 0x80004005: Unspecified error", "vss_freeze_aborted", 5, True),
    ("timeout when try to receive Frozen event from VSS provider: Unspecified error", "vss_freeze_timeout", 5, True),
    ("couldn't receive Frozen event from VSS provider: ", "vss_freeze_timeout", 5, True),
    ("failed to do snapshot set: ", "vss_freeze_aborted", 5, False),
    ("failed to do snapshot set: Windows error 0x80042313: ", "vss_freeze_aborted", 5, True),
    ("failed to gather writer metadata: ", "vss_writers_unreachable", 1, False),
    ("failed to gather writer metadata: Windows error 0x80042318: ", "vss_writers_unreachable", 1, False),
    ("failed to create VSS backup components: ", "vss_setup_failed", 1, False),
    ("failed to initialize for backup: ", "vss_setup_failed", 1, False),
    ("failed to set backup state: ", "vss_setup_failed", 1, False),
    ("failed to set backup context: ", "vss_setup_failed", 1, False),
    ("failed to get writer metadata count: ", "vss_writer_metadata_failed", 2, False),
    ("failed to get writer metadata of 3/9: ", "vss_writer_metadata_failed", 2, False),
    ("failed to get identity of writer 3/9: ", "vss_writer_metadata_failed", 2, False),
    ("failed to get file counts of SqlServerWriter: ", "vss_writer_metadata_failed", 2, False),
    ("failed to get component info 1/2 of SqlServerWriter: ", "vss_writer_metadata_failed", 2, False),
    ("failed to add component master(SqlServerWriter): ", "vss_writer_metadata_failed", 2, False),
    ("failed to start snapshot set: ", "vss_other_requester", 2, True),
    ("failed to start snapshot set: Windows error 0x80042316: ", "vss_other_requester", 2, True),
    ("failed to start snapshot set: Windows error 0x80042301: ", "vss_other_requester", 2, False),
    ("failed to add D: to snapshot set: ", "vss_volume_refused", 2, False),
    ("failed to add D: to snapshot set: Windows error 0x8004230e: ", "vss_volume_refused", 2, False),
    ("failed to find first volume: ", "vss_no_volume", 2, False),
    ("failed to prepare for backup: ", "vss_prepare_failed", 3, False),
    ("failed to gather writer status: ", "vss_prepare_failed", 4, False),
    ("failed to create event Global\\QGAVSSEvent-frozen: ", "vss_setup_failed", BEFORE_VSS, False),
    ("fsfreeze not possible as VSS failed to initialize", "vss_not_usable", BEFORE_VSS, False),
    ("this feature or command is not currently supported", "vss_not_usable", BEFORE_VSS, False),
    ("Command guest-fsfreeze-freeze has been disabled", "agent_refused_freeze", BEFORE_VSS, False),
    ("Command guest-fsfreeze-freeze has been disabled: the command is not allowed", "agent_refused_freeze", BEFORE_VSS, False),
    ("The command guest-fsfreeze-freeze has been disabled for this instance", "agent_refused_freeze", BEFORE_VSS, False),
    ("something new", "vss_freeze_failed", None, False),
]


@pytest.mark.parametrize(("text", "code", "step", "transient"), FREEZE_ERRORS)
def test_a_freeze_error_tells_the_step_and_whether_to_try_again(text: str, code: str, step: int | None, transient: bool) -> None:
    failure = read_freeze_error(f"internal error: unable to execute QEMU agent command 'guest-fsfreeze-freeze': {text}")
    assert (failure.code, failure.step, failure.is_transient) == (code, step, transient)
    assert failure.remedy


def test_trap_17_another_requester_is_tried_again_later() -> None:
    failure = read_freeze_error("failed to start snapshot set: ")
    assert (failure.code, failure.is_transient) == ("vss_other_requester", True)


@pytest.mark.parametrize(
    ("text", "code"),
    [("x: Windows error 0x80042314: ", 0x80042314), ("0X8004230F", 0x8004230F), ("0x00042309", None), ("no code", None), ("", None)],
)
def test_a_code_is_read_where_there_is_one(text: str, code: int | None) -> None:
    assert hresult_in(text) == code


# --- fuzzed ---------------------------------------------------------------------------------------


@given(windows, st.none() | st.tuples(st.integers(0, 11), st.integers(0, 4)))
def test_completed_needs_an_answered_freeze_and_a_thaw_that_completed(record: WindowRecord, nt: tuple[int, int] | None) -> None:
    reading = read_window(record, nt)
    if reading.outcome is VssOutcome.completed:
        assert record.freeze.outcome is FreezeOutcome.frozen
        assert record.thaw.outcome is ThawOutcome.completed
        assert not count_is_absurd(record.freeze.count)
    if record.thaw.outcome is ThawOutcome.unanswered:
        assert reading.guest_thawed is None


@given(st.text(max_size=80))
def test_any_text_of_an_agent_is_read(text: str) -> None:
    assert read_thaw_error(text).guest_thawed is True
    assert read_freeze_error(text).detail
