"""Brings the disks of a domain back from their overlays to the files below, whether the domain runs or is shut off."""

import os
import subprocess
import time
import xml.etree.ElementTree as ET
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from service import bounded_io
from service.disks import guest_data, merge_space, overlays
from service.disks.image_users import why_not_unused
from service.disks.merging import BUDGET_S, POLL_S, Merge, MergeImpossible, MergeTimedOut, OnMerge, Stall, merge_back, nobody
from service.disks.overlay_file import QEMU_IMG
from service.errors import LibvirtUnavailable, OverlaysLeft, StillpointError
from service.hypervisor.guest import Guest
from service.model.domain_xml import with_sources
from service.model.intent import Overlay

KILL_S = 2.0
"""Seconds that a killed qemu-img has to end."""
ROUNDS = 3
"""Tries. A domain may be started or shut off while its disks are brought back, and then the other way is the right one."""


def put_back(guest: Guest, taken: Sequence[Overlay], *, budget_s: float = BUDGET_S, on_progress: OnMerge = nobody) -> Merge:
    """Every disk that can be brought back is. The others continue with their overlays, and `errors` says why.

    Nothing of the guest's data is lost in any case, and a repeated call continues. Raises LibvirtUnavailable.
    """
    merge = Merge(was_begun=True)
    left = list(taken)
    for _ in range(ROUNDS):
        was_off = guest.is_shut_off()
        if was_off:
            part = _merge_at_rest(guest, left, budget_s, on_progress)
        else:
            part = merge_back(guest, left, was_begun=True, budget_s=budget_s, on_progress=on_progress)
        merge.merged += part.merged
        merge.left += part.left
        merge.errors = part.errors
        left = [overlay for overlay in left if overlay.target in part.errors]
        if not left or guest.is_shut_off() is was_off:
            break
    return merge


def _merge_at_rest(guest: Guest, taken: Sequence[Overlay], budget_s: float, on_progress: OnMerge) -> Merge:
    merge = Merge(was_begun=True)
    for overlay in taken:
        try:
            _merge_one_at_rest(guest, overlay, budget_s, on_progress)
            merge.merged.append(overlay.target)
        except LibvirtUnavailable:
            raise
        except StillpointError as error:
            merge.errors[overlay.target] = error
            continue
        try:
            overlays.remove([overlay], were_merged=True)
        except OverlaysLeft as error:
            merge.left.append(error)
    return merge


def _merge_one_at_rest(guest: Guest, overlay: Overlay, budget_s: float, on_progress: OnMerge) -> None:
    source = guest.persistent_sources().get(overlay.target)
    if overlay.is_in_use(source) is None:
        raise _impossible(guest, overlay, f"the disk is on {source}, and not on {overlay.path}")
    if source == overlay.path:
        commit(guest, overlay, budget_s, on_progress)
        guest.redefine(_on_base(guest.secure_xml(), overlay))
    if guest.persistent_sources().get(overlay.target) != overlay.base:
        raise _impossible(guest, overlay, f"the definition still names {overlay.path}")
    if not guest.is_shut_off() and guest.sources().get(overlay.target) == overlay.path:
        # It was started between the commit and the new definition. The overlay still has all that the guest wrote.
        raise _impossible(guest, overlay, "the domain was started meanwhile, on its overlay")


def commit(guest: Guest, overlay: Overlay, budget_s: float, on_progress: OnMerge) -> None:
    """Write what the guest wrote to the overlay into the file below. The overlay keeps it as well. The domain is off.

    qemu-img holds the locks of both files, so that a QEMU that is started meanwhile is refused and writes nothing.
    """
    path = Path(overlay.path)
    used = bounded_io.translated_call("looking at", path, lambda: why_not_unused(overlay.path, path.lstat()))
    if used is not None:
        raise _impossible(guest, overlay, used)
    if not bounded_io.translated_call("reading the tables of", path, lambda: guest_data.is_in(path)):
        return
    command = [QEMU_IMG, "commit", "-q", "-f", "qcow2", "-b", overlay.base, "-d", overlay.path]
    try:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    except OSError as error:
        raise bounded_io.refusal("qemu-img commit", path, error) from error
    try:
        _wait(process, overlay, budget_s, on_progress)
    except StillpointError:
        _end(process)
        raise
    _, complaint = process.communicate()
    if process.returncode:
        reason = complaint.strip() or f"qemu-img exited with {process.returncode}"
        raise merge_space.why_not_enough(overlay, merge_space.growth_bytes(overlay)) or _impossible(guest, overlay, reason)


def _wait(process: "subprocess.Popen[str]", overlay: Overlay, budget_s: float, on_progress: OnMerge) -> None:
    stall, total = Stall(budget_s), merge_space.allocated_bytes(overlay.path)
    while process.poll() is None:
        moved = _moved(process.pid)
        # Zeroes are written without a byte, so every call counts.
        stall.note(-sum(moved.values()))
        on_progress(overlay.target, min(moved.get("wchar", 0), total), total)
        if stall.is_over:
            raise MergeTimedOut(target=overlay.target, budget_s=budget_s)
        time.sleep(POLL_S)


def _end(process: "subprocess.Popen[str]") -> None:
    """One that waits for a storage that hangs is left behind. It holds the locks of the files until it ends."""
    process.kill()
    if process.stderr is not None:
        process.stderr.close()
    with suppress(subprocess.TimeoutExpired):
        process.wait(KILL_S)


def _moved(pid: int) -> dict[str, int]:
    """What all threads of a process have read and written, as the kernel counts it."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return {}
    return {name: int(number) for name, number in (line.split(": ") for line in lines)}


def _on_base(xml: str, overlay: Overlay) -> str:
    changed = with_sources(xml, {overlay.target: overlay.base}, overlay.base_format)
    if not bounded_io.call("looking at", overlay.base, Path(overlay.base).is_block_device):
        return changed
    root = ET.fromstring(changed)
    for disk in root.iterfind("./devices/disk"):
        target, source = disk.find("target"), disk.find("source")
        if target is not None and target.get("dev") == overlay.target and source is not None:
            disk.set("type", "block")
            source.attrib = {"dev": os.fspath(overlay.base)}
    return ET.tostring(root, encoding="unicode")


def _impossible(guest: Guest, overlay: Overlay, reason: str) -> MergeImpossible:
    return MergeImpossible(domain=guest.name, target=overlay.target, reason=reason)
