"""The states of protection, and the one reason that is told of each: the root cause, with its facts and its remedy."""

import inspect
from dataclasses import replace
from datetime import timedelta

import pytest

import service.errors.base
import service.errors.commands
import service.errors.requests
from service.errors import StillpointError
from service.model.explain import REMEDIES
from service.model.lifecycle import PointState
from service.model.protection import Protection, ProtectionState, protection
from service.model.protection_errors import ERROR_CAUSES, OTHER, cause_of
from service.model.protection_facts import (
    HostFacts,
    JobFacts,
    Known,
    Lowered,
    PolicyFacts,
    PromisedProof,
    ProofFacts,
    RepositoryFacts,
    RunFacts,
    TieFacts,
)
from service.model.protection_reasons import CAUSES
from service.model.protection_view import Part
from service.model.protection_words import in_words
from service.model.repository import ProofKind, RepositoryState
from service.model.verdict import Verdict
from tests.model.protected_domains import (
    DAY,
    DOMAIN,
    HOUR,
    LAST_NIGHT,
    NIGHTLY,
    NIGHTS,
    NOW,
    POLICY,
    RPO,
    TONIGHT,
    failed,
    known,
    nights,
    point,
    promising,
)

S = ProtectionState
LONG_AGO = NOW - 5 * DAY
BYTES = ProofKind.bytes.value
MONTHLY = PromisedProof(ProofKind.bytes, 30 * 86_400)


def of(**facts: object) -> Protection:
    return protection(known(**facts), NOW)


def told(found: Protection) -> tuple[ProtectionState, str | None]:
    return found.state, found.reason.code if found.reason is not None else None


# --- states ---------------------------------------------------------------------------------------


def test_a_domain_with_a_point_of_each_night_is_protected() -> None:
    found = of()
    assert told(found) == (S.protected, None)
    assert found.policy == POLICY.name
    assert found.newest_kept == found.newest_good == known().points[0]
    assert found.broken_at == LAST_NIGHT + RPO


def test_the_next_run_is_told_unless_the_policy_is_paused() -> None:
    at = NOW + HOUR
    assert of(next_fire_at=at).next_run_at == at
    assert of(next_fire_at=None).next_run_at is None
    assert of(next_fire_at=at, policy=replace(POLICY, is_paused=True)).next_run_at is None


def test_a_domain_that_no_policy_selects_is_unprotected_and_shows_its_points() -> None:
    found = of(policy=None)
    assert told(found) == (S.unprotected, "not_asked_for")
    assert found.newest_good == known().points[0]
    assert found.newest_kept is None


def test_two_policies_that_select_a_domain_equally_are_both_named() -> None:
    found = of(policy=TieFacts(("one", "two")))
    assert told(found) == (S.tie, "policy_tie")
    assert found.reason is not None
    assert "one and two" in found.reason.sentence
    assert found.reason.facts["policies"] == "one and two"


def test_a_paused_policy_is_said_although_the_promise_is_broken_as_well() -> None:
    assert told(of(policy=replace(POLICY, is_paused=True), points=())) == (S.paused, "policy_paused")


def test_a_new_domain_waits_for_its_first_point() -> None:
    found = of(points=(), covered_since=NOW - HOUR)
    assert told(found) == (S.waiting, "first_point_to_come")
    assert found.broken_at == NOW - HOUR + RPO
    assert found.reason is not None
    assert found.reason.facts["next_run_at"] == "2026-03-21T02:00:00.000000Z"


def test_a_promise_does_not_look_back_beyond_the_policy() -> None:
    """A domain whose points are old gets a policy: the first run may make the point that was promised."""
    assert told(of(points=nights(3, last=LONG_AGO), covered_since=NOW - HOUR)) == (S.waiting, "first_point_to_come")


def test_a_new_domain_is_broken_when_the_first_point_did_not_come_in_time() -> None:
    found = of(points=(), covered_since=NOW - 27 * HOUR)
    assert told(found) == (S.broken, "no_new_point")
    assert (found.broken_part, found.broken_at) == (Part.rpo, NOW - HOUR)


def test_a_promise_of_a_verdict_alone_is_broken_once_the_first_run_is_over() -> None:
    policy = promising(rpo_s=None)
    run = RunFacts("nightly", LAST_NIGHT, "queued", job_id="j1")
    assert of(policy=policy, points=()).state is S.waiting
    assert told(of(policy=policy, points=nights(2, Verdict.crash), runs=(run,))) == (S.broken, "verdict_too_low")
    assert of(policy=policy, points=nights(2), runs=(run,)).state is S.protected


