"""What the agent's replies to freeze and thaw mean on Windows (F§1.1, F§1.2, F§6.4).

Texts are matched by substring: they end in ": ", in a localised suffix or, since QEMU 10.2, in a code (F§1.6).
"""

import re
from dataclasses import dataclass, replace
from enum import StrEnum

from service.errors import VssNotUsable
from service.model.window import FreezeOutcome, ThawOutcome, WindowRecord

MAX_VOLUMES = 64
"""A shadow copy set holds no more volumes (F§5.1); the agent returns noise when there is no fixed volume (F§1.1)."""

RETRY_PAUSE_S = 600.0
"""Seconds before a job is repeated: Microsoft's advice for transient failures is ten minutes (F§5.2)."""
RETRIES = 3
"""Microsoft's advice for transient failures: repeat up to three times (F§5.2). After that no job follows."""

BEFORE_VSS = 0
"""In place of a step: the agent failed or refused before it asked VSS for anything."""

NtVersion = tuple[int, int]


class VssOutcome(StrEnum):
    completed = "completed"
    lost = "lost"
    """Nothing was left to thaw: the agent restarted, or another client thawed."""
    hold_writes_timeout = "hold_writes_timeout"
    """Windows released the writes before the thaw."""
    provider_error = "provider_error"
    failed = "failed"
    complete_failed = "complete_failed"
    """The hold was good, and BackupComplete failed after it."""
    unknown = "unknown"
    """The thaw was not answered."""
    not_frozen = "not_frozen"


class VssDoubt(StrEnum):
    """Why `completed` may be wrong."""

    aborted_and_ignored = "aborted_and_ignored"
    """Windows up to NT 6.1 may abort the set, and the agent ignores that (F§1.2)."""
    windows_version_unknown = "windows_version_unknown"


@dataclass(frozen=True)
class VssReading:
    """`guest_thawed` and `hold_held` None: not known."""

    outcome: VssOutcome
    guest_thawed: bool | None
    hold_held: bool | None
    detail: str
    hresult: int | None = None
    is_transient: bool = False
    doubt: VssDoubt | None = None


@dataclass(frozen=True)
class FreezeFailure:
    """`step`: the step of VSS that failed, of ten, or BEFORE_VSS. None: not known."""

    code: str
    step: int | None
    is_transient: bool
    detail: str
    remedy: str
    hresult: int | None = None


def count_is_absurd(count: int | None) -> bool:
    """Whether a freeze count is impossible. Such a freeze is refused, and the guest is thawed (F§6.1)."""
    return count is None or not 0 < count <= MAX_VOLUMES


def read_window(window: WindowRecord, nt: NtVersion | None) -> VssReading:
    """The VSS outcome of a window. `nt`: the kernel version; None: guest-get-osinfo did not report a version."""
    freeze, thaw = window.freeze, window.thaw
    if freeze.outcome is FreezeOutcome.unanswered:
        return VssReading(VssOutcome.unknown, _thawed(thaw.outcome), None, "The freeze was not answered.")
    if freeze.outcome is not FreezeOutcome.frozen or count_is_absurd(freeze.count):
        return VssReading(VssOutcome.not_frozen, _thawed(thaw.outcome), False, "VSS did not freeze the guest.")
    match thaw.outcome:
        case ThawOutcome.completed:
            return _completed(thaw.count, nt)
        case ThawOutcome.count_differs | ThawOutcome.lost:
            return _lost(
                f"The thaw answered {thaw.count} after a freeze of {freeze.count}, so another thaw came before the end of the hold."
            )
        case ThawOutcome.refused | ThawOutcome.hook_failed:
            return read_thaw_error(thaw.message or "")
        case ThawOutcome.unanswered | ThawOutcome.not_needed:
            return VssReading(VssOutcome.unknown, None, None, "The thaw was not answered, so the guest may still be frozen.")


def _thawed(outcome: ThawOutcome) -> bool | None:
    return None if outcome in (ThawOutcome.unanswered, ThawOutcome.not_needed) else True


# --- thaw -----------------------------------------------------------------------------------------


def read_thaw_error(message: str) -> VssReading:
    """An error that the agent *answered*. The guest is thawed in any case (F§0.2)."""
    code = hresult_in(message)
    for text, outcome, held, detail in _THAW_TEXTS:
        if text in message:
            return _thaw_failure(outcome, held, detail, code)
    by_code = _THAW_CODES.get(code) if code is not None else None
    if by_code is not None:
        return _thaw_failure(*by_code, code)
    return _thaw_failure(VssOutcome.failed, None, "VSS ended the shadow copy with an error.", code)


