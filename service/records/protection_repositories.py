"""What protection needs of the repositories: their state as it was last seen, and when they will be full."""

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from service.db.tables import Repository
from service.model.protection_facts import RepositoryFacts
from service.records import free_space


def read(session: Session, now: datetime) -> tuple[dict[str, RepositoryFacts], dict[str, str]]:
    """The repositories by id, in the order of their names; and their ids by each name and id under which a policy may name them."""
    dates = free_space.full_dates(session, now)
    columns = (Repository.id, Repository.registered_id, Repository.name, Repository.state, Repository.state_error, Repository.free_bytes)
    rows = session.execute(select(*columns).order_by(Repository.name)).all()
    facts = {row.id: RepositoryFacts(row.id, row.name, row.state, row.state_error, row.free_bytes, dates.get(row.id)) for row in rows}
    # A repository may have the id of another one as its name. Then the id counts.
    ids = {row.name: row.id for row in rows} | {row.registered_id: row.id for row in rows} | {row.id: row.id for row in rows}
    return facts, ids
