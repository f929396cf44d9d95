"""What a verify by plan may cost: hours, bytes a day, and that neither is exceeded in the long run."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.model.blackouts import Blackout, Weekday
from service.model.repository import ProofKind
from service.model.verification_budget import Budget, Spent, can_begin, rate_of

NOW = datetime(2026, 3, 20, 9, 0, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
ALL_DAYS = tuple(Weekday)
NIGHT = Blackout(ALL_DAYS, "22:00", "04:00", "Europe/Berlin")


def at(hour: int, day: int = 20) -> datetime:
    """By the clock of UTC. Berlin is an hour ahead."""
    return datetime(2026, 3, day, hour, 0, tzinfo=UTC)


def test_a_read_begins_in_its_hours_only() -> None:
    budget = Budget(hours=NIGHT, time_zone="Europe/Berlin")
    assert [can_begin(budget, 1, [], at(hour)) for hour in (20, 21, 23, 2, 3)] == [False, True, True, True, False]
    assert can_begin(Budget(), 1, [], NOW)


def test_a_read_that_the_rest_of_the_hours_is_too_short_for_waits_for_the_next_ones() -> None:
    budget = Budget(hours=NIGHT)
    earlier = Spent(at(21) + HOUR / 2, 3600, took_s=3600)
    assert can_begin(budget, 2 * 3600, [earlier], at(23))
    assert not can_begin(budget, 5 * 3600, [earlier], at(23))
    assert can_begin(budget, 500 * 3600, [earlier], at(21, day=21))


def test_a_limit_of_the_rate_counts_as_the_speed() -> None:
    earlier = Spent(at(21) + HOUR / 2, 3600, took_s=1)
    assert can_begin(Budget(hours=NIGHT), 5 * 3600, [earlier], at(23))
    assert not can_begin(Budget(hours=NIGHT, rate_limit_bytes=1), 5 * 3600, [earlier], at(23))


def test_the_slowest_of_the_newest_reads_says_how_fast_the_next_one_is() -> None:
    assert rate_of([]) is None
    assert rate_of([Spent(NOW, 10), Spent(NOW - DAY, 10, 5.0), Spent(NOW - 2 * DAY, 10, 2.0)]) == 2.0
    assert rate_of([Spent(NOW - n * DAY, 10, 1.0) for n in range(5)] + [Spent(NOW - 9 * DAY, 10, 100.0)]) == 10.0


def test_a_days_bytes_are_spent_once_and_come_again_on_the_next_day_of_the_time_zone() -> None:
    budget = Budget(bytes_per_day=100, time_zone="Europe/Berlin")
    spent = [Spent(at(9), 70)]
    assert (budget.left(spent, at(22)), budget.spent_today(spent, at(22))) == (30, 70)
    assert (budget.left(spent, at(23)), budget.spent_today(spent, at(23))) == (100, 0)
    assert can_begin(budget, 30, spent, at(22))
    assert not can_begin(budget, 31, spent, at(22))


def test_a_read_that_costs_more_than_a_day_begins_on_a_fresh_day_and_the_next_days_pay() -> None:
    budget = Budget(bytes_per_day=100)
    assert can_begin(budget, 350, [], NOW)
    assert not can_begin(budget, 350, [Spent(NOW - HOUR, 1)], NOW)
    large = [Spent(NOW, 350)]
    assert [budget.left(large, NOW + n * DAY) for n in range(6)] == [-250, -150, -50, 50, 100, 100]


def test_what_was_spent_by_a_clock_that_was_ahead_counts_for_today() -> None:
    assert Budget(bytes_per_day=100).left([Spent(NOW + 40 * DAY, 60)], NOW) == 40


documents = st.builds(
    lambda limit, days, begin, end, zone, checks, rate: {
        "bytes_per_day": limit,
        "days": [day.value for day in ALL_DAYS if day in days],
        "from": begin,
        "to": end,
        "time_zone": zone,
        "checks": checks,
        "rate_limit_bytes": rate,
    },
    st.none() | st.integers(1, 1 << 50),
    st.sets(st.sampled_from(ALL_DAYS), min_size=1),
    st.sampled_from(["00:00", "01:30", "22:00"]),
    st.sampled_from(["24:00", "05:00", "23:59"]),
    st.sampled_from(["UTC", "Europe/Berlin"]),
    st.sampled_from([["bytes"], ["bytes", "structure", "filesystem"]]),
    st.none() | st.integers(1, 1 << 30),
)


@given(documents)
def test_a_budget_is_read_as_it_was_written(document: dict[str, object]) -> None:
    assert Budget.from_document(document).as_document() == document


def test_a_whole_day_is_no_limit_of_hours() -> None:
    assert Budget.from_document(Budget(checks=(ProofKind.bytes,)).as_document()).hours is None


def _hours() -> Iterator[datetime]:
    return (NOW + n * HOUR for n in range(24 * 60))


@given(st.integers(1, 200), st.lists(st.integers(1, 500), min_size=1, max_size=8), st.sampled_from(["UTC", "Europe/Berlin"]))
def test_in_the_long_run_no_more_is_spent_than_the_budget_and_everything_has_its_turn(limit: int, costs: list[int], zone: str) -> None:
    """The plan has its reads in a fixed order, and what comes first is asked first."""
    budget, spent, waiting = Budget(bytes_per_day=limit, time_zone=zone), list[Spent](), list(costs)
    for now in _hours():
        begun = next((cost for cost in waiting if can_begin(budget, cost, spent, now)), None)
        if begun is not None:
            waiting.remove(begun)
            spent.append(Spent(now, begun))
        days = (now - NOW) // DAY + 2
        assert sum(each.bytes for each in spent) <= days * limit + max(costs)
    assert not waiting or sum(costs) > 50 * limit
