"""Reading domain XML as libvirt writes it, and writing the XML of a snapshot."""

import xml.etree.ElementTree as ET

import pytest

from service.hypervisor.xml import agent_is_connected, disks_of, has_agent_channel, snapshot_xml

DOMAIN = """
<domain type='kvm' id='7'><name>db1</name><devices>
  <disk type='file' device='disk'>
    <driver name='qemu' type='qcow2'/><source file='/images/db1.1a2b3c4d.qcow2' index='5'/>
    <backingStore type='file' index='4'><format type='qcow2'/><source file='/images/db1.qcow2'/>
      <backingStore type='file'><format type='raw'/><source file='/images/base.raw'/><backingStore/></backingStore>
    </backingStore>
    <target dev='vda' bus='virtio'/><serial>S1</serial>
  </disk>
  <disk type='block' device='disk'><driver name='qemu' type='raw'/><source dev='/dev/vg/data' index='3'/><backingStore/>
    <target dev='vdb' bus='virtio'/></disk>
  <disk type='network' device='disk'><driver name='qemu' type='raw'/><source protocol='rbd' name='pool/image'/>
    <target dev='vdc' bus='virtio'/></disk>
  <disk type='volume' device='disk'><driver name='qemu' type='qcow2'/><source pool='default' volume='v1'/>
    <target dev='vdd' bus='virtio'/></disk>
  <disk type='file' device='cdrom'><driver name='qemu'/><target dev='hda' bus='ide'/><readonly/></disk>
  <channel type='unix'><target type='virtio' name='com.redhat.spice.0'/></channel>
  <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0' state='disconnected'/></channel>
</devices></domain>
"""


def test_every_disk_is_read_in_the_order_of_the_xml() -> None:
    assert [(disk.target, disk.type, disk.source, disk.format) for disk in disks_of(DOMAIN)] == [
        ("vda", "file", "/images/db1.1a2b3c4d.qcow2", "qcow2"),
        ("vdb", "block", "/dev/vg/data", "raw"),
        ("vdc", "network", "rbd:pool/image", "raw"),
        ("vdd", "volume", "default/v1", "qcow2"),
        ("hda", "file", None, None),
    ]


def test_the_depth_of_a_chain_ends_at_the_empty_backing_store() -> None:
    assert {disk.target: disk.chain_depth for disk in disks_of(DOMAIN)} == {"vda": 2, "vdb": 0, "vdc": 0, "vdd": 0, "hda": 0}


def test_a_disk_knows_its_serial_and_whether_it_is_read_only() -> None:
    disks = {disk.target: disk for disk in disks_of(DOMAIN)}
    assert (disks["vda"].serial, disks["vda"].read_only, disks["hda"].read_only) == ("S1", False, True)


def test_the_agent_channel_is_found_among_others_with_its_state() -> None:
    assert has_agent_channel(DOMAIN)
    assert agent_is_connected(DOMAIN) is False
    assert agent_is_connected(DOMAIN.replace("'disconnected'", "'connected'")) is True


@pytest.mark.parametrize(
    ("xml", "channel"),
    [
        (DOMAIN.replace(" state='disconnected'", ""), True),
        (DOMAIN.replace("guest_agent", "other"), False),
        ("<domain><name>db1</name></domain>", False),
    ],
)
def test_without_a_state_nothing_is_said_about_the_agent(xml: str, channel: bool) -> None:
    assert has_agent_channel(xml) is channel
    assert agent_is_connected(xml) is None


def test_a_snapshot_names_every_disk_because_libvirt_takes_those_that_are_not() -> None:
    root = ET.fromstring(snapshot_xml({"vda": "/images/new.qcow2"}, ["vda", "vdb", "hda"]))
    disks = {disk.get("name"): disk for disk in root.iterfind("./disks/disk")}
    assert {name: disk.get("snapshot") for name, disk in disks.items()} == {"vda": "external", "vdb": "no", "hda": "no"}
    source, driver = disks["vda"].find("source"), disks["vda"].find("driver")
    assert source is not None
    assert driver is not None
    assert (source.get("file"), driver.get("type")) == ("/images/new.qcow2", "qcow2")


def test_a_path_with_signs_of_xml_in_it_stays_a_path() -> None:
    path = "/images/a&b <c>'\".qcow2"
    source = ET.fromstring(snapshot_xml({"vda": path}, ["vda"])).find("./disks/disk/source")
    assert source is not None
    assert source.get("file") == path
