"""A disk with some content, and a repository for it."""

from pathlib import Path

import pytest

from tests.repository.disks import MIB, Disk, Points


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Some data, a hole, and a block of which only a part is written."""
    made = Disk.make(tmp_path / "disk.qcow2")
    made.write((1, 0, 3 * MIB), (2, 5 * MIB + 4096, 8192), (3, 15 * MIB, MIB))
    return made


@pytest.fixture
def points(tmp_path: Path) -> Points:
    return Points(tmp_path / "repository")


@pytest.fixture
def chain(disk: Disk, points: Points) -> Points:
    """The points p1, p2 and p3 of the disk, which is as it was for p3."""
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((7, MIB, 65536), (8, 9 * MIB, 2 * MIB))
    disk.checkpoint("c2")
    points.take("p2", disk, "bitmap", bitmap="c1")
    disk.write((0, 0, 65536), (9, 10 * MIB, 65536))
    points.take("p3", disk, "bitmap", bitmap="c2")
    return points
