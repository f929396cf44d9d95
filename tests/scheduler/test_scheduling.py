"""What is due begins once, whatever number of schedulers there is, and whatever happens to them."""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select

from service.clock import rfc3339
from service.db.engine import Database
from service.db.tables import DatabaseIdentity, Job, Schedule, ScheduleRun
from service.errors import DatabaseUnavailable
from service.model.origin import POLICY_LABEL, SCHEDULE_LABEL, TRACK_LABEL
from service.model.schedule import JUMP, JUMP_BELIEVED_S, Reason, start_of
from service.model.schedule_rule import ScheduleRule
from service.records import queue, schedules
from service.scheduler.loop import Loop
from service.scheduler.scheduling import LATE_SECONDS, LOOK_S, RUNS, SET_ASIDE_S
from tests.scenes.scheduled import BEGIN, Scheduled, for_databases, nightly

TWO = BEGIN.replace(hour=2)


@pytest.fixture
def scene(database: Database) -> Scheduled:
    scene = Scheduled(database)
    scene.domain()
    scene.look()
    return scene


# --- one run --------------------------------------------------------------------------------------


def test_a_run_makes_a_job_that_says_where_it_comes_from(scene: Scheduled) -> None:
    scene.policy()
    scene.at("15 01:59").at("15 02:00")
    (job,), (run,), (schedule,) = scene.jobs(), scene.all_runs(), scene.schedules()
    assert (job.kind, job.domain_id, job.host_id, job.state) == ("snapshot", "id-of-db-1", "hv1", "queued")
    assert job.labels == {POLICY_LABEL: "production", TRACK_LABEL: "nightly", SCHEDULE_LABEL: schedule.id}
    assert (run.job_id, run.outcome, run.due_at, run.policy_name) == (job.id, "queued", TWO, "production")
    assert (schedule.last_job_id, schedule.next_due_at) == (job.id, TWO + timedelta(days=1))
    assert scene.woken == 1


def test_a_job_is_as_the_track_says(scene: Scheduled) -> None:
    repository = scene.repository()
    backup = {"kind": "backup", "repository": "main", "level": "full", "compress": True, "leave_out": ["vdb"], "on_shortfall": "retry"}
    scene.domain("db-2", disks=[{"target": target, "can_snapshot": target != "sr0"} for target in ("vda", "vdb", "sr0")])
    scene.policy(for_databases(nightly(job=backup)))
    scene.at("15 02:00")
    requests = {job.domain_name: job.request for job in scene.jobs()}
    assert requests["db-2"]["disks"] == ["vda"]
    assert requests["db-1"]["disks"] is None
    same = {"repository": repository, "level": "full", "compress": True, "on_shortfall": "retry", "kind": "backup"}
    assert all(same.items() <= request.items() for request in requests.values())


def test_a_run_waits_for_its_jitter(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly(jitter_s=3_600)))
    scene.at("15 02:00")
    (schedule,) = scene.schedules()
    start = start_of(ScheduleRule("0 2 * * *", "UTC", jitter_s=3_600), (), "nightly/id-of-db-1", TWO).at
    assert schedule.fire_at == start
    scene.now = start - timedelta(milliseconds=1)
    scene.look()
    assert scene.runs() == []
    scene.now = start
    scene.look()
    assert scene.of() == [("15 02:00", "queued")]


def test_the_next_look_is_when_the_next_run_begins_and_within_a_second(scene: Scheduled) -> None:
    scene.policy()
    scene.look()
    scene.now = TWO - timedelta(milliseconds=300)
    assert scene.schedulers[0].look() == pytest.approx(0.3)
    scene.now = TWO - timedelta(hours=1)
    assert scene.schedulers[0].look() == LOOK_S


def test_the_metrics_count_what_became_of_runs_and_how_late_they_began(scene: Scheduled) -> None:
    def counted(outcome: str, reason: str) -> float:
        value: float = RUNS.labels(outcome=outcome, reason=reason)._value.get()
        return value

    before = counted("queued", ""), counted("missed", "newer_due"), LATE_SECONDS._sum.get()
    scene.policy()
    scene.look()
    scene.at("16 02:00:03")
    after = counted("queued", ""), counted("missed", "newer_due"), LATE_SECONDS._sum.get()
    assert [now - then for now, then in zip(after, before, strict=True)] == [1, 1, pytest.approx(3)]


