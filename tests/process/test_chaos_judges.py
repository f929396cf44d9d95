"""The invariants that look at files and at the job's own words: each is shown a sound round first, and then the breach that it is for."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from tests.chaos import invariants
from tests.chaos.gate_client import GateClient
from tests.chaos.invariants import Breach
from tests.chaos.pauses import Pause
from tests.chaos.stage import Stage
from tests.lab import disks
from tests.lab.command import run
from tests.lab.console import Console, Stall
from tests.lab.overlays import make_overlay

BEAT = "METER mount=/data at=1 writes=1 seq=1 ack=1 max_ms=0 max_sync_ms=0\n"


class QuietGuest:
    """A guest that is not running: its files and its console are all that the invariants look at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.disks = {"vda": folder / "vda.qcow2"}
        self.top = self.disks["vda"]
        self.console = Console(folder / "serial.log")
        disks.data_disk(self.top, mb=16, label="data")

    def active_sources(self) -> dict[str, Path]:
        return {"vda": self.top}

    def move_to_overlay(self) -> Path:
        """The file that holds the point in time now."""
        before, self.top = self.top, make_overlay(self.top, "point")
        return before


class QuietStage:
    def __init__(self, folder: Path) -> None:
        self.guest = QuietGuest(folder)
        self.overlay_folders = [folder]

    chain_files = Stage.chain_files
    written_file = Stage.written_file
    _files_open_for_writing = Stage._files_open_for_writing
    open_files = Stage.open_files

    def is_running(self) -> bool:
        return True

    def qemu_pid(self) -> int:
        return os.getpid()

    def paused_guest(self) -> AbstractContextManager[None]:
        return nullcontext()


@pytest.fixture
def stage(tmp_path: Path) -> QuietStage:
    return QuietStage(tmp_path)


def kinds(breaches: Any) -> list[str]:
    return [breach.kind for breach in cast("list[Breach]", list(breaches))]


def job_with_point(before: Path, overlay: Path, **changes: Any) -> dict[str, Any]:
    point = {"disks": [{"file": str(before), "overlay": str(overlay)}]}
    job = {
        "kind": "snapshot",
        "state": "succeeded",
        "verdict": "filesystem",
        "error": None,
        "recovery_point": point,
        "timing": {"hold_ms": 20.0},
    }
    return {**job, **changes}


def test_a_sound_chain_is_none_and_a_corrupt_file_in_it_is_a_broken_one(stage: QuietStage) -> None:
    base = stage.guest.move_to_overlay()
    assert kinds(invariants.chain_broken(cast(Stage, stage))) == []

    with base.open("r+b") as file:
        file.seek(65536)
        file.write(b"\xff" * 4096)
    assert "chains_broken" in kinds(invariants.chain_broken(cast(Stage, stage)))


def test_a_backing_file_that_is_gone_is_a_broken_chain(stage: QuietStage) -> None:
    stage.guest.move_to_overlay().unlink()
    assert kinds(invariants.chain_broken(cast(Stage, stage))) == ["chains_broken"]


def test_a_disk_that_stands_on_a_foreign_file_is_a_broken_chain(stage: QuietStage) -> None:
    stage.guest.top = stage.guest.folder / "foreign.qcow2"
    disks.data_disk(stage.guest.top, mb=16, label="data")
    assert kinds(invariants.chain_broken(cast(Stage, stage))) == ["chains_broken"]


def test_a_guest_that_does_not_write_to_the_file_that_libvirt_names_is_caught(stage: QuietStage) -> None:
    """This process stands for QEMU, which has the files of a chain open."""
    base = stage.guest.top
    with base.open("r+b"):
        assert kinds(invariants.nameless_disk(cast(Stage, stage), {"error": None})) == []

    overlay = make_overlay(base, "unnamed")
    with base.open("rb"), overlay.open("r+b"):
        overlay.unlink()
        (breach,) = invariants.nameless_disk(cast(Stage, stage), {"error": None})
    assert breach.kind == "chains_broken"
    assert f"{overlay} (deleted) (written)" in breach.detail
    assert f"{base} (only read)" in breach.detail


