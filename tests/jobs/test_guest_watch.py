"""The watch over a guest, with a clock and a folder that the tests move."""

import threading
from pathlib import Path

import pytest

from service.disks import merge_space
from service.errors import GuestPausedByError, GuestSuffers, OverlaySpaceLow
from service.jobs import guest_watch
from service.jobs.guest_watch import GuestWatch, resume_after_error
from service.model.impact import ImpactStage
from service.model.intent import Overlay
from service.model.pace import FIRST_BYTES_S
from tests.fakes import FakeDisk, FakeDomain, FakeHost, connection_lost

RESERVE = 1000


class Scene:
    """One guest with two disks; `look` is a look half a second later."""

    def __init__(self, folder: Path) -> None:
        self.domain = FakeDomain("db1", [FakeDisk("vda", folder / "vda.qcow2"), FakeDisk("vdb", folder / "vdb.qcow2")])
        self.guest = FakeHost(self.domain).guest("db1")
        self.folder = folder
        self.now_s = 0.0
        self.free: int | None = 10 * RESERVE

    def watch(self, limit_ms: float | None = 20.0, **more: object) -> GuestWatch:
        return GuestWatch(
            self.guest,
            ["vda", "vdb"],
            [self.folder / "vda.ovl", self.folder / "vdb.ovl"],
            RESERVE,
            limit_ms,
            clock=lambda: self.now_s,
            free_bytes=lambda _folder: self.free,
            **more,  # type: ignore[arg-type]
        )

    def look(self, watch: GuestWatch, times: int = 1) -> None:
        for _ in range(times):
            self.now_s += 0.5
            watch.look()


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def _copying(scene: Scene, watch: GuestWatch) -> GuestWatch:
    scene.look(watch, 2)
    watch.mark("window")
    watch.mark(ImpactStage.copy)
    return watch


def test_what_the_guest_felt_is_told_by_stage_and_disk(scene: Scene) -> None:
    watch = scene.watch()
    scene.look(watch, 3)
    watch.mark("window")
    scene.domain.latency_ms = {"vda": (2.0, 4.0)}
    watch.mark("copy")
    scene.look(watch, 2)
    watch.mark("after")
    scene.domain.latency_ms = {}
    scene.look(watch)
    stages = watch.as_document()["stages"]
    assert [stages[stage]["vda"]["write_ms"] for stage in ("before", "window", "copy", "after")] == [0.1, 2.0, 2.0, 0.1]
    assert stages["copy"]["vdb"]["flush_ms"] == 0.5


def test_the_watch_of_a_second_attempt_begins_in_the_copy_and_adds_to_its_figures(scene: Scene) -> None:
    first = _copying(scene, scene.watch())
    scene.look(first, 2)
    earlier = first.as_document()
    second = scene.watch(earlier=earlier)
    scene.look(second, 3)
    document = second.as_document()
    assert document["stages"]["before"] == earlier["stages"]["before"]
    assert document["stages"]["copy"]["vda"]["writes"] == earlier["stages"]["copy"]["vda"]["writes"] + 20
    scene.free = 0
    scene.look(second)
    with pytest.raises(OverlaySpaceLow):
        second.check()


def test_in_the_window_libvirt_is_asked_nothing(scene: Scene) -> None:
    watch = scene.watch()
    watch.mark("window")
    del scene.domain.log[:]
    scene.look(watch, 3)
    assert scene.domain.log == []


def test_the_last_look_before_the_window_is_the_first_of_the_window(scene: Scene) -> None:
    """What was written before the freeze is not felt of the window."""
    watch = scene.watch()
    scene.look(watch)
    watch.mark("window")
    scene.domain.is_idle = True
    watch.mark("copy")
    assert watch.as_document()["stages"]["window"]["vda"]["writes"] == 0


def test_a_guest_paused_by_an_io_error_ends_the_copy_and_is_told(scene: Scene) -> None:
    watch = _copying(scene, scene.watch())
    watch.check()
    scene.domain.pause_by_io_error("vdb")
    scene.look(watch)
    with pytest.raises(GuestPausedByError) as raised:
        watch.check()
    assert raised.value.facts == {"domain": "db1", "reason": "vdb: no_space", "resumed": False}
    assert watch.as_document()["paused_by_error"] is True


def test_a_guest_that_its_owner_paused_is_not_the_backups_business(scene: Scene) -> None:
    watch = _copying(scene, scene.watch())
    scene.domain.pause()
    scene.look(watch)
    watch.check()
    assert watch.as_document()["paused_by_error"] is False


def test_a_folder_whose_space_runs_out_ends_the_copy_before_the_guest_stands(scene: Scene) -> None:
    watch = _copying(scene, scene.watch())
    scene.free = RESERVE
    scene.look(watch)
    watch.check()
    scene.free = RESERVE - 1
    scene.look(watch)
    with pytest.raises(OverlaySpaceLow) as raised:
        watch.check()
    assert raised.value.facts == {"folder": str(scene.folder), "free_bytes": RESERVE - 1, "reserve_bytes": RESERVE, "merge_bytes": 0}
    assert watch.as_document()["least_free_bytes"] == RESERVE - 1


def test_a_guest_that_writes_fast_needs_more_than_the_reserve_until_its_merge_has_caught_up(scene: Scene) -> None:
    base, path = scene.folder / "base", scene.folder / "vda.ovl"
    base.write_bytes(b"x" * (1 << 20))
    path.write_bytes(b"x" * (1 << 20))
    watch = _copying(scene, scene.watch())
    watch.merges([Overlay("vda", str(base), "raw", str(path), 1 << 20)])
    scene.free = RESERVE + (3 << 20)
    scene.look(watch, 2)
    watch.check()
    # 1 MiB in half a second, so 4 MiB in two seconds.
    path.write_bytes(b"x" * (2 << 20))
    scene.look(watch)
    with pytest.raises(OverlaySpaceLow):
        watch.check()


