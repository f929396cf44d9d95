"""What a verify does about damage where its request says so: each bad file is made again from good copies, and then read again.

The hand does the work (`service.repository.healing`), and puts nothing in the place of a file but the bytes that were sealed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from service import log
from service.db.tables import Domain
from service.errors import (
    ForeignEntry,
    KeyUnusable,
    PointDamaged,
    PointIncomplete,
    RepositoryFull,
    RepositoryNotAnswering,
    RepositoryReadOnly,
    RepositoryRefused,
    RepositoryUnusable,
    StillpointError,
)
from service.jobs.run import JobRun
from service.model.repository import MANIFEST_FILE, PARTIAL_PREFIX, SIGNATURE_FILE
from service.repository import manifests, signing
from service.repository.manifests import MAX_MANIFEST_BYTES
from service.repository.signing import SigningKey
from service.repository.store import Repository

MAX_ROUNDS = 4
"""How often a point is healed and read again. A damaged manifest hides what else is damaged, so one round may not be enough."""
NO_FOLDER = "the folder of the point is not there"
NOT_OF_A_POINT = "it is not a file of a point"
NOT_SIGNED_HERE = "another service has signed the point, so only that service can write its signature again"
_NOT_HEALED = (
    RepositoryFull,
    RepositoryReadOnly,
    RepositoryRefused,
    RepositoryUnusable,
    KeyUnusable,
    PointDamaged,
    PointIncomplete,
    ForeignEntry,
)
_logger = log.get(__name__)


@dataclass(frozen=True)
class Healed:
    """What came of one file. `sources`: where the good bytes are from."""

    folder: str
    file: str
    reason: str | None
    sources: Sequence[Mapping[str, Any]] = ()

    def as_document(self) -> dict[str, Any]:
        return {
            "file": f"{self.folder}/{self.file}",
            "healed": self.reason is None,
            "reason": self.reason,
            "sources": [dict(source) for source in self.sources],
        }


@dataclass
class Healing:
    """For one attempt of one job. `manifests`: by the folder of each point of the chain, the digest of its manifest on record."""

    run: JobRun
    domain_id: str
    folder: str
    manifests: Mapping[str, str | None]
    signing_key: SigningKey | None
    #: What was healed, also by earlier attempts, and what was not.
    done: list[Healed] = field(default_factory=list)
    _is_begun: bool = False

    @property
    def partial_name(self) -> str:
        return f"heal-{Path(self.folder).name}-{self.run.claim.job_id[:8]}"

    @property
    def partial(self) -> str:
        return str(PurePosixPath(self.folder).parent / f"{PARTIAL_PREFIX}{self.partial_name}")

    def facts(self) -> list[dict[str, Any]]:
        """What was healed, for the proofs of the point."""
        return [healed.as_document() for healed in self.done if healed.reason is None]

    def recall(self, repository: Repository) -> None:
        """What an earlier attempt has healed whose worker died before it could say so."""
        for note in repository.call("heal_notes", {"partial": self.partial})["notes"]:
            self._is_begun = True
            self.done.append(Healed(note["folder"], note["file"], None, note["sources"]))

    def heal(self, repository: Repository, faults: Sequence[Mapping[str, Any]]) -> list[Healed]:
        """What stands below comes first, and the digests of a disk after its image. Returns what came of each file."""
        why_not = self._begin(repository)
        live = self.run.in_transaction(self._live_disks)
        tried: list[Healed] = []
        for folder, file in sorted(self._places(repository, faults), key=_order):
            reason, sources = (why_not, ()) if why_not is not None else self._one(repository, folder, file, live)
            tried.append(Healed(folder, file, reason, sources))
            _logger.info("healed" if reason is None else "not_healed", folder=folder, file=file, reason=reason)
        self.done += tried
        return tried

    def end(self, repository: Repository) -> None:
        """Remove what was needed on the way. Where that cannot be done now, a later sweep does it."""
        if self._is_begun:
            try:
                repository.drop_partial(self.partial)
            except StillpointError as error:
                _logger.warning("folder_of_healing_left", folder=self.partial, reason=error.detail)

    def _begin(self, repository: Repository) -> str | None:
        """Make the folder for the new files. Why that cannot be done, or None."""
        owner = self.signing_key.id if self.signing_key is not None else None
        try:
            repository.begin_point(self.domain_id, self.partial_name, owner)
        except _NOT_HEALED as error:
            return error.detail
        self._is_begun = True
        return None

    def _one(
        self, repository: Repository, folder: str, file: str, live: Mapping[str, Any]
    ) -> tuple[str | None, Sequence[Mapping[str, Any]]]:
        """Why it was not healed, or None, and the sources. Raises errors of a repository that cannot be read."""
        if not file:
            return (NO_FOLDER if folder else NOT_OF_A_POINT), ()
        arguments: dict[str, Any] = {"partial": self.partial, "folder": folder, "file": file, "live": live}
        try:
            if file == MANIFEST_FILE:
                arguments["sha256"] = self.manifests.get(folder)
            elif file == SIGNATURE_FILE:
                arguments["text"] = self._signature(repository, folder)
                if arguments["text"] is None:
                    return NOT_SIGNED_HERE, ()
            answer = self._healed(repository, arguments)
        except _NOT_HEALED as error:
            return error.detail, ()
        return answer["reason"], answer["sources"]

    @staticmethod
    def _healed(repository: Repository, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Where the disk of the guest hangs, and not the repository, the step is done without that disk."""
        try:
            return repository.call("heal_file", arguments)
        except RepositoryNotAnswering:
            if not arguments["live"]:
                raise
        return repository.call("heal_file", {**arguments, "live": {}})

    def _signature(self, repository: Repository, folder: str) -> str | None:
        """The same key signs the same manifest with the same signature. None: the key is another one, or the manifest is not on record."""
        text = repository.call("read_file", {"folder": folder, "name": MANIFEST_FILE, "limit": MAX_MANIFEST_BYTES})["text"]
        is_known = self.manifests.get(folder) == signing.digest(text.encode())
        if self.signing_key is None or not is_known or manifests.parsed(text).key_id != self.signing_key.id:
            return None
        return self.signing_key.sign(text.encode())

    def _places(self, repository: Repository, faults: Sequence[Mapping[str, Any]]) -> set[tuple[str, str]]:
        """Folder and file of each fault. An empty file: the folder itself is not there."""
        return {_place(repository.path, fault) for fault in faults}

    def _live_disks(self, session: Session) -> dict[str, Any]:
        """The files of the domain on this host, by target. The guest may not have written since what it had there."""
        is_here = (Domain.id == self.domain_id, Domain.host_id == self.run.claim.host_id)
        document = session.scalar(select(Domain.document).where(*is_here)) or {}
        disks = [disk for disk in document.get("disks") or () if disk.get("source") and disk.get("format") in ("qcow2", "raw")]
        return {disk["target"]: [{"file": disk["source"], "format": disk["format"]}] for disk in disks}


def _place(path: str, fault: Mapping[str, Any]) -> tuple[str, str]:
    folder, file = str(fault["folder"]), str(fault["file"] or "")
    if not file.startswith("/"):
        return folder, file
    try:
        parts = PurePosixPath(file).relative_to(path).parts
    except ValueError:
        return "", ""
    # domains/<domain>/<point>/<file>
    return ("/".join(parts[:3]), "/".join(parts[3:])) if len(parts) > 3 else ("", "")


def _order(place: tuple[str, str]) -> tuple[bool, str, bool, str]:
    """Names of points begin with their time. Manifests come before all else, as they say what the other files should be."""
    folder, file = place
    return file not in (MANIFEST_FILE, SIGNATURE_FILE), folder, file.endswith(".blocks"), file
