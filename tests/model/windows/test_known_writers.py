"""The writers that earlier jobs saw: one that is listed no more is missed for a while, and nobody is missed in half a list."""

import pytest

from service.model.windows import known_writers
from service.model.windows.drift import ABSENT
from service.model.windows.known_writers import KnownWriter
from service.model.windows.vss_writers import parse
from tests.model.windows.vssadmin_samples import BITS, EXCHANGE, SQL, TASKS, english, well

pytestmark = pytest.mark.windows

DAY_1, DAY_2, DAY_40 = "2026-01-01T02:00:00.000000Z", "2026-01-02T02:00:00.000000Z", "2026-02-09T02:00:00.000000Z"
BOTH = parse(english(*well(TASKS, EXCHANGE)))
ONE = parse(english(*well(TASKS)))
SQL_TWICE = parse(english(*well(SQL, (SQL[0], SQL[1], EXCHANGE[2]))))
SQL_ONCE = parse(english(*well(SQL)))


def names(known: tuple[KnownWriter, ...]) -> list[str]:
    return [each.name for each in known]


def test_what_was_seen_once_is_missed_until_it_is_listed_again() -> None:
    first = known_writers.updated((), BOTH, DAY_1)
    second = known_writers.updated(first, ONE, DAY_2)
    assert names(known_writers.missing(second, ONE, ONE)) == [EXCHANGE[0]]
    assert known_writers.missing(second, BOTH, ONE) == ()
    assert known_writers.missing(second, ONE, BOTH) == ()


def test_the_memory_knows_since_when_and_until_when_a_writer_was_seen() -> None:
    known = known_writers.updated(known_writers.updated((), BOTH, DAY_1), ONE, DAY_2)
    assert {each.name: (each.since, each.seen) for each in known} == {TASKS[0]: (DAY_1, DAY_2), EXCHANGE[0]: (DAY_1, DAY_1)}


def test_one_of_two_instances_is_missed() -> None:
    known = known_writers.updated(known_writers.updated((), SQL_TWICE, DAY_1), SQL_ONCE, DAY_2)
    assert names(known_writers.missing(known, SQL_ONCE, SQL_ONCE)) == [SQL[0]]


def test_a_writer_whose_service_starts_and_stops_by_itself_is_never_missed() -> None:
    known = known_writers.updated((), parse(english(*well(TASKS, BITS))), DAY_1)
    assert known_writers.missing(known, ONE, ONE) == ()


def test_a_writer_that_was_not_seen_for_long_is_forgotten() -> None:
    known = known_writers.updated(known_writers.updated((), BOTH, DAY_1), ONE, DAY_40)
    assert names(known) == [TASKS[0]]


def test_nobody_is_missed_in_lists_that_are_not_complete() -> None:
    known = known_writers.updated((), BOTH, DAY_1)
    cut = parse(english(*well(TASKS)), truncated=True)
    assert known_writers.missing(known, None, cut) == ()
    assert names(known_writers.missing(known, cut, ONE)) == [EXCHANGE[0]]


def test_the_change_names_the_writer_and_when_it_was_last_seen() -> None:
    missed = known_writers.missing(known_writers.updated((), BOTH, DAY_1), ONE)
    (change,) = known_writers.changes(missed, DAY_2)
    assert (change.code, change.before, change.after) == ("writer_missing", EXCHANGE[0], ABSENT)
    assert (change.last_seen_before, change.since) == (DAY_1, DAY_2)


def test_the_memory_survives_as_a_document() -> None:
    known = known_writers.updated((), BOTH, DAY_1)
    assert known_writers.known_from(known_writers.as_documents(known)) == known
