"""The worker killed or stopped as a job goes from one phase into the next."""

import signal
from typing import Any

from tests.chaos.faults.strike import Strike, fault
from tests.chaos.stage import PATIENCE_S, until
from tests.service_process import FINAL

BOUNDARIES = ("start", "preflight", "prepare", "freeze", "point_in_time", "end")
"""`point_in_time` is told only after the thaw: the job writes nothing while the guest is frozen."""


@fault(weight=2)
def worker_killed_at_boundary(strike: Strike) -> None:
    _wait_for_boundary(strike)
    strike.stage.worker.kill()
    strike.pause(0.0, 0.6)
    strike.stage.restart_worker()


@fault(weight=2)
def worker_stopped_at_boundary(strike: Strike) -> None:
    _wait_for_boundary(strike)
    strike.stage.worker.signal(signal.SIGSTOP)
    strike.pause(0.2, 2.5)
    strike.stage.worker.signal(signal.SIGCONT)


def _wait_for_boundary(strike: Strike) -> None:
    boundary = strike.random.choice(BOUNDARIES)
    with strike.stage.api.polled(strike.job_id) as read:
        seen = until(lambda: _passed(read()) & {boundary, "end"}, PATIENCE_S, f"the job did not come to its {boundary}", pause=0.0)
    strike.stage.note(f"at boundary {boundary}, having seen {', '.join(sorted(seen))}")


def _passed(job: dict[str, Any]) -> set[str]:
    """The boundaries behind which the job is already. A short phase may be over before anybody saw it begin."""
    passed = {job["phase"], *(phase["name"] for phase in job["phases"])}
    if job["started_at"] is not None:
        passed.add("start")
    if job["state"] in FINAL:
        passed.add("end")
    return passed
