"""Backups, restores and verifies over HTTP: where they run, what they lock, and what is refused at once."""

from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import update
from starlette.testclient import TestClient

from service.db.engine import Database
from service.db.tables import Domain, Job, RecoveryPoint
from service.errors import UsnRisk
from service.model.lifecycle import JobState, PointState
from service.model.proofs import Proof
from service.model.repository import ProofKind
from service.model.requests import VerifyRequest
from service.records import points, queue
from service.records.orders import order_of
from tests.api.world import DB1, add_domain, add_host, add_job, add_recovery_point
from tests.scenes.repositories import add_repository, add_sealed, id_of_point

NOW = datetime(2026, 2, 2, tzinfo=UTC)
FULL, INC = id_of_point("full"), id_of_point("inc")
BACKUP = {"kind": "backup", "domain": "db1", "repository": "nas"}


@pytest.fixture
def nas(api: TestClient, sqlite_database: Database) -> str:
    """With a full point of db1 and an increment."""
    with sqlite_database.write() as session:
        repository_id = add_repository(session).id
        add_sealed(session, "full", repository_id)
        add_sealed(session, "inc", repository_id, parent="full", nights=1)
        return repository_id


def ask(api: TestClient, **body: Any) -> dict[str, Any]:
    answer = api.post("/api/v1/jobs", json=body)
    assert answer.status_code == 202, answer.text
    created: dict[str, Any] = answer.json()
    return created


def refusal(api: TestClient, **body: Any) -> tuple[int, str]:
    answer = api.post("/api/v1/jobs", json=body)
    return answer.status_code, answer.json()["code"]


def row_of(database: Database, job_id: str) -> Job:
    with database.read() as session:
        return session.get_one(Job, job_id)


def test_a_backup_locks_its_domain_and_works_in_its_repository(api: TestClient, sqlite_database: Database, nas: str) -> None:
    job = ask(api, **BACKUP, level="full", compress=True, rate_limit_bytes=1 << 20, disks=["vda"])
    assert (job["domain"], job["host"], job["max_attempts"]) == ({"id": DB1, "name": "db1"}, "hv1", 10)
    assert job["request"]["repository"] == nas, "by its id, as a name may change hands"
    assert (job["request"]["level"], job["request"]["compress"], job["request"]["rate_limit_bytes"]) == ("full", True, 1 << 20)
    row = row_of(sqlite_database, job["id"])
    assert (row.lock_key, row.repository_id) == (f"domain:{DB1}", nas)


def test_a_backup_into_an_unknown_repository_is_refused(api: TestClient, nas: str) -> None:
    assert refusal(api, **{**BACKUP, "repository": str(uuid4())}) == (404, "repository_not_found")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**BACKUP, "surprise": 1}, "body.surprise"),
        ({"kind": "backup", "domain": "db1"}, "body.repository"),
        ({**BACKUP, "level": "half"}, "body.level"),
        ({**BACKUP, "impact_limit_ms": 0}, "body.impact_limit_ms"),
        ({**BACKUP, "freeze": {"mode": "sometimes"}}, "body.freeze.mode"),
        ({"kind": "snapshot", "domain": "db1", "repository": "nas"}, "body.repository"),
        ({"kind": "restore", "recovery_point": INC}, "body.mode"),
        ({"kind": "restore", "recovery_point": "inc", "mode": "new"}, "body.recovery_point"),
        ({"kind": "restore", "recovery_point": INC, "mode": "new", "name": "a/b"}, "body.name"),
        ({"kind": "restore", "recovery_point": INC, "mode": "files", "folder": "relative"}, "body.folder"),
        ({"kind": "verify", "recovery_point": INC, "checks": []}, "body.checks"),
        ({"kind": "verify", "recovery_point": INC, "checks": ["bytes", "bytes"]}, "body.checks"),
        ({"kind": "verify", "recovery_point": INC, "checks": ["boots"]}, "body.checks.0"),
        ({"kind": "quiesce", "domain": "db1"}, "body.kind"),
        ({"kind": 7}, "body.kind"),
        ({"domain": "db1"}, "body.kind"),
        ([], "body.kind"),
    ],
)
def test_each_kind_has_its_own_fields(api: TestClient, body: Any, field: str) -> None:
    answer = api.post("/api/v1/jobs", json=body)
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    assert [fault["field"] for fault in answer.json()["facts"]["fields"]] == [field]


