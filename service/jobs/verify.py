"""The job kind `verify`: tests a sealed point, and adds what was found to the point as proofs.

Only the hand reads the repository, so a repository that hangs costs this job and nothing else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from service.db.engine import database_now
from service.errors import ForeignEntry, KeyUnusable, PointDamaged, PointIncomplete, PointNotSealed, RepositoryRefused, StillpointError
from service.jobs import verify_signatures
from service.jobs.ending import Ending
from service.jobs.kind import Host, LostJob, Resolution
from service.jobs.replaced_points import is_the_next, wait_until_in_place
from service.jobs.run import JobRun, MustRecover, Phase
from service.jobs.verify_healing import MAX_ROUNDS, Healing
from service.model import chains
from service.model.lifecycle import PhaseName
from service.model.proofs import CAN_PROVE_DAMAGE, Proof
from service.model.repository import MANIFEST_FILE, SIGNATURE_FILE, ProofKind
from service.model.requests import VerifyRequest
from service.records import damage, points, repositories
from service.repository import signing
from service.repository.hand import SILENCE_S, Progress
from service.repository.keys import Key
from service.repository.signing import SignatureState, SigningKey
from service.repository.store import Repository

MAX_FAULTS = 20
"""Faults that a proof keeps. The counts beside them are those of all faults."""
PHASES = {
    ProofKind.bytes: PhaseName.checksums,
    ProofKind.structure: PhaseName.structure,
    ProofKind.filesystem: PhaseName.filesystem,
}
"""The checks in their order. Bytes are always first: what is read from a damaged file proves nothing."""

MISSING = "the point is not there"
NAMELESS = {"file": "", "reason": "it is not as it was sealed"}
UNKNOWN = "nothing could be told"
NOT_HEALED = "{count} damaged files stay as they are; the first one: {reason}"
SEEN_ONCE = "what was wrong at the first read was not wrong at the second: look at the storage of the repository"
FILESYSTEM_ERRORS = "a filesystem has errors on record, which the guest had before the backup"


@dataclass(frozen=True)
class Verify:
    """The handler of the kind. A verify changes no file, so a lost job is tried again from its beginning."""

    silence_s: float = SILENCE_S
    open_repository: Callable[..., Repository] = Repository
    #: The folder with the key of the service. None: signatures are not written again.
    state_dir: Path | None = None

    def run(self, run: JobRun, host: Host) -> Ending:  # noqa: ARG002 - as every handler has it
        return _VerifyRun(self, run).run()

    def recover(self, lost: LostJob, host: Host) -> Resolution:  # noqa: ARG002 - as every handler has it
        return Resolution(is_tried_again=True)

    def ended_early(self, run: JobRun, error: StillpointError) -> Ending:  # noqa: ARG002 - as every handler has it
        return Ending(error)


@dataclass(frozen=True)
class _Subject:
    """What is on record of the point and its repository. `key`: a reference, never the key."""

    point_id: str
    folder: str
    is_encrypted: bool
    repository_id: str
    path: str
    key: Key | None
    domain_id: str
    #: By the folder of the point and of each point below: the digest of its manifest.
    manifests: Mapping[str, str | None]


@dataclass(frozen=True)
class _Seen:
    """What one read of a check came to. `document`: as the hand answers. `once`: faults that were not there when it was read again."""

    document: Mapping[str, Any]
    faults: Sequence[Mapping[str, Any]]
    once: Sequence[Mapping[str, Any]] = ()


@dataclass(frozen=True)
class _Tested:
    """What a check found. `faults`: why the point is not good; none: it is good, or that cannot be told. `begun`: by the database."""

    proof: Proof
    begun: datetime
    faults: Sequence[Mapping[str, Any]] = ()
    #: Every stored byte of the whole chain was read, and nothing is wrong with it but the faults.
    is_whole_read: bool = False


class _VerifyRun:
    """One attempt of one job."""

    def __init__(self, kind: Verify, run: JobRun) -> None:
        self._kind = kind
        self._run = run
        self._request = run.request(VerifyRequest)
        self._phase = PhaseName.checksums
        self._subject = self._begun()
        self._proofs: list[Proof] = []
        self._faults: Sequence[Mapping[str, Any]] = ()
        self._read_bytes = 0
        signing_key = SigningKey.of_service(kind.state_dir) if kind.state_dir is not None and self._request.heal else None
        self._healing = Healing(run, self._subject.domain_id, self._subject.folder, self._subject.manifests, signing_key)

    def run(self) -> Ending:
        """Every check that was asked for, in order. A point that is not good ends the job, after its proof is on record."""
        wanted = [kind for kind in PHASES if kind is ProofKind.bytes or kind in self._request.checks]
        error: StillpointError | None = None
        with self._opened(self._subject.key) as repository:
            if self._request.heal and self._run.claim.attempt > 1:
                self._healing.recall(repository)
            for kind in wanted:
                error = error or self._check(kind, repository)
                if error is not None and kind is ProofKind.bytes and self._request.heal:
                    error = self._healed(error, repository)
            self._healing.end(repository)
        return Ending(error, result={"verify": self._result()})

    def _result(self) -> dict[str, Any]:
        healing = [healed.as_document() for healed in self._healing.done]
        result = {"point": self._subject.point_id, "proofs": [_shown(proof) for proof in self._proofs], "read_bytes": self._read_bytes}
        return {**result, "healing": healing} if self._request.heal else result

    def _healed(self, error: StillpointError, repository: Repository) -> StillpointError | None:
        """Make the bad files again, and read the point again. Returns why it is not good after all."""
        for _ in range(MAX_ROUNDS):
            self._phase = PhaseName.heal
            with self._run.phase(self._phase) as phase:
                tried = self._healing.heal(repository, self._faults)
                reasons = [healed.reason for healed in tried if healed.reason is not None]
                if reasons:
                    phase.warn(NOT_HEALED.format(count=len(reasons), reason=reasons[0]))
            if len(reasons) == len(tried):
                return error
            still = self._check(ProofKind.bytes, repository)
            if still is None:
                return None
            error = still
        return error

    def _opened(self, key: Key | None) -> Repository:
        subject, kind = self._subject, self._kind
        repository = kind.open_repository(subject.path, subject.repository_id, key, silence_s=kind.silence_s, safe_point=self._safe_point)
        repository.hand.set_pace(self._request.rate_limit_bytes)
        return repository

    def _begun(self) -> _Subject:
        subject = self._run.in_transaction(self._on_record)
        wait_until_in_place(self._run, self._phase, subject.repository_id, subject.domain_id, [subject.point_id])
        return self._run.in_transaction(self._on_record)

    def _on_record(self, session: Session) -> _Subject:
        """Raises RecoveryPointNotFound, PointNotSealed, KeyUnusable."""
        point = points.get(session, self._request.recovery_point)
        if point.repository_id is None or point.folder is None:
            raise PointNotSealed(point=point.id)
        repository = repositories.get(session, point.repository_id)
        links = {link.id: link for link in points.links_of_domain(session, point.domain_id)}
        needed = chains.ancestors(point.id, links) | {point.id}
        there = points.of_repository(session, point.repository_id)
        of_chain = {row.folder: row.manifest_digest for row in there if row.id in needed and row.folder is not None}
        key = Key(repository.key_reference) if repository.key_reference is not None else None
        return _Subject(point.id, point.folder, point.is_encrypted, repository.id, repository.path, key, point.domain_id, of_chain)

    def _safe_point(self) -> None:
        self._run.safe_point(self._phase)
        if self._run.ends_at is not None:
            # It may read for hours, and the service is told to stop: the next worker begins it again.
            raise MustRecover(what="The service was told to stop")

    # --- one check --------------------------------------------------------------------------------

    def _check(self, kind: ProofKind, repository: Repository) -> StillpointError | None:
        """Returns why the point is not good. Raises the errors of a repository that cannot be read: they prove nothing."""
        self._phase = PHASES[kind]
        with self._run.phase(self._phase) as phase:
            tested = self._with_or_without_key(phase, repository) if kind is ProofKind.bytes else self._tested(kind, repository)
            self._put_on_record(tested)
            # Only now, as the points that share the damage are no longer good.
            self._faults = tested.faults
            error = self._damage(tested.faults) if tested.faults else None
            if error is None and kind is ProofKind.bytes:
                error = verify_signatures.check(self._run, lambda: self._opened(None), self._subject.point_id)
            if error is not None:
                phase.fail(error.detail)
            elif "seen_once" in tested.proof.facts:
                phase.warn(SEEN_ONCE)
            elif tested.proof.ok is not True:
                phase.warn(UNKNOWN if tested.proof.ok is None else FILESYSTEM_ERRORS)
        return error

    def _with_or_without_key(self, phase: Phase, repository: Repository) -> _Tested:
        """The stored bytes can be tested without the key. What the guest sees, and the other checks, need it."""
        try:
            return self._tested(ProofKind.bytes, repository)
        except KeyUnusable as error:
            if self._request.checks != (ProofKind.bytes,):
                raise
            phase.warn(error.detail)
        with self._opened(None) as without_key:
            return self._tested(ProofKind.bytes, without_key)

    def _tested(self, kind: ProofKind, repository: Repository) -> _Tested:
        """What looks like damage is read a second time: a file may be missing only because its whole repository was away for a moment."""
        begun = self._run.in_transaction(database_now)
        seen = self._read(kind, repository)
        if seen.faults:
            seen = self._confirmed(seen, self._read(kind, repository))
        return self._judged(kind, seen, begun)

    def _read(self, kind: ProofKind, repository: Repository) -> _Seen:
        """Raises RepositoryGone and its like, also if the repository was there before the read and not after it, or not all the time."""
        before = repository.look()
        faults: list[Mapping[str, Any]] = []
        document: dict[str, Any] = {}
        try:
            if kind is ProofKind.bytes:
                faults += self._faults_of_manifests(repository)
            if not faults:
                document = self._document_of(kind, repository)
        except (PointDamaged, ForeignEntry) as error:
            faults.append({"folder": self._subject.folder, "file": error.facts["path"], "reason": error.facts["reason"]})
        except PointIncomplete as error:
            faults.append({"folder": error.facts["missing"], "file": None, "reason": MISSING})
        if kind is not ProofKind.filesystem:
            self._read_bytes += document.get("read_bytes") or 0
            faults += document.get("faults") or ()
            if document.get("ok") is False and not faults:
                faults.append({**NAMELESS, "folder": self._subject.folder})
        if faults:
            repository.must_have_stayed(before)
        return _Seen(document, faults)

    def _confirmed(self, first: _Seen, second: _Seen) -> _Seen:
        """Only what is wrong both times is damage. Raises RepositoryRefused if something else is wrong each time."""
        before = {(fault["folder"], fault["file"]) for fault in first.faults}
        both = [fault for fault in second.faults if (fault["folder"], fault["file"]) in before]
        if second.faults and not both:
            reason = "each time that it is read, something else is wrong with it"
            raise RepositoryRefused(what="reading", path=self._subject.folder, reason=reason)
        now = {(fault["folder"], fault["file"]) for fault in both}
        once = [fault for fault in first.faults if (fault["folder"], fault["file"]) not in now]
        return _Seen(second.document, both, once)

    def _judged(self, kind: ProofKind, seen: _Seen, begun: datetime) -> _Tested:
        once = {"seen_once": seen.once[:MAX_FAULTS]} if seen.once else {}
        if kind is ProofKind.filesystem and not seen.faults:
            return _Tested(Proof(kind, are_good(seen.document), {"disks": dict(seen.document), **once}, self._run.claim.job_id), begun)
        is_good = False if seen.faults else seen.document.get("ok")
        healed = {"healed": self._healing.facts()} if kind is ProofKind.bytes and self._healing.facts() else {}
        facts = {name: value for name, value in seen.document.items() if name != "ok"} | {
            "faults": seen.faults[:MAX_FAULTS],
            **once,
            **healed,
        }
        is_whole_read = kind is ProofKind.bytes and "files" in seen.document
        return _Tested(Proof(kind, is_good, facts, self._run.claim.job_id), begun, seen.faults, is_whole_read)

    def _document_of(self, kind: ProofKind, repository: Repository) -> dict[str, Any]:
        arguments = {"folder": self._subject.folder, "checks": [kind.value], "encrypted": self._subject.is_encrypted}
        answer = repository.call("verify_point", arguments, on_progress=self._progress)
        return answer.get(kind.value) or {}

    def _progress(self, progress: Progress) -> None:
        self._run.progress(self._phase, progress.done_bytes, progress.total_bytes, progress.rate_bytes_s)

    def _faults_of_manifests(self, repository: Repository) -> list[Mapping[str, Any]]:
        """The manifests say what the bytes should be. So each must be the one that was sealed, and its signature must be right."""
        faults: list[Mapping[str, Any]] = []
        for folder in self._subject.manifests:
            try:
                faults += self._faults_of_manifest(repository, folder)
            except PointDamaged:
                # What is missing below is found by the read of the chain.
                if folder == self._subject.folder:
                    raise
            except ForeignEntry as error:
                faults.append({"folder": folder, "file": error.facts["path"], "reason": error.facts["reason"]})
        return faults

    def _faults_of_manifest(self, repository: Repository, folder: str) -> list[Mapping[str, Any]]:
        read = repository.call("read_point", {"folder": folder})
        content = read["manifest"].encode()
        reasons = {}
        known = self._subject.manifests.get(folder)
        if known not in (None, signing.digest(content)) and not is_the_next(self._run, read["manifest"]):
            reasons[MANIFEST_FILE] = "it is not the manifest that is on record"
        elif signing.check(content, read["signature"], {}) is SignatureState.wrong:
            reasons[SIGNATURE_FILE] = "it is not the signature of this manifest"
        return [{"folder": folder, "file": file, "reason": reason} for file, reason in reasons.items()]

    # --- what was found ---------------------------------------------------------------------------

    def _put_on_record(self, tested: _Tested) -> None:
        """Together, so that no point has a proof that its state contradicts."""
        self._proofs.append(tested.proof)
        self._run.in_transaction(lambda session: self._write(session, tested))

    def _write(self, session: Session, tested: _Tested) -> None:
        now, point_id = database_now(session), self._subject.point_id
        facts = {"by": tested.proof.kind.value, "job_id": self._run.claim.job_id}
        if tested.faults:
            places = [damage.place_of(fault) for fault in tested.faults]
            damage.put_on_record(session, points.get(session, point_id), places, tested.proof, now=now, facts=facts)
            if tested.is_whole_read:
                point = points.get(session, point_id)
                damage.take_back_below(session, point, places, tested.proof, begun=tested.begun, now=now, facts=facts)
            return
        if tested.proof.kind in CAN_PROVE_DAMAGE and tested.proof.ok:
            damage.take_back(session, points.get(session, point_id), tested.proof, begun=tested.begun, now=now, facts=facts)
        else:
            points.add_proofs(session, point_id, [tested.proof], now)

    def _damage(self, faults: Sequence[Mapping[str, Any]]) -> StillpointError:
        """The error of the first fault."""
        first, point_id = faults[0], self._subject.point_id
        next_good = self._run.in_transaction(lambda session: points.next_good(session, points.get(session, point_id)))
        if first["file"] is None:
            return PointIncomplete(point=self._subject.point_id, missing=first["folder"], next_good=next_good)
        path = first["file"] if first["file"].startswith("/") else f"{first['folder']}/{first['file']}"
        return PointDamaged(point=self._subject.point_id, path=path, reason=first["reason"], next_good=next_good)


def _shown(proof: Proof) -> dict[str, Any]:
    return {"kind": proof.kind.value, "ok": proof.ok, "facts": dict(proof.facts)}


def are_good(filesystems: Mapping[str, Sequence[Mapping[str, Any]]]) -> bool | None:
    """`filesystems`: what was read of each disk. None: nothing there could be told. A journal that waits for its replay is not an error."""
    states = [filesystem["state"] for disk in filesystems.values() for filesystem in disk]
    if "errors" in states:
        return False
    return True if any(state != "unknown" for state in states) else None
