"""A hand that is killed at any instant of a healing leaves the damaged file or the healed one, and the next try ends with a healed one."""

import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from service.errors import RepositoryUnusable
from service.model.repository import point_folder
from service.repository.store import Repository
from tests.repository.damages import flips_a_bit
from tests.repository.disks import MIB
from tests.repository.test_killed import Killer
from tests.scenes.sealed import DOMAIN, Sealed

INSTANTS = 24


class Healed:
    """A repository with two full points of one disk, so that a bad block of the first is found in the second."""

    def __init__(self, folder: Path) -> None:
        self.sealed = Sealed(folder / "repository")
        self.sealed.seal((1, 0, MIB), (2, MIB, 2 * MIB))
        self.sealed.seal(is_full=True)
        self.good = self.sealed.contents()
        self.image = self.sealed.folder(self.sealed.points[0]) / "vda.qcow2"
        self.name = str(self.image.relative_to(self.sealed.path))

    def damage(self) -> bytes:
        flips_a_bit(self.image, self.image.stat().st_size - 100)
        flips_a_bit(self.image, 40)
        return self.image.read_bytes()

    def try_once(self, repository: Repository) -> dict[str, Any]:
        """Without the second try that a repository makes by itself."""
        partial = repository.begin_point(DOMAIN, "heal-a-job").partial
        folder = self.sealed.manifests[self.sealed.points[0]].folder
        arguments = {"path": repository.path, "partial": partial, "folder": folder, "file": "vda.qcow2"}
        return repository.hand.call("heal_file", arguments)

    def drop(self, repository: Repository) -> None:
        repository.drop_partial(point_folder(DOMAIN, ".partial-heal-a-job"))


@pytest.fixture
def healed(tmp_path: Path) -> Healed:
    return Healed(tmp_path)


@pytest.fixture
def repository(healed: Healed) -> Iterator[Repository]:
    with healed.sealed.opened() as repository:
        yield repository


def kill_at_instants(healed: Healed, repository: Repository, instants: int) -> int:
    """Returns how many of the kills met a process."""
    took_s, killer = _time_of_one_try(healed, repository), Killer(repository)
    for instant in range(instants):
        damaged = healed.damage()
        repository.look()
        timer = killer.after(took_s * 1.1 * instant / instants)
        with suppress(RepositoryUnusable):
            healed.try_once(repository)
        timer.join()
        assert healed.image.read_bytes() in (damaged, healed.good[healed.name])
        result = healed.try_once(repository)
        assert result["healed"], result
        assert [source["source"] for source in result["sources"]] == ["point"], "an answer that was lost is not forgotten"
        healed.drop(repository)
        assert healed.sealed.contents() == healed.good
    return killer.killed


def test_a_healing_that_is_killed_at_any_instant_leaves_the_damaged_file_or_the_healed_one(healed: Healed, repository: Repository) -> None:
    assert kill_at_instants(healed, repository, INSTANTS) > 0


def test_a_filesystem_without_second_names_keeps_the_damaged_file_too(healed: Healed, repository: Repository) -> None:
    """Where the damaged file had to be moved, a process may die before the new one is in its place."""
    healed.damage()
    assert healed.try_once(repository)["healed"]
    work = healed.image.parent.with_name(".partial-heal-a-job")
    healed.image.rename(work / "healed")
    result = healed.try_once(repository)
    assert (result["healed"], [source["source"] for source in result["sources"]]) == (True, ["point"])
    healed.drop(repository)
    assert healed.sealed.contents() == healed.good


def _time_of_one_try(healed: Healed, repository: Repository) -> float:
    healed.damage()
    repository.look()
    began = time.monotonic()
    assert healed.try_once(repository)["healed"]
    took_s = time.monotonic() - began
    healed.drop(repository)
    return took_s
