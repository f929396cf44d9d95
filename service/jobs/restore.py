"""The job kind `restore`: brings a sealed point back, as files, as a new domain, below the domain that was backed up, or at once.

New files are written beside everything that is there, while a domain in place still runs. Only complete files that were checked block by
block take the place of disks. The old disks stay until the domain has run on the new ones.
"""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from sqlalchemy.orm import Session

from service import bounded_io
from service.db.engine import database_now
from service.db.tables import Job, RecoveryPoint
from service.disks import old_disks
from service.errors import LeaseLost, PointDamaged, StillpointError
from service.hypervisor.guest import Guest
from service.jobs import restore_domain, restore_files, restore_host, restore_recovery, restore_source
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.restore_flatten import Flattening
from service.jobs.restore_intent import NVRAM, NewFile, RestoreIntent, Stage
from service.jobs.restore_source import Archive, Source
from service.jobs.run import JobRun, MustRecover
from service.model import restored_definition
from service.model.intent import Intent
from service.model.lifecycle import PhaseName
from service.model.proofs import Proof
from service.model.repository import ProofKind, RestoreMode
from service.model.requests import RestoreRequest
from service.model.restore_plan import PlannedDisk, RestorePlan, paths_of
from service.model.restored_definition import Changes, NewDisk
from service.records import points

STOP_PATIENCE_S = 120.0
"""Seconds for a guest to shut itself down. After that it is switched off: its disks are replaced anyway."""
BOOT_PATIENCE_S = 300.0
"""Seconds for the agent of a restored guest to answer. After that the restore succeeds, and no old disk is removed."""


@dataclass(frozen=True)
class Restore:
    """The handler of the kind."""

    silence_s: float = 60.0
    stop_patience_s: float = STOP_PATIENCE_S
    boot_patience_s: float = BOOT_PATIENCE_S

    def run(self, run: JobRun, host: Host) -> Ending:
        begun = RestoreIntent.of(Intent.from_document(run.claim.intent))
        with bounded_io.refusals("restoring"):
            return _RestoreRun(self, run, host).continued(begun) if begun is not None else _RestoreRun(self, run, host).run()

    def recover(self, lost: LostJob, host: Host) -> Resolution:
        return restore_recovery.recover(lost, host)

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        """An error before the domain was touched. Nothing of the restore is left."""
        return Ending(error, is_undone=True)


