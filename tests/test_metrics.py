"""What a worker counts of Windows guests."""

from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from service import metrics
from service.db.engine import Database
from service.model.windows.well_known_writers import SQL_SERVER
from tests.scenes.windows import WindowsScene

pytestmark = pytest.mark.windows


@pytest.fixture
def scene(sqlite_database: Database, tmp_path: Path) -> WindowsScene:
    return WindowsScene(sqlite_database, tmp_path)


def failures_of(class_id: str) -> float:
    return REGISTRY.get_sample_value("stillpoint_writer_failures_total", {"class_id": class_id}) or 0.0


def holds_lost() -> float:
    return REGISTRY.get_sample_value("stillpoint_vss_holds_lost_total") or 0.0


def holds() -> tuple[float, float]:
    """How many holds are in the histogram, and how many of them under 5 s."""
    count = REGISTRY.get_sample_value("stillpoint_hold_seconds_count") or 0.0
    return count, REGISTRY.get_sample_value("stillpoint_hold_seconds_bucket", {"le": "5.0"}) or 0.0


def test_every_hold_is_in_the_histogram_and_no_freeze_that_failed(scene: WindowsScene) -> None:
    count, short = holds()
    scene.play("healthy-2022")
    scene.take()
    scene.play("heavy-io")
    scene.take()
    assert holds() == (count + 1, short + 1)


def test_a_writer_that_failed_is_counted_under_its_class(scene: WindowsScene) -> None:
    before = failures_of(SQL_SERVER), holds_lost()
    scene.play("sql-writer-failed")
    scene.take()
    assert (failures_of(SQL_SERVER), holds_lost()) == (before[0] + 1, before[1])


def test_a_hold_that_was_lost_is_counted(scene: WindowsScene) -> None:
    before = holds_lost()
    scene.play("hold-lost")
    scene.take()
    assert holds_lost() == before + 1


def test_nothing_is_counted_where_nothing_went_wrong_and_where_nothing_was_frozen(scene: WindowsScene) -> None:
    before = failures_of(SQL_SERVER), holds_lost()
    scene.play("healthy-2022")
    scene.take()
    scene.play("heavy-io")
    scene.take()
    scene.run()
    assert (failures_of(SQL_SERVER), holds_lost()) == before


def test_a_guest_that_makes_up_class_ids_does_not_fill_the_memory() -> None:
    made_up = [f"{n:08x}-0000-0000-0000-000000000000" for n in range(2 * metrics.MAX_CLASSES)]
    metrics.count_vss(made_up, hold_was_lost=False)
    labels = {sample.labels["class_id"] for family in metrics.WRITER_FAILURES.collect() for sample in family.samples}
    assert len(labels) <= metrics.MAX_CLASSES + 1
    assert failures_of("other") >= metrics.MAX_CLASSES
