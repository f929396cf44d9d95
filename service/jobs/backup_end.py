"""After the copy of a backup, or in place of it: the overlays are merged back, and checkpoints that nobody needs are deleted."""

from collections.abc import Sequence
from typing import Protocol

from service import log
from service.disks import bitmaps
from service.disks.merging import Merge, OnMerge, nobody
from service.disks.putting_back import put_back
from service.errors import DomainGone, LibvirtCallFailed, LibvirtUnavailable, MergeUnfinished, StillpointError
from service.hypervisor.checkpoints import is_ours, prefix_of
from service.hypervisor.guest import Guest
from service.jobs.backup_plan import bitmap_by_libvirt
from service.jobs.guest_watch import resume_after_error
from service.jobs.merge_progress import MergeProgress
from service.jobs.run import JobRun, MustRecover
from service.model.backup_level import BitmapState
from service.model.intent import Overlay
from service.model.lifecycle import PhaseName
from service.records import unmerged

_logger = log.get(__name__)


class Way(Protocol):
    """How overlays are merged into the files below them."""

    def __call__(self, guest: Guest, taken: Sequence[Overlay], /, *, on_progress: OnMerge) -> Merge: ...


def merge_all(guest: Guest, overlays: Sequence[Overlay], on_progress: OnMerge = nobody, *, way: Way = put_back) -> Merge:
    """Raises MustRecover if libvirt went away: recovery then continues. `on_progress`: see `merge_back`.

    A guest that had no space left is continued, as the space of its overlays is free again.
    """
    try:
        merge = _merge(guest, overlays, on_progress, way)
        merge.leaves_guest_paused = not _continue(guest)
        return merge
    except LibvirtUnavailable as error:
        raise MustRecover(what=error.detail) from error
    except DomainGone as error:
        return Merge(was_begun=True, errors={overlay.target: error for overlay in overlays})


def merge_what_was_left(run: JobRun, guest: Guest) -> None:
    """Overlays that an earlier backup could not merge back would otherwise stay below the new ones for ever. Raises MergeUnfinished."""
    left = run.in_transaction(lambda session: unmerged.overlays_left(session, guest.uuid))
    if not left:
        return
    sources = guest.persistent_sources() if guest.is_shut_off() else guest.sources()
    mine = [overlay for overlay in left if sources.get(overlay.target) == overlay.path]
    if not mine:
        return
    with run.phase(PhaseName.merge) as phase:
        merge = merge_all(guest, mine, MergeProgress(run, PhaseName.merge))
        if merge.errors:
            raise MergeUnfinished(domain=guest.name, disks=", ".join(merge.errors), why=merge.message)
        if left_to_tell := remarks(merge):
            phase.warn("; ".join(left_to_tell))


def _merge(guest: Guest, overlays: Sequence[Overlay], on_progress: OnMerge, way: Way) -> Merge:
    try:
        broken = forget_broken_checkpoints(guest)
    except LibvirtCallFailed as error:
        # A merge now could make a broken bitmap look whole. The overlays stay, the job says so, and the guest is continued.
        return Merge(errors={overlay.target: error for overlay in overlays})
    merge = way(guest, overlays, on_progress=on_progress)
    merge.broken_checkpoints += broken
    return merge


def remarks(merge: Merge) -> list[str]:
    """In words, what a merge without an error leaves to tell."""
    broken = [f"checkpoint {name} had a broken bitmap and was removed: the next backup copies in full" for name in merge.broken_checkpoints]
    return [*(left.detail for left in merge.left), *broken]


def _continue(guest: Guest) -> bool:
    """At once, and whatever the job ends with: nothing that waits for a repository may come before it.

    False: an I/O error has paused the guest, and pauses it again.
    """
    try:
        if not resume_after_error(guest):
            _logger.error("guest_still_paused", domain=guest.name)
            return False
    except LibvirtUnavailable:
        raise
    except StillpointError as error:
        # It was shut off or moved meanwhile.
        _logger.warning("guest_not_continued", domain=guest.name, reason=error.detail)
    return True


def forget_broken_checkpoints(guest: Guest) -> list[str]:
    """Before a merge: a bitmap that is broken in the overlay looks whole in the file below, and did not record what the overlay holds.

    libvirt sees that while the overlay is there. Without libvirt's record of the checkpoint the next backup does not trust the bitmap.
    A domain that is shut off is merged by qemu-img, which records in the bitmaps below what it writes there. Returns their names.
    """
    broken: list[str] = []
    if guest.is_shut_off():
        return broken
    for name in guest.checkpoints.names():
        if is_ours(name) and bitmap_by_libvirt(guest, name)[0] is not BitmapState.whole:
            guest.checkpoints.delete(name, metadata_only=True)
            _logger.warning("checkpoint_broken", domain=guest.name, checkpoint=name)
            broken.append(name)
    return broken


def delete_older_checkpoints(guest: Guest, repository_id: str, keep: str | None) -> list[str]:
    """At most one checkpoint of a repository stays on a domain: that of its last sealed point. Those of others are not touched.

    Returns, in words, what could not be deleted. The next backup tries again.
    """
    if keep is None:
        # The point has no checkpoint, as its domain was off. An older one costs little, and libvirt deletes none of such a domain.
        return []
    left = []
    try:
        for name in guest.checkpoints.names():
            if name.startswith(prefix_of(repository_id)) and name != keep:
                left += _delete(guest, name)
    except (LibvirtCallFailed, DomainGone) as error:
        left.append(error.detail)
    return left


def delete_checkpoint(guest: Guest, name: str | None) -> None:
    """One that no point has. Nothing depends on it, so an error is only logged."""
    if name is None:
        return
    try:
        deleted = guest.checkpoints.delete(name)
        if not deleted.bitmap_is_gone:
            _logger.warning("bitmap_left", domain=guest.name, checkpoint=name, reason=deleted.reason)
    except LibvirtUnavailable as error:
        raise MustRecover(what=error.detail) from error
    except StillpointError as error:
        _logger.warning("checkpoint_left", domain=guest.name, checkpoint=name, reason=error.detail)


def remove_bitmaps(guest: Guest, overlays: Sequence[Overlay], name: str | None) -> list[str]:
    """After the merge: the bitmap of a checkpoint that no point has. libvirt deletes none of a domain that is off. Returns what stays."""
    if name is None or not guest.is_shut_off():
        return []
    bases = [overlay.base for overlay in overlays if overlay.base_format == "qcow2"]
    return [f"the bitmap {name} stays in {base}: {why}" for base in bases if (why := bitmaps.remove(base, name)) is not None]


def _delete(guest: Guest, name: str) -> list[str]:
    if guest.is_shut_off():
        return [f"checkpoint {name} stays until the next backup of the running domain, as libvirt deletes none of a domain that is off"]
    deleted = guest.checkpoints.delete(name)
    return [] if deleted.bitmap_is_gone or deleted.reason is None else [f"checkpoint {name}: {deleted.reason}"]
