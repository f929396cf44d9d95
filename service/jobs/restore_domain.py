"""Puts a domain on its restored disks, or takes that back. Both can be repeated after any death: each step looks at what is true first."""

import shlex
import time
from collections.abc import Callable, Sequence

from service import log
from service.errors import LibvirtCallFailed, LibvirtUnavailable, RestoredDomainFailed, RestoreRefused, StillpointError
from service.hypervisor.guest import Guest
from service.jobs import restore_files, restore_host
from service.jobs.kind import Host
from service.jobs.restore_intent import RestoreIntent
from service.model import restored_definition
from service.model.repository import RestoreMode
from service.model.restore_plan import Caution

START_TRIES = 3
"""Starts of a domain. A QEMU that was killed in its first moments is started again."""
SETTLE_S = 1.0
"""Seconds for which a domain must run after its start. A QEMU that cannot use its disks ends within them."""
SETTLE_POLL_S = 0.1
"""Seconds between two looks at a domain that was started."""

_logger = log.get(__name__)


def bring_up(intent: RestoreIntent, host: Host) -> Guest:
    """Define the domain with its restored disks, and start it if it shall run. Raises StillpointError: see `take_back`."""
    assert intent.definition is not None
    guest = restore_host.find(host, intent.uuid)
    if guest is None or not _is_on_new_disks(guest, intent):
        if guest is not None and not guest.is_shut_off():
            raise _started_meanwhile(intent)
        _must_be_there(intent)
        if intent.tpm is not None:
            intent.tpm.put_in_place()
        guest = _defined(intent, guest, host)
    if _runs_on_other_disks(guest, intent):
        raise _started_meanwhile(intent)
    if intent.will_start:
        _start(guest)
    return guest


def _must_be_there(intent: RestoreIntent) -> None:
    """A worker may have died while it took the restore back, with the new files removed already. Raises RestoredDomainFailed."""
    gone = [file.path for file in intent.files if not restore_files.is_complete(file)]
    if gone:
        raise RestoredDomainFailed(domain=intent.name, reason=f"{', '.join(gone)} is not there any more", state="The restore is taken back")


def _defined(intent: RestoreIntent, guest: Guest | None, host: Host) -> Guest:
    assert intent.definition is not None
    if guest is not None and intent.mode is RestoreMode.in_place:
        # Their bitmaps are in the old disks: libvirt would look for them in the new ones.
        guest.checkpoints.set_aside()
        _redefine(guest, intent.definition)
        return guest
    if guest is not None:
        raise RestoreRefused(domain=intent.name, reason=f"a domain has the UUID {intent.uuid} already", instead="Ask for a new identity.")
    return host.connection.define(intent.definition)


def _redefine(guest: Guest, definition: str) -> None:
    """The intent keeps no passwords, so they are taken from the definition that libvirt has."""
    guest.redefine(restored_definition.with_storage_of(guest.secure_xml(), definition))


def _is_on_new_disks(guest: Guest, intent: RestoreIntent) -> bool:
    sources = guest.persistent_sources()
    return all(sources.get(file.what) == file.path for file in intent.files if file.what in intent.targets)


def _runs_on_other_disks(guest: Guest, intent: RestoreIntent) -> bool:
    """Another client started the domain before it had its new definition."""
    if guest.is_shut_off():
        return False
    used = {*guest.sources().values(), *(path for paths in restored_definition.files_below(guest.xml()).values() for path in paths)}
    return used.isdisjoint(file.path for file in intent.files if file.what in intent.targets)


def _started_meanwhile(intent: RestoreIntent) -> RestoreRefused:
    reason = "the domain was started meanwhile"
    if intent.tpm is not None and intent.tpm.is_in_place():
        reason += ", with the restored state of its TPM"
        if intent.tpm.had_state:
            reason += f" (the earlier state is in {intent.tpm.old})"
    return RestoreRefused(domain=intent.name, reason=reason, instead="Shut the domain down, and restore again.")


def _start(guest: Guest) -> None:
    """Raises LibvirtCallFailed, RestoredDomainFailed."""
    for _ in range(START_TRIES):
        guest.start()
        if _stays_up(guest):
            return
    raise RestoredDomainFailed(domain=guest.name, reason="its QEMU ended right after each start", state="The domain is off")


