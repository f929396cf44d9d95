"""Policies over HTTP, for tests: what is on record before, and how a policy is written."""

from typing import Any

from sqlalchemy.orm import Session
from starlette.testclient import TestClient

from service.db.engine import database_now
from service.model.repository import RepositoryState
from service.records import repositories
from service.records.repositories import Look, Registration
from tests.model.written_policies import a_policy

POLICIES = "/api/v1/policies"


def add_repository(session: Session, name: str = "main", state: RepositoryState = RepositoryState.ready) -> str:
    """On the host `hv1`, as its worker saw it."""
    now = database_now(session)
    added = repositories.add(session, Registration(name=name, path=f"/srv/{name}", host_id="hv1"), now)
    repositories.note_look(session, added.id, Look(state), now)
    return added.id


def post(api: TestClient, **more: Any) -> Any:
    return api.post(POLICIES, json=a_policy(**more))


def written(api: TestClient, **more: Any) -> dict[str, Any]:
    answer = post(api, **more)
    assert answer.status_code == 201, answer.text
    document: dict[str, Any] = answer.json()
    return document


def add_copies(api: TestClient, repository: str, *names: str) -> None:
    """In folders."""
    for name in names:
        answer = api.post(
            f"/api/v1/repositories/{repository}/copies", json={"name": name, "target": {"kind": "folder", "path": f"/mnt/{name}"}}
        )
        assert answer.status_code == 201, answer.text
