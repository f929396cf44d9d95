"""How long a merge may take, and what becomes of one that has no space. The domain is a fake, the files are real."""

import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from service.disks import merge_space, merging, putting_back
from service.disks.merging import Merge, MergeTimedOut, merge_back
from service.disks.putting_back import put_back
from service.errors import MergeWithoutSpace
from service.model.intent import Overlay
from tests.fakes import FakeDisk, FakeDomain, FakeHost

MIB = 1 << 20
BUDGET_S = 1.0


class Scene:
    """One disk of 64 MiB on its overlay, in which the guest has written 8 MiB."""

    def __init__(self, folder: Path) -> None:
        self.base, self.path = folder / "vda.qcow2", folder / "vda.ovl.qcow2"
        make(self.base)
        make(self.path, "-b", str(self.base), "-F", "qcow2")
        subprocess.run(["qemu-io", "-c", f"write -q -P 7 0 {8 * MIB}", str(self.path)], check=True, capture_output=True)
        self.domain = FakeDomain("db1", [FakeDisk("vda", self.base)])
        self.guest = FakeHost(self.domain).guest("db1")
        self.guest.prepare_snapshot({"vda": str(self.path)})()
        self.overlay = Overlay("vda", str(self.base), "qcow2", str(self.path), 64 * MIB)

    def says(self, course: Callable[[], Iterator[tuple[int, int]]]) -> None:
        self.domain.merges["vda"] = course()

    def merge(self, budget_s: float = 60.0) -> Merge:
        return merge_back(self.guest, [self.overlay], was_begun=True, budget_s=budget_s)


def make(path: Path, *more: str) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *more, str(path), str(64 * MIB)], check=True, capture_output=True)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def test_a_merge_that_comes_nearer_to_its_end_may_take_longer_than_the_budget(scene: Scene) -> None:
    def slowly() -> Iterator[tuple[int, int]]:
        until = time.monotonic() + 3 * BUDGET_S
        left = 1000.0
        while time.monotonic() < until:
            left -= 1
            # The guest writes as well, so that the whole grows.
            yield 5000 - int(left), 5000

    scene.says(slowly)
    assert scene.merge(budget_s=BUDGET_S).errors == {}
    assert scene.guest.sources() == {"vda": str(scene.base)}


def test_a_merge_that_the_guest_keeps_from_its_end_is_stopped(scene: Scene) -> None:
    def never() -> Iterator[tuple[int, int]]:
        done = 0
        while True:
            done += MIB
            yield done, done + 3 * MIB

    scene.says(never)
    merge = scene.merge(budget_s=0.3)
    assert isinstance(merge.errors["vda"], MergeTimedOut)
    assert (scene.guest.sources(), scene.guest.mirror("vda")) == ({"vda": str(scene.path)}, None)


def test_a_merge_tells_how_far_it_is(scene: Scene) -> None:
    scene.says(lambda: iter([(0, 8 * MIB), (2 * MIB, 8 * MIB), (9 * MIB, 9 * MIB)]))
    told: list[tuple[str, int, int]] = []
    merge_back(scene.guest, [scene.overlay], on_progress=lambda *progress: told.append(progress))
    assert told == [("vda", 0, 8 * MIB), ("vda", 2 * MIB, 8 * MIB), ("vda", 9 * MIB, 9 * MIB)]


def test_a_merge_is_stopped_before_it_fills_the_filesystem(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the guest finds no space in its overlay, and stands still."""
    monkeypatch.setattr(merge_space, "free_bytes", lambda _: 4 * MIB)
    scene.says(lambda: iter([(MIB, 8 * MIB)] * 1000))
    error = scene.merge().errors["vda"]
    assert isinstance(error, MergeWithoutSpace)
    assert (error.facts["needed_bytes"], error.facts["free_bytes"]) == (7 * MIB, 4 * MIB)
    assert (scene.guest.sources(), scene.guest.mirror("vda"), scene.path.exists()) == ({"vda": str(scene.path)}, None, True)


def test_a_merge_whose_rest_fits_goes_on_however_little_is_free(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(merge_space, "free_bytes", lambda _: 4 * MIB)
    scene.says(lambda: iter([(5 * MIB, 8 * MIB)] * 3))
    assert scene.merge().errors == {}


def test_a_file_below_that_has_its_space_already_does_not_grow(scene: Scene) -> None:
    assert 8 * MIB <= merge_space.growth_bytes(scene.overlay) < 9 * MIB
    with scene.base.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, 66 * MIB)
    assert merge_space.growth_bytes(scene.overlay) == 0


def test_the_growth_belongs_to_the_filesystem_of_the_file_below(scene: Scene, tmp_path: Path) -> None:
    elsewhere = Path("/dev/shm")
    grown = merge_space.growth_by_folder([scene.overlay], [tmp_path, elsewhere])
    assert (grown[tmp_path], grown[elsewhere]) == (merge_space.growth_bytes(scene.overlay), 0)


def test_the_space_of_a_real_folder_is_read(tmp_path: Path) -> None:
    assert (merge_space.free_bytes(tmp_path) or 0) > 0
    assert merge_space.free_bytes(tmp_path / "gone") is None


# --- a domain that is off -------------------------------------------------------------------------


def a_program(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """In place of qemu-img."""
    program = folder / "qemu-img"
    program.write_text(f"#!/bin/sh\n{text}\n")
    program.chmod(0o755)
    monkeypatch.setattr(putting_back, "QEMU_IMG", str(program))


def test_a_commit_that_goes_on_writing_may_take_longer_than_the_budget(
    scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene.domain.shut_off()
    a_program(tmp_path, monkeypatch, 'for n in $(seq 40); do echo "$n" > /dev/null; sleep 0.1; done; exec qemu-img "$@"')
    told: list[tuple[str, int, int]] = []
    merge = put_back(scene.guest, [scene.overlay], budget_s=2.0, on_progress=lambda *progress: told.append(progress))
    assert merge.errors == {}
    assert (scene.guest.persistent_sources(), scene.path.exists()) == ({"vda": str(scene.base)}, False)
    assert {target for target, _, _ in told} == {"vda"}
    assert all(done <= total for _, done, total in told)


def test_a_commit_that_writes_nothing_is_stopped(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.domain.shut_off()
    a_program(tmp_path, monkeypatch, "exec sleep 600")
    merge = put_back(scene.guest, [scene.overlay], budget_s=0.3)
    assert isinstance(merge.errors["vda"], merging.MergeTimedOut)
    assert (scene.guest.persistent_sources(), scene.path.exists()) == ({"vda": str(scene.path)}, True)


def test_a_commit_that_finds_no_space_says_so(scene: Scene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.domain.shut_off()
    monkeypatch.setattr(merge_space, "free_bytes", lambda _: 0)
    a_program(tmp_path, monkeypatch, "exit 1")
    assert isinstance(put_back(scene.guest, [scene.overlay]).errors["vda"], MergeWithoutSpace)
