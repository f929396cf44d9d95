import pytest

from service.model.pace import CALM_LOOKS, FIRST_BYTES_S, LEAST_BYTES_S, PaceRule


def _looks(rule: PaceRule, *latencies: float | None, since: float = 0.0) -> list[int | None]:
    paces = []
    for second, latency in enumerate(latencies):
        rule.look(since + second, latency)
        paces.append(rule.bytes_s)
    return paces


def test_a_copy_runs_at_full_speed_while_the_guest_does_not_suffer() -> None:
    assert _looks(PaceRule(20), 1, 19, None, 20) == [None] * 4


def test_without_a_limit_nothing_slows_the_copy() -> None:
    assert _looks(PaceRule(None), 10_000) == [None]


def test_each_look_above_the_limit_halves_the_pace_until_nothing_is_read() -> None:
    paces = _looks(PaceRule(20), *[21] * 8)
    assert paces == [FIRST_BYTES_S, 32 << 20, 16 << 20, 8 << 20, LEAST_BYTES_S, 0, 0, 0]


def test_the_pace_comes_back_in_steps_when_the_guest_is_calm() -> None:
    rule = PaceRule(20)
    _looks(rule, *[21] * 6)
    paces = _looks(rule, *[1] * CALM_LOOKS * 6)
    assert paces[CALM_LOOKS - 1 :: CALM_LOOKS] == [LEAST_BYTES_S, 8 << 20, 16 << 20, 32 << 20, FIRST_BYTES_S, None]


def test_a_guest_that_asks_nothing_of_its_disks_is_calm() -> None:
    rule = PaceRule(20)
    _looks(rule, *[21] * 6)
    assert _looks(rule, *[None] * CALM_LOOKS)[-1] == LEAST_BYTES_S


def test_just_below_the_limit_the_pace_stays() -> None:
    rule = PaceRule(20)
    _looks(rule, 21, 21)
    assert set(_looks(rule, *[19] * 20)) == {32 << 20}


@pytest.mark.parametrize(("seconds", "is_given_up"), [(9, False), (10, True)])
def test_a_guest_that_suffers_although_nothing_is_read_ends_the_copy_after_the_patience(seconds: int, is_given_up: bool) -> None:
    rule = PaceRule(20, patience_s=10)
    _looks(rule, *[30] * 6)  # the last look, at second 5, halts the copy
    _looks(rule, *[25] * seconds, since=6)
    assert (rule.bytes_s, rule.is_given_up(5 + seconds)) == (0, is_given_up)
    assert rule.last_latency_ms == 25


def test_a_calm_look_begins_the_patience_again() -> None:
    rule = PaceRule(20, patience_s=10)
    _looks(rule, *[30] * 12, 1, 30)
    assert not rule.is_given_up(16)
