"""The connection to libvirt, on libvirt's own test driver: a real client library without a daemon."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import DomainGone, LibvirtUnavailable
from service.hypervisor.connection import HostConnection
from service.model.inventory import DomainState

URI = "test:///default"


@pytest.fixture
def connection() -> Iterator[HostConnection]:
    opened = HostConnection(URI)
    yield opened
    opened.close()


def test_versions_are_written_as_people_write_them(connection: HostConnection) -> None:
    versions = connection.versions()
    assert versions["libvirt"].count(".") == 2
    assert versions["hypervisor"] == "TEST 0.0.2"


def test_domains_are_found_by_name_and_by_uuid(connection: HostConnection) -> None:
    guest = connection.guest("test")
    assert connection.guest(guest.uuid).name == "test"
    assert [known.uuid for known in connection.guests()] == [guest.uuid]
    assert guest.state() is DomainState.running


@pytest.mark.parametrize("name", ["nobody", "00000000-0000-0000-0000-000000000000"])
def test_a_domain_that_is_not_there_is_named(connection: HostConnection, name: str) -> None:
    with pytest.raises(DomainGone, match=f"test:///default has no domain {name}"):
        connection.guest(name)


def test_a_libvirt_that_is_not_there_is_named_and_tried_again(tmp_path: Path) -> None:
    connection = HostConnection(f"qemu+unix:///system?socket={tmp_path / 'no-socket'}")
    for ask in (connection.versions, connection.guests, lambda: connection.guest("db1")):
        with pytest.raises(LibvirtUnavailable, match="no-socket"):
            ask()
    connection.close()


def test_a_guest_outlives_the_connection_it_came_from(connection: HostConnection) -> None:
    guest = connection.guest("test")
    connection.close()
    assert guest.state() is DomainState.running


def test_a_connection_can_be_closed_twice(connection: HostConnection) -> None:
    connection.versions()
    connection.close()
    connection.close()