def test_the_promise_breaks_in_the_second_in_which_the_newest_point_is_too_old() -> None:
    at = LAST_NIGHT + RPO
    before, after = protection(known(), at - timedelta(seconds=1)), protection(known(), at)
    assert before.state is not S.broken
    assert (after.state, after.broken_at, after.broken_part) == (S.broken, at, Part.rpo)


# --- jobs -----------------------------------------------------------------------------------------


def test_an_agent_that_is_silent_since_tuesday_is_the_reason_and_not_the_failed_jobs() -> None:
    tuesday = NOW - 3 * DAY
    job = failed("agent_not_answering", in_a_row=4, since=tuesday, remedy="Start the agent.")
    found = of(points=nights(5, last=LONG_AGO), jobs=(job,))
    assert told(found) == (S.broken, "agent_not_answering")
    assert found.reason is not None
    assert "Tuesday" in found.reason.sentence
    assert "4 jobs" in found.reason.sentence
    assert found.reason.remedy == "Start the agent."
    assert found.reason.facts == {
        "error_code": "agent_not_answering",
        "error_facts": {"domain": "db-1"},
        "job_id": "j1",
        "jobs": 4,
        "since": "2026-03-17T09:00:00.000000Z",
    }


def test_a_last_run_that_failed_is_a_risk_while_the_promise_holds() -> None:
    assert told(of(points=nights(9, last=LAST_NIGHT - HOUR), jobs=(failed("copy_differs"),))) == (S.at_risk, "copy_differs")


def test_a_failure_is_over_when_a_good_point_came_after_it() -> None:
    assert of(jobs=(failed("copy_differs", LAST_NIGHT - HOUR),)).state is S.protected


def test_a_point_that_was_worse_than_required_tells_what_lowered_it() -> None:
    lowered = Lowered("no_hook", "The guest has no hook.")
    job = failed("verdict_below_required", remedy="See explain.", lowered_by=lowered)
    found = of(points=nights(5, last=LONG_AGO), jobs=(job,))
    assert told(found) == (S.broken, "verdict_too_low")
    assert found.reason is not None
    assert lowered.detail in found.reason.sentence
    assert found.reason.remedy == REMEDIES["no_hook"]


def test_a_running_job_mends_what_would_break_before_the_next_run() -> None:
    late = known(points=nights(9, last=NOW - 25 * HOUR), next_fire_at=TONIGHT)
    assert told(protection(late, NOW)) == (S.at_risk, "next_run_too_late")
    assert protection(replace(late, jobs=(JobFacts("j2", "backup", "running", NOW - HOUR),)), NOW).state is S.protected


def test_a_job_that_runs_too_long_is_the_reason_when_the_promise_is_broken() -> None:
    job = JobFacts("j2", "backup", "running", LAST_NIGHT)
    assert told(of(points=nights(5, last=LONG_AGO), jobs=(job,))) == (S.broken, "next_point_is_made")


# --- the host and the repository ------------------------------------------------------------------


@pytest.mark.parametrize("code", ["full", "gone", "not_answering", "bad", "read_only"])
@pytest.mark.parametrize(("points", "state"), [(nights(9), S.at_risk), (nights(9, last=LONG_AGO), S.broken)])
def test_a_repository_in_trouble_is_the_reason(code: str, points: tuple[object, ...], state: ProtectionState) -> None:
    repository = RepositoryFacts("r1", "main", code, {"remedy": "Look there."})
    found = of(points=points, repositories={"r1": repository})
    assert told(found) == (state, f"repository_{code}")
    assert found.reason is not None
    assert found.reason.remedy == "Look there."
    assert found.reason.facts["repository"] == "main"


def test_a_repository_that_no_track_uses_is_not_a_reason() -> None:
    assert of(repositories={"r2": RepositoryFacts("r2", "other", RepositoryState.gone.value)}).state is S.protected


def test_a_repository_that_fills_up_is_a_risk_a_week_before() -> None:
    def fills(days: float) -> Protection:
        return of(repositories={"r1": RepositoryFacts("r1", "main", full_at=NOW + days * DAY)})

    assert told(fills(6)) == (S.at_risk, "repository_fills")
    assert fills(8).state is S.protected


def test_a_silent_host_is_the_reason_before_what_its_last_jobs_ended_with() -> None:
    domain = replace(DOMAIN, host=HostFacts("host-a", silent_since=NOW - 2 * DAY))
    jobs = (failed("worker_lost", NOW - 2 * DAY),)
    assert told(of(domain=domain)) == (S.at_risk, "host_silent")
    assert told(of(domain=domain, points=nights(3, last=LONG_AGO), jobs=jobs)) == (S.broken, "host_silent")


