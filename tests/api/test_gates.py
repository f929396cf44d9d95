"""The gate over HTTP: it is waited for, its token releases it, and the answer says whether it held."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from starlette.testclient import TestClient

from service.api import waiting
from service.api.schemas.gate import GateAnswer, ReleaseAnswer
from service.db import tokens
from service.db.engine import Database
from service.db.tables import Gate, Job
from service.errors import DomainPaused, GateDeadlinePassed, GuestAlreadyFrozen, HoldLimitTooLong, StillpointError
from service.model.explain import explain
from service.model.gate import GateState
from service.model.lifecycle import JobState
from service.records import ageing, gates, queue
from service.records.queue import Claim
from tests.api.undocumented import undocumented
from tests.api.world import DB1, add_host, add_job

PATH = "/api/v1/domains/db1/quiesce"
BODY: dict[str, Any] = {"deadline_ms": 8_000}


SELDOM_S = 60.0


class Worker:
    """Does to the rows what a worker does, with a guest that is frozen at once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        with database.write() as session:
            queue.ensure_slots(session, "host:hv1:quick", 4)

    def claim(self) -> Claim:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with self._database.write() as session:
                claim = queue.claim(session, "hv1", "hv1:1", 60)
            if claim is not None:
                return claim
            time.sleep(0.005)
        raise AssertionError("no job came")

    def open(self, job_id: str, left_ms: int = 8_000) -> None:
        with self._database.write() as session:
            assert gates.try_to_open(session, job_id, 2, timedelta(milliseconds=left_ms))

    def finish(self, claim: Claim, error: StillpointError | None = None, *, held: bool = False) -> None:
        with self._database.write() as session:
            gate = gates.close(session, claim.job_id)
            values = {
                "result": gates.result_document(gate, 8_000, held=held),
                "error": error.as_document() if error else None,
                "verdict": "filesystem" if held else "crash",
            }
            queue.finish(session, claim.job_id, claim.lease_token, JobState.failed if error else JobState.succeeded, values)

    def hold_until_released(self, claim: Claim) -> None:
        self.open(claim.job_id)
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with self._database.read() as session:
                if gates.state_of(session, claim.job_id) is GateState.releasing:
                    break
            time.sleep(0.005)
        self.finish(claim, held=True)

    @contextmanager
    def working(self, *what: Any) -> Iterator[None]:
        """Beside the test; `what` is called with the claim of the next job."""

        def work() -> None:
            claim = self.claim()
            for step in what:
                step(claim)

        thread = threading.Thread(target=work)
        thread.start()
        yield
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def worker(sqlite_database: Database) -> Worker:
    return Worker(sqlite_database)


def release(api: TestClient, gate: dict[str, Any], token: str | None = None) -> Any:
    return api.post(gate["job"]["links"]["release"], json={"token": token or gate["token"]})


def test_the_answer_comes_when_the_gate_is_open_and_the_release_when_the_job_has_ended(api_on_both: TestClient, database: Database) -> None:
    worker = Worker(database)
    with worker.working(worker.hold_until_released):
        opened = api_on_both.post(PATH, json={**BODY, "labels": {"by": "zfs"}})
        gate = opened.json()
        released = release(api_on_both, gate)

    assert opened.status_code == 201
    assert opened.headers["location"] == gate["job"]["links"]["self"]
    assert (gate["state"], gate["filesystems_frozen"]) == ("open", 2)
    assert 5_000 < gate["hold_budget_ms"] <= 8_000
    assert timedelta(seconds=8) == datetime.fromisoformat(gate["deadline_at"]) - datetime.fromisoformat(gate["opened_at"])
    assert released.status_code == 200
    job = released.json()["job"]
    assert (released.json()["held"], job["state"], job["verdict"], job["kind"]) == (True, "succeeded", "filesystem", "quiesce")
    assert job == api_on_both.get(gate["job"]["links"]["self"]).json()
    assert job["result"]["opened_at"] == gate["opened_at"]
    assert undocumented(GateAnswer.model_validate(gate)) == []
    assert undocumented(ReleaseAnswer.model_validate(released.json())) == []


def test_what_is_asked_for_is_recorded_as_the_freeze_of_a_job_that_runs_once(api: TestClient, sqlite_database: Database) -> None:
    api.post(PATH, json={**BODY, "timeout_ms": 9_000, "preflush": False, "required_verdict": "application", "wait_ms": 0})
    with sqlite_database.read() as session:
        job = session.scalars(select(Job)).one()
    assert (job.kind, job.domain_id, job.max_attempts) == ("quiesce", DB1, 1)
    assert job.request == {
        "kind": "quiesce",
        "domain": "db1",
        "host": None,
        "freeze": {"mode": "required", "timeout_ms": 9000, "hold_limit_ms": 8000, "hold_soft_ms": None, "preflush": False, "fuse": True},
        "required_verdict": "application",
    }


