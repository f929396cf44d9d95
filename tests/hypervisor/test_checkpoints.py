from pathlib import Path

import libvirt
import pytest

from service.errors import LibvirtCallFailed, LibvirtUnavailable
from service.hypervisor.checkpoints import checkpoint_name, is_ours, prefix_of
from service.hypervisor.guest import Guest
from tests.fakes import FakeDisk, FakeDomain, FakeHost, connection_lost

FIRST, SECOND, STRANGE = "stillpoint-aaaaaaaa-00000001", "stillpoint-aaaaaaaa-00000002", "daily"


@pytest.fixture
def domain(tmp_path: Path) -> FakeDomain:
    for name in ("vda.qcow2", "vdb.qcow2"):
        (tmp_path / name).touch()
    return FakeDomain("db1", [FakeDisk("vda", tmp_path / "vda.qcow2"), FakeDisk("vdb", tmp_path / "vdb.qcow2")])


@pytest.fixture
def guest(domain: FakeDomain) -> Guest:
    return FakeHost(domain).guest("db1")


def _code(refused: pytest.ExceptionInfo[LibvirtCallFailed]) -> int:
    return int(refused.value.facts["libvirt_code"])


def test_a_name_says_whose_checkpoint_it_is() -> None:
    name = checkpoint_name("aaaaaaaa-1111", "00000001-2222")
    assert name == FIRST
    assert name.startswith(prefix_of("aaaaaaaa-1111"))
    assert (is_ours(name), is_ours(STRANGE)) == (True, False)


def test_only_the_disks_that_are_named_get_a_bitmap(guest: Guest, domain: FakeDomain) -> None:
    guest.checkpoints.create(FIRST, ["vdb"])
    assert list(domain.checkpoint_store.bitmaps) == [domain.source("vdb")]
    assert list(guest.checkpoints.changed_bytes(FIRST)) == ["vdb"]


def test_a_checkpoint_is_deleted_with_its_bitmaps_and_a_second_time_nothing_happens(guest: Guest, domain: FakeDomain) -> None:
    guest.checkpoints.create(FIRST, ["vda"])
    assert guest.checkpoints.delete(FIRST).bitmap_is_gone
    assert domain.checkpoint_store.bitmaps[domain.source("vda")] == {}
    again = guest.checkpoints.delete(FIRST)
    assert (again.bitmap_is_gone, again.reason is not None) == (False, True)


def test_where_the_bitmap_is_lost_only_the_record_is_deleted(guest: Guest, domain: FakeDomain) -> None:
    guest.checkpoints.create(FIRST, ["vda", "vdb"])
    domain.checkpoint_store.drop_bitmap(domain.source("vdb"), FIRST)
    assert not guest.checkpoints.delete(FIRST).bitmap_is_gone
    assert guest.checkpoints.names() == []


def test_a_libvirt_that_is_away_is_not_taken_for_a_broken_bitmap(guest: Guest, domain: FakeDomain) -> None:
    guest.checkpoints.create(FIRST, ["vda"])
    domain.fail_next("checkpoint_delete", connection_lost())
    with pytest.raises(LibvirtUnavailable):
        guest.checkpoints.delete(FIRST)
    assert guest.checkpoints.names() == [FIRST]


def test_after_qemu_was_killed_a_bitmap_has_no_size_and_is_refused_until_it_is_deleted(guest: Guest, domain: FakeDomain) -> None:
    guest.checkpoints.create(FIRST, ["vda"])
    domain.kill_qemu()
    guest.start()
    assert guest.checkpoints.changed_bytes(FIRST) == {"vda": None}
    with pytest.raises(LibvirtCallFailed) as refused:
        guest.checkpoints.redefine(guest.checkpoints.xml(FIRST), is_validated=True)
    assert _code(refused) == libvirt.VIR_ERR_CHECKPOINT_INCONSISTENT
    assert guest.checkpoints.delete(FIRST).bitmap_is_gone


def test_ours_are_set_aside_and_put_back_and_strange_ones_stay(guest: Guest, domain: FakeDomain) -> None:
    guest.checkpoints.create(FIRST, ["vda"])
    guest.checkpoints.create(STRANGE, ["vda"])
    guest.checkpoints.create(SECOND, ["vda"])
    domain.shut_off()
    aside = guest.checkpoints.set_aside()
    assert (list(aside), guest.checkpoints.names()) == ([FIRST, SECOND], [STRANGE])
    assert guest.checkpoints.set_aside() == {}
    guest.checkpoints.put_back(aside)
    guest.checkpoints.put_back(aside)
    assert set(guest.checkpoints.names()) == {FIRST, STRANGE, SECOND}


def test_a_checkpoint_is_put_back_although_its_parent_was_deleted_meanwhile(guest: Guest) -> None:
    guest.checkpoints.create(FIRST, ["vda"])
    guest.checkpoints.create(SECOND, ["vda"])
    aside = guest.checkpoints.set_aside()
    with pytest.raises(LibvirtCallFailed) as refused:
        guest.checkpoints.redefine(aside[SECOND])
    assert _code(refused) == libvirt.VIR_ERR_INVALID_ARG
    guest.checkpoints.put_back({SECOND: aside[SECOND]})
    assert guest.checkpoints.names() == [SECOND]


def test_a_domain_that_is_off_takes_no_new_checkpoint(guest: Guest, domain: FakeDomain) -> None:
    domain.shut_off()
    with pytest.raises(LibvirtCallFailed) as refused:
        guest.checkpoints.create(FIRST, ["vda"])
    assert _code(refused) == libvirt.VIR_ERR_OPERATION_UNSUPPORTED
