"""Sealed points of a real guest come back: beside it, in its place after its disk was lost, at once over the repository, and as files."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import libvirt
import pytest

from service.db.engine import Database, open_engine
from service.model import image_header
from service.model.domain_xml import nvram_path
from service.model.image_header import ImageHeader
from tests.lab.disks import chain
from tests.lab.fixtures import MakeGuest
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.refused_agent import is_refused, start_again_if_refused
from tests.live.folders import folder_for_qemu
from tests.scenes.sealed_points import SealedPoints
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

SLOW_BYTES_S = 1 << 20
"""So slow that a test can act in the middle."""


class Restored:
    """Sees to it that the domains of a test are gone after it."""

    def __init__(self, service: ServiceProcess) -> None:
        self.service = service
        self.made: list[LabGuest] = []

    def name(self) -> str:
        return f"lab-t-restored-{len(self.made)}-{os.getpid()}"

    def guest(self, name: str) -> LabGuest:
        guest = LabGuest(GuestOptions(name=name))
        self.made.append(guest)
        return guest.attach()


@pytest.fixture
def restored(service: ServiceProcess) -> Iterator[Restored]:
    restored = Restored(service)
    yield restored
    for guest in restored.made:
        guest.destroy()


@pytest.fixture
def sealed(service: ServiceProcess) -> Iterator[SealedPoints]:
    database = Database(open_engine(f"sqlite:///{service.state_dir / 'stillpoint.db'}"))
    try:
        with folder_for_qemu("repository") as folder:
            yield SealedPoints(database, folder / "repository", "hv1")
    finally:
        database.dispose()


def sealed_point(sealed: SealedPoints, guest: LabGuest, parent: str | None = None) -> str:
    """A point of the guest, which is off."""
    definition = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    return sealed.seal((guest.domain.UUIDString(), guest.name), guest.disks, definition, parent=parent)


def write(guest: LabGuest, name: str, megabytes: int = 0) -> None:
    data = f"dd if=/dev/urandom of=/data/{name}.bulk bs=1M count={megabytes} 2>/dev/null; " if megabytes else ""
    guest.exec("/bin/sh", "-c", f"{data}echo {name} > /data/{name}; sync")


def files_of(guest: LabGuest) -> set[str]:
    return {name for name in guest.exec("/bin/ls", "/data").split() if not name.endswith((".bulk", ".dat", "lost+found"))}


def saved_guest(make_guest: MakeGuest, sealed: SealedPoints, megabytes: int = 0) -> tuple[LabGuest, str]:
    """A guest that is off, and its point: an increment. What it wrote after the point is not in the point."""
    guest = make_guest(GuestOptions()).start_and_wait()
    write(guest, "first", megabytes)
    guest.shutdown()
    full = sealed_point(sealed, guest)
    guest.start_and_wait()
    write(guest, "second")
    guest.shutdown()
    point = sealed_point(sealed, guest, full)
    guest.start_and_wait()
    write(guest, "third")
    guest.shutdown()
    return guest, point


def restore(service: ServiceProcess, point: str, mode: str, **request: Any) -> str:
    answer = service.request("POST", "/api/v1/jobs", json={"kind": "restore", "recovery_point": point, "mode": mode, **request})
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


def eventually(condition: Callable[[], object], timeout: float = 60.0) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.05)


def test_a_new_domain_boots_beside_the_guest(
    service: ServiceProcess, make_guest: MakeGuest, sealed: SealedPoints, restored: Restored
) -> None:
    guest, point = saved_guest(make_guest, sealed)
    guest.start_and_wait()
    name = restored.name()

    job = service.wait(restore(service, point, "new", name=name, start=True))

    assert (job["state"], job["error"]) == ("succeeded", None)
    new = restored.guest(name)
    new.wait_agent()
    assert files_of(new) == {"first", "second"}
    assert files_of(guest) == {"first", "second", "third"}
    assert new.domain.UUIDString() != guest.domain.UUIDString()
    assert job["result"]["restore"]["has_run"] is True


def test_in_place_after_the_disk_was_lost(service: ServiceProcess, make_guest: MakeGuest, sealed: SealedPoints) -> None:
    guest, point = saved_guest(make_guest, sealed)
    guest.disks["vda"].unlink()

    job = service.wait(restore(service, point, "in_place", start=True))

    assert (job["state"], job["error"]) == ("succeeded", None)
    guest.wait_agent()
    assert files_of(guest) == {"first", "second"}
    assert chain(guest.active_sources()["vda"]) == [guest.active_sources()["vda"]]


@pytest.mark.timeout(400)
def test_instant_boots_while_it_is_made_whole_and_survives_a_killed_qemu_and_a_killed_worker(
    service: ServiceProcess, make_guest: MakeGuest, sealed: SealedPoints, restored: Restored
) -> None:
    _, point = saved_guest(make_guest, sealed, megabytes=40)
    name = restored.name()
    before = contents(sealed.path)

    job_id = restore(service, point, "instant", name=name, rate_limit_bytes=SLOW_BYTES_S)
    eventually(lambda: service.job(job_id)["phase"] == "flatten")
    new = restored.guest(name)
    new.wait_agent()
    write(new, "fourth")
    assert files_of(new) == {"first", "second", "fourth"}
    eventually(lambda: (new.domain.blockJobInfo("vda", 0) or {}).get("cur", 0) > 0)
    kill_until_the_agent_answers(new)
    assert files_of(new) == {"first", "second", "fourth"}
    assert service.job(job_id)["state"] == "running"
    service.kill()
    service.start()
    job = service.wait(job_id, timeout=300)

    assert (job["state"], job["error"], job["attempt"]) == ("succeeded", None, 2)
    assert job["result"]["restore"]["reads_repository"] == []
    active = new.active_sources()["vda"]
    assert chain(active) == [active]
    assert files_of(new) == {"first", "second", "fourth"}
    assert contents(sealed.path) == before


@pytest.mark.timeout(400)
def test_a_qemu_that_is_killed_before_it_has_written_out_what_it_copied_costs_nothing(
    service: ServiceProcess, make_guest: MakeGuest, sealed: SealedPoints, restored: Restored
) -> None:
    """A guest that is paused flushes nothing: what QEMU has copied since then is in the memory of QEMU when it is killed."""
    _, point = saved_guest(make_guest, sealed, megabytes=40)
    name = restored.name()
    job_id = restore(service, point, "instant", name=name, rate_limit_bytes=SLOW_BYTES_S)
    eventually(lambda: in_phase(service, job_id, "flatten"))
    new = restored.guest(name)
    new.wait_agent()
    write(new, "fourth")
    disk = new.active_sources()["vda"]
    eventually(lambda: new.domain.blockJobInfo("vda", 0))
    new.domain.suspend()
    new.domain.blockJobSetSpeed("vda", 0, 0)
    eventually(lambda: header_of(disk).below is None)
    kill_qemu(new)

    job = service.wait(job_id, timeout=300)

    assert (job["state"], job["error"]) == ("succeeded", None)
    start_again_if_refused(new, new.domain.create, lambda _: None)
    new.wait_agent()
    assert files_of(new) == {"first", "second", "fourth"}
    assert new.exec("/bin/sh", "-c", "cat /data/*.bulk | wc -c").split() == [str(40 << 20)]
    assert chain(disk) == [disk]
    assert "<backingStore" not in new.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE).replace("<backingStore/>", "")


def in_phase(service: ServiceProcess, job_id: str, phase: str) -> bool:
    job = service.job(job_id)
    assert job["error"] is None, job["error"]
    return bool(job["phase"] == phase)


def header_of(disk: Path) -> ImageHeader:
    with disk.open("rb") as file:
        header = image_header.parse(file.read(image_header.READ_BYTES))
    assert header is not None
    return header


def kill_until_the_agent_answers(guest: LabGuest) -> None:
    """The job starts it again. After a kill during an agent command libvirt 9.0 refuses the agent until a further start of the domain."""
    for _ in range(3):
        kill_qemu(guest)
        eventually(guest.domain.isActive)
        if not is_refused(guest):
            guest.wait_agent()
            return
    guest.wait_agent()


def kill_qemu(guest: LabGuest) -> None:
    pid = int(Path(f"/run/libvirt/qemu/{guest.name}.pid").read_text())
    os.kill(pid, signal.SIGKILL)


def contents(folder: Path) -> dict[str, tuple[int, int, int, float]]:
    """Mode, owner, size and time of each file: nothing of a sealed point is changed by its restore."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.stat()
        if path.is_file():
            found[str(path)] = (status.st_mode, status.st_uid, status.st_size, status.st_mtime)
    return found


