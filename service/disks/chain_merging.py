"""Merges a file in the middle of a disk's chain into the file right below it. The guest writes to a file further above all the time.

What the files above show is the same at every instant: as long as the file is in the chain, it hides what is written below it. It is not
deleted here: recovery points may still name it.
"""

import subprocess
import time
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

from service import bounded_io, log
from service.disks import disk_images, merge_space
from service.disks.merging import BUDGET_S, POLL_S, Merge, MergeImpossible, MergeTimedOut, OnMerge, Stall, nobody
from service.disks.overlay_file import QEMU_IMG, QEMU_IMG_TIMEOUT_S
from service.disks.putting_back import ROUNDS, commit
from service.errors import JobCancelled, LibvirtCallFailed, LibvirtUnavailable, StillpointError
from service.hypervisor.checkpoints import is_ours
from service.hypervisor.commits import BlockJob
from service.hypervisor.guest import Guest
from service.model import domain_xml
from service.model.intent import Overlay
from service.model.inventory import Disk

SETTLE_S = 5.0
"""Seconds after the end of a block job in which libvirt takes the file out of the chain. After that the job counts as failed."""

_logger = log.get(__name__)


def chain_of(guest: Guest, target: str) -> list[str]:
    """The files of a disk, the active one first: those that QEMU has, or those that the next start reads. Empty: there is no such disk."""
    disk = next((disk for disk in guest.disks() if disk.target == target), None)
    if disk is None or disk.source is None:
        return []
    if guest.is_shut_off():
        return by_headers(disk)
    return [disk.source, *(path or "?" for path in disk.chain)]


def by_headers(disk: Disk) -> list[str]:
    (examined,) = disk_images.examined([disk])
    return list(examined.image.files) if examined.image is not None else []


def merge_below(guest: Guest, taken: Sequence[Overlay], *, budget_s: float = BUDGET_S, on_progress: OnMerge = nobody) -> Merge:
    """Each file is out of the chain then, or `errors` says why not. A repeated call continues. Raises LibvirtUnavailable."""
    merge = Merge(was_begun=True)
    for link in taken:
        try:
            _merge(guest, link, merge, budget_s, on_progress)
            merge.merged.append(link.target)
        except LibvirtUnavailable:
            raise
        except StillpointError as error:
            merge.errors[link.target] = error
    return merge


def _merge(guest: Guest, link: Overlay, merge: Merge, budget_s: float, on_progress: OnMerge) -> None:
    for tries_left in reversed(range(ROUNDS)):
        was_off = guest.is_shut_off()
        try:
            if was_off:
                _merge_at_rest(guest, link, merge, budget_s, on_progress)
            else:
                _merge_running(guest, link, budget_s, on_progress)
            _take_out_of_definition(guest, link)
            _must_be_out(guest, link)
            return
        except (JobCancelled, LibvirtUnavailable):
            raise
        except StillpointError:
            # A domain may be started or shut off meanwhile, and then the other way is the right one.
            if not tries_left or guest.is_shut_off() is was_off:
                raise


# --- a domain that runs -----------------------------------------------------------------------------


def _merge_running(guest: Guest, link: Overlay, budget_s: float, on_progress: OnMerge) -> None:
    # An earlier attempt may have begun it: QEMU continues when the worker or libvirtd dies.
    job = guest.commits.job(link.target)
    if job is not None:
        _wait(guest, link, job, budget_s, on_progress)
    # After the question about the job: it may have ended just before that.
    if link.path not in chain_of(guest, link.target) or (job is not None and _is_out(guest, link)):
        return
    _must_stand(guest, link)
    try:
        guest.commits.start(link.target, top=link.path, base=link.base)
    except LibvirtCallFailed:
        # The call may have started the job although it failed. libvirt knows.
        if guest.commits.job(link.target) is None:
            raise
    left = _wait(guest, link, guest.commits.job(link.target), budget_s, on_progress)
    if not _is_out(guest, link):
        raise merge_space.why_not_enough(link, left) or _impossible(guest, link, "the merge ended before all of it was written")


def _must_stand(guest: Guest, link: Overlay) -> None:
    chain = chain_of(guest, link.target)
    if (link.path, link.base) not in pairwise(chain[1:]):
        raise _impossible(guest, link, f"{link.path} is not below the active file and right above {link.base}: the disk is on {chain}")


