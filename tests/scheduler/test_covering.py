"""Which schedules there are: one for each track of the policy of each domain, from the moment on at which that became so."""

from datetime import timedelta

import pytest

from service.db.engine import Database
from service.db.tables import Policy
from service.model.schedule_rule import ScheduleRule
from service.records.schedules import rule_in
from service.scheduler.covering import BATCH, EVERY, last_covered, take_turn
from service.scheduler.settling import GONE_BELIEVED, GONE_KEPT
from tests.api.world import add_domain
from tests.model.written_policies import a_blackout
from tests.scenes.scheduled import BEGIN, Scheduled, for_databases, nightly


@pytest.fixture
def scene(database: Database) -> Scheduled:
    scene = Scheduled(database)
    scene.domain()
    scene.look()
    return scene


def test_each_domain_of_a_policy_has_a_schedule_for_each_track(scene: Scheduled) -> None:
    scene.domain("db-2")
    scene.domain("web-1")
    scene.policy(for_databases(nightly(), nightly("hourly", "30 * * * *")))
    scene.look()
    night, half_past = "15 02:00", "15 00:30"
    assert scene.next_due() == {
        ("db-1", "nightly"): night,
        ("db-1", "hourly"): half_past,
        ("db-2", "nightly"): night,
        ("db-2", "hourly"): half_past,
    }
    row = scene.schedules()[0]
    assert (row.domain_id, row.host_id, row.fire_at, row.gone_since) == ("id-of-db-1", "hv1", row.next_due_at, None)
    assert rule_in(row.rule) == ScheduleRule("30 * * * *", "UTC")


def test_a_look_without_a_change_changes_nothing(scene: Scheduled) -> None:
    scene.policy()
    scene.look()
    before = [(row.id, row.next_due_at, row.fire_at) for row in scene.schedules()]
    scene.later(seconds=30)
    scene.restart()
    scene.later(minutes=30)
    assert [(row.id, row.next_due_at, row.fire_at) for row in scene.schedules()] == before


def test_many_domains_are_covered_in_several_transactions(database: Database) -> None:
    scene = Scheduled(database)
    scene.domains(BATCH + 5)
    scene.policy()
    scene.look()
    assert len(scene.next_due()) == BATCH + 5


def test_two_processes_cover_a_domain_once(scene: Scheduled) -> None:
    scene.policy()
    for scheduler in (scene.scheduler(), scene.scheduler()):
        scheduler.look()
    assert len(scene.schedules()) == 1


def test_a_domain_that_appears_is_covered_at_once_also_for_an_instant_between_two_looks(scene: Scheduled) -> None:
    scene.policy()
    scene.at("15 01:59:55")
    scene.domain("db-2")
    scene.at("15 02:00:06")
    assert scene.of("db-2") == [("15 02:00", "queued")]


def test_a_domain_that_appears_after_a_long_absence_of_the_service_missed_nothing(scene: Scheduled) -> None:
    scene.policy()
    scene.later(minutes=2)
    scene.domain("db-2")
    scene.restart()
    scene.at("20 12:00")
    assert scene.of("db-2") == []
    assert len(scene.of("db-1")) == 6


def test_a_policy_that_was_made_while_no_scheduler_was_there_counts_from_then(scene: Scheduled) -> None:
    scene.at("15 01:00")
    scene.policy()
    scene.restart()
    scene.at("16 12:00")
    assert scene.of() == [("15 02:00", "newer_due"), ("16 02:00", "queued")]


# --- a policy that is changed ---------------------------------------------------------------------


def test_a_track_that_was_changed_skips_what_is_due_and_has_not_begun_and_begins_again(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly(jitter_s=3_600)))
    scene.at("15 02:00")
    assert scene.runs() == []
    scene.policy(for_databases(nightly(cron="30 4 * * *")))
    scene.later(seconds=1)
    assert scene.of() == [("15 02:00", "policy_changed")]
    assert scene.next_due() == {("db-1", "nightly"): "15 04:30"}
    scene.at("15 04:30")
    assert scene.of()[1:] == [("15 04:30", "queued")]


