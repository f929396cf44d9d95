"""What is read of a domain for its protection: its policy, its schedules, its runs, its jobs, and where it is."""

from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, event, update

from service.db.engine import Database
from service.db.tables import Domain, Host, LastJob, Policy, Schedule
from service.model.protection_facts import Known, PolicyFacts, TieFacts
from service.records import policies, protection
from tests.api.world import DB1, add_domain, add_host, add_job
from tests.scenes.promised import (
    DAY,
    HOUR,
    REPOSITORY,
    add_point,
    add_policy,
    add_repository,
    add_run,
    add_schedule,
    now,
)


@pytest.fixture
def database(database: Database) -> Database:
    """With a host `hv1`, and its domain `db1` since a month."""
    with database.write() as session:
        add_host(session)
        add_domain(session, "db1", DB1)
        session.execute(update(Domain).values(appeared_at=now() - 30 * DAY))
    return database


def known(database: Database, name: str = "db1") -> Known:
    with database.read() as session:
        (found,) = [one for one in protection.read(session).known if one.domain.name == name]
        alone = protection.read(session, found.domain.id)
    assert [one.domain for one in alone.known] == [found.domain]
    return found


def is_about(instant: datetime, expected: datetime) -> bool:
    return abs((instant - expected).total_seconds()) < 60


# --- since when -----------------------------------------------------------------------------------


def test_a_promise_begins_with_the_first_schedule_of_the_policy(database: Database) -> None:
    with database.write() as session:
        policy = add_policy(session, changed_ago=HOUR)
        add_schedule(session, policy, since=5 * DAY)
        add_schedule(session, policy, since=DAY, track="weekly", fires_in=2 * HOUR)
    found = known(database)
    assert is_about(found.covered_since, now() - 5 * DAY)
    assert found.next_fire_at is not None and is_about(found.next_fire_at, now() + 2 * HOUR)


def test_without_a_schedule_it_begins_with_the_policy_or_with_the_domain(database: Database) -> None:
    """The scheduler has not looked since."""
    with database.write() as session:
        add_policy(session, changed_ago=2 * DAY)
    assert is_about(known(database).covered_since, now() - 2 * DAY)
    with database.write() as session:
        session.execute(update(Domain).values(appeared_at=now() - HOUR))
    assert is_about(known(database).covered_since, now() - HOUR)


def test_the_schedules_of_an_earlier_policy_say_nothing(database: Database) -> None:
    with database.write() as session:
        add_schedule(session, add_policy(session, "old", names=["other"]), since=9 * DAY)
        add_policy(session, changed_ago=DAY)
    found = known(database)
    assert is_about(found.covered_since, now() - DAY)
    assert found.next_fire_at is None


# --- which policy ---------------------------------------------------------------------------------


def test_the_labels_of_a_domain_decide_about_its_policy(database: Database) -> None:
    with database.write() as session:
        add_policy(session)
        add_policy(session, "gold", selector={"labels": {"tier": "gold"}, "names": ["db*"]})
        policies.set_labels(session, DB1, {"tier": "gold"}, now())
    policy = known(database).policy
    assert isinstance(policy, PolicyFacts) and policy.name == "gold"


def test_a_changed_selector_counts_at_once(database: Database) -> None:
    with database.write() as session:
        added = add_policy(session, names=["web*"])
    assert known(database).policy is None
    with database.write() as session:
        policy = policies.get(session, added.id)
        policies.change(session, policy, {**policy.document, "selector": {"names": ["db*"]}}, now())
    assert isinstance(known(database).policy, PolicyFacts)


def test_two_policies_that_select_a_domain_equally_well_are_a_tie(database: Database) -> None:
    with database.write() as session:
        add_policy(session, "a")
        add_policy(session, "b")
    assert known(database).policy == TieFacts(("a", "b"))


def test_a_policy_of_a_newer_version_does_not_hide_the_others(database: Database) -> None:
    with database.write() as session:
        add_policy(session)
        session.add(Policy(id="newer", name="newer", document={"name": "newer"}, revision=1, created_at=now(), updated_at=now()))
    assert isinstance(known(database).policy, PolicyFacts)


def test_a_repository_is_known_by_its_name_and_by_each_of_its_ids(database: Database) -> None:
    with database.write() as session:
        add_repository(session)
        add_policy(session)
    policy = known(database).policy
    assert isinstance(policy, PolicyFacts)
    assert policy.repositories == (REPOSITORY,)


# --- where it is ----------------------------------------------------------------------------------


def test_a_domain_that_two_hosts_list_is_one_and_is_where_it_runs(database: Database) -> None:
    with database.write() as session:
        add_host(session, "hv0")
        add_domain(session, "db1", DB1, "hv0")
        session.execute(update(Domain).where(Domain.host_id == "hv0").values(state="shut_off"))
        add_schedule(session, add_policy(session))
        add_point(session, now() - HOUR)
    found = known(database)
    assert (found.domain.host.id, len(found.points)) == ("hv1", 1)
    with database.write() as session:
        session.execute(update(Host).where(Host.id == "hv1").values(last_seen=now() - DAY))
        session.execute(update(Domain).where(Domain.host_id == "hv0").values(state="running"))
    assert known(database).domain.host.id == "hv0"


def test_a_domain_that_no_host_lists_is_known_by_its_schedules(database: Database) -> None:
    with database.write() as session:
        add_schedule(session, add_policy(session), since=3 * DAY)
        add_point(session, now() - 2 * DAY)
        session.execute(delete(Domain))
        session.execute(update(Schedule).values(gone_since=now() - HOUR))
    found = known(database)
    assert found.domain.gone_since is not None and is_about(found.domain.gone_since, now() - HOUR)
    assert (len(found.points), found.domain.host.id) == (1, "hv1")
    assert is_about(found.covered_since, now() - 3 * DAY)


