"""Preflight and job come to the same end on every odd host, and nothing is frozen for a job that preflight would refuse."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.daemon import uri
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions, Odd
from tests.live import odd_hosts
from tests.live.odd_hosts import OddHost
from tests.live.test_main_job import overlays_beside
from tests.live.test_preflight import checks
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


@pytest.fixture(scope="module")
def guest(lab: None) -> Iterator[LabGuest]:
    """Its agent tells the console of every freeze and thaw, through the hook."""
    guest = LabGuest(GuestOptions(name=f"lab-t-preflight-and-job-{id(lab)}", hook="ok"))
    try:
        yield guest.start_and_wait()
    finally:
        guest.destroy()


def service_of(folder: Path, settings: dict[str, str]) -> ServiceProcess:
    hidden = settings.pop("hidden", None)
    script = f'mount -t tmpfs stillpoint-test "{hidden}" && exec "$@"'
    inside = ("unshare", "--mount", "sh", "-c", script, "sh") if hidden is not None else ()
    return ServiceProcess(folder, libvirt_uri=uri(), inside=inside, path=settings.pop("path", None), **settings)


def failing(job: dict[str, Any]) -> list[str]:
    return [code for code, status in checks(job).items() if status == "fail"]


REFUSED = [
    (odd_hosts.folder_of_root, "qemu_access", "qemu_cannot_open_overlay", "overlays"),
    (odd_hosts.folder_below_one_of_root, "qemu_access", "qemu_cannot_open_overlay", "overlays"),
    (odd_hosts.folder_is_a_file, "overlay", "overlay_preparation_failed", "not-a-folder"),
    (odd_hosts.folder_is_missing, "overlay", "overlay_preparation_failed", "nowhere"),
    (odd_hosts.folder_is_a_loop, "overlay", "overlay_preparation_failed", "loop"),
    (odd_hosts.folder_is_read_only, "overlay", "overlay_preparation_failed", "overlays"),
    (odd_hosts.folder_is_full, "overlay", "overlay_preparation_failed", "overlays"),
    (odd_hosts.folder_has_too_long_a_path, "overlay", "overlay_preparation_failed", "xxx"),
    (odd_hosts.no_qemu_img, "overlay", "qemu_img_unusable", "qemu-img"),
    (odd_hosts.qemu_img_that_fails, "overlay", "overlay_preparation_failed", "vda"),
    (odd_hosts.image_is_deleted, "image", "disk_image_deleted", "vda.qcow2"),
    (odd_hosts.image_is_replaced, "image", "disk_image_deleted", "vda.qcow2"),
    (odd_hosts.other_mounts, "libvirt_files", "libvirt_sees_other_files", "overlays"),
]


@pytest.mark.parametrize(("odd", "check", "code", "named"), REFUSED, ids=[case[0].__name__ for case in REFUSED])
def test_what_will_be_refused_is_refused_before_the_freeze_by_preflight_and_by_the_job(
    guest: LabGuest, tmp_path_factory: pytest.TempPathFactory, odd: OddHost, check: str, code: str, named: str
) -> None:
    mark = guest.mark()
    sources, beside = guest.active_sources(), overlays_beside(guest)
    with odd(guest) as settings, service_of(tmp_path_factory.mktemp("service"), settings) as service:
        preflight = service.run(guest.name, kind="preflight")
        job = service.run(guest.name)

    assert (preflight["state"], preflight["result"]["would_work"], failing(preflight)) == ("succeeded", False, [check])
    assert (job["state"], job["error"]["code"], job["attempt"]) == ("failed", code, 1)
    refusal = next(found for found in preflight["result"]["checks"] if found["status"] == "fail")
    assert named in refusal["detail"]
    assert named in job["error"]["detail"]
    assert refusal["remedy"]
    assert (job["freeze"], guest.freeze_status()) == (None, "thawed")
    # The agent calls its hook with each freeze and each thaw.
    assert "HOOK" not in guest.console.text(mark)
    assert guest.active_sources() == sources
    assert overlays_beside(guest) == beside


def test_a_sound_host_passes_every_trial_and_the_job_succeeds(service: ServiceProcess, make_guest: MakeGuest) -> None:
    sound = make_guest(GuestOptions(disks=2)).start_and_wait()

    preflight = service.run(sound.name, kind="preflight")
    beside = overlays_beside(sound)
    job = service.run(sound.name)

    assert [checks(preflight)[code] for code in ("image", "overlay", "libvirt_files", "qemu_access", "security_driver")] == ["pass"] * 5
    assert beside == set()
    assert job["state"] == "succeeded", job["error"]


ODD_GUESTS = {
    "every_odd_disk": GuestOptions(hook="ok", odd_disks=(Odd.CDROM, Odd.EMPTY_CDROM, Odd.READONLY, Odd.RAW_FILE, Odd.BLOCK_DEVICE)),
    "only_odd_disks": GuestOptions(disks=0, odd_disks=(Odd.CDROM, Odd.READONLY, Odd.BLOCK_DEVICE), meter=None),
    "no_channel": GuestOptions(agent_channel=False),
    "no_agent": GuestOptions(agent="none"),
    "freeze_blocked": GuestOptions(agent_args=("--block-rpcs=guest-fsfreeze-freeze",)),
    "exec_blocked": GuestOptions(agent_args=("--block-rpcs=guest-exec",)),
}


@pytest.mark.parametrize("options", ODD_GUESTS.values(), ids=ODD_GUESTS)
def test_preflight_and_job_of_an_odd_guest_come_to_the_same_end(
    service: ServiceProcess, make_guest: MakeGuest, options: GuestOptions
) -> None:
    odd = make_guest(options).start_and_wait()
    mark = odd.mark()

    preflight = service.run(odd.name, kind="preflight")
    job = service.run(odd.name)

    expected = preflight["result"]
    assert (job["state"] == "succeeded") == expected["would_work"], (job["error"], expected["checks"])
    assert job["verdict"] == expected["expected_verdict"]
    if not expected["would_work"]:
        assert "HOOK" not in odd.console.text(mark)
        assert odd.active_sources() == odd.disks
