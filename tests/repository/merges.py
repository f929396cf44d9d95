"""One point of a signed chain takes over others, by the steps of the hand in the order of the job."""

from dataclasses import dataclass, field
from typing import Any

from service.model import merged_point
from service.model.manifest import DiskOfPoint, Manifest
from service.model.merged_point import JoinedDisk
from service.repository import signing
from service.repository.signing import SigningKey
from service.repository.store import Repository


@dataclass
class HandMerge:
    """`going`: by folder, the ids of the points that move into `heir`."""

    repository: Repository
    signing_key: SigningKey
    heir: Manifest
    going: dict[str, str]
    joined: dict[str, JoinedDisk] = field(default_factory=dict)

    def run(self) -> Manifest:
        """Everything again from the beginning, as after the death of a process. What was done is found done."""
        there = self.repository.point(self.heir.folder)
        if there.merges:
            return there
        plan = {"going": sorted(self.going)}
        begun = self.repository.call("begin_merge", {"id": self.repository.id, "folder": self.heir.folder, "plan": plan})
        made = self._write(begun["partial"])
        others = [file.name for file in self.heir.files if file.name not in made]
        self.repository.call("take_over", {"folder": self.heir.folder, "partial": begun["partial"], "names": others})
        files = self.repository.seal(begun["partial"], [file.name for file in self.heir.files])
        assert merged_point.changed_by_others(self.heir, files, made) == []
        merge = merged_point.Merge("2026-11-28T00:00:00Z", "job", list(self.going.values()), self.digest())
        new = merged_point.merged(self.heir, self.joined, files, merge, key_id=self.signing_key.id)
        self.repository.put_in_place(begun["partial"], new, self.signing_key, replaces=self.digest())
        return new

    def digest(self) -> str:
        return signing.digest(signing.canonical(self.heir))

    def arguments(self, disk: DiskOfPoint) -> dict[str, Any]:
        plain = {name: getattr(disk, name) for name in ("file", "blocks_file", "content", "virtual_size")}
        kinds = {"encrypted": disk.is_encrypted, "compress": disk.is_compressed}
        return {**plain, **kinds, "folder": self.heir.folder, "going": sorted(self.going)}

    def _write(self, partial: str) -> set[str]:
        made: set[str] = set()
        for disk in self.heir.disks:
            if disk.parent not in self.going.values():
                continue
            answer = self.repository.call("merge_disk", {**self.arguments(disk), "partial": partial})
            base = answer["base_folder"]
            base_id = self.repository.point(base).point_id if base is not None else None
            self.joined[disk.target] = JoinedDisk(disk.target, answer["copied_bytes"], base_id, base)
            made |= {disk.file, disk.blocks_file}
        return made
