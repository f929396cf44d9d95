"""docs/restore-by-hand.md, done as it is written: every command of the page, on a repository that this test makes with qemu-img alone."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from service.model.manifest import DiskOfPoint, Manifest, StoredFile
from service.model.repository import DEFINITION_FILE, MANIFEST_FILE, DiskLevel, point_folder
from tests.scenes.sealed import DEFINITION as DEFINITION_OF_THE_SERVICE
from tests.scenes.sealed import DOMAIN as OF_THE_SERVICE
from tests.scenes.sealed import Sealed

PAGE = (Path(__file__).parents[1] / "docs" / "restore-by-hand.md").read_text()
BLOCKS = re.findall(r"^```sh( \w+)?\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
DOMAIN = "4dea22b3-1d52-d8f3-2516-782e98ab3fa0"
MIB = 1 << 20
TRIES = 20
SECRET = "a secret of the tests"
DEFINITION = f"""<domain type='test'>
  <name>db1</name>
  <uuid>{DOMAIN}</uuid>
  <memory>8192</memory>
  <os><type>hvm</type></os>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='raw'/>
      <source file='/gone/vda.raw'/>
      <target dev='vda' bus='virtio'/>
    </disk>
  </devices>
</domain>
"""


@dataclass
class Repository:
    """A chain of one full point and its increments, made by qemu-img and qemu-io. `disk`: what the guest's disk held at the last point."""

    path: Path
    key: Path | None = None
    disk: bytearray = field(default_factory=lambda: bytearray(4 * MIB))
    points: list[str] = field(default_factory=list)

    def add_point(self, changes: dict[int, int], size: int | None = None) -> str:
        """`changes`: which MiB of the disk are filled with which byte."""
        if size is not None:
            self.disk.extend(bytes(size - len(self.disk)))
        name = f"20261127T2048{len(self.points):02}Z-{len(self.points):08x}"
        folder = self.path / point_folder(DOMAIN, name)
        folder.mkdir(parents=True)
        self._create(folder)
        layers = len(self.points) + 1
        keys = [f"{'backing.' * n}encrypt.key-secret=key0" for n in range(layers)] if self.key else []
        source = ",".join(["driver=qcow2", *keys, "file.filename=vda.qcow2"])
        for at, byte in changes.items():
            self.disk[at * MIB : (at + 1) * MIB] = bytes([byte]) * MIB
            self._qemu(folder, "qemu-io", *self._secret, "--image-opts", source, "-c", f"write -P {byte} {at}M 1M")
        (folder / DEFINITION_FILE).write_text(DEFINITION)
        (folder / MANIFEST_FILE).write_text(json.dumps(self._manifest(folder, name).as_document()))
        self.points.append(name)
        return name

    @property
    def _secret(self) -> list[str]:
        return ["--object", f"secret,id=key0,file={self.key}"] if self.key else []

    def _create(self, folder: Path) -> None:
        encryption = ["encrypt.format=luks", "encrypt.key-secret=key0", "encrypt.iter-time=10"] if self.key else []
        parent = [f"backing_file=../{self.points[-1]}/vda.qcow2", "backing_fmt=qcow2"] if self.points else []
        options = ["-o", ",".join(encryption + parent)] if encryption + parent else []
        command = ["qemu-img", "create", "-q", "-f", "qcow2", *self._secret, *options, "vda.qcow2", str(len(self.disk))]
        # QEMU measures how fast the processor derives a key, and on a busy machine its clock sometimes shows nothing.
        tries = (subprocess.run(command, cwd=folder, check=False, capture_output=True) for _ in range(TRIES))
        assert any(tried.returncode == 0 for tried in tries)

    @staticmethod
    def _qemu(folder: Path, *command: str) -> None:
        """In the folder, because a comma or a colon in a name has a meaning for QEMU."""
        subprocess.run(command, cwd=folder, check=True, capture_output=True)

    def _manifest(self, folder: Path, name: str) -> Manifest:
        files = [StoredFile(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()) for file in folder.iterdir()]
        level = DiskLevel.bitmap if self.points else DiskLevel.full
        disk = DiskOfPoint("vda", "vda.qcow2", len(self.disk), level, "", "", "vda.blocks", 0, is_encrypted=self.key is not None)
        return Manifest(
            point_id=f"{len(self.points)}",
            repository_id="r",
            folder=point_folder(DOMAIN, name),
            job_id="j",
            host_id="hv1",
            domain_id=DOMAIN,
            domain_name="db1, the first",
            point_in_time_at="2026-11-27T20:48:00Z",
            sealed_at="2026-11-27T20:49:00Z",
            verdict="filesystem",
            verdict_reasons=[],
            disks=[disk],
            left_out=[],
            files=files,
            state_files={"definition": DEFINITION_FILE},
        )


