"""Where Alembic meets the service: run by `service.db.schema` with a connection, or by the `alembic` command without."""

from typing import Literal

import sqlalchemy as sa
from alembic import context

from service.config import load_settings
from service.db import documents, schema, tables
from service.db.engine import open_engine
from service.db.url import database_url


def _run() -> None:
    connection: sa.Connection | None = context.config.attributes.get("connection")
    if connection is not None:
        _migrate_on(connection)
        return
    engine = open_engine(database_url(load_settings()))
    with engine.begin() as own_connection:
        _migrate_on(own_connection)
        if context.get_context().get_current_revision() == schema.REVISION:
            documents.write_missing(own_connection)
    engine.dispose()


def _render_type(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Migrations outlive the code, so a type of ours stands in them as the plain type that it is in the database."""
    if kind == "type" and isinstance(item, tables.UtcDateTime):
        return "sa.DateTime(timezone=True)"
    if kind == "type" and isinstance(item, sa.JSON):
        return "sa.JSON()"
    return False


def _migrate_on(connection: sa.Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=tables.Base.metadata,
        # SQLite cannot alter most things of a table; there Alembic copies it.
        render_as_batch=connection.dialect.name == "sqlite",
        render_item=_render_type,
    )
    with context.begin_transaction():
        context.run_migrations()


_run()
