"""Auto-recovery (VSS step 10) and the backup type, derived from the versions of the agent and of Windows (F§6.6).

The agent reports neither, so nothing here is observed. If a fact is missing, the answer is `unknown` and never a default.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.model.windows.agent_generation import AgentGeneration
from service.model.windows.vss_writers import Writer
from service.model.windows.well_known_writers import writer_class

CONTEXT_SERVER = "0x0200002B"
"""VSS_CTX_APP_ROLLBACK | TRANSPORTABLE | NO_AUTORECOVERY | TXF_RECOVERY (F§1.1)."""
CONTEXT_CLIENT = "0x0200000B"
"""The same without TRANSPORTABLE, which only Windows servers have."""


class RecoveryMode(StrEnum):
    not_applicable = "not_applicable"
    unknown = "unknown"
    disabled_by_requester = "disabled_by_requester"
    disabled_requested_support_uncertain = "disabled_requested_support_uncertain"
    unsupported_flag_final_commit_aborted = "unsupported_flag_final_commit_aborted"


class OnRestore(StrEnum):
    not_applicable = "not_applicable"
    recovery_required_at_first_start = "recovery_required_at_first_start"
    unknown = "unknown"
    """The operating system of the guest is unknown."""


class BackupType(StrEnum):
    """VSS_BACKUP_TYPE, as far as the agent can ask for it."""

    full = "full"
    incremental = "incremental"
    differential = "differential"
    log = "log"
    copy = "copy"
    unknown = "unknown"


class VssOptionState(StrEnum):
    present = "present"
    absent = "absent"
    invalid = "invalid"
    """The value exists, but is not a number from 1 to 5. The agent then uses FULL."""
    unreadable = "unreadable"


@dataclass(frozen=True)
class VssOption:
    """The registry value that decides the backup type since QEMU 8.0 (F§1.7)."""

    state: VssOptionState
    value: int | None = None


@dataclass(frozen=True)
class AutoRecovery:
    mode: RecoveryMode
    on_restore: OnRestore
    context: str | None
    detail: str
    #: Writer name to a note about its application, for the person who restores.
    writer_notes: Mapping[str, str]

    def as_document(self) -> dict[str, Any]:
        return {
            "mode": self.mode,
            "source": "derived",
            "on_restore": self.on_restore,
            "context": self.context,
            "detail": self.detail,
            "writers": [{"name": name, "on_restore": note} for name, note in self.writer_notes.items()],
        }


def derive(os: Mapping[str, Any] | None, *, frozen_by_vss: bool, writers: Iterable[Writer] = (), is_windows: bool = False) -> AutoRecovery:
    """`os`: the answer to guest-get-osinfo; None: no answer. `frozen_by_vss`: the agent answered the freeze with a count.

    `is_windows`: known from another source than `os`.
    """
    identifier = (os or {}).get("id")
    if identifier is not None and identifier != "mswindows":
        return AutoRecovery(RecoveryMode.not_applicable, OnRestore.not_applicable, None, _DETAIL[RecoveryMode.not_applicable], {})
    mode = _mode(os, frozen_by_vss)
    context = _context(os) if mode is not RecoveryMode.unknown else None
    detail = _why_unknown(os, frozen_by_vss) if mode is RecoveryMode.unknown else _DETAIL[mode]
    is_known = is_windows or identifier is not None
    on_restore = OnRestore.recovery_required_at_first_start if is_known else OnRestore.unknown
    return AutoRecovery(mode, on_restore, context, detail, _writer_notes(writers))


def backup_type(generation: AgentGeneration, option: VssOption) -> BackupType:
    """FULL before QEMU 8.0, later the value of VssOption. FULL if VssOption is absent or invalid, `unknown` if it could not be read."""
    if generation.has_vss_option is False:
        return BackupType.full
    if option.state is VssOptionState.unreadable:
        return BackupType.unknown
    chosen = _TYPES.get(option.value or 0, BackupType.full) if option.state is VssOptionState.present else BackupType.full
    if generation.has_vss_option is None and chosen is not BackupType.full:
        return BackupType.unknown
    return chosen


def read_vss_option(output: bytes, *, exit_code: int | None, truncated: bool = False) -> VssOption:
    """`reg query … /v VssOption`. Exit code 1: the value does not exist; None: the program did not end."""
    if exit_code == 1:
        return VssOption(VssOptionState.absent)
    match = _VSS_OPTION.search(output)
    if exit_code != 0 or truncated or match is None:
        return VssOption(VssOptionState.unreadable)
    number = _number(*match.groups())
    if number is None:
        return VssOption(VssOptionState.invalid)
    return VssOption(VssOptionState.present if number in _TYPES else VssOptionState.invalid, number)


def _number(kind: bytes, value: bytes) -> int | None:
    """The number as the agent reads it: from a REG_DWORD, or from a REG_BINARY of four bytes (RRF_RT_DWORD). None: another type."""
    match kind.upper():
        case b"REG_DWORD" if _HEX.fullmatch(value):
            return int(value, 16)
        case b"REG_BINARY" if _FOUR_BYTES.fullmatch(value):
            return int.from_bytes(bytes.fromhex(value.decode()), "little")
        case _:
            return None


def kernel_version(os: Mapping[str, Any] | None) -> tuple[int, int] | None:
    """Windows' NT version as numbers: 10.0 is newer than 6.2. The names in osinfo do not identify the release (F§3)."""
    match = re.match(r"([0-9]{1,4})\.([0-9]{1,4})(?![0-9])", str((os or {}).get("kernel-version") or ""))
    return (int(match[1]), int(match[2])) if match else None


