"""The events as `stillpoint events` shows them."""

import json
from itertools import islice

from service.clock import rfc3339
from service.db.engine import Database
from service.records import event_log
from tests.scenes.orders import a_snapshot
from tests.scenes.queue import add, allow, claimed, job_of


def test_all_events_are_read_however_many_there_are(sqlite_database: Database) -> None:
    wanted = [add(sqlite_database, a_snapshot(str(number))) for number in range(5)]
    page, event_log.PAGE = event_log.PAGE, 2
    try:
        assert [event.job_id for event in event_log.read(sqlite_database, 0)] == wanted
    finally:
        event_log.PAGE = page


def test_whoever_follows_gets_what_comes_later(sqlite_database: Database) -> None:
    first = add(sqlite_database, a_snapshot("a"))
    following = event_log.read(sqlite_database, 0, follow=True, poll_s=0.001)
    assert next(following).job_id == first
    later = [add(sqlite_database, a_snapshot(name)) for name in ("b", "c")]
    assert [event.job_id for event in islice(following, 2)] == later


def test_a_line_says_all_that_a_person_asks(sqlite_database: Database) -> None:
    allow(sqlite_database, "host:hv1:quick", 1)
    job_id = add(sqlite_database, a_snapshot("db1"))
    claimed(sqlite_database)
    created, began = event_log.read(sqlite_database, 0)
    at = rfc3339(job_of(sqlite_database, job_id).created_at)
    assert event_log.as_line(created) == f"{created.id}  {at}  job {job_id}  snapshot of db1 on hv1: queued"
    assert event_log.as_line(began).endswith("snapshot of db1 on hv1: queued -> running  attempt=1")


def test_a_json_line_has_every_column(sqlite_database: Database) -> None:
    job_id = add(sqlite_database, a_snapshot("db1"))
    (event,) = event_log.read(sqlite_database, 0)
    assert json.loads(event_log.as_json(event)) == {
        "id": event.id,
        "at": rfc3339(job_of(sqlite_database, job_id).created_at),
        "kind": "job",
        "job_id": job_id,
        "job_kind": "snapshot",
        "point_id": None,
        "domain_id": "id-of-db1",
        "domain_name": "db1",
        "host_id": "hv1",
        "moved_from": None,
        "moved_to": "queued",
        "facts": {},
    }
    assert set(json.loads(event_log.as_json(event))) == set(event.__table__.columns.keys())
