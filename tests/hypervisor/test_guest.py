"""The guest: small verbs over one domain, and libvirt's errors as ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt as _libvirt
import pytest

from service.errors import AgentBusy, AgentNotAnswering, DomainBusy, DomainGone, LibvirtCallFailed, LibvirtUnavailable
from service.hypervisor.guest import Guest
from service.model.inventory import DomainState
from tests.fakes import FakeDisk, FakeDomain, connection_lost, libvirt_error

libvirt: Any = _libvirt


@pytest.fixture
def domain(tmp_path: Path) -> FakeDomain:
    return FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2")])


@pytest.fixture
def guest(domain: FakeDomain) -> Guest:
    return Guest(domain, "fake:///")


@pytest.mark.parametrize(
    ("state", "reason", "seen", "cleanly"),
    [
        (libvirt.VIR_DOMAIN_RUNNING, 1, DomainState.running, None),
        (libvirt.VIR_DOMAIN_BLOCKED, 0, DomainState.running, None),
        (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR, DomainState.paused, None),
        (libvirt.VIR_DOMAIN_SHUTDOWN, 0, DomainState.other, None),
        (libvirt.VIR_DOMAIN_PMSUSPENDED, 0, DomainState.other, None),
        (libvirt.VIR_DOMAIN_NOSTATE, 0, DomainState.other, None),
        (libvirt.VIR_DOMAIN_CRASHED, 0, DomainState.shut_off, False),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SHUTDOWN, DomainState.shut_off, True),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_DESTROYED, DomainState.shut_off, False),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED, DomainState.shut_off, False),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_SAVED, DomainState.shut_off, None),
        (libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN, DomainState.shut_off, None),
    ],
)
def test_the_states_of_a_domain(domain: FakeDomain, guest: Guest, state: int, reason: int, seen: DomainState, cleanly: bool | None) -> None:
    domain.state_now = (state, reason)
    assert (guest.state(), guest.was_shut_off_cleanly()) == (seen, cleanly)


@pytest.mark.parametrize(
    ("words", "busy"),
    [
        ("cannot acquire state change lock (held by monitor=remoteDispatch)", DomainBusy),
        ("Kann Status-Änderungs-Lock nicht abrufen", DomainBusy),
        ("不能获取状态更改锁（由 agent=remoteDispatch 持有）", AgentBusy),
    ],
)
def test_a_domain_whose_lock_is_held_is_busy_in_every_language(domain: FakeDomain, guest: Guest, words: str, busy: type[Exception]) -> None:
    domain.fail_next("job_type", libvirt_error(libvirt.VIR_ERR_OPERATION_TIMEOUT, f"…: {words}"))
    with pytest.raises(busy):
        guest.running_libvirt_job()


def test_a_program_is_waited_for(domain: FakeDomain, guest: Guest) -> None:
    domain.agent.exec_polls = 3
    assert guest.execute("/bin/echo", ["done"], budget_ms=5_000).output == b"done\n"
    assert domain.log.count("guest-exec-status") == 4


def test_a_program_that_takes_too_long_is_not_waited_for(domain: FakeDomain, guest: Guest) -> None:
    domain.agent.exec_polls = 1_000
    with pytest.raises(AgentNotAnswering) as caught:
        guest.execute("/bin/sync", budget_ms=50)
    assert (caught.value.facts["command"], caught.value.facts["timeout_ms"]) == ("guest-exec /bin/sync", 50)


def test_a_program_runs_while_the_caller_does_something_else(domain: FakeDomain, guest: Guest) -> None:
    first, second = guest.begin("/bin/echo", ["first"]), guest.begin("/bin/echo", ["second"])
    assert "guest-exec-status" not in domain.log
    assert (second.result(5_000).output, first.result(5_000).output) == (b"second\n", b"first\n")


def test_a_program_that_ended_within_its_budget_is_read_however_late(domain: FakeDomain, guest: Guest) -> None:
    running = guest.begin("/bin/echo", ["done"])
    running.begun -= 60
    assert running.result(50).output == b"done\n"


def test_preparing_a_snapshot_reads_and_taking_it_only_asks_once(domain: FakeDomain, guest: Guest, tmp_path: Path) -> None:
    overlay = tmp_path / "new.qcow2"
    overlay.touch()
    take = guest.prepare_snapshot({"vda": str(overlay)})
    domain.log.clear()
    take()
    assert domain.log == ["snapshot_create"]
    assert guest.sources() == {"vda": str(overlay)}


def test_a_refused_call_keeps_libvirts_code_and_words(domain: FakeDomain, guest: Guest) -> None:
    domain.fail_next("xml", libvirt_error(libvirt.VIR_ERR_OPERATION_FAILED, "monitor is gone"))
    with pytest.raises(LibvirtCallFailed) as caught:
        guest.disks()
    assert caught.value.facts == {"call": "virDomainGetXMLDesc", "libvirt_code": 9, "message": "monitor is gone"}


def test_a_broken_connection_is_libvirt_being_away(domain: FakeDomain, guest: Guest) -> None:
    domain.fail_next("state", connection_lost())
    with pytest.raises(LibvirtUnavailable) as away:
        guest.state()
    assert str(connection_lost()) in away.value.facts["reason"]


def test_a_domain_that_was_undefined_is_gone(domain: FakeDomain, guest: Guest) -> None:
    domain.exists = False
    with pytest.raises(DomainGone, match="db1"):
        guest.sources()


NODE = "libvirt-7-format"
NAME_TAKEN = libvirt_error(
    libvirt.VIR_ERR_INTERNAL_ERROR,
    f"internal error: unable to execute QEMU command 'blockdev-add': Duplicate nodes with node-name='{NODE}'",
)


@pytest.fixture
def take(guest: Guest, tmp_path: Path) -> Callable[[], None]:
    overlay = tmp_path / "new.qcow2"
    overlay.touch()
    return guest.prepare_snapshot({"vda": str(overlay)})


def test_a_node_name_that_is_taken_is_left_for_the_next_one(domain: FakeDomain, take: Callable[[], None]) -> None:
    domain.fail_next("snapshot_create", NAME_TAKEN, times=3)
    take()
    assert len(domain.points) == 1
    assert domain.log.count("snapshot_create") == 4


def test_node_names_that_are_all_taken_are_an_error_at_last(domain: FakeDomain, take: Callable[[], None]) -> None:
    domain.fail_next("snapshot_create", NAME_TAKEN, times=50)
    with pytest.raises(LibvirtCallFailed, match=NODE):
        take()
    assert domain.points == []


def test_any_other_error_of_a_snapshot_is_not_tried_again(domain: FakeDomain, take: Callable[[], None]) -> None:
    error = libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: unable to execute QEMU command 'transaction': no space")
    domain.fail_next("snapshot_create", error)
    with pytest.raises(LibvirtCallFailed, match="transaction"):
        take()
    assert domain.log.count("snapshot_create") == 1
