"""A comparison reads back what was stored, and finds what the copy itself cannot know."""

from pathlib import Path
from typing import Any

import pytest

from service.errors import CopyDiffers
from tests.repository.disks import MIB, Disk, Points
from tests.repository.step_process import run_step
from tests.repository.test_restoring import data_in, flip


def compare(request: dict[str, Any], level: str) -> int:
    return int(run_step("compare_disk", request | {"compare": level, "blocks_file": "vda.blocks"})["compared_bytes"])


def test_a_good_copy_is_compared(disk: Disk, points: Points) -> None:
    request = points.request("p1", disk)
    run_step("copy_disk", request)

    assert compare(request, "copied") == 5 * MIB
    assert compare(request, "everything") == 2 * 16 * MIB


def test_only_what_was_copied_is_read_back_unless_everything_is_asked_for(chain: Points, disk: Disk) -> None:
    disk.checkpoint("c3")
    chain.take("p4", disk, "content")
    disk.write((0, 15 * MIB, MIB), (6, 2 * MIB, 4096))
    request = chain.request("p5", disk, "bitmap", bitmap="c3")
    run_step("copy_disk", request)

    assert compare(request, "copied") == 2 * MIB
    assert compare(request, "everything") == 2 * 16 * MIB


@pytest.mark.parametrize("level", ["copied", "everything"])
def test_a_bit_that_the_storage_changed_is_found(disk: Disk, points: Points, level: str) -> None:
    request = points.request("p1", disk)
    run_step("copy_disk", request)
    flip(points.image("p1"), at=data_in(points.image("p1")))

    with pytest.raises(CopyDiffers) as differs:
        compare(request, level)
    assert (differs.value.facts["block"], differs.value.facts["blocks"]) == (15, 1)


def test_a_block_that_was_not_copied_and_differs_is_found_by_comparing_everything(tmp_path: Path, disk: Disk, points: Points) -> None:
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((8, 9 * MIB, 65536))
    request = points.request("p2", disk, "bitmap", bitmap="c1")
    run_step("copy_disk", request)
    disk.write((7, MIB, 65536))

    assert compare(request, "copied") == MIB
    with pytest.raises(CopyDiffers) as differs:
        compare(request, "everything")
    assert differs.value.facts["block"] == 1
