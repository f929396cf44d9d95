"""Each due instant has exactly one outcome, however often and whenever the scheduler looks, and `week` foretells them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from service.model import schedule
from service.model.backup_policy import BackupPolicy
from service.model.blackouts import Blackout
from service.model.schedule import Decision, Outcome, Reason, Run, Standing, begin, decide, due_between, key_of
from service.model.schedule_rule import CatchUp, ScheduleRule, shortest_gap_s
from service.model.schedule_week import week
from service.model.selectors import Domain
from tests.model import written_policies
from tests.model.test_blackouts import read
from tests.model.test_time_zones import utc
from tests.model.written_policies import ZONES

KEY = key_of("nightly", "domain-1")
DAYS = 4
BEGINS = [utc("2026-03-27 05:00"), utc("2026-04-03 11:17"), utc("2026-10-02 20:00"), utc("2026-10-23 22:30"), utc("2026-06-15 00:00")]
"""Each is followed by a change of the clocks in one of the zones, but the last."""
rules = st.builds(
    ScheduleRule,
    cron=written_policies.crons | st.sampled_from(["*/7 * * * *", "59 23 * * *", "30 1,2,3 * * *"]),
    time_zone=st.sampled_from(ZONES),
    jitter_s=st.sampled_from([0, 0, 300, 419, 1_100]),
    catch_up=st.sampled_from(CatchUp),
    catch_up_within_s=st.sampled_from([0, 900, 7_200, 86_400]),
).filter(lambda rule: rule.jitter_s < (shortest_gap_s(rule.cron, rule.time_zone) or 0))
"""As a document may have them: a jitter as long as a gap is refused."""
blackouts = st.lists(written_policies.blackouts.map(read), max_size=2)
begins = st.sampled_from(BEGINS)
minutes = st.lists(st.integers(0, DAYS * 1440), min_size=1, max_size=12)
"""Of the looks, since the begin."""
obstacles = st.none() | st.sampled_from([Reason.paused, Reason.domain_gone, Reason.tie])


@dataclass
class Scheduled:
    """One schedule, as the scheduler keeps it: nothing of it is known between two looks but the next instant and the outcomes."""

    rule: ScheduleRule
    blackouts: Sequence[Blackout]
    next_due_at: datetime | None
    fire_at: datetime | None = None
    runs: list[Run] = field(default_factory=list)

    @classmethod
    def beginning(cls, rule: ScheduleRule, windows: Sequence[Blackout], after: datetime) -> "Scheduled":
        first = begin(rule, windows, KEY, after)
        return cls(rule, windows, first.next_due_at, first.fire_at)

    def look(self, now: datetime, obstacle: Reason | None = None, running_job: str | None = None, limit: int = schedule.MAX_RUNS) -> None:
        has_more = True
        while has_more:
            standing = Standing(KEY, self.next_due_at, obstacle, running_job, self._decided())
            has_more = self._keep(decide(self.rule, self.blackouts, standing, now, limit), limit)

    def _keep(self, decision: Decision, limit: int) -> bool:
        assert len(decision.runs) <= limit
        self.runs += decision.runs
        self.next_due_at, self.fire_at = decision.next_due_at, decision.fire_at
        return decision.has_more

    def _decided(self) -> list[datetime]:
        return [run.due_at for run in self.runs if self.next_due_at is not None and run.due_at >= self.next_due_at]


def instants(after: datetime, looks: Iterable[int]) -> list[datetime]:
    return [after + timedelta(minutes=each, seconds=13 * (each % 5)) for each in looks]


def each_has_one_outcome(scheduled: Scheduled, after: datetime, until: datetime) -> None:
    """All that is due before the next instant, and nothing else."""
    assert scheduled.next_due_at is not None
    assert max(Counter(run.due_at for run in scheduled.runs).values(), default=1) == 1
    due = [instant for instant in due_between(scheduled.rule, after, until) if instant < scheduled.next_due_at]
    assert sorted(run.due_at for run in scheduled.runs) == due


@given(rule=rules, windows=blackouts, after=begins, looks=minutes.map(sorted), obstacle=obstacles, is_running=st.booleans())
def test_each_due_instant_has_one_outcome_however_the_looks_fall(
    rule: ScheduleRule, windows: list[Blackout], after: datetime, looks: list[int], obstacle: Reason | None, is_running: bool
) -> None:
    scheduled = Scheduled.beginning(rule, windows, after)
    for n, now in enumerate(instants(after, looks)):
        runs_before = len(scheduled.runs)
        scheduled.look(now, obstacle if n % 2 else None, "job-1" if is_running and n % 3 else None)
        new = scheduled.runs[runs_before:]
        assert all(run.due_at <= now for run in new)
        assert [run for run in new if run.outcome is Outcome.queued] in ([], new[-1:])
        each_has_one_outcome(scheduled, after, now)
        assert scheduled.fire_at is not None
        # Nothing is left undone that could have been done now.
        assert scheduled.fire_at > now


@given(rule=rules, windows=blackouts, after=begins, looks=minutes)
def test_a_clock_that_jumps_decides_nothing_twice(rule: ScheduleRule, windows: list[Blackout], after: datetime, looks: list[int]) -> None:
    scheduled = Scheduled.beginning(rule, windows, after)
    for now in instants(after, looks):
        scheduled.look(now)
    each_has_one_outcome(scheduled, after, max(instants(after, looks)))


@given(rule=rules, windows=blackouts, after=begins, looks=minutes)
def test_a_schedule_that_begins_again_after_a_wrong_clock_decides_nothing_twice(
    rule: ScheduleRule, windows: list[Blackout], after: datetime, looks: list[int]
) -> None:
    scheduled = Scheduled.beginning(rule, windows, after)
    for now in instants(after, looks):
        later = [run.due_at for run in scheduled.runs if run.due_at > now]
        if later:
            again = begin(rule, windows, KEY, now, later)
            scheduled.next_due_at = again.next_due_at
        scheduled.look(now)
        assert max(Counter(run.due_at for run in scheduled.runs).values(), default=1) == 1


@given(rule=rules, windows=blackouts, after=begins, looks=minutes.map(sorted), limit=st.integers(1, 7))
def test_many_small_decisions_are_the_same_as_a_large_one(
    rule: ScheduleRule, windows: list[Blackout], after: datetime, looks: list[int], limit: int
) -> None:
    small, large = Scheduled.beginning(rule, windows, after), Scheduled.beginning(rule, windows, after)
    for now in instants(after, looks):
        small.look(now, limit=limit)
        large.look(now)
    assert small == large


def at_its_times(scheduled: Scheduled, until: datetime, further: Sequence[datetime] = ()) -> Scheduled:
    """A scheduler that is always there looks when there is something to do, and perhaps at `further` times, too."""
    waiting = sorted(further)
    while scheduled.fire_at is not None and scheduled.fire_at < until:
        now = min([scheduled.fire_at, *waiting[:1]])
        waiting = [each for each in waiting if each > now]
        scheduled.look(now)
    return scheduled


@given(rule=rules, windows=blackouts, after=begins, looks=minutes)
def test_a_look_without_anything_to_do_changes_nothing(
    rule: ScheduleRule, windows: list[Blackout], after: datetime, looks: list[int]
) -> None:
    until = after + timedelta(days=DAYS)
    few = at_its_times(Scheduled.beginning(rule, windows, after), until)
    many = at_its_times(Scheduled.beginning(rule, windows, after), until, [each for each in instants(after, looks) if each < until])
    assert few == many


@given(rule=rules, windows=blackouts, after=begins, obstacle=obstacles.map(lambda each: each is Reason.paused))
def test_the_week_foretells_what_a_scheduler_that_is_always_there_decides(
    rule: ScheduleRule, windows: list[Blackout], after: datetime, obstacle: bool
) -> None:
    document = written_policies.a_policy(tracks=[written_policies.a_track("nightly", schedule={"cron": "0 2 * * *", "time_zone": "UTC"})])
    policy = BackupPolicy.from_document(document)
    track = replace(policy.tracks[0], schedule=rule)
    policy = replace(policy, tracks=(track,), blackouts=tuple(windows), paused=obstacle)
    domain = Domain("domain-1", "db-1", "host-a", {})
    until = after + timedelta(days=DAYS)
    plan = week(policy, [domain], after + timedelta(microseconds=1), until)

    scheduled = Scheduled.beginning(rule, windows, after)
    began: dict[datetime, datetime] = {}
    # A run that is due in the last hours may wait for the end of a blackout.
    while scheduled.next_due_at is not None and scheduled.next_due_at < until:
        assert scheduled.fire_at is not None
        now, n = scheduled.fire_at, len(scheduled.runs)
        scheduled.look(now, Reason.paused if obstacle else None)
        began |= {run.due_at: now for run in scheduled.runs[n:] if run.outcome is Outcome.queued}
    decided = [(run.due_at, run.outcome, run.reason, began.get(run.due_at)) for run in scheduled.runs if run.due_at < until]
    assert [(run.due_at, run.outcome, run.reason, run.starts_at) for run in plan.runs] == decided
    end = plan.load[-1].hour + timedelta(hours=1)
    assert sum(load.starts for load in plan.load) == sum(run.starts_at is not None and run.starts_at < end for run in plan.runs)


@given(rule=rules, after=begins, absent_h=st.integers(0, 72))
def test_after_any_absence_the_newest_run_is_caught_up_where_the_rule_allows_it(rule: ScheduleRule, after: datetime, absent_h: int) -> None:
    rule = replace(rule, catch_up=CatchUp.run, catch_up_within_s=100 * 86_400, jitter_s=0)
    scheduled, now = Scheduled.beginning(rule, (), after), after + timedelta(hours=absent_h)
    scheduled.look(now)
    assert [run.reason for run in scheduled.runs[:-1]] == [Reason.newer_due] * len(scheduled.runs[:-1])
    assert [run.outcome for run in scheduled.runs[-1:]] == [Outcome.queued] * len(scheduled.runs[-1:])


@given(rule=rules, after=begins, looks=minutes.map(sorted))
def test_a_track_that_was_changed_gives_up_what_is_due_and_decides_the_rest_by_its_new_rule(
    rule: ScheduleRule, after: datetime, looks: list[int]
) -> None:
    other = replace(rule, cron="17 * * * *", time_zone="UTC")
    *seen, changed_at = instants(after, looks)
    scheduled = Scheduled.beginning(rule, (), after)
    for now in seen:
        scheduled.look(now)
    given_up = schedule.give_up(rule, Standing(KEY, scheduled.next_due_at), Reason.policy_changed, changed_at)
    assert all(run.due_at <= changed_at for run in given_up.runs)
    assert sorted(run.due_at for run in (*scheduled.runs, *given_up.runs)) == due_between(rule, after, changed_at)
    again = begin(other, (), KEY, changed_at)
    assert again.next_due_at is not None
    assert again.next_due_at > changed_at
