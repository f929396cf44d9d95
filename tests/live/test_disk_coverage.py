"""Disks of a real guest that no frozen filesystem covers: each is named, and costs the verdict; swap and empty ones are not."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import libvirt
import pytest

from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions, Odd
from tests.live.test_main_job import reasons
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

NO_METER = GuestOptions(disks=2, meter=None)


def shell(guest: LabGuest, script: str) -> str:
    return guest.exec("/bin/sh", "-c", script)


def in_the_background(guest: LabGuest, script: str, until: str) -> None:
    """A program of the guest that outlives the command. Returns when the guest's shell finds `until` true."""
    shell(guest, f"({script}) > /dev/null 2>&1 < /dev/null & until {until}; do sleep 0.1; done")


def detail(job: dict[str, Any], code: str) -> str:
    (found,) = [reason["detail"] for reason in job["verdict_reasons"] if reason["code"] == code]
    return str(found)


def expected(service: ServiceProcess, guest: LabGuest) -> tuple[bool, str]:
    result = service.run(guest.name, kind="preflight", freeze={"mode": "required"})["result"]
    return result["would_work"], result["expected_verdict"]


def test_a_filesystem_that_is_mounted_in_another_namespace_is_not_called_frozen(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(NO_METER).start_and_wait()
    writes = "mount -t ext4 /dev/vdb /mnt && touch /tmp/mounted && while :; do echo x >> /mnt/file; sync; done"
    in_the_background(guest, f"umount /data-vdb; mkdir -p /mnt; unshare -m sh -c '{writes}'", "[ -e /tmp/mounted ]")

    foreseen = expected(service, guest)
    job = service.run(guest.name, required_verdict="filesystem")

    assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "crash", "verdict_below_required")
    assert reasons(job) == ["disk_not_covered"]
    assert detail(job, "disk_not_covered").startswith("vdb: ")
    assert "ext4 at /mnt" in detail(job, "disk_not_covered")
    assert foreseen == (False, "none")
    because = service.request("GET", f"/api/v1/jobs/{job['id']}/explain").json()["because"]
    assert any("vdb" in sentence for sentence in because)


def test_a_disk_that_a_program_uses_raw_is_named(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(NO_METER).start_and_wait()
    writes = "umount /data-vdb; exec 3<> /dev/vdb; touch /tmp/opened; while :; do echo x >&3; sleep 0.1; done"
    in_the_background(guest, writes, "[ -e /tmp/opened ]")

    job = service.run(guest.name, required_verdict="crash")

    assert (job["state"], job["verdict"], reasons(job)) == ("succeeded", "crash", ["disk_not_covered"])
    assert detail(job, "disk_not_covered").startswith("vdb: ")
    assert re.search(r"\b(sh|sleep|[0-9]+)\b", detail(job, "disk_not_covered")), "a program that has the disk open is named, or its number"


def test_a_disk_with_data_that_nobody_has_mounted_is_named(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(NO_METER).start_and_wait()
    shell(guest, "umount /data-vdb")

    job = service.run(guest.name, required_verdict="crash")

    assert (job["verdict"], reasons(job)) == ("crash", ["disk_not_covered"])
    assert detail(job, "disk_not_covered").startswith("vdb: ")


def test_swap_and_an_empty_disk_cost_nothing(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(disks=2, meter=None, odd_disks=(Odd.EMPTY,))).start_and_wait()
    shell(guest, "umount /data-vdb && mkswap /dev/vdb && swapon /dev/vdb")

    foreseen = expected(service, guest)
    job = service.run(guest.name, required_verdict="filesystem")

    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem"), job["verdict_reasons"]
    assert len(job["recovery_point"]["disks"]) == 3
    assert foreseen == (True, "filesystem")


def test_a_read_only_filesystem_and_one_that_another_namespace_shares_are_covered(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(NO_METER).start_and_wait()
    shell(guest, "mount -o remount,ro /data-vdb")
    in_the_background(guest, "unshare -m sh -c 'touch /tmp/unshared; exec sleep 600'", "[ -e /tmp/unshared ]")

    job = service.run(guest.name)

    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem"), job["verdict_reasons"]


def test_where_the_guest_runs_no_programs_a_disk_without_a_listed_filesystem_is_not_called_empty(
    service: ServiceProcess, make_guest: MakeGuest
) -> None:
    guest = make_guest(GuestOptions(odd_disks=(Odd.EMPTY,), agent_args=("--block-rpcs=guest-exec",))).start_and_wait()

    job = service.run(guest.name, required_verdict="crash")

    assert (job["verdict"], reasons(job)) == ("crash", ["disk_not_covered"])
    assert detail(job, "disk_not_covered").startswith("vdb: ")


def test_a_disk_left_out_with_data_mounted_on_it_is_a_reason(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(odd_disks=(Odd.READONLY,))).start_and_wait()

    job = service.run(guest.name)

    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem")
    assert "vdb" in detail(job, "mounted_data_left_out")
    assert "/data-vdb" in detail(job, "mounted_data_left_out")


def test_a_disk_on_the_network_with_data_mounted_on_it_is_missed_by_the_reasons_and_by_explain(
    service: ServiceProcess, make_guest: MakeGuest, tmp_path: Path
) -> None:
    guest = make_guest(GuestOptions(disks=2)).define()
    with served_over_nbd(guest.disks["vdb"], tmp_path) as port:
        move_to_the_network(guest, "vdb", port)
        guest.start_and_wait()
        job = service.run(guest.name)
        explained = service.request("GET", job["links"]["explain"]).text
        guest.power_off()

    assert (job["state"], [disk["target"] for disk in job["recovery_point"]["disks"]]) == ("succeeded", ["vda"])
    assert "vdb" in detail(job, "mounted_data_left_out")
    assert "/data-vdb" in detail(job, "mounted_data_left_out")
    assert detail(job, "mounted_data_left_out") in explained


@contextmanager
def served_over_nbd(image: Path, folder: Path) -> Iterator[int]:
    """The port at which the image is to be had."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    ready = folder / "nbd.pid"
    where = ["--bind=127.0.0.1", f"--port={port}", f"--pid-file={ready}"]
    with subprocess.Popen(["qemu-nbd", "--persistent", "--format=qcow2", "--shared=4", *where, str(image)]) as process:
        try:
            while not ready.exists():
                assert process.poll() is None, "qemu-nbd ended"
            yield port
        finally:
            process.terminate()


def move_to_the_network(guest: LabGuest, target: str, port: int) -> None:
    definition = ElementTree.fromstring(guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    for disk in definition.iterfind("devices/disk"):
        if (named := disk.find("target")) is None or named.get("dev") != target:
            continue
        driver, source = disk.find("driver"), disk.find("source")
        assert driver is not None
        assert source is not None
        disk.set("type", "network")
        driver.set("type", "raw")
        disk.remove(source)
        ElementTree.SubElement(ElementTree.SubElement(disk, "source", protocol="nbd"), "host", name="127.0.0.1", port=str(port))
    guest.connection.defineXML(ElementTree.tostring(definition, encoding="unicode"))
