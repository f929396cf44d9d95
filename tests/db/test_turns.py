"""Writers of one process come one after the other, in the order in which they asked; the urgent ones pass."""

import threading
from collections.abc import Callable

import pytest

from service.db.engine import Database
from service.db.tables import Host
from service.db.turns import Turns, WriteTurnMissed
from service.errors import DatabaseUnavailable
from tests.api.world import add_host

PATIENCE_S = 20.0


class Line:
    """Writers that wait behind one that has the turn, each known to wait before the next one comes."""

    def __init__(self) -> None:
        self.turns = Turns()
        self.done: list[str] = []
        self.threads: list[threading.Thread] = []

    def waits(self, name: str, *, urgent: bool = False) -> None:
        def write() -> None:
            with self.turns.turn(urgent=urgent, patience_s=PATIENCE_S):
                self.done.append(name)

        before = self.turns.waiting
        thread = threading.Thread(target=write)
        thread.start()
        self.threads.append(thread)
        _until(lambda: self.turns.waiting == before + 1)

    def all_done(self) -> list[str]:
        for thread in self.threads:
            thread.join(PATIENCE_S)
        return self.done


def test_who_comes_first_writes_first() -> None:
    line = Line()
    with line.turns.turn(urgent=False, patience_s=PATIENCE_S):
        for name in "abcde":
            line.waits(name)
    assert line.all_done() == list("abcde")


def test_the_urgent_pass_those_who_wait_longer() -> None:
    line = Line()
    with line.turns.turn(urgent=False, patience_s=PATIENCE_S):
        line.waits("a")
        line.waits("b")
        line.waits("thaw", urgent=True)
        line.waits("release", urgent=True)
    assert line.all_done() == ["thaw", "release", "a", "b"]


def test_who_loses_patience_leaves_the_line_and_stops_nobody() -> None:
    turns = Turns()
    with turns.turn(urgent=False, patience_s=PATIENCE_S), pytest.raises(WriteTurnMissed), turns.turn(urgent=False, patience_s=0.01):
        raise AssertionError("two had the turn at once")
    with turns.turn(urgent=False, patience_s=0.01):
        assert turns.waiting == 0


def test_a_write_that_failed_passes_the_turn_on(sqlite_database: Database) -> None:
    with pytest.raises(RuntimeError), sqlite_database.write():
        raise RuntimeError
    with sqlite_database.write() as session:
        add_host(session)


def test_a_turn_that_does_not_come_is_a_database_that_is_away(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.db.engine.WRITE_PATIENCE_S", 0.01)
    refused: list[str] = []

    def write() -> None:
        try:
            with sqlite_database.write() as session:
                session.get(Host, "hv1")
        except DatabaseUnavailable as error:
            refused.append(error.code)

    with sqlite_database.write():
        other = threading.Thread(target=write)
        other.start()
        other.join(PATIENCE_S)
    assert refused == ["database_unavailable"]


def test_sqlite_keeps_what_it_has_committed_through_a_power_cut(sqlite_database: Database) -> None:
    """By its own setting: 2 is FULL, which syncs the log at each commit."""
    with sqlite_database.engine.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2


def _until(condition: Callable[[], bool]) -> None:
    over = threading.Event()
    for _ in range(10_000):
        if condition():
            return
        over.wait(0.002)
    raise AssertionError("nobody waits")
