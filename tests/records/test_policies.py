"""Policies on record: named once, changed by whoever has read what is there, and labels of domains."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from threading import Barrier
from uuid import uuid4

import pytest

from service.db.engine import Database
from service.errors import PolicyChanged, PolicyTaken, PolicyTie, PolicyUnknown
from service.records import policies, policy_changes
from tests.api.world import add_domain, add_host
from tests.model.written_policies import a_policy, a_track

NOW = datetime(2026, 2, 1, tzinfo=UTC)
LATER = NOW + timedelta(hours=1)


def test_a_policy_is_found_by_its_id_and_by_its_name(database: Database) -> None:
    with database.write() as session:
        added = policies.add(session, {"name": "gold"}, NOW).id
    with database.read() as session:
        assert policies.get(session, added).id == policies.get(session, "gold").id == added
        with pytest.raises(PolicyUnknown):
            policies.get(session, str(uuid4()))


def test_an_id_counts_before_a_name(database: Database) -> None:
    with database.write() as session:
        first = policies.add(session, {"name": "gold"}, NOW).id
        policies.add(session, {"name": first}, NOW)
    with database.read() as session:
        assert policies.get(session, first).name == "gold"


def test_a_name_is_given_once(database: Database) -> None:
    with database.write() as session:
        policies.add(session, {"name": "gold"}, NOW)
    with pytest.raises(PolicyTaken), database.write() as session:
        policies.add(session, {"name": "gold"}, NOW)


def test_a_policy_cannot_take_the_name_of_another_one(database: Database) -> None:
    with database.write() as session:
        policies.add(session, {"name": "gold"}, NOW)
        silver = policies.add(session, {"name": "silver"}, NOW)
    with pytest.raises(PolicyTaken), database.write() as session:
        policies.change(session, policies.get(session, silver.id), {"name": "gold"}, LATER)


def test_a_change_counts_one_more_revision_and_keeps_the_id(database: Database) -> None:
    with database.write() as session:
        added = policies.add(session, {"name": "gold"}, NOW).id
    with database.write() as session:
        changed = policies.change(session, policies.get(session, "gold"), {"name": "gold", "paused": True}, LATER, revision=1)
        assert (changed.id, changed.revision, changed.updated_at, changed.created_at) == (added, 2, LATER, NOW)


def test_the_same_again_changes_nothing(database: Database) -> None:
    with database.write() as session:
        policies.add(session, {"name": "gold", "paused": True}, NOW)
    with database.write() as session:
        same = policies.change(session, policies.get(session, "gold"), {"paused": True, "name": "gold"}, LATER)
        assert (same.revision, same.updated_at) == (1, NOW)


def test_who_has_read_an_older_revision_changes_nothing(database: Database) -> None:
    with database.write() as session:
        policies.add(session, {"name": "gold"}, NOW)
        policies.change(session, policies.get(session, "gold"), {"name": "gold", "paused": True}, NOW)
    with pytest.raises(PolicyChanged) as refused, database.write() as session:
        policies.change(session, policies.get(session, "gold"), {"name": "gold"}, LATER, revision=1)
    assert refused.value.facts["now"] == 2
    with database.read() as session:
        assert policies.get(session, "gold").document == {"name": "gold", "paused": True}


def test_a_change_that_came_between_reading_and_writing_is_not_undone(database: Database) -> None:
    with database.write() as session:
        policies.add(session, {"name": "gold"}, NOW)
    with database.read() as session:
        read = policies.get(session, "gold")
    with database.write() as session:
        policies.change(session, policies.get(session, "gold"), {"name": "gold", "paused": True}, NOW)
    with pytest.raises(PolicyChanged), database.write() as session:
        policies.change(session, read, {"name": "gold", "description": "other"}, LATER)


def test_policies_are_listed_by_name(database: Database) -> None:
    with database.write() as session:
        for name in ("silver", "bronze", "gold"):
            policies.add(session, {"name": name}, NOW)
        assert [policy.name for policy in policies.list_all(session)] == ["bronze", "gold", "silver"]


def test_a_policy_that_was_removed_is_not_found(database: Database) -> None:
    with database.write() as session:
        policies.add(session, {"name": "gold"}, NOW)
        policies.remove(session, "gold")
    with pytest.raises(PolicyUnknown), database.read() as session:
        policies.get(session, "gold")


def test_labels_replace_the_earlier_ones(database: Database) -> None:
    domain = str(uuid4())
    with database.write() as session:
        assert policies.labels_of(session, domain) == {}
        policies.set_labels(session, domain, {"tier": "gold", "team": "db"}, NOW)
    with database.write() as session:
        policies.set_labels(session, domain, {"tier": "silver"}, LATER)
        assert policies.labels_of(session, domain) == {"tier": "silver"}
        assert policies.all_labels(session) == {domain: {"tier": "silver"}}


# --- at the same time -----------------------------------------------------------------------------


def test_of_policies_that_tie_and_are_written_at_the_same_time_one_is_accepted(database: Database) -> None:
    with database.write() as session:
        add_host(session)
        add_domain(session, "db-1")
    together = Barrier(4)

    def write(number: int) -> bool:
        document = a_policy(name=f"p{number}", tracks=[a_track(job={"kind": "snapshot"})])
        together.wait()
        try:
            with database.write() as session:
                policy_changes.create(session, document)
        except PolicyTie:
            return False
        return True

    with ThreadPoolExecutor(4) as threads:
        assert sorted(threads.map(write, range(4))) == [False, False, False, True]
