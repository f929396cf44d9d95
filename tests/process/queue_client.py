"""A process that claims jobs, for tests that kill it. Run: python -m tests.process.queue_client {hold|drain} URL ...

It writes one JSON object per line to stdout for everything it does, with monotonic times, which all processes share.
"""

import json
import sys
import threading
import time

from service.db.engine import Database, open_engine
from service.errors import DatabaseUnavailable, LeaseLost
from service.model.lifecycle import JobState
from service.records import queue
from service.records.queue import Claim

IDLE_S = 0.003
_output = threading.Lock()


def main() -> None:
    command, url, *rest = sys.argv[1:]
    database = Database(open_engine(url))
    if command == "hold":
        hold(database, float(rest[0]))
    else:
        drain(database, int(rest[0]), float(rest[1]), float(rest[2]))
    database.dispose()


def hold(database: Database, lease_s: float) -> None:
    """Claim one job of hv1, keep it until a line comes in, then try to finish it."""
    claim = _claim(database, "hv1", lease_s)
    say(event="claimed", job=claim.job_id if claim else None, attempt=claim.attempt if claim else None)
    sys.stdin.readline()
    assert claim is not None
    say(event="finished" if _finish(database, claim) else "lease_lost", job=claim.job_id)


def drain(database: Database, threads: int, lease_s: float, work_s: float) -> None:
    """Run jobs of hv1 and hv2 in several threads until a line comes in."""
    stop = threading.Event()
    running = [threading.Thread(target=_run_jobs, args=(database, f"hv{1 + n % 2}", lease_s, work_s, stop)) for n in range(threads)]
    for thread in running:
        thread.start()
    say(event="started")
    sys.stdin.readline()
    stop.set()
    for thread in running:
        thread.join()


def _run_jobs(database: Database, host: str, lease_s: float, work_s: float, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            claim = _claim(database, host, lease_s)
            if claim is None:
                stop.wait(IDLE_S)
                continue
            began = time.monotonic()
            time.sleep(work_s)
            ended = time.monotonic()
            if _finish(database, claim):
                say(event="ran", job=claim.job_id, domain=claim.domain_id, host=host, began=began, ended=ended)
        except DatabaseUnavailable as error:
            say(event="database_away", detail=error.detail)


def _claim(database: Database, host: str, lease_s: float) -> Claim | None:
    with database.write() as session:
        return queue.claim(session, host, "client", lease_s)


def _finish(database: Database, claim: Claim) -> bool:
    try:
        with database.write() as session:
            queue.finish(session, claim.job_id, claim.lease_token, JobState.succeeded, {"phase": None})
    except LeaseLost:
        return False
    return True


def say(**what: object) -> None:
    with _output:
        print(json.dumps(what), flush=True)


if __name__ == "__main__":
    main()