class _RestoreRun:
    """One attempt of one job."""

    def __init__(self, kind: Restore, run: JobRun, host: Host) -> None:
        self._kind = kind
        self._run = run
        self._host = host
        self._request = run.request(RestoreRequest)
        self._result: dict[str, Any] = {}

    def run(self) -> Ending:
        """Every phase of the job, in order."""
        run = self._run
        point, repository = restore_source.rows(run, self._request.recovery_point)
        with Archive(run, repository, self._kind.silence_s) as archive:
            if self._request.mode is not RestoreMode.instant:
                # The limit of an instant restore is for the copy behind the guest: a limit before its start would only delay the guest.
                archive.stored.hand.set_pace(self._request.rate_limit_bytes)
            with run.phase(PhaseName.plan):
                source = restore_source.judged(run, point, lambda: restore_source.read(archive, point))
                self._adapted, adaptations = restore_host.adapted(self._host, source, self._request)
                plan = restore_host.planned(run, self._host, source, self._request, adaptations)
                self._user = restore_host.qemu_user(self._host, source.definition)
                self._tell(plan=plan.as_document())
            with run.phase(PhaseName.checksums):
                archive.phase = PhaseName.checksums
                restore_source.judged(run, point, lambda: self._check(archive, source))
            intent = self._write(archive, point, source, plan)
            if plan.mode is RestoreMode.files:
                return Ending(result=self._result_document(), is_undone=True)
            intent, guest = self._bring_up(intent, plan)
            if plan.mode is RestoreMode.instant:
                return self._flatten(archive, intent)
        return self._conclude(intent, guest)

    def continued(self, intent: RestoreIntent) -> Ending:
        """An earlier attempt has switched the domain to its restored disks."""
        self._result = dict((self._run.in_transaction(self._stored_result) or {}).get("restore") or {})
        if intent.stage is Stage.conclude:
            return self._conclude(intent, self._host.guest(intent.uuid))
        _, repository = restore_source.rows(self._run, intent.point_id)
        with Archive(self._run, repository, self._kind.silence_s) as archive:
            return self._flatten(archive, intent)

    def _stored_result(self, session: Session) -> dict[str, Any] | None:
        return session.get_one(Job, self._run.claim.job_id).result

    def _tell(self, **facts: Any) -> None:
        self._result |= facts
        self._run.write({"result": self._result_document()})

    def _result_document(self) -> dict[str, Any]:
        return {"restore": dict(self._result)}

    # --- before anything is written ---------------------------------------------------------------

    def _check(self, archive: Archive, source: Source) -> None:
        """Every stored byte of the point and of those below. Raises PointDamaged."""
        compared = archive.call("verify_point", folder=source.manifest.folder, checks=["bytes"])["bytes"]
        if not compared["ok"]:
            fault = compared["faults"][0]
            path = str(PurePath(archive.path, fault["folder"], fault["file"] or ""))
            raise PointDamaged(point=source.manifest.point_id, path=path, reason=fault["reason"], next_good=None)

    # --- new files --------------------------------------------------------------------------------

    def _write(self, archive: Archive, point: RecoveryPoint, source: Source, plan: RestorePlan) -> RestoreIntent:
        """The intent with every new file complete. On an error none of them is left."""
        mark = restore_host.mark_of(self._run.claim.job_id, self._run.claim.attempt)
        intent = self._intended(archive, source, plan, mark)
        with self._run.phase(PhaseName.write):
            archive.phase = PhaseName.write
            self._note(intent)
            started = time.monotonic()
            try:
                return restore_source.judged(self._run, point, lambda: self._written(archive, source, plan, intent))
            except LeaseLost:
                # Recovery has the job, and removes the files.
                raise
            except BaseException:
                self._remove_again(archive)
                raise
            finally:
                self._result["write_s"] = round(time.monotonic() - started, 3)

    def _remove_again(self, archive: Archive) -> None:
        restore_files.remove(self._intent.files)
        if self._intent.mode is RestoreMode.instant:
            # The error of the job is the one before: a repository that fails cannot take a right back, either.
            with suppress(StillpointError):
                archive.call("close_to_qemu", images=[list(image) for image in self._intent.images], uid=self._user.uid)

    def _intended(self, archive: Archive, source: Source, plan: RestorePlan, mark: str) -> RestoreIntent:
        paths = paths_of(plan)
        files = [restore_files.planned(disk.target, paths[disk.target], mark) for disk in plan.disks]
        stored = source.manifest.state_files.get(NVRAM)
        if plan.restores_state and stored:
            folder = PurePath(next(iter(paths.values()))).parent
            files.append(restore_files.planned(NVRAM, str(folder / f"{PurePath(stored).stem}.{mark}.fd"), mark))
        identity = plan.identity
        return RestoreIntent(
            stage=Stage.write,
            mode=plan.mode,
            repository_id=archive.id,
            point_id=plan.point_id,
            uuid=identity.uuid if identity is not None else source.manifest.domain_id,
            name=identity.name if identity is not None else source.manifest.domain_name,
            files=tuple(files),
            images=tuple((source.manifest.folder, disk.file) for disk in plan.disks),
            will_start=plan.will_start,
        )

    def _written(self, archive: Archive, source: Source, plan: RestorePlan, intent: RestoreIntent) -> RestoreIntent:
        below = self._opened(archive, intent) if plan.mode is RestoreMode.instant else {}
        disks = {disk.target: disk for disk in plan.disks}
        size = 0
        for file in intent.files:
            if file.what == NVRAM:
                archive.stored.copy_out(source.manifest.folder, source.manifest.state_files[NVRAM], file.partial)
            else:
                size += self._write_disk(archive, source, disks[file.what], file, below.get(file.what))
            complete = restore_files.identified(file)
            intent = intent.with_file(complete)
            # Before the file gets its name: recovery knows by its identity which file is ours.
            self._note(intent)
            restore_files.publish(complete, intent.name)
        self._result |= {"written_bytes": size, "files": {file.what: file.path for file in intent.files}}
        return self._defined(plan, intent, below) if plan.identity is not None else intent

    def _opened(self, archive: Archive, intent: RestoreIntent) -> dict[str, list[str]]:
        """By target: the images that the overlay will stand on. QEMU's user may read them from here on. Raises OutOfReachOfQemu."""
        user, images = self._user, [list(image) for image in intent.images]
        chains = archive.call("open_to_qemu", images=images, uid=user.uid, gid=user.gid, groups=list(user.groups))["chains"]
        return dict(zip(intent.targets, chains, strict=True))

    def _write_disk(self, archive: Archive, source: Source, disk: PlannedDisk, file: NewFile, below: Sequence[str] | None) -> int:
        where: dict[str, Any] = {"folder": source.manifest.folder, "file": disk.file, "target": file.partial}
        where["virtual_size"] = disk.virtual_size
        owner = restore_files.owner_of(disk.replaces) if disk.replaces is not None else None
        if below is not None:
            archive.call("make_overlay", disk=disk.target, **where)
            return 0
        written = archive.call(
            "restore_disk",
            disk=disk.target,
            **where,
            target_format=disk.format,
            blocks_file=disk.blocks_file,
            encrypted=disk.is_encrypted,
            owner=owner,
        )
        sealed = next(one.content for one in source.manifest.disks if one.target == disk.target)
        if written["content"] != sealed:
            raise PointDamaged(
                point=source.manifest.point_id, path=disk.blocks_file, reason="its digests are not those that were sealed", next_good=None
            )
        return int(written["written_bytes"])

    def _defined(self, plan: RestorePlan, intent: RestoreIntent, below: dict[str, list[str]]) -> RestoreIntent:
        """The intent with the new definition, and with the old one of a domain in place."""
        assert plan.identity is not None
        formats = {disk.target: disk.format for disk in plan.disks}
        guest = self._host.guest(intent.uuid) if plan.mode is RestoreMode.in_place else None
        old = guest.inactive_xml() if guest is not None else None
        changes = Changes(
            identity=plan.identity,
            disks={
                file.what: NewDisk(file.path, formats[file.what], below.get(file.what, ())) for file in intent.files if file.what in formats
            },
            is_new_domain=guest is None,
            nvram=next((file.path for file in intent.files if file.what == NVRAM), None),
            unlabelled=[model for model in self._host.connection.security_drivers() if model == "dac"],
        )
        definition, adapted = restored_definition.restored(old or self._adapted, changes)
        self._result["adaptations"] = [each.as_document() for each in (*plan.adaptations, *adapted)]
        old_files = tuple(disk.replaces for disk in plan.disks if disk.replaces is not None)
        return replace(intent, definition=definition, old_definition=old, old_files=old_files)

    # --- the domain -------------------------------------------------------------------------------

    def _bring_up(self, intent: RestoreIntent, plan: RestorePlan) -> tuple[RestoreIntent, Guest]:
        """Stop, define, start. From the stop on, an error means that all is taken back, or that recovery looks."""
        if plan.mode is RestoreMode.in_place:
            intent = self._stopped(intent)
        with self._run.phase_that_cannot_be_cancelled(PhaseName.define):
            intent = self._note(intent.at(Stage.define))
            self._run.point_is_pending()
            with self._left_to_recovery():
                guest, error = restore_domain.bring_up_or_take_back(intent, self._host)
        if guest is None:
            assert error is not None
            # Nothing is left: the error may end the job.
            self._run.may_have_point = False
            raise error
        self._tell(domain={"id": guest.uuid, "name": guest.name}, is_started=intent.will_start)
        return intent, guest

    def _stopped(self, intent: RestoreIntent) -> RestoreIntent:
        """The domain in place is off. A cancel before it is off leaves it as it was."""
        run = self._run
        guest = self._host.guest(intent.uuid)
        was_running = not guest.is_shut_off()
        try:
            with run.phase(PhaseName.stop):
                intent = self._note(replace(intent, was_running=was_running, aside=guest.checkpoints.of_ours()).at(Stage.stop))
        except StillpointError as error:
            if not isinstance(error, LeaseLost):
                restore_files.remove(intent.files)
            raise
        if was_running:
            # A guest that was told to shut down cannot be told otherwise, so this is not a safe point.
            with run.phase_that_cannot_be_cancelled(PhaseName.stop), self._left_to_recovery():
                guest.stop(self._kind.stop_patience_s)
        return intent

    @contextmanager
    def _left_to_recovery(self) -> Iterator[None]:
        try:
            yield
        except LeaseLost:
            raise
        except StillpointError as error:
            raise MustRecover(what=error.detail) from error

    def _flatten(self, archive: Archive, intent: RestoreIntent) -> Ending:
        run = self._run
        run.may_have_point = False
        intent = self._note(intent.at(Stage.flatten))
        flattening = Flattening(run, self._host, archive, intent, self._request.rate_limit_bytes)
        self._result |= {"domain": {"id": intent.uuid, "name": intent.name}, "files": {file.what: file.path for file in intent.files}}
        with run.phase(PhaseName.flatten):
            try:
                guest = flattening.run()
            finally:
                self._result["reads_repository"] = sorted(flattening.remaining)
                run.write({"result": self._result_document()})
        return self._conclude(intent, guest)

    # --- the end ----------------------------------------------------------------------------------

    def _conclude(self, intent: RestoreIntent, guest: Guest) -> Ending:
        """Wait until the domain has run, and only then let go of the old disks."""
        run, has_run = self._run, False
        if intent.will_start:
            with run.phase_that_cannot_be_cancelled(PhaseName.start) as phase:
                has_run = self._has_run(guest)
                if not has_run:
                    phase.warn(f"The agent of {guest.name} did not answer within {self._kind.boot_patience_s:.0f} s.")
        proof = Proof(ProofKind.restored, ok=True if has_run else None, facts={"mode": intent.mode.value}, job_id=run.claim.job_id)
        run.in_transaction(lambda session: points.add_proofs(session, intent.point_id, [proof], database_now(session)))
        old = list(intent.old_files)
        removed = old_disks.remove(old, self._host.guests) if has_run and self._request.remove_old_disks else []
        self._result |= {"has_run": has_run, "old_disks": [path for path in old if path not in removed], "old_disks_removed": removed}
        return Ending(result=self._result_document(), is_undone=True)

    def _has_run(self, guest: Guest) -> bool:
        try:
            return restore_domain.wait_until_it_ran(guest, self._kind.boot_patience_s, lambda: self._run.safe_point(PhaseName.start))
        except StillpointError:
            return False

    def _note(self, intent: RestoreIntent) -> RestoreIntent:
        self._intent = intent
        self._run.write({"intent": intent.as_intent().as_document()})
        return intent
