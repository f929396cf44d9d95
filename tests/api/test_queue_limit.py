"""How many jobs of one domain may wait."""

from pathlib import Path

import pytest
from httpx2 import Response
from starlette.testclient import TestClient

from service.config import Settings
from service.db.engine import Database
from tests.api.world import DB1, WEB1, add_domain, add_job

LIMIT = 3


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path, host_id="hv1", queued_per_domain=LIMIT)


def test_no_more_jobs_of_a_domain_wait_than_the_limit_and_the_answer_says_what_to_do(api_on_both: TestClient) -> None:
    answers = [_ask(api_on_both, "db1") for _ in range(LIMIT + 1)]
    refused = answers.pop()
    assert [answer.status_code for answer in answers] == [202] * LIMIT
    assert (refused.status_code, refused.json()["code"], refused.json()["facts"]) == (
        429,
        "domain_queue_full",
        {"domain": "db1", "limit": LIMIT},
    )
    assert int(refused.headers["retry-after"]) > 0


def test_other_domains_and_thaws_are_taken_all_the_same(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_domain(session, "web1", WEB1)
        for _ in range(LIMIT):
            add_job(session, state="queued")
    assert _ask(api, "db1").status_code == 429
    assert api.post("/api/v1/domains/db1/preflight").status_code == 429
    assert api.post("/api/v1/domains/db1/thaw").status_code == 202
    assert _ask(api, "web1").status_code == 202


def test_jobs_that_run_and_thaws_that_wait_do_not_count(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_job(session, state="running")
        for _ in range(LIMIT):
            add_job(session, state="succeeded")
            add_job(session, state="queued", kind="thaw")
    assert _ask(api, "db1").status_code == 202


def test_a_repeated_request_is_answered_though_the_queue_is_full_now(api: TestClient, sqlite_database: Database) -> None:
    first = _ask(api, "db1", key="tonight")
    with sqlite_database.write() as session:
        for _ in range(LIMIT):
            add_job(session, state="queued", domain_id=DB1)
    assert _ask(api, "db1", key="tonight").json()["id"] == first.json()["id"]


def _ask(api: TestClient, domain: str, key: str | None = None) -> Response:
    headers = {"Idempotency-Key": key} if key else {}
    return api.post("/api/v1/jobs", json={"kind": "snapshot", "domain": domain}, headers=headers)