class Person:
    """Types what the page says into one shell, with a repository, a point and a folder of their own."""

    def __init__(self, repository: Repository, point: str, target: Path, *, domain: str = DOMAIN) -> None:
        self.target = target
        self._own = {"REPOSITORY": repository.path, "DOMAIN": domain, "POINT": point, "TARGET": target, "KEY": repository.key}

    def does(self, *marks: str) -> subprocess.CompletedProcess[str]:
        """All blocks without a mark and those with these marks, in the order of the page."""
        typed = [self._with_own_names(text) for mark, text in BLOCKS if not mark or mark.strip() in marks]
        script = "set -euo pipefail\n" + "\n".join(typed)
        environment = {**os.environ, "LIBVIRT_DEFAULT_URI": "test:///default", "LC_ALL": "C.UTF-8"}
        return subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=100, check=False)

    def _with_own_names(self, text: str) -> str:
        """The page gives examples: `POINT=...` at the beginning of a line is what a person replaces."""
        for name, value in self._own.items():
            text = re.sub(rf"^{name}=.*$", f"{name}='{value}'", text, flags=re.MULTILINE)
        return text

    def holds(self, disk: bytes | bytearray) -> bool:
        raw = self.target / "vda.raw"
        command = ["qemu-img", "convert", "-f", "qcow2", "-O", "raw", str(self.target / "vda.qcow2"), str(raw)]
        subprocess.run(command, check=True, capture_output=True)
        return raw.read_bytes() == disk


@pytest.fixture(params=["backup", "a name, with: spaces"])
def repository(request: pytest.FixtureRequest, tmp_path: Path) -> Repository:
    repository = Repository(tmp_path / request.param)
    repository.add_point({0: 1, 1: 2, 3: 3})
    repository.add_point({1: 4, 2: 5})
    return repository


def test_the_page_has_the_commands_that_the_tests_run() -> None:
    assert [mark.strip() for mark, _ in BLOCKS] == ["", "", "", "", "plain", "encrypted", "encrypted", "", "define"]


def test_the_newest_point_of_a_chain_is_what_the_disk_held(repository: Repository, tmp_path: Path) -> None:
    point = repository.add_point({0: 6, 7: 7}, size=8 * MIB)
    person = Person(repository, point, tmp_path / "restored")
    done = person.does("plain")
    assert (done.returncode, done.stderr) == (0, "")
    assert person.holds(repository.disk)


def test_an_earlier_point_has_nothing_of_a_later_one(repository: Repository, tmp_path: Path) -> None:
    held, point = bytes(repository.disk), repository.points[-1]
    repository.add_point({0: 8, 1: 8, 2: 8, 3: 8})
    person = Person(repository, point, tmp_path / "restored")
    assert person.does("plain").returncode == 0
    assert person.holds(held)


def test_a_repository_that_was_moved_and_is_read_only_restores(repository: Repository, tmp_path: Path) -> None:
    moved = shutil.move(repository.path, tmp_path / "elsewhere")
    for file in Path(moved).rglob("*"):
        file.chmod(0o555 if file.is_dir() else 0o444)
    person = Person(Repository(Path(moved)), repository.points[-1], tmp_path / "restored")
    assert person.does("plain").returncode == 0
    assert person.holds(repository.disk)


