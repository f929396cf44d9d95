"""Reads the events one after the other, and shows each as a line or as JSON."""

import json
import time
from collections.abc import Iterator
from typing import Any

from service.clock import rfc3339
from service.db.engine import Database
from service.db.tables import Event
from service.records import events
from service.records.events import EventKind

PAGE = 500
"""Events that one read returns. The next read continues after them."""
POLL_S = 1.0
"""Seconds that a following reader waits after it has seen all events, before it asks again."""


def read(database: Database, after: int, *, follow: bool = False, poll_s: float = POLL_S) -> Iterator[Event]:
    """The events after the event with the id `after`, oldest first. `follow`: never ends. Raises DatabaseUnavailable."""
    while True:
        with database.read() as session:
            page = events.after(session, after, PAGE)
        yield from page
        if page:
            after = page[-1].id
        elif follow:
            time.sleep(poll_s)
        else:
            return


def as_document(event: Event) -> dict[str, Any]:
    return {
        "id": event.id,
        "at": rfc3339(event.at),
        "kind": event.kind,
        "job_id": event.job_id,
        "job_kind": event.job_kind,
        "point_id": event.point_id,
        "domain_id": event.domain_id,
        "domain_name": event.domain_name,
        "host_id": event.host_id,
        "moved_from": event.moved_from,
        "moved_to": event.moved_to,
        "facts": event.facts,
    }


def as_json(event: Event) -> str:
    return json.dumps(as_document(event))


def as_line(event: Event) -> str:
    """For people: `17  2026-11-27T01:02:03.000000Z  job 5f…  snapshot of db1 on hv1: queued -> running  attempt=1`."""
    is_job = event.kind == EventKind.job
    subject = f"job {event.job_id}  {event.job_kind}" if is_job else f"recovery point {event.point_id}"
    about = f" of {event.domain_name}" if event.domain_name is not None else ""
    moved = f"{event.moved_from} -> {event.moved_to}" if event.moved_from is not None else event.moved_to
    facts = " ".join(f"{name}={value}" for name, value in event.facts.items())
    return f"{event.id}  {rfc3339(event.at)}  {subject}{about} on {event.host_id}: {moved}  {facts}".rstrip()