def test_a_track_that_was_changed_leaves_the_other_tracks_as_they_are(scene: Scheduled) -> None:
    waiting = nightly("waiting", "0 1 * * *", jitter_s=7_200)
    scene.policy(for_databases(nightly(), waiting))
    scene.at("15 01:00")
    before = {row.track: (row.id, row.next_due_at, row.fire_at) for row in scene.schedules()}
    scene.policy(for_databases(nightly(cron="0 3 * * *"), waiting, description="another one"))
    scene.later(seconds=1)
    after = {row.track: (row.id, row.next_due_at, row.fire_at) for row in scene.schedules()}
    assert after["waiting"] == before["waiting"]
    assert after["nightly"][0] == before["nightly"][0]
    assert scene.next_due()["db-1", "nightly"] == "15 03:00"


def test_a_job_of_a_track_that_was_changed_is_that_of_the_next_run(scene: Scheduled) -> None:
    scene.policy()
    scene.look()
    scene.policy(for_databases(nightly(job={"kind": "snapshot", "required_verdict": "crash"})))
    scene.at("15 02:00")
    assert [job.request["required_verdict"] for job in scene.jobs()] == ["crash"]


def test_a_change_that_no_scheduler_saw_counts_from_when_it_was_made(scene: Scheduled) -> None:
    scene.policy()
    scene.at("15 12:00")
    scene.end_jobs()
    scene.now = BEGIN.replace(day=17, hour=12)
    scene.policy(for_databases(nightly(cron="0 6 * * *")))
    scene.restart()
    scene.at("19 12:00")
    changed, missed = "policy_changed", "newer_due"
    assert scene.of() == [
        ("15 02:00", "queued"),
        ("16 02:00", changed),
        ("17 02:00", changed),
        ("18 06:00", missed),
        ("19 06:00", "queued"),
    ]


def test_a_track_that_was_removed_ends_and_a_track_that_was_added_begins(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly("old", jitter_s=3_600)))
    scene.at("15 02:00")
    scene.policy(for_databases(nightly("new", cron="0 2,5 * * *")))
    scene.later(seconds=1)
    assert scene.of() == [("15 02:00", "policy_changed")]
    assert scene.next_due() == {("db-1", "new"): "15 05:00"}


def test_other_blackouts_move_the_runs_that_wait_and_those_that_come(scene: Scheduled) -> None:
    windows = [a_blackout("01:00", "18:00")]
    tracks = nightly(), nightly("later", "0 3 * * *")
    scene.policy(for_databases(*tracks, blackouts=windows))
    scene.at("15 02:30")
    assert {row.track: f"{row.fire_at:%d %H:%M}" for row in scene.schedules()} == {"nightly": "15 18:00", "later": "15 18:00"}
    scene.policy(for_databases(*tracks))
    scene.later(seconds=1)
    assert [(run.track, run.outcome) for run in scene.all_runs()] == [("nightly", "queued")]
    assert {row.track: f"{row.fire_at:%d %H:%M}" for row in scene.schedules()} == {"nightly": "16 02:00", "later": "15 03:00"}
    scene.policy(for_databases(*tracks, blackouts=[a_blackout("01:00", "05:00", days=["mon"])]))
    scene.at("15 03:00")
    assert {row.track: f"{row.fire_at:%d %H:%M}" for row in scene.schedules()} == {"nightly": "16 02:00", "later": "15 05:00"}


def test_another_name_of_a_policy_changes_nothing_of_its_schedules(scene: Scheduled) -> None:
    policy_id = scene.policy(for_databases(nightly(jitter_s=3_600)))
    scene.look()
    before = [(row.id, row.next_due_at, row.fire_at) for row in scene.schedules()]
    with scene.database.write() as session:
        policy = session.get_one(Policy, policy_id)
        policy.document = for_databases(nightly(jitter_s=3_600), name="gold")
        policy.name, policy.revision, policy.updated_at = "gold", 2, scene.now
    scene.later(seconds=1)
    assert [(row.id, row.next_due_at, row.fire_at) for row in scene.schedules()] == before


def test_the_runs_of_a_paused_policy_are_skipped_and_those_after_it_begin(scene: Scheduled) -> None:
    scene.policy(for_databases(paused=True))
    scene.at("15 02:00").at("16 02:00")
    scene.policy(for_databases())
    scene.at("16 03:00").at("17 02:00")
    assert scene.of() == [("15 02:00", "paused"), ("16 02:00", "paused"), ("17 02:00", "queued")]