@pytest.mark.parametrize(("host", "fact"), [({"last_seen": "ago"}, "silent_since"), ({"libvirt_connected": False}, "libvirt_error")])
def test_what_is_wrong_with_the_host_is_known(database: Database, host: dict[str, Any], fact: str) -> None:
    values = {name: now() - DAY if value == "ago" else value for name, value in host.items()}
    with database.write() as session:
        session.execute(update(Host).values(values))
    assert getattr(known(database).domain.host, fact) is not None


# --- runs and jobs --------------------------------------------------------------------------------


def test_the_newest_run_is_known_if_it_made_no_job(database: Database) -> None:
    with database.write() as session:
        policy = add_policy(session)
        schedule = add_schedule(session, policy)
        add_run(session, policy, schedule, 2 * DAY, "missed", "too_late")
        add_run(session, policy, schedule, DAY, "skipped", "refused", error={"code": "domain_queue_full"})
    (run,) = known(database).runs
    assert (run.outcome, run.reason, run.error) == ("skipped", "refused", {"code": "domain_queue_full"})
    with database.write() as session:
        add_run(session, policy, schedule, HOUR, "queued")
    assert known(database).runs == ()


def test_a_run_of_an_earlier_policy_says_nothing(database: Database) -> None:
    with database.write() as session:
        old = add_policy(session, "old", names=["other"])
        add_run(session, old, add_schedule(session, old), HOUR, "missed", "too_late")
        add_schedule(session, add_policy(session))
    assert known(database).runs == ()


def test_failed_jobs_are_known_with_their_error_as_long_as_they_are_on_record(database: Database) -> None:
    ended = now() - HOUR
    with database.write() as session:
        error = {"code": "agent_lost", "title": "", "detail": "", "remedy": "Do it.", "facts": {}}
        reasons = [{"code": "held", "effect": "lifts", "detail": ""}, {"code": "no_hook", "effect": "lowers", "detail": "It has none."}]
        job_id = add_job(session, ended, kind="backup", state="failed", error=error, verdict_reasons=reasons)
        for job, kind, code in ((job_id, "backup", "agent_lost"), ("one that was removed", "verify", "point_damaged")):
            same = {"domain_id": DB1, "kind": kind, "job_id": job, "state": "failed", "error_code": code}
            session.add(LastJob(**same, ended_at=ended, in_a_row=4, since=ended - DAY, took_s=90.0))
    found = known(database)
    errors = {job.kind: (job.error, job.in_a_row, job.lowered_by) for job in found.jobs}
    assert errors == {"backup": (error, 4, ("no_hook", "It has none.")), "verify": ({"code": "point_damaged"}, 4, None)}
    assert found.takes_s == 90.0


def test_a_job_that_makes_the_next_point_is_known(database: Database) -> None:
    with database.write() as session:
        add_job(session, now() - HOUR, kind="backup", state="running", started_at=now() - HOUR)
        add_job(session, now(), kind="preflight", state="queued")
    assert [(job.kind, job.state) for job in known(database).jobs] == [("backup", "running")]


# --- how it is read -------------------------------------------------------------------------------


def test_more_domains_take_no_more_statements(database: Database) -> None:
    def statements() -> int:
        count = 0

        def counted(*_ignored: Any) -> None:
            nonlocal count
            count += 1

        event.listen(database.engine, "before_cursor_execute", counted)
        try:
            with database.read() as session:
                protection.read(session)
        finally:
            event.remove(database.engine, "before_cursor_execute", counted)
        return count

    with database.write() as session:
        add_repository(session)
        policy = add_policy(session, promise={"rpo_s": 3600, "verdict": "filesystem", "proof": {"kind": "bytes", "max_age_s": 86_400}})
        _of_every_kind(session, policy, "db1", DB1)
    first = statements()
    with database.write() as session:
        for n in range(5):
            _of_every_kind(session, policy, f"vm{n}", add_domain(session, f"vm{n}"))
    assert statements() == first


def _of_every_kind(session: Any, policy: Any, name: str, domain_id: str) -> None:
    """With points that keep the promise and points that do not, so that each statement is needed."""
    add_run(session, policy, add_schedule(session, policy, domain_id, domain=name), HOUR, "missed", "too_late")
    for hours, verdict, proven in ((1, "offline", None), (2, "crash", 3), (30, "filesystem", 30), (40, "filesystem", 1)):
        proven_at = now() - timedelta(hours=proven) if proven is not None else None
        add_point(session, now() - timedelta(hours=hours), domain_id=domain_id, verdict=verdict, proven_at=proven_at)


# --- that libvirt forgets it ----------------------------------------------------------------------


@pytest.mark.parametrize(("last_point_ago", "is_known"), [(40 * DAY, True), (HOUR, False)])
def test_that_libvirt_forgets_a_domain_is_read_where_its_points_are_late(
    database: Database, last_point_ago: timedelta, is_known: bool
) -> None:
    with database.write() as session:
        add_repository(session)
        policy = add_policy(session)
        add_schedule(session, policy, since=50 * DAY, fires_in=HOUR)
        add_point(session, now() - last_point_ago)
        add_domain(session, "db2")
        session.execute(update(Domain).where(Domain.id == DB1).values(document={"persistent": False, "disks": []}))
    assert known(database).domain.is_persistent is not is_known
    assert known(database, "db2").domain.is_persistent