@pytest.mark.parametrize("mode", ["in_place", "files"])
def test_a_restore_of_the_same_domain_locks_that_domain(api: TestClient, sqlite_database: Database, nas: str, mode: str) -> None:
    job = ask(api, kind="restore", recovery_point=INC, mode=mode, folder="/images")
    row = row_of(sqlite_database, job["id"])
    assert (row.lock_key, row.repository_id, row.host_id) == (f"domain:{DB1}", nas, "hv1")
    assert job["request"]["new_uuid"] is None
    assert job["request"]["domain"] == "db1"


@pytest.mark.parametrize("mode", ["new", "instant"])
@pytest.mark.parametrize(
    ("identity", "is_there", "is_new"), [("new", False, True), ("auto", True, True), ("auto", False, False), ("keep", True, False)]
)
def test_a_new_domain_is_locked_by_the_uuid_that_it_will_have(
    api: TestClient, sqlite_database: Database, nas: str, mode: str, identity: str, is_there: bool, is_new: bool
) -> None:
    if not is_there:
        with sqlite_database.write() as session:
            session.delete(session.get_one(Domain, ("hv1", DB1)))
    job = ask(api, kind="restore", recovery_point=INC, mode=mode, name="db2", identity=identity)
    new_uuid = job["request"]["new_uuid"]
    assert (new_uuid is not None) is is_new
    assert job["domain"] == ({"id": new_uuid, "name": "db2"} if is_new else {"id": DB1, "name": "db1"})
    assert row_of(sqlite_database, job["id"]).lock_key == f"domain:{new_uuid or DB1}"


def test_on_another_host_the_identity_of_the_domain_that_was_backed_up_is_not_given_again(
    api: TestClient, sqlite_database: Database, nas: str
) -> None:
    with sqlite_database.write() as session:
        add_host(session, "hv2")
    there = {"recovery_point": INC, "mode": "new", "host": "hv2"}
    job = ask(api, kind="restore", **there)
    assert job["request"]["new_uuid"] is not None
    preview = plan_of(api, **there).json()
    assert {part["what"]: part["fate"] for part in preview["identity"]}["uuid"] == "new"
    refused = plan_of(api, **there, identity="keep")
    assert (refused.status_code, refused.json()["code"]) == (409, "restore_refused")


def test_a_restore_runs_on_the_host_that_is_named_or_else_where_the_point_was_taken(
    api: TestClient, sqlite_database: Database, nas: str
) -> None:
    with sqlite_database.write() as session:
        add_host(session, "hv2")
        add_sealed(session, "from a lost host", nas, host_id="hv9")
    assert ask(api, kind="restore", recovery_point=INC, mode="new", host="hv2")["host"] == "hv2"
    assert ask(api, kind="restore", recovery_point=INC, mode="new")["host"] == "hv1"
    lost = id_of_point("from a lost host")
    assert ask(api, kind="restore", recovery_point=lost, mode="new")["host"] == "hv1", "the host of the repository"
    assert refusal(api, kind="restore", recovery_point=INC, mode="new", host="hv9") == (404, "host_unknown")


def test_a_verify_locks_its_point_and_no_domain(api: TestClient, sqlite_database: Database, nas: str) -> None:
    job = ask(api, kind="verify", recovery_point=INC)
    row = row_of(sqlite_database, job["id"])
    assert (row.lock_key, row.repository_id, row.domain_id, row.host_id) == (f"point:{INC}", nas, None, "hv1")
    assert job["request"]["checks"] == ["bytes", "structure", "filesystem"]


