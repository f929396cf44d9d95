"""What libvirt and QEMU really do with checkpoints, pulls, definitions and full disks (F§4.2, F§4.3)."""

import json
import os
import signal
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import libvirt
import pytest

from service.disks.merging import merge_back
from service.errors import DomainGone, LibvirtCallFailed
from service.hypervisor.connection import HostConnection
from service.hypervisor.guest import Guest
from service.hypervisor.power import PauseReason
from service.jobs.guest_watch import resume_after_error
from service.model import domain_xml
from service.model.host_adaptation import adapted, with_own_endpoints
from service.model.intent import Overlay
from service.model.inventory import DomainState
from tests.lab.bad_storage import storage
from tests.lab.command import run
from tests.lab.daemon import uri
from tests.lab.firmware import tpm_state
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.overlays import make_overlay
from tests.lab.second_host import migrate, second_host

pytestmark = pytest.mark.live

FIRST, SECOND, STRANGE = "stillpoint-aaaaaaaa-00000001", "stillpoint-aaaaaaaa-00000002", "daily"
QUIET = {"size_mb": 1, "interval_us": 20_000}


@pytest.fixture
def connection(lab: None) -> Iterator[HostConnection]:
    connection = HostConnection(uri())
    yield connection
    connection.close()


@pytest.fixture
def two_disks(make_guest: MakeGuest) -> LabGuest:
    return make_guest(GuestOptions(disks=2, meter=QUIET)).start_and_wait()


def _bitmaps(image: Path) -> dict[str, list[str]]:
    """Name to flags, as any process reads them while QEMU runs."""
    listing = json.loads(run(["qemu-img", "info", "--force-share", "--output=json", image]))
    return {bitmap["name"]: bitmap["flags"] for bitmap in listing["format-specific"]["data"].get("bitmaps", [])}