def test_what_the_merge_will_take_must_stay_free_beside_the_reserve(scene: Scene) -> None:
    """The file below grows in the merge, and only afterwards the overlay gives its space back."""
    base, path, size = scene.folder / "base", scene.folder / "vda.ovl", 1 << 30
    path.write_bytes(b"x" * (1 << 20))
    with base.open("wb") as file:
        file.truncate(size)
    watch = _copying(scene, scene.watch())
    watch.merges([Overlay("vda", str(base), "raw", str(path), size)])
    scene.free = RESERVE + merge_space.allocated_bytes(str(path))
    scene.look(watch)
    watch.check()
    path.write_bytes(b"x" * (2 << 20))
    scene.look(watch)
    with pytest.raises(OverlaySpaceLow) as raised:
        watch.check()
    assert raised.value.facts["merge_bytes"] == merge_space.allocated_bytes(str(path))


def test_storage_that_does_not_say_what_is_free_is_not_taken_for_full(scene: Scene) -> None:
    watch = _copying(scene, scene.watch())
    scene.free = None
    scene.look(watch)
    watch.check()
    assert watch.as_document()["least_free_bytes"] is None


def test_a_merge_is_not_ended_by_the_watch(scene: Scene) -> None:
    watch = _copying(scene, scene.watch())
    scene.free = 0
    scene.look(watch)
    watch.mark("after")
    scene.look(watch)
    watch.check()


def test_a_slow_guest_slows_the_copy_then_halts_it_then_ends_it(scene: Scene) -> None:
    watch = _copying(scene, scene.watch(patience_s=10.0))
    scene.domain.latency_ms = {"vdb": (1.0, 100.0)}
    scene.look(watch)
    assert watch.pace() == FIRST_BYTES_S
    scene.look(watch, 5)
    assert watch.pace() == 0
    watch.check()
    scene.look(watch, 19)
    watch.check()
    scene.look(watch)
    with pytest.raises(GuestSuffers) as raised:
        watch.check()
    assert raised.value.facts == {"domain": "db1", "latency_ms": 100.0, "limit_ms": 20.0}
    document = watch.as_document()
    assert (document["slowed_s"], document["halted_s"]) == (2.5, 10.0)


def test_a_guest_that_is_calm_again_gives_the_copy_its_speed_back(scene: Scene) -> None:
    watch = _copying(scene, scene.watch())
    scene.domain.latency_ms = {"vdb": (1.0, 100.0)}
    scene.look(watch)
    scene.domain.latency_ms = {}
    scene.look(watch, 20)
    assert watch.pace() is None


def test_what_the_freeze_held_does_not_slow_the_copy(scene: Scene) -> None:
    watch = scene.watch()
    scene.look(watch)
    watch.mark("window")
    scene.domain.latency_ms = {"vda": (5000.0, 5000.0)}
    watch.mark("copy")
    scene.domain.latency_ms = {}
    scene.look(watch)
    assert watch.pace() is None


def test_one_slow_look_among_calm_ones_counts_as_their_mean(scene: Scene) -> None:
    watch = _copying(scene, scene.watch())
    scene.look(watch, 3)
    scene.domain.latency_ms = {"vda": (0.1, 60.0)}
    scene.look(watch)
    assert watch.pace() is None


def test_without_libvirt_there_are_no_figures_and_no_fault(scene: Scene) -> None:
    watch = _copying(scene, scene.watch())
    scene.domain.fail_next("block_counters", connection_lost(), times=2)
    scene.look(watch)
    watch.check()
    scene.look(watch, 2)
    assert watch.as_document()["stages"]["copy"]["vda"]["writes"] == 10


def test_a_guest_that_shuts_down_during_the_copy_is_not_a_fault(scene: Scene) -> None:
    watch = _copying(scene, scene.watch())
    scene.domain.shut_off()
    scene.look(watch)
    watch.check()


def test_the_thread_looks_by_itself_and_ends_with_the_watch(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Semaphore(0)
    monkeypatch.setattr(scene.guest, "pause_reason", looked.release)
    with scene.watch(interval_s=0.001) as watch:
        for _ in range(3):
            assert looked.acquire(timeout=10)
        thread = watch._thread
    assert thread is not None
    assert not thread.is_alive()


def test_a_look_that_hangs_delays_a_mark_for_a_short_time_only(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guest_watch, "MARK_WAIT_S", 0.01)
    watch = scene.watch()
    gate = scene.domain.hang_next("block_counters")
    thread = threading.Thread(target=watch.look, daemon=True)
    thread.start()
    while "block_counters" not in scene.domain.log:
        thread.join(0.001)
    watch.mark("window")
    assert watch.as_document()["stages"]["before"] is None
    gate.set()
    thread.join(10)


def test_a_guest_whose_disk_has_space_again_continues(scene: Scene) -> None:
    scene.domain.pause_by_io_error()
    assert resume_after_error(scene.guest, settle_s=0.0)
    assert scene.guest.pause_reason() is None


def test_a_guest_whose_disk_is_still_full_stands_again(scene: Scene) -> None:
    scene.domain.pause_by_io_error()
    scene.domain.io_error_stays = True
    assert not resume_after_error(scene.guest, settle_s=5.0)
