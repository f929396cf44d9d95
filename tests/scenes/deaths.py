"""Workers that die at a chosen moment: their thread stops for ever in a call, as it does when the process is killed."""

import threading
from pathlib import Path

from service.db.tables import Job
from service.jobs.run import JobRun
from tests.scenes.host import Scene

PATIENCE_S = 10.0


class Doomed(JobRun):
    """Its last write is never made."""

    at_the_end: threading.Event

    def finish(self, *_values: object, **_more: object) -> None:
        self.at_the_end.set()
        threading.Event().wait()


def doomed(scene: Scene) -> Doomed:
    """The next job of the queue, run by a worker that dies before its last write."""
    run = Doomed(scene.claim().claim, scene.database, scene.abandoned)
    run.at_the_end = threading.Event()
    return run


def die(scene: Scene, moment: threading.Event, run: JobRun | None = None) -> str:
    """Run the next job until the moment, and kill its worker there; answers the id of the job."""
    run = run or scene.claim()
    threading.Thread(target=scene.execution.execute, args=(run,), daemon=True).start()
    assert moment.wait(PATIENCE_S), f"the moment never came: {scene.job(run.claim.job_id).phases}"
    scene.die_in(run)
    return run.claim.job_id


def recovered(scene: Scene, job_id: str, state_dir: Path | None = None) -> Job:
    scene.recovery(thaw_patience_s=0.2, state_dir=state_dir).recover(job_id)
    return scene.job(job_id)


def story(job: Job) -> str:
    assert job.phases[-1]["name"] == "recover"
    detail = job.phases[-1]["detail"]
    assert isinstance(detail, str)
    return detail
