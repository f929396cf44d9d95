"""Whatever a job did, its texts tell what its row tells."""

from collections.abc import Iterator

import pytest

from service.db.engine import Database
from service.jobs.guest_watch import GuestWatch
from tests.repository.disks import MIB
from tests.scenes.documents import stale_texts
from tests.scenes.sealed import Sealed


@pytest.fixture(autouse=True)
def _texts_follow_their_rows(request: pytest.FixtureRequest) -> Iterator[None]:
    names = [name for name in ("database", "sqlite_database") if name in request.fixturenames]
    opened: list[Database] = [request.getfixturevalue(name) for name in names]
    yield
    assert [stale for database in opened for stale in stale_texts(database)] == []


@pytest.fixture(scope="session")
def three_points(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    """A full point and two increments, which tests copy: see `Sealed.copied`."""
    return Sealed.chain(tmp_path_factory.mktemp("three") / "repository", (1, 0, MIB), (2, MIB, MIB), (3, 2 * MIB, MIB))


@pytest.fixture(autouse=True)
def _watches_end_with_their_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The watch of a worker that died in a test would go on looking, through whatever later tests put in place of functions."""
    begun: list[GuestWatch] = []
    real = GuestWatch.__enter__

    def enter(watch: GuestWatch) -> GuestWatch:
        begun.append(watch)
        return real(watch)

    monkeypatch.setattr(GuestWatch, "__enter__", enter)
    yield
    for watch in begun:
        watch._ends.set()
