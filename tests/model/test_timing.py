"""Instants and the durations between them."""

from service.model.timing import Limits, Timing, WindowInstants, ms_between

MS = 1_000_000
WHOLE = WindowInstants(0, 40 * MS, 41 * MS, 51 * MS, 52 * MS, 60 * MS)


def test_a_duration_is_in_milliseconds_to_the_microsecond() -> None:
    assert ms_between(1_000_000, 2_234_567) == 1.235


def test_a_duration_that_never_began_or_never_ended_is_not_known() -> None:
    assert ms_between(None, 1) is None
    assert ms_between(1, None) is None


def test_the_hold_is_from_the_freeze_reply_to_the_thaw_sent() -> None:
    assert WHOLE.hold_ms == 12.0


LIMITS = Limits(freeze_ms=120_000, hold_ms=30_000, freeze_to_thaw_ms=None)


def within(limits: Limits) -> bool | None:
    is_within: bool | None = Timing(WHOLE, limits, froze=True).as_document()["within_limits"]
    return is_within


def test_the_document_has_every_part_of_the_window() -> None:
    assert Timing(WHOLE, LIMITS, froze=True).as_document() == {
        "freeze_ms": 40.0,
        "point_in_time_ms": 10.0,
        "thaw_ms": 8.0,
        "hold_ms": 12.0,
        "window_ms": 60.0,
        "limits": {"freeze_ms": 120_000, "hold_ms": 30_000, "freeze_to_thaw_ms": None},
        "within_limits": True,
    }


def test_each_limit_counts_and_one_that_does_not_exist_does_not() -> None:
    assert within(Limits(freeze_ms=40, hold_ms=12, freeze_to_thaw_ms=52)) is True
    assert within(Limits(freeze_ms=40, hold_ms=12, freeze_to_thaw_ms=None)) is True
    assert within(Limits(freeze_ms=39, hold_ms=12, freeze_to_thaw_ms=52)) is False
    assert within(Limits(freeze_ms=40, hold_ms=11, freeze_to_thaw_ms=52)) is False
    assert within(Limits(freeze_ms=40, hold_ms=12, freeze_to_thaw_ms=51)) is False


def test_a_freeze_that_failed_held_nothing() -> None:
    document = Timing(WindowInstants(0, 40 * MS, None, None, 41 * MS, 50 * MS), LIMITS, froze=False).as_document()
    assert (document["freeze_ms"], document["hold_ms"], document["within_limits"]) == (40.0, None, None)


def test_without_a_freeze_nothing_is_known_about_limits() -> None:
    document = Timing(WindowInstants(point_sent=0, point_done=MS), LIMITS, froze=False).as_document()
    assert (document["point_in_time_ms"], document["hold_ms"], document["within_limits"]) == (1.0, None, None)