# --- what stands in the way -----------------------------------------------------------------------


@pytest.mark.parametrize("state", ["queued", "running", "interrupted"])
def test_a_run_is_skipped_while_the_job_of_the_last_one_has_not_ended(scene: Scheduled, state: str) -> None:
    scene.policy()
    scene.at("15 02:00")
    with scene.database.write() as session:
        session.scalars(select(Job)).one().state = state
    scene.at("16 02:00")
    assert scene.of() == [("15 02:00", "queued"), ("16 02:00", "still_running")]
    assert scene.all_runs()[1].facts == {"job_id": scene.jobs()[0].id}
    scene.end_jobs("failed")
    with scene.database.write() as session:
        session.scalars(select(Job)).one().state = "failed"
    scene.at("17 02:00")
    assert scene.of()[2:] == [("17 02:00", "queued")]


def test_a_follow_up_of_the_last_job_counts_as_the_last_job(scene: Scheduled) -> None:
    """As of a job that fell short, or of one that a person tried again."""
    scene.policy()
    scene.at("15 02:00")
    scene.end_jobs("failed")
    (job,) = scene.jobs()
    with scene.database.write() as session:
        again = queue.NewJob(job.kind, job.domain_id, job.domain_name, job.host_id, job.request, job.labels, retry_of=job.id, pause_s=600)
        follower = queue.enqueue(session, again).job_id
    scene.at("16 02:00")
    assert scene.of()[1:] == [("16 02:00", "still_running")]
    assert scene.all_runs()[1].facts == {"job_id": follower}


def test_jobs_of_another_track_or_of_a_person_do_not_stand_in_the_way(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly("early", "0 1 * * *"), nightly()))
    scene.fill_queue("db-1", 3)
    scene.at("15 01:00").at("15 02:00")
    assert scene.of() == [("15 01:00", "queued"), ("15 02:00", "queued")]


def refused_code(scene: Scheduled) -> str:
    (run,) = scene.all_runs()
    assert (run.outcome, run.reason, run.job_id) == ("skipped", "refused", None)
    assert set(run.facts["error"]) >= {"code", "title", "detail", "remedy", "facts"}
    code: str = run.facts["error"]["code"]
    return code


def test_a_run_whose_repository_is_gone_is_refused_with_the_error(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly(job={"kind": "backup", "repository": "main"})))
    scene.at("15 02:00")
    assert refused_code(scene) == "repository_not_found"
    assert scene.jobs() == []
    assert scene.next_due() == {("db-1", "nightly"): "16 02:00"}


def test_a_run_that_would_leave_out_every_disk_is_refused(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly(job={"kind": "snapshot", "leave_out": ["vda"]})))
    scene.at("15 02:00")
    assert refused_code(scene) == "no_disk_can_take_part"


def test_a_run_of_a_domain_whose_queue_is_full_is_refused(scene: Scheduled) -> None:
    scene.policy()
    scene.schedulers = [scene.scheduler(queued_per_domain=3)]
    scene.fill_queue("db-1", 3)
    scene.at("15 02:00")
    assert refused_code(scene) == "domain_queue_full"
    assert len(scene.jobs()) == 3


def test_a_run_of_a_guest_that_another_client_has_frozen_is_refused(scene: Scheduled) -> None:
    frozen_since = rfc3339(datetime.now(UTC))
    scene.undefine("id-of-db-1")
    scene.domain(frozen=True, frozen_since=frozen_since, frozen_by={"kind": "not_stillpoint", "job_id": None})
    scene.policy()
    scene.at("15 02:00")
    assert refused_code(scene) == "guest_already_frozen"


def test_a_domain_that_cannot_be_snapshotted_does_not_keep_the_others_from_theirs(scene: Scheduled) -> None:
    scene.host("hv2")
    scene.domain("db-2")
    scene.domain("db-2", "hv2")
    scene.policy()
    scene.at("15 02:00")
    assert scene.of("db-1") == [("15 02:00", "queued")]
    assert scene.of("db-2") == [("15 02:00", "refused")]


# --- any number of schedulers ---------------------------------------------------------------------


def together(*work: Callable[[], object]) -> None:
    barrier, failed = threading.Barrier(len(work)), list[BaseException]()

    def run(each: Callable[[], object]) -> None:
        barrier.wait()
        try:
            each()
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failed == []


