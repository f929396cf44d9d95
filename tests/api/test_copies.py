"""Copies of a repository over HTTP: registered, changed, forgotten, and what is on record of their points and proofs."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from starlette.testclient import TestClient

from service.api.schemas.copies import CopiedPointAnswer, CopyAnswer, CopyProofAnswer
from service.db.engine import Database, database_now
from service.db.tables import Copy, Job
from service.model.immutability import Attack, Immutability
from service.records import copied_points, copies, repositories
from service.records.copied_points import Arrived
from service.records.copies import NewProof
from service.scheduler.proving import ProvingLooks
from tests.api.undocumented import undocumented
from tests.scenes.repositories import add_repository, add_sealed

COPIES = "/api/v1/repositories/nas/copies"
FOLDER = {"name": "disk", "target": {"kind": "folder", "path": "/mnt/disk"}}
BUCKET = {"name": "offsite", "target": {"kind": "s3", "bucket": "one-bucket", "endpoint": "http://127.0.0.1:9000"}, "retain_days": 30}
UNTIL = datetime(2031, 1, 1, tzinfo=UTC)


@pytest.fixture
def nas(api_on_both: TestClient, database: Database) -> str:
    with database.write() as session:
        return add_repository(session).id


def jobs(database: Database) -> list[Job]:
    with database.read() as session:
        return list(session.scalars(select(Job).order_by(Job.created_at, Job.id)))


def added(api: TestClient, body: dict[str, Any]) -> dict[str, Any]:
    answer = api.post(COPIES, json=body)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def test_a_copy_is_registered_once_and_found_by_name_and_id(api_on_both: TestClient, nas: str) -> None:
    copy = added(api_on_both, FOLDER)
    assert (copy["immutability"], copy["proof_due_at"], copy["opened_at"]) == ("none", None, None)
    for known_as in (copy["id"], "disk"):
        assert api_on_both.get(f"{COPIES}/{known_as}").json() == copy
    assert api_on_both.get(COPIES).json() == {"items": [copy], "next_cursor": None}
    assert undocumented(CopyAnswer.model_validate(copy)) == []
    for again in (FOLDER, {**FOLDER, "name": "other"}):
        refused = api_on_both.post(COPIES, json=again)
        assert (refused.status_code, refused.json()["code"]) == (409, "copy_taken")


def test_a_copy_with_locks_is_attacked_at_once(api_on_both: TestClient, database: Database, nas: str) -> None:
    copy = added(api_on_both, BUCKET)
    (job,) = jobs(database)
    assert (job.kind, job.request["action"], job.request["copy"]) == ("copy", "prove", copy["id"])
    assert copy["immutability"] == "unknown"
    assert ProvingLooks(database, lambda: None).look() == 0


@pytest.mark.parametrize(
    "target",
    [
        {"kind": "rclone", "remote": ":sftp,ssh='touch /tmp/x':there"},
        {"kind": "rclone", "remote": "box,ssh='touch /tmp/x':there"},
        {"kind": "rclone", "remote": "/srv/copy"},
        {"kind": "folder", "path": "relative"},
        {"kind": "folder", "path": "/srv", "bucket": "one"},
        {"kind": "s3", "bucket": "../one"},
        {"kind": "s3", "bucket": "one-bucket", "endpoint": "file:///etc"},
        {"kind": "s3"},
    ],
)
def test_a_place_that_is_none_or_that_could_start_a_program_is_refused(api_on_both: TestClient, nas: str, target: dict[str, Any]) -> None:
    refused = api_on_both.post(COPIES, json={"name": "x", "target": target})
    assert (refused.status_code, refused.json()["code"]) == (422, "copy_target_invalid")
    assert api_on_both.get(COPIES).json()["items"] == []


def test_a_change_of_the_lock_makes_the_proof_due_again(api_on_both: TestClient, database: Database, nas: str) -> None:
    added(api_on_both, FOLDER)
    longer = api_on_both.patch(f"{COPIES}/disk", json={"name": "other", "rate_limit_bytes": 1 << 20}).json()
    assert (longer["name"], longer["rate_limit_bytes"], longer["immutability"]) == ("other", 1 << 20, "none")
    assert jobs(database) == []
    locked = api_on_both.patch(f"{COPIES}/other", json={"retain_days": 7}).json()
    assert (locked["retain_days"], locked["immutability"]) == (7, "unknown")
    assert [job.request["action"] for job in jobs(database)] == ["prove"]


def test_a_copy_is_forgotten_when_no_job_works_there(api_on_both: TestClient, database: Database, nas: str) -> None:
    added(api_on_both, BUCKET)
    refused = api_on_both.delete(f"{COPIES}/offsite")
    assert (refused.status_code, refused.json()["facts"]["jobs"]) == (409, [jobs(database)[0].id])
    api_on_both.post(f"/api/v1/jobs/{jobs(database)[0].id}/cancel")
    assert api_on_both.delete(f"{COPIES}/offsite").status_code == 200
    assert api_on_both.get(f"{COPIES}/offsite").status_code == 404


def test_the_sentinel_is_attacked_every_month_by_one_of_all_processes(api_on_both: TestClient, database: Database, nas: str) -> None:
    copy = added(api_on_both, BUCKET)
    with database.write() as session:
        now = database_now(session)
        row = copies.get(session, nas, copy["id"])
        copies.note_proof(session, row, NewProof(Immutability.immutable, [], None, "job"), now)
        due = copies.get(session, nas, copy["id"]).proof_due_at
        assert due is not None
        assert due - now == timedelta(days=30)
    loops = [ProvingLooks(database, lambda: None) for _ in range(3)]
    assert [loop.look() for loop in loops] == [0, 0, 0]
    with database.write() as session:
        session.execute(update(Copy).values(proof_due_at=now))
    assert sum(loop.look() for loop in loops) == 1
    assert [job.request["action"] for job in jobs(database)] == ["prove", "prove"]


def test_points_there_are_paged_newest_first_and_retained_where_the_store_is_proven(
    api_on_both: TestClient, database: Database, nas: str
) -> None:
    copy = added(api_on_both, BUCKET)
    with database.write() as session:
        ids = [add_sealed(session, name, nas).id for name in ("one", "two", "three")]
        row = copies.get(session, nas, copy["id"])
        answers = [
            {"attack": attack.value, "accepted": False, "code": "AccessDenied", "holds": True, "what": "as it was"} for attack in Attack
        ]
        copies.note_proof(session, row, NewProof(Immutability.immutable, answers, None, "job"), database_now(session))
        for point_id in ids:
            assert copied_points.begin(session, row, point_id, "job") is not None
            copied_points.note_sent(session, row, Arrived(point_id, 10, "checksum", UNTIL), database_now(session))
    first = api_on_both.get(f"{COPIES}/offsite/points", params={"limit": 2}).json()
    second = api_on_both.get(f"{COPIES}/offsite/points", params={"limit": 2, "cursor": first["next_cursor"]}).json()
    items = first["items"] + second["items"]
    assert second["next_cursor"] is None
    assert {item["recovery_point"] for item in items} == set(ids)
    assert {item["retained_until"] for item in items} == {"2031-01-01T00:00:00.000000Z"}
    assert [undocumented(CopiedPointAnswer.model_validate(item)) for item in items] == [[], [], []]
    assert api_on_both.get(f"/api/v1/recovery-points/{ids[0]}").json()["retained_until"] == "2031-01-01T00:00:00.000000Z"
    (proof,) = api_on_both.get(f"{COPIES}/offsite/proofs").json()["items"]
    assert undocumented(CopyProofAnswer.model_validate(proof)) == []


def test_a_repository_takes_its_copies_along(api_on_both: TestClient, database: Database, nas: str) -> None:
    added(api_on_both, FOLDER)
    with database.write() as session:
        repositories.forget(session, nas)
    with database.read() as session:
        assert list(session.scalars(select(Copy))) == []


def test_a_fetch_of_what_is_not_there_is_refused(api_on_both: TestClient, nas: str) -> None:
    added(api_on_both, FOLDER)
    asked = {"kind": "copy", "repository": "nas", "copy": "disk", "action": "fetch"}
    assert api_on_both.post("/api/v1/jobs", json=asked).status_code == 422
    point = "00000000-0000-4000-8000-000000000001"
    refused = api_on_both.post("/api/v1/jobs", json={**asked, "recovery_points": [point]})
    assert (refused.status_code, refused.json()["code"]) == (409, "copy_incomplete")
    sent = api_on_both.post("/api/v1/jobs", json={**asked, "action": "send"})
    assert (sent.status_code, sent.json()["request"]["action"]) == (202, "send")


def test_rules_of_a_copy_are_registered_changed_and_taken_away(api_on_both: TestClient, nas: str) -> None:
    numbers = {"keep_last": 0, "keep_hourly": 0, "keep_daily": 7, "keep_weekly": 0, "keep_monthly": 0, "keep_yearly": 0, "minimum_age_s": 0}
    assert added(api_on_both, {**FOLDER, "retention": {"keep_daily": 7}})["retention"] == numbers
    assert api_on_both.patch(f"{COPIES}/disk", json={"rate_limit_bytes": 4096}).json()["retention"] == numbers
    assert api_on_both.patch(f"{COPIES}/disk", json={"retention": {"keep_last": 3}}).json()["retention"]["keep_last"] == 3
    assert api_on_both.patch(f"{COPIES}/disk", json={"retention": None}).json()["retention"] is None
    assert api_on_both.patch(f"{COPIES}/disk", json={"retention": {"merge_at": 1}}).status_code == 422


def test_the_removal_of_a_locked_point_is_refused_with_the_end_of_its_lock(api_on_both: TestClient, database: Database, nas: str) -> None:
    copy = added(api_on_both, BUCKET)
    with database.write() as session:
        row, point_id = copies.get(session, nas, copy["id"]), add_sealed(session, "one", nas).id
        copied_points.begin(session, row, point_id, "job")
        copied_points.note_sent(session, row, Arrived(point_id, 10, "checksum", UNTIL), database_now(session))
    asked = {"kind": "copy", "repository": "nas", "copy": "offsite", "action": "remove", "recovery_points": [point_id]}
    refused = api_on_both.post("/api/v1/jobs", json=asked)
    assert (refused.status_code, refused.json()["code"], refused.json()["facts"]["until"]) == (
        409,
        "copy_locked",
        "2031-01-01T00:00:00.000000Z",
    )
