"""Repositories for the tests of this folder."""

import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.repository import hand_start
from service.repository.hand import Hand
from service.repository.store import Repository
from tests.repository.disks import MIB, Disk, Points
from tests.repository.filesystems import Freezable, freezable, small

CONTENT = ((1, 0, 3 * MIB), (2, 5 * MIB + 4096, 8192), (3, 15 * MIB, MIB))
REPOSITORY_ID = str(uuid.UUID(int=1))


@pytest.fixture
def trial_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The hand has the steps of `trial_hand` as well."""
    monkeypatch.setattr(hand_start, "PROGRAM", "tests.repository.trial_hand")


@pytest.fixture
def hand(trial_steps: None, tmp_path: Path) -> Iterator[Hand]:
    with Hand(str(tmp_path)) as hand:
        yield hand


@pytest.fixture
def repository(tmp_path: Path) -> Iterator[Repository]:
    with Repository(str(tmp_path / "repository"), REPOSITORY_ID) as repository:
        repository.create()
        yield repository


@pytest.fixture
def small_filesystem(tmp_path: Path) -> Iterator[Path]:
    with small(tmp_path / "small") as place:
        yield place


@pytest.fixture
def freezable_filesystem(tmp_path: Path) -> Iterator[Freezable]:
    with freezable(tmp_path / "freezable") as filesystem:
        yield filesystem


@pytest.fixture
def disk(tmp_path: Path) -> Disk:
    """Some data, a hole, and a block of which only a part is written."""
    made = Disk.make(tmp_path / "disk.qcow2")
    made.write(*CONTENT)
    return made


@pytest.fixture
def points(tmp_path: Path) -> Points:
    return Points(tmp_path / "points")


@pytest.fixture(scope="session")
def _sealed_chain(tmp_path_factory: pytest.TempPathFactory) -> tuple[Disk, Points]:
    folder = tmp_path_factory.mktemp("chain")
    disk, points = Disk.make(folder / "disk.qcow2"), Points(folder / "points")
    disk.write(*CONTENT)
    disk.checkpoint("c1")
    points.take("p1", disk)
    disk.write((7, MIB, 65536), (8, 9 * MIB, 2 * MIB))
    disk.checkpoint("c2")
    points.take("p2", disk, "bitmap", bitmap="c1")
    disk.write((0, 0, 65536), (9, 10 * MIB, 65536))
    points.take("p3", disk, "bitmap", bitmap="c2")
    return disk, points


@pytest.fixture
def chain(_sealed_chain: tuple[Disk, Points], disk: Disk, points: Points) -> Points:
    """The points p1, p2 and p3 of the disk, which is as it was for p3."""
    sealed_disk, sealed = _sealed_chain
    shutil.copy(sealed_disk.path, disk.path)
    shutil.copytree(sealed.path, points.path)
    points.names = list(sealed.names)
    return points
