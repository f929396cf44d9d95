"""Which parts of a domain's identity a restore keeps, which are new, and why.

What is new is computed from the job's mark, so that the next attempt of a job has the same values.
"""

import hashlib
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from service.errors import RestoreRefused, UsnRisk
from service.model.repository import IdentityChoice, RestoreMode
from service.model.requests import RestoreRequest
from service.model.restore_facts import Definition, HostFacts, PointFacts

SERIAL_CHARACTERS = 20
"""Characters of a new serial number. A virtio disk shows its guest 20, and the rest is cut off."""
MAX_NAME_BYTES = 255
"""Bytes of a file name. The name of a domain is cut to fit, because libvirt names files after the domain."""
_OWN = uuid.UUID("6a8d3f0e-6f6b-4b7e-9a0c-5e9b7f0d4c11")


class Fate(StrEnum):
    kept = "kept"
    new = "new"
    absent = "absent"
    """The definition has nothing of this kind."""


@dataclass(frozen=True)
class Part:
    """One part of the identity. `values` None: not known before the definition in the point was read."""

    what: str
    fate: Fate
    reason: str
    values: Mapping[str, str] | None = None

    def as_document(self) -> dict[str, Any]:
        return {
            "what": self.what,
            "fate": self.fate.value,
            "reason": self.reason,
            "values": dict(self.values) if self.values is not None else None,
        }


@dataclass(frozen=True)
class Identity:
    """`macs` and `serials`: the new values, by the old MAC address and by the target. Empty: all are kept. `genid` None: as it is."""

    uuid: str
    name: str
    parts: Sequence[Part]
    macs: Mapping[str, str]
    serials: Mapping[str, str]
    genid: str | None

    def part(self, what: str) -> Part:
        return next(part for part in self.parts if part.what == what)


def decide(point: PointFacts, request: RestoreRequest, facts: HostFacts) -> Identity:
    """Raises RestoreRefused, UsnRisk."""
    in_place = request.mode is RestoreMode.in_place
    definition = facts.current if in_place else facts.definition
    refuse_usn_risk(point, request, definition)
    if in_place:
        if request.start:
            _refuse_a_twin(point, facts, "Restore on that host, or do not start the domain.")
        return _in_place(point, facts, definition)
    new_uuid = _uuid(point, request, facts)
    name = _name(point, request, facts, new_uuid.values or {})
    macs, serials, genid = _macs(request, facts, definition), _serials(request, facts, definition), _genid(facts, definition)
    return Identity(
        uuid=(new_uuid.values or {})["uuid"],
        name=(name.values or {})["name"],
        parts=(name, new_uuid, macs, serials, genid),
        macs=dict(macs.values or {}) if macs.fate is Fate.new else {},
        serials=dict(serials.values or {}) if serials.fate is Fate.new else {},
        genid=(genid.values or {}).get("genid"),
    )


def refuse_usn_risk(point: PointFacts, request: RestoreRequest, definition: Definition | None) -> None:
    """A domain controller that does not notice that it was restored uses its update numbers a second time (USN rollback)."""
    if request.mode is RestoreMode.files or not point.is_domain_controller or request.accept_usn_risk:
        return
    if definition is not None and not definition.has_genid:
        raise UsnRisk(domain=definition.name)


def _in_place(point: PointFacts, facts: HostFacts, definition: Definition | None) -> Identity:
    genid = _genid(facts, definition)
    name = definition.name if definition is not None else point.domain_name
    why = "The disks below the definition are replaced, and the definition stays."
    macs = {mac: mac for mac in definition.macs} if definition is not None else None
    return Identity(
        uuid=point.domain_id,
        name=name,
        parts=(
            Part("name", Fate.kept, why, {"name": name}),
            Part("uuid", Fate.kept, why, {"uuid": point.domain_id}),
            Part("mac", Fate.kept, why, macs),
            Part("serial", Fate.kept, why, _serials_of(definition)),
            genid,
        ),
        macs={},
        serials={},
        genid=(genid.values or {}).get("genid"),
    )


def _uuid(point: PointFacts, request: RestoreRequest, facts: HostFacts) -> Part:
    taken = facts.domain_of(point.domain_id)
    if request.identity is IdentityChoice.keep:
        if taken is not None:
            raise RestoreRefused(
                domain=point.domain_name,
                reason=f"the domain {taken.name} of host {facts.host_id} has the UUID {point.domain_id}",
                instead="Restore in place, ask for a new identity, or undefine that domain first.",
            )
        _refuse_a_twin(point, facts, "Shut that domain down, or ask for a new identity.")
        return Part("uuid", Fate.kept, "The request says so.", {"uuid": point.domain_id})
    fresh = request.new_uuid or str(uuid.uuid5(_OWN, f"uuid {facts.seed} {point.id}"))
    if request.identity is IdentityChoice.new:
        return Part("uuid", Fate.new, "The request says so.", {"uuid": fresh})
    taken = taken or facts.elsewhere_of(point.domain_id)
    if taken is not None or request.new_uuid is not None:
        where = taken.host if taken is not None and taken.host is not None else facts.host_id
        return Part("uuid", Fate.new, f"The domain that was backed up is on host {where}.", {"uuid": fresh})
    return Part("uuid", Fate.kept, "No domain has it, and backup agents inside the guest rely on it.", {"uuid": point.domain_id})


