"""The plan of a restore: what is written where, what the restored domain keeps of its identity, and how long it takes. Pure.

The job plans with what it reads at its host. The API plans with rows, so a part of its plan is not known before the job runs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

from service.errors import DiskUnknown, RestoreRefused, TargetFull
from service.model import restore_identity
from service.model.host_adaptation import Adaptation
from service.model.inventory import DomainState
from service.model.manifest import DiskOfPoint
from service.model.repository import IdentityChoice, RestoreMode
from service.model.requests import RestoreRequest
from service.model.restore_facts import DefinedDisk, HostFacts, PointFacts
from service.model.restore_identity import MAX_NAME_BYTES, Fate, Identity, shortened

PREVIEW_MARK = "JOB"
"""Stands in the names of new files in a plan, where the restore writes the beginning of its own id."""
OVERLAY_BYTES = 1 << 20
"""Bytes that an overlay needs before the guest has written anything. A folder with less free space is full."""
_READS_REPOSITORY = "Until its disks are flattened, the domain reads from the repository. A repository that hangs delays the domain."

MAX_INSTANT_LAYERS = 24
"""Files of one disk in the repository over which an instant restore puts its own. A disk on more of them is refused for this mode: libvirt
10.8 to 11.x starts no domain on a chain of more than about 25 files."""


@dataclass(frozen=True)
class PlannedDisk:
    """A disk of the point, and the new file for it. `path` None: not known before the definition in the point was read.

    `needed_bytes`: what its files have in the repository, at most its size. None: not known. `replaces`: the file of the disk until now.
    """

    target: str
    file: str
    blocks_file: str
    virtual_size: int
    format: str
    path: str | None
    is_encrypted: bool
    needed_bytes: int | None
    replaces: str | None = None

    @property
    def folder(self) -> str | None:
        return str(PurePath(self.path).parent) if self.path is not None else None

    def as_document(self) -> dict[str, Any]:
        return {
            "target": self.target,
            "path": self.path,
            "format": self.format,
            "virtual_size": self.virtual_size,
            "needed_bytes": self.needed_bytes,
            "replaces": self.replaces,
        }


@dataclass(frozen=True)
class Caution:
    """What the caller should know before the restore. `code` is stable."""

    code: str
    detail: str


@dataclass(frozen=True)
class RestorePlan:
    """`identity` None: no domain is made or changed. `seconds` None: no restore is on record, or the size is not known."""

    mode: RestoreMode
    point_id: str
    host_id: str
    disks: Sequence[PlannedDisk]
    identity: Identity | None
    adaptations: Sequence[Adaptation]
    warnings: Sequence[Caution]
    must_stop: bool
    will_start: bool
    restores_state: bool
    seconds: float | None

    @property
    def needed_bytes(self) -> int | None:
        sizes = [disk.needed_bytes for disk in self.disks]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def folders(self) -> tuple[str, ...]:
        return tuple(sorted({disk.folder for disk in self.disks if disk.folder is not None}))

    def as_document(self) -> dict[str, Any]:
        identity = self.identity
        return {
            "mode": self.mode.value,
            "recovery_point": self.point_id,
            "host": self.host_id,
            "domain": {"id": identity.uuid, "name": identity.name} if identity is not None else None,
            "disks": [disk.as_document() for disk in self.disks],
            "needed_bytes": self.needed_bytes,
            "identity": [part.as_document() for part in identity.parts] if identity is not None else [],
            "adaptations": [each.as_document() for each in self.adaptations],
            "warnings": [{"code": each.code, "detail": each.detail} for each in self.warnings],
            "stops_domain": self.must_stop,
            "starts_domain": self.will_start,
            "restores_nvram_and_tpm": self.restores_state,
            "reads_repository_until": "flattened" if self.mode is RestoreMode.instant else "written",
            "seconds": self.seconds,
        }

    def as_preview(self) -> dict[str, Any]:
        """The plan of a restore that is not asked for yet: values that each restore makes for itself are null."""
        document = self.as_document()
        for part in document["identity"]:
            if part["fate"] == Fate.new and part["what"] != "name":
                part["values"] = dict.fromkeys(part["values"]) if part["values"] is not None else None
        if self.identity is not None and self.identity.part("uuid").fate is Fate.new:
            document["domain"]["id"] = None
        return document


def plan(point: PointFacts, request: RestoreRequest, facts: HostFacts) -> RestorePlan:
    """Raises RestoreRefused, UsnRisk, TargetFull, DiskUnknown: before anything is stopped or written."""
    chosen = possible(point, request)
    must_stop = request.mode is RestoreMode.in_place and _must_suit_in_place(point, request, facts, chosen)
    identity = restore_identity.decide(point, request, facts) if request.mode is not RestoreMode.files else None
    disks = [_planned(disk, point, request, facts, identity) for disk in chosen]
    _must_be_free(point, disks, facts)
    _must_fit(disks, facts)
    is_whole = len(chosen) == len(point.disks)
    sizes = [disk.needed_bytes for disk in disks if disk.needed_bytes is not None]
    is_timed = facts.rate_bytes_s is not None and facts.rate_bytes_s > 0 and len(sizes) == len(disks)
    return RestorePlan(
        mode=request.mode,
        point_id=point.id,
        host_id=facts.host_id,
        disks=disks,
        identity=identity,
        adaptations=facts.adaptations,
        warnings=(*_warnings(point, request, facts, chosen), *_of_twins(identity, facts)),
        must_stop=must_stop,
        will_start=request.mode is RestoreMode.instant or (request.start and request.mode is not RestoreMode.files),
        restores_state=is_whole and (point.has_nvram or point.has_tpm),
        seconds=sum(sizes) / facts.rate_bytes_s if is_timed and facts.rate_bytes_s else None,
    )


# --- what the request and the host allow ----------------------------------------------------------


def possible(point: PointFacts, request: RestoreRequest) -> list[DiskOfPoint]:
    """The disks that are restored. Raises RestoreRefused, DiskUnknown: no host could do what the request says of this point."""
    chosen = _chosen(point, request)
    if request.mode is RestoreMode.files and request.folder is None:
        raise _refused(point, "no folder was named for the files", "Name a `folder`.")
    if request.mode is RestoreMode.in_place and (request.identity is IdentityChoice.new or request.name is not None):
        raise _refused(point, "a restore in place keeps the domain and its name", "Leave out `identity` and `name`, or use the mode `new`.")
    if request.mode is RestoreMode.instant and any(disk.is_encrypted for disk in chosen):
        raise _refused(point, "QEMU would need the key of the repository to read the point", "Restore with the mode `new`.")
    longest = max((point.layers.get(disk.target, 0) for disk in chosen), default=0)
    if request.mode is RestoreMode.instant and longest > MAX_INSTANT_LAYERS:
        reason = f"{longest} files stand on each other in the repository, and libvirt may start no domain on more than {MAX_INSTANT_LAYERS}"
        raise _refused(point, reason, "Restore with the mode `new`, which makes one file of them.")
    return chosen


def _chosen(point: PointFacts, request: RestoreRequest) -> list[DiskOfPoint]:
    known = {disk.target: disk for disk in point.disks}
    if request.disks is None:
        return list(point.disks)
    unknown = [target for target in request.disks if target not in known]
    if unknown or not request.disks:
        raise DiskUnknown(domain=point.domain_name, disks=", ".join(unknown) or "(none)", known=", ".join(known))
    return [known[target] for target in dict.fromkeys(request.disks)]


def _must_suit_in_place(point: PointFacts, request: RestoreRequest, facts: HostFacts, chosen: Sequence[DiskOfPoint]) -> bool:
    """Whether the domain must be stopped first."""
    domain = facts.domain_of(point.domain_id)
    if domain is None:
        raise _refused(point, f"host {facts.host_id} has no domain {point.domain_id}", "Restore with the mode `new`.")
    if facts.current is not None:
        for disk in chosen:
            _must_suit_disk(point, request, disk.target, facts.current.disks.get(disk.target))
    if domain.state is DomainState.shut_off:
        return False
    if not request.stop:
        reason = f"the domain is {domain.state.value}, and the restore replaces its disks"
        raise _refused(point, reason, "Shut the domain down first, or say `stop`.")
    return True


def _must_suit_disk(point: PointFacts, request: RestoreRequest, target: str, disk: DefinedDisk | None) -> None:
    if disk is None:
        raise _refused(point, f"the domain has no disk {target} any more", "Name the other `disks`, or use the mode `new`.")
    if request.folder is None and (disk.type != "file" or disk.source is None):
        reason = f"the disk {target} is not a file, and nothing may overwrite the old disk before the new one has run"
        raise _refused(point, reason, "Name a `folder` for the new disks.")


def _refused(point: PointFacts, reason: str, instead: str) -> RestoreRefused:
    return RestoreRefused(domain=point.domain_name, reason=reason, instead=instead)


# --- files ----------------------------------------------------------------------------------------


def _planned(disk: DiskOfPoint, point: PointFacts, request: RestoreRequest, facts: HostFacts, identity: Identity | None) -> PlannedDisk:
    old = facts.current.disks.get(disk.target) if request.mode is RestoreMode.in_place and facts.current is not None else None
    form = _format(disk, request)
    size = point.stored_bytes.get(disk.target)
    return PlannedDisk(
        target=disk.target,
        file=disk.file,
        blocks_file=disk.blocks_file,
        virtual_size=disk.virtual_size,
        format=form,
        path=_path(disk, form, request, facts, identity),
        is_encrypted=disk.is_encrypted,
        needed_bytes=_needed(disk, size),
        replaces=old.source if old is not None else None,
    )


def _format(disk: DiskOfPoint, request: RestoreRequest) -> str:
    """A raw disk stays raw, but an overlay over the repository is qcow2."""
    return "raw" if disk.source_format == "raw" and request.mode is not RestoreMode.instant else "qcow2"


def _needed(disk: DiskOfPoint, stored: int | None) -> int | None:
    if stored is None:
        return None
    # What the guest sees is never larger than the disk. Clusters that an increment replaced are counted twice otherwise.
    return min(stored, disk.virtual_size)


def _path(disk: DiskOfPoint, form: str, request: RestoreRequest, facts: HostFacts, identity: Identity | None) -> str | None:
    suffix = "qcow2" if form == "qcow2" else "img"
    if request.mode is RestoreMode.files or identity is None:
        return str(PurePath(request.folder or "/") / f"{disk.target}.{suffix}")
    definition = facts.current if request.mode is RestoreMode.in_place else facts.definition
    defined = definition.disks.get(disk.target) if definition is not None else None
    folder = request.folder or (str(PurePath(defined.source).parent) if defined is not None and defined.source is not None else None)
    if folder is None:
        return None
    ending = f"-{disk.target}.{facts.mark}.{suffix}"
    return str(PurePath(folder) / (shortened(identity.name.replace("/", "_"), MAX_NAME_BYTES - len(ending.encode())) + ending))


def _must_be_free(point: PointFacts, disks: Sequence[PlannedDisk], facts: HostFacts) -> None:
    taken = [disk.path for disk in disks if disk.path in facts.existing]
    if taken:
        raise _refused(point, f"{', '.join(str(path) for path in taken)} exists already", "Name another `folder`, or move the file away.")


def _must_fit(disks: Sequence[PlannedDisk], facts: HostFacts) -> None:
    """Folders on one filesystem share its space."""
    needed: dict[int, int] = {}
    folders: dict[int, str] = {}
    for disk in disks:
        space = facts.spaces.get(disk.folder or "")
        if space is not None:
            needed[space.device] = needed.get(space.device, 0) + max(disk.needed_bytes or 0, OVERLAY_BYTES)
            folders.setdefault(space.device, str(disk.folder))
    free = {space.device: space.free_bytes for space in facts.spaces.values()}
    for device, size in needed.items():
        if size > free[device]:
            raise TargetFull(folder=folders[device], needed_bytes=size, free_bytes=free[device])


# --- what the caller should know ------------------------------------------------------------------


def _warnings(point: PointFacts, request: RestoreRequest, facts: HostFacts, chosen: Sequence[DiskOfPoint]) -> list[Caution]:
    warnings = [Caution("disk_not_in_point", f"The disk {each.target} is not in the point: {each.reason}.") for each in point.left_out]
    if request.mode is RestoreMode.instant:
        warnings.append(Caution("reads_repository", _READS_REPOSITORY))
    if request.mode is not RestoreMode.files:
        warnings.append(Caution("next_backup_is_full", "The next backup of the restored disks is full."))
    if len(chosen) < len(point.disks):
        kept = ", ".join(disk.target for disk in point.disks if disk not in chosen)
        warnings.append(Caution("disk_not_restored", f"The disks {kept} of the point are not restored."))
    if request.accept_usn_risk and point.is_domain_controller and not _has_genid(request, facts):
        detail = "The guest is a domain controller, and it cannot notice that it was restored."
        warnings.append(Caution("usn_risk_accepted", detail))
    if request.mode is not RestoreMode.files and point.is_domain_controller is None and not _has_genid(request, facts):
        detail = "No record says whether the guest is a domain controller. Without a <genid>, one would not notice that it was restored."
        warnings.append(Caution("domain_controller_unknown", detail))
    return warnings


def _of_twins(identity: Identity | None, facts: HostFacts) -> list[Caution]:
    """What the restored domain would share with a domain that is on record."""
    if identity is None:
        return []
    warnings = []
    twin = facts.elsewhere_of(identity.uuid)
    if twin is not None:
        state = "is off" if twin.state is DomainState.shut_off else "may run" if not twin.may_write else f"is {twin.state.value}"
        detail = f"Host {twin.host} has the domain {twin.name} with the same UUID, and it {state}. Only one of them may run."
        warnings.append(Caution("same_uuid_elsewhere", detail))
    kept = set((identity.part("mac").values or {}).values())
    for other in facts.everywhere:
        shared = sorted(kept & (other.macs or frozenset()))
        if shared and other.uuid != identity.uuid:
            detail = f"The domain {other.name} of host {other.host or facts.host_id} has the same MAC address: {', '.join(shared)}."
            warnings.append(Caution("same_mac", detail))
    return warnings


def _has_genid(request: RestoreRequest, facts: HostFacts) -> bool:
    definition = facts.current if request.mode is RestoreMode.in_place else facts.definition
    return definition is not None and definition.has_genid


def paths_of(plan: RestorePlan) -> Mapping[str, str]:
    """By target: the path of the new file. Raises RestoreRefused: a folder is not known."""
    unknown = [disk.target for disk in plan.disks if disk.path is None]
    if unknown:
        raise RestoreRefused(
            domain=plan.identity.name if plan.identity is not None else plan.point_id,
            reason=f"the definition in the point names no file for {', '.join(unknown)}",
            instead="Name a `folder` for the new disks.",
        )
    return {disk.target: disk.path for disk in plan.disks if disk.path is not None}
