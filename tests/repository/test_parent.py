"""An increment stands only on a point that is as it was sealed, and only if the disk is the one that the point was taken of."""

from pathlib import Path
from typing import Any

import pytest

from service.errors import KeyUnusable, PointDamaged, PointIncomplete, SourceWritten, StorageRefused
from tests.repository.damages import flips_a_bit
from tests.repository.disks import MIB, Disk, Points, qemu
from tests.repository.step_process import result_of, run_step, start_step


def test_the_disk_of_the_last_point_is_good_for_an_increment(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((7, MIB, 65536))

    assert inspect(points, "p1", disk)["bitmap"] == "whole"


def test_a_disk_that_changed_places_with_another_is_not_the_one_of_the_last_point(tmp_path: Path, disk: Disk, points: Points) -> None:
    """Both have a whole bitmap of the checkpoint, as a checkpoint has one name for all disks."""
    other = Disk.make(tmp_path / "other.qcow2")
    other.write((9, MIB, 4 * MIB))
    disk.checkpoint("c1")
    other.checkpoint("c1")
    points.take("p1", disk)

    assert inspect(points, "p1", other)["bitmap"] == "other-content"
    with pytest.raises(StorageRefused):
        points.take("p2", other, "bitmap", bitmap="c1")


def test_a_disk_that_shrank_and_grew_again_is_not_incremental(disk: Disk, points: Points) -> None:
    """Its end is zeroes now, and the bitmap does not say so."""
    disk.checkpoint("c1")
    points.take("p1", disk)
    qemu("qemu-img", "resize", "-q", "--shrink", disk.path, str(12 * MIB))
    disk.grow(16 * MIB)

    assert inspect(points, "p1", disk)["bitmap"] == "other-content"


def test_a_parent_whose_digests_were_altered_is_damaged(disk: Disk, points: Points) -> None:
    """The increment would take over the digests of what was not written since, and could never be restored."""
    disk.checkpoint("c1")
    points.take("p1", disk)
    flips_a_bit(points.image("p1").with_name("vda.blocks"), 40)

    with pytest.raises(PointDamaged):
        check(points, "p1")
    with pytest.raises(PointDamaged):
        points.take("p2", disk, "bitmap", bitmap="c1")


def test_a_parent_that_stands_on_a_file_that_was_cut_is_damaged(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    points.take("p2", disk, "bitmap", bitmap="c1")
    assert check(points, "p2") == {"points": 2}

    with points.image("p1").open("r+b") as file:
        file.truncate(file.seek(0, 2) - 65536)

    with pytest.raises(PointDamaged):
        check(points, "p2")


def test_a_parent_that_stands_on_a_file_that_is_gone_is_incomplete(disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    points.take("p2", disk, "bitmap", bitmap="c1")
    points.image("p1").unlink()

    with pytest.raises(PointIncomplete):
        check(points, "p2")


@pytest.mark.parametrize("key", [None, b"another passphrase"])
def test_a_key_that_does_not_open_the_parent_is_told_before_anything_is_copied(tmp_path: Path, disk: Disk, key: bytes | None) -> None:
    points = Points(tmp_path / "encrypted", key=b"a good passphrase")
    points.take("p1", disk)
    asked = {"path": str(points.path), "folder": points.folder("p1")}

    assert run_step("check_parent", asked, key=points.key) == {"points": 1}
    with pytest.raises(KeyUnusable):
        run_step("check_parent", asked, key=key)


def check(points: Points, name: str) -> dict[str, Any]:
    return run_step("check_parent", {"path": str(points.path), "folder": points.folder(name)})


def inspect(points: Points, parent: str, disk: Disk) -> dict[str, Any]:
    stored = {"folder": points.folder(parent), "file": "vda.qcow2", "blocks_file": "vda.blocks"}
    asked = {"path": str(points.path), "file": str(disk.path), "format": disk.format, "bitmap": "c1", "parent": stored}
    return run_step("inspect_source", asked)


def test_a_disk_that_another_program_writes_to_during_the_copy_is_not_a_point(disk: Disk, points: Points) -> None:
    """Another client may merge the overlay of the guest into it."""
    process = start_step("copy_disk", points.request("p1", disk), pace=2 * MIB)
    assert process.stdout is not None
    line = process.stdout.readline()
    disk.write((5, 15 * MIB, 65536))

    with pytest.raises(SourceWritten):
        result_of(line + process.communicate()[0])