def test_the_list_names_every_point_with_its_domain(repository: Repository, tmp_path: Path) -> None:
    said = Person(repository, repository.points[-1], tmp_path / "restored").does("plain").stdout
    for point in repository.points:
        assert f"filesystem\tdb1, the first\t{DOMAIN}/{point}" in said


def test_a_byte_that_changed_in_an_earlier_point_is_named(repository: Repository, tmp_path: Path) -> None:
    image = repository.path / point_folder(DOMAIN, repository.points[0]) / "vda.qcow2"
    with image.open("r+b") as stored:
        stored.seek(-1, os.SEEK_END)
        stored.write(b"\xff")
    said = Person(repository, repository.points[-1], tmp_path / "restored").does("plain").stdout
    assert [line for line in said.splitlines() if line.startswith("damaged: ")] == [f"damaged: {image.parent}"]


def test_a_point_whose_parent_is_missing_writes_nothing(repository: Repository, tmp_path: Path) -> None:
    shutil.rmtree(repository.path / point_folder(DOMAIN, repository.points[0]))
    person = Person(repository, repository.points[-1], tmp_path / "restored")
    assert person.does("plain").returncode != 0
    assert list(person.target.iterdir()) == []


def test_an_encrypted_chain_restores_with_its_key(tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_text(SECRET)
    repository = Repository(tmp_path / "backup", key)
    repository.add_point({0: 1})
    repository.add_point({1: 2})
    repository.add_point({2: 3})
    person = Person(repository, repository.points[-1], tmp_path / "restored")
    done = person.does("encrypted")
    assert (done.returncode, done.stderr) == (0, "")
    assert person.holds(repository.disk)


def test_libvirt_takes_the_definition_after_it_was_edited_as_the_page_says(repository: Repository, tmp_path: Path) -> None:
    person = Person(repository, repository.points[-1], tmp_path / "restored")
    assert person.does("plain").returncode == 0
    definition = person.target / "domain.xml"
    assert definition.read_text() == DEFINITION
    definition.write_text(DEFINITION.replace("/gone/vda.raw", str(person.target / "vda.qcow2")).replace("type='raw'", "type='qcow2'"))
    (define,) = [text for mark, text in BLOCKS if mark.strip() == "define"]
    command = ["virsh", "-c", "test:///default", *define.split()[1:]]
    named = [str(definition) if "TARGET" in word else word for word in command]
    assert subprocess.run(named, check=False, capture_output=True).returncode == 0


# --- points that the service has made ---------------------------------------------------------------


@pytest.fixture(params=["plain", "compressed", "encrypted"])
def sealed(request: pytest.FixtureRequest, tmp_path: Path) -> Sealed:
    key = tmp_path / "key"
    key.write_text(SECRET)
    options = {"plain": {}, "compressed": {"compress": True}, "encrypted": {"key": key}}[request.param]
    made = Sealed(tmp_path / "repository", **options)  # type: ignore[arg-type]
    made.is_of_an_earlier_version = True
    made.seal((1, 0, MIB), (2, MIB, MIB))
    made.seal((3, MIB, MIB))
    made.is_of_an_earlier_version = False
    made.seal((4, 2 * MIB + 4096, 4096), (0, 0, 65536))
    return made


def test_a_point_of_the_service_restores_without_it(sealed: Sealed, tmp_path: Path) -> None:
    key = tmp_path / "key" if sealed.key is not None else None
    point = Path(sealed.manifests[sealed.points[-1]].folder).name
    person = Person(Repository(sealed.path, key), point, tmp_path / "restored", domain=OF_THE_SERVICE)
    done = person.does("encrypted" if key else "plain")
    assert (done.returncode, done.stderr) == (0, "")
    disk = subprocess.run(
        ["qemu-img", "compare", "-f", "qcow2", "-F", "qcow2", str(sealed.disk.path), str(person.target / "vda.qcow2")], check=False
    )
    assert disk.returncode == 0
    assert "damaged" not in done.stdout
    assert (person.target / DEFINITION_FILE).read_text() == DEFINITION_OF_THE_SERVICE
