"""Sealed points in a real repository, made without a job: each is copied, sealed and put on record as a backup does it."""

import json
import subprocess
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from service.clock import rfc3339
from service.db.engine import Database, database_now
from service.model.manifest import DiskOfPoint, Manifest, StoredFile
from service.model.proofs import Proof
from service.model.repository import DEFINITION_FILE, STATE_FILE, DiskLevel, ProofKind, point_folder
from service.records import points, repositories, sealed_points
from service.records.repositories import Registration
from service.repository.keys import Key
from service.repository.store import Repository


@dataclass
class SealedPoints:
    """A repository at `path`, registered for the host. `key_reference`: its points are encrypted."""

    database: Database
    path: Path
    host_id: str
    key_reference: str | None = None
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    manifests: dict[str, Manifest] = field(default_factory=dict)

    def __post_init__(self) -> None:
        wanted = Registration(f"repository-{self.id[:8]}", str(self.path), self.host_id, self.key_reference)
        with self._repository(None) as repository:
            repository.id = self.id
            repository.create()
        with self.database.write() as session:
            row = repositories.add(session, wanted, database_now(session))
            repositories.adopt(session, row.id, self.id)

    def _repository(self, repository_id: str | None) -> Repository:
        return Repository(str(self.path), repository_id, Key(self.key_reference) if self.key_reference is not None else None)

    def seal(
        self,
        domain: tuple[str, str],
        disks: Mapping[str, Path],
        definition: str,
        *,
        parent: str | None = None,
        nvram: Path | None = None,
        tpm: Path | None = None,
        is_proven: bool = False,
        **more: Any,
    ) -> str:
        """The id of the new point. `domain`: UUID and name. `parent`: the point that it inherits from; increments are by content.

        `tpm`: the folder with the state of a TPM. `is_proven`: with the proof of its bytes that
        the seal of a backup is. `more`: fields of the manifest.
        """
        point_id = str(uuid.uuid4())
        now = datetime.now(UTC)
        name = f"{now:%Y%m%dT%H%M%S%fZ}-{point_id[:8]}"
        folder = point_folder(domain[0], name)
        with self._repository(self.id) as repository:
            partial = repository.begin_point(domain[0], name).partial
            copied = [self._copy(repository, partial, target, image, parent) for target, image in disks.items()]
            state = self._put_state(repository, partial, definition, nvram, tpm)
            files = repository.seal(partial)
            manifest = self._manifest(point_id, folder, domain, now, copied, files, state, more)
            digest = repository.publish(partial, manifest, None)
        proof = Proof(ProofKind.bytes, ok=True, facts={"stamps": repository.stamps})
        self.manifests[point_id] = manifest
        with self.database.write() as session:
            points.add(session, sealed_points.row_of(manifest, digest), database_now(session))
            points.add_proofs(session, point_id, [proof] if is_proven else [], database_now(session))
        return point_id

    def _put_state(self, repository: Repository, partial: str, definition: str, nvram: Path | None, tpm: Path | None) -> dict[str, Any]:
        """Returns `state_files` of the manifest."""
        of_tpm = {f"tpm/{file.name}": file for file in sorted(tpm.iterdir()) if file.name != ".lock"} if tpm is not None else {}
        files = of_tpm | ({"nvram": nvram} if nvram is not None else {})
        state = {"definition": DEFINITION_FILE, "nvram": "nvram" if nvram is not None else None, "tpm": list(of_tpm)}
        if self.key_reference is not None:
            repository.put_state(partial, {DEFINITION_FILE: definition}, files)
            return state | {"archive": STATE_FILE}
        repository.put_text(partial, DEFINITION_FILE, definition)
        for name, file in files.items():
            repository.put_file(partial, name, file)
        return state

    def _copy(self, repository: Repository, partial: str, target: str, image: Path, parent: str | None) -> DiskOfPoint:
        info = json.loads(subprocess.run(["qemu-img", "info", "-U", "--output=json", str(image)], check=True, capture_output=True).stdout)
        below = next((disk for disk in self.manifests[parent].disks if disk.target == target), None) if parent is not None else None
        folder = self.manifests[parent].folder if parent is not None else None
        level = DiskLevel.content if below is not None else DiskLevel.full
        asked = {
            "partial": partial,
            "name": f"{target}.qcow2",
            "source": {"file": str(image), "format": info["format"]},
            "virtual_size": info["virtual-size"],
            "level": level.value,
            "parent": {"folder": folder, "file": below.file, "blocks_file": below.blocks_file} if below is not None else None,
            "compress": False,
            "encrypted": self.key_reference is not None,
        }
        copied = repository.call("copy_disk", asked)
        return DiskOfPoint(
            target=target,
            file=f"{target}.qcow2",
            virtual_size=info["virtual-size"],
            level=level,
            reason="a test",
            content=copied["content"],
            blocks_file=copied["blocks_file"],
            copied_bytes=copied["copied_bytes"],
            parent=parent if below is not None else None,
            parent_folder=folder if below is not None else None,
            is_encrypted=self.key_reference is not None,
            source_format=info["format"],
        )

    def _manifest(
        self,
        point_id: str,
        folder: str,
        domain: tuple[str, str],
        now: datetime,
        disks: list[DiskOfPoint],
        files: tuple[StoredFile, ...],
        state: dict[str, Any],
        more: dict[str, Any],
    ) -> Manifest:
        plain: dict[str, Any] = {
            "point_id": point_id,
            "repository_id": self.id,
            "folder": folder,
            "job_id": str(uuid.uuid4()),
            "host_id": self.host_id,
            "domain_id": domain[0],
            "domain_name": domain[1],
            "point_in_time_at": rfc3339(now),
            "sealed_at": rfc3339(now),
            "verdict": "filesystem",
            "verdict_reasons": (),
            "disks": tuple(disks),
            "left_out": (),
            "files": files,
            "state_files": state,
        }
        return Manifest(**plain | more)

    def folder_of(self, point_id: str) -> Path:
        return self.path / self.manifests[point_id].folder
