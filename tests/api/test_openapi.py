"""The OpenAPI document: every call has a name, a summary, examples that fit, and every error it can give."""

from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import pytest
from starlette.testclient import TestClient

from service.api import problems
from service.api.openapi import REASONS
from service.api.schemas import examples, examples_gate
from service.api.schemas.field_texts import FIELD_TEXTS
from service.api.schemas.jobs import JobAnswer, JobSummary
from service.api.schemas.recovery_points import RecoveryPointAnswer
from service.db.tables import Job, RecoveryPoint
from service.model.documents import entry_of_job, job_as_document, point_as_document
from tests.api.undocumented import undocumented
from tests.api.world import NOW


@pytest.fixture
def document(api: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = api.get("/openapi.json").json()
    return found


def test_every_call_of_the_design_is_there(document: dict[str, Any]) -> None:
    assert sorted((operation["operationId"], f"{method} {path}") for path, method, operation in _operations(document)) == [
        ("add_copy", "post /api/v1/repositories/{repository}/copies"),
        ("add_policy", "post /api/v1/policies"),
        ("add_repository", "post /api/v1/repositories"),
        ("apply_policies", "post /api/v1/policies/apply"),
        ("cancel_job", "post /api/v1/jobs/{job_id}/cancel"),
        ("change_copy", "patch /api/v1/repositories/{repository}/copies/{copy}"),
        ("change_policy", "put /api/v1/policies/{policy}"),
        ("change_repository", "patch /api/v1/repositories/{repository}"),
        ("check_repository", "post /api/v1/repositories/{repository}/check"),
        ("create_job", "post /api/v1/jobs"),
        ("explain_job", "get /api/v1/jobs/{job_id}/explain"),
        ("forget_copy", "delete /api/v1/repositories/{repository}/copies/{copy}"),
        ("forget_host", "delete /api/v1/hosts/{host_id}"),
        ("forget_repository", "delete /api/v1/repositories/{repository}"),
        ("get_copy", "get /api/v1/repositories/{repository}/copies/{copy}"),
        ("get_domain", "get /api/v1/domains/{domain}"),
        ("get_job", "get /api/v1/jobs/{job_id}"),
        ("get_policy", "get /api/v1/policies/{policy}"),
        ("get_protection", "get /api/v1/protection/{domain}"),
        ("get_recovery_point", "get /api/v1/recovery-points/{recovery_point_id}"),
        ("get_repository", "get /api/v1/repositories/{repository}"),
        ("get_verification", "get /api/v1/repositories/{repository}/verification"),
        ("health", "get /healthz"),
        ("import_repository", "post /api/v1/repositories/{repository}/import"),
        ("label_domain", "put /api/v1/domains/{domain}/labels"),
        ("list_copied_points", "get /api/v1/repositories/{repository}/copies/{copy}/points"),
        ("list_copies", "get /api/v1/repositories/{repository}/copies"),
        ("list_copy_proofs", "get /api/v1/repositories/{repository}/copies/{copy}/proofs"),
        ("list_domains", "get /api/v1/domains"),
        ("list_domains_of_policy", "get /api/v1/policies/{policy}/domains"),
        ("list_hosts", "get /api/v1/hosts"),
        ("list_jobs", "get /api/v1/jobs"),
        ("list_policies", "get /api/v1/policies"),
        ("list_protection", "get /api/v1/protection"),
        ("list_recovery_points", "get /api/v1/recovery-points"),
        ("list_repositories", "get /api/v1/repositories"),
        ("list_runs_of_policy", "get /api/v1/policies/{policy}/runs"),
        ("metrics", "get /metrics"),
        ("pause_policy", "post /api/v1/policies/{policy}/pause"),
        ("pin_recovery_point", "patch /api/v1/recovery-points/{recovery_point_id}"),
        ("preflight_domain", "post /api/v1/domains/{domain}/preflight"),
        ("preview_policy", "post /api/v1/policies/preview"),
        ("preview_policy_on_record", "post /api/v1/policies/{policy}/preview"),
        ("preview_restore", "post /api/v1/restores/preview"),
        ("preview_retention", "post /api/v1/retention/preview"),
        ("quiesce_domain", "post /api/v1/domains/{domain}/quiesce"),
        ("readiness", "get /readyz"),
        ("release_gate", "post /api/v1/domains/{domain}/quiesce/{job_id}/release"),
        ("remove_policy", "delete /api/v1/policies/{policy}"),
        ("remove_recovery_point", "delete /api/v1/recovery-points/{recovery_point_id}"),
        ("resume_policy", "post /api/v1/policies/{policy}/resume"),
        ("retry_job", "post /api/v1/jobs/{job_id}/retry"),
        ("thaw_domain", "post /api/v1/domains/{domain}/thaw"),
    ]


def test_every_call_has_a_summary_and_an_example_of_every_answer(document: dict[str, Any]) -> None:
    bare = []
    for path, method, operation in _operations(document):
        assert operation["summary"]
        for status, answer in operation["responses"].items():
            content = next(iter(answer["content"].values()))
            schema = content["schema"]
            component = document["components"]["schemas"].get(schema.get("$ref", "").rpartition("/")[2], {})
            if not ({"example", "examples"} & content.keys() or "examples" in component):
                bare.append((method, path, status))
    assert bare == []


def test_every_field_of_every_schema_has_a_text(document: dict[str, Any]) -> None:
    bare = [
        f"{name}.{field}"
        for name, schema in document["components"]["schemas"].items()
        for field, described in (schema.get("properties") or {}).items()
        if not described.get("description")
    ]
    assert bare == []


def test_every_text_for_a_field_is_of_a_field_that_is_there(document: dict[str, Any]) -> None:
    fields = {field for schema in document["components"]["schemas"].values() for field in schema.get("properties") or {}}
    assert FIELD_TEXTS.keys() - fields == set()


def test_every_body_has_an_example_that_is_accepted(document: dict[str, Any], api: TestClient) -> None:
    tried = []
    for path, method, operation in _operations(document):
        for content in operation.get("requestBody", {}).get("content", {}).values():
            for reference in _references(content["schema"]):
                example = document["components"]["schemas"][reference.rpartition("/")[2]]["examples"][0]
                wait = {"wait_ms": 0} if path.endswith("/quiesce") else {}
                named = {
                    "job_id": examples.JOB_ID,
                    "recovery_point_id": examples.POINT_ID,
                    "repository": "nas",
                    "policy": "production",
                    "copy": "offsite",
                }
                place = path.format(domain="db1", **named)
                tried.append(api.request(method, place, json={**example, **wait}).status_code)
    # The gate to release is not there, nor are the repository to back up to and to copy, and the point to plan with, restore, verify,
    # remove, merge and pin.
    assert sorted(tried) == 7 * [200] + 3 * [201] + 4 * [202] + 9 * [404]


def _references(schema: dict[str, Any]) -> list[str]:
    """Of a body that is one thing, one thing or nothing, or one of several things."""
    if "$ref" in schema:
        return [schema["$ref"]]
    return [option["$ref"] for option in schema.get("anyOf", schema.get("oneOf", [])) if "$ref" in option]


def test_every_example_of_a_job_fits_what_is_documented_to_the_last_field() -> None:
    jobs = [value for name, value in vars(examples).items() if name.endswith("JOB")]
    assert len(jobs) == 10
    jobs.append(examples_gate.GATE_JOB)
    for job in jobs:
        assert undocumented(JobAnswer.model_validate(job)) == []


def test_the_schemas_and_the_examples_have_the_fields_that_a_document_has_and_no_others() -> None:
    job, point = Job(id="one", created_at=NOW), RecoveryPoint(id="two", job_id="one", created_at=NOW, point_in_time_at=NOW)
    assert JobSummary.model_fields.keys() == entry_of_job(job).keys() == examples.JOB_SUMMARY.keys()
    assert JobAnswer.model_fields.keys() == job_as_document(job).keys() == examples.JOB.keys()
    assert RecoveryPointAnswer.model_fields.keys() == point_as_document(point).keys() == examples.RECOVERY_POINT.keys()


def test_every_example_is_one_of_its_schema_nulls_included(document: dict[str, Any]) -> None:
    """What is null stands in an answer as null, and so it must in the example that somebody writes a parser after."""
    wrong, tried = [], 0
    for where, schema, example in _examples(document):
        validator = jsonschema_rs.validator_for({**schema, "components": document["components"]})
        wrong += [(where, error.message) for error in validator.iter_errors(example)]
        tried += 1
    assert wrong == []
    assert tried > 50


@pytest.mark.parametrize("name", ["JobAnswer", "DomainAnswer", "HostAnswer", "RecoveryPointAnswer"])
def test_examples_keep_their_nulls(document: dict[str, Any], name: str) -> None:
    (example, *_) = document["components"]["schemas"][name]["examples"]
    assert None in example.values()


def test_answers_keep_theirs_too(document: dict[str, Any]) -> None:
    content = document["paths"]["/api/v1/jobs"]["post"]["responses"]["202"]["content"]["application/json"]
    assert content["example"] == examples.QUEUED_JOB
    assert content["example"]["verdict"] is None


def test_every_error_is_a_documented_problem(document: dict[str, Any]) -> None:
    for path, _method, operation in _operations(document):
        errors = {status: answer for status, answer in operation["responses"].items() if int(status) >= 400}
        assert {kind for answer in errors.values() for kind in answer["content"]} <= {problems.MEDIA_TYPE}
        if path not in ("/healthz", "/readyz"):
            assert {"401", "500", "503"} <= errors.keys()


def test_every_status_has_words_of_its_own() -> None:
    assert set(problems.STATUS.values()) - {405} <= REASONS.keys()


def test_the_token_is_asked_for_everywhere_but_at_health_and_readiness(document: dict[str, Any]) -> None:
    assert document["security"] == [{"token": []}]
    assert [path for path, _, operation in _operations(document) if operation.get("security") == []] == ["/healthz", "/readyz"]


def _examples(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], Any]]:
    """Where it stands, its schema, and the example."""
    for name, schema in document["components"]["schemas"].items():
        for example in schema.get("examples", ()):
            yield name, schema, example
    for path, method, operation in _operations(document):
        for status, answer in operation["responses"].items():
            for content in answer["content"].values():
                found = {"": content.get("example")} | {name: one["value"] for name, one in content.get("examples", {}).items()}
                yield from ((f"{method} {path} {status} {name}", content["schema"], one) for name, one in found.items() if one is not None)


def _operations(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield path, method, operation
