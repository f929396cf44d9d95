"""Binds a state folder to its database by an id that both store, so that an empty or another database is never used by mistake."""

import shlex
from contextlib import suppress
from pathlib import Path

from sqlalchemy import Engine, inspect, select

from service import log
from service.config import Settings
from service.db import private_file
from service.db.engine import translated_errors
from service.db.tables import DatabaseIdentity
from service.db.url import shown
from service.errors import DatabaseForeign, DatabaseLost

MARKER = "database.id"

_logger = log.get(__name__)


def check(settings: Settings, engine: Engine) -> None:
    """Call this before a database is made or migrated. Raises DatabaseLost, DatabaseForeign, DatabaseUnavailable."""
    traces = [str(path) for path in (marker_of(settings), settings.token_file) if path.exists()]
    if not traces:
        return
    name = shown(engine.url)
    if _file_is_missing(engine):
        raise DatabaseLost(database=name, found="is not there", traces=shlex.join(traces))
    with translated_errors(), engine.execution_options(stillpoint_read_only=True).connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if "alembic_version" not in tables:
            raise DatabaseLost(database=name, found="is empty", traces=shlex.join(traces))
        # A database of an earlier version has no id yet.
        has_id = DatabaseIdentity.__tablename__ in tables
        identity = connection.scalar(select(DatabaseIdentity.id)) if has_id else None
    known = _noted(settings)
    if known is not None and identity is not None and identity != known:
        raise DatabaseForeign(database=name, found=identity, known=known, marker=str(marker_of(settings)))


def note(settings: Settings, engine: Engine) -> None:
    """Store the id of the database in the state folder. Raises DatabaseUnavailable."""
    if _noted(settings) is not None:
        return
    with translated_errors(), engine.execution_options(stillpoint_read_only=True).connect() as connection:
        identity = connection.scalar(select(DatabaseIdentity.id))
    if identity is None:
        return
    try:
        private_file.write(marker_of(settings), identity + "\n")
    except OSError as error:
        # An API whose database has tokens needs no state folder, so this is only a warning.
        _logger.warning("database_id_not_noted", path=str(marker_of(settings)), reason=error.strerror or str(error))


def marker_of(settings: Settings) -> Path:
    return settings.state_dir / MARKER


def _noted(settings: Settings) -> str | None:
    with suppress(OSError, UnicodeDecodeError):
        return marker_of(settings).read_text().strip() or None
    return None


def _file_is_missing(engine: Engine) -> bool:
    """Call this before a connection is made, because a connection makes the file."""
    name = engine.url.database or ""
    return engine.dialect.name == "sqlite" and not name.startswith("file:") and not Path(name).exists()
