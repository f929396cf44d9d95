"""The caller of a quiesce gate in a round: it opens the gate, copies the disk while it is held, releases, and keeps what it was told."""

import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2

from tests.chaos.invariants import Breach
from tests.chaos.stage import Stage
from tests.lab.disks import needs_recovery
from tests.lab.places import LabError

PATIENCE_S = 60.0
OPEN_WAIT_MS = 20_000


@dataclass
class GateClient:
    """An orchestrator would do the same: in a thread of its own, and with patience while the API is away."""

    stage: Stage
    deadline_ms: int
    copies_for_s: float
    job_id: str = ""
    held: bool | None = None
    copy: Path | None = None
    _token: str = ""
    _disk: Path = field(default_factory=Path)
    _failure: Exception | None = None
    _key: str = field(default_factory=lambda: str(uuid.uuid4()))

    def begin(self) -> "GateClient":
        # Now, because libvirt may be away while the gate is open. A gate moves no disk.
        self._disk = self.stage.guest.active_sources()["vda"]
        self.job_id, self._token = self._ask_for_the_gate(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def end(self) -> None:
        """Raises LabError where the release was never answered."""
        self._thread.join(PATIENCE_S * 2)
        if self._thread.is_alive():
            raise LabError("the gate was never answered for")
        if self._failure is not None:
            raise self._failure

    def breaches(self, job: dict[str, Any]) -> Iterator[Breach]:
        """What was told as held must be a copy that needs no recovery; and the job and the release tell the same."""
        if self.held and self.copy is not None and needs_recovery(self.copy):
            yield Breach("stories_untrue", "the gate is said to have held, and what was copied in it needs journal recovery")
        if bool(self.held) != (job["state"] == "succeeded"):
            yield Breach("stories_untrue", f"the release answered held={self.held}, and the job is {job['state']}: {job['error']}")
        elif self.copy is not None:
            self.copy.unlink(missing_ok=True)

    def _run(self) -> None:
        try:
            self._copy_and_release()
        except Exception as error:  # raised again by `end`, in the thread of the round
            self._failure = error

    def _copy_and_release(self) -> None:
        if not self._is_open():
            return
        self.copy = self.stage.state_dir.parent / f"{self.job_id}.qcow2"
        shutil.copy(self._disk, self.copy)
        time.sleep(self.copies_for_s)
        answer = self._post(f"quiesce/{self.job_id}/release", {"token": self._token}, {})
        self.held = answer.json()["held"]

    def _is_open(self) -> bool:
        answer = self._post("quiesce", self._request(OPEN_WAIT_MS), {"Idempotency-Key": self._key})
        return answer.status_code == 201 and bool(answer.json()["state"] == "open")

    def _ask_for_the_gate(self, wait_ms: int) -> tuple[str, str]:
        answer = self._post("quiesce", self._request(wait_ms), {"Idempotency-Key": self._key})
        if answer.status_code not in (201, 202):
            raise LabError(f"the gate was refused with {answer.status_code}: {answer.text}")
        document = answer.json()
        return document["job"]["id"], document["token"]

    def _request(self, wait_ms: int) -> dict[str, Any]:
        return {"deadline_ms": self.deadline_ms, "timeout_ms": 5_000, "wait_ms": wait_ms}

    def _post(self, path: str, body: dict[str, Any], headers: dict[str, str]) -> httpx2.Response:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                answer = self.stage.api.request("POST", f"/api/v1/domains/{self.stage.guest.name}/{path}", json=body, headers=headers)
                if answer.status_code < 500 or time.monotonic() > deadline:
                    return answer
            except httpx2.TransportError as error:
                if time.monotonic() > deadline:
                    raise LabError(f"the API did not come back: {error}") from error
            time.sleep(0.1)
