"""QEMU's own monitor: what libvirt does not know of, done to the disks of a guest."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import libvirt_qemu

from tests.lab.guests import LabGuest
from tests.lab.places import LabError

MERGE_TIMEOUT_S = 30.0


def ask(guest: LabGuest, command: str, **arguments: object) -> Any:
    """What QEMU returned."""
    told = json.loads(libvirt_qemu.qemuMonitorCommand(guest.domain, json.dumps({"execute": command, "arguments": arguments}), 0))
    if "error" in told:
        raise LabError(f"{command}: {told['error']}")
    return told["return"]


def nodes_of(guest: LabGuest, file: Path) -> list[str]:
    """Names of the nodes that QEMU has for the file: the one that knows the format first, then the one below it."""
    nodes = [node for node in ask(guest, "query-named-block-nodes", flat=True) if node["file"] == str(file)]
    return [node["node-name"] for node in sorted(nodes, key=lambda node: node["drv"] == "file")]


def switch(guest: LabGuest, file: Path, overlay: Path) -> None:
    """The disk on `file` goes on with `overlay`, by the commands that libvirt sends, so that libvirt does not know it."""
    found = file.stat()
    storage, top = "untold-storage", "untold-format"
    os.chown(overlay, found.st_uid, found.st_gid)
    overlay.chmod(0o600)
    ask(guest, "blockdev-add", driver="file", filename=str(overlay), **{"node-name": storage, "auto-read-only": True})
    ask(guest, "blockdev-add", driver="qcow2", file=storage, backing=None, **{"node-name": top, "read-only": False})
    switched = {"node": nodes_of(guest, file)[0], "overlay": top}
    ask(guest, "transaction", actions=[{"type": "blockdev-snapshot", "data": switched}])


def merge_back(guest: LabGuest, file: Path, overlay: Path) -> None:
    """The disk goes on with `file`, which libvirt names, and has all that was written to `overlay`. See docs/reliability.md."""
    top, storage = nodes_of(guest, overlay)
    below = nodes_of(guest, file)[0]
    ask(guest, "block-commit", device=top, **{"job-id": "merge", "top-node": top, "base-node": below})
    _wait(guest, lambda jobs: bool(jobs) and jobs[0]["status"] == "ready")
    ask(guest, "job-complete", id="merge")
    _wait(guest, lambda jobs: not jobs)
    ask(guest, "blockdev-del", **{"node-name": top})
    ask(guest, "blockdev-del", **{"node-name": storage})


def _wait(guest: LabGuest, are_as_wanted: Callable[[list[Any]], bool]) -> None:
    deadline = time.monotonic() + MERGE_TIMEOUT_S
    while not are_as_wanted([job for job in ask(guest, "query-jobs") if job["id"] == "merge"]):
        if time.monotonic() > deadline:
            raise LabError(f"the merge did not come on: {ask(guest, 'query-jobs')}")
        time.sleep(0.02)
