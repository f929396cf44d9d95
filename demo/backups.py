"""A backup, an increment, the loss of the disk, and a restore that runs at once and has every record."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from demo import showing
from demo.commands import Commands
from demo.curl import Curl, Refused
from demo.proof import Check
from demo.screen import Screen
from service.cli_progress import in_bytes
from tests.lab.console import Heartbeat
from tests.lab.disks import chain
from tests.lab.guests import LabGuest
from tests.live.folders import folder_for_qemu

REPOSITORY = "nas"
DATA_MB = 24
RECORDS_WITHIN_S = 60.0


@dataclass(frozen=True)
class Records:
    """Numbers of the records that a program in the guest writes, in rising order, each as the guest knew it then.

    `acknowledged`: the last one before the increment that the guest's disk had confirmed. `last`: the last one before the disk was lost.
    `restored`: the last one that the restored guest found on its disk when it booted.
    """

    acknowledged: int
    last: int
    restored: int


@contextmanager
def repository() -> Iterator[Path]:
    """A folder on this machine, instead of one on other storage."""
    with folder_for_qemu("demo-repository") as folder:
        yield folder / REPOSITORY


def tell_backups(screen: Screen, curl: Curl, commands: Commands, guest: LabGuest, path: Path) -> list[Check]:
    """Steps 9 to 12."""
    screen.step(9, "A repository, and a full backup. The guest is frozen as for a snapshot, and then it runs while its disk is copied")
    guest.exec("/bin/sh", "-c", f"dd if=/dev/urandom of=/data/bulk bs=1M count={DATA_MB} 2>/dev/null; sync")
    commands.run("repository", "add", REPOSITORY, str(path))
    full = _backup(curl, commands, guest)
    screen.step(10, "The guest goes on writing. The next backup copies only what changed")
    guest.console.wait_heartbeat(RECORDS_WITHIN_S)
    acknowledged = _newest(guest).acknowledged
    increment = _backup(curl, commands, guest)
    screen.step(11, "The disk is lost, and the definition with it")
    guest.console.wait_heartbeat(RECORDS_WITHIN_S)
    last = _lose(screen, guest)
    screen.step(12, "The point runs at once. Its disk is made whole meanwhile, and the repository is only read")
    restored = _restore(curl, commands, guest, increment)
    checks = prove_backups(full, increment, restored, Records(acknowledged, last, _first(guest).sequence), _chain(guest))
    screen.line()
    showing.show_checks(screen, checks)
    return checks


def _backup(curl: Curl, commands: Commands, guest: LabGuest) -> dict[str, Any]:
    commands.run("backup", guest.name, "--repository", REPOSITORY)
    return _newest_job(curl, "backup")


def _restore(curl: Curl, commands: Commands, guest: LabGuest, backup: Mapping[str, Any]) -> dict[str, Any]:
    commands.run("restore", backup["recovery_point"]["id"], "--mode", "instant", "--start")
    guest.attach().wait_ready()
    guest.wait_agent()
    return _newest_job(curl, "restore")


def _newest_job(curl: Curl, kind: str) -> dict[str, Any]:
    listed = curl.ask(f'"$API/jobs?kind={kind}&limit=1"', printed=False)["items"]
    if not listed:
        raise Refused(f"there is no job of kind {kind}")
    return curl.ask(f"$API/jobs/{listed[0]['id']}", printed=False)


def _lose(screen: Screen, guest: LabGuest) -> int:
    """Pull the plug and remove the files and the definition. Returns the number of the last record that the guest had written."""
    files = [file for source in guest.active_sources().values() for file in chain(source)]
    guest.power_off()
    last = _newest(guest).sequence
    guest.domain.undefineFlags(libvirt.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA | libvirt.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA)
    for file in files:
        file.unlink()
    # What the restored guest says begins in a new file.
    guest.console.path.unlink()
    screen.note(f"{guest.name} is switched off and undefined; {', '.join(file.name for file in files)} are removed.")
    return last


def _newest(guest: LabGuest) -> Heartbeat:
    return guest.heartbeats()[-1]


def _first(guest: LabGuest) -> Heartbeat:
    """What the program in the guest found on its disk, before it wrote anything."""
    return guest.heartbeats()[0]


def _chain(guest: LabGuest) -> list[Path]:
    return [file for source in guest.active_sources().values() for file in chain(source)]


# --- what must be true ----------------------------------------------------------------------------


def prove_backups(
    full: Mapping[str, Any], increment: Mapping[str, Any], restored: Mapping[str, Any], records: Records, files: list[Path]
) -> list[Check]:
    return [
        _succeeded("the full backup", full),
        _succeeded("the increment", increment),
        _is_smaller(full, increment),
        _restored(restored),
        _holds_what_was_acknowledged(records),
        _holds_nothing_later(records),
        Check("the disk is whole", len(files) == 1, f"its chain is {', '.join(file.name for file in files)}"),
    ]


def _succeeded(what: str, job: Mapping[str, Any]) -> Check:
    error = f": {job['error']['detail']}" if job["error"] else ""
    holds = job["state"] == "succeeded" and job["verdict"] == "filesystem"
    return Check(f"{what} is sealed", holds, f"it {job['state']} with the verdict {job['verdict']}{error}")


def _is_smaller(full: Mapping[str, Any], increment: Mapping[str, Any]) -> Check:
    whole, changed = _copied(full), _copied(increment)
    levels = {disk["level"] for disk in _disks(increment)}
    holds = levels == {"bitmap"} and 0 < changed < whole
    return Check("only changes were copied", holds, f"{in_bytes(changed)} instead of {in_bytes(whole)}, by {', '.join(sorted(levels))}")


def _restored(job: Mapping[str, Any]) -> Check:
    error = f": {job['error']['detail']}" if job["error"] else ""
    return Check("the restore succeeded", job["state"] == "succeeded", f"it {job['state']}{error}")


def _holds_what_was_acknowledged(records: Records) -> Check:
    evidence = f"the guest's disk had confirmed {records.acknowledged} records before; the restored one has {records.restored}"
    return Check("no record is lost", records.restored >= records.acknowledged > 0, evidence)


def _holds_nothing_later(records: Records) -> Check:
    evidence = f"the guest had written {records.last} records when its disk was lost"
    return Check("nothing of later is in it", records.restored < records.last, evidence)


def _disks(job: Mapping[str, Any]) -> list[dict[str, Any]]:
    disks: list[dict[str, Any]] = ((job["result"] or {}).get("backup") or {}).get("disks") or []
    return disks


def _copied(job: Mapping[str, Any]) -> int:
    return sum(disk["copied_bytes"] for disk in _disks(job))
