"""Instants and the durations between them."""

from service.model.timing import Timing, WindowInstants, ms_between

MS = 1_000_000
WHOLE = WindowInstants(0, 40 * MS, 41 * MS, 51 * MS, 52 * MS, 60 * MS)


def test_a_duration_is_in_milliseconds_to_the_microsecond() -> None:
    assert ms_between(1_000_000, 2_234_567) == 1.235


def test_a_duration_that_never_began_or_never_ended_is_not_known() -> None:
    assert ms_between(None, 1) is None
    assert ms_between(1, None) is None


def test_the_hold_is_from_the_freeze_reply_to_the_thaw_sent() -> None:
    assert WHOLE.hold_ms == 12.0


def test_the_document_has_every_part_of_the_window() -> None:
    assert Timing(WHOLE, 30_000.0).as_document() == {
        "freeze_ms": 40.0,
        "point_in_time_ms": 10.0,
        "thaw_ms": 8.0,
        "hold_ms": 12.0,
        "window_ms": 60.0,
        "limits": {"freeze_ms": 60_000.0, "hold_ms": 30_000.0, "freeze_to_thaw_ms": 60_000.0},
        "within_limits": True,
    }


def test_a_hold_above_its_limit_is_not_within_the_limits() -> None:
    assert Timing(WHOLE, 11.0).as_document()["within_limits"] is False


def test_without_a_freeze_nothing_is_known_about_limits() -> None:
    document = Timing(WindowInstants(snapshot_sent=0, snapshot_done=MS), 30_000.0).as_document()
    assert (document["point_in_time_ms"], document["hold_ms"], document["within_limits"]) == (1.0, None, None)