def _wait(guest: Guest, link: Overlay, job: BlockJob | None, budget_s: float, on_progress: OnMerge) -> int:
    """Until no block job runs on the disk. Returns the bytes that were left when it was seen last."""
    stall, left = Stall(budget_s), merge_space.growth_bytes(link)
    while job is not None:
        if not job.is_commit:
            raise _impossible(guest, link, "another block job runs on the disk")
        fault: StillpointError | None = None
        if job.total_bytes > 0:
            stall.note(job.total_bytes - job.done_bytes)
            left = min(job.total_bytes - job.done_bytes, merge_space.growth_bytes(link))
            fault = merge_space.why_not_enough(link, left)
            _tell(guest, link.target, job, on_progress)
        if stall.is_over:
            fault = MergeTimedOut(target=link.target, budget_s=budget_s)
        if fault is not None:
            guest.stop_merge(link.target)
            raise fault
        time.sleep(POLL_S)
        job = guest.commits.job(link.target)
    return left


def _tell(guest: Guest, target: str, job: BlockJob, on_progress: OnMerge) -> None:
    try:
        on_progress(target, job.done_bytes, job.total_bytes)
    except JobCancelled:
        guest.stop_merge(target)
        raise


def _is_out(guest: Guest, link: Overlay) -> bool:
    """libvirt answers that no job runs a moment before it takes the file out of the chain."""
    until = time.monotonic() + SETTLE_S
    while link.path in chain_of(guest, link.target):
        if time.monotonic() > until:
            return False
        time.sleep(POLL_S)
    return True


# --- a domain that is off ---------------------------------------------------------------------------


def _merge_at_rest(guest: Guest, link: Overlay, merge: Merge, budget_s: float, on_progress: OnMerge) -> None:
    chain = chain_of(guest, link.target)
    if link.path not in chain:
        return
    at = chain.index(link.path)
    if at == 0 or chain[at + 1 : at + 2] != [link.base]:
        raise _impossible(guest, link, f"{link.path} is not below the active file and right above {link.base}: the disk is on {chain}")
    _forget_checkpoints(guest, link, merge)
    commit(guest, link, budget_s, on_progress)
    _stand_on_base(guest, link, chain[at - 1])


def _forget_checkpoints(guest: Guest, link: Overlay, merge: Merge) -> None:
    """qemu-img takes no bitmap along. One that began in the file that goes would look whole in the files above, and would not have what
    was written to the file that goes. Without libvirt's record of the checkpoint the next backup does not trust the bitmap.
    """
    names = guest.checkpoints.names()
    if foreign := [name for name in names if not is_ours(name)]:
        raise _impossible(guest, link, f"the domain is off and has checkpoints of another tool ({', '.join(foreign)}): start it first")
    for name in names:
        guest.checkpoints.delete(name, metadata_only=True)
        _logger.warning("checkpoint_forgotten", domain=guest.name, checkpoint=name)
        merge.broken_checkpoints.append(name)


def _stand_on_base(guest: Guest, link: Overlay, above: str) -> None:
    """The file above names the base as the file below it. One write of its header: it names the one or the other, whatever dies."""
    command = [QEMU_IMG, "rebase", "-q", "-u", "-f", "qcow2", "-b", link.base, "-F", link.base_format, above]

    def run() -> "subprocess.CompletedProcess[str]":
        limit_s = QEMU_IMG_TIMEOUT_S
        return subprocess.run(command, check=False, capture_output=True, text=True, errors="replace", timeout=limit_s)

    try:
        ended = bounded_io.translated_call("qemu-img rebase", Path(above), run, QEMU_IMG_TIMEOUT_S + 5.0)
    except subprocess.TimeoutExpired as error:
        raise _impossible(guest, link, f"qemu-img rebase of {above} did not end") from error
    if ended.returncode:
        raise _impossible(guest, link, ended.stderr.strip() or f"qemu-img exited with {ended.returncode}")


# --- both -------------------------------------------------------------------------------------------


def _take_out_of_definition(guest: Guest, link: Overlay) -> None:
    """libvirt does so itself only for what it has merged itself, and not if it dies at that moment."""
    if guest.is_persistent() and link.path in domain_xml.files_of(guest.inactive_xml(), link.target):
        guest.redefine(domain_xml.without_file_below(guest.secure_xml(), link.target, link.path))


def _must_be_out(guest: Guest, link: Overlay) -> None:
    """Neither QEMU, nor the next start, nor a header may need the file: it is deleted after that."""
    disk = next((disk for disk in guest.disks() if disk.target == link.target), None)
    if disk is None:
        raise _impossible(guest, link, "the domain does not have the disk any more")
    if link.path in (disk.source, *disk.chain):
        raise _impossible(guest, link, f"libvirt still names {link.path}")
    if link.path in by_headers(disk):
        raise _impossible(guest, link, f"a file of the disk still stands on {link.path}")
    if guest.is_persistent() and link.path in domain_xml.files_of(guest.inactive_xml(), link.target):
        raise _impossible(guest, link, f"the definition of the next start still names {link.path}")


def _impossible(guest: Guest, link: Overlay, reason: str) -> MergeImpossible:
    return MergeImpossible(domain=guest.name, target=link.target, reason=reason)