def test_a_gate_that_is_not_open_in_time_is_answered_with_202(api: TestClient) -> None:
    answer = api.post(PATH, json={**BODY, "wait_ms": 50})
    gate = answer.json()
    assert (answer.status_code, gate["state"], gate["hold_budget_ms"], gate["opened_at"]) == (202, "opening", None, None)
    assert undocumented(GateAnswer.model_validate(gate)) == []


def test_a_gate_that_closes_before_its_job_ends_is_answered_with_the_error_of_the_job(
    api: TestClient, worker: Worker, sqlite_database: Database
) -> None:
    def close(claim: Claim) -> None:
        with sqlite_database.write() as session:
            gates.close(session, claim.job_id)
        # The request looks again meanwhile; that it finds nothing to say yet is what is tested.
        time.sleep(5 * waiting.MAX_POLL_S)

    def refuse(claim: Claim) -> None:
        worker.finish(claim, GuestAlreadyFrozen(domain="db1"))

    with worker.working(close, refuse):
        answer = api.post(PATH, json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (409, "guest_already_frozen")


def test_the_same_request_waits_on_and_gets_the_same_token(api: TestClient, worker: Worker, sqlite_database: Database) -> None:
    key = {"Idempotency-Key": "tonight"}
    first = api.post(PATH, json={**BODY, "wait_ms": 0}, headers=key)
    with worker.working(worker.hold_until_released):
        second = api.post(PATH, json={**BODY, "wait_ms": 10_000}, headers=key)
        release(api, second.json())
    assert (first.status_code, second.status_code) == (202, 201)
    assert first.json()["token"] == second.json()["token"]
    assert first.json()["job"] == second.json()["job"]
    assert second.headers["idempotent-replayed"] == "true"
    with sqlite_database.read() as session:
        assert session.scalar(select(func.count()).select_from(Job)) == 1


def test_the_token_is_kept_as_a_hash_and_tells_nothing_of_the_callers(api: TestClient, sqlite_database: Database) -> None:
    token = api.post(PATH, json={**BODY, "wait_ms": 0}).json()["token"]
    with sqlite_database.read() as session:
        gate = session.scalars(select(Gate)).one()
    assert gate.token_digest == tokens.digest_of(token)
    assert api.headers["authorization"].partition(" ")[2] not in token


def test_each_gate_has_a_token_of_its_own(api: TestClient) -> None:
    made = [api.post(PATH, json={**BODY, "wait_ms": 0}).json()["token"] for _ in range(2)]
    assert made[0] != made[1]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (GuestAlreadyFrozen(domain="db1"), 409),
        (DomainPaused(domain="db1", state="paused"), 409),
        (HoldLimitTooLong(asked_ms=30_000, limit_ms=10_000), 422),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_a_gate_that_cannot_open_is_a_problem_with_the_error_of_its_job(
    api: TestClient, worker: Worker, error: StillpointError, status: int
) -> None:
    with worker.working(lambda claim: worker.finish(claim, error)):
        answer = api.post(PATH, json=BODY)
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, problem["status"], problem["code"]) == (status, status, error.code)
    assert problem["remedy"] == error.remedy
    assert api.get(f"/api/v1/jobs/{problem['facts']['job_id']}").json()["error"]["code"] == error.code


def test_a_wrong_token_releases_nothing(api: TestClient, sqlite_database: Database) -> None:
    gate = api.post(PATH, json={**BODY, "wait_ms": 0}).json()
    answer = release(api, gate, "spg_wrong")
    assert (answer.status_code, answer.json()["code"]) == (403, "gate_token_wrong")
    with sqlite_database.read() as session:
        assert session.scalars(select(Gate)).one().state == GateState.opening


