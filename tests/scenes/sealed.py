"""A repository with sealed points of one disk, made by the hand as a backup makes them, and put on record."""

import copy
import json
import shutil
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

from service.db.engine import Database
from service.db.tables import RecoveryPoint
from service.model.manifest import DiskOfPoint, Manifest
from service.model.repository import DEFINITION_FILE, MANIFEST_FILE, STATE_FILE, DiskLevel, RepositoryState, point_folder
from service.records import points, repositories, sealed_points
from service.records.repositories import Look, Registration
from service.repository import signing
from service.repository.keys import Key
from service.repository.signing import SigningKey
from service.repository.store import Repository
from tests.repository.disks import MIB, Disk

Writes = tuple[int, int, int]
DOMAIN = "5a1d5d0e-6f0b-4c3c-8f5e-0c7a5d4f1c11"
HOST = "hv1"
DEFINITION = "<domain>\n  <name>db1</name>\n</domain>\n"
BEGIN = datetime(2026, 11, 27, 20, 0, tzinfo=UTC)


class Sealed:
    """`id` is the repository's. `points`: the ids of its points, oldest first: a full one and its increments."""

    def __init__(
        self,
        path: Path,
        *,
        name: str = "nas",
        guest: Path | None = None,
        key: Path | None = None,
        compress: bool = False,
        labels: dict[str, str] | None = None,
    ) -> None:
        """`guest`: the folder of what is not in the repository: the guest's disk, and the key of the service. `key`: encrypts the disks."""
        self.key = Key(f"file:{key}") if key is not None else None
        self.compress = compress
        self.path = path
        self.name = name
        self.id = str(uuid4())
        self.points: list[str] = []
        #: Earlier versions encrypted nothing but the disks.
        self.is_of_an_earlier_version = False
        self.manifests: dict[str, Manifest] = {}
        #: Of the points that are sealed next.
        self.labels: dict[str, str] = dict(labels or {})
        self.signing_key = SigningKey.of_service(Path(tempfile.mkdtemp(dir=guest or path.parent)))
        self.disk = Disk.make((guest or path.parent) / f"{path.name}-disk.qcow2", 4 * MIB)
        with self.opened() as repository:
            repository.create()

    @classmethod
    def chain(cls, path: Path, *writes: Writes, **options: Any) -> "Sealed":
        """A full point and its increments, one for each write of the guest. No database knows them: see `list_all`."""
        sealed = cls(path, **options)
        for each in writes:
            sealed.seal(each)
        return sealed

    def opened(self, **options: Any) -> Repository:
        return Repository(str(self.path), self.id, self.key, **options)

    def register(self, database: Database, *, is_seen: bool = True, host: str = HOST) -> str:
        """As the API and the worker's first look leave it. Returns the id in the database."""
        with database.write() as session:
            row = repositories.add(
                session, Registration(self.name, str(self.path), host, self.key.reference if self.key is not None else None), BEGIN
            )
            if is_seen:
                row = repositories.adopt(session, row.id, self.id)
                repositories.note_look(session, row.id, Look(RepositoryState.ready, format_version=1), BEGIN, asked_at=BEGIN)
            return row.id

    def copied(self, path: Path, *, guest: Path | None = None) -> "Sealed":
        """The same repository at another path, where a test may damage it. `guest`: the folder of a disk to which a test may write."""
        other = copy.copy(self)
        other.path, other.points, other.manifests = path, list(self.points), dict(self.manifests)
        shutil.copytree(self.path, path)
        if guest is not None:
            other.disk = Disk(Path(shutil.copy(self.disk.path, guest / f"{path.name}-disk.qcow2")), self.disk.format)
        return other

    def list_all(self, database: Database) -> None:
        """Put the points on record that were sealed without a database."""
        for n, point_id in enumerate(self.points):
            digest = signing.digest((self.folder(point_id) / MANIFEST_FILE).read_bytes())
            self.put_on_record(database, point_id, digest, at=BEGIN + timedelta(hours=n))

    def contents(self) -> dict[str, bytes]:
        """Every file below the points."""
        return {
            str(file.relative_to(self.path)): file.read_bytes() for file in sorted((self.path / "domains").rglob("*")) if file.is_file()
        }

    def seal(self, *writes: Writes, database: Database | None = None, is_full: bool = False) -> str:
        """Let the guest write, then seal its disk: in full the first time, later by content."""
        if writes:
            self.disk.write(*writes)
        point_id, parent = str(uuid4()), self.manifests[self.points[-1]] if self.points and not is_full else None
        at = BEGIN + timedelta(hours=len(self.points))
        name = f"{at:%Y%m%dT%H%M%SZ}-{point_id[:8]}"
        with self.opened() as repository:
            partial = repository.begin_point(DOMAIN, name).partial
            self._put_state(repository, partial)
            copied = repository.call("copy_disk", self._request(partial, parent))
            files = repository.seal(partial)
            manifest = self._manifest(point_id, name, at, copied, parent, files)
            digest = repository.publish(partial, manifest, self.signing_key)
        self.points.append(point_id)
        self.manifests[point_id] = manifest
        if database is not None:
            self.put_on_record(database, point_id, digest)
        return point_id

    def _put_state(self, repository: Repository, partial: str) -> None:
        if self.key is not None and not self.is_of_an_earlier_version:
            repository.put_state(partial, {DEFINITION_FILE: DEFINITION}, {})
        else:
            repository.put_text(partial, DEFINITION_FILE, DEFINITION)

    @property
    def state_files(self) -> dict[str, Any]:
        archive = {"archive": STATE_FILE} if self.key is not None and not self.is_of_an_earlier_version else {}
        return {"definition": DEFINITION_FILE, **archive}

    def put_on_record(self, database: Database, point_id: str, digest: str, *, at: datetime = BEGIN) -> None:
        with database.write() as session:
            points.add(session, sealed_points.row_of(self.manifests[point_id], digest), at)

    def folder(self, point_id: str) -> Path:
        return self.path / self.manifests[point_id].folder

    def row(self, database: Database, point_id: str) -> RecoveryPoint:
        with database.read() as session:
            return points.get(session, point_id)

    def damage(self, point_id: str, file: str = "vda.qcow2") -> None:
        """One bit of a stored file becomes another."""
        path = self.folder(point_id) / file
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)

    def change_manifest(self, point_id: str, *, sign_again: bool, **fields: Any) -> None:
        path = self.folder(point_id) / "manifest.json"
        content = signing.canonical(json.loads(path.read_text()) | fields)
        path.write_bytes(content)
        if sign_again:
            path.with_name("manifest.sig").write_text(self.signing_key.sign(content))

    def _request(self, partial: str, parent: Manifest | None) -> dict[str, Any]:
        return {
            "partial": partial,
            "name": "vda.qcow2",
            "source": {"file": str(self.disk.path), "format": self.disk.format},
            "virtual_size": self.disk.size,
            "level": (DiskLevel.full if parent is None else DiskLevel.content).value,
            "bitmap": None,
            "parent": {"folder": parent.folder, "file": "vda.qcow2", "blocks_file": "vda.blocks"} if parent is not None else None,
            "compress": self.compress,
            "encrypted": self.key is not None,
            "size_hint": None,
        }

    def _manifest(self, point_id: str, name: str, at: datetime, copied: dict[str, Any], parent: Manifest | None, files: Any) -> Manifest:
        disk = DiskOfPoint(
            target="vda",
            file="vda.qcow2",
            virtual_size=self.disk.size,
            level=DiskLevel.full if parent is None else DiskLevel.content,
            reason="",
            content=copied["content"],
            blocks_file=copied["blocks_file"],
            copied_bytes=copied["copied_bytes"],
            parent=parent.point_id if parent is not None else None,
            parent_folder=parent.folder if parent is not None else None,
            is_compressed=self.compress,
            is_encrypted=self.key is not None,
        )
        return Manifest(
            point_id=point_id,
            repository_id=self.id,
            folder=point_folder(DOMAIN, name),
            job_id=str(uuid4()),
            host_id=HOST,
            domain_id=DOMAIN,
            domain_name="db1",
            point_in_time_at=at.isoformat().replace("+00:00", "Z"),
            sealed_at=(at + timedelta(minutes=1)).isoformat().replace("+00:00", "Z"),
            verdict="filesystem",
            verdict_reasons=[],
            disks=[disk],
            left_out=[],
            files=files,
            state_files=self.state_files,
            key_id=self.signing_key.id,
            labels=self.labels,
        )
