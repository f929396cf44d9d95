"""The disk of its own that a lane gets for its overlays: put in wholly, or taken out again with the reason told. Real mounts, no guest."""

import os
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.chaos import overlay_disk, rounds
from tests.chaos.overlay_disk import OverlayDisk
from tests.chaos.stage import Stage
from tests.chaos.turns import Turns
from tests.lab.command import run
from tests.lab.namespaces import ways_into
from tests.lab.places import LabError


def _may_mount() -> bool:
    return (
        os.geteuid() == 0 and subprocess.run(["unshare", "--mount", "losetup", "--find"], capture_output=True, check=False).returncode == 0
    )


pytestmark = pytest.mark.skipif(not _may_mount(), reason="only root can mount, and not in every container")


class QuietStage:
    """Without a guest that runs and without a worker: what the disk asks of its lane. The lanes that follow each other share `guest`."""

    has_small_disk = True

    def __init__(self, guest: Path, life: int) -> None:
        self.guest = SimpleNamespace(folder=guest, name="lab-quiet")
        self.state_dir = guest.parent / f"0-{life}" / "lane-0"
        self.state_dir.mkdir(parents=True)
        self.overlay_folders = [guest]
        self.worker = SimpleNamespace(environment={})
        self.api = SimpleNamespace(request=lambda _method, _path: SimpleNamespace(status_code=200))
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def is_running(self) -> bool:
        return False

    def merge_all(self) -> None:
        """There is a single file."""

    def restart_worker(self) -> None:
        """There is none."""


@pytest.fixture
def guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # The lab's libvirtd has nothing to do with these disks.
    monkeypatch.setattr(overlay_disk, "libvirt_pids", list)
    folder = tmp_path / "guest"
    folder.mkdir()
    yield folder
    while os.path.ismount(folder / "overlays"):
        run(["umount", folder / "overlays"])


def disk_of(stage: QuietStage) -> OverlayDisk:
    return OverlayDisk(cast(Stage, stage))


def left_behind(stage: QuietStage) -> tuple[bool, bool, bool, bool, list[Path], dict[str, str]]:
    image = stage.state_dir.with_name("lane-0.overlays.img")
    folder = stage.guest.folder / "overlays"
    is_attached = str(image) in run(["losetup", "--list", "--output", "BACK-FILE"])
    return os.path.ismount(folder), folder.exists(), image.exists(), is_attached, stage.overlay_folders, stage.worker.environment


def nothing_of(stage: QuietStage) -> tuple[bool, bool, bool, bool, list[Path], dict[str, str]]:
    return False, False, False, False, [stage.guest.folder], {}


@contextmanager
def closed_ways(_pids: Iterable[str]) -> Iterator[list[list[str]]]:
    yield [["false", "namespace"]]


def test_a_disk_that_is_put_in_and_taken_out_leaves_nothing(guest: Path) -> None:
    stage = QuietStage(guest, 0)
    disk_of(stage).put_in()
    assert disk_of(stage).is_mounted
    assert stage.overlay_folders == [guest, guest / "overlays"]

    disk_of(stage).take_out()
    assert left_behind(stage) == nothing_of(stage)


def test_a_disk_that_was_put_in_halfway_is_taken_out_whole(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = QuietStage(guest, 0)
    monkeypatch.setattr(overlay_disk, "ways_into", closed_ways)
    with pytest.raises(LabError):
        disk_of(stage).put_in()

    disk_of(stage).take_out()
    assert left_behind(stage) == nothing_of(stage)


def test_a_round_whose_disk_cannot_be_put_in_tells_why_and_that_no_job_was_created(guest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = QuietStage(guest, 0)
    monkeypatch.setattr(overlay_disk, "ways_into", closed_ways)
    outcome = rounds.play(cast(Stage, stage), seed=1, number=1, turns=Turns(), only=["overlay_target_full"])
    assert [breach.kind for breach in outcome.breaches] == ["stories_untrue"]
    assert "false namespace mount" in outcome.breaches[0].detail
    assert (outcome.job, left_behind(stage)) == ("", nothing_of(stage))


def test_a_disk_that_an_earlier_lane_left_mounted_does_not_keep_the_next_one_out(guest: Path) -> None:
    before, after = QuietStage(guest, 0), QuietStage(guest, 1)
    disk_of(before).put_in()

    disk_of(after).put_in()
    assert str(after.state_dir.with_name("lane-0.overlays.img")) in run(["losetup", "--list", "--output", "BACK-FILE"])
    assert len(after.notes) == 1
    disk_of(after).take_out()
    assert left_behind(after) == nothing_of(after)


def test_a_namespace_can_be_entered_after_the_process_by_which_it_was_found_has_ended() -> None:
    with namespace_of_its_own() as process, ways_into([str(process.pid)]) as ways:
        process.kill()
        process.wait()
        entered = [run([*way, "readlink", "/proc/self/ns/mnt"]) for way in ways]
    assert len(entered) == 1
    assert entered[0].strip() != str(Path("/proc/self/ns/mnt").readlink())


def test_the_own_namespace_and_a_process_that_is_no_more_give_no_way() -> None:
    with namespace_of_its_own() as process:
        pass
    with ways_into([str(os.getpid()), str(process.pid)]) as ways:
        assert ways == []


def test_a_namespace_with_another_root_is_left_alone(tmp_path: Path) -> None:
    """A path of this machine means nothing there."""
    with namespace_of_its_own(into_another_root(tmp_path)) as process, ways_into([str(process.pid)]) as ways:
        assert ways == []


def into_another_root(root: Path) -> str:
    """As `scripts/debian13` does it; the programs of this machine stay in reach."""
    for name in ("bin", "lib", "lib64", "usr", ".outside"):
        (root / name).mkdir()
    binds = "".join(f"mount --rbind /{name} {name}; " for name in ("bin", "lib", "lib64", "usr"))
    return f"set -e; mount --bind {root} {root}; cd {root}; {binds} pivot_root . .outside; "


@contextmanager
def namespace_of_its_own(first: str = "") -> Iterator[Any]:
    """`first`: shell commands before it says that it is there."""
    with subprocess.Popen(["unshare", "--mount", "sh", "-c", f"{first}echo; exec sleep 60"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process
        finally:
            process.kill()
