"""Of each domain few points are read, and its protection is the same as with all of them."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from service.db.base import table_of
from service.db.engine import Database
from service.db.tables import Event, Job, Policy, RecoveryPoint
from service.model.lifecycle import PointState
from service.model.protection import protection as protection_of
from service.model.protection_facts import Known, PointFacts, ProofFacts
from service.model.verdict import Verdict
from service.records import protection
from tests.api.world import DB1, add_domain, add_host
from tests.scenes.promised import add_point, add_policy, add_schedule, now

STATES = (PointState.sealed, PointState.sealed, PointState.damaged, PointState.missing, PointState.leaving)
VERDICTS = (Verdict.filesystem, Verdict.crash, Verdict.offline, Verdict.application)
DAYS = 12


class Taken(NamedTuple):
    """A point. Negative hours: in the future."""

    hours_ago: int
    state: PointState
    verdict: Verdict
    proven_hours_ago: int | None
    shut_off_cleanly: bool | None


taken = st.builds(
    Taken,
    st.integers(-3, DAYS * 24),
    st.sampled_from(STATES),
    st.sampled_from(VERDICTS),
    st.none() | st.integers(-1, DAYS * 24),
    st.sampled_from([None, True, False]),
)
promises = st.fixed_dictionaries(
    {
        "rpo_s": st.sampled_from([None, 86_400, 5 * 86_400]),
        "verdict": st.sampled_from([None, "crash", "filesystem", "application"]),
        "proof": st.none() | st.fixed_dictionaries({"kind": st.just("bytes"), "max_age_s": st.sampled_from([86_400, 7 * 86_400])}),
    }
)


@pytest.fixture
def hosted(database: Database) -> Iterator[Database]:
    with database.write() as session:
        add_host(session)
        add_domain(session, "db1", DB1)
    yield database


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(taken, max_size=9, unique_by=lambda one: one.hours_ago), promises)
def test_what_is_read_is_enough(hosted: Database, points: list[Taken], promise: dict[str, Any]) -> None:
    written = _written(hosted, points, promise)
    with hosted.read() as session:
        landscape = protection.read(session)
    (known,) = landscape.known
    with_all = protection_of(replace(known, points=written), landscape.now)
    assert protection_of(known, landscape.now).as_document() == with_all.as_document()


def _written(database: Database, points: list[Taken], promise: dict[str, Any]) -> list[PointFacts]:
    """The only points of the domain, newest first, as the rules see them."""
    with database.write() as session:
        for entity in (Event, RecoveryPoint, Job, Policy):
            session.execute(delete(table_of(entity)))
        add_schedule(session, add_policy(session, promise=promise))
        at = now()
        facts = [_facts(add_point(session, **_columns(point, at)), point, at) for point in points]
    return sorted(facts, key=lambda point: point.at, reverse=True)


def _columns(point: Taken, at: datetime) -> dict[str, Any]:
    proven_at = at - timedelta(hours=point.proven_hours_ago) if point.proven_hours_ago is not None else None
    return {
        "at": at - timedelta(hours=point.hours_ago),
        "verdict": point.verdict,
        "state": point.state,
        "proven_at": proven_at,
        "shut_off_cleanly": point.shut_off_cleanly,
    }


def _facts(point_id: str, point: Taken, at: datetime) -> PointFacts:
    columns = _columns(point, at)
    proofs = {"bytes": ProofFacts(columns["proven_at"], ok=True)} if columns["proven_at"] is not None else {}
    shut_off_cleanly = point.shut_off_cleanly if point.verdict is Verdict.offline else None
    return PointFacts(point_id, columns["at"], point.verdict, point.state.value, proofs, shut_off_cleanly=shut_off_cleanly)


def test_a_known_domain_is_not_judged_by_the_points_of_another(hosted: Database) -> None:
    with hosted.write() as session:
        other = add_domain(session, "web1")
        policy = add_policy(session)
        add_schedule(session, policy, other, domain="web1")
        add_point(session, now() - timedelta(hours=1), domain_id=other)
    with hosted.read() as session:
        known: dict[str, Known] = {one.domain.name: one for one in protection.read(session).known}
    assert (len(known["db1"].points), len(known["web1"].points)) == (0, 1)
