"""What a backup decides and makes before the guest is frozen: the repository, the level of each disk, the checkpoint."""

import uuid
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TypedDict

from sqlalchemy.orm import Session

from service import bounded_io, log
from service.clock import rfc3339
from service.errors import (
    ForeignEntry,
    LibvirtCallFailed,
    PointDamaged,
    PointIncomplete,
    RecordUnreadable,
    SignatureWrong,
    StillpointError,
    StorageNotAnswering,
    VersionUnknown,
)
from service.hypervisor.checkpoints import checkpoint_name
from service.hypervisor.guest import Guest
from service.jobs.backup_folder import BackupFolder
from service.jobs.backup_watching import Watching
from service.jobs.point_taking import Additions
from service.jobs.replaced_points import wait_until_in_place
from service.jobs.run import JobRun, Phase
from service.jobs.still_disks import last_write
from service.model import backup_level, chains
from service.model.backup_intent import BackupIntent, Firmware, PlannedDisk, Stage
from service.model.backup_level import BitmapState, DiskNow, Earlier
from service.model.domain_xml import nvram_path, tpm_state
from service.model.impact import ImpactStage
from service.model.intent import Intent, Overlay
from service.model.inventory import Disk
from service.model.lifecycle import PhaseName
from service.model.repository import DiskLevel, Level
from service.model.requests import BackupRequest
from service.model.scope import DiskSelection
from service.records import points, removal, repositories
from service.repository.store import Repository

_logger = log.get(__name__)

_BAD_POINT = (PointDamaged, PointIncomplete, ForeignEntry, SignatureWrong, RecordUnreadable, VersionUnknown)
"""Errors that say that nothing can stand on the last point, while the repository itself answers."""


class _Identity(TypedDict):
    """By what a disk is known again."""

    serial: str | None
    source_files: Sequence[str]


@dataclass(frozen=True)
class Registered:
    """The row of the repository. `reserve_bytes`: what must stay free there."""

    id: str
    path: str
    key_reference: str | None
    reserve_bytes: int

    @property
    def is_encrypted(self) -> bool:
        return self.key_reference is not None

    @classmethod
    def of(cls, session: Session, id_or_name: str) -> "Registered":
        """Raises RepositoryUnknown."""
        row = repositories.get(session, id_or_name)
        return cls(row.id, row.path, row.key_reference, row.reserve_bytes)


