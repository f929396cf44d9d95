"""Many hosts: an API that knows no libvirt and a worker that serves no HTTP meet in PostgreSQL."""

from pathlib import Path

import pytest

from service.db.engine import Database, open_engine
from service.db.tables import Job
from tests.lab.daemon import uri
from tests.lab.guests import LabGuest
from tests.service_process import ServiceProcess

pytestmark = pytest.mark.live


def test_an_api_and_a_worker_share_nothing_but_the_database(database_url: str, lab_guest: LabGuest, tmp_path: Path) -> None:
    api = ServiceProcess(tmp_path / "api", libvirt_uri="unreachable:///", command="serve", database_url=database_url)
    worker = ServiceProcess(tmp_path / "worker", libvirt_uri=uri(), host_id="hv7", command="worker", database_url=database_url)

    with api, worker:
        job = api.run(lab_guest.name)

    assert (job["state"], job["verdict"], job["host"]) == ("succeeded", "filesystem", "hv7")
    assert worker.stop() == 0
    assert api.stop() == 0


def test_stopping_the_service_waits_for_the_job_that_runs(lab_guest: LabGuest, tmp_path: Path) -> None:
    state = tmp_path / "state"
    with ServiceProcess(state, libvirt_uri=uri()) as service:
        service.run(lab_guest.name, kind="preflight")
        job_id = service.create(lab_guest.name)
        assert service.stop() == 0

    database = Database(open_engine(f"sqlite:///{state / 'stillpoint.db'}"))
    try:
        assert database_state(database, job_id) in ("succeeded", "queued")
    finally:
        database.dispose()
    assert lab_guest.freeze_status() == "thawed"


def database_state(database: Database, job_id: str) -> str:
    with database.read() as session:
        job = session.get(Job, job_id)
        assert job is not None
        return job.state
