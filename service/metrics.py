"""The metrics that a worker counts itself. The others are read from the database when /metrics is requested."""

from collections.abc import Iterable

from prometheus_client import Counter, Gauge, Histogram

from service.deadlines import HELPERS
from service.heartbeat import Heartbeat
from service.model.timing import ms_between
from service.model.verdict import Verdict
from service.model.window import FreezeOutcome, WindowRecord

_BUCKETS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.15, 0.25, 0.5, 1, 2, 5, 8, 10, 20, 30, 60, 120)

FREEZE_SECONDS = Histogram("stillpoint_freeze_seconds", "Freeze sent to freeze answered", buckets=_BUCKETS)
HOLD_SECONDS = Histogram("stillpoint_hold_seconds", "Freeze answered to thaw sent: writes are certainly held", buckets=_BUCKETS)
WINDOW_SECONDS = Histogram("stillpoint_freeze_window_seconds", "Freeze sent to thaw answered", buckets=_BUCKETS)
WATCHDOG_THAWS = Counter("stillpoint_watchdog_thaws", "Windows in which the hold limit passed before the point in time was reached")
FUSES_FIRED = Counter("stillpoint_fuses_fired", "Guests that their own fuse has thawed, or would have, as nobody disarmed it in time")
WRITER_FAILURES = Counter("stillpoint_writer_failures", "VSS writers that failed over a freeze of this worker", ["class_id"])
GUARD_INTERVENTIONS = Counter(
    "stillpoint_guard_interventions", "Thaws that the thaw guard sent in place of its worker, by why it had to", ["reason"]
)
for _reason in ("worker_gone", "deadline"):
    # Known from the start: an alarm on the increase of a counter never sees the first step of one that begins at 1.
    GUARD_INTERVENTIONS.labels(reason=_reason)
VSS_HOLDS_LOST = Counter(
    "stillpoint_vss_holds_lost", "Freezes of Windows guests whose hold did not last, or was not shown to last, to the thaw"
)
JOBS_FINISHED = Counter("stillpoint_worker_jobs", "Jobs this worker brought to an end", ["kind", "state", "verdict"])
LEASES_LOST = Counter("stillpoint_leases_lost", "Jobs whose lease ran out while this worker ran them")
RECOVERIES = Counter(
    "stillpoint_recoveries",
    "Jobs of dead workers, by what recovery made of them; `waiting` counts once for a guest that had to be waited for",
    ["outcome"],
)
for _outcome in ("failed", "waiting"):
    RECOVERIES.labels(outcome=_outcome)
LOOPS_DIED = Counter("stillpoint_loops_died", "Threads of this process that should run until it stops, and have ended", ["thread"])
LOOPS = ("worker-claims", "worker-leases", "worker-inventory", "worker-repositories")
for _thread in LOOPS:
    LOOPS_DIED.labels(thread=_thread)
LOOP_SILENT = Gauge("stillpoint_loop_silent_seconds", "Since the last turn of a thread that should go round", ["thread"])
LOOP_HANGS = Gauge("stillpoint_loop_hangs", "1 while a thread that should go round has not done so for far too long", ["thread"])
STATE_FOLDER_WRITABLE = Gauge("stillpoint_worker_state_folder_writable", "1 while the worker's state folder takes what it must write there")
STATE_FOLDER_WRITABLE.set(1)
JOBS_RUNNING = Gauge("stillpoint_worker_jobs_running", "Jobs this worker runs now")
HUNG_CALLS = Gauge("stillpoint_hung_calls", "Calls to libvirt or to storage that were given up and have not returned")
HUNG_CALLS.set_function(HELPERS.left_behind)

MAX_CLASSES = 256
"""Class ids that are counted. Class ids come from the guest, and a guest that invents new ids must not fill the worker's memory."""
_class_ids: set[str] = set()


def observe_window(window: WindowRecord) -> None:
    at = window.instants
    froze = window.freeze.outcome is FreezeOutcome.frozen
    spans = (
        (FREEZE_SECONDS, at.freeze_sent, at.freeze_reply),
        (HOLD_SECONDS, at.freeze_reply if froze else None, at.thaw_sent),
        (WINDOW_SECONDS, at.freeze_sent, at.thaw_reply),
    )
    for histogram, start, end in spans:
        duration_ms = ms_between(start, end)
        if duration_ms is not None:
            histogram.observe(duration_ms / 1000)
    if window.watchdog_fired:
        WATCHDOG_THAWS.inc()
    if window.guard is not None and window.guard_ended_the_hold:
        GUARD_INTERVENTIONS.labels(reason=window.guard.reason).inc()


def watch(heartbeat: Heartbeat) -> None:
    """Read whenever the metrics are read, because a loop that hangs cannot report itself."""
    LOOP_SILENT.labels(thread=heartbeat.thread).set_function(heartbeat.silent_s)
    LOOP_HANGS.labels(thread=heartbeat.thread).set_function(lambda: float(heartbeat.problem() is not None))


def count_vss(failed_class_ids: Iterable[str], *, hold_was_lost: bool) -> None:
    """`failed_class_ids`: one for each writer that failed."""
    for class_id in failed_class_ids:
        if len(_class_ids) < MAX_CLASSES:
            _class_ids.add(class_id)
        WRITER_FAILURES.labels(class_id=class_id if class_id in _class_ids else "other").inc()
    if hold_was_lost:
        VSS_HOLDS_LOST.inc()


def count_job(kind: str, state: str, verdict: Verdict | str | None) -> None:
    JOBS_FINISHED.labels(kind=kind, state=state, verdict=str(verdict or "")).inc()
