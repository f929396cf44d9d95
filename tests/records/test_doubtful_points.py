"""Jobs that do not know whether their point is in its repository, on both databases."""

from service.db.engine import Database
from service.db.tables import Job
from service.records import doubtful_points
from tests.api.world import add_job

IN_DOUBT = {"backup": {"point": "p1", "partial": "domains/d/.partial-p1", "may_be_sealed": True}}


def test_only_failed_backups_in_doubt_of_this_repository_are_found_and_are_settled_once(database: Database) -> None:
    sealed = {"backup": {"point": "p2"}}
    rows = [("backup", "failed", "r1", IN_DOUBT), ("backup", "failed", "r2", IN_DOUBT), ("backup", "failed", "r1", sealed)]
    rows += [("backup", "running", "r1", IN_DOUBT), ("backup", "failed", "r1", None), ("verify", "failed", "r1", {"verify": {}})]
    with database.write() as session:
        ids = [add_job(session, kind=kind, state=state, repository_id=where, result=result) for kind, state, where, result in rows]
    with database.read() as session:
        (found,) = doubtful_points.of_repository(session, "r1")
    assert (found.job_id, found.point_id, found.partial) == (ids[0], "p1", "domains/d/.partial-p1")
    with database.write() as session:
        doubtful_points.settle(session, found, is_sealed=True)
    with database.read() as session:
        assert doubtful_points.of_repository(session, "r1") == []
        result = session.get_one(Job, found.job_id).result
    assert result == {"backup": {"point": "p1", "partial": "domains/d/.partial-p1", "was_sealed": True}}