class BackupPlan(Additions):
    """One attempt of one job. `owner`: the id of the key by which the unfinished folders of this service are known."""

    def __init__(
        self,
        run: JobRun,
        guest: Guest,
        repository: Repository,
        registered: Registered,
        watching: Watching,
        *,
        folder: BackupFolder,
        owner: str,
    ) -> None:
        self._run = run
        self._guest = guest
        self._repository = repository
        self._registered = registered
        self._watching = watching
        self._folder = folder
        self._owner = owner
        self._request = run.request(BackupRequest)
        self._own: BackupIntent | None = None
        self._earlier: Earlier | None = None
        self._no_earlier = ""
        self._overlays: Sequence[Overlay] = ()

    @property
    def own(self) -> BackupIntent:
        assert self._own is not None
        return self._own

    # --- in the preflight -------------------------------------------------------------------------

    def decide(self, selection: DiskSelection, *, is_running: bool) -> None:
        """Raises RepositoryFull, RepositoryGone and its like, KeyUnusable, LevelImpossible, JobCancelled."""
        self._repository.safe_point = lambda: self._run.safe_point(PhaseName.preflight)
        look = self._repository.look()
        if self._registered.is_encrypted:
            # A full copy would be made with any key, and could not be read with the right one.
            self._repository.check_key(self._guest.uuid)
        if look.is_writable:
            # What attempts left that were lost for good.
            self._repository.sweep([], self._owner)
        self._earlier, self._no_earlier = self._find_earlier()
        point_id, now = str(uuid.uuid4()), datetime.now(UTC)
        disks = [self._planned(disk, is_running=is_running) for disk in selection.taken]
        assert self._repository.id is not None
        self._own = BackupIntent(
            stage=Stage.taking,
            point_id=point_id,
            name=f"{now:%Y%m%dT%H%M%SZ}-{point_id[:8]}",
            repository_id=self._repository.id,
            domain_id=self._guest.uuid,
            disks=disks,
            definition=self._guest.inactive_xml() if self._guest.is_persistent() else self._guest.xml(),
            left_out=dict(selection.left_out),
            checkpoint=checkpoint_name(self._repository.id, point_id) if is_running else None,
            was_running=is_running,
            firmware=self._firmware(),
        )
        needed = sum(_bytes_of_copy(disk, planned) for disk, planned in zip(selection.taken, disks, strict=True))
        look.require_space(self._repository.path, self._registered.reserve_bytes + needed)
        if is_running:
            self._watching.begin(self._guest, selection.taken, self._request.impact_limit_ms)

    def _firmware(self) -> Firmware:
        xml = self._guest.xml()
        folder = tpm_state(xml)
        return Firmware(nvram_path(xml), _files_in(folder) if folder is not None else ())

    def _find_earlier(self) -> tuple[Earlier | None, str]:
        """The last sealed point, as the repository itself has it."""
        if self._request.level is Level.full:
            return None, ""
        assert self._repository.id is not None
        repository_id = self._repository.id

        wait_until_in_place(self._run, PhaseName.preflight, repository_id, self._guest.uuid)
        last = self._run.in_transaction(lambda session: _last_of(session, self._guest.uuid, repository_id))
        if last is None:
            return None, ""
        point_id, folder, sizes = last
        if sizes is None:
            return None, f"the last point {point_id}, or a point below it, is damaged or missing"
        try:
            manifest = self._repository.point(folder or "")
            self._repository.call("check_parent", {"folder": folder})
        except _BAD_POINT as error:
            return None, f"the last point {point_id} is not good: {error.detail.rstrip('.')}"
        if manifest.point_id != point_id:
            return None, f"the folder of the last point {point_id} has another point in it"
        return Earlier(manifest, len(sizes), sizes), ""

    def _planned(self, disk: Disk, *, is_running: bool) -> PlannedDisk:
        assert disk.source is not None
        assert disk.format is not None
        state, detail = self._bitmap_before(disk, is_running=is_running)
        identity: _Identity = {"serial": disk.serial, "source_files": _source_files(disk)}
        now = DiskNow(disk.target, disk.format, self._guest.capacity(disk.target), state, detail, **identity)
        planned = PlannedDisk(disk.target, disk.format, now.virtual_size, DiskLevel.full, "", **identity)
        return planned.decided(self._decide(now))

    def _decide(self, now: DiskNow) -> backup_level.Decision:
        decision = backup_level.decide(
            self._request.level,
            now,
            self._earlier,
            is_encrypted=self._registered.is_encrypted,
            no_earlier=self._no_earlier,
            new_full=self._request.new_full,
        )
        backup_level.must_be_incremental(self._guest.name, self._request.level, [decision])
        return decision

    def _bitmap_before(self, disk: Disk, *, is_running: bool) -> tuple[BitmapState | None, str | None]:
        """What is known of the parent's bitmap before the point. QEMU has it in memory while the domain runs."""
        name = backup_level.parents_bitmap(self._earlier, disk.target)
        if name is None or disk.format != "qcow2":
            return None, None
        if name not in self._guest.checkpoints.names():
            return BitmapState.unrecorded, None
        if not is_running:
            return self._bitmap_in_file(disk.source or "", disk.format, name)
        return bitmap_by_libvirt(self._guest, name)

    def _bitmap_in_file(self, file: str, image_format: str, name: str, parent: object = None) -> tuple[BitmapState, str | None]:
        """`parent`: the disk of the last point, to which a disk that is still is compared."""
        seen = self._repository.call("inspect_source", {"file": file, "format": image_format, "bitmap": name, "parent": parent})
        return BitmapState(seen["bitmap"]), seen["reason"]

    # --- before the overlays are made -------------------------------------------------------------

    def prepare(self, phase: Phase) -> None:
        """Begin to record what is written from now on. Before the snapshot, so that nothing between the two is lost."""
        own = self.own
        targets = [disk.target for disk in own.disks if disk.source_format == "qcow2"]
        if own.checkpoint is None or not targets:
            self._own = replace(own, checkpoint=None)
            return
        self._own = replace(own, disks=[replace(disk, checkpoint=own.checkpoint if disk.target in targets else None) for disk in own.disks])
        # If this worker dies in the call, recovery deletes the checkpoint by its name.
        self._run.write({"intent": self.intent(()).as_document()})
        try:
            self._guest.checkpoints.create(own.checkpoint, targets)
        except LibvirtCallFailed as error:
            # The point is as good without it. Only the next one is dearer.
            phase.warn(f"no checkpoint: {error.detail}")
            self._own = replace(own, checkpoint=None)

    def undo(self) -> None:
        if self._own is None or self._own.checkpoint is None:
            return
        try:
            self._guest.checkpoints.delete(self._own.checkpoint)
        except StillpointError as error:
            _logger.warning("checkpoint_left", checkpoint=self._own.checkpoint, reason=error.detail)

    def window_begins(self) -> None:
        self._watching.mark(ImpactStage.window)

    def window_ended(self) -> None:
        bases = {overlay.target: overlay.base for overlay in self._overlays}
        disks = [replace(disk, still=last_write(bases[disk.target])) for disk in self.own.disks]
        self._own = replace(self.own, disks=disks, firmware_taken_at=self._firmware_kept_at())
        self._watching.merges(self._overlays)
        self._watching.mark(ImpactStage.copy)

    def _firmware_kept_at(self) -> str | None:
        try:
            self._folder.keep(self.own.firmware)
        except StillpointError as error:
            # The copy tries again, and tells the reason.
            _logger.warning("firmware_not_kept", reason=error.detail)
            return None
        return rfc3339(datetime.now(UTC))

    @property
    def overlays(self) -> tuple[Overlay, ...]:
        """As they were made for the window."""
        return tuple(self._overlays)

    def intent(self, overlays: Sequence[Overlay]) -> Intent:
        self._overlays = tuple(overlays)
        return Intent(overlays=overlays, own=self.own.as_document())

    # --- after the window -------------------------------------------------------------------------

    def decide_again(self, overlays: Sequence[Overlay]) -> list[PlannedDisk]:
        """The files are still now, and say themselves whether their bitmaps are whole. An increment may become a full copy by that."""
        return [self._checked(self.own.disk(overlay.target), overlay) for overlay in overlays]

    def _checked(self, disk: PlannedDisk, overlay: Overlay) -> PlannedDisk:
        if disk.level is not DiskLevel.bitmap or disk.bitmap is None:
            return replace(disk, virtual_size=overlay.virtual_size)
        state, detail = self._bitmap_in_file(overlay.base, overlay.base_format, disk.bitmap, disk.parent)
        identity: _Identity = {"serial": disk.serial, "source_files": disk.source_files}
        now = DiskNow(disk.target, overlay.base_format, overlay.virtual_size, state, detail, **identity)
        return replace(disk.decided(self._decide(now)), virtual_size=overlay.virtual_size)


