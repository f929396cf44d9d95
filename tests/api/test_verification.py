"""The budget of verification by plan over HTTP, and what it leads to."""

from datetime import UTC, datetime
from uuid import uuid4

import pytest
from starlette.testclient import TestClient

from service.api.schemas.verification import VerificationAnswer
from service.db.engine import Database
from service.model.repository import RepositoryState
from service.records import repositories
from service.records.repositories import Look
from service.scheduler.verification import VerificationLooks
from tests.api.undocumented import undocumented
from tests.records.test_sealed_points import add_points
from tests.scenes.repositories import add_repository, id_of_point

WHOLE_DAYS = {
    "bytes_per_day": None,
    "days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"],
    "from": "00:00",
    "to": "24:00",
    "time_zone": "UTC",
    "checks": ["bytes", "structure", "filesystem"],
    "rate_limit_bytes": None,
}


@pytest.fixture
def nas(api_on_both: TestClient, database: Database) -> str:
    with database.write() as session:
        nas = add_repository(session).id
        repositories.note_look(session, nas, Look(RepositoryState.ready), datetime.now(UTC))
    add_points(database, nas, "full1 inc1")
    return nas


def test_a_budget_is_set_shown_and_taken_away(api_on_both: TestClient, nas: str) -> None:
    asked = {
        "bytes_per_day": 5000,
        "days": ["sun", "mon"],
        "from": "22:00",
        "to": "06:00",
        "time_zone": "Europe/Berlin",
        "checks": ["bytes"],
    }
    changed = api_on_both.patch("/api/v1/repositories/nas", json={"verification": asked})
    assert changed.status_code == 200
    assert changed.json()["verification"] == {**asked, "days": ["mon", "sun"], "rate_limit_bytes": None}
    assert api_on_both.get("/api/v1/repositories/nas").json() == changed.json()
    assert api_on_both.patch("/api/v1/repositories/nas", json={"verification": {}}).json()["verification"] == WHOLE_DAYS
    assert api_on_both.patch("/api/v1/repositories/nas", json={"verification": None}).json()["verification"] is None


def test_what_is_read_next_is_told_also_without_a_budget(api_on_both: TestClient, nas: str) -> None:
    told = api_on_both.get("/api/v1/repositories/nas/verification").json()
    assert undocumented(VerificationAnswer.model_validate(told)) == []
    assert (told["budget"], told["may_begin"], told["runs"]) == (None, False, [])
    assert [(each["recovery_point"], each["why"], each["cost_bytes"]) for each in told["next"]] == [
        (id_of_point("inc1"), "missing", 2 * 2 * 1032)
    ]


def test_what_was_read_and_spent_is_told(api_on_both: TestClient, database: Database, nas: str) -> None:
    api_on_both.patch("/api/v1/repositories/nas", json={"verification": {"bytes_per_day": 5000}})
    assert VerificationLooks(database, lambda: None).look() == 1
    told = api_on_both.get("/api/v1/repositories/nas/verification").json()
    assert undocumented(VerificationAnswer.model_validate(told)) == []
    (run,) = told["runs"]
    job = api_on_both.get(f"/api/v1/jobs/{run['job_id']}").json()
    assert (run["recovery_point"], job["request"]["by_plan"]) == (id_of_point("inc1"), True)
    assert (told["spent_today_bytes"], told["left_bytes"], told["next"]) == (4 * 1032, 5000 - 4 * 1032, [])


@pytest.mark.parametrize(
    ("change", "at"),
    [
        ({"bytes_per_day": 0}, "bytes_per_day"),
        ({"from": "24:00"}, "from"),
        ({"to": "6:00"}, "to"),
        ({"from": "22:00", "to": "22:00"}, None),
        ({"time_zone": "Berlin"}, "time_zone"),
        ({"days": []}, "days"),
        ({"days": ["mon", "mon"]}, "days"),
        ({"checks": ["boots"]}, "checks.0"),
        ({"rate_limit_bytes": 0}, "rate_limit_bytes"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_a_budget_that_cannot_be_meant_is_refused(api: TestClient, change: dict[str, object], at: str | None) -> None:
    answer = api.patch(f"/api/v1/repositories/{uuid4()}", json={"verification": change})
    assert (answer.status_code, answer.json()["code"]) == (422, "validation_failed")
    where = "body.verification" if at is None else f"body.verification.{at}"
    assert [field["field"] for field in answer.json()["facts"]["fields"]] == [where]


@pytest.mark.parametrize(("method", "path"), [("PATCH", ""), ("GET", "/verification")])
def test_a_repository_that_is_not_there_is_not_found(api: TestClient, method: str, path: str) -> None:
    answer = api.request(method, f"/api/v1/repositories/{uuid4()}{path}", json={"verification": None} if method == "PATCH" else None)
    assert (answer.status_code, answer.json()["code"]) == (404, "repository_not_found")
