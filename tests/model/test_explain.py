"""In plain words: what came of a job, why, and what would lift it."""

from typing import Any

import pytest

from service.errors import SnapshotFailed, VerdictBelowRequired
from service.errors.jobs import PointFate
from service.model.explain import REMEDIES, REMEDIES_WHERE_DONE, explain
from service.model.reasons import Effect, Reason
from service.model.verdict import Verdict


def a_job(**changes: Any) -> dict[str, Any]:
    return {
        "kind": "snapshot",
        "state": "succeeded",
        "phase": None,
        "verdict": "filesystem",
        "verdict_reasons": [],
        "error": None,
    } | changes


@pytest.mark.parametrize("state", ["queued", "running", "interrupted"])
def test_a_job_that_has_not_ended_is_not_judged(state: str) -> None:
    summary = explain(a_job(state=state, phase="freeze", verdict=None))["summary"]
    assert state in summary
    assert "freeze" in summary
    assert "erdict" not in summary


@pytest.mark.parametrize("verdict", Verdict)
def test_every_verdict_has_a_meaning(verdict: Verdict) -> None:
    summary = explain(a_job(verdict=verdict.value))["summary"]
    meaning = summary.partition(f"Verdict {verdict.value}: ")[2]
    assert len(meaning) > 20
    assert len({explain(a_job(verdict=each.value))["summary"].partition(": ")[2] for each in Verdict}) == len(Verdict)


@pytest.mark.parametrize("kind", ["preflight", "thaw"])
def test_a_job_without_a_point_has_no_verdict(kind: str) -> None:
    summary = explain(a_job(kind=kind, verdict=None))["summary"]
    assert kind in summary
    assert not any(f"Verdict {verdict.value}" in summary for verdict in Verdict)


def test_the_error_comes_first_and_its_remedy_too() -> None:
    error = VerdictBelowRequired(verdict="filesystem", required="application", point=PointFate.kept)
    reasons = [Reason("held", Effect.lifts, "It held."), Reason("no_hook", Effect.lowers, "There is no hook.")]
    explained = explain(a_job(state="failed", error=error.as_document(), verdict_reasons=[reason.as_document() for reason in reasons]))
    assert explained["because"] == [error.detail, "It held.", "There is no hook."]
    assert explained["would_lift"][0] == error.remedy
    assert "contrib/fsfreeze-hook" in explained["would_lift"][1]


def test_a_remedy_is_given_once() -> None:
    twice = [Reason("no_hook", Effect.lowers, "One."), Reason("no_hook", Effect.lowers, "Two.")]
    assert len(explain(a_job(verdict_reasons=[reason.as_document() for reason in twice]))["would_lift"]) == 1


def test_a_failed_job_without_a_verdict_has_none() -> None:
    error = SnapshotFailed(domain="db1", message="no space", disks_state="unchanged")
    summary = explain(a_job(state="failed", verdict=None, error=error.as_document()))["summary"]
    assert summary == explain(a_job(state="failed", verdict="none"))["summary"]


ALLOWED: dict[str, Any] = {"agent": {"exec_enabled": True}}


@pytest.mark.parametrize(
    ("code", "survey"),
    [
        ("nothing_frozen", {"filesystems": [{"type": "ext4", "mountpoint": "/data"}]}),
        ("hook_not_inspected", ALLOWED),
        ("writers_unavailable", ALLOWED),
        ("hold_limit_exceeded", {"os": {"id": "mswindows"}}),
    ],
)
def test_nobody_is_advised_to_do_what_is_done_already(code: str, survey: dict[str, Any]) -> None:
    def advice(evidence: dict[str, Any] | None) -> str:
        reasons = [Reason(code, Effect.lowers, "So it is.").as_document()]
        (remedy,) = explain(a_job(verdict_reasons=reasons, evidence=evidence))["would_lift"]
        return str(remedy)

    assert advice(None) == REMEDIES[code]
    assert advice({"survey": {"agent": {"exec_enabled": False}, "os": None, "filesystems": None}}) == REMEDIES[code]
    assert advice({"survey": survey}) == REMEDIES_WHERE_DONE[code] != REMEDIES[code]