def test_files_for_a_look_by_hand(service: ServiceProcess, make_guest: MakeGuest, sealed: SealedPoints, tmp_path: Path) -> None:
    _, point = saved_guest(make_guest, sealed)
    folder = tmp_path / "out"
    folder.mkdir()

    job = service.wait(restore(service, point, "files", folder=str(folder)))

    assert (job["state"], job["error"]) == ("succeeded", None)
    assert [path.name for path in folder.iterdir()] == ["vda.qcow2"]
    assert chain(folder / "vda.qcow2") == [folder / "vda.qcow2"]


def test_the_variables_of_the_firmware_and_the_state_of_the_tpm_come_back(
    service: ServiceProcess, make_guest: MakeGuest, sealed: SealedPoints, restored: Restored
) -> None:
    guest = make_guest(GuestOptions(tpm=True, nvram=True)).start_and_wait()
    guest.shutdown()
    definition = guest.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE)
    nvram = Path(nvram_path(definition) or "")
    nvram.write_bytes(b"restored" + nvram.read_bytes()[8:])
    state = {file.name: file.read_bytes() for file in guest.tpm_state.iterdir() if file.name != ".lock"}
    point = sealed.seal((guest.domain.UUIDString(), guest.name), guest.disks, definition, nvram=nvram, tpm=guest.tpm_state)
    name = restored.name()

    job = service.wait(restore(service, point, "new", name=name))

    assert (job["state"], job["error"]) == ("succeeded", None)
    new = restored.guest(name)
    its_nvram = nvram_path(new.domain.XMLDesc(libvirt.VIR_DOMAIN_XML_INACTIVE))
    assert its_nvram != str(nvram)
    assert Path(its_nvram or "").read_bytes()[:8] == b"restored"
    assert {file.name: file.read_bytes() for file in new.tpm_state.iterdir()} == state
    new.domain.create()
    new.wait_agent()

    nvram.write_bytes(b"later..." + nvram.read_bytes()[8:])
    job = service.wait(restore(service, point, "in_place", start=True))
    assert (job["state"], job["error"]) == ("succeeded", None)
    guest.wait_agent()
    assert Path(nvram_path(guest.domain.XMLDesc(0)) or "").read_bytes()[:8] == b"restored"
    assert str(nvram) in job["result"]["restore"]["old_disks"]


def test_a_password_in_the_definition_stays_when_its_disks_are_replaced(
    service: ServiceProcess, make_guest: MakeGuest, sealed: SealedPoints
) -> None:
    guest, point = saved_guest(make_guest, sealed)
    secret = libvirt.VIR_DOMAIN_XML_INACTIVE | libvirt.VIR_DOMAIN_XML_SECURE
    graphics = "<graphics type='vnc' port='-1' autoport='yes' passwd='s3cret'/></devices>"
    guest.connection.defineXML(guest.domain.XMLDesc(secret).replace("</devices>", graphics))

    job = service.wait(restore(service, point, "in_place"))

    assert (job["state"], job["error"]) == ("succeeded", None)
    assert "s3cret" in guest.domain.XMLDesc(secret)
    assert b"s3cret" not in (service.state_dir / "stillpoint.db").read_bytes()
