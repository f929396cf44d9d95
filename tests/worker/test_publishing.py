"""What the worker publishes of its host, and that no guest can stop it."""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from service.db.engine import Database
from service.db.tables import Domain, Host
from service.hypervisor.bounded_domain import Bounds
from service.worker.publishing import Inventory
from tests.fakes import FakeDisk, FakeDomain, FakeHost
from tests.fakes.libvirt_errors import no_domain

NOBODY: frozenset[str] = frozenset()


class Published:
    def __init__(self, database: Database, folder: Path) -> None:
        self.database = database
        self.first = FakeDomain("db1", [FakeDisk("vda", folder / "vda.qcow2")])
        self.second = FakeDomain("db2", [FakeDisk("vda", folder / "vda2.qcow2")])
        self.host = FakeHost(self.first, self.second)
        self.inventory = Inventory(database, self.host, "hv1", read_patience_s=2)

    def publish(self, busy: frozenset[str] = NOBODY) -> dict[str, Domain]:
        self.inventory.publish(busy)
        with self.database.read() as session:
            return {row.name: row for row in session.scalars(select(Domain))}

    def names(self) -> list[str]:
        with self.database.read() as session:
            return sorted(session.scalars(select(Domain.name)))

    def document(self, name: str) -> dict[str, Any]:
        with self.database.read() as session:
            return dict(session.scalars(select(Domain).where(Domain.name == name)).one().document)

    def row(self) -> Host:
        with self.database.read() as session:
            found = session.get(Host, "hv1")
        assert found is not None
        return found


@pytest.fixture
def published(sqlite_database: Database, tmp_path: Path) -> Published:
    return Published(sqlite_database, tmp_path)


def test_every_domain_is_published_with_what_the_api_shows(database: Database, tmp_path: Path) -> None:
    published = Published(database, tmp_path)
    rows = published.publish()
    document = rows["db1"].document
    assert (sorted(rows), rows["db1"].state, rows["db1"].id) == (["db1", "db2"], "running", published.first.uuid())
    assert (document["persistent"], document["frozen"]) == (True, False)
    assert document["disks"][0]["target"] == "vda"
    assert document["filesystems"] == [{"mountpoint": "/data", "name": "vda", "type": "ext4", "disks": ["vda"]}]
    assert document["agent"] == {"channel": True, "connected": True, "version": "7.2.22", "freeze_enabled": True, "exec_enabled": True}
    assert document["os"] == {"family": "linux", "name": "Debian GNU/Linux 12 (bookworm)", "version": "12", "kernel": None}


def test_the_host_is_published_with_its_versions(published: Published) -> None:
    published.publish()
    host = published.row()
    assert (host.libvirt_connected, host.libvirt_error, host.versions["libvirt"]) == (True, None, "9.0.0")


def test_a_domain_that_is_gone_is_published_no_more(published: Published) -> None:
    published.publish()
    published.host.domains.remove(published.second)
    assert sorted(published.publish()) == ["db1"]


def test_a_libvirt_that_is_away_is_said_and_the_domains_stay(published: Published) -> None:
    published.publish()
    published.host.is_away = True
    assert published.inventory.publish(NOBODY) is False
    assert published.row().libvirt_connected is False
    assert published.row().versions["libvirt"] == "9.0.0"
    published.host.is_away = False
    assert sorted(published.publish()) == ["db1", "db2"]


def test_the_agent_of_a_busy_domain_is_not_asked(published: Published) -> None:
    published.publish(frozenset({published.first.uuid()}))
    assert not [call for call in published.first.log if call.startswith("guest-")]
    assert [call for call in published.second.log if call.startswith("guest-")]


def test_an_agent_that_is_not_connected_is_not_asked(published: Published) -> None:
    published.first.agent.connected = False
    assert published.publish()["db1"].document["agent"]["connected"] is False
    assert not [call for call in published.first.log if call.startswith("guest-")]


def test_a_silent_agent_is_published_as_not_connected(published: Published) -> None:
    published.first.agent.answers = False
    document = published.publish()["db1"].document
    assert (document["agent"]["connected"], document["filesystems"], document["frozen"]) == (False, None, None)