def test_a_verify_heals_where_it_is_asked_to_and_none_says_that_a_plan_asked(api: TestClient, nas: str) -> None:
    asked = [ask(api, kind="verify", recovery_point=INC, **more)["request"] for more in ({}, {"heal": True})]
    assert [(request["heal"], request["by_plan"]) for request in asked] == [(False, False), (True, False)]
    assert refusal(api, kind="verify", recovery_point=INC, by_plan=True) == (422, "validation_failed")


def test_what_a_plan_asked_for_is_of_a_caller_when_it_is_tried_again(api: TestClient, sqlite_database: Database, nas: str) -> None:
    with sqlite_database.write() as session:
        order = order_of(session, VerifyRequest(INC, by_plan=True, heal=True), {})
        job_id = queue.enqueue(session, order.as_new_job()).job_id
        queue.request_cancel(session, job_id)
    again = api.post(f"/api/v1/jobs/{job_id}/retry").json()["request"]
    assert (again["by_plan"], again["heal"]) == (False, True)


def test_a_verify_shows_the_domain_of_its_point(api: TestClient, sqlite_database: Database, nas: str) -> None:
    job = ask(api, kind="verify", recovery_point=INC)
    with sqlite_database.read() as session:
        point = points.get(session, INC)
    assert job["domain"] == api.get(f"/api/v1/jobs/{job['id']}").json()["domain"] == {"id": point.domain_id, "name": point.domain_name}