def _stays_up(guest: Guest) -> bool:
    deadline = time.monotonic() + SETTLE_S
    while time.monotonic() < deadline:
        if guest.is_shut_off():
            return False
        time.sleep(SETTLE_POLL_S)
    return True


def take_back(intent: RestoreIntent, host: Host) -> list[str]:
    """The domain as before the restore, and none of its new files. Returns the files that could not be removed.

    A domain that another client started meanwhile on its old disks runs on, and its TPM keeps the state that it runs with.
    Raises StillpointError: libvirt does not do it. Then nothing of the new files is removed.
    """
    guest = restore_host.find(host, intent.uuid)
    is_left_alone = guest is not None and intent.mode is RestoreMode.in_place and _runs_on_other_disks(guest, intent)
    if guest is not None:
        if intent.mode is RestoreMode.in_place:
            _put_back(guest, intent, is_left_alone=is_left_alone)
        elif _is_on_new_disks(guest, intent):
            guest.destroy()
            guest.undefine(keep_nvram=False)
    left = restore_files.remove_all(intent, tpm_is_in_use=is_left_alone)
    if guest is not None and intent.mode is RestoreMode.in_place and intent.was_running:
        # Last: a TPM that runs must find its earlier state.
        guest.start()
    return left


def _put_back(guest: Guest, intent: RestoreIntent, *, is_left_alone: bool) -> None:
    assert intent.old_definition is not None
    if _is_on_new_disks(guest, intent):
        if not is_left_alone:
            guest.destroy()
        _redefine(guest, intent.old_definition)
    try:
        guest.checkpoints.put_back(intent.aside)
    except LibvirtCallFailed as error:
        # The next backup is full then. The domain itself is as before.
        _logger.warning("checkpoints_not_put_back", domain=guest.name, reason=error.detail)


def bring_up_or_take_back(intent: RestoreIntent, host: Host) -> tuple[Guest | None, StillpointError | None]:
    """The domain that is up, or None with the reason: then everything is as before. Raises LibvirtUnavailable: neither is known."""
    try:
        return bring_up(intent, host), None
    except LibvirtUnavailable:
        raise
    except StillpointError as error:
        _logger.warning("restore_taken_back", domain=intent.name, reason=error.detail)
        left = take_back(intent, host)
        return None, _taken_back(intent, error, left)


def _taken_back(intent: RestoreIntent, error: StillpointError, left: list[str]) -> StillpointError:
    if isinstance(error, RestoreRefused):
        return error
    state = "The old disks are in place again" if intent.mode is RestoreMode.in_place else "Nothing of it is left"
    if left:
        state += f", but {', '.join(left)} could not be removed"
    return RestoredDomainFailed(domain=intent.name, reason=error.detail.rstrip("."), state=state)


def wait_until_it_ran(guest: Guest, patience_s: float, safe_point: Callable[[], None]) -> bool | None:
    """True: the guest's agent answered within `patience_s`. False: the domain is off. None: not known.

    A QEMU that runs is not evidence: it runs as well when the firmware finds no system on the disk.
    """
    deadline = time.monotonic() + (patience_s if guest.has_agent_channel() else 0.0)
    while time.monotonic() < deadline:
        safe_point()
        if guest.is_shut_off():
            return False
        if guest.agent_is_connected():
            try:
                guest.ping()
            except LibvirtUnavailable:
                raise
            except StillpointError:
                pass
            else:
                return True
        time.sleep(SETTLE_POLL_S)
    return False if guest.is_shut_off() else None


def not_seen_running(name: str, old_files: Sequence[str], *, is_off: bool) -> Caution:
    """What the caller must look at before the old disks can go."""
    detail = f"{name} is off again." if is_off else f"Nothing shows that the guest of {name} has run: no guest agent answered."
    if old_files:
        paths = " ".join(shlex.quote(path) for path in old_files)
        detail += f" The old disks are kept. When the guest is seen to work, remove them on the host: `rm -- {paths}`."
    return Caution("guest_not_seen_running", detail)
