"""A year of 500 domains: downtimes, clock changes, failures, and people who change policies. Each due instant has exactly one outcome.

The rules of the year are those of the scheduler. Its rows are kept in memory, as 200,000 jobs would only measure the database. A second
year with fewer domains is on record.
"""

import random
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from service.db.engine import Database
from service.model.blackouts import Blackout
from service.model.schedule import Outcome, Reason, Run, Standing, begin, decide, due_between, key_of
from service.model.schedule_rule import CatchUp, ScheduleRule
from tests.model.test_blackouts import a_blackout
from tests.scenes.scheduled import Scheduled, for_databases, nightly

BEGIN, END = datetime(2026, 1, 1, tzinfo=UTC), datetime(2027, 1, 1, tzinfo=UTC)
DOMAINS = 500
RULES = (
    ScheduleRule("0 2 * * *", "Europe/Berlin", jitter_s=3_600),
    ScheduleRule("30 2 * * *", "America/New_York", jitter_s=600, catch_up=CatchUp.skip),
    ScheduleRule("15 2 * * *", "Australia/Lord_Howe", catch_up_within_s=7_200),
    ScheduleRule("0 */6 * * *", "Europe/Berlin", jitter_s=1_800),
    ScheduleRule("0 22 * * 5", "UTC"),
)
OFFICE = (a_blackout("07:00", "19:00", "Europe/Berlin", ("mon", "tue", "wed", "thu", "fri")),)


@dataclass
class Down:
    """The service or its database was away, from `begin` until `end`."""

    begin: datetime
    end: datetime


@dataclass
class OneSchedule:
    key: str
    rule: ScheduleRule
    blackouts: tuple[Blackout, ...]
    next_due_at: datetime | None = None
    fire_at: datetime | None = None
    job_ends_at: datetime = BEGIN
    runs: list[Run] = field(default_factory=list)
    began: dict[datetime, datetime] = field(default_factory=dict)

    def look(self, now: datetime, obstacle: Reason | None, job_takes: timedelta) -> None:
        running = "job" if self.job_ends_at > now else None
        decision = decide(self.rule, self.blackouts, Standing(self.key, self.next_due_at, obstacle, running), now)
        self.runs += decision.runs
        self.next_due_at, self.fire_at = decision.next_due_at, decision.fire_at
        if decision.runs and decision.runs[-1].outcome is Outcome.queued:
            self.began[decision.runs[-1].due_at] = now
            self.job_ends_at = now + job_takes


def downtimes(chance: random.Random) -> list[Down]:
    """Forty of them, from minutes to days, and one in each night of a clock change."""
    begins = [BEGIN + timedelta(minutes=chance.randrange(365 * 1440)) for _ in range(40)]
    begins += [datetime(2026, *each, 0, 45, tzinfo=UTC) for each in ((3, 29), (10, 25), (3, 8), (11, 1))]
    spans = (10, 45, 180, 900, 4_000)
    return [Down(each, each + timedelta(minutes=chance.choice(spans))) for each in sorted(begins)]


def looks_after(fire_at: datetime, downs: list[Down]) -> datetime:
    """When a scheduler looks that is there again after its downtimes."""
    for down in downs:
        if down.begin <= fire_at < down.end:
            fire_at = down.end
    return fire_at


def was_away(downs: list[Down], instant: datetime, until: datetime) -> bool:
    return any(down.begin <= until and instant <= down.end for down in downs)


@pytest.mark.timeout(900)
def test_a_year_of_500_domains_has_one_outcome_for_each_due_instant() -> None:
    chance, cpu_s = random.Random(11), time.process_time()
    downs = downtimes(chance)
    every: list[OneSchedule] = []
    for n in range(DOMAINS):
        rule = RULES[n % len(RULES)]
        each = OneSchedule(key_of("track", f"domain-{n}"), rule, OFFICE if n % 3 == 0 else ())
        first = begin(rule, each.blackouts, each.key, BEGIN)
        each.next_due_at, each.fire_at = first.next_due_at, first.fire_at
        paused_from = BEGIN + timedelta(days=chance.randrange(300)) if n % 7 == 0 else END
        while each.fire_at is not None and each.fire_at < END:
            now = looks_after(each.fire_at, downs)
            is_paused = paused_from <= now < paused_from + timedelta(days=20)
            # One job in a hundred hangs for two days.
            each.look(now, Reason.paused if is_paused else None, timedelta(days=2) if chance.random() < 0.01 else timedelta(minutes=40))
        every.append(each)
    for each in every:
        each_instant_once(each)
        for run in each.runs:
            by_rule(each, run, downs)
    outcomes = Counter((run.reason or run.outcome).value for each in every for run in each.runs)
    assert set(outcomes) >= {"queued", "too_late", "newer_due", "paused", "blackout", "still_running"}
    assert sum(outcomes.values()) > 200_000
    assert outcomes["queued"] > 0.8 * sum(outcomes.values())
    assert time.process_time() - cpu_s < 120


