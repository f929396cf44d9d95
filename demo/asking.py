"""What every story asks of the API: the domain once it is published, and a job until its end."""

import time
from typing import Any

from demo.curl import Curl, Refused
from tests.service_process import FINAL

PUBLISHED_WITHIN_S = 20.0
ENDED_WITHIN_S = 120.0


def published(curl: Curl, name: str) -> dict[str, Any]:
    """The worker publishes its domains a moment after the service is ready, and again when an agent comes."""
    deadline = time.monotonic() + PUBLISHED_WITHIN_S
    line, printed = f"$API/domains/{name}", True
    while True:
        try:
            domain = curl.ask(line, printed=printed)
        except Refused as refused:
            if refused.code != "domain_unknown" or time.monotonic() > deadline:
                raise
        else:
            if (domain["agent"] or {}).get("version") or time.monotonic() > deadline:
                return domain
        printed = False
        time.sleep(0.05)


def followed(curl: Curl, job_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + ENDED_WITHIN_S
    line, printed = f"$API/jobs/{job_id}", True
    while (job := curl.ask(line, printed=printed))["state"] not in FINAL:
        if time.monotonic() > deadline:
            raise Refused(f"the job did not end within {ENDED_WITHIN_S:.0f} s: it is {job['state']} in phase {job['phase']}")
        printed = False
        time.sleep(0.03)
    return job
