import xml.etree.ElementTree as ET

from service.model import domain_xml

UUID, NEW_UUID = "b4ab2f0a-9eb9-408c-a084-bbb7a4161b12", "11111111-2222-4333-8444-555555555555"
DEFINITION = f"""<domain type='kvm' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>
  <name>dc1</name><uuid>{UUID}</uuid><genid>aaaaaaaa-0000-4000-8000-000000000001</genid>
  <os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><nvram template='/t.fd'>/nv/dc1_VARS.fd</nvram></os>
  <sysinfo type='smbios'><system><entry name='uuid'>{UUID}</entry></system></sysinfo>
  <devices>
    <disk type='block' device='disk'><driver name='qemu' type='raw' cache='none'/>
      <source dev='/dev/vg/dc1' index='1'><seclabel model='dac' relabel='no'/></source>
      <backingStore type='file'><format type='qcow2'/><source file='/below.qcow2'/></backingStore>
      <mirror type='file' job='copy'/><target dev='vda' bus='virtio'/><serial>S1</serial></disk>
    <disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/b, =: x.qcow2'/>
      <backingStore/><target dev='vdb' bus='virtio'/></disk>
    <interface type='network'><mac address='52:54:00:00:00:01'/></interface>
    <interface type='network'><mac address='52:54:00:00:00:02'/></interface>
    <tpm model='tpm-crb'><backend type='emulator' version='2.0'/></tpm>
  </devices>
  <seclabel type='dynamic' model='dac' relabel='yes'><label>+64055:+64055</label></seclabel>
  <seclabel type='static' model='apparmor' relabel='yes'><label>ours</label></seclabel>
  <qemu:commandline><qemu:arg value='-foo'/></qemu:commandline>
</domain>"""
BARE = f"<domain type='qemu'><name>bare</name><uuid>{UUID}</uuid><os><type>hvm</type></os><devices/></domain>"


def _disk(xml: str, target: str) -> ET.Element:
    (disk,) = (disk for disk in ET.fromstring(xml).iterfind("./devices/disk") if disk.find(f"target[@dev='{target}']") is not None)
    return disk


def _attribute(element: ET.Element, path: str, name: str) -> str | None:
    child = element.find(path)
    assert child is not None, path
    return child.get(name)


def test_the_identity_of_a_machine_is_read() -> None:
    identity = domain_xml.identity_of(DEFINITION)
    assert (identity.name, identity.uuid, identity.genid) == ("dc1", UUID, "aaaaaaaa-0000-4000-8000-000000000001")
    assert identity.macs == ("52:54:00:00:00:01", "52:54:00:00:00:02")
    assert identity.serials == {"vda": "S1"}


def test_an_empty_genid_is_not_a_missing_one() -> None:
    assert domain_xml.genid(BARE) is None
    assert domain_xml.genid(BARE.replace("<os>", "<genid/><os>")) == ""


def test_where_firmware_and_tpm_keep_their_state() -> None:
    assert domain_xml.nvram_path(DEFINITION) == "/nv/dc1_VARS.fd"
    assert domain_xml.tpm_state(DEFINITION) == f"/var/lib/libvirt/swtpm/{UUID}/tpm2"
    assert domain_xml.tpm_state(DEFINITION.replace("version='2.0'", "version='1.2'")) == f"/var/lib/libvirt/swtpm/{UUID}/tpm1.2"
    assert domain_xml.nvram_path(BARE) is domain_xml.tpm_state(BARE) is None


def test_nvram_that_is_named_by_a_source_is_read_and_changed_there() -> None:
    newer = BARE.replace("</os>", "<nvram type='file'><source file='/nv/x.fd'/></nvram></os>")
    assert domain_xml.nvram_path(newer) == "/nv/x.fd"
    assert domain_xml.nvram_path(domain_xml.with_identity(newer, nvram="/nv/y.fd")) == "/nv/y.fd"


def test_a_tpm_that_is_a_device_of_the_host_has_no_state_here() -> None:
    assert domain_xml.tpm_state(DEFINITION.replace("backend type='emulator'", "backend type='passthrough'")) is None


def test_a_disk_gets_another_file_and_loses_what_belonged_to_the_old_one() -> None:
    disk = _disk(domain_xml.with_sources(DEFINITION, {"vda": "/new, x.qcow2"}, "qcow2"), "vda")
    assert (disk.get("type"), _attribute(disk, "source", "file"), _attribute(disk, "driver", "type")) == ("file", "/new, x.qcow2", "qcow2")
    assert _attribute(disk, "driver", "cache") == "none"
    assert _attribute(disk, "source", "dev") is None
    assert disk.find("backingStore") is disk.find("mirror") is disk.find("source/seclabel") is None


def test_a_disk_that_is_not_named_stays() -> None:
    changed = domain_xml.with_sources(DEFINITION, {"vda": "/new.qcow2"}, "qcow2")
    assert _attribute(_disk(changed, "vdb"), "source", "file") == "/b, =: x.qcow2"


def test_disks_can_be_left_out() -> None:
    assert domain_xml.targets_of(domain_xml.without_disks(DEFINITION, ["vda"])) == ["vdb"]


def test_what_libvirt_remembers_of_the_files_below_can_be_left_out() -> None:
    assert ET.fromstring(domain_xml.without_backing_store(DEFINITION)).find("./devices/disk/backingStore") is None


def test_labels_of_one_run_go_and_labels_that_the_definition_fixes_stay() -> None:
    root = ET.fromstring(domain_xml.without_security_labels(DEFINITION))
    assert [label.get("type") for label in root.iterfind("seclabel")] == ["static"]
    assert root.find("./devices/disk/source/seclabel") is not None


def test_a_new_identity_is_new_everywhere() -> None:
    changed = domain_xml.with_identity(
        DEFINITION,
        name="copy",
        uuid=NEW_UUID,
        macs={"52:54:00:00:00:02": "52:54:00:00:00:09"},
        serials={"vdb": "S9"},
        new_genid="bbbbbbbb-0000-4000-8000-000000000002",
        nvram="/nv/copy.fd",
    )
    identity = domain_xml.identity_of(changed)
    assert (identity.name, identity.uuid, identity.genid) == ("copy", NEW_UUID, "bbbbbbbb-0000-4000-8000-000000000002")
    assert identity.macs == ("52:54:00:00:00:01", "52:54:00:00:00:09")
    assert identity.serials == {"vda": "S1", "vdb": "S9"}
    assert ET.fromstring(changed).findtext("./sysinfo/system/entry") == NEW_UUID
    assert (domain_xml.nvram_path(changed), domain_xml.tpm_state(changed)) == ("/nv/copy.fd", f"/var/lib/libvirt/swtpm/{NEW_UUID}/tpm2")


def test_a_guest_without_a_genid_gets_no_new_device() -> None:
    assert domain_xml.genid(domain_xml.with_identity(BARE, new_genid="bbbbbbbb-0000-4000-8000-000000000002")) is None


def test_what_is_not_said_stays() -> None:
    assert domain_xml.identity_of(domain_xml.with_identity(DEFINITION)) == domain_xml.identity_of(DEFINITION)


def test_words_for_qemu_keep_their_namespace() -> None:
    assert "<qemu:commandline>" in domain_xml.with_identity(DEFINITION, name="copy")