def test_a_host_without_libvirt_and_a_domain_that_is_gone_are_reasons() -> None:
    assert told(of(domain=replace(DOMAIN, host=HostFacts("host-a", libvirt_error="refused")))) == (S.at_risk, "libvirt_away")
    assert told(of(domain=replace(DOMAIN, gone_since=NOW - DAY))) == (S.at_risk, "domain_gone")


@pytest.mark.parametrize(("facts", "code"), [({"is_paused": True}, "domain_paused"), ({"is_persistent": False}, "domain_not_defined")])
def test_a_domain_that_cannot_be_backed_up_well_is_the_reason_only_once_the_promise_is_broken(facts: dict[str, bool], code: str) -> None:
    domain = replace(DOMAIN, **facts)  # type: ignore[arg-type]  # bools by name
    assert of(domain=domain).state is S.protected
    assert told(of(domain=domain, points=nights(3, last=LONG_AGO))) == (S.broken, code)


# --- runs and rules -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "reason", "code"),
    [
        ("missed", None, "run_missed"),
        ("skipped", "still_running", "run_still_busy"),
        ("skipped", "blackout", "run_in_blackout"),
        ("skipped", "policy_changed", "run_skipped"),
    ],
)
def test_a_run_that_was_not_made_is_the_reason_of_a_broken_promise(outcome: str, reason: str | None, code: str) -> None:
    run = RunFacts("nightly", LAST_NIGHT, outcome, reason)
    assert told(of(points=nights(3, last=LONG_AGO), runs=(run,))) == (S.broken, code)
    assert of(points=(point(LAST_NIGHT + HOUR), *nights(3, last=LONG_AGO)), runs=(run,)).state is S.protected


def test_a_missed_run_is_a_risk_at_once() -> None:
    run = RunFacts("nightly", LAST_NIGHT + HOUR, "missed")
    assert told(of(runs=(run,))) == (S.at_risk, "run_missed")


def test_a_refused_run_has_the_cause_and_the_remedy_of_its_error() -> None:
    error = {"code": "repository_not_found", "remedy": "Register it.", "facts": {}}
    run = RunFacts("nightly", LAST_NIGHT, "skipped", "refused", error=error)
    found = of(points=nights(3, last=LONG_AGO), runs=(run,))
    assert told(found) == (S.broken, "repository_forgotten")
    assert found.reason is not None
    assert found.reason.remedy == "Register it."


def test_a_run_that_nobody_started_is_a_risk() -> None:
    assert of(next_fire_at=NOW - timedelta(minutes=14)).state is S.protected
    assert told(of(next_fire_at=NOW - timedelta(minutes=16))) == (S.at_risk, "run_overdue")


def test_a_schedule_that_is_slower_than_the_promise_is_told_before_the_promise_breaks() -> None:
    weekly = replace(NIGHTLY, due=NIGHTS[::7], starts=NIGHTS[::7])
    found = of(policy=replace(POLICY, tracks=(weekly,)))
    assert told(found) == (S.at_risk, "schedule_too_slow")
    assert found.reason is not None
    assert (found.reason.facts["gap_s"], found.reason.facts["rpo_s"]) == (7 * 86_400, RPO.total_seconds())


def test_the_time_that_a_run_takes_counts_against_the_promise() -> None:
    """A point a night and an rpo of a day: each night the promise would be broken until the new point is sealed."""
    policy = promising(rpo_s=DAY.total_seconds())
    assert of(policy=policy).state is S.protected
    assert told(of(policy=policy, takes_s=1800.0)) == (S.at_risk, "schedule_too_slow")


def test_two_tracks_together_keep_what_neither_keeps_alone() -> None:
    odd, even = replace(NIGHTLY, due=NIGHTS[::2], starts=NIGHTS[::2]), replace(NIGHTLY, due=NIGHTS[1::2], starts=NIGHTS[1::2])
    assert told(of(policy=replace(POLICY, tracks=(odd,)))) == (S.at_risk, "schedule_too_slow")
    assert of(policy=replace(POLICY, tracks=(odd, even))).state is S.protected


def test_blackouts_that_leave_too_long_a_gap_are_told_as_such() -> None:
    track = replace(NIGHTLY, starts=(*NIGHTS[:3], *NIGHTS[5:]))
    assert told(of(policy=replace(POLICY, tracks=(track,)))) == (S.at_risk, "blackout_too_long")


def test_a_policy_without_a_run_that_makes_a_point_is_told() -> None:
    assert told(of(policy=replace(POLICY, tracks=()), next_fire_at=None)) == (S.at_risk, "no_run_to_come")


