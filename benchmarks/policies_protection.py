"""The protection of 5,000 domains: reading all that is known of them, and judging each, in the process that answers."""

import statistics
import time
from collections import Counter
from contextlib import ExitStack
from functools import partial

from benchmarks import interleaving, promised
from benchmarks.databases import KINDS, Databases
from benchmarks.interleaving import Course, Numbers, Plan, Turn
from service.db import schema
from service.db.engine import Database, open_engine
from service.model.protection import ProtectionState
from service.records import protection
from tests.lab.places import LabError

DOMAINS = 5_000
TIMES = 3


def measure(found: Databases, plan: Plan) -> tuple[Course, dict[str, float]]:
    with ExitStack() as stack:
        turns: dict[str, Turn] = {}
        for kind in KINDS:
            database = Database(open_engine(found.url(kind, "protection")))
            stack.callback(database.dispose)
            schema.migrate(database.engine)
            promised.fill(database, DOMAINS)
            _is_as_intended(database)
            turns[kind] = partial(_judge_all, database)
        # PostgreSQL reads an index alone only where it knows that each row is seen by all.
        found.server.psql("\\c protection\nVACUUM ANALYZE")
        course = interleaving.run(f"protection of {DOMAINS} domains", turns, plan)
    medians = {kind: course.median(kind, "ms") for kind in KINDS}
    return course, {"protection_5000_ms": max(medians.values())} | {f"protection_5000_ms: {kind}": ms for kind, ms in medians.items()}


def _is_as_intended(database: Database) -> None:
    with database.read() as session:
        states = Counter(one.state for one in protection.read(session).protections)
    if states[ProtectionState.broken] < DOMAINS // promised.FAILS or states[ProtectionState.protected] < DOMAINS // 2:
        raise LabError(f"the domains are not protected as they were meant to be: {dict(states)}")


def _judge_all(database: Database) -> Numbers:
    spans = []
    for _ in range(TIMES):
        began = time.perf_counter()
        with database.read() as session:
            landscape = protection.read(session)
        read_at = time.perf_counter()
        judged = landscape.protections
        assert len(judged) == DOMAINS
        spans.append((time.perf_counter() - began, read_at - began))
    whole, reading = (statistics.median(each) * 1000 for each in zip(*spans, strict=True))
    return {"ms": whole, "reading_ms": reading}
