"""What is copied is what the guest's disk holds, whatever lies between two copies."""

from pathlib import Path

import pytest

from tests.repository.disks import MIB, Disk, Points, are_identical


def test_a_full_copy_is_identical_and_holds_no_zeroes(disk: Disk, points: Points) -> None:
    result = points.take("p1", disk)

    assert are_identical(points.image("p1"), disk.path)
    assert result["copied_bytes"] == 3 * MIB + 65536 + MIB
    assert result["changed_blocks"] == 5
    assert points.verify("p1", "bytes")["bytes"]["ok"]


def test_an_increment_holds_what_was_written_since_and_nothing_else(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((7, MIB, 65536), (8, 9 * MIB, 2 * MIB))

    result = points.take("p2", disk, "bitmap", bitmap="c1")

    assert are_identical(points.image("p2"), disk.path)
    assert not are_identical(points.image("p1"), disk.path)
    assert result["copied_bytes"] == 65536 + 2 * MIB
    assert result["changed_blocks"] == 3
    assert points.verify("p2", "bytes")["bytes"]["ok"]


def test_zeroes_and_discards_hide_what_the_parent_holds(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((0, 0, MIB), (0, 2 * MIB, 65536))
    disk.discard(15 * MIB, MIB)

    points.take("p2", disk, "bitmap", bitmap="c1")

    assert are_identical(points.image("p2"), disk.path)
    assert points.verify("p2", "bytes")["bytes"]["ok"]


def test_an_increment_is_whole_across_snapshots_that_lie_between(tmp_path: Path, disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((7, 0, 65536))
    middle = Disk.make(tmp_path / "middle.qcow2", backing=disk)
    middle.checkpoint("c1")
    middle.write((8, 6 * MIB, 65536))
    top = Disk.make(tmp_path / "top.qcow2", backing=middle)
    top.checkpoint("c1")
    top.write((9, 11 * MIB, 65536))

    points.take("p2", top, "bitmap", bitmap="c1")

    assert are_identical(points.image("p2"), top.path)


def test_a_disk_that_has_grown_is_incremental(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.grow(20 * MIB + 512)
    disk.write((5, 19 * MIB, MIB + 512))

    result = points.take("p2", disk, "bitmap", bitmap="c1")

    assert are_identical(points.image("p2"), disk.path)
    assert result["changed_blocks"] == 2
    assert points.verify("p2", "bytes")["bytes"]["ok"]


@pytest.mark.parametrize("size", [16 * MIB, 16 * MIB + 512, 16 * MIB - 65536 + 1024])
def test_an_increment_by_content_writes_only_what_differs(tmp_path: Path, points: Points, size: int) -> None:
    """A raw disk, as it has no bitmap."""
    disk = Disk.make(tmp_path / "disk.raw", size, image_format="raw")
    disk.write((1, 0, 4 * MIB), (2, 14 * MIB, size - 14 * MIB))
    points.take("p1", disk)
    disk.write((3, 2 * MIB, 4096), (0, 0, MIB), (4, size - 512, 512))

    result = points.take("p2", disk, "content")

    assert are_identical(points.image("p2"), disk.path, formats=("qcow2", "raw"))
    assert result["changed_blocks"] == 3
    assert points.verify("p2", "bytes")["bytes"]["ok"]
