"""GET /api/v1/jobs?domain= finds every job that names a point of the domain, also the jobs that are about no domain themselves."""

from typing import Any

import pytest
from starlette.testclient import TestClient

from service.db.engine import Database, database_now
from service.db.tables import RecoveryPoint
from service.model.copied import CopyAction
from service.model.requests import CopyRequest, JobRequest, MergeRequest, PruneRequest, VerifyRequest
from service.records import queue
from service.records.new_job import NewJob
from tests.api.world import DB1, WEB1, add_job
from tests.scenes.repositories import add_repository, add_sealed, id_of_point

ABOUT_ONE: dict[str, JobRequest] = {
    "verify": VerifyRequest(id_of_point("of-db1")),
    "prune": PruneRequest((id_of_point("of-db1"),)),
    "merge": MergeRequest((id_of_point("of-db1"),)),
    "copy": CopyRequest("nas", "offsite", CopyAction.fetch, (id_of_point("of-db1"),)),
}
OTHER = "5b0c8c70-0000-4000-8000-000000000001"
"""Another domain with the name db1, on another host."""


@pytest.fixture
def nas(database: Database) -> str:
    """A point of db1, one of web1, and one of another domain that is called db1 as well."""
    with database.write() as session:
        nas = add_repository(session).id
        for name, domain_id, domain_name in (("of-db1", DB1, "db1"), ("of-web1", WEB1, "web1"), ("of-other", OTHER, "db1")):
            add_sealed(session, name, nas)
            point = session.get_one(RecoveryPoint, id_of_point(name))
            point.domain_id, point.domain_name = domain_id, domain_name
        return nas


def asked(database: Database, nas: str, request: JobRequest, **more: Any) -> str:
    place = {"point_id": id_of_point("of-db1"), "repository_id": nas, "copy_id": "c1"} | more
    with database.write() as session:
        return queue.enqueue(session, NewJob(request.kind.value, None, None, "hv1", request.as_document(), {}, **place)).job_id


def found(api: TestClient, **query: Any) -> list[str]:
    answer = api.get("/api/v1/jobs", params=query)
    assert answer.status_code == 200, answer.text
    return [job["id"] for job in answer.json()["items"]]


@pytest.mark.parametrize("kind", ABOUT_ONE)
def test_a_job_is_found_by_the_domain_of_its_point(api_on_both: TestClient, database: Database, nas: str, kind: str) -> None:
    job_id = asked(database, nas, ABOUT_ONE[kind])
    answers = [found(api_on_both, **query) for query in ({"domain": DB1}, {"domain": "db1"}, {"domain": DB1, "kind": kind})]
    assert answers == [[job_id]] * 3
    others = [found(api_on_both, **query) for query in ({"domain": WEB1}, {"domain": "web1"}, {"domain": DB1, "state": "failed"})]
    assert others == [[]] * 3


def test_a_job_of_several_domains_is_found_by_each_and_once_by_a_name_that_two_of_them_have(
    api_on_both: TestClient, database: Database, nas: str
) -> None:
    job_id = asked(database, nas, PruneRequest(tuple(id_of_point(name) for name in ("of-db1", "of-web1", "of-other"))))
    assert [found(api_on_both, domain=domain) for domain in (DB1, WEB1, OTHER, "db1", "web1")] == [[job_id]] * 5


def test_a_job_is_found_when_its_points_are_gone(api_on_both: TestClient, database: Database, nas: str) -> None:
    job_id = asked(database, nas, ABOUT_ONE["prune"])
    with database.write() as session:
        session.delete(session.get_one(RecoveryPoint, id_of_point("of-db1")))
    assert found(api_on_both, domain="db1") == [job_id]


def test_jobs_about_a_domain_and_about_its_points_stand_in_one_order_over_all_pages(
    api_on_both: TestClient, database: Database, nas: str
) -> None:
    ids = []
    for n in range(7):
        if n % 2:
            ids.append(asked(database, nas, VerifyRequest(id_of_point("of-db1"))))
        else:
            with database.write() as session:
                ids.append(add_job(session, created_at=database_now(session), domain_id=DB1, domain_name="db1"))
    for domain in (DB1, "db1"):
        seen, cursor = list[str](), None
        for _ in range(4):
            page = api_on_both.get("/api/v1/jobs", params={"domain": domain, "limit": 2, **({"cursor": cursor} if cursor else {})}).json()
            seen += [job["id"] for job in page["items"]]
            cursor = page["next_cursor"]
        assert (seen, cursor) == (ids[::-1], None)


def test_a_label_and_a_domain_find_the_job_together(api_on_both: TestClient, database: Database, nas: str) -> None:
    request = VerifyRequest(id_of_point("of-db1"))
    with database.write() as session:
        labels = {"by": "hand"}
        new = NewJob("verify", None, None, "hv1", request.as_document(), labels, point_id=request.recovery_point, repository_id=nas)
        job_id = queue.enqueue(session, new).job_id
    assert [found(api_on_both, domain=domain, label="by:hand") for domain in (DB1, "db1", WEB1)] == [[job_id], [job_id], []]
