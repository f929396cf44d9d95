"""Copies a point whose files are still into its repository, and seals it there. The guest writes to its overlays meanwhile."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol, TypeVar

from service import log
from service.clock import rfc3339
from service.errors import (
    CopyDiffers,
    PointDamaged,
    PointLost,
    RepositoryFull,
    RepositoryGone,
    RepositoryNotAnswering,
    RepositoryReadOnly,
    RepositoryRefused,
    RepositoryUnusable,
    SourceWritten,
    StillpointError,
)
from service.jobs.backup_folder import BackupFolder
from service.jobs.run import JobRun, MustRecover
from service.jobs.still_disks import StillDisks
from service.model.backup_intent import BackupIntent, PlannedDisk
from service.model.intent import Intent, Overlay
from service.model.lifecycle import PhaseName
from service.model.manifest import Manifest
from service.model.repository import DEFINITION_FILE, STATE_FILE, Compare
from service.model.requests import BackupRequest
from service.repository import signing
from service.repository.hand import Progress
from service.repository.signing import SigningKey
from service.repository.store import Repository

T = TypeVar("T")

PATIENCE_S = 600.0
"""Seconds that one step waits for a repository that is full, gone or does not answer. After that the copy is given up."""
PAUSE_S = 5.0
"""Seconds between two tries of such a step."""
TICK_S = 0.2
"""Seconds between two looks at the job and the guest during a pause."""
UNUSABLE_TRIES = 2
"""Tries of a step whose process died, each of them with two processes. A program that dies each time does not become better by waiting."""

_MAY_PASS = (RepositoryNotAnswering, RepositoryFull, RepositoryGone, RepositoryReadOnly, RepositoryRefused, RepositoryUnusable)

_logger = log.get(__name__)


class Watch(Protocol):
    """What looks after the guest during the copy."""

    def check(self) -> None:
        """Raises what must end the copy."""
        ...

    def check_before_leaving(self) -> None:
        """Raises what must end the copy before nobody watches."""
        ...

    def pace(self) -> int | None:
        """Bytes a second that the copy may read. None: no limit."""
        ...


class Fate(StrEnum):
    """Where the point is after an error."""

    absent = "absent"
    sealed = "sealed"
    """Only the answer was lost."""
    unknown = "unknown"


@dataclass(frozen=True)
class CopySettings:
    patience_s: float = PATIENCE_S
    pause_s: float = PAUSE_S


class PointCopy:
    """One attempt. `own` grows with each disk that is copied, and is written into the job each time. `owner`: the id of the signing key."""

    def __init__(
        self,
        run: JobRun,
        repository: Repository,
        own: BackupIntent,
        overlays: tuple[Overlay, ...],
        *,
        watch: Watch,
        disks: StillDisks,
        folder: BackupFolder,
        settings: CopySettings,
        owner: str,
    ) -> None:
        self.own = own
        self._run = run
        self._request = run.request(BackupRequest)
        self._repository = repository
        self._overlays = {overlay.target: overlay for overlay in overlays}
        self._watch = watch
        self._disks = disks
        self._folder = folder
        self._settings = settings
        self._owner = owner
        self._phase = PhaseName.transfer
        self._pause = threading.Event()
        #: From the moment at which the point may be published: its manifest, and the digest of that.
        self.published: tuple[Manifest, str] | None = None
        repository.safe_point = self._safe_point

    # --- the steps --------------------------------------------------------------------------------

    def decide(self, decide: Callable[[], Sequence[PlannedDisk]]) -> None:
        """`decide`: looks at the files, which are still by now, and returns the disks with their levels."""
        self._note(replace(self.own, disks=self._patiently(decide)))

    def transfer(self, *, is_encrypted: bool) -> Manifest | None:
        """Copy everything into the partial folder of the point. Returns the manifest if an earlier attempt has published the point."""
        with self._in(PhaseName.transfer):
            begun = self._patiently(lambda: self._repository.begin_point(self.own.domain_id, self.own.name, self._owner))
            if begun.is_published:
                self._patiently(lambda: self._repository.drop_partial(begun.partial))
                return self._patiently(lambda: self._repository.point(self.own.folder))
            if not begun.is_resumed:
                # Nothing of an earlier attempt is there any more.
                self.own = replace(self.own, stored=(), disks=[replace(disk, copied=None) for disk in self.own.disks])
            self._note(replace(self.own, partial=begun.partial))
            self._store_state(begun.partial, is_encrypted=is_encrypted)
            for disk in self.own.disks:
                if disk.copied is None:
                    self._copy(disk, begun.partial, is_encrypted=is_encrypted)
        return None

    def compare(self, *, is_encrypted: bool) -> None:
        """Raises CopyDiffers, PointLost."""
        if self._request.compare is Compare.nothing:
            return
        with self._in(PhaseName.compare):
            for disk in self.own.disks:
                arguments = self._arguments(disk, is_encrypted=is_encrypted)
                arguments |= {"partial": self.own.partial, "compare": self._request.compare.value}
                try:
                    self._patiently(lambda: self._long("compare_disk", arguments, disk.target))  # noqa: B023 - called at once
                except CopyDiffers:
                    # If another program writes to the disk, not the copy is to blame.
                    self._must_be_still()
                    raise

    def seal(self, manifest_of: Callable[[BackupIntent, Any], Manifest], key: SigningKey, *, is_encrypted: bool) -> tuple[Manifest, str]:
        """Returns the manifest and its digest. `manifest_of`: makes the manifest when the checksums of the files are known."""
        own = self.own
        assert own.partial is not None
        partial = own.partial
        with self._in(PhaseName.seal):
            state = [STATE_FILE] if is_encrypted else own.stored
            names = [*state, *(name for disk in own.disks for name in (disk.file, (disk.copied or {})["blocks_file"]))]
            known = {disk.file: sha256 for disk in own.disks if (sha256 := (disk.copied or {}).get("stored_sha256"))}
            files = self._patiently(lambda: self._repository.seal(partial, names, known=known, on_progress=self._progress(None)))
            manifest = manifest_of(own, files)
            self._must_be_still()
            # From here on the point may be there, so a wish to cancel comes too late.
            self._repository.safe_point = self._stop_point
            self.published = manifest, self.digest_of(manifest)
            self._patiently(lambda: self._repository.publish(partial, manifest, key), self._stop_point)
        return self.published

    def fate(self) -> Fate:
        """After the copy was given up. Without its unfinished folder, nothing can publish the point any more."""
        if self.published is None or self.own.partial is None:
            return Fate.absent
        self._repository.safe_point = None
        try:
            if self._repository.drop_partial(self.own.partial):
                return Fate.absent
            is_there = self.digest_of(self._repository.point(self.own.folder)) == self.published[1]
        except PointDamaged:
            return Fate.absent
        except StillpointError:
            return Fate.unknown
        return Fate.sealed if is_there else Fate.absent

    @staticmethod
    def digest_of(manifest: Manifest) -> str:
        return signing.digest(signing.canonical(manifest))

    # --- one disk, one file -----------------------------------------------------------------------

    def _copy(self, disk: PlannedDisk, partial: str, *, is_encrypted: bool) -> None:
        arguments = self._arguments(disk, is_encrypted=is_encrypted) | {"partial": partial}

        def copy() -> dict[str, Any]:
            # Before each try: a repository may have been waited for.
            self._must_be_still()
            return self._long("copy_disk", arguments, disk.target)

        try:
            copied = self._patiently(copy)
        except SourceWritten as error:
            raise PointLost(domain=self._run.claim.domain_name, reason=f"another program wrote to {error.facts['path']}") from error
        self._must_be_still()
        self._note(self.own.with_disk(replace(disk, copied=copied)))

    def _arguments(self, disk: PlannedDisk, *, is_encrypted: bool) -> dict[str, Any]:
        overlay = self._overlays[disk.target]
        return {
            "name": disk.file,
            "source": {"file": overlay.base, "format": overlay.base_format, "still": disk.still},
            "virtual_size": disk.virtual_size,
            "level": disk.level.value,
            "bitmap": disk.bitmap,
            "parent": disk.parent,
            "compress": self._request.compress,
            "encrypted": is_encrypted,
        }

    def _long(self, step: str, arguments: dict[str, Any], target: str) -> dict[str, Any]:
        self._set_pace()
        return self._repository.call(step, arguments, on_progress=self._progress(target))

    def _store_state(self, partial: str, *, is_encrypted: bool) -> None:
        """Definition, NVRAM and TPM state."""
        own = self.own
        files = self._folder.kept(own.firmware)
        if files is None:
            self._folder.keep(own.firmware)
            self._note(replace(own, firmware_taken_at=rfc3339(datetime.now(UTC))))
            files = self._folder.kept(own.firmware) or {}
        if is_encrypted:
            self._patiently(lambda: self._repository.put_state(partial, {DEFINITION_FILE: own.definition}, files))
        else:
            for name, path in files.items():
                if name not in own.stored:
                    self._patiently(lambda: self._repository.put_file(partial, name, path))  # noqa: B023 - called at once
            self._patiently(lambda: self._repository.put_text(partial, DEFINITION_FILE, own.definition))
        self._note(replace(self.own, stored=[DEFINITION_FILE, *files]))

    # --- patience ---------------------------------------------------------------------------------

    def _patiently(self, step: Callable[[], T], safe_point: Callable[[], None] | None = None) -> T:
        """Try a step again while the repository may come back. The guest is not affected, but for the overlays that grow."""
        until: float | None = None
        since = datetime.now(UTC)
        deaths = 0
        while True:
            try:
                result = step()
            except _MAY_PASS as error:
                if until is None:
                    until, since = time.monotonic() + self._settings.patience_s, datetime.now(UTC)
                deaths += isinstance(error, RepositoryUnusable)
                if time.monotonic() > until or deaths >= UNUSABLE_TRIES:
                    raise
                self._tell(error, since)
                self._wait(safe_point or self._safe_point)
            else:
                if until is not None:
                    self._run.waits_no_longer()
                return result

    def _tell(self, error: StillpointError, since: datetime) -> None:
        """The job shows what it waits for."""
        _logger.warning("repository_away", code=error.code, detail=error.detail, again_in_s=self._settings.pause_s)
        self._run.waits(self._phase, error, since, since + timedelta(seconds=self._settings.patience_s))

    def _wait(self, safe_point: Callable[[], None]) -> None:
        until = time.monotonic() + self._settings.pause_s
        while time.monotonic() < until:
            safe_point()
            self._pause.wait(min(TICK_S, self._settings.pause_s))

    def _safe_point(self) -> None:
        self._stop_point()
        self._run.safe_point(self._phase)
        self._disks.check()
        self._set_pace()

    def _must_be_still(self) -> None:
        """What is copied is the point only while the guest writes elsewhere. Raises PointLost."""
        self._disks.must_be_still(self._stop_point)

    def _stop_point(self) -> None:
        """Also where a wish to cancel comes too late. Raises MustRecover, LeaseLost, and what the watch raises.

        A worker that stops leaves the copy to the next one, which continues. Until then nobody watches the guest.
        """
        self._watch.check()
        if self._run.ends_at is not None:
            self._watch.check_before_leaving()
            raise MustRecover(what="the worker was stopped during the copy")
        if self._run.lease_lost.is_set():
            self._run.safe_point(self._phase)

    def _set_pace(self) -> None:
        limits = [limit for limit in (self._request.rate_limit_bytes, self._watch.pace()) if limit is not None]
        self._repository.hand.set_pace(min(limits) if limits else None)

    # --- what the job shows -----------------------------------------------------------------------

    def _in(self, name: PhaseName) -> Any:
        self._phase = name
        return self._run.phase(name)

    def _progress(self, target: str | None) -> Callable[[Progress], None]:
        def note(progress: Progress) -> None:
            self._run.progress(self._phase, progress.done_bytes, progress.total_bytes, progress.rate_bytes_s, disk=target)

        return note

    def _note(self, own: BackupIntent) -> None:
        self.own = own
        self._run.write({"intent": Intent(overlays=tuple(self._overlays.values()), own=own.as_document()).as_document()})