# --- points, verdicts and proofs ------------------------------------------------------------------


def test_points_that_are_worse_than_promised_break_the_verdict_and_not_the_rpo() -> None:
    lowered = Lowered("freeze_refused", "The agent refused.")
    found = of(points=(point(LAST_NIGHT, Verdict.crash, lowered_by=lowered), *nights(3, last=LONG_AGO)))
    assert told(found) == (S.broken, "verdict_too_low")
    assert found.broken_part is Part.verdict
    assert found.broken_at == LONG_AGO + RPO
    assert found.newest_good is not None
    assert found.newest_good.at == LAST_NIGHT
    assert found.newest_kept is not None
    assert found.newest_kept.at == LONG_AGO
    assert found.reason is not None
    assert found.reason.facts["verdict_reason"] == "freeze_refused"
    assert found.reason.remedy == REMEDIES["freeze_refused"]


def test_a_domain_that_was_shut_down_cleanly_keeps_every_verdict() -> None:
    assert of(points=(point(LAST_NIGHT, Verdict.offline, shut_off_cleanly=True),)).state is S.protected
    assert of(points=(point(LAST_NIGHT, Verdict.offline, shut_off_cleanly=False),)).broken_part is Part.verdict


@pytest.mark.parametrize("state", [PointState.damaged, PointState.missing])
def test_a_newest_point_that_is_lost_is_a_risk_and_does_not_count(state: PointState) -> None:
    lost = point(LAST_NIGHT, state=state.value)
    found = of(points=(lost, *nights(3, last=LAST_NIGHT - HOUR)))
    assert told(found) == (S.at_risk, "point_lost")
    assert found.newest_good is not None
    assert found.newest_good.at == LAST_NIGHT - HOUR
    assert told(of(points=(lost, *nights(3, last=LONG_AGO)))) == (S.broken, "point_lost")
    assert of(points=(point(NOW), lost)).state is S.protected


def test_a_point_of_the_future_does_not_count() -> None:
    found = of(points=(point(NOW + DAY), *nights(3, last=LONG_AGO)))
    assert told(found) == (S.broken, "point_in_future")
    assert of(points=(point(NOW + timedelta(minutes=1)),)).state is S.protected


def test_any_point_of_the_domain_may_bring_the_promised_proof() -> None:
    proven = point(LAST_NIGHT - 3 * DAY, proofs={BYTES: ProofFacts(NOW - 2 * DAY, True)})
    found = of(policy=promising(proof=MONTHLY), points=(*nights(3), proven))
    assert told(found) == (S.protected, None)
    assert found.newest_kept == proven
    assert found.newest_good == nights(3)[0]


@pytest.mark.parametrize("ok", [False, None])
def test_a_proof_that_failed_or_could_not_tell_is_not_a_proof(ok: bool | None) -> None:
    points = (point(LAST_NIGHT, proofs={BYTES: ProofFacts(NOW - HOUR, ok)}),)
    assert told(of(policy=promising(proof=MONTHLY), points=points)) == (S.broken, "proof_missing")


def test_a_proof_that_is_too_old_breaks_the_proof_and_says_its_date() -> None:
    old = point(NOW - 40 * DAY, proofs={BYTES: ProofFacts(NOW - 31 * DAY, True)})
    points = (point(LAST_NIGHT, proofs={"boots": ProofFacts(NOW, True)}), old)
    found = of(policy=promising(proof=MONTHLY), points=points)
    assert told(found) == (S.broken, "proof_too_old")
    assert (found.broken_part, found.broken_at, found.newest_kept) == (Part.proof, NOW - DAY, None)


def test_a_verify_that_fails_is_the_reason_of_a_proof_that_does_not_come() -> None:
    policy = promising(proof=PromisedProof(ProofKind.bytes, 86_400))
    jobs = (failed("key_unusable", NOW - HOUR, kind="verify"),)
    found = of(policy=policy, jobs=jobs)
    assert told(found) == (S.broken, "key_unusable")
    assert found.broken_part is Part.proof
    proven = (point(LAST_NIGHT, proofs={BYTES: ProofFacts(NOW, True)}),)
    assert of(policy=policy, jobs=jobs, points=proven).state is S.protected


def test_a_verify_that_comes_after_the_proof_is_too_old_is_a_risk() -> None:
    verifying = replace(NIGHTLY, name="proofs", kind="verify", due=(NOW + 5 * DAY,), starts=(NOW + 5 * DAY,))
    policy = replace(promising(proof=MONTHLY), tracks=(NIGHTLY, verifying))
    points = (point(LAST_NIGHT, proofs={BYTES: ProofFacts(NOW - 29 * DAY, True)}),)
    assert told(of(policy=policy, points=points)) == (S.at_risk, "next_verify_too_late")