def test_a_policy_that_is_removed_takes_its_schedules_along_and_leaves_its_jobs(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly(), nightly("waiting", "0 1 * * *", jitter_s=7_200)))
    scene.look()
    waits_until = next(row.fire_at for row in scene.schedules() if row.track == "waiting")
    scene.at("15 01:00" if waits_until is not None and waits_until < BEGIN.replace(hour=2) else "15 02:00")
    scene.remove_policy()
    scene.later(days=2)
    assert scene.schedules() == []
    assert [run.reason for run in scene.all_runs() if run.track == "waiting"] == ["policy_changed"]
    assert {job.state for job in scene.jobs()} <= {"queued"}


def test_a_policy_that_a_newer_version_wrote_is_left_alone(scene: Scheduled) -> None:
    policy_id = scene.policy()
    scene.policy(for_databases(name="other", selector={"all_the_rest": True}))
    scene.domain("web-1")
    scene.look()
    with scene.database.write() as session:
        policy = session.get_one(Policy, policy_id)
        policy.document, policy.revision = {**policy.document, "colour": "green"}, 2
    scene.at("15 02:00")
    # The domain is selected by the other policy as far as this version can tell, but its schedule is not its business.
    assert scene.of("web-1") == [("15 02:00", "queued")]
    assert {row.policy_id for row in scene.schedules() if row.domain_name == "db-1"} >= {policy_id}
    assert [run.policy_name for run in scene.all_runs() if run.domain_name == "db-1"] != ["production"]


# --- a domain that changes ------------------------------------------------------------------------


def test_a_domain_that_moves_to_another_host_keeps_its_schedule(scene: Scheduled) -> None:
    scene.policy()
    scene.look()
    (before,) = scene.schedules()
    scene.host("hv2")
    scene.undefine("id-of-db-1")
    scene.domain("db-1", "hv2")
    scene.later(seconds=30)
    (after,) = scene.schedules()
    assert (after.id, after.next_due_at, after.host_id) == (before.id, before.next_due_at, "hv2")
    scene.at("15 02:00")
    assert [job.host_id for job in scene.jobs()] == ["hv2"]


def test_a_domain_with_another_name_has_another_policy_if_its_name_was_what_counted(scene: Scheduled) -> None:
    scene.policy()
    scene.policy(for_databases(nightly("other", "0 3 * * *"), name="webs", selector={"names": ["web-*"]}))
    scene.look()
    scene.undefine("id-of-db-1")
    with scene.database.write() as session:
        add_domain(session, "web-1", "id-of-db-1")
    scene.later(seconds=30)
    assert scene.next_due() == {("web-1", "other"): "15 03:00"}


def test_a_label_that_gives_a_domain_to_another_policy_moves_it_there_and_no_instant_counts_twice(scene: Scheduled) -> None:
    scene.policy()
    scene.policy(for_databases(name="gold", selector={"labels": {"tier": "gold"}, "names": ["db-*"]}))
    scene.at("15 01:59:59").at("15 02:00:00")
    scene.label("id-of-db-1", tier="gold")
    scene.later(seconds=10)
    assert scene.of() == [("15 02:00", "queued")]
    assert scene.next_due() == {("db-1", "nightly"): "16 02:00"}
    scene.end_jobs()
    scene.at("16 02:00")
    assert [run.policy_name for run in scene.all_runs()] == ["production", "gold"]


def test_a_domain_that_leaves_its_policy_skips_what_is_due_and_has_not_begun(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly(jitter_s=3_600)))
    scene.at("15 02:00")
    scene.policy(for_databases(nightly(jitter_s=3_600), selector={"names": ["web-*"]}))
    scene.later(seconds=1)
    assert scene.of() == [("15 02:00", "policy_changed")]
    assert scene.schedules() == []


def test_the_runs_of_a_domain_that_is_gone_are_skipped_until_it_is_back(scene: Scheduled) -> None:
    scene.policy()
    scene.at("15 01:00")
    scene.undefine("id-of-db-1")
    scene.at("15 01:30").at("15 02:00").at("16 02:00")
    scene.domain("db-1")
    scene.at("16 12:00").at("17 02:00")
    assert scene.of() == [("15 02:00", "domain_gone"), ("16 02:00", "domain_gone"), ("17 02:00", "queued")]