def test_each_run_begins_once_however_many_schedulers_look_at_once(database: Database) -> None:
    scene = Scheduled(database)
    scene.domains(40)
    scene.policy(for_databases(nightly(), nightly("second", "0 2 * * *")))
    scene.look()
    scene.now = TWO
    together(*(scene.scheduler().look for _ in range(5)))
    scene.look()
    assert [what for _, _, what in scene.runs()] == ["queued"] * 80
    assert len(scene.jobs()) == 80
    assert len({(job.domain_id, job.labels[TRACK_LABEL]) for job in scene.jobs()}) == 80


def test_a_policy_that_is_changed_while_schedulers_look_gives_each_instant_one_outcome(database: Database) -> None:
    scene = Scheduled(database)
    scene.domains(30)
    scene.policy(for_databases(nightly(), nightly("second", "0 2 * * *")))
    scene.look()
    scene.now = TWO

    def change() -> None:
        scene.policy(for_databases(nightly(cron="0 3 * * *"), nightly("third", "0 2 * * *")))

    together(scene.scheduler().look, scene.scheduler().look, change)
    scene.look()
    runs = scene.all_runs()
    assert len(runs) == len({(run.schedule_id, run.due_at) for run in runs}) == 60
    assert {run.reason for run in runs} <= {None, Reason.policy_changed}
    assert len(scene.jobs()) == sum(run.outcome == "queued" for run in runs)


def test_a_policy_that_is_removed_while_schedulers_look_gives_each_instant_one_outcome(database: Database) -> None:
    scene = Scheduled(database)
    scene.domains(30)
    scene.policy()
    scene.look()
    scene.now = TWO
    together(scene.scheduler().look, scene.scheduler().look, scene.remove_policy)
    runs = scene.all_runs()
    assert len(runs) == 30
    assert {run.reason for run in runs} <= {None, Reason.policy_changed}
    assert len(scene.jobs()) == sum(run.outcome == "queued" for run in runs)
    assert scene.schedules() == []


# --- when things go wrong -------------------------------------------------------------------------


def test_a_process_that_dies_before_its_commit_has_done_nothing(scene: Scheduled, monkeypatch: pytest.MonkeyPatch) -> None:
    scene.policy()
    scene.look()
    change = schedules.change

    def die(*_: Any) -> None:
        raise DatabaseUnavailable(reason="the connection was lost")

    monkeypatch.setattr(schedules, "change", die)
    with pytest.raises(DatabaseUnavailable):
        scene.at("15 02:00")
    assert (scene.runs(), scene.jobs()) == ([], [])
    monkeypatch.setattr(schedules, "change", change)
    scene.at("15 02:03")
    assert scene.of() == [("15 02:00", "queued")]


def test_what_was_due_while_the_database_was_away_is_made_up_for_or_missed_by_rule(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly(), nightly("strict", "0 3 * * *", catch_up="skip")))
    scene.look()
    scene.at("16 12:00")
    assert [(run.track, f"{run.due_at:%d}", run.reason or run.outcome) for run in scene.all_runs()] == [
        ("nightly", "15", "newer_due"),
        ("strict", "15", "newer_due"),
        ("nightly", "16", "queued"),
        ("strict", "16", "too_late"),
    ]


def test_a_schedule_with_a_fault_is_set_aside_and_the_others_begin(scene: Scheduled, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("db-2", "db-3", "db-4", "db-5"):
        scene.domain(name)
    scene.policy()
    scene.look()
    rule_in = schedules.rule_in
    ill = scene.schedules()[2].id
    with scene.database.write() as session:
        session.get_one(Schedule, ill).rule = "{}"
    clock = [1_000.0]
    scene.schedulers[0]._monotonic = lambda: clock[0]
    monkeypatch.setattr(schedules, "rule_in", lambda text: rule_in(text) if text != "{}" else rule_in("?"))
    scene.now = TWO
    while scene.schedulers[0]._fire():
        pass
    assert len(scene.runs()) == len(scene.schedules()) - 1
    with scene.database.write() as session:
        session.get_one(Schedule, ill).rule = scene.schedules()[0].rule
    clock[0] += SET_ASIDE_S - 1
    assert not scene.schedulers[0]._fire()
    clock[0] += 2
    assert scene.schedulers[0]._fire()
    assert len(scene.runs()) == len(scene.schedules())


# --- clocks ---------------------------------------------------------------------------------------


def test_a_clock_that_goes_back_begins_nothing_a_second_time(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly(cron="0 * * * *")))
    scene.at("15 01:00")
    scene.end_jobs()
    scene.at("15 02:00")
    scene.end_jobs()
    for text in ("15 00:30", "15 01:00", "15 01:30", "15 02:00", "15 02:30"):
        scene.at(text)
    assert scene.of() == [("15 01:00", "queued"), ("15 02:00", "queued")]
    scene.at("15 03:00")
    assert scene.of()[2:] == [("15 03:00", "queued")]


