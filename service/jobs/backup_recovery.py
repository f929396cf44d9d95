"""A backup whose worker died: continue with the copy, or put everything back and try again."""

from dataclasses import replace

from service.disks.whereabouts import Whereabouts
from service.errors import BackupNotUndone, DisksInDoubt, MergeUnfinished, PointLost, StillpointError
from service.hypervisor.guest import Guest
from service.jobs import backup_end, interrupted_disks
from service.jobs.backup_folder import BackupFolder
from service.jobs.kind import LostJob, Resolution
from service.jobs.run import MustRecover
from service.model import story
from service.model.backup_intent import BackupIntent, Stage
from service.model.intent import Intent
from service.model.verdict import Judgement, disks_in_doubt, no_point
from service.records import queue

NOT_COPIED = "The point was taken, and was given up before it was in the repository."


def settle(lost: LostJob, folder: BackupFolder) -> Resolution:
    """Raises LibvirtUnavailable: then nothing is decided."""
    resolution = _settled(lost, folder)
    if resolution.continues_with is None:
        folder.remove()
    return resolution


def _settled(lost: LostJob, folder: BackupFolder) -> Resolution:
    own = BackupIntent.of(lost.intent)
    if lost.guest is None:
        return _without_guest(lost, own)
    try:
        return _settle(lost, lost.guest, own, folder)
    except MustRecover as error:
        assert isinstance(error.__cause__, StillpointError)
        raise error.__cause__ from error


def _settle(lost: LostJob, guest: Guest, own: BackupIntent | None, folder: BackupFolder) -> Resolution:
    if own is None:
        return interrupted_disks.settle(lost, guest)
    interrupted_disks.put_checkpoints_back(lost.intent, guest)
    match own.stage:
        case Stage.taking:
            return _taking(lost, guest, own)
        case Stage.transfer:
            return _transfer(lost, guest, own, folder)
        case Stage.merge:
            return _merge(lost, guest)
        case Stage.undo:
            return _undo(lost, guest, own, None)


def _without_guest(lost: LostJob, own: BackupIntent | None) -> Resolution:
    """The domain is on another host now, or undefined. Its files may be in use there, and are not touched."""
    if own is not None and own.stage is Stage.merge:
        lost.story.append(story.SEALED_BEFORE)
        return Resolution()
    return Resolution(judgement=no_point())


def _taking(lost: LostJob, guest: Guest, own: BackupIntent) -> Resolution:
    where = Whereabouts.of(guest, lost.intent.overlays)
    if where.is_untouched:
        backup_end.delete_checkpoint(guest, own.checkpoint)
        return interrupted_disks.settle(lost, guest)
    if where.elsewhere or where.behind or not where.is_switched:
        return interrupted_disks.settle(lost, guest)
    lost.story.append(story.NOT_JUDGED_POINT)
    return _undo(lost, guest, own, None)


def _transfer(lost: LostJob, guest: Guest, own: BackupIntent, folder: BackupFolder) -> Resolution:
    """The copy continues as long as every disk is on its overlay, and nobody writes into the files below."""
    where = Whereabouts.of(guest, lost.intent.overlays)
    if where.behind or where.elsewhere:
        lost.story.append(story.IN_DOUBT)
        error = DisksInDoubt(domain=guest.name, switched=", ".join(where.live), unswitched=", ".join(where.elsewhere))
        return Resolution(error=error, judgement=disks_in_doubt())
    merging = [overlay.target for overlay in lost.intent.overlays if guest.is_shut_off() is False and guest.mirror(overlay.target)]
    if not where.is_switched or merging:
        lost.story.append(story.POINT_GONE)
        reason = "the disks are on the files below" if not merging else f"another client merges {', '.join(merging)}"
        return _undo(lost, guest, own, PointLost(domain=guest.name, reason=reason))
    if folder.is_given_up or not _may_continue(lost):
        lost.story.append(story.COPY_GIVEN_UP)
        return _undo(lost, guest, own, None)
    lost.story.append(story.COPY_CONTINUES)
    return Resolution(is_tried_again=True, continues_with=lost.intent)


def _merge(lost: LostJob, guest: Guest) -> Resolution:
    lost.story.append(story.SEALED_BEFORE)
    if _may_continue(lost):
        return Resolution(is_tried_again=True, continues_with=lost.intent)
    merge = backup_end.merge_all(guest, lost.intent.overlays)
    if merge.errors:
        return Resolution(error=MergeUnfinished(domain=guest.name, disks=", ".join(merge.errors), why=merge.message))
    lost.story.append(story.MERGED_BACK)
    return Resolution()


def _undo(lost: LostJob, guest: Guest, own: BackupIntent, error: StillpointError | None) -> Resolution:
    """Nothing is left on the guest's disks, and the backup is tried again from its beginning. The unfinished folder is swept later."""
    backup_end.delete_checkpoint(guest, own.checkpoint)
    # Committed first: a merge writes into the files below.
    _note(lost, replace(own, stage=Stage.undo))
    merge = backup_end.merge_all(guest, lost.intent.overlays)
    if merge.errors:
        why = {"domain": guest.name, "disks": ", ".join(merge.errors), "why": merge.message}
        return Resolution(error=BackupNotUndone(**why, after=" ".join(lost.story)), judgement=_given_up())
    backup_end.remove_bitmaps(guest, lost.intent.overlays, own.checkpoint)
    lost.story.append(story.MERGED_BACK)
    return Resolution(is_tried_again=True, error=error, judgement=_given_up(), was_rolled_back=True)


def _note(lost: LostJob, own: BackupIntent) -> None:
    intent = Intent(overlays=lost.intent.overlays, own=own.as_document())
    lost.in_transaction(lambda session: queue.note_interrupted(session, lost.job.id, {"intent": intent.as_document()}))


def _given_up() -> Judgement:
    return no_point("copy_failed", NOT_COPIED)


def _may_continue(lost: LostJob) -> bool:
    return lost.job.attempt < lost.job.max_attempts and not lost.job.cancel_requested
