"""The fuse on a real guest, with the guest's own stall meter as the judge of how long it was held.

The root of the lab's guest is an initramfs, which nothing can freeze: what is frozen here is /data. One test puts the fuse's
shell and its programs there, so that for them it is the root, frozen and on a disk that answers nobody.
"""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import libvirt
import pytest

from service.freeze import fuse
from service.hypervisor.guest import Guest
from service.hypervisor.handle import LibvirtDomain
from service.model.fuse import FuseState
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.libvirt_relay import LibvirtRelay
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

AFTER_S = 6
LATE_MS = 6_000


@pytest.fixture
def behind_relay(relay: LibvirtRelay, tmp_path: Path) -> Iterator[ServiceProcess]:
    with ServiceProcess(tmp_path / "state", libvirt_uri=relay.uri) as process:
        yield process


def guest_of(lab: LabGuest) -> Guest:
    return Guest(LibvirtDomain(lab.domain, lab.connection.lookupByUUIDString), "lab")


def freeze(lab: LabGuest) -> int:
    return int(lab.agent({"execute": "guest-fsfreeze-freeze"}))


def thaw(lab: LabGuest) -> int:
    return int(lab.agent({"execute": "guest-fsfreeze-thaw"}))


def longest_stall_ms(lab: LabGuest, mark: int) -> float:
    return max((stall.ms for stall in lab.stalls(mark)), default=0.0)


def wait_until_thawed(lab: LabGuest, mark: int, timeout: float) -> None:
    """By the guest's own word: nobody asks its agent."""
    lab.wait_serial(r"Emergency Thaw complete|^STALL .*ms=\d{4,}", timeout, since=mark)
    lab.wait_serial("^METER", 60, since=lab.mark())


def processes(lab: LabGuest) -> str:
    return lab.exec("/bin/ps")


def test_a_guest_that_nobody_thaws_thaws_itself_and_its_agent_does_not_know(lab_guest: LabGuest) -> None:
    guest, mark = guest_of(lab_guest), lab_guest.mark()
    armed = fuse.arm(guest, AFTER_S)
    assert armed.report.state is FuseState.armed
    assert freeze(lab_guest) == 1

    wait_until_thawed(lab_guest, mark, AFTER_S + 60)

    assert (AFTER_S - 3) * 1000 < longest_stall_ms(lab_guest, mark) < AFTER_S * 1000 + LATE_MS
    assert lab_guest.freeze_status() == "frozen"
    assert thaw(lab_guest) == 0
    assert lab_guest.freeze_status() == "thawed"
    assert fuse.disarm(guest, armed).state is FuseState.fired
    assert fuse.KERNEL_LINE in lab_guest.exec("/bin/dmesg")
    assert "sleep" not in processes(lab_guest)


def test_every_filesystem_is_thawed(make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(disks=3)).start_and_wait()
    mark = guest.mark()
    fuse.arm(guest_of(guest), AFTER_S)
    assert freeze(guest) == 3
    wait_until_thawed(guest, mark, AFTER_S + 60)
    held = {stall.mount for stall in guest.stalls(mark) if stall.ms > 1_000}
    assert held == {"/data", "/data-vdb", "/data-vdc"}
    assert thaw(guest) == 0


def test_a_guest_that_was_paused_meanwhile_thaws_itself_after_the_rest_of_its_own_time(lab_guest: LabGuest) -> None:
    guest, mark = guest_of(lab_guest), lab_guest.mark()
    armed = fuse.arm(guest, AFTER_S)
    freeze(lab_guest)
    lab_guest.domain.suspend()
    time.sleep(AFTER_S + 1)
    lab_guest.domain.resume()

    wait_until_thawed(lab_guest, mark, AFTER_S + 60)

    # By its own clock, which stood still.
    assert longest_stall_ms(lab_guest, mark) < AFTER_S * 1000 + LATE_MS
    assert thaw(lab_guest) == 0
    assert fuse.disarm(guest, armed).state is FuseState.fired


def test_its_own_root_may_be_frozen_and_on_a_disk_that_answers_nobody(lab_guest: LabGuest) -> None:
    prepare = """
        for folder in bin proc dev run sys; do mkdir -p /data/$folder; done
        cp /bin/busybox /data/bin/busybox
        for name in sh sleep rm; do ln -s busybox /data/bin/$name; done
        for folder in proc dev run sys; do mount --bind /$folder /data/$folder; done
        dmesg -n 8
    """
    lab_guest.exec("/bin/sh", "-c", prepare)
    mark = lab_guest.mark()
    assert lab_guest.exec("/usr/sbin/chroot", "/data", "/bin/sh", "-c", fuse.arm_script("root", AFTER_S)) == "armed\n"
    lab_guest.exec("/bin/sh", "-c", "(sleep 2; echo 3 > /proc/sys/vm/drop_caches) > /dev/null 2>&1 &")
    assert freeze(lab_guest) == 1
    lab_guest.domain.setBlockIoTune("vda", {"total_bytes_sec": 1}, libvirt.VIR_DOMAIN_AFFECT_LIVE)

    lab_guest.wait_serial("Emergency Thaw complete", AFTER_S + 60, since=mark)

    lab_guest.domain.setBlockIoTune("vda", {"total_bytes_sec": 0}, libvirt.VIR_DOMAIN_AFFECT_LIVE)
    lab_guest.wait_serial("^METER", 60, since=lab_guest.mark())
    assert thaw(lab_guest) == 0


