"""What must be true after each round, asked of the guest, of libvirt and of the files, and only last of the job."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from tests.chaos.pauses import Pause, paused_ms_of_hold
from tests.chaos.stage import Stage
from tests.lab.console import Heartbeat, Stall
from tests.lab.disks import needs_recovery, sequences
from tests.lab.places import LabError
from tests.service_process import FINAL

AFTER_DEADLINE_MS = 2_000.0
SILENCE_S = 15.0
BEHIND = "libvirt_behind_qemu"
MEASURING_MS = 60.0
"""The meter counts from the write that met the freeze, the job from the reply to it."""


@dataclass(frozen=True)
class Breach:
    """`kind`: the count of the report that it belongs to."""

    kind: str
    detail: str


def frozen_too_long(stalls: Sequence[Stall], hold_limit_ms: float, obstacle_s: float) -> Iterator[Breach]:
    longest = max(stalls, key=lambda stall: stall.ms, default=None)
    allowed = hold_limit_ms + AFTER_DEADLINE_MS + obstacle_s * 1000
    if longest is not None and longest.ms > allowed:
        told = f"{longest.call} of the guest was held for {longest.ms:.0f} ms; {allowed:.0f} ms were allowed"
        yield Breach("guests_left_frozen", f"the {told}")


def left_frozen(status: str) -> Iterator[Breach]:
    if status != "thawed":
        yield Breach("guests_left_frozen", f"the guest is {status} after the round")


def writes_lost(beats: Sequence[Heartbeat], found: Sequence[int]) -> Iterator[Breach]:
    """`found`: the sequence numbers in the disk as it is now. The file is written round and round, so old numbers may be gone."""
    acknowledged = max((beat.acknowledged for beat in beats), default=0)
    newest = max(found, default=0)
    if newest < acknowledged:
        yield Breach("writes_lost", f"the guest was told that write {acknowledged} is durable; the disk ends with {newest}")
    held = set(found)
    missing = [number for number in range(max(1, newest - len(found) // 2), min(newest, acknowledged) + 1) if number not in held]
    if missing:
        yield Breach("writes_lost", f"acknowledged writes are missing in the disk: {missing[:5]} … ({len(missing)})")


def chain_broken(stage: Stage) -> Iterator[Breach]:
    try:
        files = stage.chain_files()
        # Written to meanwhile, a sound file looks broken to whoever reads its tables one after the other.
        with stage.paused_guest():
            for file in files:
                yield from _corruptions(file)
    except LabError as error:
        yield Breach("chains_broken", str(error))
        return
    if stage.guest.disks["vda"] not in files:
        yield Breach("chains_broken", f"the guest is on {files[0].name}, which does not come from its own disk")


def _corruptions(file: Path) -> Iterator[Breach]:
    command = ["qemu-img", "check", "--force-share", "--output=json", str(file)]
    checked = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    # With status 3 clusters are allocated that nothing refers to yet, as in any file that is written to meanwhile.
    if checked.returncode not in (0, 3):
        yield Breach("chains_broken", f"{file.name}: qemu-img check ended with {checked.returncode}: {checked.stderr or checked.stdout}")


def no_heartbeat(stage: Stage) -> Iterator[Breach]:
    """A meter that does not speak again stands in a write or in an fdatasync."""
    try:
        stage.guest.console.wait_heartbeat(SILENCE_S)
    except LabError as error:
        yield Breach("guests_left_frozen", f"the guest does not write any more: {error}")


def story_untrue(
    stage: Stage, job: dict[str, Any], before: Path, stalls: Sequence[Stall] | None, pauses: Sequence[Pause] = ()
) -> Iterator[Breach]:
    """`before`: the file that the disk was on; `stalls` None: the meter is not a judge of this round."""
    for problem in chain(_untrue(stage, job, before), _hold_untrue(job, stalls, pauses)):
        yield Breach("stories_untrue", problem)


def _untrue(stage: Stage, job: dict[str, Any], before: Path) -> Iterator[str]:
    if job["state"] not in FINAL:
        yield f"the job is {job['state']}"
        return
    if (job["state"] == "failed") != (job["error"] is not None):
        yield f"state {job['state']} with error {job['error']}"
    now = stage.written_file()
    point = job["recovery_point"]
    if point is None:
        if now != before:
            yield f"no recovery point, and the disk went from {before.name} to {now.name}"
        # Of a gate the verdict is that of what its caller copied.
        if job["verdict"] != "none" and job["kind"] != "quiesce":
            yield f"no recovery point, and the verdict {job['verdict']}"
    else:
        yield from _point_untrue(point, job["verdict"], before, now)
    if job["state"] == "succeeded" and job["verdict"] != "filesystem":
        yield f"succeeded with {job['verdict']}, though a freeze was required"


def _hold_untrue(job: dict[str, Any], stalls: Sequence[Stall] | None, pauses: Sequence[Pause]) -> Iterator[str]:
    hold_ms = (job["timing"] or {}).get("hold_ms")
    if stalls is None or hold_ms is None:
        return
    longest, paused = max((stall.ms for stall in stalls), default=0.0), paused_ms_of_hold(job, pauses)
    if hold_ms > longest + paused + MEASURING_MS:
        but = f", though the guest was paused for {paused:.0f} ms of it" if paused else ""
        yield f"it tells of a hold of {hold_ms:.0f} ms, and no write or fdatasync was held longer than {longest:.0f} ms{but}"


def _point_untrue(point: dict[str, Any], verdict: str, before: Path, now: Path) -> Iterator[str]:
    disk = point["disks"][0]
    if not Path(disk["file"]).is_file():
        yield f"the file of its point is not there: {disk['file']}"
        return
    if (Path(disk["file"]), Path(disk["overlay"])) != (before, now):
        yield f"its point is {disk['file']} below {disk['overlay']}, and the disk went from {before.name} to {now.name}"
    if verdict not in ("crash", "none") and needs_recovery(Path(disk["file"])):
        yield f"the verdict is {verdict}, and the point needs journal recovery"


def strays(stage: Stage, job: dict[str, Any]) -> Iterator[Breach]:
    """Overlays that are in nobody's chain. Those that the job names are deleted, as it tells its reader to do."""
    lost = {file for folder in stage.overlay_folders for file in folder.glob("*.qcow2")} - set(stage.chain_files())
    story = json.dumps(job)
    for file in [file for file in lost if str(file) in story]:
        file.unlink()
        lost.remove(file)
    if lost:
        yield Breach("stories_untrue", f"files that no disk stands on: {', '.join(sorted(file.name for file in lost))}")


