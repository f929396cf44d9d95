"""A host whose repositories are watched, without a worker around the watch."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from service.db.engine import Database
from service.db.tables import Repository as Row
from service.records import repositories
from service.records.repositories import Registration
from service.worker.repository_watch import RepositoryWatch
from tests.scenes.plant import wait_for
from tests.scenes.sealed import BEGIN, HOST, Sealed


class Watched:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.folder = folder
        self.stopping = threading.Event()
        self.watches: list[RepositoryWatch] = []

    def watch(self, *, every_s: float = 3600.0, **options: Any) -> RepositoryWatch:
        watch = RepositoryWatch(self.database, HOST, self.stopping, every_s=every_s, **({"silence_s": 20.0} | options))
        self.watches.append(watch)
        return watch

    def register(self, name: str, path: Path | None = None, **options: Any) -> str:
        with self.database.write() as session:
            wanted = Registration(name, str(path or self.folder / name), HOST, **options)
            return repositories.add(session, wanted, BEGIN).id

    def row(self, name: str) -> Row:
        with self.database.read() as session:
            return repositories.get(session, name)

    def look(self, *names: str, watch: RepositoryWatch | None = None) -> None:
        """One turn of the loop, and the ends of the looks that it began at these repositories."""
        before = {name: self.row(name).looked_at for name in names}
        (watch or self.watch()).look_at_due()
        wait_for(lambda: all(self.row(name).looked_at != at for name, at in before.items()), f"a look at {names}")

    def ask(self, wish: Callable[..., Row], name: str) -> None:
        with self.database.write() as session:
            wish(session, name, BEGIN)

    def import_points(self, name: str) -> dict[str, Any]:
        self.ask(repositories.ask_import, name)
        self.watch().look_at_due()
        wait_for(lambda: self.row(name).import_asked_at is None, "the import")
        result = self.row(name).import_result
        assert result is not None
        return result

    def states(self, sealed: Sealed) -> list[str]:
        return [sealed.row(self.database, point).state for point in sealed.points]
