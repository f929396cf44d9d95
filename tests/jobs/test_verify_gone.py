"""A repository that goes away while it is read makes no point a damaged one."""

from pathlib import Path
from typing import Any

from service.db.engine import Database
from service.jobs.verify import Verify
from tests.jobs.test_verify import Answers, World
from tests.scenes.host import error_of
from tests.scenes.sealed import Sealed


class GoesAway(Answers):
    """Its files are missing when they are read, because the whole folder is."""

    def __init__(self, sealed: Sealed) -> None:
        fault = {"folder": "domains/x/y", "file": "vda.qcow2", "reason": "it is missing"}
        super().__init__(sealed, bytes={"ok": False, "faults": [fault]})

    def call(self, step: str, arguments: Any, **options: Any) -> dict[str, Any]:
        if step == "verify_point":
            folder = Path(self.path)
            folder.rename(folder.with_name("unmounted"))
        return super().call(step, arguments, **options)


def test_a_repository_that_goes_away_in_the_middle_proves_nothing(sqlite_database: Database, tmp_path: Path) -> None:
    world = World(sqlite_database, tmp_path)
    world.use(Verify(open_repository=GoesAway(world.sealed).opened))
    top = world.sealed.points[-1]
    assert error_of(world.verify(top))["code"] == "repository_gone"
    assert (world.state(top), world.proofs(top)) == ("sealed", [])