def test_a_frozen_guest_is_published_as_frozen(published: Published) -> None:
    published.first.agent.freeze_by_somebody_else()
    assert published.publish()["db1"].document["frozen"] is True


@pytest.mark.parametrize(
    ("command", "reply"),
    [
        ("guest-ping", []),
        ("guest-info", {"return": {"version": 1}}),
        ("guest-info", {"return": {"version": "7", "supported_commands": [7]}}),
        ("guest-get-osinfo", {"return": ["debian"]}),
        ("guest-fsfreeze-status", {"return": {"frozen": True}}),
    ],
)
def test_a_guest_that_answers_nonsense_stops_nobody(published: Published, command: str, reply: Any) -> None:
    published.first.answer_next(command, reply)
    assert sorted(published.publish()) == ["db1", "db2"]
    assert published.publish()["db2"].document["agent"]["connected"] is True


def test_a_domain_that_vanishes_between_the_list_and_the_look_is_left_out(published: Published) -> None:
    published.second.fail_next("state", no_domain(published.second.uuid()))
    assert sorted(published.publish()) == ["db1"]


def test_a_domain_that_hangs_stays_as_it_was_last_seen_and_hides_no_other(published: Published) -> None:
    before = published.publish()
    gate = published.first.hang_next("state")
    published.second.pause()

    after = published.publish()

    assert (after["db1"].state, after["db1"].published_at) == ("running", before["db1"].published_at)
    assert after["db2"].state == "paused"
    gate.set()


def test_a_domain_whose_call_was_given_up_stays_as_it_was_last_seen(published: Published) -> None:
    published.host.limits = Bounds(read_s=0.1)
    published.publish()
    gate = published.first.hang_next("xml")
    assert sorted(published.publish()) == ["db1", "db2"]
    assert published.row().libvirt_connected
    gate.set()


def test_a_guest_is_asked_nothing_more_once_a_job_has_it(published: Published) -> None:
    """The job may come to its freeze at any moment, and a command of ours would stand before its thaw."""
    published.publish()
    published.host.domains.remove(published.second)
    published.first.log.clear()
    inventory = Inventory(published.database, published.host, "hv1", has_job=lambda _: "guest-info" in published.first.log)
    inventory.publish(NOBODY)
    assert "guest-info" in published.first.log
    assert not {"guest-fsfreeze-status", "guest-get-osinfo", "guest-get-fsinfo"} & set(published.first.log)
    assert published.row().libvirt_connected


def test_a_domain_that_is_new_is_known_while_the_agent_of_another_hangs(sqlite_database: Database, tmp_path: Path) -> None:
    published = Published(sqlite_database, tmp_path)
    begin_again = threading.Event()
    inventory = Inventory(sqlite_database, published.host, "hv1", read_patience_s=30, must_begin_again=begin_again.is_set)
    gate = published.first.hang_next("guest-ping")
    publishing = threading.Thread(target=inventory.publish, args=(NOBODY,), daemon=True)
    try:
        publishing.start()
        waited_for(lambda: published.names() == ["db1", "db2"])
        published.host.domains.append(FakeDomain("db3", [FakeDisk("vda", tmp_path / "vda3.qcow2")]))
        begin_again.set()
        publishing.join(5)
        assert not publishing.is_alive()
        begin_again.clear()
        publishing = threading.Thread(target=inventory.publish, args=(NOBODY,), daemon=True)
        publishing.start()
        waited_for(lambda: "db3" in published.names())
        assert not gate.is_set()
    finally:
        gate.set()
        publishing.join(5)


def test_what_a_slow_guest_says_is_published_when_it_has_said_it(sqlite_database: Database, tmp_path: Path) -> None:
    published = Published(sqlite_database, tmp_path)
    inventory = Inventory(sqlite_database, published.host, "hv1", read_patience_s=30)
    gate = published.first.hang_next("guest-ping")
    publishing = threading.Thread(target=inventory.publish, args=(NOBODY,), daemon=True)
    publishing.start()
    waited_for(lambda: published.names() == ["db1", "db2"])
    assert published.document("db1")["frozen"] is None
    gate.set()
    publishing.join(5)
    assert published.document("db1")["frozen"] is False


def waited_for(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not fact():
        assert time.monotonic() < deadline
        time.sleep(0.02)
