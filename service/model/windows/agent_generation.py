"""What an agent's version says about the agent. The version is the number of the *build*, which is not always that of QEMU (F§1.8).

If the version says nothing, the older behaviour is assumed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

Version = tuple[int, ...]

FREEZE_LOOP_MS = 60_000.0
"""Milliseconds that the agent waits until VSS has frozen, since QEMU 6.1.0. Then the freeze fails (F§1.7)."""
FREEZE_LOOP_OLD_MS = 10_000.0
"""The same for agents before QEMU 6.1.0."""


class AgentFamily(StrEnum):
    upstream = "upstream"
    virtio_win = "virtio_win"
    rhev = "rhev"
    ambiguous = "ambiguous"
    """7.2.1 is a build for RHEV of 2015 or QEMU 7.2.1 of 2023."""
    unknown = "unknown"


class DisabledText(StrEnum):
    """How a command is refused while frozen (F§1.4)."""

    for_this_instance = "for_this_instance"
    """≤ 5.2: `… has been disabled for this instance`."""
    frozen_state = "frozen_state"
    """6.0 to 9.0: `… has been disabled: the agent is in frozen state`."""
    not_allowed = "not_allowed"
    """≥ 9.1: the same text as for a command that an administrator blocked."""


@dataclass(frozen=True)
class KnownFault:
    code: str
    detail: str
    remedy: str


@dataclass(frozen=True)
class AgentGeneration:
    """`None`: the version does not say. `qemu_guess`: inferred from the date of the build, for the reader only."""

    version: str | None
    family: AgentFamily
    qemu_guess: str | None
    freeze_loop_ms: float
    has_vss_option: bool | None
    disabled_text: DisabledText
    has_hex_errors: bool
    has_osinfo: bool | None
    faults: tuple[KnownFault, ...]

    def as_document(self) -> dict[str, Any]:
        return {
            "version": self.version,
            "family": self.family,
            "qemu_guess": self.qemu_guess,
            "freeze_loop_ms": self.freeze_loop_ms,
            "has_vss_option": self.has_vss_option,
            "disabled_text": self.disabled_text,
            "has_hex_errors": self.has_hex_errors,
            "has_osinfo": self.has_osinfo,
            "faults": [vars(fault) for fault in self.faults],
        }


def generation_of(version: str | None) -> AgentGeneration:
    """`version`: as guest-info answers; None: guest-info did not answer."""
    numbers = _numbers(version)
    family = _family(numbers)
    build = _Build(family, numbers)
    return AgentGeneration(
        version=version,
        family=family,
        qemu_guess=_qemu_guess(build),
        freeze_loop_ms=FREEZE_LOOP_MS if build.is_since(_FREEZE_60_S) else FREEZE_LOOP_OLD_MS,
        has_vss_option=build.is_since(_VSS_OPTION),
        disabled_text=_disabled_text(build),
        has_hex_errors=bool(build.is_since(_HEX_ERRORS)),
        has_osinfo=build.is_since(_OSINFO),
        faults=tuple(_faults(build)),
    )


# --- families and thresholds ----------------------------------------------------------------------


@dataclass(frozen=True)
class _Since:
    """The first build that has a thing. `rhev`: whether the builds 7.3 to 7.6 have it; None: unclear."""

    upstream: Version
    virtio_win: Version
    rhev: bool | None = False


_OSINFO = _Since((2, 10), (100,), rhev=None)
_HANG_FIXED = _Since((2, 11), (100,), rhev=None)
_NEW_FROZEN_TEXT = _Since((6, 0), (102,))
_FREEZE_60_S = _Since((6, 1), (102,))
_VSS_OPTION = _Since((8, 0), (106,))
_NOT_ALLOWED_TEXT = _Since((9, 1), (109,))
_HEX_ERRORS = _Since((10, 2), (111,))

_RHEV = ((7, 3), (7, 7))
"""QEMU has no versions 7.3 to 7.6, so an agent 7.4.5 is not from QEMU 7.4."""
_AMBIGUOUS = (7, 2, 1)

_VIRTIO_WIN_GUESSES = {
    100: "3.1", 101: "5.0 to 5.2", 102: "6.0 to 6.2", 103: "6.2", 104: "7.0", 105: "7.2", 106: "8.0 to 8.1", 107: "8.2",
    108: "9.0", 109: "9.1 to 9.2", 110: "10.0 to 10.1",
}  # fmt: skip


@dataclass(frozen=True)
class _Build:
    family: AgentFamily
    numbers: Version

    def is_since(self, since: _Since) -> bool | None:
        match self.family:
            case AgentFamily.upstream:
                return self.numbers >= since.upstream
            case AgentFamily.virtio_win:
                return self.numbers >= since.virtio_win
            case AgentFamily.rhev:
                return since.rhev
            case AgentFamily.ambiguous:
                newer = since.upstream <= _AMBIGUOUS
                return newer if newer is since.rhev else None
            case AgentFamily.unknown:
                return None


def _numbers(version: str | None) -> Version:
    match = re.match(r"\s*([0-9]{1,5})\.([0-9]{1,5})(?:\.([0-9]{1,5}))?", version or "")
    return tuple(int(part) for part in match.groups() if part is not None) if match else ()


def _family(numbers: Version) -> AgentFamily:
    if not numbers:
        return AgentFamily.unknown
    if numbers[0] >= 100:
        return AgentFamily.virtio_win
    if _RHEV[0] <= numbers < _RHEV[1]:
        return AgentFamily.rhev
    return AgentFamily.ambiguous if numbers == _AMBIGUOUS else AgentFamily.upstream


def _qemu_guess(build: _Build) -> str | None:
    match build.family:
        case AgentFamily.upstream:
            return ".".join(str(number) for number in build.numbers)
        case AgentFamily.virtio_win:
            return _VIRTIO_WIN_GUESSES.get(build.numbers[0])
        case AgentFamily.rhev:
            return "2.x"
        case _:
            return None


def _disabled_text(build: _Build) -> DisabledText:
    if build.is_since(_NOT_ALLOWED_TEXT):
        return DisabledText.not_allowed
    return DisabledText.frozen_state if build.is_since(_NEW_FROZEN_TEXT) else DisabledText.for_this_instance


# --- what is known to be wrong --------------------------------------------------------------------

_UPDATE = "Update the guest agent from a current virtio-win image."


_WITHOUT = (
    (
        _HANG_FIXED,
        KnownFault("freeze_may_hang", "This agent may hang when Windows ends the hold by itself. The thaw then gets no answer.", _UPDATE),
    ),
    (
        _OSINFO,
        KnownFault("osinfo_missing", "This agent may not report the Windows version, so the auto-recovery mode may be unknown.", _UPDATE),
    ),
    (
        _FREEZE_60_S,
        KnownFault("freeze_gives_up_early", "This agent waits only 10 s for the writers, so a freeze under heavy I/O fails.", _UPDATE),
    ),
    (
        _VSS_OPTION,
        KnownFault(
            "backup_type_always_full",
            "This agent always tells VSS that the backup is FULL, which can break differential and log backups inside the guest.",
            f"{_UPDATE} Then set VssOption to 5 (COPY).",
        ),
    ),
)


def _faults(build: _Build) -> Iterator[KnownFault]:
    if build.family in (AgentFamily.unknown, AgentFamily.ambiguous):
        yield KnownFault(
            "agent_version_unclear", "The agent's version does not say what the agent can do. The older behaviour is assumed.", _UPDATE
        )
    for since, fault in _WITHOUT:
        has_it = build.is_since(since)
        if has_it is False or (has_it is None and build.family is AgentFamily.rhev):
            yield fault