def _refuse_a_twin(point: PointFacts, facts: HostFacts, instead: str) -> None:
    """Two domains of one identity write to one network, and to the same backup agents and licences. Raises RestoreRefused."""
    twin = facts.elsewhere_of(point.domain_id)
    if twin is not None and twin.may_write:
        raise RestoreRefused(
            domain=point.domain_name,
            reason=f"the domain {twin.name} runs on host {twin.host} with the UUID {point.domain_id}",
            instead=f"{instead} A host that never comes back: `stillpoint host forget {twin.host}`.",
        )


def _name(point: PointFacts, request: RestoreRequest, facts: HostFacts, uuids: Mapping[str, str]) -> Part:
    own = uuids["uuid"]
    if request.name is not None:
        if facts.name_is_taken(request.name, own):
            raise RestoreRefused(
                domain=point.domain_name,
                reason=f"host {facts.host_id} has a domain of the name {request.name} already",
                instead="Choose another `name`.",
            )
        fate = Fate.kept if request.name == point.domain_name else Fate.new
        return Part("name", fate, "The request says so.", {"name": request.name})
    is_kept = request.identity is IdentityChoice.keep and not facts.name_is_taken(point.domain_name, own)
    if is_kept or not facts.name_is_anywhere(point.domain_name, own):
        return Part("name", Fate.kept, "The request says so." if is_kept else "No domain has it.", {"name": point.domain_name})
    name = f"{shortened(point.domain_name, MAX_NAME_BYTES - 30)}-restored-{facts.seed}"
    return Part("name", Fate.new, f"Another domain is named {point.domain_name}.", {"name": name})


def _macs(request: RestoreRequest, facts: HostFacts, definition: Definition | None) -> Part:
    if definition is None:
        return Part("mac", Fate.new if request.identity is IdentityChoice.new else Fate.kept, "Decided when the point is read.")
    if not definition.macs:
        return Part("mac", Fate.absent, "The domain has no network interface.", {})
    used = {mac for domain in facts.everywhere for mac in domain.macs or ()}
    clash = sorted(used & set(definition.macs))
    fresh = {mac: _mac(f"{facts.seed} {mac}") for mac in definition.macs}
    kept = {mac: mac for mac in definition.macs}
    if request.identity is IdentityChoice.new:
        return Part("mac", Fate.new, "The request says so.", fresh)
    if clash and request.identity is IdentityChoice.auto:
        return Part("mac", Fate.new, f"Another domain has {', '.join(clash)}.", fresh)
    if clash:
        return Part("mac", Fate.kept, f"The request says so, although another domain has {', '.join(clash)}.", kept)
    return Part("mac", Fate.kept, "No domain has them.", kept)


def _serials(request: RestoreRequest, facts: HostFacts, definition: Definition | None) -> Part:
    kept = _serials_of(definition)
    if request.identity is not IdentityChoice.new:
        return Part("serial", Fate.kept, "The guest may mount its filesystems by the serial numbers of its disks.", kept)
    fresh = {target: _serial(f"{facts.seed} {target}") for target in kept} if kept is not None else None
    return Part("serial", Fate.new, "The request says so.", fresh)


def _serials_of(definition: Definition | None) -> dict[str, str] | None:
    if definition is None:
        return None
    return {target: disk.serial for target, disk in definition.disks.items() if disk.serial is not None}


def _genid(facts: HostFacts, definition: Definition | None) -> Part:
    why = "A guest that went back in time must notice that: Windows reads the generation id."
    if definition is None:
        return Part("genid", Fate.new, why)
    if not definition.has_genid:
        return Part("genid", Fate.absent, "The definition has no <genid>.", {})
    return Part("genid", Fate.new, why, {"genid": str(uuid.uuid5(_OWN, f"genid {facts.seed}"))})


def _mac(seed: str) -> str:
    """An address of QEMU's own range."""
    digest = hashlib.sha256(seed.encode()).hexdigest()
    return f"52:54:00:{digest[:2]}:{digest[2:4]}:{digest[4:6]}"


def _serial(seed: str) -> str:
    return hashlib.sha256(seed.encode()).hexdigest()[:SERIAL_CHARACTERS]


def shortened(name: str, limit: int) -> str:
    """The name cut to at most `limit` bytes, between two characters."""
    return name.encode()[:limit].decode(errors="ignore")
