"""Disks that say no, and images that somebody else writes to: with real guests, real locks and real processes."""

import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from tests.lab.command import run
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions, Odd
from tests.live.test_main_job import overlays_beside
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


def checks(job: dict[str, Any]) -> dict[str, str]:
    return {check["code"]: check["status"] for check in job["result"]["checks"]}


@contextmanager
def twin_of(guest: LabGuest) -> Iterator[str]:
    """Another domain, shut off, on the very images of this one."""
    definition = ElementTree.fromstring(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    name = f"{guest.name}-twin"
    for tag, text in (("name", name), ("uuid", str(uuid.uuid4()))):
        element = definition.find(tag)
        assert element is not None
        element.text = text
    domain = guest.connection.defineXML(ElementTree.tostring(definition, encoding="unicode"))
    try:
        yield name
    finally:
        domain.undefine()


@contextmanager
def exported(image: Path, folder: Path) -> Iterator[int]:
    """qemu-nbd has the image open for writing."""
    command = [
        "qemu-nbd",
        "--persistent",
        "--format=qcow2",
        f"--socket={folder / 'nbd.sock'}",
        f"--pid-file={folder / 'nbd.pid'}",
        str(image),
    ]
    with subprocess.Popen(command) as process:
        try:
            while not (folder / "nbd.pid").exists():
                assert process.poll() is None
            yield process.pid
        finally:
            process.terminate()


def assert_refused(service: ServiceProcess, guest: LabGuest, code: str, *, domain: str | None = None) -> dict[str, Any]:
    """By the job and by preflight; nothing is made, and no disk is moved."""
    before = guest.active_sources()
    job, preflight = service.run(domain or guest.name), service.run(domain or guest.name, kind="preflight")
    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "none", code)
    assert (preflight["result"]["would_work"], checks(preflight)[code]) == (False, "fail")
    assert guest.active_sources() == before
    assert overlays_beside(guest) == set()
    facts: dict[str, Any] = job["error"]["facts"]
    return facts


def test_the_twin_of_a_running_domain_is_not_offline(service: ServiceProcess, lab_guest: LabGuest) -> None:
    with twin_of(lab_guest) as twin:
        facts = assert_refused(service, lab_guest, "image_in_use", domain=twin)
        own = service.run(lab_guest.name)
    assert facts["file"] == str(lab_guest.disks["vda"])
    assert lab_guest.name in facts["holder"]
    assert own["verdict"] == "filesystem"


def test_an_image_that_qemu_nbd_writes_is_in_use_until_it_ends(service: ServiceProcess, lab_guest: LabGuest, tmp_path: Path) -> None:
    lab_guest.shutdown()
    with exported(lab_guest.disks["vda"], tmp_path) as pid:
        facts = assert_refused(service, lab_guest, "image_in_use")
    assert str(pid) in facts["holder"]
    assert "qemu-nbd" in facts["holder"]
    assert service.run(lab_guest.name)["verdict"] == "offline"


def test_an_image_that_a_loop_device_writes_is_in_use_until_it_is_detached(service: ServiceProcess, lab_guest: LabGuest) -> None:
    lab_guest.shutdown()
    device = run(["losetup", "--find", "--show", lab_guest.disks["vda"]]).strip()
    try:
        facts = assert_refused(service, lab_guest, "image_in_use")
    finally:
        run(["losetup", "--detach", device])
    assert device in facts["holder"]
    assert service.run(lab_guest.name)["verdict"] == "offline"


def test_a_domain_that_was_saved_is_refused_and_goes_on_with_its_own_files(service: ServiceProcess, lab_guest: LabGuest) -> None:
    lab_guest.domain.managedSave(0)
    assert_refused(service, lab_guest, "saved_state_waits")
    lab_guest.start()
    lab_guest.wait_agent()
    assert service.run(lab_guest.name)["verdict"] == "filesystem"


@pytest.mark.parametrize(
    ("odd", "word"),
    [
        (Odd.SHAREABLE, "<shareable/>"),
        (Odd.TRANSIENT, "<transient/>"),
        (Odd.SNAPSHOT_NO, "the domain says snapshot='no'"),
        (Odd.LUKS, "encrypted"),
    ],
)
def test_a_disk_that_says_no_is_left_out_with_the_reason_and_refused_where_it_was_named(
    service: ServiceProcess, make_guest: MakeGuest, odd: Odd, word: str
) -> None:
    guest = make_guest(GuestOptions(odd_disks=(odd,))).start_and_wait()

    job = service.run(guest.name, required_verdict="crash")
    named = service.run(guest.name, disks=["vdb"])
    preflight = service.run(guest.name, kind="preflight", disks=["vdb"])

    assert job["recovery_point"] is not None, job["error"]
    assert [disk["target"] for disk in job["recovery_point"]["disks"]] == ["vda"]
    assert word in job["evidence"]["left_out"]["vdb"]
    assert (named["state"], named["error"]["code"], named["freeze"]) == ("failed", "disks_cannot_take_part", None)
    assert word in named["error"]["facts"]["reasons"]["vdb"]
    assert (preflight["result"]["would_work"], checks(preflight)["disks"]) == (False, "fail")


def test_what_a_guest_writes_on_an_encrypted_disk_stands_nowhere_in_clear(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(odd_disks=(Odd.LUKS,))).start_and_wait()
    known = "the-white-rabbit-is-late"

    service.run(guest.name, required_verdict="crash")
    guest.exec("/bin/sh", "-c", f"for i in 1 2 3 4; do echo {known}-$i; done > /data-vdb/known; sync")

    assert guest.exec("/bin/sh", "-c", "cat /data-vdb/known").startswith(known)
    files = [file for file in guest.folder.iterdir() if file.name.startswith("vdb")]
    assert files == [guest.disks["vdb"]]
    assert known.encode() not in files[0].read_bytes()


def test_a_disk_with_copy_on_read_takes_part(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(odd_disks=(Odd.COPY_ON_READ,))).start_and_wait()
    job = service.run(guest.name)
    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem"), job["error"]
    assert [disk["target"] for disk in job["recovery_point"]["disks"]] == ["vda", "vdb"]


def test_snapshots_of_libvirts_own_are_warned_of(service: ServiceProcess, lab_guest: LabGuest) -> None:
    lab_guest.shutdown()
    lab_guest.domain.snapshotCreateXML("<domainsnapshot><name>before-upgrade</name></domainsnapshot>", 0)

    preflight = service.run(lab_guest.name, kind="preflight")

    told = " ".join(check["detail"] for check in preflight["result"]["checks"] if check["code"] == "libvirt_snapshots")
    assert checks(preflight)["libvirt_snapshots"] == "warn"
    assert "before-upgrade" in told
    assert str(lab_guest.disks["vda"]) in told
    assert service.run(lab_guest.name)["verdict"] == "offline"


def test_checkpoints_of_another_tool_are_in_the_way_of_a_domain_that_is_off_only(service: ServiceProcess, lab_guest: LabGuest) -> None:
    lab_guest.domain.checkpointCreateXML("<domaincheckpoint><name>daily</name></domaincheckpoint>", 0)
    running = service.run(lab_guest.name)
    lab_guest.shutdown()

    off, preflight = service.run(lab_guest.name), service.run(lab_guest.name, kind="preflight")

    assert running["verdict"] == "filesystem"
    assert (off["error"]["code"], off["error"]["facts"]["checkpoints"]) == ("checkpoints_in_the_way", "daily")
    assert (preflight["result"]["would_work"], checks(preflight)["checkpoints_in_the_way"]) == (False, "fail")
