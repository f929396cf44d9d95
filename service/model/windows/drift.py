"""What changed in a Windows guest since the last job or preflight. An update of its drivers may undo a setting without notice.

A fact that could not be read does not count as changed: its last known value stays.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.model.windows.auto_recovery import VssOption, VssOptionState

FactValue = str | int | list[str]

ABSENT = "absent"
"""VssOption is not in the registry, or the provider is not registered."""


INVALID = "invalid"
"""VssOption holds a value that the agent does not accept. The agent takes FULL then."""


class Fact(StrEnum):
    agent_version = "agent_version"
    vss_option = "vss_option"
    vss_provider = "vss_provider"
    blocked_commands = "blocked_commands"
    writers = "writers"
    """Reported by `known_writers`, which remembers the writers."""


@dataclass(frozen=True)
class Remembered:
    """`since`: when this value was first seen. `seen`: when this value was last seen. Both as RFC 3339 text."""

    value: FactValue
    since: str
    seen: str

    def as_document(self) -> dict[str, Any]:
        return {"value": self.value, "since": self.since, "seen": self.seen}

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> "Remembered":
        return cls(document["value"], document["since"], document["seen"])


Memory = dict[Fact, Remembered]


@dataclass(frozen=True)
class Change:
    """`before` was seen from `before_since` to `last_seen_before`. `since`: when the change was seen."""

    code: str
    fact: Fact
    before: FactValue
    after: FactValue
    before_since: str
    last_seen_before: str
    since: str
    detail: str
    remedy: str

    def as_document(self) -> dict[str, Any]:
        return {**vars(self), "fact": self.fact.value}


def compare(memory: Memory, current: Mapping[Fact, FactValue | None], now: str) -> tuple[Memory, list[Change]]:
    """The new memory, and the changes. A current value of None could not be read.

    A change is reported once: the memory holds the new value, with its `since`.
    """
    updated, changes = dict(memory), []
    for fact in Fact:
        value = _comparable(current.get(fact))
        if value is None:
            continue
        known = memory.get(fact)
        if known is not None and _comparable(known.value) != value:
            changes.append(_change(fact, known, value, now))
        is_same = known is not None and _comparable(known.value) == value
        updated[fact] = Remembered(value, known.since if known is not None and is_same else now, now)
    return updated, changes


def memory_document(memory: Memory) -> dict[str, Any]:
    return {fact.value: known.as_document() for fact, known in memory.items()}


def memory_from(document: Mapping[str, Any]) -> Memory:
    """Facts that this version does not know are left out."""
    return {Fact(name): Remembered.from_document(known) for name, known in document.items() if name in list(Fact)}


def vss_option_fact(option: VssOption) -> FactValue | None:
    match option.state:
        case VssOptionState.present:
            return option.value
        case VssOptionState.absent:
            return ABSENT
        case VssOptionState.invalid:
            return INVALID
        case VssOptionState.unreadable:
            return None


_COPY = 5
_FULL = (1, ABSENT, INVALID)

_DETAIL = {
    Fact.agent_version: "The guest agent's version changed",
    Fact.vss_option: "VssOption, which sets the VSS backup type, changed",
    Fact.vss_provider: "The guest agent's VSS provider changed",
    Fact.blocked_commands: "The commands that the guest agent refuses changed",
}

_REMEDY = {
    Fact.agent_version: "Run a preflight of this guest, and read what the preflight says about the new version.",
    Fact.vss_option: "Set VssOption in the guest to the value that you want, and check the backups inside the guest.",
    Fact.vss_provider: "Check in the guest that the service QEMU Guest Agent VSS Provider is installed correctly.",
    Fact.blocked_commands: "Allow guest-exec and guest-exec-status in the agent again, or accept a lower verdict.",
}

_RESET_DETAIL = (
    "VssOption was 5 (COPY) and is FULL again, probably after an update of the guest's drivers. Each job of this guest may now become "
    "the base of differential backups inside the guest, or may end a chain of log backups there"
)
_RESET_REMEDY = (
    'In the guest: reg add "HKLM\\SYSTEM\\CurrentControlSet\\Services\\QEMU Guest Agent VSS Provider" /v VssOption /t REG_DWORD /d 5 /f. '
    "Then take a full backup inside the guest."
)


def _change(fact: Fact, known: Remembered, value: FactValue, now: str) -> Change:
    is_reset = fact is Fact.vss_option and known.value == _COPY and value in _FULL
    what = _RESET_DETAIL if is_reset else _DETAIL[fact]
    return Change(
        code="vss_option_reset" if is_reset else f"{fact.value}_changed",
        fact=fact,
        before=known.value,
        after=value,
        before_since=known.since,
        last_seen_before=known.seen,
        since=now,
        detail=f"{what}: {_shown(known.value)} (last seen {known.seen}) became {_shown(value)} (found {now}).",
        remedy=_RESET_REMEDY if is_reset else _REMEDY[fact],
    )


def _comparable(value: FactValue | None) -> FactValue | None:
    """A list is compared as a set, because the order in which an agent names its commands has no meaning."""
    return sorted(set(value)) if isinstance(value, list) else value


def _shown(value: FactValue) -> str:
    return (", ".join(value) or "none") if isinstance(value, list) else str(value)
