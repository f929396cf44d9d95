"""Writes the new files of a restore: disks, or overlays over the repository, and what belongs to the firmware."""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import PurePath
from typing import Any

from service import log
from service.errors import LeaseLost, PointDamaged, RepositoryUnusable, StillpointError
from service.jobs import restore_files, restore_host
from service.jobs.kind import Host
from service.jobs.restore_intent import NVRAM, NewFile, RestoreIntent, Stage
from service.jobs.restore_source import Archive, Source
from service.jobs.restore_tpm import TpmSwap
from service.jobs.run import JobRun
from service.model import domain_xml, restored_definition
from service.model.repository import RestoreMode
from service.model.restore_identity import MAX_NAME_BYTES, shortened
from service.model.restore_plan import PlannedDisk, RestorePlan, paths_of
from service.model.restored_definition import Changes, NewDisk

_logger = log.get(__name__)


class Writing:
    """`definition`: of the point, as this host can run it. `note`: writes the intent. `facts`: for the job's result, after `run`.

    `had_run`: the domain in place ran before an earlier attempt.
    """

    def __init__(
        self,
        run: JobRun,
        host: Host,
        archive: Archive,
        *,
        source: Source,
        plan: RestorePlan,
        definition: str,
        note: Callable[[RestoreIntent], object],
        had_run: bool = False,
    ) -> None:
        self._host = host
        self._archive = archive
        self._source = source
        self._plan = plan
        self._definition = definition
        self._write_intent = note
        self._had_run = had_run
        self._mark = restore_host.mark_for(run)
        self._user = restore_host.qemu_user(host, definition)
        self.facts: dict[str, Any] = {}

    def run(self) -> RestoreIntent:
        """The intent with every new file complete. On an error none of them is left. Raises PointDamaged, TargetFull, ..."""
        self._note(self._intended())
        started = time.monotonic()
        try:
            return self._written(self._intent)
        except LeaseLost:
            # Recovery has the job, and removes the files.
            raise
        except BaseException:
            self._remove_again()
            raise
        finally:
            self.facts["write_s"] = round(time.monotonic() - started, 3)

    def foreseen(self) -> dict[str, Any]:
        """What belongs to the whole plan and follows from the definition: every file, every change of it, the space. Writes nothing."""
        intent = self._intended()
        folders = sorted({str(PurePath(file.path).parent) for file in intent.files})
        free = {folder: space.free_bytes for folder, space in restore_files.spaces(folders).items()}
        if self._plan.identity is not None:
            self._defined(intent, {})
        adaptations = self.facts.get("adaptations", [])
        return {"files": {file.what: file.path for file in intent.files}, "free_bytes": free, "adaptations": adaptations}

    def _note(self, intent: RestoreIntent) -> None:
        self._intent = intent
        self._write_intent(intent)

    def _remove_again(self) -> None:
        restore_files.remove_all(self._intent)
        if self._intent.mode is RestoreMode.instant:
            # A cancelled job takes the right back, too.
            self._archive.stored.safe_point = None
            # The error of the job is the one before: a repository that fails cannot take a right back, either.
            with suppress(StillpointError):
                self._archive.call("close_to_qemu", images=[list(image) for image in self._intent.images], uid=self._user.uid)

    def _intended(self) -> RestoreIntent:
        paths = paths_of(self._plan)
        files = [restore_files.planned(disk.target, paths[disk.target], self._mark) for disk in self._plan.disks]
        identity = self._plan.identity
        if self._plan.restores_state and self._source.manifest.state_files.get(NVRAM):
            files.append(restore_files.planned(NVRAM, self._nvram_path(PurePath(files[0].path).parent), self._mark))
        return RestoreIntent(
            stage=Stage.write,
            mode=self._plan.mode,
            repository_id=self._archive.id,
            point_id=self._plan.point_id,
            uuid=identity.uuid if identity is not None else self._source.manifest.domain_id,
            name=identity.name if identity is not None else self._source.manifest.domain_name,
            files=tuple(files),
            images=tuple((self._source.manifest.folder, disk.file) for disk in self._plan.disks),
            will_start=self._plan.will_start,
            was_running=self._had_run,
        )

    def _nvram_path(self, folder: PurePath) -> str:
        """Where the definition has its file, or beside the disks if that folder is not on this host."""
        identity, named = self._plan.identity, domain_xml.nvram_path(self._definition)
        if identity is None:
            return str(folder / NVRAM)
        if named is not None and restore_files.existing([str(PurePath(named).parent)]):
            folder = PurePath(named).parent
        ending = f"_VARS.{self._mark}.fd"
        return str(folder / (shortened(identity.name.replace("/", "_"), MAX_NAME_BYTES - len(ending)) + ending))

    def _written(self, intent: RestoreIntent) -> RestoreIntent:
        below = self._opened(intent) if self._plan.mode is RestoreMode.instant else {}
        disks = {disk.target: disk for disk in self._plan.disks}
        size = 0
        for file in intent.files:
            size += self._made(file, disks, below)
            if self._plan.identity is not None:
                restore_files.give_to_qemu(file, self._user, self._replaced_by(file))
            complete = restore_files.identified(file)
            intent = intent.with_file(complete)
            # Before the file gets its name: recovery knows by its identity which file is ours.
            self._note(intent)
            restore_files.publish(complete, intent.name)
        self.facts |= {"written_bytes": size, "files": {file.what: file.path for file in intent.files}}
        return self._with_tpm(self._defined(intent, below)) if self._plan.identity is not None else intent

    def _made(self, file: NewFile, disks: Mapping[str, PlannedDisk], below: Mapping[str, Sequence[str]]) -> int:
        """Bytes that were written. If the process that writes is killed from outside, another one writes the file once more."""
        try:
            return self._make(file, disks, below)
        except RepositoryUnusable as error:
            # The programs that it had started died with it: nothing writes to the partial file any more.
            _logger.warning("restored_file_written_again", path=file.path, reason=error.detail)
            restore_files.remove([file])
            return self._make(file, disks, below)

    def _make(self, file: NewFile, disks: Mapping[str, PlannedDisk], below: Mapping[str, Sequence[str]]) -> int:
        if file.what != NVRAM:
            return self._write_disk(disks[file.what], file, below.get(file.what))
        self._archive.stored.copy_out(self._source.manifest.folder, self._source.manifest.state_files[NVRAM], file.partial)
        return 0

    def _replaced_by(self, file: NewFile) -> str | None:
        if file.what == NVRAM:
            return domain_xml.nvram_path(self._definition) if self._plan.mode is RestoreMode.in_place else None
        return next((disk.replaces for disk in self._plan.disks if disk.target == file.what), None)

    def _with_tpm(self, intent: RestoreIntent) -> RestoreIntent:
        """The state of the TPM, complete beside its place."""
        names = list(self._source.manifest.state_files.get("tpm") or ())
        swap = TpmSwap.of(intent.definition or "", self._mark) if names and self._plan.restores_state else None
        if swap is None:
            return intent
        intent = replace(intent, tpm=swap)
        self._note(intent)
        folder = self._source.manifest.folder

        def copy_out(name: str, path: str) -> None:
            self._archive.stored.copy_out(folder, name, path)

        try:
            swap.stage(names, copy_out)
        except RepositoryUnusable as error:
            _logger.warning("restored_file_written_again", path=swap.state, reason=error.detail)
            # From the beginning, in an empty folder.
            swap.stage(names, copy_out)
        return intent

    def _opened(self, intent: RestoreIntent) -> dict[str, list[str]]:
        """By target: the images that the overlay will stand on. QEMU's user may read them from here on. Raises OutOfReachOfQemu."""
        user, images = self._user, [list(image) for image in intent.images]
        chains = self._archive.call("open_to_qemu", images=images, uid=user.uid, gid=user.gid, groups=list(user.groups))["chains"]
        return dict(zip(intent.targets, chains, strict=True))

    def _write_disk(self, disk: PlannedDisk, file: NewFile, below: Sequence[str] | None) -> int:
        where: dict[str, Any] = {"folder": self._source.manifest.folder, "file": disk.file, "target": file.partial}
        where["virtual_size"] = disk.virtual_size
        if below is not None:
            self._archive.call("make_overlay", disk=disk.target, **where)
            return 0
        written = self._archive.call(
            "restore_disk",
            disk=disk.target,
            **where,
            target_format=disk.format,
            blocks_file=disk.blocks_file,
            encrypted=disk.is_encrypted,
        )
        sealed = next(one.content for one in self._source.manifest.disks if one.target == disk.target)
        if written["content"] != sealed:
            raise PointDamaged(
                point=self._source.manifest.point_id,
                path=disk.blocks_file,
                reason="its digests are not those that were sealed",
                next_good=None,
            )
        return int(written["written_bytes"])

    def _defined(self, intent: RestoreIntent, below: dict[str, list[str]]) -> RestoreIntent:
        """The intent with the new definition, and with the old one of a domain in place."""
        assert self._plan.identity is not None
        formats = {disk.target: disk.format for disk in self._plan.disks}
        guest = self._host.guest(intent.uuid) if self._plan.mode is RestoreMode.in_place else None
        old = guest.inactive_xml() if guest is not None else None
        changes = Changes(
            identity=self._plan.identity,
            disks={
                file.what: NewDisk(file.path, formats[file.what], below.get(file.what, ())) for file in intent.files if file.what in formats
            },
            is_new_domain=guest is None,
            nvram=next((file.path for file in intent.files if file.what == NVRAM), None),
            unlabelled=[model for model in self._host.connection.security_drivers() if model == "dac"],
        )
        definition, adapted = restored_definition.restored(old or self._definition, changes)
        self.facts["adaptations"] = [each.as_document() for each in (*self._plan.adaptations, *adapted)]
        old_files = [disk.replaces for disk in self._plan.disks if disk.replaces is not None]
        if old is not None and changes.nvram is not None:
            old_files += [path for path in [domain_xml.nvram_path(old)] if path is not None]
        return replace(intent, definition=definition, old_definition=old, old_files=tuple(old_files))