def each_instant_once(each: OneSchedule) -> None:
    assert each.next_due_at is not None
    due = [instant for instant in due_between(each.rule, BEGIN, END + timedelta(days=8)) if instant < each.next_due_at]
    assert [run.due_at for run in each.runs] == due


def by_rule(each: OneSchedule, run: Run, downs: list[Down]) -> None:
    if run.outcome is Outcome.missed:
        # Nothing is missed by a service that is there: not even where a job hangs or a blackout lasts.
        assert was_away(downs, run.due_at, run.due_at + timedelta(days=3)), run
    if run.reason is Reason.blackout:
        assert each.blackouts
    if run.outcome is Outcome.queued:
        late = each.began[run.due_at] - run.due_at
        assert late < timedelta(hours=1) or was_away(downs, run.due_at, each.began[run.due_at]) or each.blackouts, run


def test_a_year_on_record_has_one_outcome_for_each_due_instant_and_one_job_for_each_run_that_began(sqlite_database: Database) -> None:
    """Weekly and monthly tracks of a few domains, a service that is away for weeks, and changes of policy, host and domain."""
    chance = random.Random(7)
    scene = Scheduled(sqlite_database, BEGIN)
    ids = scene.domains(6)
    tracks = [nightly("weekly", "30 2 * * 0", time_zone="Europe/Berlin"), nightly("monthly", "0 3 1 * *", jitter_s=1_800)]
    scene.policy(for_databases(*tracks))
    scene.look()
    while scene.now < END:
        scene.now += timedelta(hours=chance.choice([5, 11, 30, 30, 30, 300]))
        what = chance.randrange(10)
        if what == 0:
            scene.restart()
        elif what == 1:
            scene.policy(for_databases(*tracks, paused=chance.random() < 0.5))
        elif what == 2:
            tracks[1] = nightly("monthly", f"0 {chance.randrange(1, 5)} 1 * *", jitter_s=1_800)
            scene.policy(for_databases(*tracks))
        elif what == 3:
            gone = chance.choice(ids)
            scene.undefine(gone)
            scene.look()
            scene.later(hours=1)
            scene.domain(gone.removeprefix("id-of-"))
        else:
            scene.end_jobs(chance.choice(["succeeded", "failed"]))
        scene.look()
    runs = scene.all_runs()
    assert len({(run.schedule_id, run.due_at) for run in runs}) == len(runs)
    began = [run.job_id for run in runs if run.outcome == "queued"]
    assert sorted(job.id for job in scene.jobs()) == sorted(str(job_id) for job_id in began)
    weekly = ScheduleRule("30 2 * * 0", "Europe/Berlin")
    for domain_id in ids:
        decided = [run.due_at for run in runs if run.domain_id == domain_id and run.track == "weekly"]
        (row,) = [row for row in scene.schedules() if row.domain_id == domain_id and row.track == "weekly"]
        assert row.next_due_at is not None
        assert decided == [instant for instant in due_between(weekly, BEGIN, END + timedelta(days=14)) if instant < row.next_due_at]


def test_what_these_years_show_is_seen_where_an_outcome_is_lost() -> None:
    each = OneSchedule("key", replace(RULES[0], jitter_s=0), ())
    each.next_due_at = begin(each.rule, (), "key", BEGIN).next_due_at
    for day in range(1, 20):
        each.look(BEGIN + timedelta(days=day), None, timedelta())
    each_instant_once(each)
    each.runs.pop(4)
    try:
        each_instant_once(each)
    except AssertionError:
        return
    raise AssertionError("a lost outcome was not seen")
