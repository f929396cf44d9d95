"""Preflight of a Windows guest: what its agent, VSS, its writers and its registry let a backup expect."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from service.model.check import Check, passed, warned
from service.model.inventory import Filesystem
from service.model.verdict import Verdict
from service.model.windows.agent_generation import AgentGeneration
from service.model.windows.auto_recovery import AutoRecovery, BackupType
from service.model.windows.drift import Change, Fact
from service.model.windows.volume_coverage import DriveType, VolumeCoverage, VolumeFacts, judge_volumes
from service.model.windows.vss_writers import WriterReport
from service.model.windows.well_known_writers import EXCHANGE, SQL_SERVER, WriterEffect, writer_class

SET_COPY = (
    'In the guest: reg add "HKLM\\SYSTEM\\CurrentControlSet\\Services\\QEMU Guest Agent VSS Provider" '
    "/v VssOption /t REG_DWORD /d 5 /f (5 is COPY). The agent reads VssOption at each freeze, from QEMU 8.0 or virtio-win 106 on."
)


NO_MOUNTPOINT = "System Reserved"
"""The agent's text for a volume without a mount point."""


@dataclass(frozen=True)
class WindowsCircumstances:
    generation: AgentGeneration
    nt: tuple[int, int] | None
    backup_type: BackupType
    recovery: AutoRecovery
    writers: WriterReport | None
    writers_unavailable: str | None
    volumes: Sequence[Filesystem] | None
    #: Targets of the job's disks; None: the disks of the job are not known, so every volume counts.
    taken: frozenset[str] | None = None
    drift: Sequence[Change] = ()
    #: Kernel version, build and variant identify the Windows: agents give newer releases a wrong name (F§7.19).
    build: str | None = None
    variant: str | None = None
    #: Volume name to its drive type, as Windows reports it; None: the drive types could not be read.
    drive_types: Mapping[str, DriveType] | None = None
    #: Targets of the disks whose definition calls them removable.
    removable: frozenset[str] = frozenset()

    def as_document(self) -> dict[str, Any]:
        return {
            "agent": self.generation.as_document(),
            "kernel_version": ".".join(map(str, self.nt)) if self.nt else None,
            "build": self.build,
            "variant": self.variant,
            "backup_type": self.backup_type.value,
            "context": self.recovery.context,
            "auto_recovery": self.recovery.as_document(),
            "volumes": [volume.as_document() for volume in self.volumes] if self.volumes is not None else None,
            "writers": [{"name": writer.name, "class_id": writer.class_id, **writer.as_document()} for writer in self._listed],
            "writers_unavailable_reason": self.writers_unavailable,
            "drift": [change.as_document() for change in self.drift],
        }

    @property
    def _listed(self) -> Sequence[Any]:
        return self.writers.writers if self.writers is not None else ()

    @property
    def coverage(self) -> VolumeCoverage:
        return judge_volumes(self._facts) if self.volumes is not None else VolumeCoverage()

    def mine(self) -> list[Filesystem]:
        """The volumes that are, or may be, on the disks of the job."""
        return [volume for volume in self.volumes or () if self._facts.is_taken(volume)]

    def may_be_removable(self, volume: Filesystem) -> bool:
        """Removable disks have FAT. A FAT volume without a mount point is the EFI partition of a fixed disk (F§3)."""
        return volume.is_fat and volume.mountpoint != NO_MOUNTPOINT and self.drive_types is None

    @property
    def _facts(self) -> VolumeFacts:
        taken = sorted(self.taken) if self.taken is not None else None
        return VolumeFacts(self.volumes or (), taken, self.drive_types, removable=self.removable)

    def has(self, class_id: str) -> bool:
        return any(writer.class_id == class_id for writer in self._listed)


def expected_verdict(facts: WindowsCircumstances) -> Verdict:
    """The verdict of a job that would run now, if nothing changes."""
    if facts.coverage.not_held or facts.coverage.bare_disks:
        return Verdict.filesystem
    if not _writers_may_vouch(facts) or facts.coverage.unproven or facts.volumes is None or facts.nt is None or facts.nt <= (6, 1):
        return Verdict.application_unverified
    return Verdict.application


def _writers_may_vouch(facts: WindowsCircumstances) -> bool:
    """Whether the list after the thaw can prove what `application` needs, if nothing changes until then."""
    report = facts.writers
    if report is None or report.problem is not None or report.no_error_is_inferred:
        return False
    if any(change.fact is Fact.writers for change in facts.drift):
        return False
    return not any(writer.failed and writer_class(writer.class_id).on_new_failure is WriterEffect.lowers for writer in report.writers)


def checks(facts: WindowsCircumstances) -> Iterator[Check]:
    yield from _agent(facts)
    yield from _system(facts)
    yield from _backup_type(facts)
    yield from _writers(facts)
    yield from _volumes(facts)
    for change in facts.drift:
        yield warned(change.code, change.detail, change.remedy)


def _agent(facts: WindowsCircumstances) -> Iterator[Check]:
    generation = facts.generation
    about = (
        f"{generation.family.value.replace('_', '-')}, about QEMU {generation.qemu_guess}"
        if generation.qemu_guess
        else generation.family.value
    )
    yield passed("agent_generation", f"Agent {generation.version or 'of unknown version'} ({about}).")
    for fault in generation.faults:
        yield warned(fault.code, fault.detail, fault.remedy)


