"""The connection to libvirt, on libvirt's own test driver: a real client library without a daemon."""

import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.deadlines import CallTimedOut, HelperThreads
from service.errors import DomainGone, LibvirtUnavailable
from service.hypervisor.bounded_domain import Bounds
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
    with pytest.raises(DomainGone) as gone:
        connection.guest(name)
    assert gone.value.facts == {"uri": "test:///default", "domain": name}


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


@pytest.fixture
def mute_libvirt(tmp_path: Path) -> Iterator[str]:
    """The URI of a libvirtd that hangs: it takes every connection, and never says a word."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "mute.sock"))
        listener.listen(64)
        yield f"qemu+unix:///system?socket={tmp_path / 'mute.sock'}"


def test_a_libvirt_that_hangs_at_the_connection_is_away_after_a_while_for_every_thread(mute_libvirt: str) -> None:
    connection = HostConnection(mute_libvirt, Bounds(open_s=1.0), HelperThreads(max_hung_calls=100))
    took: list[float] = []

    def ask() -> None:
        began = time.monotonic()
        with pytest.raises(LibvirtUnavailable):
            connection.versions()
        took.append(time.monotonic() - began)

    threads = [threading.Thread(target=ask) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(took) == 10
    assert max(took) < 8, "each waits for those before it"
    connection.close()


def test_a_libvirt_that_hangs_for_long_gets_no_new_threads_and_is_refused_at_once(mute_libvirt: str) -> None:
    connection = HostConnection(mute_libvirt, Bounds(open_s=0.05), HelperThreads(max_hung_calls=2))
    waited: list[float] = []
    for _ in range(3):
        with pytest.raises(LibvirtUnavailable) as away:
            connection.versions()
        hung = away.value.__cause__
        assert isinstance(hung, CallTimedOut)
        assert hung.call == "virConnectOpen"
        waited.append(hung.waited_s)
    assert waited == [0.05, 0.05, 0.0], "the third call is not begun"


def test_a_connection_on_which_a_call_hung_is_replaced_and_the_guest_goes_on(connection: HostConnection) -> None:
    guest = connection.guest("test")
    before = connection._open()
    connection.retire(before)
    assert guest.state() is DomainState.running
    assert connection._open() is not before
