"""A verified point is good in every byte, and what is wrong with another is named."""

import hashlib
import json
import os
import subprocess
from pathlib import Path

import pytest

from service.errors import KeyUnusable
from tests.repository.disks import Disk, Points
from tests.repository.step_process import run_step
from tests.repository.test_restoring import flip


def test_a_good_point_is_verified_with_all_it_inherits_from(chain: Points) -> None:
    result = chain.verify("p3", "bytes")["bytes"]

    assert result["ok"]
    assert result["files"] == 6
    assert result["faults"] == []


@pytest.mark.parametrize("point", ["p1", "p2", "p3"])
@pytest.mark.parametrize("file", ["vda.qcow2", "vda.blocks"])
def test_one_flipped_bit_is_found_and_its_file_is_named(chain: Points, point: str, file: str) -> None:
    path = chain.image(point).with_name(file)
    flip(path, at=path.stat().st_size // 2)

    result = chain.verify("p3", "bytes")["bytes"]

    assert not result["ok"]
    assert [(fault["folder"], fault["file"]) for fault in result["faults"]] == [(chain.folder(point), file)]


def test_a_truncated_file_is_found(chain: Points) -> None:
    os.truncate(chain.image("p1"), 100)

    assert [fault["file"] for fault in chain.verify("p3", "bytes")["bytes"]["faults"]] == ["vda.qcow2"]


def test_a_missing_parent_is_found(chain: Points) -> None:
    (chain.path / chain.folder("p1") / "manifest.json").unlink()

    assert [fault["folder"] for fault in chain.verify("p3", "bytes")["bytes"]["faults"]] == [chain.folder("p1")]


def test_stored_bytes_that_are_right_and_show_something_else_are_found(chain: Points, tmp_path: Path) -> None:
    """As if a wrong disk had been sealed: the checksums of the files cannot show it."""
    blocks = chain.image("p3").with_name("vda.blocks")
    flip(blocks, at=0)
    reseal(chain, "p3")

    assert not chain.verify("p3", "bytes")["bytes"]["ok"]


def reseal(points: Points, name: str) -> None:
    """Make the checksums of the stored bytes right again."""
    manifest = points.path / points.folder(name) / "manifest.json"
    document = json.loads(manifest.read_text())
    for file in document["files"]:
        file["sha256"] = hashlib.sha256((manifest.parent / file["name"]).read_bytes()).hexdigest()
    manifest.write_text(json.dumps(document))


def test_the_structure_of_a_damaged_image_is_found(chain: Points) -> None:
    """The first entry of the L1 table points where the file is not."""
    image = chain.image("p2")
    with image.open("r+b") as file:
        file.seek(40)
        table = int.from_bytes(file.read(8), "big")
        file.seek(table)
        file.write((1 << 63 | 1 << 40).to_bytes(8, "big"))

    result = chain.verify("p3", "structure")["structure"]

    assert not result["ok"]
    assert result["images"] == 3
    assert [(fault["folder"], fault["file"]) for fault in result["faults"]] == [(chain.folder("p2"), "vda.qcow2")]


def test_the_filesystem_of_a_point_is_read_through_its_chain(tmp_path: Path, points: Points) -> None:
    disk = Disk.make(tmp_path / "disk.raw", image_format="raw")
    subprocess.run(["/usr/sbin/mkfs.ext4", "-q", "-F", disk.path], check=True)
    points.take("p1", disk)
    subprocess.run(["/usr/sbin/debugfs", "-w", "-R", "feature needs_recovery", disk.path], check=True, capture_output=True)
    points.take("p2", disk, "content")

    for point, state in (("p1", "clean"), ("p2", "needs_recovery")):
        filesystems = points.verify(point, "filesystem")["filesystem"]
        assert [(one["type"], one["state"], one["partition"]) for one in filesystems["vda"]] == [("ext4", state, None)]


@pytest.mark.parametrize("key", [None, b"another passphrase"])
def test_the_stored_bytes_of_an_encrypted_point_are_verified_without_its_key(tmp_path: Path, disk: Disk, key: bytes | None) -> None:
    points = Points(tmp_path / "points", key=b"a good passphrase")
    points.take("p1", disk)
    points.key = key

    if key is None:
        assert points.verify("p1", "bytes")["bytes"] | {"files": 0, "bytes": 0, "read_bytes": 0, "stamps": {}} == {
            "ok": True,
            "read_bytes": 0,
            "files": 0,
            "bytes": 0,
            "faults": [],
            "contents": 0,
            "stamps": {},
        }
    for check in ("bytes", "structure", "filesystem") if key is not None else ("structure", "filesystem"):
        with pytest.raises(KeyUnusable):
            run_step(
                "verify_point", {"path": str(points.path), "folder": points.folder("p1"), "checks": [check], "encrypted": True}, key=key
            )
    with pytest.raises(KeyUnusable):
        run_step("restore_disk", points.restore_request("p1", tmp_path / "restored"), key=key)
    assert not (tmp_path / "restored").exists()
