"""Something that is away is told when it goes, once a minute while it is away, and when it is back: no more, no less."""

import pytest
from structlog.testing import capture_logs

from service.errors import DatabaseReplaced, DatabaseUnavailable
from service.worker import absence
from service.worker.absence import Absence

AWAY = DatabaseUnavailable(reason="database or disk is full")


def events(*problems: DatabaseUnavailable | None) -> list[str]:
    database = Absence("database")
    with capture_logs() as lines:
        for problem in problems:
            database.note(problem)
    return [line["event"] for line in lines]


def test_what_is_there_is_not_spoken_of() -> None:
    assert events(None, None) == []


def test_what_goes_and_comes_back_is_two_lines_however_often_it_is_looked_at() -> None:
    assert events(None, AWAY, AWAY, AWAY, None, None) == ["database_away", "database_back"]


def test_another_reason_is_another_line() -> None:
    assert events(AWAY, DatabaseReplaced(what="x"), None) == ["database_away", "database_away", "database_back"]


def test_what_stays_away_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absence, "EVERY_SECONDS", 0)
    assert events(AWAY, AWAY) == ["database_away", "database_away"]
