"""/metrics says what is due and not decided, and what was missed."""

from datetime import timedelta

from service.api.metrics_schedules import schedules
from service.db.engine import Database
from tests.scenes.scheduled import Scheduled


def said(scene: Scheduled) -> dict[str, float]:
    with scene.database.read() as session:
        families = schedules(session, scene.now)
    return {"/".join([sample.name, *sample.labels.values()]): sample.value for family in families for sample in family.samples}


def test_what_no_process_decides_is_counted_until_it_is_decided(database: Database) -> None:
    scene = Scheduled(database)
    scene.domains(3)
    scene.policy()
    scene.look()
    assert (said(scene)["stillpoint_schedules_due"], said(scene)["stillpoint_schedule_overdue_seconds"]) == (0, 0)
    scene.now += timedelta(hours=2, minutes=5)
    assert (said(scene)["stillpoint_schedules_due"], said(scene)["stillpoint_schedule_overdue_seconds"]) == (3, 300)
    scene.look()
    assert said(scene)["stillpoint_schedules_due"] == 0


def test_what_was_missed_is_counted_for_an_hour(database: Database) -> None:
    scene = Scheduled(database)
    scene.domains(2)
    scene.policy()
    scene.look()
    scene.later(days=2, hours=3)
    missed = {"stillpoint_schedule_runs_missed/newer_due": 4, "stillpoint_schedule_runs_missed/too_late": 0}
    assert missed.items() <= said(scene).items()
    scene.now += timedelta(minutes=61)
    assert said(scene)["stillpoint_schedule_runs_missed/newer_due"] == 0