def test_a_domain_on_its_way_to_another_host_is_not_gone(scene: Scheduled) -> None:
    scene.policy(for_databases(nightly(catch_up="skip")))
    scene.host("hv2")
    scene.at("15 01:59:50")
    scene.undefine("id-of-db-1")
    scene.at("15 02:00").at("15 02:01")
    assert scene.runs() == []
    scene.domain("db-1", "hv2")
    scene.at("15 02:02")
    assert scene.of() == [("15 02:00", "queued")]


def test_a_domain_that_does_not_arrive_within_minutes_is_gone(scene: Scheduled) -> None:
    scene.policy()
    scene.at("15 01:59:50")
    scene.undefine("id-of-db-1")
    scene.at("15 02:00")
    scene.now += GONE_BELIEVED
    scene.look()
    assert scene.of() == [("15 02:00", "domain_gone")]


def test_a_schedule_whose_domain_is_gone_for_a_week_ends(scene: Scheduled) -> None:
    scene.policy()
    scene.at("15 01:00")
    scene.undefine("id-of-db-1")
    scene.look()
    scene.at("15 01:30")
    for day in range(15, 22):
        scene.at(f"{day} 02:00")
    assert len(scene.schedules()) == 1
    scene.now += GONE_KEPT
    scene.look()
    assert scene.schedules() == []
    assert {what for _, what in scene.of()} == {"domain_gone"}


def test_a_domain_that_two_hosts_list_has_one_schedule_where_it_runs(scene: Scheduled) -> None:
    scene.policy()
    scene.host("hv2")
    scene.domain("db-1", "hv2")
    scene.look()
    assert len(scene.schedules()) == 1


# --- ties -----------------------------------------------------------------------------------------


def test_a_domain_of_a_tie_has_no_schedule(scene: Scheduled) -> None:
    scene.policy()
    scene.policy(for_databases(name="other"))
    scene.look()
    assert scene.schedules() == []


def test_the_runs_of_a_domain_that_has_become_a_tie_are_skipped_until_a_person_decides(scene: Scheduled) -> None:
    scene.policy()
    scene.at("15 01:00")
    scene.policy(for_databases(name="other"))
    scene.at("15 02:00").at("16 02:00")
    scene.remove_policy("other")
    scene.at("16 03:00").at("17 02:00")
    assert scene.of() == [("15 02:00", "tie"), ("16 02:00", "tie"), ("17 02:00", "queued")]


def test_a_policy_has_a_domain_since_its_first_schedule_also_where_its_tracks_are_renamed(scene: Scheduled) -> None:
    """Otherwise a new name would make a broken promise new."""
    scene.policy(for_databases(nightly()))
    scene.look()
    begun = scene.schedules()[0].created_at
    scene.now += timedelta(days=3)
    scene.policy(for_databases(nightly("every-night"), nightly("hourly", "30 * * * *")))
    scene.look()
    assert [row.track for row in scene.schedules()] == ["every-night", "hourly"]
    assert {row.created_at for row in scene.schedules()} == {begun}


# --- any number of processes ----------------------------------------------------------------------


def test_of_the_processes_that_look_at_once_one_compares(scene: Scheduled) -> None:
    scene.policy()
    scene.later(seconds=30)
    scene.now += EVERY
    with scene.database.read() as session:
        last = last_covered(session)
    turns = []
    for _ in range(3):
        with scene.database.write() as session:
            turns.append(take_turn(session, last, scene.now))
    assert turns == [True, False, False]


def test_what_a_process_that_died_has_left_undone_is_done_by_the_next_one(scene: Scheduled) -> None:
    scene.at("15 01:59:58")
    scene.policy()
    with scene.database.write() as session:
        # It took the turn, and died.
        assert take_turn(session, last_covered(session), scene.now + timedelta(seconds=1))
    scene.at("15 02:00:10")
    assert scene.of() == [("15 02:00", "queued")]


def test_a_policy_that_a_clock_ahead_has_dated_begins_now(scene: Scheduled) -> None:
    scene.now += timedelta(days=3)
    scene.policy()
    scene.now -= timedelta(days=3)
    scene.later(seconds=30)
    assert scene.next_due() == {("db-1", "nightly"): "15 02:00"}
