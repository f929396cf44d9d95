"""The scene with simulated Windows guests in it. Their time is moved by what they wait for, so no slow host breaks a hold."""

from typing import Any

from service.db.tables import Job, RawText
from service.freeze.frozen_pass import PassSettings
from service.jobs.snapshot import Snapshot
from tests.lab.windows import scenario
from tests.lab.windows.clock import Clock, ManualClock
from tests.lab.windows.domain import WindowsDomain
from tests.lab.windows.scenario import Scenario
from tests.scenes.host import Scene


class WindowsScene(Scene):
    """`play` puts a guest with this scenario in; `take` runs a snapshot job of the guest that was put in last."""

    windows: WindowsDomain

    def play(self, played: Scenario | str, disks: tuple[str, ...] = ("vda", "vdb"), *, clock: Clock | None = None) -> WindowsDomain:
        """The domain `win`, anew and on new disks. Where the scenario restarts the agent, it does so while the snapshot is taken."""
        loaded = scenario.load(played) if isinstance(played, str) else played
        guest_time = clock or ManualClock()
        for old in [domain for domain in self.host.domains if domain.name() == "win"]:
            self.host.domains.remove(old)
        self.windows = WindowsDomain("win", [self.disk(target, "win") for target in disks], loaded, clock=guest_time)
        self.host.domains.append(self.windows)
        if loaded.restart is not None:
            after_s = loaded.restart.after_freeze_s
            self.windows.when_next("snapshot_create", lambda: guest_time.sleep(after_s))
        return self.windows

    def take(self, **request: Any) -> Job:
        return self.run(domain=self.windows, **request)

    def take_impatiently(self, **request: Any) -> Job:
        """As `take`, by a worker that waits neither for writers that do not settle nor for a thaw that is not answered."""
        job_id = self.ask(domain=self.windows, **request)
        impatient = PassSettings(thaw_patience_s=0.1, writers_settle_s=0.0)
        self.run_by(Snapshot(impatient))
        return self.job(job_id)

    def preflight(self, **request: Any) -> dict[str, Any]:
        result = self.run("preflight", self.windows, **request).result
        assert result is not None
        return result

    def texts_of(self, job: Job) -> dict[str, Any]:
        """What the guest's programs printed, as it is kept."""
        with self.database.read() as session:
            return session.get_one(RawText, (job.id, "windows")).document


def vss_of(job: Job) -> dict[str, Any]:
    assert job.vss is not None
    return job.vss


def reasons_of(job: Job) -> list[str]:
    return [reason["code"] for reason in job.verdict_reasons]
