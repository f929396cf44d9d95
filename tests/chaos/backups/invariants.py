"""What must be true of backups, restores and proofs, asked of the guest and of the files of the repository, and last of the job."""

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.backups.repository import LaneRepository, Moment
from tests.chaos.invariants import AFTER_DEADLINE_MS, Breach
from tests.chaos.stage import Stage
from tests.lab.command import run
from tests.lab.console import Stall
from tests.lab.disks import needs_recovery_raw, sequences_raw
from tests.lab.places import LabError
from tests.service_process import FINAL

MIB = 1 << 20
HURT_MS = 2_000.0
"""No write and no fdatasync takes so long on a busy machine without a backup. A repository hangs for longer in its rounds."""
EVIDENCE_TIMEOUT_S = 120.0


# --- promise 4: the guest -------------------------------------------------------------------------


def guest_hurt(stalls: Sequence[Stall], job: dict[str, Any], hold_limit_ms: float, obstacle_s: float) -> Iterator[Breach]:
    """`obstacle_s`: as for `frozen_too_long`. Each window may hold the guest once, for as long as its deadline allows."""
    allowed = hold_limit_ms + AFTER_DEADLINE_MS + obstacle_s * 1000
    windows = sum(phase["name"] == "freeze" for phase in job["phases"])
    beyond = beyond_windows(stalls, windows, allowed)
    if beyond is not None and beyond.ms > HURT_MS + obstacle_s * 1000:
        detail = f"the {beyond.call} that was sent at {beyond.at_ms:.0f} ms was held for {beyond.ms:.0f} ms, beyond {windows} windows"
        yield Breach("guests_hurt", detail)


def beyond_windows(stalls: Sequence[Stall], windows: int, allowed_ms: float) -> Stall | None:
    """The longest stall that no window explains."""
    ordered = sorted(stalls, key=lambda stall: stall.ms, reverse=True)
    explained = [stall for stall in ordered if stall.ms <= allowed_ms][:windows]
    return next((stall for stall in ordered if stall not in explained), None)


def guest_paused(seen: int) -> Iterator[Breach]:
    if seen:
        yield Breach("guests_hurt", f"the domain was found paused by an I/O error {seen} times")


# --- the story of the job -------------------------------------------------------------------------


def story_untrue(stage: Stage, repository: LaneRepository, job: dict[str, Any]) -> Iterator[Breach]:
    for problem in _untrue(stage, repository, job):
        yield Breach("stories_untrue", problem)


def _untrue(stage: Stage, repository: LaneRepository, job: dict[str, Any]) -> Iterator[str]:
    if job["state"] not in FINAL:
        yield f"the job is {job['state']}"
        return
    if (job["state"] == "succeeded") != (job["error"] is None):
        yield f"state {job['state']} with error {job['error']}"
    listed = [point for point in repository.points() if point["job_id"] == job["id"]]
    if job["state"] == "succeeded":
        if job["verdict"] != "filesystem" or len(listed) != 1:
            yield f"succeeded with {job['verdict']}, and {len(listed)} sealed points are on record"
        if stage.is_running() and job["id"][:8] in stage.written_file().name:
            yield f"succeeded, and the guest is still on {stage.written_file().name}"


def unlisted(repository: LaneRepository) -> Iterator[Breach]:
    """What is published is on record, and the other way round: once a job was undisturbed."""
    listed, published = {str(point["folder"]) for point in repository.points()}, repository.published()
    if listed != published:
        lost, missing = sorted(published - listed), sorted(listed - published)
        yield Breach("stories_untrue", f"published and not on record: {lost}; on record and not there: {missing}")


def nobodys(repository: LaneRepository) -> Iterator[Breach]:
    """When no job works: in the repository, and in the state folder of the service."""
    if left := repository.nobodys():
        yield Breach("files_of_nobody", f"nobody owns {left} in the repository")
    if left := repository.nobodys_in_state_folder():
        yield Breach("files_of_nobody", f"nobody owns {left} in the state folder")


def disk_not_at_rest(stage: Stage, before: Sequence[Path]) -> Iterator[Breach]:
    """After an undisturbed job no overlay of a backup is left. `before`: the chain before the round. It may have overlays of snapshots."""
    if not stage.is_running():
        return
    files = stage.chain_files()
    if files != list(before):
        yield Breach("chains_broken", f"after an undisturbed backup the guest is on {[file.name for file in files]}")


def checkpoints_left(stage: Stage) -> Iterator[Breach]:
    names = [checkpoint.getName() for checkpoint in stage.guest.domain.listAllCheckpoints()]
    if len(names) > 1:
        yield Breach("stories_untrue", f"more than one checkpoint is left for one repository: {names}")


# --- promise 3: the points ------------------------------------------------------------------------


def unrestorable(repository: LaneRepository, points: Sequence[dict[str, Any]], moment: Moment | None = None) -> Iterator[Breach]:
    """`moment`: what the newest of the points must hold."""
    for point in points:
        yield from _unrestorable(repository.folder_of(point), point["verdict"], moment if point is points[-1] else None)


def _unrestorable(folder: Path, verdict: str, moment: Moment | None) -> Iterator[Breach]:
    for problem in [*_evidence_bad(folder), *_content_bad(folder, verdict, moment)]:
        yield Breach("points_unrestorable", f"{folder.name}: {problem}")


def _evidence_bad(folder: Path) -> Iterator[str]:
    """By Stillpoint's own command, which needs no service."""
    command = [sys.executable, "-m", "service.cli", "evidence", "verify", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=EVIDENCE_TIMEOUT_S, check=False)
    if done.returncode != 0:
        yield f"evidence verify ended with {done.returncode}: {(done.stdout + done.stderr)[-1500:]}"


def _content_bad(folder: Path, verdict: str, moment: Moment | None) -> Iterator[str]:
    """By qemu-img and ext4's own tools, without any code of Stillpoint."""
    try:
        manifest = json.loads((folder / "manifest.json").read_text())
        for disk in manifest["disks"]:
            yield from _disk_bad(folder / disk["file"], disk, verdict, moment)
    except (OSError, ValueError, KeyError, LabError) as error:
        yield f"{type(error).__name__}: {error}"


def _disk_bad(image: Path, disk: dict[str, Any], verdict: str, moment: Moment | None) -> Iterator[str]:
    with tempfile.TemporaryDirectory() as scratch:
        raw = Path(scratch) / "disk.raw"
        run(["qemu-img", "convert", "-O", "raw", image, raw])
        if (content := content_of(raw)) != disk["content"]:
            yield f"{disk['target']}: its content is {content}, and the manifest says {disk['content']}"
        if verdict != "filesystem":
            return
        if needs_recovery_raw(raw):
            yield f"{disk['target']}: the verdict is {verdict}, and the journal must be replayed"
        elif moment is not None and (newest := max(sequences_raw(raw), default=0)) < moment.acknowledged:
            yield f"{disk['target']}: write {moment.acknowledged} was durable before the job was created, and the point ends with {newest}"


def content_of(raw: Path) -> str:
    """SHA-256 over the SHA-256 of each MiB, as a manifest tells it."""
    digests = hashlib.sha256()
    with raw.open("rb") as file:
        while block := file.read(MIB):
            digests.update(hashlib.sha256(block).digest())
    return digests.hexdigest()
