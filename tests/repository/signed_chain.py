"""A chain of signed points of one disk, each published as a backup does it."""

import json
import shutil
import uuid
from dataclasses import dataclass, field, replace
from pathlib import Path

from service.model.manifest import DiskOfPoint, Manifest
from service.model.repository import DiskLevel
from service.repository import signing
from service.repository.keys import Key
from service.repository.signing import SigningKey
from service.repository.store import Repository
from tests.repository.conftest import REPOSITORY_ID
from tests.repository.disks import MIB, Disk
from tests.repository.manifests import DOMAIN, manifest


@dataclass
class SignedChain:
    """`root`: the repository. Each point is an increment by content over the one before."""

    root: Path
    disk: Disk
    signing_key: SigningKey
    key: Key | None = None
    manifests: list[Manifest] = field(default_factory=list)

    @classmethod
    def make(cls, folder: Path, points: int, *, root: str = "repository", key: Key | None = None) -> "SignedChain":
        disk = Disk.make(folder / "source.qcow2")
        chain = cls(folder / root, disk, SigningKey.of_service(folder / "state"), key)
        with chain.repository() as repository:
            repository.create()
        for number in range(points):
            disk.write((number + 1, number * MIB, 2 * MIB))
            chain.add(f"p{number + 1}")
        return chain

    def repository(self) -> Repository:
        return Repository(str(self.root), REPOSITORY_ID, self.key)

    def add(self, name: str) -> Manifest:
        with self.repository() as repository:
            unfinished = repository.begin_point(DOMAIN, name).partial
            disk = self._copied(repository, unfinished)
            repository.put_text(unfinished, "domain.xml", "<domain/>")
            files = repository.seal(unfinished)
            point = manifest(name, files, disks=(disk,), point_id=str(uuid.uuid4()), key_id=self.signing_key.id)
            repository.publish(unfinished, point, self.signing_key)
        self.manifests.append(point)
        return point

    def _copied(self, repository: Repository, unfinished: str) -> DiskOfPoint:
        parent = self.manifests[-1] if self.manifests else None
        below = parent.disks[0] if parent is not None else None
        level = DiskLevel.full if parent is None else DiskLevel.content
        copied = repository.call(
            "copy_disk",
            {
                "partial": unfinished,
                "name": "vda.qcow2",
                "source": {"file": str(self.disk.path), "format": "qcow2"},
                "virtual_size": self.disk.size,
                "level": level.value,
                "parent": {"folder": parent.folder, "file": below.file, "blocks_file": below.blocks_file} if parent and below else None,
                "compress": False,
                "encrypted": self.key is not None,
            },
        )
        return DiskOfPoint(
            "vda",
            "vda.qcow2",
            self.disk.size,
            level,
            "a test",
            copied["content"],
            copied["blocks_file"],
            copied["copied_bytes"],
            parent=parent.point_id if parent else None,
            parent_folder=parent.folder if parent else None,
            is_encrypted=self.key is not None,
        )

    def folder(self, number: int) -> Path:
        return self.root / self.manifests[number - 1].folder

    def sign_again(self, number: int, key: SigningKey | None = None, **changes: object) -> None:
        """As a service would that seals something wrong."""
        point = replace(self.manifests[number - 1], **changes)  # type: ignore[arg-type] # fields of a manifest
        signer = key or self.signing_key
        content = signing.canonical(replace(point, key_id=signer.id))
        (self.folder(number) / "manifest.json").write_bytes(content)
        (self.folder(number) / "manifest.sig").write_text(signer.sign(content))

    def put_in_the_place_of(self, number: int, other: int) -> None:
        shutil.rmtree(self.folder(number))
        shutil.copytree(self.folder(other), self.folder(number))

    def change_manifest(self, number: int, **changes: object) -> None:
        """As somebody would who has no key. The form stays canonical."""
        file = self.folder(number) / "manifest.json"
        file.write_bytes(signing.canonical(json.loads(file.read_text()) | changes))