_RELEASED = "Windows released the writes before the thaw: the hold lasted longer than the 10 s that Windows allows."
_PROVIDER_FAILED = "The agent's VSS provider failed while the writes were held."

_THAW_TEXTS: tuple[tuple[str, VssOutcome, bool | None, str], ...] = (
    ("couldn't hold writes", VssOutcome.hold_writes_timeout, False, _RELEASED),
    ("unexpected error in VSS provider", VssOutcome.provider_error, None, _PROVIDER_FAILED),
    ("failed to complete backup", VssOutcome.complete_failed, True, "The hold was good, and BackupComplete failed after it."),
    ("failed to do snapshot set", VssOutcome.failed, None, "VSS did not finish the shadow copy."),
    ("Did you freeze the volumes?", VssOutcome.lost, False, "The agent had no freeze to end."),
)

_THAW_CODES: dict[int, tuple[VssOutcome, bool | None, str]] = {
    0x80042314: (VssOutcome.hold_writes_timeout, False, _RELEASED),
    0x8004230F: (VssOutcome.provider_error, None, _PROVIDER_FAILED),
}


def _thaw_failure(outcome: VssOutcome, held: bool | None, detail: str, code: int | None) -> VssReading:
    transient = outcome in (VssOutcome.hold_writes_timeout, VssOutcome.provider_error) or code in TRANSIENT_CODES
    return VssReading(outcome, True, held, detail, code, is_transient=transient)


def _lost(detail: str) -> VssReading:
    return VssReading(VssOutcome.lost, True, None, detail, is_transient=True)


def _completed(count: int | None, nt: NtVersion | None) -> VssReading:
    detail = f"VSS held the writes of {count} volume(s) until the thaw and completed."
    if nt is None:
        doubt, detail = VssDoubt.windows_version_unknown, f"{detail} The Windows version could not be read."
    elif nt <= (6, 1):
        doubt, detail = VssDoubt.aborted_and_ignored, f"{detail} On this Windows VSS may have aborted at the end, which the agent hides."
    else:
        doubt = None
    return VssReading(VssOutcome.completed, True, True, detail, doubt=doubt)


# --- freeze ---------------------------------------------------------------------------------------

_CODE = re.compile(r"0x(8[0-9a-f]{7})", re.IGNORECASE)

_E_FAIL = 0x80004005

TRANSIENT_CODES = frozenset(
    {
        0x80042306,  # PROVIDER_VETO
        0x8004230F,  # UNEXPECTED_PROVIDER_ERROR
        0x80042313,  # FLUSH_WRITES_TIMEOUT
        0x80042314,  # HOLD_WRITES_TIMEOUT
        0x80042316,  # SNAPSHOT_SET_IN_PROGRESS
        0x800423F1,  # WRITERERROR_OUTOFRESOURCES
        0x800423F2,  # WRITERERROR_TIMEOUT
        0x800423F3,  # WRITERERROR_RETRYABLE
    }
)


def hresult_in(message: str) -> int | None:
    """The Windows error code in a text, as QEMU 10.2 and later write it."""
    match = _CODE.search(message)
    return int(match[1], 16) if match else None


def read_freeze_error(message: str) -> FreezeFailure:
    """An error that the agent answered to a freeze. The agent has aborted, and nothing is frozen (F§1.1)."""
    code = hresult_in(message)
    failure = next((failure for text, failure in _FREEZE_TEXTS if text in message), _UNKNOWN_FAILURE)
    # E_FAIL replaces the real code (F§1.1), so the text decides then.
    transient = failure.is_transient if code in (None, _E_FAIL) else code in TRANSIENT_CODES
    return replace(failure, is_transient=transient, hresult=code)


_SEE_WRITERS = "Run `vssadmin list writers` in the guest and restart the service of the writer that failed."
_SEE_VSS = "Check in the guest that the services VSS and COM+ Event System run, and read the Application event log."
_LESS_LOAD = "Repeat the job in ten minutes, up to three times. Take the backup when the guest writes less."

_UNKNOWN_FAILURE = FreezeFailure("vss_freeze_failed", None, False, "The agent could not freeze the guest.", _SEE_VSS)

