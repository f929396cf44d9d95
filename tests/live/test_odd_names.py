"""Files whose names need quoting somewhere on the way through XML, JSON, shells and qemu-img go on working."""

from pathlib import Path
from xml.etree import ElementTree

import libvirt
import pytest

from tests.lab.daemon import uri
from tests.lab.disks import needs_recovery
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

NAMES = (
    "two  spaces",
    "Übergrößenträger",
    "日本語",
    "comma,comma",
    "colon:colon",
    'double"quote',
    "single'quote",
    "-dash",
    "100%s%n%d",
    "&<>",
    "json:{x}",
    "back\\slash",
    "$HOME;`true`",
)


def test_a_snapshot_of_disks_with_odd_names_can_be_restored(make_guest: MakeGuest, tmp_path: Path) -> None:
    guest = make_guest(GuestOptions(disks=len(NAMES), disk_mb=16)).define()
    rename_disks(guest)
    guest.start_and_wait()
    with ServiceProcess(tmp_path / "state", libvirt_uri=uri()) as service:
        preflight = service.run(guest.name, kind="preflight")
        job = service.run(guest.name)

    assert preflight["result"]["would_work"], preflight["result"]["checks"]
    assert (job["state"], job["verdict"], job["error"]) == ("succeeded", "filesystem", None)
    disks = job["recovery_point"]["disks"]
    assert {Path(disk["file"]).stem for disk in disks} == set(NAMES)
    assert guest.active_sources() == {disk["target"]: Path(disk["overlay"]) for disk in disks}
    assert [disk["file"] for disk in disks if needs_recovery(Path(disk["file"]))] == []


def rename_disks(guest: LabGuest) -> None:
    definition = ElementTree.fromstring(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    for name, source in zip(NAMES, definition.iterfind("devices/disk/source"), strict=True):
        file = Path(source.get("file", ""))
        source.set("file", str(file.rename(file.with_name(f"{name}.qcow2"))))
    guest.connection.defineXML(ElementTree.tostring(definition, encoding="unicode"))
    guest.attach()
