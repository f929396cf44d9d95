from pathlib import Path

import libvirt
import pytest

from service.errors import DomainGone, LibvirtCallFailed, LibvirtUnavailable
from service.hypervisor.guest import Guest
from service.hypervisor.power import PauseReason
from service.model import domain_xml
from service.model.inventory import DomainState
from tests.fakes import FakeDisk, FakeDomain, FakeHost, agent_silent, connection_lost, libvirt_error
from tests.fakes.domain import PAUSED

REFUSED = libvirt_error(libvirt.VIR_ERR_INTERNAL_ERROR, "internal error: no")


@pytest.fixture
def domain(tmp_path: Path) -> FakeDomain:
    (tmp_path / "vda.qcow2").touch()
    return FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2")])


@pytest.fixture
def host(domain: FakeDomain) -> FakeHost:
    return FakeHost(domain)


@pytest.fixture
def guest(host: FakeHost) -> Guest:
    return host.guest("db1")


def test_a_repeated_start_or_stop_changes_nothing(guest: Guest) -> None:
    guest.start()
    guest.destroy()
    guest.destroy()
    assert guest.is_shut_off()
    assert guest.stop(10)
    guest.start()
    guest.resume()
    assert guest.state() is DomainState.running


@pytest.mark.parametrize("call", ["start", "destroy"])
def test_a_call_that_failed_and_changed_nothing_is_an_error(guest: Guest, domain: FakeDomain, call: str) -> None:
    if call == "start":
        domain.shut_off()
    domain.fail_next(call, REFUSED)
    with pytest.raises(LibvirtCallFailed):
        getattr(guest, call)()


def test_a_call_that_failed_and_had_its_effect_is_not_an_error(guest: Guest, domain: FakeDomain) -> None:
    domain.fail_next("destroy", REFUSED, after=True)
    guest.destroy()
    assert guest.is_shut_off()


def test_a_libvirt_that_is_away_is_never_taken_for_success(guest: Guest, domain: FakeDomain) -> None:
    domain.fail_next("start", connection_lost())
    with pytest.raises(LibvirtUnavailable):
        guest.start()


def test_a_guest_that_shuts_itself_down_is_not_switched_off(guest: Guest, domain: FakeDomain) -> None:
    assert guest.stop(10)
    assert "destroy" not in domain.log
    assert guest.was_shut_off_cleanly()


def test_a_guest_whose_agent_went_away_before_its_answer_is_waited_for(guest: Guest, domain: FakeDomain) -> None:
    domain.fail_next("shut_down", agent_silent(), after=True)
    assert guest.stop(10)
    assert "destroy" not in domain.log


def test_a_guest_whose_agent_refuses_is_asked_by_its_power_button(guest: Guest, domain: FakeDomain) -> None:
    domain.fail_next("shut_down", REFUSED)
    assert guest.stop(10)
    assert domain.log.count("shut_down") == 2


@pytest.mark.parametrize("how", ["ignores", "refuses", "no time"])
def test_a_guest_that_does_not_is_switched_off(guest: Guest, domain: FakeDomain, how: str) -> None:
    domain.ignores_shutdown = how == "ignores"
    if how == "refuses":
        domain.fail_next("shut_down", REFUSED, times=2)
    assert not guest.stop(0 if how == "no time" else 0.05)
    assert guest.is_shut_off()


def test_a_stop_can_be_ended_while_it_waits(guest: Guest, domain: FakeDomain) -> None:
    domain.ignores_shutdown = True

    def cancelled() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        guest.stop(60, cancelled)
    assert guest.state() is DomainState.running


def test_the_reason_of_a_pause(guest: Guest, domain: FakeDomain) -> None:
    assert guest.pause_reason() is None
    domain.pause_by_io_error("vda")
    assert (guest.pause_reason(), guest.disk_errors()) == (PauseReason.io_error, {"vda": "no_space"})
    domain.state_now = PAUSED
    assert guest.pause_reason() is PauseReason.user
    domain.state_now = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_MIGRATION)
    assert guest.pause_reason() is PauseReason.moving
    domain.state_now = (libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_WATCHDOG)
    assert guest.pause_reason() is PauseReason.other


def test_a_definition_is_replaced_for_the_next_start_only(guest: Guest, domain: FakeDomain, tmp_path: Path) -> None:
    (tmp_path / "new.qcow2").touch()
    guest.redefine(domain_xml.with_sources(guest.inactive_xml(), {"vda": str(tmp_path / "new.qcow2")}, "qcow2"))
    assert guest.sources() == {"vda": str(tmp_path / "vda.qcow2")}
    assert guest.persistent_sources() == {"vda": str(tmp_path / "new.qcow2")}
    guest.destroy()
    guest.start()
    assert guest.sources() == {"vda": str(tmp_path / "new.qcow2")}


def test_a_new_domain_is_defined_beside_another(guest: Guest, host: FakeHost) -> None:
    uuid = "11111111-2222-4333-8444-555555555555"
    xml = domain_xml.with_identity(guest.inactive_xml(), name="db2", uuid=uuid, serials={"vda": "S9"})
    made = host.define(xml)
    assert (made.name, made.uuid, made.is_shut_off()) == ("db2", uuid, True)
    assert host.names_and_uuids() == {"db1": guest.uuid, "db2": uuid}
    assert domain_xml.identity_of(made.inactive_xml()).serials == {"vda": "S9"}
    with pytest.raises(LibvirtCallFailed):
        host.define(domain_xml.with_identity(xml, uuid=guest.uuid))
    made.undefine(keep_nvram=True)
    with pytest.raises(DomainGone):
        host.guest("db2")


def test_a_pull_makes_the_active_file_whole(guest: Guest, domain: FakeDomain, tmp_path: Path) -> None:
    domain.put_on("vda", tmp_path / "overlay.qcow2")
    assert not guest.is_whole("vda")
    assert guest.pull_progress("vda") is None
    guest.block_pull("vda")
    with pytest.raises(LibvirtCallFailed):
        guest.block_pull("vda")
    steps = [guest.pull_progress("vda") for _ in range(3)]
    assert [step.done_bytes if step is not None else None for step in steps] == [0, 32 << 20, None]
    assert guest.is_whole("vda")
    assert guest.persistent_sources() == {"vda": str(tmp_path / "overlay.qcow2")}


def test_a_pull_that_is_ended_leaves_the_chain(guest: Guest, domain: FakeDomain, tmp_path: Path) -> None:
    domain.put_on("vda", tmp_path / "overlay.qcow2")
    guest.block_pull("vda")
    guest.stop_merge("vda")
    assert (guest.pull_progress("vda"), guest.is_whole("vda")) == (None, False)


def test_counters_that_libvirt_does_not_have_are_none(guest: Guest, domain: FakeDomain) -> None:
    domain.counters["vda"] = {"wr_operations": 1, "wr_total_times": 2, "flush_operations": -1, "flush_total_times": -1}
    domain.is_idle = True
    times = guest.block_latency("vda")
    assert (times.writes, times.write_ns_total, times.flushes, times.flush_ns_total, times.reads) == (1, 2, None, None, None)