def test_a_job_that_is_no_gate_of_this_domain_is_not_found(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        other = add_job(session)
    gate = api.post(PATH, json={**BODY, "wait_ms": 0}).json()
    elsewhere = gate["job"]["links"]["release"].replace(DB1, "web1")
    answers = [api.post(path, json={"token": gate["token"]}) for path in (f"{PATH}/{other}/release", elsewhere)]
    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [(404, "gate_not_found")] * 2


def test_a_release_that_is_repeated_is_answered_the_same(api: TestClient, worker: Worker) -> None:
    with worker.working(worker.hold_until_released):
        gate = api.post(PATH, json=BODY).json()
        first = release(api, gate)
    second = release(api, gate)
    assert (first.status_code, first.json()) == (second.status_code, second.json())


def test_a_gate_that_closed_by_itself_says_that_it_did_not_hold(api: TestClient, worker: Worker) -> None:
    passed = GateDeadlinePassed(domain="db1", hold_budget_ms=8_000)
    with worker.working(lambda claim: worker.open(claim.job_id), lambda _: time.sleep(0.3), lambda claim: worker.finish(claim, passed)):
        gate = api.post(PATH, json=BODY).json()
    answer = release(api, gate)
    assert (answer.status_code, answer.json()["held"]) == (200, False)
    assert answer.json()["job"]["error"]["code"] == "gate_deadline_passed"


def test_a_repeated_request_for_a_gate_that_is_over_is_not_told_that_it_is_open(api: TestClient, worker: Worker) -> None:
    key = {"Idempotency-Key": "once"}
    with worker.working(worker.hold_until_released):
        release(api, api.post(PATH, json=BODY, headers=key).json())
    answer = api.post(PATH, json=BODY, headers=key)
    assert (answer.status_code, answer.json()["code"]) == (409, "gate_closed")


def test_a_repeated_request_for_a_gate_that_was_pruned_is_told_that_it_is_closed(
    api: TestClient, worker: Worker, sqlite_database: Database
) -> None:
    key = {"Idempotency-Key": "nightly"}
    with worker.working(worker.hold_until_released):
        gate = api.post(PATH, json=BODY, headers=key).json()
        assert release(api, gate).json()["held"] is True
    with sqlite_database.write() as session:
        ageing.GATES.remove(session, [gate["job"]["id"]], datetime.now(UTC))
    again = api.post(PATH, json=BODY, headers=key)
    assert (again.status_code, again.json()["code"]) == (409, "gate_closed")
    assert release(api, gate).json()["code"] == "gate_not_found"


def test_a_gate_whose_deadline_has_passed_is_not_called_open_though_its_worker_is_gone(api: TestClient, worker: Worker) -> None:
    with worker.working(lambda claim: worker.open(claim.job_id, left_ms=-1)):
        answer = api.post(PATH, json=BODY)
    assert (answer.status_code, answer.json()["code"]) == (409, "gate_closed")


def test_a_caller_who_gives_up_before_it_opens_cancels_it(api: TestClient) -> None:
    gate = api.post(PATH, json={**BODY, "wait_ms": 0}).json()
    answer = release(api, gate)
    assert (answer.status_code, answer.json()["held"], answer.json()["job"]["state"]) == (200, False, "cancelled")


def test_a_gate_is_cancelled_as_any_queued_job(api: TestClient) -> None:
    gate = api.post(PATH, json={**BODY, "wait_ms": 0}).json()
    answer = api.post(f"{gate['job']['links']['self']}/cancel")
    assert (answer.status_code, answer.json()["state"]) == (202, "cancelled")


def test_a_gate_is_listed_and_explained_and_not_retried(api: TestClient) -> None:
    gate = api.post(PATH, json={**BODY, "wait_ms": 0}).json()
    release(api, gate)
    assert [job["id"] for job in api.get("/api/v1/jobs?kind=quiesce").json()["items"]] == [gate["job"]["id"]]
    job = api.get(gate["job"]["links"]["self"]).json()
    assert api.get(gate["job"]["links"]["explain"]).json() == explain(job)
    answer = api.post(f"{gate['job']['links']['self']}/retry")
    assert (answer.status_code, answer.json()["code"]) == (409, "retry_refused")


@pytest.mark.parametrize(
    "body", [{}, {"deadline_ms": 99}, {"deadline_ms": 600_001}, {**BODY, "wait_ms": 120_001}, {**BODY, "disks": ["vda"]}]
)
def test_a_request_that_is_wrong_makes_no_gate(api: TestClient, sqlite_database: Database, body: dict[str, Any]) -> None:
    assert api.post(PATH, json=body).status_code == 422
    with sqlite_database.read() as session:
        assert session.scalars(select(Job)).all() == []


def test_of_domains_with_one_name_the_host_decides(api: TestClient, sqlite_database: Database) -> None:
    with sqlite_database.write() as session:
        add_host(session, "hv2")
    assert api.post(PATH, json={**BODY, "host": "hv2", "wait_ms": 0}).json()["code"] == "domain_unknown"


def test_a_worker_of_the_same_process_wakes_who_waits_for_its_gate(
    api: TestClient, sqlite_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The row is asked for so seldom here that only the bell can be in time."""
    monkeypatch.setattr("service.api.waiting.POLL_S", SELDOM_S)
    monkeypatch.setattr("service.api.waiting.MAX_POLL_S", SELDOM_S)
    worker = Worker(sqlite_database)

    def open_when_waited_for(claim: Claim) -> None:
        deadline = time.monotonic() + 10
        while not sqlite_database.bells.is_listened_to(claim.job_id) and time.monotonic() < deadline:
            time.sleep(0.005)
        worker.open(claim.job_id)
        sqlite_database.bells.ring(claim.job_id)

    began = time.monotonic()
    with worker.working(open_when_waited_for):
        answer = api.post(PATH, json={**BODY, "wait_ms": 30_000})
    assert answer.status_code == 201
    assert time.monotonic() - began < SELDOM_S / 3
