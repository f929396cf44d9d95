"""How soon the agent of an instantly restored guest answers, against a plain boot of the same guest."""

import time
from pathlib import Path

import libvirt

from benchmarks.backup_contestants import JOB_TIMEOUT_S, POLL_S, restored_disk
from benchmarks.filled_guest import FilledGuest
from benchmarks.interleaving import Numbers
from benchmarks.service_process import Client
from tests.lab.guests import LabGuest
from tests.lab.options import GuestOptions
from tests.lab.places import LabError, open_dir


class FirstAnswer:
    """The guest is off. Its point is in a repository."""

    def __init__(self, guest: FilledGuest, client: Client, point_id: str, scratch: Path) -> None:
        self.guest = guest
        self._client = client
        self._point = point_id
        self._scratch = scratch
        self._is_checked = False
        self._folder = guest.folder / "restored"

    def boot(self) -> Numbers:
        began = time.monotonic()
        self.guest.domain.create()
        self.guest.wait_agent()
        answered = time.monotonic() - began
        self.guest.shutdown()
        return {"answer_s": answered}

    def instant(self) -> Numbers:
        """From the request to the answer; and until the guest needs the repository no more."""
        name = f"{self.guest.name}-restored"
        open_dir(self._folder).chmod(0o777)
        asked = {"kind": "restore", "recovery_point": self._point, "mode": "instant", "name": name, "identity": "new"}
        began = time.monotonic()
        job = self._client.post("/api/v1/jobs", {**asked, "folder": str(self._folder)})
        try:
            answered = self._answered(name, job) - began
            ended = self._client.wait_job(job, JOB_TIMEOUT_S, POLL_S)
            if ended["state"] != "succeeded":
                raise LabError(f"the instant restore ended {ended['state']}: {ended['error']}")
            numbers = {"answer_s": answered, "flat_s": time.monotonic() - began}
            self.guest.drop(name)
            self._check()
            return numbers
        finally:
            self.guest.drop(name)
            for file in self._folder.iterdir():
                file.unlink()

    def _check(self) -> None:
        """Once: the disk stands alone, and holds what was backed up."""
        if not self._is_checked:
            self.guest.must_be_in(restored_disk(self._folder), self._scratch)
            self._is_checked = True

    def _answered(self, name: str, job: dict[str, object]) -> float:
        deadline = time.monotonic() + JOB_TIMEOUT_S
        while not _runs(self.guest.connection, name):
            found = self._client.get(f"/api/v1/jobs/{job['id']}")
            if found["state"] == "failed" or time.monotonic() > deadline:
                raise LabError(f"the instant restore did not start its domain: {found['error']}")
            time.sleep(POLL_S)
        LabGuest(GuestOptions(name=name), connection=self.guest.connection).wait_agent()
        return time.monotonic()


def _runs(connection: libvirt.virConnect, name: str) -> bool:
    try:
        return bool(connection.lookupByName(name).isActive())
    except libvirt.libvirtError:
        return False
