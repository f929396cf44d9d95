"""When a repository will be full by its samples: a straight line tells the date, and no single sample moves it."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.model.trend import LOOK_BACK_DAYS, MAX_SAMPLES, MIN_SAMPLES, Sample, full_at

START = datetime(2026, 3, 1, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
GIB = 1 << 30


def hourly(free: Callable[[int], float], count: int = 10 * 24) -> list[Sample]:
    return [Sample(START + n * HOUR, round(free(n))) for n in range(count)]


def falling(hourly_bytes: int, left_at_the_end: int, count: int = 10 * 24) -> list[Sample]:
    return hourly(lambda n: left_at_the_end + (count - 1 - n) * hourly_bytes, count)


def test_a_line_that_falls_tells_the_date_to_the_minute() -> None:
    samples = falling(hourly_bytes=GIB, left_at_the_end=240 * GIB)
    expected = samples[-1].at + 10 * DAY
    found = full_at(samples)
    assert found is not None
    assert abs(found - expected) < timedelta(minutes=1)


def test_a_reserve_is_full_earlier() -> None:
    samples = falling(hourly_bytes=GIB, left_at_the_end=240 * GIB)
    found = full_at(samples, reserve_bytes=120 * GIB)
    assert found is not None
    assert abs(found - (samples[-1].at + 5 * DAY)) < timedelta(minutes=1)


def test_free_space_that_stays_or_grows_has_no_date() -> None:
    assert full_at(hourly(lambda n: 100 * GIB)) is None
    assert full_at(hourly(lambda n: (100 + n) * GIB)) is None


def test_too_few_samples_and_too_short_a_time_have_no_date() -> None:
    samples = falling(hourly_bytes=GIB, left_at_the_end=GIB)
    assert full_at([]) is None
    assert full_at(samples[:12]) is None
    daily = samples[::48]
    assert len(daily) < MIN_SAMPLES
    assert full_at(daily) is None


def test_a_repository_that_is_full_now_is_full_since_its_newest_sample() -> None:
    assert full_at([Sample(START, 0)]) == START
    assert full_at([Sample(START, 5 * GIB)], reserve_bytes=5 * GIB) == START


def test_a_prune_that_frees_much_once_does_not_hide_the_trend() -> None:
    """Ten days of falling, and one night in which a prune gave back what four days had taken. The date is between that of the days without
    the prune and that of what was lost in all."""
    samples = hourly(lambda n: (1000 - n + (100 if n > 120 else 0)) * GIB)
    found = full_at(samples)
    assert found is not None
    left = samples[-1].free_bytes / GIB
    lost_per_hour = (samples[0].free_bytes / GIB - left) / len(samples)
    assert left < (found - samples[-1].at) / HOUR < 1.1 * left / lost_per_hour


def test_nights_that_fill_and_a_prune_each_morning_are_told_by_what_is_lost_in_a_day() -> None:
    """Each night takes 10 GiB, and each noon gives 6 back: 4 GiB are lost in a day."""
    samples = hourly(lambda n: (400 - 4 * (n // 24) - (10 if 2 <= n % 24 < 12 else 4 if n % 24 >= 12 else 0)) * GIB, 14 * 24)
    found = full_at(samples)
    assert found is not None
    days = (found - samples[-1].at) / DAY
    assert 60 < days < 140


@given(st.integers(1, 500), st.integers(1, 10_000), st.data())
def test_a_few_samples_that_are_wrong_hardly_move_the_date(rate_mib: int, left_gib: int, data: st.DataObject) -> None:
    samples = falling(rate_mib << 20, left_gib * GIB)
    honest = full_at(samples)
    wrong = data.draw(st.sets(st.integers(0, len(samples) - 2), max_size=len(samples) // 25))
    bent = [Sample(one.at, data.draw(st.integers(0, 1 << 50))) if n in wrong else one for n, one in enumerate(samples)]
    found = full_at(bent)
    assert (found is None) == (honest is None)
    if found is not None and honest is not None:
        newest = samples[-1].at
        assert abs((found - honest) / (honest - newest)) < 0.2


_any_samples = st.lists(
    st.tuples(st.integers(0, 60 * 24), st.integers(0, 1 << 45)), min_size=0, max_size=120, unique_by=lambda pair: pair[0]
).map(lambda pairs: [Sample(START + hour * HOUR, free) for hour, free in sorted(pairs)])


@given(_any_samples)
def test_the_date_is_never_before_the_newest_sample(samples: list[Sample]) -> None:
    found = full_at(samples)
    assert found is None or found >= samples[-1].at


@given(_any_samples, st.integers(-1000, 1000))
def test_the_date_moves_with_the_samples(samples: list[Sample], hours: int) -> None:
    found = full_at(samples)
    moved = full_at([Sample(one.at + hours * HOUR, one.free_bytes) for one in samples])
    assert moved == (None if found is None else found + hours * HOUR)


@given(_any_samples, st.integers(1, 1 << 40))
def test_a_larger_reserve_is_never_full_later(samples: list[Sample], more: int) -> None:
    one, other = full_at(samples), full_at(samples, reserve_bytes=more)
    assert one is None or (other is not None and other <= one)


@given(_any_samples)
def test_what_is_older_than_the_look_back_does_not_count(samples: list[Sample]) -> None:
    recent = [one for one in samples if one.at >= samples[-1].at - timedelta(days=LOOK_BACK_DAYS)]
    assert full_at(samples) == full_at(recent)


def test_many_samples_are_thinned_and_tell_the_same_date() -> None:
    samples = falling(GIB, 240 * GIB, count=14 * 24)
    assert len(samples) > 2 * MAX_SAMPLES
    thin = full_at(samples[::6] + samples[-1:])
    found = full_at(samples)
    assert thin is not None
    assert found is not None
    assert abs(found - thin) < timedelta(minutes=1)
