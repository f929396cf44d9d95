"""When the fuse burns, and what its words mean."""

import pytest

from service.model.fuse import FuseReport, FuseState, fires_after_s, read_arming, read_ending


@pytest.mark.parametrize(("timeout_ms", "hold_limit_ms", "after_s"), [(120_000, 30_000, 155), (1_000, 100, 7), (1_000, 1_000, 7)])
def test_it_burns_whole_seconds_after_everybody_on_the_host_had_his_turn(timeout_ms: int, hold_limit_ms: int, after_s: int) -> None:
    assert fires_after_s(timeout_ms, hold_limit_ms) == after_s


@pytest.mark.parametrize(
    ("output", "state", "said"),
    [
        ("armed\n", FuseState.armed, None),
        ("unavailable: there is no sleep\n", FuseState.unavailable, "there is no sleep"),
        ("sh: syntax error", FuseState.unavailable, "'sh: syntax error'"),
        ("", FuseState.unavailable, "''"),
    ],
)
def test_only_its_own_word_makes_it_armed(output: str, state: FuseState, said: str | None) -> None:
    found, reason = read_arming(output)
    assert found is state
    assert reason is None if said is None else said in (reason or "")


@pytest.mark.parametrize(
    ("output", "state"),
    [
        ("disarmed\n", FuseState.disarmed),
        ("fired\n", FuseState.fired),
        ("failed\n", FuseState.unknown),
        ("none\n", FuseState.unknown),
        ("other\n", FuseState.unknown),
        ("gone\n", FuseState.unknown),
        ("alive\n", FuseState.armed),
        ("", FuseState.unknown),
    ],
)
def test_every_end_but_its_own_word_is_unknown(output: str, state: FuseState) -> None:
    found, reason = read_ending(output)
    assert found is state
    assert (reason is None) == (found is FuseState.disarmed)


def test_in_doubt_it_has_fired() -> None:
    assert [state for state in FuseState if FuseReport(state, 7).may_have_fired] == [FuseState.fired, FuseState.unknown]