def test_a_point_beside_its_disks_is_neither_restored_nor_verified(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        point_id = add_recovery_point(session, add_job(session))
    assert refusal(api, kind="restore", recovery_point=point_id, mode="new") == (409, "point_not_sealed")
    assert refusal(api, kind="verify", recovery_point=point_id) == (409, "point_not_sealed")
    assert refusal(api, kind="verify", recovery_point=str(uuid4())) == (404, "recovery_point_not_found")


@pytest.mark.parametrize(("state", "code"), [(PointState.damaged, "point_damaged"), (PointState.missing, "point_incomplete")])
def test_a_bad_point_is_not_restored_and_names_the_next_good_one_but_can_be_verified(
    api: TestClient, sqlite_database: Database, nas: str, state: PointState, code: str
) -> None:
    with sqlite_database.write() as session:
        points.set_state(session, INC, state, now=NOW)
    for path in ("/api/v1/jobs", "/api/v1/restores/preview"):
        kind = {"kind": "restore"} if path.endswith("jobs") else {}
        answer = api.post(path, json={**kind, "recovery_point": INC, "mode": "files", "folder": "/images"})
        assert (answer.status_code, answer.json()["code"], answer.json()["facts"]["next_good"]) == (409, code, FULL)
    ask(api, kind="verify", recovery_point=INC)


def test_a_point_that_nobody_has_signed_is_restored_only_if_that_is_accepted(api: TestClient, sqlite_database: Database, nas: str) -> None:
    with sqlite_database.write() as session:
        points.add_proofs(session, INC, [Proof(ProofKind.signature, ok=False)], NOW)
        points.set_state(session, INC, PointState.damaged, now=NOW)
    body = {"recovery_point": INC, "mode": "files", "folder": "/images"}
    assert refusal(api, kind="restore", **body) == (409, "point_unsigned")
    assert api.post("/api/v1/restores/preview", json=body).status_code == 409
    ask(api, kind="restore", accept_unsigned=True, **body)
    with sqlite_database.write() as session:
        points.add_proofs(session, INC, [Proof(ProofKind.bytes, ok=False)], NOW)
    assert refusal(api, kind="restore", accept_unsigned=True, **body) == (409, "point_damaged")


def test_a_restore_that_failed_is_asked_for_again_with_a_new_uuid(api: TestClient, sqlite_database: Database, nas: str) -> None:
    first = ask(api, kind="restore", recovery_point=INC, mode="new", identity="new", name="db2", labels={"plan": "drill"})
    with sqlite_database.write() as session:
        assert queue.request_cancel(session, first["id"]) is JobState.cancelled
    again = api.post(f"/api/v1/jobs/{first['id']}/retry").json()
    assert (again["retry_of"], again["labels"]) == (first["id"], {"plan": "drill"})
    assert again["request"]["new_uuid"] not in (None, first["request"]["new_uuid"])
    assert again["domain"]["id"] == again["request"]["new_uuid"]


def test_a_backup_or_verify_that_failed_is_asked_for_again(api: TestClient, sqlite_database: Database, nas: str) -> None:
    for body in (BACKUP, {"kind": "verify", "recovery_point": INC}):
        first = ask(api, **body)
        with sqlite_database.write() as session:
            queue.request_cancel(session, first["id"])
        again = api.post(f"/api/v1/jobs/{first['id']}/retry").json()
        rows = row_of(sqlite_database, first["id"]), row_of(sqlite_database, again["id"])
        assert rows[0].lock_key == rows[1].lock_key
        assert rows[0].repository_id == rows[1].repository_id == nas


def test_one_key_makes_one_restore_whatever_uuid_it_was_given(api: TestClient, nas: str) -> None:
    body = {"kind": "restore", "recovery_point": INC, "mode": "new", "identity": "new"}
    first, second = (api.post("/api/v1/jobs", json=body, headers={"Idempotency-Key": "drill"}) for _ in range(2))
    assert (second.json()["id"], second.headers["idempotent-replayed"]) == (first.json()["id"], "true")


# --- the list of points ---------------------------------------------------------------------------


def test_points_are_listed_by_repository_and_by_state(api_on_both: TestClient, database: Database) -> None:
    with database.write() as session:
        taken = add_recovery_point(session, add_job(session))
        repository_id = add_repository(session).id
        add_sealed(session, "full", repository_id)
        add_sealed(session, "inc", repository_id, parent="full", nights=1)
        points.set_state(session, FULL, PointState.damaged, now=NOW)

    def ids(query: str) -> list[str]:
        return [point["id"] for point in api_on_both.get(f"/api/v1/recovery-points{query}").json()["items"]]

    assert ids(f"?repository={repository_id}") == ids("?repository=nas") == [INC, FULL]
    assert (ids("?repository=other"), ids("?state=taken"), ids("?state=damaged")) == ([], [taken], [FULL])
    assert ids("?repository=nas&state=sealed&domain=db1") == [INC]
    shown = api_on_both.get(f"/api/v1/recovery-points/{INC}").json()
    assert (shown["state"], shown["repository"], shown["parents"], shown["job_id"]) == ("sealed", repository_id, [FULL], None)
    assert shown["left_out"] == [{"target": "sda", "reason": "kept elsewhere"}]


def test_a_point_that_was_damaged_protects_its_domain_no_more(api: TestClient, sqlite_database: Database, nas: str) -> None:
    assert api.get("/api/v1/domains/db1").json()["newest_recovery_point"]["id"] == INC
    with sqlite_database.write() as session:
        points.set_state(session, INC, PointState.damaged, now=NOW)
    assert api.get("/api/v1/domains/db1").json()["newest_recovery_point"]["id"] == FULL


# --- the plan -------------------------------------------------------------------------------------


def plan_of(api: TestClient, **body: Any) -> Any:
    """The answer at once: no worker is there to plan."""
    return api.post("/api/v1/restores/preview", json={"recovery_point": INC, "wait_ms": 0, **body})


def test_a_preview_without_a_worker_says_what_is_on_record_and_names_the_job_that_plans(
    api: TestClient, sqlite_database: Database, nas: str
) -> None:
    answer = plan_of(api, mode="new", name="db2", folder="/images")
    plan = answer.json()
    assert (answer.status_code, plan["is_complete"], plan["host"], plan["domain"]) == (202, False, "hv1", {"id": None, "name": "db2"})
    (disk,) = plan["disks"]
    assert disk["path"].startswith("/images/")
    assert plan["needed_bytes"] == 2000, "the increment and what it stands on"
    assert {part["what"]: part["fate"] for part in plan["identity"]}["uuid"] == "new"
    assert answer.headers["Location"] == f"/api/v1/jobs/{plan['job']}"
    request = row_of(sqlite_database, plan["job"]).request
    assert (request["plan_only"], request["mode"], request["name"]) == (True, "new", "db2")


def test_a_preview_answers_with_the_plan_of_its_job_or_with_its_refusal(api: TestClient, sqlite_database: Database, nas: str) -> None:
    headers = {"Idempotency-Key": "one-plan"}
    body = {"recovery_point": INC, "mode": "new", "wait_ms": 0}
    job = api.post("/api/v1/restores/preview", json=body, headers=headers).json()["job"]
    end(sqlite_database, job, JobState.succeeded, result={"restore": {"plan": {"mode": "new", "adaptations": ["all"]}}})
    answer = api.post("/api/v1/restores/preview", json=body, headers=headers)
    assert (answer.status_code, answer.json()) == (200, {"mode": "new", "adaptations": ["all"], "job": job, "is_complete": True})
    other = plan_of(api, mode="in_place", stop=True).json()["job"]
    assert other != job
    headers = {"Idempotency-Key": "another"}
    job = api.post("/api/v1/restores/preview", json=body, headers=headers).json()["job"]
    end(sqlite_database, job, JobState.failed, error=UsnRisk(domain="dc1").as_document())
    answer = api.post("/api/v1/restores/preview", json=body, headers=headers)
    assert (answer.status_code, answer.json()["code"]) == (409, "usn_rollback_risk")


def end(database: Database, job_id: str, state: JobState, **columns: Any) -> None:
    with database.write() as session:
        session.execute(update(Job).where(Job.id == job_id).values(state=state.value, **columns))


@pytest.mark.parametrize(("said", "warns"), [(None, True), (False, False)])
def test_a_preview_warns_of_a_domain_of_which_no_record_says_whether_it_is_a_domain_controller(
    api: TestClient, sqlite_database: Database, nas: str, said: bool | None, warns: bool
) -> None:
    with sqlite_database.write() as session:
        session.execute(update(RecoveryPoint).values(is_domain_controller=said))
    codes = [warning["code"] for warning in plan_of(api, mode="new").json()["warnings"]]
    assert ("domain_controller_unknown" in codes) is warns


def test_a_preview_refuses_what_is_on_record(api: TestClient, nas: str) -> None:
    def code(**body: Any) -> tuple[int, str]:
        answer = plan_of(api, **body)
        return answer.status_code, answer.json()["code"]

    assert code(mode="in_place") == (409, "restore_refused"), "the domain runs"
    assert code(mode="new", host="hv9") == (404, "host_unknown")


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"mode": "files"}, "restore_refused"),
        ({"mode": "in_place", "identity": "new"}, "restore_refused"),
        ({"mode": "in_place", "name": "db2"}, "restore_refused"),
        ({"mode": "new", "disks": ["vdz"]}, "disk_unknown"),
        ({"mode": "instant", "disks": ["vda", "vdz"]}, "disk_unknown"),
    ],
)
@pytest.mark.parametrize("path", ["jobs", "restores/preview"])
def test_what_no_host_could_restore_is_refused_before_there_is_a_job(
    api: TestClient, nas: str, path: str, body: dict[str, Any], code: str
) -> None:
    kind = {"kind": "restore"} if path == "jobs" else {}
    answer = api.post(f"/api/v1/{path}", json={**kind, "recovery_point": INC, **body})
    assert (answer.status_code, answer.json()["code"]) == (409, code)
    assert api.get("/api/v1/jobs").json()["items"] == []


def test_where_no_host_has_the_domain_the_identity_is_kept(api: TestClient, sqlite_database: Database, nas: str) -> None:
    with sqlite_database.write() as session:
        add_domain(session, "web1", host_id=add_host(session, "hv2"))
        session.delete(session.get_one(Domain, ("hv1", DB1)))
    body = {"recovery_point": INC, "mode": "new", "host": "hv2", "folder": "/images"}
    plan = plan_of(api, **body).json()
    assert plan["domain"] == {"id": DB1, "name": "db1"}
