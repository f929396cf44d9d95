"""Many clients at once, with a worker that writes as well: all of them are served, on SQLite too."""

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.service_process import ServiceProcess

CLIENTS = 64
EACH = 4


def test_64_clients_that_create_jobs_are_never_told_that_the_database_is_away(tmp_path: Path) -> None:
    # The driver of libvirt for tests has one domain, which is called `test`.
    with ServiceProcess(tmp_path, libvirt_uri="test:///default", queued_per_domain="1000") as service:
        service.create("test", "preflight")

        def create(_client: int) -> list[int]:
            body = {"kind": "preflight", "domain": "test"}
            return [service.request("POST", "/api/v1/jobs", json=body).status_code for _ in range(EACH)]

        with ThreadPoolExecutor(CLIENTS) as clients:
            answers = Counter(status for statuses in clients.map(create, range(CLIENTS)) for status in statuses)
        assert answers == {202: CLIENTS * EACH}
        assert "database_away" not in service.log_text()