_VSS_OPTION = re.compile(rb"VssOption[ \t]+(REG_\w+)[ \t]+([^\r\n]*?)[ \t]*(?:\r|\n)", re.IGNORECASE)
_FOUR_BYTES = re.compile(rb"[0-9a-f]{8}", re.IGNORECASE)
_HEX = re.compile(rb"0x[0-9a-f]{1,8}", re.IGNORECASE)

_TYPES = {1: BackupType.full, 2: BackupType.incremental, 3: BackupType.differential, 4: BackupType.log, 5: BackupType.copy}

_DETAIL = {
    RecoveryMode.not_applicable: "The guest is not Windows: VSS and its auto-recovery do not exist in it.",
    RecoveryMode.disabled_by_requester: "The guest agent asks VSS for a copy without auto-recovery, so step 10 does not run. "
    "Applications recover when they first start from the restored disks.",
    RecoveryMode.disabled_requested_support_uncertain: "The guest agent asks for a copy without auto-recovery, and sources disagree "
    "whether this Windows supports that. VSS may have aborted the copy after the writes were held, which the agent hides.",
    RecoveryMode.unsupported_flag_final_commit_aborted: "This Windows does not support copies without auto-recovery. VSS aborts the copy "
    "after the writes were held, and tells its writers that the backup failed.",
}


def _mode(os: Mapping[str, Any] | None, frozen_by_vss: bool) -> RecoveryMode:
    nt = kernel_version(os)
    if os is None or os.get("id") is None or nt is None or not frozen_by_vss:
        return RecoveryMode.unknown
    if nt >= (6, 2) or (nt == (6, 1) and _variant(os) == "server"):
        return RecoveryMode.disabled_by_requester
    if nt >= (6, 0):
        return RecoveryMode.disabled_requested_support_uncertain
    return RecoveryMode.unsupported_flag_final_commit_aborted


def _why_unknown(os: Mapping[str, Any] | None, frozen_by_vss: bool) -> str:
    if not frozen_by_vss:
        return "The guest was not frozen through VSS, so its recovery is unknown."
    missing = "the operating system" if (os or {}).get("id") is None else "the kernel version"
    return f"The guest agent did not report {missing}, so the mode cannot be derived."


def _context(os: Mapping[str, Any] | None) -> str | None:
    return {"server": CONTEXT_SERVER, "client": CONTEXT_CLIENT}.get(_variant(os))


def _variant(os: Mapping[str, Any] | None) -> str:
    return str((os or {}).get("variant-id") or "")


def _writer_notes(writers: Iterable[Writer]) -> dict[str, str]:
    return {writer.name: note for writer in writers if (note := writer_class(writer.class_id).restore_note) is not None}