def test_an_overlay_in_nobodys_chain_is_a_stray_unless_its_job_tells_of_it(stage: QuietStage) -> None:
    stage.guest.move_to_overlay()
    assert kinds(invariants.strays(cast(Stage, stage), {})) == []

    forgotten = make_overlay(stage.guest.disks["vda"], "forgotten")
    assert kinds(invariants.strays(cast(Stage, stage), {})) == ["stories_untrue"]
    assert kinds(invariants.strays(cast(Stage, stage), {"error": f"could not remove {forgotten}"})) == []


@contextmanager
def switched_by_qemu(stage: QuietStage) -> Iterator[tuple[Path, Path]]:
    """libvirt names the first, QEMU writes to the second."""
    named, written = stage.guest.top, make_overlay(stage.guest.top, "point")
    with named.open("rb"), written.open("r+b"):
        yield named, written


def told(named: Path, written: Path) -> dict[str, Any]:
    return {"error": {"code": "libvirt_behind_qemu", "facts": {"libvirt_file": str(named), "qemu_file": str(written)}}}


def test_a_job_that_tells_which_file_the_guest_is_on_is_believed_and_another_one_is_not(stage: QuietStage) -> None:
    with switched_by_qemu(stage) as (named, written):
        assert kinds(invariants.nameless_disk(cast(Stage, stage), {"error": None})) == ["chains_broken"]
        assert kinds(invariants.nameless_disk(cast(Stage, stage), told(written, named))) == ["chains_broken"]
        assert kinds(invariants.nameless_disk(cast(Stage, stage), told(named, written))) == []
        written.unlink()
        assert kinds(invariants.nameless_disk(cast(Stage, stage), told(named, written))) == ["chains_broken"]


def test_an_overlay_that_only_qemu_knows_of_is_not_a_stray_and_a_point_on_it_is_true(stage: QuietStage) -> None:
    with switched_by_qemu(stage) as (named, written):
        assert kinds(invariants.strays(cast(Stage, stage), told(named, written))) == []
        assert written.exists()
        assert untrue(stage, job_with_point(named, written, state="failed", **told(named, written)), named) == []


def test_a_next_job_that_freezes_though_libvirt_is_behind_is_caught() -> None:
    refused = {**told(Path("a"), Path("b")), "state": "failed", "freeze": None}
    assert kinds(invariants.next_job_not_refused(refused)) == []
    assert kinds(invariants.next_job_not_refused({**refused, "freeze": {"outcome": "frozen"}})) == ["stories_untrue"]
    assert kinds(invariants.next_job_not_refused({**refused, "error": {"code": "snapshot_failed"}})) == ["stories_untrue"]


def test_a_meter_that_does_not_speak_again_stands_in_a_write(stage: QuietStage, monkeypatch: pytest.MonkeyPatch) -> None:
    stage.guest.console.path.write_text(BEAT)
    monkeypatch.setattr(invariants, "SILENCE_S", 0.2)
    assert kinds(invariants.no_heartbeat(cast(Stage, stage))) == ["guests_left_frozen"]


def untrue(stage: QuietStage, job: dict[str, Any], before: Path, stall_ms: float = 50.0) -> list[str]:
    stalls = [Stall(at_ms=0, ms=stall_ms, mount="/data")]
    return kinds(invariants.story_untrue(cast(Stage, stage), job, before, stalls))


def test_a_job_that_tells_what_happened_is_believed(stage: QuietStage) -> None:
    before = stage.guest.move_to_overlay()
    assert untrue(stage, job_with_point(before, stage.guest.top), before) == []


LIES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "it never ended": lambda job: {**job, "state": "running"},
    "it failed and does not say why": lambda job: {**job, "state": "failed"},
    "it succeeded with an error": lambda job: {**job, "error": {"code": "worker_lost"}},
    "no point, though the disk moved on": lambda job: {**job, "recovery_point": None, "verdict": "none"},
    "a point that is not where the disk came from": lambda job: {
        **job,
        "recovery_point": {"disks": [{**job["recovery_point"]["disks"][0], "overlay": job["recovery_point"]["disks"][0]["file"]}]},
    },
    "a point that is not there": lambda job: {**job, "recovery_point": {"disks": [{"file": "/nowhere/vda.qcow2", "overlay": "/nowhere"}]}},
    "success, and yet no freeze": lambda job: {**job, "verdict": "crash"},
    "a hold that no write ever met": lambda job: {**job, "timing": {"hold_ms": 5_000.0}},
}


