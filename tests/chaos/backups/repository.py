"""The repository of a lane: on storage that can fail, and registered with the service of the lane."""

import random
import shutil
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import libvirt

from service.repository.signing import SigningKey
from service.repository.store import Repository
from tests import nobodys_files
from tests.chaos.stage import PATIENCE_S, Stage, until
from tests.lab.bad_storage import Storage, storage
from tests.lab.places import LabError
from tests.repository.damages import flips_a_bit

SIZE_MB = 768
RESERVE_BYTES = 1_000_000
RENEWED_BELOW = 0.3
"""Part of the space that is free, below which the repository is replaced by a new one."""


@dataclass(frozen=True)
class Moment:
    """What the guest had been told to be durable before a job was created."""

    acknowledged: int


_OF_LANES: dict[Stage, "LaneRepository"] = {}


def repository_of(stage: Stage) -> "LaneRepository":
    """One for the life of the stage. `ensure` makes it."""
    if stage not in _OF_LANES:
        _OF_LANES[stage] = LaneRepository(stage)
        stage.at_end.callback(_OF_LANES.pop, stage)
    return _OF_LANES[stage]


class LaneRepository:
    """`ensure` makes it, and replaces it when it has become small. Closed with its stage."""

    def __init__(self, stage: Stage) -> None:
        self._stage = stage
        self._held = ExitStack()
        self._storage: Storage | None = None
        self._number = 0
        self.id = ""
        self.damage: Damage | None = None
        #: What the guest had been told to be durable before a point was taken, by the id of the point.
        self.moments: dict[str, Moment] = {}
        stage.at_end.callback(self._held.close)

    @property
    def storage(self) -> Storage:
        if self._storage is None:
            raise LabError("the lane has no repository yet")
        return self._storage

    @property
    def path(self) -> Path:
        return self.storage.path

    def ensure(self) -> "LaneRepository":
        if self._storage is not None and self._is_small():
            self._give_up()
        if self._storage is None:
            self._make()
        self.wait_ready()
        return self

    def wait_ready(self) -> None:
        """The worker has seen that it is well."""
        self._stage.wait_worker()
        self._call("POST", f"repositories/{self.id}/check", 202)
        deadline = time.monotonic() + PATIENCE_S
        while (found := self._document())["state"] != "ready":
            if time.monotonic() > deadline:
                raise LabError(f"the repository is not ready: {found}")
            time.sleep(0.1)

    def wait_imported(self) -> None:
        """What a fetch has brought is on record: a check that was asked for later has been answered."""
        until(lambda: not self._call("GET", f"repositories/{self.id}", 200).get("import_asked_at"), PATIENCE_S, "nothing was imported")
        self.wait_ready()

    def points(self) -> list[dict[str, Any]]:
        """The sealed points on record, oldest first."""
        found = self._call("GET", f"recovery-points?repository={self.id}&state=sealed&limit=200", 200)["items"]
        return sorted(found, key=lambda point: str(point["created_at"]))

    def point(self, point_id: str) -> dict[str, Any]:
        return self._call("GET", f"recovery-points/{point_id}", 200)

    def is_on_record(self, point_id: str) -> bool:
        return bool(self._stage.api.request("GET", f"/api/v1/recovery-points/{point_id}").status_code != 404)

    def folder_of(self, point: dict[str, Any]) -> Path:
        return self.path / str(point["folder"])

    def published(self) -> set[str]:
        """The folders of all points that are there, on record or not, relative to the repository."""
        return {str(manifest.parent.relative_to(self.path)) for manifest in self.path.glob("domains/*/[!.]*/manifest.json")}

    def nobodys(self) -> list[str]:
        """Files that nobody owns, relative to the repository: once no job works there. What the sweep of the next day removes is owned."""
        if nobodys_files.in_repository(self.path):
            nobodys_files.make_old(self.path)
            with Repository(str(self.path), self.id) as repository:
                repository.sweep([], SigningKey.of_service(self._stage.state_dir).id)
        return nobodys_files.in_repository(self.path)

    def nobodys_in_state_folder(self) -> list[str]:
        return nobodys_files.in_state_folder(self._stage.state_dir)

    # --- its files, changed by somebody ---------------------------------------------------------

    def flip_byte(self, chance: random.Random) -> None:
        """In any file of the newest point."""
        file, content = self._file_to_damage(chance)
        place = chance.randrange(len(content))
        flipped = bytes([content[place] ^ (1 << chance.randrange(8))])
        self._change(file, f"byte {place}", content, content[:place] + flipped + content[place + 1 :])

    def flip_bits(self, point: dict[str, Any], chance: random.Random) -> Path:
        """Up to three, in one file of the point: the disk two times of three. Returns the file, which `mend` brings back."""
        folder = self.folder_of(point)
        files = sorted(file for file in folder.iterdir() if file.is_file())
        file = folder / "vda.qcow2" if chance.random() < 0.67 else chance.choice(files)
        before = file.read_bytes()
        for _ in range(chance.randint(1, 3)):
            flips_a_bit(file, chance.randrange(len(before)), chance.randrange(8))
        self.damage = Damage(file, "some bits", before)
        self._stage.note(f"damaged: {self.damage}")
        return file

    def truncate(self, chance: random.Random) -> None:
        file, content = self._file_to_damage(chance)
        self._change(file, "the end", content, content[: chance.randrange(len(content))])

    def is_mended(self) -> bool:
        """The good file is in its place, whoever brought it back. Also where nothing was damaged."""
        return self.damage is None or (self.damage.file.is_file() and self.damage.file.read_bytes() == self.damage.before)

    def mend(self) -> bool:
        """False: nothing was damaged."""
        if self.damage is None:
            return False
        self.damage.file.write_bytes(self.damage.before)
        self.damage = None
        return True

    def _file_to_damage(self, chance: random.Random) -> tuple[Path, bytes]:
        folder = self.folder_of(self.points()[-1])
        # Not the manifest and its signature: without them the folder is no point any more.
        file = chance.choice(sorted(file for file in folder.iterdir() if file.is_file() and not file.name.startswith("manifest.")))
        return file, file.read_bytes()

    def _change(self, file: Path, what: str, before: bytes, after: bytes) -> None:
        file.write_bytes(after)
        self.damage = Damage(file, what, before)
        self._stage.note(f"damaged: {self.damage}")

    def _make(self) -> None:
        self._storage = self._held.enter_context(storage(f"chaos-{self._stage.state_dir.name}", mb=SIZE_MB))
        self._number += 1
        body = {"name": f"{self._stage.guest.name}-{self._number}", "path": str(self.path), "reserve_bytes": RESERVE_BYTES}
        self.id = str(self._call("POST", "repositories", 201, json=body)["id"])

    def _document(self) -> dict[str, Any]:
        document = self._call("GET", f"repositories/{self.id}", 200)
        # What the folder itself says is known after the first look.
        self.id = str(document["id"])
        return document

    def _is_small(self) -> bool:
        usage = shutil.disk_usage(self.path)
        return usage.free < usage.total * RENEWED_BELOW

    def _give_up(self) -> None:
        self._stage.note(f"the repository is nearly full, with {len(self.published())} points: a new one is made")
        with suppress(LabError):
            self._call("DELETE", f"repositories/{self.id}?forget_points=true", 200)
        self._remove_checkpoints()
        self._held.close()
        self._storage = None

    def _remove_checkpoints(self) -> None:
        """Of the repository that is given up: at most one for each is left on a domain, and nobody asks for this one any more."""
        for checkpoint in self._stage.guest.domain.listAllCheckpoints():
            with suppress(libvirt.libvirtError):
                checkpoint.delete()

    def _call(self, method: str, path: str, *expected: int, json: dict[str, Any] | None = None) -> dict[str, Any]:
        answer = self._stage.api.request(method, f"/api/v1/{path}", **({"json": json} if json is not None else {}))
        if answer.status_code not in expected:
            raise LabError(f"{method} {path} was answered with {answer.status_code}: {answer.text}")
        return dict(answer.json()) if answer.content else {}


@dataclass(frozen=True)
class Damage:
    """A file of a point, changed, and how it was before."""

    file: Path
    what: str
    before: bytes

    def __str__(self) -> str:
        return f"{self.what} of {self.file.parent.name}/{self.file.name}"