_FREEZE_TEXTS = (
    (
        "fsfreeze not possible as VSS failed to initialize",
        FreezeFailure(
            "vss_not_usable",
            BEFORE_VSS,
            False,
            "The agent could not load VSS.",
            VssNotUsable.remedy_template,
        ),
    ),
    (
        "this feature or command is not currently supported",
        FreezeFailure("vss_not_usable", BEFORE_VSS, False, "The agent could not load VSS.", VssNotUsable.remedy_template),
    ),
    ("failed to create event", FreezeFailure("vss_setup_failed", BEFORE_VSS, False, "The agent could not prepare for VSS.", _SEE_VSS)),
    (
        "has been disabled",
        FreezeFailure(
            "agent_refused_freeze",
            BEFORE_VSS,
            False,
            "The agent does not accept the command. The command is blocked, VSS is not usable, or the guest is frozen already.",
            "Ask the agent for guest-fsfreeze-status and guest-info; allow the command, or repair VSS in the guest.",
        ),
    ),
    ("failed to create VSS backup components", FreezeFailure("vss_setup_failed", 1, False, "VSS could not be started.", _SEE_VSS)),
    ("failed to initialize for backup", FreezeFailure("vss_setup_failed", 1, False, "VSS could not be started.", _SEE_VSS)),
    ("failed to set backup state", FreezeFailure("vss_setup_failed", 1, False, "VSS refused the kind of backup.", _SEE_VSS)),
    ("failed to set backup context", FreezeFailure("vss_setup_failed", 1, False, "VSS refused the kind of shadow copy.", _SEE_VSS)),
    ("failed to gather writer metadata", FreezeFailure("vss_writers_unreachable", 1, False, "VSS could not ask its writers.", _SEE_VSS)),
    (
        "failed to get writer metadata",
        FreezeFailure("vss_writer_metadata_failed", 2, False, "A writer did not describe itself.", _SEE_WRITERS),
    ),
    (
        "failed to get identity of writer",
        FreezeFailure("vss_writer_metadata_failed", 2, False, "A writer did not describe itself.", _SEE_WRITERS),
    ),
    (
        "failed to get file counts of",
        FreezeFailure("vss_writer_metadata_failed", 2, False, "A writer did not describe itself.", _SEE_WRITERS),
    ),
    ("failed to get component", FreezeFailure("vss_writer_metadata_failed", 2, False, "A writer did not describe itself.", _SEE_WRITERS)),
    (
        "failed to add component",
        FreezeFailure("vss_writer_metadata_failed", 2, False, "A writer's component could not be added.", _SEE_WRITERS),
    ),
    (
        "failed to start snapshot set",
        FreezeFailure(
            "vss_other_requester",
            2,
            True,
            "VSS could not begin a shadow copy. The usual cause is another backup that runs in the guest.",
            "Wait until the other backup (Windows Server Backup, an agent of a backup tool) has ended, and repeat the job.",
        ),
    ),
    (
        "failed to find first volume",
        FreezeFailure("vss_no_volume", 2, False, "The agent saw no volume.", "Check in the guest that its disks are online."),
    ),
    (
        " to snapshot set",
        FreezeFailure(
            "vss_volume_refused",
            2,
            False,
            "VSS refused a volume.",
            "The message names the volume. VSS needs a local fixed NTFS or ReFS volume, and the agent's VSS provider must be registered.",
        ),
    ),
    ("failed to prepare for backup", FreezeFailure("vss_prepare_failed", 3, False, "The writers could not prepare.", _SEE_WRITERS)),
    ("failed to gather writer status", FreezeFailure("vss_prepare_failed", 4, False, "VSS could not ask its writers.", _SEE_WRITERS)),
    (
        "timeout when try to receive Frozen event",
        FreezeFailure("vss_freeze_timeout", 5, True, "VSS did not freeze within the agent's time limit.", _LESS_LOAD),
    ),
    (
        "couldn't receive Frozen event",
        FreezeFailure("vss_freeze_timeout", 5, True, "VSS did not freeze within the agent's time limit.", _LESS_LOAD),
    ),
    (
        "DoSnapshotSet exited without Frozen event",
        FreezeFailure("vss_freeze_aborted", 5, True, "VSS ended before the guest was frozen.", f"{_SEE_WRITERS} {_LESS_LOAD}"),
    ),
    ("failed to do snapshot set", FreezeFailure("vss_freeze_aborted", 5, False, "VSS could not begin to freeze.", _SEE_WRITERS)),
)
