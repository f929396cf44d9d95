"""Names of block nodes that QEMU has already, as a libvirtd leaves them that was killed in a snapshot."""

import re
from pathlib import Path

import pytest

from tests.lab import monitor
from tests.lab.daemon import uri
from tests.lab.guests import LabGuest
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


def test_a_snapshot_goes_past_the_names_that_are_taken(lab_guest: LabGuest, tmp_path: Path) -> None:
    with ServiceProcess(tmp_path / "state", libvirt_uri=uri()) as service:
        assert service.run(lab_guest.name)["verdict"] == "filesystem"
        take_the_next_names(lab_guest, 3)
        job = service.run(lab_guest.name)
    assert (job["state"], job["verdict"], job["attempt"]) == ("succeeded", "filesystem", 1)
    assert lab_guest.active_sources()["vda"] == Path(job["recovery_point"]["disks"][0]["overlay"])


def take_the_next_names(guest: LabGuest, count: int) -> None:
    """libvirt numbers its nodes `libvirt-N-format` and `libvirt-N-storage`, one number for each file."""
    nodes = monitor.ask(guest, "query-named-block-nodes", flat=True)
    highest = max(int(found[1]) for node in nodes if (found := re.match(r"libvirt-(\d+)-", node["node-name"])))
    for number in range(highest + 1, highest + 1 + count):
        for end in ("storage", "format"):
            monitor.ask(guest, "blockdev-add", driver="null-co", **{"node-name": f"libvirt-{number}-{end}"})
