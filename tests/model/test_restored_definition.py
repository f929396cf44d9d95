"""The definition of a restored domain: its new disks and identity, and nothing that belongs to the domain that it was taken from."""

import xml.etree.ElementTree as ET
from dataclasses import replace

from service.model.restore_identity import Identity
from service.model.restored_definition import Changes, NewDisk, files_below, restored, standing_alone, with_storage_of

OLD, NEW = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
XML = f"""<domain type='kvm'><name>db1</name><uuid>{OLD}</uuid><genid>{OLD}</genid>
  <os><type>hvm</type><nvram>/n/db1.fd</nvram></os>
  <devices>
    <disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/><source dev='/dev/vg/db1'/>
      <target dev='vda' bus='virtio'/><serial>s1</serial></disk>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/i/db1-b.qcow2'/>
      <backingStore type='file'><format type='qcow2'/><source file='/i/base.qcow2'/><backingStore/></backingStore>
      <target dev='vdb' bus='virtio'/></disk>
    <disk type='file' device='cdrom'><source file='/iso/a.iso'/><target dev='hda'/><readonly/></disk>
    <interface type='network'><mac address='52:54:00:aa:bb:cc'/></interface>
    <channel type='unix'><source mode='bind' path='/var/lib/libvirt/qemu/channel/1-db1/agent.0'/>
      <target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <serial type='file'><source path='/log/db1.log'/></serial>
    <graphics type='vnc' passwd='s3cret'/>
  </devices></domain>"""
IDENTITY = Identity(NEW, "db1-restored", (), {"52:54:00:aa:bb:cc": "52:54:00:11:22:33"}, {"vda": "s2"}, NEW)
DISKS = {"vda": NewDisk("/new/vda.qcow2", "qcow2", ("/r/p2/vda.qcow2", "/r/p1/vda.qcow2"))}
CHANGES = Changes(IDENTITY, DISKS, is_new_domain=True, nvram="/n/new.fd", unlabelled=("dac",))


def disks(xml: str) -> dict[str, ET.Element]:
    return {disk.findall("target")[0].get("dev", ""): disk for disk in ET.fromstring(xml).iterfind("./devices/disk")}


def text(xml: str, place: str) -> str | None:
    return ET.fromstring(xml).findtext(place)


def test_a_new_domain_has_its_own_identity() -> None:
    xml, _ = restored(XML, CHANGES)
    assert (text(xml, "name"), text(xml, "uuid"), text(xml, "genid"), text(xml, "os/nvram")) == ("db1-restored", NEW, NEW, "/n/new.fd")
    assert "52:54:00:11:22:33" in xml
    assert "52:54:00:aa:bb:cc" not in xml


def test_a_new_domain_has_only_its_own_disks_and_files() -> None:
    xml, taken = restored(XML, CHANGES)
    assert sorted(disks(xml)) == ["hda", "vda"]
    assert disks(xml)["hda"].find("source") is None
    assert "/var/lib/libvirt/qemu/channel" not in xml
    assert "'/log/db1.log'" not in xml.replace('"', "'")
    assert {change.was for change in taken} == {"/i/db1-b.qcow2", "/iso/a.iso", "/log/db1.log"}


def test_a_domain_that_keeps_its_uuid_keeps_its_log() -> None:
    xml, taken = restored(XML, replace(CHANGES, identity=replace(IDENTITY, uuid=OLD)))
    assert "/log/db1.log" not in {change.was for change in taken}
    assert "/log/db1.log" in xml


def test_an_overlay_names_every_file_below_and_gives_none_of_them_a_label() -> None:
    xml, _ = restored(XML, CHANGES)
    disk = disks(xml)["vda"]
    assert disk.get("type") == "file"
    assert files_below(xml)["vda"] == ["/r/p2/vda.qcow2", "/r/p1/vda.qcow2"]
    assert [label.attrib for label in disk.iter("seclabel")] == [{"model": "dac", "relabel": "no"}] * 2
    lowest = list(disk.iter("backingStore"))[-1]
    assert (lowest.attrib, list(lowest)) == ({}, [])


def test_an_overlay_that_is_whole_names_no_file_below() -> None:
    xml, _ = restored(XML, CHANGES)
    assert files_below(standing_alone(xml, ["vda"]))["vda"] == []


def test_in_place_only_the_disks_that_are_restored_change() -> None:
    xml, taken = restored(XML, replace(CHANGES, is_new_domain=False, disks={"vda": NewDisk("/new/vda.img", "raw")}))
    assert taken == []
    assert (text(xml, "name"), text(xml, "uuid"), text(xml, "genid")) == ("db1", OLD, NEW)
    assert sorted(disks(xml)) == ["hda", "vda", "vdb"]
    assert files_below(xml)["vdb"] == ["/i/base.qcow2"]
    driver = disks(xml)["vda"].find("driver")
    assert driver is not None
    assert (driver.get("type"), driver.get("cache")) == ("raw", "none")


def test_what_a_restore_changes_is_taken_over_and_passwords_stay() -> None:
    without_password = XML.replace(" passwd='s3cret'", "")
    changed, _ = restored(without_password, replace(CHANGES, is_new_domain=False))
    merged = with_storage_of(XML, changed)
    assert "s3cret" in merged
    assert (text(merged, "genid"), text(merged, "os/nvram")) == (NEW, "/n/new.fd")
    assert files_below(merged)["vda"] == ["/r/p2/vda.qcow2", "/r/p1/vda.qcow2"]
    assert with_storage_of(merged, without_password).count("/dev/vg/db1") == 1
