"""Points of a policy's track in a repository, one a night, and the policy that keeps them."""

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.model.backup_policy import BackupPolicy
from service.model.origin import Origin
from service.model.repository import RepositoryState
from service.records import policies, repositories
from service.records.repositories import Look
from tests.scenes.repositories import FIRST_NIGHT, add_repository, add_sealed

NIGHTLY = Origin("production", "nightly")
LATER = FIRST_NIGHT + timedelta(days=60)
"""A time after all nights of a test."""


def a_policy(name: str = "production", track: str = "nightly", **more: Any) -> dict[str, Any]:
    """`more`: fields of the policy. `retention`, `copies`: of its track."""
    retention, copies = more.pop("retention", None), more.pop("copies", None)
    job = {"kind": "backup", "repository": "nas"}
    schedule = {"cron": "0 22 * * *", "time_zone": "UTC"}
    one = {"name": track, "job": job, "schedule": schedule, "retention": retention, "copies": copies}
    document = {"name": name, "selector": {"all_the_rest": True}, "tracks": [one], **more}
    return BackupPolicy.from_document(document).as_document()


def add_policy(session: Session, name: str = "production", **more: Any) -> str:
    return policies.add(session, a_policy(name, **more), database_now(session)).id


def add_ready_repository(session: Session, name: str = "nas", **terms: Any) -> str:
    """As its worker has seen it."""
    row = add_repository(session, name, **terms)
    repositories.note_look(session, row.id, Look(RepositoryState.ready, format_version=1), row.created_at, asked_at=row.created_at)
    return row.id


def add_nights(session: Session, repository_id: str, *names: str, origin: Origin | None = NIGHTLY, first: int = 0, **fields: Any) -> None:
    """A full point for each name, one a night."""
    labels = origin.as_labels() if origin is not None else {}
    for n, name in enumerate(names, first):
        add_sealed(session, name, repository_id, nights=n, labels=labels, **fields)
