"""Whatever a job did, its texts tell what its row tells."""

from collections.abc import Iterator

import pytest

from service.db.engine import Database
from tests.scenes.documents import stale_texts


@pytest.fixture(autouse=True)
def _texts_follow_their_rows(request: pytest.FixtureRequest) -> Iterator[None]:
    names = [name for name in ("database", "sqlite_database") if name in request.fixturenames]
    opened: list[Database] = [request.getfixturevalue(name) for name in names]
    yield
    assert [stale for database in opened for stale in stale_texts(database)] == []
