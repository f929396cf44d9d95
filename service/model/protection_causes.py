"""Whether a cause applies to a domain, and with which facts. `service.model.protection_reasons` has the order of the causes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from service.model.explain import REMEDIES
from service.model.protection_errors import cause_of
from service.model.protection_facts import JobFacts, Lowered
from service.model.protection_view import View
from service.model.repository import RepositoryState

FULL_SOON = timedelta(days=7)
"""A repository that is full sooner than this, by the trend, endangers the domains that are backed up to it."""


@dataclass(frozen=True, slots=True)
class Finding:
    """That a cause applies, with the facts of its sentence. The other fields: what is better than what the row of the cause says."""

    facts: Mapping[str, Any] = field(default_factory=dict)
    code: str | None = None
    sentence: str | None = None
    remedy: str | None = None


# --- the host and the repository, as they are now -------------------------------------------------


def domain_gone(view: View) -> Finding | None:
    since = view.known.domain.gone_since
    return None if since is None else Finding({"since": since, "host": view.known.domain.host.id})


def host_silent(view: View) -> Finding | None:
    host = view.known.domain.host
    return None if host.silent_since is None else Finding({"host": host.id, "since": host.silent_since})


def libvirt_away(view: View) -> Finding | None:
    host = view.known.domain.host
    return None if host.libvirt_error is None else Finding({"host": host.id, "error": host.libvirt_error})


def repository_is(state: RepositoryState) -> Callable[[View], Finding | None]:
    def find(view: View) -> Finding | None:
        for repository_id in view.policy.repositories:
            repository = view.known.repositories.get(repository_id)
            if repository is not None and repository.state == state:
                facts = {"repository": repository.name, "repository_id": repository.id, "free_bytes": repository.free_bytes}
                return Finding(facts, remedy=(repository.error or {}).get("remedy"))
        return None

    return find


def repository_fills(view: View) -> Finding | None:
    for repository_id in view.policy.repositories:
        repository = view.known.repositories.get(repository_id)
        if repository is not None and repository.full_at is not None and repository.full_at <= view.now + FULL_SOON:
            facts = {"repository": repository.name, "repository_id": repository.id, "free_bytes": repository.free_bytes}
            return Finding({**facts, "full_at": repository.full_at})
    return None


# --- what jobs and runs ended with ----------------------------------------------------------------


def point_job_failed(view: View) -> Finding | None:
    job = view.newest_job(makes_point=True)
    return None if job is None or not job.has_failed or view.is_mended_since(job.at) else _failure(job)


def verify_failed(view: View) -> Finding | None:
    job = view.newest_job(makes_point=False) if view.promise.proof is not None else None
    if job is None or not job.has_failed or (view.seen.proven_at is not None and view.seen.proven_at >= job.at):
        return None
    return _failure(job)


def _failure(job: JobFacts) -> Finding:
    error = job.error or {}
    cause = cause_of(error.get("code", "internal_error"))
    facts = {"error_code": error.get("code"), "error_facts": error.get("facts"), "job_id": job.id, "jobs": job.in_a_row}
    finding = Finding({**facts, "since": job.since or job.at}, cause.cause, cause.sentence, error.get("remedy"))
    return finding if job.lowered_by is None else _with_verdict(finding, job.lowered_by)


def _with_verdict(finding: Finding, lowered: Lowered) -> Finding:
    facts = {**finding.facts, "verdict_reason": lowered.code, "verdict_detail": lowered.detail}
    sentence = (finding.sentence or "") + " {verdict_detail}"
    return Finding(facts, finding.code, sentence, REMEDIES.get(lowered.code, finding.remedy))


def run_refused(view: View) -> Finding | None:
    run = view.newest_run
    if run is None or run.reason != "refused" or view.is_mended_since(run.due_at):
        return None
    error = run.error or {}
    facts = {"error_code": error.get("code"), "error_facts": error.get("facts"), "track": run.track, "due_at": run.due_at}
    sentence = "The run that was due {due_at:ago} was refused ({error_code})."
    return Finding(facts, cause_of(error.get("code", "internal_error")).cause, sentence, error.get("remedy"))


def run_is(outcome: str, reason: str | None) -> Callable[[View], Finding | None]:
    """The newest run ended so, and no point came since. `reason` None: whatever the reason is."""

    def find(view: View) -> Finding | None:
        run = view.newest_run
        if run is None or run.outcome != outcome or reason not in (None, run.reason) or view.is_mended_since(run.due_at):
            return None
        return Finding({"track": run.track, "due_at": run.due_at, "run_reason": run.reason})

    return find


def run_overdue(view: View) -> Finding | None:
    return Finding({"due_at": view.known.next_fire_at}) if view.is_overdue() else None


def job_runs(view: View) -> Finding | None:
    job = view.running_job()
    return None if job is None else Finding({"job_id": job.id, "job_state": job.state, "since": job.at})


# --- points ---------------------------------------------------------------------------------------


def point_lost(view: View) -> Finding | None:
    point = view.seen.lost
    return None if point is None else Finding({"point_id": point.id, "point_in_time_at": point.at, "point_state": point.state})


def point_in_future(view: View) -> Finding | None:
    point = view.seen.future
    return None if point is None else Finding({"point_id": point.id, "point_in_time_at": point.at})


def verdict_too_low(view: View) -> Finding | None:
    good, sufficient, promised = view.seen.good, view.seen.sufficient, view.promise.verdict
    if good is None or good is sufficient or promised is None:
        return None
    finding = Finding({"verdict": good.verdict.value, "promised": promised.value, "point_id": good.id, "point_in_time_at": good.at})
    sentence = "The newest point is only {verdict}, and {promised} is promised."
    return finding if good.lowered_by is None else _with_verdict(Finding(finding.facts, sentence=sentence), good.lowered_by)


def proof_too_old(view: View) -> Finding | None:
    proof, at = view.promise.proof, view.seen.proven_at
    return None if proof is None or at is None else Finding({"proof": proof.kind.value, "max_age_s": proof.max_age_s, "proven_at": at})


def proof_missing(view: View) -> Finding | None:
    proof = view.promise.proof
    return None if proof is None else Finding({"proof": proof.kind.value, "max_age_s": proof.max_age_s, "since": view.known.covered_since})


# --- a promise that the rules cannot keep ---------------------------------------------------------


def _gap(view: View, gap_s: float | None) -> Finding | None:
    rpo_s = view.promise.rpo_s
    if rpo_s is None or gap_s is None or gap_s + view.known.takes_s <= rpo_s:
        return None
    return Finding({"policy": view.policy.name, "gap_s": gap_s, "takes_s": view.known.takes_s, "rpo_s": rpo_s})


def schedule_too_slow(view: View) -> Finding | None:
    return _gap(view, view.policy.longest_gap_s)


def blackout_too_long(view: View) -> Finding | None:
    return None if schedule_too_slow(view) else _gap(view, view.policy.longest_gap_with_blackouts_s)


def no_run_to_come(view: View) -> Finding | None:
    return Finding({"policy": view.policy.name}) if view.next_point_start() is None else None


def is_paused(view: View) -> Finding | None:
    return Finding({"domain": view.known.domain.name}) if view.known.domain.is_paused else None


def is_transient(view: View) -> Finding | None:
    return None if view.known.domain.is_persistent else Finding({"domain": view.known.domain.name})


def next_run_too_late(view: View) -> Finding | None:
    if not view.is_late_for_points():
        return None
    return Finding({"next_run_at": view.next_point_start(), "takes_s": view.known.takes_s, "breaks_at": view.points_until})


def next_verify_too_late(view: View) -> Finding | None:
    if not view.is_late_for_proof():
        return None
    return Finding({"next_run_at": view.next_verify_start(), "breaks_at": view.proof_until})


def always(view: View) -> Finding:
    newest = view.seen.sufficient
    return Finding({"since": newest.at if newest is not None else view.known.covered_since})
