"""What becomes of a restore whose worker died. Before the domain was switched, its new files are removed; after that it is completed."""

from dataclasses import replace

from service.errors import StillpointError
from service.jobs import restore_domain, restore_files, restore_host
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.restore_intent import RestoreIntent, Stage
from service.model import story
from service.model.repository import RestoreMode


def recover(lost: LostJob, host: Host) -> Resolution:
    """Raises LibvirtUnavailable: then it is asked again later."""
    intent = RestoreIntent.of(lost.intent)
    if intent is None:
        lost.story.append(story.NOTHING_MADE)
        return Resolution(is_tried_again=True)
    match intent.stage:
        case Stage.again | Stage.write:
            return _removed(lost, intent)
        case Stage.stop:
            guest = restore_host.find(host, intent.uuid)
            return _removed(lost, intent) if guest is None or not guest.is_shut_off() else _completed(lost, intent, host)
        case Stage.define:
            return _completed(lost, intent, host)
        case Stage.flatten | Stage.conclude:
            return _continued(lost, intent)


def _removed(lost: LostJob, intent: RestoreIntent) -> Resolution:
    left = restore_files.remove_all(intent)
    lost.story.append(story.RESTORE_NOT_REMOVED.format(paths=", ".join(left)) if left else story.RESTORE_REMOVED)
    if not intent.was_running:
        return Resolution(is_tried_again=True)
    # The domain may be on its way down, because this attempt told it to. It is not a domain that a person had switched off.
    again = replace(intent, stage=Stage.again, files=(), images=(), tpm=None)
    return Resolution(is_tried_again=True, continues_with=again.as_intent())


def _completed(lost: LostJob, intent: RestoreIntent, host: Host) -> Resolution:
    guest, error = restore_domain.bring_up_or_take_back(intent, host)
    if guest is not None:
        return _continued(lost, intent.at(Stage.flatten if intent.mode is RestoreMode.instant else Stage.conclude))
    assert isinstance(error, StillpointError)
    lost.story.append(story.RESTORE_TAKEN_BACK.format(why=error.detail))
    return Resolution(error=error)


def _continued(lost: LostJob, intent: RestoreIntent) -> Resolution:
    """The next attempt has little to do, and nothing of the restore can be lost any more."""
    lost.story.append(story.RESTORE_FLATTENS if intent.stage is Stage.flatten else story.RESTORE_COMPLETED)
    return Resolution(is_tried_again=True, continues_with=intent.as_intent())
