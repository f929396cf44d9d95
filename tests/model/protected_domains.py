"""A domain with a policy that takes a point every night, as the tests of protection begin with, and domains of every kind."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from hypothesis import strategies as st

from service.model.kinds import JobKind
from service.model.lifecycle import PointState
from service.model.protection_facts import (
    DomainFacts,
    HostFacts,
    JobFacts,
    Known,
    Lowered,
    PointFacts,
    PolicyFacts,
    Promise,
    PromisedProof,
    ProofFacts,
    RepositoryFacts,
    RunFacts,
    TieFacts,
    TrackFacts,
)
from service.model.repository import ProofKind, RepositoryState
from service.model.verdict import Verdict

NOW = datetime(2026, 3, 20, 9, 0, tzinfo=UTC)
"""A Friday."""
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
LAST_NIGHT = NOW - 7 * HOUR
TONIGHT = NOW + 17 * HOUR
NIGHTS = tuple(TONIGHT + n * DAY for n in range(14))
RPO = 26 * HOUR

DOMAIN = DomainFacts("d1", "db-1", HostFacts("host-a"))
NIGHTLY = TrackFacts("nightly", JobKind.backup, "r1", due=NIGHTS, starts=NIGHTS)
POLICY = PolicyFacts("production", Promise(RPO.total_seconds(), Verdict.filesystem), (NIGHTLY,))
REPOSITORY = RepositoryFacts("r1", "main", free_bytes=1 << 40)


def point(at: datetime, verdict: Verdict = Verdict.filesystem, **facts: Any) -> PointFacts:
    return PointFacts(f"point {at:%d %H:%M}", at, verdict, repository_id="r1", **facts)


def nights(count: int, verdict: Verdict = Verdict.filesystem, *, last: datetime = LAST_NIGHT) -> tuple[PointFacts, ...]:
    return tuple(point(last - n * DAY, verdict) for n in range(count))


def known(**facts: Any) -> Known:
    """A domain that has a point of each of the last ten nights."""
    healthy = Known(DOMAIN, POLICY, covered_since=NOW - 60 * DAY, points=nights(10), repositories={"r1": REPOSITORY}, next_fire_at=TONIGHT)
    return replace(healthy, **facts)


def failed(code: str, at: datetime = LAST_NIGHT, *, kind: str = JobKind.backup, remedy: str | None = None, **facts: Any) -> JobFacts:
    error = {"code": code, "title": code, "detail": code, "remedy": remedy, "facts": {"domain": "db-1"}}
    return JobFacts("j1", kind, "failed", at, error, **facts)


def promising(**promise: Any) -> PolicyFacts:
    return replace(POLICY, promise=replace(POLICY.promise, **promise))


# --- domains of every kind, possible or not -------------------------------------------------------

_past = st.integers(0, 40 * 24 * 60).map(lambda minutes: NOW - timedelta(minutes=minutes))
_soon = st.integers(-120, 40 * 24 * 60).map(lambda minutes: NOW + timedelta(minutes=minutes))
_proofs = st.dictionaries(
    st.sampled_from([ProofKind.bytes.value, ProofKind.boots.value]), st.builds(ProofFacts, _past, st.sampled_from([True, False, None]))
)
points = st.builds(
    PointFacts,
    id=st.uuids().map(str),
    at=_past,
    verdict=st.sampled_from([verdict for verdict in Verdict if verdict is not Verdict.none]),
    state=st.sampled_from([state.value for state in PointState]),
    proofs=_proofs,
    lowered_by=st.none() | st.just(Lowered("no_hook", "The guest has no hook.")),
    shut_off_cleanly=st.none() | st.booleans(),
)
_errors = st.sampled_from(["agent_not_answering", "verdict_below_required", "repository_full", "of_a_newer_version"])
_jobs = st.builds(
    JobFacts,
    id=st.just("j1"),
    kind=st.sampled_from([JobKind.backup.value, JobKind.snapshot.value, JobKind.verify.value]),
    state=st.sampled_from(["queued", "running", "interrupted", "succeeded", "failed", "cancelled"]),
    at=_past,
    error=_errors.map(lambda code: {"code": code, "remedy": "Do something.", "facts": {}}),
    in_a_row=st.integers(1, 9),
)
_runs = st.builds(
    RunFacts,
    st.just("nightly"),
    _past,
    st.sampled_from(["queued", "missed", "skipped"]),
    st.sampled_from([None, "paused", "blackout", "still_running", "policy_changed", "refused"]),
)
_instants = st.lists(_soon, max_size=6).map(lambda instants: tuple(sorted(instants)))
_tracks = st.builds(
    TrackFacts,
    st.just("t"),
    st.sampled_from([JobKind.backup.value, JobKind.verify.value]),
    st.none() | st.just("r1"),
    due=_instants,
    starts=_instants,
)
_promises = st.builds(
    Promise,
    rpo_s=st.none() | st.integers(60, 20 * 86_400),
    verdict=st.none() | st.sampled_from([Verdict.crash, Verdict.filesystem, Verdict.application]),
    proof=st.none() | st.builds(PromisedProof, st.just(ProofKind.bytes), st.integers(60, 20 * 86_400)),
)
policies = st.builds(
    PolicyFacts, st.just("p"), _promises, st.lists(_tracks, max_size=2).map(tuple), is_paused=st.sampled_from([False] * 5 + [True])
)
_rarely = st.sampled_from([False] * 6 + [True])
_domains = st.builds(
    DomainFacts,
    id=st.just("d1"),
    name=st.just("db-1"),
    host=st.builds(HostFacts, st.just("a"), st.sampled_from([None] * 6 + [NOW - DAY]), st.sampled_from([None] * 6 + ["away"])),
    is_paused=_rarely,
    is_persistent=_rarely.map(lambda is_so: not is_so),
    gone_since=st.sampled_from([None] * 6 + [NOW - DAY]),
)
_repositories = st.builds(
    RepositoryFacts,
    st.just("r1"),
    st.just("main"),
    state=st.sampled_from([RepositoryState.ready.value] * 6 + [state.value for state in RepositoryState]),
    full_at=st.sampled_from([None] * 6) | _soon,
)


_OWN = object()


def _newest_first(each: list[Any]) -> tuple[Any, ...]:
    return tuple(sorted(each, key=lambda one: one.due_at if isinstance(one, RunFacts) else one.at, reverse=True))


_parts: dict[str, st.SearchStrategy[Any]] = {
    "domain": _domains,
    "covered_since": _past,
    "points": st.lists(points, max_size=6).map(_newest_first),
    "runs": st.lists(_runs, max_size=3).map(_newest_first),
    "jobs": st.lists(_jobs, max_size=4).map(_newest_first),
    "repositories": st.just({}) | _repositories.map(lambda one: {"r1": one}),
    "next_fire_at": st.none() | _soon,
    "takes_s": st.sampled_from([0.0, 3600.0]),
}
#: A healthy domain of which one or two things are otherwise.
_nearly_healthy = st.lists(st.sampled_from(["policy", *_parts]), max_size=2, unique=True).flatmap(
    lambda names: st.builds(known, **{name: {**_parts, "policy": policies}[name] for name in names})
)
any_known_with_policy = st.builds(Known, policy=policies, **_parts) | _nearly_healthy
any_known = st.builds(
    lambda one, policy: one if policy is _OWN else replace(one, policy=policy),
    any_known_with_policy,
    st.sampled_from([_OWN] * 4 + [TieFacts(("one", "two")), None]),
)
