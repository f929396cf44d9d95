"""The libvirt definition of a lab guest."""

from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from tests.lab import firmware
from tests.lab.images import BootFiles
from tests.lab.options import GuestOptions

AGENT_CHANNEL = "org.qemu.guest_agent.0"
RELAY_CHANNEL = "org.stillpoint.relay"


@dataclass(frozen=True)
class Disk:
    target: str
    source: Path | None
    image_format: str = "qcow2"
    device: str = "disk"
    kind: str = "file"
    readonly: bool = False
    snapshot: str | None = None
    #: Names of empty elements: shareable, transient.
    says: tuple[str, ...] = ()
    copy_on_read: bool = False
    bus: str = "virtio"
    #: UUID of the secret in libvirt that opens its LUKS.
    secret: str | None = None


def domain_xml(options: GuestOptions, domain_type: str, boot: BootFiles, disks: list[Disk], folder: Path) -> str:
    domain = ElementTree.Element("domain", type=domain_type)
    _add(domain, "name", options.name)
    _add(domain, "memory", str(options.memory_mb), unit="MiB")
    _add(domain, "vcpu", "1")
    _add_boot(domain, options, boot, folder)
    features = _add(domain, "features")
    _add(features, "acpi")
    if domain_type == "kvm":
        _add(domain, "cpu", mode="host-passthrough")
    _add(domain, "on_reboot", "restart")
    _add_devices(domain, options, disks, folder)
    return ElementTree.tostring(domain, encoding="unicode")


def _add(parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    element = ElementTree.SubElement(parent, tag, attributes)
    element.text = text
    return element


def _add_boot(domain: ElementTree.Element, options: GuestOptions, boot: BootFiles, folder: Path) -> None:
    # The oldest machine type boots fastest: its disks sit on one bus instead of a port each.
    system = _add(domain, "os")
    _add(system, "type", "hvm", arch="x86_64", machine="pc")
    if options.nvram:
        _add(system, "loader", str(firmware.program()), readonly="yes", type="pflash")
        _add(system, "nvram", str(folder / firmware.VARIABLES), template=str(firmware.template()))
    _add(system, "kernel", str(boot.kernel))
    _add(system, "initrd", str(boot.initramfs))
    _add(system, "cmdline", options.kernel_command_line())


def _add_devices(domain: ElementTree.Element, options: GuestOptions, disks: list[Disk], folder: Path) -> None:
    devices = _add(domain, "devices")
    for disk in disks:
        _add_disk(devices, disk, options)
    _add(devices, "controller", type="usb", model="none")
    if any(disk.bus == "scsi" for disk in disks):
        _add(devices, "controller", type="scsi", index="0", model="virtio-scsi")
    serial = _add(devices, "serial", type="file")
    _add(serial, "source", path=str(folder / "serial.log"))
    if options.agent_channel:
        channel = _add(devices, "channel", type="unix")
        _add(channel, "target", type="virtio", name=AGENT_CHANNEL)
    if options.agent == "relay":
        channel = _add(devices, "channel", type="unix")
        _add(channel, "source", mode="bind", path=str(folder / "relay.sock"))
        _add(channel, "target", type="virtio", name=RELAY_CHANNEL)
    if options.tpm:
        _add(_add(devices, "tpm", model="tpm-tis"), "backend", type="emulator", version="2.0")
    _add(devices, "memballoon", model="none")


def _add_disk(devices: ElementTree.Element, disk: Disk, options: GuestOptions) -> None:
    element = _add(devices, "disk", type=disk.kind, device=disk.device)
    driver = _add(element, "driver", name="qemu", type=disk.image_format)
    if disk.copy_on_read:
        driver.set("copy_on_read", "on")
    if disk.snapshot is not None:
        element.set("snapshot", disk.snapshot)
    if disk.source is not None:
        source = _add(element, "source", **{"dev" if disk.kind == "block" else "file": str(disk.source)})
        if disk.secret is not None:
            _add(_add(source, "encryption", format="luks"), "secret", type="passphrase", uuid=disk.secret)
    for word in disk.says:
        _add(element, word)
    _add(element, "target", dev=disk.target, bus="ide" if disk.device == "cdrom" else disk.bus)
    if disk.readonly:
        _add(element, "readonly")
    if disk.device == "cdrom":
        return
    if options.serials:
        _add(element, "serial", f"{options.name}-{disk.target}"[-20:])  # virtio shows the guest 20 characters
    if options.iotune_bytes_sec:
        _add(_add(element, "iotune"), "total_bytes_sec", str(options.iotune_bytes_sec))