# --- every error has a cause ----------------------------------------------------------------------

NOT_OF_A_JOB = {
    "gate_": "only a quiesce has a gate",
    "policy_": "answers a change of a policy",
    "retention_invalid": "answers a change of a policy",
    "restore": "only a restore ends with it",
    "usn_rollback_risk": "only a restore ends with it",
    "repository_out_of_reach_of_qemu": "only an instant restore ends with it",
    "repository_taken": "answers a registration",
    "repository_in_use": "answers a removal",
}
"""Prefixes of codes that no snapshot, backup or verify ends with, and why."""


def errors_of_jobs() -> list[type[StillpointError]]:
    def below(error: type[StillpointError]) -> list[type[StillpointError]]:
        return [error, *(one for child in error.__subclasses__() for one in below(child))]

    # A prune protects nobody, and makes no domain less protected. The points of a copy are also in the repository.
    apart = (service.errors.commands, service.errors.requests, service.errors.removal, service.errors.copies)
    others = tuple(module.__name__ for module in apart)
    in_jobs = [one for one in below(StillpointError) if one.__module__.startswith("service.errors.") and one.__module__ not in others]
    return [one for one in in_jobs if not one.code.startswith(tuple(NOT_OF_A_JOB))]


def is_named(error: type[StillpointError]) -> bool:
    """A base that only shares a remedy has no code of its own."""
    return error is StillpointError or "code" in vars(error)


@pytest.mark.parametrize("error", [one for one in errors_of_jobs() if is_named(one)], ids=lambda one: one.__name__)
def test_every_error_that_a_job_ends_with_has_a_cause_and_keeps_its_own_remedy(error: type[StillpointError]) -> None:
    assert error.code in ERROR_CAUSES
    cause = cause_of(error.code)
    job = failed(error.code, remedy=error.remedy_template, in_a_row=2, since=NOW - 2 * DAY)
    found = of(points=nights(3, last=LONG_AGO), jobs=(job,))
    assert told(found) == (S.broken, cause.cause)
    assert found.reason is not None
    assert found.reason.sentence == in_words(cause.sentence, {"since": NOW - 2 * DAY, "jobs": 2, "error_code": error.code}, NOW)
    assert found.reason.remedy == error.remedy_template


def test_the_walk_over_the_errors_finds_them() -> None:
    codes = {one.code for one in errors_of_jobs()}
    assert {"agent_not_answering", "disks_in_doubt", "image_in_use", "copy_differs", "disk_image_missing", "freeze_failed"} <= codes
    assert len(codes) > 60


def test_no_code_stands_in_the_table_that_no_error_has() -> None:
    modules = [module for _, module in inspect.getmembers(service.errors, inspect.ismodule)]
    classes = [one for module in modules for _, one in inspect.getmembers(module, inspect.isclass)]
    assert set(ERROR_CAUSES) <= {one.code for one in classes if issubclass(one, StillpointError)}


def test_each_code_has_one_cause() -> None:
    rows = set(ERROR_CAUSES.values())
    assert sum(len(row.codes) for row in rows) == len(ERROR_CAUSES)


def test_the_code_of_a_newer_version_has_a_reason_that_names_it() -> None:
    found = of(points=nights(3, last=LONG_AGO), jobs=(failed("of_a_newer_version"),))
    assert told(found) == (S.broken, OTHER.cause)
    assert found.reason is not None
    assert "of_a_newer_version" in found.reason.sentence


# --- the table ------------------------------------------------------------------------------------


def test_each_cause_has_one_row_with_a_sentence_and_a_remedy() -> None:
    codes = [cause.code for cause in CAUSES]
    assert len(codes) == len(set(codes))
    assert all(cause.sentence and cause.remedy for cause in CAUSES)


def test_the_last_rows_always_apply_so_that_no_broken_promise_is_without_a_reason() -> None:
    """Of each part the last row that can break it applies to a domain of which nothing is known."""
    policy = promising(proof=MONTHLY)
    bare = Known(DOMAIN, policy, covered_since=NOW - 60 * DAY)
    assert told(protection(replace(bare, policy=PolicyFacts("p", policy.promise, (NIGHTLY,))), NOW)) == (S.broken, "no_new_point")
    assert told(protection(replace(bare, points=(point(NOW),)), NOW)) == (S.broken, "proof_missing")
