"""Disks as a guest leaves them, made with QEMU's own tools, and the points that are copied from them."""

import hashlib
import json
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from service.model.manifest import DiskOfPoint, Manifest, StoredFile
from service.model.repository import DiskLevel
from tests.repository.step_process import run_step

MIB = 1 << 20
DOMAIN = "5a1d5d0e-6f0b-4c3c-8f5e-0c7a5d4f1c11"


def qemu(program: str, *arguments: str | Path) -> str:
    done = subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def named(path: Path, image_format: str = "qcow2") -> str:
    """An image in whose name any character may be."""
    return "json:" + json.dumps({"driver": image_format, "file": {"driver": "file", "filename": str(path.absolute())}})


def are_identical(one: Path, other: Path, *, formats: tuple[str, str] = ("qcow2", "qcow2")) -> bool:
    """What a guest sees of both, as `qemu-img compare` says."""
    command = ["qemu-img", "compare", "-U", named(one, formats[0]), named(other, formats[1])]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode == 0


@dataclass
class Disk:
    """A disk that nobody writes to but the test."""

    path: Path
    format: str = "qcow2"

    @classmethod
    def make(cls, path: Path, size: int = 16 * MIB, *, image_format: str = "qcow2", backing: "Disk | None" = None) -> "Disk":
        below = ["-b", str(backing.path), "-F", backing.format] if backing is not None else []
        qemu("qemu-img", "create", "-q", "-f", image_format, *below, path.absolute(), str(size))
        return cls(path, image_format)

    def write(self, *writes: tuple[int, int, int]) -> None:
        """Byte to write, offset, length. The bytes 0 are written as zeroes."""
        self._io([f"write -q {'-z' if byte == 0 else f'-P {byte}'} {offset} {length}" for byte, offset, length in writes])

    def discard(self, offset: int, length: int) -> None:
        self._io([f"discard -q {offset} {length}"])

    def _io(self, commands: list[str]) -> None:
        qemu("qemu-io", *[word for command in commands for word in ("-c", command)], named(self.path, self.format))

    def checkpoint(self, name: str) -> None:
        """From now on a bitmap records what is written."""
        qemu("qemu-img", "bitmap", "-f", self.format, "--add", self.path.absolute(), name)

    def grow(self, size: int) -> None:
        qemu("qemu-img", "resize", "-q", "-f", self.format, self.path.absolute(), str(size))

    @property
    def size(self) -> int:
        return int(json.loads(qemu("qemu-img", "info", "-U", "--output=json", named(self.path, self.format)))["virtual-size"])


@dataclass
class Points:
    """A repository with the points of one disk, published without a service."""

    path: Path
    key: bytes | None = None
    names: list[str] = field(default_factory=list)

    def folder(self, name: str) -> str:
        return f"domains/{DOMAIN}/{name}"

    def image(self, name: str) -> Path:
        return self.path / self.folder(name) / "vda.qcow2"

    def request(self, name: str, disk: Disk, level: str = "full", **more: Any) -> dict[str, Any]:
        """The arguments of `copy_disk`, in the folder of the point itself: the rename at the end is the part of another step."""
        (self.path / self.folder(name)).mkdir(parents=True, exist_ok=True)
        parent = self.names[-1] if level != "full" else None
        return {
            "path": str(self.path),
            "partial": self.folder(name),
            "name": "vda.qcow2",
            "source": {"file": str(disk.path), "format": disk.format},
            "virtual_size": disk.size,
            "level": level,
            "bitmap": None,
            "parent": {"folder": self.folder(parent), "file": "vda.qcow2", "blocks_file": "vda.blocks"} if parent else None,
            "compress": False,
            "encrypted": self.key is not None,
            "size_hint": None,
            **more,
        }

    def take(self, name: str, disk: Disk, level: str = "full", **more: Any) -> dict[str, Any]:
        """Copy the disk and publish the point."""
        request = self.request(name, disk, level, **more)
        result = run_step("copy_disk", request, key=self.key)
        self.seal(name, disk, level, request, result)
        return result

    def seal(self, name: str, disk: Disk, level: str, request: dict[str, Any], result: dict[str, Any]) -> None:
        folder = self.path / self.folder(name)
        (folder / "vda.done.json").unlink()
        files = tuple(
            StoredFile(file.name, file.stat().st_size, hashlib.sha256(file.read_bytes()).hexdigest()) for file in sorted(folder.iterdir())
        )
        stored = DiskOfPoint(
            target="vda",
            file="vda.qcow2",
            virtual_size=request["virtual_size"],
            level=DiskLevel(level),
            reason="",
            content=result["content"],
            blocks_file=result["blocks_file"],
            copied_bytes=result["copied_bytes"],
            parent=self.names[-1] if level != "full" else None,
            parent_folder=self.folder(self.names[-1]) if level != "full" else None,
            is_encrypted=self.key is not None,
        )
        plain: dict[str, Any] = dict.fromkeys(("point_id", "repository_id", "job_id", "host_id", "domain_id", "domain_name"), name)
        times: dict[str, Any] = dict.fromkeys(("point_in_time_at", "sealed_at"), "2026-11-27T00:00:00Z")
        manifest = Manifest(
            **plain, **times, folder=self.folder(name), verdict="crash", verdict_reasons=(), disks=(stored,), left_out=(), files=files
        )
        (folder / "manifest.json").write_text(json.dumps(manifest.as_document()))
        self.names.append(name)

    def restore(self, name: str, target: Path, target_format: str = "qcow2", **more: Any) -> dict[str, Any]:
        return run_step("restore_disk", self.restore_request(name, target) | {"target_format": target_format, **more}, key=self.key)

    def restore_request(self, name: str, target: Path) -> dict[str, Any]:
        disk = self.manifest(name).disks[0]
        return {
            "path": str(self.path),
            "folder": self.folder(name),
            "file": "vda.qcow2",
            "target": str(target),
            "target_format": "qcow2",
            "blocks_file": "vda.blocks",
            "virtual_size": disk.virtual_size,
            "encrypted": disk.is_encrypted,
        }

    def verify(self, name: str, *checks: str) -> dict[str, Any]:
        arguments = {"path": str(self.path), "folder": self.folder(name), "checks": list(checks), "encrypted": self.key is not None}
        return run_step("verify_point", arguments, key=self.key)

    def manifest(self, name: str) -> Manifest:
        return Manifest.from_document(json.loads((self.path / self.folder(name) / "manifest.json").read_text()))