def _system(facts: WindowsCircumstances) -> Iterator[Check]:
    if facts.nt is None:
        yield warned("windows_version_unknown", "The agent did not report the Windows version.", "Update the guest agent (2.10 or newer).")
    elif facts.nt <= (6, 1):
        yield warned(
            "windows_is_old",
            f"NT {facts.nt[0]}.{facts.nt[1]}: {facts.recovery.detail}",
            "Upgrade the guest, or accept the doubt.",
        )
    else:
        system = f"NT {facts.nt[0]}.{facts.nt[1]}, build {facts.build or 'unknown'}, {facts.variant or 'unknown variant'}"
        yield passed("windows_version", f"{system}; VSS context {facts.recovery.context or 'unknown'} (derived).")


def _backup_type(facts: WindowsCircumstances) -> Iterator[Check]:
    kind = facts.backup_type
    if kind is BackupType.full and facts.has(SQL_SERVER):
        detail = (
            "The agent asks VSS for a FULL backup, and SQL Server is in the guest: a job may become the base of its differential backups."
        )
        yield warned("backup_type_full_with_sql_server", detail, SET_COPY)
    elif kind is BackupType.unknown:
        yield warned(
            "backup_type_unknown", "VssOption could not be read, so the VSS backup type is unknown.", "Allow guest-exec in the agent."
        )
    else:
        yield passed("backup_type", f"The VSS backup type is {kind.value.upper()}.")


def _writers(facts: WindowsCircumstances) -> Iterator[Check]:
    report = facts.writers
    if report is None:
        why = facts.writers_unavailable or "they were not read"
        yield warned("writers_unavailable", f"The VSS writers are unknown: {why}.", "Allow guest-exec and guest-exec-status in the agent.")
        return
    if report.problem is not None:
        detail = f"vssadmin's list of writers is not reliable ({report.problem.value})."
        yield warned("writers_unavailable", detail, "Run `vssadmin list writers` in the guest as administrator.")
        return
    broken = [f"{writer.name} ([{writer.state}], {writer.last_error})" for writer in report.writers if not writer.is_healthy]
    if broken:
        yield warned(
            "writer_not_healthy",
            f"Writers that are not healthy before any freeze: {', '.join(broken)}.",
            "Restart the services of these writers in the guest.",
        )
    else:
        yield passed("writers", f"{len(report.writers)} VSS writers, all stable and without an error.")
    if facts.has(EXCHANGE):
        detail = "The Exchange writer times out after 20 s of freeze. Other writers time out after 60 s."
        yield warned("exchange_20_s", detail, "Keep freeze.hold_limit_ms small, and take the backup when the guest writes little.")


def _volumes(facts: WindowsCircumstances) -> Iterator[Check]:
    if facts.volumes is None:
        remedy = (
            "Allow guest-get-fsinfo in the agent, or update the agent. "
            "An agent up to QEMU 9.0 also disables guest-get-fsinfo if VSS cannot be used."
        )
        yield warned("volumes_unknown", "The agent did not list the volumes.", remedy)
        return
    mine, coverage = facts.mine(), facts.coverage
    odd = [volume for volume in mine if volume.is_optical and facts.drive_types is None]
    if coverage.not_held:
        detail = f"Volumes that will not be frozen, so the verdict will be `filesystem`: {'; '.join(coverage.not_held)}."
        yield warned("volumes_not_frozen", detail, "Keep data on fixed NTFS or ReFS volumes; detach removable disks before the backup.")
    elif odd:
        yield warned(
            "volumes_not_frozen",
            f"Volumes that VSS does not hold: {_names(odd)}.",
            "This is fine for CD-ROMs. Keep data on fixed NTFS or ReFS volumes.",
        )
    for target in coverage.bare_disks:
        detail = f"No volume on {target} is listed. Nothing on {target} will be held, so the verdict will be `filesystem`."
        yield warned("disk_not_covered", detail, f"Name the other disks in the job, or put an NTFS or ReFS volume on {target}.")
    # All disks count: the agent's count is for the whole guest, so a volume on any disk can lower the verdict.
    doubtful = [volume for volume in facts.volumes if facts.may_be_removable(volume)]
    if doubtful:
        yield warned(
            "volumes_may_not_be_frozen",
            f"The agent freezes fixed volumes only, and does not report whether these are fixed: {_names(doubtful)}. A volume on a "
            "removable disk is not held, and the verdict is `filesystem` then. On a fixed disk VSS may refuse the volume, and the freeze "
            "fails then.",
            "Keep data on fixed NTFS or ReFS volumes; detach removable disks before the backup.",
        )
    unmapped = [volume for volume in facts.volumes if volume.is_windows_volume and not volume.disks]
    if unmapped:
        names = ", ".join(volume.mountpoint for volume in unmapped)
        yield warned("volume_disk_unknown", f"The disks under {names} are unknown.", "Give the domain's disks serials.")
    if mine and not (odd or doubtful or unmapped or coverage.not_held or coverage.bare_disks):
        yield passed("volumes", f"Volumes on the disks of the job, all of a type that VSS holds: {_names(mine)}.")


def _names(volumes: Sequence[Filesystem]) -> str:
    return ", ".join(f"{volume.mountpoint} ({volume.type})" for volume in volumes)