def _last_of(session: Session, domain_id: str, repository_id: str) -> tuple[str, str | None, list[int] | None] | None:
    """Id, folder, and the sizes of the points that stand on each other there. None in place of the sizes: one of the points is not good."""
    # What removes points sees this job from now on, and leaves what it builds on.
    removal.turn_of(session, repository_id)
    point = points.last_sealed(session, domain_id, repository_id)
    if point is None:
        last = points.last_of(session, domain_id, repository_id)
        return (last.id, last.folder, None) if last is not None else None
    links = {link.id: link for link in points.links_of_domain(session, domain_id)}
    below = chains.ancestors(point.id, links)
    is_good = all(parent in links and links[parent].is_good for parent in below)
    if not is_good:
        return point.id, point.folder, None
    bottom_first = reversed(chains.tops_first([point.id, *below], {each: links[each].parents for each in below | {point.id}}))
    return point.id, point.folder, points.sizes_of(session, list(bottom_first))


def bitmap_by_libvirt(guest: Guest, name: str) -> tuple[BitmapState, str | None]:
    """The bitmap of a running domain: libvirt takes its record of a checkpoint again only if all bitmaps are whole."""
    try:
        guest.checkpoints.redefine(guest.checkpoints.xml(name), is_validated=True)
    except LibvirtCallFailed as error:
        return BitmapState.unusable, str(error.facts["message"])
    return BitmapState.whole, None


def _files_in(folder: str) -> tuple[str, ...]:
    """Without the lock of swtpm. A TPM that was never started has no files."""

    def names() -> list[str]:
        return [str(path) for path in Path(folder).iterdir() if path.is_file() and not path.name.startswith(".")]

    try:
        return tuple(sorted(bounded_io.call("looking into", folder, names)))
    except (OSError, StorageNotAnswering):
        return ()


def _source_files(disk: Disk) -> tuple[str, ...]:
    below = (*(disk.image.files if disk.image is not None else ()), *(file for file in disk.chain if file is not None))
    return tuple(dict.fromkeys((disk.source or "", *below)))


def _bytes_of_copy(disk: Disk, planned: PlannedDisk) -> int:
    """What a full copy takes at the most. An increment is small, and is not guessed."""
    if planned.level is not DiskLevel.full:
        return 0
    files = disk.image.files if disk.image is not None else ()
    return min(planned.virtual_size, sum(_allocated(file) for file in files) or planned.virtual_size)


def _allocated(path: str) -> int:
    try:
        return bounded_io.call("looking at", path, Path(path).stat).st_blocks * 512
    except (OSError, StorageNotAnswering):
        return 0
