"""Many hosts: an API that knows no libvirt and a worker that serves no HTTP meet in PostgreSQL."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.db.engine import Database, open_engine
from service.db.tables import Job
from service.freeze import after_death
from tests.lab.daemon import uri
from tests.lab.guests import LabGuest
from tests.libvirt_relay import LibvirtRelay
from tests.live.test_libvirt_goes_away import wait_until_frozen, wait_until_thawed
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


def test_a_host_that_dies_with_a_frozen_guest_is_forgotten_and_the_guest_is_snapshotted_by_another(
    postgres_url: str, relay: LibvirtRelay, lab_guest: LabGuest, tmp_path: Path
) -> None:
    """Both hosts have the domain, as after a restart by a cluster. The first comes back in the end, and finds its guest frozen."""
    quick = {"database_url": postgres_url, "lease_seconds": "2", "inventory_seconds": "1", "poll_seconds": "0.1"}
    api = ServiceProcess(tmp_path / "api", libvirt_uri="unreachable:///", command="serve", database_url=postgres_url)
    dies = ServiceProcess(tmp_path / "one", libvirt_uri=relay.uri, host_id="hv1", command="worker", **quick)
    other = ServiceProcess(tmp_path / "two", libvirt_uri=uri(), host_id="hv2", command="worker", **quick)
    with api, dies, other:
        api.run(lab_guest.name, kind="preflight", host="hv1")
        relay.snapshots_pass.clear()
        lost = api.create(lab_guest.name, host="hv1", freeze={"preflush": False})
        wait_until_frozen(lab_guest)
        dies.kill()
        wait_until_thawed(lab_guest)
        relay.snapshots_pass.set()
        waits = api.create(lab_guest.name, host="hv2")
        forget = forgotten_as_soon_as_it_may_be(api, "hv1")

        assert forget["jobs_failed"] == [lost]
        job = api.job(lost)
        assert (job["state"], job["verdict"], job["error"]["code"]) == ("failed", "none", "host_forgotten")
        assert job["error"]["facts"]["may_be_frozen"] is True
        assert (api.wait(waits)["state"], api.job(waits)["verdict"]) == ("succeeded", "filesystem")
        assert api.run(lab_guest.name)["host"] == "hv2"

        lab_guest.agent({"execute": "guest-fsfreeze-freeze"})
        dies.start()
        wait_until_thawed(lab_guest)
        came_back = until(lambda: len(api.job(lost)["phases"]) > len(job["phases"]), "the look at the job")
        assert came_back
        told = api.job(lost)
        assert (told["state"], told["error"]["code"]) == ("failed", "host_forgotten")
        assert after_death.THAWED.format(count=1) in told["phases"][-1]["detail"]
        # Jobs are refused until the thaw is published.
        published = f"/api/v1/domains/{lab_guest.name}?host=hv1"
        until(lambda: api.request("GET", published).json().get("frozen") is False, "the publication of the thaw")
        assert api.run(lab_guest.name, host="hv1")["verdict"] == "filesystem"


def forgotten_as_soon_as_it_may_be(api: ServiceProcess, host: str) -> dict[str, Any]:
    first = api.request("DELETE", f"/api/v1/hosts/{host}")
    assert (first.status_code, first.json()["code"]) == (409, "host_not_silent")
    answers = [first]

    def is_forgotten() -> bool:
        answers.append(api.request("DELETE", f"/api/v1/hosts/{host}"))
        return answers[-1].status_code == 200

    until(is_forgotten, "the silence of the dead host")
    document: dict[str, Any] = answers[-1].json()
    return document


def until(condition: Callable[[], bool], what: str) -> bool:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"not within a minute: {what}"
        time.sleep(0.1)
    return True


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