def next_job_not_refused(job: dict[str, Any]) -> Iterator[Breach]:
    """Where libvirt names another file than QEMU writes to, no guest is frozen for a snapshot that cannot be."""
    if (job["error"] or {}).get("code") != BEHIND or job["freeze"] is not None:
        yield Breach(
            "stories_untrue", f"libvirt is behind QEMU, and the next job ended {job['state']}: {(job['error'] or {}).get('detail')}"
        )


def next_job_failed(job: dict[str, Any]) -> Iterator[Breach]:
    """The job after a fault has been healed has nothing in its way."""
    if (job["state"], job["verdict"]) != ("succeeded", "filesystem"):
        yield Breach("stories_untrue", f"the next job ended {job['state']} with {job['verdict']}: {(job['error'] or {}).get('detail')}")


def durable_writes_lost(stage: Stage, beats: Sequence[Heartbeat]) -> Iterator[Breach]:
    """Read while QEMU has the disk open: what was flushed must be in the file, and a pause would flush the rest as well.

    The second reading is not a second chance: it tells whether the write is gone or was only in QEMU's memory.
    """
    lost = list(writes_lost(beats, _sequences(stage)))
    if lost:
        _keep_disks(stage)
        with stage.paused_guest():
            paused = list(writes_lost(beats, _sequences(stage)))
        stage.note(f"lost in the running disk: {lost}; in the paused one: {paused}")
    yield from lost


def _keep_disks(stage: Stage) -> None:
    """The files as they are at this instant, for whoever looks for the reason."""
    kept = stage.state_dir.with_suffix(".lost")
    kept.mkdir(exist_ok=True)
    for file in stage.chain_files():
        subprocess.run(["cp", "--sparse=always", str(file), str(kept)], check=False)
    stage.note(f"the files of the disk are kept in {kept}; QEMU has open: {_names(stage)}")


def nameless_disk(stage: Stage, job: dict[str, Any]) -> Iterator[Breach]:
    """The guest writes to the file whose name libvirt tells, and not to one that was deleted or replaced under it.

    QEMU also has the files below open, but only to read. A libvirtd that was killed may name one of those ever after: the job must tell it.
    """
    named, written = stage.guest.active_sources()["vda"], stage.written_file()
    if written != named and _tells_behind(job, named, written):
        return
    found = named.stat()
    if not any(file.is_written and os.path.samestat(file.status, found) for file in stage.open_files()):
        yield Breach(
            "chains_broken", f"QEMU does not write to {named.name}, which libvirt says the guest is on; it has open: {_names(stage)}"
        )


def _tells_behind(job: dict[str, Any], named: Path, written: Path) -> bool:
    error = job["error"] or {}
    if error.get("code") != BEHIND or not written.exists():
        return False
    return (error["facts"]["libvirt_file"], error["facts"]["qemu_file"]) == (str(named), str(written))


def _names(stage: Stage) -> list[str]:
    """Of the disks that are open. The kernel marks those that were deleted."""
    return [f"{file.name} ({'written' if file.is_written else 'only read'})" for file in stage.open_files() if ".qcow2" in file.name]


def _sequences(stage: Stage) -> list[int]:
    return sequences(stage.written_file())
