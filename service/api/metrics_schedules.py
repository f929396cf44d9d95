"""/metrics of schedules, read from the database: they are seen where every scheduler is dead, too, and after a restart."""

from datetime import datetime, timedelta

from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from service.db.tables import Schedule, ScheduleRun
from service.model.schedule import Outcome, Reason

MISSED_WITHIN = timedelta(hours=1)
"""Runs that were found to be missed within this time are counted."""


def schedules(session: Session, now: datetime) -> list[Metric]:
    due = GaugeMetricFamily("stillpoint_schedules_due", "Schedules whose time has come, and that no process has decided yet.")
    overdue = GaugeMetricFamily("stillpoint_schedule_overdue_seconds", "Since the time of the first schedule that is not decided yet.")
    first = func.min(Schedule.fire_at, type_=Schedule.fire_at.type)
    count, since = session.execute(select(func.count(), first).where(Schedule.fire_at <= now)).one()
    due.add_metric([], count)
    overdue.add_metric([], max(0.0, (now - since).total_seconds()) if since is not None else 0.0)
    return [due, overdue, _missed(session, now)]


def _missed(session: Session, now: datetime) -> Metric:
    missed = GaugeMetricFamily("stillpoint_schedule_runs_missed", "Runs that were found to be missed in the last hour.", labels=["reason"])
    runs = select(ScheduleRun.reason, func.count()).where(ScheduleRun.decided_at > now - MISSED_WITHIN)
    by_reason = {
        row[0]: row[1] for row in session.execute(runs.where(ScheduleRun.outcome == Outcome.missed.value).group_by(ScheduleRun.reason))
    }
    for reason in (Reason.too_late, Reason.newer_due):
        missed.add_metric([reason.value], by_reason.get(reason.value, 0))
    return missed
