"""The worker, QEMU and libvirtd are killed at random instants of merges beside the disk: every point on record shows what it showed."""

import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import daemon
from tests.lab.daemon import uri
from tests.lab.disks import chain
from tests.lab.guests import LabGuest
from tests.live.backups import are_identical
from tests.live.test_backup_increments import kill_qemu
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live

ROUNDS = 2
MERGE_LASTS_S = 1.5
"""More or less, from the order to the end of the job."""


class Killed:
    """A guest with points, and a copy of what each of them showed when it was taken."""

    def __init__(self, folder: Path, guest: LabGuest) -> None:
        self.service = ServiceProcess(folder / "state", libvirt_uri=uri(), lease_seconds="5")
        self.guest = guest
        self.copies = folder / "copies"
        self.copies.mkdir()
        self.written: dict[str, str] = {}

    def points(self) -> list[dict[str, Any]]:
        """On record, oldest first."""
        items: list[dict[str, Any]] = self.service.request("GET", "/api/v1/recovery-points").json()["items"]
        return list(reversed(items))

    def take(self, count: int) -> None:
        while len(self.points()) < count:
            self.write()
            job = self.service.run(self.guest.name)
            assert job["state"] == "succeeded", job["error"]
            point = job["recovery_point"]
            subprocess.run(["qemu-img", "convert", "-U", "-O", "raw", point["disks"][0]["file"], self.copies / point["id"]], check=True)
        self.write()

    def write(self) -> None:
        """The first files are written again, as the disk of the guest is small."""
        name = f"{len(self.written) % 12}.bin"
        self.guest.exec("/bin/sh", "-c", f"dd if=/dev/urandom of=/data/{name} bs=1M count=4 conv=fsync 2>/dev/null")
        self.written[f"{len(self.written)}"] = name

    def order(self, point_id: str) -> str:
        answer = self.service.request("DELETE", f"/api/v1/recovery-points/{point_id}?merge=true")
        assert answer.status_code == 202, answer.text
        return str(answer.json()["id"])

    def digests(self) -> str:
        return self.guest.exec("/bin/sh", "-c", "sync; cd /data; sha256sum *.bin")

    def must_be_right(self) -> None:
        """Every point that is on record and not given up shows what it showed. If its record changed, it is looked at again."""
        wrong = {point["id"]: point for point in self.points() if not self._is_right(point)}
        while wrong:
            again = {point["id"]: point for point in self.points() if point["id"] in wrong}
            assert all(point != wrong[name] for name, point in again.items()), again
            wrong = {name: point for name, point in again.items() if not self._is_right(point)}

    def _is_right(self, point: dict[str, Any]) -> bool:
        return point["state"] != "taken" or are_identical(Path(point["disks"][0]["file"]), self.copies / point["id"])

    def kill(self, victim: str) -> None:
        match victim:
            case "worker":
                self.service.kill()
                self.service.start()
            case "QEMU":
                kill_qemu(self.guest)
                self.guest.start_and_wait()
            case "libvirtd" if daemon.kill_own() is not None:
                self.guest.wait_agent()
            case _:
                # The daemon is the machine's own. Its connections are not ours to cut.
                self.service.kill()
                self.service.start()


@pytest.fixture
def killed(lab: None, tmp_path: Path, lab_guest: LabGuest) -> Iterator[Killed]:
    killed = Killed(tmp_path, lab_guest)
    with killed.service:
        yield killed


@pytest.mark.timeout(400)
@pytest.mark.parametrize("victim", ["worker", "QEMU", "libvirtd"])
def test_what_is_killed_in_a_merge_costs_no_point_and_leaves_no_file(killed: Killed, victim: str) -> None:
    chance = random.Random(victim)
    for _ in range(ROUNDS):
        killed.take(3)
        seen = killed.digests()
        gone = chance.choice(killed.points())["id"]
        job_id = killed.order(gone)
        time.sleep(chance.uniform(0.0, MERGE_LASTS_S))
        killed.must_be_right()
        killed.kill(victim)
        job = killed.service.wait(job_id, 120)
        killed.must_be_right()
        if job["state"] != "succeeded":
            job = killed.service.wait(killed.order(gone), 120)
        assert job["state"] == "succeeded", job["error"]
        killed.must_be_right()
        assert gone not in [point["id"] for point in killed.points()]
        assert killed.digests() == seen
        files = {str(path) for path in chain(killed.guest.active_sources()["vda"])}
        assert {str(path) for path in killed.guest.folder.glob("*.qcow2")} == files
        assert len(files) == 3