def _until(fact: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not fact():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


def _move_to_overlays(guest: Guest, lab: LabGuest, suffix: str) -> list[Overlay]:
    made = {target: (image, make_overlay(image, suffix)) for target, image in lab.active_sources().items()}
    for _, overlay in made.values():
        overlay.chmod(0o666)
    guest.prepare_snapshot({target: str(overlay) for target, (_, overlay) in made.items()})()
    return [
        Overlay(target, str(base), "qcow2", str(overlay), guest.capacity(target) if not guest.is_shut_off() else 0)
        for target, (base, overlay) in made.items()
    ]


def _kill_qemu(lab: LabGuest) -> None:
    os.kill(int(Path(f"/run/libvirt/qemu/{lab.name}.pid").read_text()), signal.SIGKILL)
    lab.wait_off()


# --- checkpoints ----------------------------------------------------------------------------------


def test_a_checkpoint_is_made_and_deleted_with_its_bitmaps(connection: HostConnection, two_disks: LabGuest) -> None:
    guest = connection.guest(two_disks.name)
    guest.checkpoints.create(FIRST, ["vda"])
    guest.checkpoints.create(SECOND, ["vda", "vdb"])
    assert guest.checkpoints.names() == [FIRST, SECOND]
    with pytest.raises(LibvirtCallFailed):
        guest.checkpoints.create(SECOND, ["vda"])
    assert guest.checkpoints.delete(FIRST).bitmap_is_gone
    assert not guest.checkpoints.delete(FIRST).bitmap_is_gone
    assert guest.checkpoints.names() == [SECOND]
    two_disks.power_off()
    assert [set(_bitmaps(image)) for image in two_disks.disks.values()] == [{SECOND}, {SECOND}]


def test_a_checkpoint_survives_snapshot_merge_and_power_cycle(connection: HostConnection, two_disks: LabGuest) -> None:
    """While the overlays are on top, another process may read the bitmaps of the bases: they are not in use."""
    guest = connection.guest(two_disks.name)
    guest.checkpoints.create(FIRST, ["vda", "vdb"])
    taken = _move_to_overlays(guest, two_disks, "point")
    assert [_bitmaps(image) for image in two_disks.disks.values()] == [{FIRST: ["auto"]}] * 2
    assert merge_back(guest, taken).errors == {}
    two_disks.power_off()
    two_disks.start_and_wait()
    xml = guest.checkpoints.xml(FIRST)
    guest.checkpoints.delete(FIRST, metadata_only=True)
    guest.checkpoints.redefine(xml, is_validated=True)
    assert guest.checkpoints.names() == [FIRST]


def test_a_record_that_was_lost_is_given_back_also_without_its_parent(connection: HostConnection, two_disks: LabGuest) -> None:
    guest = connection.guest(two_disks.name)
    guest.checkpoints.create(FIRST, ["vda", "vdb"])
    guest.checkpoints.create(SECOND, ["vda", "vdb"])
    aside = guest.checkpoints.of_ours()
    for name in aside:
        guest.checkpoints.delete(name, metadata_only=True)
    with pytest.raises(LibvirtCallFailed):
        guest.checkpoints.redefine(aside[SECOND])
    guest.checkpoints.put_back({SECOND: aside[SECOND]})
    guest.checkpoints.put_back({SECOND: aside[SECOND]})
    assert guest.checkpoints.names() == [SECOND]


def test_a_domain_that_is_off_takes_no_new_checkpoint_and_no_snapshot_until_ours_are_set_aside(
    connection: HostConnection, two_disks: LabGuest
) -> None:
    guest = connection.guest(two_disks.name)
    guest.checkpoints.create(FIRST, ["vda", "vdb"])
    guest.checkpoints.create(SECOND, ["vda", "vdb"])
    guest.destroy()
    with pytest.raises(LibvirtCallFailed) as refused:
        guest.checkpoints.create("stillpoint-aaaaaaaa-00000003", ["vda"])
    assert refused.value.facts["libvirt_code"] == libvirt.VIR_ERR_OPERATION_UNSUPPORTED
    with pytest.raises(LibvirtCallFailed) as refused:
        _move_to_overlays(guest, two_disks, "refused")
    assert refused.value.facts["libvirt_code"] == libvirt.VIR_ERR_OPERATION_UNSUPPORTED
    aside = guest.checkpoints.set_aside()
    assert (list(aside), guest.checkpoints.names()) == ([FIRST, SECOND], [])
    taken = _move_to_overlays(guest, two_disks, "taken")
    guest.checkpoints.put_back(aside)
    assert guest.checkpoints.names() == [FIRST, SECOND]
    # It is started before the overlays are merged: the bitmaps are in the bases, and the merge writes into them.
    two_disks.start_and_wait()
    assert merge_back(guest, taken).errors == {}
    guest.checkpoints.delete(FIRST)
    xml = guest.checkpoints.xml(SECOND)
    guest.checkpoints.delete(SECOND, metadata_only=True)
    guest.checkpoints.redefine(xml, is_validated=True)


def test_checkpoints_of_another_tool_are_not_set_aside(connection: HostConnection, two_disks: LabGuest) -> None:
    guest = connection.guest(two_disks.name)
    guest.checkpoints.create(FIRST, ["vda", "vdb"])
    guest.checkpoints.create(STRANGE, ["vda"])
    guest.checkpoints.create(SECOND, ["vda", "vdb"])
    aside = guest.checkpoints.set_aside()
    assert guest.checkpoints.names() == [STRANGE]
    guest.checkpoints.put_back(aside)
    assert set(guest.checkpoints.names()) == {FIRST, STRANGE, SECOND}


def test_after_qemu_was_killed_the_bitmap_is_broken_and_can_be_deleted(connection: HostConnection, two_disks: LabGuest) -> None:
    guest = connection.guest(two_disks.name)
    guest.checkpoints.create(FIRST, ["vda", "vdb"])
    two_disks.power_off()
    two_disks.start_and_wait()  # a bitmap is in the file only after QEMU has closed it once
    _kill_qemu(two_disks)
    assert _bitmaps(two_disks.disks["vda"]) == {FIRST: ["in-use", "auto"]}
    two_disks.start_and_wait()
    xml = guest.checkpoints.xml(FIRST)
    guest.checkpoints.delete(FIRST, metadata_only=True)
    with pytest.raises(LibvirtCallFailed) as refused:
        guest.checkpoints.redefine(xml, is_validated=True)
    assert refused.value.facts["libvirt_code"] == libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT
    guest.checkpoints.put_back({FIRST: xml})
    # The next backup makes its checkpoint while the broken one is still there.
    guest.checkpoints.create(SECOND, ["vda", "vdb"])
    guest.checkpoints.delete(FIRST)
    assert guest.checkpoints.names() == [SECOND]
    guest.checkpoints.delete(SECOND)
    two_disks.power_off()
    assert [_bitmaps(image) for image in two_disks.disks.values()] == [{}, {}]


def test_a_bitmap_that_is_gone_costs_only_the_record(connection: HostConnection, two_disks: LabGuest) -> None:
    guest = connection.guest(two_disks.name)
    guest.checkpoints.create(FIRST, ["vda", "vdb"])
    two_disks.power_off()
    run(["qemu-img", "bitmap", "--remove", "-f", "qcow2", two_disks.disks["vda"], FIRST])
    two_disks.start_and_wait()
    assert not guest.checkpoints.delete(FIRST).bitmap_is_gone
    assert guest.checkpoints.names() == []


def test_a_live_migration_takes_the_bitmaps_along_but_not_the_records(connection: HostConnection, two_disks: LabGuest) -> None:
    guest = connection.guest(two_disks.name)
    guest.checkpoints.create(FIRST, ["vda", "vdb"])
    aside = guest.checkpoints.of_ours()
    two_disks.exec("/bin/sh", "-c", f"{_WRITE}1; sync")
    written = guest.checkpoints.changed_bytes(FIRST)["vdb"] or 0
    assert written >= WRITTEN_BYTES
    with second_host() as host:
        other = HostConnection(host.uri)
        try:
            migrate(two_disks, host)
            moved = other.guest(two_disks.name)
            assert moved.checkpoints.names() == []
            moved.checkpoints.redefine(aside[FIRST], is_validated=True)
            assert (moved.checkpoints.changed_bytes(FIRST)["vdb"] or 0) >= written
            moved.execute("/bin/sh", ["-c", f"{_WRITE}2; sync"], budget_ms=30_000)
            assert (moved.checkpoints.changed_bytes(FIRST)["vdb"] or 0) >= written + WRITTEN_BYTES
        finally:
            other.close()


# --- the bitmap holds all that was written --------------------------------------------------------


def test_the_bitmap_holds_what_was_written_into_an_overlay_and_merged(connection: HostConnection, two_disks: LabGuest) -> None:
    """Also where the overlay was made while the domain was off, so that it has no bitmap itself."""
    guest = connection.guest(two_disks.name)
    guest.checkpoints.create(FIRST, ["vda", "vdb"])
    two_disks.shutdown()
    before = {target: _raw(image, "before") for target, image in two_disks.disks.items()}
    aside = guest.checkpoints.set_aside()
    first = _move_to_overlays(guest, two_disks, "off")
    guest.checkpoints.put_back(aside)
    two_disks.start_and_wait()
    two_disks.exec("/bin/sh", "-c", f"{_WRITE}1; sync")
    assert merge_back(guest, first).errors == {}
    two_disks.exec("/bin/sh", "-c", f"{_WRITE}2; sync")
    second = _move_to_overlays(guest, two_disks, "on")
    two_disks.exec("/bin/sh", "-c", f"{_WRITE}3; sync")
    assert merge_back(guest, second).errors == {}
    two_disks.domain.blockResize("vdb", GROWN_BYTES, libvirt.VIR_DOMAIN_BLOCK_RESIZE_BYTES)
    two_disks.exec("/bin/sh", "-c", f"{_WRITE}4; sync")
    two_disks.shutdown()
    for target, image in two_disks.disks.items():
        changed, dirty = _changed_blocks(before[target], _raw(image, "after")), _dirty_blocks(image, FIRST)
        assert changed
        assert changed - dirty == set()


_WRITE = "dd if=/dev/urandom bs=1M count=4 2>/dev/null of=/data-vdb/written"
WRITTEN_BYTES = 4 << 20
GROWN_BYTES = 160 << 20
_BLOCK = 65536


def _raw(image: Path, name: str) -> Path:
    copy = image.with_name(f"{image.stem}.{name}.raw")
    run(["qemu-img", "convert", "-O", "raw", image, copy])
    return copy


def _changed_blocks(before: Path, after: Path) -> set[int]:
    changed = set()
    with before.open("rb") as old, after.open("rb") as new:
        for block in range(before.stat().st_size // _BLOCK):
            if old.read(_BLOCK) != new.read(_BLOCK):
                changed.add(block)
    return changed


def _dirty_blocks(image: Path, bitmap: str) -> set[int]:
    socket = image.with_suffix(".sock")
    # The server ends with its first client.
    run(["qemu-nbd", "--fork", "--read-only", "--format=qcow2", f"--bitmap={bitmap}", f"--socket={socket}", image])
    asked = f"driver=nbd,server.type=unix,server.path={socket},x-dirty-bitmap=qemu:dirty-bitmap:{bitmap}"
    extents = json.loads(run(["qemu-img", "map", "--output=json", "--image-opts", asked]))
    # qemu-img shows what is dirty as if it had no data.
    dirty = [extent for extent in extents if not extent["data"]]
    return {block for extent in dirty for block in range(extent["start"] // _BLOCK, -(-(extent["start"] + extent["length"]) // _BLOCK))}


# --- what the guest feels -------------------------------------------------------------------------


def test_the_counters_of_a_disk_grow_with_what_the_guest_does(connection: HostConnection, two_disks: LabGuest) -> None:
    guest = connection.guest(two_disks.name)
    before = guest.block_latency("vda")
    two_disks.exec("/bin/sh", "-c", "dd if=/dev/zero of=/data/x bs=4096 count=16 2>/dev/null; sync")
    after = guest.block_latency("vda")
    for name in ("writes", "write_ns_total", "flushes", "flush_ns_total"):
        assert (getattr(after, name) or 0) > (getattr(before, name) or 0), name
    assert guest.disk_errors() == {}
    guest.destroy()
    with pytest.raises(LibvirtCallFailed):
        guest.block_latency("vda")


def test_a_full_disk_pauses_the_guest_which_is_seen_and_ends_with_the_space(connection: HostConnection, make_guest: MakeGuest) -> None:
    lab = make_guest(GuestOptions(meter={"size_mb": 32})).start_and_wait()
    guest = connection.guest(lab.name)
    with storage("overlays", mb=32) as disk:
        disk.path.chmod(0o777)
        overlay = disk.path / "vda.qcow2"
        run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", lab.disks["vda"], "-F", "qcow2", overlay])
        overlay.chmod(0o666)
        guest.prepare_snapshot({"vda": str(overlay)})()
        with disk.full():
            _until(lambda: guest.pause_reason() is PauseReason.io_error)
            assert guest.disk_errors() == {"vda": "no_space"}
            assert not resume_after_error(guest)
        assert resume_after_error(guest)
        assert guest.state() is DomainState.running
        # It stands a second time, and this time the merge gives the space back.
        disk.fill()
        _until(lambda: guest.pause_reason() is PauseReason.io_error)
        merged = merge_back(guest, [Overlay("vda", str(lab.disks["vda"]), "qcow2", str(overlay), guest.capacity("vda"))])
        assert merged.errors == {}
        assert resume_after_error(guest)
        mark = lab.mark()
        lab.stalls(mark)


# --- running, stopping, defining ------------------------------------------------------------------


def test_a_guest_is_stopped_by_its_agent_and_started_again(connection: HostConnection, two_disks: LabGuest) -> None:
    guest = connection.guest(two_disks.name)
    guest.start()
    assert guest.stop(60)
    assert guest.was_shut_off_cleanly()
    assert guest.stop(60)
    guest.destroy()
    guest.start()
    assert guest.state() is DomainState.running
    # The guest boots, and nothing in it hears the question yet.
    assert not guest.stop(0)
    assert guest.is_shut_off()


def test_a_domain_is_defined_from_a_changed_definition_and_undefined(connection: HostConnection, two_disks: LabGuest) -> None:
    guest = connection.guest(two_disks.name)
    name, copies = f"{two_disks.name}-x", {}
    taken = _move_to_overlays(guest, two_disks, "point")
    for overlay in taken:
        copies[overlay.target] = Path(overlay.base).with_name(f"{overlay.target}, x=1: ü.qcow2")
        run(["qemu-img", "convert", "--force-share", "-O", "qcow2", overlay.base, copies[overlay.target]])
        copies[overlay.target].chmod(0o666)
    xml = domain_xml.without_security_labels(guest.inactive_xml())
    xml = domain_xml.with_sources(xml, {target: str(path) for target, path in copies.items()}, "qcow2")
    xml = domain_xml.with_identity(xml, name=name, uuid=str(uuid.uuid4()), serials={"vda": "restored"})
    xml, moved = with_own_endpoints(xml, str(two_disks.folder), name)
    assert {change.what for change in moved} == {"serial"}
    xml, changes = adapted(xml, connection.capabilities(), connection.domain_capabilities("x86_64", None, "qemu"))
    assert changes == []
    restored = connection.define(xml)
    try:
        assert (restored.name, restored.state()) == (name, DomainState.shut_off)
        assert connection.names_and_uuids()[name] == restored.uuid
        assert restored.sources() == {target: str(path) for target, path in copies.items()}
        with pytest.raises(LibvirtCallFailed):
            connection.define(domain_xml.with_identity(xml, uuid=str(uuid.uuid4())))
        restored.redefine(domain_xml.without_disks(restored.inactive_xml(), ["vdb"]))
        assert set(restored.sources()) == {"vda"}
        restored.start()
        restored.destroy()
    finally:
        restored.undefine(keep_nvram=False)
    with pytest.raises(DomainGone):
        connection.guest(name)


def test_what_is_undefined_keeps_its_firmware_and_its_tpm_if_told_to(connection: HostConnection, make_guest: MakeGuest) -> None:
    lab = make_guest(GuestOptions(nvram=True, tpm=True)).start_and_wait()
    guest = connection.guest(lab.name)
    xml = guest.inactive_xml()
    nvram = Path(domain_xml.nvram_path(xml) or "")
    state = Path(domain_xml.tpm_state(xml) or "")
    assert nvram.is_file()
    assert state == tpm_state(guest.uuid)
    assert any(state.iterdir())
    guest.destroy()
    guest.undefine(keep_nvram=True)
    assert nvram.is_file()
    assert any(state.iterdir())
    again = connection.define(xml)
    again.undefine(keep_nvram=False)
    assert not nvram.exists()
    assert not state.exists()


# --- making an instant restore whole --------------------------------------------------------------


def test_an_overlay_is_made_whole_while_the_guest_runs_on_it(connection: HostConnection, make_guest: MakeGuest) -> None:
    lab = make_guest(GuestOptions(meter=QUIET)).define()
    guest = connection.guest(lab.name)
    stored, overlay = lab.disks["vda"], lab.folder / "vda.instant.qcow2"
    stored.chmod(0o444)
    run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", stored, "-F", "qcow2", overlay])
    overlay.chmod(0o666)
    before = stored.read_bytes()
    guest.redefine(domain_xml.with_sources(guest.inactive_xml(), {"vda": str(overlay)}, "qcow2"))
    lab.start_and_wait()
    assert not guest.is_whole("vda")
    guest.block_pull("vda")
    _until(lambda: guest.pull_progress("vda") is None)
    assert guest.is_whole("vda")
    assert len(json.loads(run(["qemu-img", "info", "--force-share", "--backing-chain", "--output=json", overlay]))) == 1
    assert stored.read_bytes() == before
    # The next start does not need the stored image, whatever the definition remembers of it.
    stored.rename(stored.with_name("gone.qcow2"))
    guest.destroy()
    lab.start_and_wait()
    assert guest.is_whole("vda")
    # A second call has nothing to do.
    guest.block_pull("vda")
    _until(lambda: guest.pull_progress("vda") is None)
