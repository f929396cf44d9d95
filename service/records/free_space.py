"""The free space of repositories over time, and when they will be full. Callers commit."""

from collections import defaultdict
from datetime import datetime, timedelta

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.tables import Repository, RepositorySample
from service.model.trend import LOOK_BACK_DAYS, Sample, full_at

EVERY = timedelta(hours=1)
"""Between two samples of a repository."""


def note(session: Session, repository_id: str, free_bytes: int, now: datetime) -> None:
    """A sample, if the newest is at least an hour old. `now`: by the clock of the database."""
    newest = session.scalar(
        select(func.max(RepositorySample.at, type_=RepositorySample.at.type)).where(
            # A sample from the future was written by a clock that was ahead, and does not keep the next ones out.
            RepositorySample.repository_id == repository_id,
            RepositorySample.at <= now,
        )
    )
    if newest is None or now - newest >= EVERY:
        session.merge(RepositorySample(repository_id=repository_id, at=now, free_bytes=free_bytes))


def full_dates(session: Session, now: datetime) -> dict[str, datetime]:
    """By the id of the repository: when it will be full, by the trend. Those that do not fill up are not in it."""
    columns = (RepositorySample.repository_id, RepositorySample.at, RepositorySample.free_bytes, Repository.reserve_bytes)
    rows = select(*columns).join(Repository, Repository.id == RepositorySample.repository_id)
    recent = rows.where(RepositorySample.at > now - timedelta(days=LOOK_BACK_DAYS), RepositorySample.at <= now)
    samples: defaultdict[str, list[Sample]] = defaultdict(list)
    reserves: dict[str, int] = {}
    for repository_id, at, free_bytes, reserve_bytes in session.execute(
        recent.order_by(RepositorySample.repository_id, RepositorySample.at)
    ):
        samples[repository_id].append(Sample(at, free_bytes))
        reserves[repository_id] = reserve_bytes
    dates = {repository_id: full_at(known, reserves[repository_id]) for repository_id, known in samples.items()}
    return {repository_id: at for repository_id, at in dates.items() if at is not None}