def test_it_outlives_the_agent_that_started_it(lab_guest: LabGuest) -> None:
    guest, mark = guest_of(lab_guest), lab_guest.mark()
    armed = fuse.arm(guest, AFTER_S)
    lab_guest.exec("/bin/sh", "-c", "(sleep 1; killall -9 qemu-ga) > /dev/null 2>&1 &")
    freeze(lab_guest)

    wait_until_thawed(lab_guest, mark, AFTER_S + 60)

    lab_guest.wait_agent()
    thaw(lab_guest)
    assert fuse.disarm(guest, armed).state is FuseState.fired


def test_a_disarmed_fuse_leaves_nothing_in_the_guest_and_never_fires(lab_guest: LabGuest) -> None:
    guest = guest_of(lab_guest)
    armed = fuse.arm(guest, 2)
    assert fuse.disarm(guest, armed).state is FuseState.disarmed
    left = processes(lab_guest)
    assert not re.search(r"sleep|stillpoint", left), left
    assert "stillpoint-fuse" not in lab_guest.exec("/bin/ls", "/run")
    freeze(lab_guest)
    time.sleep(3)
    assert thaw(lab_guest) == 1
    assert "Emergency Thaw" not in lab_guest.exec("/bin/dmesg")


def test_a_job_disarms_its_fuse(service: ServiceProcess, lab_guest: LabGuest) -> None:
    job = service.run(lab_guest.name)
    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem")
    assert (job["freeze"]["fuse"]["state"], job["freeze"]["fuse"]["after_s"]) == ("disarmed", 155)
    left = processes(lab_guest)
    assert not re.search(r"sleep|stillpoint", left), left


def test_a_guest_whose_agent_runs_no_programs_has_none_and_the_job_goes_on(service: ServiceProcess, make_guest: MakeGuest) -> None:
    guest = make_guest(GuestOptions(agent_args=("--block-rpcs=guest-exec",))).start_and_wait()
    job = service.run(guest.name)
    assert (job["state"], job["verdict"]) == ("succeeded", "filesystem")
    assert (job["freeze"]["fuse"]["state"], job["freeze"]["fuse"]["reason"]) == (
        "unavailable",
        fuse.EXEC_BLOCKED,
    )


def test_a_guest_thaws_itself_when_nobody_on_the_host_is_left_to_thaw(
    behind_relay: ServiceProcess, relay: LibvirtRelay, lab_guest: LabGuest
) -> None:
    behind_relay.run(lab_guest.name, kind="preflight")
    relay.snapshots_pass.clear()
    mark = lab_guest.mark()
    behind_relay.create(lab_guest.name, freeze={"preflush": False, "timeout_ms": 1_000, "hold_limit_ms": 2_000})
    relay.wait_for_snapshot()

    # For the guard.
    relay.is_mute = True
    behind_relay.kill()
    relay.close()

    wait_until_thawed(lab_guest, mark, 60)
    assert longest_stall_ms(lab_guest, mark) < 8_000 + LATE_MS


def test_a_job_whose_fuse_ended_the_hold_claims_none(behind_relay: ServiceProcess, relay: LibvirtRelay, lab_guest: LabGuest) -> None:
    behind_relay.run(lab_guest.name, kind="preflight")
    relay.snapshots_pass.clear()
    mark = lab_guest.mark()
    job_id = behind_relay.create(lab_guest.name, freeze={"preflush": False, "timeout_ms": 1_000, "hold_limit_ms": 2_000})
    relay.wait_for_snapshot()
    # For every thaw, longer than the fuse burns.
    relay.delay_s = 12
    relay.snapshots_pass.set()

    wait_until_thawed(lab_guest, mark, 60)
    relay.delay_s = 0
    job = behind_relay.wait(job_id, timeout=90)

    assert job["freeze"]["fuse"]["state"] == "fired"
    assert job["verdict"] == "crash"
    assert "fuse_fired" in [reason["code"] for reason in job["verdict_reasons"]]
    assert lab_guest.freeze_status() == "thawed"