@pytest.mark.parametrize("lie", LIES.values(), ids=LIES.keys())
def test_a_job_that_tells_something_else_is_caught(stage: QuietStage, lie: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    before = stage.guest.move_to_overlay()
    assert "stories_untrue" in untrue(stage, lie(job_with_point(before, stage.guest.top)), before)


FREEZE = datetime(2026, 11, 27, 1, 8, 46, tzinfo=UTC)


def at(ms: float) -> datetime:
    """After the freeze was sent; the hold begins 70 ms after that."""
    return FREEZE + timedelta(milliseconds=ms)


def hold_of(ms: float) -> dict[str, Any]:
    freeze = {"name": "freeze", "started_at": FREEZE.isoformat(), "duration_ms": 70.0}
    return {"phases": [freeze], "timing": {"hold_ms": ms}}


@pytest.mark.parametrize(
    ("pauses", "is_believed"),
    [
        ([], False),
        ([Pause(at(90), at(500))], True),
        # Of a pause that begins before the hold, and of one that outlasts it, only the part inside counts.
        ([Pause(at(-300), at(110))], False),
        ([Pause(at(600), at(1_500))], False),
        ([Pause(at(-1_000), at(60)), Pause(at(650), at(2_000))], False),
        ([Pause(at(90), at(300)), Pause(at(400), at(600))], True),
    ],
    ids=["no pause", "inside", "before", "at the end", "around", "two inside"],
)
def test_the_time_in_which_a_guest_was_paused_is_taken_out_of_the_hold_that_its_meter_must_have_seen(
    stage: QuietStage, pauses: list[Pause], is_believed: bool
) -> None:
    before = stage.guest.move_to_overlay()
    job = job_with_point(before, stage.guest.top, **hold_of(570.0))
    seen = [Stall(at_ms=0, ms=150.0, mount="/data")]
    assert kinds(invariants.story_untrue(cast(Stage, stage), job, before, seen, pauses)) == ([] if is_believed else ["stories_untrue"])


def test_a_hold_that_is_longer_than_the_pause_and_every_write_is_caught(stage: QuietStage) -> None:
    before = stage.guest.move_to_overlay()
    job = job_with_point(before, stage.guest.top, **hold_of(2_000.0))
    seen = [Stall(at_ms=0, ms=150.0, mount="/data")]
    pause = Pause(at(90), at(1_500))
    assert kinds(invariants.story_untrue(cast(Stage, stage), job, before, seen, [pause])) == ["stories_untrue"]


def test_a_verdict_over_a_point_that_needs_its_journal_is_caught(stage: QuietStage) -> None:
    before = stage.guest.move_to_overlay()
    mark_as_mounted(before)
    assert untrue(stage, job_with_point(before, stage.guest.top), before) == ["stories_untrue"]


def test_a_gate_that_held_a_copy_which_needs_its_journal_is_caught(stage: QuietStage) -> None:
    copy = stage.guest.folder / "copy.qcow2"
    gate = GateClient(cast(Stage, stage), deadline_ms=1_000, copies_for_s=0, held=True, copy=copy)
    job = {"state": "succeeded", "error": None}
    shutil.copy(stage.guest.disks["vda"], copy)
    assert kinds(gate.breaches(job)) == []

    mark_as_mounted(stage.guest.disks["vda"])
    shutil.copy(stage.guest.disks["vda"], copy)
    assert kinds(gate.breaches(job)) == ["stories_untrue"]


def test_a_release_that_tells_something_else_than_its_job_is_caught(stage: QuietStage) -> None:
    gate = GateClient(cast(Stage, stage), deadline_ms=1_000, copies_for_s=0, held=False)
    assert kinds(gate.breaches({"state": "succeeded", "error": None})) == ["stories_untrue"]


def mark_as_mounted(image: Path) -> None:
    """As ext4 marks itself while it is mounted: what was not frozen looks so."""
    raw = image.with_suffix(".raw")
    run(["qemu-img", "convert", "-O", "raw", image, raw])
    run(["debugfs", "-w", "-R", "feature needs_recovery", raw])
    run(["qemu-img", "convert", "-O", "qcow2", raw, image])
    raw.unlink()