@pytest.mark.parametrize("jump", [JUMP * 2, -JUMP * 2])
def test_a_clock_that_has_jumped_decides_nothing_until_it_has_lasted(scene: Scheduled, jump: timedelta) -> None:
    clock = [0.0]
    scene.policy()
    scene.look()
    scene.schedulers[0]._monotonic = lambda: clock[0]
    scene.now += jump
    scene.look()
    clock[0] += JUMP_BELIEVED_S - 1
    scene.look()
    assert scene.runs() == []
    scene.now -= jump
    scene.look()
    scene.now += jump
    clock[0] += 2
    scene.look()
    assert scene.runs() == []
    clock[0] += JUMP_BELIEVED_S
    scene.look()
    assert len(scene.runs()) == (14 if jump > timedelta() else 0)


def test_after_a_clock_that_was_ahead_the_runs_of_the_days_in_between_are_not_lost(scene: Scheduled) -> None:
    """The clock was thirty days ahead for an hour, and was believed. What it decided too early is decided again in its time."""
    scene.policy()
    scene.at("15 01:00")
    ahead = scene.scheduler()
    scene.now += timedelta(days=30)
    ahead._monotonic = lambda: 0.0
    ahead.look()
    ahead._monotonic = lambda: JUMP_BELIEVED_S
    ahead.look()
    (job,) = scene.jobs()
    scene.end_jobs()
    assert len(scene.runs()) == 30
    scene.now = BEGIN.replace(hour=1, minute=30)
    ahead._monotonic = lambda: 2 * JUMP_BELIEVED_S
    ahead.look()
    ahead._monotonic = lambda: 3 * JUMP_BELIEVED_S
    ahead.look()
    assert [run.job_id for run in scene.all_runs()] == [job.id]
    assert scene.next_due() == {("db-1", "nightly"): "15 02:00"}
    scene.at("15 02:00")
    assert scene.of()[0] == ("15 02:00", "queued")


def test_a_policy_that_comes_months_after_the_last_one_was_removed_begins_at_once(scene: Scheduled) -> None:
    scene.policy()
    scene.later(seconds=30)
    scene.remove_policy()
    scene.later(seconds=30)
    scene.later(days=90)
    scene.policy()
    scene.now += timedelta(days=1)
    scene.look()
    assert [what for _, what in scene.of()] == ["queued"]


# --- the thread -----------------------------------------------------------------------------------


def test_a_service_that_starts_begins_what_is_due_and_outlives_its_database(scene: Scheduled) -> None:
    scene.policy()
    scene.look()
    looks, looked = list[int](), threading.Event()
    look = scene.schedulers[0].look

    def away_at_first() -> float:
        looks.append(1)
        if len(looks) == 1:
            raise DatabaseUnavailable(reason="it is away")
        if len(looks) == 2:
            raise ValueError("a fault")
        pause_s = look()
        looked.set()
        return pause_s

    scene.now = TWO
    loop = Loop("scheduling", away_at_first, threading.Event(), failed_s=0.01)
    loop.start()
    assert looked.wait(60)
    loop.stop()
    assert scene.of() == [("15 02:00", "queued")]
    assert not loop.is_alive


def test_the_time_of_the_last_look_is_on_record_where_there_are_policies(scene: Scheduled) -> None:
    scene.later(seconds=30)
    with scene.database.read() as session:
        assert session.scalar(select(DatabaseIdentity.scheduled_at)) is None
    scene.policy()
    scene.later(seconds=30)
    with scene.database.read() as session:
        assert session.scalar(select(DatabaseIdentity.scheduled_at)) == scene.now
        assert session.scalar(select(ScheduleRun.schedule_id)) is None
