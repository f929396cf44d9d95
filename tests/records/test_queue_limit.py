"""How many jobs of one domain may wait, while several are added at once."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest
from sqlalchemy import func, select, text

from service.db.engine import Database, open_engine
from service.db.tables import Job
from service.errors import DomainQueueFull
from service.records import queue
from service.records.queue import NewJob
from tests.scenes.orders import a_snapshot, a_thaw

LIMIT = 3
PATIENCE_S = 20.0


def test_a_second_create_counts_the_row_that_the_first_has_not_committed_yet(postgres_url: str) -> None:
    database = Database(open_engine(postgres_url))
    with ThreadPoolExecutor(1) as other:
        with database.write() as session:
            queue.enqueue(session, a_snapshot("db1"), queue_limit=1)
            second = other.submit(_add, database, a_snapshot("db1"), 1)
            _wait_until_it_waits_or_ends(database, second)
        with pytest.raises(DomainQueueFull) as refused:
            second.result(PATIENCE_S)
    assert refused.value.facts == {"domain": "db1", "limit": 1}
    assert _queued(database) == 1
    database.dispose()


def test_eight_creates_at_once_stop_at_the_limit(database: Database) -> None:
    together = threading.Barrier(8)

    def add() -> bool:
        together.wait()
        try:
            _add(database, a_snapshot("db1"), LIMIT)
        except DomainQueueFull:
            return False
        return True

    with ThreadPoolExecutor(8) as racers:
        taken = list(racers.map(lambda _: add(), range(8)))
    assert (taken.count(True), _queued(database)) == (LIMIT, LIMIT)


@pytest.mark.parametrize("other", [a_thaw("db1"), a_snapshot("web1"), a_snapshot("db1", "hv2")], ids=["thaw", "domain", "host"])
def test_a_create_keeps_only_those_of_its_domain_waiting(postgres_url: str, other: NewJob) -> None:
    database = Database(open_engine(postgres_url))
    limit = None if other.kind == "thaw" else 1
    with ThreadPoolExecutor(1) as thread, database.write() as session:
        queue.enqueue(session, a_snapshot("db1"), queue_limit=1)
        thread.submit(partial(_add, database, other, limit)).result(PATIENCE_S)
    assert _queued(database) == 2
    database.dispose()


def _add(database: Database, new: NewJob, limit: int | None) -> None:
    with database.write() as session:
        queue.enqueue(session, new, queue_limit=limit)


def _queued(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


def _wait_until_it_waits_or_ends(database: Database, task: Future[None]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    waits = text("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
    while not task.done():
        with database.read() as session:
            if session.scalar(waits):
                return
        assert time.monotonic() < deadline
        time.sleep(0.01)
