"""A job as text, and the raw texts of its evidence added to it."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from service.db.tables import Job
from service.model.documents import job_as_document, text_of_job, texts_of_job

MADE_AT = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)
MEMBERS = '"windows":{"writers":"a \\"text\\""},"linux":{}'


def a_job(**columns: Any) -> Job:
    return Job(id="one", kind="snapshot", state="running", domain_id="d", domain_name='a "name"\n', created_at=MADE_AT, **columns)


def test_a_list_has_all_but_what_is_read_one_job_at_a_time() -> None:
    job = a_job(evidence={"agent": {}})
    texts = texts_of_job(job)
    entry, details = json.loads(texts["entry"]), json.loads(texts["details"])
    assert entry["domain"] == {"id": "d", "name": 'a "name"\n'}
    assert entry["created_at"] == "2026-03-01T12:00:00.000000Z"
    assert details.keys() == {"vss", "auto_recovery", "evidence"}
    assert json.loads(text_of_job(**texts)) == entry | details == job_as_document(job)


@pytest.mark.parametrize("facts", [{"agent": {"a": {}}}, {"agent": {}}, {"agent": None}, {"windows facts": []}, {}])
def test_raw_texts_stand_in_the_evidence_beside_the_facts(facts: dict[str, Any]) -> None:
    texts = texts_of_job(a_job(evidence=facts))
    assert json.loads(text_of_job(**texts, raw_texts=MEMBERS))["evidence"] == {**facts, **json.loads(f"{{{MEMBERS}}}")}
    assert json.loads(text_of_job(**texts))["evidence"] == facts


def test_a_job_without_evidence_has_none_by_raw_texts_either() -> None:
    texts = texts_of_job(a_job(evidence=None))
    assert json.loads(text_of_job(**texts, raw_texts=MEMBERS))["evidence"] is None


def test_a_job_that_is_not_about_a_domain_says_null() -> None:
    job = Job(id="one", kind="snapshot", state="running", domain_id=None, domain_name=None, created_at=MADE_AT)
    assert job_as_document(job)["domain"] is None
