"""The window of a Windows guest: its limits, the watchdog, and what is never sent in it."""

from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database
from tests.lab.windows import scenario
from tests.lab.windows.clock import ScaledClock
from tests.lab.windows.scenario import Freeze
from tests.scenes.host import FREEZE, THAW, error_of
from tests.scenes.windows import WindowsScene, reasons_of

pytestmark = pytest.mark.windows


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> WindowsScene:
    return WindowsScene(sqlite_database, tmp_path)


@pytest.mark.parametrize("freeze", [{"hold_limit_ms": 10_000}, {"hold_soft_ms": 10_000}, {"hold_limit_ms": 30_000}])
def test_a_hold_that_windows_cannot_keep_is_refused_before_anything_is_frozen(scene: WindowsScene, freeze: dict[str, Any]) -> None:
    windows = scene.play("healthy-2022")

    job = scene.take(freeze=freeze)

    assert error_of(job)["code"] == "hold_limit_too_long"
    assert FREEZE not in windows.windows.commands
    assert scene.overlays() == []


def test_the_longest_hold_that_windows_can_keep_is_allowed(scene: WindowsScene) -> None:
    scene.play("healthy-2022")
    job = scene.take(freeze={"hold_limit_ms": 9_999})
    assert (job.state, (job.timing or {})["limits"]["hold_ms"]) == ("succeeded", 9_999)


def test_the_default_hold_limit_is_below_that_of_windows(scene: WindowsScene) -> None:
    scene.play("healthy-2022")
    assert (scene.take().timing or {})["limits"]["hold_ms"] == 8_000


def test_a_watchdog_thaws_at_the_hard_limit_while_the_snapshot_call_hangs(scene: WindowsScene) -> None:
    windows = scene.play("healthy-2022", clock=ScaledClock())
    gate = windows.hang_next("snapshot_create")
    windows.when_next(THAW, gate.set)

    job = scene.take(freeze={"hold_limit_ms": 300})

    assert ((job.freeze or {})["watchdog_fired"], job.verdict) == (True, "crash")
    assert error_of(job)["code"] == "verdict_below_required"
    (session,) = windows.windows.sessions
    assert session.ended_by == "thaw"
    assert windows.windows.commands.count(THAW) == 1


@pytest.mark.parametrize("count", [65, 32_759, 2_147_483_647])
def test_a_count_that_no_guest_has_is_thawed_at_once_and_no_snapshot_is_taken(scene: WindowsScene, count: int) -> None:
    healthy = scenario.load("healthy-2022")
    windows = scene.play(healthy.model_copy(update={"freeze": (Freeze(count=count),)}))

    job = scene.take()

    assert (job.verdict, (job.freeze or {})["outcome"]) == ("none", "absurd")
    assert windows.points == []
    assert not windows.windows.holds_writes()


def test_a_windows_that_cannot_be_frozen_gives_a_crash_point_where_that_is_enough(scene: WindowsScene) -> None:
    windows = scene.play("heavy-io")

    job = scene.take(freeze={"mode": "preferred"})

    assert (job.state, job.verdict) == ("succeeded", "crash")
    assert [point.frozen for point in windows.points] == [frozenset()]


@pytest.mark.parametrize("disks", [["vda"], ["vdb"], ["vda", "vdb"]])
def test_never_a_list_of_volumes_is_frozen_whatever_the_disks(scene: WindowsScene, disks: list[str]) -> None:
    windows = scene.play("healthy-2022")

    job = scene.take(disks=disks)

    assert (job.verdict, (job.freeze or {})["mountpoints"]) == ("application", None)
    assert (job.freeze or {})["filesystems_frozen"] == len(windows.windows.volumes)
    assert "guest-fsfreeze-freeze-list" not in windows.windows.commands


@pytest.mark.parametrize("name", ["healthy-2022", "hold-lost", "sql-writer-failed", "writers-settle"])
def test_between_freeze_and_thaw_nothing_else_is_asked(scene: WindowsScene, name: str) -> None:
    windows = scene.play(name)

    scene.take()

    commands = windows.windows.commands
    assert commands[commands.index(FREEZE) + 1] == THAW
    assert "guest-exec" in commands[: commands.index(FREEZE)]
    assert "guest-exec" in commands[commands.index(THAW) :]


def test_a_point_that_would_begin_after_the_soft_limit_is_not_taken(scene: WindowsScene) -> None:
    """Between the freeze reply and the snapshot call lies nothing that could be slowed from outside: the limit is put below it."""
    windows = scene.play("healthy-2022")

    job = scene.take(freeze={"hold_soft_ms": 0.000_001})

    assert (job.state, job.verdict, reasons_of(job)) == ("failed", "none", ["no_snapshot"])
    assert windows.points == []
    assert not windows.windows.holds_writes()
    assert scene.overlays() == []
