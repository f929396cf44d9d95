"""One contract of checkpoints, power and definitions, two guests: the fake that other tests trust, and a real one."""

from collections.abc import Callable
from pathlib import Path

import libvirt
import pytest

from service.errors import LibvirtCallFailed
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.model import domain_xml
from service.model.inventory import DomainState
from tests.fakes import FakeDisk, FakeDomain, FakeHost
from tests.lab.command import run
from tests.lab.daemon import uri
from tests.lab.fixtures import MakeGuest
from tests.lab.options import GuestOptions

FIRST, SECOND, THIRD = (f"stillpoint-aaaaaaaa-0000000{number}" for number in (1, 2, 3))


@pytest.fixture(params=["fake", pytest.param("real", marks=pytest.mark.live)])
def guest(request: pytest.FixtureRequest, tmp_path: Path) -> Guest:
    """Running, with two disks."""
    if request.param == "fake":
        disks = [FakeDisk(target, tmp_path / f"{target}.qcow2") for target in ("vda", "vdb")]
        for disk in disks:
            run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk.source), "64M"])
        return FakeHost(FakeDomain("contract", disks)).guest("contract")
    make_guest: MakeGuest = request.getfixturevalue("make_guest")
    lab = make_guest(GuestOptions(disks=2, meter={"size_mb": 1})).start_and_wait()
    connection = HostConnection(uri())
    request.addfinalizer(connection.close)
    return connection.guest(lab.name)


def _refusal(call: Callable[[], object]) -> int:
    with pytest.raises(LibvirtCallFailed) as refused:
        call()
    return int(refused.value.facts["libvirt_code"])


def _overlay(guest: Guest, target: str) -> str:
    base = Path(guest.sources()[target] or "")
    overlay = base.with_name(f"{target}.contract.qcow2")
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-u", "-b", base, "-F", "qcow2", overlay, "128M"])
    overlay.chmod(0o666)
    return str(overlay)


def test_checkpoints_of_a_domain_that_runs(guest: Guest) -> None:
    checkpoints = guest.checkpoints
    checkpoints.create(FIRST, ["vda", "vdb"])
    checkpoints.create(SECOND, ["vda"])
    assert checkpoints.names() == [FIRST, SECOND]
    assert set(checkpoints.changed_bytes(FIRST)) == {"vda", "vdb"}
    assert None not in checkpoints.changed_bytes(FIRST).values()
    assert _refusal(lambda: checkpoints.create(FIRST, ["vda"])) == libvirt.VIR_ERR_OPERATION_FAILED
    assert _refusal(lambda: checkpoints.xml(THIRD)) == libvirt.VIR_ERR_NO_DOMAIN_CHECKPOINT
    aside = checkpoints.of_ours()
    checkpoints.delete(FIRST, metadata_only=True)
    checkpoints.delete(SECOND, metadata_only=True)
    assert _refusal(lambda: checkpoints.redefine(aside[SECOND])) == libvirt.VIR_ERR_INVALID_ARG
    checkpoints.redefine(aside[FIRST], is_validated=True)
    checkpoints.redefine(aside[SECOND], is_validated=True)
    assert checkpoints.delete(FIRST).bitmap_is_gone
    assert not checkpoints.delete(FIRST).bitmap_is_gone
    checkpoints.put_back(aside)
    # The record is back, and the bitmap is not.
    assert _refusal(lambda: checkpoints.redefine(aside[FIRST], is_validated=True)) == libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT
    assert not checkpoints.delete(FIRST).bitmap_is_gone
    assert checkpoints.names() == [SECOND]


def test_checkpoints_of_a_domain_that_is_off(guest: Guest) -> None:
    checkpoints = guest.checkpoints
    checkpoints.create(FIRST, ["vda", "vdb"])
    overlay = _overlay(guest, "vda")
    guest.destroy()
    unsupported = libvirt.VIR_ERR_OPERATION_UNSUPPORTED
    assert _refusal(lambda: checkpoints.create(SECOND, ["vda"])) == unsupported
    assert _refusal(guest.prepare_snapshot({"vda": overlay})) == unsupported
    assert _refusal(lambda: checkpoints.changed_bytes(FIRST)) == libvirt.VIR_ERR_OPERATION_INVALID
    aside = checkpoints.set_aside()
    assert _refusal(lambda: checkpoints.redefine(aside[FIRST], is_validated=True)) == libvirt.VIR_ERR_OPERATION_INVALID
    guest.prepare_snapshot({"vda": overlay})()
    checkpoints.put_back(aside)
    assert (checkpoints.names(), guest.sources()["vda"]) == ([FIRST], overlay)
    guest.start()
    # The bitmap of vda is in the file below: the active file has none.
    assert _refusal(lambda: checkpoints.redefine(aside[FIRST], is_validated=True)) == libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT


def test_an_overlay_of_a_domain_that_runs_has_the_bitmaps_too(guest: Guest) -> None:
    guest.checkpoints.create(FIRST, ["vda"])
    guest.prepare_snapshot({"vda": _overlay(guest, "vda")})()
    guest.checkpoints.redefine(guest.checkpoints.xml(FIRST), is_validated=True)
    assert guest.checkpoints.delete(FIRST).bitmap_is_gone


def test_power_and_definition(guest: Guest) -> None:
    running = guest.sources()
    overlay = _overlay(guest, "vda")
    first = guest.instance()
    guest.start()
    assert guest.instance() == first
    guest.redefine(domain_xml.with_sources(guest.inactive_xml(), {"vda": overlay}, "qcow2"))
    assert (guest.sources(), guest.persistent_sources()["vda"]) == (running, overlay)
    guest.destroy()
    guest.destroy()
    assert _refusal(lambda: guest.block_latency("vda")) == libvirt.VIR_ERR_OPERATION_INVALID
    assert _refusal(lambda: guest.block_pull("vda")) == libvirt.VIR_ERR_OPERATION_INVALID
    guest.start()
    assert (guest.state(), guest.sources()["vda"], guest.is_whole("vda")) == (DomainState.running, overlay, False)
    guest.destroy()
    Path(overlay).unlink()
    assert _refusal(guest.start) == libvirt.VIR_ERR_SYSTEM_ERROR
    assert guest.is_shut_off()
